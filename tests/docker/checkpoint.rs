//! `docker checkpoint` and `docker start --checkpoint`.
//!
//! dockerd sets the network of a restored container up before the container has a process, which fails for networks
//! that need one: `--network host` needs none.

use crate::container::Container;
use crate::daemon::Daemon;

/// Writes what is in /dev/shm and a growing number, as long as it lives.
const COUNT: &str = "echo kept >/dev/shm/x; n=0; while :; do n=$((n+1)); echo $n $(cat /dev/shm/x); sleep 0.05; done";

/// Starts the counting container with a /dev/shm of its own, and waits until it has counted a little.
fn counting(docker: &Daemon) -> Container<'_> {
    let container = docker.start(&["--network=host", "--ipc=private"], COUNT);
    container.says("\n3 ");
    container
}

/// Expects that the container goes on counting where it was, and still has its shared memory.
#[track_caller]
fn expect_to_go_on(container: &Container<'_>, before: &str) {
    let last = count(before);
    container.says(&format!("\n{} kept\n", last + 3));
    let logs = container.logs();
    let counted: Vec<u32> = logs.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    assert!(counted.windows(2).all(|pair| pair[1] == pair[0] + 1), "{logs}");
    container.exec(&[], "cat /dev/shm/x").ok().prints("kept");
}

fn count(logs: &str) -> u32 {
    logs.lines().last().unwrap().split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn private_shared_memory_comes_back() {
    let docker = docker!();
    requires!(criu);
    let container = counting(docker);
    docker.docker(&["checkpoint", "create", container.name(), "cp1"]).ok();
    container.becomes("exited");
    let before = container.logs();
    container.restore("cp1");
    expect_to_go_on(&container, &before);
    container.docker("stop -t 0").ok();
}

#[test]
fn container_runs_on_when_left_running() {
    let docker = docker!();
    requires!(criu);
    let container = counting(docker);
    docker.docker(&["checkpoint", "create", "--leave-running", container.name(), "cp1"]).ok();
    assert_eq!(container.inspect("State.Status"), "running");
    expect_to_go_on(&container, &container.logs());
}

#[test]
fn checkpoint_is_taken_of_a_restored_container() {
    let docker = docker!();
    requires!(criu);
    let container = counting(docker);
    for checkpoint in ["cp1", "cp2"] {
        docker.docker(&["checkpoint", "create", container.name(), checkpoint]).ok();
        container.becomes("exited");
        let before = container.logs();
        container.restore(checkpoint);
        expect_to_go_on(&container, &before);
    }
    docker.docker(&["checkpoint", "ls", container.name()]).ok().stdout_contains("cp1").stdout_contains("cp2");
}

#[test]
fn terminal_comes_back() {
    let docker = docker!();
    requires!(criu);
    let container = docker.start(&["--network=host", "--ipc=private", "-t"], "while :; do tty; sleep 0.05; done");
    container.says("/dev/pts/0");
    docker.docker(&["checkpoint", "create", container.name(), "cp1"]).ok();
    container.becomes("exited");
    let before = container.logs();
    container.restore("cp1");
    crate::support::wait_until("it goes on writing to its terminal", || container.logs().len() > before.len() + 30);
}

#[test]
fn limits_and_confinement_come_back() {
    let docker = docker!();
    requires!(criu);
    ours_only!("runc 1.1 restores into a cgroup without the limits");
    let options = ["--network=host", "--ipc=private", "--memory=64m", "--cap-drop=CHOWN"];
    let container = docker.start(&options, "exec sleep 1000");
    let script = "grep -E '^(Cap|Seccomp:|Uid)' /proc/1/status; \
        cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max";
    let before = container.exec(&[], script).ok();
    docker.docker(&["checkpoint", "create", container.name(), "cp1"]).ok();
    container.becomes("exited");
    container.restore("cp1");
    container.exec(&[], script).ok().prints(before.text());
    container.docker("kill").ok();
}
