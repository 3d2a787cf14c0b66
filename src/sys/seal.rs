//! The system calls of crate::seal: telling what we run from, a copy in memory that can be executed, and the execution
//! of an image in our place.

use super::early;
use super::{Errno, Result, cvt};
use nix::NixPath;
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Tells whether `path` leads to a file on an overlay with exactly the restrictions that
/// [`super::early`] sets.
pub fn is_on_restricted_overlay<P: NixPath + ?Sized>(path: &P) -> Result<bool> {
    path.with_nix_path(early::is_on_restricted_overlay)?.map_err(|negative| Errno::from_raw(-negative as i32))
}

/// Makes an empty, sealable file in memory that may be executed.
pub fn executable_memfd(name: &CStr) -> Result<OwnedFd> {
    let create = |flags: u32| {
        // SAFETY: `name` is a borrowed C string, which the kernel copies.
        cvt(unsafe { libc::syscall(libc::SYS_memfd_create, name.as_ptr(), flags) }).map(owned)
    };
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    match create(flags | libc::MFD_EXEC) {
        // Before 6.3 every such file was executable and the kernel had no word for it.
        Err(Errno::EINVAL) => create(flags),
        other => other,
    }
}

unsafe extern "C" {
    static environ: *const *const libc::c_char;
}

/// A null-terminated array of pointers to C strings.
fn pointers(argv: &[CString]) -> Vec<*const libc::c_char> {
    argv.iter().map(|arg| arg.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Executes us from an overlay that cannot be written, with the same environment; returns if that is not possible.
pub fn execute_from_overlay(argv: &[CString]) {
    let pointers = pointers(argv);
    // SAFETY: `pointers` is null-terminated and points at C strings that live in `argv`; nothing else in this
    // single-threaded program changes `environ` meanwhile, which libc keeps null-terminated.
    unsafe { early::execute_from_overlay(pointers.as_ptr().cast(), environ.cast()) };
}

/// Executes the open file `image` in place of this process, with the same environment; returns
/// only if that fails.
pub fn execute(image: BorrowedFd<'_>, argv: &[CString]) -> Errno {
    let pointers = pointers(argv);
    // SAFETY: as above; the empty path with AT_EMPTY_PATH means the descriptor.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            image.as_raw_fd(),
            c"".as_ptr(),
            pointers.as_ptr(),
            environ,
            libc::AT_EMPTY_PATH,
        );
    }
    Errno::last()
}

/// Sets the name by which ps and /proc/PID/comm show the process; the kernel keeps 15 bytes of it.
pub fn set_name(name: &CStr) -> Result<()> {
    // SAFETY: `name` is a borrowed C string; the kernel reads no further than its end.
    cvt(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) }.into()).map(drop)
}

/// Owns the descriptor that a system call has just returned.
fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: every caller passes the successful result of a system call that makes a descriptor,
    // which nothing else owns yet.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}
