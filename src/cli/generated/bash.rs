//! bash's completion.

use super::{Value, containers, options, spellings, value};
use clap::{Arg, Command};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Returns the spellings of the options that take this kind of value wherever they are; and, with their verbs before
/// them, those that do so with some verbs and not with others.
fn patterns(definition: &Command, wanted: Value) -> (String, String) {
    let mut kinds: BTreeMap<String, BTreeSet<Value>> = BTreeMap::new();
    let mut of_verbs = Vec::new();
    let verbs = definition.get_subcommands().map(|verb| (verb.get_name(), verb));
    let spelled = |command| options(command).flat_map(|option| spellings(option).into_iter().map(move |s| (option, s)));
    // Before its verb a line has none, and behind it what the verb has not may be one of the program's.
    for (verb, command) in std::iter::once(("", definition)).chain(verbs) {
        let own: Vec<(&Arg, String)> = spelled(command).collect();
        let global = spelled(definition).filter(|(_, spelling)| !own.iter().any(|(_, other)| other == spelling));
        for (option, spelling) in own.iter().cloned().chain(global) {
            kinds.entry(spelling.clone()).or_default().insert(value(option));
            of_verbs.push((verb, spelling, value(option)));
        }
    }
    let everywhere = kinds.iter().filter(|(_, kinds)| kinds.iter().eq([&wanted])).map(|(spelling, _)| spelling.clone());
    let somewhere = of_verbs.iter().filter(|(_, spelling, kind)| *kind == wanted && kinds[spelling].len() > 1);
    let somewhere = somewhere.map(|(verb, spelling, _)| format!("'{verb} {spelling}'"));
    (everywhere.collect::<Vec<_>>().join("|"), somewhere.collect::<Vec<_>>().join("|"))
}

fn words(command: &Command) -> String {
    options(command).flat_map(spellings).collect::<Vec<_>>().join(" ")
}

/// Writes what finds out from the words before the current one what is expected.
fn line(definition: &Command) -> String {
    let (paths, verbs_paths) = patterns(definition, Value::Path);
    let (values, verbs_values) = patterns(definition, Value::Other);
    format!(
        r#"    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${{COMP_WORDS[i]}}
        # What stands before and behind "=" are words of their own, unless COMP_WORDBREAKS has been changed.
        if [[ $word == = ]]; then expected=${{expected:-value}} && continue; fi
        if [[ -n $expected ]]; then
            [[ $option != --root ]] || root=(--root "$word")
            expected='' && continue
        fi
        option=$word
        case $word in
        --root=*) root=(--root "${{word#*=}}") ;;
        {paths}) expected=path ;;
        {values}) expected=value ;;
        -*)
            # What means one thing to some verbs and another to others.
            case "$verb $word" in
            {verbs_paths}) expected=path ;;
            {verbs_values}) expected=value ;;
            esac
            ;;
        *) verb=${{verb:-$word}} ;;
        esac
    done
"#
    )
}

/// Writes bash's completion.
pub fn write(definition: &Command) -> String {
    let verbs: Vec<&str> = definition.get_subcommands().map(Command::get_name).collect();
    let mut cases = String::new();
    for verb in definition.get_subcommands() {
        _ = writeln!(cases, "        {}) options='{}' ;;", verb.get_name(), words(verb));
    }
    format!(
        r#"# Completion of stasis for bash. Written by `make generate` from the definition of the command line.

_stasis() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} verb='' options='' expected='' option='' word i
    local root=()
    COMPREPLY=()
{line}    if [[ $current == = ]]; then current='' expected=${{expected:-value}}; fi
    case $expected in
    path)
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        return
        ;;
    value) return ;;
    esac
    if [[ -z $verb ]]; then
        mapfile -t COMPREPLY < <(compgen -W '{verbs} help {global}' -- "$current")
        return
    fi
    case $current in
    -*)
        case $verb in
{cases}        esac
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
        return
        ;;
    esac
    case $verb in
    {containers})
        mapfile -t COMPREPLY < <(compgen -W "$("${{COMP_WORDS[0]}}" "${{root[@]}}" list --quiet 2>/dev/null)" -- "$current")
        ;;
    *) mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
    esac
}}
complete -o filenames -F _stasis stasis
"#,
        line = line(definition),
        verbs = verbs.join(" "),
        global = words(definition),
        containers = containers(definition).join("|"),
    )
}

/// Asks bash how a line would go on.
fn completed(line: &[&str]) -> Vec<String> {
    // A function stands for the program, whose containers are then known.
    let script = r#"source "$1"; shift
        stasis() { [[ "$*" == *"list --quiet" ]] && printf '%s\n' box "under-$2"; }
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _stasis; printf '%s\n' "${COMPREPLY[@]}""#;
    super::told_by("bash", script, "stasis.bash", line).unwrap()
}

#[test]
fn bash_completes_verbs_options_and_containers() {
    assert_eq!(completed(&["stasis", "upd"]), ["update"]);
    assert_eq!(completed(&["stasis", "--log-f"]), ["--log-format"]);
    assert_eq!(completed(&["stasis", "--log", "x", "li"]), ["list"]);
    // An option with a value before the verb, and without one behind some.
    assert_eq!(completed(&["stasis", "--rootless", "true", "cre"]), ["create"]);
    assert_eq!(completed(&["stasis", "create", "--rootless", "/etc/hostn"]), [""; 0]);
    assert_eq!(completed(&["stasis", "update", "--cpuset-"]), ["--cpuset-cpus", "--cpuset-mems"]);
    assert_eq!(completed(&["stasis", "--root", "here", "state", ""]), ["box", "under-here"]);
    for root in [&["--root", "=", "here"][..], &["--root=here"]] {
        assert_eq!(completed(&[&["stasis"], root, &["state", ""]].concat()), ["box", "under-here"]);
    }
    assert_eq!(completed(&["stasis", "exec", "--env", "A", "=", "B", "--tty", "=", "true", "b"]), ["box"]);
    assert_eq!(completed(&["stasis", "create", "--bundle", "=", "/etc/hostn"]), ["/etc/hostname"]);
    assert!(completed(&["stasis", "create", "--bundle", "="]).contains(&"Cargo.toml".to_owned()));
    assert!(completed(&["stasis", "list", "--format", "="]).is_empty());
    assert_eq!(completed(&["stasis", "exec", "--cwd", "/etc/host", "b"]), ["box"]);
    assert_eq!(completed(&["stasis", "create", "--bundle", "/etc/hostn"]), ["/etc/hostname"]);
    assert_eq!(completed(&["stasis", "delete", "-f", "b"]), ["box"]);
    // A letter that is an option with a value to one verb and without one to another.
    assert_eq!(completed(&["stasis", "update", "-r", "/etc/hostn"]), ["/etc/hostname"]);
    assert_eq!(completed(&["stasis", "update", "-r", "/etc/hostname", "b"]), ["box"]);
    assert_eq!(completed(&["stasis", "kill", "-r", "b"]), ["box"]);
    assert_eq!(completed(&["stasis", "create", "-f", "/etc/hostn"]), ["/etc/hostname"]);
    assert!(completed(&["stasis", "ps", "-f", ""]).is_empty());
    assert!(completed(&["stasis", "list", "--format", ""]).is_empty());
}
