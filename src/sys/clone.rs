//! Making processes: clone3(2), and the ways a child of ours may end.

use super::{Errno, Result, cvt};
use nix::libc;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// From linux/sched.h; the constant of libc is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What clone3 is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clone<'fd> {
    /// `CLONE_NEW*` and `CLONE_PARENT`; `CLONE_PIDFD` and `CLONE_INTO_CGROUP` are added as needed.
    pub flags: u64,
    /// The cgroup v2 directory that the child is born in (kernel 5.7).
    pub cgroup: Option<BorrowedFd<'fd>>,
    /// Whether it is born where we are if we may not put it there.
    pub may_stay: bool,
    /// A descriptor that the parent keeps to itself: the child begins by closing its copy. The other end of a
    /// connection between them is one, since its end could not be noticed else.
    pub withheld: Option<BorrowedFd<'fd>>,
}

/// A process that was made.
#[derive(Debug)]
pub struct Child {
    /// Its pid in the caller's pid namespace.
    pub pid: i32,
    /// A descriptor that stands for it; absent when `CLONE_PARENT` made it a sibling, whose parent opens one itself.
    pub pidfd: Option<OwnedFd>,
}

/// Clones the calling process by clone3(2); the child runs `body` and ends.
///
/// The child has a copy of the caller's memory, and of its threads only the one that called: a lock that another one
/// held stays locked for ever. So until it executes a program or ends, the child makes async-signal-safe calls only; in
/// particular it does not allocate (tests/integration/allocation.rs). A panic ends it.
pub fn clone_child(request: Clone<'_>, body: impl FnOnce()) -> Result<Child> {
    const SHARED: u64 =
        (libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_THREAD | libc::CLONE_SETTLS | libc::CLONE_VFORK) as u64;
    if request.flags & SHARED != 0 {
        return Err(Errno::EINVAL);
    }
    let sibling = request.flags & libc::CLONE_PARENT as u64 != 0;
    let mut pidfd: libc::c_int = -1;
    // SAFETY: clone_args is plain integers, for which all zeroes is a value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = request.flags;
    if !sibling {
        args.flags |= libc::CLONE_PIDFD as u64;
        args.pidfd = &raw mut pidfd as u64;
        args.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = request.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    let clone = |args: &libc::clone_args| {
        // SAFETY: `args` lives across the call and its size is passed. Memory and descriptors are copied, not shared
        // (SHARED is refused), so neither side can invalidate what the other owns, and the child ends below, before it
        // could return into frames whose values the parent drops.
        cvt(unsafe { libc::syscall(libc::SYS_clone3, &raw const *args, size_of::<libc::clone_args>()) })
    };
    let pid = match clone(&args) {
        // Only the cgroup has these; the second where it is not below the root of our cgroup namespace (nsdelegate).
        Err(Errno::EACCES | Errno::ENOENT) if request.may_stay => {
            args.flags &= !CLONE_INTO_CGROUP;
            clone(&args)?
        }
        other => other?,
    };
    if pid == 0 {
        let _guard = ExitGuard;
        if let Some(withheld) = request.withheld {
            // SAFETY: this closes the child's copy alone (CLONE_FILES is refused). Its owner is a value of the parent's,
            // whose copy here is never dropped, since the child ends below or by execve; `body` was not given it.
            unsafe { libc::close(withheld.as_raw_fd()) };
        }
        body();
        exit_now(0);
    }
    let pidfd = (!sibling).then(|| {
        // SAFETY: clone3 succeeded in the parent with CLONE_PIDFD, so the kernel stored a new descriptor that
        // nothing else owns.
        unsafe { OwnedFd::from_raw_fd(pidfd) }
    });
    Ok(Child { pid: pid as i32, pidfd })
}

/// Ends the process at once: no destructors, no buffers flushed, no exit handlers, which in a child are the parent's.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Ends the process when dropped, so that a panic in a child cannot unwind into the frames it shares with its parent.
struct ExitGuard;

impl Drop for ExitGuard {
    fn drop(&mut self) {
        exit_now(1);
    }
}
