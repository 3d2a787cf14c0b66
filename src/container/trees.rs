//! Mounts that are made outside and only attached inside: what the root of a user namespace may not reach or not do. Who is
//! not root outside makes none of them: inside it has the same paths in reach, and the right to mount besides.

use super::attached::Attached;
use super::idmap;
use super::state::StateDir;
use crate::error::{Context, Error, Result};
use crate::plan::idmap::IdMaps;
use crate::plan::mount_ids::{Ids, MountIds};
use crate::plan::mounts::{MountAction, MountStep};
use crate::plan::namespaces::Kind;
use crate::plan::process::cstring;
use crate::plan::{InitPlan, RootfsPlan};
use crate::sys::mount::{self, Attributes};
use crate::sys::{self, Errno, path};
use nix::fcntl::OFlag;
use nix::libc;
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

/// Returns the tree of the root file system where the inside may not reach its path: the root of a user namespace has no
/// power over the directories on the way.
pub fn rootfs(plan: &InitPlan) -> Result<Option<OwnedFd>> {
    if !plan.namespaces.in_userns || plan.namespaces.joins(Kind::Mount) || !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    let source = &plan.rootfs.source;
    match detached(source, true) {
        // Who is root in a user namespace without a mount namespace (unshare --map-root-user) is nobody's root here.
        Err(Errno::EPERM) => Ok(None),
        other => other.map(Some).context(|| format!("open rootfs {}", source.to_string_lossy())),
    }
}

/// Returns the trees of those mounts that are made outside, by the mounts' index: all bind mounts if the root file system
/// `goes_before`.
pub fn mounts(plan: &InitPlan, goes_before: bool) -> Result<Vec<Option<OwnedFd>>> {
    let mut users = Users::default();
    let make = |step: &MountStep| match &step.action {
        _ if plan.is_source_inside(step) => Ok(None),
        MountAction::Bind { source, recursive, .. } if goes_before || step.ids.is_some() => {
            users.bound(step, source, *recursive).map(Some)
        }
        _ => Ok(None),
    };
    plan.rootfs.mounts.iter().map(make).collect()
}

/// Lets the files of a tree that the inside has made appear as its step wants them: only we may do that in a user
/// namespace, and only the inside sees what earlier mounts have put there.
pub fn map_ids(plan: &RootfsPlan, index: usize, tree: Option<OwnedFd>) -> Result<()> {
    let step = plan.mounts.get(index).ok_or_else(|| Error::other("init has a mount that is not in the plan"))?;
    let (Some(ids), Some(tree)) = (&step.ids, tree) else {
        return Err(Error::other(format!("{step}: init wants ids mapped that are not")));
    };
    Users::default().own(&tree, ids).map_err(|err| err.context(step.to_string()))
}

/// Attaches id-mapped mounts to places of their own, from which `plan` then has them: CRIU binds what it finds at a path.
pub fn attach_id_mapped(plan: &mut RootfsPlan, dir: &StateDir) -> Result<Vec<Attached>> {
    let (mut users, mut all) = (Users::default(), Vec::new());
    for (index, step) in plan.mounts.iter_mut().enumerate().filter(|(_, step)| step.ids.is_some()) {
        let MountAction::Bind { source, recursive, .. } = &step.action else { continue };
        let tree = users.bound(step, source, *recursive)?;
        let attached = Attached::at(dir.id_mapped(index), tree.as_fd(), "an id-mapped copy")?;
        let source = cstring(attached.path().as_os_str(), "path")?;
        step.action = MountAction::Bind { source, inside: None, recursive: *recursive };
        step.ids = None;
        all.push(attached);
    }
    Ok(all)
}

/// Returns a copy of the tree at `path` that takes part in the host's mount events no more than the inside's own copies
/// would: as a slave.
fn detached(path: &CStr, recursive: bool) -> sys::Result<OwnedFd> {
    let place = path::open(path, OFlag::O_PATH)?;
    let tree = mount::clone_tree(place.as_fd(), recursive)?;
    mount::set_attributes(tree.as_fd(), Attributes { propagation: libc::MS_SLAVE, ..Attributes::default() }, true)?;
    Ok(tree)
}

/// The user namespaces of id-mapped mounts: one for all that have the same maps.
#[derive(Default)]
struct Users(Vec<(IdMaps, OwnedFd)>);

impl Users {
    /// Returns the tree that a step binds, its files as the step wants them.
    fn bound(&mut self, step: &MountStep, source: &CStr, recursive: bool) -> Result<OwnedFd> {
        let tree = detached(source, recursive).context(|| step)?;
        step.ids.iter().try_for_each(|ids| self.own(&tree, ids)).map_err(|err| err.context(step.to_string()))?;
        Ok(tree)
    }

    /// Lets the files of a tree appear as others'.
    fn own(&mut self, tree: &OwnedFd, wanted: &MountIds) -> Result<()> {
        if !nix::unistd::geteuid().is_root() {
            return Err(Error::invalid("id-mapped mounts are not supported for rootless containers"));
        }
        let opened;
        let users = match &wanted.ids {
            Ids::Maps(maps) => self.of(maps)?,
            Ids::Namespace(path) => {
                opened = path::open(path, OFlag::O_RDONLY)
                    .context(|| format!("open user namespace {}", path.to_string_lossy()))?;
                &opened
            }
        };
        // EINVAL is also what a file system has that cannot do it.
        mount::map_ids(tree.as_fd(), users.as_fd(), wanted.recursive).context(|| "mount_setattr: map ids")
    }

    fn of(&mut self, maps: &IdMaps) -> Result<&OwnedFd> {
        let at = match self.0.iter().position(|(made, _)| made == maps) {
            Some(at) => at,
            None => {
                self.0.push((maps.clone(), idmap::namespace(maps)?));
                self.0.len() - 1
            }
        };
        self.0.get(at).map(|(_, users)| users).ok_or_else(|| Error::other("a user namespace was lost"))
    }
}
