//! Open files: what there is of each kind, and which process has it under which number.

use super::directory::Directory;
use super::memory::need_memfds;
use super::sockets;
use crate::criu::image::Message;
use crate::error::Result;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The kinds of files by CRIU's numbers; an entry has its details in the field behind.
const KINDS: [(u64, &str, u32); 19] = [
    (1, "file", 3),
    (2, "pipe", 18),
    (3, "fifo", 17),
    (INET, "socket", 4),
    (UNIX, "socket", 16),
    (6, "eventfd", 8),
    (7, "epoll", 9),
    (8, "inotify", 13),
    (9, "signalfd", 10),
    (10, "socket", 6),
    (TTY, "terminal", 19),
    (12, "fanotify", 14),
    (13, "socket", 7),
    (14, "namespace", 5),
    (15, "tun", 11),
    (EXTERNAL, "external", 15),
    (17, "timerfd", 12),
    (MEMFD, "memfd", 20),
    (20, "pidfd", 22),
];
const INET: u64 = 4;
const UNIX: u64 = 5;
const TTY: u64 = 11;
const EXTERNAL: u64 = 16;
const MEMFD: u64 = 18;

/// How a file that has lost its name was kept: with its content in an image of its own, or under a new name.
const GHOST: u64 = 1;
const LINKED: u64 = 0;

/// A file that is open.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct File {
    /// `file`, `socket`, `pipe`, ...
    pub kind: &'static str,
    /// Its path, or what else there is to say of it.
    pub name: String,
    /// Where the next byte is read or written, of a regular file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// Whether it has lost its name.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// Whether a restore has to be given another one in its place.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub external: bool,
}

/// A file under a number.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct OpenFile {
    /// The number.
    pub number: u64,
    /// The file.
    #[serde(flatten)]
    pub file: File,
}

/// All files of an image.
#[derive(Debug, Default)]
pub struct Files {
    all: BTreeMap<u64, File>,
    /// What there is of sockets.
    pub sockets: sockets::Sockets,
    /// How many files without a name have their content in an image of their own.
    pub ghosts: u64,
    /// How many files without a name have been given one.
    pub link_remaps: u64,
    /// How many terminals there are.
    pub terminals: u64,
}

impl Files {
    /// Reads them.
    pub fn read(images: &mut Directory, tcp_closed: bool) -> Result<Self> {
        let mut files = Self::default();
        let remapped = files.read_remaps(images)?;
        let mut memfds = false;
        for entry in images.needed("files.img")? {
            let (kind, id) = (entry.number(1).unwrap_or(0), entry.number(2).unwrap_or(0));
            let known = KINDS.iter().find(|(number, ..)| *number == kind);
            let (_, word, field) = known.copied().unwrap_or((kind, "unknown", 0));
            let details = entry.message(field).unwrap_or_default();
            match kind {
                INET => files.sockets.add_inet(&details, tcp_closed, images),
                UNIX => files.sockets.add_unix(&details),
                10 => files.sockets.packet += 1,
                13 => files.sockets.netlink += 1,
                TTY => files.terminals += 1,
                MEMFD => memfds = true,
                _ => {}
            }
            files.all.insert(id, describe(kind, word, &details, remapped.contains(&id)));
        }
        if files.terminals > 0 {
            images.need("tty-info.img".to_owned());
        }
        need_memfds(images, memfds)?;
        Ok(files)
    }

    /// Reads which files have lost their name, and returns them.
    fn read_remaps(&mut self, images: &mut Directory) -> Result<BTreeSet<u64>> {
        let mut all = BTreeSet::new();
        for remap in images.messages("remap-fpath.img")? {
            let (file, other) = (remap.number(1).unwrap_or(0), remap.number(2).unwrap_or(0));
            match remap.number(3) {
                Some(GHOST) => {
                    self.ghosts += 1;
                    images.need(format!("ghost-file-{other:x}.img"));
                }
                Some(LINKED) => self.link_remaps += 1,
                _ => continue,
            }
            all.insert(file);
        }
        Ok(all)
    }

    /// Returns the path of a file.
    pub fn path(&self, id: u64) -> Option<String> {
        self.all.get(&id).map(|file| file.name.clone())
    }

    /// Returns the names of the files that a restore has to be given.
    pub fn external(&self) -> Vec<String> {
        self.all.values().filter(|file| file.external).map(|file| file.name.clone()).collect()
    }

    /// Reads which files a process has, from the table with this number.
    pub fn of_table(&self, images: &mut Directory, table: u64) -> Result<Vec<OpenFile>> {
        let mut open = Vec::new();
        for entry in images.needed(&format!("fdinfo-{table}.img"))? {
            let (id, number) = (entry.number(1).unwrap_or(0), entry.number(4).unwrap_or(0));
            let lost = || File { kind: "unknown", ..File::default() };
            open.push(OpenFile { number, file: self.all.get(&id).cloned().unwrap_or_else(lost) });
        }
        open.sort_by_key(|file| file.number);
        Ok(open)
    }
}

fn describe(kind: u64, word: &'static str, details: &Message, deleted: bool) -> File {
    let number = |field| details.number(field).unwrap_or(0);
    let mut file = File { kind: word, deleted, ..File::default() };
    match kind {
        1 => {
            file.name = details.text(6).unwrap_or_default();
            file.position = details.number(3);
            file.external = details.flag(9);
        }
        2 | 3 => file.name = format!("{word} {}", number(2)),
        INET => file.name = sockets::inet_name(details),
        UNIX => {
            file.name = sockets::unix_name(details);
            file.external = sockets::is_external(details);
        }
        10 => file.name = "packet".to_owned(),
        13 => file.name = format!("netlink {}", number(3)),
        6 => file.name = format!("count {}", number(4)),
        EXTERNAL => {
            file.name = format!("file {}", number(1));
            file.external = true;
        }
        _ => {}
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::criu::inspect::tests::{TestImages, message, within};

    #[test]
    fn files_are_told_by_kind_and_name() {
        let images = TestImages::new();
        let mut regular = message(&[(1, 1), (3, 300)]);
        regular.set_text(6, "/tmp/x");
        let mut outside = message(&[(1, 2), (9, 1)]);
        outside.set_text(6, "file[2a:7]");
        let entries = [
            within(message(&[(1, 1), (2, 1)]), 3, &regular),
            within(message(&[(1, 1), (2, 2)]), 3, &outside),
            within(message(&[(1, 2), (2, 3)]), 18, &message(&[(1, 3), (2, 77)])),
            within(message(&[(1, TTY), (2, 4)]), 19, &message(&[(1, 4)])),
            message(&[(1, 999), (2, 5)]),
        ];
        images.write("files.img", &entries);
        images.write("remap-fpath.img", &[message(&[(1, 1), (2, 31), (3, GHOST)])]);
        images.write(
            "fdinfo-9.img",
            &[message(&[(1, 3), (4, 1)]), message(&[(1, 1), (4, 0)]), message(&[(1, 6), (4, 2)])],
        );
        let mut dir = Directory::open(images.path()).unwrap();
        let files = Files::read(&mut dir, false).unwrap();
        let open = files.of_table(&mut dir, 9).unwrap();
        let told: Vec<_> = open.iter().map(|open| (open.number, open.file.kind, open.file.name.as_str())).collect();
        assert_eq!(told, [(0, "file", "/tmp/x"), (1, "pipe", "pipe 77"), (2, "unknown", "")]);
        assert_eq!((open[0].file.position, open[0].file.deleted), (Some(300), true));
        assert_eq!((files.external(), files.ghosts, files.terminals), (vec!["file[2a:7]".to_owned()], 1, 1));
        assert_eq!(dir.flaws().0, ["ghost-file-1f.img", "tty-info.img"]);
    }
}
