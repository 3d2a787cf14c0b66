//! Open files of the host: what CRIU calls them, and how a descriptor takes the place of one.
//!
//! A process has such a file from whoever started it, as a standard stream mostly. No mount of the container shows it, so
//! CRIU has to be told to leave it out of the dump, and at the restore is given what takes its place. That can be
//! anything: the same file, longer by now; a new one; a pipe. Here is decided what has to be done to the descriptor for
//! the process to go on reading and writing at the right place; nothing is opened.

use super::image::{Message, Reader};
use crate::error::Result;
use std::path::Path;

/// The image that lists all open files.
pub(super) const FILES: &str = "files.img";

/// Fields of CRIU's `file_entry` and of the `reg_file_entry` in it.
pub(super) const ENTRY_REGULAR: u32 = 3;
const REGULAR_FLAGS: u32 = 2;
const REGULAR_POSITION: u32 = 3;
pub(super) const REGULAR_NAME: u32 = 6;
pub(super) const REGULAR_SIZE: u32 = 8;
const REGULAR_EXTERNAL: u32 = 9;
const REGULAR_MODE: u32 = 10;

/// Flags that only mean something to the open(2) that they are given to.
const ONCE: i32 = libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC | libc::O_NOCTTY | libc::O_CLOEXEC;

/// Returns the key by which a dump leaves out a file: by the mount that it was opened on, and its inode.
pub fn key(mount: i32, inode: u64) -> String {
    format!("file[{mount:x}:{inode:x}]")
}

/// Returns the key under which a restored process gets a descriptor as it is, shared with whoever else has it. Under
/// the key itself CRIU only takes the file from the descriptor, opens it again with the flags, at the position and for
/// the mode of the image, and insists on the old size.
///
/// CRIU knows a file by its path without the first character, the slash. An external one has no slash to lose.
pub fn key_as_it_is(key: &str) -> &str {
    key.get(1..).unwrap_or_default()
}

/// Returns the mount that an open file is on, from the text of /proc/PID/fdinfo/N.
pub fn mount_of(fdinfo: &str) -> Option<i32> {
    fdinfo.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()
}

/// Returns the mounts of a namespace, from the text of /proc/PID/mountinfo.
pub fn mounts_of(mountinfo: &str) -> Vec<i32> {
    mountinfo.lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect()
}

/// How an image says that a file was open.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Recorded {
    /// The flags of open(2).
    pub flags: i32,
    /// The position.
    pub position: u64,
    /// The size; unknown of a file that was only appended to.
    pub size: Option<u64>,
    /// The type and the permissions.
    pub mode: u32,
}

/// Returns how an image says that the file `key` was open: once for each time that it was opened.
pub fn recorded(images: &Path, key: &str) -> Result<Vec<Recorded>> {
    let mut all = Vec::new();
    let entries = Reader::open(&images.join(FILES))?.messages()?;
    for entry in entries.iter().filter_map(|entry| entry.message(ENTRY_REGULAR)) {
        if entry.flag(REGULAR_EXTERNAL) && entry.text(REGULAR_NAME).as_deref() == Some(key) {
            all.push(Recorded::from(&entry));
        }
    }
    Ok(all)
}

impl From<&Message> for Recorded {
    fn from(entry: &Message) -> Self {
        let number = |field| entry.number(field).unwrap_or_default();
        Self {
            // Both are 32 bits wide in the image.
            flags: number(REGULAR_FLAGS) as i32,
            position: number(REGULAR_POSITION),
            size: entry.number(REGULAR_SIZE),
            mode: number(REGULAR_MODE) as u32,
        }
    }
}

/// What a file is that takes the place of the recorded one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Given {
    /// The type and the permissions.
    pub mode: u32,
    /// The size.
    pub size: u64,
    /// The flags that the descriptor has; `O_PATH` of one that is not open for reading or writing.
    pub flags: i32,
    /// Whether it is the file that was dumped, be it longer by now.
    pub same: bool,
    /// Whether there is something to read in a FIFO.
    pub unread: bool,
    /// Whether it is standard input, and a FIFO that is open for both directions is one to read from.
    pub input: bool,
}

/// How a given file becomes that of the process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// CRIU opens it as often as it was open, as the image says.
    ByImage,
    /// The descriptor is the process's, shared with whoever gave it.
    AsItIs,
    /// The descriptor cannot do what the process's could: it is opened again, with these flags.
    Again(i32),
}

/// Chooses the way.
///
/// Sharing is the rule, as it is when a container is created: two that write through one open file never write over each
/// other. The image tells only what sharing cannot give: that a file was opened twice with a position each, and what was
/// in a FIFO that nobody held open meanwhile.
pub fn way(recorded: &[Recorded], given: &Given) -> Way {
    let is = |kind| given.mode & libc::S_IFMT == kind;
    let as_recorded = |one: &Recorded| one.mode == given.mode && one.size.is_none_or(|size| size == given.size);
    let unchanged = given.same && recorded.iter().all(as_recorded);
    let from = |one: &Recorded| one.reads() && (given.input || !one.writes());
    let lost = is(libc::S_IFIFO) && !given.unread && recorded.iter().any(from);
    // Who gave it may append to it behind our back.
    let appended = given.flags & libc::O_APPEND != 0 && recorded.iter().any(|one| one.writes() && !one.appends());
    let twice = is(libc::S_IFREG) && recorded.len() > 1 && !appended;
    if unchanged && (lost || twice) {
        return Way::ByImage;
    }
    let access = access(recorded);
    let can = given.flags & libc::O_ACCMODE;
    // A terminal or a socket can do both, whatever it was opened for.
    let able = can == access || can == libc::O_RDWR || !(is(libc::S_IFREG) || is(libc::S_IFIFO));
    if able && given.flags & libc::O_PATH == 0 {
        return Way::AsItIs;
    }
    let flags = recorded.first().map_or(0, |one| one.flags & !(ONCE | libc::O_ACCMODE));
    Way::Again(flags | access | given.flags & libc::O_APPEND)
}

/// Says whether what is written has to go to the end of the file.
pub fn appends(recorded: &[Recorded]) -> bool {
    recorded.iter().any(Recorded::appends)
}

/// Returns the position that a given file has to be brought to, if it is one that it makes a difference for.
///
/// A file that was written to its end and has grown since is written on from its new end; one that somebody has emptied,
/// and any other than the old one, is used from where it was given.
pub fn position(recorded: &[Recorded], given: &Given) -> Option<u64> {
    let one = recorded.first().filter(|_| given.same && given.mode & libc::S_IFMT == libc::S_IFREG)?;
    if given.size < one.position || one.position == u64::MAX {
        return None;
    }
    let grown = one.writes() && one.size == Some(one.position);
    Some(if grown { given.size } else { one.position })
}

/// Returns the access that all of them together need.
fn access(recorded: &[Recorded]) -> i32 {
    match (recorded.iter().any(Recorded::reads), recorded.iter().any(Recorded::writes)) {
        (true, true) => libc::O_RDWR,
        (false, true) => libc::O_WRONLY,
        _ => libc::O_RDONLY,
    }
}

impl Recorded {
    fn reads(&self) -> bool {
        self.flags & libc::O_ACCMODE != libc::O_WRONLY
    }

    fn writes(&self) -> bool {
        self.flags & libc::O_ACCMODE != libc::O_RDONLY
    }

    fn appends(&self) -> bool {
        self.flags & libc::O_APPEND != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: u32 = libc::S_IFREG | 0o644;
    const FIFO: u32 = libc::S_IFIFO | 0o600;

    fn file(flags: i32, position: u64, size: u64) -> Recorded {
        Recorded { flags, position, size: Some(size), mode: FILE }
    }

    fn given(flags: i32, size: u64, same: bool) -> Given {
        Given { mode: FILE, size, flags, same, ..Given::default() }
    }

    #[test]
    fn keys_are_those_of_criu() {
        assert_eq!(key(31, 0xabc), "file[1f:abc]");
        assert_eq!(key_as_it_is("file[1f:abc]"), "ile[1f:abc]");
    }

    #[test]
    fn mounts_are_found_by_number() {
        assert_eq!(mount_of("pos:\t0\nflags:\t0100001\nmnt_id:\t31\nino:\t7\n"), Some(31));
        assert_eq!(mount_of("pos:\t0\n"), None);
        assert_eq!(mounts_of("31 1 8:1 / / rw - ext4 /dev/a rw\n40 31 0:5 / /proc rw - proc proc rw\n"), [31, 40]);
    }

    #[test]
    fn a_file_is_shared_with_who_gave_it() {
        let log = [file(libc::O_WRONLY | libc::O_CREAT, 10, 10)];
        assert_eq!(way(&log, &given(libc::O_WRONLY | libc::O_APPEND, 10, true)), Way::AsItIs);
        assert_eq!(way(&log, &given(libc::O_RDWR, 0, false)), Way::AsItIs);
        let pipe = Given { mode: FIFO, flags: libc::O_WRONLY, ..Given::default() };
        assert_eq!(way(&log, &pipe), Way::AsItIs);
    }

    #[test]
    fn what_cannot_be_done_with_it_makes_it_opened_again() {
        let both = [file(libc::O_RDWR | libc::O_APPEND | libc::O_CREAT | libc::O_TRUNC, 0, 5)];
        let expected = Way::Again(libc::O_RDWR | libc::O_APPEND);
        assert_eq!(way(&both, &given(libc::O_WRONLY, 0, false)), expected);
        assert_eq!(way(&both, &given(libc::O_PATH, 5, true)), expected);
        // One reads, the other writes, of a file that is another now.
        let two = [file(libc::O_RDONLY, 0, 5), file(libc::O_WRONLY, 5, 5)];
        assert_eq!(way(&two, &given(libc::O_WRONLY | libc::O_APPEND, 0, false)), expected);
        let terminal = Given { mode: libc::S_IFCHR | 0o620, ..given(libc::O_WRONLY, 0, false) };
        assert_eq!(way(&both, &terminal), Way::AsItIs);
    }

    #[test]
    fn a_file_that_was_opened_twice_is_opened_twice() {
        let twice = [file(libc::O_RDONLY, 3, 5), file(libc::O_RDONLY, 4, 5)];
        assert_eq!(way(&twice, &given(libc::O_RDONLY, 5, true)), Way::ByImage);
        // CRIU would refuse the size, or the mode.
        assert_eq!(way(&twice, &given(libc::O_RDONLY, 6, true)), Way::AsItIs);
        assert_eq!(way(&twice, &Given { mode: libc::S_IFREG, ..given(libc::O_RDONLY, 5, true) }), Way::AsItIs);
        let written = [file(libc::O_WRONLY, 5, 5), file(libc::O_WRONLY, 5, 5)];
        assert_eq!(way(&written, &given(libc::O_WRONLY | libc::O_APPEND, 5, true)), Way::AsItIs);
    }

    #[test]
    fn what_was_in_a_fifo_is_put_back_once() {
        let input = [Recorded { flags: libc::O_RDONLY, mode: FIFO, ..Recorded::default() }];
        let empty = Given { mode: FIFO, flags: libc::O_RDONLY, same: true, ..Given::default() };
        assert_eq!(way(&input, &empty), Way::ByImage);
        assert_eq!(way(&input, &Given { unread: true, ..empty }), Way::AsItIs);
        assert_eq!(way(&input, &Given { same: false, ..empty }), Way::AsItIs);
        // What is in the way to somebody else was not lost with the container.
        let output = [Recorded { flags: libc::O_WRONLY, ..input[0] }];
        assert_eq!(way(&output, &Given { flags: libc::O_WRONLY, ..empty }), Way::AsItIs);
        // Open for both directions, the number says what it is for.
        let both = [Recorded { flags: libc::O_RDWR, ..input[0] }];
        let given = Given { flags: libc::O_RDWR, ..empty };
        assert_eq!(way(&both, &given), Way::AsItIs);
        assert_eq!(way(&both, &Given { input: true, ..given }), Way::ByImage);
    }

    #[test]
    fn output_goes_on_at_the_end_and_input_where_it_was() {
        let (read, write) = (libc::O_RDONLY, libc::O_WRONLY);
        let cases = [
            // The end, also if the file has grown since.
            (file(write, 10, 10), given(write, 10, true), Some(10)),
            (file(write, 10, 10), given(write, 25, true), Some(25)),
            // In the middle of the file.
            (file(write, 4, 10), given(write, 25, true), Some(4)),
            // Emptied, or another.
            (file(write, 10, 10), given(write, 0, true), None),
            (file(write, 10, 10), given(write, 20, false), None),
            (file(read, 4, 10), given(read, 30, true), Some(4)),
            (file(read, 10, 10), given(read, 30, true), Some(10)),
            (file(read, 4, 10), given(read, 10, false), None),
        ];
        for (recorded, given, expected) in cases {
            assert_eq!(position(&[recorded], &given), expected, "{recorded:?} {given:?}");
        }
        let pipe = Given { mode: FIFO, same: true, ..Given::default() };
        assert_eq!(position(&[file(read, 0, 0)], &pipe), None);
    }
}
