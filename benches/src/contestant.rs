//! Who takes part: a program with a directory of its own for its bundle, its state and what it says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::bundle::{Config, Shared};
use crate::layout;
use crate::measure::{self, Sample, Streams};

/// The runtimes, and in which variable of the environment each may be named. Peers are looked up in PATH otherwise.
const RUNTIMES: [(&str, &str); 5] =
    [("stasis", "STASIS"), ("crun", "CRUN"), ("runc", "RUNC"), ("youki", "YOUKI"), ("libcontainer", "LIBCONTAINER")];

pub struct Contestant {
    pub name: &'static str,
    pub version: String,
    program: PathBuf,
    directory: PathBuf,
    rootfs: PathBuf,
}

impl Contestant {
    /// Returns the floor and every runtime that is there, and prints who is not.
    pub fn all(shared: &Shared) -> Result<Vec<Self>> {
        let floor = std::env::current_exe()?.with_file_name("floor");
        let mut found = vec![Self::new("floor", floor, shared)?];
        for (name, variable) in RUNTIMES {
            match program(name, variable) {
                Some(path) if path.is_file() => {
                    // Programs start in the bundle's directory, so a relative path must not reach them.
                    found.push(Self::new(name, path.canonicalize()?, shared)?);
                }
                _ if name == "stasis" => return Err(format!("no stasis to measure (set {variable})").into()),
                _ => println!("note: {name} left out: not found (set {variable})"),
            }
        }
        Ok(found)
    }

    fn new(name: &'static str, program: PathBuf, shared: &Shared) -> Result<Self> {
        let directory = shared.directory().join(name);
        fs::create_dir_all(directory.join("bundle"))?;
        let version = match name {
            "floor" => String::new(),
            _ => version(&program),
        };
        Ok(Self { name, version, program, directory, rootfs: shared.rootfs() })
    }

    pub fn is_floor(&self) -> bool {
        self.name == "floor"
    }

    /// Returns whether this is another project's runtime.
    pub fn is_peer(&self) -> bool {
        !["floor", "stasis"].contains(&self.name)
    }

    /// Returns whether it knows one command.
    pub fn only_runs(&self) -> bool {
        self.name == "libcontainer"
    }

    /// Returns the name of its container of a number, which is also that of the cgroup.
    pub fn id(&self, number: usize) -> String {
        format!("{}-{}-{number}", layout::cgroup_prefix(), self.name)
    }

    pub fn bundle(&self) -> PathBuf {
        self.directory.join("bundle")
    }

    /// Returns the file that takes the output of a command.
    pub fn output(&self) -> PathBuf {
        self.directory.join("output")
    }

    fn pid_file(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.pid"))
    }

    /// Writes its config.json.
    pub fn write_config(&self, shared: &Shared, kind: Config, args: &[&str], id: &str) -> Result<()> {
        shared.write_config(&self.bundle(), kind, args, &format!("/{id}"))
    }

    /// Copies its bundle, for a container beside others.
    pub fn copy_bundle(&self, id: &str) -> Result<String> {
        let bundle = self.directory.join(id);
        fs::create_dir_all(&bundle)?;
        fs::copy(self.bundle().join("config.json"), bundle.join("config.json"))?;
        Ok(bundle.display().to_string())
    }

    /// Returns a command for a container; of its words, ID, PID-FILE, PID and ROOTFS stand for those.
    pub fn command(&self, words: &[&str], id: &str) -> Result<Command> {
        let mut command = Command::new(&self.program);
        if !self.is_floor() {
            command.arg("--root").arg(self.directory.join("state"));
        }
        for &word in words {
            match word {
                "ID" => command.arg(id),
                "PID-FILE" => command.arg(self.pid_file(id)),
                "PID" => command.arg(self.pid(id)?.to_string()),
                "ROOTFS" => command.arg(&self.rootfs),
                _ => command.arg(word),
            };
        }
        command.current_dir(self.bundle());
        Ok(command)
    }

    /// Runs a command that is not measured, or not with a terminal.
    pub fn run(&self, words: &[&str], id: &str) -> Result<Sample> {
        measure::run(&mut self.command(words, id)?, Streams::File(&self.output()))
    }

    /// Returns the first process of a container.
    pub fn pid(&self, id: &str) -> Result<u32> {
        let file = self.pid_file(id);
        let text = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        Ok(text.trim().parse()?)
    }

    /// Starts a container that stays until what is returned goes away. The floor shows itself in one of another's.
    pub fn start<'a>(&'a self, host: &'a Self, id: String) -> Result<Alive<'a>> {
        let runtime = if self.is_floor() { host } else { self };
        runtime.run(&["run", "--detach", "--pid-file", "PID-FILE", "ID"], &id)?;
        if self.is_floor() {
            fs::copy(runtime.pid_file(&id), self.pid_file(&id))?;
        }
        Ok(Alive { runtime, id })
    }
}

/// A container that runs.
pub struct Alive<'a> {
    runtime: &'a Contestant,
    pub id: String,
}

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        let Ok(pid) = self.runtime.pid(&self.id) else { return };
        // It is ours to reap, so that no other can have its number.
        let _reaped = measure::kill(pid).and_then(|()| measure::wait(pid).map(drop));
        if let Err(error) = self.runtime.run(&["delete", "--force", "ID"], &self.id) {
            println!("note: {error}");
        }
    }
}

fn version(program: &Path) -> String {
    let answer = Command::new(program).arg("--version").output();
    let text = answer.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned()
}

/// Returns where a program is, by the environment or else in PATH.
pub fn program(name: &str, variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).or_else(|| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
    })
}
