//! Standard output and standard error: the only place that writes to them, and the table of `list`.
//!
//! A client merges stdout and stderr of several commands, so what is printed here is all that such a command says.

use anyhow::{Context, Result};
use serde::Serialize;
use std::io::Write;

/// Writes `text` to standard output, as it is.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("write to stdout")
}

/// Writes `text` to standard error in one write(2): readers take what the first read(2) gives them.
pub fn complain(text: &str) {
    // There is nowhere left to tell that stderr cannot be written.
    _ = std::io::stderr().write_all(text.as_bytes());
}

/// Returns `value` as JSON, each level indented by `indent`.
pub fn json(value: &impl Serialize, indent: &str) -> Result<String> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter)).context("write JSON")?;
    String::from_utf8(bytes).context("write JSON")
}

/// Sets rows in columns of at least twelve characters, three of them blank, as runc's table writer does.
pub fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count() + 3).max().unwrap_or(0).max(12);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let blank = if column + 1 < N { widths[column].saturating_sub(cell.chars().count()) } else { 0 };
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', blank));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_cell_needs() {
        let row = |id: &str, pid: &str, owner: &str| [id.to_owned(), pid.to_owned(), owner.to_owned()];
        let text = table(&[row("ID", "PID", "OWNER"), row("a-long-container-id", "7", "root")]);
        assert_eq!(text, "ID                    PID         OWNER\na-long-container-id   7           root\n");
    }

    #[test]
    fn json_ends_without_a_line_break() {
        assert_eq!(json(&["a"], "    ").unwrap(), "[\n    \"a\"\n]");
    }
}
