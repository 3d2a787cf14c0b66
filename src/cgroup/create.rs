//! Making the directories of a cgroup, all of them or none.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::{Cgroup, Driver, Holder, file, is_permission, systemd, v1, v2};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::plan::cgroup::{CgroupPlan, Directory, Version};
use crate::sys::Errno;

/// Directories that were made, removed in the reverse order if they are not kept.
#[derive(Default)]
struct Made {
    paths: Vec<PathBuf>,
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in self.paths.iter().rev() {
            if let Err(err) = std::fs::remove_dir(path) {
                log::debug!("remove cgroup {}: {err}", path.display());
            }
        }
    }
}

/// Makes the directories of a plan; see [`Cgroup::create`] and [`Cgroup::create_new`].
pub(super) fn create(plan: &CgroupPlan, must_be_new: bool) -> Result<(Cgroup, Option<Holder>)> {
    let Some(unit) = &plan.unit else { return Ok((directories(plan, must_be_new)?, None)) };
    let holder = systemd::start(unit)?;
    // systemd makes no scope that is there.
    let made = make_room(plan, &unit.name, &holder)
        .and_then(|()| directories(plan, false))
        .map(|cgroup| (Cgroup { fresh: true, ..cgroup }, Some(holder)));
    if made.is_err() {
        // Its holder has ended by now.
        if let Err(err) = systemd::stop(&unit.name, unit.is_user) {
            log::debug!("{err}");
        }
    }
    made
}

/// Moves the holder to where the container will be, if that is below the scope: on v2 one that has a process gives no
/// controllers to others.
fn make_room(plan: &CgroupPlan, unit: &str, holder: &Holder) -> Result<()> {
    let is_below = |directory: &&Directory| directory.version == Version::V2 && !directory.entrance().ends_with(unit);
    for path in plan.directories.iter().filter(is_below).map(Directory::entrance) {
        std::fs::create_dir_all(path).context(|| format!("mkdir cgroup {}", path.display()))?;
        let procs = path.join("cgroup.procs");
        file::write(&procs, &holder.pid().to_string()).context(|| format!("write to {}", procs.display()))?;
    }
    Ok(())
}

fn directories(plan: &CgroupPlan, must_be_new: bool) -> Result<Cgroup> {
    let lenient = plan.rootless && !plan.path_given;
    let mut made = Made::default();
    let mut cgroup =
        Cgroup { driver: driver(plan), directories: Vec::new(), lenient, rootless: plan.rootless, fresh: true };
    let mut refusal = None;
    for directory in &plan.directories {
        match make(directory, plan, must_be_new, &mut made) {
            Ok(is_new) => {
                cgroup.fresh &= is_new;
                cgroup.directories.push(directory.clone());
            }
            Err(err) if lenient && is_refusal(&err) => refusal = Some(err),
            Err(err) => return Err(err),
        }
    }
    if let (Some(err), true, false) = (refusal, cgroup.directories.is_empty(), plan.writes.is_empty()) {
        let rule = "rootless needs no limits + no cgrouppath when no permission is granted for cgroups";
        return Err(err.context(rule));
    }
    // In a scope there is its holder.
    if !cgroup.fresh && plan.unit.is_none() {
        check_unused(&cgroup)?;
    }
    made.paths.clear();
    Ok(cgroup)
}

/// Returns who makes the directories of a plan.
pub(super) fn driver(plan: &CgroupPlan) -> Driver {
    match &plan.unit {
        Some(unit) => Driver::Systemd { unit: unit.name.clone(), is_user: unit.is_user },
        None => Driver::Cgroupfs,
    }
}

fn is_refusal(err: &Error) -> bool {
    matches!(err.kind(), ErrorKind::System(errno) if is_permission(errno))
}

/// Refuses a cgroup that somebody else's processes are in, or will be stopped in (runc: a container
/// that shares a cgroup is one whose limits, pause and kill hit others).
fn check_unused(cgroup: &Cgroup) -> Result<()> {
    let count = cgroup.pids(true)?.len();
    if count != 0 {
        return Err(Error::other(format!("container's cgroup is not empty: {count} process(es) found")));
    }
    if cgroup.is_frozen()? {
        return Err(Error::other("container's cgroup unexpectedly frozen"));
    }
    Ok(())
}

/// Makes one directory ready for processes; says whether it is new.
fn make(directory: &Directory, plan: &CgroupPlan, must_be_new: bool, made: &mut Made) -> Result<bool> {
    let mut make_path = |path: &Path| {
        make_path(path, made).map_err(|errno| Error::system(format!("mkdir cgroup {}", path.display()), errno))
    };
    let is_new = make_path(&directory.path)?;
    if must_be_new && !is_new {
        let text = format!("cgroup {} is there already", directory.path.display());
        return Err(Error::new(ErrorKind::AlreadyExists, text));
    }
    match directory.version {
        Version::V1 if directory.controllers.iter().any(|name| name == "cpuset") => {
            v1::fill_cpuset(directory, &plan.cpuset, is_new)?;
        }
        Version::V1 => {}
        Version::V2 => {
            if let Some(delegated) = &directory.delegated {
                make_path(delegated)?;
            }
            v2::enable(&directory.mount, directory.entrance(), plan)?;
        }
    }
    Ok(is_new)
}

fn make_path(path: &Path, made: &mut Made) -> std::result::Result<bool, Errno> {
    let mkdir = |path: &Path| DirBuilder::new().mode(0o755).create(path).map_err(file::errno);
    let mut result = mkdir(path);
    if let (Err(Errno::ENOENT), Some(parent)) = (result, path.parent()) {
        make_path(parent, made)?;
        result = mkdir(path);
    }
    match result {
        Ok(()) => {
            made.paths.push(path.to_owned());
            Ok(true)
        }
        Err(Errno::EEXIST) => Ok(false),
        // What is there on a read-only hierarchy can still be joined, by whoever may.
        Err(errno) if path.is_dir() => {
            log::debug!("mkdir {}: {errno}", path.display());
            Ok(false)
        }
        Err(errno) => Err(errno),
    }
}
