//! Compiled programs kept by content, so that the next start with the same profile does without
//! libseccomp.
//!
//! An entry is named after a hash of its key but holds the key itself, and is used only if that is
//! the one asked for, byte for byte: the hash need not resist anybody. What must be kept out is an
//! entry that somebody else wrote, since it would become the filter of a container. Therefore
//! directory and file have to be ours and closed to everybody else, and no symbolic link is
//! followed to either.

use super::MAX_INSTRUCTIONS;
use super::build::decode;
use libc::sock_filter;
use nix::Result;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::{UnlinkatFlags, geteuid, mkdir, unlinkat};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Opens an entry; the last byte is the version of the layout.
const MAGIC: [u8; 8] = *b"scmpbpf\x02";
/// Magic, length of the key, number of instructions, checksum.
const HEADER: usize = 8 + 4 + 4 + 8;
/// A host uses a handful of profiles; the bound is against one that writes a new profile for each
/// container.
const MAX_ENTRIES: usize = 64;

/// Returns the program that was stored for `key`, if there is one and nothing is wrong with it.
pub(super) fn load(dir: &Path, key: &[u8]) -> Option<Vec<sock_filter>> {
    let dir = open_dir(dir).ok()?;
    // O_NONBLOCK: whatever lies there, opening it must not wait.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = openat(&dir, name(key).as_str(), flags, Mode::empty()).ok()?;
    let stat = fstat(&file).ok()?;
    let longest = HEADER + key.len() + MAX_INSTRUCTIONS * size_of::<sock_filter>();
    let length = usize::try_from(stat.st_size).ok()?;
    if !is_ours(&stat, SFlag::S_IFREG) || length > longest {
        return None;
    }
    let mut bytes = Vec::with_capacity(length);
    File::from(file).take(longest as u64).read_to_end(&mut bytes).ok()?;
    unpack(&bytes, key)
}

/// Stores `program` for `key`. A reader sees all of it or nothing.
pub(super) fn store(dir: &Path, key: &[u8], program: &[sock_filter]) -> Result<()> {
    match mkdir(dir, Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno),
    }
    make_room(dir);
    let dir = open_dir(dir)?;
    // Only a process with our pid that died half way can have left this name.
    let draft = format!(".{}", std::process::id());
    let file = match create(&dir, &draft) {
        Err(Errno::EEXIST) => {
            unlinkat(&dir, draft.as_str(), UnlinkatFlags::NoRemoveDir)?;
            create(&dir, &draft)?
        }
        other => other?,
    };
    let written = File::from(file).write_all(&pack(key, program));
    written
        .map_err(|err| err.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
        .and_then(|()| renameat(&dir, draft.as_str(), &dir, name(key).as_str()))
        .inspect_err(|_| {
            // The first failure is the one to report.
            unlinkat(&dir, draft.as_str(), UnlinkatFlags::NoRemoveDir).unwrap_or_default();
        })
}

/// Opens the directory of entries, if nobody else can have put anything in it.
fn open_dir(path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let dir = open(path, flags, Mode::empty())?;
    if is_ours(&fstat(&dir)?, SFlag::S_IFDIR) { Ok(dir) } else { Err(Errno::EPERM) }
}

fn create(dir: impl AsFd, name: &str) -> Result<OwnedFd> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    openat(dir, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
}

fn is_ours(stat: &FileStat, kind: SFlag) -> bool {
    let others = (Mode::S_IRWXG | Mode::S_IRWXO).bits();
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == kind
        && stat.st_uid == geteuid().as_raw()
        && stat.st_mode & others == 0
}

/// Removes the oldest entry if the directory is full. Failing to costs space, not correctness.
fn make_room(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let entries: Vec<_> =
        entries.flatten().filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()))).collect();
    if entries.len() >= MAX_ENTRIES
        && let Some((_, oldest)) = entries.iter().min()
        && let Err(err) = std::fs::remove_file(oldest)
    {
        log::debug!("remove {}: {err}", oldest.display());
    }
}

fn name(key: &[u8]) -> String {
    format!("{:016x}", hash(SEED, key))
}

/// Returns the bytes of an entry.
fn pack(key: &[u8], program: &[sock_filter]) -> Vec<u8> {
    let mut code = Vec::with_capacity(size_of_val(program));
    for instruction in program {
        code.extend(instruction.code.to_ne_bytes());
        code.extend([instruction.jt, instruction.jf]);
        code.extend(instruction.k.to_ne_bytes());
    }
    let mut bytes = Vec::with_capacity(HEADER + key.len() + code.len());
    bytes.extend(MAGIC);
    bytes.extend((key.len() as u32).to_ne_bytes());
    bytes.extend((program.len() as u32).to_ne_bytes());
    bytes.extend(checksum(key, &code).to_ne_bytes());
    bytes.extend(key);
    bytes.extend(code);
    bytes
}

/// Returns the program of an entry, if the entry is whole and was stored for `key`.
fn unpack(bytes: &[u8], key: &[u8]) -> Option<Vec<sock_filter>> {
    let (magic, rest) = bytes.split_first_chunk::<8>()?;
    let (key_length, rest) = rest.split_first_chunk::<4>()?;
    let (instructions, rest) = rest.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<8>()?;
    let (stored_key, code) = rest.split_at_checked(u32::from_ne_bytes(*key_length) as usize)?;
    if *magic != MAGIC || stored_key != key || checksum(key, code).to_ne_bytes() != *sum {
        return None;
    }
    let program = decode(code)?;
    (!program.is_empty() && program.len() == u32::from_ne_bytes(*instructions) as usize).then_some(program)
}

fn checksum(key: &[u8], code: &[u8]) -> u64 {
    hash(hash(SEED, key), code)
}

/// Where a hash begins: FNV-1a's offset basis.
const SEED: u64 = 0xcbf2_9ce4_8422_2325;

/// Goes on with a hash: FNV-1a, but by words of eight bytes, since a profile has thousands.
fn hash(from: u64, bytes: &[u8]) -> u64 {
    let step = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3);
    let mut words = bytes.chunks_exact(8);
    let hash =
        words.by_ref().fold(from, |hash, word| step(hash, u64::from_ne_bytes(word.try_into().unwrap_or_default())));
    words.remainder().iter().fold(hash, |hash, byte| step(hash, u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn program() -> Vec<sock_filter> {
        (0..5).map(|k| sock_filter { code: 6, jt: 1, jf: 2, k }).collect()
    }

    fn same(program: &[sock_filter]) -> bool {
        pack(b"", program) == pack(b"", &self::program())
    }

    #[test]
    fn an_entry_is_read_back_for_its_own_key_only() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("seccomp");
        assert!(load(&dir, b"key").is_none());
        store(&dir, b"key", &program()).unwrap();
        assert!(same(&load(&dir, b"key").unwrap()));
        assert!(load(&dir, b"kez").is_none());
        assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let file = dir.join(name(b"key"));
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1, "no draft is left");

        // A hash that collides: the right name over another key's entry.
        std::fs::rename(&file, dir.join(name(b"other"))).unwrap();
        assert!(load(&dir, b"other").is_none());
    }

    #[test]
    fn a_damaged_entry_is_no_entry() {
        let whole = pack(b"key", &program());
        assert!(unpack(&whole, b"key").is_some());
        for at in 0..whole.len() {
            assert!(unpack(&whole[..at], b"key").is_none(), "cut at {at}");
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            assert!(unpack(&changed, b"key").is_none(), "changed at {at}");
        }
        let mut longer = whole.clone();
        longer.extend([0; 8]);
        assert!(unpack(&longer, b"key").is_none());
        assert!(unpack(&pack(b"key", &[]), b"key").is_none());
    }

    #[test]
    fn what_others_can_write_is_not_used() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("seccomp");
        store(&dir, b"key", &program()).unwrap();
        let chmod = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let file = dir.join(name(b"key"));

        chmod(&file, 0o620);
        assert!(load(&dir, b"key").is_none());
        chmod(&file, 0o600);
        chmod(&dir, 0o770);
        assert!(load(&dir, b"key").is_none());
        assert_eq!(store(&dir, b"key", &program()), Err(Errno::EPERM));
        chmod(&dir, 0o700);
        assert!(load(&dir, b"key").is_some());

        let link = root.path().join("link");
        symlink(&dir, &link).unwrap();
        assert!(load(&link, b"key").is_none());
        std::fs::rename(&file, root.path().join("moved")).unwrap();
        symlink(root.path().join("moved"), &file).unwrap();
        assert!(load(&dir, b"key").is_none());
    }

    #[test]
    fn a_stale_draft_is_in_nobodys_way_and_old_entries_go() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("seccomp");
        std::fs::create_dir(&dir).unwrap();
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::write(dir.join(format!(".{}", std::process::id())), "half").unwrap();
        for key in 0..MAX_ENTRIES as u32 + 5 {
            store(&dir, &key.to_ne_bytes(), &program()).unwrap();
        }
        assert!(std::fs::read_dir(&dir).unwrap().count() <= MAX_ENTRIES);
        assert!(load(&dir, &(MAX_ENTRIES as u32 + 4).to_ne_bytes()).is_some());
    }
}
