//! The IPC mode of a container, in Docker's words: who shares its IPC namespace and its /dev/shm.
//!
//! config.json does not name the mode; it follows from the namespace and from what is mounted on /dev/shm. It decides
//! what a checkpoint has to do beyond CRIU's own part.
//!
//! Engines mount the /dev/shm of a shareable container outside and have it bound. Where there is no engine an annotation
//! asks the runtime to do that: the entry stays a tmpfs, which other runtimes mount inside, and [`shared_outside`] makes
//! two of it, the tmpfs outside and the bind mount of it.

use super::mount_flags::MountFlags;
use super::mount_options::{self, Parameter};
use super::mounts;
use super::namespaces::{Kind, Namespace, of};
use crate::error::{Error, Result};
use oci_spec::runtime::{Linux, Mount, Spec};
use std::fmt;
use std::path::{Path, PathBuf};

/// Where POSIX shared memory is.
pub const SHM: &str = "/dev/shm";

/// The annotation that has the runtime mount /dev/shm outside; [`SHAREABLE`] is the only value that it may have.
pub const ANNOTATION: &str = "org.stasis.ipc";

/// Docker's word for the mode that the annotation asks for.
pub const SHAREABLE: &str = "shareable";

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
                Some(mount) if is_bind(mount) || asked(spec).is_some() => Self::Shareable,
                Some(_) => Self::Private,
            },
        }
    }

    /// Returns Docker's word.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Shareable => SHAREABLE,
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
    entry_at(spec, place).map(|(_, mount)| mount)
}

fn entry_at<'a>(spec: &'a Spec, place: &str) -> Option<(usize, &'a Mount)> {
    let is_there = |mount: &Mount| mounts::destination(mount.destination()).is_ok_and(|path| path == place);
    spec.mounts().iter().flatten().enumerate().filter(|(_, mount)| is_there(mount)).last()
}

/// Says whether a mount shows something of the host.
pub fn is_bind(mount: &Mount) -> bool {
    let option = |option: &String| option == "bind" || option == "rbind";
    mount.typ().as_deref() == Some("bind") || mount.options().iter().flatten().any(option)
}

fn asked(spec: &Spec) -> Option<&String> {
    spec.annotations().as_ref().and_then(|annotations| annotations.get(ANNOTATION))
}

/// Refuses an annotation that asks for what the rest of the configuration does not allow.
pub fn check(spec: &Spec) -> Result<()> {
    let Some(word) = asked(spec) else { return Ok(()) };
    if word != SHAREABLE {
        return Err(Error::invalid(format!("annotation {ANNOTATION}: invalid IPC mode: {word}")));
    }
    let tmpfs_or_bind = |mount: &Mount| mount.typ().as_deref() == Some("tmpfs") || is_bind(mount);
    if IpcMode::of(spec) == IpcMode::Shareable && mounted_at(spec, SHM).is_some_and(tmpfs_or_bind) {
        return Ok(());
    }
    let lacks = "a shareable container needs an IPC namespace of its own and a tmpfs on /dev/shm";
    Err(Error::invalid(format!("annotation {ANNOTATION}: {lacks}")))
}

/// A /dev/shm that is mounted outside of its container.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedOutside {
    /// Which entry of `mounts` asks for it.
    pub index: usize,
    /// The entry that takes its place, which binds it.
    pub bind: Mount,
    /// The parameters of the tmpfs.
    pub parameters: Vec<Parameter>,
    /// The flags of its mount outside.
    pub flags: MountFlags,
}

/// Returns what is mounted outside and what inside, where a configuration asks for a /dev/shm that others can have too
/// and names no place for it; `place` is the one that it gets.
pub fn shared_outside(spec: &Spec, place: &Path) -> Result<Option<SharedOutside>> {
    let Some((index, mount)) = entry_at(spec, SHM).filter(|(_, mount)| asked(spec).is_some() && !is_bind(mount)) else {
        return Ok(None);
    };
    let options = mount.options().clone().unwrap_or_default();
    let parsed = mount_options::parse(&options).map_err(|err| err.context(format!("mount {SHM}")))?;
    let mut bind = mount.clone();
    bind.set_typ(Some("bind".to_owned())).set_source(Some(place.to_owned()));
    // What is a parameter of the file system says nothing to a bind mount.
    let is_word =
        |option: &String| mount_options::parse(std::slice::from_ref(option)).is_ok_and(|one| one.parameters.is_empty());
    let words = options.into_iter().filter(is_word);
    bind.set_options(Some(["rbind", "rprivate"].map(str::to_owned).into_iter().chain(words).collect()));
    // A /dev/shm that is read-only inside is for others to write to.
    let flags = MountFlags::new(parsed.flags.set & !nix::libc::MS_RDONLY);
    Ok(Some(SharedOutside { index, bind, parameters: parsed.filesystem_parameters(), flags }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn annotated(word: &str, namespaces: Value, mount: Value) -> Spec {
        let spec = json!({"ociVersion": "1.2.0", "annotations": {ANNOTATION: word},
            "linux": {"namespaces": namespaces}, "mounts": [{"destination": "/proc"}, mount]});
        serde_json::from_value(spec).unwrap()
    }

    fn tmpfs() -> Value {
        let options = ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"];
        json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": options})
    }

    #[test]
    fn an_annotation_makes_a_tmpfs_shareable() {
        let spec = annotated("shareable", json!([{"type": "ipc"}]), tmpfs());
        assert_eq!(IpcMode::of(&spec), IpcMode::Shareable);
        let made = shared_outside(&spec, Path::new("/state/c1/shm")).unwrap().unwrap();
        let bind = json!({"destination": "/dev/shm", "type": "bind", "source": "/state/c1/shm",
            "options": ["rbind", "rprivate", "nosuid", "noexec", "nodev"]});
        assert_eq!((made.index, serde_json::to_value(&made.bind).unwrap()), (1, bind.clone()));
        let keys: Vec<_> = made.parameters.iter().map(|one| one.key.to_str().unwrap()).collect();
        assert_eq!(keys, ["mode", "size"]);
        // What has a place already keeps it.
        let spec = annotated("shareable", json!([{"type": "ipc"}]), bind);
        assert_eq!(IpcMode::of(&spec), IpcMode::Shareable);
        assert_eq!(shared_outside(&spec, Path::new("/x")).unwrap(), None);
    }

    #[test]
    fn an_annotation_that_makes_no_sense_is_refused() {
        let own = || json!([{"type": "ipc"}]);
        let bind = json!({"destination": "/dev/shm", "type": "bind", "source": "/x"});
        let other = json!({"destination": "/dev/shm", "type": "hugetlbfs", "source": "x"});
        let cases = [
            (annotated("shareable", own(), tmpfs()), None),
            (annotated("shareable", own(), bind), None),
            (annotated("private", own(), tmpfs()), Some("invalid IPC mode: private")),
            (annotated("shareable", json!([]), tmpfs()), Some("needs an IPC namespace of its own")),
            (annotated("shareable", own(), json!({"destination": "/x"})), Some("a tmpfs on /dev/shm")),
            (annotated("shareable", own(), other), Some("a tmpfs on /dev/shm")),
        ];
        for (spec, words) in cases {
            let found = check(&spec).err().map(|err| err.to_string()).unwrap_or_default();
            assert!(words.map_or(found.is_empty(), |words| found.contains(words)), "{found}");
        }
    }

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
