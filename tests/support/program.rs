//! Programs of the tests' own that run inside containers: C, since they hold what a shell cannot, and static, since a
//! root file system has no libraries.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles tests/programs/NAME.c, unless that is done, and returns the program.
#[track_caller]
pub fn program(name: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(name).with_extension("c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let modified = |path: &Path| path.metadata().and_then(|found| found.modified()).ok();
    if modified(&program) < modified(&source) {
        // Another test may be at it too.
        let new = tempfile::Builder::new().prefix(name).tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-O1", "-Wall", "-Wextra", "-Werror", "-static", "-o"]).arg(new.path()).arg(&source);
        assert!(compiler.status().expect("a C compiler").success(), "{compiler:?}");
        std::fs::rename(new.into_temp_path(), &program).unwrap();
    }
    program
}

/// Copies a program, by a process of its own: a descriptor of ours that is open for writing may go on in what another
/// test starts at that moment, and what is open for writing is not executed (ETXTBSY).
#[track_caller]
pub fn copy_program(program: &Path, to: &Path) {
    let mut copy = Command::new("cp");
    copy.arg("-p").arg(program).arg(to);
    assert!(copy.status().unwrap().success(), "{copy:?}");
}
