//! How far a checkpoint or a restore has come: lines for people on standard error, or JSON for programs on standard
//! output, where these commands print nothing else.
//!
//! Clients read standard error, and take its first line for the cause of a failure: unless asked, only a terminal is told.

use super::{output, size};
use anyhow::{Result, bail};
use nix::unistd::{SysconfVar, sysconf};
use serde_json::{Value, json};
use stasis::container::progress::{Dumped, Event, Phase, Restored};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Who is told, and how.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Manner {
    Silent,
    Plain,
    Json,
}

impl Manner {
    /// Returns what a word means; `terminal` says that there is one to be told.
    fn of(word: &str, terminal: bool) -> Result<Self> {
        Ok(match word {
            "plain" => Self::Plain,
            "json" => Self::Json,
            "none" => Self::Silent,
            "auto" if terminal => Self::Plain,
            "auto" => Self::Silent,
            _ => bail!("invalid progress value {word:?}"),
        })
    }
}

/// Tells how far a command has come.
pub struct Progress {
    manner: Manner,
    /// The command and the container.
    subject: String,
    start: Instant,
    page_size: u64,
}

impl Progress {
    /// Begins; `auto` says that a terminal is told unasked.
    pub fn new(word: &Option<String>, verb: &str, id: &str, auto: bool) -> Result<Self> {
        let manner = Manner::of(word.as_deref().unwrap_or("auto"), auto && std::io::stderr().is_terminal())?;
        let page_size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|size| u64::try_from(size).ok());
        let subject = format!("{verb} of {id}");
        Ok(Self { manner, subject, start: Instant::now(), page_size: page_size.unwrap_or(4096) })
    }

    /// Tells of an event.
    pub fn tell(&mut self, event: &Event) {
        let elapsed = self.start.elapsed();
        match self.manner {
            Manner::Silent => {}
            Manner::Plain => {
                output::complain(&format!("{}: {}\n", self.subject, plain(event, elapsed, self.page_size)))
            }
            Manner::Json => self.print(&object(event, elapsed, self.page_size)),
        }
    }

    /// Tells programs of a failure, which everybody else is told as usual, and returns the outcome.
    pub fn end<T>(mut self, outcome: Result<T>) -> Result<T> {
        if let (Manner::Json, Err(err)) = (self.manner, &outcome) {
            let text = format!("{err:#}");
            self.print(&json!({"event": "failed", "elapsedMicros": micros(self.start.elapsed()), "error": text}));
        }
        outcome
    }

    fn print(&mut self, object: &Value) {
        // Nobody listens any more: that is no reason to fail.
        if output::print(&format!("{object}\n")).is_err() {
            self.manner = Manner::Silent;
        }
    }
}

fn plain(event: &Event, elapsed: Duration, page_size: u64) -> String {
    match event {
        Event::Phase(Phase::Checking) => "looking for what cannot be dumped".to_owned(),
        Event::Phase(Phase::Freezing) => "freezing the processes".to_owned(),
        Event::Phase(Phase::Memory) => "writing memory and files".to_owned(),
        Event::Phase(Phase::SharedMemory) => "writing /dev/shm".to_owned(),
        Event::Phase(Phase::Processes) => "making the processes".to_owned(),
        Event::Phase(Phase::Resuming) => "letting the processes go on".to_owned(),
        Event::Dumped(dumped) => format!("done in {}{}", millis(elapsed), dumped_text(dumped, page_size)),
        Event::Restored(restored) => format!("done in {}{}", millis(elapsed), restored_text(restored, page_size)),
    }
}

fn dumped_text(dumped: &Dumped, page_size: u64) -> String {
    let mut text = String::new();
    if let Some(stats) = &dumped.stats {
        let pages = stats.pages_written + stats.shared_pages_written;
        text += &format!(", frozen for {}", millis(Duration::from_micros(stats.frozen_micros)));
        text += &format!("; memory: {} in {pages} pages", size::human(pages.saturating_mul(page_size)));
    }
    if let Some(bytes) = dumped.shm_bytes {
        text += &format!("; /dev/shm: {}", size::human(bytes));
    }
    text
}

fn restored_text(restored: &Restored, page_size: u64) -> String {
    let Some(stats) = &restored.stats else { return String::new() };
    let pages = stats.pages_restored;
    format!("; memory: {} in {pages} pages", size::human(pages.saturating_mul(page_size)))
}

fn object(event: &Event, elapsed: Duration, page_size: u64) -> Value {
    let mut object = match event {
        Event::Phase(phase) => json!({"event": "phase", "phase": phase.as_str()}),
        Event::Dumped(dumped) => {
            let pages = dumped.stats.as_ref().map(|stats| stats.pages_written + stats.shared_pages_written);
            json!({
                "event": "done",
                "frozenMicros": dumped.stats.as_ref().map(|stats| stats.frozen_micros),
                "pages": pages,
                "bytes": pages.map(|pages| pages.saturating_mul(page_size)),
                "shmBytes": dumped.shm_bytes,
            })
        }
        Event::Restored(restored) => {
            let pages = restored.stats.as_ref().map(|stats| stats.pages_restored);
            json!({"event": "done", "pages": pages, "bytes": pages.map(|pages| pages.saturating_mul(page_size))})
        }
    };
    if let Some(fields) = object.as_object_mut() {
        fields.insert("elapsedMicros".to_owned(), micros(elapsed).into());
        fields.retain(|_, value| !value.is_null());
    }
    object
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use stasis::criu::stats::{DumpStats, RestoreStats};

    fn dumped() -> Event {
        let stats =
            DumpStats { frozen_micros: 83_400, pages_written: 2, shared_pages_written: 1, ..DumpStats::default() };
        Event::Dumped(Dumped { stats: Some(stats), shm_bytes: Some(4096) })
    }

    #[test]
    fn a_word_says_who_is_told() {
        for (word, terminal, manner) in [
            ("auto", true, Manner::Plain),
            ("auto", false, Manner::Silent),
            ("none", true, Manner::Silent),
            ("plain", false, Manner::Plain),
            ("json", false, Manner::Json),
        ] {
            assert_eq!(Manner::of(word, terminal).unwrap(), manner);
        }
        assert_eq!(Manner::of("x", true).unwrap_err().to_string(), "invalid progress value \"x\"");
    }

    #[test]
    fn the_end_tells_what_it_took() {
        let elapsed = Duration::from_micros(134_000);
        let line = plain(&dumped(), elapsed, 4096);
        assert_eq!(line, "done in 134.0 ms, frozen for 83.4 ms; memory: 12.0 KiB in 3 pages; /dev/shm: 4.0 KiB");
        let expected = json!({"event": "done", "elapsedMicros": 134_000, "frozenMicros": 83_400, "pages": 3,
            "bytes": 12288, "shmBytes": 4096});
        assert_eq!(object(&dumped(), elapsed, 4096), expected);
        let nothing = Event::Dumped(Dumped::default());
        assert_eq!(plain(&nothing, elapsed, 4096), "done in 134.0 ms");
        assert_eq!(object(&nothing, elapsed, 4096), json!({"event": "done", "elapsedMicros": 134_000}));
        let stats = RestoreStats { pages_restored: 2, ..RestoreStats::default() };
        let restored = Event::Restored(Restored { stats: Some(stats) });
        assert_eq!(plain(&restored, elapsed, 4096), "done in 134.0 ms; memory: 8.0 KiB in 2 pages");
    }

    #[test]
    fn phases_have_names() {
        let told = object(&Event::Phase(Phase::SharedMemory), Duration::ZERO, 4096);
        assert_eq!(told, json!({"event": "phase", "phase": "shared-memory", "elapsedMicros": 0}));
    }
}
