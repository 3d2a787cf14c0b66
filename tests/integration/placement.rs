//! On which cpus processes run, and from which nodes they get their memory.

use crate::support::{Bundle, Output, Runtime};
use crate::{ours_only, requires};
use serde_json::{Value, json};
use std::fs;

/// What a program prints of its cpus, from its first moment on.
const CPUS: [&str; 3] = ["sh", "-c", "sed -n 's/^Cpus_allowed_list:\\s*//p' /proc/self/status"];

fn online() -> String {
    fs::read_to_string("/sys/devices/system/cpu/online").unwrap().trim().to_owned()
}

/// Runs a command line of the runtime as a caller that may use one cpu only.
#[track_caller]
fn pinned(c: &Runtime, args: &[&str]) -> Output {
    let command = c.command(args);
    let mut pinned = std::process::Command::new("taskset");
    pinned
        .args(["--cpu-list", "0"])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(std::process::Stdio::null());
    c.output_of(pinned)
}

#[test]
fn the_callers_cpus_are_not_the_containers() {
    requires!(root);
    let c = Runtime::new(Bundle::new(&CPUS));
    pinned(&c, &["run", "--bundle", c.bundle().path().to_str().unwrap(), c.id()]).ok().prints(&online());
    let c = Bundle::sleep().start();
    pinned(&c, &[&["exec", c.id()][..], &CPUS].concat()).ok().prints(&online());
}

#[test]
fn the_cpus_of_the_cgroup_are_the_containers() {
    requires!(root, cgroup_v1);
    let cpus = |config: &mut Value| config["linux"]["resources"] = json!({"cpu": {"cpus": "0"}});
    Bundle::new(&CPUS).with(cpus).run().ok().prints("0");
    let c = Bundle::sleep().with(cpus).start();
    c.exec(&CPUS).ok().prints("0");
}

#[test]
fn exec_is_put_on_the_cpus_that_were_asked_for() {
    requires!(root);
    ours_only!("runc 1.1 knows no execCPUAffinity");
    let last = online().rsplit(['-', ',']).next().unwrap().to_owned();
    for (affinity, expected) in [
        (json!({"initial": "0"}), "0"),
        (json!({"final": last}), last.as_str()),
        (json!({"initial": "0", "final": last}), last.as_str()),
        (json!({}), online().as_str()),
    ] {
        // For the container's own process it means nothing; exec begins with that one's description.
        let c = Bundle::sh("sed -n 's/^Cpus_allowed_list:\\s*//p' /proc/self/status; sleep 1000")
            .with(|config| config["process"]["execCPUAffinity"] = affinity.clone())
            .start();
        c.wait_printed(&online());
        c.exec(&CPUS).ok().prints(expected);
        let process = json!({"args": CPUS, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0},
            "execCPUAffinity": affinity});
        let path = c.bundle().path().join("process.json");
        fs::write(&path, process.to_string()).unwrap();
        c.exec_with(&["--process", path.to_str().unwrap()], &[]).ok().prints(expected);
    }
}

#[test]
fn cpus_that_are_not_there_are_refused() {
    requires!(root);
    ours_only!("runc 1.1 knows no execCPUAffinity");
    for (key, list) in [("initial", "4000"), ("final", "4000")] {
        let c = Bundle::sleep().with(|config| config["process"]["execCPUAffinity"] = json!({key: list})).start();
        c.exec(&CPUS).exits(255).stderr_contains("set the CPU affinity: invalid argument");
    }
}

#[test]
fn memory_comes_from_the_nodes_that_were_asked_for() {
    requires!(root, numa);
    ours_only!("runc 1.1 knows no memory policy");
    let maps = ["sh", "-c", "cut -d ' ' -f 2 /proc/self/numa_maps | sort -u"];
    for (policy, expected) in [
        (json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}), "bind=static:0"),
        (json!({"mode": "MPOL_INTERLEAVE", "nodes": "0"}), "interleave:0"),
        (json!({"mode": "MPOL_PREFERRED", "nodes": "0"}), "prefer:0"),
        (json!({"mode": "MPOL_LOCAL"}), "local"),
        (json!({"mode": "MPOL_DEFAULT"}), "default"),
    ] {
        let policy = |config: &mut Value| config["linux"]["memoryPolicy"] = policy.clone();
        Bundle::new(&maps).with(policy).run().ok().prints(expected);
        let c = Bundle::sleep().with(policy).start();
        c.exec(&maps).ok().prints(expected);
    }
}

#[test]
fn policies_that_cannot_be_are_refused() {
    requires!(root);
    ours_only!("runc 1.1 knows no memory policy");
    for (policy, words) in [
        (json!({"mode": "best"}), "invalid memory policy mode \"best\""),
        (json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["fast"]}), "invalid memory policy flag \"fast\""),
        (json!({"mode": "MPOL_BIND", "nodes": "mine"}), "invalid memory policy node \"mine\""),
        (json!({"mode": "MPOL_DEFAULT", "nodes": "0-7"}), "mode requires 0 nodes but got 8"),
    ] {
        let c = Runtime::new(Bundle::sleep().with(|config| config["linux"]["memoryPolicy"] = policy));
        c.create().exits(1).stderr_contains(words);
        c.leaves_nothing();
    }
}
