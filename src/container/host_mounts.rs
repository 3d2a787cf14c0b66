//! The mounts of a container that has no mount namespace: they are the host's, from which nothing takes them when its
//! processes end. Like runc we leave them there after `delete`, but not after a create that fails.

use super::state::detach;
use crate::error::{Context, Result};
use crate::sys::mountinfo;
use std::path::{Path, PathBuf};

/// How many mounts lie on each other in the place of a root file system.
#[derive(Clone, Debug)]
pub struct Before {
    place: PathBuf,
    count: usize,
}

impl Before {
    /// Looks before anything is mounted.
    pub fn look(rootfs: &Path) -> Result<Self> {
        let place = std::fs::canonicalize(rootfs).context(|| format!("invalid rootfs: stat {}", rootfs.display()))?;
        Ok(Self { count: count(&place)?, place })
    }

    /// Detaches what init has mounted there since, and all in it.
    pub fn take_back(&self) -> Result<()> {
        if count(&self.place)? > self.count { detach(&self.place) } else { Ok(()) }
    }
}

fn count(place: &Path) -> Result<usize> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").context(|| "read /proc/self/mountinfo")?;
    Ok(mountinfo::parse(&table).filter(|mount| Path::new(&mount.place) == place).count())
}
