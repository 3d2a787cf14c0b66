//! The IPC mode of a container, in Docker's words: who shares its IPC namespace and its /dev/shm.
//!
//! config.json does not name the mode; it follows from the namespace and from what is mounted on /dev/shm. It decides
//! what a checkpoint has to do beyond CRIU's own part.

use super::mounts;
use super::namespaces::{Kind, Namespace, of};
use oci_spec::runtime::{Linux, Mount, Spec};
use std::fmt;
use std::path::PathBuf;

/// Where POSIX shared memory is.
pub const SHM: &str = "/dev/shm";

/// Who shares a container's IPC namespace and its /dev/shm.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum IpcMode {
    /// A namespace of its own, and a /dev/shm that is mounted inside: nobody can join in.
    Private,
    /// A namespace of its own, and a /dev/shm that is bound from the host, so that other containers can have both.
    Shareable,
    /// The namespace of another container, at this path.
    Container(PathBuf),
    /// The host's namespace.
    Host,
    /// A namespace of its own, and no /dev/shm.
    None,
}

impl IpcMode {
    /// Returns the mode that a configuration means.
    pub fn of(spec: &Spec) -> Self {
        let namespace = |linux: &Linux| of(linux, Kind::Ipc);
        match spec.linux().as_ref().map_or(Namespace::Host, namespace) {
            Namespace::Host => Self::Host,
            Namespace::Joined(path) => Self::Container(path),
            Namespace::Private => match mounted_at(spec, SHM) {
                None => Self::None,
                Some(mount) if is_bind(mount) => Self::Shareable,
                Some(_) => Self::Private,
            },
        }
    }

    /// Returns Docker's word.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Shareable => "shareable",
            Self::Container(_) => "container",
            Self::Host => "host",
            Self::None => "none",
        }
    }
}

impl fmt::Display for IpcMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Returns what a configuration mounts at a place: the last entry covers those before it.
pub fn mounted_at<'a>(spec: &'a Spec, place: &str) -> Option<&'a Mount> {
    let is_there = |mount: &&Mount| mounts::destination(mount.destination()).is_ok_and(|path| path == place);
    spec.mounts().iter().flatten().rfind(is_there)
}

/// Says whether a mount shows something of the host.
pub fn is_bind(mount: &Mount) -> bool {
    let option = |option: &String| option == "bind" || option == "rbind";
    mount.typ().as_deref() == Some("bind") || mount.options().iter().flatten().any(option)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn mode(namespaces: Value, mounts: Value) -> IpcMode {
        let spec = json!({"ociVersion": "1.2.0", "linux": {"namespaces": namespaces}, "mounts": mounts});
        IpcMode::of(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn modes_follow_from_namespace_and_mount() {
        let own = json!([{"type": "ipc"}]);
        let joined = json!([{"type": "ipc", "path": "/proc/7/ns/ipc"}]);
        let tmpfs = json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm"});
        let bind = json!({"destination": "/dev//shm/", "type": "bind", "source": "/x", "options": ["rbind"]});
        assert_eq!(mode(own.clone(), json!([tmpfs])), IpcMode::Private);
        assert_eq!(mode(own.clone(), json!([tmpfs, bind])), IpcMode::Shareable);
        assert_eq!(mode(own, json!([])), IpcMode::None);
        assert_eq!(mode(joined, json!([bind])), IpcMode::Container("/proc/7/ns/ipc".into()));
        assert_eq!(mode(json!([]), json!([tmpfs])), IpcMode::Host);
    }
}
