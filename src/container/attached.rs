<<<<<<< HEAD
//! Mounts below a container's directory, where CRIU finds by a path what it is to bind into the container.

use super::state::{StateDir, detach};
use crate::error::{Context, Result};
use crate::plan::process::cstring;
use crate::sys::{mount, path};
use nix::fcntl::OFlag;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// A mount that goes away with this value.
=======
//! Something mounted below a container's directory, for CRIU to find it there while it restores.

use super::external::open_directory;
use super::state::detach;
use crate::error::{Context, Result};
use crate::sys::mount;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// A mount that goes away with this value, and the directory that is made for it.
>>>>>>> clones
#[derive(Debug)]
pub struct Attached(PathBuf);

impl Attached {
<<<<<<< HEAD
    /// Attaches a mount, of a directory or of a file, to a place of that name.
    pub fn new(mounted: BorrowedFd<'_>, dir: &StateDir, name: &str) -> Result<Self> {
        let place = dir.mounts().join(name);
        let attempt = || format!("mount {name} on {}", place.display());
        std::fs::create_dir_all(dir.mounts()).context(|| format!("create {}", dir.mounts().display()))?;
        let made = match path::is_directory(mounted).context(attempt)? {
            true => std::fs::create_dir(&place),
            false => std::fs::File::create_new(&place).map(drop),
        };
        made.context(|| format!("create {}", place.display()))?;
        // From here on dropping it removes the place.
        let this = Self(place.clone());
        let target = path::open(&cstring(place.as_os_str(), "path")?, OFlag::O_PATH).context(attempt)?;
        mount::attach(mounted, target.as_fd()).context(attempt)?;
        Ok(this)
=======
    /// Mounts what `what` says at a path where there is nothing.
    pub fn at(path: PathBuf, mounted: BorrowedFd<'_>, what: &str) -> Result<Self> {
        std::fs::create_dir(&path).context(|| format!("create {}", path.display()))?;
        // From here on dropping it removes the directory.
        let made = Self(path);
        let target = open_directory(&made.0)?;
        let attempt = || format!("mount {what} on {}", made.0.display());
        mount::attach(mounted, target.as_fd()).context(attempt)?;
        Ok(made)
>>>>>>> clones
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
<<<<<<< HEAD
        let remove = || match self.0.is_dir() {
            true => std::fs::remove_dir(&self.0),
            false => std::fs::remove_file(&self.0),
        };
        // What cannot be detached is not removed: the one is not empty, the other busy.
        let removed = detach(&self.0).and_then(|()| remove().context(|| format!("remove {}", self.0.display())));
=======
        // When it cannot be detached the directory is not empty, and stays.
        let removed = detach(&self.0)
            .and_then(|()| std::fs::remove_dir(&self.0).context(|| format!("remove {}", self.0.display())));
>>>>>>> clones
        removed.unwrap_or_else(|err| log::warn!("{err}"));
    }
}
