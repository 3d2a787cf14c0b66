//! What only cgroup v1 needs: finding its mounts, filling cpusets, and a freezer that has to be
//! asked more than once.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use super::{file, v2};
use crate::error::{Context, Error, Result};
use crate::plan::cgroup::{Directory, Layout, Mount};
use crate::sys::cgroupfs::{Filesystem, filesystem};
use crate::sys::mountinfo;

/// The inode number of the root of a hierarchy (kernfs).
const ROOT_INODE: u64 = 1;

/// The controllers of v1. Directories with other names are named hierarchies, of which systemd's is
/// the only one that a container joins, as with runc: it finds its services by it.
const CONTROLLERS: &[&str] = &[
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "misc",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
    "rdma",
];

/// Finds the hierarchies that are mounted below `base`.
///
/// By the names of the mount points, which are those of the controllers: one directory is read
/// instead of the table of all mounts, which on a host with many containers is long and slow.
/// Symlinks (`cpu` for `cpu,cpuacct`) are not followed.
pub(super) fn layout(base: &Path) -> Result<Layout> {
    let attempt = || format!("read {}", base.display());
    let mut mounts = Vec::new();
    let mut unified = None;
    for entry in std::fs::read_dir(base).context(attempt)? {
        let entry = entry.context(attempt)?;
        let (point, name) = (entry.path(), entry.file_name());
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        match (kind(&point), controllers(&name.to_string_lossy())) {
            (Filesystem::V1, Some(controllers)) => mounts.push(Mount { point, root: "/".into(), controllers }),
            (Filesystem::V2, _) => unified = Some(v2::mount(point)?),
            _ => {}
        }
    }
    mounts.sort_by(|a, b| a.point.cmp(&b.point));
    find_roots(&mut mounts)?;
    match (mounts.is_empty(), unified) {
        (true, None) => Err(Error::other(format!("no cgroup hierarchy is mounted on {}", base.display()))),
        (true, Some(unified)) => Ok(Layout::V2(unified)),
        (false, None) => Ok(Layout::V1(mounts)),
        (false, Some(unified)) => Ok(Layout::Hybrid(mounts, unified)),
    }
}

/// A directory that is no mount point, or may not be looked at, is none of the hierarchies.
fn kind(point: &Path) -> Filesystem {
    let path = CString::new(point.as_os_str().as_bytes()).ok();
    path.and_then(|path| filesystem(&path).ok()).unwrap_or(Filesystem::Other)
}

fn controllers(name: &str) -> Option<Vec<String>> {
    if name == "systemd" {
        return Some(vec!["name=systemd".to_owned()]);
    }
    name.split(',').map(|name| CONTROLLERS.contains(&name).then(|| name.to_owned())).collect()
}

/// Finds out which cgroups the mount points show, if not the whole hierarchies: so it is in a
/// container without a cgroup namespace, where /proc/self/cgroup has the host's paths.
fn find_roots(mounts: &mut [Mount]) -> Result<()> {
    let Some(first) = mounts.first() else { return Ok(()) };
    let metadata = std::fs::metadata(&first.point).context(|| format!("stat {}", first.point.display()))?;
    if metadata.ino() == ROOT_INODE {
        return Ok(());
    }
    let table = std::fs::read_to_string("/proc/self/mountinfo").context(|| "read /proc/self/mountinfo")?;
    for found in mountinfo::parse(&table) {
        if let Some(mount) = mounts.iter_mut().find(|mount| mount.point == Path::new(&found.place)) {
            mount.root = PathBuf::from(found.root);
        }
    }
    Ok(())
}

/// Gives a cpuset what was asked for and otherwise what its parent has: a process cannot join an
/// empty one, and nothing can be in it that its parent has not.
pub(super) fn fill_cpuset(directory: &Directory, asked: &(String, String), is_new: bool) -> Result<()> {
    let own = if is_new { Cpuset::default() } else { Cpuset::read(&directory.path)? };
    let mut wanted = Cpuset { cpus: asked.0.clone(), mems: asked.1.clone() };
    if own.is_complete() && wanted.is_empty() {
        return Ok(());
    }
    wanted.inherit(&own, &ensure_parent(directory)?);
    wanted.write(&directory.path)
}

/// Returns what the parent has, after it was filled like its child if it had to be.
fn ensure_parent(directory: &Directory) -> Result<Cpuset> {
    let Some(path) = directory.path.parent().filter(|path| path.starts_with(&directory.mount)) else {
        return Ok(Cpuset::default());
    };
    let own = Cpuset::read(path)?;
    if own.is_complete() {
        return Ok(own);
    }
    let parent = ensure_parent(&Directory { path: path.to_owned(), ..directory.clone() })?;
    let mut wanted = Cpuset::default();
    wanted.inherit(&own, &parent);
    wanted.write(path)?;
    Cpuset::read(path)
}

/// The two lists without which a cpuset is of no use.
#[derive(Debug, Default)]
struct Cpuset {
    cpus: String,
    mems: String,
}

impl Cpuset {
    fn read(path: &Path) -> Result<Self> {
        let list = |name: &str| {
            let path = path.join(name);
            let text = file::read(&path).context(|| format!("read {}", path.display()))?;
            Ok(text.trim_end().to_owned())
        };
        Ok(Self { cpus: list("cpuset.cpus")?, mems: list("cpuset.mems")? })
    }

    fn is_complete(&self) -> bool {
        !self.cpus.is_empty() && !self.mems.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.cpus.is_empty() && self.mems.is_empty()
    }

    /// Takes over from the parent what is neither asked for nor there.
    fn inherit(&mut self, own: &Self, parent: &Self) {
        if self.cpus.is_empty() && own.cpus.is_empty() {
            self.cpus.clone_from(&parent.cpus);
        }
        if self.mems.is_empty() && own.mems.is_empty() {
            self.mems.clone_from(&parent.mems);
        }
    }

    fn write(&self, path: &Path) -> Result<()> {
        for (name, list) in [("cpuset.cpus", &self.cpus), ("cpuset.mems", &self.mems)] {
            if !list.is_empty() {
                let path = path.join(name);
                file::write(&path, list).context(|| format!("write {list:?} to {}", path.display()))?;
            }
        }
        Ok(())
    }
}

/// Freezes. While processes keep appearing (fork, or a process that joins), the kernel may stay in
/// FREEZING until it is told once more, or be in need of a pause: numbers as in runc, which has
/// found them by trying.
pub(super) fn freeze(path: &Path) -> Result<()> {
    let result = try_freeze(path);
    if result.is_err() {
        // Never leave it half frozen: what is stopped then could not even be killed.
        if let Err(err) = thaw(path) {
            log::debug!("{err}");
        }
    }
    result
}

fn try_freeze(path: &Path) -> Result<()> {
    let state = path.join("freezer.state");
    for round in 1..=1000 {
        if round % 50 == 0 {
            thaw(path)?;
            sleep(Duration::from_millis(10));
        }
        file::write(&state, "FROZEN").context(|| format!("write FROZEN to {}", state.display()))?;
        if round % 25 == 0 {
            sleep(Duration::from_micros(10));
        }
        let now = file::read(&state).context(|| format!("read {}", state.display()))?;
        match now.trim_end() {
            "FROZEN" => return Ok(()),
            "FREEZING" => {}
            other => {
                return Err(Error::other(format!("unexpected state {other} while freezing {}", path.display())));
            }
        }
    }
    Err(Error::other(format!("unable to freeze {}", path.display())))
}

/// Thaws.
pub(super) fn thaw(path: &Path) -> Result<()> {
    let state = path.join("freezer.state");
    file::write(&state, "THAWED").context(|| format!("write THAWED to {}", state.display()))
}
