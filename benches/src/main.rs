//! The benchmark: start-to-exit of /bin/true in the default `spec` bundle,
//! for stasis, crun, runc and the floor, interleaved in one run.
//!
//! Here are the command line and the order of events. The bundle is made in
//! bundle.rs, the cgroup hierarchies are arranged in layout.rs, one run is
//! measured in measure.rs, and the table is made in report.rs.

mod bundle;
mod layout;
mod measure;
mod report;

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bundle::Bundle;
use layout::Layout;
use measure::{Contestant, Sample};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const USAGE: &str = "usage: bench [--layout v2|v1|host] [--rounds N] [--warmup N] [--pause MS]
             [--json FILE]
binaries: STASIS, CRUN, RUNC in the environment; crun and runc are looked up in PATH otherwise";

struct Options {
    layout: Layout,
    rounds: usize,
    warmup: usize,
    pause: Duration,
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("bench: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match bench(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options { layout: Layout::V2, rounds: 100, warmup: 5, pause: Duration::ZERO, json: None };
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--layout" => options.layout = value.parse()?,
            "--rounds" => options.rounds = value.parse()?,
            "--warmup" => options.warmup = value.parse()?,
            "--pause" => options.pause = Duration::from_millis(value.parse()?),
            "--json" => options.json = Some(value.into()),
            _ => return Err(format!("unknown option {word}").into()),
        }
    }
    if options.rounds == 0 {
        return Err("--rounds must be at least 1".into());
    }
    Ok(options)
}

/// Runs the benchmark in a directory of its own, which it removes again.
fn bench(options: &Options) -> Result<()> {
    // Opened before the mount namespace changes what the path names.
    let json = options.json.as_deref().map(create).transpose()?;
    let directory = std::env::temp_dir().join(format!("stasis-bench-{}", std::process::id()));
    fs::create_dir(&directory).map_err(|e| format!("mkdir {}: {e}", directory.display()))?;
    let result = measure_in(&directory, options, json);
    // What was made in it went with the tmpfs; the directory itself is empty.
    layout::leave(&directory)?;
    fs::remove_dir(&directory)?;
    result
}

fn measure_in(directory: &Path, options: &Options, json: Option<fs::File>) -> Result<()> {
    layout::enter(options.layout, directory)?;
    let bundle = Bundle::create(directory, options.layout)?;
    let contestants = settle_config(contestants(&bundle)?, &bundle)?;
    for contestant in &contestants {
        for _ in 0..options.warmup {
            contestant.run(&bundle)?;
        }
    }
    let samples = rounds(&contestants, &bundle, options)?;
    let report = report::Report::new(&contestants, &samples);
    println!("{}", report.table(options.layout, options.rounds));
    match json {
        Some(file) => Ok(report.write_json(file, options.layout, options.rounds)?),
        None => Ok(()),
    }
}

/// Returns who takes part, and prints who does not.
fn contestants(bundle: &Bundle) -> Result<Vec<Contestant>> {
    let floor = std::env::current_exe()?.with_file_name("floor");
    let mut found = vec![Contestant::floor(floor)];
    for (name, variable) in [("stasis", "STASIS"), ("crun", "CRUN"), ("runc", "RUNC")] {
        let path = std::env::var_os(variable).map(PathBuf::from);
        let path = path.or_else(|| (name != "stasis").then(|| look_up(name)).flatten());
        match path {
            // Runs start in the bundle's directory, so a relative path must not reach them.
            Some(path) if path.is_file() => {
                found.push(Contestant::runtime(name, path.canonicalize()?, bundle));
            }
            Some(path) => println!("note: {name} left out: no file {}", path.display()),
            None => println!("note: {name} left out: not found (set {variable})"),
        }
    }
    Ok(found)
}

/// Writes the config that all will run, and returns who can run it: the
/// default one, or that without device rules, which crun before 1.9 cannot
/// load on cgroup v2 unless it may raise a limit. A peer that runs neither in
/// this layout is left out; for stasis and the floor that is an error.
fn settle_config(mut contestants: Vec<Contestant>, bundle: &Bundle) -> Result<Vec<Contestant>> {
    bundle.write_config(false)?;
    let mut able = Vec::new();
    for mut contestant in contestants.drain(..) {
        contestant.device_rules = false;
        match contestant.run(bundle) {
            Ok(_) => able.push(contestant),
            Err(reason) if contestant.is_peer() => println!("note: left out: {reason}"),
            Err(reason) => return Err(reason),
        }
    }
    bundle.write_config(true)?;
    able.iter_mut().for_each(|contestant| contestant.device_rules = true);
    if let Some(reason) = able.iter().find_map(|contestant| contestant.run(bundle).err()) {
        println!("note: linux.resources (the device rules) dropped for all, since {reason}");
        bundle.write_config(false)?;
        able.iter_mut().for_each(|contestant| contestant.device_rules = false);
    }
    Ok(able)
}

/// Runs every contestant once a round. The order rotates, and every other
/// round is reversed, so that nobody always follows the same neighbour.
fn rounds(contestants: &[Contestant], bundle: &Bundle, options: &Options) -> Result<Vec<Vec<Sample>>> {
    let places = contestants.len();
    let mut samples = vec![Vec::with_capacity(options.rounds); places];
    for round in 0..options.rounds {
        for step in 0..places {
            let step = if round % 2 == 0 { step } else { places - 1 - step };
            let index = (round / 2 + step) % places;
            std::thread::sleep(options.pause);
            samples[index].push(contestants[index].run(bundle)?);
        }
    }
    Ok(samples)
}

fn look_up(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn create(path: &Path) -> Result<fs::File> {
    fs::File::create(path).map_err(|e: io::Error| format!("create {}: {e}", path.display()).into())
}
