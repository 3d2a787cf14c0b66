//! What CRIU executes as `tar`: the machine's own tar, told to keep what CRIU forgets, with our gzip.
//!
//! CRIU leaves the content of a tmpfs to `tar --create --gzip` and `tar --extract --gzip`, as it finds them in PATH; its
//! archives lack extended attributes and access control lists, and gzip takes most of the time of a dump. Put first in
//! that PATH, our program does the compression in its own process and leaves the rest to tar. What it writes any GNU tar
//! reads, and CRIU without us restores it, but for the attributes.
//!
//! Its words go to CRIU's log. Who puts us there, and takes us away again, is the caller's business.

use super::{DEFAULT_PATH, find_executable, gzip};
use crate::error::{Context, Error, ErrorKind, Result};
use nix::fcntl::{FcntlArg, fcntl};
use std::ffi::{OsStr, OsString};
use std::fs::{File, metadata};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The name that CRIU executes.
pub const NAME: &str = "tar";

/// What is kept beside what CRIU asks for. Of the attributes of security modules only capabilities are the file's own;
/// labels come from the policy of the machine, or from the options of the mount.
const KEPT: [&str; 5] = [
    "--acls",
    "--xattrs",
    "--xattrs-include=user.*",
    "--xattrs-include=trusted.*",
    "--xattrs-include=security.capability",
];

/// What tar reads and writes at once, in units of 512 bytes.
const BLOCKING: &str = "--blocking-factor=128";

/// How much may wait between tar and us: as much as anybody may ask for.
const PIPE_SIZE: i32 = 1 << 20;

/// What tar is to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Task {
    /// Write an archive, which we compress.
    Create,
    /// Read an archive, which we decompress.
    Extract,
    /// Anything else: none of our business.
    Other,
}

/// Says whether a program that is executed as `name` is meant to be tar.
pub fn is_meant(name: &OsStr) -> bool {
    Path::new(name).file_name() == Some(NAME.as_ref())
}

/// Does what tar is asked for; returns its exit code.
pub fn run(args: &[OsString]) -> Result<u8> {
    let (task, args) = plan(args);
    let program = others()?;
    let attempt = || format!("start {}", program.display());
    let mut command = Command::new(&program);
    command.arg0(NAME).args(args);
    let (child, copied) = match task {
        Task::Create => {
            let image = own(io::stdout().as_fd())?;
            let mut child = command.stdout(Stdio::piped()).spawn().context(attempt)?;
            let archive = child.stdout.take().ok_or_else(|| Error::other("tar has no output"))?;
            widen(archive.as_fd());
            (child, gzip::compress(archive, image).context(|| "write the archive"))
        }
        Task::Extract => {
            let image = own(io::stdin().as_fd())?;
            let mut child = command.stdin(Stdio::piped()).spawn().context(attempt)?;
            let archive = child.stdin.take().ok_or_else(|| Error::other("tar has no input"))?;
            widen(archive.as_fd());
            (child, read_by_tar(gzip::decompress(image, archive)).context(|| "read the archive"))
        }
        Task::Other => return Err(command.exec()).context(attempt),
    };
    finish(child, copied)
}

/// Waits for tar, whose pipe is closed by now. When we have failed, so has it, and for that reason.
fn finish(mut child: Child, copied: Result<()>) -> Result<u8> {
    let status = child.wait().context(|| "wait for tar")?;
    copied?;
    match status.code() {
        Some(code) => Ok(code as u8),
        None => Err(Error::other(format!("tar: {status}"))),
    }
}

/// Tar may end before it has read everything; how it ended tells whether that is right.
fn read_by_tar(copied: io::Result<()>) -> io::Result<()> {
    match copied {
        Err(err) if err.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Says what tar is to do, and with which arguments.
fn plan(given: &[OsString]) -> (Task, Vec<OsString>) {
    let has = |word: &str| given.iter().any(|arg| arg == word);
    let task = match (has("--gzip"), has("--create"), has("--extract")) {
        (true, true, false) => Task::Create,
        (true, false, true) => Task::Extract,
        _ => return (Task::Other, given.to_vec()),
    };
    let ours = KEPT.iter().chain([&BLOCKING]).map(OsString::from);
    let others = given.iter().filter(|arg| *arg != "--gzip").cloned();
    (task, ours.chain(others).collect())
}

/// Finds the machine's tar: the first in PATH that is not us.
fn others() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let identity = |path: &Path| metadata(path).map(|found| (found.dev(), found.ino()));
    let ours = identity(Path::new("/proc/self/exe")).context(|| "stat /proc/self/exe")?;
    find_executable(&path, NAME, |path| identity(path).is_ok_and(|found| found != ours))
        .ok_or_else(|| Error::new(ErrorKind::NotFound, "exec: \"tar\": executable file not found in $PATH"))
}

/// Returns a standard stream as a file that nothing is kept back from.
fn own(stream: BorrowedFd<'_>) -> Result<File> {
    Ok(stream.try_clone_to_owned().context(|| "duplicate a descriptor")?.into())
}

/// Lets more wait in a pipe. It also works as it is, and may have to: what all pipes of a user hold is limited.
fn widen(pipe: BorrowedFd<'_>) {
    _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_name_is_the_last_part() {
        for (name, expected) in [("tar", true), ("/x/tar", true), ("stasis", false), ("/tar/runc", false), ("", false)]
        {
            assert_eq!(is_meant(name.as_ref()), expected, "{name}");
        }
    }

    #[test]
    fn tar_does_not_compress_and_keeps_more() {
        let cases = [
            ("--create --gzip --sparse --directory /proc/self/fd/0 .", Task::Create),
            ("--extract --gzip --no-unquote --directory /x", Task::Extract),
        ];
        for (line, expected) in cases {
            let (task, args) = plan(&words(line));
            assert_eq!(task, expected);
            let added = KEPT.iter().chain([&BLOCKING]).map(OsString::from);
            let kept = words(line).into_iter().filter(|word| word != "--gzip");
            assert_eq!(args, added.chain(kept).collect::<Vec<_>>());
        }
    }

    #[test]
    fn anything_else_is_passed_on_as_it_is() {
        for line in ["--create --file x .", "--version", "--list --gzip"] {
            assert_eq!(plan(&words(line)), (Task::Other, words(line)));
        }
    }
}
