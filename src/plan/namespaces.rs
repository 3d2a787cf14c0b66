//! Namespaces: which to create, which to join, and whether that takes a second process.

use crate::error::{Error, Result};
use nix::libc;
use oci_spec::runtime::{Linux, LinuxNamespaceType};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// A kind of namespace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Users and groups.
    User,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host and domain name.
    Uts,
    /// Network.
    Network,
    /// Processes.
    Pid,
    /// Mounts.
    Mount,
    /// Control groups.
    Cgroup,
    /// Clocks.
    Time,
}

impl Kind {
    /// Every kind, in the order in which they are joined; the user namespace has rounds of its own (init/namespaces.rs).
    pub const ALL: [Kind; 8] =
        [Kind::User, Kind::Ipc, Kind::Uts, Kind::Network, Kind::Pid, Kind::Mount, Kind::Cgroup, Kind::Time];

    /// Returns the kernel's `CLONE_NEW*` bit.
    pub const fn flag(self) -> u64 {
        (match self {
            Kind::User => libc::CLONE_NEWUSER,
            Kind::Ipc => libc::CLONE_NEWIPC,
            Kind::Uts => libc::CLONE_NEWUTS,
            Kind::Network => libc::CLONE_NEWNET,
            Kind::Pid => libc::CLONE_NEWPID,
            Kind::Mount => libc::CLONE_NEWNS,
            Kind::Cgroup => libc::CLONE_NEWCGROUP,
            Kind::Time => 0x80,
        }) as u64
    }

    /// Returns the name that config.json uses.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::User => "user",
            Kind::Ipc => "ipc",
            Kind::Uts => "uts",
            Kind::Network => "network",
            Kind::Pid => "pid",
            Kind::Mount => "mount",
            Kind::Cgroup => "cgroup",
            Kind::Time => "time",
        }
    }

    /// Returns the file name in /proc/PID/ns.
    pub const fn proc_name(self) -> &'static str {
        match self {
            Kind::Network => "net",
            Kind::Mount => "mnt",
            other => other.name(),
        }
    }
}

impl From<LinuxNamespaceType> for Kind {
    fn from(kind: LinuxNamespaceType) -> Self {
        match kind {
            LinuxNamespaceType::User => Kind::User,
            LinuxNamespaceType::Ipc => Kind::Ipc,
            LinuxNamespaceType::Uts => Kind::Uts,
            LinuxNamespaceType::Network => Kind::Network,
            LinuxNamespaceType::Pid => Kind::Pid,
            LinuxNamespaceType::Mount => Kind::Mount,
            LinuxNamespaceType::Cgroup => Kind::Cgroup,
            LinuxNamespaceType::Time => Kind::Time,
        }
    }
}

/// Where the container stands in one kind of namespace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Namespace {
    /// In the runtime's own.
    Host,
    /// In a new one of its own.
    Private,
    /// In that of the file.
    Joined(PathBuf),
}

/// Returns where the configuration puts the container in one kind of namespace.
pub fn of(linux: &Linux, kind: Kind) -> Namespace {
    let listed = linux.namespaces().iter().flatten().find(|ns| Kind::from(ns.typ()) == kind);
    match listed.map(|ns| ns.path()) {
        None => Namespace::Host,
        Some(Some(path)) if !path.as_os_str().is_empty() => Namespace::Joined(path.clone()),
        Some(_) => Namespace::Private,
    }
}

/// A namespace to join.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Join {
    /// What kind it has to be.
    pub kind: Kind,
    /// Where it is.
    pub path: CString,
}

/// How the inside gets into its namespaces.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NamespacePlan {
    /// `CLONE_NEW*` bits of the clone that makes init.
    pub clone_flags: u64,
    /// Namespaces to join, in order.
    pub join: Vec<Join>,
    /// Whether a process of its own must join before init can be cloned: see `needs_joiner`.
    pub joiner: bool,
    /// `CLONE_NEW*` bits of the namespaces of a running container that exec joins, all at once.
    pub join_process: u64,
    /// Whether the joiner makes the user namespace, and not the clone.
    pub unshare_user: bool,
    /// Whether init unshares its cgroup namespace once it is in its cgroup.
    pub unshare_cgroup: bool,
    /// What the joiner writes to /proc/self/timens_offsets after it has unshared the time namespace.
    pub time_offsets: Option<CString>,
    /// Whether init has a user namespace that is not the runtime's.
    pub in_userns: bool,
    /// Whether the mounts are the host's, in no namespace of the container's or another's.
    pub host_mounts: bool,
    /// Whether init unshares the network namespace itself: making one takes longer than all the others together, time in
    /// which the outside can already go on.
    pub unshare_network: bool,
}

/// Plans how the inside gets into the namespaces of the configuration.
pub fn plan(linux: &Linux) -> Result<NamespacePlan> {
    let mut plan = NamespacePlan::default();
    let mut new_time = false;
    for kind in Kind::ALL {
        match of(linux, kind) {
            Namespace::Host => {}
            Namespace::Private => match kind {
                Kind::Cgroup => plan.unshare_cgroup = true,
                Kind::Time => new_time = true,
                Kind::Network => plan.unshare_network = true,
                _ => plan.clone_flags |= kind.flag(),
            },
            Namespace::Joined(path) => {
                let path = CString::new(path.as_os_str().as_bytes())
                    .map_err(|_| Error::invalid(format!("{} namespace path has a NUL byte", kind.name())))?;
                plan.join.push(Join { kind, path });
            }
        }
    }
    plan.in_userns = plan.clone_flags & Kind::User.flag() != 0 || plan.joins(Kind::User);
    plan.host_mounts = of(linux, Kind::Mount) == Namespace::Host;
    if new_time {
        plan.time_offsets = Some(time_offsets(linux)?);
        // Whoever sets clocks owns them: the user namespace has to be there by then.
        plan.unshare_user = plan.clone_flags & Kind::User.flag() != 0;
        plan.clone_flags &= !Kind::User.flag();
    }
    plan.joiner = needs_joiner(&plan);
    Ok(plan)
}

impl NamespacePlan {
    /// Says whether a namespace of this kind is joined.
    pub fn joins(&self, kind: Kind) -> bool {
        self.join.iter().any(|join| join.kind == kind)
    }
}

/// Says whether init cannot get where it belongs by itself.
///
/// Joining a pid or time namespace only takes effect for children; a user namespace that is joined must be entered
/// before the others are created, so that it owns them; with a new user namespace, joining has to come before the
/// clone, while the privileges over the joined ones are still there.
fn needs_joiner(plan: &NamespacePlan) -> bool {
    let new_user = plan.clone_flags & Kind::User.flag() != 0;
    plan.time_offsets.is_some()
        || plan.join.iter().any(|join| matches!(join.kind, Kind::Pid | Kind::User | Kind::Time))
        || (new_user && !plan.join.is_empty())
}

fn time_offsets(linux: &Linux) -> Result<CString> {
    let mut text = String::new();
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        let (secs, nanosecs) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        text.push_str(&format!("{clock} {secs} {nanosecs}\n"));
    }
    CString::new(text).map_err(|_| Error::invalid("a clock in timeOffsets has a NUL byte"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(namespaces: &str) -> NamespacePlan {
        let json = format!("{{\"namespaces\":[{namespaces}]}}");
        plan(&serde_json::from_str(&json).unwrap()).unwrap()
    }

    #[test]
    fn new_namespaces_need_one_clone() {
        let p = plan_of(r#"{"type":"pid"},{"type":"mount"},{"type":"user"},{"type":"cgroup"}"#);
        assert_eq!(p.clone_flags, Kind::Pid.flag() | Kind::Mount.flag() | Kind::User.flag());
        assert!(p.unshare_cgroup && p.in_userns && !p.host_mounts && !p.joiner);
    }

    #[test]
    fn joining_network_ipc_uts_needs_no_joiner() {
        let p = plan_of(r#"{"type":"network","path":"/n"},{"type":"ipc","path":"/i"},{"type":"mount"}"#);
        assert!(!p.joiner);
        assert_eq!(p.join.iter().map(|j| j.kind).collect::<Vec<_>>(), [Kind::Ipc, Kind::Network]);
    }

    #[test]
    fn pid_user_and_pods_with_a_new_userns_need_a_joiner() {
        assert!(plan_of(r#"{"type":"pid","path":"/p"}"#).joiner);
        assert!(plan_of(r#"{"type":"user","path":"/u"}"#).joiner);
        assert!(plan_of(r#"{"type":"user"},{"type":"network","path":"/n"}"#).joiner);
        assert!(plan_of(r#"{"type":"time"}"#).joiner);
    }

    #[test]
    fn mounts_are_the_hosts_where_nobody_says_otherwise() {
        assert!(plan_of(r#"{"type":"pid"}"#).host_mounts);
        let joined = plan_of(r#"{"type":"mount","path":"/m"}"#);
        assert!(!joined.host_mounts && !joined.joiner && joined.clone_flags == 0);
    }

    #[test]
    fn clocks_of_a_user_namespace_are_set_in_it() {
        let p = plan_of(r#"{"type":"user"},{"type":"time"},{"type":"mount"}"#);
        assert_eq!(p.clone_flags, Kind::Mount.flag());
        assert!(p.unshare_user && p.in_userns && p.joiner);
        assert!(!plan_of(r#"{"type":"user"},{"type":"mount"}"#).unshare_user);
    }

    #[test]
    fn an_empty_path_is_a_new_namespace() {
        assert_eq!(plan_of(r#"{"type":"pid","path":""}"#).clone_flags, Kind::Pid.flag());
    }
}
