//! Checkpoints in each of Podman's IPC modes: everything that a program holds in /dev/shm goes on being there.
//!
//! Podman, too, puts what it finds in a /dev/shm of its own into an archive, once the runtime has returned, and back
//! before it calls the runtime. That archive keeps no holes and no attributes, so the keepers here have none.

use crate::engine::{Container, Podman};

/// Podman mounts no /dev/shm with `--ipc none`; a program may make itself one.
const KEEPER: &str = "mkdir -p /dev/shm; exec shm_keeper dense";

fn keeper<'a>(podman: &'a Podman, option: &str) -> Container<'a> {
    let container = podman.start(&[option], KEEPER);
    container.keeps(3);
    container
}

/// Checkpoints and restores a keeper, twice.
#[track_caller]
fn expect_to_keep(container: &Container<'_>) {
    for _ in 0..2 {
        let before = container.keeps(0);
        container.checkpoint(&[]).ok();
        assert_eq!(container.inspect("State.Status"), "exited");
        container.restore(&[]).ok();
        assert!(container.keeps(3) >= before + 3);
    }
}

#[test]
fn private() {
    let podman = podman!();
    requires!(criu);
    ours_only!("the file without a name is larger than what runc's CRIU keeps by default");
    expect_to_keep(&keeper(podman, "--ipc=private"));
}

#[test]
fn shareable() {
    let podman = podman!();
    requires!(criu);
    ours_only!("the file without a name is larger than what runc's CRIU keeps by default");
    expect_to_keep(&keeper(podman, "--ipc=shareable"));
}

#[test]
fn none() {
    let podman = podman!();
    requires!(criu);
    ours_only!("the file without a name is larger than what runc's CRIU keeps by default");
    expect_to_keep(&keeper(podman, "--ipc=none"));
}

#[test]
fn of_another_container() {
    let podman = podman!();
    requires!(criu);
    ours_only!("runc damages the namespace that is joined");
    let owner = podman.start(&["--ipc=shareable"], "echo theirs >/dev/shm/theirs; exec sleep 1000");
    let container = keeper(podman, &format!("--ipc=container:{}", owner.name()));
    expect_to_keep(&container);
    owner.exec("cat /dev/shm/theirs; test -e /dev/shm/mapped && echo shared").ok().prints("theirs\nshared");
    // Podman removes no container on which another depends.
    drop(container);
}

#[test]
fn of_a_pod() {
    let podman = podman!();
    requires!(criu);
    ours_only!("runc damages the namespaces that are joined");
    /// Removes the pod, and all of its containers.
    struct Pod<'a>(&'a Podman, String);
    impl Drop for Pod<'_> {
        fn drop(&mut self) {
            let _removed = self.0.podman(&["pod", "rm", "--force", "--time=0", &self.1]);
        }
    }
    let pod = Pod(podman, podman.free_name());
    let sleeper = ["--infra-image=busybox", "--infra-command=sleep 1000", "--share=ipc,net,uts", "--network=none"];
    let parent = podman.cgroup_parent();
    let make = [&["pod", "create", "--hostname=whole-pod", &parent, "--name", &pod.1], sleeper.as_slice()].concat();
    podman.podman(&make).ok();
    let container = keeper(podman, &format!("--pod={}", pod.1));
    let neighbour = podman.start(&[&format!("--pod={}", pod.1)], "echo theirs >/dev/shm/theirs; exec sleep 1000");
    expect_to_keep(&container);
    for one in [&container, &neighbour] {
        one.exec("hostname; cat /dev/shm/theirs; test -e /dev/shm/mapped && echo shared")
            .ok()
            .prints("whole-pod\ntheirs\nshared");
    }
}
