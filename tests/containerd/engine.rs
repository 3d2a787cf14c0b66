//! A containerd of our own, its client, and one task of a test.
//!
//! Nothing of it touches a containerd that the machine itself runs: it has an enclosure and a socket of its own.

use crate::support::{Enclosure, Output, Runtime, archive, image, keeps, wait_until};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The name that the image has for containerd.
pub const IMAGE: &str = "docker.io/library/busybox:latest";

/// Where containerd's shim has the runtime keep its state, of which the enclosure has its own.
pub const STATE: &str = "/run/containerd/runc";

/// A running containerd, with an image.
pub struct Containerd {
    enclosure: Enclosure,
}

impl Containerd {
    /// Returns the one that all tests share.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Result<Containerd, String>> = OnceLock::new();
        SHARED.get_or_init(Self::begin).as_ref().unwrap_or_else(|err| panic!("{err}"))
    }

    /// Starts a containerd and waits until it answers.
    pub fn begin() -> Result<Self, String> {
        let enclosure = Enclosure::begin("containerd", |dir| {
            let file = dir.join("config.toml");
            fs::write(&file, configuration(dir)).unwrap();
            vec!["containerd".into(), "--config".into(), file.to_str().unwrap().into()]
        })?;
        let containerd = Self { enclosure };
        containerd.enclosure.wait_for(|| containerd.ctr(&["version"]).code == 0)?;
        containerd.output(&docker_archive(), &["images", "import", "-"]).ok();
        Ok(containerd)
    }

    /// Returns the directory of everything that containerd keeps.
    pub fn dir(&self) -> &Path {
        self.enclosure.dir()
    }

    /// Returns the directory in which a task's config.json and root file system are.
    pub fn bundle(&self, task: &Task<'_>) -> PathBuf {
        let tasks = self.dir().join("state/io.containerd.runtime.v2.task");
        tasks.join(self.enclosure.name()).join(task.name())
    }

    /// Runs a command of ctr.
    pub fn ctr(&self, args: &[&str]) -> Output {
        self.output(b"", args)
    }

    fn output(&self, input: &[u8], args: &[&str]) -> Output {
        let mut ctr = self.enclosure.command("ctr");
        // The namespace is also the name of the cgroup.
        ctr.arg("--address").arg(self.dir().join("sock")).args(["--namespace", self.enclosure.name()]).args(args);
        Output::of(&mut ctr, input, format!("ctr {}", args.join(" ")))
    }

    /// Runs a shell script in a container in the foreground, and removes the container.
    pub fn run(&self, options: &[&str], script: &str) -> Output {
        self.run_program(options, &["sh", "-c", script])
    }

    /// Runs a program in a container in the foreground, and removes the container.
    pub fn run_program(&self, options: &[&str], program: &[&str]) -> Output {
        let (name, runtime) = (free_name(), Runtime::found());
        let ours = ["run", "--rm", "--runc-binary", runtime.to_str().unwrap()];
        self.ctr(&[&ours, options, &[IMAGE, &name], program].concat())
    }

    /// Starts a program in a detached container, which goes away with the value that is returned. What it writes is in a
    /// file: see [`Task::logs`].
    pub fn start(&self, options: &[&str], program: &[&str]) -> Task<'_> {
        let (name, runtime) = (free_name(), Runtime::found());
        let log = format!("file://{}/{name}.log", self.dir().display());
        let ours = ["run", "--detach", "--log-uri", &log, "--runc-binary", runtime.to_str().unwrap()];
        self.ctr(&[&ours, options, &[IMAGE, &name], program].concat()).ok();
        Task { containerd: self, name }
    }

    /// Starts a shell script in a detached container.
    pub fn start_sh(&self, script: &str) -> Task<'_> {
        self.start(&[], &["sh", "-c", script])
    }

    /// Starts a container from a checkpoint that an image is.
    pub fn restore(&self, options: &[&str], reference: &str) -> Task<'_> {
        let name = free_name();
        self.ctr(&[&["containers", "restore"], options, &[&name, reference]].concat()).ok();
        Task { containerd: self, name }
    }

    /// Returns the cgroups of containers, in all hierarchies.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        self.enclosure.cgroups()
    }

    /// Runs a shell script among the mounts and processes that containerd sees.
    pub fn inside(&self, script: &str) -> Output {
        self.enclosure.inside(script)
    }
}

/// A detached container with a task, removed with force when the test is through with it.
pub struct Task<'a> {
    containerd: &'a Containerd,
    name: String,
}

impl Task<'_> {
    /// Returns the container's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a command of `ctr task` whose last word is the container: `pause`, `kill --signal USR1`.
    pub fn task(&self, command: &str) -> Output {
        let args: Vec<&str> = ["task"].into_iter().chain(command.split(' ')).chain([self.name()]).collect();
        self.containerd.ctr(&args)
    }

    /// Runs a shell script in the container.
    pub fn exec(&self, script: &str) -> Output {
        let id = free_name();
        self.containerd.ctr(&["task", "exec", "--exec-id", &id, self.name(), "sh", "-c", script])
    }

    /// Returns the task's status, in containerd's words.
    pub fn status(&self) -> String {
        let list = self.containerd.ctr(&["task", "ls"]).ok();
        let words = list.lines().into_iter().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let line = words.into_iter().find(|words| words.first() == Some(&self.name()));
        line.map(|words| words[2].to_owned()).unwrap_or_default()
    }

    /// Waits until the task has the status.
    #[track_caller]
    pub fn becomes(&self, status: &str) {
        wait_until(&format!("{} is {status}", self.name()), || self.status() == status);
    }

    /// Returns what the task wrote so far.
    pub fn logs(&self) -> String {
        fs::read_to_string(self.containerd.dir().join(format!("{}.log", self.name))).unwrap_or_default()
    }

    /// Waits until the task has written this.
    #[track_caller]
    pub fn says(&self, text: &str) {
        wait_until(&format!("{} writes {text:?}", self.name()), || self.logs().contains(text));
    }

    /// Waits until the task, which is a keeper, has checked everything at least `more` times, and returns how many times
    /// it has.
    #[track_caller]
    pub fn keeps(&self, more: u32) -> u32 {
        keeps(more, || self.exec("cat /dev/shm/status").stdout)
    }

    /// Ends the task and removes the container.
    pub fn remove(&self) -> Output {
        self.task("rm --force");
        self.containerd.ctr(&["containers", "rm", self.name()])
    }

    /// Returns everything that the runtime and the kernel hold for the container.
    pub fn holdings(&self) -> Vec<PathBuf> {
        let mut held = self.containerd.cgroups();
        held.retain(|path| path.ends_with(&self.name));
        let state = self.containerd.inside(&format!("ls -d {STATE}/*/{}", self.name)).stdout;
        held.extend(state.lines().map(PathBuf::from));
        held
    }
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Returns the name of no container.
fn free_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("test{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// What containerd is told: to use nothing that belongs to the machine.
fn configuration(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"
version = 2
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{dir}/sock"
"#
    )
}

/// Returns the image in the form in which `docker save` writes one.
fn docker_archive() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| fs::write(dir.path().join(name), content).unwrap();
    write("layer.tar", &image());
    let layer = stasis::tmpfs::checksum(&dir.path().join("layer.tar")).unwrap();
    let config = json!({"os": "linux", "architecture": architecture(), "config": {"Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]}});
    write("config.json", config.to_string().as_bytes());
    let manifest = json!([{"Config": "config.json", "RepoTags": ["busybox:latest"], "Layers": ["layer.tar"]}]);
    write("manifest.json", manifest.to_string().as_bytes());
    archive(dir.path())
}

/// Returns the machine's architecture in Go's words.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
