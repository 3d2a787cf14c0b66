//! Wall-clock time as RFC 3339 text: what the log's `time` and the state's `created` say.
//!
//! Pure arithmetic on a time since the epoch; the clock is read in one place, [`now`]. Monotonic time and timeouts are
//! not here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: u64 = 86_400;

/// Returns the present time in UTC.
pub fn now() -> String {
    // A clock before 1970 is a broken clock; the epoch is as good a text as any.
    rfc3339(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Returns `since_epoch` as clients of runc expect a time: UTC, as many digits of the nanoseconds as say something.
pub fn rfc3339(since_epoch: Duration) -> String {
    let (days, clock) = (since_epoch.as_secs() / DAY, since_epoch.as_secs() % DAY);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    let fraction = match since_epoch.subsec_nanos() {
        0 => String::new(),
        nanos => format!(".{nanos:09}").trim_end_matches('0').to_owned(),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Returns the year, month and day that is `days` after 1970-01-01 in the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years are counted from 1 March, so that the leap day is the last of its year and the lengths of the months before
    // it repeat every 153 days; 719468 days lie between 0000-03-01 and the epoch, 146097 make 400 years.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (400 * era + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        for (secs, nanos, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (951_782_399, 0, "2000-02-28T23:59:59Z"),
            (951_782_400, 1, "2000-02-29T00:00:00.000000001Z"),
            (951_868_800, 500_000_000, "2000-03-01T00:00:00.5Z"),
            (1_735_689_599, 999_999_999, "2024-12-31T23:59:59.999999999Z"),
            (1_795_407_149, 339_105_490, "2026-11-23T04:12:29.33910549Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00Z"),
            (4_107_456_000, 0, "2100-02-28T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(Duration::new(secs, nanos)), text);
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = civil(0);
        for days in 1..200_000 {
            let (year, month, day) = civil(days);
            let next_day = (year, month) == (before.0, before.1) && day == before.2 + 1;
            let next_month = day == 1 && before.2 >= 28 && (year, month) > (before.0, before.1);
            assert!(next_day || next_month, "{before:?} is not followed by {year}-{month}-{day}");
            before = (year, month, day);
        }
    }
}
