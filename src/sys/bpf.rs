//! bpf(2), for the one kind of program that a runtime has: the filter of a cgroup's access to
//! devices.
//!
//! Programs are loaded, attached to the directory of a cgroup on the unified hierarchy, listed and
//! detached. What a program says is `plan::cgroup`'s work.

use std::ffi::CStr;
use std::mem::size_of_val;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Result, cvt};
use crate::plan::cgroup::Instruction;

// Commands, types and flags of linux/bpf.h.
const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_TYPE_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 1 << 1;
const REPLACE: u32 = 1 << 2;

/// The kernel refuses to attach more programs than this to one cgroup (BPF_CGROUP_MAX_PROGS).
const MAX_PROGRAMS: usize = 64;

/// A program's licence decides which functions of the kernel it may call. Ours calls none.
const LICENSE: &CStr = c"Apache-2.0";

/// The part of `union bpf_attr` that loads a program.
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// The part of `union bpf_attr` that attaches and detaches.
#[repr(C)]
#[derive(Default)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

/// The part of `union bpf_attr` that lists the programs of a cgroup, up to the last field that any
/// kernel writes to: it does so (`revision`, 6.17) without a look at the length that it was given.
#[repr(C)]
#[derive(Default)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    reserved: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// The part of `union bpf_attr` that opens a program by its number.
#[repr(C)]
#[derive(Default)]
struct GetById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Returns a program that filters access to devices. Needs CAP_BPF or CAP_SYS_ADMIN in the first
/// user namespace.
pub fn load_device_filter(program: &[Instruction]) -> Result<OwnedFd> {
    let mut attributes = Load {
        prog_type: PROG_TYPE_CGROUP_DEVICE,
        // A longer program than this counter can tell is refused by the kernel all the same (1M
        // instructions).
        insn_cnt: u32::try_from(program.len()).unwrap_or(u32::MAX),
        insns: program.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        ..Load::default()
    };
    // SAFETY: the two addresses in `attributes` are those of `program`, which has `insn_cnt`
    // elements laid out like struct bpf_insn (repr(C)), and of a static C string; the kernel only
    // reads them, during the call. Log and name are unset.
    unsafe { bpf_fd(PROG_LOAD, &mut attributes) }
}

/// Attaches a program to a cgroup, in place of `replaced` if that is given, and beside any other
/// program.
pub fn attach_device_filter(cgroup: BorrowedFd, program: BorrowedFd, replaced: Option<BorrowedFd>) -> Result<()> {
    let mut attributes = Attach {
        target_fd: number(cgroup),
        attach_bpf_fd: number(program),
        attach_type: ATTACH_TYPE_DEVICE,
        attach_flags: ALLOW_MULTI | if replaced.is_some() { REPLACE } else { 0 },
        replace_bpf_fd: replaced.map_or(0, number),
    };
    // SAFETY: this command has no addresses in its attributes, and its descriptors are borrowed for
    // the call.
    unsafe { bpf(PROG_ATTACH, &mut attributes) }.map(drop)
}

/// Takes a program from a cgroup.
pub fn detach_device_filter(cgroup: BorrowedFd, program: BorrowedFd) -> Result<()> {
    let mut attributes = Attach {
        target_fd: number(cgroup),
        attach_bpf_fd: number(program),
        attach_type: ATTACH_TYPE_DEVICE,
        ..Attach::default()
    };
    // SAFETY: this command has no addresses in its attributes, and its descriptors are borrowed for
    // the call.
    unsafe { bpf(PROG_DETACH, &mut attributes) }.map(drop)
}

/// Returns the programs that are attached to a cgroup itself. Opening them needs CAP_SYS_ADMIN.
pub fn device_filters(cgroup: BorrowedFd) -> Result<Vec<OwnedFd>> {
    let mut ids = [0u32; MAX_PROGRAMS];
    let mut attributes = Query {
        target_fd: number(cgroup),
        attach_type: ATTACH_TYPE_DEVICE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: MAX_PROGRAMS as u32,
        ..Query::default()
    };
    // SAFETY: the one address is that of `ids`, which lives through the call and has room for the
    // `prog_cnt` numbers that the kernel may write there.
    unsafe { bpf(PROG_QUERY, &mut attributes) }?;
    let count = (attributes.prog_cnt as usize).min(MAX_PROGRAMS);
    let open = |id: &u32| {
        let mut attributes = GetById { id: *id, ..GetById::default() };
        // SAFETY: this command has no addresses in its attributes.
        unsafe { bpf_fd(PROG_GET_FD_BY_ID, &mut attributes) }
    };
    ids[..count].iter().map(open).collect()
}

fn number(fd: BorrowedFd) -> u32 {
    // A borrowed descriptor is never negative.
    fd.as_raw_fd() as u32
}

/// Calls bpf(2).
///
/// # Safety
///
/// `attributes` is the part of `union bpf_attr` that belongs to `command`, in the kernel's layout
/// and at least as long as what the kernel writes back, and every address in it is good for what
/// the kernel does with it.
unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> Result<libc::c_long> {
    let size = size_of_val(attributes);
    // SAFETY: the address and size are those of `attributes`, which is borrowed for the call; the
    // rest is the caller's.
    cvt(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size) })
}

/// Calls bpf(2) with a command that returns a descriptor.
///
/// # Safety
///
/// As for [`bpf`].
unsafe fn bpf_fd<T>(command: libc::c_int, attributes: &mut T) -> Result<OwnedFd> {
    // SAFETY: as for the caller.
    let fd = unsafe { bpf(command, attributes) }?;
    // SAFETY: the kernel has just made this descriptor (close-on-exec, as all of bpf(2)'s are), and
    // nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
