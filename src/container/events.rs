//! events: what a container uses, and when it runs out of memory.

use super::{Container, Status};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::sys::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// What there is to tell of a container.
#[derive(Debug)]
pub enum Event {
    /// What it has used until now, as [`crate::cgroup::Cgroup::stats`] tells it.
    Stats(Value),
    /// It had no memory left, and the kernel killed one of its processes.
    OutOfMemory,
}

impl Container {
    /// Returns what the container has used until now.
    pub fn stats(&self) -> Result<Value> {
        match self.status()? {
            Status::Stopped => Err(self.not_running()),
            _ => Ok(self.used()),
        }
    }

    /// Tells what the container has used at each end of an interval, and of the OOM killer at once, until its init has
    /// ended or `tell` fails.
    pub fn watch<E: From<Error>>(
        &self,
        interval: Duration,
        mut tell: impl FnMut(Event) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let Some(init) = self.init()? else { return Err(self.not_running().into()) };
        let mut oom = self.state.cgroup.watch_oom()?;
        let mut next = Instant::now() + interval;
        loop {
            let mut fds = vec![PollFd::new(init.as_fd(), PollFlags::POLLIN)];
            fds.extend(oom.as_ref().map(|oom| {
                let (fd, flags) = oom.poll();
                PollFd::new(fd, flags)
            }));
            // Rounded up: the last part of a millisecond is slept, not polled.
            let wait = next.saturating_duration_since(Instant::now()).as_millis() + 1;
            match poll(&mut fds, PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)) {
                Err(Errno::EINTR) => continue,
                other => other.context(|| "wait for events")?,
            };
            let has_ended = fds[0].any().unwrap_or(false);
            // A cgroup that was removed is also told, and has had no process by then.
            let is_out_of_memory = oom.as_mut().is_some_and(|oom| oom.has_news().unwrap_or(false));
            if is_out_of_memory && self.state.cgroup.exists() {
                tell(Event::OutOfMemory)?;
            }
            if has_ended {
                return Ok(());
            }
            if Instant::now() >= next {
                next = Instant::now() + interval;
                tell(Event::Stats(self.used()))?;
            }
        }
    }

    fn used(&self) -> Value {
        let mut stats = self.state.cgroup.stats();
        if let Some(rdt) = &self.state.rdt {
            stats["intel_rdt"] = rdt.stats();
        }
        stats
    }

    fn not_running(&self) -> Error {
        Error::new(ErrorKind::WrongStatus, format!("container with id {} is not running", self.id()))
    }
}
