//! Containers of others below the same root: runc's, crun's, those of an older stasis and of a newer one.

use crate::support::{Bundle, CRUN, Layout, Output, Runtime};
use crate::{ours_only, requires};
use serde_json::{Value, json};
use std::fs;
use std::process::{Command, Stdio};

/// Another runtime, with our root.
fn other(c: &Runtime, program: &str, args: &[&str]) -> Command {
    let mut command = c.bundle().shown_layout().command(program);
    command.arg("--root").arg(c.root()).args(args).stdin(Stdio::null());
    command
}

/// Creates and starts a container with another runtime, as far as `verbs` say.
#[track_caller]
fn made_by(program: &str, bundle: Bundle, verbs: &[&str]) -> Runtime {
    let c = Runtime::new(bundle);
    for verb in verbs {
        let path = c.bundle().path().to_str().unwrap();
        let line = if *verb == "create" { vec!["create", "--bundle", path, c.id()] } else { vec![*verb, c.id()] };
        c.detached(other(&c, program, &line)).ok();
    }
    c
}

fn annotated(bundle: Bundle) -> Bundle {
    bundle.prepare(|path| fs::create_dir(path.join("source")).unwrap()).with(|config| {
        config["annotations"] = json!({"org.example": "a=b"});
        config["process"]["oomScoreAdj"] = json!(100);
    })
}

#[track_caller]
fn is_looked_after(program: &str, layout: Layout) {
    let bundle = annotated(Bundle::sleep()).layout(layout);
    let ended = bundle.path().join("source/ended");
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("cat >{}", ended.display())]}]);
    let c = made_by(program, bundle.with(|config| config["hooks"] = json!({"poststop": hook})), &["create"]);
    assert_eq!(c.status(), "created");
    c.start().exits(1).stderr_contains("was made by another runtime");
    c.output_of(other(&c, program, &["start", c.id()])).ok();
    let theirs = c.output_of(other(&c, program, &["state", c.id()])).ok().json();
    let ours = c.state();
    for key in ["id", "pid", "status", "bundle", "created", "annotations"] {
        assert_eq!(ours[key], theirs[key], "{key}");
    }
    assert_eq!(ours["rootfs"], c.bundle().rootfs().to_str().unwrap());
    let list = c.cmd(&["list", "--format", "json"]).ok().json();
    assert_eq!(
        (&list[0]["id"], &list[0]["status"], &list[0]["owner"]),
        (&json!(c.id()), &json!("running"), &json!("root"))
    );
    assert_eq!(c.cmd(&["ps", "--format", "json", c.id()]).ok().json(), json!([ours["pid"]]));
    c.exec(&["true"]).exits(255).stderr_contains("was made by another runtime");
    c.pause().ok();
    assert_eq!(c.status(), "paused");
    let theirs = || c.output_of(other(&c, program, &["state", c.id()])).ok().json()["status"].clone();
    assert_eq!(theirs(), "paused");
    c.resume().ok();
    assert_eq!(theirs(), "running");
    c.delete().exits(1).stderr_contains("that is not stopped: running");
    c.kill("KILL").ok();
    c.wait_for("stopped");
    c.kill("KILL").exits(1).stderr_contains("container not running");
    c.delete().ok();
    assert!(fs::read_to_string(ended).unwrap().contains("stopped"));
    // crun's, for all of its containers.
    _ = fs::remove_dir(c.root().join(".empty-directory"));
    c.leaves_nothing();
}

#[test]
fn a_container_of_runc_is_looked_after() {
    requires!(root, runc);
    ours_only!("the strangers are others");
    is_looked_after("runc", Layout::Host);
}

#[test]
fn a_container_of_crun_is_looked_after() {
    requires!(root, crun);
    ours_only!("the strangers are others");
    // crun makes no containers on hybrid hosts.
    is_looked_after(CRUN, Layout::V1);
    is_looked_after(CRUN, Layout::V2);
}

#[test]
fn a_strangers_processes_in_a_shared_pid_namespace_end_with_it() {
    requires!(root, runc);
    ours_only!("the strangers are others");
    let bundle = || Bundle::sh("sleep 1000 & sleep 1000 & wait").without_namespace("pid");
    let c = made_by("runc", bundle(), &["create", "start"]);
    let pids = || c.cmd(&["ps", "--format", "json", c.id()]).ok().json();
    crate::support::wait_until("three processes", || pids().as_array().map(Vec::len) == Some(3));
    c.kill("KILL").ok();
    crate::support::wait_until("no process", || pids().is_null());
    c.delete().ok();
    c.leaves_nothing();
    let c = made_by("runc", bundle(), &["create", "start"]);
    c.cmd(&["delete", "--force", c.id()]).ok();
    c.leaves_nothing();
}

#[test]
fn what_a_stranger_keeps_and_nobody_can_read_is_named_and_stays() {
    requires!(root);
    ours_only!("the strangers are others");
    let c = Bundle::sleep().create();
    for (id, file) in [("of-youki", "state.json"), ("of-crun", "status")] {
        let dir = c.root().join(id);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(file), "{\"ociVersion\": \"1.0.2\"}").unwrap();
        let words = format!("container \"{id}\" was made by another runtime, which is needed for this");
        let named = |output: Output| output.exits(1).stderr_contains(&words);
        for verb in ["state", "kill", "delete", "pause", "resume", "ps", "start", "update", "events"] {
            named(c.cmd(&[verb, id]));
        }
        named(c.cmd(&["delete", "--force", id]));
        assert!(dir.join(file).exists());
        fs::remove_dir_all(dir).unwrap();
    }
    fs::create_dir(c.root().join("of-nobody")).unwrap();
    fs::create_dir(c.root().join("of-youki")).unwrap();
    fs::write(c.root().join("of-youki/state.json"), "{}").unwrap();
    let listed = c.cmd(&["list", "--quiet"]).ok();
    assert_eq!((listed.text(), listed.stderr.as_str()), (c.id(), ""));
    c.cmd(&["delete", "of-nobody"]).exits(1).stderr_contains("container does not exist");
    assert!(!c.root().join("of-nobody").exists());
    fs::remove_dir_all(c.root().join("of-youki")).unwrap();
}

/// What the first version of the format has, and nothing that came later. This is never changed.
fn first_version(now: &Value) -> Value {
    json!({
        "version": 1,
        "ociVersion": "1.0.2",
        "id": now["id"],
        "bundle": now["bundle"],
        "rootfs": now["rootfs"],
        "created": "2026-11-05T12:00:00.5Z",
        "pid": now["pid"],
        "startTime": now["startTime"],
        "owner": 0,
        "cgroup": {"driver": "cgroupfs", "directories": now["cgroup"]["directories"], "lenient": false},
    })
}

#[test]
fn a_container_of_an_older_stasis_is_a_full_citizen() {
    requires!(root);
    ours_only!("the state is ours");
    let c = Bundle::sleep().create();
    let path = c.root().join(c.id()).join("stasis.json");
    let now: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    for directory in now["cgroup"]["directories"].as_array().unwrap() {
        let keys: Vec<&String> = directory.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["controllers", "mount", "path", "version"]);
    }
    fs::write(&path, first_version(&now).to_string()).unwrap();
    assert_eq!((c.status().as_str(), c.state()["created"].as_str()), ("created", Some("2026-11-05T12:00:00.5Z")));
    c.start().ok();
    c.exec(&["echo", "here"]).ok().prints("here");
    c.cmd(&["update", "--pids-limit", "50", c.id()]).ok();
    assert_eq!(c.limit("pids", "pids.max"), "50");
    c.pause().ok();
    c.resume().ok();
    c.kill("KILL").ok();
    c.wait_for("stopped");
    c.delete().ok();
    c.leaves_nothing();
}

#[test]
fn a_container_of_a_newer_stasis_is_named_and_stays() {
    requires!(root);
    ours_only!("the state is ours");
    let c = Bundle::sleep().start();
    let path = c.root().join(c.id()).join("stasis.json");
    let before = fs::read_to_string(&path).unwrap();
    fs::write(&path, before.replace("\"version\":1", "\"version\":2")).unwrap();
    for args in [&["state"][..], &["kill"], &["delete", "--force"], &["exec"]] {
        let line = [args, &[c.id()], if args[0] == "exec" { &["true"] } else { &[] }].concat();
        c.cmd(&line).fails().stderr_contains("stasis.json has format 2, which is newer than this runtime's 1");
    }
    c.cmd(&["list", "-q"]).ok().prints("").stderr_contains("load container");
    fs::write(&path, before).unwrap();
    assert_eq!(c.status(), "running");
}
