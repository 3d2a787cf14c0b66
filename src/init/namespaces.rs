//! Getting into the namespaces: joining, cloning init from the joiner, becoming root of the user namespace.

use super::Descriptors;
use super::report::{At, Result, failure};
use crate::plan::InitPlan;
use crate::plan::namespaces::{Join, Kind};
use crate::plan::step::Step;
use crate::sys::clone::{Clone, clone_child};
use crate::sys::{self, Errno, fd, ns, path, process};
use nix::fcntl::OFlag;
use nix::libc;
use std::os::fd::AsFd;

/// The most namespaces that can be joined: one of each kind.
const KINDS: usize = Kind::ALL.len();

/// Joins what the plan joins; with a joiner also sets the clocks of the time namespace that init will be born in.
pub fn enter(plan: &InitPlan, with: &Descriptors) -> Result<()> {
    // Opened while it is ours: that of a process without dumps is root's.
    let open_offsets = |_| path::open_at(with.proc.as_fd(), c"self/timens_offsets", OFlag::O_WRONLY);
    let offsets = plan.namespaces.time_offsets.as_ref();
    let file = offsets.map(open_offsets).transpose().at(Step::TimeOffsets)?;
    if plan.namespaces.joiner && !plan.namespaces.join.is_empty() {
        // What is joined may hold processes of another container that may ptrace us from now on (CVE-2016-9962).
        process::set_dumpable(false).at(Step::JoinNamespace)?;
    }
    join_all(&plan.namespaces.join, with)?;
    if plan.namespaces.unshare_user {
        ns::unshare(Kind::User.flag()).at(Step::CloneInit)?;
    }
    if let (Some(offsets), Some(file)) = (offsets, file) {
        ns::unshare(Kind::Time.flag()).at(Step::TimeOffsets)?;
        fd::write_all(file.as_fd(), offsets.to_bytes()).at(Step::TimeOffsets)?;
    }
    Ok(())
}

/// Joins the namespaces of a running container.
pub fn enter_running(plan: &InitPlan, with: &Descriptors) -> Result<()> {
    if !plan.process.first_cpus.is_empty() {
        process::set_affinity(&plan.process.first_cpus).at(Step::CpuAffinity)?;
    }
    process::set_dumpable(false).at(Step::JoinNamespace)?;
    match with.joins.first().filter(|_| plan.namespaces.join_process != 0) {
        Some(init) => ns::join(init.as_fd(), plan.namespaces.join_process).at(Step::JoinNamespace),
        None => Ok(()),
    }
}

/// Clones a process that is the runtime's own child, not the joiner's.
pub fn clone_sibling(flags: u64, with: &Descriptors, body: impl FnOnce()) -> Result<()> {
    let cgroup = with.cgroup.as_ref().map(AsFd::as_fd);
    let request = Clone { flags: flags | libc::CLONE_PARENT as u64, cgroup, may_stay: with.may_stay, withheld: None };
    clone_child(request, body).at(Step::CloneInit).map(drop)
}

/// Joins in two rounds: what the host owns needs the privileges from before the user namespace is joined, what the pod
/// owns those from after it.
fn join_all(joins: &[Join], with: &Descriptors) -> Result<()> {
    let mut done = [false; KINDS];
    let round = |done: &mut [bool; KINDS], wanted: fn(Kind) -> bool| -> std::result::Result<(), (usize, Errno)> {
        let mut first_failure = Ok(());
        for (index, (join, namespace)) in joins.iter().zip(&with.joins).enumerate().take(KINDS) {
            if done[index] || !wanted(join.kind) {
                continue;
            }
            match ns::join(namespace.as_fd(), join.kind.flag()) {
                Ok(()) => done[index] = true,
                Err(errno) => first_failure = first_failure.and(Err((index, errno))),
            }
        }
        first_failure
    };
    let at = |(index, errno)| failure(Step::JoinNamespace, index, errno);
    let before = round(&mut done, |kind| kind != Kind::User);
    round(&mut done, |kind| kind == Kind::User).map_err(at)?;
    before.or_else(|_| round(&mut done, |_| true)).map_err(at)
}

/// Becomes uid 0 and gid 0 of the user namespace, whose maps are written now; if it has none of them, the user and group
/// of the process, which are in the maps or fail later. All capabilities of the namespace stay in any case.
pub fn become_root(plan: &mut InitPlan) -> Result<()> {
    if !plan.namespaces.in_userns {
        return Ok(());
    }
    root_or(plan.process.gid, process::set_gid).at(Step::BecomeRoot)?;
    root_or(plan.process.uid, process::set_uid).at(Step::BecomeRoot)?;
    if plan.process.may_set_groups {
        match process::set_groups(&[]) {
            // setgroups is denied for good where the map was written without privilege (user_namespaces(7)).
            Err(Errno::EPERM) => plan.process.may_set_groups = false,
            other => other.at(Step::BecomeRoot)?,
        }
    }
    Ok(())
}

fn root_or(own: u32, set: fn(u32) -> sys::Result<()>) -> sys::Result<()> {
    match set(0) {
        // It is not in the map.
        Err(Errno::EINVAL) => set(own),
        other => other,
    }
}

/// Makes the network namespace, unless the user namespace that is to own it has no root yet: the files of its interfaces
/// in sysfs belong to whoever is root when they are made. Otherwise it comes before the cgroups of v1, which would have
/// to pay some 90 KiB for it.
pub fn make_network_early(plan: &InitPlan) -> Result<()> {
    if plan.namespaces.in_userns { Ok(()) } else { make_network(plan) }
}

fn make_network(plan: &InitPlan) -> Result<()> {
    if !plan.namespaces.unshare_network {
        return Ok(());
    }
    ns::unshare(Kind::Network.flag()).at(Step::NetworkNamespace)?;
    ns::loopback_up().at(Step::Loopback)
}

/// Makes the namespaces that init makes for itself once it is where it belongs, names the container and brings its
/// loopback interface up.
pub fn complete(plan: &InitPlan) -> Result<()> {
    if plan.namespaces.unshare_cgroup {
        // Only now is init in its cgroup, which becomes the root of the new namespace.
        ns::unshare(Kind::Cgroup.flag()).at(Step::CgroupNamespace)?;
    }
    if plan.namespaces.in_userns {
        make_network(plan)?;
    }
    if let Some(hostname) = &plan.hostname {
        ns::set_hostname(hostname).at(Step::Hostname)?;
    }
    if let Some(domainname) = &plan.domainname {
        ns::set_domainname(domainname).at(Step::Domainname)?;
    }
    Ok(())
}
