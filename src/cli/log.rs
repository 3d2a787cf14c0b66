//! Where messages go: the log file or stderr, as text or as JSON, one line and one write(2) each.
//!
//! Three readers shape it. containerd decodes the whole file as a stream of objects with an RFC 3339 `time`; Podman reads
//! the whole file as one object; everything that runs a command without a log reads stderr. So a command that fails
//! writes exactly one line into a log unless more was asked for: warnings are held back until it is known that it did
//! not fail. On stderr they come before the failure, which they often explain.

use super::log_target::Target;
use super::{Global, output};
use anyhow::{Result, bail};
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

static SINK: OnceLock<Sink> = OnceLock::new();

/// Opens the log that the options ask for; everything said before goes to stderr.
pub fn open(global: &Global) -> Result<()> {
    let json = match global.log_format.as_deref() {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => bail!("invalid log-format: {other}"),
    };
    let asked = match (global.debug, global.log_level.as_deref()) {
        (true, _) => Some(LevelFilter::Debug),
        (false, None) => None,
        (false, Some(level)) => Some(filter(level)?),
    };
    let target = global.log.as_deref().map_or(Ok(Target::Stderr), Target::open)?;
    let sink = Sink { target, json, callers: global.debug, holding: Mutex::new(asked.is_none().then(Vec::new)) };
    // Only a second call in one process fails, and that one changes nothing.
    if log::set_logger(SINK.get_or_init(|| sink)).is_ok() {
        log::set_max_level(asked.unwrap_or(LevelFilter::Warn));
    }
    Ok(())
}

fn filter(level: &str) -> Result<LevelFilter> {
    match level.to_ascii_lowercase().as_str() {
        "error" => Ok(LevelFilter::Error),
        "warning" | "warn" => Ok(LevelFilter::Warn),
        "info" => Ok(LevelFilter::Info),
        "debug" => Ok(LevelFilter::Debug),
        _ => bail!("invalid log-level: {level}"),
    }
}

/// Lets the warnings held so far go out; for commands that go on after their own work is done.
pub fn release() {
    if let Some(sink) = SINK.get() {
        sink.release();
    }
}

/// Ends a command: reports its failure, if it failed, and returns the exit code.
pub fn exit_code(outcome: Result<u8>, failure: u8) -> u8 {
    match outcome {
        Ok(code) => {
            release();
            code
        }
        Err(err) => {
            let unset = Sink { target: Target::Stderr, json: false, callers: false, holding: Mutex::new(None) };
            SINK.get().unwrap_or(&unset).fail(&format!("{err:#}"));
            failure
        }
    }
}

struct Sink {
    target: Target,
    json: bool,
    /// Whether lines say where in the source they come from.
    callers: bool,
    /// The lines that wait until it is known whether the command fails; absent when none has to wait.
    holding: Mutex<Option<Vec<(Level, String)>>>,
}

impl Sink {
    fn holding(&self) -> MutexGuard<'_, Option<Vec<(Level, String)>>> {
        self.holding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(&self) {
        let held = self.holding().take();
        held.unwrap_or_default().iter().for_each(|(level, line)| self.target.write(*level, line));
    }

    /// Writes the one line of a failed command, and its plain text to stderr when the log is elsewhere.
    ///
    /// A failure of CRIU's has more lines, which quote its log: those stay lines where a person reads them.
    fn fail(&self, text: &str) {
        if matches!(self.target, Target::Stderr) {
            self.release();
        }
        let line = match text.split_once('\n').filter(|_| !self.json) {
            Some((first, quote)) => format!("{}{quote}\n", self.line(Level::Error, first, None)),
            None => self.line(Level::Error, text, None),
        };
        self.target.write(Level::Error, &line);
        if !matches!(self.target, Target::Stderr) {
            output::complain(&format!("{text}\n"));
        }
    }

    fn line(&self, level: Level, text: &str, caller: Option<&str>) -> String {
        let time = stasis::time::now();
        let level = name(level);
        let mut line = String::new();
        if self.target.has_levels() && !self.json {
            line = format!("{text}\n");
        } else if self.json {
            let mut object = serde_json::Map::new();
            if let Some(caller) = caller {
                object.insert("file".to_owned(), caller.into());
            }
            object.insert("level".to_owned(), level.into());
            object.insert("msg".to_owned(), text.into());
            object.insert("time".to_owned(), time.into());
            // Writing to a String cannot fail.
            _ = writeln!(line, "{}", serde_json::Value::Object(object));
        } else {
            _ = write!(line, "time=\"{time}\" level={level} msg={}", quoted(text));
            if let Some(caller) = caller {
                _ = write!(line, " file=\"{caller}\"");
            }
            line.push('\n');
        }
        line
    }
}

impl Log for Sink {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let caller = self.callers.then(|| format!("{}:{}", record.file().unwrap_or("?"), record.line().unwrap_or(0)));
        let line = self.line(record.level(), &record.args().to_string(), caller.as_deref());
        if let Some(held) = self.holding().as_mut() {
            return held.push((record.level(), line));
        }
        self.target.write(record.level(), &line);
    }

    fn flush(&self) {}
}

/// Returns the level's name as readers of runc's log know it.
fn name(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// Puts a text value in quotes unless it is one plain word, and keeps it on one line.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text.to_owned() } else { format!("{text:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sink(json: bool) -> Sink {
        Sink { target: Target::Stderr, json, callers: false, holding: Mutex::new(None) }
    }

    #[test]
    fn a_json_line_is_what_containerd_decodes() {
        let line = sink(true).line(Level::Error, "open \"x\":\nno such file or directory", None);
        assert!(line.ends_with("}\n") && line.matches('\n').count() == 1, "{line}");
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(object["level"], "error");
        assert_eq!(object["msg"], "open \"x\":\nno such file or directory");
        assert!(object["time"].as_str().unwrap().ends_with('Z'));
        assert_eq!(sink(true).line(Level::Warn, "w", Some("a.rs:1")).matches("\"warning\"").count(), 1);
    }

    #[test]
    fn a_text_line_is_quoted_where_needed() {
        let line = sink(false).line(Level::Error, "container does not exist", None);
        assert!(line.starts_with("time=\"2"), "{line}");
        assert!(line.ends_with(" level=error msg=\"container does not exist\"\n"), "{line}");
        let line = sink(false).line(Level::Debug, "done", Some("src/x.rs:7"));
        assert!(line.ends_with(" level=debug msg=done file=\"src/x.rs:7\"\n"), "{line}");
        assert!(sink(false).line(Level::Error, "a\nb", None).ends_with(" msg=\"a\\nb\"\n"));
    }

    #[test]
    fn warnings_wait_for_the_outcome() {
        let sink = Sink { holding: Mutex::new(Some(Vec::new())), ..sink(false) };
        log::set_max_level(LevelFilter::Warn);
        sink.log(&Record::builder().level(Level::Warn).args(format_args!("odd")).build());
        assert_eq!(sink.holding().as_ref().map(Vec::len), Some(1));
    }
}
