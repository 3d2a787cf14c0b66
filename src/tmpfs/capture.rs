//! From a tree to an archive.
//!
//! Other containers may go on writing to a tmpfs that they share: a file has in the archive the length that it had when
//! it was looked at, with zeros for what was cut off meanwhile.

use super::hexadecimal;
use super::tree::{Found, walk};
use crate::error::{Context, Result};
use crate::sys::{Errno, xattr};
use nix::fcntl::{OFlag, readlinkat};
use nix::libc;
use nix::sys::stat::{FileStat, Mode};
use nix::unistd::{Whence, lseek64};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Cursor, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tar::{Builder, EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

/// How much is read and written at once.
const BLOCK: usize = 1 << 20;

/// What is in an archive.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Captured {
    /// SHA-256 of the archive, in hexadecimal.
    pub sha256: String,
    /// How many bytes the files have allocated.
    pub bytes: u64,
    /// How many files of all types.
    pub entries: u64,
}

/// Writes everything below `root` to an archive.
pub fn capture(root: BorrowedFd<'_>, archive: File) -> Result<Captured> {
    let sink = Hashed { inner: BufWriter::with_capacity(BLOCK, archive), hash: Sha256::new() };
    let mut writing = Writing { tar: Builder::new(sink), seen: HashMap::new(), captured: Captured::default() };
    walk(root, &mut |path, found| writing.add(path, found).context(|| format!("archive {}", path.display())))?;
    let attempt = || "finish the archive";
    let mut sink = writing.tar.into_inner().context(attempt)?;
    sink.flush().context(attempt)?;
    Ok(Captured { sha256: hexadecimal(sink.hash), ..writing.captured })
}

/// An archive that grows.
struct Writing {
    tar: Builder<Hashed>,
    /// The first names of files that have several, by inode.
    seen: HashMap<u64, PathBuf>,
    captured: Captured,
}

impl Writing {
    fn add(&mut self, path: &Path, found: &Found) -> io::Result<()> {
        let kind = match entry_type(found.kind()) {
            Some(kind) => kind,
            None => return Ok(()),
        };
        self.captured.entries += 1;
        let mut header = header(&found.status, kind);
        if kind != EntryType::Directory && found.status.st_nlink > 1 {
            if let Some(first) = self.seen.get(&found.status.st_ino) {
                header.set_entry_type(EntryType::Link);
                return self.tar.append_link(&mut header, path, first);
            }
            self.seen.insert(found.status.st_ino, path.to_owned());
        }
        let Some(file) = &found.file else {
            // A mount point, which has nothing in it as far as can be seen.
            return self.tar.append_data(&mut header, path, io::empty());
        };
        self.add_extensions(file.as_fd(), &found.status)?;
        match kind {
            EntryType::Regular => self.add_file(path, header, file.as_fd(), &found.status),
            EntryType::Symlink => self.tar.append_link(&mut header, path, readlinkat(file, c"")?),
            _ => self.tar.append_data(&mut header, path, io::empty()),
        }
    }

    /// Adds what the header of a file has no room for: fractions of its time, and its extended attributes.
    fn add_extensions(&mut self, file: BorrowedFd<'_>, status: &FileStat) -> io::Result<()> {
        let time = format!("{}.{:09}", status.st_mtime, status.st_mtime_nsec).into_bytes();
        let mut extensions = vec![("mtime".to_owned(), time)];
        for name in xattr::list(file).or_else(none_where_unsupported)? {
            // Where there are labels the mount gives them, and the kernel lets nobody set them one by one.
            if name.as_c_str() == c"security.selinux" {
                continue;
            }
            let value = xattr::get(file, &name)?;
            extensions.push((format!("SCHILY.xattr.{}", name.to_string_lossy()), value));
        }
        self.tar.append_pax_extensions(extensions.iter().map(|(key, value)| (key.as_str(), value.as_slice())))
    }

    fn add_file(&mut self, path: &Path, mut header: Header, file: BorrowedFd<'_>, status: &FileStat) -> io::Result<()> {
        let length = u64::try_from(status.st_size).unwrap_or(0);
        self.captured.bytes += u64::try_from(status.st_blocks).unwrap_or(0) * 512;
        let opened =
            nix::fcntl::open(xattr::proc_path(file).as_c_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let segments = segments(opened.as_fd(), length)?;
        let file = File::from(opened);
        let stored: u64 = segments.iter().map(|(_, length)| length).sum();
        header.set_size(stored);
        if stored == length {
            return self.tar.append_data(&mut header, path, Segments { file, left: segments });
        }
        header.set_entry_type(EntryType::GNUSparse);
        let map = sparse_map(&mut header, &segments, length)?;
        self.tar.append_data(&mut header, path, Cursor::new(map).chain(Segments { file, left: segments }))
    }
}

/// Returns how an archive calls a type of file; nothing for a socket, which it cannot hold.
fn entry_type(kind: u32) -> Option<EntryType> {
    match kind {
        libc::S_IFREG => Some(EntryType::Regular),
        libc::S_IFDIR => Some(EntryType::Directory),
        libc::S_IFLNK => Some(EntryType::Symlink),
        libc::S_IFIFO => Some(EntryType::Fifo),
        libc::S_IFCHR => Some(EntryType::Char),
        libc::S_IFBLK => Some(EntryType::Block),
        _ => None,
    }
}

fn header(status: &FileStat, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(status.st_mode & 0o7777);
    header.set_uid(status.st_uid.into());
    header.set_gid(status.st_gid.into());
    header.set_mtime(u64::try_from(status.st_mtime).unwrap_or(0));
    header.set_size(0);
    if let (EntryType::Char | EntryType::Block, Some(gnu)) = (kind, header.as_gnu_mut()) {
        gnu.set_device_major(libc::major(status.st_rdev));
        gnu.set_device_minor(libc::minor(status.st_rdev));
    }
    header
}

/// Writes where the data of a sparse file belongs: into the header, and the rest into blocks that follow it.
fn sparse_map(header: &mut Header, segments: &[(u64, u64)], length: u64) -> io::Result<Vec<u8>> {
    // The last one has no data: it says how long the file is, should it end with a hole.
    let mut all: Vec<(u64, u64)> = segments.to_vec();
    all.push((length, 0));
    let write = |place: &mut GnuSparseHeader, (offset, length): &(u64, u64)| {
        place.set_offset(*offset);
        place.set_length(*length);
    };
    let gnu = header.as_gnu_mut().ok_or(Errno::EINVAL)?;
    let (here, there) = all.split_at(all.len().min(gnu.sparse.len()));
    gnu.sparse.iter_mut().zip(here).for_each(|(place, segment)| write(place, segment));
    gnu.set_real_size(length);
    gnu.set_is_extended(!there.is_empty());
    let mut blocks = Vec::new();
    let mut rest = there.chunks(GnuExtSparseHeader::new().sparse.len()).peekable();
    while let Some(some) = rest.next() {
        let mut block = GnuExtSparseHeader::new();
        block.sparse_mut().iter_mut().zip(some).for_each(|(place, segment)| write(place, segment));
        block.set_is_extended(rest.peek().is_some());
        blocks.extend_from_slice(block.as_bytes());
    }
    Ok(blocks)
}

/// Returns where a file of this length has data: offset and length of each part.
fn segments(file: BorrowedFd<'_>, length: u64) -> io::Result<Vec<(u64, u64)>> {
    let seek = |at: u64, whence| lseek64(file, at as i64, whence).map(|found| found as u64);
    let mut all = Vec::new();
    let mut at = 0;
    while at < length {
        let start = match seek(at, Whence::SeekData) {
            // Only a hole is left.
            Err(Errno::ENXIO) => break,
            other => other?,
        };
        if start >= length {
            break;
        }
        at = seek(start, Whence::SeekHole)?.min(length);
        all.push((start, at - start));
    }
    Ok(all)
}

/// The data of a file, part by part: as much as was promised, whatever becomes of the file.
struct Segments {
    file: File,
    left: Vec<(u64, u64)>,
}

impl Read for Segments {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some((offset, length)) = self.left.first_mut() else { return Ok(0) };
        let wanted = usize::try_from(*length).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = buffer.get_mut(..wanted).unwrap_or_default();
        let count = match self.file.read_at(buffer, *offset)? {
            0 => {
                buffer.fill(0);
                wanted
            }
            count => count,
        };
        *offset += count as u64;
        *length -= count as u64;
        if *length == 0 {
            self.left.remove(0);
        }
        Ok(count)
    }
}

/// A file, and the hash of what is written to it.
struct Hashed {
    inner: BufWriter<File>,
    hash: Sha256,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn none_where_unsupported<T: Default>(errno: Errno) -> crate::sys::Result<T> {
    if errno == Errno::EOPNOTSUPP { Ok(T::default()) } else { Err(errno) }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
