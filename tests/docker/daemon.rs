//! A dockerd of our own with the runtime in its daemon.json, and its client.
//!
//! Nothing of it touches a dockerd that the machine itself runs: it has an enclosure and a socket of its own.

use crate::container::Container;
use crate::support::{Enclosure, Output, Runtime, image};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// A running dockerd, with the image `busybox`.
pub struct Daemon {
    enclosure: Enclosure,
}

impl Daemon {
    /// Returns the one that all tests share.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Result<Daemon, String>> = OnceLock::new();
        SHARED.get_or_init(Self::begin).as_ref().unwrap_or_else(|err| panic!("{err}"))
    }

    /// Starts a dockerd and waits until it answers.
    pub fn begin() -> Result<Self, String> {
        let enclosure = Enclosure::begin("docker", |dir| {
            let file = dir.join("daemon.json");
            fs::write(&file, configuration(dir).to_string()).unwrap();
            vec!["dockerd".into(), "--config-file".into(), file.to_str().unwrap().into()]
        })?;
        let daemon = Self { enclosure };
        daemon.enclosure.wait_for(|| daemon.docker(&["version"]).code == 0)?;
        daemon.docker_reading(&image(), &["import", "-", "busybox"]).ok();
        Ok(daemon)
    }

    /// Returns the directory of everything that dockerd keeps.
    pub fn dir(&self) -> &Path {
        self.enclosure.dir()
    }

    /// Returns the directory in which the runtime keeps the state of containers.
    pub fn state(&self) -> PathBuf {
        self.dir().join("exec/runtime-runc/moby")
    }

    /// Returns the directories of all cgroups that dockerd asked for, in all hierarchies.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        self.enclosure.cgroups()
    }

    /// Returns a command in whose environment `docker` means this daemon, and which does not hang for ever.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("timeout");
        command.args(["100", program]).env("DOCKER_CONFIG", self.dir());
        command.env("DOCKER_HOST", format!("unix://{}", self.dir().join("docker.sock").display()));
        command
    }

    /// Runs a docker command.
    pub fn docker(&self, args: &[&str]) -> Output {
        self.docker_reading(b"", args)
    }

    /// Runs a docker command with this on its standard input.
    pub fn docker_reading(&self, input: &[u8], args: &[&str]) -> Output {
        Output::of(self.command(program()).args(args), input, format!("docker {}", args.join(" ")))
    }

    /// Runs a docker command in a terminal that `setup` prepares, where these keys are typed.
    pub fn docker_in_terminal(&self, setup: &str, keys: &str, args: &[&str]) -> Output {
        let line = format!("{setup}; exec {} {}", program(), args.join(" "));
        let mut script = self.command("script");
        script.args(["-qec", &line, "/dev/null"]);
        Output::of(&mut script, keys.as_bytes(), line)
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
        self.enclosure.inside(script)
    }
}

/// What dockerd is told: to use nothing that belongs to the machine, and to know our runtime under two names.
fn configuration(dir: &Path) -> serde_json::Value {
    let runtime = Runtime::found();
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

/// Returns Debian's client if it is there: a machine may have a newer one in front of it that asks for a newer dockerd.
fn program() -> &'static str {
    if Path::new("/usr/bin/docker").exists() { "/usr/bin/docker" } else { "docker" }
}
