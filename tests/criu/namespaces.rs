//! Namespaces that are not the container's own, and those that are.

use crate::support::{Bundle, Layout};
use crate::{COUNTER, Checkpointed, namespace, ours_only, requires};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A process that has made namespaces, which others join by its pid.
pub struct Owner(Child);

impl Owner {
    /// Starts one in new namespaces, with the options of unshare(1).
    pub fn new(options: &[&str]) -> Self {
        Self::start(&[options, &["sleep", "1000"]].concat(), "uts")
    }

    /// Starts one with a pid namespace for its children. The first of them reaps the others: a process that is dead and
    /// unreaped keeps its session's number from being used again.
    pub fn of_pids() -> Self {
        let line = ["--pid", "--fork", "--kill-child", "sh", "-c", "while true; do sleep 0.1; done"];
        Self::start(&line, "pid_for_children")
    }

    fn start(line: &[&str], kind: &str) -> Self {
        let mut command = Command::new("unshare");
        let child = command.args(line).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let this = Self(child.unwrap());
        let own = namespace(std::process::id() as i32, kind);
        crate::wait_until("the namespaces are there", || this.path(kind).read_link().is_ok_and(|it| it != own));
        this
    }

    /// Returns its pid.
    pub fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    /// Returns the path of one of its namespaces.
    pub fn path(&self, kind: &str) -> std::path::PathBuf {
        Path::new("/proc").join(self.0.id().to_string()).join("ns").join(kind)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_joined_network_namespace_is_joined_again() {
    requires!(root, criu);
    let owner = Owner::new(&["--net", "--uts"]);
    let c = Checkpointed::run(Bundle::sh(COUNTER).namespace("network", Some(&owner.path("net"))));
    c.round_trip();
    assert_eq!(namespace(c.runtime.pid(), "net"), owner.path("net").read_link().unwrap());
    c.counts();
    c.runtime.exec(&["ls", "/sys/class/net"]).ok().stdout_contains("lo");
}

#[test]
fn a_network_namespace_that_is_another_one_now_is_joined() {
    requires!(root, criu);
    ours_only!("runc looks the namespace up by its path at the checkpoint, too");
    let owner = Owner::new(&["--net", "--uts"]);
    let mut c = Checkpointed::run(Bundle::sh(COUNTER).namespace("network", Some(&owner.path("net"))));
    // The path is gone at the checkpoint; the namespace is not.
    drop(owner);
    c.checkpoint(&[]).ok();
    let owner = Owner::new(&["--net", "--uts"]);
    let path = owner.path("net");
    c.runtime.edit(|config| {
        for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
            if namespace["type"] == "network" {
                namespace["path"] = path.to_str().unwrap().into();
            }
        }
    });
    c.restore(&[]).ok();
    assert_eq!(namespace(c.runtime.pid(), "net"), path.read_link().unwrap());
    c.counts();
}

#[test]
fn the_hosts_network_stays_the_hosts() {
    requires!(root, criu);
    let c = Checkpointed::run(Bundle::sh(COUNTER).without_namespace("network"));
    c.round_trip();
    assert_eq!(namespace(c.runtime.pid(), "net"), namespace(std::process::id() as i32, "net"));
}

#[test]
fn a_joined_pid_namespace_is_joined_again() {
    requires!(root, criu);
    ours_only!("runc does not wait for the old process to be reaped");
    let owner = Owner::of_pids();
    let path = owner.path("pid_for_children");
    let c = Checkpointed::run(Bundle::sh(COUNTER).namespace("pid", Some(&path)));
    c.checkpoint(&[]).ok();
    c.restore(&[]).ok();
    assert_eq!(namespace(c.runtime.pid(), "pid"), path.read_link().unwrap());
    c.counts();
    c.runtime.cmd(&["delete", "--force", c.runtime.id()]).ok();
    c.runtime.leaves_nothing();
}

/// CRIU writes an image only of a pid namespace that it is told of, and runc tells it of every one that has a path.
#[test]
fn our_own_pid_namespace_is_anothers_where_it_is_joined_by_its_path() {
    requires!(root, criu);
    let c = Checkpointed::run(Bundle::sh(COUNTER).namespace("pid", Some(Path::new("/proc/self/ns/pid"))));
    c.checkpoint(&[]).ok();
    let names = std::fs::read_dir(c.images()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.starts_with("pidns-")).count(), 1);
    ours_only!("runc does not wait for the old process to be reaped");
    c.restore(&[]).ok();
    assert_eq!(namespace(c.runtime.pid(), "pid"), namespace(std::process::id() as i32, "pid"));
    c.counts();
}

#[test]
fn a_private_ipc_namespace_keeps_its_parameters() {
    requires!(root, criu);
    let sysctl = serde_json::json!({"kernel.shmmax": "12345678", "fs.mqueue.msg_max": "77"});
    let c = Checkpointed::run(Bundle::sh(COUNTER).with(|config| config["linux"]["sysctl"] = sysctl));
    c.round_trip();
    assert_ne!(namespace(c.runtime.pid(), "ipc"), namespace(std::process::id() as i32, "ipc"));
    c.runtime.exec(&["cat", "/proc/sys/kernel/shmmax"]).ok().prints("12345678");
    c.runtime.exec(&["cat", "/proc/sys/fs/mqueue/msg_max"]).ok().prints("77");
}

#[test]
fn the_host_name_survives() {
    requires!(root, criu);
    let c = Checkpointed::run(Bundle::sh(COUNTER).with(|config| config["hostname"] = "kept".into()));
    c.round_trip();
    c.runtime.exec(&["hostname"]).ok().prints("kept");
}

#[test]
fn a_user_namespace_survives() {
    requires!(root, criu);
    ours_only!("runc leaves it to the caller to make the images readable");
    let c = Checkpointed::run(Bundle::sh(COUNTER).user_namespace(200_000));
    let map = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap();
    let before = map(c.runtime.pid());
    c.round_trip();
    assert_eq!(map(c.runtime.pid()), before);
    c.counts();
}

#[test]
fn cgroup_mounts_without_a_namespace_are_the_containers_cgroups() {
    requires!(root, criu, cgroup_v1);
    ours_only!("runc mounts the cgroups that it is in itself");
    let bundle = Bundle::sh(COUNTER).without_namespace("cgroup").mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro"]);
    let c = Checkpointed::run(bundle);
    c.round_trip();
    let inside = c.runtime.exec(&["cat", "/sys/fs/cgroup/pids/cgroup.procs"]).ok();
    assert!(inside.lines().contains(&"1"), "{inside}");
}

#[test]
fn on_cgroup_v2_it_returns_to_its_cgroup() {
    requires!(root, criu, cgroup_v2);
    let c = Checkpointed::run(Bundle::sh(COUNTER).layout(Layout::V2));
    c.round_trip();
    c.runtime.pause().ok();
    c.runtime.resume().ok();
    c.counts();
    let cgroups = std::fs::read_to_string(format!("/proc/{}/cgroup", c.runtime.pid())).unwrap();
    assert!(cgroups.contains(&format!("0::/{}\n", c.runtime.id())), "{cgroups}");
}

#[test]
fn files_of_an_id_mapped_mount_keep_their_owners() {
    requires!(root, criu);
    ours_only!("runc 1.1 has no id-mapped mounts");
    let map = |outside: u32| serde_json::json!([{"containerID": 0, "hostID": outside, "size": 1}]);
    let script = "exec 3</data/file; read line <&3; while sleep 0.1; do :; done";
    let bundle = Bundle::sh(script).prepare(|dir| {
        std::fs::create_dir(dir.join("source")).unwrap();
        std::fs::write(dir.join("source/file"), "one\ntwo\n").unwrap();
    });
    let bundle = bundle.mount("/data", "none", "source", &["bind"]).with(|config| {
        let mount = config["mounts"].as_array_mut().unwrap().last_mut().unwrap();
        (mount["uidMappings"], mount["gidMappings"]) = (map(700), map(800));
    });
    let c = Checkpointed::run(bundle);
    let owner = || c.runtime.exec(&["stat", "-c", "%u:%g", "/data/file", "/proc/1/fd/3"]).ok().text().to_owned();
    crate::wait_until("the first line is read", || c.position(3) == Some(4));
    assert!(owner().starts_with("700:800"), "{}", owner());
    c.round_trip();
    assert!(owner().starts_with("700:800"), "{}", owner());
    assert_eq!(c.position(3), Some(4));
    c.runtime.cmd(&["delete", "--force", c.runtime.id()]).ok();
    c.runtime.leaves_nothing();
}

#[test]
fn on_cgroup_v2_a_user_namespace_sees_its_cgroup_again() {
    requires!(root, criu, cgroup_v2);
    ours_only!("runc leaves it to the caller to make the images readable");
    // It may not mount the hierarchy, which is the host's, so it has a part of the host's mount.
    let bundle = Bundle::sh(COUNTER).layout(Layout::V2).without_namespace("cgroup");
    let c = Checkpointed::run(bundle.user_namespace(200_000));
    c.round_trip();
    c.counts();
    let inside = c.runtime.exec(&["cat", "/sys/fs/cgroup/cgroup.procs"]).ok();
    assert!(inside.lines().contains(&"1"), "{inside}");
    c.runtime.cmd(&["delete", "--force", c.runtime.id()]).ok();
    c.runtime.leaves_nothing();
}
