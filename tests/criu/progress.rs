//! What `checkpoint` and `restore` tell while they go on: programs that ask, and people at a terminal.

use crate::support::{Bundle, Output, read_until, wait_until};
use crate::{Checkpointed, ours_only, requires};
use serde_json::{Value, json};
use std::fs::File;
use std::process::{Command, Stdio};

/// Returns the events of an output, and checks that there is nothing else in it.
#[track_caller]
fn events(output: &Output) -> Vec<Value> {
    assert_eq!(output.stderr, "", "{output}");
    let all: Vec<Value> = output.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let times = all.iter().map(|event| event["elapsedMicros"].as_u64().unwrap());
    assert!(times.is_sorted(), "{output}");
    all
}

fn phases(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["phase"].as_str().unwrap_or(event["event"].as_str().unwrap())).collect()
}

/// Has a mebibyte in /dev/shm.
fn with_a_mebibyte() -> Bundle {
    Bundle::sh("head -c 1048576 /dev/zero > /dev/shm/much; touch /dev/shm/ready; while true; do sleep 0.1; done")
}

#[track_caller]
fn run(bundle: Bundle) -> Checkpointed {
    let c = Checkpointed::run(bundle);
    wait_until("it is ready", || c.runtime.exec(&["ls", "/dev/shm"]).stdout.contains("ready"));
    c
}

#[test]
fn programs_are_told_an_object_a_line() {
    requires!(root, criu);
    ours_only!("runc tells nothing");
    let c = run(with_a_mebibyte());
    let told = events(&c.checkpoint(&["--progress", "json"]).ok());
    assert_eq!(phases(&told), ["checking", "freezing", "memory", "done"]);
    let done = told.last().unwrap();
    assert!(done["frozenMicros"].as_u64().unwrap() > 0, "{done}");
    assert!(done["frozenMicros"].as_u64() < done["elapsedMicros"].as_u64(), "{done}");
    assert!(done["pages"].as_u64().unwrap() > 10, "{done}");
    assert_eq!(done["bytes"].as_u64().unwrap(), done["pages"].as_u64().unwrap() * 4096);
    assert_eq!(done["shmBytes"], 1 << 20);

    let told = events(&c.restore(&["--progress=json"]).ok());
    assert_eq!(phases(&told), ["processes", "resuming", "done"]);
    assert!(told.last().unwrap()["pages"].as_u64().unwrap() > 10, "{told:?}");
}

#[test]
fn a_shm_from_outside_is_a_phase_of_its_own() {
    requires!(root, criu);
    ours_only!("runc tells nothing");
    let c = run(with_a_mebibyte().with(|config| config["annotations"] = json!({"org.stasis.ipc": "shareable"})));
    let told = events(&c.checkpoint(&["--progress", "json", "--leave-running"]).ok());
    assert_eq!(phases(&told), ["checking", "freezing", "memory", "shared-memory", "done"]);
    assert_eq!(told.last().unwrap()["shmBytes"], 1 << 20);
}

#[test]
fn a_failure_is_told_to_programs_and_as_usual() {
    requires!(root, criu);
    ours_only!("runc tells nothing");
    let c = run(with_a_mebibyte());
    let images = c.images();
    std::fs::create_dir_all(images.join("inventory.img")).unwrap();
    let failed = c.checkpoint(&["--progress", "json"]).fails();
    let last: Value = serde_json::from_str(failed.lines().last().unwrap()).unwrap();
    assert_eq!(last["event"], "failed");
    let first_line = last["error"].as_str().unwrap().lines().next().unwrap().to_owned();
    assert!(failed.stderr.contains(&first_line), "{failed}");
    assert_eq!(c.runtime.status(), "running");
    c.checkpoint(&["--progress", "x"]).exits(1).stderr_contains("invalid progress value \"x\"");
}

#[test]
fn nobody_is_told_who_has_not_asked() {
    requires!(root, criu);
    let c = run(with_a_mebibyte());
    let silent = |output: Output| assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""), "{output}");
    silent(c.checkpoint(&[]).ok());
    silent(c.restore(&[]).ok());
    ours_only!("runc tells nothing");
    silent(c.checkpoint(&["--progress", "none", "--leave-running"]).ok());
    let plain = c.checkpoint(&["--progress", "plain", "--leave-running"]).ok();
    assert_eq!(plain.stdout, "");
    assert!(plain.stderr.contains(&format!("checkpoint of {}: freezing the processes\n", c.runtime.id())), "{plain}");
}

#[test]
fn a_terminal_is_told_in_words() {
    requires!(root, criu, terminals);
    ours_only!("runc tells nothing");
    let c = run(with_a_mebibyte());
    let on_terminal = |mut command: Command| {
        let pty = nix::pty::openpty(None, None).unwrap();
        command.stdout(Stdio::null()).stderr(pty.slave);
        let mut child = command.spawn().unwrap();
        drop(command);
        let said = read_until(&mut File::from(pty.master), "done in ");
        assert!(child.wait().unwrap().success(), "{said}");
        said
    };
    let said = on_terminal(c.line("checkpoint", &[]));
    for part in ["looking for what cannot be dumped", "freezing the processes", "writing memory and files"] {
        assert!(said.contains(&format!("checkpoint of {}: {part}", c.runtime.id())), "{said}");
    }
    let said = on_terminal(c.line("restore", &["--detach", "--bundle", c.bundle()]));
    assert!(said.contains("making the processes"), "{said}");
}
