//! Lists of cpus and memory nodes as the kernel writes them, such as `0-2,7`, and as the masks of its system calls.

/// The bits of a word of a mask.
const BITS: usize = u64::BITS as usize;

/// No machine has more (CONFIG_NR_CPUS of the largest distribution kernels is 8192).
const MOST: u32 = 1 << 16;

/// Reads a list; nothing if it is malformed. One without a number is empty, or else malformed too.
pub fn parse(text: &str) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for range in text.trim().split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= MOST {
            return None;
        }
        numbers.extend(first..=last);
    }
    (!numbers.is_empty() || text.trim().is_empty()).then_some(numbers)
}

/// Returns the mask with a bit for each number.
pub fn mask(numbers: &[u32]) -> Vec<u64> {
    let mut mask = vec![0; numbers.iter().max().map_or(0, |last| *last as usize / BITS + 1)];
    for number in numbers.iter().map(|number| *number as usize) {
        mask[number / BITS] |= 1 << (number % BITS);
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_ranges() {
        for (text, expected) in
            [("0-2,7\n", &[0, 1, 2, 7][..]), ("3", &[3]), ("\n", &[]), ("", &[]), ("1,, 4 - 5,", &[1, 4, 5])]
        {
            assert_eq!(parse(text).as_deref(), Some(expected), "{text}");
        }
        for text in [",", " , ,", "x", "3-1", "1-", "-1", "0-99999999", "1;2"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn masks_have_a_bit_for_each() {
        assert_eq!(mask(&[0, 2]), [0b101]);
        assert_eq!(mask(&[65]), [0, 0b10]);
        assert_eq!(mask(&[]), [0; 0]);
    }
}
