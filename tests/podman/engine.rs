//! Podman with directories of its own and the runtime in its containers.conf, and one container of a test.
//!
//! Podman, conmon and the containers live in an enclosure, so that nothing of them outlives the tests.

use crate::support::{Enclosure, Output, Runtime, image, keeps, wait_until};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Podman, with the image `busybox`.
pub struct Podman {
    enclosure: Enclosure,
}

impl Podman {
    /// Returns the one that all tests share.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Result<Podman, String>> = OnceLock::new();
        SHARED.get_or_init(Self::begin).as_ref().unwrap_or_else(|err| panic!("{err}"))
    }

    /// Makes the directories and the image.
    pub fn begin() -> Result<Self, String> {
        let enclosure = Enclosure::begin("podman", |dir| {
            fs::write(dir.join("containers.conf"), configuration()).unwrap();
            ["sleep", "infinity"].map(str::to_owned).into()
        })?;
        let podman = Self { enclosure };
        podman.output(&image(), &["import", "--quiet", "-", "busybox"]).ok();
        Ok(podman)
    }

    /// Returns the directory of everything that Podman keeps.
    pub fn dir(&self) -> &Path {
        self.enclosure.dir()
    }

    /// Returns the directory in which Podman keeps files of a container, its /dev/shm and its checkpoint among them.
    pub fn files(&self, id: &str) -> PathBuf {
        self.dir().join("root/vfs-containers").join(id).join("userdata")
    }

    /// Runs a podman command.
    pub fn podman(&self, args: &[&str]) -> Output {
        self.output(b"", args)
    }

    fn output(&self, input: &[u8], args: &[&str]) -> Output {
        let mut podman = self.enclosure.command("podman");
        podman.env("CONTAINERS_CONF", self.dir().join("containers.conf"));
        for (option, name) in [("--root", "root"), ("--runroot", "runroot"), ("--tmpdir", "tmp")] {
            podman.arg(option).arg(self.dir().join(name));
        }
        podman.args(["--storage-driver", "vfs"]).args(args);
        Output::of(&mut podman, input, format!("podman {}", args.join(" ")))
    }

    /// Runs a shell script in a container in the foreground, and removes the container.
    pub fn run(&self, options: &[&str], script: &str) -> Output {
        self.run_program(options, &["sh", "-c", script])
    }

    /// Runs a program in a container in the foreground, and removes the container.
    pub fn run_program(&self, options: &[&str], program: &[&str]) -> Output {
        let place = self.place(options);
        let place: Vec<&str> = place.iter().map(String::as_str).collect();
        self.podman(&[&["run", "--rm"], place.as_slice(), options, &["busybox"], program].concat())
    }

    /// Starts a shell script in a detached container, which goes away with the value that is returned.
    pub fn start(&self, options: &[&str], script: &str) -> Container<'_> {
        self.start_program(options, &["sh", "-c", script])
    }

    /// Starts a program in a detached container.
    pub fn start_program(&self, options: &[&str], program: &[&str]) -> Container<'_> {
        let (name, place) = (self.free_name(), self.place(options));
        let place: Vec<&str> = place.iter().map(String::as_str).collect();
        let named = ["run", "--detach", "--name", &name];
        let id = self.podman(&[&named, place.as_slice(), options, &["busybox"], program].concat()).ok();
        Container { podman: self, id: id.text().to_owned(), name }
    }

    /// Returns the name of no container.
    pub fn free_name(&self) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        format!("test{}", COUNT.fetch_add(1, Ordering::Relaxed))
    }

    /// Takes charge of a container that was restored under a new name.
    pub fn adopt(&self, name: String, id: &str) -> Container<'_> {
        Container { podman: self, name, id: id.to_owned() }
    }

    /// Returns the options that put a container into our cgroup, unless a pod does, and leave it without a network.
    fn place(&self, options: &[&str]) -> Vec<String> {
        let has = |name: &str| options.iter().any(|option| option.starts_with(name));
        let mut place = Vec::new();
        if !has("--pod=") {
            place.push(format!("--cgroup-parent=/{}", self.enclosure.name()));
        }
        if !has("--pod=") && !has("--network") {
            place.push("--network=none".into());
        }
        place
    }

    /// Returns the option that puts a pod's cgroup below ours.
    pub fn cgroup_parent(&self) -> String {
        format!("--cgroup-parent=/{}", self.enclosure.name())
    }

    /// Returns the cgroups of containers, and of what watches over them, in all hierarchies.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        self.enclosure.cgroups()
    }

    /// Runs a shell script among the mounts and processes that Podman sees.
    pub fn inside(&self, script: &str) -> Output {
        self.enclosure.inside(script)
    }
}

/// A detached container, removed with force when the test is through with it.
pub struct Container<'a> {
    podman: &'a Podman,
    name: String,
    id: String,
}

impl Container<'_> {
    /// Returns the container's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the whole id, which the runtime knows the container by.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Runs a podman command whose last word is the container: `pause`, `container checkpoint --keep`.
    pub fn podman(&self, command: &str) -> Output {
        let args: Vec<&str> = command.split(' ').chain([self.name()]).collect();
        self.podman.podman(&args)
    }

    /// Checkpoints the container.
    pub fn checkpoint(&self, options: &[&str]) -> Output {
        self.podman.podman(&[&["container", "checkpoint"], options, &[self.name()]].concat())
    }

    /// Restores the container from where Podman keeps its checkpoint.
    pub fn restore(&self, options: &[&str]) -> Output {
        self.podman.podman(&[&["container", "restore"], options, &[self.name()]].concat())
    }

    /// Runs a shell script in the container.
    pub fn exec(&self, script: &str) -> Output {
        self.podman.podman(&["exec", self.name(), "sh", "-c", script])
    }

    /// Returns what Podman knows about the container: `State.Status`.
    pub fn inspect(&self, field: &str) -> String {
        self.podman(&format!("inspect --format {{{{.{field}}}}}")).ok().text().to_owned()
    }

    /// Waits until the container has the status.
    #[track_caller]
    pub fn becomes(&self, status: &str) {
        wait_until(&format!("{} is {status}", self.name()), || self.inspect("State.Status") == status);
    }

    /// Returns what the container wrote so far.
    pub fn logs(&self) -> String {
        self.podman("logs").ok().stdout
    }

    /// Waits until the container has written this.
    #[track_caller]
    pub fn says(&self, text: &str) {
        wait_until(&format!("{} writes {text:?}", self.name()), || self.logs().contains(text));
    }

    /// Waits until the container, which is a keeper, has checked everything at least `more` times, and returns how many
    /// times it has.
    #[track_caller]
    pub fn keeps(&self, more: u32) -> u32 {
        keeps(more, || self.exec("cat /dev/shm/status").stdout)
    }

    /// Returns everything that the runtime and the kernel hold for the container.
    pub fn holdings(&self) -> Vec<PathBuf> {
        let mut held = self.podman.cgroups();
        held.retain(|path| path.ends_with(format!("libpod-{}", self.id)));
        let state = self.podman.inside(&format!("ls -d /run/*/{}/state.json", self.id)).stdout;
        held.extend(state.lines().map(PathBuf::from));
        held
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let _removed = self.podman("rm --force --time 0");
    }
}

/// What Podman is told: what README.md says, with the runtime under test in the place of the installed one, and to keep
/// nothing outside of its directories.
fn configuration() -> String {
    let runtime = Runtime::found();
    let readme = include_str!("../../README.md");
    let lines = readme.split("[engine]").nth(1).unwrap().lines().take_while(|line| !line.contains("engine.runtimes"));
    let engine: String = lines.map(|line| format!("{}\n", line.trim())).collect();
    format!(
        r#"
[containers]
# The limits that Podman would set are above what the tests' root may have on some machines.
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
[engine]
{engine}
runtime = "stasis"
events_logger = "none"
# Otherwise in the machine's own /dev/shm.
lock_type = "file"
[engine.runtimes]
stasis = ["{}"]
"#,
        runtime.display()
    )
}
