//! `recvtty` and `pidfd-kill`: those who get a descriptor from the runtime over a socket.

use crate::args::Args;
use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

/// Receives the descriptor which comes over a connection.
fn receive(connection: &UnixStream) -> Result<OwnedFd> {
    let received = stasis::sys::socket::receive(connection.as_fd(), &mut [0; 4096])?;
    received.fd.context("no descriptor came")
}

/// Listens for terminals: one, whose output is then our own, or with `--mode null` any number, whose output is lost.
/// Nothing is typed on any of them.
pub fn terminals(args: &Args) -> Result<()> {
    let many = args.option("mode") == Some("null");
    let socket = UnixListener::bind(args.operand()?)?;
    args.write_pid_file()?;
    for connection in socket.incoming() {
        // A container that fails hangs up.
        let Ok(terminal) = receive(&connection?).map(File::from) else { continue };
        if !many {
            return show(&terminal);
        }
        std::thread::spawn(move || discard(terminal));
    }
    Ok(())
}

/// Copies a terminal's output as it is, without carriage returns, until nobody has it open.
fn show(mut terminal: &File) -> Result<()> {
    stasis::sys::pty::keep_line_ends(terminal.as_fd())?;
    let mut bytes = [0; 4096];
    while let Ok(count) = terminal.read(&mut bytes) {
        std::io::stdout().write_all(&bytes[..count])?;
    }
    Ok(())
}

/// Reads a terminal until we are ended, for its last process may be followed by others.
fn discard(mut terminal: File) {
    let mut bytes = [0; 4096];
    loop {
        if terminal.read(&mut bytes).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Receives a pidfd, and when it gets SIGTERM sends a signal of its own to that process.
pub fn pidfd_kill(args: &Args) -> Result<()> {
    let signal: Signal = args.option("signal").unwrap_or("SIGKILL").parse()?;
    let asked = SigSet::from(Signal::SIGTERM);
    asked.thread_block()?;
    args.write_pid_file()?;
    let (connection, _) = UnixListener::bind(args.operand()?)?.accept()?;
    let process = receive(&connection)?;
    asked.wait()?;
    Ok(stasis::sys::pidfd::send_signal(process.as_fd(), signal as i32)?)
}
