//! Putting a plan's device filter in force: lines for the v1 controller, a program on the unified
//! hierarchy.

use std::fs::File;
use std::os::fd::AsFd;

use super::{Cgroup, file, is_permission};
use crate::error::{Context, Result};
use crate::plan::cgroup::{CgroupPlan, DeviceAccess, Directory, Instruction, Rules};
use crate::sys::{self, bpf};

/// Applies the filter. Without privileges it cannot be had, and is not needed so much: a user
/// namespace makes no nodes.
pub(super) fn apply(cgroup: &Cgroup, plan: &CgroupPlan) -> Result<()> {
    let name = match plan.devices {
        DeviceAccess::Unchanged => return Ok(()),
        DeviceAccess::Rules(_) => "devices",
        DeviceAccess::Program(_) => "",
    };
    let Some(directory) = cgroup.directory(name) else { return Ok(()) };
    let result = match &plan.devices {
        DeviceAccess::Unchanged => Ok(()),
        DeviceAccess::Rules(rules) => write_rules(directory, rules),
        DeviceAccess::Program(program) => attach(directory, program, cgroup.fresh),
    };
    match result {
        Err(errno) if plan.rootless && is_permission(errno) => {
            log::debug!("no device filter on {}: {errno}", directory.path.display());
            Ok(())
        }
        other => other.context(|| format!("set device filter of cgroup {}", directory.path.display())),
    }
}

/// Writes the default and its exceptions. The first line removes whatever was there before: it is
/// the first thing that happens in a cgroup that has no process yet.
fn write_rules(directory: &Directory, rules: &Rules) -> sys::Result<()> {
    let (allow, deny) = (directory.path.join("devices.allow"), directory.path.join("devices.deny"));
    let (default, exceptions) = if rules.default_allow { (allow, deny) } else { (deny, allow) };
    file::write(&default, "a")?;
    if !rules.exceptions.is_empty() {
        file::write_lines(&exceptions, &rules.exceptions.join("\n"))?;
    }
    Ok(())
}

/// Loads and attaches a program, in place of what a container before this one has left on the
/// cgroup.
fn attach(directory: &Directory, program: &[Instruction], fresh: bool) -> sys::Result<()> {
    let cgroup = File::open(&directory.path).map_err(file::errno)?;
    let program = bpf::load_device_filter(program)?;
    let mut old = if fresh { Vec::new() } else { bpf::device_filters(cgroup.as_fd())? };
    let replaced = old.pop();
    bpf::attach_device_filter(cgroup.as_fd(), program.as_fd(), replaced.as_ref().map(AsFd::as_fd))?;
    for other in &old {
        bpf::detach_device_filter(cgroup.as_fd(), other.as_fd())?;
    }
    Ok(())
}
