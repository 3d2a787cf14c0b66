//! A container with a database server and a client of it, which takes what it is to say from a fifo.

use crate::support::{Bundle, DATABASES, HostTmpfs, Output, Runtime, wait_until, with_shm};
use serde_json::json;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

/// The first id of the container's users where they have a namespace of their own.
const FIRST: u32 = 200_000;

/// Where the client reads from, and where its answers are.
const QUESTIONS: &str = "/tmp/questions";
const ANSWERS: &str = "/tmp/answers";

/// Who has mounted the container's /dev/shm.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shm {
    /// The container.
    Private,
    /// An engine, outside of it.
    Shareable,
}

/// A running server, and one connection to it.
pub struct Database {
    // First, so that the container goes before its /dev/shm.
    runtime: Runtime,
    shm: Option<HostTmpfs>,
    place: tempfile::TempDir,
    /// Makes the client's answers end with a word.
    mark: fn(u32) -> String,
    asked: AtomicU32,
}

impl Database {
    /// Starts a server as a user, by a script in the container that ends when the server accepts clients, and then a
    /// client, which is a command that reads from a fifo and prints answers. `mark` has it print `end N`.
    #[track_caller]
    pub fn start(shm: Shm, user: u32, [server, client]: [&str; 2], mark: fn(u32) -> String) -> Self {
        let client = format!("mkfifo {QUESTIONS}; {client} <>{QUESTIONS} >{ANSWERS} 2>&1 &");
        let bundle = Bundle::sh(&format!("{server}\n{client}\nwait"));
        let (bundle, first) = match user != 0 && !may_read_limits() {
            true => (bundle.user_namespace(FIRST), FIRST),
            false => (bundle, 0),
        };
        let data = bundle.path().join("source");
        fs::create_dir(&data).unwrap();
        std::os::unix::fs::chown(&data, Some(first + user), Some(first + user)).unwrap();
        let bundle = bundle.mount("/data", "bind", data, &["bind"]).mount("/tmp", "tmpfs", "tmpfs", &["mode=1777"]);
        let bundle = bundle.with(|config| {
            config["root"] = json!({"path": DATABASES, "readonly": true});
            config["process"]["user"] = json!({"uid": user, "gid": user});
        });
        let (bundle, shm) = match shm {
            Shm::Private => (bundle, None),
            Shm::Shareable => {
                let shm = HostTmpfs::new();
                (with_shm(bundle, shm.path()), Some(shm))
            }
        };
        let (runtime, place) = (Runtime::new(bundle), tempfile::tempdir().unwrap());
        let this = Self { runtime, shm, place, mark, asked: AtomicU32::new(0) };
        this.detached("run", &[]);
        // The server may take longer than others have patience for.
        this.sh(&format!(
            "timeout 50 sh -c 'until test -p {QUESTIONS}; do sleep 0.1; done' || {{ cat /tmp/log; exit 1; }}"
        ))
        .ok();
        this
    }

    /// Carries out a command that leaves the container behind. Its streams lead nowhere, which any runtime can dump.
    #[track_caller]
    fn detached(&self, verb: &str, options: &[&str]) {
        let (bundle, log) = (self.runtime.bundle().path(), self.place.path().join("log"));
        let line = ["--log", log.to_str().unwrap(), verb, "--detach", "--bundle", bundle.to_str().unwrap()];
        let mut command = self.runtime.command(&[&line, options, &[self.runtime.id()]].concat());
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success(), "{command:?}: {}", fs::read_to_string(log).unwrap_or_default());
    }

    fn images(&self) -> PathBuf {
        self.place.path().join("images")
    }

    /// Checkpoints the container, and restores it when nothing of it is left but its files.
    #[track_caller]
    pub fn round_trip(&self) {
        let images = self.images();
        let images = images.to_str().unwrap();
        self.runtime.cmd(&["checkpoint", "--image-path", images, self.runtime.id()]).ok();
        if let Some(shm) = &self.shm {
            shm.renew();
        }
        self.detached("restore", &["--image-path", images]);
        fs::remove_dir_all(images).unwrap();
    }

    /// Runs a shell script beside the server.
    pub fn sh(&self, script: &str) -> Output {
        self.runtime.exec_sh(script)
    }

    /// Runs a program beside the server.
    pub fn program(&self, args: &[&str]) -> Output {
        self.runtime.exec(args)
    }

    /// Tells the client something, and returns a number by which its answer is known.
    #[track_caller]
    pub fn tell(&self, words: &str) -> u32 {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let script = format!("echo \"$1\" >{QUESTIONS}");
        self.runtime.exec(&["sh", "-c", &script, "sh", &format!("{words}\n{}", (self.mark)(number))]).ok();
        number
    }

    /// Waits for an answer.
    #[track_caller]
    pub fn answer(&self, number: u32) -> String {
        let end = format!("end {number}\n");
        let all = || self.sh(&format!("cat {ANSWERS}")).stdout;
        wait_until(&format!("an answer, after {:?}", all()), || all().contains(&end));
        let all = all();
        let until = &all[..all.find(&end).unwrap()];
        let from = number.checked_sub(1).map_or(0, |before| {
            let before = format!("end {before}\n");
            until.find(&before).unwrap() + before.len()
        });
        until[from..].trim().to_owned()
    }

    /// Asks the client something.
    #[track_caller]
    pub fn ask(&self, words: &str) -> String {
        self.answer(self.tell(words))
    }

    /// Says whether the container's /dev/shm has a file whose name begins like this.
    pub fn has_shm_file(&self, name: &str) -> bool {
        self.sh(&format!("ls /dev/shm/{name}*")).code == 0
    }
}

/// Says whether CRIU may ask for the resource limits of other users' processes: that takes CAP_SYS_RESOURCE in the user
/// namespace of the process, which some machines' root does not have in the first one. It has it in those that it makes.
fn may_read_limits() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    u64::from_str_radix(effective, 16).unwrap() >> CAP_SYS_RESOURCE & 1 == 1
}
