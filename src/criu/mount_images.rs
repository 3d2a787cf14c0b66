//! The mounts of an image, as far as a restore has to be given them.

use super::image::{Message, Reader};
use super::namespace_images;
use crate::error::Result;
use std::path::Path;

/// A mount that a dump has left out, for the restore to be given another one.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Named {
    /// Where it is in the container.
    pub destination: String,
    /// The name that the dump gave it.
    pub key: String,
    /// What of its file system was mounted.
    pub root: String,
}

/// Returns the mounts that a restore from these images is to be given.
pub fn named(images: &Path) -> Result<Vec<Named>> {
    let Some(image) = namespace_images::find(images, "mountpoints-")? else { return Ok(Vec::new()) };
    let entries = Reader::open(&images.join(image))?.messages()?;
    let named = |entry: &Message| {
        Some(Named { destination: destination(entry), key: key(entry)?, root: entry.text(6).unwrap_or_default() })
    };
    Ok(entries.iter().filter_map(named).collect())
}

/// Says whether the root of a mount is the null device, which hides a file: the node itself, of whichever file system.
pub fn is_null(root: &str) -> bool {
    root.ends_with("/null")
}

/// Returns the name of what a mount is given at a restore; older images only say that there is one.
pub fn key(entry: &Message) -> Option<String> {
    let unnamed = || entry.flag(13).then(|| entry.text(6).unwrap_or_default());
    entry.text(18).filter(|key| !key.is_empty()).or_else(unnamed)
}

/// Returns a mount point with the root of the container as `/`: CRIU writes it relative to that, with or without a dot.
pub fn destination(entry: &Message) -> String {
    let path = entry.text(7).unwrap_or_default();
    format!("/{}", path.trim_start_matches('.').trim_start_matches('/'))
}
