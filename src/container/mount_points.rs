//! The mount points of a container that is restored: CRIU mounts, and makes no directories for it.

use super::external::resolve;
use crate::error::{Context, Result};
use crate::plan::RootfsPlan;
use crate::plan::mounts::{MountAction, MountStep};
use crate::plan::process::cstring;
use crate::sys::path::{self, Missing};
use nix::fcntl::OFlag;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Makes the mount points that the root file system lacks, as creating the container would have made them.
///
/// What a mount point lies on decides: the root file system and what is bound from the host get it, file systems of the
/// container's own get it back from the images.
pub fn make(plan: &RootfsPlan, root: BorrowedFd<'_>) -> Result<()> {
    let mut covers: Vec<Cover> = Vec::new();
    for step in &plan.mounts {
        let (missing, source) = match &step.action {
            MountAction::Bind { source, .. } => {
                let source = open_source(source)?;
                (bind_target(source.as_fd(), step)?, Some(source))
            }
            MountAction::Filesystem { .. } => (Missing::Directory, None),
            MountAction::Symlink { to } => {
                make_symlink(root, &covers, step, to)?;
                continue;
            }
            MountAction::Remount { .. } => continue,
        };
        let target = resolve(root, &step.target)?;
        if let Some((dir, path)) = place(root, &covers, &target)? {
            path::ensure_in_root(dir, &path, missing).context(|| attempt(step))?;
        }
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

/// Returns where a place is made: below which directory, and the path from there; nothing where the images have it.
fn place<'a>(root: BorrowedFd<'a>, covers: &'a [Cover], target: &Path) -> Result<Option<(BorrowedFd<'a>, CString)>> {
    let (dir, path) = match covers.iter().rev().find(|cover| target.starts_with(&cover.target)) {
        None => (root, target),
        // A mount on a mount point of its own needs nothing.
        Some(cover) if cover.target == target => return Ok(None),
        Some(Cover { source: Some(source), target: at }) => (source.as_fd(), target.strip_prefix(at).unwrap_or(target)),
        Some(_) => return Ok(None),
    };
    Ok(Some((dir, cstring(path.as_os_str(), "mount")?)))
}

/// Makes a symlink that creating the container would have made in a mount's place.
fn make_symlink(root: BorrowedFd<'_>, covers: &[Cover], step: &MountStep, to: &CStr) -> Result<()> {
    let target = Path::new(OsStr::from_bytes(step.target.to_bytes()));
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else { return Ok(()) };
    let target = resolve(root, &cstring(parent.as_os_str(), "mount")?)?.join(name);
    let Some((dir, path)) = place(root, covers, &target)? else { return Ok(()) };
    path::in_parent(dir, &path, |parent, name| path::symlink(to, parent, name)).context(|| step)
}

fn attempt(step: &MountStep) -> String {
    format!("create criu restore mountpoint for {} mount", step.target.to_string_lossy())
}

fn open_source(source: &CStr) -> Result<OwnedFd> {
    path::open(source, OFlag::O_PATH).context(|| format!("open {}", source.to_string_lossy()))
}

fn bind_target(source: BorrowedFd<'_>, step: &MountStep) -> Result<Missing> {
    let directory = path::is_directory(source).context(|| format!("{step}: stat its source"))?;
    Ok(if directory { Missing::Directory } else { Missing::File })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

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
        step(target, MountAction::Bind { source, inside: None, recursive: true, copies_symlink: false })
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
    fn symlinks_are_made_beside_mount_points() {
        let tree = tempfile::tempdir().unwrap();
        let (root, host) = (tree.path().join("root"), tree.path().join("host"));
        fs::create_dir_all(&root).unwrap();
        fs::create_dir_all(&host).unwrap();
        let link = |target: &CStr| step(target, MountAction::Symlink { to: c"../nowhere".into() });
        let mounts = || {
            vec![tmpfs(c"/own"), bind(c"/data", &host), link(c"/deep/link"), link(c"/data/link"), link(c"/own/link")]
        };
        // As creating the container, a second time changes nothing.
        make_all(&root, mounts()).unwrap();
        make_all(&root, mounts()).unwrap();
        for place in [root.join("deep/link"), host.join("link")] {
            assert_eq!(fs::read_link(place).unwrap(), Path::new("../nowhere"));
        }
        assert!(!root.join("nowhere").exists() && fs::read_dir(root.join("own")).unwrap().count() == 0);
        fs::remove_file(host.join("link")).unwrap();
        fs::write(host.join("link"), "").unwrap();
        let err = make_all(&root, mounts()).unwrap_err();
        assert_eq!(err.to_string(), "error making symlink \"/data/link\" to \"../nowhere\": file exists");
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
