//! The program: read the command line, carry the command out, end with its exit code; nothing else.
//!
//! A command that puts a process into a container runs from a sealed image of ourselves (seal.rs).

#![cfg_attr(not(test), no_main)]

mod cli;

use std::ffi::OsString;

stasis::program!(run);

fn run() -> u8 {
    let argv: Vec<OsString> = std::env::args_os().collect();
    cli::multicall::run(&argv).unwrap_or_else(|| match cli::Invocation::read(&argv) {
        Ok(invocation) => invocation.run(),
        Err(code) => code,
    })
}
