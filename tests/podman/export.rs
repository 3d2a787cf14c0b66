//! Checkpoints that leave Podman's directories, as archives and as images, and come back under new names.

use crate::engine::{Container, Podman};

/// Restores from an archive under a new name.
fn import<'a>(podman: &'a Podman, archive: &str) -> Container<'a> {
    let name = podman.free_name();
    let id = podman.podman(&["container", "restore", "--import", archive, "--name", &name]).ok();
    podman.adopt(name, id.text())
}

/// Starts a keeper; it has a file in its root file system, too.
fn keeper(podman: &Podman) -> Container<'_> {
    let container = podman.start_program(&[], &["shm_keeper", "dense"]);
    container.keeps(3);
    container
}

fn archive(podman: &Podman, name: &str) -> String {
    podman.dir().join(name).display().to_string()
}

#[test]
fn container_moves_under_a_new_name() {
    let podman = podman!();
    requires!(criu);
    ours_only!("the file without a name is larger than what runc's CRIU keeps by default");
    let (container, archive) = (keeper(podman), archive(podman, "moved.tar.gz"));
    let before = container.keeps(0);
    container.checkpoint(&["--export", &archive]).ok();
    // Nothing of it is needed any more.
    container.podman("rm").ok();
    let moved = import(podman, &archive);
    assert!(moved.keeps(3) >= before + 3);
    assert_ne!(moved.id(), container.id());
    // From what it is now.
    moved.checkpoint(&["--export", &archive]).ok();
    moved.podman("rm").ok();
    assert!(import(podman, &archive).keeps(3) >= before + 6);
}

#[test]
fn clones_have_each_their_own() {
    let podman = podman!();
    requires!(criu);
    ours_only!("the file without a name is larger than what runc's CRIU keeps by default");
    let (container, archive) = (keeper(podman), archive(podman, "cloned.tar"));
    let status = container.checkpoint(&["--export", &archive, "--leave-running", "--compress=none"]);
    status.ok();
    let clones = [import(podman, &archive), import(podman, &archive)];
    for one in [&container, &clones[0], &clones[1]] {
        one.keeps(3);
        one.exec(&format!("echo {0} >/dev/shm/name; echo {0} >/name", one.name())).ok();
    }
    for one in [&container, &clones[0], &clones[1]] {
        one.exec("cat /dev/shm/name /name").ok().prints(&format!("{0}\n{0}", one.name()));
        one.keeps(3);
    }
}

#[test]
fn checkpoint_is_an_image() {
    let podman = podman!();
    requires!(criu);
    ours_only!("the file without a name is larger than what runc's CRIU keeps by default");
    let container = keeper(podman);
    let image = format!("checkpoint-of-{}", container.name());
    let before = container.keeps(0);
    container.checkpoint(&["--create-image", &image]).ok();
    container.podman("rm").ok();
    podman.podman(&["container", "restore", &image]).ok();
    assert!(container.keeps(3) >= before + 3);
    podman.podman(&["rmi", "--force", &image]).ok();
}
