//! A /dev/shm that is mounted from outside, as Docker does it with `--ipc shareable`, and other tmpfs from outside: their
//! content goes through a checkpoint with the processes.

use crate::support::{Bundle, HostTmpfs, wait_until, with_shm};
use crate::{COUNTER, Checkpointed, ours_only, requires};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// A bundle whose program keeps things in this /dev/shm.
pub fn keeper(argument: &str, shm: &Path) -> Bundle {
    with_shm(crate::keeper(argument), shm)
}

fn manifest(c: &Checkpointed) -> Value {
    serde_json::from_str(&fs::read_to_string(c.images().join("stasis-manifest.json")).unwrap()).unwrap()
}

#[test]
fn everything_in_it_comes_back() {
    requires!(root, criu);
    ours_only!("other runtimes lose it, and fail with a file of it open");
    let shm = HostTmpfs::new();
    let c = Checkpointed::run(keeper("", shm.path()));
    shm.keeps(3);
    c.checkpoint(&[]).ok();
    let before = shm.keeps(0);
    let told = &manifest(&c)["tmpfs"][0];
    assert_eq!((&told["destination"], &told["shared"]), (&json!("/dev/shm"), &json!(false)));
    assert_eq!(told["size"], json!(64 << 20));
    let size = c.images().join(told["archive"].as_str().unwrap()).metadata().unwrap().len();
    assert!(size < 4 << 20, "the holes of a file of 1 GiB take room: {size}");
    shm.renew();
    c.restore(&[]).ok();
    assert!(shm.keeps(3) >= before + 3);
    // And once more: it is a container like any other.
    c.checkpoint(&[]).ok();
    shm.renew();
    c.restore(&[]).ok();
    assert!(shm.keeps(3) >= before + 6);
}

#[test]
fn a_file_that_has_lost_one_of_two_names_comes_back() {
    requires!(root, criu);
    ours_only!("other runtimes lose it, and fail with a file of it open");
    let shm = HostTmpfs::new();
    let c = Checkpointed::run(keeper("remap", shm.path()));
    shm.keeps(1);
    c.checkpoint(&["--link-remap", "--leave-running"]).ok();
    assert_eq!(shm.remaps(), [] as [PathBuf; 0]);
    shm.keeps(1);
    c.checkpoint(&["--link-remap"]).ok();
    assert_eq!(shm.remaps(), [] as [PathBuf; 0]);
    // Over what is still there, and into an empty one.
    c.restore(&[]).ok();
    shm.keeps(3);
    c.checkpoint(&["--link-remap"]).ok();
    shm.renew();
    c.restore(&[]).ok();
    shm.keeps(3);
    assert_eq!(shm.remaps(), [] as [PathBuf; 0]);
}

#[test]
fn a_clone_has_its_own() {
    requires!(root, criu);
    ours_only!("other runtimes lose it, and fail with a file of it open");
    let (first, second) = (HostTmpfs::new(), HostTmpfs::new());
    let c = Checkpointed::run(keeper("", first.path()));
    first.keeps(1);
    c.checkpoint(&["--leave-running"]).ok();
    let clone = Checkpointed::of(keeper("", second.path()));
    // Files of the root file system are the caller's to copy.
    fs::copy(c.runtime.bundle().rootfs().join("keeper"), clone.runtime.bundle().rootfs().join("keeper")).unwrap();
    let images = c.images();
    let line = ["restore", "--detach", "--image-path", images.to_str().unwrap(), "--bundle", clone.bundle()];
    clone.runtime.output_of(clone.runtime.command(&[&line[..], &[clone.runtime.id()]].concat())).ok();
    first.keeps(3);
    second.keeps(3);
}

#[test]
fn what_is_there_stays_unless_it_is_to_be_overwritten() {
    requires!(root, criu);
    ours_only!("other runtimes know no policies");
    let cases = [
        (&[][..], "live", "live"),
        (&["--shm-policy", "merge-missing"], "live", "live, image"),
        (&["--shm-policy", "overwrite"], "image", "live, image"),
        (&["--shm-policy", "never"], "live", "live"),
    ];
    for (options, file, expected) in cases {
        let shm = HostTmpfs::new();
        fs::write(shm.path().join("file"), "image").unwrap();
        fs::write(shm.path().join("image"), "").unwrap();
        let c = Checkpointed::run(with_shm(Bundle::sleep(), shm.path()));
        c.checkpoint(&[]).ok();
        shm.renew();
        fs::write(shm.path().join("file"), "live").unwrap();
        fs::write(shm.path().join("live"), "").unwrap();
        c.restore(options).ok();
        let names =
            c.runtime.exec_sh("cd /dev/shm; for name in live image; do [ -e $name ] && echo $name; done; :").ok();
        assert_eq!(names.text().replace('\n', ", "), expected, "{options:?}");
        assert_eq!(shm.read("file"), file, "{options:?}");
    }
    let c = Checkpointed::of(Bundle::sleep());
    c.restore(&["--shm-policy", "x"]).exits(1).stderr_contains("invalid shm-policy value");
}

#[test]
fn podmans_own_copy_gives_way() {
    requires!(root, criu);
    ours_only!("other runtimes know no policies");
    let shm = HostTmpfs::new();
    let annotations = json!({"io.container.manager": "libpod"});
    let bundle = keeper("", shm.path()).with(|config| config["annotations"] = annotations);
    let c = Checkpointed::run(bundle);
    shm.keeps(3);
    c.checkpoint(&[]).ok();
    shm.renew();
    // As Podman would leave it behind that has read it when the container went on already.
    for name in ["status", "open", "mapped", "log", "owned"] {
        fs::write(shm.path().join(name), "later").unwrap();
    }
    c.restore(&[]).ok();
    shm.keeps(3);
}

#[test]
fn the_hosts_own_is_left_alone() {
    requires!(root, criu);
    let name = format!("/dev/shm/stasis-test-{}", std::process::id());
    fs::write(&name, "the host's").unwrap();
    let c = Checkpointed::run(with_shm(Bundle::sleep(), Path::new("/dev/shm")).without_namespace("ipc"));
    c.checkpoint(&[]).ok();
    fs::write(&name, "the host's, later").unwrap();
    c.restore(&[]).ok();
    let found = fs::read_to_string(&name).unwrap();
    fs::remove_file(&name).unwrap();
    assert_eq!(found, "the host's, later");
    if !crate::support::is_oracle() {
        assert_eq!((manifest(&c)["tmpfs"].as_array(), &manifest(&c)["ipc"]), (None, &json!("host")));
    }
}

#[test]
fn a_damaged_archive_is_refused() {
    requires!(root, criu);
    ours_only!("other runtimes lose it");
    let shm = HostTmpfs::new();
    fs::write(shm.path().join("file"), "content").unwrap();
    let c = Checkpointed::run(with_shm(Bundle::sleep(), shm.path()));
    c.checkpoint(&[]).ok();
    let archive = c.images().join(manifest(&c)["tmpfs"][0]["archive"].as_str().unwrap());
    let good = fs::read(&archive).unwrap();
    fs::write(&archive, &good[..good.len() - 1]).unwrap();
    shm.renew();
    c.restore(&[]).exits(1).stderr_contains("restore /dev/shm: ").stderr_contains("is damaged: its SHA-256 is");
    c.runtime.leaves_nothing();
    assert_eq!(shm.read("file"), "");
    fs::write(&archive, &good).unwrap();
    c.restore(&[]).ok();
    assert_eq!(shm.read("file"), "content");
}

#[test]
fn a_failed_restore_takes_the_content_back() {
    requires!(root, criu);
    ours_only!("other runtimes lose it");
    let shm = HostTmpfs::new();
    let mut c = Checkpointed::run(keeper("", shm.path()));
    shm.keeps(1);
    c.checkpoint(&[]).ok();
    shm.renew();
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", "exit 5"]}]);
    c.runtime.edit(|config| config["hooks"] = json!({"createRuntime": hook}));
    c.restore(&[]).exits(1).stderr_contains("exit status 5");
    c.runtime.leaves_nothing();
    assert_eq!(fs::read_dir(shm.path()).unwrap().count(), 0);
}

#[test]
fn content_that_does_not_fit_is_named_and_taken_back() {
    requires!(root, criu);
    ours_only!("other runtimes lose it");
    let shm = HostTmpfs::new();
    fs::write(shm.path().join("big"), vec![1; 8 << 20]).unwrap();
    let c = Checkpointed::run(with_shm(Bundle::sleep(), shm.path()));
    c.checkpoint(&[]).ok();
    shm.renew();
    fs::write(shm.path().join("other"), vec![1; 60 << 20]).unwrap();
    c.restore(&["--shm-policy", "merge-missing"])
        .exits(1)
        .stderr_contains("restore /dev/shm: restore big: no space left on device");
    c.runtime.leaves_nothing();
    assert_eq!(fs::read_dir(shm.path()).unwrap().count(), 1);
}

#[test]
fn a_bundle_that_does_not_mount_it_is_refused() {
    requires!(root, criu);
    ours_only!("other runtimes lose it");
    let shm = HostTmpfs::new();
    let mut c = Checkpointed::run(with_shm(Bundle::sleep(), shm.path()));
    c.checkpoint(&[]).ok();
    c.runtime.edit(|config| {
        config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev/shm");
    });
    c.restore(&[]).exits(1).stderr_contains("restore /dev/shm: config.json does not mount it from outside");
    c.runtime.leaves_nothing();
}

#[test]
fn a_file_system_mounted_in_it_comes_back_as_itself() {
    requires!(root, criu);
    ours_only!("other runtimes lose it");
    let shm = HostTmpfs::new();
    let bundle = with_shm(Bundle::sleep(), shm.path()).mount("/dev/shm/inner", "tmpfs", "tmpfs", &[]);
    let c = Checkpointed::run(bundle);
    c.runtime.exec_sh("echo outer >/dev/shm/file; echo inner >/dev/shm/inner/file").ok();
    c.checkpoint(&[]).ok();
    shm.renew();
    c.restore(&[]).ok();
    c.runtime.exec_sh("cat /dev/shm/file /dev/shm/inner/file").ok().prints("outer\ninner");
    assert_eq!(fs::read_dir(shm.path().join("inner")).unwrap().count(), 0);
}

#[test]
fn other_tmpfs_can_be_named() {
    requires!(root, criu);
    ours_only!("other runtimes lose them");
    let (data, more, host) = (HostTmpfs::new(), HostTmpfs::new(), HostTmpfs::new());
    let bundle = Bundle::sleep()
        .mount("/data", "bind", data.path(), &["bind"])
        .mount("/more", "bind", more.path(), &["bind"])
        .mount("/host", "bind", host.path(), &["bind"])
        .with(|config| config["annotations"] = json!({"org.stasis.external-tmpfs": "/more"}));
    let c = Checkpointed::run(bundle);
    for tmpfs in [&data, &more, &host] {
        fs::write(tmpfs.path().join("file"), "content").unwrap();
    }
    c.checkpoint(&["--external-tmpfs", "/tmp"])
        .exits(1)
        .stderr_contains("/tmp is no tmpfs that is mounted from outside");
    assert_eq!(c.runtime.status(), "running");
    c.checkpoint(&["--external-tmpfs", "/data"]).ok();
    [&data, &more, &host].iter().for_each(|tmpfs| tmpfs.renew());
    c.restore(&[]).ok();
    let found = [&data, &more, &host].map(|tmpfs| tmpfs.read("file"));
    assert_eq!(found, ["content", "content", ""]);
}

#[test]
fn a_neighbour_that_has_it_too_keeps_what_it_wrote() {
    requires!(root, criu);
    ours_only!("other runtimes lose it");
    let shm = HostTmpfs::new();
    let owner = Checkpointed::run(with_shm(Bundle::sh(COUNTER), shm.path()));
    owner.counts();
    let namespace = format!("/proc/{}/ns/ipc", owner.runtime.pid());
    let c = Checkpointed::run(with_shm(Bundle::sleep(), shm.path()).namespace("ipc", Some(Path::new(&namespace))));
    fs::write(shm.path().join("theirs"), "before").unwrap();
    fs::write(shm.path().join("gone"), "before").unwrap();
    c.checkpoint(&[]).ok().stderr_contains("/dev/shm is shared with processes that go on");
    assert_eq!(manifest(&c)["tmpfs"][0]["shared"], json!(true));
    fs::write(shm.path().join("theirs"), "after").unwrap();
    fs::remove_file(shm.path().join("gone")).unwrap();
    let count = owner.count();
    c.restore(&[]).ok();
    assert_eq!((shm.read("theirs").as_str(), shm.read("gone").as_str()), ("after", "before"));
    assert!(owner.count() >= count);
    owner.counts();
}

#[test]
fn files_that_a_neighbour_changes_meanwhile_stay_open() {
    requires!(root, criu);
    ours_only!("other runtimes insist on their sizes");
    let shm = HostTmpfs::new();
    let owner = Checkpointed::run(with_shm(Bundle::sleep(), shm.path()));
    let namespace = format!("/proc/{}/ns/ipc", owner.runtime.pid());
    fs::write(shm.path().join("grows"), "one\n").unwrap();
    fs::write(shm.path().join("shrinks"), "all of it\n").unwrap();
    let script = "exec 3</dev/shm/grows 4<>/dev/shm/shrinks; read first <&3; echo $first >/dev/shm/seen
        while true; do read next <&3 && echo $first $next >/dev/shm/seen; sleep 0.05; done";
    let bundle = with_shm(Bundle::sh(script), shm.path()).namespace("ipc", Some(Path::new(&namespace)));
    let c = Checkpointed::run(bundle);
    wait_until("the first line is read", || shm.read("seen") == "one\n");
    c.checkpoint(&[]).ok();
    fs::write(shm.path().join("grows"), "one\ntwo\n").unwrap();
    fs::write(shm.path().join("shrinks"), "").unwrap();
    c.restore(&[]).ok();
    wait_until("the second line is read", || shm.read("seen") == "one two\n");
    c.runtime.exec_sh("echo more >>/proc/1/fd/4").ok();
    assert_eq!(shm.read("shrinks"), "more\n");
}

#[test]
fn a_user_namespace_finds_what_has_changed_meanwhile() {
    requires!(root, criu);
    ours_only!("other runtimes lose it");
    let shm = HostTmpfs::new();
    fs::write(shm.path().join("grows"), "one\n").unwrap();
    let script =
        "exec 3</dev/shm/grows; read first <&3; while true; do read next <&3 && echo $first $next >/dev/shm/seen
        sleep 0.05; done";
    let c = Checkpointed::run(with_shm(Bundle::sh(script).user_namespace(200_000), shm.path()));
    wait_until("the first line is read", || c.position(3) == Some(4));
    c.checkpoint(&[]).ok();
    fs::write(shm.path().join("grows"), "one\ntwo\n").unwrap();
    c.restore(&["--shm-policy", "merge-missing"]).ok();
    wait_until("the second line is read", || shm.read("seen") == "one two\n");
}

#[test]
fn large_files_without_a_name_are_dumped_unless_limited() {
    requires!(root, criu);
    ours_only!("other runtimes leave the limit at 1 MiB");
    let script = "exec 3<>/dev/shm/file; head -c 5000000 /dev/zero | tr '\\0' x >&3; rm /dev/shm/file; exec sleep 1000";
    let c = Checkpointed::run(Bundle::sh(script));
    wait_until("the file has lost its name", || {
        c.runtime.exec_sh("ls -l /proc/1/fd/3; cat /proc/1/comm").ok().text().contains("(deleted)\nsleep")
    });
    c.checkpoint(&["--ghost-limit", "1m"]).exits(1).stderr_contains("criu failed");
    c.checkpoint(&["--ghost-limit", "x"]).exits(1).stderr_contains("invalid --ghost-limit");
    c.round_trip();
    c.runtime.exec_sh("tr -d x </proc/1/fd/3 | wc -c; wc -c </proc/1/fd/3").ok().prints("0\n5000000");
}
