//! The directory that holds the state of all containers: which one, and making it.
//!
//! Clients either give `--root` every time or rely on the same default as runc's under our own name.

use super::Global;
use anyhow::{Context, Result, bail};
use stasis::container::Container;
use std::ffi::OsString;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// Where the state of containers is, and who said so.
pub struct Root {
    /// The directory.
    pub path: PathBuf,
    /// Whether `--root` named it.
    pub explicit: bool,
}

impl Root {
    /// Finds all containers, by name. Where nobody made a container yet there is no default root; one that was named
    /// should be there.
    pub fn containers(&self) -> Result<Vec<(String, stasis::Result<Container>)>> {
        if self.explicit || self.path.exists() { Ok(Container::list(&self.path)?) } else { Ok(Vec::new()) }
    }
}

/// What the default depends on, besides the options.
struct Caller {
    root: bool,
    in_user_namespace: bool,
    runtime_dir: Option<OsString>,
    user: Option<OsString>,
}

/// Returns the state root that the options, or the caller's identity, select.
pub fn select(global: &Global) -> Result<Root> {
    if let Some(given) = &global.root {
        let path = absolute(given)?;
        if path == Path::new("/") {
            bail!("Option --root argument should not be set to /");
        }
        return Ok(Root { path, explicit: true });
    }
    let caller = Caller {
        root: nix::unistd::geteuid().is_root(),
        in_user_namespace: stasis::container::in_user_namespace(),
        runtime_dir: std::env::var_os("XDG_RUNTIME_DIR"),
        user: std::env::var_os("USER"),
    };
    let path = match personal(&caller) {
        Some(path) => {
            prepare(&path)?;
            path
        }
        None => PathBuf::from("/run/stasis"),
    };
    Ok(Root { path, explicit: false })
}

/// Returns the default for a caller that is not the host's root.
///
/// Root in a user namespace may be a rootless caller's (Podman) or a nested host's own; `USER` tells them apart.
fn personal(caller: &Caller) -> Option<PathBuf> {
    let honoured = !caller.root || caller.in_user_namespace && caller.user.as_deref() != Some("root".as_ref());
    // Podman as root sets the variable to nothing.
    let runtime_dir = caller.runtime_dir.as_ref().filter(|dir| !dir.is_empty())?;
    honoured.then(|| Path::new(runtime_dir).join("stasis"))
}

/// Makes the personal default, with the sticky bit that keeps it from being cleaned up (XDG base directories).
fn prepare(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| {
        format!("the path in $XDG_RUNTIME_DIR must be writable by the user: mkdir {}", path.display())
    })?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o1700)).with_context(|| {
        format!("you should check permission of the path in $XDG_RUNTIME_DIR: chmod {}", path.display())
    })
}

/// Makes a path absolute and resolves `.` and `..` by their names alone, as Go's filepath.Abs does.
fn absolute(path: &Path) -> Result<PathBuf> {
    let whole = std::env::current_dir().context("get the current directory")?.join(path);
    let mut clean = PathBuf::new();
    for component in whole.components() {
        match component {
            Component::ParentDir => _ = clean.pop(),
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_depends_on_who_calls() {
        for (root, in_user_namespace, runtime_dir, user, expected) in [
            (true, false, Some("/run/user/0"), Some("root"), None),
            (true, false, Some("/run/user/0"), None, None),
            (false, false, Some("/run/user/7"), Some("u"), Some("/run/user/7/stasis")),
            (false, false, Some(""), Some("u"), None),
            (false, false, None, Some("u"), None),
            (true, true, Some("/run/user/7"), Some("u"), Some("/run/user/7/stasis")),
            (true, true, Some("/run/user/7"), None, Some("/run/user/7/stasis")),
            (true, true, Some("/run/user/7"), Some("root"), None),
        ] {
            let (runtime_dir, user) = (runtime_dir.map(OsString::from), user.map(OsString::from));
            let caller = Caller { root, in_user_namespace, runtime_dir, user };
            assert_eq!(personal(&caller), expected.map(PathBuf::from));
        }
    }

    #[test]
    fn a_given_root_is_made_absolute() {
        for (given, expected) in [("/a/./b/../c/", "/a/c"), ("/..", "/"), ("/../../", "/"), ("/r", "/r")] {
            assert_eq!(absolute(Path::new(given)).unwrap(), Path::new(expected));
        }
        assert!(absolute(Path::new("r")).unwrap().ends_with("r"));
    }
}
