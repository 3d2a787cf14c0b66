//! Paths inside a container's root: resolved by the kernel with the root as `/`, so that no symlink, `..` or race in a
//! hostile rootfs leads out of it (openat2(2) RESOLVE_IN_ROOT, 5.6; CVE-2019-16884, CVE-2021-30465, CVE-2024-45310).
//!
//! Nothing here allocates: the functions run between clone and execve.

use super::fd::own;
use super::{Errno, Result, cvt};
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::stat::{FileStat, Mode, SFlag};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Resolution that treats the directory as the root and follows no magic links.
const IN_ROOT: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;

/// How often a resolution is tried again when the kernel says that the tree was changed under it.
const RACE_RETRIES: u32 = 32;

fn openat2(dir: BorrowedFd<'_>, path: &CStr, flags: OFlag, mode: Mode, resolve: u64) -> Result<OwnedFd> {
    // SAFETY: open_how is plain integers, for which all zeroes is a value.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | OFlag::O_CLOEXEC).bits() as u64;
    how.mode = u64::from(mode.bits());
    how.resolve = resolve;
    let mut tries = 0;
    loop {
        // SAFETY: `path` and `how` outlive the call and the size of `how` is passed.
        let ret = cvt(unsafe {
            libc::syscall(
                libc::SYS_openat2,
                dir.as_raw_fd(),
                path.as_ptr(),
                &raw const how,
                size_of::<libc::open_how>(),
            )
        });
        match ret {
            // EAGAIN: a rename elsewhere made a `..` unsafe to follow (openat2(2)); the caller would only ask again.
            Err(Errno::EAGAIN) if tries < RACE_RETRIES => tries += 1,
            Err(Errno::EINTR) => {}
            other => return other.map(own),
        }
    }
}

/// Opens a path outside any container.
pub fn open(path: &CStr, flags: OFlag) -> Result<OwnedFd> {
    nix::fcntl::open(path, flags | OFlag::O_CLOEXEC, Mode::empty())
}

/// Opens a path relative to a directory that is trusted (not a container's).
pub fn open_at(dir: BorrowedFd<'_>, path: &CStr, flags: OFlag) -> Result<OwnedFd> {
    nix::fcntl::openat(dir, path, flags | OFlag::O_CLOEXEC, Mode::empty())
}

/// Opens `path` with `root` as `/`.
pub fn open_in_root(root: BorrowedFd<'_>, path: &CStr, flags: OFlag) -> Result<OwnedFd> {
    openat2(root, path, flags, Mode::empty(), IN_ROOT)
}

/// Opens `path` with `root` as `/`, provided that no part of it is a symlink; ELOOP otherwise.
pub fn open_in_root_without_symlinks(root: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd> {
    openat2(root, path, OFlag::O_PATH, Mode::empty(), IN_ROOT | libc::RESOLVE_NO_SYMLINKS)
}

/// Opens `path` below `root`, provided that it leads through no symlink and into no other mount: ELOOP and EXDEV
/// otherwise. A symlink at its end is opened itself where `flags` say `O_PATH | O_NOFOLLOW`.
pub fn open_within(root: BorrowedFd<'_>, path: &CStr, flags: OFlag, mode: Mode) -> Result<OwnedFd> {
    let within = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_XDEV;
    openat2(root, path, flags, mode, within)
}

/// What is put at the end of a path that is missing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Missing {
    /// A directory, mode 0755.
    Directory,
    /// An empty regular file, mode 0644.
    File,
}

/// How many symlinks that lead nowhere a path may go through: the kernel's own limit.
const MAX_SYMLINKS: u32 = 40;

/// Where a step on the way to a path led.
#[allow(clippy::large_enum_variant, reason = "between clone and execve nothing may be allocated, so nothing boxed")]
enum Found<T> {
    /// To what was looked for.
    Here(T),
    /// To a symlink of the image to what is not there yet; this is the path by way of it.
    Elsewhere(Prefix),
}

/// Returns an `O_PATH` descriptor of `path` inside `root`, made with all its parents where missing. A symlink to what
/// is missing is followed, inside `root`: images have an /etc/resolv.conf that points into an empty /run.
///
/// # Errors
///
/// As openat2(2) and mkdirat(2); ENAMETOOLONG over `PATH_MAX`.
pub fn ensure_in_root(root: BorrowedFd<'_>, path: &CStr, missing: Missing) -> Result<OwnedFd> {
    let mut path = Prefix::new(path.to_bytes())?;
    for _ in 0..MAX_SYMLINKS {
        match open_in_root(root, path.as_cstr(), OFlag::O_PATH) {
            Err(Errno::ENOENT) => {}
            other => return other,
        }
        let (parent, name) = ensure_parent(root, path.as_cstr())?;
        create(parent.as_fd(), name.as_cstr(), missing)?;
        let whole = trim_slashes(path.as_cstr().to_bytes());
        let before = whole.len() - name.as_cstr().to_bytes().len();
        match made(root, whole, before, whole.len(), OFlag::O_PATH)? {
            Found::Here(place) => return Ok(place),
            Found::Elsewhere(other) => path = other,
        }
    }
    Err(Errno::ELOOP)
}

/// Makes the parents of `path` inside `root` where missing; returns the last of them and the final name.
pub fn ensure_parent(root: BorrowedFd<'_>, path: &CStr) -> Result<(OwnedFd, Prefix)> {
    let mut path = Prefix::new(path.to_bytes())?;
    for _ in 0..MAX_SYMLINKS {
        match walk(root, trim_slashes(path.as_cstr().to_bytes()))? {
            Found::Here(found) => return Ok(found),
            Found::Elsewhere(other) => path = other,
        }
    }
    Err(Errno::ELOOP)
}

/// Walks to the last parent of `path`, making what is missing, up to the first symlink to what is missing.
fn walk(root: BorrowedFd<'_>, path: &[u8]) -> Result<Found<(OwnedFd, Prefix)>> {
    let name_start = path.iter().rposition(|&b| b == b'/').map_or(0, |at| at + 1);
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    // Mostly it is there.
    match open_in_root(root, Prefix::new(&path[..name_start])?.or_root(), flags) {
        Err(Errno::ENOENT) => {}
        other => return Ok(Found::Here((other?, Prefix::new(&path[name_start..])?))),
    }
    let mut parent = open_in_root(root, c"/", flags)?;
    let mut end = 0;
    while end < name_start {
        let start = end;
        end += path[start..name_start].iter().position(|&b| b == b'/').map_or(name_start - start, |at| at + 1);
        if end - start <= 1 {
            continue;
        }
        parent = match open_in_root(root, Prefix::new(&path[..end - 1])?.as_cstr(), flags) {
            Err(Errno::ENOENT) => {
                create(parent.as_fd(), Prefix::new(&path[start..end - 1])?.as_cstr(), Missing::Directory)?;
                match made(root, path, start, end - 1, flags)? {
                    Found::Here(place) => place,
                    Found::Elsewhere(other) => return Ok(Found::Elsewhere(other)),
                }
            }
            other => other?,
        };
    }
    Ok(Found::Here((parent, Prefix::new(&path[name_start..])?)))
}

/// Opens the part of `path` that ends at `end`, whose last name, from `start` on, was made just now or is a symlink to
/// what is missing.
fn made(root: BorrowedFd<'_>, path: &[u8], start: usize, end: usize, flags: OFlag) -> Result<Found<OwnedFd>> {
    let part = Prefix::new(&path[..end])?;
    match open_in_root(root, part.as_cstr(), flags) {
        Err(Errno::ENOENT) => {}
        other => return other.map(Found::Here),
    }
    let link = openat2(root, part.as_cstr(), OFlag::O_PATH | OFlag::O_NOFOLLOW, Mode::empty(), IN_ROOT)?;
    let target = read_link(link.as_fd(), c"")?;
    let target = target.as_cstr().to_bytes();
    let before = if target.starts_with(b"/") { &b""[..] } else { &path[..start] };
    Prefix::joined([before, target, &path[end..]]).map(Found::Elsewhere)
}

/// Returns where the symlink `name` in a directory leads; an empty name means the symlink that `dir` stands for.
pub fn read_link(dir: BorrowedFd<'_>, name: &CStr) -> Result<Prefix> {
    let mut target = Prefix { bytes: [0; libc::PATH_MAX as usize], len: 0 };
    // What follows the target stays a null byte: no symlink is longer than PATH_MAX - 1 (path_resolution(7)).
    let (buffer, room) = (target.bytes.as_mut_ptr(), target.bytes.len() - 1);
    // SAFETY: pointer and length describe `target`, and `name` is a C string.
    let len = cvt(unsafe { libc::syscall(libc::SYS_readlinkat, dir.as_raw_fd(), name.as_ptr(), buffer, room) })?;
    target.len = len as usize;
    Ok(target)
}

fn trim_slashes(mut path: &[u8]) -> &[u8] {
    while let [rest @ .., b'/'] = path {
        path = rest;
    }
    path
}

fn create(parent: BorrowedFd<'_>, name: &CStr, missing: Missing) -> Result<()> {
    // A final ".." or "." cannot be made, and mkdirat would say EEXIST for it as for a race that somebody else won.
    if matches!(name.to_bytes(), b"." | b"..") {
        return Err(Errno::ENOENT);
    }
    let made = match missing {
        Missing::Directory => nix::sys::stat::mkdirat(parent, name, Mode::from_bits_truncate(0o755)),
        Missing::File => {
            let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
            nix::fcntl::openat(parent, name, flags, Mode::from_bits_truncate(0o644)).map(drop)
        }
    };
    match made {
        Err(Errno::EEXIST) => Ok(()),
        other => other,
    }
}

/// A path as a C string on the stack.
#[derive(Clone, Debug)]
pub struct Prefix {
    bytes: [u8; libc::PATH_MAX as usize],
    len: usize,
}

impl Prefix {
    fn new(path: &[u8]) -> Result<Self> {
        Self::joined([path, b"", b""])
    }

    fn joined(parts: [&[u8]; 3]) -> Result<Self> {
        let mut prefix = Self { bytes: [0; libc::PATH_MAX as usize], len: 0 };
        for part in parts {
            let end = prefix.len + part.len();
            let room = prefix.bytes.get_mut(prefix.len..end).filter(|_| end < libc::PATH_MAX as usize);
            room.ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(part);
            prefix.len = end;
        }
        Ok(prefix)
    }

    /// Returns the path, or `/` for none.
    fn or_root(&self) -> &CStr {
        if self.len == 0 { c"/" } else { self.as_cstr() }
    }

    /// Returns the path.
    pub fn as_cstr(&self) -> &CStr {
        CStr::from_bytes_until_nul(self.bytes.get(..=self.len).unwrap_or(b"\0")).unwrap_or(c"")
    }
}

/// Returns the status of the file that a descriptor stands for.
pub fn fstat(fd: BorrowedFd<'_>) -> Result<FileStat> {
    nix::sys::stat::fstat(fd)
}

/// Gives the file that a descriptor stands for to a user and a group.
pub fn own_by(fd: BorrowedFd<'_>, (user, group): (u32, u32)) -> Result<()> {
    nix::unistd::fchown(fd, Some(user.into()), Some(group.into()))
}

/// Says whether a descriptor stands for a directory.
pub fn is_directory(fd: BorrowedFd<'_>) -> Result<bool> {
    Ok(SFlag::from_bits_truncate(fstat(fd)?.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
}

/// Says whether a descriptor stands for the file system whose magic number is given.
pub fn is_on(fd: BorrowedFd<'_>, magic: nix::sys::statfs::FsType) -> Result<bool> {
    Ok(nix::sys::statfs::fstatfs(fd)?.filesystem_type() == magic)
}
