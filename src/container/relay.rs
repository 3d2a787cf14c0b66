//! The wait for a process in the foreground: its output goes to our streams, our input and our signals go to it.
//!
//! One loop, one poll(2). Nothing in it blocks on one direction while another could go on, and no byte that the process
//! wrote is lost: not when whoever reads our output stalls, and not when the process ends first. Making the process and
//! its pipes or terminal is the caller's part, and so is the removal of what it leaves.

use super::NotifySocket;
use crate::error::{Context, Result};
use crate::sys::signal::{Signals, is_child_subreaper, reap_other};
use crate::sys::tty::{self, RawMode};
use crate::sys::{Errno, pidfd, pty, stream};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How much is read at once: what a pipe holds by default.
const BUFFER: usize = 64 << 10;

/// How much a process that has ended can have left in a pipe or terminal: a pipe has 16 pages, of at most 64 KiB.
const LEFT_BEHIND: usize = 1 << 20;

/// Where the standard streams of a process lead.
#[derive(Debug)]
pub enum Io {
    /// To ours: there is nothing to relay.
    Inherited,
    /// To pipes, of which these are our ends.
    Pipes {
        /// What the process reads.
        stdin: OwnedFd,
        /// What it writes.
        stdout: OwnedFd,
        /// What it complains.
        stderr: OwnedFd,
    },
    /// To a terminal of its own.
    Terminal {
        /// Our end of it.
        master: OwnedFd,
    },
}

/// Serves a child until it ends; returns its exit code, 128 and the number for a signal.
///
/// `signals` was blocked before the child was made. While this runs our terminal, if the child has one of its own, is in
/// raw mode. Other children that end are reaped if this process is a subreaper.
pub fn relay(signals: &Signals, io: Io, pid: i32, pidfd: BorrowedFd<'_>, notify: Option<NotifySocket>) -> Result<i32> {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let streams = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    let (pumps, terminal) = match io {
        Io::Inherited => (Vec::new(), None),
        Io::Pipes { stdin, stdout, stderr } => (pipes(streams, [stdin, stdout, stderr])?, None),
        Io::Terminal { master } => {
            let terminal = Terminal::new(master.as_fd(), tty::own().ok())?;
            (console(streams, master)?, Some(terminal))
        }
    };
    let reaps = is_child_subreaper().context(|| "ask whether this is a subreaper")?;
    Relay { signals, pid, pidfd, pumps, terminal, reaps, notify }.run()
}

/// Connects pipes with our streams.
fn pipes(ours: [BorrowedFd<'_>; 3], theirs: [OwnedFd; 3]) -> Result<Vec<Pump>> {
    let [stdin, stdout, stderr] = theirs;
    let streams = || "set up the standard streams";
    Ok(vec![
        Pump::inward(stream::duplicate(ours[0]).context(streams)?, stdin).context(streams)?,
        Pump::outward(stdout, ours[1], Broken::TellWriter).context(streams)?,
        Pump::outward(stderr, ours[2], Broken::TellWriter).context(streams)?,
    ])
}

/// Connects a terminal with our streams.
fn console(ours: [BorrowedFd<'_>; 3], master: OwnedFd) -> Result<Vec<Pump>> {
    let streams = || "set up the terminal";
    let input = stream::duplicate(master.as_fd()).context(streams)?;
    Ok(vec![
        Pump::inward(stream::duplicate(ours[0]).context(streams)?, input).context(streams)?,
        Pump::outward(master, ours[1], Broken::Discard).context(streams)?,
    ])
}

struct Relay<'a> {
    signals: &'a Signals,
    pid: i32,
    pidfd: BorrowedFd<'a>,
    pumps: Vec<Pump>,
    terminal: Option<Terminal>,
    reaps: bool,
    notify: Option<NotifySocket>,
}

impl Relay<'_> {
    fn run(mut self) -> Result<i32> {
        loop {
            let ready = self.wait(Some(self.pidfd))?;
            while let Some(signal) = self.signals.next().context(|| "read a signal")? {
                self.take(signal);
            }
            self.pump(&ready);
            // What it said before it ended may have come at the same time.
            if ready.notified || ready.ended {
                self.pass_notification_on();
            }
            if ready.ended {
                let exit = pidfd::reap(self.pid).context(|| format!("wait for process {}", self.pid))?;
                self.drain()?;
                return Ok(exit.code());
            }
        }
    }

    /// Moves out what the process left behind in its pipes or terminal.
    ///
    /// What is there when it has ended is all it wrote. Descendants that still hold the other end are not waited for,
    /// however much they write.
    fn drain(&mut self) -> Result<()> {
        self.pumps.retain(|pump| pump.direction == Direction::Outward);
        self.pumps.iter_mut().for_each(|pump| pump.left = LEFT_BEHIND);
        loop {
            self.pumps.retain_mut(Pump::fill_or_end);
            if self.pumps.is_empty() {
                return Ok(());
            }
            let ready = self.wait(None)?;
            while let Some(signal) = self.signals.next().context(|| "read a signal")? {
                // There is nobody left to pass it on to, and the reader of our output may never read again.
                if matches!(signal, libc::SIGHUP | libc::SIGINT | libc::SIGQUIT | libc::SIGTERM) {
                    return Ok(());
                }
            }
            self.pump(&ready);
        }
    }

    /// Moves what is ready to be moved.
    fn pump(&mut self, ready: &Ready) {
        for (pump, _) in self.pumps.iter_mut().zip(&ready.pumps).filter(|(_, ready)| **ready) {
            pump.step();
        }
    }

    /// Waits until something can go on.
    fn wait(&self, process: Option<BorrowedFd<'_>>) -> Result<Ready> {
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(process.map(|pidfd| PollFd::new(pidfd, PollFlags::POLLIN)));
        let notify = fds.len();
        fds.extend(self.notify.as_ref().map(|notify| PollFd::new(notify.as_fd(), PollFlags::POLLIN)));
        let waiting: Vec<_> = self.pumps.iter().map(Pump::interest).collect();
        let first = fds.len();
        fds.extend(waiting.iter().flatten().map(|(fd, flags)| PollFd::new(*fd, *flags)));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context(|| "wait for the process"),
        }
        // Hang-ups and errors count as ready: the read or write that follows tells which.
        let is_ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        let mut polled = fds.iter().skip(first);
        let pumps = waiting.iter().map(|waits| waits.is_some() && polled.next().is_some_and(is_ready)).collect();
        let notified = self.notify.is_some() && fds.get(notify).is_some_and(is_ready);
        Ok(Ready { ended: process.is_some() && fds.get(1).is_some_and(is_ready), notified, pumps })
    }

    /// Takes messages about the program's readiness; once it was passed on, the others are of no interest. The process to
    /// watch is this one, which lasts as long as the program and ends with its exit code (runc does so too).
    fn pass_notification_on(&mut self) {
        let own = std::process::id() as i32;
        match self.notify.as_mut().map(|notify| notify.pass_on(own)) {
            Some(Ok(None)) => {}
            Some(Ok(Some(_barrier))) => self.notify = None,
            Some(Err(err)) => {
                log::warn!("{err}");
                self.notify = None;
            }
            None => {}
        }
    }

    /// Acts on a signal that we got.
    fn take(&self, signal: i32) {
        match signal {
            libc::SIGCHLD => while self.reaps && reap_other(self.pid).unwrap_or(false) {},
            libc::SIGWINCH => {
                if let Some(terminal) = &self.terminal {
                    terminal.resize();
                }
            }
            // SIGPIPE comes from our own writes, which also fail with EPIPE; SIGURG is noise of Go programs around us.
            libc::SIGPIPE | libc::SIGURG => {}
            _ => match pidfd::send_signal(self.pidfd, signal) {
                Ok(()) | Err(Errno::ESRCH) => {
                    log::debug!("passed signal {signal} on to process {}", self.pid)
                }
                Err(errno) => {
                    log::warn!("pass signal {signal} on to process {}: {}", self.pid, errno.desc())
                }
            },
        }
    }
}

/// What poll(2) found.
struct Ready {
    ended: bool,
    notified: bool,
    pumps: Vec<bool>,
}

/// The terminal of the process, and ours if we have one.
struct Terminal {
    theirs: OwnedFd,
    /// Keeps the other end open. A process may close all its descriptors of the terminal and open it again, as init
    /// programs do with /dev/console; without this our reads would fail for good in between (EIO).
    _peer: Option<OwnedFd>,
    ours: Option<RawMode>,
}

impl Terminal {
    fn new(master: BorrowedFd<'_>, ours: Option<OwnedFd>) -> Result<Self> {
        let terminal = Self {
            theirs: stream::duplicate(master).context(|| "set up the terminal")?,
            _peer: pty::open_peer(master).ok(),
            ours: ours.map(RawMode::enter).transpose().context(|| "put the terminal in raw mode")?,
        };
        terminal.resize();
        Ok(terminal)
    }

    /// Passes the size of our terminal on.
    fn resize(&self) {
        let Some(ours) = &self.ours else { return };
        let resized = tty::size(ours.as_fd()).and_then(|size| match size {
            Some((rows, columns)) => pty::set_size(self.theirs.as_fd(), rows, columns),
            None => Ok(()),
        });
        if let Err(errno) = resized {
            log::warn!("resize the terminal: {}", errno.desc());
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Direction {
    Inward,
    Outward,
}

/// What to do with output that nobody reads any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Broken {
    /// Close the pipe, so that the writer gets SIGPIPE as if it wrote to our stream itself.
    TellWriter,
    /// Drop it: closing a terminal would hang up its whole session.
    Discard,
}

/// One direction of one stream.
struct Pump {
    direction: Direction,
    broken: Broken,
    from: Option<OwnedFd>,
    to: Option<OwnedFd>,
    /// What was read and not yet written.
    held: Vec<u8>,
    /// How much may be written at once.
    at_once: usize,
    /// How much may still be read: without end for all practical purposes, until the process has ended.
    left: usize,
}

impl Pump {
    /// Moves from a stream of ours to the process.
    fn inward(from: OwnedFd, to: OwnedFd) -> crate::sys::Result<Self> {
        stream::set_nonblocking(to.as_fd())?;
        Ok(Self::new(Direction::Inward, Broken::TellWriter, from, (to, BUFFER)))
    }

    /// Moves from the process to a stream of ours.
    fn outward(from: OwnedFd, to: BorrowedFd<'_>, broken: Broken) -> crate::sys::Result<Self> {
        stream::set_nonblocking(from.as_fd())?;
        Ok(Self::new(Direction::Outward, broken, from, stream::writer(to)?))
    }

    fn new(direction: Direction, broken: Broken, from: OwnedFd, (to, at_once): (OwnedFd, usize)) -> Self {
        let (from, to) = (Some(from), Some(to));
        Self { direction, broken, from, to, held: Vec::new(), at_once, left: usize::MAX }
    }

    /// Returns what has to happen before this can go on; nothing when it is at its end.
    fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match (&self.from, &self.to) {
            (_, Some(to)) if !self.held.is_empty() => Some((to.as_fd(), PollFlags::POLLOUT)),
            (Some(from), _) => Some((from.as_fd(), PollFlags::POLLIN)),
            _ => None,
        }
    }

    /// Reads or writes once.
    fn step(&mut self) {
        if self.held.is_empty() {
            self.fill();
        } else {
            self.flush();
        }
        if self.from.is_none() && self.held.is_empty() {
            // The process sees the end of its input.
            self.to = None;
        }
    }

    /// Reads if nothing is held; says whether there is something to write.
    fn fill_or_end(&mut self) -> bool {
        if self.held.is_empty() {
            self.fill();
        }
        !self.held.is_empty()
    }

    fn fill(&mut self) {
        let Some(from) = &self.from else { return };
        // With nothing left this reads nothing, which is the end.
        let ended = match stream::read_once(from.as_fd(), &mut self.held, BUFFER.min(self.left)) {
            Ok(n) => n == 0,
            // EIO is the end of a terminal, or a terminal that we are in the background of.
            Err(errno) => !matches!(errno, Errno::EAGAIN | Errno::EINTR),
        };
        self.left = self.left.saturating_sub(self.held.len());
        if ended {
            self.from = None;
        }
        if self.to.is_none() {
            self.held.clear();
        }
    }

    fn flush(&mut self) {
        let Some(to) = &self.to else { return self.held.clear() };
        let piece = self.held.get(..self.at_once).unwrap_or(&self.held);
        match nix::unistd::write(to, piece) {
            Ok(n) => drop(self.held.drain(..n)),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // EPIPE, or a terminal that hung up.
            Err(_) => {
                self.held.clear();
                self.to = None;
                if self.broken == Broken::TellWriter {
                    self.from = None;
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
