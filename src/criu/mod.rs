//! Checkpoint and restore through CRIU: its program, its protocol, its options and its images.
//!
//! What lives here knows CRIU and nothing of a container's life: no state, no locks, no cgroups, no hooks.
//! [`container`](crate::container) puts those together with a [`Session`] for the verbs checkpoint and restore.

pub mod cgroup_image;
pub mod external;
mod gzip;
pub mod image;
pub mod images;
pub mod inspect;
pub mod manifest;
pub mod mount_images;
pub mod namespace_images;
mod notify;
pub mod obstacles;
pub mod options;
pub mod queues;
pub mod reconcile;
mod rpc;
pub mod shared_files;
pub mod stats;
pub mod streams;
pub mod tar;

pub use notify::Notification;
pub use rpc::{Launch, Observer, Session, Task, is_taken_pid};

use crate::error::{Context, Error, ErrorKind, Result};
use crate::sys::{Errno, fd};
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::{SysconfVar, sysconf};
use rust_criu::rust_criu_protobuf::rpc::Criu_features;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where CRIU, and what it executes (iptables, tar), is looked for when PATH does not say, or does not have it.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where CRIU finds an administrator's settings, and below which directory a user's; `config_file` comes on top.
const SETTINGS: &str = "/etc/criu/default.conf";
const USER_SETTINGS: &str = ".criu/default.conf";

/// The oldest CRIU that is supported.
const MINIMUM: Version = Version { major: 4, minor: 0, sublevel: 0 };

/// The pages of CRIU's largest pipe: as many as the kernel can describe in a kmalloc of its own.
const LAZY_PIPE_PAGES: i64 = 819;

/// A version of CRIU.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Version {
    /// The first number.
    pub major: i32,
    /// The second number.
    pub minor: i32,
    /// The third number, 0 where there is none.
    pub sublevel: i32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        if self.sublevel != 0 { write!(f, ".{}", self.sublevel) } else { Ok(()) }
    }
}

/// The CRIU program of this machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Program {
    /// Where it is.
    pub path: PathBuf,
    /// The PATH that it gets.
    pub search_path: OsString,
}

impl Program {
    /// Finds CRIU in PATH, which may be unset, or where administrators' programs are.
    pub fn find() -> Result<Self> {
        let search_path = search_path(std::env::var_os("PATH"));
        let found = find_executable(&search_path, "criu", |_| true)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "exec: \"criu\": executable file not found in $PATH"))?;
        Ok(Self { path: found, search_path })
    }

    /// Returns the same CRIU, which looks for what it executes in `directory` first.
    #[must_use]
    pub fn preferring(self, directory: &Path) -> Self {
        let all = std::iter::once(directory.to_owned()).chain(std::env::split_paths(&self.search_path));
        match std::env::join_paths(all) {
            Ok(search_path) => Self { search_path, ..self },
            Err(err) => {
                log::debug!("{} cannot be in PATH: {err}", directory.display());
                self
            }
        }
    }

    /// Says whether CRIU may be linked with a library: whether its program, if it is one and no script, names it.
    pub fn may_use(&self, library: &str) -> bool {
        let Ok(text) = std::fs::read(&self.path) else { return true };
        !text.starts_with(b"\x7fELF") || text.windows(library.len()).any(|part| part == library.as_bytes())
    }

    /// Checks that a session's CRIU is one that this runtime works with.
    pub fn check_version(&self, session: &mut Session) -> Result<Version> {
        let found = session.version()?;
        log::debug!("using criu {found} at {}", self.path.display());
        if found >= MINIMUM {
            return Ok(found);
        }
        let path = self.path.display();
        Err(Error::new(ErrorKind::Criu, format!("criu {found} at {path} is too old: {MINIMUM} or newer is needed")))
    }
}

/// Returns the texts of the configuration files that CRIU reads; one that is not there says nothing.
pub fn settings(config_file: Option<&str>) -> Vec<String> {
    let user = std::env::var_os("HOME").map(|home| Path::new(&home).join(USER_SETTINGS));
    let named = [std::env::var_os("CRIU_CONFIG_FILE"), config_file.map(OsString::from)];
    let all = [Some(PathBuf::from(SETTINGS)), user].into_iter().chain(named.map(|file| file.map(PathBuf::from)));
    all.flatten().filter_map(|file| std::fs::read_to_string(file).ok()).collect()
}

/// Checks that CRIU has the features that the wanted work depends on, on this kernel. `mem_track` is the option that
/// needs memory to be tracked, if one does.
pub fn require_features(session: &mut Session, mem_track: Option<&str>, lazy_pages: bool) -> Result<()> {
    if mem_track.is_none() && !lazy_pages {
        return Ok(());
    }
    let wanted = Criu_features {
        mem_track: Some(mem_track.is_some()),
        lazy_pages: Some(lazy_pages),
        ..Criu_features::default()
    };
    let found = session.features(wanted).map_err(|err| err.context("criu feature check failed"))?;
    let missing =
        Missing { mem_track: mem_track.filter(|_| !found.mem_track()), lazy_pages: lazy_pages && !found.lazy_pages() };
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    missing.words(kernel.trim_end()).map_or(Ok(()), |text| Err(Error::new(ErrorKind::Criu, text)))
}

/// Checks that CRIU can make the pipe that memory goes through which is left behind until it is fetched.
///
/// CRIU 4.2 goes on without it, and fails when somebody comes for the memory, who then waits for it in vain.
pub fn require_lazy_pipe() -> Result<()> {
    let attempt = || "make a pipe for --lazy-pages";
    let (pipe, _other_end) = fd::pipe().context(attempt)?;
    let page = sysconf(SysconfVar::PAGE_SIZE).context(attempt)?.unwrap_or(4096);
    let size = i32::try_from(LAZY_PIPE_PAGES * page).unwrap_or(i32::MAX);
    match fcntl(pipe, FcntlArg::F_SETPIPE_SZ(size)) {
        Err(Errno::EPERM) => {
            let limit = std::fs::read_to_string("/proc/sys/fs/pipe-max-size").unwrap_or_default();
            let text =
                format!("--lazy-pages needs a pipe of {size} bytes, and fs.pipe-max-size is {}", limit.trim_end());
            Err(Error::new(ErrorKind::Criu, text))
        }
        other => other.map(drop).context(attempt),
    }
}

/// The features that are needed and missing.
struct Missing<'a> {
    /// The option that needs memory to be tracked.
    mem_track: Option<&'a str>,
    lazy_pages: bool,
}

impl Missing<'_> {
    /// Says what is missing, beginning with runc's words, and what needs it; nothing if nothing is.
    fn words(&self, kernel: &str) -> Option<String> {
        let track = self.mem_track.map(|option| {
            let what = "a kernel that tracks which memory changes (CONFIG_MEM_SOFT_DIRTY)";
            ("MemTrack", format!("{option} needs {what}"))
        });
        let lazy = self.lazy_pages.then(|| {
            let what = "a kernel that hands page faults to a program (CONFIG_USERFAULTFD)";
            ("LazyPages", format!("--lazy-pages needs {what}"))
        });
        let (names, needs): (Vec<_>, Vec<_>) = track.into_iter().chain(lazy).unzip();
        let (names, needs) = (names.join(" "), needs.join(", "));
        (!names.is_empty()).then(|| format!("criu is missing features: [{names}]: {needs}, and this is Linux {kernel}"))
    }
}

/// Returns the directories of `path`, followed by the default ones that it lacks.
fn search_path(path: Option<OsString>) -> OsString {
    let given = path.unwrap_or_default();
    // A relative entry would make root execute what the working directory holds.
    let mut all: Vec<PathBuf> = std::env::split_paths(&given).filter(|p| p.is_absolute()).collect();
    for directory in std::env::split_paths(DEFAULT_PATH) {
        if !all.contains(&directory) {
            all.push(directory);
        }
    }
    // No entry has a colon: all come from a split at colons.
    std::env::join_paths(all).unwrap_or_else(|_| DEFAULT_PATH.into())
}

/// Finds the first program of that name that is a `wanted` one.
fn find_executable(search_path: &OsStr, name: &str, wanted: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    std::env::split_paths(search_path).map(|dir| dir.join(name)).find(|path| is_executable(path) && wanted(path))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_completed_and_made_absolute() {
        let cases = [
            (None, DEFAULT_PATH.to_owned()),
            (Some(""), DEFAULT_PATH.to_owned()),
            (Some("/opt/bin:.:"), format!("/opt/bin:{DEFAULT_PATH}")),
            (Some("/bin:/usr/bin"), "/bin:/usr/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/sbin".to_owned()),
        ];
        for (given, expected) in cases {
            assert_eq!(search_path(given.map(OsString::from)), OsString::from(expected));
        }
    }

    #[test]
    fn missing_features_are_named_with_the_option_that_needs_them() {
        let missing = |mem_track, lazy_pages| Missing { mem_track, lazy_pages }.words("6.18.0");
        assert_eq!(missing(None, false), None);
        let track = "criu is missing features: [MemTrack]: --pre-dump needs a kernel that tracks which memory changes \
            (CONFIG_MEM_SOFT_DIRTY), and this is Linux 6.18.0";
        assert_eq!(missing(Some("--pre-dump"), false).unwrap(), track);
        let both = missing(Some("--parent-path"), true).unwrap();
        assert!(both.starts_with("criu is missing features: [MemTrack LazyPages]: --parent-path needs "), "{both}");
        assert!(both.contains(", --lazy-pages needs a kernel that hands page faults"), "{both}");
    }

    #[test]
    fn a_library_is_looked_for_in_a_program_and_not_in_a_script() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("criu");
        let program = Program { path: path.clone(), search_path: OsString::new() };
        for (text, expected) in [("\x7fELF libbpf.so.1", true), ("\x7fELF libc.so.6", false), ("#!/bin/sh", true)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(program.may_use("libbpf"), expected, "{text:?}");
        }
    }

    #[test]
    fn versions_compare_and_print_by_number() {
        let version = |major, minor, sublevel| Version { major, minor, sublevel };
        assert!(version(3, 19, 0) < MINIMUM && version(4, 0, 0) >= MINIMUM);
        assert!(version(4, 10, 0) > version(4, 2, 1));
        assert_eq!(version(4, 2, 1).to_string(), "4.2.1");
        assert_eq!(version(4, 0, 0).to_string(), "4.0");
    }
}
