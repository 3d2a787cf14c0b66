//! What a command of the runtime answered, and what a test expects of it.

use std::fmt;
use std::io::Write;
use std::process::{Command, Stdio};

/// The end of a command: its exit code and what it wrote.
#[derive(Clone)]
pub struct Output {
    /// The command line, for messages.
    pub line: String,
    /// The exit code; 128 and the number for a signal.
    pub code: i32,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Output {
    /// Runs a command to its end, with this on its standard input.
    pub fn of(command: &mut Command, input: &[u8], line: String) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|err| panic!("{line}: {err}"));
        // A command that ends before it has read everything says so in its own way.
        let _written = child.stdin.take().unwrap().write_all(input);
        let ended = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = ended.status.code().unwrap_or(-1);
        Self { line, code, stdout: text(&ended.stdout), stderr: text(&ended.stderr) }
    }

    /// Expects success.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Expects this exit code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self}");
        self
    }

    /// Expects a failure.
    #[track_caller]
    pub fn fails(self) -> Self {
        assert_ne!(self.code, 0, "{self}");
        self
    }

    /// Expects a part of the standard error.
    #[track_caller]
    pub fn stderr_contains(self, part: &str) -> Self {
        self.stderr_contains_any(&[part])
    }

    /// Expects one of several wordings in the standard error: ours, and the oracles' if they differ.
    #[track_caller]
    pub fn stderr_contains_any(self, parts: &[&str]) -> Self {
        // The text log escapes quotes, as runc's does.
        let plain = self.stderr.replace("\\\"", "\"");
        let said = |part: &&str| self.stderr.contains(*part) || plain.contains(*part);
        assert!(parts.iter().any(said), "none of {parts:?} in {self}");
        self
    }

    /// Expects a part of the standard output.
    #[track_caller]
    pub fn stdout_contains(self, part: &str) -> Self {
        assert!(self.stdout.contains(part), "no {part:?} in {self}");
        self
    }

    /// Expects the standard output to be this, but for space at its ends.
    #[track_caller]
    pub fn prints(self, text: &str) -> Self {
        assert_eq!(self.stdout.trim(), text, "{self}");
        self
    }

    /// Returns the standard output without space at its ends.
    pub fn text(&self) -> &str {
        self.stdout.trim()
    }

    /// Returns the lines of the standard output.
    pub fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }

    /// Returns the standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|err| panic!("{err}: {self}"))
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ended with {}", self.line, self.code)?;
        write!(f, "\n--- stdout\n{}\n--- stderr\n{}", self.stdout.trim_end(), self.stderr.trim_end())
    }
}
