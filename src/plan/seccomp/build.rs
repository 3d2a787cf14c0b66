//! Checked rules -> instructions, through libseccomp. The only file that makes a libseccomp filter.

use super::compact::compact;
use super::{MAX_INSTRUCTIONS, Rules, newer};
use crate::error::{Context, Error, Result};
use libc::sock_filter;
use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArch, ScmpFilterContext, ScmpSyscall};
use nix::sys::memfd::{MFdFlags, memfd_create};
use oci_spec::runtime::Arch;
use std::fs::File;
use std::io::{Read, Seek};

/// With more rules than this, libseccomp sorts them into a binary tree. runc's bound: below it the
/// tree has nothing to win, and libseccomp up to 2.5.4 goes wrong with an empty one.
const TREE_MIN_RULES: usize = 32;
/// libseccomp's API level that knows notifications.
const NOTIFY_API_LEVEL: u32 = 6;

/// Returns the program, as short as we can write it.
pub(super) fn program(rules: &Rules<'_>) -> Result<Vec<sock_filter>> {
    let whole = whole(rules)?;
    let program = compact(&whole).unwrap_or(whole);
    if program.len() > MAX_INSTRUCTIONS {
        return Err(Error::invalid(format!(
            "seccomp profile needs {} instructions, the kernel takes {MAX_INSTRUCTIONS}",
            program.len()
        )));
    }
    Ok(program)
}

/// Returns the ENOSYS prefix if the profile calls for it, then what libseccomp makes of the rules.
pub(super) fn whole(rules: &Rules<'_>) -> Result<Vec<sock_filter>> {
    let mut program = newer::prefix(rules);
    program.append(&mut export(&filter(rules)?)?);
    Ok(program)
}

fn filter(rules: &Rules<'_>) -> Result<ScmpFilterContext> {
    let level = libseccomp::get_api();
    if level < NOTIFY_API_LEVEL && rules.rules.iter().any(|rule| rule.action == ScmpAction::Notify) {
        return Err(Error::invalid(format!(
            "seccomp notify unsupported: API level: got {level}, want at least {NOTIFY_API_LEVEL}. \
             Please try with libseccomp >= 2.5.0 and Linux >= 5.7"
        )));
    }
    let mut filter = ScmpFilterContext::new(rules.default).map_err(failed("error creating filter"))?;
    for arch in rules.architectures {
        let token = scmp_arch(*arch).map_err(failed("error validating Seccomp architecture"))?;
        filter
            .add_arch(token)
            .map_err(|err| Error::invalid(format!("error adding architecture {arch} to seccomp filter: {err}")))?;
    }
    if rules.rules.len() > TREE_MIN_RULES
        && let Err(err) = filter.set_ctl_optimize(2)
    {
        log::debug!("seccomp filter without a binary tree: {err}");
    }
    for rule in &rules.rules {
        // Profiles name calls of every kernel and architecture; those that this libseccomp does not
        // know are none of this machine's.
        let Ok(syscall) = ScmpSyscall::from_name(rule.name) else {
            log::debug!("unknown seccomp syscall {:?} ignored", rule.name);
            continue;
        };
        for conditions in &rule.alternatives {
            filter.add_rule_conditional(rule.action, syscall, conditions).map_err(|err| {
                Error::invalid(format!("error adding seccomp filter rule for syscall {}: {err}", rule.name))
            })?;
        }
    }
    Ok(filter)
}

/// Takes the instructions out of a libseccomp filter. Through a file in memory, since exporting to
/// a buffer came with libseccomp 2.6 only; a pipe could fill up.
fn export(filter: &ScmpFilterContext) -> Result<Vec<sock_filter>> {
    let attempt = || "export seccomp filter";
    let mut file = File::from(memfd_create(c"seccomp", MFdFlags::MFD_CLOEXEC).context(attempt)?);
    filter.export_bpf(&file).map_err(failed("export seccomp filter"))?;
    let mut bytes = Vec::new();
    file.rewind().context(attempt)?;
    file.read_to_end(&mut bytes).context(attempt)?;
    match decode(&bytes) {
        Some(program) => Ok(program),
        None => Err(Error::other("export seccomp filter: not a whole number of instructions")),
    }
}

/// Reads instructions as the kernel lays them out (struct sock_filter, in the machine's byte
/// order).
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<sock_filter>> {
    if bytes.len() % size_of::<sock_filter>() != 0 {
        return None;
    }
    let instruction = |bytes: &[u8]| match *bytes {
        [c0, c1, jt, jf, k0, k1, k2, k3] => {
            Some(sock_filter { code: u16::from_ne_bytes([c0, c1]), jt, jf, k: u32::from_ne_bytes([k0, k1, k2, k3]) })
        }
        _ => None,
    };
    bytes.chunks_exact(size_of::<sock_filter>()).map(instruction).collect()
}

/// Returns libseccomp's token for an architecture. Both sides use the names of libseccomp's header.
pub(super) fn scmp_arch(arch: Arch) -> std::result::Result<ScmpArch, SeccompError> {
    arch.to_string().parse()
}

fn failed(attempt: &str) -> impl FnOnce(SeccompError) -> Error {
    move |err| Error::other(format!("{attempt}: {err}"))
}
