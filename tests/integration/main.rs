//! Behaviour of the runtime, seen through its command line on the real kernel: a file per area, 5-10 lines a test.
//!
//! `RUNTIME=runc` runs the same tests on runc; a test that cannot pass there says why.

// A test fails by panicking; clippy's own exceptions end at functions that are no #[test].
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod architecture;
mod binds;
mod capabilities;
mod cgroups;
mod cli;
mod console;
mod copy_up;
mod escapes;
mod events;
mod exec;
mod failures;
mod foreign;
mod hooks;
mod idmap;
mod ipc;
mod leaks;
mod lifecycle;
mod mounts;
mod namespaces;
mod net_devices;
mod notify;
mod phrases;
mod placement;
mod process;
mod rootless;
mod seccomp;
mod security;
mod update;
#[macro_use]
#[path = "../support/mod.rs"]
mod support;
