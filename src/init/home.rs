//! The user's home directory, from the container's /etc/passwd, read line by line into a buffer on the stack.

use crate::sys::{Result, fd, path};
use nix::fcntl::OFlag;
use nix::libc;
use std::os::fd::{AsFd, OwnedFd};

/// The longest line that is understood; longer ones are passed over.
const LINE: usize = 4096;

/// Calls `found` with the home directory of `uid`; not at all when there is none.
pub fn find(uid: u32, found: impl FnOnce(&[u8])) -> Result<()> {
    let file = path::open(c"/etc/passwd", OFlag::O_RDONLY | OFlag::O_NONBLOCK)?;
    if path::fstat(file.as_fd())?.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Ok(());
    }
    let mut lines = Lines { file, buffer: [0; LINE], filled: 0 };
    let mut found = Some(found);
    lines.each(|line| match home_in(line, uid) {
        Some(home) => {
            if let Some(found) = found.take() {
                found(home);
            }
            false
        }
        None => true,
    })
}

struct Lines {
    file: OwnedFd,
    buffer: [u8; LINE],
    filled: usize,
}

impl Lines {
    /// Calls `wants_more` with each line until it says false.
    fn each(&mut self, mut wants_more: impl FnMut(&[u8]) -> bool) -> Result<()> {
        loop {
            if self.filled == self.buffer.len() {
                // A line without end: what is left of it will not look like an entry.
                self.filled = 0;
            }
            let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
            let got = fd::read(self.file.as_fd(), room)?;
            self.filled += got;
            let mut start = 0;
            while let Some(len) = self.buffer[start..self.filled].iter().position(|&b| b == b'\n') {
                if !wants_more(&self.buffer[start..start + len]) {
                    return Ok(());
                }
                start += len + 1;
            }
            if got == 0 {
                wants_more(&self.buffer[start..self.filled]);
                return Ok(());
            }
            self.buffer.copy_within(start..self.filled, 0);
            self.filled -= start;
        }
    }
}

/// Returns the sixth field of a passwd(5) entry whose third is `uid`.
fn home_in(line: &[u8], uid: u32) -> Option<&[u8]> {
    let mut fields = line.split(|&b| b == b':');
    let number = std::str::from_utf8(fields.nth(2)?).ok()?.parse::<u32>().ok()?;
    let home = fields.nth(2)?;
    (number == uid && !home.is_empty()).then_some(home)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_with_the_uid_has_the_home() {
        assert_eq!(home_in(b"u:x:1000:1000:User:/home/u:/bin/sh", 1000), Some(&b"/home/u"[..]));
        assert_eq!(home_in(b"u:x:1000:1000:User:/home/u:/bin/sh", 100), None);
        assert_eq!(home_in(b"u:x:1000:1000:User::/bin/sh", 1000), None);
        assert_eq!(home_in(b"garbage", 1000), None);
    }
}
