//! Mounts: what is mounted where, what a restore has to be given, and the archives of tmpfs.

use super::directory::Directory;
use crate::criu::image::Message;
use crate::criu::mount_images::{destination, key};
use crate::error::Result;
use serde::Serialize;
use std::collections::BTreeSet;

/// The types of file systems by CRIU's numbers; for all others the name itself is in the image.
const TYPES: [(u64, &str); 19] = [
    (1, "proc"),
    (2, "sysfs"),
    (3, "devtmpfs"),
    (4, "binfmt_misc"),
    (TMPFS, "tmpfs"),
    (6, "devpts"),
    (7, "simfs"),
    (8, "pstore"),
    (9, "securityfs"),
    (10, "fusectl"),
    (11, "debugfs"),
    (12, "cgroup"),
    (13, "aufs"),
    (14, "mqueue"),
    (15, "fuse"),
    (17, "overlay"),
    (18, "autofs"),
    (19, "tracefs"),
    (23, "cgroup2"),
];
const TMPFS: u64 = 5;

/// A mount.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Where it is in the container.
    pub destination: String,
    /// The type of its file system.
    #[serde(rename = "type")]
    pub kind: String,
    /// What is mounted.
    pub source: String,
    /// The directory of the file system that is mounted, unless it is all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// The name by which a restore is given what is mounted here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<String>,
    /// The length of the archive with its content, of a tmpfs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive_bytes: Option<u64>,
}

/// Reads the mounts of a mount namespace.
pub fn read(images: &mut Directory, namespace: u64) -> Result<Vec<Mount>> {
    let entries = images.needed(&format!("mountpoints-{namespace}.img"))?;
    let device = |entry: &Message| entry.number(3).unwrap_or(0);
    let is_whole = |entry: &&Message| entry.text(6).is_some_and(|root| root == "/");
    // What is also mounted from outside is the host's, wherever else it is. A file may be the container's own all the
    // same: runc masks with /dev/null of the container.
    let outside = entries.iter().filter(is_whole).filter(|entry| key(entry).is_some()).map(device);
    let outside: BTreeSet<u64> = outside.collect();
    let mut saved = BTreeSet::new();
    let mut mounts: Vec<Mount> = Vec::new();
    for entry in &entries {
        let (kind, device) = (entry.number(1).unwrap_or(0), device(entry));
        let root = entry.text(6).unwrap_or_default();
        let is_own = kind == TMPFS && root == "/" && !outside.contains(&device);
        let archive = format!("tmpfs-dev-{device}.tar.gz.img");
        if is_own && saved.insert(device) {
            images.need(archive.clone());
        }
        mounts.push(Mount {
            destination: destination(entry),
            kind: type_name(kind, entry),
            source: entry.text(8).unwrap_or_default(),
            root: Some(root).filter(|root| root != "/"),
            external: key(entry),
            archive_bytes: if is_own { images.size(&archive) } else { None },
        });
    }
    mounts.sort_by(|a, b| a.destination.cmp(&b.destination));
    Ok(mounts)
}

fn type_name(kind: u64, entry: &Message) -> String {
    let known = TYPES.iter().find(|(number, _)| *number == kind).map(|(_, name)| (*name).to_owned());
    known.or_else(|| entry.text(14)).unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::criu::inspect::tests::{TestImages, message};

    fn mount(kind: u64, device: u64, root: &str, at: &str) -> Message {
        let mut entry = message(&[(1, kind), (3, device)]);
        entry.set_text(6, root);
        entry.set_text(7, at);
        entry
    }

    #[test]
    fn own_tmpfs_have_an_archive_and_bound_ones_a_name() {
        let images = TestImages::new();
        let mut bound = mount(TMPFS, 9, "/", "./dev/shm");
        bound.set_text(18, "/dev/shm");
        let mut root = mount(0, 1, "/rootfs", "/");
        root.set_text(14, "ext4");
        // A part of the one from outside, once more.
        let again = mount(TMPFS, 9, "/", "/again");
        let mut masked = mount(TMPFS, 7, "/null", "/proc/keys");
        masked.set_text(18, "/dev/null");
        let entries = [mount(TMPFS, 7, "/", "/dev"), mount(TMPFS, 8, "/", "/tmp"), bound, root, again, masked];
        images.write("mountpoints-13.img", &entries);
        images.raw("tmpfs-dev-7.tar.gz.img", &[0; 20]);
        let mut dir = Directory::open(images.path()).unwrap();
        let found = read(&mut dir, 13).unwrap();
        let told: Vec<_> =
            found.iter().map(|m| (m.destination.as_str(), m.kind.as_str(), m.external.is_some())).collect();
        let expected = [
            ("/", "ext4", false),
            ("/again", "tmpfs", false),
            ("/dev", "tmpfs", false),
            ("/dev/shm", "tmpfs", true),
            ("/proc/keys", "tmpfs", true),
            ("/tmp", "tmpfs", false),
        ];
        assert_eq!(told, expected);
        assert_eq!((found[0].root.as_deref(), found[2].archive_bytes), (Some("/rootfs"), Some(20)));
        assert_eq!(dir.flaws().0, ["tmpfs-dev-8.tar.gz.img"]);
    }
}
