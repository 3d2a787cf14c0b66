//! One command: its time from spawn to wait, and what the kernel counted for it and for every descendant that it reaped.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use crate::Result;
use crate::terminal::Terminal;

#[derive(Clone, Copy, Default)]
pub struct Sample {
    /// From before the fork to after the wait.
    pub wall: Duration,
    /// User and system time of the whole process tree.
    pub cpu: Duration,
    /// Page faults that needed no disk, of the whole process tree.
    pub faults: u64,
    /// Peak resident set of the largest process in the tree.
    pub peak_kib: u64,
}

impl Sample {
    /// Returns what the kernel has counted.
    pub fn counted(usage: &libc::rusage) -> Result<Self> {
        Ok(Self {
            wall: Duration::ZERO,
            cpu: duration(usage.ru_utime) + duration(usage.ru_stime),
            faults: u64::try_from(usage.ru_minflt)?,
            peak_kib: u64::try_from(usage.ru_maxrss)?,
        })
    }

    /// Returns what this and the next of several steps took together.
    pub fn and(self, next: Self) -> Self {
        Self {
            wall: self.wall + next.wall,
            cpu: self.cpu + next.cpu,
            faults: self.faults + next.faults,
            peak_kib: self.peak_kib.max(next.peak_kib),
        }
    }
}

/// What a command has as its standard streams.
#[derive(Clone, Copy)]
pub enum Streams<'a> {
    /// Nothing to read, and a file that keeps what it says.
    File(&'a Path),
    /// A terminal, which is nobody's controlling one.
    Terminal(&'a Terminal),
}

/// How long a command may take, in seconds.
const PATIENCE: u32 = 60;

/// The process that is waited for.
static WATCHED: AtomicI32 = AtomicI32::new(0);

/// Prepares for commands that do not end.
pub fn keep_watch() {
    extern "C" fn end(_signal: libc::c_int) {
        // SAFETY: it takes integers, and the process is not reaped while its alarm is set.
        unsafe { libc::kill(WATCHED.load(Ordering::Relaxed), libc::SIGKILL) };
    }
    // SAFETY: the handler makes one call, which signal handlers may; the wait goes on after it, as signal(2) says.
    unsafe { libc::signal(libc::SIGALRM, end as extern "C" fn(libc::c_int) as libc::sighandler_t) };
}

/// Runs a command to its end; a failed one is an error with its output.
pub fn run(command: &mut Command, streams: Streams) -> Result<Sample> {
    connect(command, streams)?;
    let start = Instant::now();
    let child = command.spawn().map_err(|e| format!("{command:?}: {e}"))?;
    let (status, usage) = wait(child.id())?;
    let wall = start.elapsed();
    if !status.success() {
        let said = match streams {
            Streams::File(output) => fs::read_to_string(output)?,
            Streams::Terminal(_) => String::new(),
        };
        return Err(format!("{command:?} ended with {status}: {}", said.trim()).into());
    }
    Ok(Sample { wall, ..Sample::counted(&usage)? })
}

/// Gives a command its standard streams.
pub fn connect(command: &mut Command, streams: Streams) -> Result<()> {
    match streams {
        Streams::File(output) => {
            let output = File::create(output)?;
            command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        }
        Streams::Terminal(terminal) => {
            command.stdin(terminal.slave()?).stdout(terminal.slave()?).stderr(terminal.slave()?);
        }
    }
    // A program keeps, in its maximum resident set, what its process had before the exec. After a fork, which is made
    // for the closure's sake, that is a few pages; after the vfork which Command prefers it would be all of ours.
    // SAFETY: the closure does nothing, which is safe between fork and exec.
    unsafe { command.pre_exec(|| Ok(())) };
    Ok(())
}

/// Waits for a child, which is killed if it takes too long, and returns its status with the resources that it and its reaped descendants used.
pub fn wait(pid: u32) -> Result<(ExitStatus, libc::rusage)> {
    let pid = libc::pid_t::try_from(pid)?;
    let mut status = 0;
    // SAFETY: rusage is plain data, for which all zeroes is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    WATCHED.store(pid, Ordering::Relaxed);
    // SAFETY: both results outlive the call, which fills in one of each; an alarm takes an integer.
    let waited = unsafe {
        libc::alarm(PATIENCE);
        let waited = libc::wait4(pid, &raw mut status, 0, &raw mut usage);
        libc::alarm(0);
        waited
    };
    match waited {
        -1 => Err(format!("wait for {pid}: {}", io::Error::last_os_error()).into()),
        _ => Ok((ExitStatus::from_raw(status), usage)),
    }
}

/// Kills a process.
pub fn kill(pid: u32) -> Result<()> {
    // SAFETY: it takes integers.
    match unsafe { libc::kill(libc::pid_t::try_from(pid)?, libc::SIGKILL) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error().into()),
    }
}

/// Makes the kernel give this process the orphans below it, detached containers among them, so that it can wait for them.
pub fn adopt_orphans() {
    // SAFETY: this option takes an integer.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
}

fn duration(time: libc::timeval) -> Duration {
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_usec.unsigned_abs() as u32 * 1000)
}
