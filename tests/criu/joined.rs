//! Namespaces that a container shares with another one, which goes on without it: their owner finds everything as it
//! left it, whether it is the owner of before or a new one, and the container finds what is there now.

use crate::support::{Bundle, Output, Runtime, wait_until};
use crate::{COUNTER, Checkpointed, namespace, ours_only, requires};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The key of the segment that a container holds.
const KEY: &str = "0x1234";

/// The kinds of objects, as /proc/sysvipc has them.
const KINDS: [&str; 3] = ["shm", "msg", "sem"];

/// The kinds of namespaces that are shared.
const SHARED: [&str; 3] = ["ipc", "uts", "network"];

/// A container whose namespaces others join. Its init reaps what comes to it.
struct Owner(Runtime);

impl Owner {
    #[track_caller]
    fn new() -> Self {
        let bundle = Bundle::sh("while true; do sleep 0.1; done").program("sysv").with(|config| {
            config["hostname"] = json!("owner");
            config["domainname"] = json!("owner.domain");
            config["linux"]["sysctl"] = json!({"kernel.shmmax": "12345678", "fs.mqueue.msg_max": "77"});
        });
        let bundle = bundle.capable(&["CAP_IPC_OWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"]);
        Self(bundle.namespace("time", None).with(|config| config["linux"]["timeOffsets"] = offsets()).start())
    }

    fn path(&self, kind: &str) -> PathBuf {
        let name = if kind == "network" { "net" } else { kind };
        PathBuf::from(format!("/proc/{}/ns/{name}", self.0.pid()))
    }

    /// Makes, changes or shows an object, and returns what was printed.
    #[track_caller]
    fn sysv(&self, args: &[&str]) -> String {
        self.0.exec(&[&["sysv"], args].concat()).ok().text().to_owned()
    }

    /// Makes an object that belongs to somebody else than root.
    #[track_caller]
    fn sysv_as_user(&self, args: &[&str]) -> String {
        self.0.exec_with(&["--user", "1000:1001"], &[&["sysv"], args].concat()).ok().text().to_owned()
    }

    /// Runs a script of the host in the shared namespaces.
    #[track_caller]
    fn inside(&self, script: &str) {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.0.pid().to_string(), "--ipc", "--uts", "sh", "-ec", script]);
        assert!(command.status().unwrap().success(), "{command:?}");
    }

    /// Returns names and limits, by file.
    #[track_caller]
    fn settings(&self) -> BTreeMap<String, String> {
        let files = "/proc/sys/kernel/hostname /proc/sys/kernel/domainname /proc/sys/kernel/sem /proc/sys/kernel/*msg* \
                     /proc/sys/kernel/shm* /proc/sys/fs/mqueue/*";
        let shown = self.0.exec_sh(&format!("for file in {files}; do echo $file $(cat $file); done")).ok();
        let pair = |line: &&str| line.split_once(' ').map(|(file, text)| (file.to_owned(), text.to_owned()));
        let all: BTreeMap<_, _> = shown.lines().iter().filter_map(pair).collect();
        assert!(all.len() > 12, "{shown}");
        all
    }

    /// Returns all objects with everything that the kernel shows of them.
    #[track_caller]
    fn objects(&self) -> Vec<String> {
        let shown = |kind: &str| self.0.exec(&["cat", &format!("/proc/sysvipc/{kind}")]).ok().stdout;
        KINDS.iter().map(|kind| shown(kind)).collect()
    }

    /// Returns the columns of objects of one kind that are those of the object, and not of its past.
    #[track_caller]
    fn described(&self, kind: &str) -> Vec<Vec<String>> {
        const LASTING: [&str; 11] =
            ["key", "shmid", "msqid", "semid", "perms", "size", "nsems", "qnum", "cbytes", "uid", "gid"];
        let text = self.0.exec(&["cat", &format!("/proc/sysvipc/{kind}")]).ok().stdout;
        let lines = text.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>()).collect::<Vec<_>>();
        let lasting = |line: &Vec<&str>| {
            let fields = line.iter().zip(&lines[0]).filter(|(_, name)| LASTING.contains(name));
            fields.map(|(field, _)| (*field).to_owned()).collect()
        };
        lines.iter().skip(1).map(lasting).collect()
    }

    /// Returns how often a segment is attached.
    #[track_caller]
    fn attachments(&self, id: &str) -> Option<u32> {
        let text = self.0.exec(&["cat", "/proc/sysvipc/shm"]).ok().stdout;
        let lines = text.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
        lines.filter(|line| line[1] == id).map(|line| line[6].parse().unwrap()).next()
    }
}

fn offsets() -> serde_json::Value {
    json!({"monotonic": {"secs": 1000, "nanosecs": 0}, "boottime": {"secs": 2000, "nanosecs": 0}})
}

/// A bundle that shares these namespaces with an owner.
fn joining(mut bundle: Bundle, owner: &Owner, kinds: &[&str]) -> Bundle {
    for kind in kinds {
        bundle = bundle.namespace(kind, Some(&owner.path(kind)));
    }
    bundle.with(|config| drop(config.as_object_mut().unwrap().remove("hostname")))
}

/// Runs a container that has the segment attached, and shows its text in a file.
#[track_caller]
fn holder(owner: &Owner) -> Checkpointed {
    let c = Checkpointed::run(joining(Bundle::new(&["sysv", "hold", KEY]).program("sysv"), owner, &SHARED));
    wait_until("the segment is seen", || !seen(&c).is_empty());
    c
}

/// Returns the segment's text as the container's process sees it.
#[track_caller]
fn seen(c: &Checkpointed) -> String {
    c.runtime.exec_sh("cat /dev/shm/seen 2>&1 || true").ok().text().to_owned()
}

/// Waits until the container's process sees this text.
#[track_caller]
fn sees(c: &Checkpointed, text: &str) {
    wait_until(&format!("the container sees {text:?} instead of {:?}", seen(c)), || seen(c) == text);
}

/// Gives the container another owner's namespaces.
fn rejoin(c: &mut Checkpointed, owner: &Owner) {
    c.runtime.edit(|config| {
        for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
            let kind = namespace["type"].as_str().unwrap().to_owned();
            if namespace.get("path").is_some() {
                namespace["path"] = json!(owner.path(&kind));
            }
        }
    });
}

/// Returns the contents of the images of namespaces, by name.
fn images(c: &Checkpointed) -> BTreeMap<PathBuf, Vec<u8>> {
    let all = fs::read_dir(c.images()).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.to_str().unwrap().contains("ns-"))
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

/// Expects a refusal in one line, and nothing of the container.
#[track_caller]
fn refused(c: &Checkpointed, output: Output, words: &str) {
    let output = output.exits(1).stderr_contains(words);
    assert_eq!(output.stderr.lines().count(), 1, "{output}");
    c.runtime.leaves_nothing();
}

#[test]
fn the_owner_keeps_its_names_its_limits_and_its_objects() {
    requires!(root, criu);
    ours_only!("others reset the owner's names and limits, and fail where it has objects");
    let owner = Owner::new();
    let held = owner.sysv(&["shm", KEY, "5001", "0640", "first"]);
    let segment = owner.sysv_as_user(&["shm", "0", "9000", "0600", "private"]);
    let set = owner.sysv_as_user(&["sem", "0x77", "0640", "3", "4"]);
    let queue = owner.sysv(&["msg", "0x88", "0600", "5", "five", "6", "six"]);
    let c = holder(&owner);
    let pid = owner.0.pid();
    c.checkpoint(&[]).ok();
    // Life goes on for the owner.
    owner.inside("hostname renamed; echo 999999 > /proc/sys/kernel/shmmax; echo 99 > /proc/sys/fs/mqueue/queues_max");
    owner.inside("domainname elsewhere; echo '300 33000 40 100' > /proc/sys/kernel/sem");
    owner.sysv(&["add", &set, "1", "7"]);
    owner.sysv(&["write", &segment, "changed"]);
    let late = owner.sysv(&["msg", "0x99", "0600", "1", "late"]);
    let (settings, objects, images_before) = (owner.settings(), owner.objects(), images(&c));
    c.restore(&[]).ok().prints("");
    assert_eq!(owner.settings(), settings);
    assert_eq!((settings["/proc/sys/kernel/hostname"].as_str(), owner.0.pid()), ("renamed", pid));
    // Of all objects only the one that the container has attached was made again.
    let now = owner.objects();
    assert_eq!(now[1..], objects[1..]);
    assert_eq!(now[0].lines().nth(2), objects[0].lines().nth(2));
    assert_eq!(now[0].lines().count(), 3);
    assert_eq!(owner.described("shm")[0], ["4660", held.as_str(), "640", "5001", "0", "0"]);
    assert_eq!(owner.sysv(&["values", &set]), "3 11");
    assert_eq!(owner.sysv(&["messages", &queue]), "5:five 6:six");
    assert_eq!(owner.sysv(&["messages", &late]), "1:late");
    assert!(owner.sysv(&["read", &segment]).starts_with("changed "));
    // The container is there, in the owner's namespaces, and what one writes the other sees.
    for kind in ["ipc", "uts", "net"] {
        assert_eq!(namespace(c.runtime.pid(), kind), namespace(pid, kind));
    }
    sees(&c, "first");
    owner.sysv(&["write", &held, "second"]);
    sees(&c, "second");
    c.runtime.exec(&["hostname"]).ok().prints("renamed");
    c.runtime.exec_with(&["--user", "1000:1001"], &["sysv", "values", &set]).ok().prints("3 11");
    // The images are what they were, and nothing else is left.
    assert_eq!(images(&c), images_before);
    assert!(!c.runtime.root().join(c.runtime.id()).join("criu-images").exists());
    // Once more, and from the same images once more.
    for options in [&[][..], &["--leave-running"]] {
        c.checkpoint(options).ok();
        c.runtime.cmd(&["delete", "--force", c.runtime.id()]).ok();
        c.restore(&[]).ok();
        sees(&c, "second");
        assert_eq!((owner.settings(), owner.objects()[1..].to_vec()), (settings.clone(), objects[1..].to_vec()));
    }
}

#[test]
fn a_new_owner_gets_the_objects_back() {
    requires!(root, criu);
    ours_only!("others give wrong numbers");
    let owner = Owner::new();
    let removed = owner.sysv(&["shm", "0", "100", "0600", "none"]);
    let held = owner.sysv_as_user(&["shm", KEY, "5001", "0646", "first"]);
    owner.sysv(&["rmshm", &removed]);
    let set = owner.sysv_as_user(&["sem", "0x77", "0640", "3", "4"]);
    let queue = owner.sysv_as_user(&["msg", "0x88", "0620", "5", "five", "6", "six"]);
    owner.inside("hostname old; echo 999999 > /proc/sys/kernel/shmmax");
    let mut c = holder(&owner);
    c.checkpoint(&[]).ok();
    let before = KINDS.map(|kind| owner.described(kind));
    drop(owner);
    let owner = Owner::new();
    rejoin(&mut c, &owner);
    let settings = owner.settings();
    c.restore(&[]).ok();
    assert_eq!(owner.settings(), settings);
    assert_eq!(settings["/proc/sys/kernel/shmmax"], "12345678");
    assert_eq!(KINDS.map(|kind| owner.described(kind)), before);
    sees(&c, "first");
    owner.sysv(&["write", &held, "second"]);
    sees(&c, "second");
    assert_eq!(owner.sysv(&["values", &set]), "3 4");
    assert_eq!(owner.sysv(&["messages", &queue]), "5:five 6:six");
    // What CRIU has made is what the images tell of, also when they are restored once more.
    c.runtime.cmd(&["delete", "--force", c.runtime.id()]).ok();
    c.restore(&[]).ok();
    sees(&c, "first");
    assert_eq!(KINDS.map(|kind| owner.described(kind)), before);
}

#[test]
fn a_segment_that_others_have_attached_is_refused() {
    requires!(root, criu);
    ours_only!("others say that the file exists");
    let owner = Owner::new();
    let held = owner.sysv(&["shm", KEY, "4096", "0600", "first"]);
    let c = holder(&owner);
    c.checkpoint(&[]).ok();
    owner.0.exec_with(&["--detach"], &["sysv", "hold", KEY]).ok();
    wait_until("the owner has it attached", || owner.attachments(&held) == Some(1));
    let (settings, objects) = (owner.settings(), owner.objects()[1..].to_vec());
    let words = format!("shared memory segment {held} (key 0x00001234), which the container has attached, is attached");
    refused(&c, c.restore(&[]), &words);
    assert_eq!(owner.attachments(&held), Some(1));
    assert_eq!((owner.settings(), owner.objects()[1..].to_vec()), (settings, objects));
    owner.0.exec_sh("kill $(pidof sysv)").ok();
    wait_until("the owner has let it go", || owner.attachments(&held) == Some(0));
    c.restore(&[]).ok();
    sees(&c, "first");
}

#[test]
fn a_segment_of_the_container_alone_gets_the_content_that_the_policy_wants() {
    requires!(root, criu);
    ours_only!("the policy is ours");
    // Sizes that are whole pages, and such that are nothing whole.
    for size in ["4096", "5001"] {
        let owner = Owner::new();
        let held = owner.sysv(&["shm", KEY, size, "0600", "then"]);
        let queue = owner.sysv(&["msg", "0x88", "0600", "5", "five"]);
        let c = holder(&owner);
        c.checkpoint(&["--leave-running"]).ok();
        for (options, text) in [(&["--shm-policy", "never"][..], "now"), (&[], "then")] {
            owner.sysv(&["write", &held, "now"]);
            sees(&c, "now");
            c.runtime.cmd(&["delete", "--force", c.runtime.id()]).ok();
            c.restore(options).ok();
            sees(&c, text);
            assert_eq!(owner.described("shm")[0], ["4660", held.as_str(), "600", size, "0", "0"]);
            assert_eq!(owner.sysv(&["messages", &queue]), "5:five");
        }
    }
}

#[test]
fn a_segment_that_goes_away_with_the_container_still_does() {
    requires!(root, criu);
    ours_only!("others leave it to the owner");
    let owner = Owner::new();
    let held = owner.sysv(&["shm", KEY, "4096", "0600", "doomed"]);
    let c = holder(&owner);
    owner.sysv(&["rmshm", &held]);
    assert_eq!(owner.attachments(&held), Some(1));
    for _ in 0..2 {
        c.checkpoint(&[]).ok();
        assert_eq!(owner.attachments(&held), None);
        c.restore(&[]).ok();
        sees(&c, "doomed");
        assert_eq!(owner.attachments(&held), Some(1));
    }
    c.runtime.cmd(&["delete", "--force", c.runtime.id()]).ok();
    assert_eq!(owner.attachments(&held), None);
}

#[test]
fn what_has_the_place_of_an_object_stays() {
    requires!(root, criu);
    ours_only!("others fail, or give wrong numbers");
    let owner = Owner::new();
    let set = owner.sysv(&["sem", "0x77", "0600", "1"]);
    owner.sysv(&["shm", KEY, "4096", "0600", "first"]);
    let mut c = holder(&owner);
    c.checkpoint(&[]).ok();
    drop(owner);
    let owner = Owner::new();
    rejoin(&mut c, &owner);
    assert_eq!(owner.sysv(&["sem", "0x66", "0600", "5", "6"]), set);
    let objects = owner.objects();
    c.restore(&[]).ok().stderr_contains(&format!(
        "semaphore set {set} (key 0x00000077) is not restored: in the joined namespace semaphore set {set} (key 0x00000066)"
    ));
    assert_eq!(owner.objects()[1..], objects[1..]);
    assert_eq!(owner.sysv(&["values", &set]), "5 6");
    c.runtime.cmd(&["delete", "--force", c.runtime.id()]).ok();
    // With a segment that the container has attached it could not go on.
    drop(owner);
    let owner = Owner::new();
    rejoin(&mut c, &owner);
    let other = owner.sysv(&["shm", "0x4321", "8192", "0600", "other"]);
    let objects = owner.objects();
    let words = format!("has lost its place to shared memory segment {other} (key 0x00004321)");
    refused(&c, c.restore(&[]), &words);
    assert_eq!(owner.objects(), objects);
}

#[test]
fn a_failed_restore_takes_its_objects_back() {
    requires!(root, criu);
    ours_only!("others leave them");
    let owner = Owner::new();
    owner.sysv(&["sem", "0x77", "0600", "1"]);
    owner.sysv(&["msg", "0x88", "0600", "5", "five"]);
    owner.sysv(&["shm", KEY, "4096", "0600", "first"]);
    let mut c = holder(&owner);
    c.checkpoint(&[]).ok();
    drop(owner);
    let owner = Owner::new();
    rejoin(&mut c, &owner);
    owner.sysv(&["sem", "0x66", "0600", "5", "6"]);
    let (settings, objects) = (owner.settings(), owner.objects());
    // CRIU has made them all when it comes to the mounts; and when it is done, it is we that can still fail.
    let tmpfs = fs::read_dir(c.images()).unwrap().map(|entry| entry.unwrap().path());
    let tmpfs = tmpfs.filter(|path| path.to_str().unwrap().ends_with(".tar.gz.img"));
    let good: Vec<_> = tmpfs.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    good.iter().for_each(|(path, _)| fs::write(path, "bad").unwrap());
    let failed = c.restore(&[]).exits(1).stderr_contains("criu failed");
    let log = c.log("restore.log");
    assert!(log.contains("Restoring IPC semaphores sets"), "{failed}\n{log}");
    good.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    assert_eq!((owner.settings(), owner.objects()), (settings.clone(), objects.clone()));
    c.restore(&["--pid-file", "/nowhere/at/all"]).exits(1).stderr_contains("/nowhere/at/");
    assert_eq!((owner.settings(), owner.objects()), (settings, objects));
    c.runtime.leaves_nothing();
    c.restore(&[]).ok();
    sees(&c, "first");
}

#[test]
fn a_killed_restore_leaves_nothing_that_delete_does_not_remove() {
    requires!(root, criu);
    ours_only!("the directory is ours");
    let owner = Owner::new();
    owner.sysv(&["shm", KEY, "4096", "0600", "first"]);
    let mut c = holder(&owner);
    c.checkpoint(&[]).ok();
    let before = fs::read_dir(c.images()).unwrap().count();
    let hook = c.place.path().join("hook");
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000", hook.display());
    let hooks = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
    c.runtime.edit(|config| config["hooks"] = hooks);
    let mut restore = c.line("restore", &["--detach", "--bundle", c.bundle()]);
    let mut restore = restore.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the hook runs", || hook.exists());
    let work = c.runtime.root().join(c.runtime.id()).join("criu-images");
    assert!(work.is_dir());
    restore.kill().unwrap();
    restore.wait().unwrap();
    assert!(Command::new("kill").arg(fs::read_to_string(&hook).unwrap().trim()).status().unwrap().success());
    c.runtime.cmd(&["delete", "--force", c.runtime.id()]).ok();
    assert!(!work.exists());
    wait_until("CRIU has ended what it had begun", || c.log("restore.log").contains("Restoring FAILED"));
    // One more file: CRIU's log.
    assert_eq!(fs::read_dir(c.images()).unwrap().count(), before + 1);
    c.runtime.edit(|config| config["hooks"] = json!({}));
    wait_until("its cgroup is free", || c.restore(&[]).code == 0);
    sees(&c, "first");
}

#[test]
fn namespaces_of_every_kind_are_shared_at_once() {
    requires!(root, criu);
    ours_only!("others do not wait for the old process to be reaped");
    let owner = Owner::new();
    let kinds = ["ipc", "uts", "network", "pid", "time"];
    let held = owner.sysv(&["shm", KEY, "4096", "0600", "first"]);
    let c = Checkpointed::run(joining(Bundle::new(&["sysv", "hold", KEY]).program("sysv"), &owner, &kinds));
    sees(&c, "first");
    owner.inside("hostname renamed");
    let shown = |pid: i32| {
        let files =
            ["timens_offsets", "net/route"].map(|name| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap());
        (["ipc", "uts", "net", "pid", "time"].map(|kind| namespace(pid, kind)), files)
    };
    let (before, settings) = (shown(owner.0.pid()), owner.settings());
    c.round_trip();
    assert_eq!((shown(c.runtime.pid()), shown(owner.0.pid())), (before.clone(), before));
    assert_eq!(owner.settings(), settings);
    assert_eq!(owner.0.status(), "running");
    owner.sysv(&["write", &held, "second"]);
    sees(&c, "second");
    // An owner that is gone is named.
    c.checkpoint(&[]).ok();
    let path = owner.path("ipc");
    drop(owner);
    let words = format!("open ipc namespace {}: no such file or directory", path.display());
    refused(&c, c.restore(&[]), &words);
}

#[test]
fn the_hosts_names_and_objects_stay() {
    requires!(root, criu);
    let sysv = |args: &[&str]| {
        let output = Command::new(crate::support::program("sysv")).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let limits = || {
        let files = ["kernel/hostname", "kernel/domainname", "kernel/sem", "kernel/shmmax", "kernel/msgmnb"];
        files.map(|name| fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap())
    };
    for own in [None, Some("/proc/self/ns/ipc")] {
        let mut bundle = Bundle::sh(COUNTER).without_namespace("ipc").without_namespace("uts");
        if let Some(own) = own {
            bundle = bundle.namespace("ipc", Some(Path::new(own)));
        }
        let c = Checkpointed::run(bundle.with(|config| drop(config.as_object_mut().unwrap().remove("hostname"))));
        let set = sysv(&["sem", "0", "0600", "3", "4"]);
        c.checkpoint(&[]).ok();
        assert!(!c.images().read_dir().unwrap().any(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.starts_with("ipcns-") || name.starts_with("utsns-")
        }));
        sysv(&["add", &set, "0", "5"]);
        let (late, before) = (sysv(&["msg", "0", "0600", "1", "late"]), limits());
        let restored = c.restore(&[]);
        let found = (sysv(&["values", &set]), sysv(&["messages", &late]), limits());
        sysv(&["rmsem", &set]);
        sysv(&["rmmsg", &late]);
        restored.ok();
        assert_eq!(found, ("8 4".to_owned(), "1:late".to_owned(), before));
        for kind in ["ipc", "uts"] {
            assert_eq!(namespace(c.runtime.pid(), kind), namespace(std::process::id() as i32, kind));
        }
        c.counts();
    }
}

#[test]
fn kinds_that_cannot_be_joined_are_refused_before_anything_is_made() {
    requires!(root, criu);
    ours_only!("others leave it to CRIU to fail");
    let mut c = Checkpointed::counter();
    c.checkpoint(&[]).ok();
    let config = c.runtime.bundle().config().clone();
    // The host's would be the host's by path too.
    let owner = crate::namespaces::Owner::new(&["--user", "--mount", "--cgroup", "--uts"]);
    for (kind, name) in [("user", "user"), ("mount", "mnt"), ("cgroup", "cgroup")] {
        let path = owner.path(name).to_str().unwrap().to_owned();
        c.runtime.edit(|edited| {
            *edited = config.clone();
            let namespaces = edited["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != kind);
            namespaces.push(json!({"type": kind, "path": path}));
        });
        let words = format!("a checkpoint cannot be restored into a {kind} namespace that exists: {path}");
        refused(&c, c.restore(&[]), &words);
    }
    c.runtime.edit(|edited| *edited = config);
    c.restore(&[]).ok();
}
