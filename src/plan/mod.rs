//! What will be done: pure functions from the configuration to plain data.
//!
//! A plan is made before its process is. The inside carries it out without deciding anything, and the outside,
//! which holds the same plan, turns a failure's numbers into words. Nothing here asks or changes the system.

pub mod caps;
pub mod cgroup;
pub mod devices;
pub mod hooks;
pub mod idmap;
pub mod ipc;
pub mod labels;
pub mod memory_policy;
pub mod mount_flags;
pub mod mount_ids;
pub mod mount_options;
pub mod mounts;
pub mod namespaces;
pub mod number_list;
pub mod process;
pub mod rdt;
pub mod run_oci;
pub mod seccomp;
pub mod step;

use crate::error::{Error, Result};
use devices::{DeviceNode, Link};
use hooks::HookPlan;
use idmap::IdMaps;
use mount_options::{Parameter, Propagation};
use mounts::{MountContext, MountStep};
use namespaces::NamespacePlan;
use oci_spec::runtime::{Hooks, Linux, Root, Spec};
use process::{ProcessPlan, Surroundings, cstring};
use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};

/// Everything that the inside does, in the order in which it does it.
///
/// A process that exec adds uses the namespaces and the process only.
#[derive(Debug, Default)]
pub struct InitPlan {
    /// Namespaces.
    pub namespaces: NamespacePlan,
    /// Id maps that the outside writes.
    pub id_maps: Option<IdMaps>,
    /// Host name.
    pub hostname: Option<CString>,
    /// NIS domain name.
    pub domainname: Option<CString>,
    /// The root file system and all in it.
    pub rootfs: RootfsPlan,
    /// Kernel parameters of the container's namespaces.
    pub sysctls: Vec<Sysctl>,
    /// Hooks that run inside before the root is changed.
    pub create_container: Vec<HookPlan>,
    /// Whether the outside has something to do once namespaces and mounts are there: hooks, or network devices to move.
    pub pause_for_hooks: bool,
    /// The process.
    pub process: ProcessPlan,
    /// Hooks that run inside just before the program.
    pub start_container: Vec<HookPlan>,
}

/// The root file system of a container.
#[derive(Debug, Default)]
pub struct RootfsPlan {
    /// Where it is on the host, absolute.
    pub source: CString,
    /// Propagation of what was inherited from the host, and of the root at the end.
    pub propagation: Option<Propagation>,
    /// Mounts.
    pub mounts: Vec<MountStep>,
    /// Device nodes; without any /dev is left alone, since it is the host's.
    pub devices: Vec<DeviceNode>,
    /// Symlinks of /dev.
    pub links: Vec<Link>,
    /// Whether a user namespace mounts it, which may not make device nodes: they are bound from the host.
    pub in_userns: bool,
    /// Paths to make read-only.
    pub readonly_paths: Vec<CString>,
    /// Paths to hide.
    pub masked_paths: Vec<CString>,
    /// What gives the file system that hides directories the container's SELinux label.
    pub label: Option<Parameter>,
    /// Whether the root is read-only.
    pub readonly: bool,
    /// How the root becomes `/`.
    pub change: RootChange,
}

/// How the root file system becomes `/`.
#[derive(Debug, Default)]
pub enum RootChange {
    /// It is exchanged with the old one, which goes.
    #[default]
    Pivot,
    /// It is moved over the old one (`--no-pivot`), whose mounts of these places are hidden.
    Move(Vec<CString>),
    /// The mounts are the host's, which keeps its own: only the container's processes change.
    Chroot,
}

/// A kernel parameter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sysctl {
    /// Its file below /proc/sys.
    pub path: CString,
    /// What is written.
    pub value: CString,
}

/// What a plan depends on beside the configuration.
#[derive(Debug)]
pub struct Host<'a> {
    /// Where config.json was.
    pub bundle: &'a Path,
    /// What `cgroup` mounts show.
    pub cgroups: &'a mounts::CgroupView,
    /// Whether the host's /proc has kcore.
    pub kcore: bool,
    /// What the process needs to know.
    pub process: Surroundings,
    /// With `--no-pivot`: where the host has all of a procfs or sysfs.
    pub no_pivot: Option<Vec<CString>>,
}

impl InitPlan {
    /// Plans a container's init. `spec` has been validated.
    pub fn new(spec: &Spec, seccomp: Option<seccomp::CompiledFilter>, host: &Host<'_>) -> Result<Self> {
        let linux = linux(spec)?;
        let namespaces = namespaces::plan(linux)?;
        let process = spec.process().as_ref().ok_or_else(|| Error::invalid("process property must not be empty"))?;
        let hooks = spec.hooks().as_ref();
        Ok(Self {
            rootfs: rootfs(spec, linux, &namespaces, host)?,
            id_maps: idmap::plan(linux)?,
            hostname: name(spec.hostname().as_deref(), "hostname")?,
            domainname: name(spec.domainname().as_deref(), "domainname")?,
            sysctls: sysctls(linux)?,
            create_container: hooks::plan(hooks.and_then(|h| h.create_container().as_ref()))?,
            pause_for_hooks: hooks.is_some_and(has_outside_hooks) || has_net_devices(linux),
            process: process::plan(process, seccomp, &host.process)?,
            start_container: hooks::inheriting(hooks.and_then(|h| h.start_container().as_ref()))?,
            namespaces,
        })
    }
}

impl InitPlan {
    /// Says whether only the inside sees what a bind mount's source is: where earlier mounts may lie on it, and in a
    /// mount namespace of others, as with runc.
    pub fn is_source_inside(&self, step: &mounts::MountStep) -> bool {
        let is_covered = matches!(step.action, mounts::MountAction::Bind { inside: Some(_), .. });
        is_covered || self.namespaces.joins(namespaces::Kind::Mount)
    }

    /// Returns the user that the container's cgroup is given to on v2: whoever its process is in its user namespace, if
    /// it sees nothing but its own cgroup and may write there. An init system in it makes cgroups below.
    pub fn cgroup_owner(&self) -> Option<u32> {
        let writable = self.rootfs.mounts.iter().any(|step| match &step.action {
            mounts::MountAction::Filesystem { fstype, .. } => fstype.as_c_str() == c"cgroup2" && !step.flags.readonly(),
            _ => false,
        });
        let maps = self.id_maps.as_ref().filter(|_| writable && self.namespaces.unshare_cgroup)?;
        maps.users.outside(self.process.uid)
    }
}

/// Returns the part of a configuration that is about Linux.
pub fn linux(spec: &Spec) -> Result<&Linux> {
    spec.linux().as_ref().ok_or_else(|| Error::invalid("linux property must not be empty"))
}

#[allow(deprecated, reason = "prestart hooks are still part of the contract with container engines")]
fn has_outside_hooks(hooks: &Hooks) -> bool {
    let some = |list: &Option<Vec<_>>| list.as_ref().is_some_and(|list| !list.is_empty());
    some(hooks.prestart()) || some(hooks.create_runtime())
}

fn has_net_devices(linux: &Linux) -> bool {
    linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty())
}

fn name(value: Option<&str>, place: &str) -> Result<Option<CString>> {
    value.filter(|value| !value.is_empty()).map(|value| cstring(value.as_ref(), place)).transpose()
}

/// Returns where the root of a container is on the host.
pub fn root_path(spec: &Spec, bundle: &Path) -> Result<PathBuf> {
    let root = spec.root().as_ref().ok_or_else(|| Error::invalid("root must be specified"))?;
    Ok(bundle.join(root.path()))
}

fn rootfs(spec: &Spec, linux: &Linux, namespaces: &NamespacePlan, host: &Host<'_>) -> Result<RootfsPlan> {
    let source = root_path(spec, host.bundle)?;
    let label = linux.mount_label().as_deref().filter(|label| !label.is_empty());
    let label = label.map(|label| -> Result<_> {
        let text = |text: &str| cstring(text.as_ref(), "mountLabel");
        Ok(Parameter { key: text(run_oci::label_option(spec)?)?, value: Some(text(label)?) })
    });
    let label = label.transpose()?;
    let context = MountContext {
        bundle: host.bundle,
        rootfs: &source,
        cgroups: host.cgroups,
        in_userns: namespaces.in_userns,
        ids: mount_ids::of_container(linux)?,
        label: label.as_ref(),
    };
    let mounts = mounts::plan(spec.mounts().as_deref().unwrap_or_default(), &context)?;
    // A /dev that is bound from the host has its nodes already, and they are not ours to change.
    let own_dev =
        !mounts.iter().any(|m| m.target.as_c_str() == c"/dev" && matches!(m.action, mounts::MountAction::Bind { .. }));
    Ok(RootfsPlan {
        source: cstring(source.as_os_str(), "root.path")?,
        propagation: linux
            .rootfs_propagation()
            .as_deref()
            .filter(|word| !word.is_empty())
            .map(mount_options::rootfs_propagation)
            .transpose()?,
        mounts,
        devices: if own_dev { devices::nodes(linux.devices().as_deref().unwrap_or_default())? } else { Vec::new() },
        links: if own_dev { devices::links(host.kcore) } else { Vec::new() },
        in_userns: namespaces.in_userns,
        readonly_paths: paths(linux.readonly_paths().as_deref(), "readonlyPaths")?,
        masked_paths: paths(linux.masked_paths().as_deref(), "maskedPaths")?,
        label,
        readonly: spec.root().as_ref().and_then(Root::readonly).unwrap_or(false),
        change: match &host.no_pivot {
            _ if namespaces.host_mounts => RootChange::Chroot,
            Some(places) => RootChange::Move(places.clone()),
            None => RootChange::Pivot,
        },
    })
}

fn paths(list: Option<&[String]>, place: &str) -> Result<Vec<CString>> {
    list.unwrap_or_default().iter().map(|path| cstring(path.as_ref(), place)).collect()
}

/// Parameters in either spelling: `net.ipv4.ip_forward`, or with slashes where a name has dots itself.
fn sysctls(linux: &Linux) -> Result<Vec<Sysctl>> {
    let sysctl = |(key, value): (&String, &String)| -> Result<Sysctl> {
        let path = sysctl_path(key);
        // `net/../kernel/core_pattern`, or `net.//.kernel.core_pattern`, begins like a parameter of the container's own
        // and leads to one of the host's.
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(Error::invalid(format!("sysctl {key:?} is not the name of a parameter")));
        }
        Ok(Sysctl { path: cstring(path.as_ref(), "sysctl")?, value: cstring(value.as_ref(), "sysctl")? })
    };
    let mut list: Vec<_> = linux.sysctl().iter().flatten().collect();
    list.sort_unstable();
    list.into_iter().map(sysctl).collect()
}

/// Returns the path below /proc/sys of a kernel parameter, by the rule of sysctl(8): the first separator decides which
/// of `.` and `/` separates, the other stands for itself.
pub fn sysctl_path(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(at) if key.as_bytes().get(at) == Some(&b'.') => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => key.to_owned(),
    }
}

/// Returns the name of a container's session keyring.
pub fn keyring_name(id: &CStr) -> CString {
    let mut name = b"_ses.".to_vec();
    name.extend_from_slice(id.to_bytes());
    CString::new(name).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sysctl_may_be_spelled_with_dots_or_slashes() {
        assert_eq!(sysctl_path("net.ipv4.conf.eth0/1.forwarding"), "net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(sysctl_path("net/ipv4/conf/eth0.1/forwarding"), "net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(sysctl_path("kernel.msgmax"), "kernel/msgmax");
    }

    #[test]
    fn a_sysctl_cannot_lead_out_of_where_it_begins() {
        let planned = |key: &str| {
            let linux = serde_json::from_value(serde_json::json!({"sysctl": {key: "1"}})).unwrap();
            sysctls(&linux).map(|list| list[0].path.clone())
        };
        assert_eq!(planned("net.ipv4.conf.eth0/1.forwarding").unwrap().as_c_str(), c"net/ipv4/conf/eth0.1/forwarding");
        for key in ["net/../kernel/core_pattern", "net.//.kernel.core_pattern", "net/./x", "net//x", "net/", "/net"] {
            let words = planned(key).unwrap_err().to_string();
            assert_eq!(words, format!("sysctl {key:?} is not the name of a parameter"));
        }
    }
}
