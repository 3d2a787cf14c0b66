//! What of a container's plan is not its own, in the words that [`criu::external`](crate::criu::external) wants.

use crate::criu::external::Bind;
use crate::error::{Context, Error, Result};
use crate::plan::mounts::{self, CgroupView, MountAction, MountContext};
use crate::plan::process::cstring;
use crate::plan::{RootfsPlan, devices, mount_ids, namespaces};
use crate::sys::{self, Errno, path, statx};
use nix::fcntl::{OFlag, readlinkat};
use nix::libc;
use oci_spec::runtime::Spec;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// How many symlinks a path may go through: the kernel's own limit.
const MAX_SYMLINKS: u32 = 40;

/// Plans the part of a container's root file system that CRIU has to be told of.
pub fn plan(spec: &Spec, bundle: &Path, cgroups: &CgroupView) -> Result<RootfsPlan> {
    let linux = crate::plan::linux(spec)?;
    let in_userns = namespaces::plan(linux)?.in_userns;
    let rootfs = crate::plan::root_path(spec, bundle)?;
    let ids = mount_ids::of_container(linux)?;
    let context = MountContext { bundle, rootfs: &rootfs, cgroups, in_userns, ids, label: None };
    let masked = linux.masked_paths().iter().flatten();
    Ok(RootfsPlan {
        mounts: mounts::plan(spec.mounts().as_deref().unwrap_or_default(), &context)?,
        devices: devices::nodes(linux.devices().as_deref().unwrap_or_default())?,
        masked_paths: masked.map(|path| cstring(path.as_ref(), "maskedPaths")).collect::<Result<_>>()?,
        ..RootfsPlan::default()
    })
}

/// Returns everything that a plan binds from the host: mounts, and device nodes, which are bound where a user namespace
/// may not make them. runc lists the nodes always, and unknown keys do no harm.
pub fn binds(plan: &RootfsPlan, root: BorrowedFd<'_>) -> Result<Vec<Bind>> {
    let mut all = Vec::new();
    for step in &plan.mounts {
        if let MountAction::Bind { source, .. } = &step.action {
            all.push(Bind { inside: inside(root, &step.target)?, outside: text(source)? });
        }
    }
    for device in &plan.devices {
        all.push(Bind { inside: inside(root, &device.path)?, outside: text(&device.path)? });
    }
    Ok(all)
}

/// Returns a plan that binds from where the sources lead to now, for whoever opens them by their paths: CRIU would mount a
/// symlink itself, and fail; and what is in the root file system is found in there, whatever its symlinks are outside.
pub fn settled(mut plan: RootfsPlan, rootfs: &Path) -> Result<RootfsPlan> {
    let root = open_directory(rootfs)?;
    for step in &mut plan.mounts {
        let MountAction::Bind { source, inside, .. } = &mut step.action else { continue };
        let settled = match inside {
            Some(inside) => resolve(root.as_fd(), inside)?.strip_prefix("/").ok().map(|below| rootfs.join(below)),
            None => leads_to(source),
        };
        if let Some(settled) = settled {
            *source = cstring(settled.as_os_str(), "mount source")?;
        }
    }
    Ok(plan)
}

/// Returns where a symlink leads to, if the same is found by that path: what a link of /proc says need not be.
fn leads_to(source: &CStr) -> Option<PathBuf> {
    let path = Path::new(OsStr::from_bytes(source.to_bytes()));
    if !path.symlink_metadata().is_ok_and(|found| found.is_symlink()) {
        return None;
    }
    let real = std::fs::canonicalize(path).ok()?;
    let place = |path: &CStr| statx::place(path::open(path, OFlag::O_PATH)?.as_fd());
    (place(source) == place(&cstring(real.as_os_str(), "path").ok()?)).then_some(real)
}

/// Returns the masked paths that are there and are no directories, which have /dev/null on them.
pub fn masked_files(plan: &RootfsPlan, container_root: BorrowedFd<'_>) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for masked in &plan.masked_paths {
        let found = path::open_in_root(container_root, masked, OFlag::O_PATH);
        match found.and_then(|found| path::is_directory(found.as_fd())) {
            Ok(true) | Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Ok(false) => files.push(text(masked)?),
            Err(errno) => {
                let attempt = format!("look for masked path {}", masked.to_string_lossy());
                return Err(Error::system(attempt, errno));
            }
        }
    }
    Ok(files)
}

/// Returns where a path leads to, with `root` as `/`. Symlinks are followed whether or not there is something behind
/// them: it may be on a file system that is only mounted inside.
///
/// CRIU and the kernel know a mount point by this path, whatever the configuration calls it.
pub fn resolve(root: BorrowedFd<'_>, target: &CStr) -> Result<PathBuf> {
    let attempt = || format!("resolve {} in the root file system", target.to_string_lossy());
    let mut ahead = names(Path::new(OsStr::from_bytes(target.to_bytes())));
    let mut resolved = PathBuf::from("/");
    let mut followed = 0;
    while let Some(name) = ahead.pop() {
        if name == ".." {
            resolved.pop();
            continue;
        }
        let place = resolved.join(name);
        let link = match read_link(root, &place).context(attempt)? {
            None => {
                resolved = place;
                continue;
            }
            Some(link) => link,
        };
        followed += 1;
        if followed > MAX_SYMLINKS {
            return Err(Error::system(attempt(), Errno::ELOOP));
        }
        if link.is_absolute() {
            resolved = PathBuf::from("/");
        }
        ahead.extend(names(&link));
    }
    Ok(resolved)
}

/// Returns the names that a path is made of, the last one first.
fn names(path: &Path) -> Vec<OsString> {
    let name = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().rev().filter_map(name).collect()
}

/// Returns where the symlink at `place` points, or nothing if there is something else or nothing.
fn read_link(root: BorrowedFd<'_>, place: &Path) -> sys::Result<Option<PathBuf>> {
    let name = CString::new(place.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let found = match path::open_in_root(root, &name, OFlag::O_PATH | OFlag::O_NOFOLLOW) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
        other => other?,
    };
    let kind = path::fstat(found.as_fd())?.st_mode & libc::S_IFMT;
    if kind == libc::S_IFLNK { readlinkat(found, c"").map(|link| Some(link.into())) } else { Ok(None) }
}

/// Opens a directory to look things up in.
pub fn open_directory(directory: &Path) -> Result<OwnedFd> {
    let name = cstring(directory.as_os_str(), "path")?;
    let opened = path::open(&name, OFlag::O_PATH | OFlag::O_DIRECTORY);
    opened.context(|| format!("open {}", directory.display()))
}

fn inside(root: BorrowedFd<'_>, target: &CStr) -> Result<String> {
    path_text(resolve(root, target)?)
}

/// Turns a path of the plan into text.
pub fn text(path: &CStr) -> Result<String> {
    path_text(PathBuf::from(OsStr::from_bytes(path.to_bytes())))
}

/// Turns a path into text, which is all that CRIU's protocol has.
pub fn path_text(path: PathBuf) -> Result<String> {
    path.into_os_string().into_string().map_err(|path| {
        let path = PathBuf::from(path);
        Error::invalid(format!("criu takes no path that is not valid UTF-8: {}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn symlinks_are_resolved_inside_as_far_as_they_go() {
        let tree = tempfile::tempdir().unwrap();
        let root = tree.path().join("root");
        fs::create_dir_all(root.join("run/lock")).unwrap();
        fs::create_dir_all(root.join("var")).unwrap();
        symlink("/run", root.join("var/run")).unwrap();
        symlink("../../../..", root.join("up")).unwrap();
        symlink("/nowhere/yet", root.join("dangling")).unwrap();
        symlink("var/../run/none", root.join("relative")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let opened = fs::File::open(&root).unwrap();
        let cases = [
            (c"/var/run/lock", "/run/lock"),
            (c"/var/run/none/file", "/run/none/file"),
            (c"/up/run", "/run"),
            (c"/dangling/file", "/nowhere/yet/file"),
            (c"/relative/./x/../file", "/run/none/file"),
            (c"/", "/"),
            (c"none", "/none"),
        ];
        for (target, expected) in cases {
            assert_eq!(resolve(opened.as_fd(), target).unwrap(), PathBuf::from(expected));
        }
        assert!(resolve(opened.as_fd(), c"/loop/x").unwrap_err().to_string().contains("symbolic links"));
    }

    #[test]
    fn sources_are_where_they_lead_to() {
        let tree = tempfile::tempdir().unwrap();
        let (rootfs, at) = (tree.path().join("root"), |name: &str| tree.path().join(name));
        fs::create_dir_all(rootfs.join("srv/data")).unwrap();
        fs::create_dir(at("host")).unwrap();
        fs::write(at("file"), "").unwrap();
        symlink("/srv", rootfs.join("link")).unwrap();
        symlink("file", at("link")).unwrap();
        symlink("none", at("dangling")).unwrap();
        let gone = fs::File::create(at("gone")).unwrap();
        fs::remove_file(at("gone")).unwrap();
        let magic = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&gone));
        let cases = [
            (rootfs.join("link/data"), rootfs.join("srv/data")),
            (rootfs.join("link"), rootfs.join("srv")),
            (at("link"), at("file")),
            (at("host"), at("host")),
            (at("dangling"), at("dangling")),
            (PathBuf::from(&magic), PathBuf::from(&magic)),
        ];
        for (source, expected) in cases {
            let mount = serde_json::json!({"destination": "/x", "type": "bind", "source": source, "options": ["bind"]});
            let cgroups = &CgroupView::V2 { own: "/c1".into(), namespace: true };
            let (bundle, in_userns) = (tree.path(), false);
            let context = MountContext { bundle, rootfs: &rootfs, cgroups, in_userns, ids: None, label: None };
            let mounts = mounts::plan(&[serde_json::from_value(mount).unwrap()], &context).unwrap();
            let plan = settled(RootfsPlan { mounts, ..RootfsPlan::default() }, &rootfs).unwrap();
            let MountAction::Bind { source, .. } = &plan.mounts[0].action else { panic!("no bind mount") };
            assert_eq!(source.to_str().unwrap(), expected.to_str().unwrap());
        }
    }
}
