//! Bind mounts whose sources are symlinks, which are made again in their place (crun's option `copy-symlink`).

use crate::plan::mounts::{MountAction, MountStep};
use crate::plan::process::cstring;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Makes a symlink of each step that asks for it and has one as its source. Another source is bound; what is wrong with
/// one is told where it is opened for that.
pub fn copy(steps: &mut [MountStep]) {
    for step in steps {
        let MountAction::Bind { source, copies_symlink: true, .. } = &step.action else { continue };
        let Ok(to) = std::fs::read_link(OsStr::from_bytes(source.to_bytes())) else { continue };
        if let Ok(to) = cstring(to.as_os_str(), "symlink") {
            (step.action, step.ids) = (MountAction::Symlink { to }, None);
        }
    }
}
