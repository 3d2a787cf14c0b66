//! IPC modes without an engine: `spec --ipc` writes the configuration, `create` mounts what it asks for, others join.
//!
//! What counts is what processes see: the same file in /dev/shm, the same System V segment, the same size.

use crate::support::{Bundle, Runtime};
use crate::{ours_only, requires};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

/// Makes a container that sleeps of what `spec` writes with these options; `owner` has the root that an id is looked up in.
#[track_caller]
fn specified(owner: Option<&Runtime>, options: &[&str]) -> Runtime {
    let c = Runtime::new(Bundle::sleep());
    specify(c, owner, options)
}

#[track_caller]
fn specify(mut c: Runtime, owner: Option<&Runtime>, options: &[&str]) -> Runtime {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    let line = [&["spec", "--file", file.to_str().unwrap()], options].concat();
    owner.unwrap_or(&c).cmd(&line).ok().prints("");
    let written: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    c.edit(|config| {
        let (process, cgroup) = (config["process"].take(), config["linux"]["cgroupsPath"].take());
        *config = written;
        config["process"] = process;
        config["linux"]["cgroupsPath"] = cgroup;
    });
    c
}

#[track_caller]
fn started(c: Runtime) -> Runtime {
    c.create().ok();
    c.start().ok();
    c
}

#[track_caller]
fn refused(owner: &Runtime, options: &[&str]) -> String {
    let line = [&["spec", "--file", "/nonexistent/config.json"], options].concat();
    owner.cmd(&line).exits(1).stderr.replace("\\\"", "\"")
}

fn ipc_namespace(pid: i32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/ipc")).unwrap()
}

/// Makes a System V segment in the IPC namespace of a container, and returns its id.
fn make_segment(c: &Runtime) -> String {
    let namespace = format!("--ipc=/proc/{}/ns/ipc", c.pid());
    let made = Command::new("nsenter").args([&namespace, "ipcmk", "-M", "4096"]).output().unwrap();
    let text = String::from_utf8(made.stdout).unwrap();
    assert!(made.status.success(), "{text}");
    text.rsplit(' ').next().unwrap().trim().to_owned()
}

/// Returns the ids of the segments that a container sees.
fn segments(c: &Runtime) -> Vec<String> {
    let table = c.exec(&["cat", "/proc/sysvipc/shm"]).ok();
    table.lines().iter().skip(1).map(|line| line.split_whitespace().nth(1).unwrap().to_owned()).collect()
}

#[test]
fn each_mode_is_what_docker_means_by_it() {
    requires!(root);
    ours_only!("runc's spec knows no IPC mode");
    let own = ipc_namespace(std::process::id() as i32);
    for (mode, shm, is_own) in [
        ("private", Some("size=65536k"), true),
        ("shareable", Some("size=65536k"), true),
        ("none", None, true),
        ("host", Some(""), false),
    ] {
        for options in [&["--ipc", mode][..], &["--rootless", "--ipc", mode]] {
            if options.contains(&"--rootless") && mode == "shareable" {
                continue;
            }
            let c = started(specified(None, options));
            assert_eq!(c.state()["ipc"], mode);
            assert_eq!(ipc_namespace(c.pid()) != own, is_own, "{mode}");
            let mounts = c.exec(&["cat", "/proc/mounts"]).ok();
            let found = mounts.lines().into_iter().find(|line| line.contains(" /dev/shm ")).map(str::to_owned);
            assert_eq!(found.is_some(), shm.is_some(), "{options:?}: {mounts}");
            assert!(found.unwrap_or_default().contains(shm.unwrap_or_default()), "{options:?}: {mounts}");
            c.exec_sh("test -d /dev/shm").exits(if shm.is_some() { 0 } else { 1 });
        }
    }
}

#[test]
fn the_host_has_what_a_container_of_the_mode_host_writes() {
    requires!(root);
    ours_only!("runc's spec knows no IPC mode");
    let c = started(specified(None, &["--ipc", "host"]));
    let file = format!("/dev/shm/{}", c.id());
    c.exec_sh(&format!("echo here > {file}")).ok();
    let text = fs::read_to_string(&file);
    fs::remove_file(&file).unwrap();
    assert_eq!(text.unwrap(), "here\n");
}

#[test]
fn containers_that_join_share_everything() {
    requires!(root);
    ours_only!("runc's spec knows no IPC mode");
    let owner = started(specified(None, &["--ipc", "shareable", "--shm-size", "1m"]));
    let mode = format!("container:{}", owner.id());
    let joined = started(specified(Some(&owner), &["--ipc", &mode]));
    assert_eq!((&owner.state()["ipc"], &joined.state()["ipc"]), (&json!("shareable"), &json!("container")));
    assert_eq!(ipc_namespace(owner.pid()), ipc_namespace(joined.pid()));

    owner.exec_sh("echo from the owner > /dev/shm/word").ok();
    joined.exec(&["cat", "/dev/shm/word"]).ok().prints("from the owner");
    joined.exec_sh("echo from the other >> /dev/shm/word; mkdir /dev/shm/dir").ok();
    owner.exec(&["tail", "-n", "1", "/dev/shm/word"]).ok().prints("from the other");
    owner.exec(&["ls", "/dev/shm"]).ok().prints("dir\nword");
    let segment = make_segment(&owner);
    assert_eq!((segments(&owner), segments(&joined)), (vec![segment.clone()], vec![segment]));
    joined.exec_sh("head -c 2000000 /dev/zero > /dev/shm/much").fails();
    assert!(owner.exec(&["stat", "-c", "%s", "/dev/shm/much"]).ok().text().parse::<u32>().unwrap() < 1 << 20);

    // One that joins the second one joins the first.
    let chain = format!("container:{}", joined.id());
    let third = started(specified(Some(&joined), &["--ipc", &chain]));
    third.exec(&["head", "-n", "1", "/dev/shm/word"]).ok().prints("from the owner");

    // What is bound stays for those who have it.
    owner.cmd(&["delete", "--force", owner.id()]).ok();
    owner.leaves_nothing();
    joined.exec(&["head", "-n", "1", "/dev/shm/word"]).ok().prints("from the owner");
    for c in [joined, third] {
        c.cmd(&["delete", "--force", c.id()]).ok();
        c.leaves_nothing();
    }
}

#[test]
fn a_container_that_shares_nothing_is_not_joined() {
    requires!(root);
    ours_only!("runc's spec knows no IPC mode");
    for (mode, words) in [
        ("private", "it is private (a shareable container can be joined)"),
        ("none", "its IPC mode is none: it has no /dev/shm to share"),
        ("host", "it uses the host's (the mode host does so too)"),
    ] {
        let c = started(specified(None, &["--ipc", mode]));
        let asked = format!("container:{}", c.id());
        let said = refused(&c, &["--ipc", &asked]);
        assert!(said.contains(&format!("--ipc {asked}: join the IPC of container {}: {words}", c.id())), "{said}");
    }
    let c = started(specified(None, &["--ipc", "shareable"]));
    c.kill("KILL").ok();
    c.wait_for("stopped");
    let said = refused(&c, &["--ipc", &format!("container:{}", c.id())]);
    assert!(said.contains(": it is not running"), "{said}");
    let said = refused(&c, &["--ipc", "container:nobody"]);
    assert!(said.contains("--ipc container:nobody: container does not exist"), "{said}");
}

#[test]
fn a_shm_that_is_mounted_elsewhere_is_not_joined() {
    requires!(root);
    ours_only!("runc's spec knows no IPC mode");
    let c = started(specified(None, &["--ipc", "shareable"]));
    let place = c.root().join(c.id()).join("shm");
    assert!(Command::new("umount").arg(&place).status().unwrap().success());
    let said = refused(&c, &["--ipc", &format!("container:{}", c.id())]);
    assert!(said.contains(&format!("its /dev/shm is not {} any more", place.display())), "{said}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    ours_only!("runc's spec knows no IPC mode");
    let c = Runtime::new(Bundle::sleep());
    for (options, words) in [
        (&["--ipc", "nope"][..], "invalid IPC mode: nope"),
        (&["--ipc", "container:"], "invalid IPC mode: container:"),
        (&["--ipc", "host:x"], "invalid IPC mode: host:x"),
        (&["--ipc", "container:a/b"], "invalid container ID format"),
        (&["--shm-size", "1x"], "invalid --shm-size \"1x\": invalid size"),
        (&["--shm-size", "0"], "invalid --shm-size \"0\": it has to be more than nothing"),
        (&["--ipc", "none", "--shm-size", "1m"], "--shm-size has no meaning with --ipc none"),
        (&["--ipc", "host", "--shm-size", "1m"], "--shm-size has no meaning with --ipc host"),
        (&["--rootless", "--ipc", "shareable"], "--ipc shareable is not for rootless containers"),
        (&["--rootless", "--ipc", "container:x"], "--ipc container:x is not for rootless containers"),
    ] {
        let said = refused(&c, options);
        assert!(said.contains(words), "{options:?}: {said}");
    }
}

#[test]
fn a_size_is_the_containers() {
    requires!(root);
    ours_only!("runc's spec knows no IPC mode");
    for mode in ["private", "shareable"] {
        let c = started(specified(None, &["--ipc", mode, "--shm-size", "3m"]));
        let df = c.exec_sh("df -k /dev/shm | tail -n 1").ok();
        assert_eq!(df.text().split_whitespace().nth(1), Some("3072"), "{df}");
    }
}

#[test]
fn a_shareable_container_leaves_nothing() {
    requires!(root);
    ours_only!("runc mounts the tmpfs inside");
    // Deleted, deleted by force, never started, and not created at all.
    let c = started(specified(None, &["--ipc", "shareable"]));
    c.exec_sh("echo x > /dev/shm/x").ok();
    c.kill("KILL").ok();
    c.wait_for("stopped");
    c.delete().ok();
    c.leaves_nothing();
    let c = specified(None, &["--ipc", "shareable"]);
    c.create().ok();
    c.cmd(&["delete", "--force", c.id()]).ok();
    c.leaves_nothing();
    let mut c = specified(None, &["--ipc", "shareable"]);
    c.edit(|config| config["process"]["args"] = json!(["/nope"]));
    c.create().fails();
    c.leaves_nothing();
    c.edit(|config| config["mounts"].as_array_mut().unwrap().push(json!({"destination": "/x", "type": "nope"})));
    c.create().fails();
    c.leaves_nothing();
}

#[test]
fn what_a_killed_create_has_mounted_is_deleted() {
    requires!(root);
    ours_only!("runc mounts nothing there");
    let c = Runtime::new(Bundle::sleep());
    let place = c.root().join(c.id()).join("shm");
    fs::create_dir_all(&place).unwrap();
    assert!(Command::new("mount").args(["-t", "tmpfs", "shm"]).arg(&place).status().unwrap().success());
    c.cmd(&["delete", "--force", c.id()]).ok();
    c.leaves_nothing();
}

#[test]
fn root_of_a_user_namespace_owns_its_shm() {
    requires!(root);
    ours_only!("runc mounts the tmpfs inside");
    let bundle = Bundle::sleep().user_namespace(200_000);
    let c = started(Runtime::new(bundle.with(|config| config["annotations"] = json!({"org.stasis.ipc": "shareable"}))));
    let shm = fs::metadata(c.root().join(c.id()).join("shm")).unwrap();
    assert_eq!((shm.uid(), shm.gid(), shm.mode() & 0o7777), (200_000, 200_000, 0o1777));
    c.exec(&["stat", "-c", "%u %g %a", "/dev/shm"]).ok().prints("0 0 1777");
}

#[test]
fn an_annotation_without_sense_is_refused() {
    requires!(root);
    ours_only!("runc does not know the annotation");
    let mut c = Runtime::new(Bundle::sleep().with(|config| config["annotations"] = json!({"org.stasis.ipc": "x"})));
    c.create().exits(1).stderr_contains("annotation org.stasis.ipc: invalid IPC mode: x");
    c.edit(|config| config["annotations"] = json!({"org.stasis.ipc": "shareable"}));
    c.edit(|config| config["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "ipc"));
    c.create().exits(1).stderr_contains("needs an IPC namespace of its own and a tmpfs on /dev/shm");
    c.leaves_nothing();
}

#[test]
fn the_mode_is_told_by_state_alone() {
    requires!(root);
    ours_only!("runc tells no IPC mode");
    let c = Bundle::sleep().start();
    assert_eq!(c.state()["ipc"], "private");
    assert_eq!(c.cmd(&["list", "--format", "json"]).ok().json()[0]["ipc"], Value::Null);
}
