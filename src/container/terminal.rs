//! What was typed on a container's terminal and its program has not read yet. It is in the kernel, and CRIU leaves it
//! there: the other end of that terminal is not among the processes.

use crate::criu::manifest::Manifest;
use crate::error::{Context, Result};
use crate::plan::process::cstring;
use crate::sys::tty::{self, Unread};
use crate::sys::{Errno, path, pty};
use nix::fcntl::OFlag;
use nix::libc;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The major numbers of the ends of pseudo-terminals that programs have.
const PSEUDO_TERMINALS: std::ops::RangeInclusive<libc::c_uint> = 136..=143;

/// Returns what is unread on the terminal that a container's init has as a standard stream. The processes are stopped,
/// and CRIU has found the terminal to be the container's own.
pub fn unread(init: i32) -> Result<Unread> {
    // Only the host's root may put back what has to be taken to be seen.
    let terminal = if super::is_rootless() { None } else { open(init)? };
    terminal.map_or(Ok(Unread::default()), |terminal| {
        tty::unread_input(terminal.as_fd()).context(|| "read what was typed on the terminal")
    })
}

/// Puts what was unread when the images were made into the terminal of this master, which CRIU has just made: into
/// another one, such as the caller's, an image could type commands.
pub fn put_back(master: BorrowedFd<'_>, images: &Path) -> Result<()> {
    let Some(Manifest { terminal_input: bytes, terminal_ends: ends, .. }) = Manifest::load(images)? else {
        return Ok(());
    };
    let input = Unread { bytes, ends };
    if input == Unread::default() {
        return Ok(());
    }
    let put = pty::open_peer(master).and_then(|terminal| tty::put_input(terminal.as_fd(), &input));
    put.context(|| "put back what was typed on the terminal")
}

fn open(pid: i32) -> Result<Option<OwnedFd>> {
    for number in 0..3 {
        let place = PathBuf::from(format!("/proc/{pid}/fd/{number}"));
        let Ok(status) = std::fs::metadata(&place) else { continue };
        if !(status.file_type().is_char_device() && PSEUDO_TERMINALS.contains(&libc::major(status.rdev()))) {
            continue;
        }
        let name = cstring(place.as_os_str(), "descriptor")?;
        return match path::open(&name, OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK) {
            // Nobody has the other end.
            Err(Errno::EIO | Errno::ENXIO) => Ok(None),
            opened => opened.map(Some).context(|| format!("open terminal {}", place.display())),
        };
    }
    Ok(None)
}
