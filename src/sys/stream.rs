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

/// How much is read from what says that it has nothing: files of procfs always do.
const NOTHING_SAID: usize = 4096;

/// Reads once, `at_most` so many bytes, in place of what the buffer had, which grows to what there is to read: most streams
/// of most programs have nothing.
pub fn read_once(stream: BorrowedFd<'_>, buffer: &mut Vec<u8>, at_most: usize) -> Result<usize> {
    let mut ready: libc::c_int = 0;
    // SAFETY: the kernel writes a number to `ready`, if it knows one.
    let known = unsafe { libc::ioctl(stream.as_raw_fd(), libc::FIONREAD, &raw mut ready) } == 0;
    let at_most = match usize::try_from(ready) {
        _ if !known => at_most,
        Ok(ready) if ready > 0 => at_most.min(ready),
        _ => at_most.min(NOTHING_SAID),
    };
    buffer.clear();
    buffer.reserve(at_most);
    // SAFETY: the kernel writes `at_most` bytes at most, for which there is room; it has initialised as many as it says.
    unsafe {
        let count = libc::read(stream.as_raw_fd(), buffer.as_mut_ptr().cast(), at_most);
        let count = Errno::result(count)?.unsigned_abs();
        buffer.set_len(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn read_once_replaces_what_was_held() {
        let (from, to) = nix::unistd::pipe().unwrap();
        nix::unistd::write(&to, b"abcdef").unwrap();
        let mut held = b"old".to_vec();
        assert_eq!(read_once(from.as_fd(), &mut held, 4), Ok(4));
        assert_eq!(held, b"abcd");
        assert_eq!(read_once(from.as_fd(), &mut held, 0), Ok(0));
        assert_eq!(held, b"");
        set_nonblocking(from.as_fd()).unwrap();
        assert_eq!(read_once(from.as_fd(), &mut held, 4), Ok(2));
        assert_eq!(held, b"ef");
        assert_eq!(read_once(from.as_fd(), &mut held, 4), Err(Errno::EAGAIN));
        assert_eq!(held, b"");
        drop(to);
        assert_eq!(read_once(from.as_fd(), &mut held, 4), Ok(0));
        let file = std::fs::File::open("/proc/sys/kernel/pid_max").unwrap();
        let whole = std::fs::read("/proc/sys/kernel/pid_max").unwrap();
        assert_eq!(read_once(file.as_fd(), &mut held, 100), Ok(whole.len()));
        assert_eq!(held, whole);
        let zero = std::fs::File::open("/dev/zero").unwrap();
        assert_eq!(read_once(zero.as_fd(), &mut held, 10_000), Ok(10_000));
    }
}
