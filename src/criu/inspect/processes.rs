//! Processes: the tree, and of each what it is, whose it is, how much memory it has and which files.

use super::directory::Directory;
use super::files::{Files, OpenFile};
use super::memory::{Memory, PageMaps, need_mapped};
use crate::criu::image::Message;
use crate::error::Result;
use serde::Serialize;

/// The states of a process by CRIU's numbers.
const ALIVE: u64 = 1;
const DEAD: u64 = 2;
const STOPPED: u64 = 3;
const ZOMBIE: u64 = 6;

/// The mode of a thread that has a seccomp filter.
const FILTERED: u64 = 2;

/// The architectures by CRIU's numbers, with Rust's names.
const ARCHITECTURES: [&str; 9] =
    ["unknown", "x86_64", "arm", "aarch64", "powerpc64", "s390x", "mips64", "loongarch64", "riscv64"];

/// A process.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Its number, in its pid namespace.
    pub pid: u64,
    /// The number of its parent; 0 for the container's init.
    pub ppid: u64,
    /// The number of its process group.
    pub pgid: u64,
    /// The number of its session; 0 for one from outside.
    pub sid: u64,
    /// The name that the kernel has of it.
    pub command: String,
    /// `alive`, `stopped` or `zombie`.
    pub state: &'static str,
    /// Its threads, itself among them; none of a zombie.
    pub threads: Vec<u64>,
    /// The program that it executes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executable: Option<String>,
    /// Its working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// The user that it runs as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u64>,
    /// The group that it runs as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u64>,
    /// Whether it has a seccomp filter.
    pub seccomp: bool,
    /// The profile that a security module has for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_profile: Option<String>,
    /// The memory that is its alone.
    pub memory: Memory,
    /// Its open files.
    pub files: Vec<OpenFile>,
}

/// What is told of the container's init, and holds for all of the container.
#[derive(Clone, Debug, Default)]
pub struct Init {
    /// The architecture.
    pub architecture: &'static str,
    /// The numbers of its namespaces and tables.
    pub ids: Ids,
    /// The number of its set of cgroups.
    pub cgroups: u64,
}

/// The numbers that an image gives to what processes may share.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ids {
    /// The table of open files.
    pub files: u64,
    /// The namespaces: pid, net, ipc, uts, mnt, user, cgroup, time; 0 for one that is not told of.
    pub namespaces: [u64; 8],
}

impl Ids {
    /// Takes them from an entry.
    pub fn of(entry: &Message) -> Self {
        let number = |field| entry.number(field).unwrap_or(0);
        Self { files: number(2), namespaces: [5, 6, 7, 8, 9, 10, 11, 12].map(number) }
    }
}

/// Reads all processes, and the numbers of each.
pub fn read(images: &mut Directory, files: &Files, maps: &mut PageMaps) -> Result<(Vec<Process>, Init, Vec<Ids>)> {
    let (mut processes, mut init, mut ids) = (Vec::new(), None, Vec::new());
    for entry in images.needed("pstree.img")? {
        let number = |field| entry.number(field).unwrap_or(0);
        let mut process =
            Process { pid: number(1), ppid: number(2), pgid: number(3), sid: number(4), ..Process::default() };
        let core = images.needed_one(&format!("core-{}.img", process.pid))?;
        process.take_core(&core);
        let mut own = Ids::default();
        // What has ended has no threads, whatever their number is here.
        if matches!(process.state, "alive" | "stopped") {
            process.threads = entry.numbers(5);
            for thread in process.threads.iter().filter(|thread| **thread != process.pid) {
                images.need(format!("core-{thread}.img"));
            }
            own = read_ids(images, process.pid, &core)?;
            process.take_memory(images, files, maps)?;
            // Who has no numbers has been told of.
            if own.files != 0 {
                process.files = files.of_table(images, own.files)?;
            }
        }
        init.get_or_insert_with(|| {
            let architecture = core.number(1).and_then(|number| ARCHITECTURES.get(usize::try_from(number).ok()?));
            let task = core.message(3).unwrap_or_default();
            let of_thread = core.message(5).and_then(|thread| thread.number(16));
            let cgroups = task.number(9).or(of_thread).unwrap_or(0);
            Init { architecture: architecture.copied().unwrap_or("unknown"), ids: own.clone(), cgroups }
        });
        ids.push(own);
        processes.push(process);
    }
    Ok((processes, init.unwrap_or_default(), ids))
}

fn read_ids(images: &mut Directory, pid: u64, core: &Message) -> Result<Ids> {
    match core.message(4) {
        Some(ids) => Ok(Ids::of(&ids)),
        None => Ok(Ids::of(&images.needed_one(&format!("ids-{pid}.img"))?)),
    }
}

impl Process {
    fn take_core(&mut self, core: &Message) {
        let (task, thread) = (core.message(3).unwrap_or_default(), core.message(5).unwrap_or_default());
        self.command = task.text(6).unwrap_or_default();
        self.state = match task.number(1) {
            Some(ALIVE) => "alive",
            Some(STOPPED) => "stopped",
            Some(DEAD | ZOMBIE) => "zombie",
            _ => "unknown",
        };
        let mode = thread.number(11).or(task.number(11));
        self.seccomp = mode == Some(FILTERED);
        if let Some(credentials) = thread.message(10) {
            (self.uid, self.gid) = (credentials.number(1), credentials.number(2));
            self.security_profile = credentials.text(15).filter(|profile| !profile.is_empty());
        }
    }

    fn take_memory(&mut self, images: &mut Directory, files: &Files, maps: &mut PageMaps) -> Result<()> {
        self.memory = maps.of_process(images, self.pid)?;
        let mm = images.needed_one(&format!("mm-{}.img", self.pid))?;
        self.executable = mm.number(12).and_then(|id| files.path(id));
        need_mapped(images, &mm.messages(14));
        let fs = images.needed_one(&format!("fs-{}.img", self.pid))?;
        self.directory = fs.number(1).and_then(|id| files.path(id));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::criu::inspect::tests::{TestImages, message, within};

    #[test]
    fn the_tree_is_told_and_what_is_missing_of_it() {
        let images = TestImages::new();
        let mut task = message(&[(1, ALIVE), (9, 3)]);
        task.set_text(6, "sh");
        let mut credentials = message(&[(1, 1000), (2, 100)]);
        credentials.set_text(15, "docker-default");
        let thread = within(message(&[(11, FILTERED)]), 10, &credentials);
        let core = within(within(message(&[(1, 1)]), 3, &task), 5, &thread);
        let mut first = message(&[(1, 1), (2, 0), (3, 1), (4, 1)]);
        first.set_packed(5, &[1, 9]);
        images.write("pstree.img", &[first, message(&[(1, 7), (2, 1), (5, 0)]), message(&[(1, 8), (2, 1)])]);
        images.write("core-1.img", &[core]);
        images.write("core-7.img", &[within(message(&[(1, 1)]), 3, &message(&[(1, ZOMBIE)]))]);
        images.write("ids-1.img", &[message(&[(2, 5), (7, 11)])]);
        let mut dir = Directory::open(images.path()).unwrap();
        let (all, init, ids) = read(&mut dir, &Files::default(), &mut PageMaps::new(4096)).unwrap();
        assert_eq!(all.iter().map(|process| process.state).collect::<Vec<_>>(), ["alive", "zombie", "unknown"]);
        let sh = &all[0];
        assert_eq!((sh.command.as_str(), sh.uid, sh.gid, sh.seccomp), ("sh", Some(1000), Some(100), true));
        assert_eq!((sh.threads.as_slice(), sh.security_profile.as_deref()), (&[1, 9][..], Some("docker-default")));
        assert_eq!((init.architecture, init.cgroups, init.ids.files, ids.len()), ("x86_64", 3, 5, 3));
        assert_eq!(init.ids.namespaces[2], 11);
        let missing = ["core-8.img", "core-9.img", "fdinfo-5.img", "fs-1.img", "mm-1.img", "pagemap-1.img"];
        assert_eq!(dir.flaws().0, missing);
    }
}
