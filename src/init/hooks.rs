//! Hooks that run inside: each a child of init that is given the container's state on its standard input.

use super::report::{Result, failure};
use crate::plan::hooks::HookPlan;
use crate::plan::process::ProcessPlan;
use crate::plan::step::{Failure, HookEnd, Step};
use crate::sys::clone::{Clone, clone_child, exit_now};
use crate::sys::pidfd::{self, Exit};
use crate::sys::{self, Errno, fd, process};
use nix::libc;
use std::os::fd::{AsFd, OwnedFd};

/// Exit code of a hook that could not be executed, which nobody sees: its error number is told by a pipe.
const NOT_EXECUTED: i32 = 127;

/// What hooks are given.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    /// The container's state, on standard input.
    pub state: Option<&'a OwnedFd>,
    /// Where their output and their errors go, if not where the container's do.
    pub streams: &'a [Option<OwnedFd>; 2],
    /// The container's process, whose environment those have that list none.
    pub process: &'a ProcessPlan,
}

/// Runs the hooks one after the other; the first that fails ends it.
pub fn run_all(hooks: &[HookPlan], given: Given<'_>, step: Step) -> Result<()> {
    for (index, hook) in hooks.iter().enumerate() {
        let failed = |end: HookEnd| Failure { errno: end.pack(), ..failure(step, index, Errno::UnknownErrno) };
        match run(hook, given) {
            Ok(Exit::Code(0)) => {}
            Ok(Exit::Code(code)) => return Err(failed(HookEnd::Code(code))),
            Ok(Exit::Signal(signal)) => return Err(failed(HookEnd::Signal(signal))),
            Err(Errno::ETIMEDOUT) => return Err(failed(HookEnd::Timeout)),
            Err(errno) => return Err(failed(HookEnd::Errno(errno as i32))),
        }
    }
    Ok(())
}

fn run(hook: &HookPlan, given: Given<'_>) -> sys::Result<Exit> {
    // Its execution closes the pipe.
    let (refusal, refuse) = fd::pipe()?;
    let child = clone_child(Clone::default(), || {
        let errno = become_hook(hook, given) as i32;
        _ = fd::write_all(refuse.as_fd(), &errno.to_ne_bytes());
        exit_now(NOT_EXECUTED);
    })?;
    drop(refuse);
    let millis = hook.timeout.map_or(-1, |seconds| i32::try_from(seconds).unwrap_or(i32::MAX / 1000) * 1000);
    let pidfd = child.pidfd.ok_or(Errno::EBADF)?;
    if pidfd::wait_ended(pidfd.as_fd(), millis)? {
        let (exit, mut errno) = (pidfd::reap(child.pid)?, [0; 4]);
        return match fd::read(refusal.as_fd(), &mut errno)? {
            0 => Ok(exit),
            _ => Err(Errno::from_raw(i32::from_ne_bytes(errno))),
        };
    }
    pidfd::send_signal(pidfd.as_fd(), libc::SIGKILL)?;
    pidfd::reap(child.pid)?;
    Err(Errno::ETIMEDOUT)
}

/// Returns what kept the hook from being executed.
fn become_hook(hook: &HookPlan, given: Given<'_>) -> Errno {
    let prepared = || -> sys::Result<()> {
        if let Some(state) = given.state {
            fd::rewind(state.as_fd())?;
            fd::dup_to(state.as_fd(), 0)?;
        }
        for (number, stream) in (1..).zip(given.streams) {
            stream.iter().try_for_each(|stream| fd::dup_to(stream.as_fd(), number))?;
        }
        process::reset_signals()
    };
    match prepared() {
        Ok(()) => process::execve(&hook.path, &hook.args, hook.env.as_ref().unwrap_or(&given.process.env)),
        Err(errno) => errno,
    }
}
