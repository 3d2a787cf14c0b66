//! Memory on its ways: by stages before the dump, through a page server, fetched only once it is used, and out of
//! images that it is removed from.

use crate::support::Bundle;
use crate::{Checkpointed, keeps, ours_only, requires};
use nix::fcntl::{FcntlArg, fcntl};
use stasis::sys::pidfd;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// How much memory the container has: some for itself, as much shared by two processes.
const MIB: &str = "16";

fn keeper() -> Bundle {
    Bundle::new(&["memory_keeper", MIB]).program("memory_keeper")
}

impl Checkpointed {
    /// Waits until the keeper has found its memory as it was at least `more` times.
    #[track_caller]
    fn remembers(&self, more: u32) {
        keeps(more, || self.runtime.exec_sh("cat /dev/shm/status").stdout);
    }
}

/// Says whether the kernel tells which memory was written to.
fn tracks_memory() -> bool {
    let output = Command::new("criu").args(["check", "--feature", "mem_dirty_track"]).output().unwrap();
    output.status.success()
}

/// Returns how many bytes of the disk a directory's images of memory take.
fn pages(images: &Path) -> u64 {
    let entries = fs::read_dir(images).unwrap().map(|entry| entry.unwrap());
    let pages = entries.filter(|entry| entry.file_name().to_str().unwrap().starts_with("pages-"));
    pages.map(|entry| entry.metadata().unwrap().blocks() * 512).sum()
}

/// Returns a port of the loopback interface that nobody listens at.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A CRIU that serves another one, as it would on another host.
struct Server(Child);

impl Server {
    /// Starts `criu WHAT` and waits until it is ready.
    #[track_caller]
    fn start(what: &str, images: &Path, options: &[&str]) -> Self {
        let (ready, status) = stasis::sys::fd::pipe().unwrap();
        let mut command = Command::new("criu");
        command.args([what, "--images-dir"]).arg(images).args(["--log-file", "server.log", "-v4"]);
        command.args(["--status-fd", "1"]).args(options).stdin(Stdio::null()).stdout(status);
        let server = Self(command.spawn().unwrap());
        drop(command);
        let log = images.join("server.log");
        assert!(is_told(ready), "{}", fs::read_to_string(log).unwrap_or_default());
        server
    }

    /// Waits for its end, which comes with that of its work.
    #[track_caller]
    fn ends(mut self) {
        ends("a server", &mut self.0);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// Waits for the byte that stands for "ready"; says whether it came.
fn is_told(pipe: OwnedFd) -> bool {
    let mut bytes = [1];
    File::from(pipe).read(&mut bytes).unwrap() == 1 && bytes == [0]
}

#[track_caller]
fn ends(what: &str, child: &mut Child) {
    let pidfd = pidfd::open(child.id() as i32).unwrap();
    assert!(pidfd::wait_ended(pidfd.as_fd(), 60_000).unwrap(), "{what} goes on");
    let status = child.wait().unwrap();
    assert!(status.success(), "{what}: {status}");
}

/// Copies a directory of images, as somebody would to another host.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// The size up to which a process without CAP_SYS_RESOURCE may make its pipes: more than before for now.
struct PipeLimit(String);

impl PipeLimit {
    const FILE: &str = "/proc/sys/fs/pipe-max-size";

    fn raise() -> Self {
        let before = fs::read_to_string(Self::FILE).unwrap();
        fs::write(Self::FILE, "4194304").unwrap();
        Self(before)
    }
}

impl Drop for PipeLimit {
    fn drop(&mut self) {
        fs::write(Self::FILE, &self.0).unwrap();
    }
}

/// Says whether CRIU cannot make its largest pipe.
fn pipes_are_too_small() -> bool {
    let (pipe, _other_end) = stasis::sys::fd::pipe().unwrap();
    fcntl(pipe, FcntlArg::F_SETPIPE_SZ(3_354_624)).is_err()
}

/// Begins a checkpoint that leaves the memory where it is until it is fetched at a port, and waits until it can be.
#[track_caller]
fn leave_memory(c: &Checkpointed, port: &str) -> Child {
    let (told, status) = stasis::sys::fd::pipe().unwrap();
    let address = format!("127.0.0.1:{port}");
    let mut command = c.line("checkpoint", &["--lazy-pages", "--page-server", &address, "--status-fd", "1"]);
    let child = command.stdout(status).spawn().unwrap();
    // Else the end of a checkpoint that fails would not be the end of the pipe.
    drop(command);
    assert!(is_told(told));
    child
}

#[test]
fn memory_goes_to_a_page_server() {
    requires!(root, criu);
    let c = Checkpointed::run(keeper());
    c.remembers(2);
    let there = c.place.path().join("there");
    fs::create_dir(&there).unwrap();
    let port = free_port().to_string();
    let server = Server::start("page-server", &there, &["--address", "127.0.0.1", "--port", &port]);
    c.checkpoint(&["--page-server", &format!("127.0.0.1:{port}")]).ok();
    server.ends();
    assert_eq!(pages(&c.images()), 0);
    assert!(pages(&there) > 32 << 20, "{}", pages(&there));
    // The rest of the images follows by other means.
    copy(&c.images(), &there);
    c.restore(&["--image-path", there.to_str().unwrap()]).ok();
    c.remembers(18);
}

#[test]
fn without_a_page_server_the_container_goes_on() {
    requires!(root, criu);
    let c = Checkpointed::run(keeper());
    c.remembers(2);
    let output = c.checkpoint(&["--page-server", &format!("127.0.0.1:{}", free_port())]).exits(1);
    output.stderr_contains("onnect");
    assert_eq!(c.runtime.status(), "running");
    c.remembers(2);
}

#[test]
fn memory_comes_from_where_it_was_as_it_is_used() {
    requires!(root, criu);
    ours_only!("the oracle's CRIU would listen where the test's connects; see runc's own tests");
    let c = Checkpointed::run(keeper());
    c.remembers(2);
    let port = free_port().to_string();
    let _limit = pipes_are_too_small().then(|| {
        let output = c.checkpoint(&["--lazy-pages", "--page-server", &format!("127.0.0.1:{port}")]).exits(1);
        assert_eq!(output.stderr.lines().count(), 1, "{output}");
        output.stderr_contains("--lazy-pages needs a pipe of 3354624 bytes, and fs.pipe-max-size is ");
        assert!(!c.images().exists());
        PipeLimit::raise()
    });
    let mut dump = leave_memory(&c, &port);
    let before = pages(&c.images());
    assert!(before < 32 << 20, "{before} bytes have been written, where they should be left behind");
    let there = c.place.path().join("there");
    copy(&c.images(), &there);
    let options = ["--page-server", "--address", "127.0.0.1", "--port", &port];
    let server = Server::start("lazy-pages", &there, &options);
    let other = Checkpointed::of(keeper());
    other.restore(&["--image-path", there.to_str().unwrap(), "--lazy-pages"]).ok();
    other.remembers(18);
    server.ends();
    ends("the checkpoint", &mut dump);
    other.remembers(18);
    c.runtime.leaves_nothing();
}

#[test]
fn memory_comes_from_images_as_it_is_used() {
    requires!(root, criu);
    let c = Checkpointed::run(keeper());
    c.remembers(2);
    c.checkpoint(&[]).ok();
    let server = Server::start("lazy-pages", &c.images(), &[]);
    c.restore(&["--lazy-pages"]).ok();
    c.remembers(18);
    server.ends();
    c.remembers(18);
}

#[test]
fn images_give_their_room_back_while_they_are_restored() {
    requires!(root, criu);
    let c = Checkpointed::run(keeper());
    c.remembers(2);
    c.checkpoint(&[]).ok();
    let before = pages(&c.images());
    c.restore(&["--auto-dedup"]).ok();
    let after = pages(&c.images());
    assert!(before > 32 << 20 && after < 4 << 20, "{before} bytes, then {after}");
    c.remembers(18);
}

#[test]
fn memory_is_dumped_by_stages_or_that_is_refused() {
    requires!(root, criu);
    let c = Checkpointed::run(keeper());
    c.remembers(2);
    let stages: Vec<PathBuf> = (1..=3).map(|n| c.place.path().join(n.to_string())).collect();
    let path = |n: usize| stages[n].to_str().unwrap();
    if !tracks_memory() {
        return is_refused(&c, path(0));
    }
    // The last dump takes room from those before it, which therefore are measured as they are made.
    let sizes: Vec<u64> = (0..stages.len())
        .map(|n| {
            let before = format!("../{n}");
            let parent: &[&str] = if n == 0 { &[] } else { &["--parent-path", &before] };
            c.checkpoint(&[&["--image-path", path(n), "--pre-dump"], parent].concat()).ok();
            assert_eq!(c.runtime.status(), "running");
            c.remembers(1);
            pages(&stages[n])
        })
        .collect();
    c.checkpoint(&["--parent-path", "../3", "--auto-dedup"]).ok();
    // Both processes have 16 MiB that change and 16 that do not; what they share is in the last images alone.
    assert!(sizes[0] > 64 << 20 && sizes[1..].iter().all(|size| *size < 40 << 20), "{sizes:?}");
    assert!(pages(&c.images()) < 56 << 20, "{}", pages(&c.images()));
    let after: Vec<u64> = stages.iter().map(|stage| pages(stage)).collect();
    assert!(after.iter().sum::<u64>() < sizes.iter().sum(), "{sizes:?}, then {after:?}");
    c.restore(&[]).ok();
    c.remembers(18);
}

#[test]
fn a_clone_is_dumped_by_stages_or_that_is_refused() {
    requires!(root, criu);
    let first = Checkpointed::run(keeper());
    first.remembers(2);
    first.checkpoint(&["--leave-running"]).ok();
    let clone = Checkpointed::of(keeper());
    clone.restore(&["--image-path", first.images().to_str().unwrap()]).ok();
    clone.remembers(2);
    let stage = clone.place.path().join("1");
    if !tracks_memory() {
        return is_refused(&clone, stage.to_str().unwrap());
    }
    clone.checkpoint(&["--image-path", stage.to_str().unwrap(), "--pre-dump"]).ok();
    clone.checkpoint(&["--parent-path", "../1"]).ok();
    let parent = clone.images().join("parent").canonicalize().unwrap();
    assert_eq!(parent, stage.canonicalize().unwrap());
    // Another one of what has only its changes: its parent is found beside the images.
    let other = Checkpointed::of(keeper());
    let images = clone.images();
    other.restore(&["--image-path", images.to_str().unwrap(), "--parent-path", "../1"]).ok();
    other.remembers(18);
    first.remembers(18);
}

#[test]
fn a_user_namespace_is_dumped_by_stages_or_that_is_refused() {
    requires!(root, criu);
    ours_only!("runc leaves it to the caller to make the images readable");
    let c = Checkpointed::run(keeper().user_namespace(200_000));
    c.remembers(2);
    let stages = ["1", "2"].map(|name| c.place.path().join(name));
    let path = |n: usize| stages[n].to_str().unwrap();
    if !tracks_memory() {
        return is_refused(&c, path(0));
    }
    c.checkpoint(&["--image-path", path(0), "--pre-dump"]).ok();
    c.remembers(1);
    c.checkpoint(&["--image-path", path(1), "--pre-dump", "--parent-path", "../1"]).ok();
    c.remembers(1);
    c.checkpoint(&["--parent-path", "../2"]).ok();
    assert!(pages(&c.images()) < 56 << 20, "{}", pages(&c.images()));
    c.restore(&[]).ok();
    c.remembers(18);
}

/// Expects every stage to be refused in one line, before anything is done.
#[track_caller]
fn is_refused(c: &Checkpointed, images: &str) {
    if crate::support::is_oracle() {
        return;
    }
    let parent = c.place.path().join("parent");
    fs::create_dir(&parent).unwrap();
    for options in [&["--pre-dump"][..], &["--pre-dump", "--parent-path", "../parent"], &["--parent-path", "../parent"]]
    {
        let options = [&["--image-path", images], options].concat();
        let output = c.checkpoint(&options).exits(1).stderr_contains("criu is missing features: [MemTrack]");
        assert_eq!(output.stderr.lines().count(), 1, "{output}");
        assert!(!Path::new(images).exists(), "{images} is left");
    }
    c.remembers(2);
}
