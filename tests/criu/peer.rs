//! A container of another runtime, for what passes between theirs and ours: images.

use crate::Checkpointed;
use crate::support::{Output, wait_until};
use std::path::PathBuf;
use std::process::Command;

/// Another runtime, with a container of the same name and bundle; its state is kept beside ours.
pub struct Peer<'a> {
    c: &'a Checkpointed,
    program: &'a str,
}

impl<'a> Peer<'a> {
    pub fn new(c: &'a Checkpointed, program: &'a str) -> Self {
        Self { c, program }
    }

    /// Returns a command line of the runtime that ends with the container's name.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.in_layout(self.program);
        command.arg("--root").arg(self.c.place.path().join("peer")).args(args).arg(self.c.runtime.id());
        command.stdin(std::process::Stdio::null());
        command
    }

    /// Returns a command where the container's hierarchies are. runc leaves logs where it is called.
    fn in_layout(&self, program: &str) -> Command {
        let mut command = self.c.runtime.bundle().shown_layout().command(program);
        command.current_dir(self.c.place.path());
        command
    }

    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Output {
        self.c.runtime.output_of(self.command(args))
    }

    /// Runs a verb that leaves a container behind, whose streams are not to be files: CRIU cannot dump those.
    #[track_caller]
    pub fn detached(&self, args: &[&str]) {
        let script = "exec </dev/null >/dev/null 2>&1; exec \"$@\"";
        let mut command = self.in_layout("sh");
        command.args(["-c", script, "sh", self.program, "--root"]).arg(self.c.place.path().join("peer")).args(args);
        command.args(["--detach", "--bundle", self.c.bundle()]).arg(self.c.runtime.id());
        self.c.runtime.output_of(command).ok();
    }

    /// Dumps its container to where ours is restored from.
    #[track_caller]
    pub fn checkpoint(&self) {
        self.run(&["checkpoint", "--image-path", self.c.images().to_str().unwrap()]).ok();
    }

    /// Returns the container's init.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.run(&["state"]).ok().json()["pid"].as_i64().unwrap()).unwrap()
    }

    /// Returns a file of the container, as the host finds it.
    #[track_caller]
    pub fn path(&self, path: &str) -> PathBuf {
        format!("/proc/{}/root{path}", self.pid()).into()
    }

    /// Waits until the container has written this into a file.
    #[track_caller]
    pub fn wait_for(&self, path: &str, so: impl Fn(&str) -> bool) {
        let path = self.path(path);
        wait_until(&format!("{} is as it should be", path.display()), || {
            std::fs::read_to_string(&path).is_ok_and(|text| so(text.trim()))
        });
    }
}

impl Drop for Peer<'_> {
    fn drop(&mut self) {
        self.run(&["delete", "--force"]);
    }
}
