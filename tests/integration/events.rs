//! events: what a container uses, in runc's schema, and the OOM killer's work.

use crate::support::{Bundle, Layout, Runtime, wait_until};
use crate::{ours_only, requires};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::Child;

/// A running `events`, whose output goes to a file.
struct Watch {
    child: Child,
    file: PathBuf,
}

impl Watch {
    fn begin(c: &Runtime, options: &[&str]) -> Self {
        let file = c.bundle().path().join("events.log");
        let mut command = c.command(&[&["events"], options, &[c.id()]].concat());
        let child = command.stdout(fs::File::create(&file).unwrap()).spawn().unwrap();
        Self { child, file }
    }

    fn lines(&self) -> Vec<String> {
        // The last line may not be whole yet.
        let text = fs::read_to_string(&self.file).unwrap();
        text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned).collect()
    }

    fn has(&self, kind: &str) -> bool {
        self.lines().iter().any(|line| line.starts_with(&format!("{{\"type\":\"{kind}\"")))
    }

    /// Waits for its end.
    fn end(mut self) -> Vec<String> {
        let code = self.child.wait().unwrap().code();
        assert_eq!(code, Some(0));
        self.lines()
    }
}

fn stats(c: &Runtime) -> Value {
    let output = c.cmd(&["events", "--stats", c.id()]).ok();
    assert_eq!(output.lines().len(), 1, "{output}");
    assert!(output.stdout.starts_with(&format!("{{\"type\":\"stats\",\"id\":\"{}\",\"data\":{{", c.id())), "{output}");
    output.json()["data"].clone()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn stats_are_those_of_the_kernel_on_v1() {
    requires!(root, cgroup_v1);
    let script = "head -c 3000000 /dev/zero >/dev/null; head -c 1000000 /dev/zero >/file; sleep 1000 & echo done; wait";
    for layout in [Layout::Host, Layout::V1] {
        let c = Bundle::sh(script).layout(layout).with(|config| {
            config["root"]["readonly"] = json!(false);
            config["linux"]["resources"] = json!({
                "memory": {"limit": 64 << 20}, "pids": {"limit": 17}, "cpu": {"cpus": "0", "mems": "0"},
            });
        });
        let c = c.start();
        c.wait_printed("done");
        let data = stats(&c);
        let parts = ["blkio", "cpu", "cpuset", "hugetlb", "intel_rdt", "memory", "network_interfaces", "pids"];
        assert_eq!(keys(&data), parts);
        assert_eq!(data["pids"], json!({"current": 2, "limit": 17}));
        assert_eq!((&data["cpuset"]["cpus"], &data["cpuset"]["mems"]), (&json!([0]), &json!([0])));
        assert_eq!(data["cpuset"]["sched_relax_domain_level"], -1);
        let usage = &data["cpu"]["usage"];
        let total: u64 = c.limit("cpuacct", "cpuacct.usage").parse().unwrap();
        let told = usage["total"].as_u64().unwrap();
        assert!(told > 0 && told <= total, "{told} of {total}");
        let per_cpu: u64 = usage["percpu"].as_array().unwrap().iter().map(|value| value.as_u64().unwrap()).sum();
        assert!(per_cpu >= told && per_cpu <= total, "{per_cpu} beside {told}");
        assert!(usage["user"].is_u64() && usage["kernel"].is_u64(), "{usage}");
        let memory = &data["memory"];
        assert_eq!(memory["usage"]["limit"], 64 << 20);
        assert!(memory["cache"].as_u64().unwrap() >= 1_000_000, "{memory}");
        assert_eq!(memory["raw"]["cache"], memory["cache"]);
        assert!(memory["usage"]["max"].as_u64() >= memory["usage"]["usage"].as_u64(), "{memory}");
        assert_eq!(memory["usage"]["failcnt"], 0);
        assert!(memory["swap"]["limit"].as_u64().unwrap() > 64 << 20, "{memory}");
    }
}

#[test]
fn stats_are_those_of_the_kernel_on_v2() {
    requires!(root, cgroup_v2);
    ours_only!("runc 1.1 knows no pressure, and counts huge pages in use");
    let c = Bundle::sh("head -c 3000000 /dev/zero >/dev/null; echo done; sleep 1000").layout(Layout::V2).start();
    c.wait_printed("done");
    let data = stats(&c);
    let usage = &data["cpu"]["usage"];
    let now = c.limit("", "cpu.stat");
    let total: u64 = now.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap().parse().unwrap();
    let told = usage["total"].as_u64().unwrap();
    assert!(told > 0 && told <= total * 1000, "{told} of {total}");
    let sum = usage["user"].as_u64().unwrap() + usage["kernel"].as_u64().unwrap();
    assert!(sum.abs_diff(told) <= 2000, "{sum} is not {told}");
    if c.cgroup("").join("cpu.pressure").exists() {
        assert!(data["cpu"]["psi"]["some"]["total"].is_u64(), "{data}");
        assert!(data["memory"]["psi"]["full"]["avg10"].is_f64(), "{data}");
    }
    assert_eq!(data["hugetlb"]["2MB"], json!({"failcnt": 0}));
    // There is no controller that counts them.
    assert_eq!(data["pids"], json!({"current": 1}));
    assert_eq!(data["network_interfaces"], Value::Null);
}

#[test]
fn stats_are_told_at_intervals_until_the_container_ends() {
    requires!(root);
    ours_only!("runc 1.1 waits for the cgroup to go");
    for layout in [Layout::Host, Layout::V2] {
        let c = Bundle::sleep().layout(layout).start();
        let watch = Watch::begin(&c, &["--interval", "50ms"]);
        wait_until("three lines", || watch.lines().len() >= 3);
        c.kill("KILL").ok();
        let lines = watch.end();
        let parsed: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(parsed.iter().all(|event| event["type"] == "stats" && event["id"] == c.id()), "{lines:?}");
        assert_eq!(parsed[0]["data"]["network_interfaces"], Value::Null);
    }
}

#[test]
fn the_oom_killer_is_told_of() {
    requires!(root, cgroup_v1);
    for layout in [Layout::Host, Layout::V1] {
        let memory = json!({"limit": 16 << 20, "swap": 16 << 20});
        let c = Bundle::sleep().layout(layout).with(|config| config["linux"]["resources"] = json!({"memory": memory}));
        let c = c.start();
        let watch = Watch::begin(&c, &["--interval", "100ms"]);
        wait_until("stats", || watch.has("stats"));
        assert!(!watch.has("oom"));
        c.exec_sh("head -c 100000000 /dev/zero | tail").fails();
        wait_until("an oom event", || watch.has("oom"));
        c.cmd(&["delete", "--force", c.id()]).ok();
        let lines = watch.end();
        assert!(lines.contains(&format!("{{\"type\":\"oom\",\"id\":\"{}\"}}", c.id())), "{lines:?}");
    }
}

#[test]
fn failures_are_told() {
    requires!(root);
    let c = Bundle::sleep().start();
    let failure = |args: &[&str], words: &str| {
        c.cmd(args).exits(1).stderr_contains(words);
    };
    failure(&["events", "missing"], "does not exist");
    failure(&["events", "--interval", "0s", c.id()], "duration interval must be greater than 0");
    failure(&["events", "--interval=-1s", c.id()], "duration interval must be greater than 0");
    failure(&["events", "--interval", "soon", c.id()], "invalid value \"soon\" for flag -interval: parse error");
    c.kill("KILL").ok();
    c.wait_for("stopped");
    let words = format!("container with id {} is not running", c.id());
    failure(&["events", "--stats", c.id()], &words);
    failure(&["events", c.id()], &words);
}
