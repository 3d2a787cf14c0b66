//! System V IPC: the objects of the namespace that the calling process is in.

use super::fd::write_all;
use super::{Errno, Result, cvt};
use nix::libc;
use std::os::fd::BorrowedFd;

/// A kind of object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ObjectKind {
    /// A shared memory segment.
    Shm,
    /// A message queue.
    Msg,
    /// A set of semaphores.
    Sem,
}

/// Removes an object; a segment that is attached goes away with its last attachment.
pub fn remove(kind: ObjectKind, id: i32) -> Result<()> {
    // SAFETY: IPC_RMID takes no argument and touches no memory.
    let removed = unsafe {
        match kind {
            ObjectKind::Shm => libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()),
            ObjectKind::Msg => libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()),
            ObjectKind::Sem => libc::semctl(id, 0, libc::IPC_RMID),
        }
    };
    cvt(removed.into()).map(drop)
}

/// Writes the first `size` bytes of a segment, which has no fewer.
pub fn write_segment(id: i32, size: usize, to: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the kernel chooses an address where nothing else is.
    let address = unsafe { libc::shmat(id, std::ptr::null(), libc::SHM_RDONLY) };
    if address as isize == -1 {
        return Err(Errno::last());
    }
    // SAFETY: the segment is mapped at the address until it is detached below, with at least `size` bytes: its size
    // never changes, and is the caller's. Others may write to it meanwhile; the bytes are only handed to the kernel.
    let written = write_all(to, unsafe { std::slice::from_raw_parts(address.cast::<u8>(), size) });
    // SAFETY: nothing refers to the mapping any more.
    cvt(unsafe { libc::shmdt(address) }.into())?;
    written
}
