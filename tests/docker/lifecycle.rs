//! A container's life under dockerd: stop, kill, pause, restart, and what docker reports on the way.

use crate::support::wait_until;
use std::time::{Duration, Instant};

/// A program that says which signals it gets, and ends with 5 at SIGTERM.
const POLITE: &str = "trap 'echo got TERM; exit 5' TERM; trap 'echo got USR1' USR1; echo up; \
    while :; do sleep 0.05; done";

/// A program that stays until it is killed: the first process of a pid namespace ignores what it does not catch.
const STAY: &str = "exec sleep 1000";

#[test]
fn stop_lets_the_program_end() {
    let docker = docker!();
    let container = docker.start(&[], POLITE);
    container.says("up");
    container.docker("stop -t 20").ok();
    assert_eq!(container.inspect("State.ExitCode"), "5");
    assert_eq!(container.logs(), "up\ngot TERM\n");
}

#[test]
fn stop_kills_after_its_timeout() {
    let docker = docker!();
    let container = docker.start(&[], STAY);
    let start = Instant::now();
    container.docker("stop -t 1").ok();
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(container.inspect("State.ExitCode"), "137");
}

#[test]
fn stop_sends_the_containers_own_signal() {
    let docker = docker!();
    let container = docker.start(&["--stop-signal=USR1"], POLITE);
    container.says("up");
    container.docker("stop -t 1").ok();
    assert_eq!(container.logs(), "up\ngot USR1\n");
}

#[test]
fn kill_sends_any_signal() {
    let docker = docker!();
    let container = docker.start(&[], POLITE);
    container.says("up");
    container.docker("kill --signal USR1").ok();
    container.says("got USR1");
    assert_eq!(container.inspect("State.Status"), "running");
    container.docker("kill --signal 15").ok();
    container.becomes("exited");
    assert_eq!(container.inspect("State.ExitCode"), "5");
}

#[test]
fn kill_ends_the_container() {
    let docker = docker!();
    let container = docker.start(&[], STAY);
    container.docker("kill").ok();
    container.becomes("exited");
    assert_eq!(container.inspect("State.ExitCode"), "137");
    container.docker("kill").fails().stderr_contains("is not running");
}

#[test]
fn kill_ends_processes_in_the_hosts_pid_namespace() {
    let docker = docker!();
    let container = docker.start(&["--pid=host"], "sleep 1234567 & echo up; wait");
    container.says("up");
    container.docker("kill").ok();
    container.becomes("exited");
    wait_until("nothing of it is left", || docker.run(&["--pid=host"], "ps | grep '[s]leep 1234567'").code == 1);
}

#[test]
fn pause_stops_the_clock() {
    let docker = docker!();
    let container = docker.start(&[], "while :; do echo tick; sleep 0.02; done");
    container.says("tick");
    container.docker("pause").ok();
    container.becomes("paused");
    let written = container.logs();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(container.logs(), written);
    container.docker("unpause").ok();
    container.becomes("running");
    wait_until("the program goes on", || container.logs() != written);
}

#[test]
fn paused_container_is_removed() {
    let docker = docker!();
    let container = docker.start(&[], STAY);
    container.docker("pause").ok();
    container.docker("rm --force").ok();
    assert_eq!(container.holdings(), [""; 0].map(std::path::PathBuf::from));
}

#[test]
fn wait_returns_the_exit_code() {
    let docker = docker!();
    let container = docker.start(&[], "sleep 0.3; exit 9");
    container.docker("wait").ok().prints("9");
}

#[test]
fn logs_keep_both_streams() {
    let docker = docker!();
    let container = docker.start(&[], "echo out; echo err >&2");
    container.becomes("exited");
    let logs = container.docker("logs").ok().prints("out");
    assert_eq!(logs.stderr, "err\n");
}

#[test]
fn restart_begins_again() {
    let docker = docker!();
    let container = docker.start(&[], POLITE);
    container.says("up");
    container.docker("restart -t 20").ok();
    container.says("up\ngot TERM\nup\n");
    assert_eq!(container.inspect("State.Status"), "running");
}

#[test]
fn stopped_container_starts_again() {
    let docker = docker!();
    let container = docker.start(&[], "echo run >>/runs; wc -l </runs");
    container.becomes("exited");
    container.docker("start -a").ok().prints("2");
}

#[test]
fn failing_program_is_started_again() {
    let docker = docker!();
    let container = docker.start(&["--restart=on-failure:2"], "echo run; exit 4");
    wait_until("the program ran three times", || container.logs() == "run\nrun\nrun\n");
    container.becomes("exited");
    assert_eq!(container.inspect("RestartCount"), "2");
}

#[test]
fn renamed_container_is_the_same() {
    let docker = docker!();
    let mut container = docker.start(&[], STAY);
    container.rename("renamed");
    container.exec(&[], "echo here").ok().prints("here");
    assert_eq!(container.inspect("Name"), "/renamed");
}

#[test]
fn top_lists_the_processes() {
    let docker = docker!();
    let container = docker.start(&[], "sleep 1000 & exec sleep 2000");
    container.exec(&["-d"], "exec sleep 3000").ok();
    wait_until("all three are listed", || {
        let top = docker.docker(&["top", container.name(), "-o", "pid,args"]).ok().stdout;
        ["sleep 1000", "sleep 2000", "sleep 3000"].iter().all(|line| top.contains(line))
    });
}

#[test]
fn stats_come_from_its_cgroup() {
    let docker = docker!();
    let container = docker.start(&["--memory=64m"], "sleep 1000 & sleep 2000 & echo up; wait");
    container.says("up");
    let stats = container.docker("stats --no-stream --format {{.MemUsage}},{{.PIDs}}").ok();
    stats.stdout_contains("/ 64MiB").stdout_contains(",3");
}

#[test]
fn inspect_tells_the_first_process() {
    let docker = docker!();
    let container = docker.start(&["--pid=host"], "echo $$; exec sleep 1000");
    container.says("\n");
    assert_eq!(container.inspect("State.Pid"), container.logs().trim());
}

#[test]
fn commit_keeps_what_was_written() {
    let docker = docker!();
    let container = docker.start(&[], "echo written >/x; exec sleep 1000");
    wait_until("the file is written", || container.exec(&[], "cat /x").text() == "written");
    docker.docker(&["commit", container.name(), "committed"]).ok();
    docker.docker(&["run", "--rm", "--network=none", "committed", "cat", "/x"]).ok().prints("written");
    assert_eq!(container.inspect("State.Status"), "running");
}
