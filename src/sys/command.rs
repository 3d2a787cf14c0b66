//! What std's `Command` cannot do for a program that it starts: pass it descriptors by number, and an environment as it is.

use crate::cstrings::CStringArray;
use std::ffi::c_char;
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

/// Gives `command` an environment that may have entries without a `=`, instead of what std would pass.
pub fn set_environment(command: &mut Command, entries: CStringArray) {
    unsafe extern "C" {
        static mut environ: *const *const c_char;
    }
    let entries = Owned(entries);
    let set = move || {
        // SAFETY: the array ends in null and points to C strings that it owns (CStringArray::pointers); it lives until
        // the child executes the program, and nobody else in the child reads or writes the variable.
        unsafe { environ = entries.array().pointers().as_ptr() };
        Ok(())
    };
    // SAFETY: the closure runs in the forked child, where only async-signal-safe calls are allowed: it sets a variable.
    unsafe { command.pre_exec(set) };
}

/// An array that nobody changes.
struct Owned(CStringArray);

impl Owned {
    fn array(&self) -> &CStringArray {
        &self.0
    }
}

// SAFETY: the pointers lead to strings that the array itself owns, on the heap.
unsafe impl Send for Owned {}

// SAFETY: as above, and through a shared reference nothing is changed.
unsafe impl Sync for Owned {}
