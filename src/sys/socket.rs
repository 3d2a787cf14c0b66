//! Local sockets: fixed-size messages with credentials or one descriptor beside them.
//!
//! sendmsg and recvmsg are called directly: nix builds its control messages in a Vec, and the inside may not allocate.

use super::fd::own;
use super::{Errno, Result, cvt};
use nix::libc;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Room for one control message that holds credentials, a descriptor, or both.
const CONTROL: usize = 128;

#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// What came with a message.
#[derive(Debug, Default)]
pub struct Received {
    /// How many bytes the message had; 0 means that the other end is gone.
    pub len: usize,
    /// The sender's pid as the receiver sees it, when the socket asks for credentials.
    pub pid: Option<i32>,
    /// A descriptor that was passed.
    pub fd: Option<OwnedFd>,
}

/// Makes a connected pair of SOCK_SEQPACKET sockets, close-on-exec.
pub fn seqpacket_pair() -> Result<(OwnedFd, OwnedFd)> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

/// Connects to the stream socket at `path`.
pub fn connect_stream(path: &std::path::Path) -> Result<OwnedFd> {
    connect_within(path, std::time::Duration::ZERO)
}

/// Connects to the stream socket at `path`, where this, and each read and write, may take as long as `limit`; for ever
/// if it is zero.
pub fn connect_within(path: &std::path::Path, limit: std::time::Duration) -> Result<OwnedFd> {
    connect_to(&nix::sys::socket::UnixAddr::new(path)?, limit)
}

/// Connects to the stream socket with an abstract name; see [`connect_within`].
pub fn connect_abstract(name: &[u8], limit: std::time::Duration) -> Result<OwnedFd> {
    connect_to(&nix::sys::socket::UnixAddr::new_abstract(name)?, limit)
}

fn connect_to(address: &nix::sys::socket::UnixAddr, limit: std::time::Duration) -> Result<OwnedFd> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, connect, setsockopt, socket, sockopt};
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    if !limit.is_zero() {
        let limit = nix::sys::time::TimeVal::new(limit.as_secs() as i64, 0);
        setsockopt(&fd, sockopt::SendTimeout, &limit)?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &limit)?;
    }
    connect(fd.as_fd().as_raw_fd(), address)?;
    Ok(fd)
}

/// Asks the kernel to put the sender's credentials beside each message that comes in on `fd`.
pub fn want_credentials(fd: BorrowedFd<'_>) -> Result<()> {
    use nix::sys::socket::{setsockopt, sockopt::PassCred};
    setsockopt(&fd, PassCred, &true)
}

/// Returns the process at the other side when the two were connected; 0 if it is in no pid namespace that is seen here.
pub fn peer(fd: BorrowedFd<'_>) -> Result<i32> {
    use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
    getsockopt(&fd, PeerCredentials).map(|peer| peer.pid())
}

fn header(bytes: &mut libc::iovec, control: Option<(&mut Control, usize)>) -> libc::msghdr {
    // SAFETY: msghdr is plain data, for which all zeroes is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = bytes;
    message.msg_iovlen = 1;
    if let Some((control, len)) = control {
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = len as _;
    }
    message
}

/// Sends one message, with a descriptor beside it if one is given.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<()> {
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = Control([0; CONTROL]);
    let size = size_of::<libc::c_int>() as u32;
    let message = match fd {
        None => header(&mut part, None),
        Some(fd) => {
            // SAFETY: CMSG_SPACE only computes.
            let space = unsafe { libc::CMSG_SPACE(size) } as usize;
            let message = header(&mut part, Some((&mut control, space)));
            // SAFETY: the control buffer is aligned and holds `space` bytes, which is room for one header and one int.
            unsafe {
                let cmsg = libc::CMSG_FIRSTHDR(&raw const message);
                (*cmsg).cmsg_level = libc::SOL_SOCKET;
                (*cmsg).cmsg_type = libc::SCM_RIGHTS;
                (*cmsg).cmsg_len = libc::CMSG_LEN(size) as _;
                libc::CMSG_DATA(cmsg).cast::<libc::c_int>().write_unaligned(fd.as_raw_fd());
            }
            message
        }
    };
    loop {
        // SAFETY: the header points at `part` and `control`, which outlive the call; the kernel only reads them.
        match cvt(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) } as libc::c_long)
        {
            Err(Errno::EINTR) => {}
            other => return other.map(drop),
        }
    }
}

/// Receives one message into `bytes`.
pub fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<Received> {
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut control = Control([0; CONTROL]);
    let mut message = header(&mut part, Some((&mut control, CONTROL)));
    let len = loop {
        let flags = libc::MSG_CMSG_CLOEXEC;
        // SAFETY: the header points at `part` (all of `bytes`) and `control`, which outlive the call.
        match cvt(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) } as libc::c_long) {
            Err(Errno::EINTR) => {}
            other => break other? as usize,
        }
    };
    let mut received = Received { len, ..Received::default() };
    // SAFETY: the kernel filled the control buffer and set its length; CMSG_FIRSTHDR and CMSG_NXTHDR stay inside it,
    // and each payload is read as the type that its level and type name.
    unsafe {
        let mut cmsg = libc::CMSG_FIRSTHDR(&raw const message);
        while !cmsg.is_null() {
            match ((*cmsg).cmsg_level, (*cmsg).cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                    let number = libc::CMSG_DATA(cmsg).cast::<libc::c_int>().read_unaligned();
                    received.fd = Some(own(number.into()));
                }
                (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => {
                    received.pid = Some(libc::CMSG_DATA(cmsg).cast::<libc::ucred>().read_unaligned().pid);
                }
                _ => {}
            }
            cmsg = libc::CMSG_NXTHDR(&raw const message, cmsg);
        }
    }
    Ok(received)
}
