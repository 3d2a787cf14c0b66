//! Messages of any size over a SOCK_SEQPACKET socket, as a CRIU session needs them.
//!
//! [`socket`] has what these build on. The handshake with a container's init has messages of a fixed size and may not
//! allocate: it does not use this.

use super::socket;
use super::{Errno, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::SndBufForce;
use nix::sys::socket::{MsgFlags, Shutdown, recv, setsockopt, shutdown};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Sends one message, however long: the socket's buffer is enlarged where it is too small for it.
pub fn send(socket: BorrowedFd<'_>, message: &[u8]) -> Result<()> {
    match socket::send(socket, message, None) {
        // A whole message has to fit in SO_SNDBUF, 208 KiB by default; only the FORCE variant may pass wmem_max.
        Err(Errno::EMSGSIZE) => {
            setsockopt(&socket, SndBufForce, &(message.len() * 2 + 4096))?;
            socket::send(socket, message, None)
        }
        other => other,
    }
}

/// Receives one message and the descriptor that came with it; an empty message means that the peer has closed.
pub fn receive(socket: BorrowedFd<'_>) -> Result<(Vec<u8>, Option<OwnedFd>)> {
    // With MSG_TRUNC the length is that of the whole message, and with MSG_PEEK it stays in the queue.
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC;
    let length = retry(|| recv(socket.as_raw_fd(), &mut [], flags))?;
    let mut message = vec![0; length];
    let received = socket::receive(socket, &mut message)?;
    message.truncate(received.len);
    Ok((message, received.fd))
}

/// Waits until a message or the peer's closing can be received, and returns whether that was so in time.
pub fn wait_readable(socket: BorrowedFd<'_>, timeout: Duration) -> Result<bool> {
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(socket, PollFlags::POLLIN)];
    retry(|| poll(&mut fds, timeout)).map(|ready| ready > 0)
}

/// Tells the peer that nothing more will be sent.
pub fn finish_sending(socket: BorrowedFd<'_>) -> Result<()> {
    shutdown(socket.as_raw_fd(), Shutdown::Write)
}

fn retry<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fd;
    use std::os::fd::AsFd;

    #[test]
    fn long_messages_arrive_whole() {
        let (here, there) = socket::seqpacket_pair().unwrap();
        let message = vec![7; 100_000];
        send(here.as_fd(), &message).unwrap();
        assert!(wait_readable(there.as_fd(), Duration::from_secs(1)).unwrap());
        let (received, passed) = receive(there.as_fd()).unwrap();
        assert!(received == message && passed.is_none());
    }

    #[test]
    fn closing_is_an_empty_message() {
        let (here, there) = socket::seqpacket_pair().unwrap();
        drop(here);
        let (received, passed) = receive(there.as_fd()).unwrap();
        assert!(received.is_empty() && passed.is_none());
    }

    #[test]
    fn a_descriptor_comes_with_its_message() {
        let (here, there) = socket::seqpacket_pair().unwrap();
        let (reader, writer) = fd::pipe().unwrap();
        socket::send(here.as_fd(), b"x", Some(reader.as_fd())).unwrap();
        let (received, passed) = receive(there.as_fd()).unwrap();
        assert_eq!(received, b"x");
        fd::write_all(writer.as_fd(), b"y").unwrap();
        assert_eq!(fd::read(passed.unwrap().as_fd(), &mut [0]), Ok(1));
    }
}
