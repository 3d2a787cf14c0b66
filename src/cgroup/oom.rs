//! Hearing of the OOM killer: from v1's notification of a cgroup, or from a counter of v2's.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::poll::PollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{Cgroup, file};
use crate::error::{Context, Result};
use crate::plan::cgroup::Version;

/// Something to poll that tells of the OOM killer's work in a cgroup.
#[derive(Debug)]
pub enum OomWatch {
    /// The kernel adds to a counter (memory.rst of v1, "Notifications"), and has to be asked by a file that stays open.
    V1(EventFd, #[allow(dead_code, reason = "is held open")] File),
    /// `memory.events` becomes ready when it has changed, with the number of processes that were killed until now.
    V2(File, u64),
}

impl Cgroup {
    /// Begins to watch; nothing where no controller counts memory.
    pub fn watch_oom(&self) -> Result<Option<OomWatch>> {
        let Some(directory) = self.directory("memory") else { return Ok(None) };
        let open = |name: &str| {
            let path = directory.path.join(name);
            File::open(&path).context(|| format!("open {}", path.display()))
        };
        if directory.version == Version::V2 {
            let mut watch = OomWatch::V2(open("memory.events")?, 0);
            // What was before is no news.
            watch.has_news()?;
            return Ok(Some(watch));
        }
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let counter = EventFd::from_flags(flags).context(|| "make an eventfd")?;
        let control = open("memory.oom_control")?;
        let register = directory.path.join("cgroup.event_control");
        let words = format!("{} {}", counter.as_fd().as_raw_fd(), control.as_raw_fd());
        file::write(&register, &words).context(|| format!("write to {}", register.display()))?;
        Ok(Some(OomWatch::V1(counter, control)))
    }
}

impl OomWatch {
    /// Returns what is to be polled, and for what.
    pub fn poll(&self) -> (BorrowedFd<'_>, PollFlags) {
        match self {
            OomWatch::V1(counter, _) => (counter.as_fd(), PollFlags::POLLIN),
            OomWatch::V2(events, _) => (events.as_fd(), PollFlags::POLLPRI),
        }
    }

    /// Says whether the OOM killer was at work since this was asked last.
    pub fn has_news(&mut self) -> Result<bool> {
        match self {
            OomWatch::V1(counter, _) => Ok(counter.read().is_ok()),
            OomWatch::V2(events, before) => {
                let mut text = String::with_capacity(128);
                events.rewind().and_then(|()| events.read_to_string(&mut text)).context(|| "read memory.events")?;
                let now = file::value(&text, "oom_kill").unwrap_or(0);
                Ok(std::mem::replace(before, now) < now)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn on_v2_a_counter_that_has_grown_is_news_once() {
        let dir = tempfile::tempdir().unwrap();
        let count = |kills: u32| {
            // Other counters grow too: of limits that were met, and of kills that others decided on.
            let text = format!("low 0\nhigh 3\nmax 9{kills}\noom {kills}\noom_kill {kills}\noom_group_kill 0\n");
            std::fs::write(dir.path().join("memory.events"), text).unwrap();
        };
        let directory = json!({"version": "v2", "controllers": ["memory"], "mount": dir.path(), "path": dir.path()});
        let cgroup = json!({"driver": "cgroupfs", "directories": [directory], "lenient": false});
        let cgroup: Cgroup = serde_json::from_value(cgroup).unwrap();
        count(2);
        let mut watch = cgroup.watch_oom().unwrap().unwrap();
        assert!(!watch.has_news().unwrap() && watch.poll().1 == PollFlags::POLLPRI);
        for (kills, is_news) in [(3, true), (3, false), (7, true)] {
            count(kills);
            assert_eq!(watch.has_news().unwrap(), is_news, "{kills}");
        }
        assert_eq!(cgroup.oom_kills(), Some(7));
    }

    #[test]
    fn without_a_controller_of_memory_there_is_nothing_to_watch() {
        assert!(Cgroup::default().watch_oom().unwrap().is_none());
    }
}
