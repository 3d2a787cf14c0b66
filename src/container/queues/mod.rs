//! POSIX message queues of a container with an IPC namespace of its own: CRIU dumps neither their content nor who has
//! them open.
//!
//! While the container is dumped they are read (capture.rs, drain.rs), and named to CRIU as external with all
//! descriptors and mounts. To restore it, a namespace is made with the same queues in it (recreate.rs), which CRIU joins
//! and fills with everything else that it has of the old one. Containers without queues are none of this.

mod capture;
mod drain;
mod recreate;

pub use capture::{Queues, capture};
pub use recreate::{Recreated, Saved, load};

use crate::error::{Context, Error, Result};
use crate::sys::clone::{Clone, clone_child, exit_now};
use crate::sys::pidfd::{self, Exit};
use crate::sys::{self, Errno, mount, socket};
use std::fmt::Display;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The type of the file system that shows the queues of a namespace.
const FILE_SYSTEM: &std::ffi::CStr = c"mqueue";

/// A child that hands over descriptors of what it has made or found in another namespace, which this process never
/// enters itself.
struct Envoy {
    pid: i32,
    socket: OwnedFd,
}

impl Envoy {
    /// Has a child carry `body` out, which sends descriptors into the socket, and may not allocate (see [`clone_child`]).
    fn send(body: impl FnOnce(BorrowedFd<'_>) -> sys::Result<()>) -> sys::Result<Self> {
        let (ours, theirs) = socket::seqpacket_pair()?;
        let request = Clone { withheld: Some(ours.as_fd()), ..Clone::default() };
        let child = clone_child(request, || {
            exit_now(body(theirs.as_fd()).map_or_else(|errno| errno as i32, |()| 0));
        })?;
        Ok(Self { pid: child.pid, socket: ours })
    }

    /// Returns the next descriptor; nothing when the child has ended before.
    fn receive(&self) -> sys::Result<Option<OwnedFd>> {
        socket::receive(self.socket.as_fd(), &mut [0; 1]).map(|received| received.fd)
    }

    /// Waits for the end of the child, and returns how it failed.
    fn end<D: Display>(self, attempt: impl Fn() -> D) -> Result<()> {
        reap(self.pid, attempt)
    }
}

/// Waits for the end of a child whose exit code is an error number.
fn reap<D: Display>(pid: i32, attempt: impl Fn() -> D) -> Result<()> {
    match pidfd::reap(pid).context(&attempt)? {
        Exit::Code(0) => Ok(()),
        Exit::Code(errno) => Err(Error::system(attempt(), Errno::from_raw(errno))),
        Exit::Signal(signal) => Err(Error::other(format!("{}: killed by signal {signal}", attempt()))),
    }
}

/// Returns a mount, attached nowhere, of the file system with the queues of the namespace that the caller is in.
fn file_system() -> sys::Result<OwnedFd> {
    let made = mount::fsopen(FILE_SYSTEM)?;
    mount::fsconfig_create(made.as_fd())?;
    mount::fsmount(made.as_fd(), 0)
}

/// Sends one descriptor.
fn hand_over(socket: BorrowedFd<'_>, descriptor: BorrowedFd<'_>) -> sys::Result<()> {
    socket::send(socket, b"q", Some(descriptor))
}
