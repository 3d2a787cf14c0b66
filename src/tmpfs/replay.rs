//! From an archive to a tree.

use super::tree::{is_remap, look, names, text};
use super::undo::Undo;
use super::{Policy, checksum};
use crate::error::{Context, Error, Result};
use crate::sys::{Errno, path, xattr};
use nix::fcntl::{AtFlags, OFlag};
use nix::libc;
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, linkat, symlinkat};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use tar::{Archive, Entry, EntryType};

/// How much is read at once, and the unit in which zeros become holes: a page.
const BLOCK: usize = 64 << 10;
const PAGE: usize = 4 << 10;

/// The mode of what is not complete yet: nobody but its maker gets in.
const CLOSED: Mode = Mode::S_IRWXU;

type Source<'a> = Entry<'a, BufReader<File>>;

/// Puts the content of an archive into the tree `root`, as far as the policy wants it, and returns how that is undone.
/// When it fails the tree is as it was.
pub fn replay(archive: &Path, sha256: &str, root: OwnedFd, policy: Policy) -> Result<Undo> {
    let found = checksum(archive)?;
    if found != sha256 {
        let text = format!("{} is damaged: its SHA-256 is {found}, not {sha256}", archive.display());
        return Err(Error::other(text));
    }
    let scope = scope(root.as_fd(), policy)?;
    let undo = Undo::new(root).context(|| "stat the tmpfs")?;
    let mut replaying = Replaying { scope, undo, directories: Vec::new() };
    let attempt = || format!("read {}", archive.display());
    let done = File::open(archive).context(attempt).and_then(|file| replaying.run(file));
    match done {
        Ok(()) => Ok(replaying.undo),
        Err(err) => {
            replaying.undo.take_back();
            Err(err)
        }
    }
}

/// What of an archive is wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Scope {
    /// All of it, and it counts more than what is there.
    All,
    /// What is not there.
    Missing,
    /// Names that CRIU gave and needs, and took away again after the dump. They are nobody's data.
    Remaps,
    /// Nothing.
    Nothing,
}

fn scope(root: BorrowedFd<'_>, policy: Policy) -> Result<Scope> {
    Ok(match policy {
        Policy::Never => Scope::Nothing,
        Policy::Overwrite => Scope::All,
        Policy::MergeMissing => Scope::Missing,
        Policy::IfEmpty if names(root, Path::new("."))?.is_empty() => Scope::All,
        Policy::IfEmpty => Scope::Remaps,
    })
}

struct Replaying {
    scope: Scope,
    undo: Undo,
    /// Directories that get their times when nothing changes in them any more.
    directories: Vec<(PathBuf, Attributes)>,
}

/// What a file has beside its content.
struct Attributes {
    mode: Mode,
    owner: (Uid, Gid),
    time: TimeSpec,
    extended: Vec<(CString, Vec<u8>)>,
}

impl Replaying {
    fn run(&mut self, archive: File) -> Result<()> {
        let mut archive = Archive::new(BufReader::with_capacity(BLOCK, archive));
        let attempt = || "read the archive";
        for entry in archive.entries().context(attempt)? {
            let mut entry = entry.context(attempt)?;
            let path = inner_path(&entry.path_bytes())?;
            self.put(&path, &mut entry).context(|| format!("restore {}", path.display()))?;
        }
        for (path, attributes) in std::mem::take(&mut self.directories).into_iter().rev() {
            self.finish(&path, &attributes).context(|| format!("restore {}", path.display()))?;
        }
        Ok(())
    }

    /// Puts one file where it belongs, unless what is there stays.
    fn put(&mut self, path: &Path, entry: &mut Source<'_>) -> io::Result<()> {
        let there = look(self.root(), path)?;
        let is_directory = entry.header().entry_type() == EntryType::Directory;
        let stays = match (&there, self.scope) {
            (_, Scope::Nothing) => true,
            (_, Scope::Remaps) => there.is_some() || !is_remap(path),
            (Some(_), Scope::Missing) => true,
            // What is mounted there is not ours to move.
            (Some(found), Scope::All) => found.file.is_none(),
            (None, _) => false,
        };
        if stays {
            return Ok(());
        }
        let attributes = Attributes::of(entry)?;
        match there {
            Some(found) if is_directory && found.kind() == libc::S_IFDIR => {}
            Some(_) => self.undo.move_aside(path)?,
            None => {}
        }
        if look(self.root(), path)?.is_none() {
            self.make(path, entry)?;
            self.undo.made(path, is_directory);
        }
        match entry.header().entry_type() {
            EntryType::Directory => self.directories.push((path.to_owned(), attributes)),
            EntryType::Link => {}
            EntryType::Regular | EntryType::GNUSparse => {
                self.fill(path, entry)?;
                self.finish(path, &attributes)?;
            }
            _ => self.finish(path, &attributes)?,
        }
        Ok(())
    }

    fn make(&self, path: &Path, entry: &Source<'_>) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        let header = entry.header();
        let device = || -> io::Result<u64> {
            let (major, minor) = (header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0));
            Ok(libc::makedev(major, minor))
        };
        let make_node = |kind, device| mknodat(&parent, name.as_c_str(), kind, CLOSED, device);
        match header.entry_type() {
            EntryType::Regular | EntryType::GNUSparse => make_node(SFlag::S_IFREG, 0)?,
            EntryType::Directory => mkdirat(&parent, name.as_c_str(), CLOSED)?,
            EntryType::Fifo => make_node(SFlag::S_IFIFO, 0)?,
            EntryType::Char => make_node(SFlag::S_IFCHR, device()?)?,
            EntryType::Block => make_node(SFlag::S_IFBLK, device()?)?,
            EntryType::Symlink => symlinkat(target(entry)?.as_slice(), &parent, name.as_c_str())?,
            EntryType::Link => {
                let first = inner_path(&target(entry)?).map_err(|err| io::Error::new(ErrorKind::InvalidData, err))?;
                let (first_parent, first_name) = self.parent(&first)?;
                linkat(&first_parent, first_name.as_c_str(), &parent, name.as_c_str(), AtFlags::empty())?;
            }
            other => return Err(io::Error::new(ErrorKind::InvalidData, format!("entry of type {other:?}"))),
        }
        Ok(())
    }

    /// Writes the content of a regular file that was just made; pages of zeros become holes.
    fn fill(&self, path: &Path, entry: &mut Source<'_>) -> io::Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW;
        let file = File::from(path::open_within(self.root(), &text(path)?, flags, Mode::empty())?);
        let (mut block, mut at) = (vec![0; BLOCK], 0);
        loop {
            let count = read_full(entry, &mut block)?;
            for (page, offset) in block.get(..count).unwrap_or_default().chunks(PAGE).zip((at..).step_by(PAGE)) {
                if page.iter().any(|byte| *byte != 0) {
                    file.write_all_at(page, offset)?;
                }
            }
            at += count as u64;
            if count < block.len() {
                return file.set_len(at);
            }
        }
    }

    /// Gives a file its attributes, in an order in which none takes another away: a new owner those of privilege.
    fn finish(&self, path: &Path, attributes: &Attributes) -> io::Result<()> {
        let found = look(self.root(), path)?.ok_or(Errno::ENOENT)?;
        let Some(file) = &found.file else { return Ok(()) };
        let (uid, gid) = attributes.owner;
        fchownat(file, c"", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH)?;
        let itself = xattr::proc_path(file.as_fd());
        if found.kind() != libc::S_IFLNK {
            fchmodat(nix::fcntl::AT_FDCWD, itself.as_c_str(), attributes.mode, FchmodatFlags::FollowSymlink)?;
        }
        for (name, value) in &attributes.extended {
            xattr::set(file.as_fd(), name, value)?;
        }
        let (time, follow) = (&attributes.time, UtimensatFlags::FollowSymlink);
        utimensat(nix::fcntl::AT_FDCWD, itself.as_c_str(), time, time, follow)?;
        Ok(())
    }

    fn root(&self) -> BorrowedFd<'_> {
        self.undo.root()
    }

    fn parent(&self, path: &Path) -> crate::sys::Result<(OwnedFd, CString)> {
        super::undo::parent(self.root(), path)
    }
}

impl Attributes {
    fn of(entry: &mut Source<'_>) -> io::Result<Self> {
        let header = entry.header();
        let id = |id: io::Result<u64>| u32::try_from(id?).map_err(io::Error::other);
        let mut attributes = Self {
            mode: Mode::from_bits_truncate(header.mode()? & 0o7777),
            owner: (id(header.uid())?.into(), id(header.gid())?.into()),
            time: TimeSpec::new(header.mtime()? as i64, 0),
            extended: Vec::new(),
        };
        for extension in entry.pax_extensions()?.into_iter().flatten() {
            let extension = extension?;
            match (extension.key(), extension.value_bytes()) {
                (Ok("mtime"), value) => attributes.time = time(value).ok_or(Errno::EINVAL)?,
                (Ok(key), value) => {
                    if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                        attributes.extended.push((CString::new(name)?, value.to_vec()));
                    }
                }
                (Err(_), _) => return Err(Errno::EINVAL.into()),
            }
        }
        Ok(attributes)
    }
}

/// Reads seconds and nanoseconds, as in `1700000000.123456789`.
fn time(text: &[u8]) -> Option<TimeSpec> {
    let text = std::str::from_utf8(text).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let nanoseconds = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some(TimeSpec::new(seconds.parse().ok()?, nanoseconds))
}

fn target(entry: &Source<'_>) -> io::Result<Vec<u8>> {
    entry.link_name_bytes().map(|name| name.into_owned()).ok_or_else(|| Errno::EINVAL.into())
}

/// Returns a path of the archive, which may not lead out of the tree.
fn inner_path(bytes: &[u8]) -> Result<PathBuf> {
    let mut inner = PathBuf::new();
    for part in Path::new(std::ffi::OsStr::from_bytes(bytes)).components() {
        match part {
            Component::Normal(name) => inner.push(name),
            Component::CurDir => {}
            _ => {
                let name = String::from_utf8_lossy(bytes);
                return Err(Error::other(format!("the archive has {name:?}, which leads out of it")));
            }
        }
    }
    Ok(if inner.as_os_str().is_empty() { PathBuf::from(".") } else { inner })
}

fn read_full(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match from.read(rest)? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}
