//! The files of a cgroup: small texts, read and written whole, one value for each system call.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::path::Path;

use crate::sys::{Errno, Result};

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<String> {
    let mut text = String::with_capacity(256);
    std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text)).map_err(errno)?;
    Ok(text)
}

/// Writes a value into a file that is there: without O_CREAT, for which a cgroup has EACCES instead
/// of ENOENT.
pub(super) fn write(path: &Path, value: &str) -> Result<()> {
    let mut file = OpenOptions::new().write(true).open(path).map_err(errno)?;
    // The kernel takes each write as one value, and hears nothing of an empty one. None is split: a
    // file takes at least a page.
    file.write(value.as_bytes()).map(drop).map_err(errno)
}

/// Writes a value that may have several lines, each of which the kernel has to get alone.
pub(super) fn write_lines(path: &Path, value: &str) -> Result<()> {
    let mut file = OpenOptions::new().write(true).open(path).map_err(errno)?;
    for line in value.strip_suffix('\n').unwrap_or(value).split('\n') {
        file.write(line.as_bytes()).map_err(errno)?;
    }
    Ok(())
}

/// Returns the number after `key` in a file of keys and values.
pub(super) fn value(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Returns the kernel's part of an I/O error.
pub(super) fn errno(err: io::Error) -> Errno {
    err.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw)
}
