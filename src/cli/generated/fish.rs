//! fish's completion.

use super::{Operand, Value, about, containers, help, operand, options, spellings, value};
use clap::Command;
use std::fmt::Write;

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Writes the options of a command, for when `condition` holds.
fn options_of(command: &Command, condition: &str, text: &mut String) {
    for option in options(command) {
        _ = write!(text, "complete -c stasis -n {}", quoted(condition));
        for spelling in spellings(option) {
            _ = match spelling.strip_prefix("--") {
                Some(long) => write!(text, " -l {long}"),
                None => write!(text, " -s {}", spelling.trim_start_matches('-')),
            };
        }
        text.push_str(match value(option) {
            Value::None => "",
            Value::Path => " -r -F",
            Value::Other => " -x",
        });
        _ = writeln!(text, " -d {}", quoted(&help(option)));
    }
}

/// Writes the completion.
pub fn write(definition: &Command) -> String {
    let valued = options(definition).filter(|option| value(option) != Value::None).flat_map(spellings);
    let mut text = format!(
        r#"# Completion of stasis for fish. Written by `make generate` from the definition of the command line.

# Says whether the verb is one of these; the empty one stands for none.
function __stasis_verb_is
    set -l verb
    set -l is_value 0
    for word in (commandline -opc)[2..-1]
        if test $is_value = 1
            set is_value 0
        else if contains -- $word {valued}
            set is_value 1
        else if not string match -q -- '-*' $word
            set verb $word
            break
        end
    end
    contains -- "$verb" $argv
end

function __stasis_containers
    set -l words (commandline -opc)
    set -l root
    for i in (seq 2 (count $words))
        switch $words[$i]
            case --root
                set root --root $words[(math $i + 1)]
            case '--root=*'
                set root $words[$i]
        end
    end
    $words[1] $root list --quiet 2>/dev/null
end

complete -c stasis -f
"#,
        valued = valued.collect::<Vec<_>>().join(" ")
    );
    options_of(definition, "__stasis_verb_is ''", &mut text);
    for verb in definition.get_subcommands() {
        let (name, about) = (verb.get_name(), quoted(&about(verb)));
        _ = writeln!(text, "complete -c stasis -n {} -a {name} -d {about}", quoted("__stasis_verb_is ''"));
    }
    for verb in definition.get_subcommands() {
        let condition = format!("__stasis_verb_is {}", verb.get_name());
        options_of(verb, &condition, &mut text);
        if operand(verb) == Operand::Directory {
            _ = writeln!(text, "complete -c stasis -n {} -F", quoted(&condition));
        }
    }
    let condition = format!("__stasis_verb_is {}", containers(definition).join(" "));
    _ = writeln!(text, "complete -c stasis -n {} -a '(__stasis_containers)'", quoted(&condition));
    text
}

/// Asks fish how a line would go on, if it is there.
fn completed(line: &str) -> Option<Vec<String>> {
    // A function stands for the program, whose containers are then known.
    let script = r#"source $argv[1]
        function stasis; string match -q -- '*list --quiet' "$argv" && printf '%s\n' box under-$argv[2]; end
        complete -C $argv[2]"#;
    let told = super::told_by("fish", script, "stasis.fish", &[line])?;
    Some(told.iter().map(|line| line.split('\t').next().unwrap().to_owned()).collect())
}

#[test]
fn fish_completes_verbs_options_and_containers() {
    for (line, expected) in [
        ("stasis upd", &["update"][..]),
        ("stasis --log-f", &["--log-format"]),
        ("stasis --log x li", &["list"]),
        ("stasis update --cpuset-", &["--cpuset-cpus", "--cpuset-mems"]),
        ("stasis --root here state ", &["box", "under-here"]),
        ("stasis exec --env A=B b", &["box"]),
        ("stasis update -r /etc/hostn", &["/etc/hostname"]),
        ("stasis kill -r b", &["box"]),
        ("stasis list --format ", &[]),
        ("stasis create ", &[]),
        ("stasis inspect-image /etc/hostn", &["/etc/hostname"]),
    ] {
        let Some(words) = completed(line) else { return };
        assert_eq!(words, expected, "{line}");
    }
}
