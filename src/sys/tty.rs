//! The terminal that the runtime itself was started on: its modes and its size.
//!
//! Pseudo-terminals of containers are made elsewhere.

use super::{Errno, Result, cvt};
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sys::stat::Mode;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Returns the terminal of this process: one of the standard streams, else the controlling terminal.
///
/// # Errors
///
/// ENXIO when there is none.
pub fn own() -> Result<OwnedFd> {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for stream in [stderr.as_fd(), stdout.as_fd(), stdin.as_fd()] {
        if tcgetattr(stream).is_ok() {
            return stream.try_clone_to_owned().map_err(|err| Errno::from_raw(err.raw_os_error().unwrap_or(libc::EIO)));
        }
    }
    open("/dev/tty", OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOCTTY, Mode::empty())
}

/// A terminal in raw mode: what is typed goes to the container's terminal as it is, Ctrl-C included.
///
/// The modes it had come back when this is dropped.
#[derive(Debug)]
pub struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

impl RawMode {
    /// Puts the terminal in raw mode.
    pub fn enter(terminal: OwnedFd) -> Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&terminal, SetArg::TCSANOW, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl AsFd for RawMode {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.terminal.as_fd()
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // The terminal may be gone, and then has no modes to restore.
        _ = tcsetattr(&self.terminal, SetArg::TCSANOW, &self.before);
    }
}

/// Returns the rows and columns of a terminal, unless it has none (0, as of a terminal without a window).
pub fn size(terminal: BorrowedFd<'_>) -> Result<Option<(u16, u16)>> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize.
    cvt(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ as libc::Ioctl, &raw mut size) }.into())?;
    Ok((size.ws_row != 0 && size.ws_col != 0).then_some((size.ws_row, size.ws_col)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::pty::{Winsize, openpty};
    use nix::sys::termios::LocalFlags;

    #[test]
    fn modes_come_back() {
        let pty = openpty(None, None).unwrap();
        let flags = || tcgetattr(&pty.slave).unwrap().local_flags;
        let before = flags();
        assert!(before.contains(LocalFlags::ECHO));
        let raw = RawMode::enter(pty.slave.try_clone().unwrap()).unwrap();
        assert!(!flags().intersects(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG));
        drop(raw);
        assert_eq!(flags(), before);
    }

    #[test]
    fn a_terminal_without_a_window_has_no_size() {
        let sized = |rows, columns| {
            let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            openpty(Some(&size), None).unwrap()
        };
        for (rows, columns, expected) in [(24, 80, Some((24, 80))), (0, 80, None), (24, 0, None), (0, 0, None)] {
            assert_eq!(size(sized(rows, columns).slave.as_fd()).unwrap(), expected);
        }
    }
}
