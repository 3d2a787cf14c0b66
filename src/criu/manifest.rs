//! The manifest of a checkpoint: what we put beside CRIU's images, and what a restore needs to know of it.
//!
//! It is a file in the directory of the images, which other runtimes do not look at. An image without one was made by
//! another runtime, and holds what CRIU dumped and nothing else.

use crate::error::{Context, Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The file in the directory of the images.
pub const NAME: &str = "stasis-manifest.json";

/// The version of [`Manifest`] that is written; older ones are read.
const VERSION: u32 = 1;

/// What was dumped, by whom, and what beside CRIU's own images.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The version of this format.
    pub version: u32,
    /// The version of the runtime.
    pub stasis: String,
    /// The version of CRIU.
    pub criu: String,
    /// The name of the container that was dumped.
    pub id: String,
    /// The container's IPC mode: `private`, `shareable`, `container`, `host` or `none`.
    pub ipc: String,
    /// The tmpfs that were mounted from outside, with their content.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<Tmpfs>,
    /// The open files of the host, which the standard streams of the processes lead to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<Stream>,
    /// The POSIX message queues, if there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<Queues>,
    /// What was typed on the terminal and was not read yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub terminal_input: Vec<u8>,
    /// Before which bytes of that the end of the file was typed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub terminal_ends: Vec<usize>,
}

/// A tmpfs that was mounted from outside.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tmpfs {
    /// Where it was mounted in the container.
    pub destination: String,
    /// The file with its content, in the directory of the images.
    pub archive: String,
    /// SHA-256 of that file, in hexadecimal.
    pub sha256: String,
    /// How many bytes its files had allocated.
    pub bytes: u64,
    /// How many files, directories and others it had.
    pub entries: u64,
    /// The size of the file system in bytes, 0 for no limit.
    pub size: u64,
    /// The number of inodes that it may have, 0 for no limit.
    pub inodes: u64,
    /// Whether processes outside of the container had it mounted, so that its content may have changed meanwhile.
    pub shared: bool,
}

/// A file of the host that processes have open, mostly as a standard stream.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stream {
    /// The standard streams that it is; none for a file that is open under other numbers only.
    pub numbers: Vec<i32>,
    /// The name that CRIU's image gives it: `file[MOUNT:INODE]`, in hexadecimal.
    pub key: String,
    /// Where it was on the host; empty for a file that has lost its name.
    pub path: String,
    /// The device that it was on.
    pub device: u64,
    /// Its number on that device.
    pub inode: u64,
}

/// The POSIX message queues of a container's own IPC namespace.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Queues {
    /// The file with their messages, queue by queue, in the directory of the images.
    pub archive: String,
    /// SHA-256 of that file, in hexadecimal.
    pub sha256: String,
    /// Where their file system was mounted in the container.
    pub mounts: Vec<String>,
    /// Each of them.
    pub queues: Vec<Queue>,
}

/// A POSIX message queue.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Queue {
    /// Its name, without the slash.
    pub name: String,
    /// Whether it has lost its name, and is only there for those who have it open.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unlinked: bool,
    /// Its permissions.
    pub mode: u32,
    /// Its owner.
    pub user: u32,
    /// Its group.
    pub group: u32,
    /// How many messages it can hold.
    pub max_messages: u64,
    /// How long a message can be.
    pub message_size: u64,
    /// How many messages it holds.
    pub messages: u64,
    /// The names that CRIU's image gives it where it is open: `file[MOUNT:INODE]`, in hexadecimal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
}

impl Manifest {
    /// Returns the manifest of a container that is dumped now.
    pub fn new(id: &str, criu: String, ipc: &str) -> Self {
        let (id, ipc) = (id.to_owned(), ipc.to_owned());
        Self { version: VERSION, stasis: env!("CARGO_PKG_VERSION").to_owned(), criu, id, ipc, ..Self::default() }
    }

    /// Removes one of an earlier dump, which would be taken for that of a later one that fails.
    pub fn discard(images: &Path) -> Result<()> {
        let path = images.join(NAME);
        match std::fs::remove_file(&path) {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.context(|| format!("remove {}", path.display())),
        }
    }

    /// Writes it into the directory of the images: all of it, or nothing.
    pub fn save(&self, images: &Path) -> Result<()> {
        let (path, new) = (images.join(NAME), images.join(format!(".{NAME}")));
        let attempt = || format!("write {}", path.display());
        let text = serde_json::to_vec_pretty(self).map_err(|err| Error::other(format!("{}: {err}", attempt())))?;
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new).context(attempt)?;
        file.write_all(&text).context(attempt)?;
        std::fs::rename(&new, &path).context(attempt)
    }

    /// Reads it from the directory of the images, if it is there.
    pub fn load(images: &Path) -> Result<Option<Self>> {
        let path = images.join(NAME);
        let text = match std::fs::read(&path) {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.context(|| format!("read {}", path.display()))?,
        };
        let broken = |err: String| Error::other(format!("parse {}: {err}", path.display()));
        let found: Self = serde_json::from_slice(&text).map_err(|err| broken(err.to_string()))?;
        match found.version <= VERSION {
            true => Ok(Some(found)),
            false => Err(broken(format!("format {} is newer than this runtime's {VERSION}", found.version))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Manifest::load(dir.path()).unwrap(), None);
        let tmpfs = Tmpfs { destination: "/dev/shm".to_owned(), bytes: 7, ..Tmpfs::default() };
        let written = Manifest { tmpfs: vec![tmpfs], ..Manifest::new("c1", "4.2".to_owned(), "shareable") };
        written.save(dir.path()).unwrap();
        assert_eq!(Manifest::load(dir.path()).unwrap(), Some(written));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn one_from_the_future_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Manifest { version: VERSION + 1, ..Manifest::default() }.save(dir.path()).unwrap();
        let words = Manifest::load(dir.path()).unwrap_err().to_string();
        assert!(words.ends_with("format 2 is newer than this runtime's 1"), "{words}");
    }
}
