//! Images that cannot be opened to the root of a user namespace in their own directory, since nothing of it can be changed
//! or since something else is to be seen there: a view that can be looked up by whoever has it.

use super::state::StateDir;
use super::work_images::WorkImages;
use crate::criu::images::{Admission, Directories};
use crate::error::{Context, ErrorKind, Result};
use crate::plan::process::cstring;
use crate::sys::{Errno, mount};
use nix::libc;
use std::fs::{Permissions, create_dir, set_permissions};
use std::iter;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// An overlay without an upper layer, attached nowhere, which goes away with this value.
#[derive(Debug)]
pub struct ImagesView {
    /// Its directory.
    pub opened: OwnedFd,
    /// The topmost layer, if there is nothing in it.
    empty: Option<PathBuf>,
}

/// Lets the group of a user namespace's root look up images while they are restored, in place or in a view of them, and
/// of what has `changed` in them.
pub fn open_to(
    group: Option<u32>,
    directories: &Directories,
    images: &Path,
    (changed, dir): (Option<&WorkImages>, &StateDir),
) -> Result<(Option<Admission>, Option<ImagesView>)> {
    let Some(gid) = group else { return Ok((None, None)) };
    if let Some(changed) = changed {
        return Ok((None, Some(ImagesView { opened: layered(changed.path(), images)?, empty: None })));
    }
    match directories.admit(gid) {
        Err(err) if err.kind() == ErrorKind::System(Errno::EROFS) => Ok((None, Some(ImagesView::make(images, dir)?))),
        admitted => Ok((admitted?, None)),
    }
}

impl ImagesView {
    /// Makes a view of `images` alone.
    pub fn make(images: &Path, dir: &StateDir) -> Result<Self> {
        let top = dir.criu_images();
        create_dir(&top).context(|| format!("create {}", top.display()))?;
        Ok(Self { opened: layered(&top, images).inspect_err(|_| remove(&top))?, empty: Some(top) })
    }
}

impl Drop for ImagesView {
    fn drop(&mut self) {
        self.empty.iter().for_each(|top| remove(top));
    }
}

/// Shows `images` below what is in `top`. What lies beside the directory, as images of an earlier pre-dump do, is not to
/// be seen.
///
/// The mode of an overlay's directory is that of the topmost layer's, and what it shows is looked up with the rights of
/// whoever has made it.
fn layered(top: &Path, images: &Path) -> Result<OwnedFd> {
    const SEARCHED_BY_ALL: u32 = 0o711;
    let attempt = || format!("let a user namespace search {}", images.display());
    set_permissions(top, Permissions::from_mode(SEARCHED_BY_ALL)).context(attempt)?;
    let images = std::fs::canonicalize(images).context(attempt)?;
    let layers = format!("{}:{}", escaped(top), escaped(&images));
    let layers = cstring(layers.as_ref(), "path")?;
    let parameters = iter::once((c"lowerdir", Some(layers.as_c_str())));
    mount::new_filesystem(c"overlay", parameters, libc::MOUNT_ATTR_RDONLY).context(attempt)
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
