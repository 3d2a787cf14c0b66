//! A compiled profile, loaded: what it allows works, what it denies fails as it says.

use crate::again;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::personality::{self, Persona};
use nix::unistd::{AccessFlags, faccessat, getpid, mkdir};
use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};
use stasis::plan::seccomp::{CompiledFilter, compile};
use stasis::sys::seccomp::{load, supported_flags};
use std::path::Path;
use std::time::Instant;

/// Denies by default as the profiles of container engines do, with what a small program needs.
/// Nothing in it is newer than openat2 (437).
fn profile() -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            {"action": "SCMP_ACT_ALLOW", "names": [
                "access", "arch_prctl", "bind", "brk", "capget", "capset", "chdir", "chmod",
                "clock_gettime", "clone", "close", "connect", "dup", "dup2", "dup3", "epoll_ctl",
                "epoll_wait", "execve", "exit", "exit_group", "faccessat", "fchdir", "fchmod",
                "fcntl", "fstat", "fsync", "ftruncate", "futex", "getcwd", "getdents64", "getegid",
                "geteuid", "getgid", "getpid", "getppid", "getrandom", "getrlimit", "getsockopt",
                "gettid", "getuid", "ioctl", "kill", "link", "listen", "lseek", "lstat", "madvise",
                "mmap", "mprotect", "mremap", "munmap", "nanosleep", "newfstatat", "open",
                "openat", "openat2", "pipe2", "poll", "prctl", "pread64", "prlimit64", "pwrite64",
                "read", "readlink", "readlinkat", "recvmsg", "rename", "rseq", "rt_sigaction",
                "rt_sigprocmask", "rt_sigreturn", "sched_getaffinity", "sched_yield", "sendmsg",
                "set_robust_list", "set_tid_address", "setgid", "setuid", "sigaltstack", "socket",
                "stat", "statx", "tgkill", "umask", "uname", "unlink", "wait4", "write", "writev",
                "no_such_call",
            ]},
            {"action": "SCMP_ACT_ALLOW", "names": ["personality"],
                "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]},
            {"action": "SCMP_ACT_ALLOW", "names": ["personality"],
                "args": [{"index": 0, "value": 0xffff_ffffu32, "op": "SCMP_CMP_EQ"}]},
            {"action": "SCMP_ACT_ERRNO", "errnoRet": 13, "names": ["chroot"]},
        ],
    })
}

fn compiled(profile: Value, cache: Option<&Path>) -> CompiledFilter {
    let profile: LinuxSeccomp = serde_json::from_value(profile).unwrap();
    compile(&profile, cache).unwrap()
}

fn succeeds_again(name: &str) {
    let output = again(name).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "started by the test below"]
fn lives_under_a_profile() {
    let cache = tempfile::tempdir().unwrap();
    let cache = cache.path().join("seccomp");
    compiled(profile(), Some(&cache));
    // The second one comes from the cache.
    let filter = compiled(profile(), Some(&cache));
    filter.check_flags(supported_flags()).unwrap();
    nix::sys::prctl::set_no_new_privs().unwrap();
    assert!(load(&filter.program, filter.flags).unwrap().is_none());

    assert!(getpid().as_raw() > 0);
    assert_eq!(mkdir("/tmp/stasis-denied", nix::sys::stat::Mode::S_IRWXU), Err(Errno::EPERM));
    assert_eq!(nix::unistd::chroot("/"), Err(Errno::EACCES));
    let persona = personality::get().unwrap();
    assert_eq!(personality::set(persona | Persona::ADDR_NO_RANDOMIZE), Err(Errno::EPERM));
    // libc calls faccessat2 (439), is told that there is none, and does without.
    let (mode, flags) = (AccessFlags::F_OK, AtFlags::AT_EACCESS);
    assert_eq!(faccessat(AT_FDCWD, "/proc/self/exe", mode, flags), Ok(()));
}

#[test]
fn a_denied_call_fails_and_an_allowed_one_works() {
    succeeds_again("seccomp::lives_under_a_profile");
}

#[test]
#[ignore = "started by the test below"]
fn listens() {
    let filter = compiled(
        json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent.sock",
            "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}),
        None,
    );
    nix::sys::prctl::set_no_new_privs().unwrap();
    let listener = load(&filter.program, filter.flags & supported_flags()).unwrap();
    assert!(listener.is_some());
    // A thread has one listener at most; this also shows that the first filter is in force.
    assert_eq!(load(&filter.program, filter.flags).err(), Some(Errno::EBUSY));
}

#[test]
fn a_profile_that_notifies_gives_a_listener() {
    succeeds_again("seccomp::listens");
}

#[test]
fn a_warm_cache_saves_the_compilation() {
    let root = tempfile::tempdir().unwrap();
    let cache = root.path().join("seccomp");
    let time = |cache| {
        let start = Instant::now();
        compiled(profile(), cache);
        start.elapsed()
    };
    let cold = time(Some(&cache));
    let warm = (0..5).map(|_| time(Some(cache.as_path()))).min().unwrap();
    println!("cold {cold:?}, warm {warm:?}");
    assert!(warm < cold, "cold {cold:?}, warm {warm:?}");
}
