//! A process that does nothing but be in a scope: systemd makes none without a process, and ends one that is empty.

use std::os::fd::{AsFd, OwnedFd};

use crate::error::{Context, Result};
use crate::sys::clone::{Child, Clone, clone_child, exit_now};
use crate::sys::{fd, pidfd};

/// Holds a scope for as long as it lives; if the runtime is killed, the process ends with it.
#[derive(Debug)]
pub struct Holder {
    child: Child,
    /// The other end of what the process reads from.
    _ours: OwnedFd,
}

impl Holder {
    pub(super) fn begin() -> Result<Self> {
        let attempt = || "make a process that holds the scope";
        let (theirs, ours) = fd::pipe().context(attempt)?;
        let request = Clone { withheld: Some(ours.as_fd()), ..Clone::default() };
        let child = clone_child(request, || exit_now(fd::read(theirs.as_fd(), &mut [0]).is_err().into()));
        Ok(Self { child: child.context(attempt)?, _ours: ours })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.pid.unsigned_abs()
    }

    /// Returns whether the process is in the cgroup of a unit.
    pub(super) fn is_in(&self, unit: &str) -> bool {
        let text = std::fs::read_to_string(format!("/proc/{}/cgroup", self.child.pid)).unwrap_or_default();
        text.lines().any(|line| line.rsplit('/').next() == Some(unit))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // By a signal: init has a copy of our end until it executes its program.
        let killed = self.child.pidfd.as_ref().map(|pidfd| pidfd::send_signal(pidfd.as_fd(), libc::SIGKILL));
        if let Err(errno) = killed.unwrap_or(Ok(())).and_then(|()| pidfd::reap(self.child.pid).map(drop)) {
            log::debug!("end of process {}: {errno}", self.child.pid);
        }
    }
}
