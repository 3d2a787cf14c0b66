//! The root file system as CRIU wants it: a mount of its own, below the container's directory.

use super::state::StateDir;
use crate::error::{Context, Result};
use crate::plan::process::cstring;
use crate::sys::mount::{self, Attributes};
use crate::sys::path;
use nix::fcntl::OFlag;
use nix::libc;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// A mount of a container's root file system, which goes away with this value.
#[derive(Debug)]
pub struct RestoreRoot {
    path: PathBuf,
}

impl RestoreRoot {
    /// Mounts a root file system, with everything that is mounted below it.
    ///
    /// CRIU demands that its root is a mount point and that nothing is mounted over its parent. A mount namespace for
    /// CRIU alone would do as well, if CRIU did not mount below its working directory, which it takes from us. The copy
    /// is private from the start: when it is detached again, the mounts below the original must not be.
    pub fn mount(rootfs: &Path, dir: &StateDir) -> Result<Self> {
        let path = dir.criu_root();
        let attempt = || format!("mount {} on {}", rootfs.display(), path.display());
        std::fs::create_dir(&path).context(|| format!("create {}", path.display()))?;
        // From here on dropping it removes the directory.
        let made = Self { path: path.clone() };
        let open = |path: &Path| {
            let name = cstring(path.as_os_str(), "path")?;
            path::open(&name, OFlag::O_PATH | OFlag::O_DIRECTORY).context(attempt)
        };
        let (source, target) = (open(rootfs)?, open(&path)?);
        let copy = mount::clone_tree(source.as_fd(), true).context(attempt)?;
        let private = Attributes { propagation: libc::MS_PRIVATE, ..Attributes::default() };
        mount::set_attributes(copy.as_fd(), private, true).context(attempt)?;
        mount::attach(copy.as_fd(), target.as_fd()).context(attempt)?;
        Ok(made)
    }

    /// Returns where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RestoreRoot {
    fn drop(&mut self) {
        // When it cannot be detached the directory is not empty, and stays.
        if let Err(err) = super::state::detach(&self.path)
            .and_then(|()| std::fs::remove_dir(&self.path).context(|| format!("remove {}", self.path.display())))
        {
            log::warn!("{err}");
        }
    }
}
