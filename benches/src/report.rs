//! What was measured, as tables for a terminal and for the documentation, and as JSON.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::contestant::Contestant;
use crate::measure::Sample;
use crate::stats::{self, Figures};

/// A median that is this many times the minimum tells more of the machine than of the program.
const NOISY: f64 = 1.5;

/// Everything that one run of the benchmark has found.
#[derive(Default, Deserialize, Serialize)]
pub struct Report {
    pub sections: Vec<Section>,
    pub memory: Vec<Memory>,
}

impl Report {
    pub fn merge(&mut self, other: Self) {
        self.sections.extend(other.sections);
        self.memory.extend(other.memory);
    }
}

/// One scenario with one kind of config.json.
#[derive(Deserialize, Serialize)]
pub struct Section {
    pub scenario: String,
    pub config: String,
    /// Whose time is the least that is possible.
    floor: String,
    rounds: usize,
    pub rows: Vec<Row>,
    #[serde(skip)]
    samples: Vec<Vec<Sample>>,
}

/// One contestant in it.
#[derive(Deserialize, Serialize)]
pub struct Row {
    pub name: String,
    pub version: String,
    pub median_ms: f64,
    pub min_ms: f64,
    pub p90_ms: f64,
    pub cpu_ms: f64,
    pub faults: u64,
    pub peak_kib: u64,
    pub syscalls: Option<u64>,
    pub to_floor: Option<f64>,
    pub to_crun: Option<f64>,
    pub to_runc: Option<f64>,
}

/// What a container with one process costs in memory.
#[derive(Deserialize, Serialize)]
pub struct Memory {
    pub name: String,
    /// The most that its cgroup was charged for until its start.
    pub charged_kib: u64,
    /// The smallest limit under which /bin/true still ran.
    pub least_limit_kib: u64,
}

impl Section {
    pub fn new(scenario: &str, config: &str, floor: &str) -> Self {
        let (scenario, config, floor) = (scenario.to_owned(), config.to_owned(), floor.to_owned());
        Self { scenario, config, floor, rounds: 0, rows: Vec::new(), samples: Vec::new() }
    }

    /// Adds a contestant with its samples, one for each round.
    pub fn add(&mut self, contestant: &Contestant, samples: Vec<Sample>, syscalls: Option<u64>) {
        self.add_named(contestant.name, &contestant.version, samples, syscalls);
    }

    /// Adds one that is no [`Contestant`].
    pub fn add_named(&mut self, name: &str, version: &str, samples: Vec<Sample>, syscalls: Option<u64>) {
        let figures = Figures::of(&samples);
        self.rounds = samples.len();
        self.rows.push(Row {
            name: name.to_owned(),
            version: version.to_owned(),
            median_ms: figures.median_ms,
            min_ms: figures.min_ms,
            p90_ms: figures.p90_ms,
            cpu_ms: figures.cpu_ms,
            faults: figures.faults,
            peak_kib: figures.peak_kib,
            syscalls,
            to_floor: None,
            to_crun: None,
            to_runc: None,
        });
        self.samples.push(samples);
        self.compare();
    }

    /// Sets the ratios of all rows.
    fn compare(&mut self) {
        let of = |name: &str| self.rows.iter().position(|row| row.name == name).map(|index| &self.samples[index]);
        let (floor, crun, runc) = (of(&self.floor), of("crun"), of("runc"));
        let ratio = |own, other: Option<&Vec<Sample>>| other.map(|other| stats::ratio(own, other));
        for (row, own) in self.rows.iter_mut().zip(&self.samples) {
            row.to_floor = ratio(own, floor);
            row.to_crun = ratio(own, crun);
            row.to_runc = ratio(own, runc);
        }
    }

    /// Returns the row of a contestant.
    pub fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// Returns it for a terminal.
    pub fn table(&self) -> String {
        let mut text = format!("{}, {} config, {} rounds\n", self.scenario, self.config, self.rounds);
        let head =
            ["median ms", "min", "p90", "user+sys", "faults", "syscalls", "peak KiB", &format!("/ {}", self.floor)];
        let _ = write!(text, "{:14}", "");
        for column in head.iter().chain(&["/ crun", "/ runc"]) {
            let _ = write!(text, "{column:>10}");
        }
        text.push('\n');
        for row in &self.rows {
            let _ = writeln!(
                text,
                "{:14}{:>10.2}{:>10.2}{:>10.2}{:>10.2}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
                row.name,
                row.median_ms,
                row.min_ms,
                row.p90_ms,
                row.cpu_ms,
                row.faults,
                show(row.syscalls),
                row.peak_kib,
                show_ratio(row.to_floor),
                show_ratio(row.to_crun),
                show_ratio(row.to_runc),
            );
        }
        if self.row(&self.floor).is_some_and(|floor| floor.median_ms > NOISY * floor.min_ms) {
            text += "note: the floor's median is far above its minimum; something else took the processors\n";
        }
        text
    }
}

/// Returns all of it as a page of the documentation.
pub fn page(report: &Report) -> String {
    let mut text = include_str!("page.md").to_owned();
    text += "\n| scenario | config | contestant | median ms | p90 | user+sys | faults | syscalls | peak KiB | / floor | / crun | / runc |\n";
    text += "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n";
    for section in &report.sections {
        for row in &section.rows {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {:.2} | {:.2} | {:.2} | {} | {} | {} | {} | {} | {} |",
                section.scenario,
                section.config,
                row.name,
                row.median_ms,
                row.p90_ms,
                row.cpu_ms,
                row.faults,
                show(row.syscalls),
                row.peak_kib,
                show_ratio(row.to_floor),
                show_ratio(row.to_crun),
                show_ratio(row.to_runc),
            );
        }
    }
    text += "\n| contestant | charged to the container, KiB | smallest limit, KiB |\n|---|--:|--:|\n";
    for row in &report.memory {
        let _ = writeln!(text, "| {} | {} | {} |", row.name, row.charged_kib, row.least_limit_kib);
    }
    text.push('\n');
    for row in versions(report) {
        let _ = writeln!(text, "- {row}");
    }
    text
}

/// Returns a line for each contestant that says which it was.
fn versions(report: &Report) -> Vec<String> {
    let mut found = Vec::new();
    let rows = report.sections.iter().flat_map(|section| &section.rows);
    for row in rows.filter(|row| !row.version.is_empty()) {
        let line = format!("{}: {}", row.name, row.version);
        if !found.contains(&line) {
            found.push(line);
        }
    }
    found
}

fn show(number: Option<u64>) -> String {
    number.map_or("-".to_owned(), |value| value.to_string())
}

fn show_ratio(ratio: Option<f64>) -> String {
    ratio.map_or("-".to_owned(), |value| format!("{value:.2}"))
}
