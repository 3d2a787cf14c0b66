//! Terminals that somebody else has made: modes, size, and what was typed on them and is not read yet.
//!
//! Pseudo-terminals of containers are made elsewhere.

use super::{Errno, Result, cvt};
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sys::stat::Mode;
use nix::sys::termios::{InputFlags, LocalFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::read;
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

/// Returns what was typed on a terminal and is not read yet; it stays there, as far as the kernel's buffer takes it back.
///
/// What has not even been looked at by the kernel is read as the modes say it; then, in raw mode, a line that is not
/// complete.
pub fn unread_input(terminal: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let copy = terminal.try_clone_to_owned().map_err(|err| Errno::from_raw(err.raw_os_error().unwrap_or(libc::EIO)));
    let mut all = read_available(terminal)?;
    let raw = RawMode::enter(copy?)?;
    all.extend(read_available(raw.as_fd())?);
    drop(raw);
    put_input(terminal, &all)?;
    Ok(all)
}

fn read_available(terminal: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let (mut all, mut part) = (Vec::new(), [0; 4096]);
    loop {
        match read(terminal, &mut part) {
            Ok(0) | Err(Errno::EAGAIN | Errno::EIO) => return Ok(all),
            Err(errno) => return Err(errno),
            Ok(length) => all.extend_from_slice(&part[..length]),
        }
    }
}

/// Puts into a terminal what was typed on one (TIOCSTI), without a trace of it on the screen and without any key being
/// more than a character: that was seen to when it was typed.
///
/// # Errors
///
/// EIO or EPERM without CAP_SYS_ADMIN.
pub fn put_input(terminal: BorrowedFd<'_>, input: &[u8]) -> Result<()> {
    let before = tcgetattr(terminal)?;
    let mut plain = before.clone();
    plain.input_flags = InputFlags::empty();
    plain.local_flags &= LocalFlags::ICANON;
    tcsetattr(terminal, SetArg::TCSANOW, &plain)?;
    let put = input.iter().try_for_each(|byte| {
        // SAFETY: TIOCSTI reads one byte.
        cvt(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSTI as libc::Ioctl, &raw const *byte) }.into())
            .map(drop)
    });
    tcsetattr(terminal, SetArg::TCSANOW, &before)?;
    put
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

    #[test]
    fn input_stays_and_comes_back() {
        let pty = openpty(None, None).unwrap();
        nix::fcntl::fcntl(&pty.slave, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let line = |terminal: &OwnedFd| {
            let mut bytes = [0; 64];
            let length = read(terminal, &mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        };
        nix::unistd::write(&pty.master, b"first\rsecond\nthi").unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        assert_eq!(unread_input(pty.slave.as_fd()).unwrap(), b"first\nsecond\nthi");
        assert_eq!(tcgetattr(&pty.slave).unwrap(), before);
        assert_eq!([line(&pty.slave), line(&pty.slave)], ["first\n", "second\n"]);
        let other = openpty(None, None).unwrap();
        put_input(other.slave.as_fd(), &unread_input(pty.slave.as_fd()).unwrap()).unwrap();
        nix::unistd::write(&other.master, b"rd\n").unwrap();
        assert_eq!(line(&other.slave), "third\n");
        // On the screen is only what is typed now.
        let mut screen = [0; 64];
        let length = read(&other.master, &mut screen).unwrap();
        assert_eq!(&screen[..length], b"rd\r\n");
    }
}
