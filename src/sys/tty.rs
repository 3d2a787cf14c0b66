//! Terminals that somebody else has made: modes, size, and what was typed on them and is not read yet.
//!
//! Pseudo-terminals of containers are made elsewhere.

use super::{Errno, Result, cvt, stream};
use nix::fcntl::{OFlag, open};
use nix::libc::{self, _POSIX_VDISABLE as NONE};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::sys::termios::{
    InputFlags, LocalFlags, OutputFlags, SetArg, SpecialCharacterIndices, Termios, cfmakeraw, tcgetattr, tcsetattr,
};
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
            return stream::duplicate(stream);
        }
    }
    open("/dev/tty", OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOCTTY, Mode::empty())
}

/// A terminal in raw mode: what is typed goes to the container's terminal as it is, Ctrl-C included. What is written
/// still gets its carriage returns here.
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
        raw.output_flags.insert(OutputFlags::OPOST);
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

/// What was typed on a terminal and is not read yet.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Unread {
    /// The characters.
    pub bytes: Vec<u8>,
    /// Before which of them the end of the file was typed, Ctrl-D for most.
    pub ends: Vec<usize>,
}

/// Returns what was typed on a terminal and is not read yet; it stays there, as far as the kernel's buffer takes it back.
///
/// The kernel shows no input without giving it away: it is out of the terminal for a moment, and lost if this process is
/// killed in it. A newline that was typed as a character (Ctrl-V, Ctrl-J) ends a line afterwards. `terminal` has to be
/// open with O_NONBLOCK.
pub fn unread_input(terminal: BorrowedFd<'_>) -> Result<Unread> {
    let mut unread = Unread::default();
    let drained = drain(terminal, &mut unread);
    let put = if unread == Unread::default() { Ok(()) } else { put_input(terminal, &unread) };
    drained.and(put).map(|()| unread)
}

/// Takes the input out of a terminal: complete lines and ends of file, then in raw mode a line that is not complete.
fn drain(terminal: BorrowedFd<'_>, unread: &mut Unread) -> Result<()> {
    let modes = match tcgetattr(terminal) {
        // Nobody has the other end.
        Err(Errno::EIO) => return Ok(()),
        modes => modes?,
    };
    let Unread { bytes, ends } = unread;
    // With EXTPROC somebody else makes the lines.
    if modes.local_flags.contains(LocalFlags::ICANON) && !modes.local_flags.contains(LocalFlags::EXTPROC) {
        let ends_line = |byte: &u8| {
            let is = |index: SpecialCharacterIndices| *byte != NONE && modes.control_chars[index as usize] == *byte;
            let is_second = || modes.local_flags.contains(LocalFlags::IEXTEN) && is(SpecialCharacterIndices::VEOL2);
            *byte == b'\n' || is(SpecialCharacterIndices::VEOL) || is_second()
        };
        while let Some(line) = read_available(terminal)? {
            bytes.extend_from_slice(&line);
            if !line.last().is_some_and(ends_line) {
                ends.push(bytes.len());
            }
        }
        let raw = RawMode::enter(stream::duplicate(terminal)?)?;
        return read_to_end(raw.as_fd(), bytes);
    }
    read_to_end(terminal, bytes)
}

fn read_to_end(terminal: BorrowedFd<'_>, bytes: &mut Vec<u8>) -> Result<()> {
    // Without a minimum (VMIN) nothing is what there always is to read.
    while let Some(part) = read_available(terminal)?.filter(|part| !part.is_empty()) {
        bytes.extend_from_slice(&part);
    }
    Ok(())
}

/// Reads once, which is a line at most where the terminal makes lines of what is typed; returns nothing if there is
/// nothing, or nobody at the other end.
fn read_available(terminal: BorrowedFd<'_>) -> Result<Option<Vec<u8>>> {
    // Longer than the kernel's buffer, so that a line is never read in parts.
    let mut line = vec![0; 8192];
    match read(terminal, &mut line) {
        Ok(0) if is_hung_up(terminal)? => Ok(None),
        Err(Errno::EAGAIN | Errno::EIO) => Ok(None),
        length => {
            line.truncate(length?);
            Ok(Some(line))
        }
    }
}

fn is_hung_up(terminal: BorrowedFd<'_>) -> Result<bool> {
    let mut polled = [PollFd::new(terminal, PollFlags::empty())];
    poll(&mut polled, PollTimeout::ZERO)?;
    Ok(polled.iter().filter_map(PollFd::revents).any(|events| events.contains(PollFlags::POLLHUP)))
}

/// Puts into a terminal what was typed on one (TIOCSTI), without a trace of it on the screen and without any key being
/// more than a character: that was seen to when it was typed.
///
/// # Errors
///
/// EIO or EPERM without CAP_SYS_ADMIN.
pub fn put_input(terminal: BorrowedFd<'_>, input: &Unread) -> Result<()> {
    let before = tcgetattr(terminal)?;
    let put = put_plainly(terminal, input, before.clone());
    tcsetattr(terminal, SetArg::TCSANOW, &before).and(put)
}

fn put_plainly(terminal: BorrowedFd<'_>, input: &Unread, mut modes: Termios) -> Result<()> {
    use SpecialCharacterIndices::{VEOF, VERASE, VKILL, VLNEXT, VREPRINT, VWERASE};
    const END: u8 = 4;
    modes.input_flags = InputFlags::empty();
    // Lines still end with what VEOL and VEOL2 say.
    modes.local_flags &= LocalFlags::ICANON | LocalFlags::IEXTEN;
    for key in [VERASE, VKILL, VLNEXT, VREPRINT, VWERASE] {
        modes.control_chars[key as usize] = NONE;
    }
    let mut with_end_as = |end: u8| {
        modes.control_chars[VEOF as usize] = end;
        tcsetattr(terminal, SetArg::TCSANOW, &modes)
    };
    with_end_as(NONE)?;
    let mut ends = input.ends.iter().peekable();
    for (index, byte) in input.bytes.iter().map(Some).chain([None]).enumerate() {
        while ends.next_if(|end| **end == index).is_some() {
            with_end_as(END)?;
            put_byte(terminal, &END)?;
            with_end_as(NONE)?;
        }
        byte.map_or(Ok(()), |byte| put_byte(terminal, byte))?;
    }
    Ok(())
}

fn put_byte(terminal: BorrowedFd<'_>, byte: &u8) -> Result<()> {
    // SAFETY: TIOCSTI reads one byte.
    cvt(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSTI as libc::Ioctl, &raw const *byte) }.into()).map(drop)
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
    use nix::pty::{OpenptyResult, Winsize, openpty};

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

    fn typed(text: &[u8], modes: impl Fn(&mut Termios)) -> OpenptyResult {
        let pty = openpty(None, None).unwrap();
        nix::fcntl::fcntl(&pty.slave, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let mut changed = tcgetattr(&pty.slave).unwrap();
        modes(&mut changed);
        tcsetattr(&pty.slave, SetArg::TCSANOW, &changed).unwrap();
        nix::unistd::write(&pty.master, text).unwrap();
        pty
    }

    /// Returns what a program reads until there is nothing more, read by read.
    fn reads(terminal: &OwnedFd) -> Vec<String> {
        let line = || read_available(terminal.as_fd()).unwrap();
        std::iter::from_fn(line).map(|line| String::from_utf8_lossy(&line).into_owned()).collect()
    }

    #[test]
    fn input_stays_and_comes_back() {
        let pty = typed(b"first\rsecond\nthi", |_| ());
        let before = tcgetattr(&pty.slave).unwrap();
        let unread = unread_input(pty.slave.as_fd()).unwrap();
        assert_eq!(unread, Unread { bytes: b"first\nsecond\nthi".to_vec(), ends: Vec::new() });
        assert_eq!(tcgetattr(&pty.slave).unwrap(), before);
        assert_eq!(unread_input(pty.slave.as_fd()).unwrap(), unread);
        assert_eq!(reads(&pty.slave), ["first\n", "second\n"]);
        let other = typed(b"", |_| ());
        put_input(other.slave.as_fd(), &unread).unwrap();
        nix::unistd::write(&other.master, b"rd\n").unwrap();
        assert_eq!(reads(&other.slave), ["first\n", "second\n", "third\n"]);
        // On the screen is only what is typed now.
        let mut screen = [0; 64];
        let length = read(&other.master, &mut screen).unwrap();
        assert_eq!(&screen[..length], b"rd\r\n");
    }

    #[test]
    fn an_end_of_file_is_one_again() {
        for (text, expected) in [
            (&b"\x04"[..], &[""][..]),
            (b"a\n\x04\x04b\x04c\n", &["a\n", "", "", "b", "c\n"]),
            (b"half\x04", &["half"]),
            (b"half\x00\x04", &["half\x00"]),
            // Keys that were no more than characters when they were typed: after Ctrl-V.
            (b"\x16\x04x\x16\x7f\x16\x15\n", &["\x04x\x7f\x15\n"]),
        ] {
            let (pty, other) = (typed(text, |_| ()), typed(b"", |_| ()));
            let unread = unread_input(pty.slave.as_fd()).unwrap();
            put_input(other.slave.as_fd(), &unread).unwrap();
            assert_eq!(reads(&pty.slave), expected);
            assert_eq!(reads(&other.slave), expected);
        }
    }

    #[test]
    fn lines_end_with_what_the_program_says() {
        let set = |modes: &mut Termios| {
            modes.control_chars[SpecialCharacterIndices::VEOL as usize] = b';';
            modes.control_chars[SpecialCharacterIndices::VEOL2 as usize] = b'!';
        };
        let (pty, other) = (typed(b"a;b!c\n", set), typed(b"", set));
        let unread = unread_input(pty.slave.as_fd()).unwrap();
        assert!(unread.ends.is_empty());
        put_input(other.slave.as_fd(), &unread).unwrap();
        assert_eq!(reads(&other.slave), ["a;", "b!", "c\n"]);
    }

    #[test]
    fn every_key_stays_a_character_where_no_lines_are_made() {
        for minimum in [0, 1] {
            let keys: Vec<u8> = (0..=255).collect();
            let pty = typed(&keys, |modes| {
                cfmakeraw(modes);
                modes.control_chars[SpecialCharacterIndices::VMIN as usize] = minimum;
            });
            let before = tcgetattr(&pty.slave).unwrap();
            for _ in 0..2 {
                assert_eq!(unread_input(pty.slave.as_fd()).unwrap(), Unread { bytes: keys.clone(), ends: Vec::new() });
            }
            assert_eq!(tcgetattr(&pty.slave).unwrap(), before);
        }
    }

    #[test]
    fn nobody_types_on_a_terminal_that_is_hung_up() {
        let pty = typed(b"\x04", |_| ());
        drop(pty.master);
        assert_eq!(unread_input(pty.slave.as_fd()).unwrap(), Unread::default());
    }
}
