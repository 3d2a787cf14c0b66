//! The processes in a cgroup and below it: listing them, signalling them, and removing the cgroup
//! once they are gone.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{Cgroup, Driver, file};
use crate::error::{Context, Error, Result};
use crate::plan::cgroup::{Directory, Version};
use crate::sys::{Errno, pidfd};

/// How often an unfrozen cgroup is looked through for processes that were made in the meantime.
const ROUNDS: u32 = 100;

/// How long the directories of a cgroup may take to become free, all together.
const REMOVAL_LIMIT: Duration = Duration::from_millis(1500);

/// How long a systemd that is not to be reached may take to remove an empty scope, if there is one.
const SYSTEMD_PATIENCE: Duration = Duration::from_secs(1);

/// Collects the processes of a cgroup. One that is not there has none.
pub(super) fn list(path: &Path, recursive: bool, pids: &mut Vec<i32>) -> Result<()> {
    let mut name = path.join("cgroup.procs");
    let mut text = file::read(&name);
    if text == Err(Errno::EOPNOTSUPP) {
        // A threaded cgroup lists threads only.
        name = path.join("cgroup.threads");
        text = file::read(&name);
    }
    match text {
        Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
        Err(Errno::ENOENT | Errno::ENODEV) => return Ok(()),
        Err(errno) => return Err(Error::system(format!("read {}", name.display()), errno)),
    }
    if recursive {
        for child in children(path)? {
            list(&child, true, pids)?;
        }
    }
    Ok(())
}

/// Returns the cgroups right below one.
fn children(path: &Path) -> Result<Vec<PathBuf>> {
    let attempt = || format!("read cgroup {}", path.display());
    let entries = match std::fs::read_dir(path).map_err(file::errno) {
        Ok(entries) => entries,
        Err(Errno::ENOENT | Errno::ENODEV) => return Ok(Vec::new()),
        Err(errno) => return Err(Error::system(attempt(), errno)),
    };
    let mut children = Vec::new();
    for entry in entries {
        let entry = entry.context(attempt)?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            children.push(entry.path());
        }
    }
    Ok(children)
}

/// Sends a signal to all processes; see [`Cgroup::kill`].
pub(super) fn kill(cgroup: &Cgroup, signal: i32) -> Result<()> {
    if signal == libc::SIGKILL && kill_at_once(cgroup)? {
        return Ok(());
    }
    let was_frozen = cgroup.is_frozen()?;
    // Nothing can fork or end, and so no pid can change its owner, while it is frozen.
    let frozen = was_frozen || cgroup.freeze().map_err(|err| log::debug!("{err}")).is_ok();
    let result = if frozen { send_to_all(cgroup, signal).map(drop) } else { send_until_none_is_left(cgroup, signal) };
    if frozen && (!was_frozen || signal == libc::SIGKILL) {
        return result.and(thaw_if_there(cgroup));
    }
    result
}

/// Uses cgroup.kill (5.14), which leaves no time for a fork. It exists on v2 only, and not in a
/// threaded cgroup.
fn kill_at_once(cgroup: &Cgroup) -> Result<bool> {
    let [one] = cgroup.directories() else { return Ok(false) };
    if one.version == Version::V1 {
        return Ok(false);
    }
    let path = one.path.join("cgroup.kill");
    match file::write(&path, "1") {
        Err(Errno::EOPNOTSUPP) => Ok(false),
        Ok(()) | Err(Errno::ENODEV) => Ok(true),
        Err(Errno::ENOENT) if !one.path.exists() => Ok(true),
        Err(errno) => Err(Error::system(format!("write 1 to {}", path.display()), errno)),
    }
}

fn thaw_if_there(cgroup: &Cgroup) -> Result<()> {
    if cgroup.exists() { cgroup.thaw() } else { Ok(()) }
}

/// Signals every process once; says how many there were.
fn send_to_all(cgroup: &Cgroup, signal: i32) -> Result<usize> {
    let pids = cgroup.pids(true)?;
    for pid in &pids {
        let process = match pidfd::open(*pid) {
            // Gone; or one of the threads that a threaded cgroup lists beside the processes: EINVAL, ENOENT since 6.15.
            Err(Errno::ESRCH | Errno::EINVAL | Errno::ENOENT) => continue,
            other => other.context(|| format!("open process {pid}"))?,
        };
        match pidfd::send_signal(process.as_fd(), signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(Error::system(format!("signal process {pid}"), errno)),
        }
    }
    Ok(pids.len())
}

/// Without a freezer, or with a process that does not freeze: SIGKILL is repeated for those that
/// were made meanwhile.
fn send_until_none_is_left(cgroup: &Cgroup, signal: i32) -> Result<()> {
    for _ in 0..ROUNDS {
        if send_to_all(cgroup, signal)? == 0 || signal != libc::SIGKILL {
            return Ok(());
        }
        sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Waits until systemd, which could not be told, has seen by itself that a scope is empty, and removed it. It looks into
/// a file of the cgroup for that: were that gone before, the unit would stay for ever.
pub(super) fn wait_for_systemd(cgroup: &Cgroup) {
    let its_own = cgroup.directory("").or_else(|| cgroup.directory("name=systemd"));
    // Who was killed leaves the cgroup when its memory is released.
    if wait(REMOVAL_LIMIT, || cgroup.pids(true).is_ok_and(|pids| !pids.is_empty())) {
        wait(SYSTEMD_PATIENCE, || its_own.is_some_and(|directory| directory.path.exists()));
    }
}

/// Waits while something is so; says whether that has ended in time.
pub(super) fn wait(limit: Duration, is_so: impl Fn() -> bool) -> bool {
    let until = Instant::now() + limit;
    while is_so() {
        if Instant::now() > until {
            return false;
        }
        sleep(Duration::from_millis(5));
    }
    true
}

/// Removes the directories of a cgroup, as many as can be; returns the first failure.
pub(super) fn remove(cgroup: &Cgroup) -> Result<()> {
    let until = Instant::now() + REMOVAL_LIMIT;
    let removed = cgroup.directories.iter().map(|directory| remove_path(top(cgroup, &directory.path), until));
    removed.fold(Ok(()), Result::and)
}

/// Removes the directories of a cgroup that have neither processes nor cgroups in them; says whether that was all.
pub(super) fn remove_empty(cgroup: &Cgroup) -> bool {
    let remove = |directory: &Directory| std::fs::remove_dir(&directory.path).map_err(file::errno);
    cgroup.directories.iter().all(|directory| matches!(remove(directory), Ok(()) | Err(Errno::ENOENT)))
}

/// Returns the uppermost directory that was made for the container alone: it may be in one below its scope, of which
/// systemd does not know in all hierarchies.
fn top<'p>(cgroup: &Cgroup, path: &'p Path) -> &'p Path {
    match &cgroup.driver {
        Driver::Cgroupfs => path,
        Driver::Systemd { unit, .. } => path.ancestors().find(|above| above.ends_with(unit)).unwrap_or(path),
    }
}

/// Removes a cgroup, after those below it.
///
/// EBUSY is a matter of time after a kill: a process leaves its cgroup when it has released its memory.
fn remove_path(path: &Path, until: Instant) -> Result<()> {
    let mut pause = Duration::from_micros(50);
    loop {
        match std::fs::remove_dir(path).map_err(file::errno) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::EBUSY) if Instant::now() < until => {
                for child in children(path)? {
                    remove_path(&child, until)?;
                }
                sleep(pause);
                pause *= 2;
            }
            Err(errno) => return Err(survivors(path, errno)),
        }
    }
}

/// Returns the error of a cgroup that stays, with those who are in it.
fn survivors(path: &Path, errno: Errno) -> Error {
    let mut pids = Vec::new();
    let known = list(path, true, &mut pids).is_ok() && !pids.is_empty();
    let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
    let rest = if known { format!(" (processes {})", pids.join(", ")) } else { String::new() };
    Error::system(format!("remove cgroup {}{rest}", path.display()), errno)
}
