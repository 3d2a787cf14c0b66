//! Go's flag conventions, turned into the words that clap reads.
//!
//! Clients were written against runc, whose parser takes `-long` for `--long`, `--flag=false`, the global options again
//! and after the verb, options after positional arguments, and empty values; and which says what is wrong in words that
//! some of them match. One walk over the arguments settles all of that. Which options there are is read from clap's own
//! [`Command`]; the one other list, of fields, is [`quick`](super::quick)'s, and tested against it. Types of values are
//! clap's concern.

use clap::{Arg, ArgAction, Command};
use std::any::TypeId;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Verbs after whose first positional argument everything belongs to somebody else: a program, ps(1).
const OPTIONS_FIRST: [&str; 2] = ["exec", "ps"];

/// What the arguments ask for.
#[derive(Debug, Eq, PartialEq)]
pub enum Request {
    /// A command, in canonical words: `stasis --debug state -- ID`.
    Command(Vec<OsString>),
    /// The help of a verb, or of the whole program.
    Help(Option<String>),
    /// The version.
    Version,
}

/// What is wrong with the arguments.
#[derive(Debug, Eq, PartialEq)]
pub struct Misuse {
    /// The verb whose help should be shown.
    pub verb: Option<String>,
    /// The words for it.
    pub text: String,
    /// What kind of mistake it is.
    pub kind: Mistake,
    /// The global options that stood before it, in canonical words: they say where it is told.
    pub global: Vec<OsString>,
}

/// A kind of [`Misuse`]; runc answers each in its own way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mistake {
    /// An option that is not there, or has no or a wrong value.
    Option,
    /// Too few or too many positional arguments.
    Count,
    /// There is no such verb.
    Verb,
}

/// Reads the arguments, `argv[0]` included, as runc would read them.
pub fn read(root: &Command, argv: &[OsString]) -> Result<Request, Misuse> {
    let (name, rest) = match argv.split_first() {
        Some((name, rest)) => (name.clone(), rest),
        None => return Ok(Request::Help(None)),
    };
    let mut walk = Walk { root, verb: None, options: Vec::new(), positional: Vec::new(), request: None };
    let mut words = rest.iter();
    let mut flags_ended = false;
    while let Some(word) = words.next() {
        if flags_ended || !is_flag(word) {
            flags_ended |= walk.positional(word)?;
        } else if word == "--" {
            flags_ended = true;
        } else {
            walk.flag(word, &mut words)?;
        }
    }
    walk.finish(name)
}

/// Says whether Go would take `word` for a flag: `-` and `-1` are arguments.
fn is_flag(word: &OsStr) -> bool {
    match word.as_bytes() {
        [b'-', b'-', ..] => true,
        [b'-', letter, ..] => letter.is_ascii_alphabetic(),
        _ => false,
    }
}

/// An option as it was given.
struct Given<'a> {
    option: &'a Arg,
    global: bool,
    value: OsString,
}

struct Walk<'a> {
    root: &'a Command,
    verb: Option<&'a Command>,
    options: Vec<Given<'a>>,
    positional: Vec<OsString>,
    request: Option<Request>,
}

impl<'a> Walk<'a> {
    /// Takes a positional argument; says whether it ends the options.
    fn positional(&mut self, word: &OsStr) -> Result<bool, Misuse> {
        // An argument that begins like an option but is none (`-`, `-9`) also ends them.
        let ends = word.as_bytes().first() == Some(&b'-');
        if let Some(verb) = self.verb {
            self.positional.push(word.to_owned());
            return Ok(ends || OPTIONS_FIRST.contains(&verb.get_name()));
        }
        match (&self.request, word.to_string_lossy()) {
            (Some(Request::Help(None)), topic) => {
                self.request = Some(Request::Help(Some(self.find(&topic)?.get_name().to_owned())));
            }
            (None, word) if word == "help" || word == "h" => self.request = Some(Request::Help(None)),
            (None, word) => self.verb = Some(self.find(&word)?),
            (Some(_), _) => {}
        }
        Ok(ends)
    }

    fn find(&self, verb: &str) -> Result<&'a Command, Misuse> {
        self.root.find_subcommand(verb).ok_or_else(|| Misuse {
            verb: None,
            text: format!("No help topic for '{verb}'"),
            kind: Mistake::Verb,
            global: canonical(&self.options, true),
        })
    }

    /// Takes an option, and its value from `words` where it needs one and has none.
    fn flag<'w>(&mut self, word: &OsStr, words: &mut impl Iterator<Item = &'w OsString>) -> Result<(), Misuse> {
        let bytes = word.as_bytes();
        let bytes = bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-")).unwrap_or(bytes);
        let (name, value) = match bytes.iter().position(|byte| *byte == b'=') {
            Some(at) => (&bytes[..at], Some(OsStr::from_bytes(&bytes[at + 1..]))),
            None => (bytes, None),
        };
        let name = String::from_utf8_lossy(name).into_owned();
        let own = self.verb.and_then(|verb| lookup(verb, &name));
        let global = own.is_none();
        let Some(option) = own.or_else(|| lookup(self.root, &name)) else {
            return Err(self.misuse(format!("flag provided but not defined: -{name}")));
        };
        let value = match (matches!(option.get_action(), ArgAction::SetTrue), value) {
            (true, value) => truth(value, &name).map_err(|text| self.misuse(text))?.into(),
            (false, Some(value)) => value.to_owned(),
            (false, None) => match words.next() {
                Some(value) => value.clone(),
                None => {
                    return Err(self.misuse(format!("flag needs an argument: {}", dashed(&name))));
                }
            },
        };
        if value.is_empty() && !is_text(option) {
            return Err(self.misuse(format!("invalid value \"\" for flag -{name}: parse error")));
        }
        match option.get_id().as_str() {
            "help" => {
                self.request.get_or_insert(Request::Help(self.verb.map(|verb| verb.get_name().to_owned())));
            }
            "version" => {
                self.request.get_or_insert(Request::Version);
            }
            _ => self.options.push(Given { option, global, value }),
        }
        Ok(())
    }

    fn misuse(&self, text: String) -> Misuse {
        let verb = self.verb.map(|verb| verb.get_name().to_owned());
        Misuse { verb, text, kind: Mistake::Option, global: canonical(&self.options, true) }
    }

    fn finish(self, name: OsString) -> Result<Request, Misuse> {
        let verb = match (self.request, self.verb) {
            (Some(request), _) => return Ok(request),
            (None, None) => return Ok(Request::Help(None)),
            (None, Some(verb)) => verb,
        };
        if let Some(text) = wrong_count(verb, self.positional.len()) {
            let text = format!("{}: {text}", name.to_string_lossy());
            let (verb, global) = (Some(verb.get_name().to_owned()), canonical(&self.options, true));
            return Err(Misuse { verb, text, kind: Mistake::Count, global });
        }
        let mut words = vec![name];
        words.extend(canonical(&self.options, true));
        words.push(verb.get_name().into());
        words.extend(canonical(&self.options, false));
        words.push("--".into());
        words.extend(self.positional);
        Ok(Request::Command(words))
    }
}

/// Finds an option by its long name or its letter.
fn lookup<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    command.get_arguments().filter(|arg| !arg.is_positional()).find(|option| {
        let is_letter = |letter: &char| *letter.encode_utf8(&mut [0; 4]) == *name;
        option.get_long() == Some(name) || option.get_short_and_visible_aliases().iter().flatten().any(is_letter)
    })
}

/// Says whether the option's value is a text or a path, which may be empty, and not a number.
fn is_text(option: &Arg) -> bool {
    let kind = option.get_value_parser().type_id();
    kind == TypeId::of::<String>() || kind == TypeId::of::<PathBuf>() || kind == TypeId::of::<OsString>()
}

fn dashed(name: &str) -> String {
    if name.chars().count() == 1 { format!("-{name}") } else { format!("--{name}") }
}

/// Reads a boolean in every spelling that Go's ParseBool knows.
pub fn boolean(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Reads the value of a boolean option, which may be left out.
fn truth(value: Option<&OsStr>, name: &str) -> Result<&'static str, String> {
    let Some(value) = value.map(OsStr::to_string_lossy) else { return Ok("true") };
    match boolean(&value) {
        Some(true) => Ok("true"),
        Some(false) => Ok("false"),
        None => Err(format!("invalid boolean value {value:?} for flag -{name}: parse error")),
    }
}

/// Writes the options of one level as `--long` and `--long=value`.
///
/// Of an option that stands for one value the last counts; an empty value is no value, as in Go, except in lists and where
/// runc makes something of it.
fn canonical(options: &[Given<'_>], global: bool) -> Vec<OsString> {
    let mut words = Vec::new();
    for (index, given) in options.iter().enumerate().filter(|(_, given)| given.global == global) {
        let list = matches!(given.option.get_action(), ArgAction::Append);
        let again = options[index + 1..].iter().any(|later| later.option.get_id() == given.option.get_id());
        let flag = matches!(given.option.get_action(), ArgAction::SetTrue);
        let value = match given.option.get_id().as_str() {
            // Made absolute it is the current directory.
            "root" if given.value.is_empty() => OsStr::new("."),
            _ => &given.value,
        };
        let is_format = given.option.get_id() == "format";
        let unset = value.is_empty() && !is_format || flag && value == "false";
        if !list && (again || unset) {
            continue;
        }
        let mut word = OsString::from("--");
        word.push(given.option.get_long().unwrap_or_default());
        if !flag {
            word.push("=");
            word.push(value);
        }
        words.push(word);
    }
    words
}

/// Says what is wrong with the number of positional arguments, if something is.
fn wrong_count(verb: &Command, given: usize) -> Option<String> {
    let least = verb.get_positionals().filter(|arg| arg.is_required_set()).count();
    let endless = verb.get_positionals().any(|arg| matches!(arg.get_action(), ArgAction::Append));
    let most = if endless { usize::MAX } else { verb.get_positionals().count() };
    let amount = match given {
        _ if least == most && given != least => format!("exactly {least}"),
        _ if given < least => format!("a minimum of {least}"),
        _ if given > most => format!("a maximum of {most}"),
        _ => return None,
    };
    Some(format!("\"{}\" requires {amount} argument(s)", verb.get_name()))
}

#[cfg(test)]
#[path = "argv_tests.rs"]
mod tests;
