//! Cgroups: which a restored container is in, what they limit, and that those of others are left alone.

use crate::support::{Bundle, Layout, wait_until};
use crate::{COUNTER, Checkpointed, ours_only, requires};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

/// A cgroup of nobody's, for as long as this lives.
struct Neighbour(PathBuf);

impl Neighbour {
    fn new(hierarchy: &Path, c: &Checkpointed) -> Self {
        let this = Self(hierarchy.join(format!("{}-neighbour", c.runtime.id())));
        fs::create_dir(&this.0).unwrap();
        this
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        // A test may have removed it already.
        let _gone = fs::remove_dir(&self.0);
    }
}

#[test]
fn those_of_others_do_not_come_back() {
    requires!(root, criu, cgroup_v1, cgroup_v2);
    ours_only!("other runtimes restore whatever CRIU has dumped");
    // In the hierarchies that it is not shown a container is in the topmost cgroup, with everybody else.
    for (layout, others) in [(Layout::V1, "unified"), (Layout::V2, "freezer")] {
        let c = Checkpointed::run(Bundle::sh(COUNTER).layout(layout));
        let neighbour = Neighbour::new(&Path::new("/sys/fs/cgroup").join(others), &c);
        c.checkpoint(&[]).ok();
        fs::remove_dir(&neighbour.0).unwrap();
        c.restore(&[]).ok();
        c.counts();
        assert!(!neighbour.0.exists(), "{}", neighbour.0.display());
    }
}

/// Where a container makes a cgroup of its own, and what limits it there.
struct Inner {
    layout: Layout,
    /// The hierarchy, inside.
    at: &'static str,
    controller: &'static str,
    limit: &'static str,
    /// What a new container has of it.
    of_the_bundle: &'static str,
}

const PIDS: Inner = Inner {
    layout: Layout::Host,
    at: "/sys/fs/cgroup/pids",
    controller: "pids",
    limit: "pids.max",
    of_the_bundle: "66",
};
const PIDS_V1: Inner = Inner { layout: Layout::V1, ..PIDS };
const UNIFIED: Inner = Inner {
    layout: Layout::V2,
    at: "/sys/fs/cgroup",
    controller: "",
    limit: "cgroup.max.descendants",
    of_the_bundle: "max",
};

impl Inner {
    /// A bundle whose program counts, and has a child in a cgroup below the container's. (A sleep may end early after a
    /// dump.)
    fn bundle(&self) -> Bundle {
        let inner = format!("{}/inner", self.at);
        let script = format!(
            "mkdir {inner}; echo 55 > {inner}/{}; \
             (exec sh -c 'echo $$ > {inner}/cgroup.procs && echo in > /dev/shm/inner; exec tail -f /dev/null') & {COUNTER}",
            self.limit
        );
        let bundle = Bundle::sh(&script).layout(self.layout).with(|config| {
            config["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "cgroup");
            if self.controller == "pids" {
                config["linux"]["resources"] = json!({"pids": {"limit": 66}});
            }
        });
        let bundle = bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["rw"]);
        if self.layout == Layout::V2 { bundle.namespace("cgroup", None) } else { bundle }
    }
}

/// What a mode restores: the limit of the container's own cgroup that it had last, and the cgroup below it.
const MODES: [(&str, &str, bool, bool); 5] = [
    ("soft", "soft", false, true),
    ("full", "full", true, true),
    ("strict", "strict", true, true),
    ("soft", "ignore", false, false),
    ("ignore", "ignore", false, false),
];

#[track_caller]
fn modes_restore(inner: &Inner) {
    for (at_dump, at_restore, limit, below) in MODES {
        let case = format!("{:?}, {at_dump} and {at_restore}", inner.layout);
        let c = Checkpointed::run(inner.bundle());
        wait_until("it has a cgroup of its own", || c.runtime.exec(&["cat", "/dev/shm/inner"]).text() == "in");
        let path = |c: &Checkpointed, file: &str| c.runtime.cgroup(inner.controller).join(file);
        let read = |c: &Checkpointed, file: &str| fs::read_to_string(path(c, file)).unwrap_or_default();
        fs::write(path(&c, inner.limit), "77").unwrap();
        c.checkpoint(&["--manage-cgroups-mode", at_dump]).ok();
        c.runtime.leaves_nothing();

        let clone = Checkpointed::of(inner.bundle());
        clone.restore(&["--manage-cgroups-mode", at_restore, "--image-path", c.images().to_str().unwrap()]).ok();
        clone.counts();
        let expected = if limit { "77" } else { inner.of_the_bundle };
        assert_eq!(read(&clone, inner.limit).trim(), expected, "{case}");
        let members = read(&clone, "cgroup.procs");
        assert!(members.lines().any(|pid| pid == clone.runtime.pid().to_string()), "{case}: {members}");
        let child = read(&clone, "inner/cgroup.procs");
        if below {
            let command = fs::read_to_string(format!("/proc/{}/cmdline", child.trim())).unwrap();
            assert_eq!(
                (command.as_str(), read(&clone, &format!("inner/{}", inner.limit)).trim()),
                ("tail\0-f\0/dev/null\0", "55")
            );
        } else {
            assert!(!path(&clone, "inner").exists() && members.lines().count() > 2, "{case}: {members}");
        }
        // Nothing of the name that it had before, and nothing below that it has now.
        c.runtime.leaves_nothing();
        clone.runtime.cmd(&["delete", "--force", clone.runtime.id()]).ok();
        clone.runtime.leaves_nothing();
    }
}

#[test]
fn modes_restore_more_or_less_of_them() {
    requires!(root, criu, cgroup_v1);
    ours_only!("runc 1.1 restores without the mode");
    modes_restore(&PIDS);
}

#[test]
fn modes_restore_more_or_less_of_them_on_v1() {
    requires!(root, criu, cgroup_v1);
    ours_only!("runc 1.1 restores without the mode");
    modes_restore(&PIDS_V1);
}

#[test]
fn modes_restore_more_or_less_of_them_on_v2() {
    requires!(root, criu, cgroup_v2);
    ours_only!("runc 1.1 restores without the mode");
    modes_restore(&UNIFIED);
}

#[test]
fn processes_come_back_below_the_cgroup_that_is_limited() {
    requires!(root, criu, cgroup_v2);
    ours_only!("the annotation is crun's");
    let bundle = || {
        let bundle = Bundle::sh(COUNTER).layout(Layout::V2).namespace("cgroup", None);
        bundle.with(|config| {
            config["annotations"] = json!({"run.oci.delegate-cgroup": "/inner/most"});
            config["linux"]["resources"] = json!({"unified": {"cgroup.max.descendants": "66"}});
        })
    };
    for mode in ["soft", "full", "ignore"] {
        let c = Checkpointed::run(bundle());
        c.checkpoint(&["--manage-cgroups-mode", mode]).ok();
        c.runtime.leaves_nothing();
        let clone = Checkpointed::of(bundle());
        clone.restore(&["--manage-cgroups-mode", mode, "--image-path", c.images().to_str().unwrap()]).ok();
        clone.counts();
        let outer = clone.runtime.cgroup("");
        let read = |file: &str| fs::read_to_string(outer.join(file)).unwrap();
        assert_eq!(read("cgroup.max.descendants").trim(), "66", "{mode}");
        let members = read("inner/most/cgroup.procs");
        assert!(members.lines().any(|pid| pid == clone.runtime.pid().to_string()), "{mode}: {members}");
        assert_eq!(read("cgroup.procs") + &read("inner/cgroup.procs"), "", "{mode}");
        // Also what exec adds; the namespace, which CRIU leaves to the other modes, has that one on top.
        let seen = clone.runtime.exec_sh("cat /proc/1/cgroup /proc/self/cgroup | grep ^0::").ok();
        let there = if mode == "ignore" { format!("0::/{}/inner/most", clone.runtime.id()) } else { "0::/".to_owned() };
        seen.prints(&format!("{there}\n{there}"));
        c.runtime.leaves_nothing();
        clone.runtime.cmd(&["delete", "--force", clone.runtime.id()]).ok();
        clone.runtime.leaves_nothing();
    }
}

#[test]
fn a_mode_that_cannot_be_is_one_line() {
    requires!(root, criu, cgroup_v1);
    ours_only!("runc 1.1 restores without the mode");
    let c = Checkpointed::counter();
    c.checkpoint(&[]).ok();
    let wrong =
        c.restore(&["--manage-cgroups-mode", "x"]).exits(1).stderr_contains("invalid manage-cgroups-mode value");
    assert_eq!(wrong.stderr.lines().count(), 1, "{wrong}");
    // What strict is there to refuse.
    let own = c.runtime.cgroup("pids");
    fs::create_dir(&own).unwrap();
    let refused = c.restore(&["--manage-cgroups-mode", "strict"]).exits(1).stderr_contains("is there already");
    assert_eq!(refused.stderr.lines().count(), 1, "{refused}");
    fs::remove_dir(&own).unwrap();
    c.runtime.leaves_nothing();
    c.restore(&[]).ok();
    c.counts();
}
