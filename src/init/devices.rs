//! Device nodes and symlinks of the container's /dev.

use super::report::{At, Result, failure};
use crate::plan::RootfsPlan;
use crate::plan::devices::{self, DeviceNode, Link};
use crate::plan::step::{Failure, Step};
use crate::sys::path::{self, Missing};
use crate::sys::{self, Errno, mount, process};
use nix::fcntl::{AtFlags, OFlag};
use nix::libc;
use nix::sys::stat::{Mode, SFlag, fstatat, mknodat};
use nix::unistd::{Gid, Uid, UnlinkatFlags};
use std::os::fd::{AsFd, BorrowedFd};

/// Makes all nodes and symlinks.
pub fn make_all(plan: &RootfsPlan, root: BorrowedFd<'_>) -> Result<()> {
    // mknod's mode is meant as it stands.
    let mask = process::set_umask(0);
    for (index, node) in plan.devices.iter().enumerate() {
        let made = if plan.in_userns { bind(node, root) } else { make(node, root) };
        match made {
            // Somebody brought it along.
            Err(Errno::EEXIST) if node.listed => check(index, node, root)?,
            Err(Errno::EEXIST) => {}
            other => other.at_nth(Step::Device, index)?,
        }
    }
    process::set_umask(mask);
    for (index, link) in plan.links.iter().enumerate() {
        make_link(link, root).at_nth(Step::DeviceLink, index)?;
    }
    Ok(())
}

fn make(node: &DeviceNode, root: BorrowedFd<'_>) -> sys::Result<()> {
    let (kind, mode) = (SFlag::from_bits_truncate(node.mode), Mode::from_bits_truncate(node.mode));
    let made = path::in_parent(root, &node.path, |parent, name| {
        match mknodat(parent, name, kind & SFlag::S_IFMT, mode, node.device) {
            Err(Errno::EPERM) => return Ok(false),
            other => other?,
        }
        let (uid, gid) = (Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid)));
        if (node.uid, node.gid) != (0, 0) {
            nix::unistd::fchownat(parent, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        }
        Ok(true)
    });
    if made? { Ok(()) } else { bind(node, root) }
}

/// Refuses what is in the place of a node and is another one (runtime-spec, "Devices").
fn check(index: usize, node: &DeviceNode, root: BorrowedFd<'_>) -> Result<()> {
    let found = path::in_parent(root, &node.path, |parent, name| fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW));
    let found = found.at_nth(Step::Device, index)?;
    let kind = found.st_mode & libc::S_IFMT;
    if kind != node.mode & libc::S_IFMT {
        return Err(Failure { errno: kind as i32, ..failure(Step::DeviceType, index, Errno::EEXIST) });
    }
    if kind != libc::S_IFIFO && found.st_rdev != node.device {
        let errno = devices::pack(found.st_rdev);
        return Err(Failure { errno, ..failure(Step::DeviceNumber, index, Errno::EEXIST) });
    }
    Ok(())
}

/// Binds the host's node of the same path: a user namespace may not make nodes.
fn bind(node: &DeviceNode, root: BorrowedFd<'_>) -> sys::Result<()> {
    let source = path::open(&node.path, OFlag::O_PATH)?;
    let tree = mount::clone_tree(source.as_fd(), false)?;
    let target = path::ensure_in_root(root, &node.path, Missing::File)?;
    mount::attach(tree.as_fd(), target.as_fd())
}

fn make_link(link: &Link, root: BorrowedFd<'_>) -> sys::Result<()> {
    path::in_parent(root, &link.path, |parent, name| {
        match nix::unistd::symlinkat(link.to.as_c_str(), parent, name) {
            // A ptmx that an image brought along would open the host's ptys instead of the container's.
            Err(Errno::EEXIST) if link.path.as_c_str() == c"/dev/ptmx" => {
                nix::unistd::unlinkat(parent, name, UnlinkatFlags::NoRemoveDir)?;
                nix::unistd::symlinkat(link.to.as_c_str(), parent, name)
            }
            Err(Errno::EEXIST) => Ok(()),
            other => other,
        }
    })
}
