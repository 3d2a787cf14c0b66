//! What is left of containers and of Podman: nothing.

use crate::engine::Podman;
use crate::support::wait_until;

#[test]
fn removed_container_leaves_nothing() {
    let podman = podman!();
    let container = podman.start(&["--memory=64m"], "exec sleep 1000");
    // The state directory and a cgroup at least, or this looks in the wrong places.
    assert!(container.holdings().len() >= 2, "{:?}", container.holdings());
    container.podman("rm --force --time 0").ok();
    assert_eq!(container.holdings(), [""; 0].map(std::path::PathBuf::from));
}

#[test]
fn checkpoint_leaves_nothing() {
    let podman = podman!();
    requires!(criu);
    let container = podman.start(&[], "exec sleep 1000");
    container.checkpoint(&[]).ok();
    wait_until("nothing is left", || container.holdings().is_empty());
    container.restore(&[]).ok();
    container.podman("rm --force --time 0").ok();
    assert_eq!(container.holdings(), [""; 0].map(std::path::PathBuf::from));
}

#[test]
fn enclosure_leaves_nothing() {
    requires!(root, podman);
    let podman = Podman::begin().unwrap();
    let dir = podman.dir().to_owned();
    // The container is still running when the enclosure ends.
    std::mem::forget(podman.start(&[], "exec sleep 1000"));
    assert!(!podman.cgroups().is_empty());
    drop(podman);
    assert!(!dir.exists());
    let name = dir.file_name().unwrap().to_str().unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(name), "{mounts}");
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().map(|top| top.unwrap().path());
    assert!(hierarchies.into_iter().all(|top| !top.join(name).exists()));
}
