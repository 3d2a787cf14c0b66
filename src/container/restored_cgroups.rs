//! The cgroups of a container that is restored: its own, made beforehand as for a new one, and what CRIU does about them.

use super::own_cgroup;
use crate::cgroup::{Cgroup, Holder};
use crate::criu::cgroup_image;
use crate::criu::external;
use crate::criu::image::Writer;
use crate::criu::options::CgroupMode;
use crate::error::{Context, ErrorKind, Result};
use crate::plan::cgroup::{CgroupPlan, Version};
use std::path::Path;

/// Makes the container's cgroup, which may have to be a new one.
pub fn make(plan: Option<&CgroupPlan>, mode: CgroupMode) -> Result<(Cgroup, Option<Holder>)> {
    match plan {
        Some(plan) if mode == CgroupMode::Strict => Cgroup::create_new(plan).map_err(|err| match err.kind() {
            ErrorKind::AlreadyExists => err.context("--manage-cgroups-mode strict"),
            _ => err,
        }),
        plan => own_cgroup::make(plan),
    }
}

/// Returns the image of cgroups, and its name, as CRIU is to be given it, if that is not as it is.
pub fn without_others(cgroup: &Cgroup, images: &Path, mode: CgroupMode) -> Result<Option<(&'static str, Writer)>> {
    if mode == CgroupMode::Ignore {
        return Ok(None);
    }
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
