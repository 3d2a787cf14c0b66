//! Checkpoints in each of Docker's IPC modes: everything that a program holds in /dev/shm goes on being there.
//!
//! The program is tests/programs/shm_keeper.c, which has an open descriptor, shared mappings, a file without a name and a
//! file of 1 GiB that is mostly hole, and checks them all again and again.

use crate::container::Container;
use crate::daemon::Daemon;
use crate::support;

/// Docker mounts no /dev/shm with `--ipc none`; a program may make itself one.
const KEEPER: &str = "mkdir -p /dev/shm; exec shm_keeper";

/// What the keeper has made.
const FILES: &str = "status open mapped log sparse owned fifo symlink sticky";

/// Starts a keeper.
fn keeper<'a>(docker: &'a Daemon, ipc: &str) -> Container<'a> {
    let container = docker.start(&["--network=host", ipc], KEEPER);
    keeps(&container, 3);
    container
}

/// Waits until the keeper has checked everything at least `more` times, and returns how many times it has.
#[track_caller]
fn keeps(container: &Container<'_>, more: u32) -> u32 {
    support::keeps(more, || container.exec(&[], "cat /dev/shm/status").stdout)
}

/// Checkpoints and restores a keeper, twice.
#[track_caller]
fn expect_to_keep(docker: &Daemon, container: &Container<'_>) {
    for checkpoint in ["cp1", "cp2"] {
        let before = keeps(container, 0);
        docker.docker(&["checkpoint", "create", container.name(), checkpoint]).ok();
        container.becomes("exited");
        container.restore(checkpoint);
        assert!(keeps(container, 3) >= before + 3);
    }
}

#[test]
fn private() {
    let docker = docker!();
    requires!(criu);
    expect_to_keep(docker, &keeper(docker, "--ipc=private"));
}

#[test]
fn shareable() {
    let docker = docker!();
    requires!(criu);
    ours_only!("runc fails to restore with a file of it open");
    let container = keeper(docker, "--ipc=shareable");
    docker.docker(&["checkpoint", "create", "--leave-running", container.name(), "cp0"]).ok();
    keeps(&container, 3);
    expect_to_keep(docker, &container);
}

#[test]
fn none() {
    let docker = docker!();
    requires!(criu);
    expect_to_keep(docker, &keeper(docker, "--ipc=none"));
}

#[test]
fn host() {
    let docker = docker!();
    requires!(criu);
    /// Removes from the host's /dev/shm what the keeper has made there.
    struct Tidy;
    impl Drop for Tidy {
        fn drop(&mut self) {
            let script = format!("cd /dev/shm && rm -rf {FILES}");
            let _removed = std::process::Command::new("sh").args(["-c", &script]).status();
        }
    }
    let _tidy = Tidy;
    let container = keeper(docker, "--ipc=host");
    let own = format!("echo \"the host's\" >/dev/shm/stasis-docker-{}", std::process::id());
    docker.among_its_mounts(&own).ok();
    expect_to_keep(docker, &container);
    let own = format!("f=/dev/shm/stasis-docker-{}; cat $f; rm $f", std::process::id());
    docker.among_its_mounts(&own).ok().prints("the host's");
}

#[test]
fn of_another_container() {
    let docker = docker!();
    requires!(criu);
    ours_only!("runc damages the namespace that is joined");
    let owner = docker.start(&["--ipc=shareable"], "echo theirs >/dev/shm/theirs; exec sleep 1000");
    let container = keeper(docker, &format!("--ipc=container:{}", owner.name()));
    expect_to_keep(docker, &container);
    owner.exec(&[], "cat /dev/shm/theirs; test -e /dev/shm/sparse && echo shared").ok().prints("theirs\nshared");
    container.exec(&[], "cat /dev/shm/theirs").ok().prints("theirs");
}
