//! The file system: mounts with every option, /dev, what is masked and read-only, and images that try to lead out.

use crate::support::{Bundle, Output, Runtime};
use crate::{ours_only, requires};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

/// A mount as the container's /proc/self/mountinfo shows it.
#[derive(Debug)]
pub struct Mount {
    pub attributes: Vec<String>,
    propagation: String,
    fstype: String,
    parameters: Vec<String>,
}

/// Finds the topmost mount at `point`.
#[track_caller]
pub fn mount_at(output: &Output, point: &str) -> Mount {
    let mut fields = output.stdout.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let line = fields.rfind(|fields| fields.get(4) == Some(&point)).unwrap_or_else(|| panic!("no {point} in {output}"));
    let dash = line.iter().position(|field| *field == "-").unwrap();
    let words = |text: &str| text.split(',').map(str::to_owned).collect();
    let propagation = line[6..dash].join(" ");
    Mount { attributes: words(line[5]), propagation, fstype: line[dash + 1].into(), parameters: words(line[dash + 3]) }
}

/// A bundle that shows its mounts.
pub fn shows() -> Bundle {
    Bundle::new(&["cat", "/proc/self/mountinfo"])
}

pub fn has(words: &[String], word: &str) -> bool {
    words.iter().any(|other| other == word)
}

/// Every option that changes an attribute of a mount: itself, what the mount shows then, and what not.
const ATTRIBUTES: [(&str, &str, &str); 20] = [
    ("ro", "ro", "rw"),
    ("rw", "rw", "ro"),
    ("nosuid", "nosuid", ""),
    ("suid", "rw", "nosuid"),
    ("nodev", "nodev", ""),
    ("dev", "rw", "nodev"),
    ("noexec", "noexec", ""),
    ("exec", "rw", "noexec"),
    ("noatime", "noatime", "relatime"),
    ("relatime", "relatime", "noatime"),
    ("strictatime", "rw", "relatime"),
    ("atime", "relatime", "noatime"),
    ("norelatime", "rw", "noatime"),
    ("nostrictatime", "relatime", "noatime"),
    ("nodiratime", "nodiratime", ""),
    ("diratime", "rw", "nodiratime"),
    ("nosymfollow", "nosymfollow", ""),
    ("symfollow", "rw", "nosymfollow"),
    ("defaults", "rw", "nosuid"),
    ("silent", "rw", "nosuid"),
];

#[test]
fn every_attribute_of_a_mount_can_be_named() {
    requires!(root);
    ours_only!("runc 1.1 lacks some of the options");
    for (kind, source, bind) in [("tmpfs", "tmpfs", None), ("bind", "source", Some("bind"))] {
        let mut bundle = shows().prepare(|dir| fs::create_dir(dir.join("source")).unwrap());
        for (option, _, _) in ATTRIBUTES {
            let options: Vec<&str> = bind.into_iter().chain([option]).collect();
            bundle = bundle.mount(&format!("/tmp/{option}"), kind, source, &options);
        }
        // The directory for all of the mount points.
        let shown = bundle.with(|config| config["root"]["readonly"] = json!(false)).run().ok();
        for (option, there, not_there) in ATTRIBUTES {
            let mount = mount_at(&shown, &format!("/tmp/{option}"));
            assert!(has(&mount.attributes, there) && !has(&mount.attributes, not_there), "{kind} {option}: {mount:?}");
        }
    }
}

#[test]
fn the_later_of_two_options_counts() {
    requires!(root);
    let shown = shows().mount("/tmp", "tmpfs", "tmpfs", &["ro", "noexec", "nosuid", "exec", "rw"]).run().ok();
    let mount = mount_at(&shown, "/tmp");
    assert!(has(&mount.attributes, "rw") && has(&mount.attributes, "nosuid"), "{mount:?}");
    assert!(!has(&mount.attributes, "noexec"), "{mount:?}");
}

/// A bundle with a mount at /tmp/a/below and, bound from the root, the tree /tmp/a at /tmp/b.
fn tree(options: &[&str]) -> Bundle {
    let bundle = shows().prepare(|dir| fs::create_dir_all(dir.join("rootfs/tmp/a/below")).unwrap());
    let source = bundle.rootfs().join("tmp/a");
    bundle.mount("/tmp/a/below", "tmpfs", "tmpfs", &[]).mount("/tmp/b", "bind", source, options)
}

#[test]
fn rbind_takes_the_mounts_below_along_and_bind_does_not() {
    requires!(root);
    mount_at(&tree(&["rbind"]).run().ok(), "/tmp/b/below");
    tree(&["bind"]).run().ok().lines().iter().for_each(|line| assert!(!line.contains(" /tmp/b/below ")));
}

#[test]
fn an_option_is_for_the_mount_alone_and_a_recursive_one_for_all_below() {
    requires!(root);
    ours_only!("runc 1.1 lacks recursive options");
    let shown = tree(&["rbind", "ro"]).run().ok();
    assert!(
        has(&mount_at(&shown, "/tmp/b").attributes, "ro") && has(&mount_at(&shown, "/tmp/b/below").attributes, "rw")
    );
    for (option, there) in [
        ("rro", "ro"),
        ("rnosuid", "nosuid"),
        ("rnodev", "nodev"),
        ("rnoexec", "noexec"),
        ("rnoatime", "noatime"),
        ("rnodiratime", "nodiratime"),
        ("rnosymfollow", "nosymfollow"),
    ] {
        let shown = tree(&["rbind", option]).run().ok();
        for point in ["/tmp/b", "/tmp/b/below"] {
            assert!(has(&mount_at(&shown, point).attributes, there), "{option} {shown}");
        }
        assert!(!has(&mount_at(&shown, "/tmp/a/below").attributes, there), "{option} reaches the source");
    }
    let shown = tree(&["rbind", "rro", "rrw"]).run().ok();
    assert!(has(&mount_at(&shown, "/tmp/b/below").attributes, "rw"));
}

#[test]
fn propagation_is_what_the_options_say() {
    requires!(root);
    for (option, expected, below) in [
        ("private", "", ""),
        ("rprivate", "", ""),
        ("shared", "shared:", ""),
        ("rshared", "shared:", "shared:"),
        ("unbindable", "unbindable", ""),
        ("runbindable", "unbindable", "unbindable"),
    ] {
        let shown = tree(&["rbind", option]).run().ok();
        for (point, expected) in [("/tmp/b", expected), ("/tmp/b/below", below)] {
            let propagation = mount_at(&shown, point).propagation;
            assert!(
                propagation.starts_with(expected) && propagation.is_empty() == expected.is_empty(),
                "{option} {shown}"
            );
        }
    }
}

#[test]
fn the_roots_propagation_is_what_the_configuration_says() {
    requires!(root);
    ours_only!("runc 1.1 makes no root shared, and cannot have an unbindable one");
    for (word, expected) in [
        ("private", ""),
        ("rprivate", ""),
        ("shared", "shared:"),
        ("rshared", "shared:"),
        ("unbindable", "unbindable"),
        ("slave", ""),
        ("rslave", ""),
    ] {
        let shown = shows().with(|config| config["linux"]["rootfsPropagation"] = json!(word)).run().ok();
        let propagation = mount_at(&shown, "/").propagation;
        assert!(propagation.starts_with(expected) && propagation.is_empty() == expected.is_empty(), "{word} {shown}");
    }
    let wrong = shows().with(|config| config["linux"]["rootfsPropagation"] = json!("sideways"));
    wrong.run().exits(1).stderr_contains("rootfsPropagation=sideways is not supported");
}

#[test]
fn a_file_system_has_its_parameters() {
    requires!(root);
    let shown = shows().mount("/tmp", "tmpfs", "it", &["size=64k", "mode=750,uid=3", "nr_inodes=77"]).run().ok();
    let mount = mount_at(&shown, "/tmp");
    assert_eq!(mount.fstype, "tmpfs");
    for parameter in ["size=64k", "mode=750", "uid=3", "nr_inodes=77"] {
        assert!(has(&mount.parameters, parameter), "{parameter}: {mount:?}");
    }
}

#[test]
fn flags_of_mount_that_nobody_keeps_are_understood() {
    requires!(root);
    let shown = shows().mount("/tmp", "tmpfs", "it", &["iversion", "noiversion", "loud", "silent", "sync"]).run().ok();
    let mount = mount_at(&shown, "/tmp");
    assert!(has(&mount.parameters, "sync") && !has(&mount.parameters, "iversion"), "{mount:?}");
}

#[test]
fn the_templates_mounts_are_there() {
    requires!(root);
    let shown = shows().run().ok();
    for (point, fstype) in [
        ("/proc", "proc"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/shm", "tmpfs"),
        ("/dev/mqueue", "mqueue"),
        ("/sys", "sysfs"),
    ] {
        assert_eq!(mount_at(&shown, point).fstype, fstype);
    }
    assert!(has(&mount_at(&shown, "/sys").attributes, "ro") && has(&mount_at(&shown, "/dev").attributes, "nosuid"));
}

#[test]
fn nothing_of_the_hosts_mounts_is_left() {
    requires!(root);
    for option in [&[][..], &["--no-pivot"][..]] {
        let c = Runtime::new(shows());
        let shown = c.run_with(option).ok();
        let host = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = host.lines().map(|line| line.split(' ').nth(4).unwrap());
        let own = ["/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys"];
        for point in points.filter(|point| !own.contains(point) && !point.starts_with("/sys/fs/cgroup")) {
            assert!(!shown.stdout.contains(&format!(" {point} ")), "{point} in {shown}");
        }
    }
}

#[test]
fn the_root_is_the_bundles_also_without_pivot() {
    requires!(root);
    let c = Runtime::new(Bundle::sh("ls /mark; cat /proc/1/mounts | head -1; ls /../../mark").prepare(|dir| {
        fs::write(dir.join("rootfs/mark"), "").unwrap();
    }));
    for option in [&[][..], &["--no-pivot"][..]] {
        c.run_with(option).ok().stdout_contains("/mark\n");
    }
}

#[test]
fn files_and_directories_are_bound_and_their_places_made() {
    requires!(root);
    let c = Bundle::sh("cat /made/deep/file /tmp/dir/file; echo new >/tmp/dir/new; echo x >/made/deep/file");
    let c = c.prepare(|dir| {
        fs::create_dir(dir.join("source")).unwrap();
        fs::write(dir.join("source/file"), "content\n").unwrap();
    });
    let c = c.mount("/made/deep/file", "bind", "source/file", &["bind", "ro"]);
    let c = Runtime::new(c.mount("/tmp/dir", "none", "source", &["bind"]));
    c.run().exits(1).prints("content\ncontent").stderr_contains("Read-only file system");
    assert_eq!(fs::read_to_string(c.bundle().path().join("source/new")).unwrap(), "new\n");
    let mode = |path: &str| fs::metadata(c.bundle().rootfs().join(path)).unwrap().mode();
    assert_eq!((mode("made/deep") & 0o170_777, mode("made/deep/file") & 0o170_000), (0o040_755, 0o100_000));
}

#[test]
fn the_place_of_a_file_is_no_program() {
    requires!(root);
    ours_only!("runc 1.1 makes it one");
    let c = Runtime::new(Bundle::sh("true").mount("/place", "bind", "config.json", &["bind"]));
    c.run().ok();
    assert_eq!(fs::metadata(c.bundle().rootfs().join("place")).unwrap().mode(), 0o100_644);
}

#[test]
fn a_mount_can_be_changed_by_a_later_entry() {
    requires!(root);
    let shown =
        shows().mount("/tmp", "tmpfs", "tmpfs", &["nosuid"]).mount("/tmp", "", "", &["remount", "bind", "ro"]).run();
    assert!(has(&mount_at(&shown.ok(), "/tmp").attributes, "ro"));
    let resized =
        shows().mount("/tmp", "tmpfs", "t", &["size=64k"]).mount("/tmp", "tmpfs", "t", &["remount", "size=128k"]);
    assert!(has(&mount_at(&resized.run().ok(), "/tmp").parameters, "size=128k"));
}

#[test]
fn an_overlay_is_a_file_system_like_any_other() {
    requires!(root);
    let c = Bundle::sh("cat /tmp/file; echo changed >/tmp/file").prepare(|dir| {
        for layer in ["lower", "upper", "work"] {
            fs::create_dir_all(dir.join("source").join(layer)).unwrap();
        }
        fs::write(dir.join("source/lower/file"), "lower").unwrap();
    });
    let dir = c.path().join("source");
    let options = ["lower", "upper", "work"].map(|layer| format!("{layer}dir={}", dir.join(layer).display()));
    let c = Runtime::new(c.mount("/tmp", "overlay", "overlay", &[&options.join(",")]));
    c.run().ok().prints("lower");
    assert_eq!(fs::read_to_string(dir.join("lower/file")).unwrap(), "lower");
    assert_eq!(fs::read_to_string(dir.join("upper/file")).unwrap(), "changed\n");
}

#[test]
fn a_read_only_tmpfs_is_read_only_and_holds_later_mounts() {
    requires!(root);
    let c = Bundle::sh("touch /tmp/below/file && touch /tmp/file").mount("/tmp", "tmpfs", "tmpfs", &["ro"]);
    c.mount("/tmp/below", "tmpfs", "tmpfs", &[]).run().exits(1).stderr_contains("/tmp/file: Read-only file system");
}

#[test]
fn a_read_only_dev_has_its_nodes() {
    requires!(root);
    let c = Bundle::sh("echo x >/dev/null && ls /dev/fd/0 && touch /dev/file");
    let c = c.with(|config| config["mounts"][1]["options"].as_array_mut().unwrap().push(json!("ro")));
    c.run().exits(1).prints("/dev/fd/0").stderr_contains("/dev/file: Read-only file system");
}

#[test]
fn dev_has_the_default_nodes_and_links() {
    requires!(root);
    let script = "cd /dev; stat -c '%n %F %t:%T %a %u:%g' null zero full random urandom tty; \
                  for l in fd stdin stdout stderr ptmx; do echo $l $(readlink $l); done";
    let file = "character special file";
    let expected =
        [("null", "1:3"), ("zero", "1:5"), ("full", "1:7"), ("random", "1:8"), ("urandom", "1:9"), ("tty", "5:0")]
            .map(|(name, number)| format!("{name} {file} {number} 666 0:0"));
    let links =
        "fd /proc/self/fd\nstdin /proc/self/fd/0\nstdout /proc/self/fd/1\nstderr /proc/self/fd/2\nptmx pts/ptmx";
    Bundle::sh(script).run().ok().prints(&format!("{}\n{links}", expected.join("\n")));
}

#[test]
fn dev_has_the_nodes_that_are_asked_for() {
    requires!(root);
    let script = "stat -c '%n %F %t:%T %a %u:%g' /dev/net/tun /dev/disk /dev/pipe";
    let c = Bundle::sh(script).with(|config| {
        config["linux"]["devices"] = json!([
            {"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o640, "uid": 3, "gid": 4},
            {"path": "/dev/disk", "type": "b", "major": 7, "minor": 9},
            {"path": "/dev/pipe", "type": "p", "fileMode": 0o600},
        ]);
    });
    c.run().ok().prints(
        "/dev/net/tun character special file a:c8 640 3:4\n\
                         /dev/disk block special file 7:9 666 0:0\n/dev/pipe fifo 0:0 600 0:0",
    );
}

#[test]
fn what_is_in_the_place_of_a_device_is_the_same_device() {
    requires!(root);
    ours_only!("runc looks only in 1.6");
    let with = |make: &[&str]| {
        let bundle = Bundle::sh("stat -c %t:%T /data/null").prepare(|dir| {
            fs::create_dir(dir.join("rootfs/data")).unwrap();
            let place = dir.join("rootfs/data/null");
            assert!(Command::new(make[0]).arg(place).args(&make[1..]).status().unwrap().success());
        });
        let device = json!([{"path": "/data/null", "type": "c", "major": 1, "minor": 3}]);
        bundle.with(|config| config["linux"]["devices"] = device).run()
    };
    with(&["mknod", "c", "1", "3"]).ok().prints("1:3");
    with(&["touch"]).exits(1).stderr_contains("/data/null has incorrect ftype: 0x8000 doesn't match expected 0x2000");
    let other = with(&["mknod", "c", "1", "5"]).exits(1);
    other.stderr_contains("/data/null has incorrect major:minor: 1:5 doesn't match expected 1:3");
}

#[test]
fn a_read_only_root_is_read_only_and_another_is_not() {
    requires!(root);
    Bundle::sh("touch /file").run().exits(1).stderr_contains("Read-only file system");
    let c = Runtime::new(Bundle::sh("touch /file").with(|config| config["root"]["readonly"] = json!(false)));
    c.run().ok();
    assert!(c.bundle().rootfs().join("file").exists());
}

#[test]
fn masked_paths_show_nothing() {
    requires!(root);
    let script = "wc -c </secret; ls /tmp; touch /tmp/file; echo x >/secret && wc -c </secret";
    let c = Bundle::sh(script).prepare(|dir| {
        fs::write(dir.join("rootfs/secret"), "secret").unwrap();
        fs::write(dir.join("rootfs/tmp/secret"), "secret").unwrap();
    });
    let c = c.with(|config| config["linux"]["maskedPaths"] = json!(["/secret", "/tmp", "/absent"]));
    let output = c.run().ok().prints("0\n0").stderr_contains("/tmp/file: Read-only file system");
    assert!(!output.stdout.contains("secret"));
}

#[test]
fn what_hides_directories_has_the_mounts_label() {
    requires!(root);
    // Where there is no SELinux, it is the kernel that says that it was given a label.
    let bundle = Bundle::new(&["true"]).with(|config| {
        config["mounts"] = json!([{"destination": "/proc", "type": "proc", "source": "proc"}]);
        config["linux"]["mountLabel"] = json!("system_u:object_r:container_file_t:s0:c1,c2");
        config["linux"]["maskedPaths"] = json!(["/tmp"]);
    });
    let output = bundle.run();
    match std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        true => output.ok(),
        false => output.exits(1).stderr_contains("can't mask ").stderr_contains("invalid argument"),
    };
}

#[test]
fn a_path_is_masked_once() {
    requires!(root);
    ours_only!("runc masks again before 1.5");
    let script = "for place in /directory /other /file; do grep -c \" $place \" /proc/self/mountinfo; done; \
                  stat -c %d /directory /other | uniq | wc -l";
    let c = Bundle::sh(script).prepare(|dir| {
        for name in ["directory", "other"] {
            fs::create_dir(dir.join("rootfs").join(name)).unwrap();
        }
        fs::write(dir.join("rootfs/file"), "").unwrap();
        symlink("directory", dir.join("rootfs/link")).unwrap();
    });
    let paths = json!(["/directory", "/other", "/file", "/file", "/directory", "//other/", "/link"]);
    c.with(|config| config["linux"]["maskedPaths"] = paths).run().ok().prints("1\n1\n1\n1");
}

#[test]
fn read_only_paths_are_read_only_with_all_below() {
    requires!(root);
    ours_only!("runc 1.1 leaves the mounts below writable");
    let script = "cat /tmp/file; for f in /tmp/file /tmp/below/file /proc/sys/kernel/msgmax; do echo 1 >$f; done";
    let c = Bundle::sh(script).prepare(|dir| fs::write(dir.join("rootfs/tmp/file"), "content\n").unwrap());
    let c = c.mount("/tmp/below", "tmpfs", "tmpfs", &[]).with(|config| {
        config["root"]["readonly"] = json!(false);
        config["linux"]["readonlyPaths"] = json!(["/tmp", "/tmp/file", "/proc/sys", "/absent"]);
    });
    let output = c.run().fails().prints("content");
    assert_eq!(output.stderr.matches("Read-only file system").count(), 3, "{output}");
}

#[test]
fn the_templates_masks_hold() {
    requires!(root);
    Bundle::sh("wc -c </proc/keys; ls /sys/firmware | wc -l").run().ok().prints("0\n0");
}

#[test]
fn a_cgroup_mount_shows_the_containers_own() {
    requires!(root, cgroup_v1);
    ours_only!("runc 1.1 leaves the hierarchies in it writable");
    for namespace in [false, true] {
        let c = Bundle::sh("cat /sys/fs/cgroup/pids/pids.max; touch /sys/fs/cgroup/x; mkdir /sys/fs/cgroup/pids/x");
        let c = if namespace { c.namespace("cgroup", None) } else { c };
        let c = c.with(|config| config["linux"]["resources"]["pids"] = json!({"limit": 77}));
        let output = c.run().exits(1).prints("77");
        assert_eq!(output.stderr.matches("Read-only file system").count(), 2, "{output}");
    }
}

/// A bundle that mounts a tmpfs with a file at a place which the image made a symlink.
fn led_astray(link: &str, to: &str) -> Runtime {
    let c = Bundle::sh("cat /proc/self/mountinfo; ls /").prepare(|dir| {
        symlink(to, dir.join("rootfs").join(link)).unwrap();
        fs::create_dir(dir.join("source")).unwrap();
    });
    let c = c.mount(&format!("/{link}/made/file"), "bind", "config.json", &["bind", "ro"]);
    Runtime::new(c.with(|config| config["root"]["readonly"] = json!(false)))
}

#[test]
fn an_image_cannot_lead_a_mount_out_by_an_absolute_symlink() {
    requires!(root);
    let outside = tempfile::tempdir().unwrap();
    let c = led_astray("link", outside.path().to_str().unwrap());
    let shown = c.run().ok();
    mount_at(&shown, &format!("{}/made/file", outside.path().display()));
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn an_image_cannot_lead_a_mount_out_by_a_relative_symlink() {
    requires!(root);
    let c = led_astray("link", "../../../source");
    mount_at(&c.run().ok(), "/source/made/file");
    assert_eq!(fs::read_dir(c.bundle().path().join("source")).unwrap().count(), 0);
}

#[test]
fn a_symlink_to_what_is_missing_is_followed_in_the_root() {
    requires!(root);
    let c = Bundle::sh("cat /etc/resolv.conf /run/systemd/resolv.conf").prepare(|dir| {
        fs::write(dir.join("source"), "nameserver\n").unwrap();
        symlink("../run/systemd/resolv.conf", dir.join("rootfs/etc/resolv.conf")).unwrap();
    });
    let c = c.mount("/etc/resolv.conf", "bind", "source", &["bind", "ro"]);
    c.run().ok().prints("nameserver\nnameserver");
}

#[test]
fn an_image_cannot_lead_a_device_out() {
    requires!(root);
    let c = Bundle::sleep().prepare(|dir| {
        fs::create_dir(dir.join("source")).unwrap();
        symlink(dir.join("source"), dir.join("rootfs/link")).unwrap();
    });
    let c = Runtime::new(c.with(|config| {
        config["linux"]["devices"] = json!([{"path": "/link/null", "type": "c", "major": 1, "minor": 3}]);
    }));
    c.create().ok();
    assert_eq!(fs::read_dir(c.bundle().path().join("source")).unwrap().count(), 0);
}

#[test]
fn proc_and_sys_may_not_be_symlinks() {
    requires!(root);
    for place in ["proc", "sys"] {
        let c = Runtime::new(Bundle::sleep().prepare(|dir| {
            fs::remove_dir(dir.join("rootfs").join(place)).unwrap();
            symlink("tmp", dir.join("rootfs").join(place)).unwrap();
        }));
        c.create()
            .exits(1)
            .stderr_contains_any(&["too many levels of symbolic links", "must be mounted on ordinary directory"]);
        c.leaves_nothing();
    }
}

#[test]
fn a_dev_that_is_a_symlink_stays_in_the_root() {
    requires!(root);
    ours_only!("runc 1.1 does not make the nodes where the symlink leads");
    let outside = tempfile::tempdir().unwrap();
    let c = Bundle::sh("cat /dev/null && ls /dev/zero").prepare(|dir| {
        fs::remove_dir(dir.join("rootfs/dev")).unwrap();
        symlink(outside.path(), dir.join("rootfs/dev")).unwrap();
    });
    Runtime::new(c).run().ok().prints("/dev/zero");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn nothing_is_mounted_on_the_root_itself() {
    requires!(root);
    ours_only!("runc 1.1 mounts below what is seen");
    for place in ["/", "/tmp/..", "/link"] {
        let bundle = Bundle::sh("true").prepare(|dir| symlink("/", dir.join("rootfs/link")).unwrap());
        let root = bundle.rootfs();
        let words = format!("mountpoint {root:?} is on the top of rootfs {root:?}");
        bundle.mount(place, "tmpfs", "tmpfs", &[]).run().exits(1).stderr_contains(&words);
    }
    // The same directory, mounted elsewhere, is another place.
    let bundle = Bundle::sh("ls -A /tmp").with(|config| config["root"]["readonly"] = json!(false));
    let root = bundle.rootfs();
    bundle.mount("/tmp", "bind", root, &["bind"]).mount("/tmp", "tmpfs", "tmpfs", &[]).run().ok().prints("");
}

#[test]
fn an_image_cannot_lead_a_mount_into_proc() {
    requires!(root);
    ours_only!("runc 1.1 lets a tmpfs pass");
    for link in ["link", "processes"] {
        let c = Bundle::sleep().prepare(|dir| symlink("/proc/sys", dir.join("rootfs").join(link)).unwrap());
        let c = Runtime::new(c.mount(&format!("/{link}"), "tmpfs", "tmpfs", &[]));
        c.create().exits(1).stderr_contains_any(&[
            "too many levels of symbolic links",
            "cannot be mounted because it is inside /proc",
        ]);
        c.leaves_nothing();
    }
}

#[test]
fn only_what_informs_may_be_mounted_below_proc() {
    requires!(root);
    ours_only!("runc 1.1 lets a tmpfs pass");
    let c = Runtime::new(Bundle::sleep().mount("/proc/sys/kernel", "tmpfs", "tmpfs", &[]));
    c.create().exits(1).stderr_contains("cannot be mounted because it is inside /proc");
    let c = Bundle::sh("cat /proc/uptime").prepare(|dir| fs::write(dir.join("source"), "long").unwrap());
    c.mount("/proc/uptime", "bind", "source", &["bind", "ro"]).run().ok().prints("long");
    let c = Runtime::new(Bundle::sleep().mount("/proc/scsi", "proc", "proc", &[]));
    c.create().exits(1).stderr_contains("cannot be mounted because it is inside /proc");
}

#[test]
fn only_procfs_may_be_mounted_on_proc() {
    requires!(root);
    let words = "cannot be mounted because it is not of type proc";
    let tmpfs = Runtime::new(Bundle::sleep().mount("/proc", "tmpfs", "tmpfs", &[]));
    tmpfs.create().exits(1).stderr_contains(words);
    let other = Bundle::sleep().prepare(|dir| fs::create_dir(dir.join("source")).unwrap());
    Runtime::new(other.mount("/proc", "bind", "source", &["bind"])).create().exits(1).stderr_contains(words);
    Bundle::sh("ls /proc/self/exe").mount("/proc", "bind", "/proc", &["rbind"]).run().ok();
}

#[test]
fn a_read_only_tmpfs_that_a_later_mount_covers_is_not_looked_for() {
    requires!(root, cgroup_v1);
    Bundle::sh("ls /sys").mount("/sys", "tmpfs", "tmpfs", &[]).run().ok().prints("");
}

#[test]
fn masks_hold_against_symlinks_of_the_image() {
    requires!(root);
    let c = Bundle::sh("wc -c </proc/keys; cat /tmp/target").prepare(|dir| {
        fs::write(dir.join("rootfs/tmp/target"), "kept\n").unwrap();
        symlink("/tmp/target", dir.join("rootfs/link")).unwrap();
    });
    let c = c.with(|config| config["linux"]["maskedPaths"].as_array_mut().unwrap().push(json!("/link")));
    c.run().ok().prints("0");
}

#[test]
fn the_images_own_permissions_are_left_alone() {
    requires!(root);
    let c = Runtime::new(Bundle::sh("stat -c %a /tmp/own"));
    let own = c.bundle().rootfs().join("tmp/own");
    fs::create_dir(&own).unwrap();
    fs::set_permissions(&own, fs::Permissions::from_mode(0o1711)).unwrap();
    c.run().ok().prints("1711");
}

#[test]
fn a_bind_mount_has_no_parameters_of_a_file_system() {
    requires!(root);
    ours_only!("older runtimes ignore them");
    let bundle = Bundle::sleep().mount("/data", "bind", "/tmp", &["bind", "size=5"]);
    let words = "bind mounts cannot have any filesystem-specific options applied";
    bundle.run().exits(1).stderr_contains(words);
}

#[test]
fn a_tmpfs_has_the_mode_of_the_directory_that_it_is_on() {
    requires!(root);
    ours_only!("runc 1.1 shows it only in the file system");
    let bundle = Bundle::sh("stat -c %a /tmp /data /none; grep ' /tmp ' /proc/mounts").with(|config| {
        config["root"]["readonly"] = json!(false);
    });
    let bundle = bundle.mount("/tmp", "tmpfs", "tmpfs", &[]).mount("/data", "tmpfs", "tmpfs", &["mode=1500"]);
    let c = Runtime::new(bundle.mount("/none", "tmpfs", "tmpfs", &[]));
    fs::create_dir(c.bundle().rootfs().join("data")).unwrap();
    fs::set_permissions(c.bundle().rootfs().join("tmp"), fs::Permissions::from_mode(0o7710)).unwrap();
    c.run().ok().stdout_contains("7710\n1500\n1777\n").stdout_contains("mode=7710");
}

#[test]
fn a_root_that_is_moved_leaves_no_whole_procfs_behind() {
    requires!(root);
    ours_only!("runc 1.1 leaves the host's");
    let bundle = Bundle::new(&["unshare", "-mrpf", "mount", "-t", "proc", "none", "/proc"]);
    let c = Runtime::new(bundle.with(|config| {
        for set in ["bounding", "permitted", "effective"] {
            config["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_SETFCAP"));
        }
    }));
    c.run_with(&["--no-pivot"]).exits(1).stderr_contains("permission denied");
    mount_at(&Runtime::new(shows()).run_with(&["--no-pivot"]).ok(), "/proc");
    assert!(fs::metadata("/proc/self").is_ok());
}
