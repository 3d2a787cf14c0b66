//! Where a test's own container engine lives: in namespaces, a directory and cgroups that the machine's engines have
//! nothing to do with, and that go away with the tests' process, however it ends (`enclosure.sh`).

use super::Output;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long an engine may take to answer for the first time.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// The namespaces of a running engine, and its directory.
pub struct Enclosure {
    dir: PathBuf,
    guard: Child,
}

impl Enclosure {
    /// Starts the program that `prepare` returns, which may put files for it into the directory.
    pub fn begin(name: &str, prepare: impl FnOnce(&Path) -> Vec<String>) -> Result<Self, String> {
        let dir = tempfile::Builder::new().prefix(&format!("stasis-{name}-")).tempdir().unwrap().keep();
        let program = prepare(&dir);
        let mut guard = Command::new("/bin/sh");
        guard.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/enclosure.sh")).arg(&dir).args(program);
        // A group of its own: an interrupt at the terminal is for the tests, and the guard tidies up after them.
        guard.stdin(Stdio::piped()).stdout(Stdio::null());
        let guard = std::os::unix::process::CommandExt::process_group(&mut guard, 0).spawn().unwrap();
        let this = Self { dir, guard };
        this.wait_for(|| this.dir.join("enclosed").exists())?;
        Ok(this)
    }

    /// Waits until the engine is ready for the first time.
    pub fn wait_for(&self, ready: impl Fn() -> bool) -> Result<(), String> {
        let start = Instant::now();
        while !ready() {
            if start.elapsed() > START_PATIENCE {
                let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                return Err(format!("the engine in {} does not answer; its log:\n{log}", self.dir.display()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Returns the directory of everything that the engine keeps.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the directory's name, which is also that of the engine's cgroup in every hierarchy.
    pub fn name(&self) -> &str {
        self.dir.file_name().unwrap().to_str().unwrap()
    }

    /// Returns the cgroups that are directly below the engine's, in all hierarchies.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let mut hierarchies = vec![PathBuf::from("/sys/fs/cgroup")];
        hierarchies.extend(fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path()));
        let parents = hierarchies.iter().map(|top| top.join(self.name())).filter(|dir| dir.is_dir());
        let below = parents.flat_map(|dir| fs::read_dir(dir).unwrap()).map(|entry| entry.unwrap().path());
        below.filter(|path| path.is_dir()).collect()
    }

    /// Returns a command that runs in the engine's namespaces, and does not hang for ever.
    pub fn command(&self, program: &str) -> Command {
        let mut enter = Command::new("nsenter");
        enter.arg(format!("--target={}", self.first())).args(["--mount", "--pid", "timeout", "100", program]);
        enter.env("TMPDIR", &self.dir);
        enter
    }

    /// Returns the first process of the engine's pid namespace.
    pub fn first(&self) -> u32 {
        let unshare = children(self.guard.id()).into_iter().find(|&pid| !children(pid).is_empty()).expect("an engine");
        children(unshare)[0]
    }

    /// Runs a shell script among the mounts and processes that the engine sees.
    pub fn inside(&self, script: &str) -> Output {
        Output::of(self.command("sh").args(["-c", script]), b"", script.into())
    }
}

impl Drop for Enclosure {
    /// Ends the engine, all of its containers, and everything that they hold.
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ended = self.guard.wait();
    }
}

/// Returns the content of an image, as a tar archive: there is no registry to fetch one from. It has Debian's static
/// busybox, and programs of the tests.
pub fn image() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let rootfs = dir.path().join("rootfs");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/rootfs.sh");
    assert!(Command::new(script).arg(&rootfs).status().unwrap().success());
    fs::copy(super::program("shm_keeper"), rootfs.join("bin/shm_keeper")).unwrap();
    archive(&rootfs)
}

/// Returns the content of a directory as a tar archive.
pub fn archive(dir: &Path) -> Vec<u8> {
    let tar = Command::new("tar").arg("-C").arg(dir).args(["-c", "."]).output().unwrap();
    assert!(tar.status.success());
    tar.stdout
}

/// Returns the children of a process that has one thread.
pub fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}
