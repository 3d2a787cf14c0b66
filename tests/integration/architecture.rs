//! The rules of the source tree that a compiler does not check: who may use whom, where `unsafe` may stand, how long a
//! file may be.
//!
//! `spec -> plan -> (container outside | init inside) -> sys`: each area names the ones below it and no others. clippy
//! looks after the length of functions and the number of their arguments.

use std::fs;
use std::path::{Path, PathBuf};

/// What each area may name of the crate, beside itself.
const MAY_USE: [(&str, &[&str]); 16] = [
    ("main", &["program"]),
    ("cli", &["container", "criu", "error", "plan", "seal", "spec", "sys", "time", "tmpfs"]),
    ("container", &["cgroup", "criu", "error", "handshake", "init", "plan", "spec", "sys", "time", "tmpfs"]),
    ("init", &["handshake", "plan", "sys"]),
    ("spec", &["error", "plan"]),
    ("plan", &["cstrings", "error"]),
    ("cgroup", &["dbus", "error", "plan", "sys"]),
    ("dbus", &["error", "sys"]),
    ("criu", &["error", "sys", "time", "tmpfs"]),
    ("handshake", &["plan", "sys"]),
    ("seal", &["error", "sys"]),
    ("tmpfs", &["error", "sys"]),
    ("sys", &["cstrings"]),
    ("cstrings", &[]),
    ("error", &[]),
    ("time", &[]),
];

/// Plain data that a wrapper takes as it is, since the call has as many arguments.
const DATA_FOR_SYS: [&str; 2] = ["crate::plan::process::SchedulerPlan", "crate::plan::cgroup::Instruction"];

/// What may not be named in an area: a word, and where it stands for something that the area must not do.
const MAY_NOT_NAME: [(&str, &[&str]); 2] = [
    // Between clone and execve: no configuration, no allocation, no log (design: the inside decides nothing).
    (
        "init",
        &["oci_spec", "std::fs", "log::", "format!", "vec!", "Vec::", "String::", "to_string", "to_owned", "Box::"],
    ),
    ("sys", &["anyhow", "oci_spec", "log::"]),
];

/// Names that say nothing.
const EMPTY_NAMES: [&str; 9] = ["manager", "helper", "util", "common", "misc", "impl", "handler", "tenant", "data"];

/// The most lines that a file may have without its tests.
const LONGEST: usize = 400;

/// A file of src/: its area, and its code without comments and tests.
struct Source {
    path: PathBuf,
    area: String,
    text: String,
    code: Vec<String>,
}

#[test]
fn each_area_uses_only_the_ones_below_it() {
    for source in sources() {
        let (_, allowed) = MAY_USE.iter().find(|(area, _)| *area == source.area).unwrap_or(&("", &[]));
        for line in &source.code {
            let line = DATA_FOR_SYS.iter().fold(line.clone(), |line, data| match source.area.as_str() {
                "sys" => line.replace(data, ""),
                _ => line,
            });
            assert!(!line.contains("crate::{"), "{}: one use a line: {line}", source.path.display());
            for name in named(&line) {
                let fine = name == source.area || allowed.contains(&name.as_str());
                let facade = source.area != "sys" && name.starts_with(char::is_uppercase);
                let own_crate = source.area == "lib" || (source.area == "cli" && line.contains("crate::"));
                assert!(fine || facade || own_crate, "{}: may not use {name}: {line}", source.path.display());
            }
        }
    }
}

#[test]
fn each_area_names_only_what_it_may() {
    for source in sources() {
        let words = MAY_NOT_NAME.iter().filter(|(area, _)| *area == source.area).flat_map(|(_, words)| *words);
        for word in words {
            let line = source.code.iter().find(|line| line.contains(word));
            assert_eq!(line, None, "{} names {word}", source.path.display());
        }
    }
}

#[test]
fn unsafe_stands_in_sys_alone() {
    for source in sources().into_iter().filter(|source| source.area != "sys") {
        // lib.rs denies it, and allows it for sys.
        let is_unsafe = |line: &&String| line.contains("unsafe") && !line.contains("unsafe_code");
        assert_eq!(source.code.iter().find(is_unsafe), None, "{}", source.path.display());
    }
}

#[test]
fn no_file_is_too_long_to_read() {
    for source in sources() {
        let lines = source.code.len();
        assert!(lines <= LONGEST, "{} has {lines} lines without tests: split it by subject", source.path.display());
    }
}

#[test]
fn every_file_says_what_lives_in_it() {
    for source in sources() {
        let said = source.text.lines().take_while(|line| line.starts_with("//!")).count();
        assert!(said >= 1, "{} begins without `//!`", source.path.display());
    }
}

#[test]
fn files_are_named_for_their_subject() {
    for source in sources() {
        let name = source.path.file_stem().unwrap().to_str().unwrap();
        assert!(
            !EMPTY_NAMES.iter().any(|empty| name.split('_').any(|word| word.trim_end_matches('s') == *empty)),
            "{name}"
        );
    }
}

/// Returns the areas that a line of code names: `a` of every `crate::a` and `stasis::a`.
fn named(line: &str) -> Vec<String> {
    let after = |prefix: &'static str| line.split(prefix).skip(1);
    let word = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    after("crate::").chain(after("stasis::")).map(word).filter(|word: &String| !word.is_empty()).collect()
}

fn sources() -> Vec<Source> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&src, &src, &mut found);
    assert!(found.len() > 50);
    found
}

fn collect(src: &Path, dir: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(src, &path, found);
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap();
        // Tests that are a file of their own.
        if path.extension().is_none_or(|extension| extension != "rs") || name == "tests" || name.ends_with("_tests") {
            continue;
        }
        let first = path.strip_prefix(src).unwrap().iter().next().unwrap();
        let area = Path::new(first).file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let code = code(&text);
        found.push(Source { path, area, text, code });
    }
}

/// Returns the lines up to the tests at the foot, without what stands behind `//`.
fn code(text: &str) -> Vec<String> {
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
    lines.map(|line| line.split("//").next().unwrap().to_owned()).collect()
}
