//! Namespaces: new, the host's, and joined, alone and as a pod; user namespaces and what they own.

use crate::support::{Bundle, Output, Runtime};
use crate::{ours_only, requires};
use serde_json::json;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The names of /proc/PID/ns, and those of config.json where they differ.
const KINDS: [(&str, &str); 7] = [
    ("pid", "pid"),
    ("net", "network"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mnt", "mount"),
    ("cgroup", "cgroup"),
    ("user", "user"),
];

const SHOW: &str = "for n in pid net ipc uts mnt cgroup user time; do echo $n $(readlink /proc/self/ns/$n); done";

fn host(name: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{name}")).unwrap().to_string_lossy().into_owned()
}

/// Returns the path of a namespace of the container's init.
fn namespace(c: &Runtime, name: &str) -> PathBuf {
    format!("/proc/{}/ns/{name}", c.pid()).into()
}

fn inside(c: &Runtime, name: &str) -> String {
    fs::read_link(namespace(c, name)).unwrap().to_string_lossy().into_owned()
}

#[test]
fn a_new_namespace_is_nobody_elses() {
    requires!(root);
    let c = Bundle::sleep().user_namespace(100_000).namespace("cgroup", None).start();
    for (name, _) in KINDS {
        assert_ne!(inside(&c, name), host(name), "{name}");
    }
}

#[test]
fn a_namespace_that_is_not_asked_for_is_the_hosts() {
    requires!(root);
    let mut bundle = Bundle::sh(SHOW).with(|config| config["hostname"] = json!(""));
    for (_, kind) in KINDS.iter().filter(|(name, _)| *name != "mnt") {
        bundle = bundle.without_namespace(kind);
    }
    let shown = bundle.run().ok();
    for (name, _) in KINDS.iter().filter(|(name, _)| *name != "mnt") {
        assert!(shown.stdout.contains(&format!("{name} {}\n", host(name))), "{name}: {shown}");
    }
    assert!(shown.stdout.contains(&format!("time {}\n", host("time"))), "{shown}");
}

#[test]
fn exec_joins_every_namespace() {
    requires!(root);
    let c = Bundle::sleep().user_namespace(100_000).namespace("cgroup", None).start();
    let shown = c.exec_sh(SHOW).ok();
    for (name, _) in KINDS {
        assert!(shown.stdout.contains(&format!("{name} {}\n", inside(&c, name))), "{name}: {shown}");
    }
}

#[test]
fn a_pod_shares_its_namespaces() {
    requires!(root);
    let first = Bundle::sleep().start();
    let mut second = Bundle::sleep().with(|config| config["hostname"] = json!(""));
    for (name, kind) in [("net", "network"), ("ipc", "ipc"), ("uts", "uts")] {
        second = second.namespace(kind, Some(&namespace(&first, name)));
    }
    let second = second.start();
    for name in ["net", "ipc", "uts"] {
        assert_eq!(inside(&second, name), inside(&first, name), "{name}");
    }
    assert_ne!(inside(&second, "pid"), inside(&first, "pid"));
    second.exec(&["hostname"]).ok().prints("stasis");
}

#[test]
fn a_joined_pid_namespace_shows_both_containers() {
    requires!(root);
    let first = Bundle::sleep().start();
    let second = Bundle::sh("sleep 999").namespace("pid", Some(&namespace(&first, "pid"))).start();
    assert_eq!(inside(&second, "pid"), inside(&first, "pid"));
    first.exec(&["ps"]).ok().stdout_contains("sleep 1000").stdout_contains("sleep 999");
    second.exec(&["ps"]).ok().stdout_contains("sleep 1000");
    second.kill("KILL").ok();
    second.wait_for("stopped");
    second.delete().ok();
    second.leaves_nothing();
    assert_eq!(first.status(), "running");
}

#[test]
fn a_pod_with_a_user_namespace_shares_it() {
    requires!(root);
    ours_only!("runc 1.1 needs the mappings of a user namespace that it joins");
    let first = Bundle::sleep().user_namespace(100_000).start();
    // For the owner of the files in its root; the namespace is the first one's.
    let mut second =
        Bundle::sh("id -u; touch /tmp/file; readlink /proc/self/ns/user; sleep 1000").user_namespace(100_000);
    second.edit(|config| {
        config["linux"].as_object_mut().unwrap().retain(|key, _| !key.ends_with("Mappings"));
        config["root"]["readonly"] = json!(false);
        config["hostname"] = json!("");
    });
    for (name, kind) in [("user", "user"), ("net", "network"), ("ipc", "ipc"), ("uts", "uts")] {
        second = second.namespace(kind, Some(&namespace(&first, name)));
    }
    let second = second.start();
    second.wait_printed("user:");
    assert_eq!(second.printed(), format!("0\n{}\n", inside(&first, "user")));
    assert_eq!(fs::metadata(second.bundle().rootfs().join("tmp/file")).unwrap().uid(), 100_000);
    second.exec(&["id", "-u"]).ok().prints("0");
}

#[test]
fn a_new_user_namespace_goes_with_joined_ones() {
    requires!(root);
    ours_only!("runc 1.1 cannot mount sysfs in a network namespace that the user namespace does not own");
    let first = Bundle::sleep().start();
    let second = Bundle::sleep().user_namespace(100_000).namespace("network", Some(&namespace(&first, "net")));
    let second = second.start();
    assert_eq!(inside(&second, "net"), inside(&first, "net"));
    second.exec(&["id", "-u"]).ok().prints("0");
}

#[test]
fn ids_are_mapped() {
    requires!(root);
    let c = Bundle::sh("id -u; cat /proc/self/uid_map; echo x >/tmp/file; sleep 1000").user_namespace(100_000);
    let c = c.with(|config| config["root"]["readonly"] = json!(false)).start();
    c.wait_printed("65536");
    assert_eq!(c.printed().split_whitespace().collect::<Vec<_>>(), ["0", "0", "100000", "65536"]);
    assert_eq!(fs::metadata(format!("/proc/{}", c.pid())).unwrap().uid(), 100_000);
    let file = c.bundle().rootfs().join("tmp/file");
    crate::support::wait_until("the file is there", || file.exists());
    assert_eq!((fs::metadata(&file).unwrap().uid(), fs::metadata(&file).unwrap().gid()), (100_000, 100_000));
}

#[test]
fn a_user_other_than_root_is_mapped_too() {
    requires!(root);
    let c = Bundle::sleep().user_namespace(100_000).with(|config| {
        config["process"]["user"] = json!({"uid": 1000, "gid": 1001, "additionalGids": [7]});
    });
    let c = c.start();
    let status = fs::read_to_string(format!("/proc/{}/status", c.pid())).unwrap();
    assert!(status.contains("Uid:\t101000\t101000\t101000\t101000"), "{status}");
    assert!(
        status.contains("Gid:\t101001\t101001\t101001\t101001\n") && status.contains("Groups:\t100007 \n"),
        "{status}"
    );
    c.exec(&["id"]).ok().prints("uid=1000(user) gid=1001 groups=7");
}

#[test]
fn a_user_namespace_needs_no_root() {
    requires!(root);
    ours_only!("runc 1.5 and older want uid 0 in the map");
    let c = Bundle::sh("cat /proc/self/uid_map; id -u; stat -c %u /dev; grep CapEff /proc/self/status; sleep 1000");
    let c = c.user_namespace(300_000).with(|config| {
        for kind in ["uidMappings", "gidMappings"] {
            config["linux"][kind] = json!([{"containerID": 1000, "hostID": 300_000, "size": 1}]);
        }
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        let mounts = config["mounts"].as_array_mut().unwrap();
        let options = mounts.iter_mut().filter_map(|mount| mount["options"].as_array_mut());
        options.for_each(|options| options.retain(|option| option != "gid=5"));
    });
    let c = c.start();
    c.wait_printed("CapEff");
    let printed = c.printed().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(printed, "1000 300000 1 1000 1000 CapEff: 0000000000000000");
    c.exec_sh("id -u; id -g").ok().prints("1000\n1000");
}

#[test]
fn a_user_namespace_has_the_hosts_devices() {
    requires!(root);
    let script =
        "echo lost >/dev/null; head -c 4 /dev/zero | wc -c; stat -c '%t:%T' /dev/full; head -c 1 /dev/urandom | wc -c";
    Bundle::sh(script).user_namespace(100_000).run().ok().prints("4\n1:7\n1");
}

#[test]
fn what_a_user_namespace_cannot_reach_is_mounted_for_it() {
    requires!(root);
    let c = Bundle::sh("cat /from/file").user_namespace(100_000);
    // The bundle itself is root's alone (0700) too.
    let c = c.prepare(|dir| {
        use std::os::unix::fs::PermissionsExt;
        fs::create_dir_all(dir.join("source/closed/open")).unwrap();
        fs::write(dir.join("source/closed/open/file"), "read").unwrap();
        fs::set_permissions(dir.join("source/closed"), fs::Permissions::from_mode(0o700)).unwrap();
    });
    c.mount("/from", "bind", "source/closed/open", &["bind", "ro"]).run().ok().prints("read");
}

#[test]
fn clocks_have_their_offsets() {
    requires!(root);
    ours_only!("runc 1.1 knows no time namespaces");
    let c = Bundle::sleep().namespace("time", None).with(|config| {
        config["linux"]["timeOffsets"] =
            json!({"boottime": {"secs": 100_000_000}, "monotonic": {"secs": 5, "nanosecs": 6}});
    });
    let c = c.start();
    assert_ne!(inside(&c, "time"), host("time"));
    let seconds = |output: &str| output.split('.').next().unwrap().parse::<u64>().unwrap();
    assert!(seconds(c.exec(&["cat", "/proc/uptime"]).ok().text()) > 100_000_000);
    let offsets = fs::read_to_string(format!("/proc/{}/timens_offsets", c.pid())).unwrap();
    let words: Vec<_> = offsets.split_whitespace().collect();
    assert_eq!(words, ["monotonic", "5", "6", "boottime", "100000000", "0"]);
}

#[test]
fn a_time_namespace_can_be_joined() {
    requires!(root);
    ours_only!("runc 1.1 knows no time namespaces");
    let first = Bundle::sleep().namespace("time", None);
    let first =
        first.with(|config| config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 100_000_000}})).start();
    let second = Bundle::sleep().namespace("time", Some(&namespace(&first, "time"))).start();
    assert_eq!(inside(&second, "time"), inside(&first, "time"));
}

#[test]
fn the_loopback_interface_is_up() {
    requires!(root);
    Bundle::new(&["ip", "addr", "show", "lo"]).run().ok().stdout_contains("LOOPBACK,UP").stdout_contains("127.0.0.1");
}

#[test]
fn init_is_process_1() {
    requires!(root);
    Bundle::sh("echo $$").run().ok().prints("1");
}

#[test]
fn the_container_is_named() {
    requires!(root);
    ours_only!("runc 1.1 knows no domainname");
    let c = Bundle::sh("hostname; cat /proc/sys/kernel/domainname").with(|config| {
        config["hostname"] = json!("host");
        config["domainname"] = json!("domain");
    });
    c.run().ok().prints("host\ndomain");
}

#[test]
fn a_cgroup_namespace_begins_at_the_containers_cgroup() {
    requires!(root);
    let c = Bundle::sleep().namespace("cgroup", None).start();
    let shown = c.exec(&["cat", "/proc/1/cgroup"]).ok();
    assert!(shown.lines().iter().all(|line| line.ends_with(":/")), "{shown}");
}

#[test]
fn what_a_namespace_does_not_allow_is_refused() {
    requires!(root);
    let c = Runtime::new(Bundle::sleep().without_namespace("uts"));
    c.run().exits(1).stderr_contains("unable to set hostname without a private UTS namespace");
    let c = Runtime::new(Bundle::sleep().without_namespace("network").with(|config| {
        config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    }));
    c.run().exits(1).stderr_contains("not allowed in host network namespace");
    c.leaves_nothing();
}

#[test]
fn the_hosts_namespace_is_the_hosts_by_path_too() {
    requires!(root);
    ours_only!("runc looks at the network namespace alone");
    let own = |kind: &str| PathBuf::from(format!("/proc/self/ns/{kind}"));
    let c = Runtime::new(Bundle::new(&["readlink", "/proc/self/ns/net"]).namespace("network", Some(&own("net"))));
    assert_eq!(c.run().ok().text(), host("net"));
    let before = fs::read_to_string("/proc/sys/net/ipv4/ip_default_ttl").unwrap();
    let bundle = Bundle::sleep().namespace("network", Some(&own("net")));
    bundle
        .with(|config| config["linux"]["sysctl"] = json!({"net.ipv4.ip_default_ttl": "77"}))
        .run()
        .exits(1)
        .stderr_contains("not allowed in host network namespace");
    assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/ip_default_ttl").unwrap(), before);
    let bundle = Bundle::sleep().namespace("uts", Some(&own("uts")));
    bundle.with(|config| config["hostname"] = json!("other")).run().exits(1).stderr_contains("UTS namespace");
}

/// Without a mount namespace, and without what cannot be had then.
fn on_the_hosts_mounts(bundle: Bundle) -> Bundle {
    bundle.without_namespace("mount").with(|config| {
        config["linux"]["maskedPaths"] = json!([]);
        config["linux"]["readonlyPaths"] = json!([]);
    })
}

/// Carries out a shell script with the runtime as `rt`, in a mount namespace that is the host's for it and goes with it.
fn with_host_mounts(c: &Runtime, script: &str) -> Output {
    let functions =
        "rt() { \"$runtime\" --root \"$root\" \"$@\"; }; mounts() { grep -c $bundle /proc/self/mountinfo; }; ";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &format!("{functions}{script}")]);
    command.env("runtime", Runtime::found()).env("root", c.root()).env("bundle", c.bundle().path()).env("id", c.id());
    command.stdin(Stdio::null());
    c.output_of(command)
}

#[test]
fn a_container_may_have_the_hosts_mounts() {
    requires!(root);
    let script = "readlink /proc/self/ns/mnt; cat /etc/passwd; echo x >/made; stat -f -c %T /proc /dev";
    let c = Runtime::new(on_the_hosts_mounts(Bundle::sh(script)));
    let shown = with_host_mounts(&c, "readlink /proc/self/ns/mnt; rt run --bundle $bundle $id; mounts").ok();
    let lines = shown.lines();
    assert_eq!(lines[0], lines[1], "{shown}");
    assert_eq!(
        lines[2..4],
        fs::read_to_string(c.bundle().rootfs().join("etc/passwd")).unwrap().lines().collect::<Vec<_>>()
    );
    assert_eq!(lines[4..6], ["proc", "tmpfs"]);
    // Nobody but the host could take them away.
    assert!(lines[6].parse::<u32>().unwrap() > 5, "{shown}");
    // As with runc, the root is not read-only then.
    assert!(c.bundle().rootfs().join("made").exists());
    c.leaves_nothing();
    let c = Runtime::new(Bundle::sleep().without_namespace("mount"));
    c.run().exits(1).stderr_contains("unable to restrict sys entries without a private MNT namespace");
}

#[test]
fn exec_stays_in_a_root_on_the_hosts_mounts() {
    requires!(root);
    ours_only!("runc executes it in the host's root");
    let c = Runtime::new(on_the_hosts_mounts(Bundle::sleep()));
    let script = "rt run -d --bundle $bundle $id >/dev/null 2>&1; rt exec $id stat -c %i /; \
                  unshare --mount \"$runtime\" --root \"$root\" exec $id stat -c %i /; rt delete --force $id";
    let inode = fs::metadata(c.bundle().rootfs()).unwrap().ino();
    with_host_mounts(&c, script).ok().prints(&format!("{inode}\n{inode}"));
}

#[test]
fn a_create_that_fails_leaves_no_mounts_with_the_host() {
    requires!(root);
    ours_only!("runc leaves them");
    let c = Runtime::new(on_the_hosts_mounts(Bundle::new(&["nosuch"])));
    let script = "mount --bind $bundle/rootfs $bundle/rootfs; rt run --bundle $bundle $id; mounts";
    with_host_mounts(&c, script).ok().prints("1").stderr_contains("executable file not found");
    c.leaves_nothing();
}

#[test]
fn a_mount_namespace_can_be_joined() {
    requires!(root);
    let mut holder =
        Command::new("unshare").args(["--mount", "--propagation", "private", "sleep", "1000"]).spawn().unwrap();
    let path = PathBuf::from(format!("/proc/{}/ns/mnt", holder.id()));
    let joined = || fs::read_link(&path).unwrap().to_string_lossy().into_owned();
    crate::support::wait_until("a namespace to join", || joined() != host("mnt"));
    let script = "readlink /proc/self/ns/mnt; cat /etc/passwd; touch /made 2>/dev/null || echo read-only";
    let c = Runtime::new(Bundle::sh(script).namespace("mount", Some(&path)));
    let shown = c.run();
    let namespace = joined();
    holder.kill().unwrap();
    holder.wait().unwrap();
    let passwd = fs::read_to_string(c.bundle().rootfs().join("etc/passwd")).unwrap();
    shown.ok().prints(&format!("{namespace}\n{passwd}read-only"));
    c.leaves_nothing();
}

#[test]
fn sources_are_those_of_a_joined_mount_namespace() {
    requires!(root);
    ours_only!("runc before 1.2 looks for some of them on the host");
    let script = "mount -t tmpfs tmpfs \"$0\"; echo joined >\"$0/file\"; exec sleep 1000";
    let ids = json!([{"containerID": 0, "hostID": 7, "size": 1}]);
    for users in [&[][..], &["--user", "--map-root-user"]] {
        let bundle = Bundle::sh("cat /tmp/file; stat -c %u /tmp/file").prepare(|dir| {
            fs::create_dir(dir.join("source")).unwrap();
        });
        let mut holder = Command::new("unshare");
        holder.args(users).args(["--mount", "--propagation", "private", "sh", "-ec", script]);
        let mut holder = holder.arg(bundle.path().join("source")).spawn().unwrap();
        let seen = PathBuf::from(format!("/proc/{}/root", holder.id()))
            .join(bundle.path().join("source/file").strip_prefix("/").unwrap());
        crate::support::wait_until("a namespace to join", || seen.exists());
        let namespace = |kind: &str| PathBuf::from(format!("/proc/{}/ns/{kind}", holder.id()));
        let mut bundle = bundle.mount("/tmp", "bind", "source", &["bind"]).namespace("mount", Some(&namespace("mnt")));
        // Its group is not mapped.
        bundle.edit(|config| config["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "devpts"));
        let owner = match users {
            [] => {
                bundle.edit(|config| {
                    let mount = config["mounts"].as_array_mut().unwrap().last_mut().unwrap();
                    (mount["uidMappings"], mount["gidMappings"]) = (ids.clone(), ids.clone());
                });
                7
            }
            _ => {
                bundle = bundle.namespace("user", Some(&namespace("user")));
                0
            }
        };
        let shown = bundle.run();
        holder.kill().unwrap();
        holder.wait().unwrap();
        shown.ok().prints(&format!("joined\n{owner}"));
    }
}

#[test]
fn without_a_word_on_linux_everything_is_the_hosts() {
    requires!(root);
    let c = Runtime::new(Bundle::sh("readlink /proc/self/ns/pid; readlink /proc/self/ns/net").with(|config| {
        config.as_object_mut().unwrap().remove("linux");
        config["hostname"] = json!("");
        config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] == "/proc");
    }));
    let shown = with_host_mounts(&c, "rt run --bundle $bundle $id");
    shown.ok().prints(&format!("{}\n{}", host("pid"), host("net")));
}

#[test]
fn the_hosts_mounts_are_neither_dumped_nor_restored_into() {
    requires!(root);
    ours_only!("runc leaves it to CRIU");
    let c =
        Runtime::new(on_the_hosts_mounts(Bundle::sleep()).prepare(|path| fs::create_dir(path.join("source")).unwrap()));
    let script = "rt run -d --bundle $bundle $id >/dev/null 2>&1; rt checkpoint --image-path $bundle/source $id; \
                  rt state $id | grep -c running; rt delete --force $id; \
                  rt restore --image-path $bundle/source --bundle $bundle $id";
    let said = with_host_mounts(&c, script).exits(1).prints("1");
    let said = said.stderr_contains("a container in the host's mount namespace cannot be checkpointed");
    said.stderr_contains("a checkpoint cannot be restored into the host's mount namespace");
    c.leaves_nothing();
}

#[test]
fn no_pivot_is_refused_on_the_hosts_mounts() {
    requires!(root);
    ours_only!("runc before 1.5 moves the container's root over the host's");
    let c = Runtime::new(on_the_hosts_mounts(Bundle::new(&["true"])));
    let said = with_host_mounts(&c, "rt run --no-pivot --bundle $bundle $id").exits(1);
    said.stderr_contains("unable to use no-pivot without a private MNT namespace");
    c.leaves_nothing();
}

#[test]
fn without_pivot_what_is_covered_stays_where_it_is() {
    requires!(root);
    let c = Runtime::new(Bundle::new(&["true"]));
    let script = "mkdir $bundle/covered; mount -t tmpfs tmpfs $bundle/covered; mkdir -p $bundle/covered/on/proc; \
                  mount -t proc proc $bundle/covered/on/proc; mount -t tmpfs tmpfs $bundle/covered; \
                  rt run --no-pivot --bundle $bundle $id; \
                  mkdir -p $bundle/covered/on/proc; rt run --no-pivot --bundle $bundle $id";
    with_host_mounts(&c, &format!("set -e; {script}")).ok();
}

#[test]
fn without_pivot_shared_mounts_leave_the_hosts_alone() {
    requires!(root);
    ours_only!("runc covers the host's root, and takes its /proc and /sys away");
    let c = Runtime::new(Bundle::new(&["true"]).with(|config| {
        config["linux"]["rootfsPropagation"] = json!("rshared");
    }));
    // The root is a mount, as engines have it, or a directory of the host's root.
    for prepare in ["", "mount --bind $bundle/rootfs $bundle/rootfs; "] {
        let script = format!(
            "mount --make-rshared /; {prepare}places() {{ cut -d ' ' -f 5 /proc/self/mountinfo; }}; before=$(places); \
             rt run --no-pivot --bundle $bundle $id; echo $?; test \"$before\" = \"$(places)\" && echo same"
        );
        with_host_mounts(&c, &script).ok().prints("0\nsame");
    }
}
