//! What runc's parser makes of a command line, and what `read` makes of it.

use super::*;
use crate::cli::definition;

fn parse(line: &str) -> Result<Request, Misuse> {
    let argv: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
    read(&definition(|_| true), &argv)
}

#[test]
fn go_conventions_become_clap_words() {
    for (given, canonical) in [
        ("stasis state c1", "stasis state -- c1"),
        ("stasis --root /r state c1", "stasis --root=/r state -- c1"),
        ("stasis -root /r -debug state c1", "stasis --root=/r --debug state -- c1"),
        ("stasis --root=/a --debug --root=/b state c1", "stasis --debug --root=/b state -- c1"),
        ("stasis --debug --debug=false state c1", "stasis state -- c1"),
        ("stasis --debug=T --systemd-cgroup=0 state c1", "stasis --debug state -- c1"),
        ("stasis state --root /r c1 --debug", "stasis --root=/r --debug state -- c1"),
        ("stasis --root /a state --root /b c1", "stasis --root=/b state -- c1"),
        ("stasis --rootless=true list", "stasis --rootless=true list --"),
        ("stasis delete c1 --force", "stasis delete --force -- c1"),
        ("stasis delete -f=false c1", "stasis delete -- c1"),
        ("stasis create -b /b -pid-file /p c1", "stasis create --bundle=/b --pid-file=/p -- c1"),
        ("stasis create c1 --bundle=/b --pid-file=", "stasis create --bundle=/b -- c1"),
        ("stasis --root= --log= --log-format= --rootless= state c1", "stasis --root=. state -- c1"),
        ("stasis list --format=", "stasis list --format= --"),
        ("stasis update --memory= --cpu-period= c1", "stasis update -- c1"),
        ("stasis create --no-pivot --no-pivot c1", "stasis create --no-pivot -- c1"),
        ("stasis create -- --bundle", "stasis create -- --bundle"),
        ("stasis exec -t c1 ls -la --color", "stasis exec --tty -- c1 ls -la --color"),
        ("stasis exec -e A=1 --env B=2 -e= c1 sh", "stasis exec --env=A=1 --env=B=2 --env= -- c1 sh"),
        ("stasis exec -d c1 --help", "stasis exec --detach -- c1 --help"),
        ("stasis exec c1 -- sh", "stasis exec -- c1 -- sh"),
        ("stasis kill -a c1 9", "stasis kill --all -- c1 9"),
        ("stasis kill c1 -9", "stasis kill -- c1 -9"),
        ("stasis kill c1 9 -a", "stasis kill --all -- c1 9"),
        ("stasis kill c1 -- -9", "stasis kill -- c1 -9"),
        ("stasis ps -f json c1 -ef", "stasis ps --format=json -- c1 -ef"),
        ("stasis list -f json -q", "stasis list --format=json --quiet --"),
        ("stasis list --format=json --format table", "stasis list --format=table --"),
    ] {
        let words = canonical.split_whitespace().map(OsString::from).collect();
        assert_eq!(parse(given), Ok(Request::Command(words)), "{given}");
    }
}

#[test]
fn help_and_version_are_answered_before_all_else() {
    for (given, request) in [
        ("stasis", Request::Help(None)),
        ("stasis --help", Request::Help(None)),
        ("stasis -h", Request::Help(None)),
        ("stasis -help", Request::Help(None)),
        ("stasis help", Request::Help(None)),
        ("stasis --debug h exec", Request::Help(Some("exec".into()))),
        ("stasis exec --help", Request::Help(Some("exec".into()))),
        ("stasis exec -h c1", Request::Help(Some("exec".into()))),
        ("stasis --version", Request::Version),
        ("stasis -v", Request::Version),
        ("stasis -V", Request::Version),
        ("stasis --root /r --version", Request::Version),
    ] {
        assert_eq!(parse(given), Ok(request), "{given}");
    }
}

#[test]
fn mistakes_are_told_in_the_words_of_runc() {
    for (given, verb, text) in [
        ("stasis --nope", None, "flag provided but not defined: -nope"),
        ("stasis state --nope c1", Some("state"), "flag provided but not defined: -nope"),
        ("stasis state c1 -x", Some("state"), "flag provided but not defined: -x"),
        ("stasis --log", None, "flag needs an argument: --log"),
        ("stasis create -bundle", Some("create"), "flag needs an argument: --bundle"),
        ("stasis list -f", Some("list"), "flag needs an argument: -f"),
        ("stasis exec --preserve-fds= c", Some("exec"), "invalid value \"\" for flag -preserve-fds: parse error"),
        ("stasis events --interval= c", Some("events"), "invalid value \"\" for flag -interval: parse error"),
        ("stasis update --pids-limit= c", Some("update"), "invalid value \"\" for flag -pids-limit: parse error"),
        ("stasis list -q=maybe", Some("list"), "invalid boolean value \"maybe\" for flag -q: parse error"),
    ] {
        let misuse =
            Misuse { verb: verb.map(str::to_owned), text: text.to_owned(), kind: Mistake::Option, global: Vec::new() };
        assert_eq!(parse(given), Err(misuse), "{given}");
    }
    for given in ["stasis foo", "stasis help foo"] {
        let misuse =
            Misuse { verb: None, text: "No help topic for 'foo'".to_owned(), kind: Mistake::Verb, global: Vec::new() };
        assert_eq!(parse(given), Err(misuse), "{given}");
    }
}

#[test]
fn arguments_are_counted() {
    for (given, verb, amount) in [
        ("stasis state", "state", "exactly 1"),
        ("stasis state a b", "state", "exactly 1"),
        ("stasis list a", "list", "exactly 0"),
        ("stasis exec", "exec", "a minimum of 1"),
        ("stasis kill", "kill", "a minimum of 1"),
        ("stasis kill a b c", "kill", "a maximum of 2"),
    ] {
        let text = format!("stasis: \"{verb}\" requires {amount} argument(s)");
        let misuse = Misuse { verb: Some(verb.to_owned()), text, kind: Mistake::Count, global: Vec::new() };
        assert_eq!(parse(given), Err(misuse), "{given}");
    }
}
