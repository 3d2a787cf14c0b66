//! The program's start, in the place of std's.
//!
//! Before its `main`, std prepares to tell of stack overflows. For that libc looks the stack up in /proc/self/maps, and
//! a stack for the handler is mapped: 0.1 ms, a fifteenth of all that a start does before the clone. What else std does
//! is done here. Arguments reach std all the same, by glibc's `.init_array`. A panic or an overflow of the stack ends the
//! program by its signal.

use nix::libc;

#[cfg(not(target_env = "gnu"))]
compile_error!("std learns of the arguments by glibc alone");

/// Makes a function that returns an exit code the program's `main`, which libc calls. The crate has `no_main`.
#[macro_export]
macro_rules! program {
    ($main:path) => {
        #[cfg(not(test))]
        // SAFETY: no other function of the program has the name, and this one has libc's type for it.
        #[unsafe(no_mangle)]
        extern "C" fn main(_argc: std::ffi::c_int, _argv: *const *const std::ffi::c_char) -> std::ffi::c_int {
            $crate::sys::start::prepare();
            $crate::sys::start::end($main())
        }

        #[cfg(test)]
        fn main() {
            $main();
        }
    };
}

/// Has a closed pipe be an error of those who write to it, and nothing that we open become a standard stream.
pub fn prepare() {
    // SAFETY: SIG_IGN is no handler of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    for stream in 0..3 {
        // SAFETY: F_GETFD touches no memory, and fails only for a descriptor that is closed.
        let is_open = unsafe { libc::fcntl(stream, libc::F_GETFD) } >= 0;
        // Gets the lowest number that is free, which is that one.
        // SAFETY: the path is a constant.
        if !is_open && unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) } != stream {
            std::process::abort();
        }
    }
}

/// Ends the program: what is printed is out, and libc has nothing of ours to look after.
pub fn end(code: u8) -> ! {
    crate::sys::clone::exit_now(code.into())
}
