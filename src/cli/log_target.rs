//! Where log messages go: stderr, a file, or one of the system's logs, which `--log` names as crun's does.

use super::output;
use anyhow::{Context, Result};
use log::Level;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

const JOURNAL: &str = "/run/systemd/journal/socket";
const SYSLOG: &str = "/dev/log";

/// Messages from programs, in the numbers of syslog(3).
const LOG_USER: u8 = 1 << 3;

/// What messages are written to.
pub enum Target {
    Stderr,
    File(File),
    /// The journal, and what its entries are found by.
    Journal(UnixDatagram, String),
    /// The syslog daemon, and the name that its lines begin with.
    Syslog(UnixDatagram, String),
}

impl Target {
    /// Opens what `--log` names: `journald:NAME`, `syslog:NAME`, `file:PATH`, or a path.
    pub fn open(name: &Path) -> Result<Self> {
        let prefixed = name.to_str().and_then(|name| name.split_once(':'));
        match prefixed {
            Some(("journald", name)) => Ok(Self::Journal(connect(JOURNAL)?, name.to_owned())),
            Some(("syslog", name)) => Ok(Self::Syslog(connect(SYSLOG)?, name.to_owned())),
            Some(("file", path)) => open_file(path.as_ref()),
            _ => open_file(name),
        }
    }

    /// Says whether it is a log that has levels and times itself.
    pub fn has_levels(&self) -> bool {
        matches!(self, Self::Journal(..) | Self::Syslog(..))
    }

    /// Writes a line, of which nobody can be told that it could not be written.
    pub fn write(&self, level: Level, line: &str) {
        match self {
            Self::Stderr => output::complain(line),
            Self::File(file) => _ = { file }.write_all(line.as_bytes()),
            Self::Journal(socket, name) => _ = socket.send(journal_entry(level, name, line).as_bytes()),
            Self::Syslog(socket, name) => _ = socket.send(syslog_line(level, name, line).as_bytes()),
        }
    }
}

fn connect(path: &str) -> Result<UnixDatagram> {
    let socket = UnixDatagram::unbound().context("make a socket")?;
    socket.connect(path).with_context(|| format!("connect to {path}"))?;
    Ok(socket)
}

fn open_file(path: &Path) -> Result<Target> {
    // O_SYNC: the reader looks as soon as we have ended. O_APPEND: many runtimes share one file.
    let mut options = File::options();
    let options = options.append(true).create(true).mode(0o644).custom_flags(libc::O_SYNC);
    Ok(Target::File(options.open(path).with_context(|| format!("open {}", path.display()))?))
}

/// Returns an entry in the journal's native protocol, in which a line break ends a field.
fn journal_entry(level: Level, name: &str, line: &str) -> String {
    let [name, message] = [name, line.trim_end()].map(|text| text.replace('\n', " "));
    format!("PRIORITY={}\nSYSLOG_IDENTIFIER={name}\nMESSAGE={message}\n", severity(level))
}

/// Returns a line in the local form of syslog's protocol; the daemon knows the time.
fn syslog_line(level: Level, name: &str, line: &str) -> String {
    let message = line.trim_end().replace('\n', " ");
    format!("<{}>{name}[{}]: {message}", LOG_USER | severity(level), std::process::id())
}

/// Returns syslog(3)'s number for a level.
fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_one_line_for_each_field() {
        let entry = journal_entry(Level::Warn, "a", "b\nPRIORITY=0\n");
        assert_eq!(entry, "PRIORITY=4\nSYSLOG_IDENTIFIER=a\nMESSAGE=b PRIORITY=0\n");
        let line = syslog_line(Level::Error, "a", "b\nc\n");
        assert_eq!(line, format!("<11>a[{}]: b c", std::process::id()));
    }
}
