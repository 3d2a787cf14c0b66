//! The sealed image of ourselves (CVE-2019-5736): it cannot be written while it runs, nor after,
//! and the process is otherwise the one that was asked for.

use crate::again;
use caps::{CapSet, Capability};
use nix::errno::Errno;
use stasis::seal::{Outcome, run_sealed};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Tells the sealed process to do without the privilege that an overlay needs.
const UNPRIVILEGED: &str = "STASIS_TEST_UNPRIVILEGED";

#[test]
#[ignore = "started by the tests below"]
fn seals_itself_and_waits() {
    if std::env::var_os(UNPRIVILEGED).is_some() {
        caps::drop(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).unwrap();
    }
    let outcome = run_sealed(std::env::args_os()).unwrap();
    println!("\nsealed: {outcome:?}");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// Starts `command` and returns it once it says that it is sealed, and how.
fn sealed(command: &mut Command) -> (Child, String) {
    let mut child = command.spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let line = output.lines().map(Result::unwrap).find(|line| line.starts_with("sealed: "));
    (child, line.expect("sealed").replace("sealed: ", ""))
}

/// Tries to change the file at `path` in every way, and returns how each failed.
fn attack(path: &Path) -> Vec<Errno> {
    let write = |options: &mut OpenOptions| -> std::io::Result<()> { options.open(path)?.write_all(b"#!/bin/evil") };
    [
        write(OpenOptions::new().write(true)),
        write(OpenOptions::new().read(true).write(true)),
        write(OpenOptions::new().append(true)),
        write(OpenOptions::new().write(true).truncate(true)),
        nix::unistd::truncate(path, 0).map_err(Into::into),
    ]
    .into_iter()
    .map(|tried| Errno::from_raw(tried.expect_err("was changed").raw_os_error().unwrap()))
    .collect()
}

fn cannot_be_written(command: &mut Command, expected: Outcome) {
    let before = std::env::current_exe().unwrap().metadata().unwrap();
    let (mut child, outcome) = sealed(command);
    assert_eq!(outcome, format!("{expected:?}"));
    let exe = format!("/proc/{}/exe", child.id());
    let exe = Path::new(&exe);
    let kept = OpenOptions::new().read(true).custom_flags(nix::libc::O_PATH).open(exe).unwrap();
    let kept = Path::new("/proc/self/fd").join(kept_number(&kept));

    attack(exe);
    child.kill().unwrap();
    child.wait().unwrap();
    // ETXTBSY protected it only while it ran; this is what the sealing is for.
    for errno in attack(&kept) {
        assert!(matches!(errno, Errno::EROFS | Errno::EPERM), "{errno}");
    }
    let after = std::env::current_exe().unwrap().metadata().unwrap();
    assert_eq!((before.len(), before.modified().unwrap()), (after.len(), after.modified().unwrap()));
}

fn kept_number(file: &File) -> String {
    file.as_raw_fd().to_string()
}

/// Tells whether overlays can be mounted, and says so if not.
fn may_mount() -> bool {
    let may = caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).unwrap();
    if !may {
        eprintln!("skipped: needs CAP_SYS_ADMIN");
    }
    may
}

#[test]
fn an_overlay_cannot_be_written() {
    if !may_mount() {
        return;
    }
    cannot_be_written(&mut again("seal::seals_itself_and_waits"), Outcome::Overlay);
}

#[test]
fn a_copy_in_memory_cannot_be_written() {
    let mut command = again("seal::seals_itself_and_waits");
    cannot_be_written(command.env(UNPRIVILEGED, "1"), Outcome::Memory);
}

#[test]
fn the_process_is_otherwise_the_same() {
    let mut command = again("seal::seals_itself_and_waits");
    command.env("STASIS_TEST_KEPT", "a=b c");
    let mut expected: Vec<_> = vec![command.get_program().as_encoded_bytes().to_vec()];
    expected.extend(command.get_args().map(|arg| arg.as_encoded_bytes().to_vec()));

    let (mut child, _) = sealed(&mut command);
    let proc = Path::new("/proc").join(child.id().to_string());
    let list = |file: &str| -> Vec<Vec<u8>> {
        let bytes = std::fs::read(proc.join(file)).unwrap();
        bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
    };
    assert_eq!(list("cmdline")[..expected.len()], expected);
    assert!(list("environ").contains(&b"STASIS_TEST_KEPT=a=b c".to_vec()));
    let exe = std::fs::read_link(proc.join("exe")).unwrap();
    for fd in std::fs::read_dir(proc.join("fd")).unwrap() {
        let target = std::fs::read_link(fd.unwrap().path()).unwrap();
        assert_ne!(target, exe, "the image was inherited");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Returns a new directory beside this binary and a second name for the binary in it.
fn elsewhere(directory: &str) -> (tempfile::TempDir, PathBuf) {
    let exe = std::env::current_exe().unwrap();
    let root = tempfile::tempdir_in(exe.parent().unwrap()).unwrap();
    let program = root.path().join(directory).join("program");
    std::fs::create_dir(program.parent().unwrap()).unwrap();
    std::fs::hard_link(exe, &program).unwrap();
    (root, program)
}

/// Starts `program`, and the arguments that [`again`] gives, by way of `wrapper`.
fn by_way_of(wrapper: &str, program: &Path) -> Command {
    let again = again("seal::seals_itself_and_waits");
    let mut command = Command::new("sh");
    command.args(["-c", wrapper, "sh"]).arg(program).args(again.get_args());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

#[test]
fn a_path_may_hold_what_an_overlay_takes_for_its_own() {
    if !may_mount() {
        return;
    }
    let (_root, program) = elsewhere("a:b,c\\d e");
    let (mut child, outcome) = sealed(&mut by_way_of("exec \"$@\"", &program));
    assert_eq!(outcome, "Overlay");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn an_overlay_that_looks_like_ours_but_is_attached_is_not_taken_for_it() {
    if !may_mount() {
        return;
    }
    let (root, program) = elsewhere("lower");
    for name in ["second", "merged"] {
        std::fs::create_dir(root.path().join(name)).unwrap();
    }
    let wrapper = r#"
        cd "$(dirname "$1")/.." && shift &&
        exec unshare --mount sh -c '
            mount -t overlay overlay -o lowerdir=lower:second merged &&
            mount -o remount,bind,ro,nosuid,nodev,nosymfollow merged &&
            exec "$PWD/merged/program" "$@"' sh "$@""#;
    let (mut child, outcome) = sealed(&mut by_way_of(wrapper, &program));
    assert_eq!(outcome, "Overlay");
    let exe = std::fs::read_link(format!("/proc/{}/exe", child.id())).unwrap();
    assert_eq!(exe, Path::new("/program"), "it went on from {}", exe.display());
    child.kill().unwrap();
    child.wait().unwrap();
}
