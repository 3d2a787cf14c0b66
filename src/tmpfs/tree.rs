//! Walking a tree: every file of one file system once, its directory before it.

use crate::error::{Context, Result};
use crate::sys::{Errno, path, xattr};
use nix::fcntl::{AtFlags, OFlag};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, fstatat};
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A file that was found.
#[derive(Debug)]
pub struct Found {
    /// It, with `O_PATH`; nothing where another file system is mounted on it.
    pub file: Option<OwnedFd>,
    /// What it is.
    pub status: FileStat,
}

impl Found {
    /// Returns the type of file: `S_IFREG` and the others.
    pub fn kind(&self) -> u32 {
        self.status.st_mode & libc::S_IFMT
    }
}

/// Says whether a name is one that CRIU gives to a file without a name for the time of a dump (`--link-remap`).
pub fn is_remap(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"link_remap."))
}

/// Returns the names that CRIU has given to files without a name.
pub fn remaps(root: BorrowedFd<'_>) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    walk(root, &mut |path, _| {
        if is_remap(path) {
            all.push(path.to_owned());
        }
        Ok(())
    })?;
    Ok(all)
}

/// Calls `visit` with every file below `root`, and with `root` itself as `.` before them.
///
/// Names of CRIU's come last, so that of several names of one file the first is not one of those, which go away again.
/// What goes away while this goes on is not visited.
pub fn walk(root: BorrowedFd<'_>, visit: &mut dyn FnMut(&Path, &Found) -> Result<()>) -> Result<()> {
    let mut ahead = vec![PathBuf::from(".")];
    let mut last = Vec::new();
    visit_one(root, Path::new("."), visit)?;
    while let Some(directory) = ahead.pop() {
        for name in names(root, &directory)? {
            let path = if directory == Path::new(".") { PathBuf::from(name) } else { directory.join(name) };
            if is_remap(&path) {
                last.push(path);
            } else if visit_one(root, &path, visit)? {
                ahead.push(path);
            }
        }
    }
    last.iter().try_for_each(|path| visit_one(root, path, visit).map(drop))
}

/// Visits one file; says whether it is a directory with something in it to be visited.
fn visit_one(root: BorrowedFd<'_>, path: &Path, visit: &mut dyn FnMut(&Path, &Found) -> Result<()>) -> Result<bool> {
    let found = match look(root, path).context(|| format!("open {}", path.display()))? {
        Some(found) => found,
        None => return Ok(false),
    };
    visit(path, &found)?;
    Ok(found.file.is_some() && found.kind() == libc::S_IFDIR)
}

/// Looks at what has this path, if anything has.
pub fn look(root: BorrowedFd<'_>, path: &Path) -> crate::sys::Result<Option<Found>> {
    let name = text(path)?;
    match path::open_within(root, &name, OFlag::O_PATH | OFlag::O_NOFOLLOW, Mode::empty()) {
        Ok(file) => {
            let status = path::fstat(file.as_fd())?;
            Ok(Some(Found { file: Some(file), status }))
        }
        Err(Errno::ENOENT) => Ok(None),
        // Of what is below a mount nothing can be seen but that it can be mounted on.
        Err(Errno::EXDEV) => match fstatat(root, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(status) => Ok(Some(Found { file: None, status })),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno),
        },
        Err(errno) => Err(errno),
    }
}

/// Returns what is in a directory, sorted.
pub fn names(root: BorrowedFd<'_>, directory: &Path) -> Result<Vec<OsString>> {
    let attempt = || format!("read directory {}", directory.display());
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let opened = match path::open_within(root, &text(directory).context(attempt)?, flags, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(Vec::new()),
        other => other.context(attempt)?,
    };
    let entries = std::fs::read_dir(OsStr::from_bytes(xattr::proc_path(opened.as_fd()).to_bytes())).context(attempt)?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.context(attempt)?.file_name());
    }
    names.sort_unstable();
    Ok(names)
}

/// Turns a path into what system calls take.
pub fn text(path: &Path) -> crate::sys::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
}
