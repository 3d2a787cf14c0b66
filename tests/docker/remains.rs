//! What is left of containers and of the daemon: nothing.

use crate::daemon::Daemon;
use crate::support::wait_until;
use std::fs;

#[test]
fn removed_container_leaves_nothing() {
    let docker = docker!();
    let container = docker.start(&["--memory=64m"], "exec sleep 1000");
    container.exec(&["-d"], "exec sleep 1000").ok();
    // The state directory and a cgroup at least, or this looks in the wrong places.
    assert!(container.holdings().len() >= 2, "{:?}", container.holdings());
    container.docker("rm --force").ok();
    assert!(container.holdings().is_empty(), "{:?}", container.holdings());
}

#[test]
fn ended_container_leaves_nothing() {
    let docker = docker!();
    let container = docker.start(&[], "exit 3");
    container.becomes("exited");
    // containerd deletes it when it has told dockerd of its end.
    wait_until("nothing is left", || container.holdings().is_empty());
}

#[test]
fn failed_start_leaves_nothing() {
    let docker = docker!();
    let name = "never-started";
    docker.docker(&["create", "--name", name, "--network=none", "busybox", "nosuch"]).ok();
    docker.docker(&["start", name]).fails().stderr_contains("executable file not found");
    let id = docker.docker(&["inspect", "-f", "{{.Id}}", name]).ok();
    assert!(!docker.state().join(id.text()).exists());
    assert!(!docker.cgroups().iter().any(|dir| dir.ends_with(id.text())), "{:?}", docker.cgroups());
    docker.docker(&["rm", name]).ok();
}

#[test]
fn daemon_leaves_nothing() {
    let _other = docker!();
    let daemon = Daemon::begin().unwrap();
    let dir = daemon.dir().to_owned();
    let container = daemon.start(&[], "exec sleep 1000");
    assert!(!container.holdings().is_empty());
    // The container is still running when its daemon ends.
    std::mem::forget(container);
    assert!(!users_of(dir.to_str().unwrap()).is_empty());
    drop(daemon);
    assert!(!dir.exists());
    assert_eq!(users_of(dir.to_str().unwrap()), [""; 0]);
    let cgroups = fs::read_dir("/sys/fs/cgroup").unwrap().map(|top| top.unwrap().path().join(dir.file_name().unwrap()));
    assert!(cgroups.into_iter().all(|cgroup| !cgroup.exists()));
}

/// Returns the command lines of processes that were started for the daemon in the directory, or see its mounts.
fn users_of(dir: &str) -> Vec<String> {
    let pids = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let text =
        |path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " ")).unwrap_or_default();
    let uses =
        |pid: &std::path::PathBuf| text(pid.join("cmdline")).contains(dir) || text(pid.join("mountinfo")).contains(dir);
    pids.filter(uses).map(|pid| text(pid.join("cmdline"))).collect()
}
