//! What a container may leave behind and must not: processes, mounts, cgroups, state and files.

use super::Runtime;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Returns how many cycles a test of leaks takes: `LEAK_CYCLES`, or `usual`.
pub fn cycles(usual: u32) -> u32 {
    std::env::var("LEAK_CYCLES").map_or(usual, |text| text.parse().unwrap())
}

/// Counts what is below a directory.
pub fn files(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| 1 + if entry.file_type().unwrap().is_dir() { files(&entry.path()) } else { 0 }).sum()
}

impl Runtime {
    /// Counts, by name, what is there of the container and could grow from one cycle to the next.
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        // Others use these directories too; a file of ours has the container's name.
        let ours = |name: &str| name.contains(self.id());
        let entries = |dir: &Path| {
            let names = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
            names.filter(|name| ours(&name.to_string_lossy())).count()
        };
        BTreeMap::from([
            ("files in /run", entries("/run".as_ref())),
            ("files in /dev/shm", entries("/dev/shm".as_ref())),
            ("temporary files", entries(&std::env::temp_dir())),
            ("files of the bundle", files(self.bundle().path())),
            ("what names the container", self.remains().len()),
        ])
    }

    /// Expects nothing of the container to be left, and nothing new in its bundle.
    #[track_caller]
    pub fn leaves_nothing(&self) {
        // Init is reaped by the host's, and its mount namespace goes after it.
        super::wait_until(&format!("nothing is left of {}: {:?}", self.id(), self.remains()), || {
            self.remains().is_empty()
        });
    }

    /// Returns everything that is left of the container.
    pub fn remains(&self) -> Vec<String> {
        let mut left = Vec::new();
        let bundle = self.bundle().path().to_str().unwrap();
        for pid in pids() {
            let proc = Path::new("/proc").join(&pid);
            let text = |file: &str| fs::read(proc.join(file)).map(|b| String::from_utf8_lossy(&b).into_owned());
            let has = |file: &str, what: &str| text(file).is_ok_and(|text| text.contains(what));
            let ours = pid == std::process::id().to_string();
            if !ours && (has("cmdline", bundle) || has("cgroup", self.id()) || has("mountinfo", bundle)) {
                left.push(format!("process {pid}: {:?}", text("cmdline").unwrap_or_default()));
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        left.extend(mounts.lines().filter(|line| line.contains(bundle)).map(|line| format!("mount {line}")));
        left.extend(self.cgroups().iter().map(|path| format!("cgroup {}", path.display())));
        let state = fs::read_dir(self.root()).into_iter().flatten().map(|entry| entry.unwrap().file_name());
        // The cache of compiled seccomp profiles is the root's, not a container's.
        left.extend(state.filter(|name| name != "@seccomp").map(|name| format!("state {name:?}")));
        left.extend(self.unknown_files());
        left
    }

    /// Removes the container's cgroups, which have no processes any more.
    pub fn remove_cgroups(&self) {
        for cgroup in self.cgroups() {
            fs::remove_dir(&cgroup).unwrap();
        }
    }

    /// Returns the container's cgroups in all hierarchies.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let points =
            mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|p| p.starts_with("/sys/fs/cgroup"));
        points.map(|point| Path::new(point).join(self.id())).filter(|path| path.exists()).collect()
    }

    /// Returns files of the bundle that are neither the test's nor the harness's.
    fn unknown_files(&self) -> Vec<String> {
        const KNOWN: [&str; 8] =
            ["config.json", "console.sock", "rootfs", "runtime", "source", "state", "stderr", "stdout"];
        let names = fs::read_dir(self.bundle().path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| !KNOWN.iter().any(|known| name == known)).map(|name| format!("file {name:?}")).collect()
    }
}

fn pids() -> impl Iterator<Item = String> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    entries.filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
}
