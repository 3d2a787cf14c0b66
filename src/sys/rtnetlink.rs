//! Network devices and their addresses, by rtnetlink(7): what a device needs to go into another network namespace.

use super::Result;
use super::netlink::{self, HEADER, number};
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, send, socket};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// From linux/if_link.h and linux/if_addr.h.
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_F_PERMANENT: u8 = 0x80;

/// The size of ifaddrmsg, and where both it and ifinfomsg have the device's index, behind the header.
const ADDRESS: usize = 8;
const INDEX: usize = 4;

/// Opens a socket for the network namespace that the caller is in. Nothing is allocated.
pub fn open() -> Result<OwnedFd> {
    socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)
}

/// A request about a device, whose index may still be changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request(Vec<u8>);

impl Request {
    fn new(kind: u16, flags: i32, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(((libc::NLM_F_REQUEST | flags) as u16).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(fixed);
        Self(bytes).sized()
    }

    fn sized(mut self) -> Self {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self
    }

    fn with(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend((4 + value.len() as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self.sized()
    }

    /// Brings a device up.
    pub fn set_up(index: u32) -> Self {
        let up = libc::IFF_UP as u32;
        let words = [0, index, up, up];
        Self::new(libc::RTM_NEWLINK, libc::NLM_F_ACK, &words.map(u32::to_ne_bytes).concat())
    }

    /// Moves a device into a network namespace, under a name.
    pub fn move_to(index: u32, namespace: BorrowedFd<'_>, name: &CStr) -> Self {
        let request = Self::new(libc::RTM_NEWLINK, libc::NLM_F_ACK, &[0, index, 0, 0].map(u32::to_ne_bytes).concat());
        let namespace = namespace.as_raw_fd().to_ne_bytes();
        request.with(IFLA_IFNAME, name.to_bytes_with_nul()).with(IFLA_NET_NS_FD, &namespace)
    }

    /// Changes which device it is about.
    pub fn set_index(&mut self, index: u32) {
        self.0[HEADER + INDEX..HEADER + INDEX + 4].copy_from_slice(&index.to_ne_bytes());
    }

    /// Has the kernel carry it out. Nothing is allocated.
    pub fn carry_out(&self, socket: BorrowedFd<'_>) -> Result<()> {
        send(socket.as_raw_fd(), &self.0, MsgFlags::empty())?;
        netlink::receive(socket, &mut [0; 1024], |_| Some(()))
    }
}

/// Returns what gives a device its addresses again, those that were set for good and are not of its link alone.
pub fn addresses(socket: BorrowedFd<'_>, index: u32) -> Result<Vec<Request>> {
    let dump = Request::new(libc::RTM_GETADDR, libc::NLM_F_DUMP, &[0; ADDRESS]);
    send(socket.as_raw_fd(), &dump.0, MsgFlags::empty())?;
    let mut found = Vec::new();
    netlink::receive(socket, &mut vec![0; netlink::LONG], |message| {
        let (flags, scope) = (*message.get(2)?, *message.get(3)?);
        if number(message, INDEX)? == index && flags & IFA_F_PERMANENT != 0 && scope == libc::RT_SCOPE_UNIVERSE {
            found.push(again(message)?);
        }
        Some(())
    })?;
    Ok(found)
}

/// Returns the request for an address that the kernel told of.
fn again(message: &[u8]) -> Option<Request> {
    let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let mut request = Request::new(libc::RTM_NEWADDR, flags, message.get(..ADDRESS)?);
    netlink::attributes(message.get(ADDRESS..)?, |kind, value| {
        if matches!(kind, IFA_ADDRESS | IFA_LOCAL | IFA_BROADCAST) {
            request = std::mem::replace(&mut request, Request(Vec::new())).with(kind, value);
        }
        Some(())
    })?;
    Some(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_their_length_and_padding() {
        let request = Request::set_up(7);
        assert_eq!((request.0.len(), number(&request.0, 0)), (32, Some(32)));
        assert_eq!(number(&request.0, HEADER + INDEX), Some(7));
        let mut named = request.with(IFLA_IFNAME, b"eth0\0");
        named.set_index(9);
        assert_eq!((named.0.len(), number(&named.0, 0)), (44, Some(44)));
        assert_eq!(number(&named.0, HEADER + INDEX), Some(9));
        assert_eq!(named.0[32..], [9, 0, 3, 0, b'e', b't', b'h', b'0', 0, 0, 0, 0]);
    }

    #[test]
    fn addresses_are_asked_for_as_they_were() {
        let mut message = vec![libc::AF_INET as u8, 24, IFA_F_PERMANENT, 0, 5, 0, 0, 0];
        message.extend([8, 0, 1, 0, 10, 0, 0, 1, 8, 0, 3, 0, b'e', b'0', 0, 0]);
        let request = again(&message).unwrap();
        assert_eq!(request.0[HEADER..HEADER + 8], message[..8]);
        assert_eq!(request.0[HEADER + 8..], [8, 0, 1, 0, 10, 0, 0, 1]);
    }
}
