//! update: limits of a container that is there, as the kernel's files have them afterwards.

use crate::support::{Bundle, Layout, Output, Runtime};
use crate::{ours_only, requires};
use serde_json::{Value, json};
use std::fs;
use std::process::Stdio;

/// The layouts whose controllers are those of v1.
const V1: [Layout; 2] = [Layout::Host, Layout::V1];

fn limited(layout: Layout, resources: Value) -> Runtime {
    Bundle::sleep().with(|config| config["linux"]["resources"] = resources).layout(layout).start()
}

#[track_caller]
fn update(c: &Runtime, options: &[&str]) -> Output {
    c.cmd(&[&["update"], options, &[c.id()]].concat())
}

/// Updates with JSON on standard input.
#[track_caller]
fn update_with(c: &Runtime, resources: &str) -> Output {
    let path = c.bundle().path().join("resources.json");
    fs::write(&path, resources).unwrap();
    let mut command = c.command(&["update", "-r", "-", c.id()]);
    command.stdin(Stdio::from(fs::File::open(path).unwrap()));
    c.output_of(command)
}

#[track_caller]
fn limits(c: &Runtime, expected: &[(&str, &str)]) {
    for (file, value) in expected {
        let controller = file.split('.').next().unwrap();
        assert_eq!(c.limit(controller, file), *value, "{file}");
    }
}

#[test]
fn options_change_limits_and_leave_the_others() {
    requires!(root, cgroup_v1);
    for layout in V1 {
        let memory = json!({"limit": 32 << 20, "reservation": 24 << 20});
        let cpu = json!({"shares": 100, "quota": 500_000, "period": 1_000_000});
        let c = limited(layout, json!({"memory": memory, "cpu": cpu, "pids": {"limit": 20}}));
        update(&c, &["--memory", "50M", "--memory-swap=80m", "--pids-limit", "10", "--cpuset-cpus", "0"]).ok();
        limits(
            &c,
            &[
                ("memory.limit_in_bytes", "52428800"),
                ("memory.memsw.limit_in_bytes", "83886080"),
                ("memory.soft_limit_in_bytes", "25165824"),
                ("pids.max", "10"),
                ("cpuset.cpus", "0"),
                ("cpu.shares", "100"),
                ("cpu.cfs_quota_us", "500000"),
            ],
        );
        // More memory than both together had, and then no limit of either.
        update(&c, &["--memory", "90M", "--memory-swap", "100M", "--memory-reservation", "1g"]).ok();
        limits(&c, &[("memory.limit_in_bytes", "94371840"), ("memory.memsw.limit_in_bytes", "104857600")]);
        limits(&c, &[("memory.soft_limit_in_bytes", "1073741824")]);
        update(&c, &["--memory", "-1", "--pids-limit", "-1"]).ok();
        let unlimited = fs::read_to_string("/sys/fs/cgroup/memory/memory.limit_in_bytes").unwrap();
        limits(&c, &[("memory.limit_in_bytes", unlimited.trim()), ("memory.memsw.limit_in_bytes", unlimited.trim())]);
        limits(&c, &[("pids.max", "max")]);
    }
}

#[test]
fn cpu_time_is_changed_in_parts() {
    requires!(root, cgroup_v1);
    ours_only!("runc 1.1 knows no burst and no idle");
    for layout in V1 {
        let c = limited(layout, json!({"cpu": {"quota": 500_000, "period": 1_000_000}}));
        update(&c, &["--cpu-period", "900000"]).ok();
        limits(&c, &[("cpu.cfs_quota_us", "500000"), ("cpu.cfs_period_us", "900000")]);
        update(&c, &["--cpu-quota", "600000", "--cpu-burst", "1000", "--cpu-share", "200"]).ok();
        limits(&c, &[("cpu.cfs_quota_us", "600000"), ("cpu.cfs_period_us", "900000")]);
        limits(&c, &[("cpu.cfs_burst_us", "1000"), ("cpu.shares", "200")]);
        update(&c, &["--cpu-quota", "-1", "--cpu-burst", "0"]).ok();
        limits(&c, &[("cpu.cfs_quota_us", "-1"), ("cpu.cfs_period_us", "900000")]);
        update(&c, &["--cpu-idle", "1"]).ok();
        limits(&c, &[("cpu.idle", "1")]);
        update(&c, &["--cpu-idle", "0", "--cpu-share", "300"]).ok();
        limits(&c, &[("cpu.idle", "0"), ("cpu.shares", "300")]);
    }
}

#[test]
fn the_weight_of_io_is_changed() {
    requires!(root, cgroup_v1);
    let c = limited(Layout::Host, json!({"blockIO": {"weight": 300}}));
    update(&c, &["--blkio-weight", "200"]).ok();
    let files = ["blkio.weight", "blkio.bfq.weight"].map(|file| c.cgroup("blkio").join(file));
    let weight = files.iter().find_map(|file| fs::read_to_string(file).ok()).unwrap();
    assert_eq!(weight.trim(), "200");
}

#[test]
fn json_changes_limits() {
    requires!(root, cgroup_v1);
    ours_only!("runc 1.1 crashes at a part that is null");
    let c = limited(Layout::Host, json!({"cpu": {"shares": 100}}));
    // As Go reads it, keys are known in any case, and null is nothing.
    let text = r#"{"CPU": {"Cpus": "0", "quota": 30000}, "memory": {"limit": 33554432}, "pids": null}"#;
    // With a file, options are not looked at.
    let path = c.bundle().path().join("limits.json");
    fs::write(&path, text).unwrap();
    update(&c, &["--resources", path.to_str().unwrap(), "--pids-limit", "7"]).ok();
    limits(&c, &[("cpuset.cpus", "0"), ("cpu.cfs_quota_us", "30000"), ("cpu.shares", "100")]);
    limits(&c, &[("memory.limit_in_bytes", "33554432"), ("pids.max", "max")]);
    update_with(&c, r#"{"pids": {"limit": 9}, "cpu": {"period": 50000}}"#).ok();
    let after = [("pids.max", "9"), ("cpu.cfs_quota_us", "30000"), ("cpu.cfs_period_us", "50000")];
    limits(&c, &after);
    // Neither is what has no value, in what was limited before and what was not.
    for text in
        [r#"{"pids": {}}"#, r#"{"pids": {"limit": null}, "cpu": {"burst": null}, "rdma": {"a": {"hcaHandles": null}}}"#]
    {
        update_with(&c, text).ok();
        limits(&c, &after);
    }
    let c = Bundle::sleep().start();
    for text in [r#"{"pids": {}}"#, r#"{"pids": {"limit": null}, "blockIO": {"weight": null}}"#] {
        update_with(&c, text).ok();
        limits(&c, &[("pids.max", "max")]);
    }
}

#[test]
fn limits_change_on_v2() {
    requires!(root, cgroup_v2);
    ours_only!("runc updates no limit of huge pages");
    let c = limited(Layout::V2, json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]}));
    limits(&c, &[("hugetlb.2MB.max", "4194304")]);
    update_with(&c, r#"{"unified": {"hugetlb.2MB.max": "2097152", "cgroup.max.depth": "3"}}"#).ok();
    limits(&c, &[("hugetlb.2MB.max", "2097152"), ("cgroup.max.depth", "3")]);
    // The value that has a name wins over the older one that is a file's.
    update_with(&c, r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 6291456}]}"#).ok();
    limits(&c, &[("hugetlb.2MB.max", "6291456"), ("cgroup.max.depth", "3")]);
    update(&c, &["--memory", "64M"]).exits(1).stderr_contains("controller \"memory\" not available");
    update_with(&c, r#"{"unified": {"memory.max": "5"}}"#).exits(1).stderr_contains("memory");
}

#[test]
fn new_limits_are_kept_for_later_commands() {
    requires!(root, cgroup_v1);
    ours_only!("the state is ours");
    let c = limited(Layout::Host, json!({"cpu": {"quota": 20_000}}));
    update(&c, &["--cpu-quota", "40000", "--pids-limit", "10"]).ok();
    let kept: Value = serde_json::from_slice(&fs::read(c.root().join(c.id()).join("config.json")).unwrap()).unwrap();
    assert_eq!(kept["linux"]["resources"], json!({"cpu": {"quota": 40_000}, "pids": {"limit": 10}}));
    assert_eq!(kept["process"], c.bundle().config()["process"]);
}

#[test]
fn a_container_that_is_frozen_or_only_created_is_updated() {
    requires!(root, cgroup_v1);
    let c = Bundle::sleep().create();
    update(&c, &["--pids-limit", "30"]).ok();
    c.start().ok();
    c.pause().ok();
    update(&c, &["--pids-limit", "31"]).ok();
    assert_eq!(c.status(), "paused");
    limits(&c, &[("pids.max", "31")]);
    c.resume().ok();
}

#[test]
fn devices_stay_as_they_are() {
    requires!(root, cgroup_v1, cgroup_v2);
    for layout in [Layout::Host, Layout::V2] {
        let c = Bundle::sh("while :; do echo >/dev/null || echo denied; sleep 0.001; done").layout(layout).start();
        for _ in 0..20 {
            update_with(&c, r#"{"devices": [{"allow": false, "access": "rwm"}]}"#).ok();
        }
        c.exec_sh("echo >/dev/null && echo allowed").ok().prints("allowed");
        assert_eq!(c.printed() + &c.complained(), "");
    }
}

#[test]
fn what_was_written_is_taken_back_when_the_kernel_refuses_the_rest() {
    requires!(root, cgroup_v1);
    ours_only!("runc 1.1 leaves what was written");
    let c = limited(Layout::Host, json!({"pids": {"limit": 20}, "cpu": {"quota": 20_000}}));
    let refuse = |c: &Runtime, options: &[&str]| {
        let refused = update(c, &[options, &["--cpu-period", "1"]].concat()).exits(1);
        refused.stderr_contains("cpu.cfs_period_us");
    };
    refuse(&c, &["--pids-limit", "5"]);
    limits(&c, &[("pids.max", "20"), ("cpu.cfs_quota_us", "20000")]);
    // Also what was not limited before, or was so by somebody else.
    fs::write(c.cgroup("memory").join("memory.soft_limit_in_bytes"), "40M").unwrap();
    let memory = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"].map(|file| (file, c.limit("memory", file)));
    refuse(&c, &["--memory", "32M", "--memory-swap", "64M", "--memory-reservation", "16M", "--cpu-share", "300"]);
    limits(&c, &memory.each_ref().map(|(file, value)| (*file, value.as_str())));
    limits(&c, &[("memory.soft_limit_in_bytes", "41943040"), ("cpu.shares", "1024")]);
    update(&c, &["--cpu-share", "300"]).ok();
    limits(&c, &[("pids.max", "20"), ("cpu.shares", "300"), ("cpu.cfs_period_us", "100000")]);
    // A file that reads otherwise than it is written keeps nothing from being set back.
    let c = limited(Layout::Host, json!({"memory": {"disableOOMKiller": true}, "cpu": {"shares": 500}}));
    refuse(&c, &["--cpu-share", "300", "--pids-limit", "5"]);
    limits(&c, &[("cpu.shares", "500"), ("pids.max", "max")]);
    // A file that takes its value only after another one has its own.
    let c = limited(Layout::Host, json!({"memory": {"limit": 32 << 20, "swap": 64 << 20}}));
    fs::write(c.cgroup("memory").join("memory.memsw.limit_in_bytes"), "80M").unwrap();
    fs::write(c.cgroup("memory").join("memory.limit_in_bytes"), "40M").unwrap();
    for other in [["--memory", "128M", "--memory-swap", "256M"], ["--memory", "16M", "--memory-swap", "20M"]] {
        refuse(&c, &other);
        limits(&c, &[("memory.limit_in_bytes", "41943040"), ("memory.memsw.limit_in_bytes", "83886080")]);
    }
}

#[test]
fn failures_are_one_line() {
    requires!(root, cgroup_v1);
    ours_only!("the words are ours");
    let c = Bundle::sleep().start();
    let one_line = |output: Output, words: &str| {
        let output = output.exits(1).stderr_contains(words);
        assert_eq!(output.stderr.lines().count(), 1, "{output}");
        assert_eq!(output.stdout, "", "{output}");
    };
    one_line(update(&c, &["--cpu-share", "many"]), "invalid value for cpu-share");
    one_line(update(&c, &["--memory", "1x"]), "invalid value for memory: invalid size");
    one_line(update(&c, &["--memory", "2m", "--memory-swap", "1m"]), "memory");
    one_line(update(&c, &["--cpu-share", "1"]), "the minimum allowed cpu-shares is 2");
    one_line(update(&c, &["--blkio-weight", "2000"]), "weight");
    one_line(update(&c, &["--l3-cache-schema", "L3:0=f"]), "l3 cache schema is not enabled");
    one_line(update(&c, &["--mem-bw-schema", "MB:0=20"]), "memory bandwidth schema is not enabled");
    one_line(update(&c, &["-r", "/nonexistent/file"]), "/nonexistent/file");
    one_line(update_with(&c, "{"), "parse resources");
    one_line(update_with(&c, "7"), "invalid resources: not an object");
    one_line(update_with(&c, r#"{"memory": {"limit": "much"}}"#), "invalid resources: ");
    one_line(update_with(&c, r#"{"unified": {"pids.max": "5"}}"#), "cannot use unified on cgroup v1");
    one_line(c.cmd(&["update", "--memory", "64m", "missing"]), "container does not exist");
    c.kill("KILL").ok();
    c.wait_for("stopped");
    one_line(update(&c, &["--memory", "64m"]), "container not running");
}

#[test]
fn kernel_memory_is_ignored_with_a_warning() {
    requires!(root, cgroup_v1);
    let c = Bundle::sleep().start();
    update(&c, &["--kernel-memory", "5m", "--pids-limit", "7"])
        .ok()
        .stderr_contains_any(&["--kernel-memory is ignored", "Kernel memory settings are ignored"]);
    limits(&c, &[("pids.max", "7")]);
    assert!(!c.cmd(&["update", "--help"]).ok().stdout.contains("kernel-memory"));
}
