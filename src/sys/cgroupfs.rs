//! What a mounted filesystem is, as far as cgroups and resctrl are concerned. Everything else about them is
//! plain file access.

use std::ffi::CStr;

use nix::libc;
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, FsType, statfs};

use super::{Errno, Result};

/// A filesystem.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Filesystem {
    /// A cgroup v1 hierarchy.
    V1,
    /// The unified hierarchy.
    V2,
    /// Not a hierarchy.
    Other,
}

/// Returns what filesystem `path` is on.
pub fn filesystem(path: &CStr) -> Result<Filesystem> {
    Ok(match statfs(path)?.filesystem_type() {
        CGROUP_SUPER_MAGIC => Filesystem::V1,
        CGROUP2_SUPER_MAGIC => Filesystem::V2,
        _ => Filesystem::Other,
    })
}

/// Returns whether resctrl is mounted at `path`; nothing if there is no such place.
pub fn is_resctrl(path: &CStr) -> Result<Option<bool>> {
    match statfs(path) {
        Ok(found) => Ok(Some(found.filesystem_type() == FsType(libc::RDTGROUP_SUPER_MAGIC))),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}
