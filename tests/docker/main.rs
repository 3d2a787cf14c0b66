//! The runtime under dockerd: a real dockerd is started with it in daemon.json, and driven by docker's client.
//!
//! Tests share the daemon ([`daemon::Daemon::shared`]) and run beside each other, each with containers of its own.
//! `RUNTIME=runc` runs the same tests on runc; a test that cannot pass there says why.

// A test fails by panicking; clippy's own exceptions end at functions that are no #[test].
#![allow(clippy::unwrap_used, clippy::expect_used)]

// First, for its macros.
#[macro_use]
#[path = "../support/mod.rs"]
mod support;

/// Returns the daemon, or ends the test as skipped where there cannot be one.
macro_rules! docker {
    () => {{
        requires!(root, docker);
        $crate::daemon::Daemon::shared()
    }};
}

mod checkpoint;
mod confinement;
mod container;
mod daemon;
mod exec;
mod ipc;
mod lifecycle;
mod limits;
mod mounts;
mod process;
mod remains;
mod run;
