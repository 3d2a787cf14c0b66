//! The one protocol between the outside (the runtime) and the inside (a container's init, or a process that exec adds).
//!
//! ```text
//! outside                             inside
//!   clone3  ------------------------->  waits
//!          <-------------------- Hello  (the kernel adds its pid, as the outside sees it)
//!   maps, cgroup, oom score
//!   Proceed ------------------------->  namespaces, mounts
//!          <------------------- MapIds  (for each mount whose ids only the outside may map, once its source is there)
//!   Proceed ------------------------->
//!          <------------------ Mounted  (only when the plan has hooks for that point)
//!   hooks
//!   Proceed ------------------------->  the rest
//!          <---------- SeccompListener  (as soon as there is one: the agent may have to answer before the inside goes on)
//!   Proceed ------------------------->  (once the outside has it too)
//!          <-------------------- Ready
//! ```
//!
//! Instead of any of its messages the inside may send `Failed` and end. End of file means that the other side is gone:
//! the inside then ends silently, the outside asks the kernel why.

use crate::plan::step::{Failure, Step};
use crate::sys::{self, Errno, fd, socket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Length of every message.
const LEN: usize = 8;

/// What one side tells the other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Message {
    /// Outside to inside: go on.
    Proceed,
    /// Inside to outside: here I am.
    Hello,
    /// Inside to outside: map the ids of mount number so-and-so, whose tree comes with this.
    MapIds(u16),
    /// Inside to outside: the mounts are there.
    Mounted,
    /// Inside to outside: a seccomp listener is our descriptor number so-and-so, and its agent is needed from now on. It
    /// is told by write(2), which no profile notifies of, and not sent.
    SeccompListener(i32),
    /// Inside to outside: all is done but the program.
    Ready,
    /// Inside to outside: this failed, and I am ending.
    Failed(Failure),
}

impl Message {
    fn encode(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[0] = match self {
            Message::Proceed => 1,
            Message::Hello => 2,
            Message::Mounted => 3,
            Message::Ready => 4,
            Message::Failed(failure) => {
                bytes[1] = failure.step as u8;
                bytes[2..4].copy_from_slice(&failure.index.to_ne_bytes());
                bytes[4..8].copy_from_slice(&failure.errno.to_ne_bytes());
                5
            }
            Message::MapIds(index) => {
                bytes[2..4].copy_from_slice(&index.to_ne_bytes());
                6
            }
            Message::SeccompListener(number) => {
                bytes[4..8].copy_from_slice(&number.to_ne_bytes());
                7
            }
        };
        bytes
    }

    fn decode(bytes: &[u8; LEN]) -> Option<Self> {
        let [tag, step, index0, index1, errno @ ..] = *bytes;
        Some(match tag {
            1 => Message::Proceed,
            2 => Message::Hello,
            3 => Message::Mounted,
            4 => Message::Ready,
            5 => Message::Failed(Failure {
                step: *Step::ALL.get(usize::from(step))?,
                index: u16::from_ne_bytes([index0, index1]),
                errno: i32::from_ne_bytes(errno),
            }),
            6 => Message::MapIds(u16::from_ne_bytes([index0, index1])),
            7 => Message::SeccompListener(i32::from_ne_bytes(errno)),
            _ => return None,
        })
    }
}

/// What the outside received.
#[derive(Debug)]
pub struct Received {
    /// The message.
    pub message: Message,
    /// Its sender's pid, as the outside sees it.
    pub pid: i32,
    /// The descriptor that came with it.
    pub fd: Option<OwnedFd>,
}

/// The outside's end.
#[derive(Debug)]
pub struct Outside(OwnedFd);

/// The inside's end.
#[derive(Debug)]
pub struct Inside(OwnedFd);

/// Makes both ends.
pub fn pair() -> sys::Result<(Outside, Inside)> {
    let (outside, inside) = socket::seqpacket_pair()?;
    socket::want_credentials(outside.as_fd())?;
    Ok((Outside(outside), Inside(inside)))
}

impl Outside {
    /// Lets the inside go on.
    pub fn proceed(&self) -> sys::Result<()> {
        socket::send(self.0.as_fd(), &Message::Proceed.encode(), None)
    }

    /// Waits for the inside's next message; `None` when it is gone.
    pub fn receive(&self) -> sys::Result<Option<Received>> {
        let mut bytes = [0; LEN];
        let received = match socket::receive(self.0.as_fd(), &mut bytes) {
            // The inside ended with a message of ours unread. That is said once, and before what it sent last.
            Err(Errno::ECONNRESET) => socket::receive(self.0.as_fd(), &mut bytes)?,
            other => other?,
        };
        if received.len == 0 {
            return Ok(None);
        }
        let message = Message::decode(&bytes).filter(|_| received.len == LEN).ok_or(Errno::EBADMSG)?;
        let pid = received.pid.ok_or(Errno::EBADMSG)?;
        Ok(Some(Received { message, pid, fd: received.fd }))
    }
}

impl AsFd for Outside {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for Inside {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Inside {
    /// Tells the outside something, with a descriptor beside it if one is given.
    pub fn tell(&self, message: Message, fd: Option<BorrowedFd<'_>>) -> sys::Result<()> {
        match fd {
            Some(_) => socket::send(self.0.as_fd(), &message.encode(), fd),
            // write(2), which a seccomp profile can hardly do without, and not sendmsg(2): the filter may be in force.
            None => fd::write_all(self.0.as_fd(), &message.encode()),
        }
    }

    /// Waits until the outside lets us go on; says whether it did, or is gone.
    pub fn may_proceed(&self) -> bool {
        let mut bytes = [0; LEN];
        // read(2), which any seccomp profile allows, and not recvmsg(2): the filter may be in force by now.
        let received = fd::read(self.0.as_fd(), &mut bytes);
        received == Ok(LEN) && Message::decode(&bytes) == Some(Message::Proceed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_way() {
        let failed = Message::Failed(Failure { step: Step::Exec, index: 300, errno: -7 });
        for message in [
            Message::Proceed,
            Message::Hello,
            Message::MapIds(300),
            Message::Mounted,
            Message::Ready,
            Message::SeccompListener(70_000),
            failed,
        ] {
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
        assert_eq!(Message::decode(&[9; LEN]), None);
    }

    #[test]
    fn the_outside_learns_who_speaks_and_when_nobody_does() {
        let (outside, inside) = pair().unwrap();
        inside.tell(Message::Hello, None).unwrap();
        let received = outside.receive().unwrap().unwrap();
        assert_eq!((received.message, received.pid), (Message::Hello, std::process::id() as i32));
        drop(inside);
        assert!(outside.receive().unwrap().is_none());
    }

    #[test]
    fn the_last_words_of_the_inside_arrive_though_it_left_something_unread() {
        let (outside, inside) = pair().unwrap();
        outside.proceed().unwrap();
        inside.tell(Message::Ready, None).unwrap();
        drop(inside);
        assert_eq!(outside.receive().unwrap().unwrap().message, Message::Ready);
        assert!(outside.receive().unwrap().is_none());
    }

    #[test]
    fn the_inside_notices_that_the_outside_is_gone() {
        let (outside, inside) = pair().unwrap();
        outside.proceed().unwrap();
        assert!(inside.may_proceed());
        drop(outside);
        assert!(!inside.may_proceed());
    }
}
