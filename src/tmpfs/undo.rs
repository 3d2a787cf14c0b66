//! Taking back what was put into a tree.

use super::tree::text;
use crate::sys::{self, Errno, path, xattr};
use nix::fcntl::{AT_FDCWD, OFlag, renameat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, fchmodat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat};
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Names of what was moved out of the way begin so.
const ASIDE: &str = ".stasis-aside-";

/// What was done to a tree.
#[derive(Debug)]
pub struct Undo {
    root: OwnedFd,
    before: FileStat,
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Made { path: PathBuf, directory: bool },
    Moved { path: PathBuf, aside: PathBuf },
}

impl Undo {
    pub(super) fn new(root: OwnedFd) -> sys::Result<Self> {
        let before = path::fstat(root.as_fd())?;
        Ok(Self { root, before, steps: Vec::new() })
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    pub(super) fn made(&mut self, path: &Path, directory: bool) {
        self.steps.push(Step::Made { path: path.to_owned(), directory });
    }

    /// Moves what is in the way to a name of its own.
    pub(super) fn move_aside(&mut self, path: &Path) -> sys::Result<()> {
        let aside = PathBuf::from(format!("{ASIDE}{}", self.steps.len()));
        self.rename(path, &aside)?;
        self.steps.push(Step::Moved { path: path.to_owned(), aside });
        Ok(())
    }

    /// Makes the tree what it was.
    pub fn take_back(&mut self) {
        while let Some(step) = self.steps.pop() {
            let undone = match &step {
                Step::Made { path, directory: false } => remove(self.root(), path),
                Step::Made { path, directory: true } => unlink(self.root(), path, UnlinkatFlags::RemoveDir),
                Step::Moved { path, aside } => self.rename(aside, path),
            };
            // The failure that led here is what is reported; this one would only hide it.
            undone.unwrap_or_else(|errno| log::debug!("undo {step:?}: {errno}"));
        }
        let (uid, gid) = (Uid::from_raw(self.before.st_uid), Gid::from_raw(self.before.st_gid));
        let (mode, root) = (Mode::from_bits_truncate(self.before.st_mode), xattr::proc_path(self.root()));
        let owner = fchown(&self.root, Some(uid), Some(gid));
        let undone = owner.and_then(|()| fchmodat(AT_FDCWD, root.as_c_str(), mode, FchmodatFlags::FollowSymlink));
        undone.unwrap_or_else(|errno| log::debug!("undo the attributes of the tmpfs: {errno}"));
    }

    /// Keeps what was done, and removes what it has replaced.
    pub fn keep(self) {
        let place = PathBuf::from(OsStr::from_bytes(xattr::proc_path(self.root()).to_bytes()));
        for step in &self.steps {
            let Step::Moved { aside, .. } = step else { continue };
            let old = place.join(aside);
            let removed = match old.symlink_metadata() {
                Ok(found) if found.is_dir() => std::fs::remove_dir_all(&old),
                Ok(_) => std::fs::remove_file(&old),
                Err(err) => Err(err),
            };
            removed.unwrap_or_else(|err| log::warn!("remove {}: {err}", aside.display()));
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> sys::Result<()> {
        let ((from_parent, from), (to_parent, to)) = (parent(self.root(), from)?, parent(self.root(), to)?);
        renameat(&from_parent, from.as_c_str(), &to_parent, to.as_c_str())
    }
}

/// Removes a file that is no directory.
pub fn remove(root: BorrowedFd<'_>, path: &Path) -> sys::Result<()> {
    unlink(root, path, UnlinkatFlags::NoRemoveDir)
}

fn unlink(root: BorrowedFd<'_>, path: &Path, flags: UnlinkatFlags) -> sys::Result<()> {
    let (parent, name) = parent(root, path)?;
    unlinkat(&parent, name.as_c_str(), flags)
}

/// Opens the directory that a path is in, and returns the name that it has there.
pub(super) fn parent(root: BorrowedFd<'_>, path: &Path) -> sys::Result<(OwnedFd, CString)> {
    let name = path.file_name().ok_or(Errno::EINVAL)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let opened = path::open_within(root, &text(directory)?, flags, Mode::empty())?;
    Ok((opened, text(Path::new(name))?))
}
