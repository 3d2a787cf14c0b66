//! The kernel: thin wrappers of system calls, one concern per file, no policy.
//!
//! This is the only place in the crate where `unsafe` may stand. Wrappers take and return owned or borrowed
//! descriptors, never raw numbers, and fail with a bare [`Errno`]: words are added by the caller, who knows the object.

pub mod bpf;
pub mod cgroupfs;
pub mod clone;
pub mod command;
pub mod directory;
pub mod early;
pub mod fd;
pub mod ipc;
pub mod mount;
pub mod mountinfo;
pub mod mqueue;
pub mod netlink;
pub mod ns;
pub mod path;
pub mod pidfd;
pub mod proc;
pub mod process;
pub mod pty;
pub mod rtnetlink;
pub mod seal;
pub mod seccomp;
pub mod seqpacket;
pub mod shared;
pub mod signal;
pub mod socket;
pub mod sockopt;
pub mod start;
pub mod statx;
pub mod stream;
pub mod tty;
pub mod unix_diag;
pub mod xattr;

pub use nix::errno::Errno;

/// The result of a system call.
pub type Result<T> = std::result::Result<T, Errno>;

/// Turns the return value of a raw system call into a result.
pub(crate) fn cvt(ret: libc::c_long) -> Result<libc::c_long> {
    if ret < 0 { Err(Errno::last()) } else { Ok(ret) }
}
