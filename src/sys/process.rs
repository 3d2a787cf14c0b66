//! What a process is: identity, privileges, limits, signal dispositions, and the step into another program.
//!
//! Everything here may run between clone and execve: nothing allocates.

use super::{Errno, Result, cvt};
use crate::cstrings::CStringArray;
use nix::libc;
use nix::sys::statfs::{SELINUX_MAGIC, statfs};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Becomes the program at `path`. Returns only on failure.
pub fn execve(path: &CStr, args: &CStringArray, env: &CStringArray) -> Errno {
    // SAFETY: both arrays end in null and point to C strings that they own (CStringArray::pointers).
    unsafe { libc::execve(path.as_ptr(), args.pointers().as_ptr(), env.pointers().as_ptr()) };
    Errno::last()
}

/// Sets the real, effective and saved user id of the process.
///
/// The raw call: glibc's wrapper signals every thread, which a child of clone3 must not.
pub fn set_uid(uid: u32) -> Result<()> {
    // SAFETY: integers only.
    cvt(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })?;
    Ok(())
}

/// Sets the real, effective and saved group id of the process.
pub fn set_gid(gid: u32) -> Result<()> {
    // SAFETY: integers only.
    cvt(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    Ok(())
}

/// Replaces the supplementary groups.
pub fn set_groups(groups: &[u32]) -> Result<()> {
    // SAFETY: pointer and length describe `groups`.
    cvt(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    Ok(())
}

/// Starts a new session, with the caller as its leader.
pub fn new_session() -> Result<()> {
    nix::unistd::setsid().map(drop)
}

/// Sets one resource limit, in the units of setrlimit(2).
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` outlives the call, which only reads it; no old limit is asked for.
    cvt(unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, std::ptr::null_mut::<libc::rlimit64>())
    })?;
    Ok(())
}

/// Sets `PR_SET_NO_NEW_PRIVS`: execve gains no privileges any more.
pub fn set_no_new_privs() -> Result<()> {
    nix::sys::prctl::set_no_new_privs()
}

/// Keeps permitted capabilities over the change of user ids that follows.
pub fn keep_capabilities(keep: bool) -> Result<()> {
    nix::sys::prctl::set_keepcaps(keep)
}

/// Says whether others of the same user may ptrace the process and open its /proc files (CVE-2016-9962).
pub fn set_dumpable(dumpable: bool) -> Result<()> {
    nix::sys::prctl::set_dumpable(dumpable)
}

/// Makes the process the reaper of its orphaned descendants.
pub fn set_child_subreaper(on: bool) -> Result<()> {
    nix::sys::prctl::set_child_subreaper(on)
}

/// Drops every capability that `keep` lacks from the bounding set.
pub fn limit_bounding_set(keep: u64) -> Result<()> {
    for capability in 0..64 {
        if keep & (1 << capability) != 0 {
            continue;
        }
        // SAFETY: integers only.
        match cvt(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }.into()) {
            // Past the kernel's last capability.
            Err(Errno::EINVAL) => return Ok(()),
            other => other?,
        };
    }
    Ok(())
}

/// Sets the effective, permitted and inheritable capabilities (capset(2), version 3).
pub fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    struct Half {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let header = Header { version: 0x2008_0522, pid: 0 };
    let half = |shift: u32| Half {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let halves = [half(0), half(32)];
    // SAFETY: version 3 of the call takes one header and two halves; both outlive the call.
    cvt(unsafe { libc::syscall(libc::SYS_capset, &raw const header, halves.as_ptr()) })?;
    Ok(())
}

/// Returns the kernel's last capability.
pub fn last_capability() -> u8 {
    // CAP_CHECKPOINT_RESTORE is older than any kernel that we run on (5.9). The call reads one bit of the bounding set,
    // and knows which there are; /proc/sys/kernel/cap_last_cap would take a file.
    let known = 40u8..64;
    // SAFETY: integers only.
    let exists = |capability: &u8| unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(*capability)) } >= 0;
    known.take_while(exists).last().unwrap_or(40)
}

/// Empties the ambient set.
pub fn clear_ambient_set() -> Result<()> {
    // SAFETY: integers only.
    cvt(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) }.into())?;
    Ok(())
}

/// Adds one capability to the ambient set; it must be permitted and inheritable.
pub fn raise_ambient(capability: u32) -> Result<()> {
    // SAFETY: integers only.
    cvt(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability, 0, 0) }.into())?;
    Ok(())
}

/// Joins a new session keyring of that name (keyrings(7)) that the container's processes may search and link.
pub fn join_session_keyring(name: &CStr) -> Result<i32> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: `name` is a C string that outlives the call.
    Ok(cvt(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) })? as i32)
}

/// Lets the user that owns a key search it too: adds `SEARCH` for the user to its permissions.
pub fn allow_key_search(key: i32) -> Result<()> {
    const KEYCTL_SETPERM: libc::c_long = 5;
    const KEYCTL_DESCRIBE: libc::c_long = 6;
    const KEY_USR_SEARCH: u32 = 0x0008_0000;
    let mut text = [0u8; 512];
    // SAFETY: pointer and length describe `text`.
    let len = cvt(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_DESCRIBE, key, text.as_mut_ptr(), text.len()) })?;
    // "type;uid;gid;perm;description", the permissions in hexadecimal.
    let line = text.get(..(len as usize).min(text.len())).unwrap_or_default();
    let field = line.split(|&b| b == b';').nth(3).unwrap_or_default();
    let permissions = std::str::from_utf8(field).ok().and_then(|hex| u32::from_str_radix(hex, 16).ok());
    let permissions = permissions.ok_or(Errno::EINVAL)? | KEY_USR_SEARCH;
    // SAFETY: integers only.
    cvt(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, key, permissions) })?;
    Ok(())
}

/// Sets the file mode creation mask and returns the previous one.
pub fn set_umask(mask: u32) -> u32 {
    // SAFETY: umask cannot fail and touches no memory.
    unsafe { libc::umask(mask) }
}

/// Gives every signal its default disposition and blocks none.
///
/// We ignore SIGPIPE (super::start) and callers may ignore or block others; execve would pass all of that on.
pub fn reset_signals() -> Result<()> {
    // SAFETY: sigaction is plain data, for which all zeroes is SIG_DFL without flags and with an empty mask.
    let default: libc::sigaction = unsafe { std::mem::zeroed() };
    for signal in 1..=libc::SIGRTMAX() {
        if matches!(signal, libc::SIGKILL | libc::SIGSTOP) {
            continue;
        }
        // SAFETY: `default` outlives the call. glibc refuses its own two real-time signals with EINVAL; their
        // dispositions are the default, since no thread was ever made.
        unsafe { libc::sigaction(signal, &raw const default, std::ptr::null_mut()) };
    }
    unblock_signals()
}

/// Lets the signals that ask a process to end do so, also where the process is a namespace's first: the kernel drops those
/// that such a one does not handle (pid_namespaces(7)). A program that is executed has the default again.
pub fn end_on_signals() -> Result<()> {
    extern "C" fn end(signal: libc::c_int) {
        // Once, since its disposition is the default again: whoever is not a first process ends by the signal.
        // SAFETY: raise and _exit are async-signal-safe, and nothing is touched.
        unsafe {
            libc::raise(signal);
            libc::_exit(2);
        }
    }
    // SAFETY: sigaction is plain data, for which all zeroes is an empty mask without flags.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = end as extern "C" fn(libc::c_int) as libc::sighandler_t;
    action.sa_flags = libc::SA_RESETHAND | libc::SA_NODEFER;
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
        // SAFETY: `action` outlives the call, and what it names may run at any point, as said there.
        cvt(unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) }.into())?;
    }
    Ok(())
}

/// Blocks no signal.
pub fn unblock_signals() -> Result<()> {
    let none = nix::sys::signal::SigSet::empty();
    nix::sys::signal::sigprocmask(nix::sys::signal::SigmaskHow::SIG_SETMASK, Some(&none), None)
}

/// Makes sure that the working directory lies below the root.
///
/// # Errors
///
/// ENOENT when it lies outside the root: the kernel then prints it as `(unreachable)...` (CVE-2024-21626).
pub fn check_working_directory() -> Result<()> {
    let mut path = [0u8; libc::PATH_MAX as usize];
    // SAFETY: pointer and length describe `path`.
    cvt(unsafe { libc::syscall(libc::SYS_getcwd, path.as_mut_ptr(), path.len()) })?;
    if path.first() == Some(&b'/') { Ok(()) } else { Err(Errno::ENOENT) }
}

/// Makes a terminal the controlling one of the session that the caller leads.
pub fn set_controlling_terminal(terminal: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: TIOCSCTTY takes an integer.
    cvt(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY as libc::Ioctl, 0) }.into())?;
    Ok(())
}

/// Sets scheduling policy and attributes of the calling thread (sched_setattr(2)).
pub fn set_scheduler(plan: &crate::plan::process::SchedulerPlan) -> Result<()> {
    #[repr(C)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    let attributes = Attributes {
        size: size_of::<Attributes>() as u32,
        policy: plan.policy,
        flags: plan.flags,
        nice: plan.nice,
        priority: plan.priority,
        runtime: plan.runtime,
        deadline: plan.deadline,
        period: plan.period,
    };
    // SAFETY: the structure states its own size and outlives the call.
    cvt(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) })?;
    Ok(())
}

/// Moves the calling thread to the cpus of a mask (sched_setaffinity(2)).
pub fn set_affinity(mask: &[u64]) -> Result<()> {
    // SAFETY: pointer and length describe `mask`, which the kernel only reads.
    cvt(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(mask), mask.as_ptr()) })?;
    Ok(())
}

/// Sets from which nodes the calling thread gets memory (set_mempolicy(2)); `mode` has the flags too.
pub fn set_memory_policy(mode: i32, nodes: &[u64]) -> Result<()> {
    // No nodes are no mask: the kernel takes one bit less than it is told, and none is too few for that.
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    let bits = nodes.len() * u64::BITS as usize + 1;
    // SAFETY: pointer and number of bits describe `nodes`, which the kernel only reads; it takes null for no nodes.
    cvt(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) })?;
    Ok(())
}

/// Sets the I/O priority of the process: class and level as ioprio_set(2) packs them.
pub fn set_io_priority(value: u32) -> Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: integers only.
    cvt(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) })?;
    Ok(())
}

/// Sets the execution domain (personality(2)).
pub fn set_personality(value: u32) -> Result<()> {
    // SAFETY: integers only.
    cvt(unsafe { libc::syscall(libc::SYS_personality, libc::c_ulong::from(value)) })?;
    Ok(())
}

/// Returns whether SELinux has labels for processes: its file system is mounted, as libselinux looks for it.
pub fn has_selinux() -> bool {
    statfs(c"/sys/fs/selinux").is_ok_and(|found| found.filesystem_type() == SELINUX_MAGIC)
}
