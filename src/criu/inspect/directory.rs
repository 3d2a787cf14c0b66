//! A directory of images, of which nothing is believed: neither that a file is one, nor that it ends, nor that one which
//! another names is there.

use crate::criu::image::{Message, Reader};
use crate::error::{Context, Error, ErrorKind, Result};
use std::collections::{BTreeSet, HashSet};
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The largest file of messages that is read. CRIU needs some 20 bytes for a run of pages, and little else grows.
const LARGEST: u64 = 64 << 20;

/// The name of the link to the images of an earlier pre-dump.
pub const PARENT: &CStr = c"parent";

/// Returns where a directory has the images of an earlier pre-dump.
pub fn parent_of(images: &Path) -> PathBuf {
    images.join(OsStr::from_bytes(PARENT.to_bytes()))
}

/// A directory of images while it is read.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    missing: BTreeSet<String>,
    damaged: Vec<String>,
}

impl Directory {
    /// Opens a directory that has to hold images.
    pub fn open(path: &Path) -> Result<Self> {
        let found = path.metadata().context(|| format!("open {}", path.display()))?;
        if !found.is_dir() {
            return Err(Error::system(format!("open {}", path.display()), nix::errno::Errno::ENOTDIR));
        }
        Ok(Self { path: path.to_owned(), missing: BTreeSet::new(), damaged: Vec::new() })
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the length of a file; one that is no file is not there.
    pub fn size(&self, name: &str) -> Option<u64> {
        self.path.join(name).metadata().ok().filter(|found| found.is_file()).map(|found| found.len())
    }

    /// Says whether a file is there, and refuses what cannot be one of an image.
    pub fn has(&self, name: &str) -> Result<bool> {
        let path = self.path.join(name);
        let attempt = || format!("read {}", path.display());
        let found = match path.metadata() {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            other => other.context(attempt)?,
        };
        // A fifo would be waited for, and a device read for ever.
        if !found.is_file() {
            return Err(Error::new(ErrorKind::Criu, format!("{}: it is no file", attempt())));
        }
        if found.len() > LARGEST {
            return Err(Error::new(ErrorKind::Criu, format!("{}: it is too large for an image", attempt())));
        }
        Ok(true)
    }

    /// Opens an image that may be missing.
    pub fn reader(&self, name: &str) -> Result<Option<Reader>> {
        if self.has(name)? { Reader::open(&self.path.join(name)).map(Some) } else { Ok(None) }
    }

    /// Reads the messages of an image that may be missing.
    pub fn messages(&self, name: &str) -> Result<Vec<Message>> {
        self.reader(name)?.map_or_else(|| Ok(Vec::new()), Reader::messages)
    }

    /// Reads the messages of an image that others refer to; when it is missing, this is noted.
    pub fn needed(&mut self, name: &str) -> Result<Vec<Message>> {
        match self.reader(name)? {
            Some(reader) => reader.messages(),
            None => {
                self.missing.insert(name.to_owned());
                Ok(Vec::new())
            }
        }
    }

    /// Reads the first message of an image that others refer to.
    pub fn needed_one(&mut self, name: &str) -> Result<Message> {
        Ok(self.needed(name)?.into_iter().next().unwrap_or_default())
    }

    /// Notes an image that others refer to, when it is missing.
    pub fn need(&mut self, name: String) {
        if self.size(&name).is_none() {
            self.missing.insert(name);
        }
    }

    /// Notes that a file is not what others say it is.
    pub fn damaged(&mut self, what: String) {
        self.damaged.push(what);
    }

    /// Returns what is missing and what is damaged.
    pub fn flaws(self) -> (Vec<String>, Vec<String>) {
        (self.missing.into_iter().collect(), self.damaged)
    }

    /// Returns the directories of earlier pre-dumps, the latest first. One that is not there ends the list, and so does
    /// one that was there before.
    pub fn parents(&mut self) -> Vec<PathBuf> {
        let mut seen: HashSet<(u64, u64)> = self.path.metadata().iter().map(|it| (it.dev(), it.ino())).collect();
        let mut chain = Vec::new();
        let mut at = parent_of(&self.path);
        while at.symlink_metadata().is_ok() {
            match at.metadata().map(|found| (found.is_dir(), (found.dev(), found.ino()))) {
                Ok((true, identity)) if seen.insert(identity) => chain.push(at.clone()),
                Ok((true, _)) => {
                    self.damaged.push(format!("{} leads in a circle", at.display()));
                    break;
                }
                _ => {
                    self.missing.insert(at.strip_prefix(&self.path).unwrap_or(&at).display().to_string());
                    break;
                }
            }
            at = parent_of(&at);
        }
        chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_is_no_file_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        symlink("/dev/zero", dir.path().join("zero")).unwrap();
        std::fs::create_dir(dir.path().join("dir")).unwrap();
        let large = std::fs::File::create(dir.path().join("large")).unwrap();
        large.set_len(LARGEST + 1).unwrap();
        let images = Directory::open(dir.path()).unwrap();
        for name in ["fifo", "zero", "dir"] {
            let words = images.reader(name).unwrap_err().to_string();
            assert_eq!(words, format!("read {}/{name}: it is no file", dir.path().display()));
            assert_eq!(images.size(name), None);
        }
        assert!(images.reader("large").unwrap_err().to_string().ends_with("it is too large for an image"));
        assert!(images.reader("none").unwrap().is_none());
        assert!(Directory::open(&dir.path().join("large")).unwrap_err().to_string().ends_with("not a directory"));
    }

    #[test]
    fn what_is_missing_is_noted_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut images = Directory::open(dir.path()).unwrap();
        assert_eq!(images.needed("a.img").unwrap(), []);
        images.need("b.img".to_owned());
        images.need("a.img".to_owned());
        assert_eq!(images.flaws().0, ["a.img", "b.img"]);
    }

    #[test]
    fn parents_are_followed_to_their_end() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["one", "two", "three"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let link = |from: &str, to: &str| symlink(to, dir.path().join(from).join("parent")).unwrap();
        let parents = |name: &str| {
            let mut images = Directory::open(&dir.path().join(name)).unwrap();
            (images.parents().len(), images.flaws())
        };
        link("one", "../two");
        link("two", "../three");
        assert_eq!(parents("one"), (2, (vec![], vec![])));
        link("three", "../none");
        assert_eq!(parents("one"), (2, (vec!["parent/parent/parent".to_owned()], vec![])));
        std::fs::remove_file(dir.path().join("three/parent")).unwrap();
        link("three", "../one");
        let (count, (missing, damaged)) = parents("one");
        assert_eq!((count, missing.len(), damaged.len()), (2, 0, 1));
    }
}
