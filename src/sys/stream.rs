//! The runtime's standard streams, for a loop that must not block on any of them.
//!
//! O_NONBLOCK belongs to the open file, which standard streams share with the shell and with siblings: it is set only on
//! descriptors that are ours alone.

use super::{Errno, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::libc;
use nix::sys::stat::{Mode, SFlag, fstat};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Makes reads and writes of a descriptor that is ours alone fail with EAGAIN rather than wait.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
}

/// Returns a duplicate of a stream.
pub fn duplicate(stream: BorrowedFd<'_>) -> Result<OwnedFd> {
    stream.try_clone_to_owned().map_err(|err| Errno::from_raw(err.raw_os_error().unwrap_or(libc::EIO)))
}

/// Returns a descriptor of our own for writing to the stream, and how much may be written at once when it is ready.
///
/// A pipe or terminal is opened a second time, without blocking. What cannot be opened so (a socket, a file whose
/// position is shared, a pipe of somebody else) is written to in pieces for which a pipe that polls as writable has
/// room: PIPE_BUF, pipe(7).
pub fn writer(stream: BorrowedFd<'_>) -> Result<(OwnedFd, usize)> {
    let kind = SFlag::from_bits_truncate(fstat(stream)?.st_mode) & SFlag::S_IFMT;
    if kind == SFlag::S_IFIFO || std::io::IsTerminal::is_terminal(&stream) {
        let path = format!("/proc/self/fd/{}", stream.as_raw_fd());
        let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        if let Ok(fd) = open(path.as_str(), flags, Mode::empty()) {
            return Ok((fd, usize::MAX));
        }
    }
    Ok((duplicate(stream)?, libc::PIPE_BUF))
}
