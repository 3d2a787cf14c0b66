//! Sizes, in powers of 1024: read as Docker's command line has them, and written for people.

use anyhow::{Result, bail};

/// Reads a size: `1048576`, `1024k`, `64m`, `1.5g`, also `64M`, `64mb`, `64MiB` and `64 m`.
pub fn parse(text: &str) -> Result<u64> {
    let end = text.rfind(|c: char| c.is_ascii_digit()).map_or(0, |last| last + 1);
    let (number, suffix) = text.split_at(end);
    let shift = match suffix.strip_prefix(' ').unwrap_or(suffix).to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => bail!("invalid size: '{text}'"),
    };
    match scaled(number, shift) {
        Some(bytes) => Ok(bytes),
        None => bail!("invalid size: '{text}'"),
    }
}

/// Returns a number, which may have a fraction, times 2 to the power of `shift`; what is less than a byte is dropped.
fn scaled(number: &str, shift: u32) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    // parse() takes a sign, and for a float much else.
    if [whole, fraction].iter().any(|part| part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit())) {
        return None;
    }
    let part = format!("0.{fraction}").parse::<f64>().ok()? * (1_u64 << shift) as f64;
    whole.parse::<u64>().ok()?.checked_mul(1 << shift)?.checked_add(part as u64)
}

/// Returns a size for people: `17 B`, `1.5 MiB`.
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut size = bytes as f64;
    let mut unit = "B";
    for larger in UNITS {
        // What would be rounded to 1024.0 is one of the next.
        if size < 1023.95 {
            break;
        }
        (size, unit) = (size / 1024.0, larger);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{size:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_the_unit_that_fits() {
        let cases = [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_048_575, "1.0 MiB"), (3 << 29, "1.5 GiB")];
        for (bytes, text) in cases {
            assert_eq!(human(bytes), text);
        }
        assert_eq!(human(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn sizes_are_dockers() {
        let cases = [("0", 0), ("7", 7), ("7b", 7), ("64k", 65536), ("64M", 64 << 20), ("2GiB", 2 << 30)];
        for (text, bytes) in
            cases.into_iter().chain([("1.5g", 3 << 29), ("2 mb", 2 << 20), ("0.5k", 512), ("1t", 1 << 40)])
        {
            assert_eq!(parse(text).unwrap(), bytes, "{text}");
        }
        for text in
            ["", "k", "-1", "+1", "1x", "1.5.2m", ".5m", "5.m", "1 m b", "1e3", "99999999999t", "99999999999999999999"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
