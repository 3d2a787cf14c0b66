//! The benchmark: stasis beside crun, runc, youki, a runner on the libcontainer crate and the floor, interleaved in one
//! run.
//!
//! Without a word it runs each of its parts as a process of its own, since each has its own layout of cgroups, and
//! writes what they have found. Here are the command line and the order of events.

mod bundle;
mod checkpoint;
mod contestant;
mod layout;
mod measure;
mod memory;
mod plot;
mod report;
mod scale;
mod scenarios;
mod stats;
mod terminal;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use bundle::Shared;
use contestant::Contestant;
use layout::Layout;
use measure::Sample;
use report::Report;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const USAGE: &str = "usage: bench [scenarios|scale|memory|checkpoint] [--layout v2|v1|host] [--rounds N] [--warmup N]
             [--pause MS] [--only TEXT] [--json FILE] [--docs DIRECTORY]
binaries: STASIS, CRUN, RUNC, YOUKI, LIBCONTAINER, CRIU in the environment; peers are looked up in PATH otherwise";

/// The parts, and in which layout each is measured if none is asked for: only v1 has a memory controller everywhere, and
/// CRIU is as one uses it.
const PARTS: [(&str, Layout); 4] =
    [("scenarios", Layout::V2), ("scale", Layout::V2), ("memory", Layout::V1), ("checkpoint", Layout::Host)];

pub struct Options {
    part: Option<(&'static str, Layout)>,
    layout: Option<Layout>,
    rounds: usize,
    warmup: usize,
    pause: Duration,
    only: String,
    json: Option<PathBuf>,
    docs: Option<PathBuf>,
}

impl Options {
    fn parse(words: impl Iterator<Item = String>) -> Result<Self> {
        let mut words = words.peekable();
        let part = words.peek().and_then(|word| PARTS.into_iter().find(|(name, _)| name == word));
        if part.is_some() {
            words.next();
        }
        let (only, pause) = (String::new(), Duration::ZERO);
        let mut options = Self { part, layout: None, rounds: 50, warmup: 3, pause, only, json: None, docs: None };
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
            match word.as_str() {
                "--layout" => options.layout = Some(value.parse()?),
                "--rounds" => options.rounds = value.parse()?,
                "--warmup" => options.warmup = value.parse()?,
                "--pause" => options.pause = Duration::from_millis(value.parse()?),
                "--only" => options.only = value,
                "--json" => options.json = Some(value.into()),
                "--docs" => options.docs = Some(value.into()),
                _ => return Err(format!("unknown option {word}").into()),
            }
        }
        if options.rounds == 0 {
            return Err("--rounds must be at least 1".into());
        }
        Ok(options)
    }

    /// Says whether a scenario was asked for.
    pub fn wants(&self, title: &str) -> bool {
        title.contains(&self.only)
    }
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("bench: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let done = match options.part {
        Some((name, layout)) => {
            in_directory(name, |place| part(&options, name, options.layout.unwrap_or(layout), place))
        }
        None => in_directory("all", all),
    };
    match done.and_then(|report| write(&options, &report)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs every part with the options that were given here.
fn all(place: &Path) -> Result<Report> {
    let mut report = Report::default();
    for (name, _) in PARTS {
        let json = place.join(name);
        let mut part = Command::new(std::env::current_exe()?);
        // The last of an option counts.
        part.arg(name).args(std::env::args_os().skip(1)).arg("--json").arg(&json).args(["--docs", ""]);
        let status = part.status()?;
        if !status.success() {
            return Err(format!("the part {name} ended with {status}").into());
        }
        report.merge(serde_json::from_str(&fs::read_to_string(&json)?)?);
    }
    Ok(report)
}

/// Runs one part in its layout.
fn part(options: &Options, name: &str, layout: Layout, place: &Path) -> Result<Report> {
    measure::keep_watch();
    println!("== {name}, cgroup layout {}", layout.name());
    if name == "checkpoint" {
        return Ok(Report { sections: checkpoint::part(options, place)?, memory: Vec::new() });
    }
    // For a checkpoint, the dead are reaped by the machine's init, as they are for users.
    measure::adopt_orphans();
    layout::enter(layout, place)?;
    let shared = Shared::create(place, layout)?;
    Ok(match name {
        "scenarios" => Report { sections: scenarios::part(options, &shared)?, memory: Vec::new() },
        "scale" => Report { sections: scale::part(options, &shared)?, memory: Vec::new() },
        _ => Report { sections: Vec::new(), memory: memory::part(&shared)? },
    })
}

/// Calls a function with a new directory, which is removed afterwards.
fn in_directory<T>(name: &str, run: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let directory = std::env::temp_dir().join(format!("{}-{name}", layout::cgroup_prefix()));
    fs::create_dir(&directory).map_err(|e| format!("mkdir {}: {e}", directory.display()))?;
    let done = run(&directory);
    layout::leave(&directory)?;
    fs::remove_dir_all(&directory)?;
    done
}

fn write(options: &Options, report: &Report) -> Result<()> {
    if let Some(file) = &options.json {
        fs::write(file, serde_json::to_string_pretty(report)?).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    if let Some(docs) = options.docs.as_ref().filter(|docs| !docs.as_os_str().is_empty()) {
        fs::create_dir_all(docs)?;
        fs::write(docs.join("benchmarks.md"), report::page(report))?;
        fs::write(docs.join("benchmarks.svg"), plot::svg(report))?;
    }
    Ok(())
}

/// Takes a sample of everybody once a round. The order rotates, and every other round is reversed, so that nobody always
/// follows the same neighbour. A peer that fails is left out, with all its samples.
pub fn rounds<'a, T>(
    entries: Vec<(&'a Contestant, T)>,
    options: &Options,
    sample: impl Fn(&Contestant, &T) -> Result<Sample>,
) -> Result<Vec<(&'a Contestant, T, Vec<Sample>)>> {
    let places = entries.len();
    let mut entries: Vec<_> = entries.into_iter().map(|(who, what)| (who, what, Ok(Vec::new()))).collect();
    for round in 0..options.rounds {
        for step in 0..places {
            let step = if round % 2 == 0 { step } else { places - 1 - step };
            let (who, what, samples) = &mut entries[(round / 2 + step) % places];
            if let Ok(taken) = samples {
                std::thread::sleep(options.pause);
                match sample(who, what) {
                    Ok(next) => taken.push(next),
                    Err(reason) => *samples = Err(reason),
                }
            }
        }
    }
    let mut able = Vec::new();
    for (who, what, samples) in entries {
        if let Some(samples) = unless_peer(who, samples)? {
            able.push((who, what, samples));
        }
    }
    Ok(able)
}

/// Leaves a peer out that has failed, and says so.
pub fn unless_peer<T>(contestant: &Contestant, result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(reason) if contestant.is_peer() => {
            println!("note: {} left out: {reason}", contestant.name);
            Ok(None)
        }
        Err(reason) => Err(reason),
    }
}
