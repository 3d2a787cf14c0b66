//! Containers of runc and crun below the same root, as far as their notes let them be shown, signalled, paused and deleted.
//!
//! An engine calls its runtime by a path. Whoever comes to be there is asked for the containers of its predecessor, and
//! engines share a root among several runtimes. The notes are nobody's interface, and change: only what is needed is
//! read, and what cannot be read is a stranger's.

use super::rdt::Rdt;
use super::state::{self, State, StateDir};
use crate::cgroup::{self, Cgroup};
use crate::error::{Context, Error, Result};
use crate::plan::cgroup::systemd::Unit;
use crate::plan::cgroup::{CgroupPlan, Directory, OwnCgroup, Version};
use crate::plan::process::cstring;
use crate::sys::cgroupfs::is_resctrl;
use oci_spec::runtime::Spec;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where runc notes everything.
const RUNC: &str = "state.json";
/// Where crun notes what is not in its copy of the configuration, which has the name of ours.
const CRUN: &str = "status";

/// Says whether another runtime keeps a container here.
pub fn is_there(dir: &Path) -> bool {
    [RUNC, CRUN].iter().any(|name| dir.join(name).exists())
}

/// Reads what another runtime has noted of a container, and of its configuration what later commands need.
pub fn load(dir: &StateDir, id: &str) -> Result<Option<(State, Box<Spec>)>> {
    let owner = std::fs::metadata(dir.path()).map_or(0, |found| found.uid());
    if let Some(found) = read::<Runc>(&dir.path().join(RUNC)) {
        return Ok(Some((found.state(id, owner)?, found.config.spec()?)));
    }
    match (read::<Crun>(&dir.path().join(CRUN)), dir.spec()) {
        (Some(found), Ok(spec)) => Ok(Some((found.state(id, owner, &spec)?, spec))),
        _ => Ok(None),
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let text = std::fs::read(path).ok()?;
    serde_json::from_slice(&text).map_err(|err| log::debug!("parse {}: {err}", path.display())).ok()
}

/// runc's notes (libcontainer's `State`). Go writes null for lists that are empty.
#[derive(Deserialize)]
struct Runc {
    init_process_pid: i32,
    init_process_start: u64,
    created: String,
    config: RuncConfig,
    cgroup_paths: Option<BTreeMap<String, PathBuf>>,
    #[serde(default)]
    intel_rdt_path: PathBuf,
    #[serde(default)]
    intel_rdt_mon_path: PathBuf,
}

/// What runc has made of config.json (libcontainer's `Config`).
#[derive(Deserialize)]
struct RuncConfig {
    rootfs: PathBuf,
    version: String,
    labels: Option<Vec<String>>,
    namespaces: Option<Vec<RuncNamespace>>,
    cgroups: RuncCgroup,
    #[serde(default, rename = "Hooks")]
    hooks: Option<BTreeMap<String, Option<Vec<RuncHook>>>>,
    intel_rdt: Option<RuncRdt>,
}

#[derive(Deserialize)]
struct RuncRdt {
    #[serde(default, rename = "closID")]
    class: String,
}

#[derive(Deserialize)]
struct RuncNamespace {
    r#type: String,
    #[serde(default)]
    path: PathBuf,
}

#[derive(Deserialize)]
struct RuncCgroup {
    #[serde(default)]
    name: String,
    #[serde(default)]
    scope_prefix: String,
    #[serde(default, rename = "Systemd")]
    systemd: bool,
    #[serde(default, rename = "Rootless")]
    rootless: bool,
}

#[derive(Deserialize)]
struct RuncHook {
    path: PathBuf,
    args: Option<Vec<String>>,
    env: Option<Vec<String>>,
    /// In nanoseconds.
    timeout: Option<i64>,
}

impl Runc {
    fn state(&self, id: &str, owner: u32) -> Result<State> {
        let mut annotations = BTreeMap::new();
        let labels = self.config.labels.iter().flatten().filter_map(|label| label.split_once('='));
        annotations.extend(labels.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let mut plan = cgroup_plan("/".as_ref(), self.config.cgroups.rootless)?;
        let paths = self.cgroup_paths.as_ref();
        plan.directories.retain_mut(|directory| {
            let key = match directory.version {
                Version::V1 => directory.controllers.first().map_or("", String::as_str),
                Version::V2 => "",
            };
            let path = paths.and_then(|paths| paths.get(key));
            path.map(|path| directory.path.clone_from(path)).is_some() && directory.is_own()
        });
        let cgroup = &self.config.cgroups;
        plan.unit = cgroup.systemd.then(|| unit(cgroup.unit(), cgroup.rootless));
        Ok(State {
            version: state::VERSION,
            oci_version: self.config.version.clone(),
            id: id.to_owned(),
            bundle: annotations.remove("bundle").unwrap_or_default().into(),
            rootfs: self.config.rootfs.clone(),
            created: self.created.clone(),
            pid: self.init_process_pid,
            start_time: self.init_process_start,
            annotations,
            owner,
            cgroup: Cgroup::planned(&plan),
            no_new_keyring: false,
            rdt: self.rdt(&in_resctrl),
        })
    }

    /// Returns its part of Intel RDT, of which only that goes with it which it has made.
    fn rdt(&self, is_meant: &dyn Fn(&Path) -> bool) -> Option<Rdt> {
        let given = |path: &Path| Some(path.to_owned()).filter(|path| is_meant(path));
        let rdt = self.config.intel_rdt.as_ref()?;
        Some(Rdt::of_another(given(&self.intel_rdt_path)?, given(&self.intel_rdt_mon_path), rdt.class.is_empty()))
    }
}

impl RuncConfig {
    /// Returns the parts of config.json that it was made from: who shares the namespaces, and what is to run at the end.
    fn spec(&self) -> Result<Box<Spec>> {
        let namespaces = self.namespaces.iter().flatten().filter_map(|namespace| {
            let kind = match namespace.r#type.as_str() {
                "NEWPID" => "pid",
                "NEWNET" => "network",
                "NEWNS" => "mount",
                "NEWIPC" => "ipc",
                "NEWUTS" => "uts",
                "NEWUSER" => "user",
                "NEWCGROUP" => "cgroup",
                "NEWTIME" => "time",
                _ => return None,
            };
            Some(json!({"type": kind, "path": namespace.path}))
        });
        let hooks = self.hooks.as_ref().and_then(|hooks| hooks.get("poststop")).into_iter().flatten().flatten();
        let hooks = hooks.map(|hook| {
            let seconds = hook.timeout.map(|nanoseconds| nanoseconds / 1_000_000_000);
            json!({"path": hook.path, "args": hook.args, "env": hook.env, "timeout": seconds})
        });
        let spec = json!({
            "ociVersion": self.version,
            "linux": {"namespaces": namespaces.collect::<Vec<Value>>()},
            "hooks": {"poststop": hooks.collect::<Vec<Value>>()},
        });
        serde_json::from_value(spec).map_err(|err| Error::other(format!("parse {RUNC}: {err}")))
    }
}

impl RuncCgroup {
    fn unit(&self) -> String {
        match self.name.ends_with(".slice") {
            true => self.name.clone(),
            false => format!("{}-{}.scope", self.scope_prefix, self.name),
        }
    }
}

/// crun's notes (`libcrun_container_status_t`).
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Crun {
    pid: i32,
    process_start_time: u64,
    #[serde(default)]
    cgroup_path: PathBuf,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    systemd_cgroup: bool,
    rootfs: PathBuf,
    bundle: PathBuf,
    created: String,
}

impl Crun {
    fn state(&self, id: &str, owner: u32, spec: &Spec) -> Result<State> {
        let cgroup = match self.cgroup_path.as_os_str().is_empty() {
            true => Cgroup::default(),
            false => {
                // It takes the user's own systemd for whoever is not the host's root.
                let rootless = owner != 0 || super::in_user_namespace();
                let mut plan = cgroup_plan(&Path::new("/").join(&self.cgroup_path), rootless)?;
                plan.directories.retain(Directory::is_own);
                plan.unit = self.systemd_cgroup.then(|| unit(self.scope.clone(), rootless));
                Cgroup::planned(&plan)
            }
        };
        Ok(State {
            version: state::VERSION,
            oci_version: spec.version().clone(),
            id: id.to_owned(),
            rootfs: self.bundle.join(&self.rootfs),
            bundle: self.bundle.clone(),
            created: self.created.clone(),
            pid: self.pid,
            start_time: self.process_start_time,
            annotations: spec.annotations().clone().unwrap_or_default().into_iter().collect(),
            owner,
            cgroup,
            no_new_keyring: false,
            rdt: None,
        })
    }
}

/// Says whether a path leads to a group of resctrl: it will be removed.
fn in_resctrl(path: &Path) -> bool {
    path.is_absolute() && cstring(path.as_ref(), "path").is_ok_and(|path| is_resctrl(&path) == Ok(Some(true)))
}

/// Returns the plan for a cgroup of that path in all hierarchies.
fn cgroup_plan(path: &Path, rootless: bool) -> Result<CgroupPlan> {
    let layout = cgroup::detect().context(|| "find the cgroup hierarchies")?;
    let plan = crate::plan::cgroup::plan(&layout, &OwnCgroup::default(), Some(path), "", None)?;
    Ok(CgroupPlan { rootless, ..plan })
}

fn unit(name: String, is_user: bool) -> Unit {
    Unit { name, is_user, properties: Vec::new(), limits: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_of_resctrl_is_a_group() {
        for path in ["/home", "home", "", "/no/such/place"] {
            assert!(!in_resctrl(path.as_ref()), "{path}");
        }
    }

    #[test]
    fn a_class_of_service_of_runcs_making_goes_with_its_container() {
        let rdt = |noted: Value, path: &str, monitor: &str| {
            let config = json!({"rootfs": "/r", "version": "1.3.0", "cgroups": {}, "intel_rdt": noted});
            let state = json!({"init_process_pid": 1, "init_process_start": 1, "created": "", "config": config,
                               "intel_rdt_path": path, "intel_rdt_mon_path": monitor});
            serde_json::from_value::<Runc>(state).unwrap().rdt(&|path| path.starts_with("/fs"))
        };
        let of_another = |class: &str, monitor: Option<&str>, is_own| {
            Some(Rdt::of_another(class.into(), monitor.map(Into::into), is_own))
        };
        assert_eq!(rdt(Value::Null, "", ""), None);
        assert_eq!(rdt(json!({"l3_cache_schema": "L3:0=f"}), "/fs/box", ""), of_another("/fs/box", None, true));
        assert_eq!(rdt(json!({"l3_cache_schema": "L3:0=f"}), "/home/box", ""), None);
        let monitor = "/fs/gold/mon_groups/box";
        let named = rdt(json!({"closID": "gold"}), "/fs/gold", monitor);
        assert_eq!(named, of_another("/fs/gold", Some(monitor), false));
    }
}
