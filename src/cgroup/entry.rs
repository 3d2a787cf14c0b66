//! The ways into a cgroup: for a process that is about to be made, and for one that is there.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use super::{Cgroup, Driver, file, is_permission, processes, systemd};
use crate::error::{Context, Error, Result};
use crate::plan::cgroup::{Directory, Version};

/// The way into a cgroup for a process that is about to be made; see [`Cgroup::entry`].
#[derive(Debug)]
pub struct Entry {
    /// For clone3's CLONE_INTO_CGROUP.
    pub clone_into: Option<OwnedFd>,
    /// Whether the process may stay out where it may not be put, until it is brought in.
    pub may_stay: bool,
    /// The new process writes `0` to each of these, before it does anything else and while it has
    /// one thread.
    pub tasks: Vec<OwnedFd>,
}

impl Cgroup {
    /// Returns what a process that is about to be made needs to be in the cgroup from its first
    /// moment on.
    ///
    /// The fast way in: [`attach`](Self::attach) makes the kernel wait for all cpus (an RCU grace
    /// period, 7 to 15 ms on an idle machine), since the moved process might be forking. There is
    /// no wait for a process that is made in the cgroup, nor (since 5.5) for a single thread that
    /// moves itself through v1's `tasks`.
    pub fn entry(&self) -> Result<Entry> {
        self.entry_unless_refused(self.lenient)
    }

    /// Returns the same for one more process of a container that runs, which is made by one that has joined its
    /// namespaces. In that of users, it has no privilege over a cgroup that was given to one of them.
    pub fn entry_beside(&self, in_userns: bool) -> Result<Entry> {
        let entry = self.entry_unless_refused(self.rootless)?;
        Ok(Entry { may_stay: entry.may_stay || in_userns, ..entry })
    }

    fn entry_unless_refused(&self, may_stay: bool) -> Result<Entry> {
        // systemd can move it later.
        let may_stay = may_stay || matches!(self.driver, Driver::Systemd { is_user: true, .. });
        let mut entry = Entry { clone_into: None, may_stay, tasks: Vec::new() };
        for directory in &self.directories {
            let open = match directory.version {
                Version::V1 => OpenOptions::new().write(true).open(directory.path.join("tasks")),
                Version::V2 => File::open(directory.entrance()),
            };
            let fd = match open.map_err(file::errno) {
                Err(errno) if may_stay && is_permission(errno) => continue,
                // runc's words: the file that it writes to.
                other => other.context(|| format!("open {}/cgroup.procs", directory.entrance().display()))?.into(),
            };
            match directory.version {
                Version::V1 => entry.tasks.push(fd),
                Version::V2 => entry.clone_into = Some(fd),
            }
        }
        Ok(entry)
    }

    /// Returns where one more process of the container is put, whose init is `pid`: here if it can be.
    ///
    /// A container that makes cgroups of its own on v2 may have enabled controllers in this one, which can then have no
    /// processes (EBUSY), or have moved to another and left this one to be removed: it is put beside init then.
    pub fn beside(&self, pid: i32) -> Result<Self> {
        let mut beside = self.clone();
        for directory in beside.directories.iter_mut().filter(|directory| directory.version == Version::V2) {
            let enabled = file::read(&directory.path.join("cgroup.subtree_control"));
            if directory.delegated.is_none() && enabled.is_ok_and(|controllers| controllers.trim().is_empty()) {
                continue;
            }
            let where_it_is = super::of(&pid.to_string())?;
            let Some(below) = where_it_is.path("").and_then(|path| path.strip_prefix("/").ok()) else { continue };
            if below.starts_with("..") {
                return Err(Error::other(format!("process {pid} has left our cgroup namespace")));
            }
            directory.path = directory.mount.join(below);
            directory.delegated = None;
        }
        Ok(beside)
    }

    /// Returns a cgroup below this one: in the hierarchies of the named controllers, or in all. By its words alone, as in runc.
    pub fn below(&self, controllers: Option<&[&str]>, path: &Path) -> Result<Self> {
        let relative = path.components().try_fold(PathBuf::new(), |mut below, component| match component {
            Component::Normal(name) => Some(below.join(name)),
            Component::ParentDir => below.pop().then_some(below),
            _ => Some(below),
        });
        let relative = relative.ok_or_else(|| {
            // The words of runc 1.5, and those of older ones.
            Error::invalid(format!("bad sub cgroup path: {} is not a sub cgroup path", path.display()))
        })?;
        let mut below = self.clone();
        for name in controllers.unwrap_or_default() {
            if below.directory(name).is_none() {
                return Err(Error::invalid(format!("unknown controller {name} in sub cgroup path")));
            }
        }
        for directory in &mut below.directories {
            let is_named = |name: &&str| directory.controllers.iter().any(|controller| controller == name);
            if controllers.is_none_or(|names| names.iter().any(is_named)) {
                directory.path.push(&relative);
                directory.delegated = None;
            }
        }
        Ok(below)
    }

    /// Moves a process into the cgroup, in all hierarchies.
    pub fn attach(&self, pid: i32) -> Result<()> {
        self.directories.iter().try_for_each(|directory| self.move_into(directory, pid))
    }

    /// Moves a process in that was not let in when it was made, if it is one that [may stay](Entry::may_stay) out.
    pub fn bring_in(&self, pid: i32, may_stay: bool) -> Result<()> {
        for directory in self.directories.iter().filter(|directory| may_stay && directory.version == Version::V2) {
            let mut there = Vec::new();
            processes::list(directory.entrance(), false, &mut there)?;
            if !there.contains(&pid) {
                self.move_into(directory, pid)?;
            }
        }
        Ok(())
    }

    /// Moves a process into the cgroup in one hierarchy, or has the user's systemd do so.
    ///
    /// The kernel wants whoever moves a process to own what is above both cgroups, which a user does not whose session
    /// is not below that systemd. Where systemd may not either, it asks the host's.
    fn move_into(&self, directory: &Directory, pid: i32) -> Result<()> {
        let place = directory.entrance();
        match (file::write(&place.join("cgroup.procs"), &pid.to_string()), &self.driver) {
            (Err(errno), Driver::Systemd { unit, is_user: true }) if is_permission(errno) => {
                let below = place.iter().skip_while(|name| *name != unit.as_str()).skip(1);
                systemd::attach(unit, &Path::new("/").join(below.collect::<PathBuf>()), pid)
            }
            (Err(errno), _) if self.lenient && is_permission(errno) => Ok(()),
            (other, _) => other.context(|| format!("add process {pid} to cgroup {}", place.display())),
        }
    }
}
