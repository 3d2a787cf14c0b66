//! What the library asks of the kernel, tried on the kernel, below the level of containers.
//!
//! A test here that changes its own process for good starts this binary again and lets a test that
//! is otherwise ignored do it there ([`again`]).

// A test fails by panicking; clippy's own exceptions end at functions that are no #[test].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

mod seal;
mod seccomp;

use std::process::{Command, Stdio};

/// Returns the command that runs the ignored test `name` of this binary, and only it, with its
/// output on a pipe.
fn again(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}
