//! What fails, what is said about it, and what is left: a running container of a checkpoint, nothing of a restore.

use crate::support::{Bundle, Runtime, wait_until};
use crate::{COUNTER, Checkpointed, children, ours_only, path_with, programs, requires};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use stasis::sys::pidfd;
use std::fs;
use std::os::fd::AsFd;
use std::process::Stdio;

#[test]
fn a_created_container_is_refused() {
    requires!(root, criu);
    let runtime = Bundle::sleep().create();
    let c = Checkpointed { runtime, place: tempfile::tempdir().unwrap() };
    c.checkpoint(&[]).exits(1).stderr_contains("ontainer cannot be checkpointed in created state");
}

#[test]
fn a_container_that_is_not_there_is_named() {
    requires!(root, criu);
    let c = Checkpointed::of(Bundle::sleep());
    c.checkpoint(&[]).exits(1).stderr_contains("does not exist");
    c.restore(&[]).exits(1);
    c.runtime.leaves_nothing();
}

#[test]
fn a_failed_dump_leaves_the_container_as_it_was() {
    requires!(root, criu);
    // CRIU is told to refuse content that is open and has no name.
    let script = format!("exec 3>/dev/shm/gone; rm /dev/shm/gone; head -c 9999 /dev/zero >&3; {COUNTER}");
    let bundle = Bundle::sh(&script);
    let settings = bundle.path().join("source");
    fs::write(&settings, "ghost-limit 1\n").unwrap();
    let c = Checkpointed::run(bundle.with(|config| config["annotations"] = json!({"org.criu.config": settings})));
    wait_until("the counter counts", || c.count() > 0);
    let output = c.checkpoint(&[]).exits(1).stderr_contains("criu failed: type NOTIFY errno 0");
    assert_eq!(c.runtime.status(), "running");
    c.counts();
    if crate::support::is_oracle() {
        return;
    }
    // The cause is in the first line, CRIU's own words in the lines after it.
    let mut lines = output.stderr.lines();
    assert!(lines.next().unwrap().contains("Can't dump ghost file"), "{output}");
    let log = c.images().join("dump.log");
    assert_eq!(lines.next().unwrap(), format!("--- Quoting {log:?}"));
    assert!(lines.any(|line| line.contains("Error (criu/files-reg.c")), "{output}");
    assert!(c.log("dump.log").contains("Dumping FAILED"));
}

#[test]
fn the_container_goes_on_when_criu_or_the_runtime_is_killed() {
    requires!(root, criu);
    ours_only!("other runtimes leave it frozen when CRIU is killed");
    let c = Checkpointed::counter();
    // Long enough for this test to see that CRIU is there.
    let programs = programs("sleep 1; exec tar \"$@\"");
    for whom in ["criu", "runtime"] {
        let mut checkpoint = c.line("checkpoint", &[]);
        checkpoint.env("PATH", path_with(programs.path())).stdout(Stdio::null()).stderr(Stdio::null());
        let mut runtime = checkpoint.spawn().unwrap();
        // What it does first is to freeze them.
        wait_until("criu turns to the processes", || {
            fs::read_to_string(c.images().join("dump.log")).is_ok_and(|log| log.contains("Dumping processes"))
        });
        let criu = children(runtime.id()).trim().parse().unwrap();
        let criu_ends = pidfd::open(criu).unwrap();
        match whom {
            "criu" => kill(Pid::from_raw(criu), Signal::SIGKILL).unwrap(),
            _ => runtime.kill().unwrap(),
        }
        assert!(!runtime.wait().unwrap().success());
        // A CRIU that nobody listens to goes on until it has something to say, and then takes everything back.
        assert!(pidfd::wait_ended(criu_ends.as_fd(), 60_000).unwrap());
        let log = c.log("dump.log");
        let tail = log.lines().rev().take(5).collect::<Vec<_>>();
        wait_until(&format!("the container goes on without {whom}: {tail:#?}"), || c.runtime.status() == "running");
        c.counts();
        fs::remove_dir_all(c.images()).unwrap();
    }
}

#[test]
fn a_failed_restore_leaves_nothing() {
    requires!(root, criu);
    let c = Checkpointed::counter();
    c.checkpoint(&[]).ok();
    let mut images = fs::read_dir(c.images()).unwrap().map(|entry| entry.unwrap().path());
    let core = images.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("core-")).unwrap();
    let good = fs::read(&core).unwrap();
    fs::write(&core, &good[..good.len() / 2]).unwrap();
    c.restore(&[]).exits(1).stderr_contains("criu failed: type");
    c.runtime.leaves_nothing();
    fs::write(&core, good).unwrap();
    c.restore(&[]).ok();
    c.counts();
}

#[test]
fn a_failed_hook_undoes_the_restore() {
    requires!(root, criu);
    let mut c = Checkpointed::counter();
    c.checkpoint(&[]).ok();
    for kind in ["prestart", "createRuntime"] {
        let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", "exit 5"]}]);
        c.runtime.edit(|config| config["hooks"] = json!({kind: hook}));
        c.restore(&[]).exits(1).stderr_contains("exit status 5");
        c.runtime.leaves_nothing();
    }
}

#[test]
fn a_pid_file_that_cannot_be_written_ends_what_was_restored() {
    requires!(root, criu);
    let c = Checkpointed::counter();
    c.checkpoint(&[]).ok();
    c.restore(&["--pid-file", "/nowhere/at/all"]).exits(1).stderr_contains("/nowhere/at/");
    c.runtime.leaves_nothing();
}

#[test]
fn a_name_that_is_taken_is_refused() {
    requires!(root, criu);
    let c = Checkpointed::counter();
    c.checkpoint(&["--leave-running"]).ok();
    c.restore(&[]).exits(1).stderr_contains("container with given ID already exists");
    c.counts();
}

#[test]
fn wrong_options_are_refused_before_anything_is_touched() {
    requires!(root, criu);
    let c = Checkpointed::counter();
    let cases = [
        (&["--parent-path", "/absolute"][..], "--parent-path must be relative"),
        (&["--parent-path", "../none"], "invalid --parent-path"),
        (&["--page-server", "nowhere"], "Use --page-server ADDRESS:PORT to specify page server"),
        (&["--page-server", "host:port"], "Invalid port number"),
        (&["--empty-ns", "ipc"], "ipc\\\" is not supported"),
    ];
    for (options, words) in cases {
        c.checkpoint(options).exits(1).stderr_contains(words);
    }
    c.checkpoint(&["--manage-cgroups-mode", "x"])
        .exits(1)
        .stderr_contains_any(&["invalid manage-cgroups-mode value", "Invalid manage cgroups mode"]);
    c.counts();
}

#[test]
fn what_the_kernel_lacks_is_named() {
    requires!(root, criu);
    ours_only!("runc and crun word it in their own way");
    let c = Checkpointed::counter();
    let output = c.checkpoint(&["--pre-dump"]);
    // Soft-dirty tracking is a kernel's option.
    if output.code != 0 {
        let words = "criu is missing features: [MemTrack]: --pre-dump needs a kernel that tracks which memory changes";
        output.stderr_contains(words);
    }
    c.counts();
}

#[test]
fn a_criu_that_is_not_there_is_named() {
    requires!(root);
    ours_only!("other runtimes load a library, or look elsewhere");
    let c = Runtime::new(Bundle::sleep());
    let mut command = c.command(&["checkpoint", "--help"]);
    command.env_remove("PATH");
    c.output_of(command).ok().stdout_contains("--image-path");
}
