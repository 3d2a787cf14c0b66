//! Signals as a descriptor, for the one loop that waits for them together with everything else.
//!
//! Dispositions and masks of a process in a container are set where it becomes that process, not here.

use super::{Result, cvt};
use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// All signals, blocked for as long as this lives, and the descriptor that tells of them.
///
/// Made before the process that is waited for, so that no signal is lost between the two; the process unblocks them for
/// itself before it executes its program.
#[derive(Debug)]
pub struct Signals {
    queue: SignalFd,
    before: SigSet,
}

impl Signals {
    /// Blocks all signals.
    ///
    /// Faults (SIGSEGV and the like) end the process all the same: the kernel does not let those be blocked.
    pub fn block() -> Result<Self> {
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::all()), Some(&mut before))?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let queue = SignalFd::with_flags(&SigSet::all(), flags).inspect_err(|_| restore(&before))?;
        Ok(Self { queue, before })
    }

    /// Takes the next signal that has arrived, if one has.
    pub fn next(&self) -> Result<Option<i32>> {
        Ok(self.queue.read_signal()?.and_then(|signal| i32::try_from(signal.ssi_signo).ok()))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        restore(&self.before);
    }
}

fn restore(mask: &SigSet) {
    // Fails only for a wrong `how`.
    _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(mask), None);
}

/// Gives SIGCHLD its default disposition.
///
/// A caller may have left it ignored, which survives execve; the kernel then reaps children by itself and their exit
/// status is lost (waitpid(2), ECHILD).
pub fn keep_children() -> Result<()> {
    let default = nix::sys::signal::SigAction::new(
        nix::sys::signal::SigHandler::SigDfl,
        nix::sys::signal::SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: SIG_DFL runs no code of ours in a signal context.
    unsafe { nix::sys::signal::sigaction(nix::sys::signal::SIGCHLD, &default) }.map(drop)
}

/// Lets `command` start with no signal blocked, even while [`Signals`] blocks them all here.
///
/// Masks survive execve, and the standard library leaves them alone.
pub fn unblock_in(command: &mut Command) {
    let unblock = || Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?);
    // SAFETY: the closure runs in the forked child, where only async-signal-safe calls are allowed: it makes one
    // system call.
    unsafe { command.pre_exec(unblock) };
}

/// Says whether orphaned descendants become children of this process (`PR_SET_CHILD_SUBREAPER`).
pub fn is_child_subreaper() -> Result<bool> {
    nix::sys::prctl::get_child_subreaper()
}

/// Reaps one child that has ended and is not `except`; says whether there was one.
pub fn reap_other(except: i32) -> Result<bool> {
    // SAFETY: siginfo is plain data; all zeroes is what waitid leaves when no child has ended.
    let mut ended: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let look = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    // SAFETY: `ended` outlives the call.
    cvt(unsafe { libc::waitid(libc::P_ALL, 0, &raw mut ended, look) }.into())?;
    // SAFETY: waitid fills in the member for SIGCHLD, or nothing at all.
    let pid = unsafe { ended.si_pid() };
    if pid == 0 || pid == except {
        return Ok(false);
    }
    // SAFETY: the status is not asked for.
    cvt(unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG | libc::__WALL) }.into())?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal, raise};

    #[test]
    fn programs_start_with_no_signal_blocked() {
        let _signals = Signals::block().unwrap();
        let mut grep = Command::new("grep");
        grep.args(["SigBlk", "/proc/self/status"]);
        unblock_in(&mut grep);
        assert_eq!(grep.output().unwrap().stdout, b"SigBlk:\t0000000000000000\n");
    }

    #[test]
    fn blocked_signals_wait_in_the_queue() {
        let signals = Signals::block().unwrap();
        assert_eq!(signals.next(), Ok(None));
        raise(Signal::SIGUSR1).unwrap();
        raise(Signal::SIGTERM).unwrap();
        let mut seen = [signals.next().unwrap(), signals.next().unwrap()];
        seen.sort();
        assert_eq!(seen, [Some(libc::SIGUSR1), Some(libc::SIGTERM)]);
        drop(signals);
        assert!(!SigSet::thread_get_mask().unwrap().contains(Signal::SIGUSR1));
    }
}
