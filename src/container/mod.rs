//! The outside: what the runtime process does with containers, a file per verb.
//!
//! A container is its directory (state.rs) and its processes. Nothing of the runtime stays behind, so every operation
//! finds the container again: the state says where, the kernel says how it is. A status is derived, never stored.

mod attached;
mod checkpoint;
mod create;
mod delete;
pub mod events;
mod exec;
mod external;
mod external_tmpfs;
mod foreign;
mod freeze;
mod hooks;
mod host_mounts;
mod host_streams;
mod idmap;
mod images_view;
mod inside;
mod joined;
mod kill;
mod left_out;
mod mount_points;
mod net_devices;
mod no_pivot;
mod notify;
mod open_files;
mod own_cgroup;
mod own_namespaces;
mod preflight;
pub mod progress;
mod queues;
mod rdt;
pub mod relay;
mod restore;
mod restore_root;
mod restored_cgroups;
mod rollback;
mod seccomp_agent;
mod shm;
mod spawn;
mod start;
pub mod state;
mod streams;
mod terminal;
mod tools;
mod trees;
mod update;
mod work_images;

pub use create::{CreateOptions, create};
pub use delete::delete_damaged;
pub use exec::ExecOptions;
pub use notify::NotifySocket;
pub use restore::restore;
pub use shm::SharedIpc;
pub use start::run;
pub use state::State;
pub use streams::StreamOptions;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::plan::namespaces::{Kind, Namespace, of};
use crate::plan::process::Surroundings;
use crate::plan::run_oci;
use crate::sys::{Errno, pidfd, proc, socket};
use oci_spec::runtime::{Linux, LinuxPersonality, LinuxPersonalityDomain, Process, Spec};
use state::StateDir;
use std::cell::OnceCell;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use streams::Streams;

/// How a container is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Status {
    /// Init waits for start.
    Created,
    /// The program runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Init has ended.
    Stopped,
}

impl Status {
    /// Returns the specification's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A container that is there.
#[derive(Clone, Debug)]
pub struct Container {
    dir: StateDir,
    state: State,
    /// The configuration, once it was asked for.
    spec: OnceCell<Box<Spec>>,
}

/// A process that was started, and its standard streams.
#[derive(Debug)]
pub struct Started {
    /// Its pid.
    pub pid: i32,
    /// A descriptor that stands for it.
    pub pidfd: OwnedFd,
    /// What the foreground has to look after.
    pub io: relay::Io,
    /// Where it says that it is ready, if somebody wants to know.
    pub notify: Option<NotifySocket>,
}

impl Container {
    /// Returns the container that was just made from `spec`.
    pub(crate) fn new(dir: StateDir, state: State, spec: Box<Spec>) -> Self {
        Self { dir, state, spec: OnceCell::from(spec) }
    }

    /// Finds the container `id` below `root`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when there is none, [`ErrorKind::Foreign`] when another runtime has made it.
    pub fn load(root: &Path, id: &str) -> Result<Self> {
        let dir = StateDir::of(root, id)?;
        let state = dir.load()?;
        Ok(Self { dir, state, spec: OnceCell::new() })
    }

    /// Finds the container `id` below `root`, also one that another runtime has made: to show it, to signal, pause and
    /// delete it. Nothing else can be done to such a one.
    pub fn find(root: &Path, id: &str) -> Result<Self> {
        Self::load(root, id).or_else(|err| match err.kind() {
            ErrorKind::Foreign => {
                let dir = StateDir::of(root, id)?;
                let (state, spec) = foreign::load(&dir, id)?.ok_or(err)?;
                Ok(Self::new(dir, state, spec))
            }
            _ => Err(err),
        })
    }

    /// Finds all containers below `root`, by name; what other runtimes keep there is passed over unless it can be read.
    pub fn list(root: &Path) -> Result<Vec<(String, Result<Self>)>> {
        let attempt = || format!("open {}", root.display());
        let mut found = Vec::new();
        for entry in std::fs::read_dir(root).context(attempt)? {
            let entry = entry.context(attempt)?;
            let id = entry.file_name().to_string_lossy().into_owned();
            if crate::spec::validate::id(&id).is_err() || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            match Self::find(root, &id) {
                Err(err) if matches!(err.kind(), ErrorKind::NotFound | ErrorKind::Foreign) => {}
                other => found.push((id, other)),
            }
        }
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(found)
    }

    /// Returns the container's name.
    pub fn id(&self) -> &str {
        &self.state.id
    }

    /// Returns what was noted when it was created.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Returns the configuration that it was created with.
    pub fn spec(&self) -> Result<&Spec> {
        match self.spec.get() {
            Some(spec) => Ok(spec),
            None => {
                let spec = self.dir.spec()?;
                Ok(self.spec.get_or_init(|| spec))
            }
        }
    }

    /// Returns the container's directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Asks the kernel how the container is.
    pub fn status(&self) -> Result<Status> {
        if self.init()?.is_none() {
            return Ok(Status::Stopped);
        }
        if self.state.cgroup.is_frozen()? {
            return Ok(Status::Paused);
        }
        Ok(if self.dir.fifo().exists() { Status::Created } else { Status::Running })
    }

    /// Opens init, if it has not ended: the start time tells it from a later process with its pid.
    fn init(&self) -> Result<Option<OwnedFd>> {
        let attempt = || format!("open init, process {}", self.state.pid);
        let pidfd = match pidfd::open(self.state.pid) {
            // The number is nobody's any more, or that of a thread: EINVAL, ENOENT since 6.15.
            Err(Errno::ESRCH | Errno::EINVAL | Errno::ENOENT) => return Ok(None),
            other => other.context(attempt)?,
        };
        match proc::stat(self.state.pid) {
            Ok(stat) if stat.start_time == self.state.start_time && !stat.has_ended() => Ok(Some(pidfd)),
            Ok(_) | Err(Errno::ESRCH) => Ok(None),
            Err(errno) => Err(Error::system(attempt(), errno)),
        }
    }

    /// Returns the pids of all its processes, as the host sees them.
    pub fn pids(&self) -> Result<Vec<i32>> {
        self.state.cgroup.pids(true).map_err(|err| err.context("unable to get all container pids"))
    }

    /// Says whether its processes have a pid namespace of their own, so that the end of init ends them all.
    fn has_own_pids(&self) -> Result<bool> {
        let spec = self.spec()?;
        Ok(spec.linux().as_ref().is_some_and(|linux| of(linux, Kind::Pid) == Namespace::Private))
    }
}

/// Tells callers which process was started: by a file, and by a descriptor over a socket.
fn announce(started: &Started, pid_file: Option<&Path>, pidfd_socket: Option<&Path>) -> Result<()> {
    if let Some(path) = pidfd_socket {
        let attempt = || format!("send the process to pidfd socket {}", path.display());
        let socket = socket::connect_stream(path).context(attempt)?;
        let name = format!("pidfd for {}", started.pid);
        socket::send(socket.as_fd(), name.as_bytes(), Some(started.pidfd.as_fd())).context(attempt)?;
    }
    match pid_file {
        Some(path) => state::write_pid_file(path, started.pid),
        None => Ok(()),
    }
}

/// Says whether we are not the host's root: in a user namespace, or somebody else.
pub fn is_rootless() -> bool {
    !nix::unistd::geteuid().is_root() || in_user_namespace()
}

/// Says whether user ids here are not the host's.
pub fn in_user_namespace() -> bool {
    // Absent means a kernel without user namespaces.
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !is_whole_range(&map))
}

/// Says whether units are made by the user's own systemd. Who is root of a user namespace may have become it in one of a
/// user's own, or have a whole host there, with a systemd of the system's.
fn has_own_systemd() -> bool {
    let has_owner = || crate::cgroup::systemd::owner().is_some_and(|uid| uid != 0);
    !nix::unistd::geteuid().is_root() || (in_user_namespace() && has_owner())
}

fn is_whole_range(uid_map: &str) -> bool {
    uid_map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

fn write_oom_score(pid: i32, score: i32) -> Result<()> {
    let path = format!("/proc/{pid}/oom_score_adj");
    std::fs::write(&path, score.to_string()).context(|| format!("write {score} to {path}"))
}

/// Says whether groups may be set: who is not root keeps its own, and in a user namespace whose map was written without
/// privilege nobody sets any.
fn may_set_groups() -> bool {
    let denied = || std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny");
    nix::unistd::geteuid().is_root() && !denied()
}

/// Returns what every process of a container is surrounded by, be it its init or one more.
fn surroundings(spec: &Spec, process: Option<&Process>, streams: &Streams) -> Result<Surroundings> {
    let linux = spec.linux().as_ref();
    let is_labelled = process.is_some_and(|process| process.selinux_label().is_some());
    Ok(Surroundings {
        last_capability: crate::sys::process::last_capability(),
        may_set_groups: may_set_groups() && !run_oci::keeps_groups(spec),
        personality: linux.and_then(|linux| linux.personality().as_ref()).map(personality),
        memory_policy: linux.map(crate::plan::memory_policy::plan).transpose()?.flatten(),
        has_cpuset: has_cpuset(linux),
        has_selinux: is_labelled && crate::sys::process::has_selinux(),
        terminal_size: streams.terminal_size(),
        relayed: streams.has_relayed_terminal(),
        ..Surroundings::default()
    })
}

/// Says whether the container may use some cpus only.
fn has_cpuset(linux: Option<&Linux>) -> bool {
    let cpu = linux.and_then(|linux| linux.resources().as_ref()).and_then(|resources| resources.cpu().as_ref());
    cpu.and_then(|cpu| cpu.cpus().as_ref()).is_some_and(|cpus| !cpus.is_empty())
}

fn personality(asked: &LinuxPersonality) -> u32 {
    // linux/personality.h
    match asked.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_user_namespace_has_all_ids() {
        assert!(is_whole_range("         0          0 4294967295\n"));
        assert!(!is_whole_range("0 1000 1\n"));
        assert!(!is_whole_range("0 1000 1\n1 100000 65536\n"));
    }
}
