//! The names other than our own that the program is executed under.

use stasis::criu::tar;
use std::ffi::OsString;
use std::io::Write;

/// Does what is asked for under another name, and returns the exit code; none for a command line of our own.
pub fn run(argv: &[OsString]) -> Option<u8> {
    let (name, args) = argv.split_first()?;
    if !tar::is_meant(name) {
        return None;
    }
    let code = tar::run(args).unwrap_or_else(|err| {
        // In the form of CRIU's own errors, which are looked for in its log when it fails.
        _ = writeln!(std::io::stderr(), "Error (stasis): {err}");
        super::FAILURE
    });
    Some(code)
}
