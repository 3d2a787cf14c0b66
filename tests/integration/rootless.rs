//! Containers of users who are not root: without any privilege, with the setuid programs of shadow-utils, and as the root
//! of a user namespace that somebody else has made.

use crate::support::{Bundle, Runtime, wait_until};
use crate::{ours_only, requires};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

/// Nobody's number on the host.
const USER: u32 = 3000;

#[test]
fn a_user_has_containers() {
    requires!(root);
    let bundle = Bundle::sh("id -u; cat /proc/self/setgroups; echo x >/file; sleep 1000").rootless(USER);
    let c = Runtime::new(bundle.with(|config| config["root"]["readonly"] = json!(false)));
    c.create().ok();
    assert_eq!(c.status(), "created");
    c.start().ok();
    let file = c.bundle().rootfs().join("file");
    wait_until("the file is there", || file.exists());
    assert_eq!(c.printed(), "0\ndeny\n");
    assert_eq!(fs::metadata(format!("/proc/{}", c.pid())).unwrap().uid(), USER);
    assert_eq!(fs::metadata(file).unwrap().uid(), USER);
    c.exec_with(&["--cwd", "/tmp"], &["sh", "-c", "pwd; cat /proc/self/uid_map"]).ok().stdout_contains("/tmp\n");
    c.kill("KILL").ok();
    c.wait_for("stopped");
    c.delete().ok();
    c.leaves_nothing();
}

#[test]
fn the_state_is_in_the_users_runtime_directory() {
    requires!(root);
    ours_only!("its own name is in the path");
    let c = Runtime::new(Bundle::sleep().rootless(USER));
    let (dir, user) = (c.bundle().path(), USER.to_string());
    let list = |runtime_dir: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]).arg(dir.join("runtime"));
        command.env("XDG_RUNTIME_DIR", runtime_dir).args(["list", "--quiet"]);
        c.output_of(command)
    };
    list(dir.join("state").to_str().unwrap()).ok().prints("");
    let made = fs::metadata(dir.join("state/stasis")).unwrap();
    // Whoever tidies up there leaves alone what has the sticky bit.
    assert_eq!((made.mode() & 0o7777, made.uid()), (0o1700, USER));
    list("/nowhere").fails().stderr_contains("the path in $XDG_RUNTIME_DIR must be writable by the user");
}

#[test]
fn a_user_without_limits_needs_no_cgroup() {
    requires!(root);
    let c = Bundle::sh("cat /proc/self/cgroup").rootless(USER);
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    // Without a namespace the paths are the host's.
    let c = c.without_namespace("cgroup").run().ok();
    assert_eq!(c.text(), own.trim());
}

#[test]
fn limits_and_paths_need_a_cgroup() {
    requires!(root);
    let refused = |edit: fn(&mut serde_json::Value)| {
        let c = Runtime::new(Bundle::sleep().rootless(USER).with(edit));
        let output = c.create().fails();
        c.leaves_nothing();
        output
    };
    refused(|config| config["linux"]["resources"] = json!({"pids": {"limit": 10}})).stderr_contains_any(&[
        "rootless needs no limits + no cgrouppath when no permission is granted for cgroups",
        // runc's on v1.
        "cannot set pids limit: container could not join or create cgroup",
    ]);
    refused(|config| config["linux"]["cgroupsPath"] = json!("/stasis-nobody"))
        .stderr_contains("unable to apply cgroup configuration")
        .stderr_contains("permission denied");
}

#[test]
fn what_takes_a_cgroup_says_so_without() {
    requires!(root);
    let c = Bundle::sleep().rootless(USER).start();
    c.cmd(&["ps", c.id()]).fails().stderr_contains("unable to get all container pids");
    c.pause().fails().stderr_contains("cannot toggle freezer: cgroups not configured for container");
    let output = c.cmd(&["update", "--memory", "100M", c.id()]).fails();
    output.stderr_contains("cannot set memory limit: container could not join or create cgroup");
}

/// Leaves a rootless container in the host's pid namespace.
fn among_the_hosts_processes(bundle: Bundle) -> Bundle {
    // A procfs shows a pid namespace, which has to be the user's own.
    let bound = json!({"destination": "/proc", "source": "/proc", "options": ["rbind", "nosuid", "nodev", "noexec"]});
    bundle.without_namespace("pid").with(|config| config["mounts"][0] = bound)
}

#[test]
fn without_a_cgroup_kill_reaches_init_and_warns() {
    requires!(root);
    ours_only!("runc before 1.2.3 fails");
    let c = among_the_hosts_processes(Bundle::sleep().rootless(USER)).start();
    c.kill("0").ok();
    c.kill("KILL").ok().stderr_contains("failed to kill all processes, possibly due to lack of cgroup");
    c.wait_for("stopped");
    c.kill("KILL").exits(1).stderr_contains("container not running");
    c.cmd(&["kill", "--all", c.id(), "KILL"]).ok();
}

#[test]
fn users_who_are_not_mapped_are_named() {
    requires!(root);
    let c = Bundle::sleep().rootless(USER).start();
    let uid = c.exec_with(&["--user", "5"], &["true"]).fails();
    uid.stderr_contains("cannot setuid to unmapped uid 5 in user namespace");
    let gid = c.exec_with(&["--user", "0:7"], &["true"]).fails();
    gid.stderr_contains("cannot setgid to unmapped gid 7 in user namespace");
}

#[test]
fn a_container_whose_processes_nothing_tells_is_warned_of() {
    requires!(root);
    let warning = "Such configuration is strongly discouraged";
    let c = among_the_hosts_processes(Bundle::new(&["true"]).rootless(USER));
    c.run().ok().stderr_contains(warning);
    let output = Bundle::new(&["true"]).rootless(USER).run().ok();
    assert!(!output.stderr.contains(warning), "{output}");
}

#[test]
fn mounts_are_made_where_the_user_may() {
    requires!(root);
    let script =
        "cat /from/file; touch /from/new 2>&1; grep -c '^mqueue /dev/mqueue' /proc/mounts; head -c 2 /dev/zero | wc -c";
    let c = Bundle::sh(script).rootless(USER).prepare(|dir| {
        fs::create_dir(dir.join("source")).unwrap();
        fs::write(dir.join("source/file"), "read\n").unwrap();
        std::os::unix::fs::chown(dir.join("source"), Some(USER), Some(USER)).unwrap();
    });
    let c = c.mount("/from", "bind", "source", &["rbind", "ro"]).run().ok();
    let lines = c.lines();
    assert_eq!((lines[0], lines[1]), ("read", "touch: /from/new: Read-only file system"), "{c}");
    assert_eq!(lines[2..], ["1", "2"], "{c}");
}

#[test]
fn what_the_user_may_not_reach_is_refused() {
    requires!(root);
    let c = Bundle::sleep().rootless(USER).prepare(|dir| {
        use std::os::unix::fs::PermissionsExt;
        fs::create_dir_all(dir.join("source/closed")).unwrap();
        fs::set_permissions(dir.join("source"), fs::Permissions::from_mode(0o700)).unwrap();
    });
    let c = Runtime::new(c.mount("/from", "bind", "source/closed", &["bind"]));
    c.create().fails().stderr_contains("permission denied");
    c.leaves_nothing();
}

#[test]
fn a_terminal_device_of_the_configuration_is_the_containers() {
    requires!(root);
    let ptmx = json!([{"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2}]);
    let script = "readlink /dev/ptmx; stat -L -c %t:%T /dev/ptmx";
    for bundle in [Bundle::sh(script), Bundle::sh(script).rootless(USER)] {
        let bundle = bundle.with(|config| config["linux"]["devices"] = ptmx.clone());
        bundle.run().ok().prints("pts/ptmx\n5:2");
    }
}

/// Makes a configuration one that joins a user namespace.
fn without_maps(config: &mut Value) {
    config["linux"].as_object_mut().unwrap().retain(|key, _| !key.ends_with("Mappings"));
}

#[test]
fn exec_goes_nowhere_while_init_may_not_be_looked_at() {
    requires!(root);
    ours_only!("other runtimes have other words");
    let first = Bundle::sleep().rootless(USER).start();
    let mut second = Bundle::sleep().rootless(USER).with(|config| config["hostname"] = json!(""));
    for (kind, name) in [("user", "user"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid")] {
        second = second.namespace(kind, Some(format!("/proc/{}/ns/{name}", first.pid()).as_ref()));
    }
    let second = second.with(without_maps).create();
    let place = format!("stat /proc/{}/ns/", second.pid());
    second.exec(&["true"]).exits(255).stderr_contains(&place).stderr_contains("permission denied");
    second.cmd(&["start", second.id()]).ok();
    second.exec(&["true"]).ok();
}

#[test]
fn clocks_of_a_user_namespace_are_set_and_joined() {
    requires!(root);
    let offsets = json!({"boottime": {"secs": 100_000_000}});
    let uptime = |c: &Runtime| {
        let shown = c.exec(&["cut", "-d.", "-f1", "/proc/uptime"]).ok();
        shown.text().parse::<u64>().unwrap()
    };
    for own in [|bundle: Bundle| bundle.rootless(USER), |bundle: Bundle| bundle.user_namespace(100_000)] {
        let first = own(Bundle::sleep()).namespace("time", None);
        let first = first.with(|config| config["linux"]["timeOffsets"] = offsets.clone()).start();
        assert!(uptime(&first) > 100_000_000);
        let mut second = own(Bundle::sleep()).with(|config| config["hostname"] = json!(""));
        for (kind, name) in [("user", "user"), ("time", "time"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid")] {
            second = second.namespace(kind, Some(format!("/proc/{}/ns/{name}", first.pid()).as_ref()));
        }
        assert!(uptime(&second.with(without_maps).start()) > 100_000_000);
    }
}

#[test]
fn groups_stay_as_they_are() {
    requires!(root);
    let c = Runtime::new(Bundle::sleep().rootless(USER));
    let create = c.command(&["create", "--bundle", c.bundle().path().to_str().unwrap(), c.id()]);
    let mut as_member = Command::new("setpriv");
    let user = USER.to_string();
    as_member.args(["--reuid", &user, "--regid", &user, "--groups", "3001"]);
    as_member.arg(create.get_program()).args(create.get_args());
    c.detached(as_member).ok();
    let status = fs::read_to_string(format!("/proc/{}/status", c.pid())).unwrap();
    assert!(status.contains("Groups:\t3001 \n"), "{status}");
    c.start().ok();
    c.exec_with(&["--additional-gids", "0"], &["true"])
        .fails()
        .stderr_contains("cannot set any additional groups in a rootless container");
}

/// Makes the runtime's command one that finds the user's name and ranges of ids, in a mount namespace of its own.
const WITH_RANGES: &str = r#"
    user=$1 dir=$2; shift 2
    for file in passwd subuid subgid; do mount --bind "$dir/source/$file" /etc/$file; done
    exec setpriv --reuid "$user" --regid "$user" --clear-groups "$dir/runtime" --root "$dir/state" "$@""#;

#[test]
fn a_map_of_more_ids_is_written_by_setuid_programs() {
    requires!(root, uidmap);
    let bundle = Bundle::sh("cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups").rootless(USER);
    let bundle = bundle.prepare(|dir| {
        fs::create_dir(dir.join("source")).unwrap();
        fs::write(dir.join("source/passwd"), format!("user:x:{USER}:{USER}::/:/bin/sh\n")).unwrap();
        fs::write(dir.join("source/subuid"), "user:100000:65536\n").unwrap();
        fs::write(dir.join("source/subgid"), "user:200000:65536\n").unwrap();
    });
    let more = |first: u32| json!([{"containerID": 0, "hostID": USER, "size": 1}, {"containerID": 1, "hostID": first, "size": 9}]);
    let maps = [
        // The user map, the group map, and what becomes of setgroups.
        (more(100_000), more(200_000), "0 3000 1 1 100000 9 0 3000 1 1 200000 9 allow"),
        (json!([{"containerID": 0, "hostID": USER, "size": 1}]), more(200_000), "0 3000 1 0 3000 1 1 200000 9 allow"),
    ];
    let mut c = Runtime::new(bundle);
    for (users, groups, shown) in maps {
        c.edit(|config| {
            config["linux"]["uidMappings"] = users;
            config["linux"]["gidMappings"] = groups;
        });
        let mut run = Command::new("unshare");
        let dir = c.bundle().path().to_str().unwrap();
        run.args(["--mount", "sh", "-ec", WITH_RANGES, "sh", &USER.to_string(), dir, "run", "--bundle", dir, c.id()]);
        let output = c.output_of(run).ok();
        assert_eq!(output.stdout.split_whitespace().collect::<Vec<_>>().join(" "), shown);
    }
    // Who has no ranges is told so.
    c.create().fails().stderr_contains("newgidmap");
    c.leaves_nothing();
}

/// Returns a command that becomes the command after it, as the root of a user namespace that the user has made, and of
/// others beside it.
fn become_root_of_a_namespace(others: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    let user = USER.to_string();
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
    command.args(["unshare", "--user", "--map-root-user"]).args(others);
    command
}

#[test]
fn the_root_of_a_users_namespace_has_containers() {
    requires!(root);
    // As Podman does it: the runtime has become root in a namespace that somebody without privilege has made.
    let script = "id -u; cat /proc/self/uid_map; head -c 2 /dev/zero | wc -c; cat /from/file";
    // Without a mount namespace of its own, it may only mount in those of its containers.
    let mounts: &[&str] = &["--mount"];
    for (nested, others) in [(false, mounts), (false, &[]), (true, mounts), (true, &[])] {
        let bundle = Bundle::sh(script).rootless(USER).prepare(|dir| {
            fs::create_dir(dir.join("source")).unwrap();
            fs::write(dir.join("source/file"), "read").unwrap();
        });
        let bundle = bundle.mount("/from", "bind", "source", &["rbind", "ro"]);
        let c = Runtime::new(match nested {
            true => bundle.with(|config| {
                let map = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
                (config["linux"]["uidMappings"], config["linux"]["gidMappings"]) = (map.clone(), map);
            }),
            false => bundle.without_namespace("user").with(|config| {
                config["linux"].as_object_mut().unwrap().retain(|key, _| !key.ends_with("Mappings"));
            }),
        });
        let run = c.command(&["run", "--bundle", c.bundle().path().to_str().unwrap(), c.id()]);
        let mut in_namespace = become_root_of_a_namespace(others);
        in_namespace.arg(run.get_program()).args(run.get_args());
        let outside = if nested { 0 } else { USER };
        let output = c.output_of(in_namespace).ok();
        let shown = output.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(shown, format!("0 0 {outside} 1 2 read"), "{output}");
        c.leaves_nothing();
    }
}

#[test]
fn who_has_mounted_a_file_system_may_map_its_ids() {
    requires!(root);
    let map = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
    let bundle = Bundle::sh("stat -c %u:%g /tmp/a").rootless(USER).without_namespace("user");
    let bundle = bundle.mount("/tmp/a", "none", "source", &["bind"]).with(|config| {
        config["linux"].as_object_mut().unwrap().retain(|key, _| !key.ends_with("Mappings"));
        config["root"]["readonly"] = json!(false);
        let mount = config["mounts"].as_array_mut().unwrap().last_mut().unwrap();
        (mount["uidMappings"], mount["gidMappings"]) = (map.clone(), map);
    });
    let c = Runtime::new(bundle.prepare(|dir| fs::create_dir(dir.join("source")).unwrap()));
    let run = c.command(&["run", "--bundle", c.bundle().path().to_str().unwrap(), c.id()]);
    let script = "mount -t tmpfs tmpfs source; exec \"$@\"";
    let mut with_tmpfs = become_root_of_a_namespace(&["--mount"]);
    with_tmpfs.current_dir(c.bundle().path()).args(["sh", "-ec", script, "sh"]);
    with_tmpfs.arg(run.get_program()).args(run.get_args());
    c.output_of(with_tmpfs).ok().prints("0:0");
}

/// Runs the bundle's runtime as its user on v2, in a cgroup.
const ON_V2: &str = r#"
    user=$1 dir=$2 cgroup=$3; shift 3
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    echo 0 >"/sys/fs/cgroup$cgroup/cgroup.procs"
    exec setpriv --reuid "$user" --regid "$user" --clear-groups "$dir/runtime" --root "$dir/state" "$@""#;

#[test]
fn a_process_is_added_from_where_the_user_may_not_move_it() {
    requires!(root, cgroup_v2);
    let bundle = Bundle::sleep().rootless(USER);
    let c = Runtime::new(bundle);
    let (dir, id) = (c.bundle().path().to_str().unwrap().to_owned(), c.id().to_owned());
    let delegated = c.cgroup("");
    fs::create_dir_all(delegated.join("self")).unwrap();
    for file in ["", "cgroup.procs", "cgroup.subtree_control", "self/cgroup.procs"] {
        std::os::unix::fs::chown(delegated.join(file), Some(USER), Some(USER)).unwrap();
    }
    let on_v2 = |cgroup: &str, args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec", ON_V2, "sh", &USER.to_string(), &dir, cgroup]).args(args);
        command
    };
    let inside = format!("/{id}/self");
    c.detached(on_v2(&inside, &["run", "--detach", "--bundle", &dir, &id])).ok();
    let show = ["exec", id.as_str(), "sed", "-n", "s/^0:://p", "/proc/self/cgroup"];
    let shown = [c.output_of(on_v2(&inside, &show)).ok(), c.output_of(on_v2("", &show)).ok()];
    c.output_of(on_v2(&inside, &["delete", "--force", &id])).ok();
    fs::remove_dir(delegated.join("self")).unwrap();
    fs::remove_dir(delegated).unwrap();
    assert_eq!(shown.map(|output| output.text().to_owned()), [format!("/{id}/{id}"), "/".to_owned()]);
}
