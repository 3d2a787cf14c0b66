//! The directory that CRIU finds programs in before it looks elsewhere: our own program, under the name of tar.

use super::state::StateDir;
use crate::criu::{Program, tar};
use crate::error::{Context, Result};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

/// The directory, which goes away with this value.
#[derive(Debug)]
pub struct Tools {
    path: PathBuf,
}

impl Tools {
    /// Makes the directory below a container's own, for as long as this process lives.
    ///
    /// What it holds leads to our program by way of our process: from where we run now there may be no path to it
    /// (crate::seal), and a copy could not be executed where nothing may be, as in most hosts' /run.
    pub fn make(dir: &StateDir) -> Result<Self> {
        let path = dir.criu_tools();
        // One may have been left by a runtime that was killed.
        remove(&path)?;
        std::fs::create_dir(&path).context(|| format!("create {}", path.display()))?;
        // From here on dropping it removes the directory.
        let made = Self { path };
        // The number that whoever looks it up in /proc knows us by.
        let own = std::fs::read_link("/proc/self").context(|| "read /proc/self")?;
        let link = made.path.join(tar::NAME);
        let target = PathBuf::from("/proc").join(own).join("exe");
        symlink(target, &link).context(|| format!("create {}", link.display()))?;
        Ok(made)
    }

    /// Returns CRIU as it is to be started, with the directory first in its PATH.
    pub fn program(&self) -> Result<Program> {
        Ok(Program::find()?.preferring(&self.path))
    }
}

impl Drop for Tools {
    fn drop(&mut self) {
        if let Err(err) = remove(&self.path) {
            log::warn!("{err}");
        }
    }
}

fn remove(path: &std::path::Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(err) if err.kind() == ErrorKind::NotFound => Ok(()),
        other => other.context(|| format!("remove {}", path.display())),
    }
}
