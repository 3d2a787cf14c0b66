//! delete: everything that is left of a container.

use super::own_cgroup;
use super::rdt::Rdt;
use super::state::StateDir;
use super::{Container, CreateOptions, Status, hooks};
use crate::cgroup::Cgroup;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::plan::cgroup::Directory;
use crate::sys::pidfd;
use nix::libc;
use std::os::fd::AsFd;

/// How long init may take to end after SIGKILL, in milliseconds: it may have much memory to give back.
const KILL_PATIENCE: i32 = 10_000;

/// Deletes a container whose state cannot be read: its directory, and its cgroup with all processes in it where the
/// configuration that was kept says for sure which one that is.
pub fn delete_damaged(dir: &StateDir, id: &str) -> Result<()> {
    let spec = dir.spec().ok();
    let path = spec.as_ref().and_then(|spec| spec.linux().as_ref()).and_then(|linux| linux.cgroups_path().as_ref());
    let spec = spec.as_ref().filter(|_| path.is_some_and(|path| path.is_absolute()));
    if let Some(mut plan) =
        spec.map(|spec| own_cgroup::plan(spec, id, &CreateOptions::default())).transpose()?.and_then(|(plan, _)| plan)
    {
        plan.directories.retain(Directory::is_own);
        let cgroup = Cgroup::planned(&plan);
        cgroup.kill(libc::SIGKILL)?;
        cgroup.remove()?;
    }
    dir.remove()
}

impl Container {
    /// Deletes the container: a stopped one, a created one, and with `force` a running one too.
    pub fn delete(self, force: bool) -> Result<()> {
        match self.status()? {
            Status::Stopped => {}
            Status::Created => self.end()?,
            _ if force => self.end()?,
            other => {
                let text = format!("cannot delete container {} that is not stopped: {other}", self.id());
                return Err(Error::new(ErrorKind::WrongStatus, text));
            }
        }
        self.destroy().map_err(|err| err.context("unable to destroy container"))
    }

    /// Kills init and waits for its end.
    fn end(&self) -> Result<()> {
        let Some(init) = self.init()? else { return Ok(()) };
        self.kill(libc::SIGKILL).or_else(|err| match err.kind() {
            // It ended by itself in the meantime.
            ErrorKind::WrongStatus => Ok(()),
            _ => Err(err),
        })?;
        match pidfd::wait_ended(init.as_fd(), KILL_PATIENCE).context(|| "wait for init")? {
            true => Ok(()),
            false => Err(Error::other("container init still running")),
        }
    }

    /// Removes the cgroup with all processes that are still in it, then the state, and runs the poststop hooks.
    pub(crate) fn destroy(self) -> Result<()> {
        let cgroup = &self.state.cgroup;
        if !cgroup.remove_empty() {
            // Without a pid namespace of their own, or after joining another one, processes outlive init.
            if !cgroup.pids(true)?.is_empty() {
                cgroup.kill(libc::SIGKILL)?;
            }
            cgroup.remove().map_err(|err| err.context("unable to remove container's cgroup"))?;
        }
        let rdt = self.state.rdt.iter().try_for_each(Rdt::remove);
        rdt.map_err(|err| err.context("unable to remove container's IntelRDT group"))?;
        // A configuration that cannot be read any more has no hooks to run.
        let hooks = self.spec().ok().and_then(|spec| spec.hooks().clone());
        self.dir.remove().map_err(|err| err.context("unable to remove container state dir"))?;
        if let Some(listed) = hooks {
            hooks::run_and_warn("poststop", listed.poststop().as_ref(), &self.state, Status::Stopped.as_str());
        }
        Ok(())
    }
}
