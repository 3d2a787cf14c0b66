//! A container's life under Podman: what its program, conmon and Podman see of it.

use crate::support::wait_until;
use std::time::{Duration, Instant};

/// A program that ends with 5 at SIGTERM.
const POLITE: &str = "trap 'echo got TERM; exit 5' TERM; echo up; while :; do sleep 0.05; done";

#[test]
fn program_has_its_exit_code_and_streams() {
    let podman = podman!();
    let said = podman.run(&[], "echo out; echo err >&2; exit 7").exits(7).prints("out");
    assert_eq!(said.stderr.trim(), "err");
}

#[test]
fn missing_command_is_127() {
    let podman = podman!();
    podman.run_program(&[], &["nosuch"]).exits(127).stderr_contains("executable file not found in $PATH");
}

#[test]
fn directory_is_126() {
    let podman = podman!();
    podman.run_program(&[], &["/etc"]).exits(126).stderr_contains_any(&["permission denied", "is a directory"]);
}

#[test]
fn podman_knows_the_runtimes_version() {
    let podman = podman!();
    ours_only!("podman prints the name and version of ours");
    let said = podman.podman(&["info", "--format", "{{.Host.OCIRuntime.Name}} {{.Host.OCIRuntime.Version}}"]).ok();
    said.stdout_contains("stasis ").stdout_contains(env!("CARGO_PKG_VERSION"));
}

#[test]
fn program_runs_in_a_container() {
    let podman = podman!();
    let container = podman.start(&["--env=WORD=kept"], "echo kept >/x; exec sleep 1000");
    wait_until("the file is written", || container.exec("cat /x").text() == "kept");
    container.exec("echo $WORD; exit 4").exits(4).prints("kept");
    container.podman("exec --detach").fails();
    podman.podman(&["exec", "--detach", container.name(), "sleep", "2000"]).ok();
    wait_until("both are listed", || {
        let top = podman.podman(&["top", container.name(), "args"]).ok().stdout;
        top.contains("sleep 1000") && top.contains("sleep 2000")
    });
}

#[test]
fn program_may_have_a_terminal() {
    let podman = podman!();
    let container = podman.start(&["--tty"], "tty; test -t 1 && echo is one");
    container.says("/dev/pts/0\r\nis one\r\n");
}

#[test]
fn stop_lets_the_program_end() {
    let podman = podman!();
    let container = podman.start(&[], POLITE);
    container.says("up");
    container.podman("stop --time 20").ok();
    assert_eq!(container.inspect("State.ExitCode"), "5");
    assert_eq!(container.logs(), "up\ngot TERM\n");
}

#[test]
fn stop_kills_after_its_timeout() {
    let podman = podman!();
    let container = podman.start(&[], "exec sleep 1000");
    let start = Instant::now();
    container.podman("stop --time 1").ok();
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(container.inspect("State.ExitCode"), "137");
}

#[test]
fn paused_container_goes_on() {
    let podman = podman!();
    let container = podman.start(&[], "while :; do echo tick; sleep 0.02; done");
    container.says("tick");
    container.podman("pause").ok();
    assert_eq!(container.inspect("State.Status"), "paused");
    let written = container.logs();
    container.podman("unpause").ok();
    wait_until("the program goes on", || container.logs() != written);
}

#[test]
fn container_starts_again() {
    let podman = podman!();
    let container = podman.start(&[], POLITE);
    container.says("up");
    container.podman("restart --time 20").ok();
    container.says("up\ngot TERM\nup\n");
}

#[test]
fn limits_hold() {
    let podman = podman!();
    requires!(cgroup_v1);
    let container = podman.start(&["--memory=64m", "--pids-limit=77"], "exec sleep 1000");
    container
        .exec("cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max")
        .ok()
        .prints("67108864\n77");
}
