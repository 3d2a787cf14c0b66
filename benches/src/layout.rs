//! The cgroup layout of a run, in a mount namespace that only the benchmark
//! and its children see: the host's hierarchies are neither changed nor
//! unmounted, and all of it is gone when the benchmark ends.

use std::error::Error;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::Result;

const CGROUP_ROOT: &str = "/sys/fs/cgroup";

#[derive(Clone, Copy, PartialEq)]
pub enum Layout {
    /// One cgroup2 on /sys/fs/cgroup.
    V2,
    /// Every v1 hierarchy of the host, each in its folder.
    V1,
    /// What the host has, as it is.
    Host,
}

impl Layout {
    pub fn name(self) -> &'static str {
        match self {
            Layout::V2 => "v2",
            Layout::V1 => "v1",
            Layout::Host => "host",
        }
    }

    /// Returns whether /sys/fs/cgroup is a cgroup2 in this layout.
    pub fn is_v2(self) -> Result<bool> {
        Ok(match self {
            Layout::V2 => true,
            Layout::V1 => false,
            Layout::Host => Path::new(CGROUP_ROOT).join("cgroup.controllers").try_exists()?,
        })
    }
}

impl FromStr for Layout {
    type Err = Box<dyn Error>;

    fn from_str(word: &str) -> Result<Layout> {
        let layouts = [Layout::V2, Layout::V1, Layout::Host];
        let found = layouts.into_iter().find(|layout| layout.name() == word);
        found.ok_or_else(|| format!("unknown layout {word}").into())
    }
}

/// Enters a private mount namespace with the layout in it, and a tmpfs on
/// `directory`, so that no disk takes part in what is measured.
pub fn enter(layout: Layout, directory: &Path) -> Result<()> {
    // SAFETY: unshare takes an integer, and this process has one thread.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(format!("unshare: {} (are you root?)", io::Error::last_os_error()).into());
    }
    mount("none", Path::new("/"), "", libc::MS_REC | libc::MS_PRIVATE, "")?;
    mount("tmpfs", directory, "tmpfs", 0, "mode=711")?;
    let root = Path::new(CGROUP_ROOT);
    match layout {
        Layout::Host => {}
        Layout::V2 => {
            detach(root)?;
            mount("cgroup2", root, "cgroup2", 0, "")?;
        }
        Layout::V1 => {
            detach(root)?;
            mount("tmpfs", root, "tmpfs", 0, "mode=755")?;
            mount_v1(root)?;
        }
    }
    Ok(())
}

/// Returns how the names of all containers begin, which are those of their cgroups.
pub fn cgroup_prefix() -> String {
    format!("stasis-bench-{}", std::process::id())
}

/// Takes the tmpfs off `directory` again, if there is one, and removes the cgroups that a failed run left.
pub fn leave(directory: &Path) -> Result<()> {
    let root = Path::new(CGROUP_ROOT);
    let hierarchies = fs::read_dir(root)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    for hierarchy in hierarchies.iter().map(PathBuf::as_path).chain([root]) {
        for cgroup in fs::read_dir(hierarchy).into_iter().flatten().flatten() {
            if cgroup.file_name().to_string_lossy().starts_with(&cgroup_prefix()) {
                // Only v2 has such a file.
                let _ = fs::write(cgroup.path().join("cgroup.kill"), "1");
                let _ = fs::remove_dir(cgroup.path());
            }
        }
    }
    match detach(directory) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        result => Ok(result?),
    }
}

/// Mounts every v1 hierarchy that /proc/self/cgroup lists, as "ID:CONTROLLERS:PATH".
fn mount_v1(root: &Path) -> Result<()> {
    let mut count = 0;
    for line in fs::read_to_string("/proc/self/cgroup")?.lines() {
        let Some((id, rest)) = line.split_once(':') else {
            continue;
        };
        let Some((controllers, _)) = rest.split_once(':') else {
            continue;
        };
        if id == "0" {
            continue;
        }
        let (folder, options) = match controllers.strip_prefix("name=") {
            Some(name) => (name, format!("none,{controllers}")),
            None => (controllers, controllers.to_owned()),
        };
        let target = root.join(folder);
        fs::create_dir(&target)?;
        mount("cgroup", &target, "cgroup", 0, &options)?;
        count += 1;
    }
    if count == 0 {
        return Err("this kernel has no v1 hierarchy mounted; use --layout v2".into());
    }
    Ok(())
}

fn mount(source: &str, target: &Path, kind: &str, flags: u64, options: &str) -> Result<()> {
    let path = CString::new(target.as_os_str().as_bytes())?;
    let (source, kind) = (CString::new(source)?, CString::new(kind)?);
    let options = CString::new(options)?;
    let (source, data) = (source.as_ptr(), options.as_ptr().cast());
    // SAFETY: the four strings are terminated by their type and outlive the call.
    match unsafe { libc::mount(source, path.as_ptr(), kind.as_ptr(), flags, data) } {
        0 => Ok(()),
        _ => Err(format!("mount on {}: {}", target.display(), io::Error::last_os_error()).into()),
    }
}

fn detach(target: &Path) -> io::Result<()> {
    let path = CString::new(target.as_os_str().as_bytes())?;
    // SAFETY: path is terminated by its type and outlives the call.
    match unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
