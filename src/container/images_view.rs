//! Images in a directory that cannot be opened to the root of a user namespace, since nothing of it can be changed: a
//! view of it that can be looked up by whoever has it.

use super::state::StateDir;
use crate::criu::images::{Admission, Directories};
use crate::error::{Context, ErrorKind, Result};
use crate::plan::process::cstring;
use crate::sys::{self, Errno, mount};
use nix::libc;
use std::ffi::CStr;
use std::fs::{Permissions, create_dir, set_permissions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// An overlay without an upper layer, attached nowhere, which goes away with this value.
#[derive(Debug)]
pub struct ImagesView {
    /// Its directory.
    pub opened: OwnedFd,
    top: PathBuf,
}

/// Lets the group of a user namespace's root look up images while they are restored, in place or in a view of them.
pub fn open_to(
    group: Option<u32>,
    directories: &Directories,
    images: &Path,
    dir: &StateDir,
) -> Result<(Option<Admission>, Option<ImagesView>)> {
    let Some(gid) = group else { return Ok((None, None)) };
    match directories.admit(gid) {
        Err(err) if err.kind() == ErrorKind::System(Errno::EROFS) => Ok((None, Some(ImagesView::make(images, dir)?))),
        admitted => Ok((admitted?, None)),
    }
}

impl ImagesView {
    /// Makes a view of `images`. What lies beside the directory, as images of an earlier pre-dump do, is not in it.
    ///
    /// The mode of an overlay's directory is that of the topmost layer's, and what it shows is looked up with the rights
    /// of whoever has made it.
    pub fn make(images: &Path, dir: &StateDir) -> Result<Self> {
        const SEARCHED_BY_ALL: u32 = 0o711;
        let top = dir.criu_images();
        let made = create_dir(&top).and_then(|()| set_permissions(&top, Permissions::from_mode(SEARCHED_BY_ALL)));
        made.context(|| format!("create {}", top.display()))?;
        let images = std::fs::canonicalize(images).context(|| format!("resolve {}", images.display()))?;
        let layers = format!("{}:{}", escaped(&top), escaped(&images));
        let made = cstring(layers.as_ref(), "path").and_then(|layers| {
            overlay(&layers).context(|| format!("let a user namespace search {}, which is read-only", images.display()))
        });
        Ok(Self { opened: made.inspect_err(|_| remove(&top))?, top })
    }
}

impl Drop for ImagesView {
    fn drop(&mut self) {
        remove(&self.top);
    }
}

fn overlay(layers: &CStr) -> sys::Result<OwnedFd> {
    let fs = mount::fsopen(c"overlay")?;
    mount::fsconfig_string(fs.as_fd(), c"lowerdir", layers)?;
    mount::fsconfig_create(fs.as_fd())?;
    mount::fsmount(fs.as_fd(), libc::MOUNT_ATTR_RDONLY)
}

/// Returns a path without what separates layers.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "\\\\").replace(':', "\\:")
}

fn remove(top: &Path) {
    if let Err(err) = std::fs::remove_dir(top) {
        log::warn!("remove {}: {err}", top.display());
    }
}
