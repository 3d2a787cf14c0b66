//! The root file system: made a mount, filled with mounts, and protected.
//!
//! Everything happens through a descriptor of the new root and before it becomes `/`: the host's files, /dev/null among
//! them, are still in reach, and every place in the container is resolved by the kernel with the container's root as
//! the limit.

use super::Descriptors;
use super::copy_up;
use super::report::{At, Result, failure};
use crate::handshake::Message;
use crate::plan::mount_flags::MountFlags;
use crate::plan::mount_options::{AttributeChange, Parameter, Propagation};
use crate::plan::mounts::{MountAction, MountStep};
use crate::plan::step::Step;
use crate::plan::{RootChange, RootfsPlan};
use crate::sys::mount::{self, Attributes};
use crate::sys::path::{self, Missing, PathBuffer};
use crate::sys::{self, Errno, statx};
use nix::fcntl::OFlag;
use nix::libc;
use nix::mount::MsFlags;
use nix::sys::statfs::PROC_SUPER_MAGIC;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Makes the root file system a mount of its own, and returns it. Before that, mounts in a namespace of the container's
/// are cut off from the host's.
pub fn mount_root(plan: &RootfsPlan, with: &Descriptors) -> Result<OwnedFd> {
    let inherited = plan.propagation.unwrap_or(Propagation { kind: libc::MS_SLAVE, recursive: true });
    // What is unbindable could not be made the root: until then it is private.
    let until_root = match inherited.kind {
        libc::MS_UNBINDABLE => Propagation { kind: libc::MS_PRIVATE, ..inherited },
        _ => inherited,
    };
    let is_hosts = matches!(plan.change, RootChange::Chroot);
    if !is_hosts {
        mount::set_propagation(c"/", flags(until_root)).at(Step::Propagation)?;
    }
    // pivot_root(2) and MS_MOVE refuse a new root that is shared; its own propagation is set at the end.
    let private = Attributes { propagation: libc::MS_PRIVATE, ..Attributes::default() };
    if let Some(tree) = &with.rootfs {
        // Opened outside, since the path may be out of reach for the user namespace's root: any place will do.
        let tree = tree.try_clone().map_err(|_| failure(Step::Rootfs, 0, Errno::last()))?;
        mount::set_attributes(tree.as_fd(), private, false).at(Step::Rootfs)?;
        let here = path::open(c"/", OFlag::O_PATH | OFlag::O_DIRECTORY).at(Step::Rootfs)?;
        mount::attach(tree.as_fd(), here.as_fd()).at(Step::Rootfs)?;
        return Ok(tree);
    }
    let place = path::open(&plan.source, OFlag::O_PATH | OFlag::O_DIRECTORY).at(Step::Rootfs)?;
    let tree = mount::clone_tree(place.as_fd(), true).at(Step::Rootfs)?;
    mount::set_attributes(tree.as_fd(), private, false).at(Step::Rootfs)?;
    if inherited.kind == libc::MS_SHARED && !is_hosts {
        PathBuffer::of(&plan.source).and_then(make_parent_private).at(Step::Propagation)?;
    }
    mount::attach(tree.as_fd(), place.as_fd()).at(Step::Rootfs)?;
    Ok(tree)
}

/// Makes the mount that holds a path private: only a path that is a mount point takes that, so each parent is tried in
/// turn.
#[inline(never)]
pub fn make_parent_private(mut held: PathBuffer) -> sys::Result<()> {
    loop {
        let path = held.as_cstr();
        let is_root = path.is_empty();
        match mount::set_propagation(if is_root { c"/" } else { path }, MsFlags::MS_PRIVATE) {
            Err(Errno::EINVAL) if !is_root => held.shorten()?,
            other => return other,
        }
    }
}

/// Returns a change of propagation as mount(2) has it.
pub fn flags(propagation: Propagation) -> MsFlags {
    let recursive = if propagation.recursive { libc::MS_REC } else { 0 };
    MsFlags::from_bits_truncate(propagation.kind | recursive)
}

/// Carries out the mounts.
pub fn mount_all(plan: &RootfsPlan, root: BorrowedFd<'_>, with: &Descriptors) -> Result<()> {
    let locked = if plan.in_userns { Locked::InSource } else { Locked::Unknown };
    for (index, step) in plan.mounts.iter().enumerate() {
        let opened = with.trees.get(index).and_then(Option::as_ref).map(AsFd::as_fd);
        match opened {
            Some(tree) => place_tree(index, step, root, tree, locked)?,
            None => mount_one(index, step, root, with)?,
        }
    }
    Ok(())
}

fn mount_one(index: usize, step: &MountStep, root: BorrowedFd<'_>, with: &Descriptors) -> Result<()> {
    match &step.action {
        MountAction::Filesystem { fstype, parameters, fallback, copies_up } => {
            let ordinary = matches!(fstype.to_bytes(), b"proc" | b"sysfs");
            let mode = if step.action.inherits_mode() { existing_mode(index, step, root)? } else { None };
            let target = target(index, step, root, Missing::Directory, ordinary)?;
            let mode = mode.iter().map(|mode| (c"mode", CStr::from_bytes_until_nul(mode).ok()));
            let parameters = mode.chain(parameters.iter().map(Parameter::pair));
            let new = match mount::new_filesystem(fstype, parameters, step.flags.attributes()) {
                Err(Errno::EPERM | Errno::EBUSY) if fallback.is_some() => {
                    let source = fallback.as_deref().unwrap_or_default();
                    let tree = clone_source(index, path::open(source, OFlag::O_PATH), true)?;
                    change_flags(tree.as_fd(), step.flags, Locked::Unknown).at_nth(Step::MountAttributes, index)?;
                    tree
                }
                other => other.at_nth(Step::Mount, index)?,
            };
            if *copies_up {
                copy_up::copy(target.as_fd(), new.as_fd()).at_nth(Step::CopyUp, index)?;
            }
            place(index, step, new.as_fd(), target.as_fd())
        }
        MountAction::Bind { source, inside, recursive } => {
            let source = match inside {
                Some(inside) => path::open_in_root(root, inside, OFlag::O_PATH),
                None => path::open(source, OFlag::O_PATH),
            };
            let tree = clone_source(index, source, *recursive)?;
            if step.ids.is_some() {
                let index = u16::try_from(index).map_err(|_| failure(Step::Mount, index, Errno::E2BIG))?;
                with.handshake.tell(Message::MapIds(index), Some(tree.as_fd())).at(Step::Handshake)?;
                super::proceed(with);
            }
            place_tree(index, step, root, tree.as_fd(), Locked::Unknown)
        }
        MountAction::Remount { bind, parameters } => {
            let target = path::open_in_root(root, &step.target, OFlag::O_PATH).at_nth(Step::MountTarget, index)?;
            is_below(root, target.as_fd()).at_nth(Step::MountTarget, index)?;
            if !bind {
                reconfigure(target.as_fd(), parameters, step.flags).at_nth(Step::Mount, index)?;
            }
            change_flags(target.as_fd(), step.flags, Locked::Unknown).at_nth(Step::MountAttributes, index)?;
            finish(index, step, target.as_fd())
        }
        MountAction::Symlink { to } => {
            let make = |parent: BorrowedFd<'_>, name: &CStr| {
                // What fails until here is the place's fault, and from here on the mount's.
                Ok(nix::unistd::symlinkat(to.as_c_str(), parent, name).at_nth(Step::Mount, index))
            };
            path::in_parent(root, &step.target, make).at_nth(Step::MountTarget, index)?
        }
    }
}

/// Returns the mode of the directory that is in the place of a mount, in octal digits.
fn existing_mode(index: usize, step: &MountStep, root: BorrowedFd<'_>) -> Result<Option<[u8; 5]>> {
    let Some(place) = existing(root, &step.target).at_nth(Step::MountTarget, index)? else { return Ok(None) };
    let mode = path::fstat(place.as_fd()).at_nth(Step::MountTarget, index)?.st_mode;
    let digit = |shift: u32| b'0' + (mode >> shift & 7) as u8;
    Ok(Some([digit(9), digit(6), digit(3), digit(0), 0]))
}

/// Attaches a tree, of a directory or of a file, with the flags that its options name.
fn place_tree(
    index: usize,
    step: &MountStep,
    root: BorrowedFd<'_>,
    tree: BorrowedFd<'_>,
    locked: Locked,
) -> Result<()> {
    if step.target.as_c_str() == c"/proc" && !path::is_on(tree, PROC_SUPER_MAGIC).at_nth(Step::MountSource, index)? {
        return Err(failure(Step::MountTarget, index, Errno::EOPNOTSUPP));
    }
    let directory = path::is_directory(tree).at_nth(Step::MountSource, index)?;
    let missing = if directory { Missing::Directory } else { Missing::File };
    let target = target(index, step, root, missing, false)?;
    change_flags(tree, step.flags, locked).at_nth(Step::MountAttributes, index)?;
    place(index, step, tree, target.as_fd())
}

/// Returns the place of a mount, made where it is missing.
///
/// An `ordinary` place may not be reached through a symlink of the image: a /proc elsewhere than at /proc would leave
/// masks and read-only paths without effect. Nor may an image lead another mount onto a file of procfs (CVE-2019-16884).
fn target(index: usize, step: &MountStep, root: BorrowedFd<'_>, missing: Missing, ordinary: bool) -> Result<OwnedFd> {
    let mut target = path::ensure_in_root(root, &step.target, missing).at_nth(Step::MountTarget, index)?;
    if ordinary {
        // What this opens is the place, not what was found before: somebody may exchange it in between.
        target = path::open_in_root_without_symlinks(root, &step.target).at_nth(Step::MountTarget, index)?;
    }
    let in_proc = path::is_on(target.as_fd(), PROC_SUPER_MAGIC).at_nth(Step::MountTarget, index)?;
    let asked_for = step.target.to_bytes().strip_prefix(b"/proc").is_some_and(|rest| matches!(rest, [] | [b'/', ..]));
    if in_proc && !asked_for {
        return Err(failure(Step::MountTarget, index, Errno::ELOOP));
    }
    is_below(root, target.as_fd()).at_nth(Step::MountTarget, index)?;
    Ok(target)
}

/// Refuses the root itself as the place of a mount, by whatever path: what was mounted there would be below what
/// becomes `/`, and nobody would see it.
fn is_below(root: BorrowedFd<'_>, target: BorrowedFd<'_>) -> sys::Result<()> {
    if statx::place(target)? == statx::place(root)? { Err(Errno::EBUSY) } else { Ok(()) }
}

fn reconfigure(target: BorrowedFd<'_>, parameters: &[Parameter], flags: MountFlags) -> sys::Result<()> {
    let fs = mount::fspick(target)?;
    mount::configure(fs.as_fd(), parameters.iter().map(Parameter::pair))?;
    if flags.readonly() {
        mount::fsconfig_flag(fs.as_fd(), c"ro")?;
    } else if flags.cleared & libc::MS_RDONLY != 0 {
        mount::fsconfig_flag(fs.as_fd(), c"rw")?;
    }
    mount::fsconfig_reconfigure(fs.as_fd())
}

fn clone_source(index: usize, source: sys::Result<OwnedFd>, recursive: bool) -> Result<OwnedFd> {
    let source = source.at_nth(Step::MountSource, index)?;
    mount::clone_tree(source.as_fd(), recursive).at_nth(Step::Mount, index)
}

/// Whether flags of a mount are locked, so that a user namespace may not take them away (mount_namespaces(7)).
#[derive(Clone, Copy, Eq, PartialEq)]
enum Locked {
    /// Who knows: the kernel says so.
    Unknown,
    /// They would be, had the tree not been opened outside.
    InSource,
}

/// Gives a mount the flags that its options name and no others, beside those that are locked.
fn change_flags(tree: BorrowedFd<'_>, flags: MountFlags, locked: Locked) -> sys::Result<()> {
    if !flags.named {
        return Ok(());
    }
    if locked == Locked::Unknown || flags.spares(mount::flags(tree)?) {
        match mount::set_attributes(tree, attributes(flags.change()), false) {
            Err(Errno::EPERM) => {}
            other => return other,
        }
    }
    let change = flags.change_beside(mount::flags(tree)?).ok_or(Errno::EPERM)?;
    mount::set_attributes(tree, attributes(change), false)
}

fn attributes(change: AttributeChange) -> Attributes {
    Attributes { set: change.set, clear: change.clear, propagation: 0 }
}

fn place(index: usize, step: &MountStep, tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    mount::attach(tree, target).map_err(|errno| precise(errno, tree, target)).at_nth(Step::Mount, index)?;
    finish(index, step, tree)
}

/// Returns ENOTDIR, as mount(2) has it, for a directory on a file and a file on a directory: move_mount(2) has EINVAL
/// for that as for much else, and dockerd explains the mistake to its users when it reads the words of ENOTDIR.
fn precise(errno: Errno, tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Errno {
    match (errno, path::fstat(tree), path::fstat(target)) {
        (Errno::EINVAL, Ok(from), Ok(to)) if is_directory(&from) != is_directory(&to) => Errno::ENOTDIR,
        _ => errno,
    }
}

fn is_directory(status: &libc::stat) -> bool {
    status.st_mode & libc::S_IFMT == libc::S_IFDIR
}

fn finish(index: usize, step: &MountStep, tree: BorrowedFd<'_>) -> Result<()> {
    mount::set_attributes(tree, attributes(step.recursive), true).at_nth(Step::MountAttributes, index)?;
    for change in &step.propagation {
        let attributes = Attributes { propagation: change.kind, ..Attributes::default() };
        mount::set_attributes(tree, attributes, change.recursive).at_nth(Step::MountAttributes, index)?;
    }
    Ok(())
}

/// Makes paths read-only and hides others. What the image does not have needs no protection.
pub fn protect_paths(plan: &RootfsPlan, root: BorrowedFd<'_>) -> Result<()> {
    let readonly = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
    for (index, path) in plan.readonly_paths.iter().enumerate() {
        let Some(place) = existing(root, path).at_nth(Step::ReadonlyPath, index)? else { continue };
        let tree = mount::clone_tree(place.as_fd(), true).at_nth(Step::ReadonlyPath, index)?;
        mount::set_attributes(tree.as_fd(), readonly, true).at_nth(Step::ReadonlyPath, index)?;
        mount::attach(tree.as_fd(), place.as_fd()).at_nth(Step::ReadonlyPath, index)?;
    }
    let mut mask = Mask { null: None, empty: None, label: plan.label.as_ref() };
    for (index, path) in plan.masked_paths.iter().enumerate() {
        let Some(place) = existing(root, path).at_nth(Step::MaskedPath, index)? else { continue };
        mask.cover(place.as_fd()).at_nth(Step::MaskedPath, index)?;
    }
    Ok(())
}

fn existing(root: BorrowedFd<'_>, path: &CStr) -> sys::Result<Option<OwnedFd>> {
    match path::open_in_root(root, path, OFlag::O_PATH) {
        Ok(place) => Ok(Some(place)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// What hidden paths show: /dev/null for files, one empty tmpfs for all directories. What shows that already stays.
struct Mask<'a> {
    null: Option<OwnedFd>,
    empty: Option<OwnedFd>,
    label: Option<&'a Parameter>,
}

impl Mask<'_> {
    fn cover(&mut self, place: BorrowedFd<'_>) -> sys::Result<()> {
        let status = path::fstat(place)?;
        if !is_directory(&status) {
            if is_null(&status) {
                return Ok(());
            }
            let null = match &self.null {
                Some(null) => null,
                None => self.null.insert(open_null()?),
            };
            return mount::attach(mount::clone_tree(null.as_fd(), false)?.as_fd(), place);
        }
        if let Some(empty) = &self.empty {
            if path::fstat(empty.as_fd())?.st_dev == status.st_dev {
                return Ok(());
            }
            return mount::attach(mount::clone_tree(empty.as_fd(), false)?.as_fd(), place);
        }
        let empty = mount::empty_filesystem(self.label.map(Parameter::pair))?;
        mount::attach(empty.as_fd(), place)?;
        self.empty = Some(empty);
        Ok(())
    }
}

/// Opens the host's null device, and makes sure that it is one (CVE-2025-31133: an image's would be a hole).
fn open_null() -> sys::Result<OwnedFd> {
    let null = path::open(c"/dev/null", OFlag::O_PATH)?;
    if is_null(&path::fstat(null.as_fd())?) { Ok(null) } else { Err(Errno::ENODEV) }
}

fn is_null(status: &libc::stat) -> bool {
    status.st_mode & libc::S_IFMT == libc::S_IFCHR && status.st_rdev == libc::makedev(1, 3)
}

/// Makes what had to be writable until now read-only: mounts that were filled, and the root.
pub fn make_readonly(plan: &RootfsPlan, root: BorrowedFd<'_>) -> Result<()> {
    let readonly = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
    for (index, step) in plan.mounts.iter().enumerate().filter(|(_, step)| step.late_readonly) {
        let place = path::open_in_root(root, &step.target, OFlag::O_PATH).at_nth(Step::LateReadonly, index)?;
        mount::set_attributes(place.as_fd(), readonly, false).at_nth(Step::LateReadonly, index)?;
    }
    if plan.readonly {
        mount::set_attributes(root, readonly, false).at(Step::ReadonlyRoot)?;
    }
    Ok(())
}
