//! Databases go through a checkpoint as they are: with what they have in shared memory and nowhere else, with clients
//! that stay connected, and in the middle of transactions.
//!
//! They are Debian's, unpacked by scripts/databases.sh into a root file system that the containers share and cannot
//! write to.

// A test fails by panicking; clippy's own exceptions end at functions that are no #[test].
#![allow(clippy::unwrap_used, clippy::expect_used)]

// First, for its macros.
#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod database;
mod postgres;
mod redis;
