//! What is written from the definition of the command line and kept in the source tree: completions, a file per shell.
//!
//! Only tests know of it, so that the program does not carry it: one compares, and `make generate` lets an ignored one
//! write. Man pages are prose and written by hand; a test holds their options to the definition.

mod bash;
mod fish;
mod zsh;

use super::definition;
use clap::{Arg, ArgAction, Command};
use std::path::{Path, PathBuf};

/// Writes a completion from the definition.
type Writer = fn(&Command) -> String;

/// The names of the files, and what writes them.
const KEPT: [(&str, Writer); 3] = [("stasis.bash", bash::write), ("stasis.fish", fish::write), ("_stasis", zsh::write)];

/// What an option is followed by.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Value {
    None,
    Path,
    Other,
}

/// What a verb is followed by.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Operand {
    None,
    Container,
    NewContainer,
    Directory,
}

fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("completions").join(name)
}

/// The values that are paths.
const PATHS: [&str; 3] = ["dir", "file", "path"];

fn options(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| !arg.is_positional() && !arg.is_hide_set())
}

/// Returns the option in each of its spellings.
fn spellings(option: &Arg) -> Vec<String> {
    let letters = option.get_short_and_visible_aliases().into_iter().flatten().map(|letter| format!("-{letter}"));
    option.get_long().map(|long| format!("--{long}")).into_iter().chain(letters).collect()
}

fn value(option: &Arg) -> Value {
    match option.get_action() {
        ArgAction::SetTrue | ArgAction::Help | ArgAction::Version => Value::None,
        _ if option.get_value_names().is_some_and(|names| PATHS.contains(&names[0].as_str())) => Value::Path,
        _ => Value::Other,
    }
}

fn operand(verb: &Command) -> Operand {
    match verb.get_positionals().next().and_then(|arg| arg.get_value_names()).map(|names| names[0].as_str()) {
        None => Operand::None,
        Some("container-id") if ["create", "run", "restore"].contains(&verb.get_name()) => Operand::NewContainer,
        Some("container-id") => Operand::Container,
        Some(_) => Operand::Directory,
    }
}

fn containers(definition: &Command) -> Vec<&str> {
    let named = definition.get_subcommands().filter(|verb| operand(verb) == Operand::Container);
    named.map(Command::get_name).collect()
}

/// Returns what the options of a command do, in one line.
fn help(option: &Arg) -> String {
    option.get_help().map(|help| help.to_string().replace('\n', " ")).unwrap_or_default()
}

/// Returns what a verb does, in one line.
fn about(verb: &Command) -> String {
    verb.get_about().map(|about| about.to_string().replace('\n', " ")).unwrap_or_default()
}

#[test]
fn the_completions_are_those_of_the_definition() {
    for (name, write) in KEPT {
        let kept = std::fs::read_to_string(place(name)).unwrap_or_default();
        assert!(kept == write(&definition(|_| true)), "completions/{name} is not up to date: make generate");
    }
}

#[test]
#[ignore = "writes into the source tree: make generate"]
fn generate() {
    for (name, write) in KEPT {
        std::fs::create_dir_all(place(name).parent().unwrap()).unwrap();
        std::fs::write(place(name), write(&definition(|_| true))).unwrap();
    }
}

/// Has a shell carry a script out, whose arguments are a completion and the words of a line; none without that shell.
fn told_by(shell: &str, script: &str, name: &str, line: &[&str]) -> Option<Vec<String>> {
    let mut command = std::process::Command::new(shell);
    if shell != "fish" {
        command.args(["-c", script, shell]);
    } else {
        command.args(["--no-config", "-c", script]);
    }
    let output = match command.arg(place(name)).args(line).output() {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound && std::env::var_os("STRICT").is_none() => return None,
        other => other.unwrap(),
    };
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    Some(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}
