//! seccomp(2): load a filter, ask the kernel what it knows. Filters are made in plan/seccomp.

use super::{Errno, Result, cvt};
use libc::{c_long, sock_filter, sock_fprog};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// The flags that a filter may be loaded with and that [`supported_flags`] asks for.
const FLAGS: [u32; 4] = [
    libc::SECCOMP_FILTER_FLAG_LOG as u32,
    libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32,
    libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32,
    libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV as u32,
];

/// Puts the calling thread, and all that it will start, under `program`.
///
/// Returns the notification descriptor (close-on-exec) if `flags` ask for a listener. The caller
/// must have set no_new_privs or hold CAP_SYS_ADMIN in its user namespace, or this fails with
/// EACCES. Async-signal-safe: one system call, no allocation.
pub fn load(program: &[sock_filter], flags: u32) -> Result<Option<OwnedFd>> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    let program = sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies `len` instructions, which is the length of the borrowed slice, and
    // writes to none of them.
    let ret = cvt(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::from_ref(&program))
    })?;
    if flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32 == 0 {
        return Ok(None);
    }
    // SAFETY: with NEW_LISTENER the result is a descriptor that the kernel has just made for us
    // (seccomp(2)), so nothing else owns it.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(ret as RawFd) }))
}

/// Returns those SECCOMP_FILTER_FLAG_* that the kernel knows; none if it has no seccomp filters.
pub fn supported_flags() -> u32 {
    FLAGS.into_iter().filter(|flag| knows_flag(*flag)).fold(0, |all, flag| all | flag)
}

/// Tells whether the kernel knows the SECCOMP_RET_* `action`.
pub fn knows_action(action: u32) -> bool {
    // SAFETY: the kernel reads one u32, which `action` is for the time of the call.
    let ret =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, std::ptr::from_ref(&action)) };
    ret == 0
}

/// Asks for `flag` without a program: EFAULT says that the flag was accepted (seccomp(2)).
fn knows_flag(flag: u32) -> bool {
    // Waiting without a listener is refused, known or not.
    let flag = match flag {
        wait if wait == libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV as u32 => {
            wait | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32
        }
        other => other,
    };
    let nothing = std::ptr::null::<sock_fprog>();
    // SAFETY: the null pointer is there to be refused; the kernel reads nothing through it and
    // loads nothing.
    let ret: c_long = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flag, nothing) };
    cvt(ret) == Err(Errno::EFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_floor_has_these_flags_and_actions() {
        let floor = FLAGS[0] | FLAGS[1] | FLAGS[2];
        assert_eq!(supported_flags() & floor, floor);
        assert!(knows_action(libc::SECCOMP_RET_ALLOW));
        assert!(knows_action(libc::SECCOMP_RET_USER_NOTIF));
        assert!(!knows_action(0x1234_0000));
    }

    #[test]
    fn an_empty_or_endless_program_is_refused() {
        let ret = sock_filter { code: 6, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };
        assert_eq!(load(&[], 0).err(), Some(Errno::EINVAL));
        assert_eq!(load(&vec![ret; 1 << 16], 0).err(), Some(Errno::EINVAL));
        assert_eq!(load(&vec![ret; 4097], 0).err(), Some(Errno::EINVAL));
    }
}
