//! The root file system as CRIU wants it: a mount of its own, below the container's directory.

use super::attached::Attached;
use super::external::open_directory;
use super::state::StateDir;
use crate::error::{Context, Result};
use crate::sys::mount::{self, Attributes};
use nix::libc;
use std::os::fd::AsFd;
use std::path::Path;

/// Mounts a root file system, with everything that is mounted below it.
///
/// CRIU demands that its root is a mount point and that nothing is mounted over its parent. A mount namespace for CRIU
/// alone would do as well, if CRIU did not mount below its working directory, which it takes from us. The copy is private
/// from the start: when it is detached again, the mounts below the original must not be.
pub fn mount(rootfs: &Path, dir: &StateDir) -> Result<Attached> {
    let attempt = || format!("copy the mount of {}", rootfs.display());
    let copy = mount::clone_tree(open_directory(rootfs)?.as_fd(), true).context(attempt)?;
    let private = Attributes { propagation: libc::MS_PRIVATE, ..Attributes::default() };
    mount::set_attributes(copy.as_fd(), private, true).context(attempt)?;
    Attached::at(dir.criu_root(), copy.as_fd(), &rootfs.display().to_string())
}
