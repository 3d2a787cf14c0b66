//! The Unix sockets of a network namespace and who is connected to whom, which only sock_diag(7) tells.

use super::Result;
use super::netlink::{self, number};
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, send, socket};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// From linux/sock_diag.h and linux/unix_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SHOW_NAME: u32 = 1;
const SHOW_PEER: u32 = 4;
const ATTRIBUTE_NAME: u16 = 0;
const ATTRIBUTE_PEER: u16 = 2;

/// The size of unix_diag_msg, which stands before a socket's attributes.
const MESSAGE: usize = 16;

/// Where unix_diag_msg has the inode.
const INODE: usize = 4;

/// A Unix socket.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct UnixSocket {
    /// Its inode's number.
    pub inode: u32,
    /// That of the socket it is connected to; 0 for none, or for one that no process has a descriptor of.
    pub peer: u32,
    /// The name that it is bound to, which begins with a null byte if it is no path; empty for none.
    pub name: Vec<u8>,
}

/// Opens a socket that tells of the network namespace that the caller is in. Nothing is allocated.
pub fn open() -> Result<OwnedFd> {
    socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)
}

/// Asks for all Unix sockets.
pub fn list(diag: BorrowedFd<'_>) -> Result<Vec<UnixSocket>> {
    let mut request = Vec::with_capacity(40);
    request.extend(40u32.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    request.extend([0; 8]);
    request.extend([libc::AF_UNIX as u8, 0, 0, 0]);
    // All states, and no inode in particular.
    for word in [u32::MAX, 0, SHOW_NAME | SHOW_PEER, 0, 0] {
        request.extend(word.to_ne_bytes());
    }
    send(diag.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut found = Vec::new();
    netlink::receive(diag, &mut vec![0; netlink::LONG], |message| parse(message).map(|socket| found.push(socket)))?;
    Ok(found)
}

fn parse(message: &[u8]) -> Option<UnixSocket> {
    let mut socket = UnixSocket { inode: number(message, INODE)?, ..UnixSocket::default() };
    netlink::attributes(message.get(MESSAGE..)?, |kind, value| {
        match kind {
            // A path ends in a null byte.
            ATTRIBUTE_NAME if value.first() == Some(&0) => socket.name = value.to_vec(),
            ATTRIBUTE_NAME => socket.name = value.strip_suffix(&[0]).unwrap_or(value).to_vec(),
            ATTRIBUTE_PEER => socket.peer = number(value, 0)?,
            _ => {}
        }
        Some(())
    })?;
    Some(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    fn inode(socket: impl Into<OwnedFd>) -> (u32, OwnedFd) {
        let file = std::fs::File::from(socket.into());
        (file.metadata().unwrap().ino() as u32, file.into())
    }

    #[test]
    fn peers_are_told_by_inode_and_names_as_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let (named, _named) = inode(UnixDatagram::bind(&path).unwrap());
        let (here, there) = UnixStream::pair().unwrap();
        let ((here, _here), (there, _there)) = (inode(here), inode(there));
        let all = list(open().unwrap().as_fd()).unwrap();
        let find = |inode| all.iter().find(|socket| socket.inode == inode).unwrap();
        assert_eq!((find(here).peer, find(there).peer), (there, here));
        assert_eq!(find(named).name, path.as_os_str().as_encoded_bytes());
        assert_eq!(find(named).peer, 0);
        assert!(find(here).name.is_empty());
    }
}
