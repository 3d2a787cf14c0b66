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

#[test]
fn every_option_is_in_its_man_page() {
    let definition = definition(|_| true);
    let pages = definition.get_subcommands().map(|verb| (format!("stasis-{}.8", verb.get_name()), verb));
    for (page, command) in pages.chain([("stasis.8".to_owned(), &definition)]) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("man").join(&page);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
        for option in command.get_arguments().filter(|arg| !arg.is_positional() && !arg.is_hide_set()) {
            let long = format!("\\fB\\-\\-{}\\fR", option.get_long().unwrap_or_default().replace('-', "\\-"));
            assert!(text.contains(&long), "{page} does not tell about {long}");
            if let Some(letter) = option.get_short() {
                assert!(text.contains(&format!("\\fB\\-{letter}\\fR")), "{page} does not tell about -{letter}");
            }
        }
    }
}
