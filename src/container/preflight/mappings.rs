//! What a process has mapped, from the list that the kernel keeps of it (proc_pid_maps(5)).

use super::Scene;
use super::descriptors::{DELETED, SECRET_MEMORY, renamed};
use super::processes::Process;
use crate::criu::obstacles::{Object, Obstacle};
use crate::sys::statx;
use nix::libc;
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsFd;

/// What the kernel calls a mapping of SysV shared memory: this, and its key. The inode is the segment's identifier.
const SHARED_MEMORY: &str = "/SYSV";

/// What the kernel calls the page that it puts into a program for its probes.
const PROBES: &str = "[uprobes]";

/// The mounts of a container.
#[derive(Debug, Default)]
pub struct Mounts {
    ids: BTreeSet<i32>,
    /// Major and minor numbers of the file systems.
    devices: BTreeSet<(u32, u32)>,
}

impl Mounts {
    /// Reads the mounts that processes see.
    pub fn of(pids: impl Iterator<Item = i32>) -> Self {
        let (mut mounts, mut seen) = (Self::default(), BTreeSet::new());
        for pid in pids {
            let namespace = std::fs::read_link(format!("/proc/{pid}/ns/mnt"));
            if namespace.is_ok_and(|namespace| seen.insert(namespace)) {
                mounts.add(&std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default());
            }
        }
        mounts
    }

    /// Adds the lines of a proc_pid_mountinfo(5).
    fn add(&mut self, mountinfo: &str) {
        for line in mountinfo.lines() {
            let mut fields = line.split(' ');
            self.ids.extend(fields.next().and_then(|id| id.parse::<i32>().ok()));
            let device = fields.nth(1).and_then(|device| device.split_once(':'));
            self.devices.extend(device.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?))));
        }
    }

    /// Says whether there is a mount with this id, or may be.
    pub fn have(&self, id: i32) -> bool {
        self.ids.is_empty() || self.ids.contains(&id)
    }
}

/// A line of /proc/PID/maps.
#[derive(Debug, Eq, PartialEq)]
struct Mapping<'a> {
    range: &'a str,
    device: (u32, u32),
    inode: u64,
    path: &'a str,
}

/// Reads a line.
fn parse(line: &str) -> Option<Mapping<'_>> {
    let mut fields = line.splitn(6, ' ');
    let range = fields.next()?;
    let (major, minor) = fields.nth(2)?.split_once(':')?;
    let device = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    let inode = fields.next()?.parse().ok()?;
    Some(Mapping { range, device, inode, path: fields.next().unwrap_or_default().trim_start() })
}

/// Returns what of a process's memory is not dumped, each object once.
pub fn obstacles(scene: &Scene<'_>, process: &Process) -> Vec<Obstacle> {
    let maps = std::fs::read(format!("/proc/{}/maps", process.pid)).unwrap_or_default();
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    for mapping in String::from_utf8_lossy(&maps).lines().filter_map(parse) {
        // Most are anonymous, or files that have kept their names.
        let is_special = mapping.path.ends_with(DELETED) || !mapping.path.starts_with('/') && !mapping.path.is_empty();
        if is_special && seen.insert((mapping.device, mapping.inode, mapping.path.to_owned())) {
            found.extend(object(scene, process, &mapping).map(Obstacle::Mapping));
        }
    }
    found
}

fn object(scene: &Scene<'_>, process: &Process, mapping: &Mapping<'_>) -> Option<Object> {
    let Mapping { path, device, inode, .. } = *mapping;
    // A file that is called so is on a mount, and these are not.
    let is_kernels = || !scene.mounts().devices.contains(&device);
    if let Some(kind) = path.strip_prefix("anon_inode:") {
        return Some(Object::Anonymous(kind.to_owned()));
    }
    if path == PROBES {
        return (!scene.given.has("allow-uprobes")).then_some(Object::Probe);
    }
    if path == SECRET_MEMORY && is_kernels() {
        return Some(Object::SecretMemory);
    }
    if path.starts_with(SHARED_MEMORY) && is_kernels() {
        return (!scene.has_own("ipc")).then_some(Object::SharedMemory(inode));
    }
    let directory = File::open(format!("/proc/{}/map_files", process.pid)).ok()?;
    let found = statx::attributes(directory.as_fd(), &CString::new(mapping.range).ok()?).ok()?;
    if found.kind() == libc::S_IFREG { renamed(scene, path, found.links) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_have_device_inode_and_path() {
        let line = "7f00-7f10 rw-s 00000000 00:2b 65538                      /SYSV00000000 (deleted)";
        let expected = Mapping { range: "7f00-7f10", device: (0, 43), inode: 65538, path: "/SYSV00000000 (deleted)" };
        assert_eq!(parse(line), Some(expected));
        let line = "7f00-7f10 rw-p 00000000 00:00 0 ";
        assert_eq!(parse(line), Some(Mapping { range: "7f00-7f10", device: (0, 0), inode: 0, path: "" }));
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    fn mounts_are_known_by_id_and_device() {
        let mut mounts = Mounts::default();
        mounts.add("36 35 98:16 / / rw,noatime - ext3 /dev/root rw\n40 36 0:43 / /dev/shm rw - tmpfs shm rw\n");
        assert!(mounts.have(36) && mounts.have(40) && !mounts.have(35));
        assert_eq!(mounts.devices, BTreeSet::from([(98, 16), (0, 43)]));
    }
}
