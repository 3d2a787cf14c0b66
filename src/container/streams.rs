//! The standard streams of a process: inherited, through pipes, or a terminal that somebody receives.

use super::relay::Io;
use crate::error::{Context, Error, Result};
use crate::sys::{fd, socket, tty};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// Who looks after the standard streams.
#[derive(Clone, Debug, Default)]
pub struct StreamOptions {
    /// Whether the runtime leaves before the process ends.
    pub detach: bool,
    /// Who receives the terminal of a process that is left alone.
    pub console_socket: Option<PathBuf>,
}

/// Both sides of a process's standard streams.
#[derive(Debug)]
pub struct Streams {
    /// What becomes its descriptors 0 to 2.
    pub inside: [Option<OwnedFd>; 3],
    /// Where it sends its terminal.
    pub console_socket: Option<OwnedFd>,
    outside: Outside,
}

#[derive(Debug)]
enum Outside {
    Inherited,
    Pipes { stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd },
    Terminal(OwnedFd),
}

/// Prepares the streams of a process that has a terminal, or not.
pub fn prepare(terminal: bool, options: &StreamOptions) -> Result<Streams> {
    match (terminal, options.detach, &options.console_socket) {
        (true, true, None) => {
            Err(Error::invalid("cannot allocate tty if runc will detach without setting console socket"))
        }
        (false, _, Some(_)) | (_, false, Some(_)) => {
            Err(Error::invalid("cannot use console socket if runc will not detach or allocate tty"))
        }
        (true, true, Some(path)) => {
            let socket =
                socket::connect_stream(path).context(|| format!("connect to console socket {}", path.display()))?;
            Ok(Streams { inside: Default::default(), console_socket: Some(socket), outside: Outside::Inherited })
        }
        (true, false, None) => {
            let (ours, theirs) = socket::seqpacket_pair().context(|| "make a socket for the terminal")?;
            Ok(Streams { inside: Default::default(), console_socket: Some(theirs), outside: Outside::Terminal(ours) })
        }
        (false, true, None) => {
            Ok(Streams { inside: Default::default(), console_socket: None, outside: Outside::Inherited })
        }
        (false, false, None) => pipes().context(|| "make pipes for the standard streams"),
    }
}

fn pipes() -> crate::sys::Result<Streams> {
    let (in_read, in_write) = fd::pipe()?;
    let (out_read, out_write) = fd::pipe()?;
    let (err_read, err_write) = fd::pipe()?;
    Ok(Streams {
        inside: [Some(in_read), Some(out_write), Some(err_write)],
        console_socket: None,
        outside: Outside::Pipes { stdin: in_write, stdout: out_read, stderr: err_read },
    })
}

impl Streams {
    /// Takes what the inside is given away from this side, which must not hold the ends of its pipes open.
    pub fn take_inside(&mut self) -> ([Option<OwnedFd>; 3], Option<OwnedFd>) {
        (std::mem::take(&mut self.inside), self.console_socket.take())
    }

    /// Says whether the process has a terminal that is relayed to our streams.
    pub fn has_relayed_terminal(&self) -> bool {
        matches!(self.outside, Outside::Terminal(_))
    }

    /// Returns the size of our own terminal, if the process has one that is relayed to it: so large is the process's
    /// from its beginning, and not only once somebody looks after it.
    pub fn terminal_size(&self) -> Option<(u16, u16)> {
        match self.outside {
            Outside::Terminal(_) => tty::own().and_then(|own| tty::size(own.as_fd())).ok().flatten(),
            _ => None,
        }
    }

    /// Returns what the foreground looks after, once the process is ready.
    pub fn into_io(self) -> Result<Io> {
        match self.outside {
            Outside::Inherited => Ok(Io::Inherited),
            Outside::Pipes { stdin, stdout, stderr } => Ok(Io::Pipes { stdin, stdout, stderr }),
            Outside::Terminal(socket) => {
                let received = socket::receive(socket.as_fd(), &mut [0; 64]).context(|| "receive the terminal")?;
                let master = received.fd.ok_or_else(|| Error::other("the process sent no terminal"))?;
                Ok(Io::Terminal { master })
            }
        }
    }
}
