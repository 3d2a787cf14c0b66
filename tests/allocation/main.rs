//! Nothing allocates between clone and execve: a child has one thread of its parent's, and the lock of an allocator
//! that another one held stays locked for ever.
//!
//! This binary's allocator ends every process but the one that started it, so a container whose init, joiner or hook
//! allocates does not come up. The configurations make the inside do everything that it can do. The binary is its own,
//! since an allocator is a binary's and not a test's.

// A test fails by panicking; clippy's own exceptions end at functions that are no #[test].
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Value, json};
use stasis::container::{Container, CreateOptions, ExecOptions, StreamOptions, create};
use stasis::sys::clone::exit_now;
use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicI32, Ordering};

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

use support::{Bundle, Console};

/// The exit code that a process ends with when it allocates.
const ALLOCATED: i32 = 97;

/// The process that may allocate; 0 until the first test.
static OWNER: AtomicI32 = AtomicI32::new(0);

struct Forbidding;

impl Forbidding {
    fn check(size: usize) {
        let owner = OWNER.load(Ordering::Relaxed);
        if owner != 0 && std::process::id() as i32 != owner {
            complain(size);
            exit_now(ALLOCATED);
        }
    }
}

/// Says how much was asked for: the size is what finds the place.
fn complain(mut size: usize) {
    let mut text = *b"allocated between clone and execve: .......... bytes\n";
    for digit in text[36..46].iter_mut().rev() {
        *digit = b'0' + (size % 10) as u8;
        size /= 10;
    }
    let _told = nix::unistd::write(std::io::stderr(), &text);
}

// SAFETY: every call goes to the system's allocator as it came, which upholds GlobalAlloc's contract; the check before
// it neither allocates nor unwinds.
unsafe impl GlobalAlloc for Forbidding {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::check(layout.size());
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        Self::check(layout.size());
        // SAFETY: the caller's promise about both is passed on; the block came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Forbidding = Forbidding;

/// A container that the library makes in this process, and removes.
struct Made {
    bundle: Bundle,
    container: Option<Container>,
}

impl Made {
    fn new(bundle: Bundle) -> Self {
        OWNER.store(std::process::id() as i32, Ordering::Relaxed);
        Self { bundle, container: None }
    }

    fn create(&mut self, change: impl FnOnce(&mut CreateOptions)) {
        let streams = StreamOptions { detach: true, ..StreamOptions::default() };
        let mut options = CreateOptions { bundle: self.bundle.path().into(), streams, ..CreateOptions::default() };
        change(&mut options);
        let root = self.bundle.path().join("state");
        let (container, _) = create(&root, self.bundle.id(), &options).unwrap_or_else(|err| panic!("{err}"));
        self.container = Some(container);
    }

    /// Starts the container and waits for its end; what its program leaves in the root says that it ran.
    fn start_and_wait(&mut self) {
        let container = self.container.as_mut().unwrap();
        container.start().unwrap_or_else(|err| panic!("{err}"));
        let exit = stasis::sys::pidfd::reap(container.state().pid).unwrap();
        assert_eq!(exit.code(), 0);
        assert!(fs::exists(self.bundle.path().join("source/ran")).unwrap());
    }

    fn exec(&self, change: impl FnOnce(&mut Value), options: &ExecOptions) -> i32 {
        let mut process = self.bundle.config()["process"].clone();
        change(&mut process);
        let process = serde_json::from_value(process).unwrap();
        let started = self.container.as_ref().unwrap().exec(&process, options).unwrap_or_else(|err| panic!("{err}"));
        stasis::sys::pidfd::reap(started.pid).unwrap().code()
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if let Some(container) = self.container.take() {
            let pid = container.state().pid;
            let _deleted = container.delete(true);
            // A child of this process stays a zombie until it is waited for.
            let _reaped = stasis::sys::pidfd::reap(pid);
        }
    }
}

/// A bundle whose inside does everything: mounts of every sort, devices, links, hooks, masks, limits, labels, a filter.
fn demanding() -> Bundle {
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]});
    let hooks = json!([{"path": "/bin/true", "args": ["true", "x"], "env": ["A=b"], "timeout": 5}]);
    Bundle::sh("touch /out/ran")
        .prepare(|dir| fs::create_dir(dir.join("source")).unwrap())
        .mount("/out", "bind", "source", &["rbind", "rw", "nosuid", "rslave"])
        .mount("/made/deep/file", "bind", "config.json", &["bind", "ro"])
        .mount("/tmp", "tmpfs", "tmpfs", &["ro", "size=1m"])
        .mount("/etc", "tmpfs", "tmpfs", &["tmpcopyup"])
        .namespace("cgroup", None)
        .with(|config| {
            config["linux"]["seccomp"] = profile;
            config["linux"]["sysctl"] = json!({"kernel.msgmax": "8000"});
            config["linux"]["devices"] = json!([{"path": "/dev/x/fuse", "type": "c", "major": 10, "minor": 229,
                "uid": 5, "gid": 6, "fileMode": 0o600}]);
            config["linux"]["personality"] = json!({"domain": "LINUX"});
            config["domainname"] = json!("domain");
            config["hooks"] = json!({"createContainer": hooks, "startContainer": hooks, "createRuntime": hooks});
            config["process"]["user"] = json!({"uid": 0, "gid": 0, "umask": 18, "additionalGids": [7, 8]});
            config["process"]["oomScoreAdj"] = json!(500);
            config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 4});
            config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 1});
        })
}

#[test]
fn create_and_start_allocate_nothing() {
    requires!(root);
    let mut made = Made::new(demanding());
    made.create(|_| {});
    made.start_and_wait();
}

#[test]
fn a_filter_before_the_privileges_go_allocates_nothing() {
    requires!(root);
    let mut made = Made::new(demanding().with(|config| config["process"]["noNewPrivileges"] = json!(false)));
    made.create(|options| options.no_pivot = true);
    made.start_and_wait();
}

#[test]
fn a_user_namespace_allocates_nothing() {
    requires!(root);
    let bundle = demanding().user_namespace(100_000);
    let mut made = Made::new(bundle.with(|config| config["linux"]["devices"] = json!([])));
    let out = made.bundle.path().join("source");
    std::os::unix::fs::chown(&out, Some(100_000), Some(100_000)).unwrap();
    made.create(|_| {});
    made.start_and_wait();
}

#[test]
fn a_terminal_allocates_nothing() {
    requires!(root);
    let mut made = Made::new(demanding().with(|config| {
        config["process"]["terminal"] = json!(true);
        config["process"]["consoleSize"] = json!({"height": 10, "width": 20});
    }));
    let console = Console::listen(&made.bundle);
    made.create(|options| options.streams.console_socket = Some(console.path().into()));
    let _terminal = console.terminal();
    made.start_and_wait();
}

#[test]
fn joining_and_exec_allocate_nothing() {
    requires!(root);
    let mut first = Made::new(Bundle::sleep().namespace("cgroup", None));
    first.create(|_| {});
    first.container.as_mut().unwrap().start().unwrap();
    let namespaces = format!("/proc/{}/ns", first.container.as_ref().unwrap().state().pid);
    let mut second = demanding().with(|config| config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1}}));
    for (kind, file) in [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        second = second.namespace(kind, Some(format!("{namespaces}/{file}").as_ref()));
    }
    let mut second = Made::new(second.namespace("time", None));
    second.create(|_| {});
    second.start_and_wait();

    let streams = StreamOptions { detach: true, ..StreamOptions::default() };
    let code = first.exec(
        |process| process["args"] = json!(["sh", "-c", "exit 5"]),
        &ExecOptions { streams, ..ExecOptions::default() },
    );
    assert_eq!(code, 5);
    let console = Console::listen(&first.bundle);
    let streams = StreamOptions { detach: true, console_socket: Some(console.path().into()) };
    let code = first.exec(
        |process| {
            process["args"] = json!(["true"]);
            process["terminal"] = json!(true);
        },
        &ExecOptions { streams, ..ExecOptions::default() },
    );
    assert_eq!(code, 0);
}

#[test]
fn failures_allocate_nothing() {
    requires!(root);
    let made = Made::new(Bundle::new(&["no-such-program"]));
    let streams = StreamOptions { detach: true, ..StreamOptions::default() };
    let options = CreateOptions { bundle: made.bundle.path().into(), streams, ..CreateOptions::default() };
    let err = create(&made.bundle.path().join("state"), made.bundle.id(), &options).unwrap_err();
    assert!(err.to_string().contains("executable file not found"), "{err}");
}

#[test]
fn the_allocator_of_this_test_forbids() {
    OWNER.store(std::process::id() as i32, Ordering::Relaxed);
    let child = stasis::sys::clone::clone_child(stasis::sys::clone::Clone::default(), || drop(vec![1, 2, 3])).unwrap();
    assert!(stasis::sys::pidfd::wait_ended(child.pidfd.unwrap().as_fd(), 5000).unwrap());
    assert_eq!(stasis::sys::pidfd::reap(child.pid).unwrap().code(), ALLOCATED);
}
