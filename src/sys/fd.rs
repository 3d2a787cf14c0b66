//! Descriptors: reading, writing, duplicating and closing them by ranges.

use super::{Errno, Result, cvt};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Takes over a descriptor that a system call has just returned.
pub(super) fn own(ret: libc::c_long) -> OwnedFd {
    // SAFETY: callers pass the non-negative result of a call that returns a new descriptor, which nobody owns yet.
    unsafe { OwnedFd::from_raw_fd(ret as RawFd) }
}

/// Closes every descriptor from `first` on but those in `keep` (close_range(2), 5.9).
///
/// For a child about to exec: whatever is left open must not reach the container. Close-on-exec would be too late, since
/// the kernel closes such descriptors only after it has found the program, and a program's path may lead through one of
/// them (/proc/self/fd/N/../..) to the host (CVE-2024-21626).
pub fn close_all_but<const N: usize>(first: u32, keep: [Option<BorrowedFd<'_>>; N]) -> Result<()> {
    let mut kept = keep.map(|fd| fd.map_or(u32::MAX, |fd| fd.as_raw_fd().unsigned_abs()));
    kept.sort_unstable();
    let mut from = first;
    for number in kept.into_iter().filter(|number| *number >= first) {
        if number > from {
            close_between(from, number - 1)?;
        }
        from = number.saturating_add(1);
    }
    close_between(from, u32::MAX)
}

fn close_between(first: u32, last: u32) -> Result<()> {
    // SAFETY: the owners of these descriptors are in a child that uses none of them again and that ends by execve or
    // _exit, without running destructors.
    cvt(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })?;
    Ok(())
}

/// Waits until there is something to read, or the other end is closed, at most `millis` (-1: for ever); says whether it is
/// so.
pub fn wait_readable(fd: BorrowedFd<'_>, millis: i32) -> Result<bool> {
    poll_one(fd, PollFlags::POLLIN, PollTimeout::try_from(millis).unwrap_or(PollTimeout::NONE))
}

fn poll_one(fd: BorrowedFd<'_>, events: PollFlags, timeout: PollTimeout) -> Result<bool> {
    let mut fds = [PollFd::new(fd, events)];
    loop {
        match nix::poll::poll(&mut fds, timeout) {
            Err(Errno::EINTR) => {}
            other => return other.map(|ready| ready > 0),
        }
    }
}

/// Clears or sets close-on-exec on one descriptor.
pub fn set_cloexec(fd: BorrowedFd<'_>, on: bool) -> Result<()> {
    let flags = if on { libc::FD_CLOEXEC } else { 0 };
    // SAFETY: F_SETFD takes an integer and touches no memory.
    cvt(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, flags) }.into())?;
    Ok(())
}

/// Makes the descriptor numbered `number` a duplicate of `fd`, inherited across exec.
///
/// # Errors
///
/// As dup3(2), except that a descriptor which already has that number only loses its close-on-exec flag.
pub fn dup_to(fd: BorrowedFd<'_>, number: RawFd) -> Result<()> {
    if fd.as_raw_fd() == number {
        return set_cloexec(fd, false);
    }
    // SAFETY: the callers are children about to exec, which give standard streams a new meaning; nothing in them
    // owns `number` any more.
    cvt(unsafe { libc::dup3(fd.as_raw_fd(), number, 0) }.into())?;
    Ok(())
}

/// Returns the descriptor numbered `number`, if whoever started this program left it open.
///
/// Such a one has no close-on-exec flag, and each of our own has: the log that got a number which the caller promised
/// and did not open must not get into a container. The borrow is good for as long as nobody closes that number, and what
/// the caller left open the runtime never closes.
pub fn inherited(number: RawFd) -> Result<BorrowedFd<'static>> {
    if number < 0 {
        return Err(Errno::EBADF);
    }
    // SAFETY: F_GETFD touches no memory.
    let flags = cvt(unsafe { libc::fcntl(number, libc::F_GETFD) }.into())?;
    if flags & libc::c_long::from(libc::FD_CLOEXEC) != 0 {
        return Err(Errno::EBADF);
    }
    // SAFETY: the number is open (just asked), and inherited descriptors are not closed before the runtime ends.
    Ok(unsafe { BorrowedFd::borrow_raw(number) })
}

/// Reads once into `buffer`, again after a signal.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
    loop {
        match nix::unistd::read(fd, buffer) {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// Writes all of `bytes`.
pub fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match nix::unistd::write(fd, bytes) {
            Ok(0) => return Err(Errno::EIO),
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Makes an anonymous file that holds `bytes`, positioned at its start.
pub fn memfd(name: &std::ffi::CStr, bytes: &[u8]) -> Result<OwnedFd> {
    // SAFETY: `name` is a C string that outlives the call.
    let fd = own(cvt(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) }.into())?);
    write_all(fd.as_fd(), bytes)?;
    rewind(fd.as_fd())?;
    Ok(fd)
}

/// Returns how many bytes there are to read in a pipe or fifo.
pub fn unread(fd: BorrowedFd<'_>) -> Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD stores an int, which outlives the call.
    cvt(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut count) }.into())?;
    Ok(count.unsigned_abs() as usize)
}

/// Sets the file position to the start.
pub fn rewind(fd: BorrowedFd<'_>) -> Result<()> {
    nix::unistd::lseek(fd, 0, nix::unistd::Whence::SeekSet).map(drop)
}

/// Waits until nobody can read any more what is written to a pipe or fifo.
pub fn wait_unread(writer: BorrowedFd<'_>) -> Result<()> {
    // POLLERR is always told, and means this for the writing end (pipe(7)).
    poll_one(writer, PollFlags::empty(), PollTimeout::NONE).map(drop)
}

/// Makes a pipe, both ends close-on-exec: (read end, write end).
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)
}

/// Returns what stands for the working directory in the `*at` calls.
pub fn working_directory() -> BorrowedFd<'static> {
    // SAFETY: AT_FDCWD is no descriptor that anybody could close.
    unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) }
}
