//! A dockerd of our own with the runtime in its daemon.json, and its client.
//!
//! Nothing of it touches a dockerd that the machine itself runs: it has its own namespaces, directories, socket and
//! cgroups, and `guard.sh` removes them when the tests' process ends.

use crate::container::Container;
use crate::support::{Output, Runtime};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long dockerd may take to answer for the first time.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// A running dockerd, with the image `busybox`.
pub struct Daemon {
    dir: PathBuf,
    guard: Child,
}

impl Daemon {
    /// Returns the one that all tests share.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Result<Daemon, String>> = OnceLock::new();
        SHARED.get_or_init(Self::begin).as_ref().unwrap_or_else(|err| panic!("{err}"))
    }

    /// Starts a dockerd and waits until it answers.
    pub fn begin() -> Result<Self, String> {
        let dir = tempfile::Builder::new().prefix("stasis-docker-").tempdir().unwrap().keep();
        fs::write(dir.join("daemon.json"), configuration(&dir).to_string()).unwrap();
        let mut guard = Command::new("/bin/sh");
        guard.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/docker/guard.sh")).arg(&dir);
        // A group of its own: an interrupt at the terminal is for the tests, and the guard tidies up after them.
        guard.stdin(Stdio::piped()).stdout(Stdio::null());
        let guard = std::os::unix::process::CommandExt::process_group(&mut guard, 0).spawn().unwrap();
        let daemon = Self { dir, guard };
        daemon.wait_for_answer()?;
        daemon.import_busybox();
        Ok(daemon)
    }

    fn wait_for_answer(&self) -> Result<(), String> {
        let start = Instant::now();
        while self.docker(&["version"]).code != 0 {
            if start.elapsed() > START_PATIENCE {
                let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                return Err(format!("dockerd does not answer; its log:\n{log}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// There is no registry to fetch an image from: one is made of Debian's static busybox, and of
    /// programs of the tests.
    fn import_busybox(&self) {
        let rootfs = self.dir.join("rootfs");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/rootfs.sh");
        assert!(Command::new(script).arg(&rootfs).status().unwrap().success());
        fs::copy(crate::support::program("shm_keeper"), rootfs.join("bin/shm_keeper")).unwrap();
        let tar = Command::new("tar").arg("-C").arg(&rootfs).args(["-c", "."]).output().unwrap();
        self.docker_reading(&tar.stdout, &["import", "-", "busybox"]).ok();
    }

    /// Returns the directory of everything that dockerd keeps.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the directory in which the runtime keeps the state of containers.
    pub fn state(&self) -> PathBuf {
        self.dir.join("exec/runtime-runc/moby")
    }

    /// Returns the directories of all cgroups that dockerd asked for, in all hierarchies.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let parent = self.dir.file_name().unwrap();
        let mut hierarchies = vec![PathBuf::from("/sys/fs/cgroup")];
        hierarchies.extend(fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path()));
        let parents = hierarchies.iter().map(|top| top.join(parent)).filter(|dir| dir.is_dir());
        parents.flat_map(|dir| fs::read_dir(dir).unwrap()).map(|entry| entry.unwrap().path()).collect()
    }

    /// Returns a command in whose environment `docker` means this daemon, and which does not hang for ever.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("timeout");
        command.args(["100", program]).env("DOCKER_CONFIG", &self.dir);
        command.env("DOCKER_HOST", format!("unix://{}", self.dir.join("docker.sock").display()));
        command
    }

    /// Runs a docker command.
    pub fn docker(&self, args: &[&str]) -> Output {
        self.docker_reading(b"", args)
    }

    /// Runs a docker command with this on its standard input.
    pub fn docker_reading(&self, input: &[u8], args: &[&str]) -> Output {
        output(self.command(program()).args(args), input, format!("docker {}", args.join(" ")))
    }

    /// Runs a docker command in a terminal that `setup` prepares, where these keys are typed.
    pub fn docker_in_terminal(&self, setup: &str, keys: &str, args: &[&str]) -> Output {
        let line = format!("{setup}; exec {} {}", program(), args.join(" "));
        let mut script = self.command("script");
        script.args(["-qec", &line, "/dev/null"]);
        output(&mut script, keys.as_bytes(), line)
    }

    /// Runs a shell script in a container in the foreground, and removes the container.
    pub fn run(&self, options: &[&str], script: &str) -> Output {
        self.run_program(options, &["sh", "-c", script])
    }

    /// Runs a program in a container in the foreground, and removes the container.
    pub fn run_program(&self, options: &[&str], program: &[&str]) -> Output {
        self.docker(&[&["run", "--rm"], network(options), options, &["busybox"], program].concat())
    }

    /// Starts a shell script in a detached container, which goes away with the value that is returned.
    pub fn start(&self, options: &[&str], script: &str) -> Container<'_> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let named = ["run", "--detach", "--name", &name];
        let args = [&named, network(options), options, &["busybox", "sh", "-c", script]].concat();
        let id = self.docker(&args).ok().text().to_owned();
        Container::new(self, name, id)
    }

    /// Runs a shell script on the host, among the mounts that dockerd sees.
    pub fn among_its_mounts(&self, script: &str) -> Output {
        let guard = self.guard.id();
        let unshare = children(guard).into_iter().find(|&pid| !children(pid).is_empty()).unwrap();
        let mut enter = Command::new("nsenter");
        enter.arg(format!("--mount=/proc/{}/ns/mnt", children(unshare)[0])).args(["sh", "-c", script]);
        output(&mut enter, b"", script.into())
    }
}

impl Drop for Daemon {
    /// Ends dockerd, all of its containers, and everything that they hold.
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ended = self.guard.wait();
    }
}

/// What dockerd is told: to use nothing that belongs to the machine, and to know our runtime under two names.
fn configuration(dir: &Path) -> serde_json::Value {
    let runtime = runtime();
    json!({
        "data-root": dir.join("data"),
        "exec-root": dir.join("exec"),
        "pidfile": dir.join("pid"),
        "hosts": [format!("unix://{}", dir.join("docker.sock").display())],
        "cgroup-parent": format!("/{}", dir.file_name().unwrap().to_str().unwrap()),
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "bridge": "none",
        "iptables": false,
        // Checkpoints.
        "experimental": true,
        "default-runtime": "stasis",
        "runtimes": {
            "stasis": { "path": runtime },
            "stasis-debug": { "path": runtime, "runtimeArgs": ["--debug"] },
        },
    })
}

/// Returns the option that leaves a container without a network, unless there is one already.
fn network(options: &[&str]) -> &'static [&'static str] {
    if options.iter().any(|option| option.starts_with("--network")) { &[] } else { &["--network=none"] }
}

/// Returns the absolute path of the runtime under test: ours, or the oracle's.
fn runtime() -> PathBuf {
    let named = Runtime::program();
    match named.components().count() {
        1 => std::env::split_paths(&std::env::var_os("PATH").unwrap())
            .map(|dir| dir.join(&named))
            .find(|path| path.exists())
            .unwrap_or_else(|| panic!("no {} in PATH", named.display())),
        _ => fs::canonicalize(named).unwrap(),
    }
}

/// Returns Debian's client if it is there: a machine may have a newer one in front of it that asks for a newer dockerd.
fn program() -> &'static str {
    if Path::new("/usr/bin/docker").exists() { "/usr/bin/docker" } else { "docker" }
}

/// Returns the children of a process that has one thread.
fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Runs a command with this on its standard input.
fn output(command: &mut Command, input: &[u8], line: String) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|err| panic!("{line}: {err}"));
    // A command that ends before it has read everything says so in its own way.
    let _written = child.stdin.take().unwrap().write_all(input);
    let ended = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = ended.status.code().unwrap_or(-1);
    Output { line, code, stdout: text(&ended.stdout), stderr: text(&ended.stderr) }
}
