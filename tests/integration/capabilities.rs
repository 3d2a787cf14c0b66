//! The table of what can be checkpointed and restored: it names tests that there are, and is the README's.

use std::fs;
use std::path::Path;

/// Reads a file of the source tree.
fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// Returns the rows of the table: its capability and runtimes, and its tests.
fn rows() -> Vec<(Vec<String>, Vec<String>)> {
    let text = read("tests/capabilities.tsv");
    let rows = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let mut columns: Vec<_> = line.split('\t').map(str::to_owned).collect();
        let tests = columns.pop().unwrap();
        (columns, tests.split(' ').map(str::to_owned).collect())
    });
    rows.collect()
}

#[test]
fn each_has_tests() {
    for (columns, tests) in rows() {
        assert_eq!(columns.len(), 4, "{columns:?}");
        for test in tests {
            let (module, name) = test.split_once("::").unwrap_or_else(|| panic!("{test}: no test's name"));
            let source = read(&format!("tests/{module}.rs"));
            assert!(source.contains(&format!("#[test]\nfn {name}()")), "{test}: there is no such test");
        }
    }
}

#[test]
fn the_readme_tells_them_all() {
    let readme = read("README.md");
    for (columns, _) in rows() {
        let row = format!("| {} | ✓ |", columns.join(" | "));
        assert!(readme.contains(&row), "README.md lacks `{row}`: run `make capabilities`");
    }
}
