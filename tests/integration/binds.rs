//! Bind mounts: which flags they have beside those of their source, and what a source shows that earlier mounts lie on.

use crate::mounts::{has, mount_at, shows};
use crate::support::{Bundle, HostTmpfs};
use crate::{ours_only, requires};
use serde_json::json;
use std::fs;
use std::os::unix::fs::chown;
use std::process::Command;

fn in_user_namespace(bundle: Bundle, first: Option<u32>) -> Bundle {
    match first {
        Some(first) => bundle.user_namespace(first),
        None => bundle,
    }
}

/// Bundles, without and with a user namespace, that bind a mount of the host which has these flags.
fn binds(host: &str, options: &[&str]) -> [(Bundle, HostTmpfs); 2] {
    [None, Some(300_000)].map(|first| {
        let mount = HostTmpfs::new();
        for options in ["diratime,strictatime", host] {
            let options = format!("remount,bind,{options}");
            assert!(Command::new("mount").arg("-o").arg(options).arg(mount.path()).status().unwrap().success());
        }
        let bundle = shows().mount("/tmp", "bind", mount.path(), options);
        (in_user_namespace(bundle, first), mount)
    })
}

#[test]
fn a_bind_mount_has_the_flags_that_are_named_and_those_that_are_locked() {
    requires!(root);
    ours_only!("runc 1.1 keeps and clears others");
    // What the source has, what is asked for, what the mount has then, and what in a user namespace.
    for (host, options, expected, locked) in [
        ("ro,noexec,nosymfollow", &["bind"][..], "ro,noexec,nosymfollow", "ro,noexec,nosymfollow"),
        ("ro,noexec,nosymfollow", &["bind", "dev"], "rw,!noexec,!nosymfollow", "ro,noexec,!nosymfollow"),
        ("ro", &["bind", "nosuid", "nodev"], "rw,nosuid,nodev", "ro,nosuid,nodev"),
        ("nodev,noatime", &["bind", "ro", "exec"], "ro,!nodev,noatime", "ro,nodev,noatime"),
        ("ro", &["bind", "rw"], "rw", "refused"),
        ("nosuid", &["bind", "suid"], "rw,!nosuid", "refused"),
        ("noatime", &["bind", "atime"], "noatime", "noatime"),
        ("noatime", &["bind", "relatime"], "relatime,!noatime", "refused"),
        ("noatime", &["bind", "nodiratime"], "nodiratime,relatime", "refused"),
        ("noatime", &["bind", "nodiratime", "strictatime"], "nodiratime,!relatime,!noatime", "refused"),
        ("strictatime", &["bind", "noatime"], "noatime", "refused"),
        ("nodev", &["bind", "sync"], "rw,!nodev", "nodev"),
    ] {
        for ((bundle, _mount), expected) in binds(host, options).into_iter().zip([expected, locked]) {
            let shown = bundle.run();
            if expected == "refused" {
                let words = "failed to set user-requested vfs flags on bind-mount: operation not permitted";
                shown.fails().stderr_contains("error during container init: error mounting").stderr_contains(words);
                continue;
            }
            let mount = mount_at(&shown.ok(), "/tmp");
            for word in expected.split(',') {
                let found = has(&mount.attributes, word.trim_start_matches('!'));
                assert_eq!(found, !word.starts_with('!'), "{host} {options:?} {expected}: {mount:?}");
            }
        }
    }
}

#[test]
fn a_source_in_the_root_shows_what_earlier_mounts_have_put_there() {
    requires!(root);
    ours_only!("runc 1.1 has no id maps");
    for (first, mapped) in [(None, false), (Some(300_000), false), (None, true), (Some(300_000), true)] {
        let script = "cat /final/below/file; stat -c %u:%g /final/below/file; cat /proc/self/mountinfo";
        let bundle = Bundle::sh(script).prepare(|dir| {
            fs::create_dir_all(dir.join("source/below")).unwrap();
            fs::write(dir.join("source/below/file"), "content\n").unwrap();
            chown(dir.join("source/below/file"), Some(100), Some(200)).unwrap();
        });
        let (root, host) = (bundle.rootfs(), first.unwrap_or(0));
        let bundle = bundle.mount("/tmp", "bind", "source", &["bind"]);
        let option = if mapped { "idmap=uids=100-300007-1;gids=200-300008-1" } else { "rprivate" };
        let to = root.join("final");
        let bundle = bundle.mount(to.to_str().unwrap(), "bind", root.join("tmp"), &["bind", option]);
        let bundle = bundle.with(|config| config["root"]["readonly"] = json!(false));
        let bundle = in_user_namespace(bundle, first);
        let ids = match mapped {
            true => format!("{}:{}", 300_007 - host, 300_008 - host),
            false => if host == 0 { "100:200" } else { "65534:65534" }.to_owned(),
        };
        let shown = bundle.run().ok().stdout_contains(&format!("content\n{ids}\n"));
        mount_at(&shown, "/final");
    }
}
