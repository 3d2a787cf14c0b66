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
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Resolution that treats the directory as the root and follows no magic links.
const IN_ROOT: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;

/// How a parent is opened.
const DIRECTORY: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY);

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

/// Returns an `O_PATH` descriptor of `path` inside `root`, made with all its parents where missing. A symlink to what
/// is missing is followed, inside `root`: images have an /etc/resolv.conf that points into an empty /run.
///
/// # Errors
///
/// As openat2(2) and mkdirat(2); ENAMETOOLONG over `PATH_MAX`.
pub fn ensure_in_root(root: BorrowedFd<'_>, path: &CStr, missing: Missing) -> Result<OwnedFd> {
    match open_in_root(root, path, OFlag::O_PATH) {
        Err(Errno::ENOENT) => make_in_root(root, path, missing),
        other => other,
    }
}

/// Makes what `ensure_in_root` has not found. On its own, so that only what is missing costs a buffer on the stack.
#[inline(never)]
fn make_in_root(root: BorrowedFd<'_>, path: &CStr, missing: Missing) -> Result<OwnedFd> {
    let mut buffer = PathBuffer::EMPTY;
    let path = buffer.hold(path)?;
    for _ in 0..MAX_SYMLINKS {
        let parent = path.open_parent(root)?;
        path.lend(path.name(), |name| create(parent.as_fd(), name, missing))?;
        if let Some(made) = path.open_made(root, path.name(), OFlag::O_PATH)? {
            return Ok(made);
        }
    }
    Err(Errno::ELOOP)
}

/// Calls `act` with the last parent of `path` inside `root`, which is made with its own where missing, and the final
/// name.
pub fn in_parent<T>(
    root: BorrowedFd<'_>,
    path: &CStr,
    act: impl FnOnce(BorrowedFd<'_>, &CStr) -> Result<T>,
) -> Result<T> {
    let mut buffer = PathBuffer::EMPTY;
    let path = buffer.hold(path)?;
    let parent = path.open_parent(root)?;
    path.lend(path.name(), |name| act(parent.as_fd(), name))
}

/// Returns where the symlink `name` in a directory leads; an empty name means the symlink that `dir` stands for.
pub fn read_link(dir: BorrowedFd<'_>, name: &CStr) -> Result<PathBuffer> {
    let mut target = PathBuffer::EMPTY;
    // What follows the target stays a null byte: no symlink is longer than PATH_MAX - 1 (path_resolution(7)).
    let (buffer, room) = (target.bytes.as_mut_ptr(), target.bytes.len() - 1);
    // SAFETY: pointer and length describe `target`, and `name` is a C string.
    let len = cvt(unsafe { libc::syscall(libc::SYS_readlinkat, dir.as_raw_fd(), name.as_ptr(), buffer, room) })?;
    target.len = len as usize;
    Ok(target)
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

/// A path on the stack, of which a part can be lent as a C string.
#[derive(Debug)]
pub struct PathBuffer {
    bytes: [u8; libc::PATH_MAX as usize],
    len: usize,
}

impl PathBuffer {
    const EMPTY: Self = Self { bytes: [0; libc::PATH_MAX as usize], len: 0 };

    /// Returns one with a path, without slashes at its end.
    pub fn of(path: &CStr) -> Result<Self> {
        let mut buffer = Self::EMPTY;
        buffer.hold(path)?;
        Ok(buffer)
    }

    fn hold(&mut self, path: &CStr) -> Result<&mut Self> {
        self.replace(0..self.len, path.to_bytes())?;
        Ok(self)
    }

    /// Returns the path.
    pub fn as_cstr(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }

    /// Takes the final name off.
    pub fn shorten(&mut self) -> Result<()> {
        self.replace(self.name(), b"")
    }

    /// Puts `text` in the place of a part, and takes slashes off the end.
    fn replace(&mut self, part: Range<usize>, text: &[u8]) -> Result<()> {
        let (behind, len) = (part.start + text.len(), self.len - part.len() + text.len());
        if len >= self.bytes.len() {
            return Err(Errno::ENAMETOOLONG);
        }
        self.bytes.copy_within(part.end..self.len, behind);
        self.bytes[part.start..behind].copy_from_slice(text);
        self.len = self.bytes[..len].iter().rposition(|&b| b != b'/').map_or(0, |last| last + 1);
        self.bytes[self.len..].fill(0);
        Ok(())
    }

    /// Lends a part: what stands behind it is a null byte meanwhile.
    fn lend<T>(&mut self, part: Range<usize>, act: impl FnOnce(&CStr) -> T) -> T {
        let behind = std::mem::replace(&mut self.bytes[part.end], 0);
        let result = act(CStr::from_bytes_until_nul(&self.bytes[part.start..]).unwrap_or_default());
        self.bytes[part.end] = behind;
        result
    }

    /// Says where the final name is.
    fn name(&self) -> Range<usize> {
        let start = self.bytes[..self.len].iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
        start..self.len
    }

    /// Opens the last parent inside `root`, and makes what is missing on the way there.
    fn open_parent(&mut self, root: BorrowedFd<'_>) -> Result<OwnedFd> {
        // Mostly it is there.
        let open = |parents: &CStr| open_in_root(root, if parents.is_empty() { c"/" } else { parents }, DIRECTORY);
        match self.lend(0..self.name().start, open) {
            Err(Errno::ENOENT) => {}
            other => return other,
        }
        let mut tries = (0..MAX_SYMLINKS).map(|_| self.make_parents(root));
        tries.find_map(Result::transpose).unwrap_or(Err(Errno::ELOOP))
    }

    /// Makes the parents that are missing, and opens the last; nothing where the path was changed to lead by way of a
    /// symlink's target.
    fn make_parents(&mut self, root: BorrowedFd<'_>) -> Result<Option<OwnedFd>> {
        let mut parent = open_in_root(root, c"/", DIRECTORY)?;
        let (mut start, parents) = (0, self.name().start);
        while let Some(len) = self.bytes[start..parents].iter().position(|&b| b == b'/') {
            let name = start..start + len;
            start = name.end + 1;
            if name.is_empty() {
                continue;
            }
            parent = match self.lend(0..name.end, |path| open_in_root(root, path, DIRECTORY)) {
                Err(Errno::ENOENT) => {
                    self.lend(name.clone(), |name| create(parent.as_fd(), name, Missing::Directory))?;
                    match self.open_made(root, name, DIRECTORY)? {
                        Some(made) => made,
                        None => return Ok(None),
                    }
                }
                other => other?,
            };
        }
        Ok(Some(parent))
    }

    /// Opens the part of the path that ends with `name`, which was made just now or is a symlink to what is missing:
    /// then the path is changed to lead by way of its target.
    fn open_made(&mut self, root: BorrowedFd<'_>, name: Range<usize>, flags: OFlag) -> Result<Option<OwnedFd>> {
        match self.lend(0..name.end, |path| open_in_root(root, path, flags)) {
            Err(Errno::ENOENT) => self.follow(root, name).map(|()| None),
            other => other.map(Some),
        }
    }

    #[inline(never)]
    fn follow(&mut self, root: BorrowedFd<'_>, name: Range<usize>) -> Result<()> {
        let itself = OFlag::O_PATH | OFlag::O_NOFOLLOW;
        let link = self.lend(0..name.end, |path| openat2(root, path, itself, Mode::empty(), IN_ROOT))?;
        let target = read_link(link.as_fd(), c"")?;
        let target = target.as_cstr().to_bytes();
        let start = if target.starts_with(b"/") { 0 } else { name.start };
        self.replace(start..name.end, target)
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
