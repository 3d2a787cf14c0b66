//! The mount points of a container that is restored: CRIU mounts, and makes no directories for it.

use super::external::resolve;
use crate::error::{Context, Result};
use crate::plan::RootfsPlan;
use crate::plan::mounts::{MountAction, MountStep};
use crate::plan::process::cstring;
use crate::sys::path::{self, Missing};
use nix::fcntl::OFlag;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// Makes the mount points that the root file system lacks, as creating the container would have made them.
///
/// What a mount point lies on decides: the root file system and what is bound from the host get it, file systems of the
/// container's own get it back from the images.
pub fn make(plan: &RootfsPlan, root: BorrowedFd<'_>) -> Result<()> {
    let mut covers: Vec<Cover> = Vec::new();
    for step in &plan.mounts {
        let missing = match &step.action {
            MountAction::Bind { source, .. } => bind_target(source)?,
            MountAction::Filesystem { .. } => Missing::Directory,
            MountAction::Remount { .. } | MountAction::Symlink { .. } => continue,
        };
        let target = resolve(root, &step.target)?;
        let cover = covers.iter().rev().find(|cover| target.starts_with(&cover.target));
        match cover {
            None => make_one(root, &cstring(target.as_os_str(), "mount")?, missing, step)?,
            // A mount on a mount point of its own needs nothing.
            Some(cover) if cover.target == target => {}
            Some(Cover { source: Some(source), target: at }) => {
                let rest = target.strip_prefix(at).unwrap_or(&target);
                make_one(source.as_fd(), &cstring(rest.as_os_str(), "mount")?, missing, step)?;
            }
            Some(_) => {}
        }
        let source = match &step.action {
            MountAction::Bind { source, .. } => Some(open_source(source)?),
            _ => None,
        };
        covers.push(Cover { target, source });
    }
    Ok(())
}

/// A mount that later mount points may lie on.
struct Cover {
    target: PathBuf,
    /// What is bound there, if it is from the host.
    source: Option<OwnedFd>,
}

fn make_one(root: BorrowedFd<'_>, target: &CStr, missing: Missing, step: &MountStep) -> Result<()> {
    let made = path::ensure_in_root(root, target, missing).map(drop);
    made.context(|| format!("create criu restore mountpoint for {} mount", step.target.to_string_lossy()))
}

fn open_source(source: &CStr) -> Result<OwnedFd> {
    path::open(source, OFlag::O_PATH).context(|| format!("open {}", source.to_string_lossy()))
}

fn bind_target(source: &CStr) -> Result<Missing> {
    let opened = open_source(source)?;
    let directory = path::is_directory(opened.as_fd());
    let directory = directory.context(|| format!("stat {}", source.to_string_lossy()))?;
    Ok(if directory { Missing::Directory } else { Missing::File })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn step(target: &CStr, action: MountAction) -> MountStep {
        MountStep {
            target: target.into(),
            action,
            ids: None,
            flags: Default::default(),
            recursive: Default::default(),
            propagation: Vec::new(),
            late_readonly: false,
        }
    }

    fn bind(target: &CStr, source: &Path) -> MountStep {
        let source = cstring(source.as_os_str(), "test").unwrap();
        step(target, MountAction::Bind { source, inside: None, recursive: true })
    }

    fn tmpfs(target: &CStr) -> MountStep {
        let (fstype, parameters) = (c"tmpfs".into(), Vec::new());
        step(target, MountAction::Filesystem { fstype, parameters, fallback: None, copies_up: false })
    }

    fn make_all(root: &Path, mounts: Vec<MountStep>) -> Result<()> {
        let plan = RootfsPlan { mounts, ..RootfsPlan::default() };
        make(&plan, fs::File::open(root).unwrap().as_fd())
    }

    #[test]
    fn mount_points_are_made_where_they_will_be_looked_for() {
        let tree = tempfile::tempdir().unwrap();
        let (root, host) = (tree.path().join("root"), tree.path().join("host"));
        fs::create_dir_all(root.join("var")).unwrap();
        fs::create_dir_all(&host).unwrap();
        fs::write(host.join("file"), "").unwrap();
        symlink("/run", root.join("var/run")).unwrap();
        let mounts = vec![
            tmpfs(c"/proc"),
            bind(c"/data", &host),
            bind(c"/data/deep/file", &host.join("file")),
            tmpfs(c"/run"),
            bind(c"/var/run/file", &host.join("file")),
            bind(c"/etc/file", &host.join("file")),
        ];
        make_all(&root, mounts).unwrap();
        assert!(root.join("proc").is_dir() && root.join("data").is_dir());
        assert!(host.join("deep/file").is_file() && !root.join("data/deep").exists());
        assert!(root.join("run").is_dir() && !root.join("run/file").exists());
        assert!(root.join("etc/file").is_file());
    }

    #[test]
    fn mount_points_stay_inside() {
        let tree = tempfile::tempdir().unwrap();
        let root = tree.path().join("root");
        fs::create_dir_all(&root).unwrap();
        symlink(tree.path(), root.join("out")).unwrap();
        symlink("../../..", root.join("up")).unwrap();
        make_all(&root, vec![tmpfs(c"/out/x")]).unwrap();
        make_all(&root, vec![tmpfs(c"/up/y")]).unwrap();
        assert!(root.join("y").is_dir() && !tree.path().join("x").exists());
    }

    #[test]
    fn a_missing_source_is_named() {
        let tree = tempfile::tempdir().unwrap();
        let missing = tree.path().join("none");
        let err = make_all(tree.path(), vec![bind(c"/x", &missing)]).unwrap_err();
        assert_eq!(err.to_string(), format!("open {}: no such file or directory", missing.display()));
    }
}
