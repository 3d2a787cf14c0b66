//! Extended attributes of files that are open: for `O_PATH` through the link that /proc has of them, and without
//! allocating for those that are open for more.

use super::{Result, cvt};
use nix::libc;
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Returns the path in /proc that leads to what a descriptor stands for, and no further should that be a symlink.
pub fn proc_path(fd: BorrowedFd<'_>) -> CString {
    // Digits have no null byte.
    CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default()
}

/// Returns the names of all extended attributes.
pub fn list(fd: BorrowedFd<'_>) -> Result<Vec<CString>> {
    let path = proc_path(fd);
    // SAFETY: `path` is a C string, and the kernel writes no more than the length that is passed.
    let names = read(|buffer| unsafe { libc::listxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) })?;
    Ok(names
        .split_inclusive(|byte| *byte == 0)
        .filter_map(|name| CString::from_vec_with_nul(name.to_vec()).ok())
        .collect())
}

/// Returns the value of an extended attribute.
pub fn get(fd: BorrowedFd<'_>, name: &CStr) -> Result<Vec<u8>> {
    let path = proc_path(fd);
    // SAFETY: `path` and `name` are C strings, and the kernel writes no more than the length that is passed.
    read(|buffer| unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) })
}

/// Sets an extended attribute.
pub fn set(fd: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<()> {
    let path = proc_path(fd);
    // SAFETY: `path` and `name` are C strings, and the kernel reads as many bytes of `value` as there are.
    let ret = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    cvt(ret.into()).map(drop)
}

/// Writes the names of all extended attributes of a file that is open for more than `O_PATH` into a buffer, each with
/// a null byte behind it.
pub fn list_into<'a>(fd: BorrowedFd<'_>, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    // SAFETY: the kernel writes no more than the length that is passed.
    let length = cvt(unsafe { libc::flistxattr(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) } as _)?;
    Ok(buffer.get(..length as usize).unwrap_or_default())
}

/// Writes the value of an extended attribute of such a file into a buffer.
pub fn get_into<'a>(fd: BorrowedFd<'_>, name: &CStr, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    let (number, place, room) = (fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len());
    // SAFETY: `name` is a C string, and the kernel writes no more than the length that is passed.
    let length = cvt(unsafe { libc::fgetxattr(number, name.as_ptr(), place, room) } as _)?;
    Ok(buffer.get(..length as usize).unwrap_or_default())
}

/// Sets an extended attribute of such a file.
pub fn set_open(fd: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<()> {
    // SAFETY: `name` is a C string, and the kernel reads as many bytes of `value` as there are.
    let ret = unsafe { libc::fsetxattr(fd.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    cvt(ret.into()).map(drop)
}

/// Reads what may be up to 64 KiB long (XATTR_SIZE_MAX, XATTR_LIST_MAX).
fn read(call: impl FnOnce(&mut [u8]) -> isize) -> Result<Vec<u8>> {
    let mut buffer = vec![0; 64 << 10];
    let length = cvt(call(&mut buffer) as libc::c_long)?;
    buffer.truncate(length as usize);
    Ok(buffer)
}
