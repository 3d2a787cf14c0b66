//! What every test stands on: a bundle with a busybox root, a runtime that is driven by its command line, and the
//! prerequisites of a test.
//!
//! A test is a few lines: [`Bundle::sh`] makes a bundle, [`Bundle::with`] edits its config.json, `run`, `create` and
//! `start` hand it to the runtime. Tests run beside each other: everything has a name and a directory of its own, and
//! goes away when the test ends. `RUNTIME=runc` (or crun) runs the same tests on another runtime, as the oracle.

// Each test binary uses a part of this, and a test fails by panicking.
#![allow(dead_code, unused_imports, clippy::unwrap_used, clippy::expect_used)]

mod bundle;
mod console;
mod enclosure;
mod host_tmpfs;
mod keeper;
mod output;
mod program;
mod remains;
mod requirements;
mod runtime;

pub use bundle::Bundle;
pub use console::{Console, exists, read_until, type_line};
pub use enclosure::{Enclosure, archive, children, image};
pub use host_tmpfs::{HostTmpfs, with_shm};
pub use keeper::keeps;
pub use output::Output;
pub use program::{copy_program, program};
pub use remains::{cycles, files};
pub use requirements::{CRUN, DATABASES, Lacking, has_v1, is_oracle, lacks, skip};
pub use runtime::{Layout, Runtime, wait_until};

/// Ends the test, as skipped, unless the machine has everything that is named: `requires!(root, criu)`.
///
/// With `STRICT=1`, as in CI, a missing prerequisite is a failure: green means tested.
#[macro_export]
macro_rules! requires {
    ($($what:ident),+ $(,)?) => {
        if $crate::support::lacks(&[$(stringify!($what)),+]) {
            return;
        }
    };
}

/// Ends the test when the runtime is an oracle on which it cannot pass, and says why it cannot.
#[macro_export]
macro_rules! ours_only {
    ($reason:literal) => {
        if $crate::support::is_oracle() {
            return $crate::support::skip(concat!("oracle: ", $reason));
        }
    };
}
