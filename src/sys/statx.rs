//! What a file is, from what the kernel knows of it already: asking never waits for whoever serves the file.
//!
//! A stat of a file on FUSE or NFS is a question to a server, which may be frozen with the container that it is in.

use super::{Result, cvt};
use nix::libc;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Attributes of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Attributes {
    /// Its type and permissions, as `st_mode` has them.
    pub mode: u32,
    /// How many names it has.
    pub links: u32,
    /// Its inode's number.
    pub inode: u64,
    /// Major and minor number, if it is a device.
    pub device: (u32, u32),
    /// Whether something is mounted there (since 5.8).
    pub is_mount: bool,
}

impl Attributes {
    /// Returns its type: one of `S_IFMT`'s values.
    pub fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }
}

/// Returns the attributes of what a name below `directory` leads to, through the symlink that it may be.
pub fn attributes(directory: BorrowedFd<'_>, name: &CStr) -> Result<Attributes> {
    let wanted = libc::STATX_TYPE | libc::STATX_MODE | libc::STATX_NLINK | libc::STATX_INO;
    let found = statx(directory, name, 0, wanted)?;
    Ok(Attributes {
        mode: u32::from(found.stx_mode),
        links: found.stx_nlink,
        inode: found.stx_ino,
        device: (found.stx_rdev_major, found.stx_rdev_minor),
        is_mount: found.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0,
    })
}

/// Returns the place that a descriptor stands for: the number of its mount (since 5.8) and that of its inode.
pub fn place(fd: BorrowedFd<'_>) -> Result<(u64, u64)> {
    let found = statx(fd, c"", libc::AT_EMPTY_PATH, libc::STATX_MNT_ID | libc::STATX_INO)?;
    Ok((found.stx_mnt_id, found.stx_ino))
}

fn statx(directory: BorrowedFd<'_>, name: &CStr, flags: libc::c_int, wanted: u32) -> Result<libc::statx> {
    let (directory, flags) = (directory.as_raw_fd(), flags | libc::AT_STATX_DONT_SYNC);
    // SAFETY: statx is plain data, for which all zeroes is a value.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: `name` is a C string and `found` has the size that the kernel writes; both outlive the call.
    cvt(unsafe { libc::statx(directory, name.as_ptr(), flags, wanted, &raw mut found) }.into())?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, hard_link};
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn attributes_are_those_of_the_target() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let file = File::create(&path).unwrap();
        hard_link(&path, directory.path().join("other")).unwrap();
        std::os::unix::fs::symlink("file", directory.path().join("link")).unwrap();
        let opened = File::open(directory.path()).unwrap();
        let found = attributes(opened.as_fd(), c"link").unwrap();
        assert_eq!((found.kind(), found.links, found.inode), (libc::S_IFREG, 2, file.metadata().unwrap().ino()));
        let null = attributes(opened.as_fd(), c"/dev/null").unwrap();
        assert_eq!((null.kind(), null.device), (libc::S_IFCHR, (1, 3)));
        let mounts = [c"/proc", c"/proc/self"].map(|path| attributes(opened.as_fd(), path).unwrap().is_mount);
        assert_eq!(mounts, [true, false]);
        assert_eq!(attributes(opened.as_fd(), c"none"), Err(super::super::Errno::ENOENT));
    }
}
