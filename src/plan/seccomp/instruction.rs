//! The instructions of classic BPF that filters begin with (linux/bpf_common.h), and what they load (struct
//! seccomp_data, linux/seccomp.h).

use libc::sock_filter;

/// Where the number of the system call is.
pub(super) const OFFSET_NR: u32 = 0;
/// Where its architecture is. The arguments are behind it.
pub(super) const OFFSET_ARCH: u32 = 4;

/// Loads four bytes of the data.
pub(super) const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
/// Goes on so many instructions further.
pub(super) const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
/// These go on `jt` instructions further if what is loaded compares so with the constant, and `jf` else.
pub(super) const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
pub(super) const IF_GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
pub(super) const IF_NOT_LESS: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
pub(super) const IF_ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
/// Ends with a verdict.
pub(super) const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Returns an instruction that does not branch.
pub(super) const fn plain(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}
