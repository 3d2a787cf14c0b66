//! Runs us from an image of our program that cannot be written, not even by root (CVE-2019-5736).
//!
//! A process in a container can reach the file that it was started from through /proc/PID/exe. Our
//! init is that process until execve, and an image may name /proc/self/exe as its program, or as
//! the interpreter of a script, and so get hold of the runtime's own file; root in a container
//! without a user namespace could then overwrite it on the host. So a command that puts a process
//! in a container first executes itself again from a sealed image: an overlay of the program's
//! directory that has no upper layer and is attached nowhere, or else a sealed copy in memory. The
//! first costs a mount and nothing per byte, the second works without privileges.
//!
//! A read-only bind mount is not enough: a descriptor opened through it leads to the same file.

use crate::error::{Context, Error, Result};
use crate::sys;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl, open, readlink};
use nix::sys::stat::{FileStat, Mode, fchmod, stat};
use std::ffi::{CStr, CString, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

const OURSELVES: &str = "/proc/self/exe";

/// What makes a file in memory unchangeable for good.
const SEALS: SealFlag =
    SealFlag::F_SEAL_SEAL.union(SealFlag::F_SEAL_SHRINK).union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_WRITE);

/// How this process's program is protected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It was executed from an overlay without an upper layer, attached nowhere.
    Overlay,
    /// It was executed from a sealed file in memory.
    Memory,
}

/// Returns once this process runs from a sealed image.
///
/// If it does not yet, the process executes itself from one, with the same `argv`, environment and
/// descriptors. The binary has usually done that before libc was set up (sys/early.rs). The image
/// itself is not inherited.
pub fn run_sealed(argv: impl IntoIterator<Item = OsString>) -> Result<Outcome> {
    let argv = argv
        .into_iter()
        .map(|arg| CString::new(arg.into_vec()))
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|_| Error::invalid("an argument holds a null byte"))?;
    if let Some(outcome) = recognise(OURSELVES)? {
        restore_name(&argv);
        // runc's words, by which its tests know how it is protected.
        if outcome == Outcome::Overlay {
            log::debug!("runc exeseal: using overlayfs for sealed {OURSELVES}");
        }
        log::debug!("runc exeseal: using {OURSELVES} clone");
        return Ok(outcome);
    }
    sys::seal::execute_from_overlay(&argv);
    log::debug!("no sealed overlay of ourselves: copying to memory");
    let image = copy_of(OURSELVES)?;
    // What will not be recognised after execve would be sealed again, and again.
    if recognise(&by_descriptor(&image))?.is_none() {
        return Err(Error::other("the sealed copy of ourselves cannot be told from the original"));
    }
    let errno = sys::seal::execute(image.as_fd(), &argv);
    Err(Error::system("execute a sealed copy of ourselves", errno))
}

/// Tells whether, and how, the program that `exe` leads to is sealed. `exe` is a link in /proc.
fn recognise(exe: &str) -> Result<Option<Outcome>> {
    let attempt = || format!("examine {exe}");
    if sys::seal::is_on_restricted_overlay(exe).context(attempt)? {
        // Ours has no place in the tree of mounts, so the name that the kernel gives does not lead
        // to the file. Somebody else's read-only overlay could be made writable.
        let name = readlink(exe).context(attempt)?;
        let file = stat(exe).context(attempt)?;
        let attached = stat(name.as_os_str()).is_ok_and(|found| same_file(&found, &file));
        return Ok((!attached).then_some(Outcome::Overlay));
    }
    // Only a file in memory has seals: the kernel made them when we, or somebody with our file open
    // for writing and nothing to gain, asked for them.
    let Ok(file) = open(exe, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()) else {
        return Ok(None);
    };
    let seals = fcntl(&file, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_truncate);
    Ok(seals.is_ok_and(|seals| seals.contains(SEALS)).then_some(Outcome::Memory))
}

/// Returns a sealed copy in memory of the program that `exe` leads to.
fn copy_of(exe: &str) -> Result<OwnedFd> {
    let attempt = || format!("copy {exe} to memory");
    let mut source = File::open(exe).context(attempt)?;
    let mut copy = File::from(sys::seal::executable_memfd(c"stasis").context(attempt)?);
    // By sendfile in the kernel; the bytes do not come here.
    std::io::copy(&mut source, &mut copy).context(attempt)?;
    // Not writable for the owner either: the seals forbid it, the mode says so.
    fchmod(&copy, Mode::from_bits_truncate(0o555)).context(attempt)?;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(SEALS)).context(|| format!("seal a copy of {exe}"))?;
    Ok(copy.into())
}

/// Gives the process the name that it would have without us: executing a descriptor, the kernel
/// before 6.14 takes the descriptor's number for one.
fn restore_name(argv: &[CString]) {
    let Some(program) = argv.first() else { return };
    let bytes = program.as_bytes_with_nul();
    let start = bytes.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    // Cosmetic, and cannot fail for a valid string.
    if let Ok(name) = CStr::from_bytes_with_nul(&bytes[start..])
        && let Err(errno) = sys::seal::set_name(name)
    {
        log::debug!("set the process's name: {errno}");
    }
}

fn by_descriptor(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn same_file(a: &FileStat, b: &FileStat) -> bool {
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}
