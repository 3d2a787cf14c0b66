//! A directory of images that CRIU is given in place of the original: links to its files, some of which are then
//! replaced. The original stays as it is, so that it can be restored again, by several at once and by other runtimes.

use super::state::StateDir;
use crate::error::{Context, Result};
use std::fs::{DirBuilder, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

/// A directory of links, below the container's own, which goes away with this value.
#[derive(Debug)]
pub struct WorkImages {
    path: PathBuf,
    opened: File,
    /// What is made for them.
    all: PathBuf,
}

impl WorkImages {
    /// Makes the directory, with a link to everything in `images`; without, if it is only to be a layer above them.
    ///
    /// The links are relative: processes look images up when they have the container's root already, from which an
    /// absolute path leads somewhere else. The way up from this directory is the host's whatever their root is.
    pub fn make(images: &Path, dir: &StateDir, linked: bool) -> Result<Self> {
        let (all, path) = (dir.criu_images(), dir.criu_changed_images());
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.context(|| format!("create {}", path.display())).inspect_err(|_| remove(&all))?;
        let opened = File::open(&path).context(|| format!("open {}", path.display()));
        let made = Self { opened: opened.inspect_err(|_| remove(&all))?, path, all };
        if !linked {
            return Ok(made);
        }
        let real = |path: &Path| std::fs::canonicalize(path).context(|| format!("resolve {}", path.display()));
        let target = up_and_down(&real(&made.path)?, &real(images)?);
        let attempt = || format!("read {}", images.display());
        for entry in std::fs::read_dir(images).context(attempt)? {
            let name = entry.context(attempt)?.file_name();
            let link = made.path.join(&name);
            symlink(target.join(&name), &link).context(|| format!("create {}", link.display()))?;
        }
        Ok(made)
    }

    /// Returns the open directory.
    pub fn opened(&self) -> BorrowedFd<'_> {
        self.opened.as_fd()
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkImages {
    fn drop(&mut self) {
        remove(&self.all);
    }
}

fn remove(path: &Path) {
    if let Err(err) = std::fs::remove_dir_all(path) {
        log::warn!("remove {}: {err}", path.display());
    }
}

/// Returns the way from one absolute path to another, by way of the root.
fn up_and_down(from: &Path, to: &Path) -> PathBuf {
    let up: PathBuf = from.components().skip(1).map(|_| "..").collect();
    up.join(to.strip_prefix("/").unwrap_or(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_the_originals_from_any_root() {
        assert_eq!(up_and_down("/run/a/b".as_ref(), "/var/c".as_ref()), Path::new("../../../var/c"));
        let place = tempfile::tempdir().unwrap();
        let images = place.path().join("images");
        std::fs::create_dir(&images).unwrap();
        std::fs::write(images.join("x.img"), "x").unwrap();
        symlink("images", place.path().join("parent")).unwrap();
        symlink("../parent", images.join("parent")).unwrap();
        let dir = StateDir::make(place.path(), "c1").unwrap();
        let work = WorkImages::make(&images, &dir, true).unwrap();
        let path = work.path().to_owned();
        assert!(std::fs::read_link(path.join("x.img")).unwrap().is_relative());
        for name in ["x.img", "parent/x.img"] {
            assert_eq!(std::fs::read_to_string(path.join(name)).unwrap(), "x", "{name}");
        }
        drop(work);
        assert!(!path.exists());
        assert_eq!(std::fs::read_dir(&images).unwrap().count(), 2);
    }
}
