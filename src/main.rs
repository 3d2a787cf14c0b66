//! The program: read the command line, carry the command out, end with its exit code; nothing else.
//!
//! A command that puts a process into a container runs from a sealed image of ourselves (seal.rs).

mod cli;

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    let code = cli::multicall::run(&argv).unwrap_or_else(|| match cli::Invocation::read(&argv) {
        Ok(invocation) => invocation.run(),
        Err(code) => code,
    });
    ExitCode::from(code)
}
