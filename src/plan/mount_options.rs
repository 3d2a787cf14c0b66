//! Mount options: the words of config.json and what each means to the kernel, as one table.

use super::mount_flags::{self, MountFlags};
use super::mount_ids::MappingOption;
use super::process::cstring;
use crate::error::{Error, Result};
use nix::libc;
use std::ffi::{CStr, CString};

/// Attributes of a mount to set and to clear (mount_setattr(2)).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct AttributeChange {
    /// `MOUNT_ATTR_*` bits to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` bits to clear.
    pub clear: u64,
}

/// A change of propagation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Propagation {
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`.
    pub kind: u64,
    /// Whether it holds for all mounts below too.
    pub recursive: bool,
}

/// A parameter of a file system.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Parameter {
    /// Its name.
    pub key: CString,
    /// Its value; a flag has none.
    pub value: Option<CString>,
}

impl Parameter {
    /// Returns its name and value.
    pub fn pair(&self) -> (&CStr, Option<&CStr>) {
        (&self.key, self.value.as_deref())
    }
}

/// What the options of one mount say together.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MountOptions {
    /// Whether this is a bind mount, and of a whole tree.
    pub bind: Option<Bind>,
    /// Whether an existing mount is to be changed.
    pub remount: bool,
    /// Flags of the mount.
    pub flags: MountFlags,
    /// Attributes of the mount and all below it (`rro`, ...).
    pub recursive: AttributeChange,
    /// Changes of propagation, in order.
    pub propagation: Vec<Propagation>,
    /// Whether its files appear as those of other users and groups.
    pub idmap: Option<MappingOption>,
    /// Whether a new tmpfs begins with what was there before.
    pub copies_up: bool,
    /// What is for the superblock of any file system.
    pub superblock: Vec<Parameter>,
    /// Parameters of the file system.
    pub parameters: Vec<Parameter>,
}

/// How much a bind mount takes along.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Bind {
    /// The one mount.
    One,
    /// The mounts below it too.
    Tree,
}

/// What a word means; all others are for the file system.
#[derive(Clone, Copy)]
enum Meaning {
    /// A flag of the mount, which is set, or cleared.
    Flag(u64, bool),
    Propagation(Propagation),
    Bind(Bind),
    Remount,
    /// An id map, for the whole tree or not.
    IdMap(bool),
    /// runc's own: a tmpfs begins with what was there before.
    CopyUp,
    /// An option of the superblock that fsconfig(2) knows by the same name.
    Superblock,
    /// A flag of mount(2) without a meaning for the kernel, or for fsconfig(2).
    Noise,
    /// The default.
    Nothing,
}

const fn set(flag: u64) -> Meaning {
    Meaning::Flag(flag, false)
}

const fn clear(flag: u64) -> Meaning {
    Meaning::Flag(flag, true)
}

const fn propagate(kind: u64, recursive: bool) -> Meaning {
    Meaning::Propagation(Propagation { kind, recursive })
}

/// The words that the runtime understands itself. Every flag of a mount may have an `r` in front, for the whole tree.
const WORDS: [(&str, Meaning); 45] = [
    ("async", Meaning::Superblock),
    ("atime", clear(libc::MS_NOATIME)),
    ("bind", Meaning::Bind(Bind::One)),
    ("defaults", Meaning::Nothing),
    ("dev", clear(libc::MS_NODEV)),
    ("diratime", clear(libc::MS_NODIRATIME)),
    ("dirsync", Meaning::Superblock),
    ("exec", clear(libc::MS_NOEXEC)),
    ("idmap", Meaning::IdMap(false)),
    ("iversion", Meaning::Noise),
    ("lazytime", Meaning::Superblock),
    ("loud", Meaning::Noise),
    ("mand", Meaning::Superblock),
    ("noatime", set(libc::MS_NOATIME)),
    ("nodev", set(libc::MS_NODEV)),
    ("nodiratime", set(libc::MS_NODIRATIME)),
    ("noexec", set(libc::MS_NOEXEC)),
    ("noiversion", Meaning::Noise),
    ("nolazytime", Meaning::Superblock),
    ("nomand", Meaning::Superblock),
    ("norelatime", clear(libc::MS_RELATIME)),
    ("nostrictatime", clear(libc::MS_STRICTATIME)),
    ("nosuid", set(libc::MS_NOSUID)),
    ("nosymfollow", set(libc::MS_NOSYMFOLLOW)),
    ("private", propagate(libc::MS_PRIVATE, false)),
    ("rbind", Meaning::Bind(Bind::Tree)),
    ("relatime", set(libc::MS_RELATIME)),
    ("remount", Meaning::Remount),
    ("ridmap", Meaning::IdMap(true)),
    ("ro", set(libc::MS_RDONLY)),
    ("rprivate", propagate(libc::MS_PRIVATE, true)),
    ("rshared", propagate(libc::MS_SHARED, true)),
    ("rslave", propagate(libc::MS_SLAVE, true)),
    ("runbindable", propagate(libc::MS_UNBINDABLE, true)),
    ("rw", clear(libc::MS_RDONLY)),
    ("shared", propagate(libc::MS_SHARED, false)),
    ("silent", Meaning::Noise),
    ("slave", propagate(libc::MS_SLAVE, false)),
    ("strictatime", set(libc::MS_STRICTATIME)),
    ("suid", clear(libc::MS_NOSUID)),
    ("symfollow", clear(libc::MS_NOSYMFOLLOW)),
    ("sync", Meaning::Superblock),
    ("tmpcopyup", Meaning::CopyUp),
    ("unbindable", propagate(libc::MS_UNBINDABLE, false)),
    ("", Meaning::Nothing),
];

fn meaning(word: &str) -> Option<Meaning> {
    WORDS.iter().find(|(known, _)| *known == word).map(|(_, meaning)| *meaning)
}

/// Returns the change of propagation that `linux.rootfsPropagation` names.
pub fn rootfs_propagation(word: &str) -> Result<Propagation> {
    match meaning(word) {
        Some(Meaning::Propagation(change)) => Ok(change),
        _ => Err(Error::invalid(format!("rootfsPropagation={word} is not supported"))),
    }
}

/// Returns every option that the runtime understands itself, sorted, for `features`; id maps have a place of their own
/// there.
pub fn known() -> Vec<String> {
    let words = WORDS.iter().filter(|(word, meaning)| !word.is_empty() && !matches!(meaning, Meaning::IdMap(_)));
    let recursive = words.clone().filter(|(_, meaning)| matches!(meaning, Meaning::Flag(..)));
    let mut all: Vec<String> = recursive.map(|(word, _)| format!("r{word}")).collect();
    all.extend(words.map(|(word, _)| (*word).to_owned()));
    all.sort_unstable();
    all
}

/// Reads the options of one mount.
pub fn parse(options: &[String]) -> Result<MountOptions> {
    let mut parsed = MountOptions::default();
    for option in options {
        parsed.add(option)?;
    }
    Ok(parsed)
}

impl MountOptions {
    fn add(&mut self, option: &str) -> Result<()> {
        match meaning(option) {
            Some(Meaning::Flag(flag, clear)) => self.flags.name(flag, clear),
            Some(Meaning::Propagation(change)) => self.propagation.push(change),
            Some(Meaning::Bind(much)) => self.bind = Some(much),
            Some(Meaning::Remount) => self.remount = true,
            Some(Meaning::IdMap(recursive)) => self.idmap = Some(MappingOption { recursive, maps: None }),
            Some(Meaning::CopyUp) => self.copies_up = true,
            Some(Meaning::Superblock) => {
                self.superblock.push(parameter(option)?);
                self.flags.named = true;
            }
            Some(Meaning::Noise) => self.flags.named = true,
            Some(Meaning::Nothing) => {}
            None => match option.strip_prefix('r').and_then(meaning) {
                Some(Meaning::Flag(flag, clear)) => mount_flags::change_recursively(&mut self.recursive, flag, clear),
                _ => self.add_other(option)?,
            },
        }
        Ok(())
    }

    /// Returns all that a file system is told.
    pub fn filesystem_parameters(self) -> Vec<Parameter> {
        self.superblock.into_iter().chain(self.parameters).collect()
    }

    fn add_other(&mut self, option: &str) -> Result<()> {
        if let Some(maps) = option.strip_prefix("idmap=") {
            self.idmap = Some(MappingOption { recursive: false, maps: Some(maps.to_owned()) });
            return Ok(());
        }
        for part in split(option) {
            self.parameters.push(parameter(part)?);
        }
        Ok(())
    }
}

/// Splits at commas that are not between double quotes (as in SELinux contexts).
fn split(option: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    option
        .split(move |c: char| {
            quoted ^= c == '"';
            c == ',' && !quoted
        })
        .filter(|part| !part.is_empty())
}

fn parameter(text: &str) -> Result<Parameter> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (text, None),
    };
    Ok(Parameter {
        key: cstring(key.as_ref(), "mount option")?,
        value: value.map(|value| cstring(value.trim_matches('"').as_ref(), "mount option")).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(options: &[&str]) -> MountOptions {
        parse(&options.iter().map(|&o| o.to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn the_later_option_wins() {
        let flags = parsed(&["ro", "nosuid", "rw"]).flags;
        assert_eq!((flags.set, flags.cleared), (libc::MS_NOSUID, libc::MS_RDONLY));
    }

    #[test]
    fn recursive_words_are_not_mistaken_for_others() {
        let o = parsed(&["rro", "rbind", "rslave", "relatime", "ro", "rrelatime"]);
        assert_eq!(o.recursive.set, libc::MOUNT_ATTR_RDONLY);
        assert_eq!(o.recursive.clear, libc::MOUNT_ATTR__ATIME);
        assert_eq!(o.bind, Some(Bind::Tree));
        assert_eq!(o.propagation, [Propagation { kind: libc::MS_SLAVE, recursive: true }]);
        assert_eq!(o.flags, MountFlags::new(libc::MS_RDONLY | libc::MS_RELATIME));
    }

    #[test]
    fn the_rest_is_for_the_file_system() {
        let o = parsed(&["mode=755,size=1k", "noswap", "context=\"a:b:c1,c2\""]);
        let texts: Vec<_> = o
            .parameters
            .iter()
            .map(|p| (p.key.to_str().unwrap(), p.value.as_ref().map(|v| v.to_str().unwrap())))
            .collect();
        let expected = [("mode", Some("755")), ("size", Some("1k")), ("noswap", None), ("context", Some("a:b:c1,c2"))];
        assert_eq!(texts, expected);
    }

    #[test]
    fn every_word_that_features_lists_is_understood() {
        for word in known() {
            let o = parsed(&[&word]);
            assert!(o.parameters.is_empty(), "{word} would be passed to the file system");
        }
    }
}
