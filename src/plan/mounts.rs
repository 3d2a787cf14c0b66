//! Mounts: from the entries of config.json to the steps that the inside carries out.

use super::mount_flags::MountFlags;
use super::mount_ids::{self, Ids, MountIds};
use super::mount_options::{self, AttributeChange, Bind, MountOptions, Parameter, Propagation};
use super::process::cstring;
use crate::error::{Error, Result};
use nix::libc;
use oci_spec::runtime::Mount;
use std::ffi::{CString, OsStr};
use std::fmt;
use std::path::{Component, Path, PathBuf};

/// One mount, as one or more system calls make it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MountStep {
    /// Its place, with the root of the container as `/`.
    pub target: CString,
    /// What is mounted.
    pub action: MountAction,
    /// As whose the files appear; as their own without.
    pub ids: Option<MountIds>,
    /// Flags of the mount itself.
    pub flags: MountFlags,
    /// Changes of the attributes of all mounts in the tree.
    pub recursive: AttributeChange,
    /// Changes of propagation, in order.
    pub propagation: Vec<Propagation>,
    /// Whether it becomes read-only only when the container is complete, since mount points or device nodes are still
    /// to be made in it.
    pub late_readonly: bool,
}

/// What is mounted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum MountAction {
    /// A file system of its own.
    Filesystem {
        /// Its type.
        fstype: CString,
        /// Its parameters, `source` included.
        parameters: Vec<Parameter>,
        /// A path that is bound instead when the kernel refuses (a user namespace without the right to mount it).
        fallback: Option<CString>,
        /// Whether it begins with a copy of what was there before.
        copies_up: bool,
    },
    /// A file or directory of the host.
    Bind {
        /// Where it is.
        source: CString,
        /// The same place with the root of the container as `/`, if it is in there: earlier mounts may lie on it.
        inside: Option<CString>,
        /// Whether the mounts below it come along.
        recursive: bool,
    },
    /// Nothing new: what is mounted there gets other parameters or attributes.
    Remount {
        /// Whether only the mount changes, not the file system.
        bind: bool,
        /// The file system's parameters.
        parameters: Vec<Parameter>,
    },
    /// Nothing: a symlink beside the mounts of cgroup v1.
    Symlink {
        /// Where it points.
        to: CString,
    },
}

impl MountAction {
    /// Says whether its root gets the mode of the directory that it is mounted on, if there is one.
    pub fn inherits_mode(&self) -> bool {
        match self {
            MountAction::Filesystem { fstype, parameters, .. } if fstype.as_c_str() == c"tmpfs" => {
                parameters.iter().all(|parameter| parameter.key.as_c_str() != c"mode")
            }
            _ => false,
        }
    }
}

impl fmt::Display for MountStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = self.target.to_string_lossy();
        match &self.action {
            MountAction::Filesystem { fstype, .. } => {
                write!(f, "error mounting {:?} to rootfs at {target:?}", fstype.to_string_lossy())
            }
            MountAction::Bind { source, .. } => {
                write!(f, "error mounting {:?} to rootfs at {target:?}", source.to_string_lossy())
            }
            MountAction::Remount { .. } => write!(f, "error remounting {target:?}"),
            MountAction::Symlink { to } => write!(f, "error making symlink {target:?} to {:?}", to.to_string_lossy()),
        }
    }
}

/// What a `cgroup` mount shows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CgroupView {
    /// The unified hierarchy; the path is the container's own cgroup, for where it may not be mounted anew.
    V2 {
        /// Directory of the container's cgroup on the host.
        own: PathBuf,
        /// Whether the container is in a cgroup namespace that is not the host's.
        namespace: bool,
    },
    /// One mount for each hierarchy of v1.
    V1 {
        /// The hierarchies.
        hierarchies: Vec<V1Hierarchy>,
        /// Whether the container has a cgroup namespace, so that mounting one anew shows its own part only.
        namespace: bool,
    },
}

/// A hierarchy of cgroup v1.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct V1Hierarchy {
    /// Its name under /sys/fs/cgroup: `cpu,cpuacct`, or `systemd`.
    pub name: String,
    /// The option that mounts it: `cpu,cpuacct`, or `none,name=systemd`.
    pub option: String,
    /// Directory of the container's cgroup on the host.
    pub own: PathBuf,
}

/// What the planning of mounts needs to know beside the entries.
#[derive(Clone, Debug)]
pub struct MountContext<'a> {
    /// The bundle: relative sources are looked for in it.
    pub bundle: &'a Path,
    /// Where the root of the container is on the host.
    pub rootfs: &'a Path,
    /// What `cgroup` mounts show.
    pub cgroups: &'a CgroupView,
    /// Whether the container has a user namespace of its own.
    pub in_userns: bool,
    /// The ids of the user namespace that it has or joins.
    pub ids: Option<Ids>,
    /// What gives file systems that are made for the container its SELinux label.
    pub label: Option<&'a Parameter>,
}

/// Plans all mounts of a container.
pub fn plan(mounts: &[Mount], context: &MountContext<'_>) -> Result<Vec<MountStep>> {
    let mut steps = Vec::with_capacity(mounts.len());
    for mount in mounts {
        let attempt = || format!("mount {}", mount.destination().display());
        let options = mount_options::parse(mount.options().as_deref().unwrap_or_default())
            .map_err(|err| err.context(attempt()))?;
        let target = target(mount, context).map_err(|err| err.context(attempt()))?;
        match mount.typ().as_deref() {
            Some("cgroup" | "cgroup2") if options.bind.is_none() && !options.remount => {
                steps.extend(cgroup(mount, &target, options, context).map_err(|err| err.context(attempt()))?);
            }
            _ => steps.push(one(mount, &target, options, context).map_err(|err| err.context(attempt()))?),
        }
    }
    steps.iter().try_for_each(leaves_proc)?;
    Ok(steps)
}

/// Files of /proc that a mount may cover, since they only inform (lxcfs puts its own there).
const COVERABLE: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// Returns the place of a mount with the root of the container as `/`; a destination below the root's place on the host
/// is meant inside too.
fn target(mount: &Mount, context: &MountContext<'_>) -> Result<String> {
    let path = inside(mount.destination(), context.rootfs).unwrap_or_else(|| mount.destination().clone());
    let target = destination(&path)?;
    // Anything else than what informs would take protections away.
    match target.starts_with("/proc/") && !COVERABLE.contains(&target.as_str()) {
        true => Err(Error::invalid(format!("{target:?} cannot be mounted because it is inside /proc"))),
        false => Ok(target),
    }
}

/// Refuses to cover /proc with anything but procfs: masks and read-only paths are meant for that. What is bound there is
/// only known once it is open.
fn leaves_proc(step: &MountStep) -> Result<()> {
    match &step.action {
        MountAction::Filesystem { fstype, .. }
            if step.target.as_c_str() == c"/proc" && fstype.as_c_str() != c"proc" =>
        {
            Err(Error::invalid(format!("mount /proc: \"/proc\" {NOT_PROC}")))
        }
        _ => Ok(()),
    }
}

/// What is said of a mount on /proc that is not procfs.
pub const NOT_PROC: &str = "cannot be mounted because it is not of type proc";

/// Destinations are absolute; a relative one is taken as if it began with `/` (as runc does), `..` cannot leave it.
pub fn destination(path: &Path) -> Result<String> {
    clean(path).into_os_string().into_string().map_err(|_| Error::invalid("destination is not UTF-8"))
}

/// Returns a path of the host's with the root of the container as `/`, if it is in there.
fn inside(path: &Path, rootfs: &Path) -> Option<PathBuf> {
    let below = clean(path).strip_prefix(clean(rootfs)).map(|below| Path::new("/").join(below));
    below.ok().filter(|_| rootfs.components().count() > 1)
}

/// Returns an absolute path without `.` and `..`, by its words alone.
pub fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean
}

fn one(mount: &Mount, target: &str, options: MountOptions, context: &MountContext<'_>) -> Result<MountStep> {
    let is_bind = options.bind.is_some() || mount.typ().as_deref() == Some("bind");
    let fstype = mount.typ().as_deref().unwrap_or_default();
    let mut flags = options.flags;
    let mut late_readonly = false;
    let (recursive, propagation) = (options.recursive, options.propagation.clone());
    let ids = mount_ids::plan(mount, is_bind && !options.remount, options.idmap.as_ref(), context.ids.as_ref())?;
    let action = if options.remount {
        MountAction::Remount { bind: is_bind, parameters: options.filesystem_parameters() }
    } else if is_bind {
        if !options.parameters.is_empty() {
            return Err(Error::invalid("bind mounts cannot have any filesystem-specific options applied"));
        }
        bind(mount, options.bind == Some(Bind::Tree), context)?
    } else {
        let readonly = flags.readonly();
        late_readonly = readonly && (fstype == "tmpfs" || target == "/dev");
        if late_readonly {
            flags.set &= !libc::MS_RDONLY;
        }
        // mount(2) makes both the superblock and the mount read-only.
        filesystem(mount, options, readonly && !late_readonly, context)?
    };
    Ok(MountStep { target: text(target)?, action, ids, flags, recursive, propagation, late_readonly })
}

fn text(value: &str) -> Result<CString> {
    cstring(OsStr::new(value), "mount")
}

fn bind(mount: &Mount, recursive: bool, context: &MountContext<'_>) -> Result<MountAction> {
    let source = mount.source().as_deref().ok_or_else(|| Error::invalid("bind mount without source"))?;
    let source = context.bundle.join(source);
    let text = |path: &Path| cstring(path.as_os_str(), "mount source");
    let inside = inside(&source, context.rootfs).as_deref().map(text).transpose()?;
    Ok(MountAction::Bind { source: text(&source)?, inside, recursive })
}

fn filesystem(mount: &Mount, options: MountOptions, readonly: bool, context: &MountContext<'_>) -> Result<MountAction> {
    let fstype = mount.typ().as_deref().unwrap_or_default();
    if fstype.is_empty() {
        return Err(Error::invalid("mount has no type"));
    }
    // As in runc, the option says nothing to others.
    let copies_up = options.copies_up && fstype == "tmpfs";
    let mut parameters = options.filesystem_parameters();
    if readonly {
        parameters.insert(0, Parameter { key: c"ro".into(), value: None });
    }
    parameters.extend(context.label.filter(|_| !matches!(fstype, "proc" | "sysfs" | "mqueue")).cloned());
    parameters.push(source(mount, fstype)?);
    // A new sysfs shows the network namespace that the mounter owns; without one of its own a container in a user
    // namespace may only see the host's.
    let fallback = (fstype == "sysfs" && context.in_userns).then(|| c"/sys".into());
    Ok(MountAction::Filesystem { fstype: text(fstype)?, parameters, fallback, copies_up })
}

/// The name that a file system shows as its source.
fn source(mount: &Mount, without: &str) -> Result<Parameter> {
    let name = mount.source().as_deref().unwrap_or(Path::new(without));
    Ok(Parameter { key: c"source".into(), value: Some(cstring(name.as_os_str(), "mount source")?) })
}

fn cgroup(mount: &Mount, target: &str, options: MountOptions, context: &MountContext<'_>) -> Result<Vec<MountStep>> {
    mount_ids::plan(mount, false, options.idmap.as_ref(), context.ids.as_ref())?;
    let step = |target: &str, action| -> Result<MountStep> {
        Ok(MountStep {
            target: text(target)?,
            action,
            ids: None,
            flags: MountFlags::new(options.flags.set),
            recursive: options.recursive,
            propagation: options.propagation.clone(),
            late_readonly: false,
        })
    };
    match context.cgroups {
        // The host's cgroup namespace is not that of a user namespace, which may not mount what it shows.
        CgroupView::V2 { own, namespace: false } if context.in_userns => {
            let source = cstring(own.as_os_str(), "cgroup path")?;
            Ok(vec![step(target, MountAction::Bind { source, inside: None, recursive: true })?])
        }
        CgroupView::V2 { own, .. } => {
            let fallback = Some(cstring(own.as_os_str(), "cgroup path")?);
            let mut parameters = options.clone().filesystem_parameters();
            parameters.push(source(mount, "cgroup")?);
            Ok(vec![step(
                target,
                MountAction::Filesystem { fstype: c"cgroup2".into(), parameters, fallback, copies_up: false },
            )?])
        }
        CgroupView::V1 { hierarchies, namespace } => {
            let mut steps = vec![cgroup_tmpfs(target, &options)?];
            for hierarchy in hierarchies {
                let place = format!("{target}/{}", hierarchy.name);
                steps.push(step(&place, v1_action(hierarchy, *namespace)?)?);
                for part in hierarchy.name.split(',').filter(|_| hierarchy.name.contains(',')) {
                    let action = MountAction::Symlink { to: text(&hierarchy.name)? };
                    steps.push(step(&format!("{target}/{part}"), action)?);
                }
            }
            if options.flags.readonly() {
                // Now that the mount points are in it.
                let remount = MountAction::Remount { bind: true, parameters: Vec::new() };
                steps.push(MountStep {
                    flags: MountFlags::new(CGROUP_FLAGS | libc::MS_RDONLY),
                    ..step(target, remount)?
                });
            }
            Ok(steps)
        }
    }
}

/// The flags of the tmpfs beside `ro`.
const CGROUP_FLAGS: u64 = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;

/// The tmpfs that holds the mount points of the hierarchies.
fn cgroup_tmpfs(target: &str, options: &MountOptions) -> Result<MountStep> {
    let key = |key: &std::ffi::CStr, value: &std::ffi::CStr| Parameter { key: key.into(), value: Some(value.into()) };
    let action = MountAction::Filesystem {
        fstype: c"tmpfs".into(),
        parameters: vec![key(c"mode", c"755"), key(c"source", c"tmpfs")],
        fallback: None,
        copies_up: false,
    };
    Ok(MountStep {
        target: text(target)?,
        action,
        ids: None,
        flags: MountFlags::new(CGROUP_FLAGS),
        recursive: AttributeChange::default(),
        propagation: options.propagation.clone(),
        late_readonly: false,
    })
}

fn v1_action(hierarchy: &V1Hierarchy, namespace: bool) -> Result<MountAction> {
    if !namespace {
        let source = cstring(hierarchy.own.as_os_str(), "cgroup path")?;
        return Ok(MountAction::Bind { source, inside: None, recursive: false });
    }
    let mut parameters = mount_options::parse(std::slice::from_ref(&hierarchy.option))?.filesystem_parameters();
    parameters.push(Parameter { key: c"source".into(), value: Some(c"cgroup".into()) });
    Ok(MountAction::Filesystem { fstype: c"cgroup".into(), parameters, fallback: None, copies_up: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_with(json: serde_json::Value, cgroups: &CgroupView) -> Result<Vec<MountStep>> {
        let mounts: Vec<Mount> = serde_json::from_value(json).unwrap();
        let context = MountContext {
            bundle: Path::new("/bundle"),
            rootfs: Path::new("/bundle/rootfs"),
            cgroups,
            in_userns: false,
            ids: None,
            label: None,
        };
        plan(&mounts, &context)
    }

    fn v2() -> CgroupView {
        CgroupView::V2 { own: "/sys/fs/cgroup/c1".into(), namespace: true }
    }

    #[test]
    fn a_bind_source_is_relative_to_the_bundle() {
        let steps = plan_with(
            serde_json::json!([{"destination": "x/../../y", "source": "s", "options": ["rbind", "ro"]}]),
            &v2(),
        );
        let step = &steps.unwrap()[0];
        assert_eq!(step.target.as_c_str(), c"/y");
        assert_eq!(step.action, MountAction::Bind { source: c"/bundle/s".into(), inside: None, recursive: true });
        assert_eq!(step.flags, MountFlags::new(libc::MS_RDONLY));
    }

    #[test]
    fn paths_below_the_root_are_meant_inside() {
        let mount = |destination: &str, source: &str| serde_json::json!([{"destination": destination, "source": source, "options": ["bind"]}]);
        let steps = plan_with(mount("/bundle/rootfs/a/b", "rootfs/x/../c"), &v2()).unwrap();
        assert_eq!(steps[0].target.as_c_str(), c"/a/b");
        let MountAction::Bind { inside, .. } = &steps[0].action else { panic!() };
        assert_eq!(inside.as_deref(), Some(c"/c"));
        let steps = plan_with(mount("/bundle/rootfs-2/a", "rootfs2"), &v2()).unwrap();
        assert_eq!(steps[0].target.as_c_str(), c"/bundle/rootfs-2/a");
        assert!(matches!(&steps[0].action, MountAction::Bind { inside: None, .. }));
        for place in ["/proc/sys/kernel", "x/../proc/sys/kernel", "/bundle/rootfs/proc/sys/kernel"] {
            let words = plan_with(mount(place, "/x"), &v2()).unwrap_err().to_string();
            let cause = "\"/proc/sys/kernel\" cannot be mounted because it is inside /proc";
            assert_eq!(words, format!("mount {place}: {cause}"));
        }
        for (place, kind) in [("/proc", "tmpfs"), ("proc/", "cgroup"), ("/proc/scsi", "proc")] {
            let mount = serde_json::json!([{"destination": place, "type": kind}]);
            let words = plan_with(mount, &v2()).unwrap_err().to_string();
            assert!(words.contains("cannot be mounted because it is "), "{words}");
        }
    }

    #[test]
    fn id_mappings_that_map_nothing_are_none() {
        let with = |map: serde_json::Value| {
            let mount = serde_json::json!([{"destination": "/x", "source": "s", "options": ["bind"], "uidMappings": map,
                "gidMappings": map}]);
            plan_with(mount, &v2())
        };
        assert_eq!(with(serde_json::json!([])).unwrap().len(), 1);
        let map = serde_json::json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
        assert!(with(map).unwrap()[0].ids.is_some());
    }

    #[test]
    fn dev_stays_writable_until_its_nodes_are_made() {
        let steps = plan_with(
            serde_json::json!([
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "mode=755"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]}]),
            &v2(),
        )
        .unwrap();
        assert!(steps[0].late_readonly && steps[0].flags.set == 0);
        assert!(!steps[1].late_readonly && steps[1].flags.readonly());
    }

    #[test]
    fn the_hosts_cgroups_are_bound_into_a_user_namespace() {
        let json = serde_json::json!([{"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["ro"]}]);
        let mounts: Vec<Mount> = serde_json::from_value(json).unwrap();
        for (in_userns, namespace, is_bound) in [(true, false, true), (true, true, false), (false, false, false)] {
            let cgroups = CgroupView::V2 { own: "/c1".into(), namespace };
            let (bundle, rootfs) = (Path::new("/bundle"), Path::new("/bundle/rootfs"));
            let context = MountContext { bundle, rootfs, cgroups: &cgroups, in_userns, ids: None, label: None };
            let action = &plan(&mounts, &context).unwrap()[0].action;
            assert_eq!(matches!(action, MountAction::Bind { source, .. } if source.as_c_str() == c"/c1"), is_bound);
        }
    }

    #[test]
    fn cgroup_v2_is_told_its_options() {
        let mount = |option: &str| serde_json::json!([{"destination": "/c", "type": "cgroup", "source": "s", "options": ["ro", option]}]);
        let steps = plan_with(mount("nsdelegate"), &v2()).unwrap();
        let MountAction::Filesystem { parameters, .. } = &steps[0].action else { panic!() };
        let told: Vec<_> = parameters.iter().map(Parameter::pair).collect();
        assert_eq!(told, [(c"nsdelegate", None), (c"source", Some(c"s"))]);
        let none = CgroupView::V1 { hierarchies: Vec::new(), namespace: true };
        for view in [v2(), none] {
            let words = plan_with(mount("ridmap"), &view).unwrap_err().to_string();
            assert_eq!(words, "mount /c: id-mapped mounts are only supported for bind-mounts");
            assert!(plan_with(mount("tmpcopyup"), &view).is_ok());
        }
    }

    #[test]
    fn cgroup_v1_is_a_tmpfs_with_one_mount_a_hierarchy() {
        let hierarchies = vec![
            V1Hierarchy { name: "cpu,cpuacct".into(), option: "cpu,cpuacct".into(), own: "/h/cpu/c1".into() },
            V1Hierarchy { name: "systemd".into(), option: "none,name=systemd".into(), own: "/h/systemd/c1".into() },
        ];
        let json = serde_json::json!([{"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["ro"]}]);
        let steps = plan_with(json, &CgroupView::V1 { hierarchies, namespace: true }).unwrap();
        let targets: Vec<_> = steps.iter().map(|s| s.target.to_str().unwrap()).collect();
        let dir = "/sys/fs/cgroup";
        assert_eq!(
            targets,
            [
                dir,
                &format!("{dir}/cpu,cpuacct"),
                &format!("{dir}/cpu"),
                &format!("{dir}/cpuacct"),
                &format!("{dir}/systemd"),
                dir
            ]
        );
        assert!(!steps[0].flags.readonly() && steps[5].flags.readonly());
    }

    #[test]
    fn mistakes_name_the_mount() {
        let err = plan_with(serde_json::json!([{"destination": "/x", "options": ["bind"]}]), &v2()).unwrap_err();
        assert_eq!(err.to_string(), "mount /x: bind mount without source");
    }
}
