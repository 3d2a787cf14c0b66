//! POSIX message queues (mq_overview(7)), through descriptors of the caller's or by name in its IPC namespace.
//!
//! The raw calls: what the C library adds is a slash before the name and a thread for notifications. None allocates.

use super::fd::own;
use super::{Result, cvt};
use nix::fcntl::OFlag;
use nix::libc;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// What a queue can hold, and how much it does.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Attributes {
    /// How many messages it can hold.
    pub max_messages: u64,
    /// How long a message can be.
    pub message_size: u64,
    /// How many messages it holds.
    pub messages: u64,
}

/// Creates a queue; `name` is without a slash.
pub fn create(name: &CStr, mode: u32, attributes: Attributes) -> Result<OwnedFd> {
    // SAFETY: mq_attr is plain integers, for which all zeroes is a value.
    let mut wanted: libc::mq_attr = unsafe { std::mem::zeroed() };
    wanted.mq_maxmsg = attributes.max_messages as _;
    wanted.mq_msgsize = attributes.message_size as _;
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    // SAFETY: `name` and `wanted` outlive the call, which only reads them.
    Ok(own(cvt(unsafe { libc::syscall(libc::SYS_mq_open, name.as_ptr(), flags.bits(), mode, &raw const wanted) })?))
}

/// Removes the name of a queue, which is without a slash.
pub fn unlink(name: &CStr) -> Result<()> {
    // SAFETY: `name` is a C string that outlives the call.
    cvt(unsafe { libc::syscall(libc::SYS_mq_unlink, name.as_ptr()) })?;
    Ok(())
}

/// Returns the attributes of a queue.
pub fn attributes(queue: BorrowedFd<'_>) -> Result<Attributes> {
    // SAFETY: mq_attr is plain integers, for which all zeroes is a value.
    let mut found: libc::mq_attr = unsafe { std::mem::zeroed() };
    let unchanged = std::ptr::null::<libc::mq_attr>();
    // SAFETY: the kernel fills `found`, which outlives the call, and is given nothing to read.
    cvt(unsafe { libc::syscall(libc::SYS_mq_getsetattr, queue.as_raw_fd(), unchanged, &raw mut found) })?;
    Ok(Attributes {
        max_messages: found.mq_maxmsg as u64,
        message_size: found.mq_msgsize as u64,
        messages: found.mq_curmsgs as u64,
    })
}

/// Takes the oldest of the most urgent messages; returns its length and its priority.
///
/// # Errors
///
/// EMSGSIZE unless `buffer` could hold the longest message; with O_NONBLOCK, EAGAIN when there is none.
pub fn receive(queue: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<(usize, u32)> {
    let mut priority: libc::c_uint = 0;
    let forever = std::ptr::null::<libc::timespec>();
    // SAFETY: pointer and length describe `buffer`, and `priority` outlives the call; there is no time to read.
    let length = cvt(unsafe {
        let (number, place) = (libc::SYS_mq_timedreceive, buffer.as_mut_ptr());
        libc::syscall(number, queue.as_raw_fd(), place, buffer.len(), &raw mut priority, forever)
    })?;
    Ok((length as usize, priority))
}

/// Puts a message into a queue.
pub fn send(queue: BorrowedFd<'_>, message: &[u8], priority: u32) -> Result<()> {
    let forever = std::ptr::null::<libc::timespec>();
    // SAFETY: pointer and length describe `message`; there is no time to read.
    cvt(unsafe {
        let (number, place) = (libc::SYS_mq_timedsend, message.as_ptr());
        libc::syscall(number, queue.as_raw_fd(), place, message.len(), priority, forever)
    })?;
    Ok(())
}
