//! One detached container of a test.

use crate::daemon::Daemon;
use crate::support::{Output, wait_until};
use std::path::PathBuf;
use std::time::Duration;

/// A detached container, removed with force when the test is through with it.
pub struct Container<'a> {
    daemon: &'a Daemon,
    name: String,
    id: String,
}

impl<'a> Container<'a> {
    /// Takes charge of a container that was started.
    pub fn new(daemon: &'a Daemon, name: String, id: String) -> Self {
        Self { daemon, name, id }
    }

    /// Returns the container's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the whole id, which the runtime knows the container by.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Runs a docker command whose last word is the container: `pause`, `stop -t 1`.
    pub fn docker(&self, command: &str) -> Output {
        let args: Vec<&str> = command.split(' ').chain([self.name()]).collect();
        self.daemon.docker(&args)
    }

    /// Runs a shell script in the container.
    pub fn exec(&self, options: &[&str], script: &str) -> Output {
        self.exec_program(options, &["sh", "-c", script])
    }

    /// Runs a program in the container.
    pub fn exec_program(&self, options: &[&str], program: &[&str]) -> Output {
        let args = [&["exec"], options, &[self.name()], program].concat();
        self.daemon.docker(&args)
    }

    /// Gives the container another name.
    pub fn rename(&mut self, name: &str) {
        self.daemon.docker(&["rename", self.name(), name]).ok();
        self.name = name.into();
    }

    /// Returns what docker knows about the container: `State.Status`.
    pub fn inspect(&self, field: &str) -> String {
        self.docker(&format!("inspect -f {{{{.{field}}}}}")).ok().text().to_owned()
    }

    /// Waits until the container has the status.
    #[track_caller]
    pub fn becomes(&self, status: &str) {
        wait_until(&format!("{} is {status}", self.name()), || self.inspect("State.Status") == status);
    }

    /// Returns what the container wrote so far.
    pub fn logs(&self) -> String {
        self.docker("logs").ok().stdout
    }

    /// Waits until the container has written this.
    #[track_caller]
    pub fn says(&self, text: &str) {
        wait_until(&format!("{} writes {text:?}", self.name()), || self.logs().contains(text));
    }

    /// Starts a stopped container from its checkpoint.
    #[track_caller]
    pub fn restore(&self, checkpoint: &str) {
        // containerd's content store keeps the images of a checkpoint for a moment and refuses to take them again.
        std::thread::sleep(Duration::from_secs(5));
        self.docker(&format!("start --checkpoint {checkpoint}")).ok();
        self.becomes("running");
    }

    /// Returns everything that the runtime and the kernel hold for the container.
    pub fn holdings(&self) -> Vec<PathBuf> {
        let mut held = self.daemon.cgroups();
        held.push(self.daemon.state().join(&self.id));
        held.retain(|path| path.exists() && path.ends_with(&self.id));
        held
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let _removed = self.docker("rm --force");
    }
}
