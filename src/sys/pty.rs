//! Pseudo-terminals: making one inside a container and giving it a size.

use super::fd::own;
use super::{Result, cvt};
use nix::libc;
use nix::sys::termios::{OutputFlags, SetArg, tcgetattr, tcsetattr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Returns the other end of a pty whose master was opened from a ptmx node, unlocked.
///
/// The peer is opened through the master's own mount of devpts (TIOCGPTPEER, 4.13), so no path inside a container that
/// could have been replaced is used.
pub fn open_peer(master: BorrowedFd<'_>) -> Result<OwnedFd> {
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int.
    cvt(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK as libc::Ioctl, &raw const unlock) }.into())?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags and returns a new descriptor.
    Ok(own(cvt(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER as libc::Ioctl, flags) }.into())?))
}

/// Returns the number N of a pty: its other end is /dev/pts/N.
pub fn number(master: BorrowedFd<'_>) -> Result<u32> {
    let mut number: libc::c_uint = 0;
    // SAFETY: TIOCGPTN writes one unsigned int.
    cvt(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN as libc::Ioctl, &raw mut number) }.into())?;
    Ok(number)
}

/// Lets line ends through as they are written, without a carriage return.
pub fn keep_line_ends(terminal: BorrowedFd<'_>) -> Result<()> {
    let mut modes = tcgetattr(terminal)?;
    modes.output_flags.remove(OutputFlags::ONLCR);
    tcsetattr(terminal, SetArg::TCSANOW, &modes)
}

/// Sets the size of a terminal, in characters.
pub fn set_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize.
    cvt(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ as libc::Ioctl, &raw const size) }.into())?;
    Ok(())
}
