//! `podman container checkpoint` and `restore`, where Podman keeps the images itself.

use crate::engine::{Container, Podman};
use crate::support::wait_until;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes a growing number, as long as it lives.
const COUNT: &str = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done";

/// Starts a container that counts in its memory, and waits until it has counted a little.
fn counting<'a>(podman: &'a Podman, options: &[&str]) -> Container<'a> {
    let container = podman.start(options, COUNT);
    container.says("3\n");
    container
}

/// Returns where a container that counts has come to; it has left no number out.
#[track_caller]
fn count(container: &Container<'_>) -> u32 {
    let logs = container.logs();
    let counted: Vec<u32> = logs.lines().map(|line| line.trim().parse().unwrap()).collect();
    assert!(counted.windows(2).all(|pair| pair[1] == pair[0] + 1), "{logs}");
    *counted.last().unwrap()
}

/// Expects a container to go on counting from where it was.
#[track_caller]
fn expect_to_count_on(container: &Container<'_>) {
    let before = count(container);
    wait_until("it counts on", || count(container) > before + 2);
}

#[test]
fn container_goes_on_with_its_log() {
    let podman = podman!();
    requires!(criu);
    let container = counting(podman, &[]);
    for _ in 0..2 {
        container.checkpoint(&[]).ok();
        assert_eq!(container.inspect("State.Checkpointed"), "true");
        container.restore(&[]).ok();
        assert_eq!(container.inspect("State.Status"), "running");
        expect_to_count_on(&container);
    }
    container.podman("stop --time 0").ok();
    assert_eq!(container.inspect("State.ExitCode"), "137");
}

#[test]
fn container_runs_on_when_left_running() {
    let podman = podman!();
    requires!(criu);
    let container = counting(podman, &[]);
    let pid = container.inspect("State.Pid");
    container.checkpoint(&["--leave-running"]).ok();
    assert_eq!((container.inspect("State.Status").as_str(), container.inspect("State.Pid")), ("running", pid));
    expect_to_count_on(&container);
}

#[test]
fn files_are_kept_when_asked_for() {
    let podman = podman!();
    requires!(criu);
    let container = counting(podman, &[]);
    let files = podman.files(container.id());
    container.checkpoint(&["--keep"]).ok();
    for name in ["dump.log", "stats-dump", "checkpoint/pstree.img"] {
        assert!(files.join(name).exists(), "{name}");
    }
    let at = count(&container);
    container.restore(&["--keep"]).ok();
    for name in ["restore.log", "stats-restore", "checkpoint/pstree.img"] {
        assert!(files.join(name).exists(), "{name}");
    }
    expect_to_count_on(&container);
    // Back to where it was.
    container.podman("kill").ok();
    container.becomes("exited");
    let lines = container.logs().lines().count();
    container.restore(&[]).ok();
    wait_until("it counts again", || container.logs().lines().count() > lines);
    let again: u32 = container.logs().lines().nth(lines).unwrap().parse().unwrap();
    assert!(again <= at + 1, "{again}, not {at} and one");
    assert!(!files.join("checkpoint/pstree.img").exists());
}

#[test]
fn statistics_are_printed() {
    let podman = podman!();
    requires!(criu);
    let container = counting(podman, &[]);
    let positive = |json: &Value, pointer: &str| {
        assert!(json.pointer(pointer).and_then(Value::as_u64).unwrap_or(0) > 0, "{pointer}: {json}");
    };
    let dumped = container.checkpoint(&["--print-stats"]).ok().json();
    for name in ["runtime_checkpoint_duration", "criu_statistics/frozen_time", "criu_statistics/pages_written"] {
        positive(&dumped, &format!("/container_statistics/0/{name}"));
    }
    let restored = container.restore(&["--print-stats"]).ok().json();
    for name in ["runtime_restore_duration", "criu_statistics/restore_time", "criu_statistics/pages_restored"] {
        positive(&restored, &format!("/container_statistics/0/{name}"));
    }
}

#[test]
fn connections_survive_when_asked_for() {
    let podman = podman!();
    requires!(criu);
    ours_only!("other runtimes leave the loopback interface down");
    let script = "sleep 1000 | nc -l -p 5000 >/received & sleep 0.2; \
        while :; do echo line; sleep 0.05; done | nc 127.0.0.1 5000";
    let container = podman.start(&[], script);
    let received = || container.exec("wc -l </received").text().parse::<u32>().unwrap_or(0);
    wait_until("lines come through", || received() > 3);
    container.checkpoint(&[]).fails().stderr_contains("tcp");
    assert_eq!(container.inspect("State.Status"), "running");
    container.checkpoint(&["--tcp-established"]).ok();
    container.restore(&["--tcp-established"]).ok();
    let before = received();
    wait_until("more lines come through", || received() > before + 3);
}

#[test]
fn locks_survive_when_asked_for() {
    let podman = podman!();
    requires!(criu);
    ours_only!("the file without a name is larger than what runc's CRIU keeps by default");
    let container = podman.start_program(&[], &["shm_keeper", "lock"]);
    container.keeps(1);
    let taken = || {
        let root = container.podman("mount").ok();
        let file = std::fs::File::open(Path::new(root.text()).join("keeper")).unwrap();
        matches!(Flock::lock(file, FlockArg::LockExclusiveNonblock), Err((_, Errno::EWOULDBLOCK)))
    };
    assert!(taken());
    container.checkpoint(&[]).fails().stderr_contains("--file-locks");
    container.keeps(3);
    container.checkpoint(&["--file-locks"]).ok();
    assert!(!taken());
    container.restore(&["--file-locks"]).ok();
    container.keeps(3);
    assert!(taken());
}

#[test]
fn terminal_comes_back() {
    let podman = podman!();
    requires!(criu);
    let container = podman.start(&["--tty"], "while :; do tty; sleep 0.05; done");
    container.says("/dev/pts/0");
    container.checkpoint(&[]).ok();
    let before = container.logs().len();
    container.restore(&[]).ok();
    wait_until("it goes on writing to its terminal", || container.logs().len() > before + 30);
    container.exec("tty </proc/1/fd/0").ok().prints("/dev/pts/0");
}

#[test]
fn limits_and_confinement_come_back() {
    let podman = podman!();
    requires!(criu);
    ours_only!("runc 1.1 restores into a cgroup without the limits");
    let container = podman.start(&["--memory=64m", "--cap-drop=CHOWN"], "exec sleep 1000");
    let script = "grep -E '^(Cap|Seccomp:|Uid)' /proc/1/status; \
        cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max";
    let before = container.exec(script).ok();
    container.checkpoint(&[]).ok();
    container.restore(&[]).ok();
    container.exec(script).ok().prints(before.text());
}

#[test]
fn volumes_are_there_again() {
    let podman = podman!();
    requires!(criu);
    let volume = podman.free_name();
    let script = "exec 5>>/data/log; n=0; while :; do n=$((n+1)); echo $n >&5; echo $n; sleep 0.05; done";
    let container = podman.start(&[&format!("--volume={volume}:/data")], script);
    container.says("3\n");
    container.checkpoint(&[]).ok();
    container.restore(&[]).ok();
    expect_to_count_on(&container);
    container.podman("stop --time 0").ok();
    // It may have been stopped in between.
    let (log, logs) = (podman.run(&[&format!("--volume={volume}:/data")], "cat /data/log").ok(), container.logs());
    assert!(log.stdout == logs || log.stdout.starts_with(&logs), "{log}, and {logs}");
    drop(container);
    podman.podman(&["volume", "rm", &volume]).ok();
}

/// Says whether the kernel tracks which pages are written.
fn tracks_memory() -> bool {
    let mut check = Command::new("criu");
    check.args(["check", "--feature", "mem_dirty_track"]).stdout(Stdio::null()).stderr(Stdio::null());
    check.status().is_ok_and(|status| status.success())
}

#[test]
fn memory_is_saved_beforehand_or_refused() {
    let podman = podman!();
    requires!(criu);
    let container = counting(podman, &[]);
    if !tracks_memory() {
        container.checkpoint(&["--pre-checkpoint"]).fails().stderr_contains_any(&["MemTrack", "missing features"]);
        expect_to_count_on(&container);
        return;
    }
    let file = |name: &str| podman.dir().join(format!("{}-{name}.tar", container.name())).display().to_string();
    let (before, rest) = (file("before"), file("rest"));
    container.checkpoint(&["--pre-checkpoint", "--export", &before]).ok();
    expect_to_count_on(&container);
    container.checkpoint(&["--with-previous", "--export", &rest]).ok();
    container.podman("rm").ok();
    podman.podman(&["container", "restore", "--import-previous", &before, "--import", &rest]).ok();
    expect_to_count_on(&container);
}
