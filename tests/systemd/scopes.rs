//! The life of a scope: made, found by every command that follows, gone with the container.

use crate::host::{Host, Kind};
use crate::support::{Bundle, Layout, Runtime, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[test]
fn a_container_has_a_scope_in_its_slice() {
    requires!(root, systemd);
    for host in Host::all() {
        let c = host.scope(Bundle::sleep()).run();
        let path = format!("/stasis.slice/stasis-tests.slice/{}", c.unit);
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
        let all = host.inside(&format!("find /sys/fs/cgroup -path '*/{}/cgroup.procs' -exec cat {{}} +", c.unit)).ok();
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
        c.is_stopped_and_deleted();
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
        let no_program = Bundle::new(&["/no/such/program"]);
        let no_cpu = Bundle::sleep().with(|config| config["linux"]["resources"]["cpu"] = json!({"cpus": "4000"}));
        for bundle in [no_program, no_cpu] {
            let c = host.scope(bundle);
            c.runtime.output_of(c.command("run", &[])).fails();
            c.leaves_nothing();
        }
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
fn a_container_may_be_below_its_scope() {
    requires!(root, systemd);
    ours_only!("the annotation is crun's");
    for host in Host::all() {
        let bundle = Bundle::sleep().with(|config| {
            config["annotations"] = json!({"run.oci.systemd.subgroup": "inner"});
            config["linux"]["resources"]["hugepageLimits"] = json!([{"pageSize": "2MB", "limit": 4_194_304}]);
        });
        let c = host.scope(bundle).run();
        // The next process too.
        let init = host.inside(&format!("grep ^0:: /proc/{}/cgroup", c.runtime.pid()));
        for place in [init, c.runtime.exec_sh("grep ^0:: /proc/self/cgroup")] {
            assert!(place.text().trim_end().ends_with(&format!("/{}/inner", c.unit)), "{place}");
        }
        if host.inside("test -e /sys/fs/cgroup/cgroup.procs").code == 0 {
            assert_eq!(c.file("", "inner/hugetlb.2MB.max"), "4194304");
        }
        assert_eq!(c.property("ActiveState"), "active");
        c.runtime.pause().ok();
        assert_eq!(c.runtime.status(), "paused");
        c.runtime.resume().ok();
        c.runtime.cmd(&["delete", "--force", c.runtime.id()]).ok();
        c.leaves_nothing();
    }
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
    let text = format!("Unit {} was already loaded or has a fragment file", first.unit);
    second.runtime.output_of(second.command("run", &["--detach"])).fails().stderr_contains(&text);
    assert_eq!(first.runtime.status(), "running");
    assert_eq!(first.property("ActiveState"), "active");
}

#[test]
fn the_rest_of_a_failed_scope_is_no_obstacle() {
    requires!(root, systemd);
    let host = Host::shared(Kind::V2);
    let c = host.scope(Bundle::sleep());
    let unit = &c.unit;
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
    c.runtime.detached(without_own_socket(&c.command("run", &["--detach"]), "")).ok();
    assert_eq!(c.property("ActiveState"), "active");
    c.runtime.cmd(&["delete", "--force", c.runtime.id()]).ok();
    c.leaves_nothing();
}

/// Returns a command that runs after a line of shell, where systemd's own socket is not to be had.
fn without_own_socket(command: &Command, before: &str) -> Command {
    let script = format!("mount -t tmpfs nothing /run/systemd; {before}\nexec \"$@\"");
    // nsenter's own arguments end where the runtime begins.
    let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let at = args.iter().position(|arg| Path::new(arg) == Runtime::program()).unwrap();
    let mut hidden = Command::new(command.get_program());
    hidden.args(&args[..at]).args(["unshare", "--mount", "sh", "-ec", &script, "sh"]);
    hidden.arg(Runtime::found()).args(&args[at + 1..]).stdin(std::process::Stdio::null());
    hidden
}

#[test]
fn a_container_is_deleted_also_where_no_systemd_is_to_be_found() {
    requires!(root, systemd);
    ours_only!("runc wants its systemd");
    let host = Host::shared(Kind::V2);
    let c = host.scope(Bundle::sleep()).run();
    // A bus without a systemd on it.
    let bus = "unix:path=/run/bus-of-nobody";
    let started = host.inside(&format!("dbus-daemon --session --address={bus} --fork --nopidfile --print-pid")).ok();
    let delete = c.runtime.command(&["delete", "--force", c.runtime.id()]);
    let delete = without_own_socket(&delete, &format!("export DBUS_SYSTEM_BUS_ADDRESS={bus}"));
    // There is one that nobody can tell: it gets the time to see by itself that its unit has ended.
    let Layout::Of(first) = host.layout() else { unreachable!("it is a process") };
    let send = |signal| kill(Pid::from_raw(first.try_into().unwrap()), signal).unwrap();
    send(Signal::SIGSTOP);
    let deleted = std::thread::scope(|threads| {
        threads.spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            send(Signal::SIGCONT);
        });
        c.runtime.output_of(delete)
    });
    host.inside(&format!("kill {}", started.text().trim())).ok();
    deleted.ok();
    c.leaves_nothing();
}

#[test]
fn a_systemd_that_executes_itself_again_meanwhile_is_asked_once_more() {
    requires!(root, systemd);
    ours_only!("runc waits for half a minute for a job that it is told no end of");
    let host = Host::another(Kind::V2);
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let again = threads.spawn(|| {
            let mut count = 0;
            // Often, since it is a matter of a few milliseconds each time; but a systemd that does nothing else answers nobody.
            while !done.load(Ordering::Relaxed) {
                // systemctl itself may be told that the connection was closed.
                host.inside("systemctl daemon-reexec");
                std::thread::sleep(Duration::from_millis(50));
                count += 1;
            }
            count
        });
        let runs = (0..10).map(|_| {
            let c = host.scope(Bundle::new(&["true"]));
            let output = c.runtime.output_of(c.command("run", &[]));
            (output, c)
        });
        let runs: Vec<_> = runs.collect();
        done.store(true, Ordering::Relaxed);
        assert!(again.join().unwrap() > 1);
        for (output, c) in runs {
            output.ok();
            c.leaves_nothing();
        }
    });
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
fn a_slice_is_no_unit_for_a_container() {
    requires!(root, systemd);
    // It may be there with others in it, who would be stopped with the container.
    let host = Host::shared(Kind::V2);
    let mut c = host.scope(Bundle::sleep());
    let slice = format!("stasis-tests-{}.slice", c.runtime.id().replace('-', "_"));
    host.inside(&format!("systemd-run --quiet --scope --slice={slice} sleep 0.1")).ok();
    c.runtime.edit(|config| config["linux"]["cgroupsPath"] = json!(format!("stasis-tests.slice::{slice}")));
    let text = format!("unable to start unit \\\"{slice}\\\"");
    c.runtime.output_of(c.command("run", &["--detach"])).fails().stderr_contains(&text);
    assert!(host.units(&slice).contains(" active "), "{}", host.units(&slice));
    host.inside(&format!("systemctl stop {slice}"));
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
