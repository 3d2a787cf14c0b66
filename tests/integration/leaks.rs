//! Many containers, one after the other, leave nothing: what there is before is what there is after.
//!
//! `LEAK_CYCLES` says how many (100 unless set; the project's bar is 1000).

use crate::requires;
use crate::support::{Bundle, Runtime, cycles, files};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;

/// Counts, by name, what containers are made of.
fn counts(c: &Runtime) -> BTreeMap<&'static str, usize> {
    let mut counts = c.counts();
    counts.insert("mounts", fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count());
    counts
}

/// Runs `cycle` once, for what the first container of a bundle makes for good (mount points in the root, the state's
/// directory), and then many times between two counts.
fn leak_nothing(c: &Runtime, cycle: impl Fn(u32)) {
    cycle(0);
    c.leaves_nothing();
    let before = counts(c);
    (0..cycles(100)).for_each(cycle);
    c.leaves_nothing();
    assert_eq!(counts(c), before);
}

#[test]
fn cycles_of_run_leave_nothing() {
    requires!(root);
    let c = Runtime::new(Bundle::new(&["true"]));
    leak_nothing(&c, |_| drop(c.run().ok()));
}

#[test]
fn cycles_of_create_start_kill_and_delete_leave_nothing() {
    requires!(root);
    let hook = json!([{"path": "/bin/true"}]);
    let bundle = Bundle::sleep().user_namespace(100_000).mount("/tmp", "tmpfs", "tmpfs", &["ro"]);
    let c = Runtime::new(bundle.with(|config| {
        config["hooks"] = json!({"createRuntime": hook, "createContainer": hook, "poststop": hook});
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW"});
    }));
    leak_nothing(&c, |_| {
        c.create().ok();
        c.start().ok();
        c.cmd(&["delete", "--force", c.id()]).ok();
    });
}

#[test]
fn cycles_of_failures_leave_nothing() {
    requires!(root);
    let c = Runtime::new(Bundle::new(&["no-such-program"]));
    leak_nothing(&c, |_| drop(c.cmd(&["create", "--bundle", c.bundle().path().to_str().unwrap(), c.id()]).fails()));
}

#[test]
fn cycles_of_exec_leave_nothing() {
    requires!(root);
    let c = Bundle::sleep().start();
    let processes = || c.cmd(&["ps", "--format", "json", c.id()]).ok().json();
    let (before, state) = (processes(), files(&c.root()));
    (0..cycles(100)).for_each(|_| drop(c.exec(&["true"]).ok()));
    assert_eq!((processes(), files(&c.root())), (before, state));
}
