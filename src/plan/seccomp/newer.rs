//! ENOSYS for system calls that are newer than the profile.
//!
//! A profile that denies by default answers EPERM to calls that did not exist when it was written,
//! and libc takes EPERM for a verdict where ENOSYS would make it use the older call (clone3,
//! faccessat2, fchmodat2 each broke containers that way). So, as runc does, a prefix before the
//! filter answers ENOSYS to every number above the highest that the profile mentions for that
//! architecture. Numbers are given out nearly in order since Linux 5.1, which makes this a fair
//! measure of its age.

use super::instruction::{IF_ANY_BIT, IF_EQUAL, IF_GREATER, JUMP, LOAD, OFFSET_ARCH, OFFSET_NR, RETURN, plain};
use super::{Rules, build::scmp_arch};
use libc::sock_filter;
use libseccomp::{ScmpAction, ScmpSyscall};
use oci_spec::runtime::Arch;

/// Set in the numbers of x32, which shares its architecture with x86-64 (__X32_SYSCALL_BIT,
/// asm/unistd.h).
const X32_BIT: u32 = 1 << 30;

/// The highest numbers that a profile mentions for one architecture of the kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Highest {
    /// AUDIT_ARCH_*, as the kernel shows it to the filter.
    audit: u32,
    /// Of the architecture's own calls.
    own: Option<u32>,
    /// Of x32's, with their bit set.
    x32: Option<u32>,
    /// Whether the call 0 stands for numbers too large for the instruction (s390's setup(2), dead
    /// as a call of its own: an unknown large number arrives as 0).
    zero_is_unknown: bool,
}

/// Returns the prefix for `rules`; it is empty where an unknown call would be let through anyway,
/// or gets ENOSYS anyway.
pub(super) fn prefix(rules: &Rules<'_>) -> Vec<sock_filter> {
    match rules.default {
        // A tracer decides about new calls by itself.
        ScmpAction::Allow | ScmpAction::Log | ScmpAction::Trace(_) => return Vec::new(),
        ScmpAction::Errno(libc::ENOSYS) => return Vec::new(),
        _ => {}
    }
    assemble(&highest(rules))
}

/// Finds the highest numbers, the native architecture first: most calls are made by it.
fn highest(rules: &Rules<'_>) -> Vec<Highest> {
    let mut all: Vec<Highest> = Vec::new();
    for arch in std::iter::once(&NATIVE).chain(rules.architectures) {
        let arch = if *arch == Arch::ScmpArchNative { NATIVE } else { *arch };
        let Ok(token) = scmp_arch(arch) else { continue };
        let number = |name: &&str| ScmpSyscall::from_name_by_arch(name, token).ok().map(|call| call.as_raw_syscall());
        // Calls that the architecture lacks have negative stand-ins.
        let number = rules.names.iter().filter_map(number).filter_map(|nr| u32::try_from(nr).ok()).max();
        let Some(number) = number.filter(|nr| *nr > 0) else {
            log::debug!("could not find any syscalls for arch {arch}");
            continue;
        };
        let is_x32 = arch == Arch::ScmpArchX32;
        // All other tokens are the kernel's own numbers.
        let audit = if is_x32 { Arch::ScmpArchX86_64 as u32 } else { arch as u32 };
        let slot = match all.iter().position(|entry| entry.audit == audit) {
            Some(slot) => slot,
            None => {
                let zero_is_unknown = matches!(arch, Arch::ScmpArchS390 | Arch::ScmpArchS390x);
                all.push(Highest { audit, own: None, x32: None, zero_is_unknown });
                all.len() - 1
            }
        };
        let entry = &mut all[slot];
        *(if is_x32 { &mut entry.x32 } else { &mut entry.own }) = Some(number);
    }
    all
}

/// Writes the prefix: one block for each architecture, which the others jump over. What no block
/// turns away falls through to the filter behind the prefix.
fn assemble(all: &[Highest]) -> Vec<sock_filter> {
    if all.is_empty() {
        return Vec::new();
    }
    let blocks: Vec<Vec<sock_filter>> = all.iter().map(block).collect();
    let mut remaining: usize = blocks.iter().map(Vec::len).sum();
    let mut program = vec![plain(LOAD, OFFSET_ARCH)];
    for mut block in blocks {
        remaining -= block.len();
        // The last but one leaves for the filter, over its own return and the blocks that follow.
        let leave = block.len() - 2;
        block[leave].k = (remaining + 1) as u32;
        program.append(&mut block);
    }
    program
}

/// Writes one architecture's block: compare, load the number, the tests, leave for the filter,
/// return ENOSYS.
fn block(highest: &Highest) -> Vec<sock_filter> {
    // Each test says where to go when it holds: on to the exit for the filter, or to the return
    // behind it.
    enum To {
        Filter,
        Unknown,
    }
    let mut tests = Vec::new();
    if highest.zero_is_unknown {
        tests.push((IF_EQUAL, 0, To::Unknown));
    }
    if highest.audit == Arch::ScmpArchX86_64 as u32 {
        // x32's numbers are above all others. Those without a limit of their own are the filter's
        // affair.
        if let Some(last) = highest.x32 {
            tests.push((IF_GREATER, last, To::Unknown));
        }
        tests.push((IF_ANY_BIT, X32_BIT, To::Filter));
    }
    if let Some(last) = highest.own {
        tests.push((IF_GREATER, last, To::Unknown));
    }
    let mut block = vec![
        // Skips the rest: the load, the tests, the exit and the return.
        sock_filter { code: IF_EQUAL, jt: 0, jf: tests.len() as u8 + 3, k: highest.audit },
        plain(LOAD, OFFSET_NR),
    ];
    for (index, (code, k, to)) in tests.iter().enumerate() {
        let exit = (tests.len() - index - 1) as u8;
        let jt = match to {
            To::Filter => exit,
            To::Unknown => exit + 1,
        };
        block.push(sock_filter { code: *code, jt, jf: 0, k: *k });
    }
    block.push(plain(JUMP, 0));
    block.push(plain(RETURN, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32));
    block
}

/// The architecture that we are built for.
const NATIVE: Arch = {
    if cfg!(all(target_arch = "x86_64", target_pointer_width = "64")) {
        Arch::ScmpArchX86_64
    } else if cfg!(target_arch = "x86") {
        Arch::ScmpArchX86
    } else if cfg!(target_arch = "aarch64") {
        Arch::ScmpArchAarch64
    } else if cfg!(target_arch = "arm") {
        Arch::ScmpArchArm
    } else if cfg!(target_arch = "riscv64") {
        Arch::ScmpArchRiscv64
    } else if cfg!(target_arch = "s390x") {
        Arch::ScmpArchS390x
    } else if cfg!(all(target_arch = "powerpc64", target_endian = "little")) {
        Arch::ScmpArchPpc64le
    } else if cfg!(target_arch = "powerpc64") {
        Arch::ScmpArchPpc64
    } else if cfg!(target_arch = "loongarch64") {
        Arch::ScmpArchLoongarch64
    } else {
        // No token: libseccomp refuses to resolve names for it, so such a machine gets no prefix.
        Arch::ScmpArchNative
    }
};

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::super::tests::run;
    use super::*;

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const UNKNOWN: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

    #[test]
    fn blocks_of_many_architectures_lead_to_the_same_filter() {
        let (x86_64, s390x) = (Arch::ScmpArchX86_64 as u32, Arch::ScmpArchS390x as u32);
        let highest = |audit, own, x32| Highest { audit, own, x32, zero_is_unknown: audit == s390x };
        let mut program = assemble(&[
            highest(Arch::ScmpArchAarch64 as u32, Some(10), None),
            highest(x86_64, None, Some(X32_BIT | 20)),
            highest(s390x, Some(30), None),
        ]);
        program.push(plain(RETURN, ALLOW));
        for (audit, nr, expected) in [
            (Arch::ScmpArchAarch64 as u32, 10, ALLOW),
            (Arch::ScmpArchAarch64 as u32, 11, UNKNOWN),
            (x86_64, 9999, ALLOW),
            (x86_64, X32_BIT | 20, ALLOW),
            (x86_64, X32_BIT | 21, UNKNOWN),
            (s390x, 0, UNKNOWN),
            (s390x, 1, ALLOW),
            (s390x, 31, UNKNOWN),
            (Arch::ScmpArchX86 as u32, 9999, ALLOW),
        ] {
            assert_eq!(run(&program, audit, nr, &[]), expected, "{audit:#x} {nr:#x}");
        }
        assert!(assemble(&[]).is_empty());
    }
}
