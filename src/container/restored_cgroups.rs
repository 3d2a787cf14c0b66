//! The cgroups of a container that is restored: its own, made beforehand as for a new one, and what CRIU does about them.

use super::create;
use crate::cgroup::Cgroup;
use crate::criu::cgroup_image;
use crate::criu::external;
use crate::criu::image::Writer;
use crate::criu::options::CgroupMode;
use crate::error::{Context, Error, Result};
use crate::plan::cgroup::{CgroupPlan, Version};
use std::path::Path;

/// Makes the container's cgroup, which may have to be a new one.
pub fn make(plan: Option<&CgroupPlan>, mode: CgroupMode) -> Result<Cgroup> {
    let there = plan.into_iter().flat_map(|plan| &plan.directories).find(|directory| directory.path.exists());
    match there {
        Some(there) if mode == CgroupMode::Strict => {
            let path = there.path.display();
            Err(Error::other(format!("cgroup {path} is there already, which --manage-cgroups-mode strict forbids")))
        }
        _ => create::make_cgroup(plan),
    }
}

/// Returns the image of cgroups, and its name, as CRIU is to be given it, if that is not as it is.
pub fn without_others(cgroup: &Cgroup, images: &Path) -> Result<Option<(&'static str, Writer)>> {
    let own = |name: &str| {
        cgroup.directories().iter().any(|one| match one.version {
            Version::V1 => one.controllers.iter().any(|controller| controller == name),
            Version::V2 => name.is_empty(),
        })
    };
    cgroup_image::without_others(images, own)
}

/// Returns the cgroups that a process is in: controllers, one by one, and path.
pub fn of(pid: i32) -> Result<Vec<(String, String)>> {
    let file = format!("/proc/{pid}/cgroup");
    let text = std::fs::read_to_string(&file).context(|| format!("read {file}"))?;
    Ok(external::cgroup_roots(&text))
}
