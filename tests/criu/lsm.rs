//! Profiles and contexts of security modules: what CRIU is told of them. This is for machines without one, too: there
//! CRIU's answer shows that it was told.

use crate::support::Bundle;
use crate::{COUNTER, Checkpointed, ours_only, requires};
use serde_json::json;
use stasis::criu::image::Reader;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn a_profile_reaches_criu() {
    requires!(root, criu);
    let c = Checkpointed::counter();
    c.checkpoint(&[]).ok();
    let modules = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    for module in ["apparmor", "selinux"] {
        if modules.split(',').any(|there| there.trim() == module) {
            continue;
        }
        let words = format!("{module} LSM specified but {module} not supported by kernel");
        let output = c.restore(&["--lsm-profile", &format!("{module}:made-up")]).exits(1);
        assert!(c.log("restore.log").contains(&words), "{output}");
        if !crate::support::is_oracle() {
            assert!(output.stderr.lines().next().unwrap().contains(&words), "{output}");
        }
        c.runtime.leaves_nothing();
    }
    c.restore(&["--lsm-profile", "none:"]).ok();
    c.counts();
}

/// A profile of AppArmor under which everything is allowed but to read /forbidden.
struct Profile(String);

impl Profile {
    fn load() -> Self {
        let name = format!("stasis-test-{}", std::process::id());
        let rules = "file, capability, network, mount, umount, pivot_root, signal, ptrace, unix, deny /forbidden r,";
        let text = format!("profile {name} flags=(attach_disconnected, mediate_deleted) {{ {rules} }}");
        assert!(parse("--replace", &text));
        Self(text)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        parse("--remove", &self.0);
    }
}

/// Has a profile loaded or removed.
fn parse(option: &str, text: &str) -> bool {
    let mut command = Command::new("apparmor_parser");
    let mut child = command.args([option, "--skip-cache"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait().unwrap().success()
}

#[test]
fn a_profile_of_apparmor_confines_before_and_after_or_is_refused() {
    requires!(root, criu);
    let bundle = |profile: &str| {
        let profile = profile.to_owned();
        let bundle = Bundle::sh(COUNTER).prepare(|path| fs::write(path.join("rootfs/forbidden"), "read\n").unwrap());
        bundle.with(move |config| config["process"]["apparmorProfile"] = json!(profile))
    };
    if !Path::new("/sys/kernel/security/apparmor").is_dir() {
        bundle("made-up").run().fails();
        return;
    }
    let profile = Profile::load();
    let name = profile.0.split(' ').nth(1).unwrap();
    let c = Checkpointed::run(bundle(name));
    let is_confined = || {
        let current = format!("{name} (enforce)");
        c.runtime.exec(&["cat", "/proc/1/attr/current"]).ok().prints(&current);
        c.runtime.exec(&["cat", "/proc/self/attr/current"]).ok().prints(&current);
        c.runtime.exec(&["cat", "/forbidden"]).exits(1).stderr_contains("Permission denied");
    };
    is_confined();
    c.round_trip();
    c.counts();
    is_confined();
}

#[test]
fn a_profile_of_no_known_kind_is_one_line() {
    requires!(root, criu);
    ours_only!("runc leaves it to CRIU, which has begun by then");
    let c = Checkpointed::counter();
    c.checkpoint(&[]).ok();
    for wrong in ["smack:made-up", "made-up", ":made-up"] {
        let words = format!("invalid --lsm-profile {wrong:?}: apparmor:NAME, selinux:CONTEXT or none: is expected");
        let refused = c.restore(&["--lsm-profile", wrong]).exits(1).stderr_contains(&words);
        assert_eq!(refused.stderr.lines().count(), 1, "{refused}");
        assert!(!c.images().join("restore.log").exists(), "CRIU was begun with {wrong:?}");
    }
    // Podman and CRI-O ask like this whether there is the other option.
    for option in ["--lsm-profile", "--lsm-mount-context"] {
        let output = c.restore(&[option]).exits(1);
        assert!(!c.images().join("restore.log").exists(), "{output}");
    }
    c.runtime.leaves_nothing();
}

/// Gives the tmpfs on /dev/shm a context in the images, as it would have where there is SELinux.
fn label_shm(images: &Path) {
    let entry = fs::read_dir(images).unwrap().map(|entry| entry.unwrap().path());
    let path = entry.into_iter().find(|path| path.to_str().unwrap().contains("/mountpoints-")).unwrap();
    let mut reader = Reader::open(&path).unwrap();
    let mut writer = reader.writer();
    while let Some(mut mount) = reader.message().unwrap() {
        if mount.text(7).unwrap().ends_with("dev/shm") {
            mount.set_text(9, &format!("{},context=\"dumped:context\"", mount.text(9).unwrap()));
        }
        writer.message(&mount);
    }
    writer.save(&path).unwrap();
}

#[test]
fn a_context_takes_the_place_of_that_of_the_image() {
    requires!(root, criu);
    let c = Checkpointed::counter();
    c.checkpoint(&[]).ok();
    label_shm(&c.images());
    // A kernel without SELinux knows no such option: what counts is what CRIU tries.
    let tried = |options: &[&str]| {
        let output = c.restore(options);
        c.runtime.cmd(&["delete", "--force", c.runtime.id()]);
        let log = c.log("restore.log");
        assert!(output.code == 0 || log.contains("Unable to mount shm"), "{output}");
        log.lines().any(|line| line.contains("Changed mount 'context='") && line.contains(r#"context="given:context""#))
    };
    assert!(tried(&["--lsm-mount-context", "given:context"]));
    assert!(!tried(&[]) && !tried(&["--lsm-mount-context="]));
    c.runtime.leaves_nothing();
}
