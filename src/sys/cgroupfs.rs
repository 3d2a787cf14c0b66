//! What a mounted filesystem is, as far as cgroups are concerned. Everything else about them is
//! plain file access.

use std::ffi::CStr;

use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};

use super::Result;

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
