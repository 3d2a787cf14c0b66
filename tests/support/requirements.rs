//! What a test needs of the machine, and what becomes of it where that is missing.

use nix::libc;
use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where scripts/databases.sh puts a root file system with database servers.
pub const DATABASES: &str = "/var/cache/stasis/databases";

/// Where scripts/crun.sh puts a crun that makes checkpoints.
pub const CRUN: &str = "/var/cache/stasis/sid-crun/usr/bin/crun";

/// Why a prerequisite is not there.
pub type Lacking = Option<String>;

/// Says whether one of the prerequisites is missing, in which case the test is skipped, or fails with `STRICT=1`.
pub fn lacks(names: &[&str]) -> bool {
    let Some(reason) = names.iter().find_map(|name| lacking(name)) else { return false };
    if std::env::var("STRICT").is_ok_and(|value| value == "1") {
        panic!("prerequisite: {reason}");
    }
    skip(&reason);
    true
}

/// Says that a test is skipped, and the how manieth it is, on the real standard error: the test harness keeps what a
/// test that passes prints to itself.
pub fn skip(reason: &str) {
    static SKIPPED: AtomicUsize = AtomicUsize::new(0);
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    let thread = std::thread::current();
    let line = format!("skipped {}: {reason} ({count} skipped so far)\n", thread.name().unwrap_or("a test"));
    let _told = std::io::stderr().write_all(line.as_bytes());
}

/// Says whether the runtime is another one than ours, which is to show that a test asks for the right thing.
pub fn is_oracle() -> bool {
    std::env::var_os("RUNTIME").is_some()
}

fn lacking(name: &str) -> Lacking {
    match name {
        // Whoever needs root makes a container, and its root file system is busybox.
        "root" if nix::unistd::geteuid().is_root() => program("busybox"),
        "root" => Some("needs root".into()),
        "criu" => criu(),
        "cgroup_v1" => (!has_v1()).then(|| "needs cgroup v1 hierarchies".into()),
        "cgroup_v2" => (!has_v2()).then(|| "needs cgroup v2".into()),
        "runc" => program("runc"),
        "ip" => program("ip"),
        "uidmap" => program("newuidmap").or_else(|| program("newgidmap")),
        "nft" => program("nft"),
        "tmpfs_xattrs" => (!has_tmpfs_xattrs()).then(|| "needs user.* attributes on tmpfs (Linux 6.6)".into()),
        "crun" => (!Path::new(CRUN).exists()).then(|| format!("needs {CRUN}, of scripts/crun.sh")),
        "docker" => program("dockerd").or_else(|| program("docker")),
        "containerd" => program("containerd").or_else(|| program("ctr")),
        "systemd" => program("systemctl").or_else(|| program("dbus-daemon")),
        "podman" => program("podman").or_else(|| program("conmon")),
        "databases" => (!Path::new(DATABASES).exists()).then(|| format!("needs {DATABASES}, of scripts/databases.sh")),
        "numa" => (!Path::new("/proc/self/numa_maps").exists()).then(|| "needs a kernel with NUMA policies".into()),
        "terminals" => (!Path::new("/dev/ptmx").exists()).then(|| "needs /dev/ptmx".into()),
        "uprobes" => {
            let kind = Path::new("/sys/bus/event_source/devices/uprobe");
            (!kind.exists()).then(|| "needs a kernel with uprobes (CONFIG_UPROBE_EVENTS)".into())
        }
        "vsock" => socket(name, libc::AF_VSOCK, libc::SOCK_STREAM, 0),
        "mptcp" => socket(name, libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP),
        "xdp" => socket(name, libc::AF_XDP, libc::SOCK_RAW, 0),
        other => panic!("unknown prerequisite {other}"),
    }
}

fn program(name: &str) -> Lacking {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|dir| dir.join(name).exists());
    (!found).then(|| format!("needs {name} in PATH"))
}

fn socket(name: &str, family: i32, kind: i32, protocol: i32) -> Lacking {
    // SAFETY: integers only; the descriptor is nobody's but this function's.
    let made = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    if made < 0 {
        return Some(format!("needs {name} sockets: {}", std::io::Error::last_os_error()));
    }
    // SAFETY: it was just opened.
    drop(unsafe { OwnedFd::from_raw_fd(made) });
    None
}

fn criu() -> Lacking {
    static CHECK: OnceLock<Lacking> = OnceLock::new();
    CHECK
        .get_or_init(|| {
            let mut check = Command::new("criu");
            check.arg("check").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            match check.status() {
                Ok(status) if status.success() => None,
                Ok(status) => Some(format!("needs a CRIU that works here: `criu check` ended with {status}")),
                Err(err) => Some(format!("needs criu in PATH: {err}")),
            }
        })
        .clone()
}

/// Says whether the host has hierarchies of cgroup v1.
pub fn has_v1() -> bool {
    std::fs::read_to_string("/proc/mounts").unwrap().lines().any(|line| line.contains(" cgroup "))
}

/// Says whether the host has the hierarchy of cgroup v2.
pub fn has_v2() -> bool {
    std::fs::read_to_string("/proc/filesystems").unwrap().contains("\tcgroup2")
}

fn has_tmpfs_xattrs() -> bool {
    let file = tempfile::tempfile_in("/dev/shm").unwrap();
    stasis::sys::xattr::set(std::os::fd::AsFd::as_fd(&file), c"user.test", b"1").is_ok()
}
