//! Mounts: the descriptor-based API (fsopen, open_tree, move_mount, mount_setattr; 5.2 to 5.12) and the few calls of the
//! old one that have no successor.
//!
//! With descriptors a mount is configured before anybody can see it and attached to a place that was resolved before,
//! so that no path is looked up twice.

use super::fd::own;
use super::{Errno, Result, cvt};
use nix::libc;
use nix::mount::{MntFlags, MsFlags};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSCONFIG_CMD_RECONFIGURE: u32 = 7;
const FSPICK_CLOEXEC: u32 = 1;
const FSPICK_EMPTY_PATH: u32 = 8;

/// Attributes of a mount as mount_setattr(2) changes them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Attributes {
    /// `MOUNT_ATTR_*` bits to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` bits to clear.
    pub clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`, or 0 to leave the propagation as it is.
    pub propagation: u64,
}

impl Attributes {
    /// Says whether nothing would change.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Makes a file system with these parameters, and returns its mount, attached nowhere yet.
pub fn new_filesystem<'a>(
    fstype: &CStr,
    parameters: impl Iterator<Item = (&'a CStr, Option<&'a CStr>)>,
    attributes: u64,
) -> Result<OwnedFd> {
    let fs = fsopen(fstype)?;
    configure(fs.as_fd(), parameters)?;
    fsconfig_create(fs.as_fd())?;
    fsmount(fs.as_fd(), attributes)
}

/// Makes a file system that has nothing in it and never will, and returns its mount, attached nowhere yet.
pub fn empty_filesystem(more: Option<(&CStr, Option<&CStr>)>) -> Result<OwnedFd> {
    let parameters = [(c"ro", None), (c"nr_inodes", Some(c"1")), (c"size", Some(c"4k"))];
    new_filesystem(c"tmpfs", parameters.into_iter().chain(more), libc::MOUNT_ATTR_RDONLY)
}

/// Sets parameters, with or without a value.
pub fn configure<'a>(fs: BorrowedFd<'_>, parameters: impl Iterator<Item = (&'a CStr, Option<&'a CStr>)>) -> Result<()> {
    for (key, value) in parameters {
        match value {
            Some(value) => fsconfig_string(fs, key, value)?,
            None => fsconfig_flag(fs, key)?,
        }
    }
    Ok(())
}

/// Opens a file system of that type for configuration.
pub fn fsopen(fstype: &CStr) -> Result<OwnedFd> {
    // SAFETY: `fstype` is a C string that outlives the call.
    Ok(own(cvt(unsafe {
        libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), 1 /* FSOPEN_CLOEXEC */)
    })?))
}

fn fsconfig(fs: BorrowedFd<'_>, command: u32, key: Option<&CStr>, value: Option<&CStr>) -> Result<()> {
    let key = key.map_or(ptr::null(), CStr::as_ptr);
    let value = value.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: key and value are null where the command takes none, or C strings that outlive the call.
    cvt(unsafe { libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), command, key, value, 0) })?;
    Ok(())
}

/// Sets a parameter that has no value, `ro` for example.
pub fn fsconfig_flag(fs: BorrowedFd<'_>, key: &CStr) -> Result<()> {
    fsconfig(fs, FSCONFIG_SET_FLAG, Some(key), None)
}

/// Sets a parameter that has a value, `size=65536k` for example.
pub fn fsconfig_string(fs: BorrowedFd<'_>, key: &CStr, value: &CStr) -> Result<()> {
    fsconfig(fs, FSCONFIG_SET_STRING, Some(key), Some(value))
}

/// Makes the file system from what was configured.
pub fn fsconfig_create(fs: BorrowedFd<'_>) -> Result<()> {
    fsconfig(fs, FSCONFIG_CMD_CREATE, None, None)
}

/// Applies what was configured to a file system that [`fspick`] opened.
pub fn fsconfig_reconfigure(fs: BorrowedFd<'_>) -> Result<()> {
    fsconfig(fs, FSCONFIG_CMD_RECONFIGURE, None, None)
}

/// Returns a mount, attached nowhere yet, of a file system that was made.
pub fn fsmount(fs: BorrowedFd<'_>, attributes: u64) -> Result<OwnedFd> {
    // SAFETY: integers only.
    Ok(own(cvt(unsafe {
        libc::syscall(libc::SYS_fsmount, fs.as_raw_fd(), 1 /* FSMOUNT_CLOEXEC */, attributes)
    })?))
}

/// Opens the file system that is mounted at a descriptor, to reconfigure it.
pub fn fspick(mount: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = FSPICK_CLOEXEC | FSPICK_EMPTY_PATH;
    // SAFETY: the path is a static C string.
    Ok(own(cvt(unsafe { libc::syscall(libc::SYS_fspick, mount.as_raw_fd(), c"".as_ptr(), flags) })?))
}

/// Returns a copy, attached nowhere yet, of the mount at a descriptor; of all mounts below it too when `recursive`.
pub fn clone_tree(at: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd> {
    let mut flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as u32;
    if recursive {
        flags |= libc::AT_RECURSIVE as u32;
    }
    // SAFETY: the path is a static C string.
    Ok(own(cvt(unsafe { libc::syscall(libc::SYS_open_tree, at.as_raw_fd(), c"".as_ptr(), flags) })?))
}

/// Attaches a mount to the place that a descriptor stands for.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    const BOTH_EMPTY: u32 = 0x4 | 0x40; // MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    let (from, to) = (mount.as_raw_fd(), target.as_raw_fd());
    // SAFETY: both paths are static C strings.
    cvt(unsafe { libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), to, c"".as_ptr(), BOTH_EMPTY) })?;
    Ok(())
}

/// Changes the attributes of the mount at a descriptor; of all mounts below it too when `recursive`.
pub fn set_attributes(mount: BorrowedFd<'_>, attributes: Attributes, recursive: bool) -> Result<()> {
    if attributes.is_empty() {
        return Ok(());
    }
    let attr = libc::mount_attr {
        attr_set: attributes.set,
        attr_clr: attributes.clear,
        propagation: attributes.propagation,
        userns_fd: 0,
    };
    mount_setattr(mount, &attr, recursive)
}

/// Returns the flags of the mount at a descriptor in mount(2)'s words, as far as they may be locked.
pub fn flags(mount: BorrowedFd<'_>) -> Result<u64> {
    use nix::sys::statvfs::FsFlags;
    let found = nix::sys::statfs::fstatfs(mount)?.flags();
    let words = [
        (FsFlags::ST_RDONLY, libc::MS_RDONLY),
        (FsFlags::ST_NOSUID, libc::MS_NOSUID),
        (FsFlags::ST_NODEV, libc::MS_NODEV),
        (FsFlags::ST_NOEXEC, libc::MS_NOEXEC),
        (FsFlags::ST_NOATIME, libc::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, libc::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, libc::MS_RELATIME),
    ];
    let flags = words.iter().filter(|(flag, _)| found.contains(*flag)).fold(0, |all, (_, word)| all | word);
    // What keeps access times in neither way is strict about them, which has no bit of its own.
    let strict = flags & (libc::MS_NOATIME | libc::MS_RELATIME) == 0;
    Ok(flags | if strict { libc::MS_STRICTATIME } else { 0 })
}

/// Lets the files of a mount that is attached nowhere yet appear as those of the users and groups that a user namespace
/// maps theirs to (kernel 5.12); of all mounts below it too when `recursive`.
pub fn map_ids(mount: BorrowedFd<'_>, users: BorrowedFd<'_>, recursive: bool) -> Result<()> {
    let userns_fd = u64::try_from(users.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    let attr = libc::mount_attr { attr_set: libc::MOUNT_ATTR_IDMAP, attr_clr: 0, propagation: 0, userns_fd };
    mount_setattr(mount, &attr, recursive)
}

fn mount_setattr(mount: BorrowedFd<'_>, attr: &libc::mount_attr, recursive: bool) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let (fd, size) = (mount.as_raw_fd(), size_of::<libc::mount_attr>());
    // SAFETY: the path is a static C string; `attr` outlives the call and its size is passed.
    cvt(unsafe { libc::syscall(libc::SYS_mount_setattr, fd, c"".as_ptr(), flags, &raw const *attr, size) })?;
    Ok(())
}

/// Changes the propagation of the mount at `path` (mount(2) with `MS_SHARED`, `MS_SLAVE`, ... and `MS_REC`).
pub fn set_propagation(path: &CStr, flags: MsFlags) -> Result<()> {
    nix::mount::mount(None::<&CStr>, path, None::<&CStr>, flags, None::<&CStr>)
}

/// Makes the working directory the root mount, and the old root a mount on top of it, which [`detach`] takes away.
pub fn pivot_here() -> Result<()> {
    nix::unistd::pivot_root(c".", c".")
}

/// Takes away the mount at `path` and all below it, as soon as nobody uses it.
pub fn detach(path: &CStr) -> Result<()> {
    nix::mount::umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
}

/// Moves the mount at the working directory over `/` (for `--no-pivot`).
pub fn move_here_to_root() -> Result<()> {
    nix::mount::mount(Some(c"."), c"/", None::<&CStr>, MsFlags::MS_MOVE, None::<&CStr>)
}
