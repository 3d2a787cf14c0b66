//! tmpcopyup: a tmpfs that begins with a copy of the directory that it will cover.
//!
//! The inside copies, as in runc, and so the copy is what a process of the container could have made: earlier mounts
//! are in it, ids are those of the container's user namespace, its size is limited by the tmpfs, and its memory counts
//! as the container's. The source may be changed by others meanwhile: no symlink in it is ever followed. The root of
//! the tmpfs is no copy: it has the owner and the mode that it was mounted with. Hard links become files of their own.

use crate::sys::directory::Names;
use crate::sys::{self, Errno, fd, path, xattr};
use nix::fcntl::{AtFlags, OFlag};
use nix::libc;
use nix::sys::stat::{self, FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags};
use nix::sys::time::TimeSpec;
use nix::unistd::{self, Whence};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

/// How deep directories may lie in each other: for each, two descriptors are open and its buffers are on the stack.
const DEEPEST: u32 = 256;

/// How much of a file is read at once.
const BLOCK: usize = 64 << 10;

/// The most that the names of extended attributes, or the value of one, take (XATTR_LIST_MAX, XATTR_SIZE_MAX).
const XATTR_MAX: usize = 64 << 10;

/// What a file is opened with to be read: nothing happens to a fifo or a device that somebody puts in its place.
const READ: OFlag = OFlag::O_RDONLY.union(OFlag::O_NOFOLLOW).union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY);

const READ_DIRECTORY: OFlag = READ.union(OFlag::O_DIRECTORY);

/// Copies what is in the directory `from` into the empty directory `to`, which nobody else sees yet.
pub fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> sys::Result<()> {
    let from = path::open_at(from, c".", READ_DIRECTORY)?;
    let to = path::open_at(to, c".", READ_DIRECTORY)?;
    copy_all(from.as_fd(), to.as_fd(), DEEPEST)
}

fn copy_all(from: BorrowedFd<'_>, to: BorrowedFd<'_>, deepest: u32) -> sys::Result<()> {
    let mut names = Names::new(from);
    while let Some(name) = names.next_name()? {
        let status = stat::fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        match SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFDIR => {
                let deeper = deepest.checked_sub(1).ok_or(Errno::ENAMETOOLONG)?;
                copy_directory((from, to), name, &status, deeper)?;
            }
            SFlag::S_IFREG => copy_file((from, to), name, &status)?,
            SFlag::S_IFLNK => {
                unistd::symlinkat(path::read_link(from, name)?.as_cstr(), to, name)?;
                set_attributes(to, name, &status)?;
            }
            // Who would answer on it listens elsewhere.
            SFlag::S_IFSOCK => {}
            kind => {
                stat::mknodat(to, name, kind, Mode::empty(), status.st_rdev)?;
                set_attributes(to, name, &status)?;
            }
        }
    }
    Ok(())
}

fn copy_directory(
    (from, to): (BorrowedFd<'_>, BorrowedFd<'_>),
    name: &CStr,
    status: &FileStat,
    deepest: u32,
) -> sys::Result<()> {
    stat::mkdirat(to, name, Mode::S_IRWXU)?;
    let (source, copy) = (path::open_at(from, name, READ_DIRECTORY)?, path::open_at(to, name, READ_DIRECTORY)?);
    copy_all(source.as_fd(), copy.as_fd(), deepest)?;
    set_attributes(to, name, status)?;
    copy_xattrs(source.as_fd(), copy.as_fd())
}

// On its own, so that its buffers are not there for each directory on the way.
#[inline(never)]
fn copy_file((from, to): (BorrowedFd<'_>, BorrowedFd<'_>), name: &CStr, status: &FileStat) -> sys::Result<()> {
    let source = path::open_at(from, name, READ)?;
    let found = path::fstat(source.as_fd())?;
    if (found.st_dev, found.st_ino) != (status.st_dev, status.st_ino) {
        return Err(Errno::ESTALE);
    }
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let copy = nix::fcntl::openat(to, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
    copy_content(source.as_fd(), copy.as_fd(), found.st_size)?;
    set_attributes(to, name, status)?;
    // Behind the owner, who takes file capabilities away.
    copy_xattrs(source.as_fd(), copy.as_fd())
}

/// Copies a file's data; where it has none the copy has a hole too.
fn copy_content(from: BorrowedFd<'_>, to: BorrowedFd<'_>, length: i64) -> sys::Result<()> {
    unistd::ftruncate(to, length)?;
    let mut buffer = [0; BLOCK];
    let mut at = 0;
    while at < length {
        let start = match unistd::lseek(from, at, Whence::SeekData) {
            // Only a hole is left.
            Err(Errno::ENXIO) => break,
            other => other?,
        };
        let end = unistd::lseek(from, start, Whence::SeekHole)?.min(length);
        unistd::lseek(from, start, Whence::SeekSet)?;
        unistd::lseek(to, start, Whence::SeekSet)?;
        at = start;
        while at < end {
            let wanted = usize::try_from(end - at).unwrap_or(BLOCK).min(BLOCK);
            let count = fd::read(from, buffer.get_mut(..wanted).unwrap_or_default())?;
            if count == 0 {
                // Cut off meanwhile.
                return Ok(());
            }
            fd::write_all(to, buffer.get(..count).unwrap_or_default())?;
            at += count as i64;
        }
    }
    Ok(())
}

/// Gives a copy the owner, the mode and the time of its original.
fn set_attributes(to: BorrowedFd<'_>, name: &CStr, status: &FileStat) -> sys::Result<()> {
    let (uid, gid) = (status.st_uid.into(), status.st_gid.into());
    unistd::fchownat(to, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if status.st_mode & libc::S_IFMT != libc::S_IFLNK {
        stat::fchmodat(to, name, Mode::from_bits_truncate(status.st_mode), FchmodatFlags::FollowSymlink)?;
    }
    let time = TimeSpec::new(status.st_mtime, status.st_mtime_nsec);
    stat::utimensat(to, name, &time, &time, UtimensatFlags::NoFollowSymlink)
}

/// Copies the extended attributes that the tmpfs takes from us: those of users only from Linux 6.6 on, and labels are
/// the mount's.
#[inline(never)]
fn copy_xattrs(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> sys::Result<()> {
    let (mut list, mut buffer) = ([0; XATTR_MAX], [0; XATTR_MAX]);
    let names = match xattr::list_into(from, &mut list) {
        Err(Errno::EOPNOTSUPP) => return Ok(()),
        other => other?,
    };
    for name in names.split_inclusive(|byte| *byte == 0) {
        let name = CStr::from_bytes_with_nul(name).unwrap_or_default();
        match xattr::get_into(from, name, &mut buffer).and_then(|value| xattr::set_open(to, name, value)) {
            Err(Errno::EOPNOTSUPP | Errno::EPERM | Errno::ENODATA) => {}
            other => other?,
        }
    }
    Ok(())
}
