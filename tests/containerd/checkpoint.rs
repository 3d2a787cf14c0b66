//! `ctr task checkpoint`, which writes into containerd's content store or into a directory, and `ctr containers
//! checkpoint` and `restore`, which make an image of a container and a container of that.

use crate::engine::{Containerd, STATE, Task};
use crate::support::{Output, Runtime};
use std::path::PathBuf;

/// Starts a keeper: see tests/programs/shm_keeper.c. Its /dev/shm is what ctr makes of it, a tmpfs inside.
fn keeper(containerd: &Containerd) -> Task<'_> {
    let task = containerd.start(&[], &["shm_keeper"]);
    task.keeps(3);
    task
}

/// Returns the names of images that containerd has of a container.
fn images(containerd: &Containerd, task: &Task<'_>) -> Vec<String> {
    let all = containerd.ctr(&["images", "ls", "--quiet"]).ok();
    let names = all.lines().into_iter().filter(|name| name.contains(&format!("checkpoint/{}:", task.name())));
    names.map(str::to_owned).collect()
}

/// Makes an image of a running container, with its memory and what it has written.
#[track_caller]
fn save(containerd: &Containerd, task: &Task<'_>) -> String {
    let reference = format!("test/checkpoint/{}:latest", task.name());
    let command = ["containers", "checkpoint", "--rw", "--image", "--task", task.name(), &reference];
    containerd.ctr(&command).ok();
    reference
}

#[test]
fn task_goes_on_after_a_checkpoint() {
    let containerd = containerd!();
    requires!(criu);
    ours_only!("the file without a name is larger than what runc's CRIU keeps by default");
    let task = keeper(containerd);
    task.task("checkpoint").ok().stdout_contains(&format!("containerd.io/checkpoint/{}:", task.name()));
    assert_eq!(task.status(), "RUNNING");
    task.keeps(3);
    assert_eq!(images(containerd, &task).len(), 1);
}

#[test]
fn task_ends_with_its_checkpoint_if_asked_to() {
    let containerd = containerd!();
    requires!(criu);
    ours_only!("the file without a name is larger than what runc's CRIU keeps by default");
    let task = keeper(containerd);
    task.task("checkpoint --exit").ok();
    task.becomes("STOPPED");
    assert_eq!(images(containerd, &task).len(), 1);
}

/// Restores a container from a directory of images, by the runtime itself: ctr cannot. Its bundle is that of a task
/// that has ended.
fn restore_by_hand(containerd: &Containerd, task: &Task<'_>, directory: &str) -> impl Fn(&str) -> Output {
    let (runtime, bundle, dir) = (Runtime::found(), containerd.bundle(task), containerd.dir().display().to_string());
    let command = format!("cd {dir} && {} --root {dir}/by-hand", runtime.display());
    let id = format!("{}-by-hand", task.name());
    let script = format!("{command} restore --detach --bundle {} --image-path {directory} {id}", bundle.display());
    containerd.inside(&format!("{script} </dev/null >{id}.log 2>&1 || {{ cat {id}.log; exit 1; }}")).ok();
    move |verb| containerd.inside(&format!("{command} {}", verb.replace("ID", &id)))
}

#[test]
fn images_go_into_a_directory_if_asked_to() {
    let containerd = containerd!();
    requires!(criu);
    ours_only!("the file without a name is larger than what runc's CRIU keeps by default");
    let task = keeper(containerd);
    let path = |name: &str| containerd.dir().join(format!("{}-{name}", task.name()));
    let options =
        |images: &PathBuf, work: &PathBuf| format!("--image-path {} --work-path {}", images.display(), work.display());
    // Once and going on, and then for good.
    let (images, work) = (path("first"), path("work"));
    std::fs::create_dir(&work).unwrap();
    task.task(&format!("checkpoint {}", options(&images, &work))).ok();
    assert!(images.join("pstree.img").exists() && work.join("dump.log").exists());
    let before = task.keeps(3);
    let images = path("second");
    task.task(&format!("checkpoint --exit {}", options(&images, &work))).ok();
    task.becomes("STOPPED");

    let by_hand = restore_by_hand(containerd, &task, images.to_str().unwrap());
    let after = crate::support::keeps(3, || by_hand("exec ID cat /dev/shm/status").stdout);
    assert!(after >= before + 3);
    by_hand("delete --force ID").ok();
}

#[test]
fn container_comes_back_under_a_new_name() {
    let containerd = containerd!();
    requires!(criu);
    ours_only!("the file without a name is larger than what runc's CRIU keeps by default");
    let task = keeper(containerd);
    let before = task.keeps(0);
    let saved = save(containerd, &task);
    task.keeps(3);
    task.remove().ok();
    let restored = containerd.restore(&["--rw", "--live"], &saved);
    assert!(restored.keeps(3) >= before + 3);
    // By the runtime under test, not by the one that containerd would take by itself.
    assert!(restored.holdings().iter().any(|path| path.starts_with(STATE)), "{:?}", restored.holdings());

    // From what it is now; containerd itself leaves the task out of a second image.
    let images = containerd.dir().join(restored.name()).display().to_string();
    restored.task(&format!("checkpoint --exit --image-path {images}")).ok();
    restored.becomes("STOPPED");
    let by_hand = restore_by_hand(containerd, &restored, &images);
    assert!(crate::support::keeps(3, || by_hand("exec ID cat /dev/shm/status").stdout) >= before + 6);
    by_hand("delete --force ID").ok();
}

#[test]
fn checkpoint_is_restored_again_and_again() {
    let containerd = containerd!();
    requires!(criu);
    ours_only!("the file without a name is larger than what runc's CRIU keeps by default");
    let task = keeper(containerd);
    let saved = save(containerd, &task);
    task.remove().ok();
    // One after the other: containerd gives them all the cgroup of the first.
    for _ in 0..2 {
        let restored = containerd.restore(&["--rw", "--live"], &saved);
        restored.keeps(3);
        restored.exec("test ! -e /dev/shm/new && test ! -e /new && echo it >/dev/shm/new && echo it >/new").ok();
        restored.keeps(3);
    }
}

#[test]
fn refused_checkpoint_says_why_and_the_task_goes_on() {
    let containerd = containerd!();
    requires!(criu);
    ours_only!("runc says what CRIU says");
    let task = containerd.start(&[], &["shm_keeper", "lock"]);
    task.keeps(1);
    task.task("checkpoint --exit").fails().stderr_contains("--file-locks");
    assert_eq!(task.status(), "RUNNING");
    task.keeps(3);
}
