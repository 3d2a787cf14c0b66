//! What is on disk of a container: one directory, with the state, the configuration and, until start, the exec fifo.

use super::foreign;
use super::rdt::Rdt;
use crate::cgroup::Cgroup;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::spec::{self, Config};
use crate::sys::{Errno, mount, statx};
use nix::fcntl::AT_FDCWD;
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The version of [`State`] that this runtime writes; older ones are read.
pub const VERSION: u32 = 1;

/// The file's name is not runc's: a directory that both could have made is told apart by it.
const STATE: &str = "stasis.json";
const CONFIG: &str = "config.json";
const FIFO: &str = "exec.fifo";
const CRIU_ROOT: &str = "criu-root";
const CRIU_TOOLS: &str = "criu-tools";
const CRIU_IMAGES: &str = "criu-images";
const QUEUES: &str = "mqueue";
const MASKS: &str = "masks";
const ID_MAPPED: &str = "id-mapped-";
const SHM: &str = "shm";
const NOTIFY: &str = "notify";

/// What later commands need to know of a container. Its status is not among it: that is asked of the kernel.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The version of this format.
    pub version: u32,
    /// The specification's version that the configuration names.
    pub oci_version: String,
    /// The container's name.
    pub id: String,
    /// The bundle, absolute.
    pub bundle: PathBuf,
    /// The root file system, absolute.
    pub rootfs: PathBuf,
    /// When it was created, in RFC 3339.
    pub created: String,
    /// The pid of its init, as the host sees it.
    pub pid: i32,
    /// When its init started, in clock ticks after boot: with the pid, this names one process for good.
    pub start_time: u64,
    /// Annotations of the configuration.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The user that created it.
    pub owner: u32,
    /// Its cgroup, with which every later command finds its limits and processes.
    pub cgroup: Cgroup,
    /// Whether its processes have no session keyring of their own.
    #[serde(default)]
    pub no_new_keyring: bool,
    /// Its part of Intel RDT, if it was given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdt: Option<Rdt>,
}

/// A container's directory.
#[derive(Clone, Debug)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// Returns where the container `id` is, or would be.
    pub fn of(root: &Path, id: &str) -> Result<Self> {
        spec::validate::id(id)?;
        Ok(Self(root.join(id)))
    }

    /// Makes the directory of a new container, and the root above it where it is missing.
    pub fn make(root: &Path, id: &str) -> Result<Self> {
        let dir = Self::of(root, id)?;
        let make = || DirBuilder::new().mode(0o711).create(&dir.0);
        let made = match make() {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
                let parents = DirBuilder::new().recursive(true).mode(0o700).create(root);
                parents.context(|| format!("make {}", root.display()))?;
                make()
            }
            other => other,
        };
        match made {
            Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(Error::new(ErrorKind::AlreadyExists, "container with given ID already exists"))
            }
            other => other.context(|| format!("make {}", dir.0.display())).map(|()| dir),
        }
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the path of the exec fifo.
    pub fn fifo(&self) -> PathBuf {
        self.0.join(FIFO)
    }

    /// Returns the path of the configuration that the container was created with.
    pub fn config(&self) -> PathBuf {
        self.0.join(CONFIG)
    }

    /// Writes the state: all of it, or nothing.
    pub fn save(&self, state: &State) -> Result<()> {
        let text = serde_json::to_vec(state).map_err(|err| Error::other(format!("write state: {err}")))?;
        self.replace(STATE, &text)
    }

    fn replace(&self, name: &str, text: &[u8]) -> Result<()> {
        let new = self.0.join(format!(".{name}"));
        write_new(&new, text, 0o600)?;
        std::fs::rename(&new, self.0.join(name)).context(|| format!("rename {} to {name}", new.display()))
    }

    /// Reads the state.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when there is no container, be the directory there or not, and [`ErrorKind::Foreign`] when
    /// there is one of another runtime's.
    pub fn load(&self) -> Result<State> {
        let path = self.0.join(STATE);
        let text = match std::fs::read(&path) {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Err(self.not_found()),
            other => other.context(|| format!("open {}", path.display()))?,
        };
        let state: State = serde_json::from_slice(&text)
            .map_err(|err| Error::new(ErrorKind::Damaged, format!("parse {}: {err}", path.display())))?;
        if state.version > VERSION {
            return Err(Error::other(format!(
                "{} has format {}, which is newer than this runtime's {VERSION}",
                path.display(),
                state.version
            )));
        }
        Ok(state)
    }

    fn not_found(&self) -> Error {
        let id = self.0.file_name().map(|id| id.to_string_lossy().into_owned()).unwrap_or_default();
        if foreign::is_there(&self.0) {
            let text = format!("container {id:?} was made by another runtime, which is needed for this");
            return Error::new(ErrorKind::Foreign, text);
        }
        Error::new(ErrorKind::NotFound, "container does not exist")
    }

    /// Keeps the configuration as it was read.
    pub fn save_config(&self, config: &Config) -> Result<()> {
        write_new(&self.config(), &config.text, 0o600)
    }

    /// Puts another configuration in the place of the one that was kept: all of it, or nothing.
    pub fn replace_config(&self, text: &[u8]) -> Result<()> {
        self.replace(CONFIG, text)
    }

    /// Reads the configuration that was kept.
    pub fn spec(&self) -> Result<Box<Spec>> {
        Ok(spec::load(&self.config())?.spec)
    }

    /// Returns where the root file system is mounted while the container is restored.
    pub fn criu_root(&self) -> PathBuf {
        self.0.join(CRIU_ROOT)
    }

    /// Returns where CRIU finds programs of ours while it works for the container.
    pub fn criu_tools(&self) -> PathBuf {
        self.0.join(CRIU_TOOLS)
    }

    /// Returns where there are images that CRIU is given in place of the original ones, while the container is restored.
    pub fn criu_images(&self) -> PathBuf {
        self.0.join(CRIU_IMAGES)
    }

    /// Returns where what has changed in them is. The directory above is open to root alone: these are memory.
    pub fn criu_changed_images(&self) -> PathBuf {
        self.criu_images().join("changed")
    }

    /// Returns where they are mounted for the root of a user namespace, if there are those of earlier stages below them.
    pub fn criu_view(&self) -> PathBuf {
        self.criu_images().join("view")
    }

    /// Returns where message queues are mounted while the container is restored.
    pub fn queues(&self) -> PathBuf {
        self.0.join(QUEUES)
    }

    /// Returns where what hides directories is mounted while the container is restored.
    pub fn masks(&self) -> PathBuf {
        self.0.join(MASKS)
    }

    /// Returns where the mount of that number is mounted, id-mapped, while the container is restored.
    pub fn id_mapped(&self, number: usize) -> PathBuf {
        self.0.join(format!("{ID_MAPPED}{number}"))
    }

    /// Returns where the /dev/shm of a shareable container is mounted, unless somebody else has done that.
    pub fn shm(&self) -> PathBuf {
        self.0.join(SHM)
    }

    /// Returns where the socket is on which the program says that it is ready.
    pub fn notify(&self) -> PathBuf {
        self.0.join(NOTIFY)
    }

    /// Removes the directory and all in it; none is no failure. The state goes last: without it the container would not be
    /// found again, should we be ended meanwhile.
    pub fn remove(&self) -> Result<()> {
        let attempt = || format!("remove {}", self.0.display());
        if self.remove_usual().context(attempt)? {
            return Ok(());
        }
        let entries = self.entries().context(attempt)?;
        self.detach_all(&entries)?;
        for entry in entries.iter().filter(|entry| !entry.ends_with(STATE)) {
            let removed =
                if is_directory(entry) { std::fs::remove_dir_all(entry) } else { std::fs::remove_file(entry) };
            removed.or_else(|err| if is_absence(&err) { Ok(()) } else { Err(err) }).context(attempt)?;
        }
        match std::fs::remove_dir_all(&self.0) {
            Err(err) if is_absence(&err) => Ok(()),
            other => other.context(attempt),
        }
    }

    /// Removes it if it holds what a container usually leaves, on which nothing is mounted; says no where there is more.
    fn remove_usual(&self) -> std::io::Result<bool> {
        let is_gone = |removed: std::io::Result<()>| removed.map_or_else(|err| is_absence(&err), |()| true);
        let usual = [CONFIG, FIFO, STATE].map(|name| self.0.join(name));
        let entries = self.entries()?;
        let present = usual.iter().filter(|path| entries.contains(path));
        let is_all = entries.iter().all(|path| usual.contains(path));
        Ok(is_all && present.map(std::fs::remove_file).all(is_gone) && is_gone(std::fs::remove_dir(&self.0)))
    }

    /// Returns the paths of what is in it; nothing if it is not there.
    fn entries(&self) -> std::io::Result<Vec<PathBuf>> {
        match std::fs::read_dir(&self.0) {
            Err(err) if is_absence(&err) => Ok(Vec::new()),
            entries => entries?.map(|entry| entry.map(|entry| entry.path())).collect(),
        }
    }

    /// Detaches what is mounted here. A restore that was killed leaves the root file system mounted, whose files would go,
    /// and others. The content of a shareable /dev/shm stays for those who have it bound.
    fn detach_all(&self, paths: &[PathBuf]) -> Result<()> {
        detach(&self.criu_view())?;
        paths.iter().try_for_each(|path| detach(path))
    }
}

fn is_absence(err: &std::io::Error) -> bool {
    err.kind() == std::io::ErrorKind::NotFound
}

fn is_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_dir())
}

/// Detaches what is mounted at a path of ours; nothing is no failure, even to who may not unmount.
pub fn detach(path: &Path) -> Result<()> {
    let name = crate::plan::process::cstring(path.as_os_str(), "state directory")?;
    match mount::detach(&name) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(Errno::EPERM) if statx::attributes(AT_FDCWD, &name).is_ok_and(|found| !found.is_mount) => Ok(()),
        Err(errno) => Err(Error::system(format!("unmount {}", path.display()), errno)),
    }
}

fn write_new(path: &Path, text: &[u8], mode: u32) -> Result<()> {
    let attempt = || format!("write {}", path.display());
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path).context(attempt)?;
    file.write_all(text).context(attempt)
}

/// Writes a pid file: the number alone, and all of it at once, since readers poll for it.
pub fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    let attempt = || format!("write pid file {}", path.display());
    let name = path.file_name().ok_or_else(|| Error::invalid(format!("pid file {} has no name", path.display())))?;
    let new = path.with_file_name(format!(".{}", name.to_string_lossy()));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o666);
    let mut file: File = match options.open(&new) {
        // Left by a runtime that was killed just here.
        Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => {
            std::fs::remove_file(&new).context(attempt)?;
            options.open(&new).context(attempt)?
        }
        other => other.context(attempt)?,
    };
    file.set_permissions(Permissions::from_mode(0o644)).context(attempt)?;
    file.write_all(pid.to_string().as_bytes()).context(attempt)?;
    std::fs::rename(&new, path).context(attempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_another_runtime_is_named_as_such() {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::make(root.path(), "c1").unwrap();
        assert_eq!(dir.load().unwrap_err().to_string(), "container does not exist");
        std::fs::write(dir.path().join("state.json"), "{}").unwrap();
        let err = dir.load().unwrap_err();
        assert_eq!(err.kind(), ErrorKind::Foreign);
        assert_eq!(err.to_string(), "container \"c1\" was made by another runtime, which is needed for this");
    }

    #[test]
    fn a_second_container_of_that_name_is_refused() {
        let root = tempfile::tempdir().unwrap();
        StateDir::make(root.path(), "c1").unwrap();
        let err = StateDir::make(root.path(), "c1").unwrap_err();
        assert_eq!(err.to_string(), "container with given ID already exists");
    }

    #[test]
    fn a_pid_file_holds_the_number_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        write_pid_file(&path, 42).unwrap();
        write_pid_file(&path, 43).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "43");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn whatever_is_in_it_goes() {
        let root = tempfile::tempdir().unwrap();
        for names in [&[][..], &[CONFIG, STATE], &[CONFIG, FIFO, STATE], &[STATE, ".stasis.json", "other"]] {
            let dir = StateDir::make(root.path(), "c1").unwrap();
            names.iter().for_each(|name| std::fs::write(dir.path().join(name), "").unwrap());
            let is_usual = !names.contains(&"other");
            assert_eq!(dir.remove_usual().unwrap(), is_usual, "{names:?}");
            assert!(is_usual || names.iter().all(|name| dir.path().join(name).exists()), "{names:?}");
            dir.remove().unwrap();
            assert!(!dir.path().exists(), "{names:?}");
            dir.remove().unwrap();
        }
    }
}
