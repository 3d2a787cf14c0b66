//! Tmpfs that are mounted into a container from outside, first of all /dev/shm: CRIU does not dump them, and expects to
//! find every open file in them again. So their content goes into the image beside CRIU's, once nobody changes it any
//! more, and back into the file system before CRIU opens anything there.
//!
//! The host's own /dev/shm is nobody's to save or to fill. What else of the host is bound into a container is kept by
//! the host, so only /dev/shm is taken for the container's own, and what is named by an option or by the annotation.

use super::external::resolve;
use super::{Container, external};
use crate::criu::manifest::{Manifest, Tmpfs};
use crate::error::{Context, Error, Result};
use crate::plan::ipc::{IpcMode, SHM, is_bind, mounted_at};
use crate::plan::mounts::destination;
use crate::plan::process::cstring;
use crate::sys::path;
use crate::tmpfs::{self, Policy, Undo, capture, remaps, replay};
use nix::fcntl::OFlag;
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use oci_spec::runtime::Spec;
use std::collections::{BTreeSet, HashSet};
use std::fs::OpenOptions;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The annotation that names more tmpfs from outside whose content belongs to the container: destinations of mounts,
/// separated by commas.
const ANNOTATION: &str = "org.stasis.external-tmpfs";

/// The annotation by which some engines say that a container is theirs.
const MANAGER: &str = "io.container.manager";

/// A tmpfs from outside, while its container is dumped.
#[derive(Debug)]
pub struct ExternalTmpfs {
    destination: String,
    root: OwnedFd,
    /// A process of another container that has it too.
    neighbour: Option<i32>,
    /// Names that CRIU gave to files without a name in an earlier dump.
    remaps: HashSet<PathBuf>,
}

impl Container {
    /// Finds the tmpfs from outside whose content belongs to the container: /dev/shm and those in `named`.
    pub(super) fn external_tmpfs(&self, spec: &Spec, named: &[String]) -> Result<Vec<ExternalTmpfs>> {
        let annotated = self.state().annotations.get(ANNOTATION).map(String::as_str).unwrap_or_default();
        let annotated = annotated.split(',').filter(|name| !name.is_empty());
        let wanted = named.iter().map(String::as_str).chain(annotated).map(|name| destination(Path::new(name)));
        let wanted = wanted.collect::<Result<BTreeSet<_>>>()?;
        let inside = external::open_directory(format!("/proc/{}/root", self.state().pid).as_ref())?;
        let mut all = Vec::new();
        for name in wanted.iter().map(String::as_str).chain(Some(SHM).filter(|_| !wanted.contains(SHM))) {
            let found = match mounted_at(spec, name) {
                Some(mount) if is_bind(mount) => self.open_tmpfs(inside.as_fd(), name)?,
                _ => None,
            };
            match found {
                Some(found) => all.push(found),
                None if name == SHM => {}
                None => return Err(Error::invalid(format!("{name} is no tmpfs that is mounted from outside"))),
            }
        }
        Ok(all)
    }

    /// Opens what is mounted at `name`, if it is a tmpfs and not the host's /dev/shm.
    fn open_tmpfs(&self, inside: BorrowedFd<'_>, name: &str) -> Result<Option<ExternalTmpfs>> {
        let attempt = || format!("open {name} of container {}", self.id());
        let place = cstring(resolve(inside, &cstring(name.as_ref(), "mount")?)?.as_os_str(), "mount")?;
        let root = path::open_in_root(inside, &place, OFlag::O_PATH | OFlag::O_DIRECTORY).context(attempt)?;
        if fstatfs(&root).context(attempt)?.filesystem_type() != TMPFS_MAGIC || is_hosts_shm(root.as_fd())? {
            return Ok(None);
        }
        let device = path::fstat(root.as_fd()).context(attempt)?.st_dev;
        let neighbour = self.neighbour(device, name)?;
        Ok(Some(ExternalTmpfs { destination: name.to_owned(), root, neighbour, remaps: HashSet::new() }))
    }

    /// Returns a process that is not the container's and finds the file system `device` at the same place.
    fn neighbour(&self, device: u64, name: &str) -> Result<Option<i32>> {
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        let own = self.pids()?.into_iter().filter_map(|pid| namespace(&pid.to_string()));
        let mut seen: HashSet<PathBuf> = own.chain(namespace("self")).collect();
        for entry in std::fs::read_dir("/proc").context(|| "read /proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            let Some(theirs) = namespace(&pid.to_string()).filter(|theirs| seen.insert(theirs.clone())) else {
                continue;
            };
            if std::fs::metadata(format!("/proc/{pid}/root{name}")).is_ok_and(|found| found.dev() == device) {
                log::debug!("process {pid} in {} has {name} too", theirs.display());
                return Ok(Some(pid));
            }
        }
        Ok(None)
    }
}

impl ExternalTmpfs {
    /// Takes note of what is there before CRIU adds to it; the processes are stopped.
    pub fn note_remaps(&mut self) -> Result<()> {
        self.remaps = self.remaps_now()?.into_iter().collect();
        Ok(())
    }

    /// Writes the content into the directory of the images; the processes are stopped, and CRIU has added its names.
    pub fn capture(&self, images: &Path) -> Result<Tmpfs> {
        let name = &self.destination;
        if let Some(pid) = self.neighbour {
            log::warn!("{name} is shared with processes that go on, {pid} for one: what they write now may be missing");
        }
        let archive = format!("stasis-tmpfs{}.tar", name.replace('/', "-"));
        let path = images.join(&archive);
        let attempt = || format!("write {}", path.display());
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path).context(attempt)?;
        let captured = capture(self.root.as_fd(), file).map_err(|err| err.context(format!("save {name}")))?;
        let limits = fstatfs(&self.root).context(|| format!("stat {name}"))?;
        Ok(Tmpfs {
            destination: name.clone(),
            archive,
            sha256: captured.sha256,
            bytes: captured.bytes,
            entries: captured.entries,
            size: limits.blocks() * u64::try_from(limits.block_size()).unwrap_or(0),
            inodes: limits.files(),
            shared: self.neighbour.is_some(),
        })
    }

    /// Removes the names that CRIU has added: their files are in the archive, and the container is no more.
    pub fn remove_remaps(&self) -> Result<()> {
        let attempt = || format!("remove what criu has left in {}", self.destination);
        for added in self.remaps_now()?.iter().filter(|path| !self.remaps.contains(*path)) {
            tmpfs::remove(self.root.as_fd(), added).context(attempt)?;
        }
        Ok(())
    }

    fn remaps_now(&self) -> Result<Vec<PathBuf>> {
        remaps(self.root.as_fd()).map_err(|err| err.context(format!("look into {}", self.destination)))
    }
}

/// Content that was put into tmpfs from outside.
#[derive(Debug, Default)]
pub struct Filled {
    undo: Vec<Undo>,
    /// Where others have written meanwhile, so that files are not what they were.
    pub others: Vec<String>,
}

impl Filled {
    /// Makes the file systems what they were.
    pub fn take_back(&mut self) {
        self.undo.iter_mut().rev().for_each(Undo::take_back);
        self.undo.clear();
    }

    /// Keeps the content.
    pub fn keep(self) {
        self.undo.into_iter().for_each(Undo::keep);
    }
}

/// Puts the content of an image into the tmpfs that a configuration mounts from outside. Without a policy what is there
/// stays: all of it, or where others own it what is there by that name.
pub fn fill(spec: &Spec, bundle: &Path, images: &Path, policy: Option<Policy>) -> Result<Filled> {
    let mut filled = Filled::default();
    for saved in Manifest::load(images)?.into_iter().flat_map(|manifest| manifest.tmpfs) {
        let policy = policy.unwrap_or_else(|| usual_policy(spec));
        match fill_one(spec, bundle, images, (&saved, policy)) {
            Ok(undo) => filled.undo.extend(undo),
            Err(err) => {
                filled.take_back();
                return Err(err.context(format!("restore {}", saved.destination)));
            }
        }
        if saved.shared || policy == Policy::MergeMissing {
            filled.others.push(saved.destination);
        }
    }
    Ok(filled)
}

/// Returns what is done with a tmpfs that is not empty when nobody has said it. Podman fills the new one of a container
/// from an archive of its own, which it made when the container may have been going on already, and without holes and
/// attributes: what fits the dumped memory is what the image has.
fn usual_policy(spec: &Spec) -> Policy {
    let manager = spec.annotations().as_ref().and_then(|annotations| annotations.get(MANAGER));
    match IpcMode::of(spec) {
        IpcMode::Container(_) => Policy::MergeMissing,
        IpcMode::Shareable if manager.is_some_and(|name| name == "libpod") => Policy::Overwrite,
        _ => Policy::IfEmpty,
    }
}

fn fill_one(spec: &Spec, bundle: &Path, images: &Path, (saved, policy): (&Tmpfs, Policy)) -> Result<Option<Undo>> {
    let source =
        mounted_at(spec, &saved.destination).filter(|mount| is_bind(mount)).and_then(|mount| mount.source().as_ref());
    let source = bundle.join(source.ok_or_else(|| Error::invalid("config.json does not mount it from outside"))?);
    let attempt = || format!("open {}", source.display());
    let root = path::open(&cstring(source.as_os_str(), "mount source")?, OFlag::O_PATH | OFlag::O_DIRECTORY);
    let root = root.context(attempt)?;
    if is_hosts_shm(root.as_fd())? {
        return Ok(None);
    }
    let archive = Path::new(&saved.archive);
    if archive.components().count() != 1 || archive.file_name().is_none() {
        return Err(Error::other(format!("{:?} in the manifest is not the name of a file", saved.archive)));
    }
    replay(&images.join(archive), &saved.sha256, root, policy).map(Some)
}

/// Says whether this is the host's own /dev/shm, as with `--ipc host`.
fn is_hosts_shm(root: BorrowedFd<'_>) -> Result<bool> {
    let theirs = path::fstat(root).context(|| "stat a tmpfs")?;
    Ok(std::fs::metadata(SHM).is_ok_and(|host| (host.dev(), host.ino()) == (theirs.st_dev, theirs.st_ino)))
}
