//! Reading a directory without allocating: the inside does so between clone and execve.

use super::{Result, cvt};
use nix::libc;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Room for some names; the kernel wants enough for one, which has 255 bytes at most.
const ROOM: usize = 2048;

/// Where the name stands in an entry (struct linux_dirent64): behind inode, offset, length and type.
const NAME: usize = 19;

/// The names in a directory, `.` and `..` left out.
#[derive(Debug)]
pub struct Names<'a> {
    directory: BorrowedFd<'a>,
    buffer: [u8; ROOM],
    at: usize,
    end: usize,
}

impl<'a> Names<'a> {
    /// Begins with the first name of a directory that was just opened for reading.
    pub fn new(directory: BorrowedFd<'a>) -> Self {
        Self { directory, buffer: [0; ROOM], at: 0, end: 0 }
    }

    /// Returns the next name; nothing behind the last one.
    pub fn next_name(&mut self) -> Result<Option<&CStr>> {
        loop {
            if self.at >= self.end {
                self.fill()?;
                if self.end == 0 {
                    return Ok(None);
                }
            }
            let start = self.at;
            let length = self.buffer.get(start + 16..start + 18).and_then(|bytes| bytes.try_into().ok());
            // An entry without a length would be read for ever.
            self.at += usize::from(u16::from_ne_bytes(length.unwrap_or_default())).max(NAME);
            if !matches!(self.name(start).to_bytes(), b"" | b"." | b"..") {
                return Ok(Some(self.name(start)));
            }
        }
    }

    fn name(&self, start: usize) -> &CStr {
        let bytes = self.buffer.get(start + NAME..self.at.min(self.end)).unwrap_or_default();
        CStr::from_bytes_until_nul(bytes).unwrap_or_default()
    }

    fn fill(&mut self) -> Result<()> {
        let (number, buffer) = (self.directory.as_raw_fd(), self.buffer.as_mut_ptr());
        // SAFETY: the kernel writes no more than the length that is passed, which is that of the buffer.
        let count = cvt(unsafe { libc::syscall(libc::SYS_getdents64, number, buffer, ROOM) })?;
        (self.at, self.end) = (0, count as usize);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn every_name_is_told_once() {
        let directory = tempfile::tempdir().unwrap();
        let opened = File::open(directory.path()).unwrap();
        assert_eq!(Names::new(opened.as_fd()).next_name(), Ok(None));
        let long = "x".repeat(252);
        let expected: BTreeSet<String> = (0..40).map(|number| format!("{long}{number:03}")).collect();
        expected.iter().for_each(|name| drop(File::create(directory.path().join(name)).unwrap()));
        let opened = File::open(directory.path()).unwrap();
        let (mut names, mut found) = (Names::new(opened.as_fd()), Vec::new());
        while let Some(name) = names.next_name().unwrap() {
            found.push(name.to_str().unwrap().to_owned());
        }
        assert_eq!(found.len(), expected.len());
        assert_eq!(BTreeSet::from_iter(found), expected);
    }
}
