//! What was typed on a container's terminal and its program has not read yet. It is in the kernel, and CRIU leaves it
//! there: the other end of that terminal is not among the processes.

use crate::criu::manifest::Manifest;
use crate::error::{Context, Result};
use crate::plan::process::cstring;
use crate::sys::{Errno, path, tty};
use nix::fcntl::OFlag;
use nix::libc;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The major numbers of the ends of pseudo-terminals that programs have.
const PSEUDO_TERMINALS: std::ops::RangeInclusive<libc::c_uint> = 136..=143;

/// Returns what is unread on the terminal of a container's init, whose processes are stopped.
pub fn unread(init: i32) -> Result<Vec<u8>> {
    let Some(terminal) = open(init)? else { return Ok(Vec::new()) };
    // Only the host's root may put back what has to be taken to be seen.
    if super::is_rootless() {
        return Ok(Vec::new());
    }
    tty::unread_input(terminal.as_fd()).context(|| "read what was typed on the terminal")
}

/// Puts back what was unread when the images were made, before the processes go on.
pub fn put_back(init: i32, images: &Path) -> Result<()> {
    let input = Manifest::load(images)?.map(|manifest| manifest.terminal_input).unwrap_or_default();
    let terminal = if input.is_empty() { None } else { open(init)? };
    terminal.map_or(Ok(()), |terminal| {
        tty::put_input(terminal.as_fd(), &input).context(|| "put back what was typed on the terminal")
    })
}

/// Opens the terminal that a process has as a standard stream, if it has one that somebody has the other end of.
fn open(pid: i32) -> Result<Option<OwnedFd>> {
    for number in 0..3 {
        let place = PathBuf::from(format!("/proc/{pid}/fd/{number}"));
        let Ok(status) = std::fs::metadata(&place) else { continue };
        if !(status.file_type().is_char_device() && PSEUDO_TERMINALS.contains(&libc::major(status.rdev()))) {
            continue;
        }
        let name = cstring(place.as_os_str(), "descriptor")?;
        return match path::open(&name, OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK) {
            Err(Errno::EIO | Errno::ENXIO) => Ok(None),
            opened => opened.map(Some).context(|| format!("open terminal {}", place.display())),
        };
    }
    Ok(None)
}
