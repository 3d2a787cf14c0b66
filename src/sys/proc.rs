//! /proc of the host: who a process is, for commands that come back to it later.

use super::{Errno, Result, fd, path};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::sys::statfs::PROC_SUPER_MAGIC;
use std::os::fd::{AsFd, OwnedFd};

/// What /proc/PID/stat says of a process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stat {
    /// Its state letter: `Z` and `X` are processes that have ended.
    pub state: u8,
    /// Whether it is on its way out (`PF_EXITING` of field 9): the init of a pid namespace stays so, in another state,
    /// until all other processes of the namespace are reaped.
    pub exiting: bool,
    /// When it started, in clock ticks after boot (field 22): with the pid, this names one process for good.
    pub start_time: u64,
}

impl Stat {
    /// Says whether the process runs no code of its own any more.
    pub fn has_ended(&self) -> bool {
        self.exiting || matches!(self.state, b'Z' | b'X')
    }
}

/// Opens the host's /proc and checks that it is procfs and nothing mounted in its place (CVE-2025-52881).
pub fn open_root() -> Result<OwnedFd> {
    let root = path::open(c"/proc", OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    if path::is_on(root.as_fd(), PROC_SUPER_MAGIC)? { Ok(root) } else { Err(Errno::ENOTSUP) }
}

/// Reads /proc/PID/stat; ESRCH when there is no such process.
pub fn stat(pid: i32) -> Result<Stat> {
    let name = ["/proc/", &pid.to_string(), "/stat"].concat();
    let file =
        nix::fcntl::open(name.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).map_err(
            |errno| match errno {
                Errno::ENOENT => Errno::ESRCH,
                other => other,
            },
        )?;
    let mut text = [0; 1024];
    let len = fd::read(file.as_fd(), &mut text)?;
    parse_stat(text.get(..len).unwrap_or_default()).ok_or(Errno::ESRCH)
}

/// Returns the pid that a process has in its own pid namespace (proc_pid_status(5), `NSpid`); ESRCH when there is no
/// such process.
pub fn innermost_pid(pid: i32) -> Result<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|_| Errno::ESRCH)?;
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    pids.and_then(|pids| pids.split_ascii_whitespace().next_back()?.parse().ok()).ok_or(Errno::ESRCH)
}

/// From linux/sched.h.
const PF_EXITING: u32 = 0x4;

fn parse_stat(text: &[u8]) -> Option<Stat> {
    // The second field is the command in brackets, which may itself hold brackets and spaces.
    let after = text.iter().rposition(|&b| b == b')')? + 2;
    let fields = std::str::from_utf8(text.get(after..)?).ok()?;
    let mut fields = fields.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let flags: u32 = fields.nth(5)?.parse().ok()?;
    let start_time = fields.nth(12)?.parse().ok()?;
    Some(Stat { state, exiting: flags & PF_EXITING != 0, start_time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_brackets_does_not_shift_the_fields() {
        let text = b"42 (a) S (b)) Z 1 2 3 4 5 4194560 7 8 9 10 11 12 13 14 15 16 17 18 7777 20";
        assert_eq!(parse_stat(text), Some(Stat { state: b'Z', exiting: false, start_time: 7777 }));
    }

    #[test]
    fn an_init_that_waits_for_its_namespace_to_empty_has_ended() {
        let text = b"42 (sh) S 1 2 3 4 5 4194820 7 8 9 10 11 12 13 14 15 16 17 18 7777 20";
        assert!(parse_stat(text).unwrap().has_ended());
    }

    #[test]
    fn we_are_alive_and_nobody_is_pid_0() {
        let me = stat(std::process::id() as i32).unwrap();
        assert!(!me.has_ended());
        assert_eq!(stat(0), Err(Errno::ESRCH));
        assert_eq!(innermost_pid(0), Err(Errno::ESRCH));
    }
}
