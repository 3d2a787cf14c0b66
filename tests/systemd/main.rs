//! Cgroups that systemd makes: a real systemd of the tests' own is asked for them, and asked again what has become of
//! them.
//!
//! There is one for each layout of the hierarchies ([`host::Host::shared`]). `RUNTIME=runc` runs the same tests on runc.

// A test fails by panicking; clippy's own exceptions end at functions that are no #[test].
#![allow(clippy::unwrap_used, clippy::expect_used)]

// First, for its macros.
#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod checkpoint;
mod host;
mod limits;
mod scopes;
mod user;
