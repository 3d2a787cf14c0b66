//! Something mounted below a container's directory, for CRIU to find it there while it restores.

use super::state::detach;
use crate::error::{Context, Result};
use crate::plan::process::cstring;
use crate::sys::{mount, path};
use nix::fcntl::OFlag;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// A mount that goes away with this value, and the directory or file that is made for it.
#[derive(Debug)]
pub struct Attached(PathBuf);

impl Attached {
    /// Mounts what `what` says at a path where there is nothing.
    pub fn at(path: PathBuf, mounted: BorrowedFd<'_>, what: &str) -> Result<Self> {
        let made = match path::is_directory(mounted).context(|| format!("stat {what}"))? {
            true => std::fs::create_dir(&path),
            false => std::fs::File::create_new(&path).map(drop),
        };
        made.context(|| format!("create {}", path.display()))?;
        // From here on dropping it removes the place.
        let made = Self(path);
        let attempt = || format!("mount {what} on {}", made.0.display());
        let target = path::open(&cstring(made.0.as_os_str(), "path")?, OFlag::O_PATH).context(attempt)?;
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
        let remove = || match self.0.is_dir() {
            true => std::fs::remove_dir(&self.0),
            false => std::fs::remove_file(&self.0),
        };
        // When it cannot be detached the directory is not empty, or the file busy, and stays.
        let removed = detach(&self.0).and_then(|()| remove().context(|| format!("remove {}", self.0.display())));
        removed.unwrap_or_else(|err| log::warn!("{err}"));
    }
}
