//! `linux.seccomp` -> the BPF program, flags and listener that init loads.
//!
//! [`compile`] runs before the clone: the child only makes one system call (`sys::seccomp::load`).
//! The profile is read and checked here on every start; turning it into instructions is the
//! expensive part (libseccomp resolves each name for each architecture), so its result is kept by
//! content (`cache`). The prefix that answers ENOSYS for system calls that the profile's author
//! could not know is in `newer`; `compact` writes the whole with fewer instructions.

mod build;
mod cache;
mod compact;
mod instruction;
mod newer;

use crate::error::{Context, Error, Result};
use libc::sock_filter;
use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpVersion};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompFilterFlag as Flag,
    LinuxSeccompOperator as Operator, LinuxSyscall,
};
use std::path::{Path, PathBuf};

/// SECCOMP_FILTER_FLAG_LOG: log every action but allow (kernel 4.14).
pub const FLAG_LOG: u32 = libc::SECCOMP_FILTER_FLAG_LOG as u32;
/// SECCOMP_FILTER_FLAG_SPEC_ALLOW: no speculative store bypass mitigation (kernel 4.17).
pub const FLAG_SPEC_ALLOW: u32 = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32;
/// SECCOMP_FILTER_FLAG_NEW_LISTENER: loading returns the descriptor that notifications are read
/// from (kernel 5.0).
pub const FLAG_NEW_LISTENER: u32 = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;
/// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: only fatal signals interrupt a notified call (kernel
/// 5.19).
pub const FLAG_WAIT_KILLABLE_RECV: u32 = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV as u32;

/// The kernel's limit on a program (BPF_MAXINSNS, linux/bpf_common.h).
const MAX_INSTRUCTIONS: usize = 4096;
/// The highest error number that a filter can return (MAX_ERRNO, linux/err.h); the kernel lowers
/// anything above to it.
const MAX_ERRNO: u32 = 4095;
/// The number of arguments that a system call has.
const MAX_ARGUMENTS: usize = 6;

/// What init loads, ready for the kernel.
#[derive(Clone, Debug)]
pub struct CompiledFilter {
    /// The instructions.
    pub program: Vec<sock_filter>,
    /// SECCOMP_FILTER_FLAG_* for seccomp(2).
    pub flags: u32,
    /// Who is told about the calls that the profile wants to be notified of, if it wants any.
    pub notify: Option<ListenerPlan>,
}

/// Where the notification descriptor goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListenerPlan {
    /// The agent's unix socket.
    pub path: PathBuf,
    /// Passed on to the agent as it stands.
    pub metadata: Option<String>,
}

/// A profile that was found to be sound, in libseccomp's words.
#[derive(Debug)]
struct Rules<'a> {
    default: ScmpAction,
    /// As listed; the native one is part of every filter whether listed or not.
    architectures: &'a [Arch],
    rules: Vec<Rule<'a>>,
    /// Every name that the profile mentions, also in rules that were dropped: what its author knew
    /// of.
    names: Vec<&'a str>,
}

/// One system call's rule.
#[derive(Debug)]
struct Rule<'a> {
    name: &'a str,
    action: ScmpAction,
    /// Each entry is a rule of its own; the conditions inside an entry must all hold.
    /// Unconditional: one empty entry.
    alternatives: Vec<Vec<ScmpArgCompare>>,
}

/// Compiles `profile`, or takes it from `cache_dir` if it was compiled before.
///
/// The cache directory is made if its parent exists. Nothing in it is trusted unless only we could
/// have written it, and no defect of it is an error: the profile is compiled again.
pub fn compile(profile: &LinuxSeccomp, cache_dir: Option<&Path>) -> Result<CompiledFilter> {
    let rules = read(profile)?;
    let notify = listener(profile)?;
    let flags = filter_flags(profile, notify.is_some());
    // runc's tests look for this line.
    log::debug!("seccomp filter flags: {flags}");

    let program = match cache_dir {
        None => build::program(&rules)?,
        Some(dir) => {
            let key = cache_key(profile)?;
            match cache::load(dir, &key) {
                Some(program) => program,
                None => {
                    let program = build::program(&rules)?;
                    if let Err(errno) = cache::store(dir, &key, &program) {
                        log::debug!("seccomp filter not kept in {}: {errno}", dir.display());
                    }
                    program
                }
            }
        }
    };
    Ok(CompiledFilter { program, flags, notify })
}

impl CompiledFilter {
    /// Fails if the kernel, whose flags are `supported`, lacks a flag that the profile asks for.
    pub fn check_flags(&self, supported: u32) -> Result<()> {
        for (flag, name) in [
            (FLAG_LOG, "SECCOMP_FILTER_FLAG_LOG"),
            (FLAG_SPEC_ALLOW, "SECCOMP_FILTER_FLAG_SPEC_ALLOW"),
            (FLAG_NEW_LISTENER, "SECCOMP_FILTER_FLAG_NEW_LISTENER"),
            (FLAG_WAIT_KILLABLE_RECV, "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"),
        ] {
            if self.flags & flag != 0 && supported & flag == 0 {
                return Err(Error::invalid(format!("seccomp flag {name} is not supported by the kernel")));
            }
        }
        Ok(())
    }
}

/// Returns the version of libseccomp as `2.5.4`.
pub fn library_version() -> String {
    match ScmpVersion::current() {
        Ok(version) => version.to_string(),
        Err(_) => "unknown".to_owned(),
    }
}

/// Reads everything that decides the program.
fn read(profile: &LinuxSeccomp) -> Result<Rules<'_>> {
    let default = action(profile.default_action(), profile.default_errno_ret()).context(|| "seccomp defaultAction")?;
    // The filter is in force while init still has to hand the descriptor over: a notified write
    // could never be answered, since nobody holds the descriptor yet.
    if default == ScmpAction::Notify {
        return Err(Error::invalid("SCMP_ACT_NOTIFY cannot be used as default action"));
    }
    let mut rules = Vec::new();
    let mut names = Vec::new();
    for entry in profile.syscalls().as_deref().unwrap_or_default() {
        for name in entry.names() {
            names.push(name.as_str());
            if let Some(rule) = rule(entry, name, default)? {
                rules.push(rule);
            }
        }
    }
    Ok(Rules { default, architectures: profile.architectures().as_deref().unwrap_or_default(), rules, names })
}

/// Reads one entry for one of its names; a rule that repeats the default action is dropped,
/// libseccomp refuses it.
fn rule<'a>(entry: &LinuxSyscall, name: &'a str, default: ScmpAction) -> Result<Option<Rule<'a>>> {
    if name.is_empty() {
        return Err(Error::invalid("empty string is not a valid syscall"));
    }
    let action = action(entry.action(), entry.errno_ret()).context(|| format!("seccomp rule for {name}"))?;
    // By it init tells that there is a listener: nobody could answer.
    if action == ScmpAction::Notify && name == "write" {
        return Err(Error::invalid("SCMP_ACT_NOTIFY cannot be used for the write syscall"));
    }
    if action == default {
        return Ok(None);
    }
    let args = entry.args().as_deref().unwrap_or_default();
    let conditions =
        args.iter().map(condition).collect::<Result<Vec<_>>>().context(|| format!("seccomp rule for {name}"))?;
    // Two conditions on one argument cannot stand in one rule of libseccomp. runc makes a rule of
    // each condition then, so that any of them suffices, and profiles rely on it.
    let repeated = (0..MAX_ARGUMENTS).any(|index| args.iter().filter(|arg| arg.index() == index).count() > 1);
    let alternatives = if repeated { conditions.into_iter().map(|one| vec![one]).collect() } else { vec![conditions] };
    Ok(Some(Rule { name, action, alternatives }))
}

/// Returns libseccomp's word for an action; without a number, ERRNO and TRACE return EPERM.
fn action(action: Action, errno_ret: Option<u32>) -> Result<ScmpAction> {
    let code = errno_ret.unwrap_or(libc::EPERM as u32);
    // errnoRet beside another action is ignored, as runc and crun do: generated profiles carry it.
    Ok(match action {
        Action::ScmpActKill | Action::ScmpActKillThread => ScmpAction::KillThread,
        Action::ScmpActKillProcess => ScmpAction::KillProcess,
        Action::ScmpActTrap => ScmpAction::Trap,
        Action::ScmpActErrno if code <= MAX_ERRNO => ScmpAction::Errno(code as i32),
        Action::ScmpActErrno => {
            return Err(Error::invalid(format!("errnoRet {code} is not an error number")));
        }
        Action::ScmpActTrace => match u16::try_from(code) {
            Ok(code) => ScmpAction::Trace(code),
            Err(_) => {
                return Err(Error::invalid(format!("errnoRet {code} does not fit in 16 bits")));
            }
        },
        Action::ScmpActNotify => ScmpAction::Notify,
        Action::ScmpActLog => ScmpAction::Log,
        Action::ScmpActAllow => ScmpAction::Allow,
    })
}

/// Returns libseccomp's word for a condition on an argument.
fn condition(arg: &LinuxSeccompArg) -> Result<ScmpArgCompare> {
    if arg.index() >= MAX_ARGUMENTS {
        return Err(Error::invalid(format!("argument {} does not exist, a syscall has 6", arg.index())));
    }
    let (op, datum) = match arg.op() {
        Operator::ScmpCmpNe => (ScmpCompareOp::NotEqual, arg.value()),
        Operator::ScmpCmpLt => (ScmpCompareOp::Less, arg.value()),
        Operator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, arg.value()),
        Operator::ScmpCmpEq => (ScmpCompareOp::Equal, arg.value()),
        Operator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, arg.value()),
        Operator::ScmpCmpGt => (ScmpCompareOp::Greater, arg.value()),
        // (argument & value) == valueTwo
        Operator::ScmpCmpMaskedEq => (ScmpCompareOp::MaskedEqual(arg.value()), arg.value_two().unwrap_or(0)),
    };
    Ok(ScmpArgCompare::new(arg.index() as u32, op, datum))
}

/// Reads who is to be told, if any rule tells anybody.
fn listener(profile: &LinuxSeccomp) -> Result<Option<ListenerPlan>> {
    let entries = profile.syscalls().as_deref().unwrap_or_default();
    if !entries.iter().any(|entry| entry.action() == Action::ScmpActNotify && !entry.names().is_empty()) {
        return Ok(None);
    }
    match profile.listener_path() {
        Some(path) if !path.as_os_str().is_empty() => {
            Ok(Some(ListenerPlan { path: path.clone(), metadata: profile.listener_metadata().clone() }))
        }
        _ => Err(Error::invalid("seccomp listenerPath is not set")),
    }
}

/// Returns the flags for seccomp(2).
fn filter_flags(profile: &LinuxSeccomp, notifies: bool) -> u32 {
    // An absent list is not an empty one: runc then takes the speculation mitigation off, which
    // costs far more than the filter and which the kernel itself no longer adds for seccomp since
    // 5.16.
    let listed = profile.flags().as_deref().unwrap_or(&[Flag::SeccompFilterFlagSpecAllow]);
    let mut flags = if notifies { FLAG_NEW_LISTENER } else { 0 };
    for flag in listed {
        flags |= match flag {
            Flag::SeccompFilterFlagLog => FLAG_LOG,
            Flag::SeccompFilterFlagSpecAllow => FLAG_SPEC_ALLOW,
            // The process that loads the filter has one thread.
            Flag::SeccompFilterFlagTsync => 0,
            // The kernel refuses it (EINVAL) where there is nothing to wait for.
            Flag::SeccompFilterFlagWaitKillableRecv if notifies => FLAG_WAIT_KILLABLE_RECV,
            Flag::SeccompFilterFlagWaitKillableRecv => 0,
        };
    }
    flags
}

/// Returns everything that the program depends on, and nothing that it does not (flags and listener
/// differ between containers that share a profile).
fn cache_key(profile: &LinuxSeccomp) -> Result<Vec<u8>> {
    // Raised when the same profile gives another program from the same libseccomp.
    const GENERATION: u32 = 1;
    let mut key =
        format!("{GENERATION} {} {} {}\n", env!("CARGO_PKG_VERSION"), library_version(), std::env::consts::ARCH)
            .into_bytes();
    let content = (profile.default_action(), profile.default_errno_ret(), profile.architectures(), profile.syscalls());
    serde_json::to_writer(&mut key, &content).map_err(|err| Error::other(format!("write seccomp profile: {err}")))?;
    Ok(key)
}

#[cfg(test)]
mod tests;
