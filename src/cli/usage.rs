//! Help, version and complaints about the command line, laid out as users of runc know them.
//!
//! Everything is rendered from clap's definition. runc's own test suite reads the first two lines of a help text and
//! all lines of the version.

use super::argv::{Mistake, Misuse};
use super::{FAILURE, NO_SUCH_VERB, log, output};
use anyhow::{Result, anyhow};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command};
use stasis::plan::seccomp;
use std::ffi::OsString;
use std::fmt::Write;
use std::path::Path;

/// The highest version of the runtime specification that we know.
pub const SPEC_VERSION: &str = "1.3.0";

/// What was built: the commit when the build names one, else the release.
pub const COMMIT: &str = match option_env!("STASIS_COMMIT") {
    Some(commit) => commit,
    None => concat!("v", env!("CARGO_PKG_VERSION")),
};

/// The program under the name it was called by, and its definition.
pub struct Program {
    name: String,
    definition: Command,
}

impl Program {
    /// Takes the name from `argv[0]`.
    pub fn new(argv: &[OsString], definition: Command) -> Self {
        Self { name: called_name(argv.first()), definition }
    }

    /// Prints the help of a verb, or of the program.
    pub fn help(&self, verb: Option<&str>) -> Result<u8> {
        output::print(&self.help_text(verb))?;
        Ok(0)
    }

    fn help_text(&self, verb: Option<&str>) -> String {
        match verb.and_then(|verb| self.definition.find_subcommand(verb)) {
            Some(verb) => self.verb_help(verb),
            None => self.program_help(),
        }
    }

    fn program_help(&self) -> String {
        let Self { name, definition } = self;
        let commands = definition
            .get_subcommands()
            .map(|verb| (verb.get_name().to_owned(), about(verb)))
            .chain([("help, h".to_owned(), "show a list of commands or help for one command".to_owned())]);
        format!(
            "NAME:\n   {name} - {}\n\nUSAGE:\n   {name} [global options] command [command options] [arguments...]\n\n\
             VERSION:\n   {}\n\nCOMMANDS:\n{}\nGLOBAL OPTIONS:\n{}",
            about(definition),
            env!("CARGO_PKG_VERSION"),
            columns(commands),
            columns(options(definition)),
        )
    }

    fn verb_help(&self, verb: &Command) -> String {
        let (name, verb_name) = (&self.name, verb.get_name());
        let options = columns(options(verb));
        let mut text = format!("NAME:\n   {name} {verb_name} - {}\n\nUSAGE:\n   {name} {verb_name}", about(verb));
        if !options.is_empty() {
            text += " [command options]";
        }
        for arg in verb.get_positionals() {
            text += &positional(arg);
        }
        text += "\n";
        if let Some(more) = verb.get_after_help() {
            text += &format!("\nDESCRIPTION:\n   {}\n", more.to_string().replace('\n', "\n   "));
        }
        if !options.is_empty() {
            text += &format!("\nOPTIONS:\n{options}");
        }
        text
    }

    /// Prints the version: three words, then a line for each part that matters to clients.
    pub fn version(&self) -> Result<u8> {
        output::print(&format!(
            "{} version {}\ncommit: {COMMIT}\nspec: {SPEC_VERSION}\nlibseccomp: {}\n",
            self.name,
            env!("CARGO_PKG_VERSION"),
            seccomp::library_version(),
        ))?;
        Ok(0)
    }

    /// Answers a misuse as runc does: the help on stdout, the error where errors go; returns the exit code.
    pub fn misuse(&self, misuse: &Misuse) -> u8 {
        let help = match misuse.kind {
            Mistake::Verb => String::new(),
            Mistake::Count => {
                format!("Incorrect Usage.\n\n{}", self.help_text(misuse.verb.as_deref()))
            }
            Mistake::Option => {
                format!("Incorrect Usage: {}\n\n{}", misuse.text, self.help_text(misuse.verb.as_deref()))
            }
        };
        let code = if misuse.kind == Mistake::Verb { NO_SUCH_VERB } else { FAILURE };
        // When stdout cannot be written to, the error still can.
        let printed = output::print(&help).err();
        log::exit_code(Err(printed.unwrap_or_else(|| anyhow!(misuse.text.clone()))), code)
    }
}

/// Returns the name to go by: clients that look for `runc` install the binary under that name.
pub fn called_name(argv0: Option<&OsString>) -> String {
    let called_runc = argv0.is_some_and(|name| Path::new(name).file_name() == Some("runc".as_ref()));
    if called_runc { "runc" } else { "stasis" }.to_owned()
}

/// Returns the name that this process goes by.
pub fn own_name() -> String {
    called_name(std::env::args_os().next().as_ref())
}

/// Turns a complaint of clap's, which can only be about a value, into the words of Go's flag package.
pub fn complaint(err: &clap::Error) -> String {
    let context = |kind| match err.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    match (err.kind(), context(ContextKind::InvalidArg), context(ContextKind::InvalidValue)) {
        (ErrorKind::ValueValidation | ErrorKind::InvalidValue, Some(option), Some(value)) => {
            let option = option.trim_start_matches('-').split(' ').next().unwrap_or_default();
            format!("invalid value {value:?} for flag -{option}: parse error")
        }
        (ErrorKind::InvalidUtf8, ..) => "an argument is not valid UTF-8".to_owned(),
        _ => err.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    }
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

fn positional(arg: &Arg) -> String {
    let name =
        arg.get_value_names().and_then(|names| names.first()).map_or(arg.get_id().as_str(), |name| name.as_str());
    let more = if matches!(arg.get_action(), ArgAction::Append) { "..." } else { "" };
    if arg.is_required_set() { format!(" <{name}>{more}") } else { format!(" [{name}{more}]") }
}

fn options(command: &Command) -> impl Iterator<Item = (String, String)> {
    command.get_arguments().filter(|arg| !arg.is_positional() && !arg.is_hide_set()).map(|arg| {
        let value = match (arg.get_action(), arg.get_value_names().and_then(|names| names.first())) {
            (ArgAction::SetTrue, _) | (_, None) => String::new(),
            (_, Some(name)) => format!(" {name}"),
        };
        let mut names = format!("--{}{value}", arg.get_long().unwrap_or_default());
        for letter in arg.get_short_and_visible_aliases().into_iter().flatten() {
            names += &format!(", -{letter}{value}");
        }
        (names, arg.get_help().map(ToString::to_string).unwrap_or_default())
    })
}

/// Sets rows of two in columns.
fn columns(rows: impl Iterator<Item = (String, String)>) -> String {
    let rows: Vec<_> = rows.collect();
    let width = rows.iter().map(|(left, _)| left.len()).max().unwrap_or_default();
    rows.iter().fold(String::new(), |mut text, (left, right)| {
        // Writing to a String cannot fail.
        _ = writeln!(text, "   {left:width$}  {right}");
        text
    })
}
