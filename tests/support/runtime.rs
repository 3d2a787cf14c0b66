//! The runtime under test, driven by its command line as container engines drive it.

use super::{Bundle, Output};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The layout of the cgroup hierarchies that the runtime finds under /sys/fs/cgroup.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Layout {
    /// The host's.
    Host,
    /// The host's hierarchies of v1 alone.
    V1,
    /// The host's hierarchy of v2 alone, with the controllers that v1 does not have.
    V2,
    /// What the process of this pid sees, in its namespaces and cgroups.
    Of(u32),
}

/// Joins the cgroups and then the namespaces of a process, and becomes the program that is named after it.
const ENTER: &str = r#"
    pid=$1; shift
    while IFS=: read -r number names path; do
        # A systemd comes and goes here, as its units need controllers.
        dir=/sys/fs/cgroup/${names#name=}; file=tasks
        [ "$number" = 0 ] || path=${path%/init.scope}
        if [ "$number" = 0 ]; then
            file=cgroup.procs
            [ ! -d /sys/fs/cgroup/unified ] || dir=/sys/fs/cgroup/unified
        fi
        [ ! -d "$dir" ] || echo 0 >"$dir$path/$file"
    done <"/proc/$pid/cgroup"
    exec nsenter "--target=$pid" --mount --pid --cgroup --ipc --uts "$@""#;

/// A container of a bundle, and the runtime that looks after it, which keeps its state in the bundle.
pub struct Runtime {
    bundle: Bundle,
}

impl Runtime {
    /// Takes a bundle.
    pub fn new(bundle: Bundle) -> Self {
        Self { bundle }
    }

    /// Returns the runtime that is tested: ours, or the oracle that `RUNTIME` names.
    pub fn program() -> PathBuf {
        let named = std::env::var_os("RUNTIME").or_else(|| std::env::var_os("STASIS_BIN"));
        named.map_or_else(|| env!("CARGO_BIN_EXE_stasis").into(), PathBuf::from)
    }

    /// Returns the absolute path of the runtime under test.
    pub fn found() -> PathBuf {
        let named = Self::program();
        match named.components().count() {
            1 => std::env::split_paths(&std::env::var_os("PATH").unwrap())
                .map(|dir| dir.join(&named))
                .find(|path| path.exists())
                .unwrap_or_else(|| panic!("no {} in PATH", named.display())),
            _ => std::fs::canonicalize(named).unwrap(),
        }
    }

    /// Returns the container's name.
    pub fn id(&self) -> &str {
        self.bundle.id()
    }

    /// Returns the bundle.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Edits config.json.
    pub fn edit(&mut self, edit: impl FnOnce(&mut Value)) {
        self.bundle.edit(edit);
    }

    /// Shows the runtime another layout of the cgroup hierarchies from now on.
    pub fn show(&mut self, layout: Layout) {
        self.bundle.show(layout);
    }

    /// Returns the directory of the runtime's state.
    pub fn root(&self) -> PathBuf {
        self.bundle.path().join("state")
    }

    /// Returns a command line of the runtime, to be changed before [`Self::output_of`] carries it out.
    pub fn command(&self, args: &[impl AsRef<OsStr>]) -> Command {
        let mut command = match self.bundle.owner() {
            None => self.bundle.shown_layout().command(Self::program()),
            Some(owner) => as_user(owner, &self.bundle),
        };
        command.arg("--root").arg(self.root()).args(args).stdin(Stdio::null());
        command
    }

    /// Carries a command line of the runtime out, to its end.
    #[track_caller]
    pub fn cmd(&self, args: &[impl AsRef<OsStr>]) -> Output {
        self.output_of(self.command(args))
    }

    /// Carries a command out, to its end. Its output goes to files: a container may keep it open for longer.
    #[track_caller]
    pub fn output_of(&self, mut command: Command) -> Output {
        let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        command.stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
        self.finish(command, &stdout, &stderr)
    }

    #[track_caller]
    fn finish(&self, mut command: Command, stdout: &File, stderr: &File) -> Output {
        let line = format!("{command:?}").replace('"', "");
        let mut child = command.spawn().unwrap_or_else(|err| panic!("{line}: {err}"));
        let code = wait(&mut child);
        let output = Output { line, code: code.unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) };
        assert!(code.is_some(), "did not end within {PATIENCE:?}: {output}");
        output
    }

    /// Runs the container in the foreground, to its end.
    #[track_caller]
    pub fn run(&self) -> Output {
        self.run_with(&[])
    }

    /// Runs the container with more options.
    #[track_caller]
    pub fn run_with(&self, options: &[&str]) -> Output {
        self.cmd(&self.line("run", options))
    }

    /// Creates the container. The streams of its process are files of the bundle: see [`Self::printed`].
    #[track_caller]
    pub fn create(&self) -> Output {
        self.create_with(&[])
    }

    /// Creates the container with more options.
    #[track_caller]
    pub fn create_with(&self, options: &[&str]) -> Output {
        self.detached(self.command(&self.line("create", options)))
    }

    /// Carries out a command that leaves a process behind, whose streams are files of the bundle.
    #[track_caller]
    pub fn detached(&self, mut command: Command) -> Output {
        let open = |name: &str| {
            let path = self.bundle.path().join(name);
            File::options().read(true).append(true).create(true).open(path).unwrap()
        };
        let (stdout, stderr) = (open("stdout"), open("stderr"));
        command.stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
        self.finish(command, &stdout, &stderr)
    }

    fn line<'a>(&'a self, verb: &'a str, options: &[&'a str]) -> Vec<&'a OsStr> {
        let mut line: Vec<&OsStr> = vec![verb.as_ref(), "--bundle".as_ref(), self.bundle.path().as_ref()];
        line.extend(options.iter().copied().map(OsStr::new));
        line.push(self.id().as_ref());
        line
    }

    /// Starts the container.
    #[track_caller]
    pub fn start(&self) -> Output {
        self.cmd(&["start", self.id()])
    }

    /// Sends the container's init a signal.
    #[track_caller]
    pub fn kill(&self, signal: &str) -> Output {
        self.cmd(&["kill", self.id(), signal])
    }

    /// Freezes the container.
    #[track_caller]
    pub fn pause(&self) -> Output {
        self.cmd(&["pause", self.id()])
    }

    /// Thaws the container.
    #[track_caller]
    pub fn resume(&self) -> Output {
        self.cmd(&["resume", self.id()])
    }

    /// Deletes the container.
    #[track_caller]
    pub fn delete(&self) -> Output {
        self.cmd(&["delete", self.id()])
    }

    /// Runs a program in the container, to its end.
    #[track_caller]
    pub fn exec(&self, args: &[&str]) -> Output {
        self.exec_with(&[], args)
    }

    /// Runs a program in the container with more options.
    #[track_caller]
    pub fn exec_with(&self, options: &[&str], args: &[&str]) -> Output {
        self.cmd(&[&["exec"], options, &[self.id()], args].concat())
    }

    /// Runs a shell script in the container.
    #[track_caller]
    pub fn exec_sh(&self, script: &str) -> Output {
        self.exec(&["sh", "-c", script])
    }

    /// Returns what `state` says.
    #[track_caller]
    pub fn state(&self) -> Value {
        self.cmd(&["state", self.id()]).ok().json()
    }

    /// Returns the container's status.
    #[track_caller]
    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    /// Returns the pid of the container's init.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.state()["pid"].as_i64().unwrap()).unwrap()
    }

    /// Waits until the container has this status.
    #[track_caller]
    pub fn wait_for(&self, status: &str) {
        super::wait_until(&format!("{} is {status}", self.id()), || self.status() == status);
    }

    /// Waits for the end of a container and returns what it printed.
    #[track_caller]
    pub fn finished(&self) -> String {
        self.wait_for("stopped");
        self.printed()
    }

    /// Returns what a created container has printed until now.
    pub fn printed(&self) -> String {
        read(&self.bundle.path().join("stdout"))
    }

    /// Returns what a created container has complained until now.
    pub fn complained(&self) -> String {
        read(&self.bundle.path().join("stderr"))
    }

    /// Waits until a created container has printed this.
    #[track_caller]
    pub fn wait_printed(&self, part: &str) {
        super::wait_until(&format!("{part:?} in {:?} {:?}", self.printed(), self.complained()), || {
            self.printed().contains(part)
        });
    }

    /// Returns the container's directory in the hierarchy of a controller; of v2 if it has none of its own.
    pub fn cgroup(&self, controller: &str) -> PathBuf {
        let v1 = Path::new("/sys/fs/cgroup").join(controller);
        let v2 = if Path::new("/sys/fs/cgroup/cgroup.procs").exists() { "" } else { "unified" };
        let hierarchy = match self.bundle.shown_layout() {
            Layout::Host | Layout::V1 if !controller.is_empty() && v1.is_dir() => v1,
            _ => Path::new("/sys/fs/cgroup").join(v2),
        };
        hierarchy.join(self.id())
    }

    /// Returns what a file of the container's cgroup says.
    #[track_caller]
    pub fn limit(&self, controller: &str, file: &str) -> String {
        let path = self.cgroup(controller).join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
        text.trim_end().to_owned()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let mut command = self.command(&["delete", "--force", self.id()]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        if let Ok(mut child) = command.spawn() {
            wait(&mut child);
        }
    }
}

impl Layout {
    /// Returns a command that finds the layout.
    pub fn command(self, program: impl AsRef<OsStr>) -> Command {
        if let Layout::Of(pid) = self {
            let mut enter = Command::new("sh");
            enter.args(["-ec", ENTER, "sh", &pid.to_string()]).arg(program);
            return enter;
        }
        let Some(script) = self.script() else { return Command::new(program) };
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec", script, "sh"]).arg(program);
        command
    }

    /// Returns what makes the layout, in a mount namespace of the command's own, and then becomes the command.
    fn script(self) -> Option<&'static str> {
        match self {
            Layout::Host | Layout::Of(_) => None,
            // Whoever takes what is below for a hierarchy, as crun does, makes directories that nobody removes.
            Layout::V1 => Some(
                "if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; \
                 mount -t tmpfs tmpfs /sys/fs/cgroup/unified; fi; exec \"$@\"",
            ),
            Layout::V2 => Some("mount -t cgroup2 cgroup2 /sys/fs/cgroup; exec \"$@\""),
        }
    }
}

/// Returns the bundle's runtime, as a user of the host runs it.
fn as_user(user: u32, bundle: &Bundle) -> Command {
    let program = bundle.path().join("runtime");
    let mut command = match bundle.shown_layout() {
        Layout::Host => {
            let mut command = Command::new(program);
            command.uid(user).gid(user);
            command
        }
        // root is needed to get there. As pam_systemd(8) has it, also where the user has not logged in.
        other => {
            let mut command = other.command("setpriv");
            command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]).arg(program);
            command.env("XDG_RUNTIME_DIR", format!("/run/user/{user}"));
            command
        }
    };
    command.current_dir(bundle.path());
    command
}

/// Waits for the end of a command and returns its code, or kills it and returns none.
fn wait(child: &mut Child) -> Option<i32> {
    let pidfd = stasis::sys::pidfd::open(child.id() as i32).unwrap();
    let ended = stasis::sys::pidfd::wait_ended(pidfd.as_fd(), PATIENCE.as_millis() as i32).unwrap();
    if !ended {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ended.then_some(code)
}

/// Reads from the beginning without moving the position, which a container may share.
fn text(file: &File) -> String {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads what there is; a file that was not made yet is an empty one.
fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

/// Waits until something is so.
#[track_caller]
pub fn wait_until(what: &str, so: impl Fn() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
