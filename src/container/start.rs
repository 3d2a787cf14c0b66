//! start: let a created container's init execute its program; run: create and start in one.

use super::{Container, CreateOptions, Started, Status, create, hooks};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::sys::{Errno, fd, path};
use nix::fcntl::OFlag;
use oci_spec::runtime::Spec;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Creates the container `id`, whose state is kept below `root`, and starts its program, all or nothing.
pub fn run(root: &Path, id: &str, options: &CreateOptions) -> Result<(Container, Started)> {
    let (container, started) = create(root, id, &CreateOptions { start: true, ..options.clone() })?;
    match container.run_poststart_hooks() {
        Ok(()) => Ok((container, started)),
        Err(err) => {
            container.delete(true).unwrap_or_else(|left| log::debug!("delete container {id}: {left}"));
            Err(err)
        }
    }
}

/// Says whether something is to run as soon as the program does.
pub(super) fn has_poststart_hooks(spec: &Spec) -> bool {
    spec.hooks().as_ref().and_then(|hooks| hooks.poststart().as_ref()).is_some_and(|hooks| !hooks.is_empty())
}

impl Container {
    /// Starts the program, and runs the poststart hooks.
    pub fn start(&mut self) -> Result<()> {
        let refuse = |text| Err(Error::new(ErrorKind::WrongStatus, text));
        match self.status()? {
            Status::Created => {}
            Status::Stopped => return refuse("cannot start a container that has stopped"),
            Status::Running => return refuse("cannot start an already running container"),
            Status::Paused => return refuse("cannot start a container in the paused state"),
        }
        let fifo = self.release()?;
        if has_poststart_hooks(self.spec()?) {
            // Init holds the fifo open until it executes the program, or ends.
            fd::wait_unread(fifo.as_fd()).context(|| "wait for the program")?;
        }
        self.run_poststart_hooks()
    }

    /// Runs the poststart hooks of a container whose program was just started.
    fn run_poststart_hooks(&self) -> Result<()> {
        let spec = self.spec()?;
        let Some(listed) = spec.hooks() else { return Ok(()) };
        let status = Status::Running.as_str();
        hooks::run("poststart", listed.poststart().as_ref(), &self.state, status).inspect_err(|_| {
            // The specification wants the container stopped then (1.3, "Lifecycle").
            if let Err(err) = self.kill(libc::SIGKILL) {
                log::debug!("could not kill container {}: {err}", self.id());
            }
        })
    }

    /// Writes to the fifo that init reads from. Init holds the other end exactly as long as it lives, so this cannot
    /// block, nor succeed with nobody there.
    fn release(&self) -> Result<OwnedFd> {
        let path = self.dir.fifo();
        let text = crate::plan::process::cstring(path.as_os_str(), "state directory")?;
        let fifo = path::open(&text, OFlag::O_WRONLY | OFlag::O_NONBLOCK).map_err(|errno| match errno {
            Errno::ENXIO => Error::new(ErrorKind::WrongStatus, "cannot start a container that has stopped"),
            Errno::ENOENT => Error::new(ErrorKind::WrongStatus, "cannot start an already running container"),
            errno => Error::system(format!("open {}", path.display()), errno),
        })?;
        // Removed first: of two that start at once, one finds it gone.
        std::fs::remove_file(&path).map_err(|err| match err.kind() {
            std::io::ErrorKind::NotFound => {
                Error::new(ErrorKind::WrongStatus, "cannot start an already running container")
            }
            _ => Error::other(format!("remove {}: {err}", path.display())),
        })?;
        fd::write_all(fifo.as_fd(), &[0]).context(|| format!("write to {}", path.display()))?;
        Ok(fifo)
    }
}
