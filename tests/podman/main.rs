//! The runtime under Podman, which runs it through conmon and has no daemon.
//!
//! Tests share Podman's directories ([`engine::Podman::shared`]) and run beside each other, each with containers of its
//! own. `RUNTIME=runc` runs the same tests on runc; a test that cannot pass there says why.

// A test fails by panicking; clippy's own exceptions end at functions that are no #[test].
#![allow(clippy::unwrap_used, clippy::expect_used)]

// First, for its macros.
#[macro_use]
#[path = "../support/mod.rs"]
mod support;

/// Returns Podman, or ends the test as skipped where there is none.
macro_rules! podman {
    () => {{
        requires!(root, podman);
        $crate::engine::Podman::shared()
    }};
}

mod checkpoint;
mod engine;
mod export;
mod ipc;
mod lifecycle;
mod remains;
mod rootless;
