//! From samples to figures: the table on standard output, and the same as JSON.
//!
//! A ratio is the median of the ratios of each round, not the ratio of the
//! medians, so that what slows one whole round down cancels out.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::time::Duration;

use crate::layout::Layout;
use crate::measure::{Contestant, Sample};

/// A median that is this many times the minimum tells more of the machine than of the program.
const NOISY: f64 = 1.5;

pub struct Report {
    rows: Vec<Row>,
}

struct Row {
    name: &'static str,
    version: String,
    median_ms: f64,
    min_ms: f64,
    p90_ms: f64,
    cpu_ms: f64,
    peak_kib: u64,
    to_floor: Option<f64>,
    to_crun: Option<f64>,
}

impl Report {
    /// Summarises `samples`, which holds one list, in order of rounds, for each contestant.
    pub fn new(contestants: &[Contestant], samples: &[Vec<Sample>]) -> Report {
        let of = |name| contestants.iter().position(|c| c.name == name).map(|i| &samples[i]);
        let rows = contestants.iter().zip(samples).map(|(contestant, own)| {
            let walls = sorted(own.iter().map(|sample| milliseconds(sample.wall)));
            let cpus = sorted(own.iter().map(|sample| milliseconds(sample.cpu)));
            Row {
                name: contestant.name,
                version: contestant.version.clone(),
                median_ms: quantile(&walls, 0.5),
                min_ms: walls[0],
                p90_ms: quantile(&walls, 0.9),
                cpu_ms: quantile(&cpus, 0.5),
                peak_kib: own.iter().map(|sample| sample.peak_kib).max().unwrap_or(0),
                to_floor: of("floor").map(|other| ratio(own, other)),
                to_crun: of("crun").map(|other| ratio(own, other)),
            }
        });
        Report { rows: rows.collect() }
    }

    pub fn table(&self, layout: Layout, rounds: usize) -> String {
        let mut text = format!("cgroup layout {}, {rounds} rounds, times in ms\n", layout.name());
        for row in self.rows.iter().filter(|row| !row.version.is_empty()) {
            text += &format!("  {}: {}\n", row.name, row.version);
        }
        text += "\n            median     min     p90  user+sys  peak KiB  / floor   / crun\n";
        for row in &self.rows {
            let (floor, crun) = (show(row.to_floor), show(row.to_crun));
            let _ = writeln!(
                text,
                "{:9} {:8.2} {:7.2} {:7.2} {:9.2} {:9} {floor:>8} {crun:>8}",
                row.name, row.median_ms, row.min_ms, row.p90_ms, row.cpu_ms, row.peak_kib,
            );
        }
        if let Some(floor) = self.rows.iter().find(|row| row.name == "floor") {
            if floor.median_ms > NOISY * floor.min_ms {
                text += "\nnote: the floor's median is far above its minimum; something else \
                         took the processors, or (v1) runs waited for RCU\n";
            }
        }
        text
    }

    pub fn write_json(&self, mut file: File, layout: Layout, rounds: usize) -> io::Result<()> {
        let number = |value: Option<f64>| value.map_or("null".to_owned(), |v| format!("{v:.4}"));
        let rows = self.rows.iter().map(|row| {
            format!(
                "    {{\"name\": {}, \"version\": {}, \"wall_median_ms\": {:.4}, \
                 \"wall_min_ms\": {:.4}, \"wall_p90_ms\": {:.4}, \"cpu_median_ms\": {:.4}, \
                 \"peak_kib\": {}, \"ratio_to_floor\": {}, \"ratio_to_crun\": {}}}",
                quote(row.name),
                quote(&row.version),
                row.median_ms,
                row.min_ms,
                row.p90_ms,
                row.cpu_ms,
                row.peak_kib,
                number(row.to_floor),
                number(row.to_crun),
            )
        });
        let rows = rows.collect::<Vec<_>>().join(",\n");
        let layout = quote(layout.name());
        writeln!(file, "{{\n  \"layout\": {layout},\n  \"rounds\": {rounds},\n  \"contestants\": [\n{rows}\n  ]\n}}")
    }
}

/// Returns the median over all rounds of what `own` took for each unit that `other` took.
fn ratio(own: &[Sample], other: &[Sample]) -> f64 {
    let pairs = own.iter().zip(other);
    quantile(&sorted(pairs.map(|(a, b)| a.wall.as_secs_f64() / b.wall.as_secs_f64())), 0.5)
}

/// Returns a quantile of a sorted, non-empty list, between its two nearest values.
fn quantile(values: &[f64], part: f64) -> f64 {
    let place = part * (values.len() - 1) as f64;
    let (low, high) = (values[place.floor() as usize], values[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn show(ratio: Option<f64>) -> String {
    ratio.map_or("-".to_owned(), |value| format!("{value:.2}"))
}

/// Quotes a text for JSON.
fn quote(text: &str) -> String {
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            _ if letter.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(letter));
            }
            _ => quoted.push(letter),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantile_lies_between_the_nearest_values() {
        assert_eq!(quantile(&[3.0], 0.9), 3.0);
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.5), 2.0);
        assert_eq!(quantile(&[1.0, 2.0], 0.5), 1.5);
    }

    #[test]
    fn ratio_is_the_median_of_the_rounds() {
        let samples = |walls: [u64; 3]| {
            walls.map(|ms| Sample { wall: Duration::from_millis(ms), cpu: Duration::ZERO, peak_kib: 0 })
        };
        assert_eq!(ratio(&samples([4000, 8000, 2000]), &samples([1000, 1000, 1000])), 4.0);
    }

    #[test]
    fn quote_escapes_what_json_does_not_allow() {
        assert_eq!(quote("a\"b\\c\n"), r#""a\"b\\c\u000a""#);
    }
}
