//! One run of one contestant: its command, its time from spawn to wait, and
//! what the kernel counted for it and for every descendant that it reaped.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::Result;
use crate::bundle::Bundle;

#[derive(Clone, Copy)]
pub struct Sample {
    /// From before the fork to after the wait.
    pub wall: Duration,
    /// User and system time of the whole process tree.
    pub cpu: Duration,
    /// Peak resident set of the largest process in the tree.
    pub peak_kib: u64,
}

pub struct Contestant {
    pub name: &'static str,
    pub version: String,
    program: PathBuf,
    /// Where a runtime keeps its state; the floor has none.
    state: Option<PathBuf>,
    /// Whether the config has them; the floor, which reads none, must be told.
    pub device_rules: bool,
}

impl Contestant {
    pub fn floor(program: PathBuf) -> Contestant {
        let version = String::new();
        Contestant { name: "floor", version, program, state: None, device_rules: true }
    }

    pub fn runtime(name: &'static str, program: PathBuf, bundle: &Bundle) -> Contestant {
        let answer = Command::new(&program).arg("--version").output();
        let text = answer.map(|output| output.stdout).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let first = text.lines().next().unwrap_or_default();
        let version = format!("{first} ({})", program.display());
        let state = Some(bundle.state(name));
        Contestant { name, version, program, state, device_rules: true }
    }

    /// Returns whether this is another project's runtime.
    pub fn is_peer(&self) -> bool {
        !["floor", "stasis"].contains(&self.name)
    }

    /// Runs the bundle once, to its end; a failed run is an error with its output.
    pub fn run(&self, bundle: &Bundle) -> Result<Sample> {
        let mut command = self.command(bundle);
        let output = File::create(bundle.output())?;
        command.current_dir(bundle.directory()).stdin(Stdio::null());
        command.stdout(output.try_clone()?).stderr(output);
        // A program keeps, in its maximum resident set, what its process had
        // before the exec. After a fork that is a few pages; after the vfork
        // which Command prefers it would be all of ours.
        // SAFETY: the closure does nothing, which is safe between fork and exec.
        unsafe { command.pre_exec(|| Ok(())) };
        let start = Instant::now();
        let child = command.spawn().map_err(|e| format!("{}: {e}", self.program.display()))?;
        let (status, usage) = wait(child.id())?;
        let wall = start.elapsed();
        if !status.success() {
            let text = fs::read_to_string(bundle.output())?;
            return Err(format!("{} ended with {status}: {}", self.name, text.trim()).into());
        }
        let cpu = duration(usage.ru_utime) + duration(usage.ru_stime);
        Ok(Sample { wall, cpu, peak_kib: u64::try_from(usage.ru_maxrss)? })
    }

    fn command(&self, bundle: &Bundle) -> Command {
        let mut command = Command::new(&self.program);
        match &self.state {
            Some(state) => {
                let id = format!("bench-{}-{}", std::process::id(), self.name);
                command.arg("--root").arg(state).arg("run").arg(id);
            }
            None => {
                command.args(self.device_rules.then_some("--device-filter")).arg(bundle.rootfs());
            }
        }
        command
    }
}

/// Waits for a child, and returns its status with the resources that it and its reaped descendants used.
fn wait(pid: u32) -> Result<(ExitStatus, libc::rusage)> {
    let pid = libc::pid_t::try_from(pid)?;
    let mut status = 0;
    // SAFETY: rusage is plain data, for which all zeroes is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both results outlive the call, which fills in one of each.
    match unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) } {
        -1 => Err(io::Error::last_os_error().into()),
        _ => Ok((ExitStatus::from_raw(status), usage)),
    }
}

fn duration(time: libc::timeval) -> Duration {
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_usec.unsigned_abs() as u32 * 1000)
}
