//! What is written from the definition of the command line and kept in the source tree: the completion of bash.
//!
//! Only tests know of it, so that the program does not carry it: one compares, and `make generate` lets an ignored one
//! write. Man pages are prose and written by hand; a test holds their options to the definition.

use super::definition;
use clap::{Arg, ArgAction, Command};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;

fn place() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("completions/stasis.bash")
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

/// Returns the spellings of the options that a predicate chooses wherever they are, each once: `-f` takes a value with
/// some verbs and none with others.
fn all(definition: &Command, chosen: impl Fn(&Arg) -> bool) -> String {
    let spelt = |is_chosen: bool| -> BTreeSet<String> {
        let commands = std::iter::once(definition).chain(definition.get_subcommands());
        commands.flat_map(options).filter(|option| chosen(option) == is_chosen).flat_map(spellings).collect()
    };
    spelt(true).difference(&spelt(false)).cloned().collect::<Vec<_>>().join("|")
}

fn has_value(option: &Arg) -> bool {
    !matches!(option.get_action(), ArgAction::SetTrue)
}

fn is_path(option: &Arg) -> bool {
    has_value(option) && option.get_value_names().is_some_and(|names| PATHS.contains(&names[0].as_str()))
}

fn names_container(command: &Command) -> bool {
    let new = ["create", "run", "restore"].contains(&command.get_name());
    let first = command.get_positionals().next().and_then(|arg| arg.get_value_names());
    !new && first.is_some_and(|names| names[0] == "container-id")
}

fn words(command: &Command) -> String {
    options(command).flat_map(spellings).collect::<Vec<_>>().join(" ")
}

/// Writes what finds out from the words before the current one what is expected.
fn line(definition: &Command) -> String {
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
        -*) ;;
        *) verb=${{verb:-$word}} ;;
        esac
    done
"#,
        paths = all(definition, is_path),
        values = all(definition, |option| has_value(option) && !is_path(option)),
    )
}

/// Writes bash's completion.
fn bash() -> String {
    let definition = definition(|_| true);
    let verbs: Vec<&str> = definition.get_subcommands().map(Command::get_name).collect();
    let mut cases = String::new();
    for verb in definition.get_subcommands() {
        _ = writeln!(cases, "        {}) options='{}' ;;", verb.get_name(), words(verb));
    }
    let containers = definition.get_subcommands().filter(|verb| names_container(verb)).map(Command::get_name);
    let containers: Vec<&str> = containers.collect();
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
        line = line(&definition),
        verbs = verbs.join(" "),
        global = words(&definition),
        containers = containers.join("|"),
    )
}

#[test]
fn the_completion_is_that_of_the_definition() {
    let kept = std::fs::read_to_string(place()).unwrap_or_default();
    assert!(kept == bash(), "{} is not up to date: make generate", place().display());
}

#[test]
#[ignore = "writes into the source tree: make generate"]
fn generate() {
    std::fs::create_dir_all(place().parent().unwrap()).unwrap();
    std::fs::write(place(), bash()).unwrap();
}

/// Asks bash how a line would go on.
fn completed(line: &[&str]) -> Vec<String> {
    // A function stands for the program, whose containers are then known.
    let script = r#"source "$1"; shift
        stasis() { [[ "$*" == *"list --quiet" ]] && printf '%s\n' box "under-$2"; }
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _stasis; printf '%s\n' "${COMPREPLY[@]}""#;
    let mut bash = std::process::Command::new("bash");
    let output = bash.args(["-c", script, "bash"]).arg(place()).args(line).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn bash_completes_verbs_options_and_containers() {
    assert_eq!(completed(&["stasis", "upd"]), ["update"]);
    assert_eq!(completed(&["stasis", "--log-f"]), ["--log-format"]);
    assert_eq!(completed(&["stasis", "--log", "x", "li"]), ["list"]);
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
    assert!(completed(&["stasis", "list", "--format", ""]).is_empty());
}
