//! A pseudo-terminal on which nobody types, and from which everything is read.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

pub struct Terminal {
    slave: OwnedFd,
}

impl Terminal {
    pub fn open() -> io::Result<Self> {
        let (mut master, mut slave) = (-1, -1);
        // SAFETY: the kernel fills in both numbers; the rest may be null.
        let opened =
            unsafe { libc::openpty(&raw mut master, &raw mut slave, ptr::null_mut(), ptr::null(), ptr::null()) };
        if opened != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: both were opened just now, and belong to nobody else.
        let (mut master, slave) = unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
        for end in [master.as_raw_fd(), slave.as_raw_fd()] {
            // SAFETY: this command takes an integer.
            unsafe { libc::fcntl(end, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
        // It ends with the process.
        std::thread::spawn(move || io::copy(&mut master, &mut io::sink()));
        Ok(Self { slave })
    }

    /// Returns an end for a program.
    pub fn slave(&self) -> io::Result<OwnedFd> {
        self.slave.try_clone()
    }
}
