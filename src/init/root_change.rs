//! The root file system made the root: by pivot_root, by moving it there, or by chroot alone.

use super::report::{At, Result};
use super::rootfs::{flags, make_parent_private};
use crate::plan::step::Step;
use crate::plan::{RootChange, RootfsPlan};
use crate::sys::mount::{self, Attributes};
use crate::sys::path::{self, PathBuffer};
use crate::sys::{self, Errno};
use nix::fcntl::OFlag;
use nix::libc;
use nix::mount::MsFlags;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

/// Makes the new root `/` and lets the host's mounts go.
pub fn change_root(plan: &RootfsPlan, root: BorrowedFd<'_>) -> Result<()> {
    nix::unistd::fchdir(root).at(Step::PivotRoot)?;
    match &plan.change {
        RootChange::Pivot => pivot(plan).at(Step::PivotRoot)?,
        RootChange::Move(places) => {
            places.iter().try_for_each(|place| hide(place)).at(Step::PivotRoot)?;
            // What is shared has the host's root covered too.
            PathBuffer::of(c"/").and_then(make_parent_private).at(Step::PivotRoot)?;
            mount::move_here_to_root().at(Step::PivotRoot)?;
            chroot_here().at(Step::PivotRoot)?;
        }
        RootChange::Chroot => chroot_here().at(Step::PivotRoot)?,
    }
    match plan.propagation {
        Some(propagation) => mount::set_propagation(c"/", flags(propagation)).at(Step::RootPropagation),
        None => Ok(()),
    }
}

/// Makes a directory `/` for this process, and goes there.
pub fn enter(root: BorrowedFd<'_>) -> sys::Result<()> {
    nix::unistd::fchdir(root)?;
    chroot_here()
}

fn chroot_here() -> sys::Result<()> {
    nix::unistd::chroot(c".")?;
    nix::unistd::chdir(c"/")
}

/// Takes a mount of the host's away, or covers it where a user namespace may not. The host keeps it, be it itself shared
/// or the mount that it is on.
fn hide(place: &CStr) -> sys::Result<()> {
    match mount::set_propagation(place, MsFlags::MS_SLAVE | MsFlags::MS_REC) {
        // It went with another that it was in, or one covers it, in which there may be something of the same name.
        Err(Errno::ENOENT | Errno::EINVAL) => return Ok(()),
        other => other?,
    }
    let mut above = PathBuffer::of(place)?;
    above.shorten()?;
    make_parent_private(above)?;
    match mount::detach(place) {
        Err(Errno::EINVAL | Errno::EPERM) => {
            let place = path::open(place, OFlag::O_PATH)?;
            mount::attach(mount::empty_filesystem(None)?.as_fd(), place.as_fd())
        }
        other => other,
    }
}

/// pivot_root(2) with both arguments `.` puts the old root on top of the new one, from where it is detached: no
/// directory in the image is needed for it.
fn pivot(plan: &RootfsPlan) -> sys::Result<()> {
    let old = path::open(c"/", OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    mount::pivot_here()?;
    if plan.propagation.is_some() {
        // Detaching must not reach the host through mounts that were left shared.
        let slave = Attributes { propagation: libc::MS_SLAVE, ..Attributes::default() };
        mount::set_attributes(old.as_fd(), slave, true)?;
    }
    drop(old);
    mount::detach(c".")?;
    nix::unistd::chdir(c"/")
}
