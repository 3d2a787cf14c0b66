//! The messages of netlink(7): reading what came, in datagrams of several messages with attributes.

use super::{Errno, Result};
use nix::libc;
use nix::sys::socket::{MsgFlags, recv};
use std::os::fd::{AsRawFd, BorrowedFd};

/// The size of nlmsghdr.
pub const HEADER: usize = 16;

/// The size of nlattr, and of rtattr.
const ATTRIBUTE: usize = 4;

/// Room for each datagram of an answer that lists something.
pub const LONG: usize = 65536;

/// Takes the messages of an answer, until its last one. The buffer is for a datagram. Nothing is allocated.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], mut each: impl FnMut(&[u8]) -> Option<()>) -> Result<()> {
    loop {
        let length = recv(socket.as_raw_fd(), buffer, MsgFlags::empty())?;
        if !read(buffer.get(..length).unwrap_or_default(), &mut each)? {
            return Ok(());
        }
    }
}

/// Reads the messages of one datagram, and says whether there are more to come.
///
/// An acknowledgement is the end, and a failure that the kernel tells is one here.
fn read(mut bytes: &[u8], mut each: impl FnMut(&[u8]) -> Option<()>) -> Result<bool> {
    while let (Some(length), Some(kind)) = (number(bytes, 0), bytes.get(4..6)) {
        let message = bytes.get(HEADER..length as usize).ok_or(Errno::EBADMSG)?;
        match i32::from(u16::from_ne_bytes([kind[0], kind[1]])) {
            libc::NLMSG_DONE => return Ok(false),
            libc::NLMSG_ERROR => {
                return match number(message, 0).unwrap_or_default() as i32 {
                    0 => Ok(false),
                    errno => Err(Errno::from_raw(errno.wrapping_neg())),
                };
            }
            _ => each(message).ok_or(Errno::EBADMSG)?,
        }
        bytes = bytes.get((length as usize).next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(true)
}

/// Goes through attributes; says whether they were well formed.
pub fn attributes(mut rest: &[u8], mut each: impl FnMut(u16, &[u8]) -> Option<()>) -> Option<()> {
    while let [a, b, c, d, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        each(u16::from_ne_bytes([c, d]), rest.get(ATTRIBUTE..length)?)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(())
}

/// Returns the number at an offset.
pub fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_answer_is_an_error() {
        let read = |bytes: &[u8]| read(bytes, |_| Some(()));
        assert_eq!(read(&[200, 0, 0, 0, 20, 0]), Err(Errno::EBADMSG));
        assert_eq!(read(&[3, 0, 0, 0, 20, 0]), Err(Errno::EBADMSG));
        let mut error = vec![20, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        error.extend((-13i32).to_ne_bytes());
        assert_eq!(read(&error), Err(Errno::EACCES));
        error[16..].copy_from_slice(&[0; 4]);
        assert_eq!(read(&error), Ok(false));
    }
}
