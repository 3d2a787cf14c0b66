//! What only cgroup v2 needs: enabling controllers on the way down, waiting for its freezer,
//! delegation.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::file;
use crate::error::{Context, Error, Result};
use crate::plan::cgroup::{CgroupPlan, Directory, Mount, UsageCheck, Write};
use crate::sys::Errno;

/// How long a cgroup may take to freeze, as with runc.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);

/// What is given away with a cgroup where the kernel does not say (before 4.20 of its list, or
/// without sysfs).
const DELEGATED: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

/// Controllers that threads cannot be distributed over (cgroup-v2.rst, "Threads").
const DOMAIN_CONTROLLERS: &[&str] = &["memory", "io", "hugetlb", "rdma", "misc"];

/// Returns the unified hierarchy that is mounted on `point`.
pub(super) fn mount(point: PathBuf) -> Result<Mount> {
    let path = point.join("cgroup.controllers");
    let text = file::read(&path).context(|| format!("read {}", path.display()))?;
    let controllers = text.split_whitespace().map(str::to_owned).collect();
    Ok(Mount { point, root: "/".into(), controllers })
}

/// Enables the plan's controllers in all ancestors of a cgroup, as far as that can be done.
///
/// What cannot be enabled is an error only when a limit is asked of it, and is explained there.
pub(super) fn enable(mount: &Path, cgroup: &Path, plan: &CgroupPlan) -> Result<()> {
    let missing = if plan.enable.is_empty() { Vec::new() } else { absent(cgroup, &plan.enable)? };
    if missing.is_empty() {
        return Ok(());
    }
    let mut refused = false;
    for ancestor in ancestors(mount, cgroup) {
        if refused {
            join_threads(ancestor, plan)?;
        }
        if !enable_in(ancestor, &missing) {
            refused = true;
            join_threads(ancestor, plan)?;
        }
    }
    if refused { join_threads(cgroup, plan) } else { Ok(()) }
}

/// Enables controllers in one cgroup, each alone if not all can be; says whether all could be.
fn enable_in(path: &Path, controllers: &[String]) -> bool {
    let control = path.join("cgroup.subtree_control");
    let words: Vec<String> = controllers.iter().map(|name| format!("+{name}")).collect();
    if file::write(&control, &words.join(" ")).is_ok() {
        return true;
    }
    let mut all = true;
    for word in &words {
        if let Err(errno) = file::write(&control, word) {
            log::debug!("write {word} to {}: {errno}", control.display());
            all = false;
        }
    }
    all
}

/// Returns those of the wanted controllers that cannot be used in a cgroup.
fn absent(path: &Path, wanted: &[String]) -> Result<Vec<String>> {
    let path = path.join("cgroup.controllers");
    let text = file::read(&path).context(|| format!("read {}", path.display()))?;
    let there: Vec<&str> = text.split_whitespace().collect();
    Ok(wanted.iter().filter(|name| !there.contains(&name.as_str())).cloned().collect())
}

/// Returns the cgroups from the mount point down to the parent of a cgroup.
fn ancestors<'a>(mount: &Path, cgroup: &'a Path) -> Vec<&'a Path> {
    let all = cgroup.ancestors().skip(1);
    let mut ancestors: Vec<&Path> = all.take_while(|path| path.starts_with(mount)).collect();
    ancestors.reverse();
    ancestors
}

/// Makes a cgroup below one with processes usable: it is invalid as a domain and has to become threaded, which only some
/// controllers can be used in.
fn join_threads(path: &Path, plan: &CgroupPlan) -> Result<()> {
    let asked = plan.writes.iter().any(|write| DOMAIN_CONTROLLERS.contains(&write.controller.as_str()));
    let file = path.join("cgroup.type");
    // The root of the hierarchy has no type, and needs none.
    let kind = file::read(&file).unwrap_or_default();
    let state = match kind.trim_end() {
        "domain invalid" if asked => "it is in an invalid state".to_owned(),
        kind @ ("threaded" | "domain threaded") if asked => format!("it is in {kind} mode"),
        "domain invalid" => {
            return file::write(&file, "threaded").context(|| format!("write threaded to {}", file.display()));
        }
        _ => return Ok(()),
    };
    let attempt = format!("cannot enter cgroupv2 {:?} with domain controllers", path.display());
    Err(Error::other(format!("{attempt} -- {state}")))
}

/// Returns why a limit's file is not there, if that is because its controller is not enabled.
pub(super) fn explain_absence(directory: &Directory, write: &Write) -> Option<Error> {
    let wanted = [write.controller.clone()];
    if absent(&directory.path, &wanted).ok()?.is_empty() {
        return None;
    }
    let attempt = format!("cannot set {}: controller {:?} not available", write.file, write.controller);
    for ancestor in ancestors(&directory.mount, &directory.path) {
        let control = ancestor.join("cgroup.subtree_control");
        if let Err(errno) = file::write(&control, &format!("+{}", write.controller)) {
            return Some(Error::system(format!("{attempt}: enable it in {}", control.display()), errno));
        }
    }
    Some(Error::other(format!("{attempt} in {}", directory.path.display())))
}

/// Refuses limits below what is in use.
pub(super) fn check_usage(directory: &Directory, check: &UsageCheck) -> Result<()> {
    // Only the attempt is promised: a cgroup that does not tell its use gets its limit.
    let text = file::read(&directory.path.join("memory.current")).unwrap_or_default();
    let Ok(usage) = text.trim_end().parse::<u64>() else { return Ok(()) };
    for (name, limit) in [("memory+swap", check.memory_and_swap), ("memory", check.memory)] {
        if let Some(limit) = limit.filter(|limit| *limit <= usage) {
            return Err(Error::invalid(format!("rejecting {name} limit {limit} <= usage {usage}")));
        }
    }
    Ok(())
}

/// Freezes, and waits until all processes have stopped.
pub(super) fn freeze(path: &Path) -> Result<()> {
    let control = path.join("cgroup.freeze");
    file::write(&control, "1").context(|| format!("write 1 to {}", control.display()))?;
    let result = wait_frozen(path);
    if result.is_err() {
        if let Err(err) = thaw(path) {
            log::debug!("{err}");
        }
    }
    result
}

fn wait_frozen(path: &Path) -> Result<()> {
    let path = path.join("cgroup.events");
    let attempt = || format!("read {}", path.display());
    let mut events = File::open(&path).context(attempt)?;
    let until = Instant::now() + FREEZE_LIMIT;
    let mut pause = Duration::from_micros(50);
    let mut text = String::with_capacity(64);
    loop {
        text.clear();
        events.rewind().and_then(|()| events.read_to_string(&mut text)).context(attempt)?;
        if file::value(&text, "frozen") == Some(1) {
            return Ok(());
        }
        if Instant::now() > until {
            let limit = FREEZE_LIMIT.as_secs();
            return Err(Error::other(format!("timeout of {limit}s reached waiting for the cgroup to freeze")));
        }
        // Not poll(2): the kernel holds changes of this file back for 10 ms after the one before
        // (5.2), which is much longer than a freeze takes.
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// Thaws.
pub(super) fn thaw(path: &Path) -> Result<()> {
    let control = path.join("cgroup.freeze");
    file::write(&control, "0").context(|| format!("write 0 to {}", control.display()))
}

/// Gives the directory and the files that the kernel names for it to a user. Limits stay with us.
pub(super) fn delegate(path: &Path, uid: u32) -> Result<()> {
    let chown = |path: &Path| std::os::unix::fs::chown(path, Some(uid), None);
    chown(path).context(|| format!("chown {}", path.display()))?;
    let files = file::read(Path::new("/sys/kernel/cgroup/delegate")).unwrap_or_else(|_| DELEGATED.to_owned());
    for name in files.lines() {
        let path = path.join(name);
        match chown(&path).map_err(file::errno) {
            // The list has files of all controllers.
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(Error::system(format!("chown {}", path.display()), errno)),
        }
    }
    Ok(())
}
