//! From samples to figures.

use std::time::Duration;

use crate::measure::Sample;

/// What the samples of one contestant in one scenario say.
pub struct Figures {
    pub median_ms: f64,
    pub min_ms: f64,
    pub p90_ms: f64,
    pub cpu_ms: f64,
    pub faults: u64,
    pub peak_kib: u64,
}

impl Figures {
    /// Summarises samples, of which there is at least one.
    pub fn of(samples: &[Sample]) -> Self {
        let walls = sorted(samples.iter().map(|sample| milliseconds(sample.wall)));
        let cpus = sorted(samples.iter().map(|sample| milliseconds(sample.cpu)));
        let faults = sorted(samples.iter().map(|sample| sample.faults as f64));
        Self {
            median_ms: quantile(&walls, 0.5),
            min_ms: walls[0],
            p90_ms: quantile(&walls, 0.9),
            cpu_ms: quantile(&cpus, 0.5),
            faults: quantile(&faults, 0.5) as u64,
            peak_kib: samples.iter().map(|sample| sample.peak_kib).max().unwrap_or(0),
        }
    }
}

/// Returns the median over all rounds of what `own` took for each unit that `other` took: what slows one whole round
/// down cancels out.
pub fn ratio(own: &[Sample], other: &[Sample]) -> f64 {
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
        let samples = |walls: [u64; 3]| walls.map(|ms| Sample { wall: Duration::from_millis(ms), ..Sample::default() });
        assert_eq!(ratio(&samples([4000, 8000, 2000]), &samples([1000, 1000, 1000])), 4.0);
    }
}
