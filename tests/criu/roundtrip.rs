//! What a container is after it was checkpointed and restored: what it was, and a full citizen.

use crate::support::{Bundle, wait_until};
use crate::{COUNTER, Checkpointed, ours_only, requires};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[test]
fn memory_and_tmpfs_survive() {
    requires!(root, criu);
    let c = Checkpointed::counter();
    wait_until("the counter counts", || c.count() > 3);
    c.runtime.exec_sh("echo kept > /dev/shm/word; head -c 100000 /dev/urandom > /dev/shm/bytes").ok();
    let sum = c.runtime.exec(&["md5sum", "/dev/shm/bytes"]).ok().stdout;
    c.checkpoint(&[]).ok().prints("");
    c.runtime.cmd(&["state", c.runtime.id()]).exits(1).stderr_contains("does not exist");
    let at = fs::read_dir(c.images()).unwrap().count();
    assert!(at > 10, "only {at} images");
    c.restore(&[]).ok().prints("");
    assert!(c.count() > 3);
    c.counts();
    c.runtime.exec(&["cat", "/dev/shm/word"]).ok().prints("kept");
    assert_eq!(c.runtime.exec(&["md5sum", "/dev/shm/bytes"]).ok().stdout, sum);
}

#[test]
fn nothing_is_left_after_checkpoint_and_after_delete() {
    requires!(root, criu);
    let c = Checkpointed::counter();
    c.checkpoint(&[]).ok();
    c.runtime.leaves_nothing();
    c.restore(&[]).ok();
    c.runtime.cmd(&["delete", "--force", c.runtime.id()]).ok();
    c.runtime.leaves_nothing();
}

#[test]
fn a_restored_container_is_a_full_citizen() {
    requires!(root, criu);
    let c = Checkpointed::counter();
    c.round_trip();
    let state = c.runtime.state();
    assert_eq!(state["bundle"], c.bundle());
    c.runtime.pause().ok();
    assert_eq!(c.runtime.status(), "paused");
    c.runtime.resume().ok();
    c.counts();
    // Once more, from what it is now.
    c.round_trip();
    c.counts();
    c.runtime.kill("KILL").ok();
    c.runtime.wait_for("stopped");
    c.checkpoint(&[]).exits(1).stderr_contains("cannot be checkpointed in stopped state");
    c.runtime.delete().ok();
    c.runtime.leaves_nothing();
}

#[test]
fn who_is_notified_is_restored_with_the_directory_for_that() {
    requires!(root, criu);
    let c = Checkpointed::of(Bundle::sh(COUNTER));
    // Nobody is there to be told, so that nobody waits for the program to be ready.
    let notified = |mut command: std::process::Command| {
        command.env("NOTIFY_SOCKET", "/nowhere/notify");
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        assert!(command.status().unwrap().success(), "{command:?}");
    };
    notified(c.runtime.command(&["create", "--bundle", c.bundle(), c.runtime.id()]));
    c.runtime.start().ok();
    let mounted = |c: &Checkpointed| {
        let shown = c.runtime.exec(&["grep", "-o", " /run/notify ro,nosuid,nodev,noexec", "/proc/self/mountinfo"]);
        shown.ok();
    };
    mounted(&c);
    c.checkpoint(&[]).ok();
    notified(c.line("restore", &["--detach", "--bundle", c.bundle()]));
    mounted(&c);
    c.counts();
    // Without a word of it there is nothing to take its place, with runc too.
    c.checkpoint(&[]).ok();
    c.restore(&[]).exits(1).stderr_contains("mnt: No mapping for ");
}

#[test]
fn a_container_that_is_left_running_goes_on() {
    requires!(root, criu);
    let c = Checkpointed::counter();
    let pid = c.runtime.pid();
    // Podman gives the option twice.
    c.checkpoint(&["--leave-running", "--leave-running"]).ok();
    assert_eq!((c.runtime.status().as_str(), c.runtime.pid()), ("running", pid));
    c.counts();
}

#[test]
fn a_paused_container_can_be_checkpointed() {
    requires!(root, criu);
    let c = Checkpointed::counter();
    c.runtime.pause().ok();
    c.checkpoint(&["--leave-running"]).ok();
    assert_eq!(c.runtime.status(), "paused");
    c.checkpoint(&[]).ok();
    c.runtime.leaves_nothing();
    c.restore(&[]).ok();
    c.counts();
}

#[test]
fn it_is_restored_under_another_name_and_bundle() {
    requires!(root, criu);
    let c = Checkpointed::counter();
    c.checkpoint(&[]).ok();
    let other = Checkpointed::of(Bundle::sh("this is not executed"));
    let images = c.images();
    let options = ["--image-path", images.to_str().unwrap()];
    other.restore(&options).ok();
    assert_eq!(other.runtime.state()["bundle"], other.bundle());
    other.counts();
    // In the other one's cgroup, and none of the first one's made anew.
    let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", other.runtime.pid())).unwrap();
    assert!(cgroups.contains(other.runtime.id()) && !cgroups.contains(c.runtime.id()), "{cgroups}");
    c.runtime.leaves_nothing();
}

#[test]
fn limits_of_the_bundle_hold_after_a_restore() {
    requires!(root, criu, cgroup_v1);
    let limits = json!({"pids": {"limit": 77}});
    let c = Checkpointed::run(Bundle::sh(COUNTER).with(|config| config["linux"]["resources"] = limits));
    c.round_trip();
    assert_eq!(c.runtime.limit("pids", "pids.max"), "77");
    assert_eq!(c.runtime.limit("pids", "cgroup.procs").lines().next().unwrap(), c.runtime.pid().to_string());
}

#[test]
fn images_logs_and_streams_are_where_clients_look() {
    requires!(root, criu);
    let c = Checkpointed::counter();
    let work = c.place.path().join("work");
    let work = work.to_str().unwrap();
    c.checkpoint(&["--work-path", work]).ok();
    for name in ["dump.log", "stats-dump"] {
        assert!(fs::exists(format!("{work}/{name}")).unwrap(), "{name}");
    }
    let descriptors = c.images().join("descriptors.json");
    assert_eq!(descriptors.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_to_string(descriptors).unwrap(), r#"["/dev/null","/dev/null","/dev/null"]"#);
    assert_eq!(c.images().metadata().unwrap().permissions().mode() & 0o077, 0);
    c.restore(&["--work-path", work]).ok();
    for name in ["restore.log", "stats-restore"] {
        assert!(fs::exists(format!("{work}/{name}")).unwrap(), "{name}");
    }
}

#[test]
fn bind_mounts_are_the_hosts_again_and_lost_mount_points_come_back() {
    requires!(root, criu);
    let bundle = Bundle::sh(COUNTER).prepare(|bundle| {
        fs::create_dir_all(bundle.join("source/inner")).unwrap();
        fs::write(bundle.join("source/file"), "host").unwrap();
        std::os::unix::fs::symlink("/run", bundle.join("rootfs/var-run")).unwrap();
        std::os::unix::fs::symlink("/tmp/a/file", bundle.join("rootfs/dangling")).unwrap();
        fs::create_dir_all(bundle.join("rootfs/run")).unwrap();
    });
    let source = bundle.path().join("source");
    let bundle = bundle
        .mount("/data/deep", "bind", &source, &["rbind", "ro"])
        .mount("/etc/one", "none", source.join("file"), &["bind"])
        .mount("/data/deep/inner", "bind", &source, &["bind"])
        .mount("/var-run/data", "bind", &source, &["bind"])
        .mount("/tmp", "tmpfs", "tmpfs", &[])
        .mount("/dangling", "bind", source.join("file"), &["bind"]);
    let c = Checkpointed::run(bundle);
    c.checkpoint(&[]).ok();
    let rootfs = c.runtime.bundle().path().join("rootfs");
    fs::remove_dir_all(rootfs.join("data")).unwrap();
    fs::remove_file(rootfs.join("etc/one")).unwrap();
    fs::write(source.join("file"), "changed").unwrap();
    c.restore(&[]).ok();
    for path in ["/data/deep/file", "/etc/one", "/data/deep/inner/file", "/run/data/file", "/tmp/a/file"] {
        c.runtime.exec(&["cat", path]).ok().prints("changed");
    }
    c.runtime.exec_sh("echo x > /data/deep/new").fails();
    c.counts();
}

#[test]
fn hooks_run_while_the_namespaces_are_still_empty() {
    requires!(root, criu);
    let bundle = Bundle::sh(COUNTER);
    let seen = bundle.path().join("source");
    let hook = |kind: &str| {
        let script = format!("cat > {0}.{kind}; echo >> {0}.{kind}", seen.display());
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
    };
    let hooks = json!({"prestart": hook("prestart"), "createRuntime": hook("createRuntime"),
        "poststart": hook("poststart"), "poststop": hook("poststop")});
    let c = Checkpointed::run(bundle.with(|config| config["hooks"] = hooks));
    let path = |kind: &str| format!("{}.{kind}", seen.display());
    c.checkpoint(&[]).ok();
    assert!(fs::exists(path("poststop")).unwrap());
    for kind in ["prestart", "createRuntime", "poststart"] {
        fs::remove_file(path(kind)).unwrap();
    }
    c.restore(&[]).ok();
    for kind in ["prestart", "createRuntime"] {
        let state: serde_json::Value = serde_json::from_str(&fs::read_to_string(path(kind)).unwrap()).unwrap();
        assert_eq!((&state["id"], &state["pid"]), (&json!(c.runtime.id()), &json!(c.runtime.pid())));
    }
    assert!(!fs::exists(path("poststart")).unwrap());
}

#[test]
fn the_configuration_of_create_counts_not_the_bundles() {
    requires!(root, criu);
    ours_only!("runc keeps a configuration of its own, too, but has no config.json in the way");
    let c = Checkpointed::counter();
    fs::write(c.runtime.bundle().path().join("config.json"), "{").unwrap();
    c.checkpoint(&[]).ok();
}

#[test]
fn a_pid_file_names_the_restored_init() {
    requires!(root, criu);
    let c = Checkpointed::counter();
    c.checkpoint(&[]).ok();
    let file = c.place.path().join("pid");
    c.restore(&["--pid-file", file.to_str().unwrap(), "-no-subreaper", "--no-pivot"]).ok();
    assert_eq!(fs::read_to_string(file).unwrap(), c.runtime.pid().to_string());
}

#[test]
fn an_annotation_names_settings_for_criu() {
    requires!(root, criu);
    let bundle = Bundle::sh(COUNTER);
    let settings = bundle.path().join("source");
    fs::write(&settings, "log-file of-the-settings.log\n").unwrap();
    let annotations = json!({"org.criu.config": settings});
    let c = Checkpointed::run(bundle.with(|config| config["annotations"] = annotations));
    c.checkpoint(&[]).ok();
    assert!(c.log("of-the-settings.log").contains("Dumping finished successfully"));
    c.restore(&[]).ok();
    assert!(c.log("of-the-settings.log").contains("Restore finished successfully"));
}
