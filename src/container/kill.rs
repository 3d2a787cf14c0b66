//! kill: a signal to init, or the end of all processes of a container.

use super::Container;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{Errno, pidfd};
use nix::libc;
use std::os::fd::AsFd;

impl Container {
    /// Sends a signal to init; to every process where SIGKILL to init would leave processes behind because they have
    /// no pid namespace that ends with it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WrongStatus`] `container not running` when init has ended, unless all processes are meant and the
    /// cgroup is still there.
    pub fn kill(&self, signal: i32) -> Result<()> {
        // A configuration that cannot be read any more keeps nobody from being killed.
        if signal != libc::SIGKILL || self.has_own_pids().unwrap_or(false) {
            return self.signal_init(signal);
        }
        let cgroup = &self.state.cgroup;
        let killed = match cgroup.exists() {
            true => cgroup.kill(signal),
            false => Err(Error::other("cgroup not exist")),
        };
        killed.or_else(|err| {
            // Who may not make cgroups may not have one to kill.
            if cgroup.rootless {
                let hint = "possibly due to lack of cgroup (Hint: enable cgroup v2 delegation)";
                log::warn!("failed to kill all processes, {hint}: {err}");
            } else if cgroup.exists() {
                return Err(err.context("unable to kill all processes"));
            }
            // Without a cgroup init is the only process that is known to be the container's.
            self.signal_init(signal)
        })
    }

    fn signal_init(&self, signal: i32) -> Result<()> {
        let init = self.init()?.ok_or_else(not_running)?;
        let sent = pidfd::send_signal(init.as_fd(), signal);
        let thawed = if signal == libc::SIGKILL { self.thaw_for_kill() } else { Ok(()) };
        match sent {
            Err(Errno::ESRCH) => Err(not_running()),
            Err(errno) => Err(Error::system("unable to signal init", errno)),
            Ok(()) => thawed,
        }
    }

    /// A frozen process on v1 does not die of SIGKILL before it is thawed.
    fn thaw_for_kill(&self) -> Result<()> {
        match self.state.cgroup.is_frozen()? {
            true => self.state.cgroup.thaw(),
            false => Ok(()),
        }
    }
}

pub(super) fn not_running() -> Error {
    Error::new(ErrorKind::WrongStatus, "container not running")
}
