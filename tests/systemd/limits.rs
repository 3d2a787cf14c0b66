//! Limits: what systemd knows of them, and what the kernel does.

use crate::host::{Host, Kind, Scope};
use crate::support::Bundle;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

/// Returns a bundle with these resources.
pub fn limited(resources: Value) -> Bundle {
    Bundle::sleep().with(|config| {
        for (name, value) in resources.as_object().unwrap() {
            config["linux"]["resources"][name] = value.clone();
        }
    })
}

/// Checks properties of the unit.
#[track_caller]
pub fn shows(c: &Scope, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(c.property(name), *value, "{name}");
    }
}

/// Checks files of the cgroup: the hierarchy, the file, what it says.
#[track_caller]
pub fn holds(c: &Scope, expected: &[(&str, &str, &str)]) {
    for (hierarchy, file, value) in expected {
        assert_eq!(c.file(hierarchy, file), *value, "{file}");
    }
}

#[test]
fn on_v1_limits_are_in_both_places_and_stay() {
    requires!(root, systemd, cgroup_v1);
    let c = Host::shared(Kind::Hybrid).scope(limited(json!({
        "memory": {"limit": 67_108_864},
        "cpu": {"shares": 512, "quota": 12_345, "period": 50_000, "cpus": "0"},
        "pids": {"limit": 64},
    })));
    let c = c.run();
    shows(
        &c,
        &[
            ("MemoryLimit", "67108864"),
            ("CPUShares", "512"),
            // A quarter, less a little: to the next whole percent, in the file too.
            ("CPUQuotaPerSecUSec", "250ms"),
            ("CPUQuotaPeriodUSec", "50ms"),
            ("TasksMax", "64"),
            ("AllowedCPUs", "0"),
            ("DevicePolicy", "strict"),
        ],
    );
    let files = [
        ("memory", "memory.limit_in_bytes", "67108864"),
        ("cpu", "cpu.shares", "512"),
        ("cpu", "cpu.cfs_period_us", "50000"),
        ("cpu", "cpu.cfs_quota_us", "12500"),
        ("pids", "pids.max", "64"),
        ("cpuset", "cpuset.cpus", "0"),
    ];
    holds(&c, &files);
    // systemd writes everything anew.
    let devices = sorted(&c.file("devices", "devices.list"));
    c.host.inside("systemctl daemon-reload").ok();
    holds(&c, &files);
    assert_eq!(sorted(&c.file("devices", "devices.list")), devices);
    assert!(!devices.contains(&"a *:* rwm".to_owned()), "{devices:?}");
}

fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn one_task_is_enough() {
    requires!(root, systemd, cgroup_v1);
    let c = Host::shared(Kind::Hybrid).scope(limited(json!({"pids": {"limit": 1}}))).run();
    shows(&c, &[("TasksMax", "1")]);
    holds(&c, &[("pids", "pids.max", "1")]);
}

#[test]
fn a_container_that_was_killed_for_its_memory_leaves_no_unit() {
    requires!(root, systemd, cgroup_v1);
    let hungry = "x=x; while true; do x=$x$x; done";
    let memory = json!({"limit": 16_777_216, "swap": 16_777_216});
    let bundle = Bundle::sh(hungry).with(|config| config["linux"]["resources"]["memory"] = memory);
    let c = Host::shared(Kind::Hybrid).scope(bundle).run();
    c.runtime.wait_for("stopped");
    c.runtime.delete().ok();
    c.leaves_nothing();
}

/// Says whether the hierarchy of v2 has the controllers that the tests limit something with: not where v1 has them.
pub fn v2_has_controllers() -> bool {
    let all = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    ["cpu", "cpuset", "io", "memory", "pids"].iter().all(|name| all.split_whitespace().any(|one| one == *name))
}

/// Returns the number of a disk, of which there is one in every machine.
fn disk() -> (u64, u64) {
    let mut numbers = std::fs::read_dir("/sys/block").unwrap().map(|entry| {
        let text = std::fs::read_to_string(entry.unwrap().path().join("dev")).unwrap();
        let (major, minor) = text.trim().split_once(':').unwrap();
        (major.parse().unwrap(), minor.parse().unwrap())
    });
    numbers.next().unwrap()
}

#[test]
fn on_v2_limits_are_in_both_places_or_refused() {
    requires!(root, systemd);
    let (major, minor) = disk();
    let host = Host::shared(Kind::V2);
    let c = host.scope(limited(json!({
        "memory": {"limit": 67_108_864, "swap": 100_663_296, "reservation": 33_554_432},
        "cpu": {"shares": 512, "quota": 12_345, "period": 50_000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 64},
        "blockIO": {"throttleReadBpsDevice": [{"major": major, "minor": minor, "rate": 1_048_576}]},
        "unified": {"memory.high": "50331648"},
    })));
    if !v2_has_controllers() {
        c.runtime.output_of(c.command("run", &[])).fails();
        return c.leaves_nothing();
    }
    let c = c.run();
    shows(
        &c,
        &[
            ("MemoryMax", "67108864"),
            ("MemorySwapMax", "33554432"),
            ("MemoryLow", "33554432"),
            ("MemoryHigh", "50331648"),
            ("CPUWeight", "59"),
            ("CPUQuotaPerSecUSec", "250ms"),
            ("CPUQuotaPeriodUSec", "50ms"),
            ("AllowedCPUs", "0"),
            ("AllowedMemoryNodes", "0"),
            ("TasksMax", "64"),
        ],
    );
    let files = [
        ("", "memory.max", "67108864"),
        ("", "memory.swap.max", "33554432"),
        ("", "memory.low", "33554432"),
        ("", "memory.high", "50331648"),
        ("", "cpu.weight", "59"),
        ("", "cpuset.cpus", "0"),
        ("", "cpuset.mems", "0"),
        ("", "pids.max", "64"),
    ];
    holds(&c, &files);
    holds(&c, &[("", "cpu.max", "12500 50000")]);
    let throttled = format!("{major}:{minor} rbps=1048576 wbps=max riops=max wiops=max");
    holds(&c, &[("", "io.max", &throttled)]);

    let change = ["update", "--memory", "75497472", "--cpu-share", "1024", "--pids-limit", "7", c.runtime.id()];
    c.runtime.cmd(&change).ok();
    let properties = [("MemoryMax", "75497472"), ("CPUWeight", "100"), ("TasksMax", "7"), ("AllowedCPUs", "0")];
    let files =
        [("", "memory.max", "75497472"), ("", "cpu.weight", "100"), ("", "pids.max", "7"), ("", "cpuset.cpus", "0")];
    // Once more after systemd has written what it knows.
    for what in ["true", "systemctl daemon-reload"] {
        host.inside(what).ok();
        shows(&c, &properties);
        holds(&c, &files);
    }
    c.runtime.cmd(&["delete", "--force", c.runtime.id()]).ok();
    c.leaves_nothing();
}

#[test]
fn on_v2_limits_change_and_the_policy_of_the_start_stays() {
    requires!(root, systemd);
    if !v2_has_controllers() {
        return;
    }
    let c = Host::shared(Kind::V2).scope(limited(json!({"unified": {"memory.oom.group": "0"}}))).run();
    holds(&c, &[("", "memory.oom.group", "0")]);
    // A scope has it since version 253.
    let policy = c.property("OOMPolicy");
    assert!(matches!(policy.as_str(), "continue" | ""), "{policy}");
    // systemd takes no other OOMPolicy now: it is not told of this.
    let path = c.runtime.bundle().path().join("resources.json");
    std::fs::write(&path, r#"{"unified": {"memory.oom.group": "1"}}"#).unwrap();
    c.runtime.cmd(&["update", "--resources", path.to_str().unwrap(), c.runtime.id()]).ok();
    holds(&c, &[("", "memory.oom.group", "1")]);
    shows(&c, &[("OOMPolicy", &policy)]);
}

#[test]
fn on_v2_limits_of_a_device_stay_beside_new_ones() {
    requires!(root, systemd);
    ours_only!("runc's update knows no limits of devices");
    if !v2_has_controllers() {
        return;
    }
    let (major, minor) = disk();
    let rate = |rate: u32| json!([{"major": major, "minor": minor, "rate": rate}]);
    let read = json!({"blockIO": {"throttleReadBpsDevice": rate(1_048_576)}});
    let c = Host::shared(Kind::V2).scope(limited(read)).run();
    let holds_at = |limits: &str| holds(&c, &[("", "io.max", &format!("{major}:{minor} {limits}"))]);
    holds_at("rbps=1048576 wbps=max riops=max wiops=max");
    let path = c.runtime.bundle().path().join("resources.json");
    for (change, limits) in [
        (json!({"throttleWriteIOPSDevice": rate(100)}), "rbps=1048576 wbps=max riops=max wiops=100"),
        (json!({"throttleReadBpsDevice": rate(2_097_152)}), "rbps=2097152 wbps=max riops=max wiops=100"),
    ] {
        std::fs::write(&path, json!({"blockIO": change}).to_string()).unwrap();
        c.runtime.cmd(&["update", "--resources", path.to_str().unwrap(), c.runtime.id()]).ok();
        holds_at(limits);
    }
}

#[test]
fn on_v2_limits_of_memory_that_are_met_are_events() {
    requires!(root, systemd);
    if !v2_has_controllers() {
        return;
    }
    let c = Host::shared(Kind::V2).scope(limited(json!({"memory": {"limit": 33_554_432, "swap": 33_554_432}}))).run();
    let mut watch = c.runtime.command(&["events", "--interval", "100ms", c.runtime.id()]);
    let mut watch = watch.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut events = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap);
    // With the first of them it is known to watch.
    let first: Value = serde_json::from_str(&events.next().unwrap()).unwrap();
    assert_eq!(first["type"], "stats");
    c.runtime.exec_sh("head -c 100000000 /dev/zero | tail").fails();
    let told = format!("{{\"type\":\"oom\",\"id\":\"{}\"}}", c.runtime.id());
    // For a minute at most.
    assert!(events.take(600).any(|line| line == told));
    let counted = c.file("", "memory.events");
    assert!(counted.lines().any(|line| line.starts_with("oom_kill ") && line != "oom_kill 0"), "{counted}");
    c.runtime.cmd(&["delete", "--force", c.runtime.id()]).ok();
    watch.wait().unwrap();
    c.leaves_nothing();
}

#[test]
fn an_update_is_told_to_systemd_too() {
    requires!(root, systemd, cgroup_v1);
    let c = Host::shared(Kind::Hybrid).scope(limited(json!({"memory": {"limit": 67_108_864}}))).run();
    let change = ["update", "--memory", "33554432", "--cpu-quota", "20000", "--pids-limit", "7", c.runtime.id()];
    c.runtime.cmd(&change).ok();
    let properties = [("MemoryLimit", "33554432"), ("CPUQuotaPerSecUSec", "200ms"), ("TasksMax", "7")];
    shows(&c, &properties);
    let files = [
        ("memory", "memory.limit_in_bytes", "33554432"),
        ("cpu", "cpu.cfs_quota_us", "20000"),
        ("pids", "pids.max", "7"),
    ];
    holds(&c, &files);
    c.host.inside("systemctl daemon-reload").ok();
    shows(&c, &properties);
    holds(&c, &files);
}
