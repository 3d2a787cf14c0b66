//! Hooks: all six kinds, where each runs, in which order and with what on its standard input.

use crate::support::{Bundle, Runtime};
use crate::{ours_only, requires};
use serde_json::{Value, json};
use std::fs;

/// The kinds, in the order in which they run.
const KINDS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A bundle with one hook of each kind, which notes its name and what it was given. Those that see the container's root
/// as `/` note it in a directory that is mounted there.
fn noting(program: Bundle) -> Bundle {
    let bundle =
        program.prepare(|dir| fs::create_dir(dir.join("source")).unwrap()).mount("/notes", "bind", "source", &["bind"]);
    let notes = bundle.path().join("source");
    bundle.with(|config| {
        config["root"]["readonly"] = json!(false);
        for kind in KINDS {
            let dir = if kind == "startContainer" { "/notes".into() } else { notes.to_str().unwrap().to_owned() };
            // The name of the program is its first argument, by which the container's busybox knows what to be.
            let name = if kind == "startContainer" { "sh" } else { "named" };
            let script = format!("cat >{dir}/{kind}; echo {kind} $0 $A >>{dir}/order");
            let hook = json!({"path": "/bin/sh", "args": [name, "-c", script], "env": ["A=b", "PATH=/bin:/usr/bin"]});
            config["hooks"][kind] = json!([hook]);
        }
    })
}

fn note(c: &Runtime, name: &str) -> String {
    fs::read_to_string(c.bundle().path().join("source").join(name)).unwrap_or_default()
}

#[test]
fn hooks_run_in_their_order() {
    requires!(root);
    ours_only!("runc 1.1 runs poststart hooks at create");
    let c = noting(Bundle::sh("echo program >>/notes/order")).create();
    let order = |kinds: &[&str]| kinds.iter().map(|kind| format!("{kind} named b\n")).collect::<String>();
    assert_eq!(note(&c, "order"), order(&KINDS[..3]));
    c.start().ok();
    c.wait_for("stopped");
    assert_eq!(c.complained(), "");
    let noted = note(&c, "order");
    assert!(noted.contains("\nstartContainer sh b\n"));
    let lines: Vec<_> = noted.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(lines[..4], KINDS[..4]);
    // poststart runs beside the program.
    assert!(lines[4..].contains(&"program") && lines[4..].contains(&"poststart") && lines.len() == 6, "{lines:?}");
    c.delete().ok();
    assert!(note(&c, "order").ends_with("poststop named b\n"));
}

#[test]
fn hooks_are_given_the_state() {
    requires!(root);
    ours_only!("runc 1.1 words the states otherwise");
    let c = noting(Bundle::sleep()).with(|config| config["annotations"] = json!({"org.example": "x"})).start();
    let pid = c.pid();
    c.cmd(&["delete", "--force", c.id()]).ok();
    for (kind, statuses) in KINDS.into_iter().zip([["creating", "created"]; 3].into_iter().chain([
        ["created"; 2],
        ["running"; 2],
        ["stopped"; 2],
    ])) {
        let text = note(&c, kind);
        let state: Value = serde_json::from_str(&text).unwrap_or_else(|err| panic!("{kind}: {err} in {text:?}"));
        assert_eq!(state["id"], c.id(), "{kind}");
        assert_eq!(state["bundle"], c.bundle().path().to_str().unwrap(), "{kind}");
        assert!(statuses.iter().any(|status| state["status"] == *status), "{kind}: {state}");
        assert_eq!(state["annotations"], json!({"org.example": "x"}), "{kind}");
        assert!(state["ociVersion"].is_string());
        // As whoever runs the hook sees it.
        match kind {
            "createContainer" | "startContainer" => assert_eq!(state["pid"], 1, "{kind}"),
            "poststop" => {}
            _ => assert_eq!(state["pid"], pid, "{kind}"),
        }
    }
}

#[test]
fn hooks_run_where_the_specification_puts_them() {
    requires!(root);
    let c = noting(Bundle::sleep());
    let notes = c.path().join("source").to_str().unwrap().to_owned();
    let c = c.with(|config| {
        for kind in KINDS {
            let dir = if kind == "startContainer" { "/notes" } else { &notes };
            let script = format!("readlink /proc/self/ns/mnt >{dir}/{kind}; ls / >{dir}/{kind}.root");
            config["hooks"][kind][0]["args"] = json!(["sh", "-c", script]);
        }
    });
    let c = c.start();
    let inside = fs::read_link(format!("/proc/{}/ns/mnt", c.pid())).unwrap().to_str().unwrap().to_owned() + "\n";
    let host = fs::read_link("/proc/self/ns/mnt").unwrap().to_str().unwrap().to_owned() + "\n";
    c.cmd(&["delete", "--force", c.id()]).ok();
    for (kind, namespace) in [
        ("prestart", &host),
        ("createRuntime", &host),
        ("createContainer", &inside),
        ("startContainer", &inside),
        ("poststart", &host),
        ("poststop", &host),
    ] {
        assert_eq!(&note(&c, kind), namespace, "{kind}");
        assert_eq!(
            note(&c, &format!("{kind}.root")).lines().any(|name| name == "notes"),
            kind == "startContainer",
            "{kind}"
        );
    }
}

#[test]
fn a_hook_outside_without_an_environment_has_the_runtimes() {
    requires!(root);
    ours_only!("runc 1.1 runs poststart hooks at create");
    let c = noting(Bundle::sleep());
    let note_env = |name: &str, env: Value| {
        let script = format!("/usr/bin/env >{}/{name}", c.path().join("source").display());
        json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": env})
    };
    let outside = ["prestart", "createRuntime", "poststart", "poststop"];
    let hooks = outside.map(|kind| {
        let listed = [(Value::Null, "null"), (json!([]), "none"), (json!(["A=b"]), "own")];
        let hooks = listed.map(|(env, name)| note_env(&format!("{kind}.{name}"), env));
        (kind.to_owned(), json!(hooks))
    });
    let c = Runtime::new(c.with(|config| config["hooks"] = Value::Object(hooks.into_iter().collect())));
    let bundle = c.bundle().path().to_str().unwrap();
    for args in [&["run", "--bundle", bundle, "--detach", c.id()][..], &["delete", "--force", c.id()]] {
        let mut command = c.command(args);
        command.env("OURS", "x");
        c.detached(command).ok();
    }
    for kind in outside {
        let has = |name: &str, line: &str| note(&c, &format!("{kind}.{name}")).lines().any(|found| found == line);
        assert!(has("null", "OURS=x"), "{kind}");
        assert!(!has("none", "OURS=x"), "{kind}");
        assert!(has("own", "A=b") && !has("own", "OURS=x"), "{kind}");
    }
}

#[test]
fn a_hooks_environment_is_passed_on_as_it_is_listed() {
    requires!(root);
    ours_only!("runc has no annotation for what hooks write");
    let c = noting(Bundle::sleep());
    let file = c.path().join("source").join("environment").to_str().unwrap().to_owned();
    let c = c.with(|config| {
        config["annotations"] = json!({"run.oci.hooks.stdout": file});
        // Of two with one name the last counts, and what has no name comes along.
        let env = ["B=1", "BARE", "", "A=b", "B=2", "=x", "BARE"];
        let hook = json!({"path": "/bin/cat", "args": ["cat", "/proc/self/environ"], "env": env});
        config["hooks"] = KINDS.iter().map(|kind| ((*kind).to_owned(), json!([hook]))).collect();
    });
    let c = c.start();
    c.cmd(&["delete", "--force", c.id()]).ok();
    assert_eq!(note(&c, "environment"), "BARE\0A=b\0B=2\0=x\0BARE\0".repeat(KINDS.len()));
}

#[test]
fn a_hook_that_cannot_be_executed_is_told_with_its_path() {
    requires!(root);
    ours_only!("runc 1.1 runs poststart hooks at create");
    for kind in ["createRuntime", "createContainer", "startContainer", "poststart"] {
        for (path, why) in [("/nope", "no such file or directory"), ("/etc/passwd", "permission denied")] {
            let c = Runtime::new(Bundle::sleep().with(|config| config["hooks"] = json!({kind: [{"path": path}]})));
            let output = c.run();
            let words = format!("error running {kind} hook #0: fork/exec {path}: {why}");
            output.fails().stderr_contains(&words);
            c.leaves_nothing();
        }
    }
}

#[test]
fn a_hook_need_not_read_its_input() {
    requires!(root);
    let many: Vec<_> = (0..20_000).map(|n| format!("annotation-{n}")).collect();
    let c = Bundle::sh("true").with(|config| {
        config["annotations"] =
            many.iter().map(|name| (name.clone(), json!("x"))).collect::<serde_json::Map<_, _>>().into();
        for kind in KINDS {
            config["hooks"][kind] = json!([{"path": "/bin/true"}]);
        }
    });
    c.run().ok();
}

#[test]
fn a_hook_that_writes_much_is_not_held_up() {
    requires!(root);
    let noisy =
        json!([{"path": "/bin/sh", "args": ["sh", "-c", "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2"]}]);
    for kind in KINDS {
        Bundle::sh("true").with(|config| config["hooks"] = json!({kind: noisy})).run().ok();
    }
}

#[test]
fn a_poststart_hook_that_fails_stops_the_container() {
    requires!(root);
    ours_only!("runc 1.1 runs poststart hooks at create");
    let fails = json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo why; exit 5"]}]);
    let bundle = || noting(Bundle::sleep()).with(|config| config["hooks"]["poststart"] = fails.clone());
    let c = bundle().create();
    c.start().exits(1).stderr_contains("error running poststart hook #").stderr_contains("exit status 5");
    c.wait_for("stopped");
    // With runc too the container is there to be deleted, and what is to run then has not run yet.
    assert!(!note(&c, "order").contains("poststop"));
    c.delete().ok();
    assert!(note(&c, "order").ends_with("poststop named b\n"));
    let c = Runtime::new(bundle());
    c.run().exits(1).stderr_contains("error running poststart hook #");
    assert!(note(&c, "order").ends_with("poststop named b\n"));
    c.leaves_nothing();
}

#[test]
fn a_poststop_hook_that_fails_is_told_and_changes_nothing() {
    requires!(root);
    ours_only!("what runc 1.1 tells is worded otherwise");
    let c = Bundle::sleep().with(|config| {
        let fails = json!({"path": "/bin/sh", "args": ["sh", "-c", "exit 5"]});
        config["hooks"] = json!({"poststop": [fails, {"path": "/bin/touch", "args": ["touch", "/nowhere/x"]}]});
    });
    let c = c.create();
    c.delete().ok();
    c.leaves_nothing();
}

#[test]
fn hooks_outside_run_in_the_bundle() {
    requires!(root);
    let bundle = Bundle::new(&["true"]).with(|config| {
        let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", "pwd > where"]});
        config["hooks"] = json!({"createRuntime": [hook]});
    });
    let c = Runtime::new(bundle);
    c.run().ok();
    let place = fs::canonicalize(c.bundle().path()).unwrap();
    assert_eq!(fs::read_to_string(place.join("where")).unwrap().trim(), place.to_str().unwrap());
}

#[test]
fn a_start_container_hook_without_an_environment_has_the_programs() {
    requires!(root);
    let hook = |script: &str, env: Value| json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": env});
    let bundle = Bundle::new(&["true"]).with(|config| {
        config["process"]["env"] = json!(["ONE=two", "PATH=/bin"]);
        let bare = "test \"$ONE\" = two && test \"$HOME\" = /root";
        let own = hook("test -z \"$ONE\" && test $A = b", json!(["A=b", "PATH=/bin"]));
        config["hooks"] = json!({"startContainer": [hook(bare, Value::Null), hook(bare, json!([])), own]});
    });
    bundle.run().ok();
}

#[test]
fn create_container_hooks_run_in_the_root_file_system() {
    requires!(root);
    let c = Bundle::new(&["ls", "/made", "/dev/null"]).with(|config| {
        // What is mounted there can be seen, what is outside not yet lost.
        let script = "test -c ./dev/null && echo >made && test -e /proc/self";
        config["hooks"] = json!({"createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
    });
    c.run().ok().prints("/dev/null\n/made");
}

#[test]
fn what_hooks_write_goes_where_annotations_say() {
    requires!(root);
    ours_only!("crun has it, and runc has not");
    let c = noting(Bundle::sh("echo from the program"));
    let file = |name: &str| c.path().join("source").join(name).to_str().unwrap().to_owned();
    let (out, err) = (file("out"), file("err"));
    let c = c.with(|config| {
        config["annotations"] = json!({"run.oci.hooks.stdout": out, "run.oci.hooks.stderr": err});
        for kind in KINDS {
            config["hooks"][kind][0]["args"] = json!(["sh", "-c", format!("echo {kind}; echo no {kind} >&2")]);
        }
    });
    let c = c.create();
    c.start().ok();
    assert_eq!(c.finished(), "from the program\n");
    c.delete().ok();
    assert_eq!(c.complained(), "");
    let expected = |prefix: &str| KINDS.iter().map(|kind| format!("{prefix}{kind}\n")).collect::<String>();
    assert_eq!((note(&c, "out"), note(&c, "err")), (expected(""), expected("no ")));
}
