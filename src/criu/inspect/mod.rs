//! What an image holds, read from its files alone: for people, and for a decision whether it can be restored here.
//!
//! An image may be another runtime's, of another machine, cut short or made up: a file that is none is an error of one
//! line, one that others refer to and is not there is told, and no number is believed that a file's length contradicts.
//! The files are CRIU's, with the numbers of its images/*.proto; beside them lie our manifest and `descriptors.json`.

mod directory;
mod files;
mod here;
mod memory;
mod mounts;
mod namespaces;
mod needs;
mod processes;
mod sockets;
#[cfg(test)]
mod tests;

pub use directory::{Directory, PARENT, parent_of};
pub use files::{File, OpenFile};
pub use here::{Host, obstacles};
pub use memory::{Memory, Shared};
pub use mounts::Mount;
pub use namespaces::{Namespace, SystemV};
pub use needs::Needs;
pub use processes::Process;
pub use sockets::Sockets;

use super::image::Message;
use super::images;
use super::manifest::{Manifest, Queues, Stream, Tmpfs};
use super::options::DUMP_LOG;
use super::stats::DumpStats;
use crate::error::{Error, ErrorKind, Result};
use files::Files;
use memory::PageMaps;
use processes::Ids;
use serde::Serialize;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// The version of what [`Image`] looks like as JSON: another number for what would break a reader.
const FORMAT: u32 = 1;

/// What every image has.
const INVENTORY: &str = "inventory.img";

/// How much of CRIU's log is read to find its version.
const LOG_HEAD: u64 = 16 << 10;

/// What an image holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// The version of this format.
    pub format: u32,
    /// The directory.
    pub directory: PathBuf,
    /// Whether it is a `dump`, or a `pre-dump` that has memory only and cannot be restored by itself.
    pub kind: &'static str,
    /// When it was made, in RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The version of stasis that made it, unless another runtime did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stasis: Option<String>,
    /// The name of the container that was dumped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The version of CRIU that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub criu: Option<String>,
    /// The kernel that it was made on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// The version of CRIU's format.
    pub image_version: u64,
    /// The architecture of the processes.
    pub architecture: &'static str,
    /// Images of earlier pre-dumps that this one needs, the latest first.
    pub parents: Vec<PathBuf>,
    /// The processes.
    pub processes: Vec<Process>,
    /// The size of a page, in bytes.
    pub page_size: u64,
    /// All memory of the processes.
    pub memory: Memory,
    /// Memory that is not one process's alone.
    pub shared_memory: Shared,
    /// The mounts.
    pub mounts: Vec<Mount>,
    /// Sockets.
    pub sockets: Sockets,
    /// Open files that have lost their name, and what became of them.
    pub nameless: Nameless,
    /// Locks on files.
    pub file_locks: u64,
    /// Terminals.
    pub terminals: u64,
    /// Namespaces of the container's init.
    pub namespaces: Vec<Namespace>,
    /// The IPC mode, which only our own images tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipc_mode: Option<String>,
    /// System V objects.
    pub system_v: SystemV,
    /// POSIX message queues, which only our own images have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_queues: Option<Queues>,
    /// Cgroups of the container's init.
    pub cgroups: Vec<Cgroup>,
    /// What the kernel's security modules and filters have to do with it.
    pub security: Security,
    /// Where the standard streams of the container's init led.
    pub standard_streams: Vec<String>,
    /// Files of the host that are open, first of all as standard streams, which our own images tell.
    pub host_files: Vec<Stream>,
    /// Tmpfs that were mounted from outside, with their content, which only our own images have.
    pub tmpfs: Vec<Tmpfs>,
    /// What CRIU has measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statistics: Option<DumpStats>,
    /// What a restore needs to be given.
    pub needs: Needs,
    /// Files that others refer to and are not there.
    pub missing: Vec<String>,
    /// Files that are not what others say.
    pub damaged: Vec<String>,
}

/// Open files that have lost their name.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Nameless {
    /// Those with their content in the image.
    pub ghosts: u64,
    /// Those that CRIU has given a name on their own file system, which the restore takes away again.
    pub link_remaps: u64,
}

/// A cgroup, in one hierarchy.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Cgroup {
    /// The controllers of the hierarchy; empty for that of v2.
    pub controllers: String,
    /// Its path.
    pub path: String,
}

/// Security modules and filters.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Security {
    /// `apparmor` or `selinux`, if processes have profiles of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<&'static str>,
    /// The profiles.
    pub profiles: Vec<String>,
    /// How many seccomp filters there are.
    pub seccomp_filters: u64,
}

/// Reads an image; `page_size` is that of the machine it was made on.
pub fn inspect(path: &Path, page_size: u64) -> Result<Image> {
    let mut dir = Directory::open(path)?;
    let Some(inventory) = dir.messages(INVENTORY)?.into_iter().next() else {
        return Err(Error::new(ErrorKind::NotFound, format!("{} holds no checkpoint: no {INVENTORY}", path.display())));
    };
    let manifest = if dir.has(super::manifest::NAME)? { Manifest::load(path)? } else { None };
    let mut image = Image {
        format: FORMAT,
        directory: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
        created: created(path),
        image_version: inventory.number(1).unwrap_or(0),
        page_size,
        ..Image::default()
    };
    image.parents = dir.parents();
    image.take_log(&dir);
    image.take_manifest(manifest);
    image.statistics = if dir.has(super::stats::DUMP)? { DumpStats::load(path)? } else { None };
    let mut maps = PageMaps::new(page_size);
    if dir.size("pstree.img").is_none() && inventory.number(9).is_some() {
        image.kind = "pre-dump";
        image.take_pre_dump(&mut dir, &mut maps)?;
    } else {
        image.kind = "dump";
        image.take_dump(&mut dir, &mut maps, &inventory)?;
    }
    maps.check(&mut dir, &image.parents)?;
    image.check_archives(&mut dir)?;
    (image.missing, image.damaged) = dir.flaws();
    Ok(image)
}

impl Image {
    fn take_manifest(&mut self, manifest: Option<Manifest>) {
        let Some(manifest) = manifest else { return };
        self.stasis = Some(manifest.stasis);
        self.container = Some(manifest.id);
        self.criu = Some(manifest.criu);
        self.ipc_mode = Some(manifest.ipc);
        self.tmpfs = manifest.tmpfs;
        self.host_files = manifest.streams;
        self.message_queues = manifest.queues;
    }

    /// Takes the version of CRIU and of the kernel from the beginning of the log, if it is with the images.
    fn take_log(&mut self, dir: &Directory) {
        if dir.size(DUMP_LOG).is_none() {
            return;
        }
        let mut head = Vec::new();
        let file = std::fs::File::open(dir.path().join(DUMP_LOG));
        if file.and_then(|file| file.take(LOG_HEAD).read_to_end(&mut head)).is_err() {
            return;
        }
        let head = String::from_utf8_lossy(&head);
        let after = |words: &str| head.lines().find_map(|line| line.split_once(words).map(|(_, rest)| rest));
        self.criu = after(") Version: ").and_then(|rest| rest.split(' ').next()).map(str::to_owned);
        self.kernel = after(") Running on ").and_then(|rest| rest.split(' ').nth(2)).map(str::to_owned);
    }

    fn take_pre_dump(&mut self, dir: &mut Directory, maps: &mut PageMaps) -> Result<()> {
        let entries = std::fs::read_dir(dir.path()).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let number = |name: String| name.strip_prefix("pagemap-")?.strip_suffix(".img")?.parse::<u64>().ok();
        let mut pids: Vec<u64> = names.filter_map(number).collect();
        pids.sort_unstable();
        for pid in pids {
            self.memory.add(&maps.of_process(dir, pid)?);
        }
        self.architecture = "unknown";
        self.shared_memory = maps.of_shared(dir)?;
        Ok(())
    }

    fn take_dump(&mut self, dir: &mut Directory, maps: &mut PageMaps, inventory: &Message) -> Result<()> {
        let tcp_closed = inventory.flag(10);
        let files = Files::read(dir, tcp_closed)?;
        let (processes, init, ids) = processes::read(dir, &files, maps)?;
        self.processes = processes;
        self.architecture = init.architecture;
        for process in &self.processes {
            self.memory.add(&process.memory);
        }
        self.shared_memory = maps.of_shared(dir)?;
        self.nameless = Nameless { ghosts: files.ghosts, link_remaps: files.link_remaps };
        self.terminals = files.terminals;
        self.file_locks = dir.messages("filelocks.img")?.len() as u64;

        let host = Ids::of(&inventory.message(3).unwrap_or_default());
        self.namespaces = namespaces::read(dir, &init.ids, &ids, &host, self.ipc_mode.as_deref())?;
        if self.namespaces[namespaces::IPC].scope != "host" {
            self.system_v = namespaces::system_v(dir, init.ids.namespaces[namespaces::IPC])?;
        }
        if self.namespaces[namespaces::MOUNTS].scope != "host" {
            self.mounts = mounts::read(dir, init.ids.namespaces[namespaces::MOUNTS])?;
        }
        self.cgroups = cgroups(dir, init.cgroups)?;
        self.security = self.security(dir, inventory)?;
        self.standard_streams =
            if dir.has(images::DESCRIPTORS)? { images::read_descriptors(dir.path())? } else { Vec::new() };
        self.needs = Needs::of(self, &files, tcp_closed);
        self.sockets = files.sockets;
        Ok(())
    }

    fn security(&self, dir: &mut Directory, inventory: &Message) -> Result<Security> {
        let mut profiles: Vec<String> =
            self.processes.iter().filter_map(|process| process.security_profile.clone()).collect();
        profiles.sort_unstable();
        profiles.dedup();
        let module = match inventory.number(6) {
            Some(1) => Some("selinux"),
            Some(2) => Some("apparmor"),
            _ => None,
        };
        let mut seccomp_filters = 0;
        if self.processes.iter().any(|process| process.seccomp) {
            seccomp_filters = dir.needed_one("seccomp.img")?.messages(1).len() as u64;
        }
        Ok(Security { module: module.filter(|_| !profiles.is_empty()), profiles, seccomp_filters })
    }

    /// Compares the archives with what the manifest says of them.
    fn check_archives(&self, dir: &mut Directory) -> Result<()> {
        let tmpfs = self.tmpfs.iter().map(|tmpfs| (&tmpfs.archive, &tmpfs.sha256));
        for (archive, sha256) in tmpfs.chain(self.message_queues.iter().map(|all| (&all.archive, &all.sha256))) {
            let name = Path::new(archive);
            if name.components().count() != 1 || name.file_name().is_none() {
                dir.damaged(format!("{archive:?} in the manifest is not the name of a file"));
            } else if dir.size(archive).is_none() {
                dir.need(archive.clone());
            } else if crate::tmpfs::checksum(&dir.path().join(name))? != *sha256 {
                dir.damaged(format!("{archive} is not what was written: its SHA-256 is another one"));
            }
        }
        Ok(())
    }
}

fn cgroups(dir: &Directory, set: u64) -> Result<Vec<Cgroup>> {
    let all = dir.messages("cgroup.img")?.into_iter().next().unwrap_or_default();
    let sets = all.messages(1);
    let found = sets.iter().find(|entry| entry.number(1) == Some(set)).map(|entry| entry.messages(2));
    let cgroup = |entry: Message| Cgroup {
        controllers: entry.text(1).unwrap_or_default(),
        path: entry.text(2).unwrap_or_default(),
    };
    Ok(found.into_iter().flatten().map(cgroup).collect())
}

fn created(path: &Path) -> Option<String> {
    let modified = path.join(INVENTORY).metadata().and_then(|found| found.modified()).ok()?;
    Some(crate::time::rfc3339(modified.duration_since(UNIX_EPOCH).ok()?))
}
