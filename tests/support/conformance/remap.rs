//! `remap-rootfs`: gives a bundle's files to those who their owners are outside of its user namespace.

use anyhow::{Context, Result};
use oci_spec::runtime::Spec;
use stasis::plan::idmap::{self, IdMaps};
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;

/// Remaps the root filesystem which the bundle's config.json names, if it has id maps.
pub fn remap_bundle(bundle: &Path) -> Result<()> {
    let spec = Spec::load(bundle.join("config.json"))?;
    let linux = spec.linux().as_ref().context("config.json has no linux")?;
    let root = spec.root().as_ref().context("config.json has no root")?.path();
    let Some(maps) = idmap::plan(linux)? else { return Ok(()) };
    remap(&bundle.join(root), &maps, &mut HashSet::new())
}

/// Remaps a file and all below it; one with several names once, and none whose owner is not mapped.
fn remap(path: &Path, maps: &IdMaps, done: &mut HashSet<(u64, u64)>) -> Result<()> {
    let found = path.symlink_metadata()?;
    if found.is_symlink() || !done.insert((found.dev(), found.ino())) {
        return Ok(());
    }
    if let (Some(user), Some(group)) = (maps.users.outside(found.uid()), maps.groups.outside(found.gid())) {
        lchown(path, Some(user), Some(group))?;
        // A change of the owner has cleared the set-id bits.
        fs::set_permissions(path, found.permissions())?;
    }
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            remap(&entry?.path(), maps, done)?;
        }
    }
    Ok(())
}
