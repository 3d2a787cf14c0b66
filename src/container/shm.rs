//! /dev/shm of a shareable container: mounted outside, below the container's directory, where another container finds it.
//!
//! It is there as long as the container is: whatever removes the directory detaches it (state.rs). Who has bound it keeps
//! it beyond that. What becomes of its content at a checkpoint is not decided here: it is a bind mount like an engine's.

use super::Container;
use super::external::open_directory;
use super::state::StateDir;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::plan::idmap;
use crate::plan::ipc::{self, IpcMode, SHM, SharedOutside};
use crate::plan::process::cstring;
use crate::spec::Config;
use crate::sys::{mount, path};
use nix::fcntl::OFlag;
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use oci_spec::runtime::Spec;
use std::fs::DirBuilder;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What another container joins to share a container's IPC.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SharedIpc {
    /// The namespace.
    pub namespace: PathBuf,
    /// The directory that is on /dev/shm.
    pub shm: PathBuf,
}

/// Mounts the /dev/shm that a configuration wants to be shareable and names no place for, and has the configuration
/// bind it. It goes away with the directory.
pub fn share(config: &mut Config, dir: &StateDir) -> Result<()> {
    let place = std::path::absolute(dir.shm()).context(|| format!("find {}", dir.shm().display()))?;
    let Some(wanted) = ipc::shared_outside(&config.spec, &place)? else { return Ok(()) };
    let attempt = || format!("mount tmpfs on {}", place.display());
    DirBuilder::new().mode(0o700).create(&place).context(|| format!("make {}", place.display()))?;
    let made = tmpfs(&config.spec, &wanted)?;
    mount::attach(made.as_fd(), open_directory(&place)?.as_fd()).context(attempt)?;
    config.replace_mount(wanted.index, wanted.bind)
}

fn tmpfs(spec: &Spec, wanted: &SharedOutside) -> Result<OwnedFd> {
    let attempt = || format!("make a tmpfs for {SHM}");
    let linux = crate::plan::linux(spec)?;
    let fs = mount::fsopen(c"tmpfs").context(attempt)?;
    let set = |key: &str, value: &str| {
        let (key, value) = (cstring(key.as_ref(), "mount option")?, cstring(value.as_ref(), "mount option")?);
        mount::fsconfig_string(fs.as_fd(), &key, &value).context(attempt)
    };
    set("source", "shm")?;
    // As if it had been mounted inside; an option may still say otherwise.
    if let Some(maps) = idmap::plan(linux)? {
        set("uid", &maps.users.outside(0).unwrap_or(0).to_string())?;
        set("gid", &maps.groups.outside(0).unwrap_or(0).to_string())?;
    }
    if let Some(label) = linux.mount_label().as_ref().filter(|label| !label.is_empty()) {
        set("context", label)?;
    }
    for parameter in &wanted.parameters {
        let set = match &parameter.value {
            Some(value) => mount::fsconfig_string(fs.as_fd(), &parameter.key, value),
            None => mount::fsconfig_flag(fs.as_fd(), &parameter.key),
        };
        set.context(|| format!("{}: option {}", attempt(), parameter.key.to_string_lossy()))?;
    }
    mount::fsconfig_create(fs.as_fd()).context(attempt)?;
    mount::fsmount(fs.as_fd(), wanted.flags.attributes()).context(attempt)
}

impl Container {
    /// Returns what another container joins to share this one's IPC namespace and /dev/shm.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WrongStatus`] when it is stopped, [`ErrorKind::InvalidSpec`] when it shares neither.
    pub fn shared_ipc(&self) -> Result<SharedIpc> {
        let attempt = || format!("join the IPC of container {}", self.id());
        if self.init()?.is_none() {
            return Err(Error::new(ErrorKind::WrongStatus, "it is not running").context(attempt()));
        }
        let refused = |why: &str| Error::invalid(why).context(attempt());
        match IpcMode::of(self.spec()?) {
            IpcMode::Private => return Err(refused("it is private (a shareable container can be joined)")),
            IpcMode::None => return Err(refused("its IPC mode is none: it has no /dev/shm to share")),
            IpcMode::Host => return Err(refused("it uses the host's (the mode host does so too)")),
            IpcMode::Shareable | IpcMode::Container(_) => {}
        }
        let mount = ipc::mounted_at(self.spec()?, SHM).filter(|mount| ipc::is_bind(mount));
        let source = mount.and_then(|mount| mount.source().as_ref());
        let source = source.ok_or_else(|| refused("its /dev/shm is not bound from outside"))?;
        let (proc, shm) = (Path::new("/proc").join(self.state.pid.to_string()), self.state.bundle.join(source));
        // The place outside may be another directory by now, or be mounted where only its engine sees it.
        if identity(&shm)? != identity(&proc.join("root/dev/shm"))? {
            return Err(refused(&format!("its /dev/shm is not {} any more", shm.display())));
        }
        Ok(SharedIpc { namespace: proc.join("ns/ipc"), shm })
    }
}

impl Container {
    /// Returns how many bytes are in its /dev/shm, if it has one that is not the host's.
    pub(super) fn shm_used(&self) -> Option<u64> {
        if matches!(IpcMode::of(self.spec().ok()?), IpcMode::Host | IpcMode::None) {
            return None;
        }
        let inside = open_directory(format!("/proc/{}/root", self.state.pid).as_ref()).ok()?;
        let shm = cstring(SHM.as_ref(), "mount").ok()?;
        let shm = path::open_in_root(inside.as_fd(), &shm, OFlag::O_PATH | OFlag::O_DIRECTORY).ok()?;
        let found = fstatfs(&shm).ok().filter(|found| found.filesystem_type() == TMPFS_MAGIC)?;
        let used = found.blocks().saturating_sub(found.blocks_free());
        Some(used.saturating_mul(u64::try_from(found.block_size()).ok()?))
    }
}

/// Returns the device and the inode of a directory.
fn identity(path: &Path) -> Result<(u64, u64)> {
    let found = std::fs::metadata(path).context(|| format!("stat {}", path.display()))?;
    Ok((found.dev(), found.ino()))
}
