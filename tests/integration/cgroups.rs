//! Cgroups: limits that are really enforced, freezing, killing and removal, on every layout of the hierarchies.

use crate::support::{Bundle, Layout, Runtime, wait_until};
use crate::{ours_only, requires};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;

/// Writes a test for each layout: the host's, and v1 and v2 alone.
macro_rules! on_every_layout {
    ($($name:ident => $test:ident;)*) => {
        mod host_layout {
            $(#[test] fn $name() { crate::requires!(root); super::$test(super::Layout::Host) })*
        }
        mod v1_alone {
            $(#[test] fn $name() { crate::requires!(root, cgroup_v1); super::$test(super::Layout::V1) })*
        }
        mod v2_alone {
            $(#[test] fn $name() { crate::requires!(root, cgroup_v2); super::$test(super::Layout::V2) })*
        }
    };
}

on_every_layout! {
    a_container_has_a_cgroup_until_it_is_deleted => has_a_cgroup;
    every_process_is_frozen_and_thawed => freezes;
    a_frozen_container_can_be_killed => kills_frozen;
    every_process_is_killed => kills_all;
    cgroups_below_go_with_the_container => removes_below;
    devices_are_denied_unless_allowed => filters_devices;
    a_cgroup_with_processes_is_refused => refuses_occupied;
    exec_is_in_the_cgroup => puts_exec;
    failures_leave_no_cgroup => leaves_none;
}

fn resources(bundle: Bundle, resources: Value) -> Bundle {
    bundle.with(|config| config["linux"]["resources"] = resources)
}

fn has_a_cgroup(layout: Layout) {
    let c = Bundle::sleep().layout(layout).start();
    let procs = fs::read_to_string(c.cgroup("devices").join("cgroup.procs")).unwrap();
    assert_eq!(procs.trim(), c.pid().to_string());
    c.cmd(&["delete", "--force", c.id()]).ok();
    assert_eq!(c.cgroups(), Vec::<std::path::PathBuf>::new());
    c.leaves_nothing();
}

fn freezes(layout: Layout) {
    let c = Bundle::sh("sleep 1000 & while :; do echo tick; sleep 0.01; done").layout(layout).start();
    c.wait_printed("tick");
    c.pause().ok();
    assert_eq!(c.status(), "paused");
    let before = c.printed().len();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(c.printed().len(), before);
    c.resume().ok();
    assert_eq!(c.status(), "running");
    wait_until("more output", || c.printed().len() > before);
}

fn kills_frozen(layout: Layout) {
    let c = Bundle::sleep().layout(layout).start();
    c.pause().ok();
    c.kill("KILL").ok();
    c.wait_for("stopped");
    c.delete().ok();
    c.leaves_nothing();
}

fn kills_all(layout: Layout) {
    ours_only!("runc 1.1 kills all only when told to");
    let c = Bundle::sh("sleep 1000 & sleep 1000 & wait").without_namespace("pid").layout(layout).start();
    let pids = || c.cmd(&["ps", "--format", "json", c.id()]).ok().json().as_array().map_or(0, Vec::len);
    wait_until("three processes", || pids() == 3);
    c.kill("KILL").ok();
    wait_until("no process", || pids() == 0);
    c.delete().ok();
    c.leaves_nothing();
}

fn removes_below(layout: Layout) {
    let c = Bundle::sleep().layout(layout).start();
    for below in ["a", "a/b", "c"] {
        fs::create_dir(c.cgroup("devices").join(below)).unwrap();
    }
    fs::write(c.cgroup("devices").join("a/b/cgroup.procs"), c.pid().to_string()).unwrap();
    c.cmd(&["delete", "--force", c.id()]).ok();
    c.leaves_nothing();
}

fn filters_devices(layout: Layout) {
    let script =
        "cat /dev/null && head -c 1 /dev/zero | wc -c; cat /dev/kmsg-allowed >/dev/null; head -c 1 /dev/denied";
    // 1:5 is zero's number, which is allowed by default; 10:200 is tun, allowed too; 7:99 is a loop device.
    let c = Bundle::sh(script).layout(layout).with(|config| {
        config["linux"]["devices"] = json!([
            {"path": "/dev/kmsg-allowed", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666},
            {"path": "/dev/denied", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666},
        ]);
    });
    let allowed = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"});
    let script = "head -c 1 /dev/denied >/dev/null; echo read; echo x >/dev/denied";
    let denied = Bundle::sh("head -c 1 /dev/zero | wc -c; head -c 1 /dev/denied").layout(layout);
    let denied = denied.with(|config| config["linux"]["devices"] = c.config()["linux"]["devices"].clone());
    denied.run().exits(1).prints("1").stderr_contains("/dev/denied: Operation not permitted");
    let half = Bundle::sh(script).layout(layout).with(|config| {
        config["linux"]["devices"] = c.config()["linux"]["devices"].clone();
        config["linux"]["resources"]["devices"].as_array_mut().unwrap().push(allowed);
    });
    half.run().exits(1).prints("read").stderr_contains("Operation not permitted");
}

fn refuses_occupied(layout: Layout) {
    ours_only!("runc 1.1 only warns");
    let first = Bundle::sleep().layout(layout).start();
    let second = Bundle::sleep().layout(layout);
    let second = Runtime::new(second.with(|config| config["linux"]["cgroupsPath"] = json!(format!("/{}", first.id()))));
    second.create().exits(1).stderr_contains("container's cgroup is not empty");
    second.leaves_nothing();
    assert_eq!(first.status(), "running");
}

fn puts_exec(layout: Layout) {
    let c = Bundle::sleep().layout(layout).start();
    let own = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
    c.exec(&["cat", "/proc/self/cgroup"]).ok().prints(own.trim());
}

fn leaves_none(layout: Layout) {
    let c = Runtime::new(Bundle::new(&["no-such-program"]).layout(layout));
    c.create().exits(1);
    c.leaves_nothing();
}

#[test]
fn exec_is_beside_init_where_it_cannot_be_in_the_cgroup() {
    requires!(root, cgroup_v2);
    ours_only!("runc before 1.4 fails when the cgroup is gone");
    // A limit has the controller enabled above.
    let huge = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 1 << 30}]});
    let c = resources(Bundle::sleep().layout(Layout::V2), huge).start();
    let (own, moved) = (c.cgroup(""), c.cgroup("").with_file_name(format!("{}-moved", c.id())));
    let shown = |options: &[&str]| {
        let output = c.exec_with(options, &["sed", "-n", "s/^0:://p", "/proc/self/cgroup"]).ok();
        output.text().to_owned()
    };
    let move_init = |to: &std::path::Path| {
        fs::create_dir(to).unwrap();
        fs::write(to.join("cgroup.procs"), c.pid().to_string()).unwrap();
    };
    move_init(&own.join("below"));
    assert_eq!(shown(&[]), format!("/{}", c.id()));
    fs::write(own.join("cgroup.subtree_control"), "+hugetlb").unwrap();
    assert_eq!(shown(&[]), format!("/{}/below", c.id()));
    c.exec_with(&["--cgroup", "/"], &["true"])
        .exits(255)
        .stderr_contains("unable to start container process: error adding pid ")
        .stderr_contains(" to cgroups")
        .stderr_contains("/cgroup.procs: device or resource busy");
    // Somebody whose cgroup namespace begins elsewhere knows no way to it.
    let apart = own.with_file_name(format!("{}-apart", c.id()));
    fs::create_dir(&apart).unwrap();
    let mut elsewhere = Layout::V2.command("sh");
    let script = "echo 0 >/sys/fs/cgroup/$1/cgroup.procs; shift; exec unshare --cgroup \"$@\"";
    elsewhere.args(["-ec", script, "sh"]).arg(apart.file_name().unwrap());
    elsewhere.arg(Runtime::program()).arg("--root").arg(c.root()).args(["exec", c.id(), "true"]);
    c.output_of(elsewhere).exits(255).stderr_contains(&format!("process {} has left our cgroup namespace", c.pid()));
    fs::remove_dir(&apart).unwrap();
    move_init(&moved);
    fs::remove_dir(own.join("below")).unwrap();
    fs::remove_dir(&own).unwrap();
    assert_eq!(shown(&[]), format!("/{}-moved", c.id()));
    c.cmd(&["delete", "--force", c.id()]).ok();
    wait_until("the cgroup is empty", || fs::remove_dir(&moved).is_ok());
    c.leaves_nothing();
}

#[test]
fn limits_are_written_on_v1() {
    requires!(root, cgroup_v1);
    let c = resources(
        Bundle::sleep(),
        json!({
            "memory": {"limit": 64 << 20, "reservation": 32 << 20, "swappiness": 33, "disableOOMKiller": true},
            "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0", "mems": "0"},
            "pids": {"limit": 44},
            "blockIO": {"weight": 300},
        }),
    );
    let c = c.start();
    for (controller, file, value) in [
        ("memory", "memory.limit_in_bytes", "67108864"),
        ("memory", "memory.soft_limit_in_bytes", "33554432"),
        ("memory", "memory.swappiness", "33"),
        ("cpu", "cpu.shares", "512"),
        ("cpu", "cpu.cfs_quota_us", "50000"),
        ("cpu", "cpu.cfs_period_us", "100000"),
        ("cpuset", "cpuset.cpus", "0"),
        ("cpuset", "cpuset.mems", "0"),
        ("pids", "pids.max", "44"),
    ] {
        assert_eq!(c.limit(controller, file), value, "{file}");
    }
    assert!(c.limit("memory", "memory.oom_control").contains("oom_kill_disable 1"));
}

#[test]
fn a_limit_of_memory_is_enforced() {
    requires!(root, cgroup_v1);
    let c = resources(
        Bundle::sh("head -c 100000000 /dev/zero | tail; echo survived"),
        json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}}),
    );
    let c = c.start();
    c.finished();
    // Whom it kills, and how many, is the kernel's choice; that it kills is ours.
    let told = c.limit("memory", "memory.oom_control");
    let kills = told.lines().find_map(|line| line.strip_prefix("oom_kill ")).map(str::parse::<u32>);
    assert!(kills.unwrap().unwrap() > 0, "{told}");
}

#[test]
fn a_limit_of_processes_is_enforced() {
    requires!(root, cgroup_v1);
    let c = resources(
        Bundle::sh("for i in 1 2 3 4 5 6; do sleep 1000 & done; echo made all"),
        json!({"pids": {"limit": 4}}),
    );
    let output = c.run();
    output.stderr_contains("can't fork");
}

#[test]
fn a_limit_of_processes_that_is_missing_is_none() {
    requires!(root, cgroup_v1);
    for pids in [json!({}), json!({"limit": null}), json!({"limit": -1})] {
        let c = resources(Bundle::sleep(), json!({"pids": pids})).start();
        assert_eq!(c.limit("pids", "pids.max"), "max", "{pids}");
    }
}

#[test]
fn letters_that_are_no_access_to_a_device_mean_nothing() {
    requires!(root);
    let c = Bundle::sh("head -c 1 /dev/zero | wc -c; head -c 1 /dev/full | wc -c; echo >/dev/denied");
    let c = c.with(|config| {
        config["linux"]["devices"] = json!([{"path": "/dev/denied", "type": "c", "major": 1, "minor": 11}]);
        let rule = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rax"});
        config["linux"]["resources"]["devices"].as_array_mut().unwrap().push(rule);
    });
    c.run().exits(1).prints("1\n1").stderr_contains("/dev/denied: Operation not permitted");
}

#[test]
fn a_limit_that_init_cannot_live_with_is_explained() {
    requires!(root, cgroup_v1);
    ours_only!("a limit that runc cannot live with is higher");
    let c = Runtime::new(resources(Bundle::sleep(), json!({"memory": {"limit": 4096, "swap": 4096}})));
    c.create().exits(1).stderr_contains("memory limit too low");
    c.leaves_nothing();
}

#[test]
fn a_limit_that_does_not_exist_is_named() {
    requires!(root, cgroup_v1);
    let c = Runtime::new(resources(Bundle::sleep(), json!({"cpu": {"period": 1}})));
    c.create().exits(1).stderr_contains("cpu.cfs_period_us");
    c.leaves_nothing();
}

#[test]
fn a_controller_that_v2_lacks_is_named() {
    requires!(root, cgroup_v1, cgroup_v2);
    ours_only!("the words are ours");
    let c = Runtime::new(resources(Bundle::sleep(), json!({"memory": {"limit": 64 << 20}})).layout(Layout::V2));
    c.create().exits(1).stderr_contains("memory");
    c.leaves_nothing();
}

#[test]
fn a_path_may_be_relative_or_absent() {
    requires!(root, cgroup_v2);
    // On v2, where this process is at the root on every machine that has v1 beside it.
    for relative in [None, Some("made/below")] {
        let c = Bundle::new(&["cat", "/proc/self/cgroup"]).layout(Layout::V2);
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap().trim_end_matches('/').to_owned();
        let name = relative.map_or(c.id().to_owned(), |path| format!("{}/{path}", c.id()));
        let c = Runtime::new(c.with(|config| config["linux"]["cgroupsPath"] = json!(relative.map(|_| &name))));
        c.run().ok().stdout_contains(&format!("0::{own}/{name}\n"));
        if relative.is_some() {
            // Ancestors stay, as with runc.
            fs::remove_dir(c.cgroup("").join("made")).unwrap();
            fs::remove_dir(c.cgroup("")).unwrap();
        }
        c.leaves_nothing();
    }
}

#[test]
fn the_cgroup_of_a_created_container_counts_what_init_does() {
    requires!(root, cgroup_v1);
    let c = Bundle::sleep().create();
    for controller in ["memory", "pids", "cpu", "devices", "freezer", "blkio", "cpuset", "systemd"] {
        let procs = fs::read_to_string(c.cgroup(controller).join("cgroup.procs")).unwrap();
        assert_eq!(procs.trim(), c.pid().to_string(), "{controller}");
    }
}

#[test]
fn a_process_in_a_user_namespace_may_use_a_writable_cgroup() {
    requires!(root, cgroup_v2);
    ours_only!("runc gives away only cgroups that systemd has made");
    let with_options = |uid: u32, options: Value| {
        let script = "mkdir /sys/fs/cgroup/mine && echo made || echo not made";
        let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options});
        let bundle = Bundle::sh(script).namespace("cgroup", None).user_namespace(100_000).layout(Layout::V2);
        bundle.with(|config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| mount["type"] != "cgroup");
            mounts.push(mount);
            config["process"]["user"]["uid"] = json!(uid);
        })
    };
    with_options(0, json!(["nosuid", "noexec", "nodev"])).run().ok().prints("made");
    with_options(7, json!(["nosuid", "noexec", "nodev"])).run().ok().prints("made");
    with_options(0, json!(["nosuid", "noexec", "nodev", "ro"])).run().ok().prints("not made");
}

/// Shows a container its cgroup on v2, which is given to the root of its user namespace.
fn giving_away(bundle: Bundle) -> Bundle {
    let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid"]});
    bundle.namespace("cgroup", None).user_namespace(100_000).layout(Layout::V2).with(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["type"] != "cgroup");
        mounts.push(mount);
    })
}

#[test]
fn exec_gets_into_a_cgroup_that_was_given_away() {
    requires!(root, cgroup_v2);
    let c = giving_away(Bundle::sleep()).start();
    c.exec_sh("grep ^0:: /proc/self/cgroup").ok().prints("0::/");
}

/// Asks for a cgroup of the container's processes below the one that is limited.
fn delegated(bundle: Bundle) -> Bundle {
    bundle.with(|config| config["annotations"] = json!({"run.oci.delegate-cgroup": "/inner/most"}))
}

#[test]
fn processes_may_have_a_cgroup_below_the_one_that_is_limited() {
    requires!(root, cgroup_v2);
    ours_only!("the annotation is crun's");
    let c = delegated(giving_away(Bundle::sleep())).start();
    let inner = c.cgroup("").join("inner/most");
    assert_eq!(fs::read_to_string(inner.join("cgroup.procs")).unwrap().trim(), c.pid().to_string());
    let owners = [&inner, &c.cgroup("")].map(|path| fs::metadata(path).unwrap().uid());
    assert_eq!(owners, [100_000, 0]);
    // What it sees, and where exec goes.
    c.exec_sh("grep ^0:: /proc/self/cgroup; mkdir /sys/fs/cgroup/mine && echo made").ok().prints("0::/\nmade");
    assert!(inner.join("mine").is_dir());
    c.pause().ok();
    assert_eq!(c.status(), "paused");
    c.resume().ok();
    let cgroup = c.cgroup("");
    c.cmd(&["delete", "--force", c.id()]).ok();
    assert!(!cgroup.exists());
}

#[test]
fn processes_have_no_cgroup_below_one_of_v1() {
    requires!(root, cgroup_v1);
    ours_only!("the annotation is crun's");
    let c = Runtime::new(delegated(Bundle::sleep()).layout(Layout::V1));
    c.create().fails().stderr_contains("delegate-cgroup not supported on cgroup v1");
    c.leaves_nothing();
}
