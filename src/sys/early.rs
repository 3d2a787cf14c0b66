//! The first instructions of the program: executing itself from a sealed overlay before libc is set up.
//!
//! Why sealed, and what an overlay has to do with it, is in crate::seal. Here it is done as early as can be: on a
//! virtual machine the set-up of a static glibc takes 0.3 ms, most of it for CPUID instructions that trap, and a program
//! that executes itself pays it twice. The linker makes `stasis_entry` the entry point (build.rs); it calls
//! `seal_early`, which returns if there is nothing to seal or it did not work out, and goes on to libc's `_start`.
//! main then finds out and decides (crate::seal::run_sealed).
//!
//! Before libc nothing of libc works: no memory functions (they are chosen by code that has not run), no errno, no
//! thread-local storage. So this is system calls by instruction, and loops by volatile access, which the compiler does
//! not turn into calls of memcpy, memset and strlen.

use core::arch::asm;
use core::mem::MaybeUninit;
use core::ptr::{read_volatile, write_volatile};
use nix::libc;

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".globl stasis_entry",
    ".type stasis_entry,@function",
    "stasis_entry:",
    // rdx is for _start; two pushes keep the stack aligned for the call.
    "push rdx",
    "push rdx",
    "lea rdi, [rsp + 16]",
    "call {early}",
    "pop rdx",
    "pop rdx",
    "jmp _start",
    early = sym seal_early,
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".globl stasis_entry",
    ".type stasis_entry,@function",
    "stasis_entry:",
    // x0 is for _start.
    "str x0, [sp, #-16]!",
    "add x0, sp, #16",
    "bl {early}",
    "ldr x0, [sp], #16",
    "b _start",
    early = sym seal_early,
);

/// Makes a system call; returns what the kernel returns, a negative error number for a failure.
///
/// # Safety
///
/// As for the call itself.
unsafe fn call(number: libc::c_long, a: [usize; 6]) -> isize {
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the kernel's convention: it changes rax, rcx and r11, and memory as the call says.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3], in("r8") a[4], in("r9") a[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the kernel's convention: it changes x0, and memory as the call says.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number as isize,
            inlateout("x0") a[0] as isize => result,
            in("x1") a[1], in("x2") a[2], in("x3") a[3], in("x4") a[4], in("x5") a[5],
            options(nostack),
        );
    }
    result
}

/// A descriptor, closed when it goes out of scope.
struct Fd(usize);

impl Fd {
    fn from(result: isize) -> Option<Self> {
        usize::try_from(result).ok().map(Self)
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: the descriptor is ours, and nobody uses it after this.
        unsafe { call(libc::SYS_close, [self.0, 0, 0, 0, 0, 0]) };
    }
}

/// The verbs that put a process into a container, which could then reach our own binary.
const VERBS: [&[u8]; 4] = [b"create\0", b"exec\0", b"restore\0", b"run\0"];

/// Tells whether one of the arguments is a verb that enters a container. A container called `run` only costs an execve.
unsafe fn may_enter(mut argv: *const *const u8) -> bool {
    // SAFETY: the caller passes a null-terminated array of C strings, and no more than their bytes are read.
    unsafe {
        while !read_volatile(argv).is_null() {
            for verb in VERBS {
                let mut at = 0;
                while read_volatile((*argv).add(at)) == verb[at] {
                    if verb[at] == 0 {
                        return true;
                    }
                    at += 1;
                }
            }
            argv = argv.add(1);
        }
    }
    false
}

/// Executes us from a sealed overlay, if the arguments on the initial stack ask for it; returns otherwise.
unsafe extern "C" fn seal_early(stack: *const usize) {
    // SAFETY: the kernel puts argc, the arguments, null, the environment and null on a new program's stack.
    unsafe {
        let argv: *const *const u8 = stack.add(1).cast();
        if may_enter(argv) && is_on_restricted_overlay(EXE) == Ok(false) {
            execute_from_overlay(argv, argv.add(*stack + 1));
        }
    }
}

/// Executes us from an overlay of the directory that our program is in: read-only, without an upper layer, attached
/// nowhere. Returns if it is not possible.
///
/// # Safety
///
/// Both arrays hold C strings and end in null.
pub unsafe fn execute_from_overlay(argv: *const *const u8, envp: *const *const u8) {
    // SAFETY: passed on.
    let _closed_by_now = unsafe { try_overlay(argv, envp) };
}

const EXE: &core::ffi::CStr = c"/proc/self/exe";
const HERE: usize = libc::AT_FDCWD as isize as usize;

/// What the mount of the overlay is restricted to, and how statfs(2) shows it; the last is ST_NOSYMFOLLOW (5.14).
const ATTRIBUTES: u64 =
    libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOSYMFOLLOW;
const SHOWN: u64 = libc::ST_RDONLY | libc::ST_NOSUID | libc::ST_NODEV | 0x2000;

/// The layer below the program's, since an overlay without an upper layer wants two. What it holds is never seen: the
/// program is found in the layer above. In a user namespace it may have no mounts inside.
const SECOND_LAYER: &core::ffi::CStr = c"/sys/module";

unsafe fn try_overlay(argv: *const *const u8, envp: *const *const u8) -> Option<()> {
    let mut path = MaybeUninit::<[u8; libc::PATH_MAX as usize]>::uninit();
    let path = path.as_mut_ptr().cast::<u8>();
    // SAFETY: every pointer is to a C string constant, or to a buffer on this stack whose size is passed or fixed by the
    // call; the arrays are the caller's.
    unsafe {
        let len = usize::try_from(call(
            libc::SYS_readlinkat,
            [HERE, EXE.as_ptr() as usize, path as usize, libc::PATH_MAX as usize - 1, 0, 0],
        ))
        .ok()?;
        let name = split(path, len)?;
        let upper = open(path, libc::O_DIRECTORY)?;
        if !is_our_program(&upper, name) {
            return None;
        }
        let lower = open(SECOND_LAYER.as_ptr().cast(), libc::O_DIRECTORY)?;
        let mount = overlay(&upper, &lower)?;
        let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let image = Fd::from(call(libc::SYS_openat, [mount.0, name as usize, flags as usize, 0, 0, 0]))?;
        let empty = c"".as_ptr() as usize;
        let flags = libc::AT_EMPTY_PATH as usize;
        call(libc::SYS_execveat, [image.0, empty, argv as usize, envp as usize, flags, 0]);
    }
    None
}

/// Tells whether a path leads to an overlay with the restrictions of ours; fails as a system call does. main looks closer.
pub(super) fn is_on_restricted_overlay(path: &core::ffi::CStr) -> Result<bool, isize> {
    let mut status = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the path is a C string, and the kernel fills the structure if it reports success.
    unsafe {
        let done = call(libc::SYS_statfs, [path.as_ptr() as usize, status.as_mut_ptr() as usize, 0, 0, 0, 0]);
        if done < 0 {
            return Err(done);
        }
        let status = status.as_ptr();
        // f_flags, which the libc crate hides among the spare fields, follows f_frsize.
        let restricted = (&raw const (*status).f_frsize).add(1).read() as u64 & SHOWN == SHOWN;
        Ok(restricted && (*status).f_type == libc::OVERLAYFS_SUPER_MAGIC)
    }
}

/// Ends the path before its last slash and returns the name behind it; none for a program right below `/` or /sys.
unsafe fn split(path: *mut u8, len: usize) -> Option<*const u8> {
    // SAFETY: the caller passes a buffer that is longer than `len`, and only that much and one more is touched.
    unsafe {
        write_volatile(path.add(len), 0);
        let below_sys = (0..5).all(|at| at < len && read_volatile(path.add(at)) == b"/sys/"[at]);
        let slash = (0..len).rev().find(|&at| read_volatile(path.add(at)) == b'/')?;
        if slash == 0 || below_sys {
            return None;
        }
        write_volatile(path.add(slash), 0);
        Some(path.add(slash + 1))
    }
}

unsafe fn open(path: *const u8, flags: libc::c_int) -> Option<Fd> {
    let flags = (flags | libc::O_PATH | libc::O_CLOEXEC) as usize;
    // SAFETY: the caller passes a C string.
    Fd::from(unsafe { call(libc::SYS_openat, [HERE, path as usize, flags, 0, 0, 0]) })
}

/// Tells whether `name` in the directory is the file that we run from: it may have been replaced since, or lie in a
/// mount namespace that is not ours any more.
unsafe fn is_our_program(directory: &Fd, name: *const u8) -> bool {
    let mut found = MaybeUninit::<libc::stat>::uninit();
    let mut ours = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `name` is the caller's C string, EXE a constant; the kernel fills both structures if it reports success.
    unsafe {
        let nofollow = libc::AT_SYMLINK_NOFOLLOW as usize;
        let stat = |at: usize, path: usize, to: usize, flags: usize| {
            call(libc::SYS_newfstatat, [at, path, to, flags, 0, 0]) == 0
        };
        stat(directory.0, name as usize, found.as_mut_ptr() as usize, nofollow)
            && stat(HERE, EXE.as_ptr() as usize, ours.as_mut_ptr() as usize, 0)
            && (*found.as_ptr()).st_dev == (*ours.as_ptr()).st_dev
            && (*found.as_ptr()).st_ino == (*ours.as_ptr()).st_ino
    }
}

/// Mounts an overlay of two directories, without an upper one: nothing can ever be written through it. The mount is
/// attached nowhere and goes with its last user.
unsafe fn overlay(upper: &Fd, lower: &Fd) -> Option<Fd> {
    // By descriptor, since a colon or backslash in a path would have a meaning of its own: twice "/proc/self/fd/", a
    // number of at most ten digits, and a colon or the end.
    let mut layers = MaybeUninit::<[u8; 2 * 25]>::uninit();
    let layers = layers.as_mut_ptr().cast::<u8>();
    // SAFETY: the buffer has room for both paths; keys and values are C strings on this stack or constants.
    unsafe {
        let end = write_descriptor_path(layers, upper);
        write_volatile(end, b':');
        write_volatile(write_descriptor_path(end.add(1), lower), 0);
        let fs = Fd::from(call(libc::SYS_fsopen, [c"overlay".as_ptr() as usize, 1, 0, 0, 0, 0]))?;
        let set = |key: &core::ffi::CStr, value: *const u8| {
            call(libc::SYS_fsconfig, [fs.0, 1, key.as_ptr() as usize, value as usize, 0, 0])
        };
        if set(c"lowerdir", layers) < 0 {
            return None;
        }
        // Inode numbers are nobody's concern here, and without this the kernel may log how it makes them up for layers
        // on different file systems. An overlay that does not know the option is as good.
        set(c"xino", c"off".as_ptr().cast());
        let created = call(libc::SYS_fsconfig, [fs.0, 6, 0, 0, 0, 0]);
        if created < 0 {
            return None;
        }
        Fd::from(call(libc::SYS_fsmount, [fs.0, 1, ATTRIBUTES as usize, 0, 0, 0]))
    }
}

/// Writes `/proc/self/fd/N` and returns where it ends.
unsafe fn write_descriptor_path(mut to: *mut u8, fd: &Fd) -> *mut u8 {
    // SAFETY: the caller has room for the prefix and ten digits.
    unsafe {
        for &byte in b"/proc/self/fd/" {
            write_volatile(to, byte);
            to = to.add(1);
        }
        let mut unit = 1;
        while fd.0 / unit >= 10 {
            unit *= 10;
        }
        while unit > 0 {
            write_volatile(to, b'0' + (fd.0 / unit % 10) as u8);
            to = to.add(1);
            unit /= 10;
        }
    }
    to
}
