//! A new IPC namespace with the queues of an image in it, for CRIU to restore a container into.

use super::{Envoy, file_system, hand_over};
use crate::container::attached::Attached;
use crate::container::external;
use crate::container::host_streams::Inherited;
use crate::container::state::StateDir;
use crate::criu::external::ExternalMount;
use crate::criu::manifest::{Manifest, Queue, Queues};
use crate::criu::options::RestoreTarget;
use crate::criu::queues::split_message;
use crate::error::{Context, Error, Result};
use crate::plan::namespaces::{Kind, Namespace, of};
use crate::plan::process::cstring;
use crate::sys::mqueue::{self, Attributes};
use crate::sys::{self, Errno, fd, ns, path, process};
use crate::tmpfs;
use nix::fcntl::OFlag;
use nix::libc;
use oci_spec::runtime::Spec;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The limits of a namespace, and what they are in a new one (mq_overview(7)).
const LONGEST: (&CStr, u64) = (c"/proc/sys/fs/mqueue/msg_max", 10);
const LARGEST: (&CStr, u64) = (c"/proc/sys/fs/mqueue/msgsize_max", 8192);
const MOST: (&CStr, u64) = (c"/proc/sys/fs/mqueue/queues_max", 256);

/// The queues of an image.
#[derive(Debug)]
pub struct Saved {
    queues: Queues,
    content: Vec<u8>,
}

/// A namespace that has them, for as long as CRIU takes to join it.
#[derive(Debug)]
pub struct Recreated {
    namespace: OwnedFd,
    inherited: Vec<Inherited>,
    mount: Option<Attached>,
    mounts: Vec<String>,
}

/// What the child does for one queue.
struct Making {
    name: CString,
    mode: u32,
    owner: (u32, u32),
    attributes: Attributes,
    unlinked: bool,
}

/// Reads the queues of an image, if there are any, and checks that a container of this configuration can have them.
pub fn load(images: &Path, spec: &Spec) -> Result<Option<Saved>> {
    let Some(queues) = Manifest::load(images)?.and_then(|manifest| manifest.queues) else { return Ok(None) };
    let linux = crate::plan::linux(spec)?;
    let own = |kind, wanted| of(linux, kind) == wanted;
    if !own(Kind::Ipc, Namespace::Private) || !own(Kind::User, Namespace::Host) {
        let text =
            "the image has message queues, which need an IPC namespace of the container's own and no user namespace";
        return Err(Error::invalid(text));
    }
    let archive = images.join(Path::new(&queues.archive).file_name().unwrap_or_default());
    let found = tmpfs::checksum(&archive)?;
    if found != queues.sha256 {
        let text = format!("{} is damaged: its SHA-256 is {found}, not {}", archive.display(), queues.sha256);
        return Err(Error::other(text));
    }
    let content = std::fs::read(&archive).context(|| format!("read {}", archive.display()))?;
    Ok(Some(Saved { queues, content }))
}

impl Saved {
    /// Makes a namespace with the queues in it; `dir` is where the container is to be.
    pub fn recreate(&self, dir: &StateDir) -> Result<Recreated> {
        let making = self.queues.queues.iter().map(Making::of).collect::<Result<Vec<_>>>()?;
        let limits = limits(&self.queues.queues)?;
        let attempt = || "make an IPC namespace with message queues";
        let envoy = Envoy::send(|socket| make(socket, &limits, &making)).context(attempt)?;
        let mut received = Vec::new();
        while let Some(descriptor) = envoy.receive().context(attempt)? {
            received.push(descriptor);
        }
        // All queues come before the rest: their number tells which one could not be made.
        let name = self.queues.queues.get(received.len()).map(|queue| format!("make message queue /{}", queue.name));
        envoy.end(|| name.as_deref().unwrap_or(attempt())).map_err(explain)?;
        let (Some(root), Some(namespace)) = (received.pop(), received.pop()) else {
            return Err(Error::other(attempt()));
        };
        self.fill(&received)?;
        let mut inherited = Vec::new();
        for (entry, queue) in self.queues.queues.iter().zip(&received) {
            // CRIU closes a descriptor once it has it under one key.
            for key in &entry.keys {
                let copy = queue.try_clone().context(|| format!("duplicate message queue /{}", entry.name))?;
                inherited.push((copy, key.clone()));
            }
        }
        let mounted = (!self.queues.mounts.is_empty())
            .then(|| Attached::at(dir.queues(), root.as_fd(), "message queues"))
            .transpose()?;
        Ok(Recreated { namespace, inherited, mount: mounted, mounts: self.queues.mounts.clone() })
    }

    /// Puts the messages into the queues.
    fn fill(&self, queues: &[OwnedFd]) -> Result<()> {
        let mut rest = self.content.as_slice();
        for (entry, queue) in self.queues.queues.iter().zip(queues) {
            for _ in 0..entry.messages {
                let attempt = || format!("fill message queue /{}", entry.name);
                let split = split_message(rest);
                let (priority, message, behind) =
                    split.ok_or_else(|| Error::other(format!("{}: too short", attempt())))?;
                mqueue::send(queue.as_fd(), message, priority).context(attempt)?;
                rest = behind;
            }
        }
        Ok(())
    }
}

impl Recreated {
    /// Returns what CRIU has to have open under the same number.
    pub fn passed(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.inherited.iter().map(|(queue, _)| queue.as_fd())
    }

    /// Adds the namespace, the queues that are open, and the mount to what CRIU is told.
    pub fn tell(&self, target: &mut RestoreTarget) -> Result<()> {
        let path = format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd());
        target.joined.push((Kind::Ipc.proc_name().to_owned(), path));
        target.inherited.extend(self.inherited.iter().map(|(queue, key)| (queue.as_raw_fd(), key.clone())));
        if let Some(mounted) = &self.mount {
            let value = external::path_text(mounted.path().to_owned())?;
            target
                .mounts
                .extend(self.mounts.iter().map(|key| ExternalMount { key: key.clone(), value: value.clone() }));
        }
        Ok(())
    }
}

impl Making {
    fn of(queue: &Queue) -> Result<Self> {
        Ok(Self {
            name: cstring(queue.name.as_ref(), "message queue")?,
            mode: queue.mode,
            owner: (queue.user, queue.group),
            attributes: Attributes { max_messages: queue.max_messages, message_size: queue.message_size, messages: 0 },
            unlinked: queue.unlinked,
        })
    }
}

/// Returns the limits that the queues do not fit into, with what they have to be. CRIU sets them to what they were, which
/// can be less: a limit does not concern the queues that are there.
fn limits(queues: &[Queue]) -> Result<Vec<(&'static CStr, CString)>> {
    let largest = |number: fn(&Queue) -> u64| queues.iter().map(number).max().unwrap_or(0);
    let needed = [
        (LONGEST, largest(|queue| queue.max_messages)),
        (LARGEST, largest(|queue| queue.message_size)),
        (MOST, queues.len() as u64),
    ];
    let beyond = needed.into_iter().filter(|((_, usual), needed)| needed > usual);
    beyond.map(|((file, _), needed)| Ok((file, cstring(needed.to_string().as_ref(), "limit")?))).collect()
}

/// The child: makes the namespace and all that is in it, and hands over the queues, the namespace, and its file system.
fn make(socket: BorrowedFd<'_>, limits: &[(&CStr, CString)], queues: &[Making]) -> sys::Result<()> {
    ns::unshare(Kind::Ipc.flag())?;
    process::set_umask(0);
    for (file, value) in limits {
        fd::write_all(path::open(file, OFlag::O_WRONLY)?.as_fd(), value.to_bytes())?;
    }
    // The limit of what root may use in all namespaces together; who may not raise it gets on with it.
    _ = process::set_rlimit(libc::RLIMIT_MSGQUEUE, libc::RLIM_INFINITY, libc::RLIM_INFINITY);
    for queue in queues {
        let made = mqueue::create(&queue.name, queue.mode, queue.attributes)?;
        path::own_by(made.as_fd(), queue.owner)?;
        if queue.unlinked {
            mqueue::unlink(&queue.name)?;
        }
        hand_over(socket, made.as_fd())?;
    }
    hand_over(socket, path::open(c"/proc/self/ns/ipc", OFlag::O_RDONLY)?.as_fd())?;
    hand_over(socket, file_system()?.as_fd())
}

/// Says which limit it is that the kernel names in its own way.
fn explain(failure: Error) -> Error {
    match failure.kind() {
        crate::ErrorKind::System(Errno::EMFILE) => failure.context("RLIMIT_MSGQUEUE of the runtime is too low"),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_raised_to_what_the_queues_need() {
        let queue = |max_messages, message_size| Queue { max_messages, message_size, ..Queue::default() };
        assert_eq!(limits(&[queue(10, 8192)]).unwrap(), []);
        let found = limits(&[queue(11, 1), queue(1, 9000)]).unwrap();
        assert_eq!(found, [(LONGEST.0, c"11".to_owned()), (LARGEST.0, c"9000".to_owned())]);
        assert_eq!(limits(&vec![queue(1, 1); 300]).unwrap(), [(MOST.0, c"300".to_owned())]);
    }
}
