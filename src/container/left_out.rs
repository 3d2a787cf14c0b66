//! What another runtime has left out of its images where ours have it: crun hides directories behind an empty one of the
//! host, not behind a file system of the container's, and takes the hierarchies of cgroup v1 for the host's even where
//! the container has a cgroup namespace.

use super::attached::Attached;
use super::external;
use super::state::StateDir;
use crate::criu::external::ExternalMount;
use crate::criu::mount_images::{self, Named};
use crate::error::{Context, Result};
use crate::plan::RootfsPlan;
use crate::plan::mounts::{CgroupView, MountAction, V1Hierarchy};
use crate::sys::mount;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// Mounts that CRIU is given in place of those, for as long as it takes to restore a container.
#[derive(Debug, Default)]
pub struct LeftOut {
    /// Their names in the image, and what is mounted there.
    pub mounts: Vec<ExternalMount>,
    empty: Option<Attached>,
}

/// What takes the place of a mount.
#[derive(Debug, Eq, PartialEq)]
enum Substitute<'a> {
    Null,
    Empty,
    Cgroup(&'a Path),
}

impl LeftOut {
    /// Looks for them in the images of a container of this plan, which shows these cgroups.
    pub fn find(
        images: &Path,
        plan: &RootfsPlan,
        root: BorrowedFd<'_>,
        cgroups: &CgroupView,
        dir: &StateDir,
    ) -> Result<Self> {
        let resolve = |path: &CStr| external::resolve(root, path).and_then(external::path_text);
        let masked = plan.masked_paths.iter().map(|path| resolve(path)).collect::<Result<Vec<_>>>()?;
        let hierarchies = hierarchies(plan, cgroups, resolve)?;
        let mut found = Self::default();
        for mount in mount_images::named(images)? {
            // All directories have one, under one name; and files have it in images of ours.
            if mount.key == "/dev/null" || found.mounts.iter().any(|one| one.key == mount.key) {
                continue;
            }
            let value = match substitute(&mount, &masked, &hierarchies) {
                None => continue,
                Some(Substitute::Null) => "/dev/null".to_owned(),
                Some(Substitute::Cgroup(own)) => external::path_text(own.to_owned())?,
                Some(Substitute::Empty) => external::path_text(found.empty(dir)?.to_owned())?,
            };
            found.mounts.push(ExternalMount { key: mount.key, value });
        }
        Ok(found)
    }

    /// Returns where there is an empty file system, like that which hides the directories of a new container: CRIU dumps
    /// it with the restored one.
    fn empty(&mut self, dir: &StateDir) -> Result<&Path> {
        let attached = match self.empty.take() {
            Some(attached) => attached,
            None => {
                let what = "an empty file system";
                let made = mount::empty_filesystem(None).context(|| format!("make {what}"))?;
                Attached::at(dir.masks(), made.as_fd(), what)?
            }
        };
        Ok(self.empty.insert(attached).path())
    }
}

/// Returns the mount points of hierarchies that a container with a cgroup namespace mounts anew.
fn hierarchies<'a>(
    plan: &RootfsPlan,
    cgroups: &'a CgroupView,
    resolve: impl Fn(&CStr) -> Result<String>,
) -> Result<Vec<(String, &'a V1Hierarchy)>> {
    let CgroupView::V1 { hierarchies, .. } = cgroups else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for step in &plan.mounts {
        if matches!(&step.action, MountAction::Filesystem { fstype, .. } if fstype.as_c_str() == c"cgroup") {
            let target = resolve(&step.target)?;
            let shown = hierarchies.iter().find(|one| target.ends_with(&format!("/{}", one.name)));
            found.extend(shown.map(|one| (target, one)));
        }
    }
    Ok(found)
}

fn substitute<'a>(
    mount: &Named,
    masked: &[String],
    hierarchies: &[(String, &'a V1Hierarchy)],
) -> Option<Substitute<'a>> {
    let cgroup = hierarchies.iter().find(|(target, _)| *target == mount.destination);
    match cgroup {
        Some((_, hierarchy)) => Some(Substitute::Cgroup(&hierarchy.own)),
        None if !masked.contains(&mount.destination) => None,
        None if mount_images::is_null(&mount.root) => Some(Substitute::Null),
        None => Some(Substitute::Empty),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_known_by_its_place() {
        let pids = V1Hierarchy { name: "pids".into(), option: "pids".into(), own: "/sys/fs/cgroup/pids/c1".into() };
        let hierarchies = [("/sys/fs/cgroup/pids".to_owned(), &pids)];
        let masked = ["/proc/acpi", "/proc/keys"].map(str::to_owned);
        let cases = [
            ("/proc/acpi", "/run/crun/.empty-directory", Some(Substitute::Empty)),
            ("/proc/keys", "/null", Some(Substitute::Null)),
            ("/sys/fs/cgroup/pids", "/", Some(Substitute::Cgroup(&pids.own))),
            ("/data", "/", None),
        ];
        for (destination, root, expected) in cases {
            let mount = Named { destination: destination.into(), key: "key".into(), root: root.into() };
            assert_eq!(substitute(&mount, &masked, &hierarchies), expected, "{destination}");
        }
    }
}
