//! Namespaces: which are the container's own, and what is in its IPC namespace.

use super::directory::Directory;
use super::memory::shared_map;
use super::processes::Ids;
use crate::error::Result;
use serde::Serialize;
use std::collections::BTreeSet;

/// The kinds, in the order of [`Ids::namespaces`], and the image of each that there has to be when it is the container's
/// own. A network namespace has none when it is restored empty.
const KINDS: [(&str, Option<&str>); 8] = [
    ("pid", None),
    ("net", None),
    ("ipc", Some("ipcns-var")),
    ("uts", Some("utsns")),
    ("mnt", Some("mountpoints")),
    ("user", Some("userns")),
    ("cgroup", None),
    ("time", None),
];

/// The place of the IPC namespace and of the mount namespace among them.
pub const IPC: usize = 2;
pub const MOUNTS: usize = 4;

/// A namespace of the container's init.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Namespace {
    /// The name of its file in /proc/PID/ns.
    pub kind: &'static str,
    /// `own`, `external` (not in the image: a restore has to be given one), `joined` (in the image, and another
    /// container's) or `host`.
    pub scope: &'static str,
    /// The name of what a restore has to be given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<String>,
    /// How many more of the kind other processes have.
    pub nested: u64,
}

/// System V objects in an IPC namespace of the container's.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SystemV {
    /// Segments of shared memory.
    pub segments: u64,
    /// Their size.
    pub segment_bytes: u64,
    /// Sets of semaphores.
    pub semaphores: u64,
    /// Message queues.
    pub queues: u64,
}

/// Reads which namespaces the container's init has; `host` are those of whoever made the image.
pub fn read(
    images: &mut Directory,
    init: &Ids,
    all: &[Ids],
    host: &Ids,
    ipc_mode: Option<&str>,
) -> Result<Vec<Namespace>> {
    let mut found = Vec::new();
    for (at, (kind, image)) in KINDS.into_iter().enumerate() {
        let id = init.namespaces[at];
        let own = id != 0 && id != host.namespaces[at];
        if let Some(image) = image.filter(|_| own) {
            images.need(format!("{image}-{id}.img"));
        }
        let external = match kind {
            "net" if own => key(images, &format!("netns-{id}.img"), 8)?,
            "pid" if own => key(images, &format!("pidns-{id}.img"), 1)?,
            _ => None,
        };
        let scope = match (own, kind, ipc_mode) {
            (false, ..) => "host",
            _ if external.is_some() => "external",
            (_, "ipc", Some("container")) => "joined",
            _ => "own",
        };
        let others: BTreeSet<u64> = all.iter().map(|ids| ids.namespaces[at]).filter(|other| *other != 0).collect();
        let nested = others.iter().filter(|other| **other != id).count() as u64;
        found.push(Namespace { kind, scope, external, nested });
    }
    Ok(found)
}

fn key(images: &Directory, name: &str, field: u32) -> Result<Option<String>> {
    let entry = images.messages(name)?.into_iter().next();
    Ok(entry.and_then(|entry| entry.text(field)).filter(|key| !key.is_empty()))
}

/// Counts the System V objects of an IPC namespace.
pub fn system_v(images: &mut Directory, namespace: u64) -> Result<SystemV> {
    let mut found = SystemV::default();
    if let Some(mut reader) = images.reader(&format!("ipcns-shm-{namespace}.img"))? {
        while let Some(segment) = reader.message()? {
            let size = segment.number(2).unwrap_or(0);
            found.segments += 1;
            found.segment_bytes = found.segment_bytes.saturating_add(size);
            // Older images have the content here, and not among the pages.
            if segment.flag(3) {
                let id = segment.message(1).and_then(|description| description.number(7));
                images.need(shared_map(id.unwrap_or(0)));
            } else {
                reader.raw(rounded(size, 4))?;
            }
        }
    }
    if let Some(mut reader) = images.reader(&format!("ipcns-sem-{namespace}.img"))? {
        while let Some(set) = reader.message()? {
            found.semaphores += 1;
            reader.raw(rounded(set.number(2).unwrap_or(0).saturating_mul(2), 8))?;
        }
    }
    if let Some(mut reader) = images.reader(&format!("ipcns-msg-{namespace}.img"))? {
        while let Some(queue) = reader.message()? {
            found.queues += 1;
            for _ in 0..queue.number(3).unwrap_or(0) {
                let Some(letter) = reader.message()? else { break };
                reader.raw(rounded(letter.number(2).unwrap_or(0), 8))?;
            }
        }
    }
    Ok(found)
}

fn rounded(size: u64, to: u64) -> usize {
    usize::try_from(size.checked_next_multiple_of(to).unwrap_or(u64::MAX)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::criu::inspect::tests::{TestImages, message, within};

    #[test]
    fn scopes_follow_from_numbers_and_names() {
        let images = TestImages::new();
        let mut net = message(&[]);
        net.set_text(8, "extRootNetNS");
        images.write("netns-10.img", &[net]);
        let init = Ids { files: 1, namespaces: [9, 10, 11, 12, 13, 6, 0, 8] };
        let other = Ids { files: 1, namespaces: [9, 10, 11, 12, 20, 6, 0, 8] };
        let host = Ids { files: 1, namespaces: [1, 2, 3, 4, 5, 6, 7, 8] };
        let mut dir = Directory::open(images.path()).unwrap();
        let all = [init.clone(), other, Ids::default()];
        let found = read(&mut dir, &init, &all, &host, Some("container")).unwrap();
        let scopes: Vec<_> = found.iter().map(|one| (one.kind, one.scope)).collect();
        let expected = [
            ("pid", "own"),
            ("net", "external"),
            ("ipc", "joined"),
            ("uts", "own"),
            ("mnt", "own"),
            ("user", "host"),
            ("cgroup", "host"),
            ("time", "host"),
        ];
        assert_eq!(scopes, expected);
        assert_eq!((found[1].external.as_deref(), found[MOUNTS].nested), (Some("extRootNetNS"), 1));
        assert_eq!(dir.flaws().0, ["ipcns-var-11.img", "mountpoints-13.img", "utsns-12.img"]);
    }

    #[test]
    fn objects_are_counted_with_what_lies_between_them() {
        let images = TestImages::new();
        let segments = [within(message(&[(2, 4096), (3, 1)]), 1, &message(&[(7, 7)])), message(&[(2, 6), (3, 0)])];
        images.with_raw("ipcns-shm-11.img", &[(&segments[0], &[]), (&segments[1], &[1; 8])]);
        let set = message(&[(2, 3)]);
        images.with_raw("ipcns-sem-11.img", &[(&set, &[0; 8]), (&set, &[0; 8])]);
        let (queue, letter) = (message(&[(3, 1)]), message(&[(1, 1), (2, 3)]));
        images.with_raw("ipcns-msg-11.img", &[(&queue, &[]), (&letter, &[0; 8]), (&message(&[(3, 0)]), &[])]);
        let mut dir = Directory::open(images.path()).unwrap();
        let expected = SystemV { segments: 2, segment_bytes: 4102, semaphores: 2, queues: 2 };
        assert_eq!(system_v(&mut dir, 11).unwrap(), expected);
        images.with_raw("ipcns-sem-11.img", &[(&message(&[(2, u64::MAX)]), &[])]);
        assert_eq!(dir.flaws().0, ["pagemap-shmem-7.img"]);
        let mut dir = Directory::open(images.path()).unwrap();
        assert!(system_v(&mut dir, 11).unwrap_err().to_string().contains("the end of the file"));
    }
}
