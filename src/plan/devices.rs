//! Device nodes and symlinks of a container's /dev.

use super::process::cstring;
use crate::error::{Error, Result};
use nix::libc;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use std::ffi::CString;

/// A device node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeviceNode {
    /// Its place, with the root of the container as `/`; the host's node of that path is bound where the container may
    /// not make one.
    pub path: CString,
    /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO`, and the permissions.
    pub mode: u32,
    /// Device number.
    pub device: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Whether the configuration lists it: what is in its place already has to be the same device then.
    pub listed: bool,
}

/// Packs the number of a device into the one integer that a failure has room for, as the kernel does: 12 bits are its
/// major number and 20 its minor number.
pub fn pack(device: u64) -> i32 {
    (libc::major(device) << 20 | libc::minor(device)) as i32
}

impl DeviceNode {
    /// Says in runc's words what is in its place: a file of another type, or a device of another number.
    pub fn contradiction(&self, of_type: bool, found: i32) -> String {
        let (path, found) = (self.path.to_string_lossy(), found as u32);
        let what = if of_type {
            format!("ftype: {found:#x} doesn't match expected {:#x}", self.mode & libc::S_IFMT)
        } else {
            let (major, minor) = (found >> 20, found & 0xf_ffff);
            let wanted = (libc::major(self.device), libc::minor(self.device));
            format!("major:minor: {major}:{minor} doesn't match expected {}:{}", wanted.0, wanted.1)
        };
        format!("make device {path}: {path} has incorrect {what}")
    }
}

/// A symlink.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Link {
    /// Its place, with the root of the container as `/`.
    pub path: CString,
    /// Where it points.
    pub to: CString,
}

/// The nodes that every container has: path, major, minor (runtime-spec, "Default Devices").
const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Plans the device nodes: the default ones, changed and joined by those of the configuration.
pub fn nodes(configured: &[LinuxDevice]) -> Result<Vec<DeviceNode>> {
    let mut nodes = Vec::with_capacity(DEFAULT.len() + configured.len());
    for (path, major, minor) in DEFAULT {
        if configured.iter().any(|device| device.path().as_os_str() == path) {
            continue;
        }
        let device = libc::makedev(major, minor);
        nodes.push(DeviceNode {
            path: cstring(path.as_ref(), "device")?,
            mode: libc::S_IFCHR | 0o666,
            device,
            uid: 0,
            gid: 0,
            listed: false,
        });
    }
    // /dev/ptmx is a link to the container's own terminals, whatever is asked for.
    for device in configured.iter().filter(|device| device.path().as_os_str() != "/dev/ptmx") {
        nodes.push(node(device)?);
    }
    Ok(nodes)
}

fn node(device: &LinuxDevice) -> Result<DeviceNode> {
    let path = device.path();
    let wrong = |what: &str| Error::invalid(format!("device {}: {what}", path.display()));
    if !path.is_absolute() {
        return Err(wrong("path is not absolute"));
    }
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
        LinuxDeviceType::B => libc::S_IFBLK,
        LinuxDeviceType::P => libc::S_IFIFO,
        LinuxDeviceType::A => return Err(wrong("invalid type a")),
    };
    let number = |n: i64| u32::try_from(n).map_err(|_| wrong("device number out of range"));
    let device_number = match kind {
        libc::S_IFIFO => 0,
        _ => libc::makedev(number(device.major())?, number(device.minor())?),
    };
    Ok(DeviceNode {
        path: cstring(path.as_os_str(), "device path")?,
        mode: kind | (device.file_mode().unwrap_or(0o666) & 0o7777),
        device: device_number,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
        listed: true,
    })
}

/// Returns the symlinks of /dev; `kcore` says whether the host's /proc has it.
pub fn links(kcore: bool) -> Vec<Link> {
    let link = |path: &std::ffi::CStr, to: &std::ffi::CStr| Link { path: path.into(), to: to.into() };
    let mut links = vec![
        link(c"/dev/fd", c"/proc/self/fd"),
        link(c"/dev/stdin", c"/proc/self/fd/0"),
        link(c"/dev/stdout", c"/proc/self/fd/1"),
        link(c"/dev/stderr", c"/proc/self/fd/2"),
        link(c"/dev/ptmx", c"pts/ptmx"),
    ];
    if kcore {
        links.push(link(c"/dev/core", c"/proc/kcore"));
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(json: serde_json::Value) -> LinuxDevice {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_configured_node_takes_the_place_of_a_default_one() {
        let null =
            device(serde_json::json!({"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600}));
        let nodes = nodes(&[null]).unwrap();
        assert_eq!(nodes.len(), 6);
        assert_eq!(nodes.iter().find(|n| n.path.as_c_str() == c"/dev/null").unwrap().mode, libc::S_IFCHR | 0o600);
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let node = device(serde_json::json!({"path": "/dev/x", "type": "c", "major": 300, "minor": 70_000}));
        let node = nodes(&[node]).unwrap().pop().unwrap();
        let number = node.contradiction(false, pack(libc::makedev(4095, 1_000_000)));
        let words = "make device /dev/x: /dev/x has incorrect";
        assert_eq!(number, format!("{words} major:minor: 4095:1000000 doesn't match expected 300:70000"));
        let kind = node.contradiction(true, libc::S_IFREG as i32);
        assert_eq!(kind, format!("{words} ftype: 0x8000 doesn't match expected 0x2000"));
    }

    #[test]
    fn a_fifo_has_no_number() {
        let fifo = device(serde_json::json!({"path": "/dev/p", "type": "p", "major": 0, "minor": 0}));
        assert_eq!(nodes(&[fifo]).unwrap().last().unwrap().mode & libc::S_IFMT, libc::S_IFIFO);
    }
}
