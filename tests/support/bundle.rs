//! A bundle: a directory with a busybox root file system and a config.json that the test edits.

use super::{Layout, Output, Runtime, copy_program};
use serde_json::{Value, json};
use stasis::spec::template;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// The program that every root file system has, under all of its names.
const BUSYBOX: &str = "bin/busybox";

/// A bundle, and the name of the container that will be made of it.
pub struct Bundle {
    dir: TempDir,
    id: String,
    config: Value,
    layout: Layout,
    owner: Option<u32>,
}

impl Bundle {
    /// Makes a bundle whose program is `args`. It begins as `spec` writes it, without a terminal and with a cgroup of
    /// its own at the root of the hierarchies.
    pub fn new(args: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::Builder::new().prefix(&id).tempdir().unwrap();
        make_root(&dir.path().join("rootfs"));
        let mut config: Value =
            serde_json::from_str(&template::text(None, false, &template::Ipc::Private(None))).unwrap();
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(args);
        config["linux"]["cgroupsPath"] = json!(format!("/{id}"));
        let bundle = Self { dir, id, config, layout: Layout::Host, owner: None };
        bundle.write();
        bundle
    }

    /// Makes a bundle whose program is a shell script.
    pub fn sh(script: &str) -> Self {
        Self::new(&["sh", "-c", script])
    }

    /// Makes a bundle whose program waits to be killed.
    pub fn sleep() -> Self {
        Self::new(&["sleep", "1000"])
    }

    /// Edits config.json.
    pub fn with(mut self, edit: impl FnOnce(&mut Value)) -> Self {
        self.edit(edit);
        self
    }

    /// Edits config.json in place.
    pub fn edit(&mut self, edit: impl FnOnce(&mut Value)) {
        edit(&mut self.config);
        self.write();
    }

    /// Edits the directory: places, beside the root or in it, that config.json refers to.
    pub fn prepare(self, make: impl FnOnce(&Path)) -> Self {
        make(self.dir.path());
        self
    }

    /// Puts a program of the tests' own into the root file system.
    pub fn program(self, name: &str) -> Self {
        let program = super::program(name);
        self.prepare(|path| copy_program(&program, &path.join("rootfs/bin").join(name)))
    }

    /// Adds an entry to `mounts`.
    pub fn mount(self, destination: &str, kind: &str, source: impl AsRef<Path>, options: &[&str]) -> Self {
        let source = source.as_ref().to_str().unwrap();
        let mount = json!({"destination": destination, "type": kind, "source": source, "options": options});
        self.with(|config| config["mounts"].as_array_mut().unwrap().push(mount))
    }

    /// Gives the process all of these capabilities in every set but the ambient one.
    pub fn capable(self, names: &[&str]) -> Self {
        self.with(|config| {
            for set in ["bounding", "effective", "permitted", "inheritable"] {
                config["process"]["capabilities"][set] = json!(names);
            }
        })
    }

    /// Puts the container into a namespace of this kind: a new one, or the one at `path`.
    pub fn namespace(self, kind: &str, path: Option<&Path>) -> Self {
        self.without_namespace(kind).with(|config| {
            let mut namespace = json!({"type": kind});
            if let Some(path) = path {
                namespace["path"] = json!(path);
            }
            config["linux"]["namespaces"].as_array_mut().unwrap().push(namespace);
        })
    }

    /// Leaves the container in the host's namespace of this kind.
    pub fn without_namespace(self, kind: &str) -> Self {
        self.with(|config| {
            config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != kind);
        })
    }

    /// Gives the container a user namespace whose ids begin at `first` on the host, and the root to its root user.
    pub fn user_namespace(self, first: u32) -> Self {
        let map = json!([{"containerID": 0, "hostID": first, "size": 65536}]);
        own_tree(&self.rootfs(), first);
        self.namespace("user", None).with(|config| {
            config["linux"]["uidMappings"] = map.clone();
            config["linux"]["gidMappings"] = map;
        })
    }

    /// Makes it the bundle of a user of the host who is not root, and its container one as `spec --rootless` has it.
    pub fn rootless(mut self, user: u32) -> Self {
        let users = template::Users { uid: user, gid: user };
        let mut config: Value =
            serde_json::from_str(&template::text(Some(users), false, &template::Ipc::Private(None))).unwrap();
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = self.config["process"]["args"].take();
        self.config = config;
        self.write();
        // Where the runtime is may be closed to the user.
        copy_program(&Runtime::found(), &self.path().join("runtime"));
        own_tree(self.path(), user);
        Self { owner: Some(user), ..self }
    }

    /// Shows the runtime another layout of the cgroup hierarchies than the host's.
    pub fn layout(mut self, layout: Layout) -> Self {
        self.show(layout);
        self
    }

    /// Does so in place.
    pub fn show(&mut self, layout: Layout) {
        self.layout = layout;
    }

    /// Runs the container in the foreground, to its end.
    pub fn run(self) -> Output {
        Runtime::new(self).run()
    }

    /// Creates the container, which has to succeed.
    #[track_caller]
    pub fn create(self) -> Runtime {
        let runtime = Runtime::new(self);
        runtime.create().ok();
        runtime
    }

    /// Creates and starts the container, which has to succeed.
    #[track_caller]
    pub fn start(self) -> Runtime {
        let runtime = self.create();
        runtime.start().ok();
        runtime
    }

    /// Returns the container's name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the root file system.
    pub fn rootfs(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    /// Returns the configuration.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// Returns the layout of the cgroup hierarchies that the runtime is shown.
    pub fn shown_layout(&self) -> Layout {
        self.layout
    }

    /// Returns the user whose bundle it is, if that is not root.
    pub fn owner(&self) -> Option<u32> {
        self.owner
    }

    fn write(&self) {
        fs::write(self.path().join("config.json"), self.config.to_string()).unwrap();
    }
}

/// Makes a root file system as scripts/rootfs.sh does. Every bundle has its own, since a test may ruin it.
fn make_root(root: &Path) {
    for dir in ["bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    let (busybox, applets) = busybox();
    copy_program(busybox, &root.join(BUSYBOX));
    for applet in applets.iter().filter(|applet| *applet != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    symlink("bin", root.join("sbin")).unwrap();
    symlink("../bin", root.join("usr/bin")).unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")
        .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\n").unwrap();
}

/// Finds the machine's busybox, which is static, and its names.
fn busybox() -> &'static (PathBuf, Vec<String>) {
    static FOUND: OnceLock<(PathBuf, Vec<String>)> = OnceLock::new();
    FOUND.get_or_init(|| {
        let path = std::env::var_os("PATH").unwrap();
        let found = std::env::split_paths(&path).map(|dir| dir.join("busybox")).find(|path| path.is_file());
        let busybox = found.expect("busybox (package busybox-static) in PATH");
        let list = Command::new(&busybox).arg("--list").output().unwrap();
        let applets = String::from_utf8(list.stdout).unwrap().lines().map(str::to_owned).collect();
        (busybox, applets)
    })
}

/// Gives a tree to a user and a group of the same number.
fn own_tree(path: &Path, id: u32) {
    std::os::unix::fs::lchown(path, Some(id), Some(id)).unwrap();
    if fs::symlink_metadata(path).unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            own_tree(&entry.unwrap().path(), id);
        }
    }
}
