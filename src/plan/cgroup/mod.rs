//! What a container's cgroup will be: its directories in each hierarchy, the writes that limit it,
//! its device filter.
//!
//! Everything here is a function of config.json, of the hierarchies that the host has ([`Layout`])
//! and of the cgroup that the runtime itself is in ([`OwnCgroup`]). Reading those two from the
//! host, and carrying a plan out, is `cgroup`'s work. The words of cgroup v1 and v2 are in `v1` and
//! `v2`, device rules and their program in `devices`, units of systemd in `systemd`.

mod devices;
pub mod systemd;
mod v1;
mod v2;

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

pub use devices::{DeviceRule, Filter, Instruction, Rules};

/// Where the host's hierarchies are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Layout {
    /// One unified hierarchy.
    V2(Mount),
    /// A hierarchy for each v1 controller, or group of controllers.
    V1(Vec<Mount>),
    /// The v1 hierarchies, and beside them a unified one that has the controllers that no v1
    /// hierarchy has.
    Hybrid(Vec<Mount>, Mount),
}

/// Which of the two interfaces a hierarchy speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// The first interface: a hierarchy is a set of controllers.
    V1,
    /// The unified hierarchy.
    V2,
}

/// A mounted hierarchy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mount {
    /// The mount point.
    pub point: PathBuf,
    /// The cgroup that the mount point shows: not `/` where a container sees its own part of a v1
    /// hierarchy only.
    pub root: PathBuf,
    /// Its controllers. A named v1 hierarchy has one entry, such as `name=systemd`.
    pub controllers: Vec<String>,
}

/// The cgroups that a process is in, as /proc/PID/cgroup tells them (see cgroups(7)).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct OwnCgroup {
    entries: Vec<(String, PathBuf)>,
}

impl OwnCgroup {
    /// Reads the text of /proc/PID/cgroup.
    pub fn parse(text: &str) -> Result<Self> {
        let mut entries = Vec::new();
        for line in text.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
                return Err(Error::other(format!("malformed line {line:?} in /proc/self/cgroup")));
            };
            entries.extend(controllers.split(',').map(|name| (name.to_owned(), PathBuf::from(path))));
        }
        Ok(Self { entries })
    }

    /// Returns the cgroup in the hierarchy of `controller`; the unified hierarchy's name is empty.
    pub fn path(&self, controller: &str) -> Option<&Path> {
        self.entries.iter().find(|(name, _)| name == controller).map(|(_, path)| path.as_path())
    }

    /// Returns the cgroup in the hierarchy of a mount, with the mount's root as `/`.
    fn below(&self, mount: &Mount, version: Version) -> Result<&Path> {
        let name = match version {
            Version::V1 => mount.controllers.first().map_or("", String::as_str),
            Version::V2 => "",
        };
        let own = self.path(name).ok_or_else(|| {
            Error::other(format!("own cgroup in the hierarchy on {} not found", mount.point.display()))
        })?;
        Ok(own.strip_prefix(&mount.root).unwrap_or(own))
    }

    /// Returns the directory of the cgroup in the hierarchy of a mount.
    pub fn directory(&self, mount: &Mount, version: Version) -> Result<PathBuf> {
        let below = self.below(mount, version)?;
        Ok(mount.point.join(below.strip_prefix("/").unwrap_or(below)))
    }
}

/// A container's cgroup in one hierarchy.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Directory {
    /// The hierarchy's interface.
    pub version: Version,
    /// The controllers that can be used in it.
    pub controllers: Vec<String>,
    /// The hierarchy's mount point.
    pub mount: PathBuf,
    /// The directory, below `mount`.
    pub path: PathBuf,
    /// The one below it that the container's processes are in, and that is theirs, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegated: Option<PathBuf>,
}

impl Directory {
    /// Returns where the container's processes begin.
    pub fn entrance(&self) -> &Path {
        self.delegated.as_ref().unwrap_or(&self.path)
    }

    /// Says whether this can be a container's alone. The root of a hierarchy, which crun takes where it is asked for no
    /// cgroup, is everybody's.
    pub fn is_own(&self) -> bool {
        let Ok(below) = self.path.strip_prefix(&self.mount) else { return false };
        below.components().next().is_some() && below.components().all(|part| matches!(part, Component::Normal(_)))
    }
}

/// What a write that the kernel refuses means.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// The limit cannot be set.
    Fails,
    /// The file may be absent: what it would limit is then not there to be limited.
    MayBeAbsent,
    /// EINVAL may only mean that the values of two files have to change in the other order: the
    /// write is tried again after the controller's other writes.
    TryLater,
    /// If the file is absent another one takes the value, in its own words.
    Otherwise(Box<Write>),
}

/// One value for one file of one controller.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Write {
    /// The controller that the file belongs to; empty for the core's own files (`cgroup.*`) of the
    /// unified hierarchy.
    pub controller: String,
    /// The file's name.
    pub file: String,
    /// The text that is written, with one system call for each line.
    pub value: String,
    /// What it means when that fails.
    pub refusal: Refusal,
}

impl Write {
    fn new(controller: &str, file: impl Into<String>, value: impl ToString) -> Self {
        Self { controller: controller.to_owned(), file: file.into(), value: value.to_string(), refusal: Refusal::Fails }
    }

    fn refused(mut self, refusal: Refusal) -> Self {
        self.refusal = refusal;
        self
    }
}

/// How the access to devices is limited.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DeviceAccess {
    /// Not at all, or it stays what it is.
    Unchanged,
    /// Through devices.allow and devices.deny of the v1 controller.
    Rules(Rules),
    /// Through a program on the unified hierarchy.
    Program(Vec<Instruction>),
}

/// Limits that the memory controller must not be given while more is in use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UsageCheck {
    /// The new limit of memory, if there is one.
    pub memory: Option<u64>,
    /// The new limit of memory and swap together, if there is one.
    pub memory_and_swap: Option<u64>,
}

/// What is done to give a container its cgroup, or (without directories) to change its limits.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CgroupPlan {
    /// The cgroup in each hierarchy.
    pub directories: Vec<Directory>,
    /// Controllers of the unified hierarchy that are enabled on the way down to the directory.
    pub enable: Vec<String>,
    /// The cpus and memory nodes that a v1 cpuset is given before any process; the parent's where
    /// it is empty.
    pub cpuset: (String, String),
    /// The limits, in the order in which they are written.
    pub writes: Vec<Write>,
    /// Access to devices.
    pub devices: DeviceAccess,
    /// The unit of systemd that has the cgroup, if one has.
    pub unit: Option<systemd::Unit>,
    /// A check before anything is written (`memory.checkBeforeUpdate`).
    pub usage_check: Option<UsageCheck>,
    /// Whether a missing privilege may leave the container without a device filter, and, if no path
    /// was asked for, without a cgroup. Set by the caller, who knows; [`plan`] says no.
    pub rootless: bool,
    /// Whether config.json names the cgroup: then it must be made, also by a rootless runtime.
    pub path_given: bool,
}

impl CgroupPlan {
    /// Gives the container's processes a cgroup below the one that is limited.
    pub fn delegate(&mut self, below: &Path) -> Result<()> {
        match self.directories.as_mut_slice() {
            [one] if one.version == Version::V2 => {
                one.delegated = Some(one.path.join(below));
                Ok(())
            }
            // crun's words.
            _ => Err(Error::invalid("delegate-cgroup not supported on cgroup v1")),
        }
    }
}

/// Plans the cgroup of the container `id`.
///
/// As runc does: an absolute `cgroups_path` is looked up from the mount point, a relative one below
/// the runtime's own cgroup (v1) or beside it (v2, where a cgroup that has processes cannot have
/// children with limits), and without one the cgroup is named like the container. `own` is not
/// looked at for an absolute path.
pub fn plan(
    layout: &Layout,
    own: &OwnCgroup,
    cgroups_path: Option<&Path>,
    id: &str,
    resources: Option<&LinuxResources>,
) -> Result<CgroupPlan> {
    let given = cgroups_path.map(clean).filter(|path| !path.as_os_str().is_empty());
    let inner = given.clone().unwrap_or_else(|| clean(Path::new(id)));
    let directories = match layout {
        Layout::V2(mount) => vec![directory(mount, Version::V2, own, &inner, true)?],
        Layout::V1(mounts) => v1_directories(mounts, own, &inner)?,
        Layout::Hybrid(mounts, unified) => {
            let mut all = v1_directories(mounts, own, &inner)?;
            all.push(directory(unified, Version::V2, own, &inner, false)?);
            all
        }
    };
    let mut plan = update(&directories, resources)?;
    if matches!(layout, Layout::V2(_)) {
        // runc enables all that there is, and clients read the statistics of controllers without
        // limits.
        plan.enable.clone_from(&directories[0].controllers);
    }
    let rules = devices::rules(resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default())?;
    plan.devices = device_access(&directories, &rules)?;
    plan.directories = directories;
    plan.path_given = given.is_some();
    Ok(plan)
}

/// Plans new limits for a cgroup that is there. Device rules are not looked at: runc's `update`
/// leaves them as they are.
pub fn update(directories: &[Directory], resources: Option<&LinuxResources>) -> Result<CgroupPlan> {
    let mut plan = CgroupPlan {
        directories: Vec::new(),
        enable: Vec::new(),
        cpuset: (String::new(), String::new()),
        writes: Vec::new(),
        devices: DeviceAccess::Unchanged,
        unit: None,
        usage_check: None,
        rootless: false,
        path_given: true,
    };
    let Some(resources) = resources else { return Ok(plan) };
    let is_v2 = directories.iter().all(|directory| directory.version == Version::V2);
    if !is_v2 && resources.unified().as_ref().is_some_and(|unified| !unified.is_empty()) {
        return Err(Error::invalid("invalid configuration: cannot use unified on cgroup v1"));
    }
    let version = |controller: &str| {
        let holder = directories.iter().find(|directory| directory.controllers.iter().any(|name| name == controller));
        holder.map(|holder| holder.version)
    };
    for controller in CONTROLLERS {
        if *controller == "blkio" && version("io").is_some() {
            continue; // One controller under two names: it is on the unified hierarchy, and its turn comes.
        }
        // A controller that is nowhere is planned for in the words of the host's interface, to name
        // the file that is missed.
        let words = version(controller).unwrap_or(if is_v2 { Version::V2 } else { Version::V1 });
        let writes = match words {
            Version::V1 => v1::writes(controller, resources)?,
            Version::V2 => v2::writes(controller, resources)?,
        };
        match writes.first() {
            Some(_) if directories.is_empty() => return Err(not_joined(controller)),
            Some(first) if version(controller).is_none() => {
                return Err(missing(controller, &first.file));
            }
            Some(_) if words == Version::V2 => plan.enable.push((*controller).to_owned()),
            _ => {}
        }
        plan.writes.extend(writes);
    }
    if is_v2 {
        plan.writes.extend(v2::unified(resources, &|controller| version(controller).is_some())?);
        plan.usage_check = v2::usage_check(resources);
    } else if let Some(cpu) = resources.cpu() {
        plan.cpuset = (cpu.cpus().clone().unwrap_or_default(), cpu.mems().clone().unwrap_or_default());
    }
    Ok(plan)
}

/// The controllers that limits are asked of, in the order of the writes. Devices are apart.
const CONTROLLERS: &[&str] =
    &["pids", "memory", "blkio", "io", "cpu", "cpuset", "hugetlb", "net_cls", "net_prio", "rdma"];

/// Returns the error of a limit for a container that has no cgroup to be limited in.
pub fn not_joined(controller: &str) -> Error {
    Error::other(format!("cannot set {controller} limit: container could not join or create cgroup"))
}

fn missing(controller: &str, file: &str) -> Error {
    Error::invalid(format!("cannot set {file}: controller {controller:?} not available"))
}

fn v1_directories(mounts: &[Mount], own: &OwnCgroup, inner: &Path) -> Result<Vec<Directory>> {
    mounts.iter().map(|mount| directory(mount, Version::V1, own, inner, false)).collect()
}

/// Returns the container's directory in one hierarchy.
fn directory(mount: &Mount, version: Version, own: &OwnCgroup, inner: &Path, beside: bool) -> Result<Directory> {
    let below = if inner.is_absolute() {
        inner.to_owned()
    } else {
        let own = own.below(mount, version)?;
        let parent = if beside { own.parent().unwrap_or(own) } else { own };
        clean(&Path::new("/").join(parent).join(inner))
    };
    Ok(Directory {
        version,
        controllers: mount.controllers.clone(),
        mount: mount.point.clone(),
        path: mount.point.join(below.strip_prefix("/").unwrap_or(&below)),
        delegated: None,
    })
}

/// Removes `.` and `..` from a path, by its words alone: a cgroup's path must not lead out of the
/// hierarchy.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            Component::RootDir => cleaned.push("/"),
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => {
                cleaned.pop();
            }
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    cleaned
}

fn device_access(directories: &[Directory], rules: &[DeviceRule]) -> Result<DeviceAccess> {
    let has_v1 = directories.iter().any(|directory| directory.controllers.iter().any(|name| name == "devices"));
    if has_v1 {
        return Ok(DeviceAccess::Rules(Rules::from_rules(rules)?));
    }
    if directories.iter().any(|directory| directory.version == Version::V2) {
        let program = Filter::from_rules(rules).program();
        return Ok(program.map_or(DeviceAccess::Unchanged, DeviceAccess::Program));
    }
    // For security's sake a container never runs without its device rules.
    Err(missing("devices", "devices.deny"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_a_hierarchy_is_nobodys_own() {
        let directory = |path: &str| Directory {
            version: Version::V2,
            controllers: Vec::new(),
            mount: "/sys/fs/cgroup".into(),
            path: path.into(),
            delegated: None,
        };
        for (path, own) in [
            ("/sys/fs/cgroup", false),
            ("/sys/fs/cgroup/.", false),
            ("/etc", false),
            ("/sys/fs/cgroup/../kernel", false),
            ("/sys/fs/cgroup/a", true),
        ] {
            assert_eq!(directory(path).is_own(), own, "{path}");
        }
    }

    fn mount(point: &str, controllers: &[&str]) -> Mount {
        let controllers = controllers.iter().map(|name| (*name).to_owned()).collect();
        Mount { point: point.into(), root: "/".into(), controllers }
    }

    fn v2() -> Layout {
        Layout::V2(mount("/sys/fs/cgroup", &["cpuset", "cpu", "io", "memory", "hugetlb", "pids"]))
    }

    fn v1_mounts() -> Vec<Mount> {
        let names: [&[&str]; 5] = [&["cpu", "cpuacct"], &["cpuset"], &["devices"], &["memory"], &["name=systemd"]];
        let point = |names: &[&str]| format!("/sys/fs/cgroup/{}", names.join(",").trim_start_matches("name="));
        names.iter().map(|names| mount(&point(names), names)).collect()
    }

    fn hybrid() -> Layout {
        Layout::Hybrid(v1_mounts(), mount("/sys/fs/cgroup/unified", &["hugetlb", "io"]))
    }

    fn own() -> OwnCgroup {
        let text = "5:name=systemd:/s\n4:memory:/user/m\n3:devices:/\n2:cpuset:/\n1:cpu,cpuacct:/c:1\n0::/user/scope\n";
        OwnCgroup::parse(text).unwrap()
    }

    fn resources(json: &str) -> LinuxResources {
        serde_json::from_str(json).unwrap()
    }

    fn plan_of(layout: &Layout, json: &str) -> Result<CgroupPlan> {
        plan(layout, &own(), Some(Path::new("/c1")), "c1", Some(&resources(json)))
    }

    fn lines(plan: &CgroupPlan) -> Vec<String> {
        plan.writes.iter().map(|write| format!("{}={}", write.file, write.value)).collect()
    }

    #[test]
    fn own_cgroup_is_read_for_each_controller() {
        assert_eq!(own().path(""), Some(Path::new("/user/scope")));
        assert_eq!(own().path("cpuacct"), Some(Path::new("/c:1")));
        assert_eq!(own().path("name=systemd"), Some(Path::new("/s")));
        assert_eq!(own().path("pids"), None);
        assert!(OwnCgroup::parse("nonsense").is_err());
    }

    #[test]
    fn paths_are_looked_up_as_runc_looks_them_up() {
        let cases = [
            // cgroupsPath, the directory on v2, the directory of memory on v1
            (Some("/a/b"), "/a/b", "/a/b"),
            (Some("/a/../../b/./c/"), "/b/c", "/b/c"),
            (Some("a/b"), "/user/a/b", "/user/m/a/b"),
            (Some("../../../a"), "/user/a", "/user/m/a"),
            (Some(""), "/user/c1", "/user/m/c1"),
            (None, "/user/c1", "/user/m/c1"),
        ];
        for (path, on_v2, on_v1) in cases {
            let path = path.map(Path::new);
            let unified = plan(&v2(), &own(), path, "c1", None).unwrap();
            assert_eq!(unified.directories[0].path, Path::new(&format!("/sys/fs/cgroup{on_v2}")), "{path:?}");
            let split = plan(&Layout::V1(v1_mounts()), &own(), path, "c1", None).unwrap();
            let memory = split.directories.iter().find(|directory| directory.controllers == ["memory"]).unwrap();
            assert_eq!(memory.path, Path::new(&format!("/sys/fs/cgroup/memory{on_v1}")), "{path:?}");
            assert_eq!(split.path_given, path.is_some_and(|path| path != Path::new("")), "{path:?}");
        }
    }

    #[test]
    fn a_mount_that_shows_a_part_of_a_hierarchy_shortens_the_path() {
        let mut mounts = v1_mounts();
        mounts[3].root = "/user".into();
        let plan = plan(&Layout::V1(mounts), &own(), None, "c1", None).unwrap();
        assert_eq!(plan.directories[3].path, Path::new("/sys/fs/cgroup/memory/m/c1"));
    }

    #[test]
    fn a_hierarchy_of_several_controllers_is_one_directory() {
        let plan = plan_of(&hybrid(), "{}").unwrap();
        let paths: Vec<_> = plan.directories.iter().map(|directory| directory.path.to_string_lossy()).collect();
        let expected = ["cpu,cpuacct", "cpuset", "devices", "memory", "systemd", "unified"];
        assert_eq!(paths, expected.map(|name| format!("/sys/fs/cgroup/{name}/c1")));
    }

    #[test]
    fn nothing_asked_is_nothing_written() {
        for layout in [v2(), Layout::V1(v1_mounts()), hybrid()] {
            let plan = plan_of(&layout, r#"{"devices": [{"allow": false, "access": "rwm"}]}"#).unwrap();
            assert_eq!(plan.writes, []);
            assert_ne!(plan.devices, DeviceAccess::Unchanged);
        }
    }

    #[test]
    fn controllers_are_used_where_they_are() {
        let json = r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 0}], "blockIO": {"weight": 500}}"#;
        let plan = plan_of(&hybrid(), json).unwrap();
        assert_eq!(lines(&plan), ["io.bfq.weight=500", "hugetlb.2MB.max=0", "hugetlb.2MB.rsvd.max=0"]);
        assert_eq!(plan.enable, ["io", "hugetlb"]);
        assert_eq!(plan_of(&v2(), "{}").unwrap().enable, ["cpuset", "cpu", "io", "memory", "hugetlb", "pids"]);
    }

    #[test]
    fn limits_that_cannot_be_set_are_refused() {
        let hole = r#"{"devices": [{"allow": true, "type": "c", "access": "rw"},
            {"allow": false, "type": "c", "major": 1, "minor": 3, "access": "w"}]}"#;
        let cases = [
            (hybrid(), r#"{"pids": {"limit": 9}}"#, r#"cannot set pids.max: controller "pids" not available"#),
            (v2(), r#"{"rdma": {"m": {"hcaHandles": 1}}}"#, r#"cannot set rdma.max: controller "rdma" not available"#),
            (hybrid(), r#"{"unified": {"pids.max": "1"}}"#, "invalid configuration: cannot use unified on cgroup v1"),
            (v2(), r#"{"unified": {"a/b.c": "1"}}"#, r#"unified resource "a/b.c" must be a file name (no slashes)"#),
            (v2(), r#"{"unified": {"ab": "1"}}"#, r#"unified resource "ab" must be in the form CONTROLLER.PARAMETER"#),
            (
                v2(),
                r#"{"unified": {"misc.max": "1"}}"#,
                r#"unified resource "misc.max" can't be set: controller "misc" not available"#,
            ),
            (
                Layout::V1(v1_mounts()),
                hole,
                "device rule [c 1:3 w] not supported by cgroup v1 \
                 (cannot punch hole in existing wildcard rule [c *:* rw])",
            ),
        ];
        for (layout, json, text) in cases {
            assert_eq!(plan_of(&layout, json).unwrap_err().to_string(), text);
        }
        assert!(plan_of(&v2(), hole).is_ok());
    }

    #[test]
    fn an_update_has_limits_only() {
        let created = plan_of(&v2(), "{}").unwrap();
        let asked = resources(r#"{"devices": [{"allow": true, "access": "rwm"}], "pids": {"limit": -1}}"#);
        let plan = update(&created.directories, Some(&asked)).unwrap();
        assert_eq!(lines(&plan), ["pids.max=max"]);
        assert_eq!(
            (plan.devices, plan.directories, plan.enable),
            (DeviceAccess::Unchanged, vec![], vec!["pids".into()])
        );
    }
}
