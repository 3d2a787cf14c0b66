//! What is left of containers and of containerd: nothing.

use crate::engine::Containerd;
use crate::support::wait_until;

#[test]
fn removed_container_leaves_nothing() {
    let containerd = containerd!();
    let task = containerd.start_sh("exec sleep 1000");
    // The state directory and a cgroup at least, or this looks in the wrong places.
    assert!(task.holdings().len() >= 2, "{:?}", task.holdings());
    task.remove().ok();
    assert_eq!(task.holdings(), [""; 0].map(std::path::PathBuf::from));
}

#[test]
fn checkpoint_leaves_nothing() {
    let containerd = containerd!();
    requires!(criu);
    let task = containerd.start_sh("exec sleep 1000");
    let images = containerd.dir().join(task.name());
    task.task(&format!("checkpoint --exit --image-path {}", images.display())).ok();
    wait_until("nothing is left", || task.holdings().is_empty());
}

#[test]
fn daemon_leaves_nothing() {
    requires!(root, containerd);
    let containerd = Containerd::begin().unwrap();
    let dir = containerd.dir().to_owned();
    // The container is still running when its daemon ends.
    std::mem::forget(containerd.start_sh("exec sleep 1000"));
    assert!(!containerd.cgroups().is_empty());
    drop(containerd);
    assert!(!dir.exists());
    let name = dir.file_name().unwrap().to_str().unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(name), "{mounts}");
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().map(|top| top.unwrap().path());
    assert!(hierarchies.into_iter().all(|top| !top.join(name).exists()));
}
