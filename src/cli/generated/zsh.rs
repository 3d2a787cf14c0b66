//! zsh's completion.

use super::{Operand, Value, about, help, operand, options, spellings, value};
use clap::{Arg, Command};
use std::fmt::Write;

/// Returns a text as it stands between single quotes, in an explanation.
fn explained(text: &str) -> String {
    let escape = |c: char| if matches!(c, '[' | ']' | ':' | '\\') { format!("\\{c}") } else { c.to_string() };
    text.chars().map(escape).collect::<String>().replace('\'', "'\\''")
}

/// Returns what _arguments is told of an option.
fn argument(option: &Arg) -> String {
    let follows = match value(option) {
        Value::None => "",
        Value::Path => ":path:_files",
        Value::Other => ":value: ",
    };
    let help = explained(&help(option));
    let forms: Vec<String> = spellings(option)
        .into_iter()
        .map(|spelling| match value(option) {
            Value::Other | Value::Path if spelling.starts_with("--") => spelling + "=",
            _ => spelling,
        })
        .collect();
    // One that may be repeated excludes nothing.
    match (forms.as_slice(), matches!(option.get_action(), clap::ArgAction::Append)) {
        ([one], false) => format!("'{one}[{help}]{follows}'"),
        ([one], true) => format!("'*{one}[{help}]{follows}'"),
        (forms, true) => format!("'*'{{{}}}'[{help}]{follows}'", forms.join(",")),
        (forms, false) => {
            format!("'({})'{{{}}}'[{help}]{follows}'", spellings(option).join(" "), forms.join(","))
        }
    }
}

/// Writes the completion.
pub fn write(definition: &Command) -> String {
    let (mut verbs, mut cases) = (String::new(), String::new());
    for verb in definition.get_subcommands() {
        _ = writeln!(verbs, "        '{}:{}'", verb.get_name(), explained(&about(verb)));
        _ = write!(cases, "    {})\n        _arguments", verb.get_name());
        for option in options(verb) {
            _ = write!(cases, " \\\n            {}", argument(option));
        }
        cases.push_str(match operand(verb) {
            Operand::None => "\n        ;;\n",
            Operand::Container => " \\\n            '1:container:_stasis_containers' '*:argument:_files'\n        ;;\n",
            Operand::NewContainer => " \\\n            '1:container: '\n        ;;\n",
            Operand::Directory => " \\\n            '1:directory:_files -/'\n        ;;\n",
        });
    }
    let mut global = String::new();
    for option in options(definition) {
        _ = writeln!(global, "        {} \\", argument(option));
    }
    format!(
        r#"#compdef stasis
# Completion of stasis for zsh. Written by `make generate` from the definition of the command line.

_stasis_containers() {{
    local -a names
    names=(${{(f)"$("$program" "${{root[@]}}" list --quiet 2>/dev/null)"}})
    compadd -a names
}}

_stasis() {{
    local curcontext=$curcontext state line program=$words[1]
    local -a root verbs
    local -A opt_args
    verbs=(
{verbs}    )
    _arguments -C \
{global}        '1: :->verb' '*:: :->rest'
    [[ -z ${{opt_args[--root]}} ]] || root=(--root ${{(Q)opt_args[--root]}})
    if [[ $state == verb ]]; then
        _describe verb verbs
        return
    fi
    case $line[1] in
{cases}    esac
}}

[[ $funcstack[1] != _stasis ]] || _stasis "$@"
"#
    )
}

#[test]
fn zsh_understands_its_completion() {
    let script = r#"autoload -Uz compinit && compinit -D -u && source "$1" && whence -w _stasis"#;
    if let Some(told) = super::told_by("zsh", script, "_stasis", &[]) {
        assert_eq!(told, ["_stasis: function"]);
    }
}
