//! Hooks of a container that is restored: prestart and createRuntime, while its namespaces are there and empty, and no
//! others, as with runc. Its processes are not made again, so that there is no place for those that run within.

use crate::support::{Bundle, wait_until};
use crate::{COUNTER, Checkpointed, namespace, ours_only, requires};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const KINDS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A bundle with two hooks of each kind, which note where they are run, and what they are given.
fn noting() -> Bundle {
    let bundle = Bundle::sh(COUNTER).prepare(|dir| fs::create_dir(dir.join("source")).unwrap());
    let notes = bundle.path().join("source");
    let notes = notes.to_str().unwrap();
    let bundle = bundle.mount("/notes", "bind", notes, &["bind"]);
    bundle.with(|config| {
        config["annotations"] = json!({"org.example": "x"});
        for kind in KINDS {
            let dir = if kind == "startContainer" { "/notes" } else { notes };
            let script = format!(
                "read state; echo $0 >>{dir}/order; echo \"$state\" >{dir}/$0.state; pwd >{dir}/$0.cwd; \
                 for ns in mnt pid net ipc uts; do readlink /proc/self/ns/$ns; done >{dir}/$0.namespaces; \
                 pid=$(echo \"$state\" | sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); \
                 cat /proc/$pid/cgroup >{dir}/$0.cgroup; readlink /proc/$pid/ns/net >{dir}/$0.net; :"
            );
            let hook =
                |name: String| json!({"path": "/bin/sh", "args": ["sh", "-c", script, name], "env": ["PATH=/bin:/usr/bin"]});
            config["hooks"][kind] = json!([hook(format!("{kind}-1")), hook(format!("{kind}-2"))]);
        }
    })
}

fn note(c: &Checkpointed, name: &str) -> String {
    fs::read_to_string(c.runtime.bundle().path().join("source").join(name)).unwrap_or_default()
}

fn forget(c: &Checkpointed) {
    let notes = c.runtime.bundle().path().join("source");
    fs::read_dir(notes).unwrap().for_each(|entry| fs::remove_file(entry.unwrap().path()).unwrap());
}

#[test]
fn two_kinds_run_in_their_order_and_no_others() {
    requires!(root, criu);
    let c = Checkpointed::run(noting());
    c.checkpoint(&[]).ok();
    assert!(note(&c, "order").ends_with("poststop-1\npoststop-2\n"));
    forget(&c);
    c.restore(&[]).ok();
    c.counts();
    assert_eq!(note(&c, "order"), "prestart-1\nprestart-2\ncreateRuntime-1\ncreateRuntime-2\n");
    forget(&c);
    c.runtime.cmd(&["delete", "--force", c.runtime.id()]).ok();
    assert_eq!(note(&c, "order"), "poststop-1\npoststop-2\n");
}

#[test]
fn they_are_given_the_restored_container() {
    requires!(root, criu);
    ours_only!("runc says `restored` or the like of the status, and 1.1 not where its cgroup is");
    let c = Checkpointed::run(noting());
    c.checkpoint(&[]).ok();
    let clone = Checkpointed::of(noting());
    clone.restore(&["--image-path", c.images().to_str().unwrap()]).ok();
    let pid = clone.runtime.pid();
    for name in ["prestart-1", "prestart-2", "createRuntime-1", "createRuntime-2"] {
        let state: Value = serde_json::from_str(&note(&clone, &format!("{name}.state"))).unwrap();
        assert_eq!((&state["id"], &state["pid"]), (&json!(clone.runtime.id()), &json!(pid)), "{name}");
        assert_eq!((&state["bundle"], &state["status"]), (&json!(clone.bundle()), &json!("creating")), "{name}");
        assert_eq!(state["annotations"], json!({"org.example": "x"}), "{name}");
        assert!(state["ociVersion"].is_string());
        assert_eq!(note(&clone, &format!("{name}.cwd")).trim(), clone.bundle());
        // They run outside of it, and see it in the network that it has from now on.
        let own = ["mnt", "pid", "net", "ipc", "uts"].map(|kind| namespace(std::process::id() as i32, kind));
        let seen = note(&clone, &format!("{name}.namespaces"));
        assert_eq!(seen.lines().map(Path::new).collect::<Vec<_>>(), own, "{name}");
        assert_eq!(Path::new(note(&clone, &format!("{name}.net")).trim()), namespace(pid, "net"), "{name}");
        assert!(note(&clone, &format!("{name}.cgroup")).contains(clone.runtime.id()), "{name}");
    }
    // Those of the first container have seen nothing of it.
    assert!(!note(&c, "order").contains("prestart-1\nprestart-2\ncreateRuntime-1\ncreateRuntime-2\nprestart-1"));
}

#[test]
fn one_that_hangs_is_ended_and_undoes_the_restore() {
    requires!(root, criu);
    let mut c = Checkpointed::counter();
    c.checkpoint(&[]).ok();
    let ran = c.runtime.bundle().path().join("source");
    fs::create_dir(&ran).unwrap();
    for kind in ["prestart", "createRuntime"] {
        let script = format!("echo $$ >{}; exec sleep 1000", ran.join("pid").display());
        let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"], "timeout": 1}]);
        c.runtime.edit(|config| config["hooks"] = json!({kind: hook}));
        let failed = c.restore(&[]).exits(1).stderr_contains("hook ran past specified timeout of 1.0s");
        let first = failed.stderr.lines().next().unwrap();
        assert!(crate::support::is_oracle() || first.contains(&format!("running {kind} hook #0")), "{failed}");
        let pid = fs::read_to_string(ran.join("pid")).unwrap();
        wait_until("the hook is ended", || !Path::new("/proc").join(pid.trim()).exists());
        c.runtime.leaves_nothing();
    }
    // What was dumped is as good as before.
    c.runtime.edit(|config| config["hooks"] = json!({}));
    c.restore(&[]).ok();
    c.counts();
}
