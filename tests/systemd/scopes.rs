//! The life of a scope: made, found by every command that follows, gone with the container.

use crate::host::{Host, Kind};
use crate::support::{Bundle, Layout, Runtime, wait_until};
use serde_json::json;
use std::path::Path;
use std::process::Stdio;

#[test]
fn a_container_has_a_scope_in_its_slice() {
    requires!(root, systemd);
    for host in Host::all() {
        let c = host.scope(Bundle::sleep()).run();
        let path = format!("/stasis.slice/stasis-tests.slice/{}", c.unit());
        for (name, value) in [
            ("ActiveState", "active"),
            ("Slice", "stasis-tests.slice"),
            ("ControlGroup", &path),
            ("Delegate", "yes"),
            ("DefaultDependencies", "no"),
            ("MemoryAccounting", "yes"),
            ("TasksAccounting", "yes"),
        ] {
            assert_eq!(c.property(name), value, "{name}");
        }
        // Nobody but init is left in it, in no hierarchy.
        let pid = c.runtime.pid();
        let all =
            host.inside(&format!("find /sys/fs/cgroup -path '*/{}/cgroup.procs' -exec cat {{}} +", c.unit())).ok();
        assert!(!all.lines().is_empty() && all.lines().iter().all(|line| *line == pid.to_string()), "{pid}: {all}");
        c.runtime.cmd(&["delete", "--force", c.runtime.id()]).ok();
        c.leaves_nothing();
    }
}

#[test]
fn later_commands_need_not_be_told_of_systemd() {
    requires!(root, systemd);
    for host in Host::all() {
        let c = host.scope(Bundle::sleep());
        c.runtime.detached(c.command("create", &[])).ok();
        assert_eq!(c.runtime.status(), "created");
        c.runtime.start().ok();
        c.runtime.exec_sh("cat /proc/self/cgroup").ok().stdout_contains("0::/");
        c.runtime.pause().ok();
        assert_eq!(c.runtime.status(), "paused");
        c.runtime.resume().ok();
        c.runtime.kill("KILL").ok();
        c.runtime.wait_for("stopped");
        c.runtime.delete().ok();
        c.leaves_nothing();
    }
}

#[test]
fn a_container_in_the_foreground_takes_its_scope_with_it() {
    requires!(root, systemd);
    for host in Host::all() {
        let c = host.scope(Bundle::sh("echo one; exit 7"));
        c.runtime.output_of(c.command("run", &[])).exits(7).stdout_contains("one");
        c.leaves_nothing();
    }
}

#[test]
fn what_fails_leaves_no_scope() {
    requires!(root, systemd);
    for host in Host::all() {
        let c = host.scope(Bundle::new(&["/no/such/program"]));
        c.runtime.output_of(c.command("run", &[])).fails();
        c.leaves_nothing();
    }
}

#[test]
fn annotations_are_properties() {
    requires!(root, systemd);
    let bundle = Bundle::sleep().with(|config| {
        config["annotations"] = json!({
            "org.systemd.property.TimeoutStopSec": "uint64 7",
            "org.systemd.property.Description": "'a container of the tests'",
            "org.systemd.property.CollectMode": "'inactive-or-failed'",
        });
    });
    let c = Host::shared(Kind::V2).scope(bundle).run();
    assert_eq!(c.property("TimeoutStopUSec"), "7s");
    assert_eq!(c.property("Description"), "a container of the tests");
    assert_eq!(c.property("CollectMode"), "inactive-or-failed");
}

#[test]
fn a_property_that_systemd_refuses_is_an_error_with_its_words() {
    requires!(root, systemd);
    let bundle = Bundle::sleep().with(|config| config["annotations"] = json!({"org.systemd.property.NoSuch": "true"}));
    let c = Host::shared(Kind::V2).scope(bundle);
    c.runtime.output_of(c.command("run", &["--detach"])).fails().stderr_contains("NoSuch");
    c.leaves_nothing();
}

#[test]
fn two_containers_cannot_have_one_scope() {
    requires!(root, systemd);
    let host = Host::shared(Kind::V2);
    let first = host.scope(Bundle::sleep()).run();
    let path = first.runtime.bundle().config()["linux"]["cgroupsPath"].clone();
    let mut second = host.scope(Bundle::sleep());
    second.runtime.edit(|config| config["linux"]["cgroupsPath"] = path);
    let text = format!("Unit {} was already loaded or has a fragment file", first.unit());
    second.runtime.output_of(second.command("run", &["--detach"])).fails().stderr_contains(&text);
    assert_eq!(first.runtime.status(), "running");
    assert_eq!(first.property("ActiveState"), "active");
}

#[test]
fn the_rest_of_a_failed_scope_is_no_obstacle() {
    requires!(root, systemd);
    let host = Host::shared(Kind::V2);
    let c = host.scope(Bundle::sleep());
    let unit = c.unit();
    let start = format!("systemd-run --quiet --scope --unit={unit} -p RuntimeMaxSec=100ms sleep 1000");
    host.inside(&start).fails();
    wait_until("the scope has failed", || c.property("ActiveState") == "failed");
    let c = c.run();
    assert_eq!(c.property("ActiveState"), "active");
}

#[test]
fn the_bus_will_do_where_systemd_itself_cannot_be_asked() {
    requires!(root, systemd);
    let c = Host::shared(Kind::V2).scope(Bundle::sleep());
    let hide = "mount --bind /dev/null /run/systemd/private; exec \"$@\"";
    let line = c.command("run", &["--detach"]);
    let runtime = Runtime::found();
    // nsenter's own arguments end where the runtime begins.
    let args: Vec<_> = line.get_args().map(ToOwned::to_owned).collect();
    let at = args.iter().position(|arg| Path::new(arg) == Runtime::program()).unwrap();
    let mut hidden = std::process::Command::new(line.get_program());
    hidden.args(&args[..at]).args(["unshare", "--mount", "sh", "-ec", hide, "sh"]).arg(runtime).args(&args[at + 1..]);
    hidden.stdin(std::process::Stdio::null());
    c.runtime.detached(hidden).ok();
    assert_eq!(c.property("ActiveState"), "active");
    c.runtime.cmd(&["delete", "--force", c.runtime.id()]).ok();
    c.leaves_nothing();
}

#[test]
fn a_path_that_names_no_unit_is_refused() {
    requires!(root, systemd);
    let mut c = Host::shared(Kind::V2).scope(Bundle::sleep());
    c.runtime.edit(|config| config["linux"]["cgroupsPath"] = json!("/a/b"));
    let form =
        "expected cgroupsPath to be of format \\\"slice:prefix:name\\\" for systemd cgroups, got \\\"/a/b\\\" instead";
    c.runtime.output_of(c.command("run", &[])).fails().stderr_contains(form);
}

#[test]
fn without_a_systemd_the_flag_is_an_error() {
    requires!(root, cgroup_v2);
    ours_only!("other runtimes have other words");
    if Path::new("/run/systemd/system").exists() {
        return;
    }
    let c =
        Runtime::new(Bundle::sleep().with(|config| config["linux"]["cgroupsPath"] = json!("")).layout(Layout::Host));
    let bundle = c.bundle().path().to_str().unwrap();
    let output = c.cmd(&["--systemd-cgroup", "run", "--bundle", bundle, c.id()]);
    output.fails().stderr_contains("systemd is not reachable: connect to /run/dbus/system_bus_socket");
}

#[test]
fn a_scope_of_another_runtime_goes_with_its_container() {
    requires!(root, systemd, runc);
    ours_only!("the strangers are others");
    for host in Host::all() {
        for is_killed in [false, true] {
            let c = host.scope(Bundle::sleep());
            let (bundle, id) = (c.runtime.bundle(), c.runtime.id());
            let mut other = bundle.shown_layout().command("runc");
            other.arg("--root").arg(c.runtime.root()).args(["--systemd-cgroup", "run", "--detach", "--bundle"]);
            other.arg(bundle.path()).arg(id).stdin(Stdio::null());
            c.runtime.detached(other).ok();
            assert_eq!(c.property("ActiveState"), "active");
            c.runtime.pause().ok();
            assert_eq!(c.runtime.status(), "paused");
            c.runtime.resume().ok();
            if is_killed {
                c.runtime.kill("KILL").ok();
                c.runtime.wait_for("stopped");
            }
            c.runtime.cmd(&["delete", "--force", id]).ok();
            c.leaves_nothing();
        }
    }
}
