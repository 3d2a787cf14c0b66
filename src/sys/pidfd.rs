//! Processes by descriptor: a pidfd never means another process than the one it was opened for.

use super::fd::{own, wait_readable};
use super::{Result, cvt};
use nix::libc;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Opens a descriptor of the process that has `pid` now (pidfd_open(2), 5.3).
pub fn open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: integers only.
    Ok(own(cvt(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?))
}

/// Sends a signal to the process; 0 only asks whether it is there.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo asks for the one kill(2) would send.
    cvt(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0) })?;
    Ok(())
}

/// Returns a duplicate, close-on-exec, of the descriptor that the process has under a number (pidfd_getfd(2), 5.6).
pub fn duplicate(pidfd: BorrowedFd<'_>, number: i32) -> Result<OwnedFd> {
    // SAFETY: integers only; the result is a new descriptor.
    Ok(own(cvt(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) })?))
}

/// Waits until the process has ended, at most `millis` (-1: for ever); says whether it has.
pub fn wait_ended(pidfd: BorrowedFd<'_>, millis: i32) -> Result<bool> {
    wait_readable(pidfd, millis)
}

/// How a child ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Exit {
    /// Returns the code by which a shell tells of this end: 128 and the signal's number for a signal.
    pub fn code(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        }
    }
}

/// Waits for the end of a child (or a sibling made for us by `CLONE_PARENT`) and reaps it.
pub fn reap(pid: i32) -> Result<Exit> {
    let mut status = 0;
    loop {
        // SAFETY: `status` outlives the call. __WALL also takes children that do not signal SIGCHLD.
        match cvt(unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) }.into()) {
            Err(super::Errno::EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(_) if libc::WIFSIGNALED(status) => return Ok(Exit::Signal(libc::WTERMSIG(status))),
            Ok(_) => return Ok(Exit::Code(libc::WEXITSTATUS(status))),
        }
    }
}
