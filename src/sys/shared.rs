//! Memory that a process shares with the children that it clones.

use super::{Errno, Result};
use nix::libc;
use std::ptr::NonNull;

/// Anonymous memory, all zeroes at first, which a child finds at the same place and does not get a copy of.
#[derive(Debug)]
pub struct SharedMemory {
    start: NonNull<u8>,
    length: usize,
}

impl SharedMemory {
    /// Maps memory of this length, which is not 0.
    pub fn new(length: usize) -> Result<Self> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: the kernel chooses an address where nothing else is.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
        match NonNull::new(start.cast::<u8>()) {
            Some(mapped) if start != libc::MAP_FAILED => Ok(Self { start: mapped, length }),
            _ => Err(Errno::last()),
        }
    }

    /// Returns the memory. Two processes have it: one of them waits for the end of the other before it looks.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is that long and lives as long as `self`, and this process has no other reference to it,
        // since this one borrows `self`. That the other process does not write meanwhile is the callers' promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and what borrowed it is gone.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}
