//! tmpcopyup: a tmpfs that begins with a copy of the directory that it covers.

use crate::support::{Bundle, Runtime};
use crate::{ours_only, requires};
use serde_json::json;
use stasis::spec::template;
use stasis::sys::xattr;
use std::ffi::CString;
use std::fs::{self, Permissions};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

/// Adds a tmpfs on /data that copies what is there.
fn copying(bundle: Bundle, options: &[&str]) -> Bundle {
    bundle.mount("/data", "tmpfs", "tmpfs", &[&["tmpcopyup"], options].concat())
}

/// Makes a directory whose mode and owner are not those of a tmpfs, with a file in it.
fn make_data(data: &Path) {
    fs::create_dir_all(data).unwrap();
    fs::write(data.join("file"), "file\n").unwrap();
    chown(data, Some(3), Some(4)).unwrap();
    fs::set_permissions(data, Permissions::from_mode(0o751)).unwrap();
}

#[test]
fn a_tmpfs_begins_with_what_was_there_if_asked_to() {
    requires!(root);
    let script = "cat /data/file /data/deep/file; stat -c %a:%u /data /data/file /data/deep; readlink /data/link; \
                  stat -c %F:%a:%Y /data/fifo; ls /data; echo more >/data/new";
    let bundle = Bundle::sh(script).prepare(|path| {
        let data = path.join("rootfs/data");
        make_data(&data);
        fs::create_dir(data.join("deep")).unwrap();
        fs::write(data.join("deep/file"), "deep\n").unwrap();
        chown(data.join("file"), Some(7), None).unwrap();
        chown(data.join("deep"), Some(8), None).unwrap();
        fs::set_permissions(data.join("file"), Permissions::from_mode(0o4644)).unwrap();
        symlink("/nowhere", data.join("link")).unwrap();
        let fifo = data.join("fifo");
        assert!(Command::new("mkfifo").args(["-m", "600"]).arg(&fifo).status().unwrap().success());
        assert!(Command::new("touch").args(["-d", "@1000000000"]).arg(&fifo).status().unwrap().success());
    });
    ours_only!("runc fails on a fifo");
    let c = Runtime::new(copying(bundle, &["nosuid"]));
    let listed = "deep\nfifo\nfile\nlink";
    c.run().ok().prints(&format!("file\ndeep\n751:0\n4644:7\n755:8\n/nowhere\nfifo:600:1000000000\n{listed}"));
    assert!(!c.bundle().rootfs().join("data/new").exists());
}

#[test]
fn directories_may_lie_deep_in_each_other_but_not_without_end() {
    requires!(root);
    ours_only!("runc has no limit");
    let deep = |depth| {
        let script = format!("cd /data; for i in $(seq {depth}); do cd d; done; cat file");
        let bundle = Bundle::sh(&script).prepare(move |path| {
            let deepest = path.join("rootfs/data").join("d/".repeat(depth));
            fs::create_dir_all(&deepest).unwrap();
            fs::write(deepest.join("file"), "deep\n").unwrap();
        });
        copying(bundle, &[]).run()
    };
    deep(250).ok().prints("deep");
    deep(300).fails().stderr_contains("tmpcopyup: failed to copy /data: file name too long");
}

#[test]
fn what_is_not_there_is_nothing_to_begin_with() {
    requires!(root);
    let bundle = Bundle::sh("ls -A /data; stat -c %a /data").with(|config| config["root"]["readonly"] = json!(false));
    copying(bundle, &[]).run().ok().prints("1777");
}

#[test]
fn the_options_of_a_tmpfs_count_more_than_the_directory() {
    requires!(root);
    let with = |options: &[&str]| {
        let bundle = Bundle::sh("stat -c %a:%u:%g /data; cat /data/file");
        copying(bundle.prepare(|path| make_data(&path.join("rootfs/data"))), options).run().ok()
    };
    with(&["mode=705", "uid=5", "gid=6"]).prints("705:5:6\nfile");
    // As without a copy, an option that is not there leaves the mode to the directory and the owner to root.
    with(&[]).prints("751:0:0\nfile");
}

#[test]
fn earlier_mounts_are_copied_too() {
    requires!(root);
    let bundle = Bundle::sh("cd /data; cat file below/file; ls; echo x >below/new").prepare(|path| {
        for place in ["rootfs/data", "source/below", "other"] {
            fs::create_dir_all(path.join(place)).unwrap();
        }
        fs::write(path.join("rootfs/data/hidden"), "").unwrap();
        fs::write(path.join("source/file"), "source\n").unwrap();
        fs::write(path.join("other/file"), "other\n").unwrap();
    });
    let bundle = bundle.mount("/data", "bind", "source", &["bind", "ro"]);
    let bundle = bundle.mount("/data/below", "bind", "other", &["bind"]);
    copying(bundle, &[]).run().ok().prints("source\nother\nbelow\nfile");
}

#[test]
fn owners_are_those_of_the_user_namespace() {
    requires!(root);
    let bundle = Bundle::sh("stat -c %a:%u:%g /data /data/file").user_namespace(300_000);
    let bundle = bundle.prepare(|path| {
        make_data(&path.join("rootfs/data"));
        chown(path.join("rootfs/data"), Some(300_003), Some(300_004)).unwrap();
        chown(path.join("rootfs/data/file"), Some(300_007), Some(300_008)).unwrap();
    });
    copying(bundle, &["uid=5", "gid=6", "mode=705"]).run().ok().prints("705:5:6\n644:7:8");
}

#[test]
fn a_copy_takes_no_more_than_the_tmpfs_holds() {
    requires!(root);
    let with = |length: usize| {
        let bundle = Bundle::sh("stat -c %s /data/file").prepare(|path| {
            make_data(&path.join("rootfs/data"));
            let file = fs::File::options().write(true).open(path.join("rootfs/data/file")).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &vec![b'x'; length], 0).unwrap();
            file.set_len(1 << 32).unwrap();
        });
        copying(bundle, &["size=1m"]).run()
    };
    ours_only!("runc writes out the zeros of holes");
    // A hole takes nothing.
    with(500_000).ok().prints("4294967296");
    let failed = with(2_000_000).exits(1);
    failed.stderr_contains("\"/data\": tmpcopyup: failed to copy /data: no space left on device");
}

#[test]
fn extended_attributes_are_copied_as_far_as_a_tmpfs_has_them() {
    requires!(root);
    ours_only!("runc copies none");
    let c = Bundle::sleep().prepare(|path| {
        let data = path.join("rootfs/data");
        make_data(&data);
        let file = fs::File::open(data.join("file")).unwrap();
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        xattr::set(file.as_fd(), c"security.capability", &capability).unwrap();
        for name in [c"trusted.name", c"user.name"] {
            xattr::set(file.as_fd(), name, b"value").unwrap();
        }
    });
    let c = copying(c, &[]).start();
    let file = fs::File::open(format!("/proc/{}/root/data/file", c.pid())).unwrap();
    let mut names = xattr::list(file.as_fd()).unwrap();
    // From Linux 6.6 on.
    names.retain(|name| name.as_c_str() != c"user.name");
    names.sort();
    assert_eq!(names, [c"security.capability", c"trusted.name"].map(CString::from));
    assert_eq!(xattr::get(file.as_fd(), c"trusted.name").unwrap(), b"value");
}

#[test]
fn a_symlink_is_copied_and_not_followed() {
    requires!(root);
    let bundle = Bundle::sh("cd /data; readlink etc; ls -l etc/passwd").prepare(|path| {
        make_data(&path.join("rootfs/data"));
        symlink("/etc", path.join("rootfs/data/etc")).unwrap();
    });
    copying(bundle, &[]).run().ok().stdout_contains("/etc\n");
}

#[test]
fn the_root_of_a_user_namespace_copies_too() {
    requires!(root);
    let bundle = Bundle::sh("stat -c %a:%u:%g /data /data/file; cat /data/file").with(|config| {
        let args = config["process"]["args"].take();
        let text = template::text(Some(template::Users { uid: 0, gid: 0 }), false, &template::Ipc::Private(None));
        *config = serde_json::from_str(&text).unwrap();
        config["process"]["args"] = args;
        config["process"]["terminal"] = json!(false);
        let linux = config["linux"].as_object_mut().unwrap();
        linux.retain(|key, _| !key.ends_with("Mappings"));
    });
    let bundle = bundle.without_namespace("user").prepare(|path| {
        make_data(&path.join("rootfs/data"));
        chown(path.join("rootfs/data"), Some(0), Some(0)).unwrap();
    });
    let c = Runtime::new(copying(bundle, &["mode=705"]));
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user"]).arg(Runtime::found()).arg("--root").arg(c.root());
    command.args(["run", "--bundle"]).arg(c.bundle().path()).arg(c.id()).stdin(Stdio::null());
    c.output_of(command).ok().prints("705:0:0\n644:0:0\nfile");
}
