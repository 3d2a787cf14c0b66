//! Images that crun has made. It has other names than runc for what it leaves out, and leaves out more.

use crate::namespaces::Owner;
use crate::peer::Peer;
use crate::support::{Bundle, CRUN, Console, Layout, read_until, type_line};
use crate::{COUNTER, Checkpointed, namespace, ours_only, requires};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// A file that is hidden, and directories.
const MASKED: [&str; 3] = ["/proc/timer_list", "/proc/acpi", "/sys/firmware"];

/// Runs a counter with crun and lets it be dumped; returns how far it was.
#[track_caller]
fn dumped_by_crun(c: &Checkpointed) -> u32 {
    let crun = Peer::new(c, CRUN);
    crun.detached(&["run"]);
    crun.wait_for("/dev/shm/count", |count| count.parse::<u32>().is_ok_and(|count| count > 3));
    fs::write(crun.path("/dev/shm/word"), "kept").unwrap();
    let count = fs::read_to_string(crun.path("/dev/shm/count")).unwrap().trim().parse().unwrap_or(3);
    crun.checkpoint();
    count
}

/// Expects a container to be as crun made it, and as ours are.
#[track_caller]
fn is_whole(c: &Checkpointed, before: u32) {
    c.counts();
    assert!(c.count() > before);
    c.runtime.exec(&["cat", "/dev/shm/word"]).ok().prints("kept");
    c.runtime.exec(&["hostname"]).ok().prints("of-crun");
    c.runtime.exec(&["cat", "/data/file"]).ok().prints("host");
    for path in MASKED {
        c.runtime.exec_sh(&format!("[ -d {path} ] && ls -A {path} || cat {path}")).ok().prints("");
        c.runtime.exec_sh(&format!("[ ! -d {path} ] || ! touch {path}/new")).ok();
    }
    let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", c.runtime.pid())).unwrap();
    assert!(cgroups.contains(&format!("/{}\n", c.runtime.id())), "{cgroups}");
}

fn bundle(layout: Layout) -> Bundle {
    let bundle = Bundle::sh(COUNTER).layout(layout).with(|config| config["hostname"] = "of-crun".into());
    let source = bundle.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "host").unwrap();
    bundle.mount("/data", "bind", &source, &["bind", "ro"])
}

/// Restores what crun has dumped, dumps it, and restores it once more.
#[track_caller]
fn becomes_ours(layout: Layout) {
    let c = Checkpointed::of(bundle(layout));
    let before = dumped_by_crun(&c);
    c.restore(&[]).ok();
    is_whole(&c, before);
    let before = c.count();
    c.round_trip();
    is_whole(&c, before);
    c.runtime.cmd(&["delete", "--force", c.runtime.id()]).ok();
    c.runtime.leaves_nothing();
}

#[test]
fn on_cgroup_v1_they_are_restored() {
    requires!(root, criu, crun, cgroup_v1);
    ours_only!("it is about images of crun's");
    becomes_ours(Layout::V1);
}

#[test]
fn on_cgroup_v2_they_are_restored() {
    requires!(root, criu, crun, cgroup_v2);
    ours_only!("it is about images of crun's");
    becomes_ours(Layout::V2);
}

#[test]
fn a_clone_shows_its_own_cgroups() {
    requires!(root, criu, crun, cgroup_v1);
    ours_only!("it is about images of crun's");
    let c = Checkpointed::of(bundle(Layout::V1));
    // crun knows no hybrid layout: its container is in the root of cgroup2, with everybody's below it.
    let unified = Path::new("/sys/fs/cgroup/unified");
    let neighbour = unified.join(format!("{}-neighbour", c.runtime.id()));
    if unified.exists() {
        fs::create_dir(&neighbour).unwrap();
    }
    dumped_by_crun(&c);
    if unified.exists() {
        fs::remove_dir(&neighbour).unwrap();
    }
    for layout in [Layout::V1, Layout::Host] {
        let clone = Checkpointed::of(bundle(layout));
        clone.restore(&["--image-path", c.images().to_str().unwrap()]).ok();
        clone.counts();
        let inside = clone.runtime.exec(&["cat", "/sys/fs/cgroup/pids/cgroup.procs"]).ok();
        assert!(inside.lines().contains(&"1"), "{inside}");
        let own = fs::read_to_string(format!("/proc/{}/cgroup", clone.runtime.pid())).unwrap();
        assert!(own.contains(&format!(":pids:/{}\n", clone.runtime.id())) && !own.contains(c.runtime.id()), "{own}");
        let below = fs::read_dir(unified.join(clone.runtime.id())).into_iter().flatten().flatten();
        let below: Vec<_> = below.filter(|entry| entry.file_type().unwrap().is_dir()).collect();
        assert!(below.is_empty(), "{below:?}");
    }
    c.runtime.leaves_nothing();
}

#[test]
fn its_output_goes_on_in_another_pipe() {
    requires!(root, criu, crun, cgroup_v2);
    ours_only!("it is about images of crun's");
    let script = "i=0; while true; do i=$((i+1)); echo $i; sleep 0.05; done";
    let c = Checkpointed::of(Bundle::sh(script).layout(Layout::V2));
    let crun = Peer::new(&c, CRUN);
    let number = |line: String| line.trim().parse::<u32>().unwrap();
    let read = |reader: &mut dyn BufRead| {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        number(line)
    };
    let (out, into) = std::io::pipe().unwrap();
    let mut run = crun.command(&["run", "--detach", "--bundle", c.bundle()]);
    assert!(run.stdout(into).stderr(std::process::Stdio::null()).status().unwrap().success());
    drop(run);
    let mut out = BufReader::new(out);
    assert_eq!([read(&mut out), read(&mut out), read(&mut out)], [1, 2, 3]);
    crun.checkpoint();
    let last = out.lines().map(|line| number(line.unwrap())).last().unwrap_or(3);
    let (out, into) = std::io::pipe().unwrap();
    let mut restore = c.line("restore", &["--detach", "--bundle", c.bundle()]);
    assert!(restore.stdout(into).stderr(std::process::Stdio::null()).status().unwrap().success());
    drop(restore);
    assert_eq!(read(&mut BufReader::new(out)), last + 1);
}

#[test]
fn its_terminal_goes_to_the_console_socket() {
    requires!(root, criu, crun, cgroup_v2, terminals);
    ours_only!("it is about images of crun's");
    let script = "i=0; while read x; do i=$((i+1)); echo \"$x $i\"; done";
    let bundle = Bundle::sh(script).layout(Layout::V2).with(|config| config["process"]["terminal"] = true.into());
    let c = Checkpointed::of(bundle);
    let crun = Peer::new(&c, CRUN);
    let console = Console::listen(c.runtime.bundle());
    crun.detached(&["run", "--console-socket", console.path()]);
    let mut terminal = console.terminal();
    type_line(&mut terminal, "first");
    read_until(&mut terminal, "first 1");
    crun.checkpoint();
    drop(terminal);
    c.restore(&["--console-socket", console.path()]).ok();
    let mut terminal = console.terminal();
    type_line(&mut terminal, "second");
    read_until(&mut terminal, "second 2");
}

#[test]
fn its_joined_namespaces_are_joined_again() {
    requires!(root, criu, crun, cgroup_v2);
    ours_only!("it is about images of crun's");
    let owner = Owner::new(&["--net", "--ipc", "--uts"]);
    let join = |bundle: Bundle, (kind, name): (&str, &str)| bundle.namespace(kind, Some(&owner.path(name)));
    let kinds = [("network", "net"), ("ipc", "ipc")];
    let c = Checkpointed::of(kinds.into_iter().fold(bundle(Layout::V2), join));
    let before = dumped_by_crun(&c);
    c.restore(&[]).ok();
    is_whole(&c, before);
    for (_, name) in kinds {
        assert_eq!(namespace(c.runtime.pid(), name), owner.path(name).read_link().unwrap());
    }
}

#[test]
fn what_hides_paths_is_not_asked_for() {
    requires!(root, criu, crun, cgroup_v2);
    ours_only!("other runtimes have no inspect-image");
    let c = Checkpointed::of(bundle(Layout::V2));
    dumped_by_crun(&c);
    let told = c.runtime.cmd(&["inspect-image", "--format", "json", c.images().to_str().unwrap()]).ok().json();
    assert_eq!((&told["restorable"], &told["needs"]["mounts"]), (&true.into(), &serde_json::json!(["/data"])));
}
