//! Open files of the host in a container: found while it is dumped, and given again while it is restored.
//!
//! Standard streams that are pipes or terminals are not among them: CRIU knows those. What is to be done to a descriptor
//! is decided in [`criu::streams`](crate::criu::streams).

use super::open_files::OpenFile;
use crate::criu::manifest::{Manifest, Stream};
use crate::criu::streams::{self, Given, Recorded, Way};
use crate::error::{Context, Error, Result};
use crate::plan::process::cstring;
use crate::sys::{fd, path};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::unistd::{Whence, lseek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// How many standard streams there are.
const STANDARD: i32 = 3;

/// A descriptor, and the key of what it takes the place of in the image.
pub type Inherited = (OwnedFd, String);

/// Returns the files of the host among open ones; what a process has as a standard stream is told by its number.
pub fn find(open: &[OpenFile]) -> Vec<Stream> {
    let mut found: Vec<Stream> = Vec::new();
    for file in open.iter().filter(|file| !file.queue) {
        // A number stands for what the first process has there, which is init or the one that was started for it.
        let free = !found.iter().any(|other| other.numbers.contains(&file.number));
        let number = Some(file.number).filter(|number| *number < STANDARD && free);
        match found.iter_mut().find(|other| other.key == file.key) {
            Some(known) => known.numbers.extend(number),
            None => found.push(Stream {
                numbers: number.into_iter().collect(),
                key: file.key.clone(),
                path: path_of(file),
                device: file.device,
                inode: file.inode,
            }),
        }
    }
    found
}

/// Returns the path of a file, or nothing unless it is there under that name: a process can make the kernel tell a wrong
/// name of a file, but not the file be the one that has the name.
fn path_of(file: &OpenFile) -> String {
    match std::fs::symlink_metadata(&file.link) {
        Ok(found) if (found.dev(), found.ino()) == (file.device, file.inode) => {
            file.link.to_string_lossy().into_owned()
        }
        _ => String::new(),
    }
}

/// Prepares what takes the place of the host's files in an image: the standard stream of that number, of `inside` or
/// else our own, and for those that have no number the same file once more.
///
/// A stream that leads to /dev/null counts as not given, if there is the old file: nobody would miss its output there.
pub fn prepare(images: &Path, inside: &[Option<OwnedFd>; 3]) -> Result<Vec<Inherited>> {
    let mut all = Vec::new();
    for stream in Manifest::load(images)?.unwrap_or_default().streams {
        let recorded = streams::recorded(images, &stream.key)?;
        if recorded.is_empty() {
            // Closed before it was dumped.
            continue;
        }
        let given = match stream.numbers.first() {
            Some(number) => Some(standard(*number, inside, &stream, &recorded)?),
            None => None,
        };
        let descriptor = match given {
            Some(given) if !is_null(given.as_fd())? || is_device(&recorded) => given,
            Some(null) => original(&stream, &recorded).unwrap_or_else(|err| {
                log::warn!("standard stream {:?} leads to /dev/null: {err}", stream.numbers);
                null
            }),
            None => original(&stream, &recorded)?,
        };
        all.push(adapt(descriptor, &stream, &recorded)?);
    }
    Ok(all)
}

/// Returns the standard stream `number`: that of `inside`, or our own.
fn standard(number: i32, inside: &[Option<OwnedFd>; 3], stream: &Stream, recorded: &[Recorded]) -> Result<OwnedFd> {
    let own = || fd::inherited(number).context(|| format!("find standard stream {number}"));
    let pipe = usize::try_from(number).ok().and_then(|number| inside.get(number)).and_then(Option::as_ref);
    let chosen = match pipe {
        Some(pipe) => {
            // What is relayed to the process is what it has not read yet.
            if number == libc::STDIN_FILENO {
                let own = own()?;
                seek(own, streams::position(recorded, &given(own, stream)?))?;
            }
            pipe.as_fd()
        }
        None => own()?,
    };
    chosen.try_clone_to_owned().context(|| format!("duplicate standard stream {number}"))
}

/// Opens the file that was dumped, without following a link that has been put in its place.
fn original(stream: &Stream, recorded: &[Recorded]) -> Result<OwnedFd> {
    let attempt = || format!("find the file of the host {:?}, which the container has open", stream.path);
    let name = cstring(stream.path.as_ref(), "path")?;
    let found = path::open(&name, OFlag::O_PATH | OFlag::O_NOFOLLOW).context(attempt)?;
    let status = path::fstat(found.as_fd()).context(attempt)?;
    let kind = |mode: u32| mode & libc::S_IFMT;
    if status.st_ino != stream.inode || recorded.iter().any(|one| kind(one.mode) != kind(status.st_mode)) {
        return Err(Error::other(format!("{}: it is another one now", attempt())));
    }
    Ok(found)
}

/// Makes a descriptor one that a process can go on with.
fn adapt(descriptor: OwnedFd, stream: &Stream, recorded: &[Recorded]) -> Result<Inherited> {
    let found = given(descriptor.as_fd(), stream)?;
    let descriptor = match streams::way(recorded, &found) {
        Way::ByImage => return Ok((descriptor, stream.key.clone())),
        Way::AsItIs => descriptor,
        Way::Again(flags) => reopen(descriptor.as_fd(), OFlag::from_bits_retain(flags), stream)?,
    };
    if found.mode & libc::S_IFMT == libc::S_IFREG && streams::appends(recorded) {
        let attempt = || format!("let {:?} be appended to", stream.path);
        let flags = status_flags(descriptor.as_fd()).context(attempt)?;
        fcntl(&descriptor, FcntlArg::F_SETFL(flags | OFlag::O_APPEND)).context(attempt)?;
    }
    seek(descriptor.as_fd(), streams::position(recorded, &found))?;
    Ok((descriptor, streams::key_as_it_is(&stream.key).to_owned()))
}

/// Opens what a descriptor stands for once more.
fn reopen(descriptor: BorrowedFd<'_>, flags: OFlag, stream: &Stream) -> Result<OwnedFd> {
    let attempt = || format!("open {:?} again", stream.path);
    let name = cstring(format!("/proc/self/fd/{}", descriptor.as_raw_fd()).as_ref(), "path")?;
    // An end of a FIFO waits for the other end.
    let fifo = path::fstat(descriptor).context(attempt)?.st_mode & libc::S_IFMT == libc::S_IFIFO;
    let _both = if fifo { Some(path::open(&name, OFlag::O_RDWR).context(attempt)?) } else { None };
    path::open(&name, flags).context(attempt)
}

/// Describes what a descriptor stands for, beside the file that was dumped.
fn given(descriptor: BorrowedFd<'_>, stream: &Stream) -> Result<Given> {
    let attempt = || format!("look at what takes the place of {:?}", stream.path);
    let status = path::fstat(descriptor).context(attempt)?;
    let flags = status_flags(descriptor).context(attempt)?;
    let link = std::fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd())).context(attempt)?;
    let same_path = !stream.path.is_empty() && link == Path::new(&stream.path);
    let unread = match status.st_mode & libc::S_IFMT {
        libc::S_IFIFO => is_unread(descriptor, flags, stream)?,
        _ => false,
    };
    Ok(Given {
        mode: status.st_mode,
        size: status.st_size.unsigned_abs(),
        flags: flags.bits(),
        same: same_path || (status.st_dev, status.st_ino) == (stream.device, stream.inode),
        unread,
        input: stream.numbers.contains(&libc::STDIN_FILENO),
    })
}

/// Says whether there is something in a FIFO.
fn is_unread(fifo: BorrowedFd<'_>, flags: OFlag, stream: &Stream) -> Result<bool> {
    let attempt = || format!("look into {:?}", stream.path);
    let opened = match flags.contains(OFlag::O_PATH) {
        true => Some(reopen(fifo, OFlag::O_RDONLY, stream)?),
        false => None,
    };
    let open = opened.as_ref().map_or(fifo, AsFd::as_fd);
    Ok(fd::unread(open).context(attempt)? > 0)
}

fn status_flags(descriptor: BorrowedFd<'_>) -> nix::Result<OFlag> {
    fcntl(descriptor, FcntlArg::F_GETFL).map(OFlag::from_bits_retain)
}

fn seek(descriptor: BorrowedFd<'_>, position: Option<u64>) -> Result<()> {
    let Some(position) = position else { return Ok(()) };
    let offset = i64::try_from(position).unwrap_or(i64::MAX);
    lseek(descriptor, offset, Whence::SeekSet).map(drop).context(|| format!("go to byte {position} of a stream"))
}

fn is_null(descriptor: BorrowedFd<'_>) -> Result<bool> {
    let status = path::fstat(descriptor).context(|| "stat a standard stream")?;
    Ok(status.st_mode & libc::S_IFMT == libc::S_IFCHR && status.st_rdev == libc::makedev(1, 3))
}

fn is_device(recorded: &[Recorded]) -> bool {
    recorded.iter().any(|one| one.mode & libc::S_IFMT == libc::S_IFCHR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::path::PathBuf;

    fn stream(file: &Path) -> Stream {
        let found = file.metadata().unwrap();
        let path = file.to_str().unwrap().to_owned();
        Stream { numbers: vec![1], key: "file[1:2]".to_owned(), path, device: found.dev(), inode: found.ino() }
    }

    fn recorded(flags: i32, position: u64, size: u64) -> Vec<Recorded> {
        vec![Recorded { flags, position, size: Some(size), mode: libc::S_IFREG | 0o644 }]
    }

    #[test]
    fn a_number_is_what_the_first_process_has_there() {
        let open = |pid, number, inode| OpenFile {
            pid,
            number,
            link: PathBuf::from("/nowhere"),
            device: 1,
            inode,
            key: streams::key(9, inode),
            queue: false,
        };
        let queue = OpenFile { queue: true, ..open(1, 0, 30) };
        let all =
            [queue, open(1, 1, 10), open(1, 2, 10), open(1, 3, 20), open(2, 1, 40), open(2, 0, 50), open(2, 5, 50)];
        let found: Vec<_> = find(&all).into_iter().map(|stream| (stream.inode, stream.numbers)).collect();
        assert_eq!(found, [(10, vec![1, 2]), (20, vec![]), (40, vec![]), (50, vec![0])]);
        assert_eq!(find(&all)[0].path, "", "it is not there under that name");
    }

    #[test]
    fn output_is_appended_through_the_descriptor_that_was_given() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        std::fs::write(&path, "0123456789").unwrap();
        let mut ours = File::options().read(true).write(true).open(&path).unwrap();
        let given = ours.try_clone().unwrap().into();
        let (theirs, key) = adapt(given, &stream(&path), &recorded(libc::O_WRONLY, 4, 4)).unwrap();
        assert_eq!(key, "ile[1:2]");
        File::from(theirs).write_all(b"ab").unwrap();
        ours.write_all(b"c").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "0123456789abc");
        // One that only appends does so through whatever it is given.
        let given = ours.try_clone().unwrap().into();
        let appending = recorded(libc::O_WRONLY | libc::O_APPEND, 4, 4);
        let (theirs, _) = adapt(given, &stream(&path), &appending).unwrap();
        ours.rewind().unwrap();
        File::from(theirs).write_all(b"d").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "0123456789abcd");
    }

    #[test]
    fn the_old_file_is_opened_if_it_is_still_there() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("input");
        std::fs::write(&path, "0123456789").unwrap();
        let (old, recorded) = (stream(&path), recorded(libc::O_RDONLY, 7, 10));
        let (theirs, _) = adapt(original(&old, &recorded).unwrap(), &old, &recorded).unwrap();
        let mut rest = String::new();
        File::from(theirs).read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "789");
        std::fs::rename(&path, place.path().join("moved")).unwrap();
        std::os::unix::fs::symlink("moved", &path).unwrap();
        assert!(original(&old, &recorded).unwrap_err().to_string().ends_with("it is another one now"));
        std::fs::remove_file(&path).unwrap();
        assert!(original(&old, &recorded).unwrap_err().to_string().ends_with("no such file or directory"));
    }

    #[test]
    fn an_end_of_a_fifo_does_not_wait() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let old = stream(&path);
        let written = [Recorded { flags: libc::O_WRONLY, mode: libc::S_IFIFO | 0o600, ..Recorded::default() }];
        let (theirs, key) = adapt(original(&old, &written).unwrap(), &old, &written).unwrap();
        assert_eq!(key, "ile[1:2]");
        assert_eq!(status_flags(theirs.as_fd()).unwrap() & OFlag::O_ACCMODE, OFlag::O_WRONLY);
        let read = [Recorded { flags: libc::O_RDONLY, ..written[0] }];
        let (_, key) = adapt(original(&old, &read).unwrap(), &old, &read).unwrap();
        assert_eq!(key, "file[1:2]", "what was in it is in the image");
    }
}
