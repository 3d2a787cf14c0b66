//! Ways that would lead out of the container: through a descriptor of the runtime (CVE-2024-21626), and through a root
//! file system that somebody changes while the container is made (CVE-2021-30465, CVE-2025-31133, CVE-2025-52565,
//! CVE-2026-41579).

use crate::requires;
use crate::support::{Bundle, Runtime};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Paths to the host's root by way of any descriptor that may be open while a process is made.
fn ways_out() -> impl Iterator<Item = String> {
    (3..32).map(|number| format!("/proc/self/fd/{number}/../../../../../../.."))
}

/// What is said of a descriptor that is closed, and of one that is no directory.
const NOT_FOUND: [&str; 2] = ["no such file or directory", "not a directory"];

#[test]
fn a_program_is_not_found_through_a_descriptor() {
    for way in ways_out() {
        Bundle::new(&[&format!("{way}/usr/bin/env")]).run().fails().stderr_contains_any(&NOT_FOUND);
    }
}

#[test]
fn a_program_of_exec_is_not_found_through_a_descriptor() {
    let c = Bundle::sleep().start();
    for way in ways_out() {
        c.exec(&[&format!("{way}/usr/bin/env")]).exits(255).stderr_contains_any(&NOT_FOUND);
    }
}

#[test]
fn a_working_directory_is_not_found_through_a_descriptor() {
    for way in ways_out() {
        let bundle = Bundle::new(&["/bin/true"]).with(|c| c["process"]["cwd"] = way.into());
        bundle.run().fails().stderr_contains_any(&NOT_FOUND);
    }
}

#[test]
fn a_working_directory_of_exec_is_not_found_through_a_descriptor() {
    let c = Bundle::sleep().start();
    for way in ways_out() {
        c.exec_with(&["--cwd", &way], &["/bin/true"]).exits(255).stderr_contains_any(&NOT_FOUND);
    }
}

/// Exchanges two files again and again for as long as `meanwhile` takes.
fn exchanging(one: &Path, other: &Path, meanwhile: impl FnOnce()) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE).unwrap();
            }
        });
        // The other thread ends in any case.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(meanwhile));
        done.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|cause| std::panic::resume_unwind(cause));
    });
}

/// Returns what is in a directory of the host that nothing may be made in.
fn names(dir: &Path) -> Vec<PathBuf> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names
}

/// Runs a container often whose place `/place` is by turns a directory and a symlink to a directory outside. Whether it
/// comes up is a matter of chance; nothing is made outside and nothing from there is seen inside.
fn nothing_leads_out(script: &str, configure: impl Fn(Bundle) -> Bundle) {
    let c = Bundle::sh(script).prepare(|dir| {
        for name in ["rootfs/place/below", "outside/below"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        for name in ["outside/secret", "outside/null", "outside/below/secret"] {
            fs::write(dir.join(name), "SECRET").unwrap();
        }
        fs::write(dir.join("rootfs/place/secret"), "harmless").unwrap();
        // As many levels up as there are: in the root they end there.
        symlink(format!("../../../../../../../..{}/outside", dir.display()), dir.join("rootfs/link")).unwrap();
    });
    let c = Runtime::new(configure(c.with(|config| config["root"]["readonly"] = json!(false))));
    let (dir, root) = (c.bundle().path().to_owned(), c.bundle().rootfs());
    let before = [names(&dir.join("outside")), names(&dir.join("outside/below"))];
    exchanging(&root.join("place"), &root.join("link"), || {
        for _ in 0..8 {
            let output = c.run();
            assert!(!output.stdout.contains("SECRET"), "{output}");
            c.delete();
        }
    });
    assert_eq!([names(&dir.join("outside")), names(&dir.join("outside/below"))], before);
    assert_eq!(fs::read_to_string(dir.join("outside/secret")).unwrap(), "SECRET");
}

#[test]
fn mount_points_are_not_made_outside() {
    requires!(root);
    nothing_leads_out("cat /place/*", |bundle| {
        let bundle =
            bundle.mount("/place/made", "tmpfs", "tmpfs", &[]).mount("/place/below/new", "tmpfs", "tmpfs", &[]);
        bundle.mount("/place/file", "bind", "config.json", &["bind"])
    });
}

#[test]
fn nothing_outside_is_copied_into_a_tmpfs() {
    requires!(root);
    nothing_leads_out("cat /place/* /place/*/*", |bundle| bundle.mount("/place", "tmpfs", "tmpfs", &["tmpcopyup"]));
}

#[test]
fn devices_are_not_made_outside() {
    requires!(root);
    nothing_leads_out("cat /place/secret /place/below/*", |bundle| {
        bundle.with(|config| {
            config["linux"]["devices"] = json!([{"path": "/place/zero", "type": "c", "major": 1, "minor": 5}]);
        })
    });
}

#[test]
fn masks_do_not_show_what_is_outside() {
    requires!(root);
    nothing_leads_out("cat /place/secret", |bundle| {
        bundle.with(|config| {
            config["linux"]["maskedPaths"] = json!(["/place/secret", "/place/below"]);
            config["linux"]["readonlyPaths"] = json!(["/place"]);
        })
    });
}

#[test]
fn a_dev_that_changes_leads_nowhere() {
    requires!(root);
    nothing_leads_out("cat /dev/secret /dev/null", |bundle| {
        let bundle = bundle.prepare(|dir| {
            fs::remove_dir(dir.join("rootfs/dev")).unwrap();
            symlink("place", dir.join("rootfs/dev")).unwrap();
        });
        bundle.with(|config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        })
    });
}
