//! POSIX message queues: what is in them, who has them open and how, who waits for them.

use crate::support::{Bundle, wait_until};
use crate::{Checkpointed, killed, ours_only, requires};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

/// What tests/programs/mq_keeper.c needs to give a queue away.
const CAPABILITIES: [&str; 1] = ["CAP_CHOWN"];

/// A bundle whose program has queues, and checks them.
fn keeper(arguments: &[&str]) -> Bundle {
    Bundle::new(&[&["mq_keeper"], arguments].concat()).program("mq_keeper").capable(&CAPABILITIES)
}

impl Checkpointed {
    /// Runs a program with queues, until it waits.
    #[track_caller]
    fn with_queues(bundle: Bundle) -> Self {
        let c = Self::run(bundle);
        c.is_kept(1);
        c
    }

    /// Waits until the program has found for the nth time that its queues are as they were.
    #[track_caller]
    fn is_kept(&self, times: u32) {
        let status = || self.runtime.exec(&["cat", "/dev/shm/status"]).stdout;
        let expected = format!("ok {times}\n");
        wait_until("the queues are checked", || {
            let found = status();
            assert!(found.is_empty() || found.starts_with("ok "), "{found}");
            found == expected
        });
    }

    /// Has the program look at its queues for the nth time.
    #[track_caller]
    fn keeps(&self, times: u32) {
        self.runtime.exec(&["touch", "/dev/shm/check"]).ok();
        self.is_kept(times);
    }

    /// Returns what is in the manifest of the queues.
    fn saved(&self) -> Value {
        let text = fs::read_to_string(self.images().join("stasis-manifest.json")).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["queues"].take()
    }

    /// Returns where something is mounted in the container, and how.
    fn mounted(&self, place: &str) -> Vec<String> {
        let text = fs::read_to_string(format!("/proc/{}/mountinfo", self.runtime.pid())).unwrap();
        let lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let of_place = lines.filter(|fields| fields[4] == place);
        of_place.map(|fields| format!("{} {}", fields[5], fields[fields.len() - 3])).collect()
    }
}

#[test]
fn queues_come_back_with_everything() {
    requires!(root, criu);
    ours_only!("no other runtime dumps message queues");
    let c = Checkpointed::with_queues(keeper(&[]));
    let mounted = c.mounted("/dev/mqueue");
    assert_eq!(mounted.len(), 1);
    // The second time from what the first one has restored.
    for times in [2, 3] {
        c.checkpoint(&[]).ok();
        c.runtime.leaves_nothing();
        c.restore(&[]).ok();
        assert_eq!(c.mounted("/dev/mqueue"), mounted);
        c.keeps(times);
    }
    let saved = c.saved();
    let names: Vec<_> = saved["queues"].as_array().unwrap().iter().map(|queue| queue["name"].clone()).collect();
    assert_eq!(names, ["nameless", "all", "empty", "full"]);
    assert_eq!((&saved["mounts"], &saved["queues"][1]["messages"]), (&json!(["/dev/mqueue"]), &json!(6)));
    c.runtime.kill("KILL").ok();
    c.runtime.wait_for("stopped");
    c.runtime.delete().ok();
    c.runtime.leaves_nothing();
}

#[test]
fn a_container_that_is_left_running_keeps_its_queues() {
    requires!(root, criu);
    ours_only!("no other runtime dumps message queues");
    let c = Checkpointed::with_queues(keeper(&[]));
    c.checkpoint(&["--leave-running"]).ok();
    c.keeps(2);
    // Both have what there was, each in a namespace of its own.
    let other = Checkpointed::of(keeper(&[]));
    other.restore(&["--image-path", c.images().to_str().unwrap()]).ok();
    for (times, c) in [(2, &other), (3, &c), (3, &other)] {
        c.keeps(times);
    }
}

#[test]
fn a_failed_dump_leaves_the_queues_as_they_were() {
    requires!(root, criu);
    ours_only!("no other runtime dumps message queues");
    let bundle = keeper(&[]);
    let source = bundle.path().join("source");
    fs::create_dir(&source).unwrap();
    let (settings, script) = (source.join("criu.conf"), source.join("script"));
    fs::write(&settings, format!("action-script {}\n", script.display())).unwrap();
    fs::write(&script, "#!/bin/sh\n[ $CRTOOLS_SCRIPT_ACTION != post-dump ]\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let annotations = json!({"org.criu.config": settings});
    let c = Checkpointed::with_queues(bundle.with(|config| config["annotations"] = annotations));
    c.checkpoint(&[]).exits(1);
    assert!(c.log("dump.log").contains("Adding external object: mnt[/dev/mqueue]"), "{}", c.log("dump.log"));
    assert_eq!(c.runtime.status(), "running");
    c.keeps(2);
}

#[test]
fn no_message_is_lost_when_the_runtime_is_killed() {
    requires!(root, criu);
    ours_only!("no other runtime dumps message queues");
    let c = Checkpointed::with_queues(keeper(&[]));
    let start = Instant::now();
    c.checkpoint(&["--leave-running"]).ok();
    let whole = start.elapsed();
    let mut times = 1;
    for point in 0..=8 {
        _ = fs::remove_dir_all(c.images());
        killed::kill_after(&c, whole.mul_f64(f64::from(point) / 8.0));
        if c.runtime.cmd(&["state", c.runtime.id()]).code != 0 || c.runtime.status() == "stopped" {
            c.runtime.cmd(&["delete", "--force", c.runtime.id()]).ok();
            c.restore(&[]).ok();
        }
        wait_until("it is not frozen", || c.runtime.status() == "running");
        times += 1;
        c.keeps(times);
    }
}

#[test]
fn larger_limits_come_back_too() {
    requires!(root, criu);
    ours_only!("no other runtime dumps message queues");
    let limits = json!({"fs.mqueue.msg_max": "30", "fs.mqueue.msgsize_max": "9000"});
    let c = Checkpointed::with_queues(keeper(&["large"]).with(|config| config["linux"]["sysctl"] = limits));
    c.checkpoint(&[]).ok();
    c.restore(&[]).ok();
    c.keeps(2);
    let limit = |name: &str| c.runtime.exec(&["cat", &format!("/proc/sys/fs/mqueue/{name}")]).ok().stdout;
    assert_eq!((limit("msg_max").as_str(), limit("msgsize_max").as_str()), ("30\n", "9000\n"));
}

#[test]
fn without_queues_the_image_is_crius_alone() {
    requires!(root, criu);
    ours_only!("other runtimes have no manifest");
    let c = Checkpointed::counter();
    let mounted = c.mounted("/dev/mqueue");
    c.checkpoint(&[]).ok();
    assert_eq!(c.saved(), Value::Null);
    assert!(!c.images().join("stasis-queues.bin").exists());
    c.restore(&[]).ok();
    assert_eq!(c.mounted("/dev/mqueue"), mounted);
    c.counts();
}

#[test]
fn who_waits_to_be_notified_is_named() {
    requires!(root, criu);
    ours_only!("no other runtime dumps message queues");
    for which in ["all", "nameless"] {
        let c = Checkpointed::with_queues(keeper(&[which]));
        let words = format!("message queue /{which}");
        let output = c.checkpoint(&[]).exits(1).stderr_contains(&words).stderr_contains("mq_notify");
        assert_eq!(output.stderr.lines().count(), 1, "{output}");
        assert!(output.stderr.contains(&format!("process {} ", c.runtime.pid())), "{output}");
        // What has a name is found before anything is frozen.
        assert_eq!(c.images().join("dump.log").exists(), which == "nameless");
        assert_eq!(c.runtime.status(), "running");
    }
}

#[test]
fn a_neighbour_in_the_namespace_is_named() {
    requires!(root, criu);
    ours_only!("no other runtime dumps message queues");
    let c = Checkpointed::with_queues(keeper(&[]));
    let namespace = format!("/proc/{}/ns/ipc", c.runtime.pid());
    let neighbour = Checkpointed::run(Bundle::sleep().namespace("ipc", Some(Path::new(&namespace))));
    let words = format!("process {} shares the IPC namespace", neighbour.runtime.pid());
    let output = c.checkpoint(&[]).exits(1).stderr_contains(&words);
    assert_eq!(output.stderr.lines().count(), 1, "{output}");
    c.keeps(2);
    drop(neighbour);
    c.checkpoint(&[]).ok();
}

#[test]
fn a_queue_of_another_namespace_is_named() {
    requires!(root, criu);
    ours_only!("no other runtime dumps message queues");
    let owner = Checkpointed::run(Bundle::sleep());
    let namespace = format!("/proc/{}/ns/ipc", owner.runtime.pid());
    let c = Checkpointed::with_queues(keeper(&[]).namespace("ipc", Some(Path::new(&namespace))));
    c.checkpoint(&[]).exits(1).stderr_contains("is of an IPC namespace that is not the container's own");
    assert_eq!(c.runtime.status(), "running");
    c.keeps(2);
}

#[test]
fn queues_in_a_user_namespace_are_refused() {
    requires!(root, criu);
    ours_only!("no other runtime dumps message queues");
    let c = Checkpointed::with_queues(keeper(&[]).user_namespace(100_000));
    let output = c.checkpoint(&[]).exits(1).stderr_contains("message queues in a user namespace");
    assert_eq!(output.stderr.lines().count(), 1, "{output}");
    c.keeps(2);
}

#[test]
fn queues_need_a_namespace_of_their_own_and_whole_images() {
    requires!(root, criu);
    ours_only!("no other runtime dumps message queues");
    let c = Checkpointed::with_queues(keeper(&[]));
    c.checkpoint(&[]).ok();
    let host = Checkpointed::of(keeper(&[]).without_namespace("ipc"));
    let images = c.images();
    let options = ["--image-path", images.to_str().unwrap()];
    host.restore(&options).exits(1).stderr_contains("which need an IPC namespace of the container's own");
    host.runtime.leaves_nothing();
    let archive = images.join("stasis-queues.bin");
    let good = fs::read(&archive).unwrap();
    fs::write(&archive, &good[1..]).unwrap();
    c.restore(&[]).exits(1).stderr_contains("is damaged");
    c.runtime.leaves_nothing();
    fs::write(&archive, good).unwrap();
    c.restore(&[]).ok();
    c.keeps(2);
}

#[test]
fn a_failed_restore_leaves_no_mount() {
    requires!(root, criu);
    ours_only!("no other runtime dumps message queues");
    let c = Checkpointed::with_queues(keeper(&[]));
    c.checkpoint(&[]).ok();
    let files = c.images().join("files.img");
    let good = fs::read(&files).unwrap();
    fs::write(&files, &good[..good.len() / 2]).unwrap();
    c.restore(&[]).exits(1).stderr_contains("criu failed: type");
    c.runtime.leaves_nothing();
    fs::write(&files, good).unwrap();
    c.restore(&[]).ok();
    c.keeps(2);
}
