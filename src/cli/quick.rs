//! The command lines of engines, read without clap.
//!
//! Engines write options in full, each before the arguments, and know their values. Such a line says by itself what it
//! means, once it is known which fields there are. clap's definition is not needed for it, and to make that, search it
//! and take it apart again is a twentieth of a start. Every other line, a wrong one above all, is nothing here and left
//! to [`argv`](super::argv) and clap, which this never contradicts: a test has both read each option.

use super::create::{BundleArgs, CreateArgs};
use super::delete::DeleteArgs;
use super::exec::ExecArgs;
use super::kill::KillArgs;
use super::run::RunArgs;
use super::start::StartArgs;
use super::state::StateArgs;
use super::{Command, Global, Line};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Reads a line, `argv[0]` included, if it is one of an engine.
pub fn read(argv: &[OsString]) -> Option<Line> {
    let words = argv.get(1..)?;
    let (verb, command) = words.iter().enumerate().find_map(|(place, word)| Some((place, command(word)?)))?;
    let global: Global = whole(words.get(..verb)?)?;
    let command = command(words.get(verb + 1..)?)?;
    (!global.help && !global.version).then_some(Line { global, command })
}

type Reader = fn(&[OsString]) -> Option<Command>;

/// Returns what reads the words behind a verb.
fn command(verb: &OsStr) -> Option<Reader> {
    Some(match verb.as_bytes() {
        b"create" => |words| whole(words).map(Command::Create),
        b"delete" => |words| whole(words).map(Command::Delete),
        b"exec" => |words| whole(words).map(Command::Exec),
        b"kill" => |words| whole(words).map(Command::Kill),
        b"run" => |words| whole(words).map(Command::Run),
        b"start" => |words| whole(words).map(Command::Start),
        b"state" => |words| whole(words).map(Command::State),
        _ => return None,
    })
}

/// Reads words of which none may be left.
fn whole<T: Options>(words: &[OsString]) -> Option<T> {
    let mut words = Words::new(words)?;
    T::take(&mut words, "").filter(|_| words.is_empty())
}

/// Words of a line, and which of them have been understood.
struct Words<'a> {
    words: &'a [OsString],
    /// A bit for each.
    taken: u64,
}

impl<'a> Words<'a> {
    fn new(words: &'a [OsString]) -> Option<Self> {
        (words.len() < 64).then_some(Self { words, taken: 0 })
    }

    fn is_empty(&self) -> bool {
        self.taken == (1 << self.words.len()) - 1
    }

    fn take(&mut self, place: usize) -> Option<&'a OsStr> {
        let word = self.words.get(place)?;
        self.taken |= 1 << place;
        Some(word)
    }

    /// Takes the first word, not taken yet, that is the option of a field: its name, or with `=` behind that. Returns
    /// its place, and what the name leaves of it.
    fn option(&mut self, field: &str) -> Option<(usize, &'a [u8])> {
        let (place, rest) = self.words.iter().enumerate().find_map(|(place, word)| {
            let (name, rest) = word.as_bytes().strip_prefix(b"--")?.split_at_checked(field.len())?;
            let mut letters = name.iter().zip(field.bytes());
            let is_it = letters.all(|(letter, wanted)| *letter == if wanted == b'_' { b'-' } else { wanted });
            let is_whole = matches!(rest, [] | [b'=', ..]);
            (is_it && is_whole && self.taken & 1 << place == 0).then_some((place, rest))
        })?;
        self.take(place)?;
        Some((place, rest))
    }

    /// Takes the option of a field and its value. There may be none; there is nothing if the value may be another option,
    /// or is empty, which has meanings of its own.
    fn value<T: Value>(&mut self, field: &str) -> Option<Option<T>> {
        let value = match self.option(field) {
            None => return Some(None),
            Some((place, [])) => self.take(place + 1)?,
            Some((_, joined)) => OsStr::from_bytes(joined.strip_prefix(b"=")?),
        };
        let is_clear = !value.is_empty() && !value.as_bytes().starts_with(b"-");
        is_clear.then_some(Some(T::read(value)?))
    }

    /// Takes the next argument. There may be none; there is nothing if something stands before it that is not understood.
    fn argument(&mut self) -> Option<Option<String>> {
        let place = self.taken.trailing_ones() as usize;
        if self.taken != (1 << place) - 1 {
            return None;
        }
        let Some(word) = self.take(place) else { return Some(None) };
        Some(Some(word.to_str()?.to_owned()))
    }
}

/// A value that an option can have.
trait Value: Sized {
    fn read(text: &OsStr) -> Option<Self>;
}

impl Value for PathBuf {
    fn read(text: &OsStr) -> Option<Self> {
        Some(text.into())
    }
}

impl Value for String {
    fn read(text: &OsStr) -> Option<Self> {
        text.to_str().map(str::to_owned)
    }
}

impl Value for u32 {
    fn read(text: &OsStr) -> Option<Self> {
        text.to_str()?.parse().ok()
    }
}

/// What a field that stands for options takes from a line.
trait Options: Sized {
    fn take(words: &mut Words<'_>, field: &str) -> Option<Self>;
}

impl Options for bool {
    fn take(words: &mut Words<'_>, field: &str) -> Option<Self> {
        words.option(field).map_or(Some(false), |(_, rest)| rest.is_empty().then_some(true))
    }
}

impl Options for u32 {
    fn take(words: &mut Words<'_>, field: &str) -> Option<Self> {
        words.value(field).map(Option::unwrap_or_default)
    }
}

impl<T: Value> Options for Option<T> {
    fn take(words: &mut Words<'_>, field: &str) -> Option<Self> {
        words.value(field)
    }
}

impl<T: Value> Options for Vec<T> {
    fn take(words: &mut Words<'_>, field: &str) -> Option<Self> {
        let mut all = Vec::new();
        while let Some(value) = words.value(field)? {
            all.push(value);
        }
        Some(all)
    }
}

/// What a field that stands for arguments takes from a line. What looks like an option may be one.
trait Arguments: Sized {
    fn take(words: &mut Words<'_>) -> Option<Self>;
}

impl Arguments for String {
    fn take(words: &mut Words<'_>) -> Option<Self> {
        words.argument()?.filter(|word| !word.starts_with('-'))
    }
}

impl Arguments for Option<String> {
    fn take(words: &mut Words<'_>) -> Option<Self> {
        words.argument().filter(|word| !word.as_deref().is_some_and(|word| word.starts_with('-')))
    }
}

/// A program and what it is given: behind the name of a container, nothing is an option.
impl Arguments for Vec<String> {
    fn take(words: &mut Words<'_>) -> Option<Self> {
        let mut all = Vec::new();
        while let Some(word) = words.argument()? {
            all.push(word);
        }
        Some(all)
    }
}

/// Says which fields of a definition stand for options, and which for arguments, in their order.
macro_rules! fields {
    ($($args:ty: [$($option:ident)*] $($argument:ident)*;)*) => {
        $(impl Options for $args {
            fn take(words: &mut Words<'_>, _field: &str) -> Option<Self> {
                Some(Self {
                    $($option: Options::take(words, stringify!($option))?,)*
                    $($argument: Arguments::take(words)?,)*
                })
            }
        })*
    };
}

fields! {
    Global: [debug log log_format log_level root systemd_cgroup cgroup_manager rootless criu help version];
    BundleArgs: [bundle console_socket pidfd_socket pid_file no_pivot no_new_keyring preserve_fds config];
    CreateArgs: [bundle detach no_subreaper] id;
    DeleteArgs: [force regex] id;
    ExecArgs: [
        console_socket pidfd_socket cwd env tty user additional_gids process detach pid_file process_label apparmor
        no_new_privs cap preserve_fds cgroup ignore_paused no_subreaper
    ] id command;
    KillArgs: [all regex] id signal;
    RunArgs: [bundle detach keep no_subreaper] id;
    StartArgs: [] id;
    StateArgs: [] id;
}

#[cfg(test)]
mod tests {
    use super::super::{argv, definition, parse};
    use super::*;
    use clap::ArgAction;

    const VERBS: [&str; 7] = ["create", "delete", "exec", "kill", "run", "start", "state"];

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    /// Reads a line as all others are read.
    fn in_full(line: &str) -> String {
        let definition = definition(|_| true);
        match argv::read(&definition, &words(line)) {
            Ok(argv::Request::Command(words)) => format!("{:?}", parse(definition, words).unwrap()),
            other => panic!("{line}: {other:?}"),
        }
    }

    fn agree(line: &str) {
        let quick = read(&words(line)).unwrap_or_else(|| panic!("not read: {line}"));
        assert_eq!(format!("{quick:?}"), in_full(line), "{line}");
    }

    #[test]
    fn each_option_means_the_same_to_clap() {
        let definition = definition(|_| true);
        for verb in VERBS.map(|verb| definition.find_subcommand(verb).unwrap()) {
            let name = verb.get_name();
            agree(&format!("stasis {name} box"));
            for (command, is_global) in [(&definition, true), (verb, false)] {
                for option in command.get_arguments().filter(|arg| !arg.is_positional()) {
                    let long = option.get_long().unwrap();
                    // What clap would refuse is not known here.
                    assert!(verb.get_arg_conflicts_with(option).is_empty(), "{long}");
                    assert!(
                        option
                            .get_possible_values()
                            .iter()
                            .all(|value| value.matches("true", false) || value.matches("false", false)),
                        "{long}"
                    );
                    if ["help", "version"].contains(&long) {
                        continue;
                    }
                    let forms = match option.get_action() {
                        ArgAction::SetTrue => vec![format!("--{long}")],
                        ArgAction::Append => vec![format!("--{long} 7 --{long}=8")],
                        _ => vec![format!("--{long} 7"), format!("--{long}=7")],
                    };
                    for form in forms {
                        agree(&match is_global {
                            true => format!("stasis {form} {name} box"),
                            false => format!("stasis --log /l {name} {form} box"),
                        });
                    }
                }
            }
        }
    }

    #[test]
    fn engines_are_understood() {
        for line in [
            "runc --root /r --log /l --log-format json create --bundle /b --pid-file /p --console-socket /c box",
            "runc --root /r --systemd-cgroup exec --process /p --detach --pid-file /p box",
            "runc --root=/r --cgroup-manager cgroupfs exec --cap A --env B=C=D --cap E box ls -- --detached -l",
            "runc --root /r kill --all box 15",
            "runc kill box KILL",
            "runc delete --force box",
            "runc exec box",
        ] {
            agree(line);
        }
    }

    #[test]
    fn everything_else_is_left_to_clap() {
        for line in [
            "stasis",
            "stasis --version",
            "stasis --help run",
            "stasis run --help",
            "stasis list",
            "stasis list run",
            "stasis create",
            "stasis create a b",
            "stasis create a --bundle b",
            "stasis create -b b a",
            "stasis create -bundle b a",
            "stasis create --bundle",
            "stasis create --bundle= a",
            "stasis create --bundle --detach a",
            "stasis create --bundle a --bundle b a",
            "stasis create --bundles b a",
            "stasis create --detach=true a",
            "stasis create --preserve-fds x a",
            "stasis create -- a",
            "stasis create -1",
            "stasis create --debug a",
            "stasis --root run state a",
            "stasis --root r s run a",
            "stasis kill a -9",
            "stasis exec a ls --detach",
            "stasis exec a ls --cwd /",
        ] {
            assert!(read(&words(line)).is_none(), "{line}");
        }
        let long = std::iter::repeat_n(OsString::from("x"), 64);
        let argv: Vec<OsString> = words("stasis exec a").into_iter().chain(long).collect();
        assert!(read(&argv).is_none());
    }
}
