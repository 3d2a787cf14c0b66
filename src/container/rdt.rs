//! Intel RDT in force: the directories of resctrl(5) that a container's processes are in, and what they have used.

use super::Container;
use super::rollback::Rollback;
use crate::cgroup::Cgroup;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::plan::rdt::{self, L3, MB, RdtPlan};
use crate::sys::Errno;
use crate::sys::cgroupfs::is_resctrl;
use crate::sys::mountinfo;
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::ffi::CStr;
use std::io;
use std::path::{Path, PathBuf};

/// Where it is mounted, if not elsewhere; the kernel has this directory wherever it can do it.
const MOUNT_POINT: &CStr = c"/sys/fs/resctrl";

/// What a container has of resctrl.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Rdt {
    /// Where resctrl is mounted.
    root: PathBuf,
    /// The class of service.
    class: PathBuf,
    /// Whether it goes with the container.
    is_own: bool,
    /// The group in it in which the container alone is.
    monitor: Option<PathBuf>,
    /// What was made just now.
    #[serde(skip)]
    made: Vec<PathBuf>,
}

/// What is to be made, of which it is known that it can be had.
#[derive(Debug)]
pub struct Wanted(Option<(PathBuf, RdtPlan)>);

/// Finds resctrl.
fn mounted() -> Result<Option<PathBuf>> {
    let usual = MOUNT_POINT.to_string_lossy();
    match is_resctrl(MOUNT_POINT).context(|| format!("statfs {usual}"))? {
        None => return Ok(None),
        Some(true) => return Ok(Some(usual.as_ref().into())),
        Some(false) => {}
    }
    let text = std::fs::read_to_string("/proc/self/mountinfo").context(|| "read /proc/self/mountinfo")?;
    Ok(mountinfo::parse(&text).find(|mount| mount.fstype == "resctrl").map(|mount| mount.place.into()))
}

fn has(root: &Path, resource: &str) -> bool {
    root.join("info").join(resource).is_dir()
}

/// Looks at what a configuration asks for, and refuses what cannot be had.
pub fn wanted(spec: &Spec) -> Result<Wanted> {
    let asked = spec.linux().as_ref().and_then(|linux| linux.intel_rdt().as_ref());
    let Some(plan) = asked.map(rdt::plan).transpose()? else { return Ok(Wanted(None)) };
    available(mounted()?, plan)
}

fn available(root: Option<PathBuf>, plan: RdtPlan) -> Result<Wanted> {
    if let Some((_, text)) = plan.needs.iter().find(|(need, _)| !root.as_ref().is_some_and(|root| has(root, need))) {
        return Err(Error::invalid(*text));
    }
    let root = root.ok_or_else(|| Error::invalid("intelRdt is specified in config, but Intel RDT is not enabled"))?;
    Ok(Wanted(Some((root, plan))))
}

impl Wanted {
    /// Makes it for the container `id`, in which nobody is yet.
    pub fn make(self, id: &str) -> Result<Option<Rdt>> {
        let Some((root, plan)) = self.0 else { return Ok(None) };
        let class = match plan.class.as_deref() {
            Some("/") => root.clone(),
            Some(name) => root.join(name),
            None => root.join(id),
        };
        let monitor = plan.monitored.then(|| class.join("mon_groups").join(id));
        let mut made = Rdt { root, class, is_own: plan.class.is_none(), monitor, made: Vec::new() };
        made.fill(&plan).map_err(|err| {
            made.take_back().unwrap_or_else(|left| log::debug!("{left}"));
            err.context("unable to apply Intel RDT configuration")
        })?;
        Ok(Some(made))
    }
}

impl Rdt {
    /// Returns what another runtime has noted.
    pub fn of_another(class: PathBuf, monitor: Option<PathBuf>, is_own: bool) -> Self {
        let root = class.parent().unwrap_or(&class).to_owned();
        Self { root, class, is_own, monitor, made: Vec::new() }
    }

    fn fill(&mut self, plan: &RdtPlan) -> Result<()> {
        if plan.class.is_some() && plan.schemata.is_empty() {
            std::fs::metadata(&self.class).context(|| {
                let rule = "must be pre-created when schemata, l3CacheSchema and memBwSchema are empty";
                format!("clos dir not accessible ({rule}): stat {}", self.class.display())
            })?;
        }
        self.make_directory(self.class.clone())?;
        self.share(&plan.schemata)?;
        self.monitor.clone().map_or(Ok(()), |monitor| self.make_directory(monitor))
    }

    /// Makes a group, or takes one that is there.
    fn make_directory(&mut self, path: PathBuf) -> Result<()> {
        match std::fs::create_dir(&path) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => {
                made.context(|| format!("mkdir {}", path.display())).map_err(|err| self.explained(err))?;
                self.made.push(path);
                Ok(())
            }
        }
    }

    fn write(&self, path: &Path, text: &str) -> Result<()> {
        let written = std::fs::write(path, text).context(|| format!("write {text:?} to {}", path.display()));
        written.map_err(|err| self.explained(err))
    }

    /// Adds what the kernel says of its last refusal.
    fn explained(&self, err: Error) -> Error {
        match std::fs::read_to_string(self.root.join("info/last_cmd_status")) {
            Ok(status) if status.trim_end() != "ok" => {
                Error::new(err.kind(), format!("{err}, last_cmd_status: {}", status.trim_end()))
            }
            _ => err,
        }
    }

    /// Sets shares; those that no line names stay as they are.
    fn share(&self, schemata: &[String]) -> Result<()> {
        if schemata.is_empty() {
            Ok(())
        } else {
            self.write(&self.class.join("schemata"), &(schemata.join("\n") + "\n"))
        }
    }

    /// Returns what sets the shares to what they are.
    fn resharing(&self) -> Result<impl FnOnce() -> Result<()> + 'static> {
        let path = self.class.join("schemata");
        let before = std::fs::read_to_string(&path).context(|| format!("read {}", path.display()))?;
        let rdt = self.clone();
        Ok(move || rdt.write(&path, &before))
    }

    fn groups(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.class).chain(&self.monitor)
    }

    fn add_to(&self, group: &Path, thread: i32) -> Result<()> {
        let added = self.write(&group.join("tasks"), &thread.to_string());
        added.context(|| format!("error adding pid {thread} to Intel RDT"))
    }

    /// Puts a thread in it, and with it the processes and threads that it makes.
    pub fn add(&self, pid: i32) -> Result<()> {
        self.groups().try_for_each(|group| self.add_to(group, pid))
    }

    /// Puts one more process of the container in what others have not taken away, as with runc.
    pub fn add_beside(&self, pid: i32) -> Result<()> {
        self.groups().filter(|group| group.is_dir()).try_for_each(|group| self.add_to(group, pid))
    }

    /// Puts a container that runs already in it, its init and whoever is in its cgroup, with all threads.
    pub fn add_all(&self, init: i32, cgroup: &Cgroup) -> Result<()> {
        self.add(init)?;
        let mut added = BTreeSet::from([init]);
        loop {
            // Those of other pid namespaces are 0.
            let processes = cgroup.pids(true)?.into_iter().filter(|pid| *pid > 0).chain([init]);
            let new: BTreeSet<i32> = processes.flat_map(threads).filter(|thread| !added.contains(thread)).collect();
            if new.is_empty() {
                return Ok(());
            }
            for thread in &new {
                match self.add(*thread) {
                    // It has ended.
                    Err(err) if err.kind() == ErrorKind::System(Errno::ESRCH) => {}
                    other => other?,
                }
            }
            // What one of them made before it was moved is where that was.
            added.extend(new);
        }
    }

    /// Removes what goes with the container; what others have taken away is gone.
    pub fn remove(&self) -> Result<()> {
        let class = self.is_own.then_some(&self.class);
        remove_groups(self.monitor.iter().chain(class))
    }

    /// Removes what was made just now: what was there stays, whosever it is.
    fn take_back(&self) -> Result<()> {
        remove_groups(self.made.iter().rev())
    }

    /// Returns what there is, what of that the container has, and what it has used.
    pub fn stats(&self) -> Value {
        let mut stats = Map::new();
        let schemata = |path: &Path| -> Vec<String> {
            let text = std::fs::read_to_string(path.join("schemata")).unwrap_or_default();
            text.lines().map(|line| line.trim().to_owned()).collect()
        };
        let (everybodys, own) = (schemata(&self.root), schemata(&self.class));
        for (resource, numbers, about, root_key, key) in [
            (L3, &["min_cbm_bits", "num_closids"][..], "l3_cache_info", "l3_cache_schema_root", "l3_cache_schema"),
            (
                MB,
                &["bandwidth_gran", "delay_linear", "min_bandwidth", "num_closids"],
                "mem_bw_info",
                "mem_bw_schema_root",
                "mem_bw_schema",
            ),
        ] {
            if !has(&self.root, resource) {
                continue;
            }
            let place = self.root.join("info").join(resource);
            let mut info: Map<_, _> = counts(&place, numbers);
            if let Ok(mask) = std::fs::read_to_string(place.join("cbm_mask")) {
                info.insert("cbm_mask".to_owned(), mask.trim_end().into());
            }
            stats.insert(about.to_owned(), info.into());
            for (key, lines) in [(root_key, &everybodys), (key, &own)] {
                let line = lines.iter().rev().find(|line| line.contains(resource));
                stats.extend(line.map(|line| (key.to_owned(), line.clone().into())));
            }
        }
        stats.insert("schemata".to_owned(), json!(own));
        stats.extend(self.monitored("mbm_stats", &["mbm_total_bytes", "mbm_local_bytes"]));
        stats.extend(self.monitored("cmt_stats", &["llc_occupancy"]));
        stats.into()
    }

    /// Returns counters of each cache, if the kernel keeps any of them.
    fn monitored(&self, key: &str, files: &[&str]) -> Option<(String, Value)> {
        let kept = std::fs::read_to_string(self.root.join("info/L3_MON/mon_features")).ok()?;
        let files: Vec<&str> = files.iter().copied().filter(|file| kept.lines().any(|line| line == *file)).collect();
        let group = self.monitor.as_ref().unwrap_or(&self.class);
        let mut caches: Vec<PathBuf> =
            std::fs::read_dir(group.join("mon_data")).ok()?.flatten().map(|entry| entry.path()).collect();
        caches.sort_unstable();
        (!files.is_empty())
            .then(|| (key.to_owned(), caches.iter().map(|cache| Value::from(counts(cache, &files))).collect()))
    }
}

/// Reads numbers that stand in files of their own; what is 0 is left out, as in runc.
fn counts(place: &Path, files: &[&str]) -> Map<String, Value> {
    let read = |file: &&str| std::fs::read_to_string(place.join(file)).ok()?.trim().parse::<u64>().ok();
    let numbers = files.iter().filter_map(|file| Some((*file, read(file)?)));
    numbers.filter(|(_, number)| *number != 0).map(|(file, number)| (file.to_owned(), number.into())).collect()
}

/// Looks at the shares that `update` is asked for, and refuses what cannot be had.
pub fn wanted_shares(l3_cache: Option<String>, bandwidth: Option<String>) -> Result<Wanted> {
    let plan = RdtPlan::of([
        (l3_cache, L3, "Intel RDT/CAT: l3 cache schema is not enabled"),
        (bandwidth, MB, "Intel RDT/MBA: memory bandwidth schema is not enabled"),
    ]);
    if plan.schemata.is_empty() { Ok(Wanted(None)) } else { available(mounted()?, plan) }
}

impl Container {
    /// Changes the shares of a container that are given, until that is taken back. One that was in no class of its own
    /// comes into one, which then is in its state.
    pub(super) fn share(&mut self, wanted: Wanted) -> Result<Rollback<'static>> {
        let mut undo = Rollback::default();
        if let (Some(rdt), Some((_, plan))) = (&self.state.rdt, &wanted.0) {
            undo.add("Intel RDT shares", rdt.resharing()?);
            rdt.share(&plan.schemata)?;
        } else if let Some(made) = wanted.make(self.id())? {
            let made = Some(made);
            undo.add("Intel RDT group", removal(&made));
            made.iter().try_for_each(|made| made.add_all(self.state.pid, &self.state.cgroup))?;
            self.state.rdt = made;
        }
        Ok(undo)
    }
}

fn remove_groups<'a>(mut groups: impl Iterator<Item = &'a PathBuf>) -> Result<()> {
    groups.try_for_each(|group| match std::fs::remove_dir(group) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.context(|| format!("remove {}", group.display())),
    })
}

/// Returns the threads of a process, of which there are none when it has ended.
fn threads(pid: i32) -> Vec<i32> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Returns what takes a container's part of Intel RDT back that was made just now.
pub fn removal(rdt: &Option<Rdt>) -> impl FnOnce() -> Result<()> + use<> {
    let rdt = rdt.clone();
    move || rdt.iter().try_for_each(Rdt::take_back)
}

#[cfg(test)]
#[path = "rdt_tests.rs"]
mod tests;
