//! What std's `Command` cannot do for a program that it starts: pass it descriptors by number.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Lets `command`, once started, find `fds` open under the numbers that they have here.
///
/// The descriptors stay closed on exec in this process, so no other child of a library's caller gets them.
/// They have to stay open until the command has been spawned.
pub fn inherit(command: &mut Command, fds: &[BorrowedFd<'_>]) {
    let numbers: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let clear = move || {
        for &number in &numbers {
            // SAFETY: F_SETFD takes an integer and touches no memory; a number that is not open gives EBADF.
            if unsafe { nix::libc::fcntl(number, nix::libc::F_SETFD, 0) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure runs in the forked child, where only async-signal-safe calls are allowed: it makes fcntl
    // calls alone, and reads a vector that was built before the fork.
    unsafe { command.pre_exec(clear) };
}
