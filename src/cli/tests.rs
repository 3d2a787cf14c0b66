//! That the definition is sound, typed values arrive, and complaints have the words of Go's flag package.

use super::*;

fn line(text: &str) -> std::result::Result<Line, argv::Misuse> {
    parse(definition(|_| true), text.split_whitespace().map(OsString::from).collect())
}

#[test]
fn the_definition_is_consistent() {
    definition(|_| true).debug_assert();
}

#[test]
fn every_option_has_a_long_name_and_a_line_of_help() {
    for command in std::iter::once(&definition(|_| true)).chain(definition(|_| true).get_subcommands()) {
        for option in command.get_arguments().filter(|arg| !arg.is_positional()) {
            assert!(option.get_long().is_some(), "{option:?}");
            assert!(option.get_help().is_some_and(|help| !help.to_string().contains('\n')), "{option:?}");
        }
    }
}

#[test]
fn values_arrive_with_their_types() {
    let Line { global, command } = line("stasis --root=/r exec --additional-gids=5 --env=A=1 -- c1 ls").unwrap();
    assert_eq!(global.root, Some(PathBuf::from("/r")));
    let Command::Exec(exec) = command else { panic!("not exec: {command:?}") };
    assert_eq!((exec.id.as_str(), exec.command), ("c1", vec!["ls".to_owned()]));
    assert_eq!((exec.additional_gids, exec.env), (vec![5], vec!["A=1".to_owned()]));
}

#[test]
fn wrong_values_are_named() {
    let misuse = line("stasis --debug create --preserve-fds=x -- c1").unwrap_err();
    assert_eq!(misuse.text, "invalid value \"x\" for flag -preserve-fds: parse error");
    assert_eq!(misuse.verb.as_deref(), Some("create"));
}

/// Returns an option as the head of its paragraph in a man page: `\fB\-\-log\fR \fIfile\fR`.
fn heads(option: &clap::Arg) -> Vec<String> {
    let value = match (option.get_action(), option.get_value_names().and_then(|names| names.first())) {
        (ArgAction::SetTrue, _) | (_, None) => String::new(),
        (_, Some(name)) => format!(" \\fI{}\\fR", name.replace('-', "\\-")),
    };
    let long = option.get_long().map(|long| format!("\\fB\\-\\-{}\\fR{value}", long.replace('-', "\\-")));
    let letters = option.get_short_and_visible_aliases().into_iter().flatten();
    long.into_iter().chain(letters.map(|letter| format!("\\fB\\-{letter}\\fR{value}"))).collect()
}

#[test]
fn man_pages_have_the_options_of_the_definition_and_no_others() {
    let definition = definition(|_| true);
    let pages = definition.get_subcommands().map(|verb| (format!("stasis-{}.8", verb.get_name()), verb));
    for (page, command) in pages.chain([("stasis.8".to_owned(), &definition)]) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("man").join(&page);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
        let (hidden, shown): (Vec<_>, Vec<_>) =
            command.get_arguments().filter(|arg| !arg.is_positional()).partition(|arg| arg.is_hide_set());
        let hidden: Vec<String> = hidden.into_iter().flat_map(heads).collect();
        let mut defined: Vec<String> = shown.into_iter().flat_map(heads).collect();
        let after_tag = text.lines().zip(text.lines().skip(1)).filter(|(before, _)| *before == ".TP");
        let told = after_tag.map(|(_, head)| head).filter(|head| head.starts_with("\\fB\\-"));
        let told = told.flat_map(|head| head.split(", ")).map(str::to_owned);
        // What is accepted for the sake of some callers may be told of, and need not be.
        let mut told: Vec<String> = told.filter(|head| !hidden.contains(head)).collect();
        defined.sort();
        told.sort();
        assert_eq!(told, defined, "{page}");
    }
}

#[test]
fn the_man_page_names_every_command() {
    let text = include_str!("../../man/stasis.8");
    for verb in definition(|_| true).get_subcommands() {
        let name = verb.get_name().replace('-', "\\-");
        let listed = text.lines().any(|line| line.starts_with(".B") && line.split(' ').any(|word| word == name));
        assert!(listed && text.contains(&format!(".BR stasis\\-{name} (8)")), "{name}");
    }
}
