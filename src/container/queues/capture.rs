//! Finding the queues of a container while it is dumped, and everything that CRIU has to be told of them.

use super::drain;
use super::{Envoy, file_system, hand_over};
use crate::container::Container;
use crate::container::open_files::OpenFile;
use crate::criu::manifest;
use crate::criu::queues::{ARCHIVE, mounts_of, notified};
use crate::error::{Context, Error, Result};
use crate::plan::namespaces::{Kind, Namespace, of};
use crate::plan::process::cstring;
use crate::sys::mqueue::{self, Attributes};
use crate::sys::{fd, ns, path};
use crate::tmpfs;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::stat::FileStat;
use oci_spec::runtime::Spec;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// How a queue is opened: to read and to write, but never to wait.
const BOTH: OFlag = OFlag::O_RDWR.union(OFlag::O_NONBLOCK);

/// What the kernel adds to a name that is gone.
const DELETED: &str = " (deleted)";

/// The queues of a container that has an IPC namespace of its own.
#[derive(Debug)]
pub struct Queues {
    root: OwnedFd,
    device: u64,
    /// Why there may be none.
    refusal: Option<&'static str>,
    captured: Option<(manifest::Queues, Vec<u8>)>,
}

/// A queue that is there.
struct Found {
    entry: manifest::Queue,
    queue: OwnedFd,
    inode: u64,
    attributes: Attributes,
}

impl Container {
    /// Opens what shows the queues of the container, if it has an IPC namespace of its own, and checks those that are
    /// there: to be done before anything is frozen.
    pub(in crate::container) fn queues(&self, spec: &Spec) -> Result<Option<Queues>> {
        let linux = crate::plan::linux(spec)?;
        if of(linux, Kind::Ipc) != Namespace::Private {
            return Ok(None);
        }
        let attempt = || format!("open the message queues of container {}", self.id());
        let name = cstring(format!("/proc/{}/ns/ipc", self.state().pid).as_ref(), "namespace")?;
        let namespace = path::open(&name, OFlag::O_RDONLY).context(attempt)?;
        let envoy = Envoy::send(|socket| {
            ns::join(namespace.as_fd(), Kind::Ipc.flag())?;
            hand_over(socket, file_system()?.as_fd())
        });
        let envoy = envoy.context(attempt)?;
        let root = envoy.receive().context(attempt)?;
        envoy.end(attempt)?;
        let root = root.ok_or_else(|| Error::other(attempt()))?;
        let device = path::fstat(root.as_fd()).context(attempt)?.st_dev;
        let in_userns = of(linux, Kind::User) != Namespace::Host;
        let refusal = in_userns.then_some("message queues in a user namespace cannot be checkpointed");
        let queues = Queues { root, device, refusal, captured: None };
        let found = queues.find(&[])?;
        queues.check_neighbours(self, &found)?;
        Ok(Some(queues))
    }
}

impl Queues {
    /// Reads everything of the queues, and adds to `external` what CRIU has to leave out. The processes have to be
    /// stopped; none of them notices.
    fn capture(&mut self, container: &Container, open: &[OpenFile], external: &mut Vec<String>) -> Result<()> {
        let mut found = self.find(open)?;
        if found.is_empty() {
            return Ok(());
        }
        self.check_neighbours(container, &found)?;
        let mounts = self.mounts(container.state().pid)?;
        // Those without a name are made first, before theirs could be taken.
        found.sort_by_key(|found| !found.entry.unlinked);
        let pairs: Vec<_> = found.iter().map(|found| (&found.queue, found.attributes)).collect();
        let content = drain::messages(&pairs)?.concat();
        external.extend(mounts.iter().map(|place| format!("mnt[{place}]:{place}")));
        external.extend(found.iter().flat_map(|found| found.entry.keys.iter().cloned()));
        let queues = found.into_iter().map(|found| found.entry).collect();
        let entry = manifest::Queues { archive: ARCHIVE.to_owned(), sha256: String::new(), mounts, queues };
        self.captured = Some((entry, content));
        Ok(())
    }

    /// Writes what was captured into the directory of the images.
    pub fn write(&self, images: &Path) -> Result<Option<manifest::Queues>> {
        let Some((entry, content)) = &self.captured else { return Ok(None) };
        let path = images.join(&entry.archive);
        let attempt = || format!("write {}", path.display());
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path).context(attempt)?;
        file.write_all(content).context(attempt)?;
        Ok(Some(manifest::Queues { sha256: tmpfs::checksum(&path)?, ..entry.clone() }))
    }

    /// Finds all queues: those that have a name, and those that are only open; refuses what cannot be dumped.
    fn find(&self, open: &[OpenFile]) -> Result<Vec<Found>> {
        let mut all = Vec::new();
        for name in self.names()? {
            let at = cstring(name.as_ref(), "message queue")?;
            let queue =
                path::open_at(self.root.as_fd(), &at, BOTH).context(|| format!("open message queue /{name}"))?;
            all.push(self.describe(name, false, queue)?);
        }
        for file in open.iter().filter(|file| file.queue) {
            let name = file.link.to_string_lossy().trim_start_matches('/').to_owned();
            if file.device != self.device {
                return Err(Error::invalid(foreign(file)));
            }
            let known = all.iter().position(|found| found.inode == file.inode);
            let at = match known {
                Some(at) => at,
                None => {
                    let name = name.strip_suffix(DELETED).map(str::to_owned).unwrap_or(name);
                    let place = cstring(file.place().as_os_str(), "message queue")?;
                    let queue = path::open(&place, BOTH).context(|| format!("open message queue /{name}"))?;
                    all.push(self.describe(name, true, queue)?);
                    all.len() - 1
                }
            };
            if let Some(found) = all.get_mut(at).filter(|found| !found.entry.keys.contains(&file.key)) {
                found.entry.keys.push(file.key.clone());
            }
        }
        Ok(all)
    }

    /// Returns the names of queues.
    fn names(&self) -> Result<Vec<String>> {
        let attempt = || "list the message queues";
        let mut names = Vec::new();
        for entry in std::fs::read_dir(format!("/proc/self/fd/{}", self.root.as_raw_fd())).context(attempt)? {
            let name = entry.context(attempt)?.file_name();
            let text = |name| Error::invalid(format!("the name of message queue {name:?} is not valid UTF-8"));
            names.push(name.into_string().map_err(text)?);
        }
        names.sort_unstable();
        Ok(names)
    }

    fn describe(&self, name: String, unlinked: bool, queue: OwnedFd) -> Result<Found> {
        let attempt = || format!("look at message queue /{name}");
        if let Some(refusal) = self.refusal {
            return Err(Error::invalid(format!("{refusal}: /{name}")));
        }
        let status: FileStat = path::fstat(queue.as_fd()).context(attempt)?;
        let attributes = mqueue::attributes(queue.as_fd()).context(attempt)?;
        let mut text = [0; 200];
        let length = fd::read(queue.as_fd(), &mut text).context(attempt)?;
        let text = String::from_utf8_lossy(text.get(..length).unwrap_or_default());
        if let Some(pid) = notified(&text) {
            let words = "waits for a notification (mq_notify), which cannot be checkpointed";
            return Err(Error::invalid(format!("message queue /{name}: process {pid} {words}")));
        }
        let entry = manifest::Queue {
            name,
            unlinked,
            mode: status.st_mode & !libc::S_IFMT,
            user: status.st_uid,
            group: status.st_gid,
            max_messages: attributes.max_messages,
            message_size: attributes.message_size,
            messages: attributes.messages,
            keys: Vec::new(),
        };
        Ok(Found { entry, queue, inode: status.st_ino, attributes })
    }

    /// Refuses messages that somebody outside of the container could take meanwhile, or see coming twice.
    fn check_neighbours(&self, container: &Container, found: &[Found]) -> Result<()> {
        let Some(full) = found.iter().find(|found| found.attributes.messages > 0) else { return Ok(()) };
        let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/ipc")).ok();
        let own = namespace(container.state().pid);
        let members = container.pids()?;
        let entries = std::fs::read_dir("/proc").context(|| "read /proc")?;
        let mut pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        match pids.find(|pid| !members.contains(pid) && own.is_some() && namespace(*pid) == own) {
            None => Ok(()),
            Some(pid) => {
                let words = "shares the IPC namespace, and could use it while its messages are read";
                Err(Error::invalid(format!("message queue /{}: process {pid} {words}", full.entry.name)))
            }
        }
    }

    /// Returns where the queues are mounted in the container.
    fn mounts(&self, init: i32) -> Result<Vec<String>> {
        let file = format!("/proc/{init}/mountinfo");
        let text = std::fs::read_to_string(&file).context(|| format!("read {file}"))?;
        let mounts = mounts_of(&text, (libc::major(self.device), libc::minor(self.device)));
        match mounts.iter().find(|mount| !mount.whole) {
            Some(part) => {
                Err(Error::invalid(format!("message queue mounted on {} cannot be checkpointed", part.place)))
            }
            None => Ok(mounts.into_iter().map(|mount| mount.place).collect()),
        }
    }
}

/// Takes the open queues of a container that has an IPC namespace of its own, and refuses those of any other.
pub fn capture(
    queues: Option<&mut Queues>,
    container: &Container,
    open: &[OpenFile],
    external: &mut Vec<String>,
) -> Result<()> {
    match (queues, open.iter().find(|file| file.queue)) {
        (Some(queues), _) => queues.capture(container, open, external),
        (None, Some(file)) => Err(Error::invalid(foreign(file))),
        (None, None) => Ok(()),
    }
}

fn foreign(file: &OpenFile) -> String {
    let (pid, name) = (file.pid, file.link.display());
    format!("process {pid} has message queue {name} open, which is of an IPC namespace that is not the container's own")
}
