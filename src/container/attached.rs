//! Something mounted below a container's directory, for CRIU to find it there while it restores.

use super::external::open_directory;
use super::state::detach;
use crate::error::{Context, Result};
use crate::sys::mount;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// A mount that goes away with this value, and the directory that is made for it.
#[derive(Debug)]
pub struct Attached(PathBuf);

impl Attached {
    /// Mounts what `what` says at a path where there is nothing.
    pub fn at(path: PathBuf, mounted: BorrowedFd<'_>, what: &str) -> Result<Self> {
        std::fs::create_dir(&path).context(|| format!("create {}", path.display()))?;
        // From here on dropping it removes the directory.
        let made = Self(path);
        let target = open_directory(&made.0)?;
        let attempt = || format!("mount {what} on {}", made.0.display());
        mount::attach(mounted, target.as_fd()).context(attempt)?;
        Ok(made)
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // When it cannot be detached the directory is not empty, and stays.
        let removed = detach(&self.0)
            .and_then(|()| std::fs::remove_dir(&self.0).context(|| format!("remove {}", self.0.display())));
        removed.unwrap_or_else(|err| log::warn!("{err}"));
    }
}
