//! Refusals in the words that runc's clients and its test suite look for.

use crate::support::{Bundle, Runtime};
use crate::{ours_only, requires};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

#[track_caller]
fn refused(bundle: Bundle, words: &str) {
    let c = Runtime::new(bundle);
    let output = c.create().exits(1);
    let said = format!("{}{}", output.stderr, c.complained()).replace("\\\"", "\"");
    assert!(said.contains(words), "no {words:?} in {said}");
    c.leaves_nothing();
}

#[test]
fn a_root_that_is_a_symlink_is_refused() {
    requires!(root);
    let linked = Bundle::sleep().prepare(|path| symlink(".", path.join("rootfs/link")).unwrap());
    refused(
        linked.with(|config| config["root"]["path"] = json!("rootfs/link")),
        "invalid rootfs: not an absolute path, or a symlink",
    );
    let missing = Bundle::sleep().with(|config| config["root"]["path"] = json!("nowhere"));
    refused(missing, "invalid rootfs: stat ");
    Bundle::new(&["true"]).with(|config| config["root"]["path"] = json!("./rootfs/../rootfs/")).run().ok();
}

#[test]
fn procfs_is_mounted_on_no_symlink() {
    requires!(root);
    for (place, kind) in [("proc", "proc"), ("sys", "sysfs")] {
        let bundle = Bundle::sleep().prepare(|path| {
            let root = path.join("rootfs");
            fs::remove_dir(root.join(place)).unwrap();
            fs::create_dir(root.join("elsewhere")).unwrap();
            symlink("elsewhere", root.join(place)).unwrap();
        });
        refused(bundle, &format!("filesystem \"{kind}\" must be mounted on ordinary directory"));
    }
}

#[test]
fn a_version_of_the_specification_that_is_none_is_refused() {
    requires!(root);
    ours_only!("runc 1.1 does not look at it");
    for version in ["2.0.0", "1.0", "latest", ""] {
        let bundle = Bundle::sleep().with(|config| config["ociVersion"] = json!(version));
        refused(bundle, &format!("ociVersion {version:?} is not supported"));
    }
    Bundle::new(&["true"]).with(|config| config["ociVersion"] = json!("1.0.2-dev")).run().ok();
}

#[test]
fn hooks_that_the_specification_does_not_allow_are_refused() {
    requires!(root);
    ours_only!("runc 1.1 fails while it makes the container, or not at all");
    let hook = |hook| Bundle::sleep().with(|config| config["hooks"] = json!({"poststop": [hook]}));
    refused(hook(json!({"path": "bin/true"})), "hook \"bin/true\": its path must be absolute");
    for timeout in [0, -1] {
        let words = "hook \"/bin/true\": its timeout must be greater than zero";
        refused(hook(json!({"path": "/bin/true", "timeout": timeout})), words);
    }
}

#[test]
fn a_scheduler_that_does_not_go_with_a_cpuset_is_refused() {
    requires!(root, cgroup_v1);
    ours_only!("runc 1.1 knows no scheduler");
    let deadline = json!({"policy": "SCHED_DEADLINE", "runtime": 100_000, "deadline": 200_000, "period": 1_000_000});
    let bundle = Bundle::sleep().with(|config| {
        config["process"]["scheduler"] = deadline;
        config["linux"]["resources"] = json!({"cpu": {"cpus": "0"}});
    });
    if fs::read_to_string("/sys/devices/system/cpu/online").unwrap().trim() != "0" {
        refused(bundle, "process scheduler can't be used together with AllowedCPUs");
    }
    let nice =
        Bundle::sleep().with(|config| config["process"]["scheduler"] = json!({"policy": "SCHED_OTHER", "nice": 20}));
    refused(nice, "invalid scheduler.nice: 20");
}

#[test]
fn names_that_nobody_knows_are_refused_in_runcs_words() {
    requires!(root);
    ours_only!("runc 1.1 knows no scheduler, and runs without an unknown flag");
    let seccomp = |key: &str, value: Value| json!({"defaultAction": "SCMP_ACT_ALLOW", key: value});
    for (part, key, value, words) in [
        ("process", "rlimits", json!([{"type": "RLIMIT_FOO", "soft": 1, "hard": 1}]), "wrong rlimit value: RLIMIT_FOO"),
        ("process", "scheduler", json!({"policy": "SCHED_FOO"}), "invalid scheduler policy: SCHED_FOO"),
        ("process", "ioPriority", json!({"class": "FOO", "priority": 1}), "invalid ioPriority.Class: \"FOO\""),
        ("linux", "personality", json!({"domain": "FOO"}), "invalid personality domain FOO"),
        ("linux", "seccomp", seccomp("architectures", json!(["FOO"])), "string FOO is not a valid arch for seccomp"),
        ("linux", "seccomp", seccomp("flags", json!(["FOO"])), "seccomp flag FOO is not known to runc"),
    ] {
        refused(Bundle::sleep().with(|config| config[part][key] = value), words);
    }
    refused(
        Bundle::sleep().with(|config| drop(config.as_object_mut().unwrap().remove("root"))),
        "root must be specified",
    );
    if !std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        let words = "selinux label is specified in config, but selinux is disabled or not supported";
        refused(Bundle::sleep().with(|config| config["process"]["selinuxLabel"] = json!("a_label")), words);
    }
}

#[test]
fn what_fails_is_said_to_be_init_of_init_alone() {
    requires!(root);
    ours_only!("runc before 1.2 makes no difference");
    refused(
        Bundle::new(&["nosuch"]),
        "create failed: unable to start container process: error during container init: exec: \"nosuch\": ",
    );
    let c = Bundle::sleep().create();
    let failed = |options: &[&str], args: &[&str], words: &str| {
        let said = c.exec_with(options, args).exits(255).stderr.replace("\\\"", "\"");
        assert!(said.contains(&format!("msg=\"exec failed: {words}")), "no {words:?} in {said}");
    };
    failed(&[], &["nosuch"], "unable to start container process: exec: \"nosuch\": executable file not found in $PATH");
    failed(
        &["--cwd", "/nope"],
        &["true"],
        "unable to start container process: chdir to cwd (\"/nope\") set in config.json",
    );
    failed(&["--process", "/nope"], &[], "open /nope: no such file or directory");
    failed(&["--user", "x"], &["true"], "bad uid: strconv.Atoi: parsing \"x\": invalid syntax");
    let said = c.cmd(&["update", "--resources", "/nope", c.id()]).exits(1);
    said.stderr_contains("msg=\"open /nope: no such file or directory\"");
    c.cmd(&["update", "--memory", "zz", c.id()])
        .exits(1)
        .stderr_contains("invalid value for memory: invalid size: 'zz'");
}

#[test]
fn shares_of_caches_are_refused_where_there_are_none() {
    requires!(root);
    ours_only!("runc before 1.4 ignores some of them");
    if std::path::Path::new("/sys/fs/resctrl").exists() {
        return;
    }
    for (rdt, words) in [
        (json!({}), "intelRdt is specified in config, but Intel RDT is not enabled"),
        (json!({"closID": "../x"}), "invalid intelRdt.ClosID \"../x\""),
        (json!({"l3CacheSchema": "L3:0=f"}), "intelRdt.l3CacheSchema is specified in config, but Intel RDT/CAT is not"),
        (json!({"memBwSchema": "MB:0=20"}), "intelRdt.memBwSchema is specified in config, but Intel RDT/MBA is not"),
    ] {
        refused(Bundle::sleep().with(|config| config["linux"]["intelRdt"] = rdt), words);
    }
    let c = Bundle::sleep().create();
    let update = |option: &str| c.cmd(&["update", option, "X:0=1", c.id()]).exits(1);
    update("--l3-cache-schema").stderr_contains("Intel RDT/CAT: l3 cache schema is not enabled");
    update("--mem-bw-schema").stderr_contains("Intel RDT/MBA: memory bandwidth schema is not enabled");
}

#[test]
fn somebody_who_is_not_root_needs_a_user_namespace() {
    requires!(root);
    let bundle = Bundle::sleep();
    fs::set_permissions(bundle.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = Command::new("setpriv");
    let program = bundle.path().join("runtime");
    fs::copy(Runtime::found(), &program).unwrap();
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
    command.arg("--root").arg("/tmp/nowhere").args(["create", "--bundle"]).arg(bundle.path()).arg(bundle.id());
    command.stdin(Stdio::null());
    let c = Runtime::new(bundle);
    c.output_of(command).exits(1).stderr_contains("rootless container requires user namespaces");
}

#[test]
fn a_process_that_the_oom_killer_took_is_told_so() {
    requires!(root, cgroup_v1);
    ours_only!("runc itself needs more memory");
    let c = Bundle::sleep().start();
    let tiny = c.cgroup("memory").join("tiny");
    fs::create_dir(&tiny).unwrap();
    fs::write(tiny.join("memory.limit_in_bytes"), "4096").unwrap();
    c.exec_with(&["--cgroup", "memory:tiny"], &["true"]).exits(255).stderr_contains("(possibly OOM-killed)");
}

#[test]
fn a_state_that_cannot_be_read_does_not_keep_a_container() {
    requires!(root);
    ours_only!("the state is ours");
    let c = Bundle::sleep().start();
    let pid = c.pid();
    fs::write(c.root().join(c.id()).join("stasis.json"), "{\"version\": 1, ").unwrap();
    c.delete().exits(1).stderr_contains("stasis.json");
    c.cmd(&["delete", "--force", c.id()]).ok();
    assert!(!c.root().join(c.id()).exists());
    crate::support::wait_until("init's end", || {
        !fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| !status.contains("State:\tZ"))
    });
    c.leaves_nothing();
}

#[test]
fn misuse_is_told_in_the_log() {
    requires!(root);
    ours_only!("the help that comes with it is ours");
    let c = Runtime::new(Bundle::sleep());
    let path = c.bundle().path().join("log.json");
    let log = path.to_str().unwrap();
    for (words, message) in [
        (&["state", "--nope", "x"][..], "flag provided but not defined: -nope"),
        (&["state"], "\"state\" requires exactly 1 argument(s)"),
        (&["nope"], "No help topic for 'nope'"),
        (&["create", "--preserve-fds", "x", "y"], "invalid value \"x\" for flag -preserve-fds: parse error"),
    ] {
        let output = c.cmd(&[&["--log", log, "--log-format=json"], words].concat()).fails();
        let text = fs::read_to_string(&path).unwrap();
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(line["msg"].as_str().unwrap().ends_with(message), "{line}");
        assert!(output.stderr.contains(message), "{output}");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn what_goes_wrong_with_a_container_is_told_in_runcs_words() {
    requires!(root);
    ours_only!("runc 1.1 words some otherwise");
    let c = Bundle::sleep().create();
    let id = c.id();
    fs::write(c.root().join("a-file"), "").unwrap();
    let nowhere = c.root().join("nowhere");
    let missing = nowhere.to_str().unwrap();
    let absent = format!("open {missing}: no such file or directory");
    for (line, words) in [
        (&["kill", id, "NOSUCH"][..], "unknown signal \"NOSUCH\""),
        (&["kill", id, "99"], "unable to signal init: invalid argument"),
        (&["kill", id, "99", "--all"], "unable to signal init: invalid argument"),
        (&["kill", ""], "container id cannot be empty"),
        (&["state", ""], "container id cannot be empty"),
        (&["delete", ".."], "invalid container ID format"),
        (&["pause", "a/b"], "invalid container ID format"),
        (&["resume", id], "container not paused"),
        (&["ps", "--format", "yaml", id], "invalid format option"),
        (&["list", "--format", "yaml"], "invalid format option"),
        (&["ps", id, "-o", "comm"], "couldn't find PID field in ps output"),
        (&["ps", id, "-o", "nosuch"], "exit status 1: error: unknown user-defined format specifier \"nosuch\""),
        (&["--root", missing, "list"], &absent),
        (&["--root", missing, "state", id], "container does not exist"),
    ] {
        let said = c.cmd(line).exits(1).stderr.replace("\\\"", "\"");
        assert!(said.contains(&format!("msg=\"{words}")), "no {words:?} in {said}");
    }
    let listed = c.cmd(&["list", "-q"]).ok();
    assert_eq!((listed.text(), listed.stderr.as_str()), (id, ""));
    let mut command = c.command(&["ps", id]);
    command.env("PATH", "/nowhere");
    c.output_of(command).exits(1).stderr_contains("exec: \\\"ps\\\": executable file not found in $PATH");
    fs::remove_file(c.root().join("a-file")).unwrap();
}

#[test]
fn a_cgroup_that_stays_is_told_in_runcs_words() {
    requires!(root, cgroup_v1);
    ours_only!("runc 1.1 waits for longer");
    let c = Bundle::sleep().create();
    let place = c.cgroup("devices");
    // Something else is there that keeps it: a cgroup cannot be removed while it is a mount point.
    let script = "mount --bind \"$0\" \"$0\"; \"$@\"; code=$?; umount \"$0\"; exit $code";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(&place).arg(Runtime::found());
    command.arg("--root").arg(c.root()).args(["delete", "--force", c.id()]).stdin(Stdio::null());
    let words = "unable to destroy container: unable to remove container's cgroup: remove cgroup ";
    c.output_of(command).exits(1).stderr_contains(words);
    c.delete().ok();
    c.leaves_nothing();
}
