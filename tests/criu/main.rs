//! Round trips through CRIU, seen through the runtime's command line: a file per area.
//!
//! What counts is what the processes find after a restore: their memory, their files, their namespaces, their place in
//! the cgroups; not only that they run. `RUNTIME=runc` runs the same tests on runc; a test that cannot pass there says
//! why.

// A test fails by panicking; clippy's own exceptions end at functions that are no #[test].
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cgroups;
mod clones;
mod crun;
mod failure;
mod files;
mod holder;
mod hooks;
mod inspect;
mod joined;
mod killed;
mod leaks;
mod lsm;
mod memory;
mod namespaces;
mod network;
mod peer;
mod preflight;
mod progress;
mod queues;
mod roundtrip;
mod shareable;
mod shm_shared;
mod streams;
mod terminals;
mod tmpfs;
#[macro_use]
#[path = "../support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::{Bundle, Output, Runtime, keeps, wait_until};

/// A program that counts in its memory, and shows where it is in a file of a tmpfs.
const COUNTER: &str = "i=0; while true; do i=$((i+1)); echo $i > /dev/shm/count; sleep 0.05; done";

/// A container that can be checkpointed, and the place of its images, outside of the bundle.
struct Checkpointed {
    runtime: Runtime,
    place: tempfile::TempDir,
}

impl Checkpointed {
    /// Runs a bundle. Its streams lead to /dev/null: only ours dumps a stream that is a file of the host.
    #[track_caller]
    fn run(bundle: Bundle) -> Self {
        let this = Self::of(bundle);
        let mut command = this.runtime.command(&["run", "--detach", "--bundle", this.bundle(), this.runtime.id()]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        assert!(command.status().unwrap().success(), "{command:?}");
        this
    }

    fn of(bundle: Bundle) -> Self {
        Self { runtime: Runtime::new(bundle), place: tempfile::tempdir().unwrap() }
    }

    /// Runs a counter.
    #[track_caller]
    fn counter() -> Self {
        Self::run(Bundle::sh(COUNTER))
    }

    fn bundle(&self) -> &str {
        self.runtime.bundle().path().to_str().unwrap()
    }

    /// Returns the directory of the images.
    fn images(&self) -> PathBuf {
        self.place.path().join("images")
    }

    /// Returns a command line with the images and more options.
    fn line(&self, verb: &str, options: &[&str]) -> Command {
        let images = self.images();
        let mut line = vec![verb, "--image-path", images.to_str().unwrap()];
        line.extend(options);
        line.push(self.runtime.id());
        self.runtime.command(&line)
    }

    #[track_caller]
    fn checkpoint(&self, options: &[&str]) -> Output {
        self.runtime.output_of(self.line("checkpoint", options))
    }

    /// Restores the container into its own bundle, detached.
    #[track_caller]
    fn restore(&self, options: &[&str]) -> Output {
        self.runtime.output_of(self.line("restore", &[&["--detach", "--bundle", self.bundle()], options].concat()))
    }

    /// Checkpoints and restores.
    #[track_caller]
    fn round_trip(&self) {
        self.checkpoint(&[]).ok();
        self.restore(&[]).ok();
        assert_eq!(self.runtime.status(), "running");
    }

    /// Returns how far a counter has come.
    #[track_caller]
    fn count(&self) -> u32 {
        let text = self.runtime.exec(&["cat", "/dev/shm/count"]).ok();
        text.text().parse().unwrap_or(0)
    }

    /// Waits until a counter has gone on.
    #[track_caller]
    fn counts(&self) {
        let before = self.count();
        wait_until("the counter goes on", || self.count() > before);
    }

    /// Returns the position of a descriptor of the container's init, as soon as that has it open.
    #[track_caller]
    fn position(&self, descriptor: i32) -> Option<u64> {
        let about = self.runtime.exec(&["cat", &format!("/proc/1/fdinfo/{descriptor}")]);
        about.lines().iter().find_map(|line| line.strip_prefix("pos:\t"))?.parse().ok()
    }

    /// Returns one of CRIU's logs.
    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.images().join(name)).unwrap()
    }
}

/// A bundle whose program is tests/programs/shm_keeper.c.
fn keeper(argument: &str) -> Bundle {
    let capabilities = ["CAP_CHOWN", "CAP_FOWNER", "CAP_FSETID", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN"];
    let bundle = Bundle::new(&["shm_keeper", argument]).program("shm_keeper").capable(&capabilities);
    bundle.with(|config| config["root"]["readonly"] = serde_json::json!(false))
}

/// A bundle whose program is tests/programs/file_keeper.c, which holds these things.
fn file_keeper(parts: &[&str]) -> Bundle {
    let bundle = Bundle::new(&[&["file_keeper"], parts].concat()).program("file_keeper");
    bundle.with(|config| config["root"]["readonly"] = serde_json::json!(false))
}

/// Asks tests/programs/file_keeper.c whether all is as it was.
#[track_caller]
fn is_as_it_was(c: &Checkpointed) {
    let ask = "touch /dev/shm/ask; i=0; while [ -e /dev/shm/ask ] && [ $i -lt 100 ]; do sleep 0.1; i=$((i+1)); done";
    c.runtime.exec_sh(&format!("rm -f /dev/shm/status; {ask}; cat /dev/shm/status")).ok().prints("as it was");
}

/// Returns the inode of a namespace of a process.
fn namespace(pid: i32, kind: &str) -> PathBuf {
    std::fs::read_link(Path::new("/proc").join(pid.to_string()).join("ns").join(kind)).unwrap()
}

/// Returns the children of a process.
fn children(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap()
}

/// Makes a directory with a tar of this script.
fn programs(tar: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tar");
    let others = std::env::var("PATH").unwrap();
    std::fs::write(&path, format!("#!/bin/sh\nPATH={others}\n{tar}\n")).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    directory
}

/// Returns PATH with a directory in front of it.
fn path_with(directory: &Path) -> std::ffi::OsString {
    let mut path = directory.as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap());
    path
}
