//! The terminal of a process: allocated from the container's own devpts, handed to whoever asked for it.

use super::Descriptors;
use super::report::{At, Result};
use crate::plan::process::TerminalPlan;
use crate::plan::step::Step;
use crate::sys::path::{self, Missing};
use crate::sys::{self, Errno, fd, mount, process, pty, socket};
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::statfs::FsType;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const DEVPTS_SUPER_MAGIC: FsType = FsType(0x1cd1);

/// Allocates a terminal, makes it the standard streams and the controlling terminal, and sends its master away;
/// `bind` also shows it as /dev/console.
pub fn open(terminal: TerminalPlan, root: BorrowedFd<'_>, bind: bool, with: &Descriptors) -> Result<()> {
    let (master, peer) = allocate(root).at(Step::Console)?;
    if let Some((rows, columns)) = terminal.size {
        pty::set_size(master.as_fd(), rows, columns).at(Step::Console)?;
    }
    if terminal.relayed {
        // Output that goes to a file or a pipe has plain lines (runc does so too).
        pty::keep_line_ends(master.as_fd()).at(Step::Console)?;
    }
    if bind {
        let place = path::ensure_in_root(root, c"/dev/console", Missing::File).at(Step::Console)?;
        let tree = mount::clone_tree(peer.as_fd(), false).at(Step::Console)?;
        mount::attach(tree.as_fd(), place.as_fd()).at(Step::Console)?;
    }
    if let Some(console_socket) = &with.console_socket {
        send(console_socket.as_fd(), master.as_fd()).at(Step::ConsoleSocket)?;
    }
    for number in 0..3 {
        fd::dup_to(peer.as_fd(), number).at(Step::Console)?;
    }
    process::set_controlling_terminal(peer.as_fd()).at(Step::Console)
}

/// Opens a pty of the container's devpts, and makes sure that it is one: the image may have put anything at /dev/ptmx
/// or below /dev/pts (CVE-2025-52565).
fn allocate(root: BorrowedFd<'_>) -> sys::Result<(OwnedFd, OwnedFd)> {
    let place = path::open_in_root(root, c"/dev/ptmx", OFlag::O_PATH)?;
    let status = path::fstat(place.as_fd())?;
    if status.st_mode & libc::S_IFMT != libc::S_IFCHR || status.st_rdev != libc::makedev(5, 2) {
        return Err(Errno::ENOTTY);
    }
    let master = path::open_in_root(root, c"/dev/ptmx", OFlag::O_RDWR | OFlag::O_NOCTTY)?;
    let peer = pty::open_peer(master.as_fd())?;
    if path::is_on(peer.as_fd(), DEVPTS_SUPER_MAGIC)? { Ok((master, peer)) } else { Err(Errno::ENOTTY) }
}

/// Sends the master with the name of its peer, which receivers take as a message of at least one byte.
fn send(console_socket: BorrowedFd<'_>, master: BorrowedFd<'_>) -> sys::Result<()> {
    let mut name = *b"/dev/pts/\0\0\0\0\0\0\0\0\0\0";
    let mut end = name.len();
    let mut number = pty::number(master)?;
    while end > 9 {
        end -= 1;
        name[end] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    let digits = name.len() - end;
    name.copy_within(end.., 9);
    socket::send(console_socket, name.get(..9 + digits).unwrap_or(b"/dev/ptmx"), Some(master))
}
