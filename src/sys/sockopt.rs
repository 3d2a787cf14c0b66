//! What a socket is: its family, type and protocol, whether it is connected, and the network that it is in.

use super::fd::own;
use super::{Errno, Result, cvt};
use nix::libc;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

/// Returns the address family (`AF_*`).
pub fn family(socket: BorrowedFd<'_>) -> Result<i32> {
    integer(socket, libc::SOL_SOCKET, libc::SO_DOMAIN)
}

/// Returns the type (`SOCK_*`).
pub fn kind(socket: BorrowedFd<'_>) -> Result<i32> {
    integer(socket, libc::SOL_SOCKET, libc::SO_TYPE)
}

/// Returns the protocol (`IPPROTO_*` of an IP socket).
pub fn protocol(socket: BorrowedFd<'_>) -> Result<i32> {
    integer(socket, libc::SOL_SOCKET, libc::SO_PROTOCOL)
}

/// Returns the state of a TCP socket: one of the numbers of netinet/tcp.h, of which 7 is closed and 10 listens.
pub fn tcp_state(socket: BorrowedFd<'_>) -> Result<u8> {
    let mut state = [0u8; 1];
    option(socket, libc::IPPROTO_TCP, libc::TCP_INFO, &mut state)?;
    Ok(state[0])
}

/// Says whether the socket has a peer.
pub fn is_connected(socket: BorrowedFd<'_>) -> Result<bool> {
    // SAFETY: sockaddr_storage is plain data, for which all zeroes is a value.
    let mut address: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `address`; both outlive the call.
    match cvt(unsafe { libc::getpeername(socket.as_raw_fd(), (&raw mut address).cast(), &raw mut length) }.into()) {
        Ok(_) => Ok(true),
        Err(Errno::ENOTCONN) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Returns the inode of the network namespace that the socket was made in.
pub fn network(socket: BorrowedFd<'_>) -> Result<u64> {
    // From linux/sockios.h (4.10).
    const SIOCGSKNS: libc::Ioctl = 0x894c;
    // SAFETY: this ioctl takes no argument, and returns a new descriptor.
    let namespace = own(cvt(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) }.into())?);
    let found = std::fs::File::from(namespace).metadata();
    found.map(|found| found.ino()).map_err(|err| Errno::from_raw(err.raw_os_error().unwrap_or(libc::EIO)))
}

fn integer(socket: BorrowedFd<'_>, level: i32, name: i32) -> Result<i32> {
    let mut value = [0; size_of::<i32>()];
    option(socket, level, name, &mut value)?;
    Ok(i32::from_ne_bytes(value))
}

fn option(socket: BorrowedFd<'_>, level: i32, name: i32, value: &mut [u8]) -> Result<()> {
    let mut length = value.len() as libc::socklen_t;
    let (fd, value) = (socket.as_raw_fd(), value.as_mut_ptr().cast());
    // SAFETY: the kernel writes at most `length` bytes, the size of `value`; both outlive the call.
    cvt(unsafe { libc::getsockopt(fd, level, name, value, &raw mut length) }.into())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    #[test]
    fn sockets_say_what_they_are() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!((family(stream.as_fd()), kind(stream.as_fd())), (Ok(libc::AF_INET), Ok(libc::SOCK_STREAM)));
        assert_eq!(protocol(stream.as_fd()), Ok(libc::IPPROTO_TCP));
        assert_eq!((tcp_state(listener.as_fd()), tcp_state(stream.as_fd())), (Ok(10), Ok(1)));
        let (here, there) = UnixStream::pair().unwrap();
        assert_eq!((family(here.as_fd()), is_connected(here.as_fd())), (Ok(libc::AF_UNIX), Ok(true)));
        drop(there);
        assert_eq!(is_connected(UnixDatagram::unbound().unwrap().as_fd()), Ok(false));
    }

    #[test]
    fn a_network_is_known_by_its_inode() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let own = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
        assert_eq!(network(UnixDatagram::unbound().unwrap().as_fd()), Ok(own));
    }
}
