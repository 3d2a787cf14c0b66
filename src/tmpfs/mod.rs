//! The content of a tmpfs as an archive: written while its writers are stopped, put back before they go on.
//!
//! CRIU does not dump what is mounted from outside, so the content of a /dev/shm that a container engine has mounted is
//! ours to keep. The archive is a tar file: owners, modes, times, holes, extended attributes, hard links, symlinks,
//! fifos and device nodes; sockets are made again by whoever restores the processes. Which file systems are meant,
//! and when, is the caller's business; here is only how a tree is read and how it is written.
//!
//! A tree may be another's at the same time, and hostile: nothing here follows a symlink or leaves the file system, and
//! an archive that is refused or does not fit leaves the tree as it was.

mod capture;
mod replay;
mod tree;
mod undo;

pub use capture::{Captured, capture};
pub use replay::replay;
pub use tree::remaps;
pub use undo::{Undo, remove};

use crate::error::{Context, Result};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::path::Path;

/// What is done with the content of an image where a tmpfs is not empty.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Policy {
    /// The image's content goes into an empty tmpfs only.
    IfEmpty,
    /// What is there stays, what is missing comes from the image.
    MergeMissing,
    /// What is in the image replaces what is there.
    Overwrite,
    /// Nothing is put back.
    Never,
}

impl Policy {
    /// All of them, with their names on the command line.
    pub const ALL: [(&str, Self); 4] = [
        ("if-empty", Self::IfEmpty),
        ("merge-missing", Self::MergeMissing),
        ("overwrite", Self::Overwrite),
        ("never", Self::Never),
    ];
}

/// Returns the SHA-256 of a file, in hexadecimal.
pub fn checksum(path: &Path) -> Result<String> {
    let attempt = || format!("read {}", path.display());
    let mut hash = Sha256::new();
    std::io::copy(&mut File::open(path).context(attempt)?, &mut hash).context(attempt)?;
    Ok(hexadecimal(hash))
}

fn hexadecimal(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
