//! Who the container's processes are, who their parents are, and which namespaces they are in.

use std::collections::BTreeMap;

/// The namespaces of a process that CRIU looks at, by their names in /proc/PID/ns.
const NAMESPACES: [&str; 9] = ["pid", "net", "ipc", "uts", "mnt", "user", "cgroup", "time", CHILDREN];

/// The namespace that its children are going to be in, which has to be its own.
const CHILDREN: &str = "time_for_children";

/// A process.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Process {
    /// Its pid here.
    pub pid: i32,
    /// Its pid in its own pid namespace.
    pub inner: i32,
    /// Its name.
    pub name: String,
    /// Its parent.
    pub parent: i32,
    /// Who traces it, or 0.
    pub tracer: i32,
    /// Whether the leader of its session is in no pid namespace that it knows of.
    pub is_in_outer_session: bool,
}

/// Reads what a process is, unless it has ended.
pub fn read(pid: i32) -> Option<Process> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

/// Reads proc_pid_status(5).
fn parse(status: &str) -> Option<Process> {
    let mut process = Process::default();
    for line in status.lines() {
        let Some((field, value)) = line.split_once(":\t") else { continue };
        let innermost = || value.split_ascii_whitespace().next_back()?.parse::<i32>().ok();
        match field {
            "Name" => value.clone_into(&mut process.name),
            "State" if value.starts_with(['Z', 'X']) => return None,
            "Pid" => process.pid = value.parse().ok()?,
            "PPid" => process.parent = value.parse().ok()?,
            "TracerPid" => process.tracer = value.parse().ok()?,
            "NSpid" => process.inner = innermost()?,
            "NSsid" => process.is_in_outer_session = innermost() == Some(0),
            _ => {}
        }
    }
    (process.pid != 0).then_some(process)
}

/// Returns the name of a process, if it is there.
pub fn name(pid: i32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).ok().map(|name| name.trim_end().to_owned())
}

/// Splits processes into init with its descendants, by pid, and others.
pub fn split(init: i32, all: Vec<Process>) -> (BTreeMap<i32, Process>, Vec<Process>) {
    let parents: BTreeMap<i32, i32> = all.iter().map(|process| (process.pid, process.parent)).collect();
    let is_below = |process: &Process| {
        let mut pid = process.pid;
        // A chain is no longer than there are processes, whatever they did while they were looked at.
        (0..=parents.len()).any(|_| {
            let found = pid == init;
            pid = parents.get(&pid).copied().unwrap_or(0);
            found
        })
    };
    let (inside, others): (Vec<_>, Vec<_>) = all.into_iter().partition(is_below);
    (inside.into_iter().map(|process| (process.pid, process)).collect(), others)
}

/// Says whether a process is there and has an ancestor, or has ended, which makes it nobody's concern.
pub fn descends(pid: i32, ancestor: i32) -> bool {
    const DEEPEST: u32 = 1000;
    let mut pid = pid;
    for _ in 0..DEEPEST {
        match read(pid) {
            None => return true,
            Some(process) if process.pid == ancestor || process.parent == ancestor => return true,
            Some(process) if process.parent == 0 => return false,
            Some(process) => pid = process.parent,
        }
    }
    true
}

/// Returns the type of the namespace that a file in /proc/PID/ns stands for.
pub fn kind(file: &'static str) -> &'static str {
    if file == CHILDREN { "time" } else { file }
}

/// Returns the links of a process's namespaces, by the names of their files.
pub fn namespaces(pid: i32) -> BTreeMap<&'static str, String> {
    let link = |name: &'static str| {
        let link = std::fs::read_link(format!("/proc/{pid}/ns/{name}")).ok()?;
        Some((name, link.to_string_lossy().into_owned()))
    };
    NAMESPACES.into_iter().filter_map(link).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\ta b\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t40\nPid:\t40\nPPid:\t30\n\
        TracerPid:\t9\nNSpid:\t40\t2\nNSsid:\t0\t0\n";

    #[test]
    fn a_status_is_read() {
        let expected =
            Process { pid: 40, inner: 2, name: "a b".to_owned(), parent: 30, tracer: 9, is_in_outer_session: true };
        assert_eq!(parse(STATUS), Some(expected));
        assert_eq!(parse(&STATUS.replace("S (sleeping)", "Z (zombie)")), None);
        assert!(!parse(&STATUS.replace("NSsid:\t0\t0", "NSsid:\t30\t1")).unwrap().is_in_outer_session);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn the_tree_is_init_and_below() {
        let process = |pid, parent| Process { pid, parent, ..Process::default() };
        let all = vec![process(10, 1), process(11, 10), process(12, 11), process(20, 5), process(21, 20)];
        let (tree, others) = split(10, all);
        assert_eq!(tree.into_keys().collect::<Vec<_>>(), [10, 11, 12]);
        assert_eq!(others.iter().map(|process| process.pid).collect::<Vec<_>>(), [20, 21]);
        // Seen at different times, parents may make a circle.
        assert_eq!(split(10, vec![process(11, 12), process(12, 11)]).1.len(), 2);
    }

    #[test]
    fn an_ancestor_is_found_across_generations() {
        let me = std::process::id() as i32;
        assert!(descends(me, me) && descends(me, read(me).unwrap().parent));
        assert!(!descends(1, me));
    }
}
