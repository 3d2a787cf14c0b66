//! The programs which runc's integration suite wants beside it, of our own: one file under all of their names, which
//! scripts/conformance.sh links where the suite looks for them. Options, output and exit codes are those that the suite
//! makes use of.

#![allow(clippy::disallowed_methods, reason = "threads: nothing here forks")]

mod args;
mod idmap;
mod receive;
mod remap;
mod seccomp_agent;

use anyhow::{Result, bail};
use args::Args;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            // The suite looks for the kernel's words as Go writes them.
            _ = writeln!(std::io::stderr(), "fatal error: {}", format!("{err:#}").to_lowercase());
            ExitCode::FAILURE
        }
    }
}

/// Is the program which it is called as.
fn run() -> Result<()> {
    let mut argv = std::env::args();
    let program = argv.next().unwrap_or_default();
    let args = Args::parse(argv);
    match Path::new(&program).file_name().and_then(|name| name.to_str()) {
        Some("recvtty") => receive::terminals(&args),
        Some("pidfd-kill") => receive::pidfd_kill(&args),
        Some("seccompagent") => seccomp_agent::serve(&args),
        Some("remap-rootfs") => remap::remap_bundle(Path::new(args.operand()?)),
        Some("fs-idmap") => idmap::check(Path::new(args.operand()?)),
        _ => bail!("{program} is none of the programs in this file"),
    }
}
