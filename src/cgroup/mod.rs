//! Cgroups on the host: finding the hierarchies, and making, limiting, freezing, killing and
//! removing a container's cgroup.
//!
//! [`Cgroup`] is what later commands need and is saved with the container's state. What to make and
//! write is decided in `plan::cgroup`; here it is done, by plain file access. `v1` and `v2` have
//! what differs between the two interfaces, `devices` the filter of devices, `entry` the ways in, `file` reads and
//! writes, `stats` what was used, `oom` the OOM killer's news. Whoever makes the directories is a `Driver`: this process,
//! or a `systemd`, whose scopes need a `holder`.

mod create;
mod devices;
mod entry;
mod file;
mod holder;
mod oom;
mod processes;
mod stats;
pub mod systemd;
mod v1;
mod v2;

pub use entry::Entry;
pub use holder::Holder;
pub use oom::OomWatch;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::plan::cgroup::systemd::{Unit, limits, rounded};
use crate::plan::cgroup::{CgroupPlan, Directory, Layout, OwnCgroup, Refusal, Version, Write, not_joined, update};
use crate::sys::Errno;
use crate::sys::cgroupfs::{Filesystem, filesystem};

/// Where every distribution mounts the hierarchies (file-hierarchy(7)).
const MOUNT_POINT: &str = "/sys/fs/cgroup";

/// Finds the host's hierarchies.
pub fn detect() -> Result<Layout> {
    match filesystem(c"/sys/fs/cgroup").context(|| format!("statfs {MOUNT_POINT}"))? {
        Filesystem::V2 => Ok(Layout::V2(v2::mount(PathBuf::from(MOUNT_POINT))?)),
        Filesystem::V1 | Filesystem::Other => v1::layout(Path::new(MOUNT_POINT)),
    }
}

/// Returns the cgroups that this process is in.
pub fn own() -> Result<OwnCgroup> {
    of("self")
}

/// Returns the cgroups that a process is in, which is named as in /proc.
fn of(process: &str) -> Result<OwnCgroup> {
    let name = format!("/proc/{process}/cgroup");
    OwnCgroup::parse(&std::fs::read_to_string(&name).context(|| format!("read {name}"))?)
}

/// Who makes, limits and removes the directories.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Driver {
    /// This process, by file access.
    #[default]
    Cgroupfs,
    /// systemd, and this process where systemd has no words.
    Systemd {
        /// The unit's name.
        unit: String,
        /// Whether it is the user's own systemd.
        is_user: bool,
    },
}

/// A container's cgroup, in all hierarchies. One without a hierarchy is what a rootless container
/// may have to live with.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Cgroup {
    driver: Driver,
    directories: Vec<Directory>,
    /// A rootless runtime was asked for no cgroup in particular: it takes what it can get.
    lenient: bool,
    /// A rootless runtime made it, whose later commands may be where they cannot put processes from.
    #[serde(default)]
    pub(crate) rootless: bool,
    /// The directories were made just now, so that nothing needs to be asked about what is in them.
    #[serde(skip)]
    fresh: bool,
}

impl Cgroup {
    /// Makes the directories of a plan, or takes over those that are there and empty.
    ///
    /// What was made is removed again if it fails; the v1 cpusets are filled, since a process could
    /// not join them else. A scope of systemd has to be held until a process of the container is in it.
    pub fn create(plan: &CgroupPlan) -> Result<(Self, Option<Holder>)> {
        create::create(plan, false)
    }

    /// As [`create`](Self::create), but refuses directories that are there.
    pub fn create_new(plan: &CgroupPlan) -> Result<(Self, Option<Holder>)> {
        create::create(plan, true)
    }

    /// Returns the cgroup that a plan made, as far as it is there.
    pub fn planned(plan: &CgroupPlan) -> Self {
        let there = plan.directories.iter().filter(|directory| directory.path.is_dir());
        Self {
            driver: create::driver(plan),
            directories: there.cloned().collect(),
            rootless: plan.rootless,
            ..Self::default()
        }
    }

    /// Sets limits, and on a plan for a new container the device filter.
    pub fn apply(&self, plan: &CgroupPlan) -> Result<()> {
        if let (Some(check), Some(directory)) = (&plan.usage_check, self.directory("memory")) {
            v2::check_usage(directory, check)?;
        }
        if let Some(unit) = plan.unit.as_ref().filter(|unit| !unit.limits.is_empty()) {
            systemd::change(unit)?;
        }
        let is_update = plan.directories.is_empty();
        for directory in self.directories.iter().filter(|directory| is_update && directory.version == Version::V2) {
            v2::enable(&directory.mount, &directory.path, plan)?;
        }
        for group in plan.writes.chunk_by(|a, b| a.controller == b.controller) {
            let mut later = Vec::new();
            for write in group {
                if !self.write(write)? {
                    later.push(Write { refusal: Refusal::Fails, ..write.clone() });
                }
            }
            for write in &later {
                self.write(write)?;
            }
        }
        devices::apply(self, plan)
    }

    /// Plans new limits for this cgroup, for [`apply`](Self::apply).
    pub fn update(&self, resources: &oci_spec::runtime::LinuxResources) -> Result<CgroupPlan> {
        let Driver::Systemd { unit, is_user } = &self.driver else { return update(&self.directories, Some(resources)) };
        let is_v1 = self.directories.iter().any(|directory| directory.version == Version::V1);
        let limits = limits(if is_v1 { Version::V1 } else { Version::V2 }, resources)?;
        let unit = Unit { name: unit.clone(), is_user: *is_user, properties: Vec::new(), limits };
        Ok(CgroupPlan { unit: Some(unit), ..update(&self.directories, Some(&rounded(resources)))? })
    }

    /// Returns what is in the files that a plan is about to write; nothing where systemd sets limits too, which has to be
    /// told in its own words.
    pub fn held(&self, plan: &CgroupPlan) -> Option<Vec<Write>> {
        let held = || plan.writes.iter().filter_map(|write| self.read(write)).collect();
        (self.driver == Driver::Cgroupfs).then(held)
    }

    /// Writes back what was in files, where it is not there any more: the latest first, and each for itself.
    pub fn put_back(&self, held: &[Write]) -> Result<()> {
        let differs = |write: &Write| self.read(write).is_none_or(|now| now.value != write.value);
        let put = |write: &Write| {
            let written = match self.directory(&write.controller) {
                // Of an empty value the kernel would hear nothing.
                Some(directory) if write.value.is_empty() => file::write(&directory.path.join(&write.file), "\n")
                    .map_err(|errno| explain(directory, write, errno)),
                _ => self.write(write).map(drop),
            };
            let left = || Error::other(format!("{} is not what it was", write.file));
            written.and_then(|()| if differs(write) { Err(left()) } else { Ok(()) })
        };
        held.iter().rev().filter(|write| differs(write)).map(put).fold(Ok(()), Result::and)
    }

    /// Returns the write that leaves a file as it is, if it is there and can be read.
    fn read(&self, write: &Write) -> Option<Write> {
        let path = self.directory(&write.controller)?.path.join(&write.file);
        let value = match (file::read(&path), &write.refusal) {
            (Err(Errno::ENOENT), Refusal::Otherwise(other)) => return self.read(other),
            (Ok(text), _) if write.file == "memory.oom_control" => file::value(&text, "oom_kill_disable")?.to_string(),
            (Ok(text), _) => text.trim_end().to_owned(),
            (Err(_), _) => return None,
        };
        Some(Write { value, ..write.clone() })
    }

    /// Writes one limit; says no if it has to be tried again later.
    fn write(&self, write: &Write) -> Result<bool> {
        let Some(directory) = self.directory(&write.controller) else {
            return Err(not_joined(&write.controller));
        };
        let path = directory.path.join(&write.file);
        match (file::write_lines(&path, &write.value), &write.refusal) {
            (Ok(()), _) | (Err(Errno::ENOENT), Refusal::MayBeAbsent) => Ok(true),
            (Err(Errno::EINVAL), Refusal::TryLater) => Ok(false),
            (Err(Errno::ENOENT), Refusal::Otherwise(other)) => self.write(other),
            (Err(errno), _) => Err(explain(directory, write, errno)),
        }
    }

    /// Stops all processes of the cgroup, and waits until they are stopped.
    pub fn freeze(&self) -> Result<()> {
        let directory = self.freezer()?;
        match directory.version {
            Version::V1 => v1::freeze(&directory.path),
            Version::V2 => v2::freeze(&directory.path),
        }
    }

    /// Lets stopped processes go on.
    pub fn thaw(&self) -> Result<()> {
        let directory = self.freezer()?;
        match directory.version {
            Version::V1 => v1::thaw(&directory.path),
            Version::V2 => v2::thaw(&directory.path),
        }
    }

    /// Returns whether [`freeze`](Self::freeze) was called, also if not everything has stopped yet.
    /// A frozen ancestor does not count: that is nobody's pause of this container.
    pub fn is_frozen(&self) -> Result<bool> {
        let Ok(directory) = self.freezer() else { return Ok(false) };
        let path = match directory.version {
            Version::V1 => directory.path.join("freezer.self_freezing"),
            Version::V2 => directory.path.join("cgroup.freeze"),
        };
        match file::read(&path) {
            Ok(text) => Ok(text.trim_end() == "1"),
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(false),
            Err(errno) => Err(Error::system(format!("read {}", path.display()), errno)),
        }
    }

    /// Returns the processes in the cgroup, and with `recursive` those in cgroups below it.
    pub fn pids(&self, recursive: bool) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        if let Some(directory) = self.process_list() {
            processes::list(&directory.path, recursive, &mut pids)?;
        }
        Ok(pids)
    }

    /// Sends a signal to all processes in the cgroup and below it. For SIGKILL a frozen cgroup is
    /// thawed, since on v1 a frozen process does not die.
    pub fn kill(&self, signal: i32) -> Result<()> {
        processes::kill(self, signal)
    }

    /// Removes the cgroup and those below it. Its ancestors stay, as with runc: others may be about
    /// to use them.
    pub fn remove(&self) -> Result<()> {
        let stopped = match &self.driver {
            Driver::Cgroupfs => Ok(true),
            Driver::Systemd { unit, is_user } => systemd::stop(unit, *is_user),
        };
        if matches!(stopped, Ok(false)) {
            processes::wait_for_systemd(self);
        }
        processes::remove(self).and(stopped.map(drop))
    }

    /// Removes the cgroup if there is nothing in it, as after the usual end of a container: the kernel knows that without
    /// a look. Says no where something stays, or where that is not for us to remove. Directories that are gone
    /// by then had nobody in them.
    pub fn remove_empty(&self) -> bool {
        self.driver == Driver::Cgroupfs && processes::remove_empty(self)
    }

    /// Returns the directory that stops the processes when it is frozen, as CRIU's `freeze_cgroup`
    /// wants it.
    pub fn freezer_path(&self) -> Option<PathBuf> {
        self.freezer().ok().map(|directory| directory.path.clone())
    }

    /// Returns the cgroup in each hierarchy.
    pub fn directories(&self) -> &[Directory] {
        &self.directories
    }

    /// Returns whether the cgroup is there.
    pub fn exists(&self) -> bool {
        self.process_list().is_some_and(|directory| directory.path.is_dir())
    }

    /// Returns how many processes the OOM killer has ended here, or nothing where nobody counts.
    pub fn oom_kills(&self) -> Option<u64> {
        let directory = self.directory("memory")?;
        let file = match directory.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        file::value(&file::read(&directory.path.join(file)).ok()?, "oom_kill")
    }

    /// Gives the cgroup on a v2 hierarchy to a user, who can then make cgroups below it and move
    /// processes between them.
    ///
    /// For a container with a user namespace and a writable cgroup mount. v1 is never safe to
    /// delegate (cgroups(7)).
    pub fn delegate(&self, uid: u32) -> Result<()> {
        match self.directories.as_slice() {
            [one] if one.version == Version::V2 => v2::delegate(one.entrance(), uid),
            _ => Ok(()),
        }
    }

    /// Returns the directory in which a controller is used; the unified hierarchy's name is empty.
    fn directory(&self, controller: &str) -> Option<&Directory> {
        self.directories.iter().find(|directory| {
            let is_core = controller.is_empty() && directory.version == Version::V2;
            is_core || directory.controllers.iter().any(|name| name == controller)
        })
    }

    fn freezer(&self) -> Result<&Directory> {
        let directory = self.directory("freezer").or_else(|| self.directory(""));
        directory.ok_or_else(|| Error::other("cannot toggle freezer: cgroups not configured for container"))
    }

    /// Returns the directory whose list of processes is taken for the container's: as with runc
    /// that of the devices controller on v1, which no init system and no user lets a container's
    /// processes leave.
    fn process_list(&self) -> Option<&Directory> {
        self.directory("devices").or_else(|| self.directories.first())
    }
}

/// Returns whether the refusal is one that a runtime without privileges has to expect.
fn is_permission(errno: Errno) -> bool {
    matches!(errno, Errno::EPERM | Errno::EACCES | Errno::EROFS)
}

/// Returns the error of a limit that the kernel refused.
fn explain(directory: &Directory, write: &Write, errno: Errno) -> Error {
    let path = directory.path.join(&write.file);
    match (errno, directory.version) {
        (Errno::ENOENT | Errno::EACCES | Errno::EPERM, Version::V2) if !write.controller.is_empty() => {
            if let Some(error) = v2::explain_absence(directory, write) {
                return error;
            }
        }
        (Errno::EBUSY, Version::V1) if write.file == "memory.limit_in_bytes" => {
            let number = |file: &str| file::read(&directory.path.join(file)).unwrap_or_default().trim_end().to_owned();
            let (usage, peak) = (number("memory.usage_in_bytes"), number("memory.max_usage_in_bytes"));
            let use_now = format!("current usage: {usage}, peak usage: {peak}");
            return Error::system(format!("unable to set memory limit to {} ({use_now})", write.value), errno);
        }
        _ => {}
    }
    Error::system(format!("write {:?} to {}", write.value, path.display()), errno)
}
