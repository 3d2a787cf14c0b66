//! A container's own cgroup: what is planned and made, and what `cgroup` mounts show of it.

use super::create::CreateOptions;
use crate::cgroup::{self, Cgroup, Holder};
use crate::error::{Error, Result};
use crate::plan::cgroup::{self as planned, CgroupPlan, Directory, Layout, Mount, OwnCgroup, Version, systemd};
use crate::plan::mounts::{CgroupView, V1Hierarchy};
use crate::plan::namespaces::{self, Kind, Namespace};
use crate::plan::{linux, run_oci};
use oci_spec::runtime::{Linux, Spec};

/// Plans a container's cgroup; says too which layout of the hierarchies it is for.
pub fn plan(spec: &Spec, id: &str, options: &CreateOptions) -> Result<(Option<CgroupPlan>, Layout)> {
    let linux = linux(spec)?;
    let layout = cgroup::detect()?;
    let path = linux.cgroups_path().as_deref();
    let resources = linux.resources().as_ref();
    let mut plan = match path {
        _ if options.systemd => {
            let annotated = spec.annotations().as_ref().map_or(Ok(Vec::new()), systemd::annotated)?;
            let subgroup = run_oci::subgroup(spec)?;
            let host = cgroup::systemd::host(&layout, options.rootless.unwrap_or_else(super::has_own_systemd))?;
            systemd::plan(&layout, &host, systemd::Asked { path, id, resources, annotated, subgroup })?
        }
        Some(path) if path.is_absolute() => planned::plan(&layout, &OwnCgroup::default(), Some(path), id, resources)?,
        _ => planned::plan(&layout, &cgroup::own()?, path, id, resources)?,
    };
    if let Some(below) = run_oci::delegated(spec)? {
        plan.delegate(below)?;
    }
    plan.rootless =
        options.rootless.unwrap_or_else(|| plan.unit.as_ref().map_or_else(super::is_rootless, |unit| unit.is_user));
    Ok((Some(plan).filter(|_| !options.no_cgroup), layout))
}

/// Returns what a `cgroup` mount of the container shows: its cgroup, or ours in a hierarchy where it has none.
pub fn view(layout: &Layout, directories: &[Directory], linux: &Linux) -> Result<CgroupView> {
    let namespace = namespaces::of(linux, Kind::Cgroup) != Namespace::Host;
    let place = |mount: &Mount, version| match directories.iter().find(|directory| directory.mount == mount.point) {
        Some(directory) => Ok(directory.entrance().to_owned()),
        None => cgroup::own()?.directory(mount, version),
    };
    Ok(match layout {
        Layout::V2(mount) => CgroupView::V2 { own: place(mount, Version::V2)?, namespace },
        Layout::V1(mounts) | Layout::Hybrid(mounts, _) => {
            let hierarchies = mounts.iter().map(|mount| {
                let controllers = mount.controllers.join(",");
                let option = match controllers.starts_with("name=") {
                    true => format!("none,{controllers}"),
                    false => controllers.clone(),
                };
                let name = mount.point.file_name().map(|name| name.to_string_lossy().into_owned());
                Ok(V1Hierarchy { name: name.unwrap_or(controllers), option, own: place(mount, Version::V1)? })
            });
            CgroupView::V1 { hierarchies: hierarchies.collect::<Result<_>>()?, namespace }
        }
    })
}

/// Makes it.
pub fn make(plan: Option<&CgroupPlan>) -> Result<(Cgroup, Option<Holder>)> {
    let made = plan.map_or_else(|| Ok((Cgroup::default(), None)), Cgroup::create);
    made.map_err(not_applied)
}

/// Names what has failed.
pub fn not_applied(err: Error) -> Error {
    err.context("unable to apply cgroup configuration")
}

/// Tells whoever may not make cgroups what a pid namespace would be good for.
pub fn warn_of_strays(plan: Option<&CgroupPlan>, cgroup: &Cgroup, linux: &Linux) {
    let refused = plan.is_some_and(|plan| plan.rootless) && cgroup.directories().is_empty();
    if refused && namespaces::of(linux, Kind::Pid) != Namespace::Private {
        log::warn!(
            "a rootless container with neither a cgroup nor a pid namespace of its own: nothing tells which processes \
             are left when its init has ended. Such configuration is strongly discouraged"
        );
    }
}
