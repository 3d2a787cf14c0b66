//! Containers of a user who has a systemd of its own, below the host's: it is what is asked for their scopes.

use crate::host::{Host, Kind, Scope};
use crate::limits::{holds, limited, shows, v2_has_controllers};
use crate::support::{Bundle, Layout, Runtime};
use serde_json::json;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Nobody's number on the host.
const USER: u32 = 3000;

/// Runs a command as the user does who has logged in.
const AS_USER: &str = "setpriv --reuid=3000 --regid=3000 --clear-groups env XDG_RUNTIME_DIR=/run/user/3000";

/// The user, logged in.
struct User {
    host: &'static Host,
    /// The first process of the user's systemd.
    manager: u32,
}

impl User {
    /// Returns the one that all tests share.
    fn shared() -> &'static Self {
        static SHARED: OnceLock<User> = OnceLock::new();
        SHARED.get_or_init(|| {
            let host = Host::shared(Kind::V2);
            host.inside(&format!("{}/tests/systemd/user.sh {USER}", env!("CARGO_MANIFEST_DIR"))).ok();
            let is_theirs = |pid: &u32| std::fs::metadata(format!("/proc/{pid}")).is_ok_and(|dir| dir.uid() == USER);
            let manager = host.children().into_iter().find(is_theirs).expect("the user's systemd");
            Self { host, manager }
        })
    }

    /// Gives a bundle to the user, and a scope in a slice to its container.
    fn scope(&self, bundle: Bundle, slice: &str) -> Scope {
        let path = format!("{slice}:rt:{}", bundle.id());
        let unit = format!("rt-{}.scope", bundle.id());
        self.at(Some(&path), bundle, slice, unit)
    }

    /// Gives a bundle to the user, and to its container the path of a cgroup or none, which makes it a unit in a slice.
    fn at(&self, path: Option<&str>, bundle: Bundle, slice: &str, unit: String) -> Scope {
        let config = bundle.config().clone();
        let bundle = bundle.rootless(USER).layout(Layout::Of(self.manager)).with(|own| {
            own["linux"]["resources"] = config["linux"]["resources"].clone();
            own["linux"]["resources"].as_object_mut().unwrap().remove("devices");
            own["annotations"] = config["annotations"].clone();
            if let Some(path) = path {
                own["linux"]["cgroupsPath"] = json!(path);
            }
        });
        Scope {
            unit,
            slice: format!("user.slice/user-{USER}.slice/user@{USER}.service/{slice}"),
            systemctl: format!("{AS_USER} systemctl --user"),
            runtime: Runtime::new(bundle),
            host: self.host,
        }
    }
}

/// Takes the runtime out of what the user's systemd has been given: to where a session of the user's would be.
fn in_a_session(c: &mut Scope) {
    c.runtime.show(c.host.layout());
}

/// Checks that the container runs in its scope, that other processes get there, and that with it the scope goes.
#[track_caller]
fn lives_in_its_scope(c: Scope, below: &str) {
    let scope = format!("/{}/{}", c.slice, c.unit);
    let place = Path::new(&scope).join(below).display().to_string();
    let place = place.trim_end_matches('/');
    assert_eq!(c.property("ActiveState"), "active");
    assert_eq!(c.property("ControlGroup"), scope);
    assert_eq!(c.property("Delegate"), "yes");
    let init = c.host.inside(&format!("grep ^0:: /proc/{}/cgroup", c.runtime.pid()));
    for process in [init, c.runtime.exec_sh("grep ^0:: /proc/self/cgroup")] {
        assert!(process.text().trim_end().ends_with(place), "{process}");
    }
    // Nobody but init is left in it.
    assert_eq!(c.file("", &format!("{below}/cgroup.procs")).lines().count(), 1);
    c.is_stopped_and_deleted();
}

#[test]
fn on_v2_a_users_container_has_a_scope_of_the_users_systemd() {
    requires!(root, systemd);
    lives_in_its_scope(User::shared().scope(Bundle::sleep(), "app.slice").run(), "");
}

#[test]
fn on_v2_a_users_container_without_a_path_is_in_the_slice_of_users() {
    requires!(root, systemd);
    ours_only!("the unit's name begins with ours");
    for path in [None, Some("")] {
        let bundle = Bundle::sleep();
        let unit = format!("stasis-{}.scope", bundle.id());
        lives_in_its_scope(User::shared().at(path, bundle, "user.slice", unit).run(), "");
    }
}

#[test]
fn on_v2_a_users_limits_are_properties_too() {
    requires!(root, systemd);
    let user = User::shared();
    let c = user.scope(limited(json!({"pids": {"limit": 64}})), "app.slice");
    if v2_has_controllers() {
        let c = c.run();
        shows(&c, &[("TasksMax", "64")]);
        holds(&c, &[("", "pids.max", "64")]);
    } else {
        c.runtime.output_of(c.command("run", &[])).fails().stderr_contains("pids");
        c.leaves_nothing();
    }
    let annotated = Bundle::sleep().with(|config| {
        config["annotations"] = json!({"org.systemd.property.TimeoutStopSec": "uint64 7"});
    });
    let c = user.scope(annotated, "app.slice").run();
    shows(&c, &[("TimeoutStopUSec", "7s"), ("MemoryAccounting", "yes")]);
    let updated = c.runtime.cmd(&["update", "--pids-limit", "7", c.runtime.id()]);
    if v2_has_controllers() {
        updated.ok();
        shows(&c, &[("TasksMax", "7")]);
        holds(&c, &[("", "pids.max", "7")]);
    } else {
        updated.fails().stderr_contains("pids");
    }
}

#[test]
fn on_v2_what_fails_for_a_user_leaves_no_scope() {
    requires!(root, systemd);
    let no_program = Bundle::new(&["/no/such/program"]);
    for bundle in [no_program, limited(json!({"cpu": {"cpus": "4000"}}))] {
        let c = User::shared().scope(bundle, "app.slice");
        c.runtime.output_of(c.command("create", &[])).fails();
        c.leaves_nothing();
    }
}

#[test]
fn on_v2_the_bus_that_is_named_decides() {
    requires!(root, systemd);
    let c = User::shared().scope(Bundle::sleep(), "app.slice");
    let on = |bus: &str, mut command: Command| {
        command.env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path=/run/user/{USER}/{bus}"));
        command
    };
    // Though there is one beside.
    let nobody = c.runtime.output_of(on("bus-of-nobody", c.command("run", &["--detach"]))).fails();
    nobody.stderr_contains(&format!("/run/user/{USER}/bus-of-nobody"));
    let elsewhere = |mut command: Command| {
        command.env("XDG_RUNTIME_DIR", "/nowhere");
        on("bus", command)
    };
    c.runtime.detached(elsewhere(c.command("run", &["--detach"]))).ok();
    assert_eq!(c.property("ActiveState"), "active");
    c.runtime.output_of(elsewhere(c.runtime.command(&["delete", "--force", c.runtime.id()]))).ok();
    c.leaves_nothing();
}

/// Returns the command as the root of a user namespace runs it, with more in its environment.
fn as_mapped_root(command: &Command, environment: &[(&str, &str)]) -> Command {
    let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let at = args.iter().position(|arg| Path::new(arg).ends_with("runtime")).unwrap();
    let mut inner = Command::new(command.get_program());
    inner.args(&args[..at]).args(["unshare", "--user", "--map-root-user", "--mount"]).args(&args[at..]);
    inner.env("XDG_RUNTIME_DIR", format!("/run/user/{USER}")).env("USER", "root").stdin(Stdio::null());
    inner.envs(environment.iter().copied());
    inner
}

/// Gives a bundle to the user as the root of a user namespace.
fn scope_of_mapped_root() -> Scope {
    let mut c = User::shared().scope(Bundle::sleep(), "app.slice");
    c.runtime.edit(|config| {
        for map in ["uidMappings", "gidMappings"] {
            config["linux"][map][0]["hostID"] = json!(0);
        }
    });
    c
}

#[test]
fn on_v2_the_root_of_a_users_namespace_has_the_users_systemd() {
    requires!(root, systemd);
    let bus = format!("unix:path=/run/user/{USER}/bus");
    for environment in [&[][..], &[("DBUS_SESSION_BUS_ADDRESS", bus.as_str()), ("XDG_RUNTIME_DIR", "/nowhere")]] {
        let c = scope_of_mapped_root();
        c.runtime.detached(as_mapped_root(&c.command("run", &["--detach"]), environment)).ok();
        assert_eq!(c.property("ControlGroup"), format!("/{}/{}", c.slice, c.unit));
        let delete = c.runtime.command(&["delete", "--force", c.runtime.id()]);
        c.runtime.output_of(as_mapped_root(&delete, environment)).ok();
        c.leaves_nothing();
    }
}

#[test]
fn on_v2_the_root_of_a_namespace_that_is_no_users_has_the_systems_systemd() {
    requires!(root, systemd);
    ours_only!("other runtimes have other words");
    let user = USER.to_string();
    let nowhere = ("XDG_RUNTIME_DIR", "/nowhere");
    for (environment, words) in [
        (&[nowhere][..], "unable to start unit"),
        (&[("ROOTLESSKIT_PARENT_EUID", "0")], "unable to start unit"),
        (&[nowhere, ("ROOTLESSKIT_PARENT_EUID", &user)], "connect to /nowhere/bus"),
    ] {
        let c = scope_of_mapped_root();
        let run = as_mapped_root(&c.command("run", &["--detach"]), environment);
        c.runtime.output_of(run).fails().stderr_contains(words);
        c.leaves_nothing();
    }
}

#[test]
fn on_v2_a_users_processes_may_have_a_cgroup_below_the_one_that_is_limited() {
    requires!(root, systemd);
    ours_only!("the annotation is crun's");
    let bundle = || Bundle::sleep().with(|config| config["annotations"] = json!({"run.oci.delegate-cgroup": "inner"}));
    lives_in_its_scope(User::shared().scope(bundle(), "app.slice").run(), "inner");
    let mut c = User::shared().scope(bundle(), "app.slice");
    in_a_session(&mut c);
    lives_in_its_scope(c.run(), "inner");
}

#[test]
fn on_v2_a_container_of_a_session_is_put_into_its_scope_by_systemd() {
    requires!(root, systemd);
    ours_only!("older runcs leave what exec adds outside");
    for below in [None, Some("inner")] {
        let bundle = Bundle::sleep().with(|config| {
            if let Some(below) = below {
                config["annotations"] = json!({"run.oci.systemd.subgroup": below});
            }
        });
        let mut c = User::shared().scope(bundle, "app.slice");
        in_a_session(&mut c);
        lives_in_its_scope(c.run(), below.unwrap_or_default());
    }
}
