//! Command lines in Go's style: one dash or two, a value behind `=` or in the next argument.

use anyhow::{Context, Result};
use std::collections::HashMap;

/// Options which have no value.
const SWITCHES: [&str; 1] = ["no-stdin"];

/// The options and the one operand that the suite gives.
pub struct Args {
    options: HashMap<String, String>,
    operand: Option<String>,
}

impl Args {
    /// Takes a command line apart.
    pub fn parse(mut argv: impl Iterator<Item = String>) -> Self {
        let mut args = Self { options: HashMap::new(), operand: None };
        while let Some(arg) = argv.next() {
            let Some(option) = arg.strip_prefix('-') else {
                args.operand = Some(arg);
                continue;
            };
            let option = option.trim_start_matches('-');
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None if SWITCHES.contains(&option) => (option, String::new()),
                None => (option, argv.next().unwrap_or_default()),
            };
            args.options.insert(name.to_owned(), value);
        }
        args
    }

    /// Returns an option's value.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    /// Returns what is not an option.
    pub fn operand(&self) -> Result<&str> {
        self.operand.as_deref().context("an operand is missing")
    }

    /// Tells the suite whom to end.
    pub fn write_pid_file(&self) -> Result<()> {
        let Some(path) = self.option("pid-file") else { return Ok(()) };
        std::fs::write(path, std::process::id().to_string()).with_context(|| format!("write {path}"))
    }
}
