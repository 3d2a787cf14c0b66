//! The limits of `docker run`, as the container sees them in its cgroup, on v1 and v2.

use std::path::Path;

/// Expects that a container with the option reads the value in the file of its cgroup.
#[track_caller]
fn expect(option: &str, v1: (&str, &str), v2: (&str, &str)) {
    let docker = docker!();
    let is_v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let (file, value) = if is_v2 { v2 } else { v1 };
    docker.run_program(&[option], &["cat", &format!("/sys/fs/cgroup/{file}")]).ok().prints(value);
}

#[test]
fn memory() {
    expect("--memory=64m", ("memory/memory.limit_in_bytes", "67108864"), ("memory.max", "67108864"));
}

#[test]
fn memory_reservation() {
    let v1 = ("memory/memory.soft_limit_in_bytes", "33554432");
    expect("--memory-reservation=32m", v1, ("memory.low", "33554432"));
}

#[test]
fn cpus() {
    expect("--cpus=0.5", ("cpu/cpu.cfs_quota_us", "50000"), ("cpu.max", "50000 100000"));
}

#[test]
fn cpu_shares() {
    expect("--cpu-shares=512", ("cpu/cpu.shares", "512"), ("cpu.weight", "20"));
}

#[test]
fn cpu_set() {
    expect("--cpuset-cpus=0", ("cpuset/cpuset.cpus", "0"), ("cpuset.cpus", "0"));
}

#[test]
fn pids() {
    expect("--pids-limit=17", ("pids/pids.max", "17"), ("pids.max", "17"));
}

#[test]
fn limits_are_updated() {
    let docker = docker!();
    let container = docker.start(&["--memory=64m", "--cpus=0.5"], "sleep 1000");
    let options = ["--memory=96m", "--memory-swap=128m", "--cpu-shares=512", "--pids-limit=19"];
    docker.docker(&[&["update"], &options[..], &[container.id()]].concat()).ok();
    let is_v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let files = match is_v2 {
        true => ["memory.max", "memory.swap.max", "pids.max", "cpu.max"],
        false => [
            "memory/memory.limit_in_bytes",
            "memory/memory.memsw.limit_in_bytes",
            "pids/pids.max",
            "cpu/cpu.cfs_quota_us",
        ],
    };
    let values = if is_v2 { "100663296 33554432 19 50000 100000" } else { "100663296 134217728 19 50000" };
    let script = format!("cd /sys/fs/cgroup; echo $(cat {})", files.join(" "));
    container.exec(&[], &script).ok().prints(values);
}

#[test]
fn limit_of_pids_holds() {
    let docker = docker!();
    let script = "for n in 1 2 3 4 5 6 7 8; do sleep 5 & done; echo all";
    docker.run(&["--pids-limit=5"], script).fails().stderr_contains("can't fork");
}

#[test]
fn death_by_memory_is_told_as_such() {
    let docker = docker!();
    let script = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done";
    let container = docker.start(&["--memory=16m"], script);
    container.becomes("exited");
    assert_eq!(container.inspect("State.OOMKilled"), "true");
    assert_eq!(container.inspect("State.ExitCode"), "137");
}
