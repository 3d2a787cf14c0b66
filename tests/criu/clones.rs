//! Several containers from one image: side by side, one after the other, and beside the original.

use crate::support::{Bundle, HostTmpfs, Output, wait_until, with_shm};
use crate::{COUNTER, Checkpointed, ours_only, requires};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

const CLONES: u32 = 4;

/// Counts in its memory, from where it is told to, and shows it in a file of each kind that is open all the time.
const ADDER: &str = "i=0; exec 3> /dev/shm/open 4>> /appended; while true; do i=$((i+1)); \
    [ -f /dev/shm/add ] && i=$((i + $(cat /dev/shm/add))) && rm /dev/shm/add; \
    echo $i >&3; echo $i >&4; echo $i > /dev/shm/count; sleep 0.05; done";

fn writable(bundle: Bundle) -> Bundle {
    bundle.with(|config| config["root"]["readonly"] = json!(false))
}

/// Returns the content of every file of a directory.
fn content(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

impl Checkpointed {
    /// Makes a container of this bundle ready to become one from the images of another, with whose state it is kept.
    fn sibling(&self, bundle: Bundle) -> Self {
        let root = self.runtime.root();
        fs::create_dir_all(&root).unwrap();
        Self::of(bundle.prepare(|path| symlink(root, path.join("state")).unwrap()))
    }

    /// Gives the root file system a file that another one's has: whose they are is the caller's business.
    fn take(&self, file: &str, from: &Self) {
        let path = |c: &Self| c.runtime.bundle().rootfs().join(file);
        fs::copy(path(from), path(self)).unwrap();
    }

    /// Begins a restore from the images of another, which logs elsewhere.
    fn begin(&self, images: &Path) -> Child {
        let work = self.place.path().join("work");
        let options = ["--detach", "--bundle", self.bundle(), "--work-path", work.to_str().unwrap()];
        let mut command = self.line("restore", &[&options[..], &["--image-path", images.to_str().unwrap()]].concat());
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Restores from the images of another.
    #[track_caller]
    fn become_clone(&self, images: &Path, options: &[&str]) -> Output {
        self.restore(&[&["--image-path", images.to_str().unwrap()], options].concat())
    }

    /// Returns the last lines of the files that an adder has open: in /dev/shm, and in its root file system.
    fn written(&self) -> [u32; 2] {
        let last = self.runtime.exec_sh("tail -n 1 /dev/shm/open; tail -n 1 /appended").ok();
        let numbers: Vec<u32> = last.lines().iter().map(|line| line.parse().unwrap()).collect();
        numbers.try_into().unwrap()
    }
}

/// Restores all of them at the same time.
#[track_caller]
fn restore_all(clones: &[Checkpointed], images: &Path) {
    let restores: Vec<Child> = clones.iter().map(|clone| clone.begin(images)).collect();
    for (mut restore, clone) in restores.into_iter().zip(clones) {
        let log = clone.place.path().join("work/restore.log");
        assert!(restore.wait().unwrap().success(), "{}", fs::read_to_string(log).unwrap_or_default());
    }
}

#[test]
fn several_at_once_have_nothing_in_common() {
    requires!(root, criu);
    let adder = || writable(Bundle::sh(ADDER));
    let c = Checkpointed::run(adder());
    wait_until("it counts", || c.count() > 3);
    c.checkpoint(&[]).ok();
    let before = content(&c.images());
    let clones: Vec<_> = (0..CLONES).map(|_| c.sibling(adder())).collect();
    clones.iter().for_each(|clone| clone.take("appended", &c));
    restore_all(&clones, &c.images());
    assert_eq!(content(&c.images()), before, "the images have changed");

    // Each goes its own way: in its memory, its /dev/shm, its root file system.
    for (number, clone) in (1..).zip(&clones) {
        clone.runtime.exec_sh(&format!("echo {number}000000 > /dev/shm/new && mv /dev/shm/new /dev/shm/add")).ok();
    }
    for (number, clone) in (1..).zip(&clones) {
        let its_own = |count: u32| count / 1_000_000 == number;
        wait_until("it counts from where it was told to", || its_own(clone.count()));
        clone.counts();
        assert!(clone.written().into_iter().all(its_own), "{:?}", clone.written());
    }
    each_is_what_it_is_said_to_be(&clones);

    let list = || c.runtime.cmd(&["list", "--quiet"]).ok().lines().iter().map(ToString::to_string).collect();
    let mut ids: BTreeSet<String> = clones.iter().map(|clone| clone.runtime.id().to_owned()).collect();
    for clone in &clones {
        let listed: BTreeSet<String> = list();
        assert_eq!(listed, ids);
        clone.runtime.cmd(&["delete", "--force", clone.runtime.id()]).ok();
        ids.remove(clone.runtime.id());
        let others = clones.iter().filter(|other| ids.contains(other.runtime.id()));
        others.for_each(Checkpointed::counts);
    }
    clones.iter().for_each(|clone| clone.runtime.leaves_nothing());
    c.runtime.leaves_nothing();
}

/// Expects `state` to tell of each its own name, place, process and cgroup.
#[track_caller]
fn each_is_what_it_is_said_to_be(clones: &[Checkpointed]) {
    let mut pids = BTreeSet::new();
    for clone in clones {
        let state = clone.runtime.state();
        let rootfs = clone.runtime.bundle().rootfs();
        let expected = (json!(clone.runtime.id()), json!(clone.bundle()), json!(rootfs), json!("running"));
        assert_eq!(
            (&state["id"], &state["bundle"], &state["rootfs"], &state["status"]),
            (&expected.0, &expected.1, &expected.2, &expected.3)
        );
        assert!(pids.insert(clone.runtime.pid()));
        let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", clone.runtime.pid())).unwrap();
        let own = format!("/{}", clone.runtime.id());
        let places: BTreeSet<_> = cgroups.lines().filter_map(|line| line.split(':').nth(2)).collect();
        assert!(
            places.contains(own.as_str()) && places.iter().all(|place| *place == own || *place == "/"),
            "{cgroups}"
        );
        let root = fs::metadata(format!("/proc/{}/root/appended", clone.runtime.pid())).unwrap();
        let inode = |metadata: &fs::Metadata| std::os::unix::fs::MetadataExt::ino(metadata);
        assert_eq!(inode(&root), inode(&rootfs.join("appended").metadata().unwrap()));
    }
}

#[test]
fn several_at_once_have_a_shm_from_outside_each() {
    requires!(root, criu);
    ours_only!("other runtimes lose it, and fail with a file of it open");
    let keeper = |shm: &HostTmpfs| with_shm(crate::keeper(""), shm.path());
    let first = HostTmpfs::new();
    let c = Checkpointed::run(keeper(&first));
    let before = first.keeps(1);
    c.checkpoint(&["--leave-running"]).ok();
    let images = content(&c.images());
    let shms: Vec<_> = (0..CLONES).map(|_| HostTmpfs::new()).collect();
    let clones: Vec<_> = shms.iter().map(|shm| c.sibling(keeper(shm))).collect();
    clones.iter().for_each(|clone| clone.take("keeper", &c));
    restore_all(&clones, &c.images());
    assert_eq!(content(&c.images()), images, "the images have changed");
    // A keeper that finds anything changed that it has not changed itself says so.
    shms.iter().for_each(|shm| assert!(shm.keeps(3) >= before + 3));
    first.keeps(3);
}

#[test]
fn several_at_once_have_a_user_namespace_each() {
    requires!(root, criu);
    ours_only!("runc leaves it to the caller to make the images readable");
    let counter = |first: u32| Bundle::sh(COUNTER).user_namespace(first);
    let c = Checkpointed::run(counter(200_000));
    wait_until("it counts", || c.count() > 3);
    c.checkpoint(&[]).ok();
    let mode = || std::os::unix::fs::MetadataExt::mode(&c.images().metadata().unwrap());
    let owner = || std::os::unix::fs::MetadataExt::gid(&c.images().metadata().unwrap());
    let before = (mode(), owner());
    let clones: Vec<_> = (0..CLONES).map(|_| c.sibling(counter(200_000))).collect();
    restore_all(&clones, &c.images());
    clones.iter().for_each(Checkpointed::counts);
    assert_eq!((mode(), owner()), before);
}

#[test]
fn generations_follow_each_other_under_other_names() {
    requires!(root, criu);
    let adder = || writable(Bundle::sh(ADDER));
    let mut parent = Checkpointed::run(adder());
    wait_until("it counts", || parent.count() > 3);
    let mut counts = Vec::new();
    let mut images = Vec::new();
    let mut all = Vec::new();
    for generation in 0..3 {
        parent.checkpoint(&[]).ok();
        parent.runtime.leaves_nothing();
        let child = Checkpointed::of(adder());
        child.take("appended", &parent);
        child.become_clone(&parent.images(), &[]).ok();
        child.counts();
        assert!(child.count() > counts.last().copied().unwrap_or(3), "generation {generation}");
        counts.push(child.count());
        images.push(parent.images());
        all.push(std::mem::replace(&mut parent, child));
    }
    // The first image is as good as it was, whatever has become of those who came of it.
    let late = Checkpointed::of(adder());
    late.take("appended", &all[0]);
    late.become_clone(&images[0], &[]).ok();
    late.counts();
    parent.counts();
    let first = fs::read_to_string(all[0].runtime.bundle().rootfs().join("appended")).unwrap();
    let own = fs::read_to_string(late.runtime.bundle().rootfs().join("appended")).unwrap();
    assert!(own.starts_with(&first) && own.len() > first.len());
    let numbers: Vec<u32> = own.lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
}

#[test]
fn it_is_restored_beside_the_original_from_the_same_bundle() {
    requires!(root, criu);
    ours_only!("runc takes the cgroup that the original is in");
    // What they write to the root file system they would share.
    let mut c = Checkpointed::run(Bundle::sh(COUNTER));
    c.checkpoint(&["--leave-running"]).ok();
    let (images, bundle) = (c.images(), c.bundle().to_owned());
    let clone = format!("{}-clone", c.runtime.id());
    let line = ["restore", "--detach", "--bundle", &bundle, "--image-path", images.to_str().unwrap(), &clone];
    // They cannot have the same cgroup.
    let refused = c.runtime.cmd(&line).exits(1).stderr_contains("container's cgroup is not empty");
    assert_eq!(refused.stderr.lines().count(), 1, "{refused}");
    c.counts();
    c.runtime.edit(|config| config["linux"]["cgroupsPath"] = json!(format!("/{clone}")));
    c.runtime.cmd(&line).ok();
    let inside = |args: &[&str]| c.runtime.cmd(&[&["exec", &clone], args].concat()).ok();
    let count = || inside(&["cat", "/dev/shm/count"]).text().parse().unwrap_or(0);
    let before = count();
    wait_until("the clone goes on", || count() > before);
    inside(&["touch", "/dev/shm/only-here"]);
    c.runtime.exec(&["ls", "/dev/shm/only-here"]).fails();
    c.counts();
    c.runtime.cmd(&["delete", "--force", &clone]).ok();
    c.counts();
    c.runtime.cmd(&["delete", "--force", c.runtime.id()]).ok();
    c.runtime.leaves_nothing();
}

/// A directory that nobody can write to, for as long as this lives.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn make(path: &Path) -> Self {
        let none = None::<&str>;
        mount(Some(path), path, none, MsFlags::MS_BIND, none).unwrap();
        let this = Self(path.to_owned());
        mount(none, path, none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none).unwrap();
        this
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn images_need_not_be_writable() {
    requires!(root, criu);
    let c = Checkpointed::counter();
    wait_until("it counts", || c.count() > 3);
    c.checkpoint(&[]).ok();
    let before = content(&c.images());
    let work = c.place.path().join("work");
    let images = ReadOnly::make(&c.images());
    c.restore(&["--work-path", work.to_str().unwrap()]).ok();
    c.counts();
    c.runtime.cmd(&["delete", "--force", c.runtime.id()]).ok();
    c.runtime.leaves_nothing();
    // There is no place for the log.
    let refused = c.restore(&[]).exits(1);
    if !crate::support::is_oracle() {
        assert!(
            refused.stderr.contains("--work-path names another place: read-only file system")
                && refused.stderr.lines().count() == 1,
            "{refused}"
        );
    }
    c.runtime.leaves_nothing();
    drop(images);
    assert_eq!(content(&c.images()), before);
}

#[test]
fn a_user_namespace_sees_images_that_cannot_be_written() {
    requires!(root, criu);
    ours_only!("runc leaves it to the caller to make the images readable");
    let c = Checkpointed::run(Bundle::sh(COUNTER).user_namespace(200_000));
    wait_until("it counts", || c.count() > 3);
    // A colon means something to overlays, and a parameter of a file system has 255 bytes at most.
    let (place, work) = (c.place.path().join("of: all").join("x".repeat(255)), c.place.path().join("work"));
    let options = ["--image-path", place.to_str().unwrap(), "--work-path", work.to_str().unwrap()];
    c.checkpoint(&options).ok();
    let before = content(&place);
    let images = ReadOnly::make(&place);
    c.restore(&options).ok();
    c.counts();
    drop(images);
    assert_eq!(content(&place), before);
    c.runtime.cmd(&["delete", "--force", c.runtime.id()]).ok();
    c.runtime.leaves_nothing();
}

#[test]
fn a_user_namespace_finds_the_images_of_earlier_stages() {
    requires!(root, criu);
    ours_only!("runc leaves it to the caller to make the images readable");
    let c = Checkpointed::run(Bundle::sh(COUNTER).user_namespace(200_000));
    wait_until("it counts", || c.count() > 3);
    c.checkpoint(&[]).ok();
    // CRIU opens every stage, whether or not something is left in it, and nobody but root may.
    let stage = |name: &str| c.place.path().join(name);
    let link = |stage: &Path, parent: &str| symlink(parent, stage.join("parent")).unwrap();
    for name in ["1", "2"] {
        fs::DirBuilder::new().mode(0o700).create(stage(name)).unwrap();
    }
    link(&stage("2"), "../1");
    link(&c.images(), "../2");
    let refused = |options: &[&str], words: &str| {
        let output = c.restore(options).exits(1).stderr_contains(words);
        assert_eq!(output.stderr.lines().count(), 1, "{output}");
        c.runtime.leaves_nothing();
    };
    refused(&["--auto-dedup"], "--auto-dedup cannot remove memory from images of which a user namespace sees");
    link(&stage("1"), "../2");
    refused(&[], "parent/parent/parent leads in a circle");
    fs::remove_file(stage("1").join("parent")).unwrap();
    link(&stage("1"), "../gone");
    refused(&[], "parent/parent/parent is missing");
    fs::remove_file(stage("1").join("parent")).unwrap();
    c.restore(&[]).ok();
    c.counts();
    c.runtime.cmd(&["delete", "--force", c.runtime.id()]).ok();
    c.runtime.leaves_nothing();
}
