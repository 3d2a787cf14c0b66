//! The look at a container's processes before they are dumped: what CRIU is going to refuse is said before anything is
//! frozen or written, in one line that names the process, the object and the option that would help.
//!
//! What an obstacle is, [`criu::obstacles`](crate::criu::obstacles) knows; here is where to look: at the processes that
//! CRIU dumps, which are init and its descendants. Processes come and go meanwhile, and some things cannot be looked at
//! without privileges: whatever cannot be read is no obstacle, and CRIU has the last word.

mod descriptors;
mod mappings;
mod processes;
mod sockets;

use super::Container;
use crate::criu::obstacles::{self, Given, Obstacle};
use crate::criu::options::{DumpOptions, config_file};
use crate::criu::{Launch, Program, Session, settings};
use crate::error::{Error, ErrorKind, Result};
use processes::Process;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

/// Refuses what CRIU is going to refuse. The container may be running or paused.
pub fn check(container: &Container, asked: &DumpOptions) -> Result<()> {
    let state = container.state();
    let config = config_file(|name| state.annotations.get(name).cloned());
    let scene = Scene::new(container, Given::new(asked, &settings(config.as_deref())))?;
    let found = if asked.pre_dump { scene.refused_at_pre_dump() } else { scene.refused() };
    let [(process, first), rest @ ..] = found.as_slice() else { return Ok(()) };
    let text = words(process, first, rest.len());
    // To ask takes as long as CRIU takes to start, which only a refusal has to.
    let program = Program::find()?;
    let criu = program.check_version(&mut Session::start(&program, Launch::default())?)?;
    if criu > obstacles::KNOWN {
        log::debug!("criu {criu} is newer than what is known here, and may prove this wrong: {text}");
        return Ok(());
    }
    Err(Error::new(ErrorKind::Criu, text))
}

/// Returns the line that names the first obstacle, and how many there are beside it.
fn words(process: &Process, first: &Obstacle, others: usize) -> String {
    let Process { pid, inner, name, .. } = process;
    let inside = if inner == pid { String::new() } else { format!(", {inner} in the container") };
    let others = match others {
        0 => String::new(),
        1 => ", and there is 1 more obstacle".to_owned(),
        count => format!(", and there are {count} more obstacles"),
    };
    printable(&format!("criu cannot dump process {pid} ({name}{inside}): {first}{others}"))
}

/// Replaces what would break a line: names of processes and files are the container's.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// What is known of the container while its processes are looked at.
struct Scene<'a> {
    container: &'a Container,
    given: Given,
    /// Its processes that are dumped, by pid.
    tree: BTreeMap<i32, Process>,
    /// Those that are not, such as those of exec.
    others: Vec<Process>,
    init: i32,
    /// The namespaces of init, by their name in /proc and their link.
    namespaces: BTreeMap<&'static str, String>,
    /// Our namespaces, which are CRIU's.
    ours: BTreeMap<&'static str, String>,
    mounts: OnceCell<mappings::Mounts>,
    bpf_maps: OnceCell<bool>,
}

impl<'a> Scene<'a> {
    fn new(container: &'a Container, given: Given) -> Result<Self> {
        let init = container.state().pid;
        let mut pids = container.pids()?;
        // Without a cgroup nobody knows of the others.
        if !pids.contains(&init) {
            pids.push(init);
        }
        let (tree, others) = processes::split(init, pids.into_iter().filter_map(processes::read).collect());
        let (namespaces, ours) = (processes::namespaces(init), processes::namespaces(std::process::id() as i32));
        let (mounts, bpf_maps) = (OnceCell::new(), OnceCell::new());
        Ok(Self { container, given, tree, others, init, namespaces, ours, mounts, bpf_maps })
    }

    fn refused(&self) -> Vec<(&Process, Obstacle)> {
        let mut found = self.traced();
        let mut known: BTreeSet<String> = self.ours.values().cloned().collect();
        for process in self.tree.values() {
            let namespaces = processes::namespaces(process.pid);
            found.extend(self.misplaced(process, &namespaces).into_iter().map(|obstacle| (process, obstacle)));
            known.extend(namespaces.into_values());
        }
        let locks = descriptors::Locks::read(&self.given, |pid| self.tree.contains_key(&pid));
        let (mut sockets, mut semaphores) = (Vec::new(), BTreeSet::new());
        for process in self.tree.values() {
            let mut walk =
                descriptors::Walk { scene: self, process, namespaces: &known, locks: &locks, sockets, semaphores };
            found.extend(walk.obstacles().into_iter().map(|obstacle| (process, obstacle)));
            (sockets, semaphores) = (walk.sockets, walk.semaphores);
            found.extend(self.mapped(process).into_iter().map(|obstacle| (process, obstacle)));
        }
        found.extend(sockets::with_foreign_peers(self, &sockets));
        found
    }

    /// A pre-dump looks at memory alone.
    fn refused_at_pre_dump(&self) -> Vec<(&Process, Obstacle)> {
        let mut found = self.traced();
        for process in self.tree.values() {
            let mapped = self.mapped(process).into_iter().filter(Obstacle::stops_pre_dump);
            found.extend(mapped.map(|obstacle| (process, obstacle)));
        }
        found
    }

    /// CRIU seizes all processes of the cgroup, those too that it does not dump.
    fn traced(&self) -> Vec<(&Process, Obstacle)> {
        let tracer = |process: &Process| {
            let name = processes::name(process.tracer)?;
            Some(Obstacle::Tracer { pid: process.tracer, name })
        };
        let all = self.tree.values().chain(&self.others).filter(|process| process.tracer != 0);
        all.filter_map(|process| Some((process, tracer(process)?))).collect()
    }

    /// Returns in which ways a process is not where init is.
    fn misplaced(&self, process: &Process, namespaces: &BTreeMap<&'static str, String>) -> Vec<Obstacle> {
        let nested = namespaces.iter().filter_map(|(file, link)| {
            let kind = processes::kind(file);
            let is_nested = self.namespaces.get(kind).is_some_and(|own| own != link);
            // CRIU dumps several mount namespaces, and several network namespaces only if it is to save what is in them.
            (is_nested && kind != "mnt").then_some(kind)
        });
        let nested: BTreeSet<&str> = nested.collect();
        // A new pid namespace begins with a session from outside of it.
        let session = process.is_in_outer_session && !nested.contains("pid");
        let mut found: Vec<Obstacle> = session.then_some(Obstacle::Session).into_iter().collect();
        found.extend(nested.into_iter().map(|kind| Obstacle::Namespace(kind.to_owned())));
        found
    }

    fn mapped(&self, process: &Process) -> Vec<Obstacle> {
        mappings::obstacles(self, process)
    }

    /// Says whether a process is dumped: whether init is it, or an ancestor of it.
    fn dumps(&self, pid: i32) -> bool {
        self.tree.contains_key(&pid) || processes::descends(pid, self.init)
    }

    /// Returns the mounts of the container's mount namespaces.
    fn mounts(&self) -> &mappings::Mounts {
        self.mounts.get_or_init(|| mappings::Mounts::of(std::iter::once(self.init).chain(self.tree.keys().copied())))
    }

    /// Says whether CRIU may be able to dump BPF maps.
    fn may_dump_bpf_maps(&self) -> bool {
        *self.bpf_maps.get_or_init(|| Program::find().map_or(true, |program| program.may_use("libbpf")))
    }

    /// Says whether the container has this network namespace.
    fn has_network(&self, link: &str) -> bool {
        self.namespaces.get("net").is_none_or(|own| own == link)
    }

    /// Says whether the container has a namespace of this type that is not CRIU's.
    fn has_own(&self, kind: &str) -> bool {
        self.namespaces.get(kind) != self.ours.get(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, inner: i32) -> Process {
        Process { pid, inner, name: "a\nb".to_owned(), ..Process::default() }
    }

    #[test]
    fn one_line_names_process_and_object() {
        let line = words(&process(7, 2), &Obstacle::Namespace("ipc".to_owned()), 0);
        let expected = "it is in another ipc namespace than the container's init";
        assert_eq!(line, format!("criu cannot dump process 7 (a?b, 2 in the container): {expected}"));
        let line = words(&process(7, 7), &Obstacle::Session, 2);
        let expected = "it is in a session from outside of its pid namespace";
        assert_eq!(line, format!("criu cannot dump process 7 (a?b): {expected}, and there are 2 more obstacles"));
        assert!(words(&process(7, 7), &Obstacle::Session, 1).ends_with(", and there is 1 more obstacle"));
    }
}
