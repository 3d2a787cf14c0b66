//! The directories of a checkpoint: images and work files, `descriptors.json`, and CRIU's log as an error message.
//!
//! The layout is runc's, so that either runtime restores what the other has dumped: CRIU's images and
//! `descriptors.json` in one directory, logs and statistics in the work directory, which is the same unless named.

use super::options::DirectoryFds;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::sys::Errno;
use nix::unistd::{AccessFlags, access};
use std::collections::VecDeque;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where the standard streams of the dumped init led.
pub(super) const DESCRIPTORS: &str = "descriptors.json";

/// How many lines of CRIU's log are quoted before each of its errors.
const LINES_BEFORE: usize = 5;

/// How much is quoted at most: clients read the whole message with one read of a few KiB.
const QUOTE_LIMIT: usize = 4096;

/// The open directories of a checkpoint.
#[derive(Debug)]
pub struct Directories {
    /// The images.
    pub images: File,
    /// Logs and statistics, unless they are with the images.
    pub work: Option<File>,
    work_path: PathBuf,
    /// Those that were not there before.
    made: Vec<PathBuf>,
}

impl Directories {
    /// Opens the directories for a dump, and makes those that are not there.
    pub fn create(images: &Path, work: Option<&Path>) -> Result<Self> {
        let made = create_directory(images)?.then(|| images.to_owned());
        let mut opened = Self::open(images, work)?;
        opened.made.extend(made);
        Ok(opened)
    }

    /// Opens the directories for a restore; that of the images has to be there.
    pub fn open(images: &Path, work: Option<&Path>) -> Result<Self> {
        let opened = open_directory(images)?;
        let Some(work) = work else {
            return Ok(Self { images: opened, work: None, work_path: images.to_owned(), made: Vec::new() });
        };
        let made = create_directory(work)?.then(|| work.to_owned()).into_iter().collect();
        Ok(Self { images: opened, work: Some(open_directory(work)?), work_path: work.to_owned(), made })
    }

    /// Checks that CRIU can write the log called `name`, without which it says but a number.
    pub fn require_writable(&self, name: &str) -> Result<()> {
        let attempt =
            || format!("write {name} in {}, unless --work-path names another place", self.work_path.display());
        access(&self.work_path, AccessFlags::W_OK).context(attempt)
    }

    /// Removes those that were not there before, unless there is something in them: a log is kept.
    pub fn take_back(&self) {
        for path in &self.made {
            match std::fs::remove_dir(path) {
                Err(err) if err.kind() != std::io::ErrorKind::DirectoryNotEmpty => {
                    log::warn!("remove {}: {err}", path.display());
                }
                _ => {}
            }
        }
    }

    /// Returns the directories that CRIU is given: the images `instead` of these, if there are any. Its logs stay where
    /// they are without them.
    pub fn fds(&self, instead: Option<RawFd>) -> DirectoryFds {
        let own = self.images.as_raw_fd();
        let work = self.work.as_ref().map(AsRawFd::as_raw_fd);
        DirectoryFds { images: instead.unwrap_or(own), work: work.or(instead.map(|_| own)) }
    }

    /// Returns the path of the directory of logs and statistics.
    pub fn work_path(&self) -> &Path {
        &self.work_path
    }

    /// Returns the path of the log called `name`, made absolute so that a message can be followed from anywhere.
    pub fn log(&self, name: &str) -> PathBuf {
        let path = self.work_path.join(name);
        std::path::absolute(&path).unwrap_or(path)
    }
}

/// Checks the images of an earlier pre-dump, which CRIU finds by a path relative to the new ones.
pub fn check_parent(images: &Path, parent: &Path) -> Result<()> {
    if parent.is_absolute() {
        return Err(Error::invalid("--parent-path must be relative"));
    }
    let path = images.join(parent);
    let attempt = || format!("invalid --parent-path: stat {}", path.display());
    if path.metadata().context(attempt)?.is_dir() {
        return Ok(());
    }
    Err(Error::system(attempt(), Errno::ENOTDIR))
}

/// Writes where the standard streams of the dumped init lead, for the restore to find the pipes among them.
pub fn write_descriptors(images: &Path, links: &[String]) -> Result<()> {
    let path = images.join(DESCRIPTORS);
    let attempt = || format!("write {}", path.display());
    // A JSON array of strings cannot fail to be one.
    let text = serde_json::Value::from(links).to_string();
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).context(attempt)?;
    file.write_all(text.as_bytes()).context(attempt)
}

/// Reads where the standard streams of the dumped init led; none are known of images that no runtime has made.
pub fn read_descriptors(images: &Path) -> Result<Vec<String>> {
    let path = images.join(DESCRIPTORS);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(err) => return Err(err).context(|| format!("read {}", path.display())),
    };
    serde_json::from_str(&text).map_err(|err| Error::other(format!("parse {}: {err}", path.display())))
}

/// Makes a directory for root alone, with its parents, unless it is there: the memory of the processes goes into it.
/// Says whether it was not there.
fn create_directory(path: &Path) -> Result<bool> {
    let is_new = !path.exists();
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.context(|| format!("create directory {}", path.display()))?;
    Ok(is_new)
}

fn open_directory(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY)
        .open(path)
        .context(|| format!("open directory {}", path.display()))
}

/// Adds to a failure of CRIU what its log says: the cause on the first line, then the errors with what led to them.
///
/// Other failures stay as they are: what CRIU's log has to say about those is that we made it stop.
pub fn explain(failure: Error, log: &Path) -> Error {
    if failure.kind() != ErrorKind::Criu {
        return failure;
    }
    let Ok(file) = File::open(log) else { return failure };
    let Some(quote) = quote(BufReader::new(file)) else {
        return Error::new(failure.kind(), format!("{failure} (log file: {})", log.display()));
    };
    let mut text = failure.to_string();
    if !text.contains(&quote.cause) {
        text = format!("{text}: {}", quote.cause);
    }
    let lines = quote.lines;
    Error::new(failure.kind(), format!("{text}\n--- Quoting {log:?}\n{lines}---"))
}

/// Returns the words of one of CRIU's error lines, without time stamp, source line and line end, or `None` if it
/// tells nothing.
pub(super) fn error_text(line: &str) -> Option<&str> {
    let words = match line.split_once("Error (") {
        Some((_, rest)) => rest.split_once("): ").map_or(rest, |(_source, words)| words),
        None => line,
    };
    let words = words.trim();
    // CRIU goes on after this one, which it meets first wherever root lacks CAP_SYS_RESOURCE.
    let harmless = words.starts_with("rlimit: Can't setup RLIMIT_NOFILE");
    (!words.is_empty() && !harmless).then_some(words)
}

/// What a log says about a failure.
#[derive(Debug, Eq, PartialEq)]
struct Quote {
    cause: String,
    lines: String,
}

/// Quotes each line of a log that reports an error, numbered, with a few lines before it, as `grep -n -B5 Error` does.
fn quote(log: impl BufRead) -> Option<Quote> {
    let mut cause = None;
    let mut lines = String::new();
    let mut before: VecDeque<String> = VecDeque::with_capacity(LINES_BEFORE);
    let mut quoted = 0;
    for (index, line) in log.split(b'\n').map_while(std::io::Result::ok).enumerate() {
        let number = index + 1;
        let line = format!("{number}:{}\n", String::from_utf8_lossy(&line));
        let words = if line.contains("Error") { error_text(&line) } else { None };
        let Some(words) = words else {
            if before.len() == LINES_BEFORE {
                before.pop_front();
            }
            before.push_back(line);
            continue;
        };
        cause.get_or_insert_with(|| words.to_owned());
        if quoted != 0 && number - before.len() > quoted + 1 {
            lines.push_str("...\n");
        }
        quoted = number;
        lines.extend(before.drain(..));
        lines.push_str(&line);
        if lines.len() > QUOTE_LIMIT {
            lines.push_str("...\n");
            break;
        }
    }
    cause.map(|cause| Quote { cause, lines })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "(00.000001) one\n(00.000002) two\n(00.000003) three\n(00.000004) four\n\
        (00.000005) five\n(00.000006) six\n\
        (00.000007) Error (criu/files-reg.c:1629): Can't lookup mount=41 for fd=1 path=/out\n\
        (00.000008) seven\n(00.000009) eight\n(00.000010) nine\n(00.000011) ten\n\
        (00.000012) eleven\n(00.000013) twelve\n(00.000014) thirteen\n\
        (00.000015) Error (criu/cr-dump.c:1768): Dump files (pid: 7) failed with -1\n\
        (00.000016) last\n";

    #[test]
    fn errors_are_quoted_with_what_led_to_them() {
        let quote = quote(LOG.as_bytes()).unwrap();
        assert_eq!(quote.cause, "Can't lookup mount=41 for fd=1 path=/out");
        let numbers: Vec<_> = quote.lines.lines().map(|line| line.split(':').next().unwrap()).collect();
        assert_eq!(numbers, ["2", "3", "4", "5", "6", "7", "...", "10", "11", "12", "13", "14", "15"]);
    }

    #[test]
    fn a_log_without_errors_is_not_quoted() {
        assert_eq!(quote(&b"(00.000001) one\n"[..]), None);
        assert_eq!(quote(&b""[..]), None);
    }

    #[test]
    fn long_quotes_are_cut() {
        let log = "Error (criu/x.c:1): again and again and again\n".repeat(1000);
        assert!(quote(log.as_bytes()).unwrap().lines.len() < QUOTE_LIMIT + 100);
    }

    #[test]
    fn the_first_line_is_the_cause() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("dump.log");
        let failure = || Error::new(ErrorKind::Criu, "criu failed: type NOTIFY errno 0");
        assert_eq!(explain(failure(), &log), failure());
        std::fs::write(&log, LOG).unwrap();
        let text = explain(failure(), &log).to_string();
        let mut lines = text.lines();
        assert_eq!(lines.next().unwrap(), "criu failed: type NOTIFY errno 0: Can't lookup mount=41 for fd=1 path=/out");
        assert_eq!(lines.next().unwrap(), format!("--- Quoting {log:?}"));
        assert_eq!(lines.last().unwrap(), "---");
    }

    #[test]
    fn error_lines_are_reduced_to_their_words() {
        let cases = [
            ("(00.01)      1: Error (criu/net.c:12): Can't open\n", Some("Can't open")),
            ("Error (criu/net.c:12): a: b", Some("a: b")),
            ("plain", Some("plain")),
            ("Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: EPERM", None),
            ("", None),
            ("\n", None),
        ];
        for (line, expected) in cases {
            assert_eq!(error_text(line), expected);
        }
    }

    #[test]
    fn descriptors_are_those_that_were_written() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read_descriptors(directory.path()).unwrap(), Vec::<String>::new());
        let links = ["/dev/null", "pipe:[1]", "/a \"b\""].map(str::to_owned);
        write_descriptors(directory.path(), &links).unwrap();
        assert_eq!(read_descriptors(directory.path()).unwrap(), links);
        std::fs::write(directory.path().join(DESCRIPTORS), "{").unwrap();
        assert!(read_descriptors(directory.path()).is_err());
    }

    #[test]
    fn a_parent_is_a_directory_named_from_the_images() {
        let directory = tempfile::tempdir().unwrap();
        let images = directory.path().join("images");
        std::fs::create_dir(&images).unwrap();
        std::fs::create_dir(directory.path().join("parent")).unwrap();
        std::fs::write(directory.path().join("file"), "").unwrap();
        let cases = [
            ("../parent", None),
            ("/parent", Some("--parent-path must be relative")),
            ("../none", Some("no such file or directory")),
            ("../file", Some("not a directory")),
        ];
        for (parent, expected) in cases {
            let found = check_parent(&images, Path::new(parent));
            match expected {
                None => found.unwrap(),
                Some(words) => assert!(found.unwrap_err().to_string().ends_with(words), "{parent}"),
            }
        }
    }
}
