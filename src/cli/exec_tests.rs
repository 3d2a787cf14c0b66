//! What the options of `exec` make of the container's own process.

use super::*;
use clap::FromArgMatches;
use serde_json::{Value, json};

fn args(line: &str) -> ExecArgs {
    let command = ExecArgs::augment_args(clap::Command::new("exec"));
    let matches = command.try_get_matches_from(format!("exec {line} -- c1 ls -l").split_whitespace()).unwrap();
    ExecArgs::from_arg_matches(&matches).unwrap()
}

fn described(line: &str, capabilities: Value) -> Value {
    let base = json!({
        "terminal": true, "consoleSize": {"height": 1, "width": 2}, "cwd": "/", "args": ["init"], "env": ["A=1"],
        "user": {"uid": 1, "gid": 2, "additionalGids": [3]}, "capabilities": capabilities,
    });
    let process = describe(serde_json::from_value(base).unwrap(), &args(line)).unwrap();
    serde_json::to_value(process).unwrap()
}

#[test]
fn the_process_of_the_container_is_changed_where_asked() {
    let process = described("", json!({}));
    assert_eq!(process["args"], json!(["ls", "-l"]));
    assert_eq!(process["terminal"], false);
    assert_eq!(process["consoleSize"], Value::Null);
    assert_eq!(process["user"], json!({"uid": 1, "gid": 2, "additionalGids": [3]}));
    let process = described("--tty --cwd=/w --env=A=2 --env=B= --user=7 --additional-gids=8", json!({}));
    assert_eq!(process["terminal"], true);
    assert_eq!(process["consoleSize"], json!({"height": 1, "width": 2}));
    assert_eq!((&process["cwd"], &process["env"]), (&json!("/w"), &json!(["A=1", "A=2", "B="])));
    assert_eq!(process["user"], json!({"uid": 7, "gid": 2, "additionalGids": [3, 8]}));
    let process = described("--user=7:9 --no-new-privs --apparmor=p --process-label=l", json!({}));
    assert_eq!((&process["user"]["gid"], &process["noNewPrivileges"]), (&json!(9), &json!(true)));
    assert_eq!((&process["apparmorProfile"], &process["selinuxLabel"]), (&json!("p"), &json!("l")));
}

#[test]
fn capabilities_are_added_where_they_have_an_effect() {
    let sets = &described("--cap=CAP_KILL --cap=CAP_NOPE --cap=kill", json!({}))["capabilities"];
    assert_eq!(*sets, json!({"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]}));
    let sets = &described("--cap=CAP_KILL", json!({"inheritable": []}))["capabilities"];
    assert_eq!(sets["ambient"], json!(["CAP_KILL"]));
}

#[test]
fn users_are_numbers() {
    assert_eq!(ids("7").unwrap(), (7, None));
    assert_eq!(ids("7:8").unwrap(), (7, Some(8)));
    for (user, text) in [("x", "bad uid: strconv.Atoi: parsing \"x\""), ("7:", "bad gid: strconv.Atoi: parsing \"\"")] {
        assert_eq!(ids(user).unwrap_err().to_string(), format!("{text}: invalid syntax"));
    }
}

#[test]
fn cgroups_are_one_path_or_one_per_controller() {
    let read = |given: &[&str]| cgroups(&given.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
    assert_eq!(read(&[]).unwrap(), []);
    assert_eq!(read(&["sub/a"]).unwrap(), [(None, PathBuf::from("sub/a"))]);
    let both =
        [(Some(vec!["cpu".to_owned(), "pids".to_owned()]), "a".into()), (Some(vec!["memory".to_owned()]), "b".into())];
    assert_eq!(read(&["cpu,pids:a", "memory:b"]).unwrap(), both);
    for (given, text) in [
        (&["a", "b"][..], "invalid --cgroup argument: a (missing <controller>: prefix)"),
        (&["cpu:a:b"], "invalid --cgroup argument: cpu:a:b"),
        (&["cpu:a", "cpu:b"], "invalid --cgroup argument(s): controller cpu specified multiple times"),
    ] {
        assert_eq!(read(given).unwrap_err().to_string(), text);
    }
}
