//! `events`: what a container uses and when it runs out of memory, a line of JSON for each.

use super::{Global, output, root};
use anyhow::{Result, bail};
use clap::Args;
use stasis::container::Container;
use stasis::container::events::Event;
use std::time::Duration;

/// The interval that nobody has set.
const INTERVAL: Duration = Duration::from_secs(5);

/// Arguments of `events`.
#[derive(Args, Debug)]
#[command(after_help = "Ends with the container. An interval is a number with a unit, or several: 100ms, 1m30s.")]
pub struct EventsArgs {
    /// set the stats collection interval (default: 5s)
    #[arg(long, value_name = "duration", value_parser = duration)]
    pub interval: Option<Duration>,
    /// display the container's stats then exit
    #[arg(long)]
    pub stats: bool,
    /// the name of the container
    #[arg(value_name = "container-id")]
    pub id: String,
}

/// Prints what happens to a container.
pub fn run(args: &EventsArgs, global: &Global) -> Result<u8> {
    let container = Container::load(&root::select(global)?.path, &args.id)?;
    let interval = args.interval.unwrap_or(INTERVAL);
    if interval.is_zero() {
        bail!("duration interval must be greater than 0");
    }
    // Clients match the beginning of the line, so the order of its keys is fixed here. An id needs no escapes.
    let stats = |stats| format!("{{\"type\":\"stats\",\"id\":\"{}\",\"data\":{stats}}}\n", args.id);
    if args.stats {
        output::print(&stats(container.stats()?))?;
        return Ok(0);
    }
    container.watch(interval, |event| match event {
        Event::Stats(data) => output::print(&stats(data)),
        Event::OutOfMemory => output::print(&format!("{{\"type\":\"oom\",\"id\":\"{}\"}}\n", args.id)),
    })?;
    Ok(0)
}

/// Reads a duration as Go writes it: `5s`, `100ms`, `1h2m`, `1.5s`. A negative one is none.
fn duration(text: &str) -> Result<Duration, String> {
    let malformed = || "not a duration".to_owned();
    let (mut rest, is_negative) = text.strip_prefix('-').map_or((text, false), |rest| (rest, true));
    let mut seconds = 0.0;
    while rest != "0" {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(malformed)?;
        let number: f64 = rest[..end].parse().map_err(|_| malformed())?;
        let unit_end = rest[end..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |at| end + at);
        let unit = match &rest[end..unit_end] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(malformed()),
        };
        seconds += number * unit;
        rest = &rest[unit_end..];
        if rest.is_empty() {
            break;
        }
    }
    let seconds = if is_negative { 0.0 } else { seconds };
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| malformed())?;
    // Go counts nanoseconds in 64 bits with a sign.
    if duration.as_nanos() > i64::MAX as u128 { Err(malformed()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, millis) in [
            ("5s", 5000),
            ("100ms", 100),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("2500us", 2),
            ("2562047h", 9_223_369_200_000),
        ] {
            assert_eq!(duration(text).unwrap().as_millis(), millis, "{text}");
        }
        assert!(duration("0").unwrap().is_zero() && duration("-3s").unwrap().is_zero());
        for text in ["", "5", "s", "1x", "1s2", "1..5s", "-", "2562048h", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
