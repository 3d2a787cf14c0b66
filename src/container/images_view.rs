//! Images for the root of a user namespace, who looks them up but has no right to search their directory, nor those on
//! the way to an earlier pre-dump: a view that can be looked up by whoever has it.

use super::attached::Attached;
use super::external::open_directory;
use super::state::StateDir;
use super::work_images::WorkImages;
use crate::criu::inspect::{Directory, PARENT, parent_of};
use crate::criu::options::Options;
use crate::error::{Context, Error, Result};
use crate::plan::process::cstring;
use crate::sys::{mount, path};
use nix::fcntl::OFlag;
use nix::libc;
use std::fs::{DirBuilder, Permissions, set_permissions};
use std::iter;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// An overlay without an upper layer for each stage of a dump, read-only, which go away with this value.
#[derive(Debug)]
pub struct ImagesView {
    /// The last stage's directory.
    pub opened: OwnedFd,
    /// Where that is, if there are earlier stages: they are mounted below it.
    _place: Option<Attached>,
    /// The topmost layer, if it is not somebody else's.
    _top: Option<WorkImages>,
}

impl ImagesView {
    /// Makes a view of images and of what has `changed` in them, unless everybody may look them up where they are.
    pub fn unless_needless(asked: &Options, changed: Option<&WorkImages>, dir: &StateDir) -> Result<Option<Self>> {
        const OTHERS_SEARCH: u32 = 0o001;
        let images = &asked.image_path;
        let parents = parents(images)?;
        let mode = std::fs::metadata(images).context(|| format!("stat {}", images.display()))?.mode();
        if changed.is_none() && parents.is_empty() && mode & OTHERS_SEARCH != 0 {
            return Ok(None);
        }
        if asked.auto_dedup {
            let text = "--auto-dedup cannot remove memory from images of which a user namespace sees a read-only view";
            return Err(Error::invalid(format!("{text}: {}", images.display())));
        }
        let own = if changed.is_none() { Some(WorkImages::make(images, dir, false)?) } else { None };
        let tops = tops(dir.criu_changed_images(), parents.len())?;
        let stages: Vec<&Path> = iter::once(images.as_path()).chain(parents.iter().map(PathBuf::as_path)).collect();
        let views = tops.iter().zip(stages).map(|(top, stage)| layered(top, stage)).collect::<Result<Vec<_>>>()?;
        let place = match views.as_slice() {
            [first, _, ..] => Some(Attached::at(dir.criu_view(), first.as_fd(), "a view of images")?),
            _ => None,
        };
        for (above, view) in views.iter().zip(views.iter().skip(1)) {
            let place = path::open_at(above.as_fd(), PARENT, OFlag::O_PATH | OFlag::O_NOFOLLOW);
            let attached = place.and_then(|place| mount::attach(view.as_fd(), place.as_fd()));
            attached.context(|| format!("show the earlier stages of {} to a user namespace", images.display()))?;
        }
        let opened = views.into_iter().next().ok_or_else(|| Error::other("there are no images to be shown"))?;
        Ok(Some(Self { opened, _place: place, _top: own }))
    }
}

/// Returns the directories of earlier stages, the latest first.
fn parents(images: &Path) -> Result<Vec<PathBuf>> {
    let mut directory = Directory::open(images)?;
    let parents = directory.parents();
    let (missing, damaged) = directory.flaws();
    let flaw = missing.into_iter().map(|name| format!("{name} is missing")).chain(damaged).next();
    flaw.map_or(Ok(parents), |flaw| Err(Error::other(format!("images in {}: {flaw}", images.display()))))
}

/// Makes the topmost layers of a directory of images and of its parents: each lies in the one of the later stage, where
/// it hides the link to the earlier one.
fn tops(first: PathBuf, parents: usize) -> Result<Vec<PathBuf>> {
    let tops: Vec<PathBuf> = iter::successors(Some(first), |top| Some(parent_of(top))).take(parents + 1).collect();
    for top in &tops {
        let attempt = || format!("create {}", top.display());
        // The first one is there.
        DirBuilder::new().recursive(true).create(top).context(attempt)?;
        set_permissions(top, Permissions::from_mode(0o755)).context(attempt)?;
    }
    Ok(tops)
}

/// Shows `images` below what is in the directory `top`.
///
/// The mode of an overlay's directory is that of the topmost layer's, and what it shows is looked up with the rights of
/// whoever has made it. Layers are named by descriptor, since fsconfig(2) takes no more than 255 bytes.
fn layered(top: &Path, images: &Path) -> Result<OwnedFd> {
    let attempt = || format!("show {} to a user namespace, by an overlay file system", images.display());
    let layers = [open_directory(top)?, open_directory(images)?];
    let layers = layers.each_ref().map(|layer| format!("/proc/self/fd/{}", layer.as_raw_fd()));
    let layers = cstring(layers.join(":").as_ref(), "path")?;
    let parameters = iter::once((c"lowerdir", Some(layers.as_c_str())));
    mount::new_filesystem(c"overlay", parameters, libc::MOUNT_ATTR_RDONLY).context(attempt)
}
