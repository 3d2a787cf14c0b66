//! The runtime under containerd: a real one is started, and driven by its own client, ctr.
//!
//! Tests share the daemon ([`engine::Containerd::shared`]) and run beside each other, each with containers of its own.
//! `RUNTIME=runc` runs the same tests on runc; a test that cannot pass there says why.

// A test fails by panicking; clippy's own exceptions end at functions that are no #[test].
#![allow(clippy::unwrap_used, clippy::expect_used)]

// First, for its macros.
#[macro_use]
#[path = "../support/mod.rs"]
mod support;

/// Returns containerd, or ends the test as skipped where there cannot be one.
macro_rules! containerd {
    () => {{
        requires!(root, containerd);
        $crate::engine::Containerd::shared()
    }};
}

mod checkpoint;
mod engine;
mod lifecycle;
mod remains;
