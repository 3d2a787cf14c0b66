//! Sizes as Docker's command line has them: bytes, or with a suffix in powers of 1024.

use anyhow::{Result, bail};

/// Reads a size: `1048576`, `1024k`, `64m`, `2g`, also `64M`, `64mb` and `64MiB`.
pub fn parse(text: &str) -> Result<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = text.split_at(digits);
    let shift = match suffix.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => bail!("invalid size"),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    match bytes {
        Some(bytes) => Ok(bytes),
        None => bail!("invalid size"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_dockers() {
        let cases = [("0", 0), ("7", 7), ("7b", 7), ("64k", 65536), ("64M", 64 << 20), ("2GiB", 2 << 30)];
        for (text, bytes) in cases {
            assert_eq!(parse(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "k", "-1", "1x", "1.5g", "99999999999t"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
