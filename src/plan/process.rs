//! The process: what is executed, as whom, with which limits, capabilities and labels.

use super::caps::{self, CapMasks};
use super::labels::{self, Label};
use super::memory_policy::MemoryPolicy;
use super::number_list;
use super::seccomp::CompiledFilter;
use crate::cstrings::CStringArray;
use crate::error::{Error, Result};
use nix::libc;
use oci_spec::runtime::{
    IOPriorityClass, LinuxIOPriority, LinuxSchedulerFlag, LinuxSchedulerPolicy, PosixRlimit, PosixRlimitType, Process,
    Scheduler,
};
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;

/// The mask where the configuration has none, as with runc and crun: engines run with masks of their own, 0 among them,
/// which would leave a container's files writable for everybody.
const DEFAULT_UMASK: u32 = 0o022;

/// What runc says of a working directory that no path below the root leads to, in the words that clients look for.
pub const OUTSIDE: &str =
    "current working directory is outside of container mount namespace root -- possible container breakout detected";

/// The process of a container, or one that exec puts beside it.
#[derive(Debug, Default)]
pub struct ProcessPlan {
    /// Where the program may be, in the order of PATH.
    pub candidates: Vec<CString>,
    /// Its arguments.
    pub args: CStringArray,
    /// Its environment.
    pub env: CStringArray,
    /// Whether HOME has to be looked up in the container's /etc/passwd.
    pub find_home: bool,
    /// Its working directory.
    pub cwd: CString,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Whether they may be set; else they stay as they are.
    pub may_set_groups: bool,
    /// File mode creation mask.
    pub umask: u32,
    /// Capabilities; a configuration without them means none.
    pub capabilities: CapMasks,
    /// Whether execve may gain no privileges.
    pub no_new_privs: bool,
    /// Resource limits.
    pub rlimits: Vec<RlimitPlan>,
    /// Seccomp filter.
    pub seccomp: Option<CompiledFilter>,
    /// Security labels to write before execve.
    pub labels: Vec<Label>,
    /// OOM score adjustment, which the outside writes.
    pub oom_score_adj: Option<i32>,
    /// The session keyring to join.
    pub keyring: Option<CString>,
    /// Scheduling policy.
    pub scheduler: Option<SchedulerPlan>,
    /// Whether it may use some cpus only, which not every policy goes with.
    pub has_cpuset: bool,
    /// ioprio_set(2)'s value.
    pub io_priority: Option<u32>,
    /// personality(2)'s value.
    pub personality: Option<u32>,
    /// Where its memory comes from.
    pub memory_policy: Option<MemoryPolicy>,
    /// On which cpus it is before it is in the container's cgroup, as a mask; for exec only.
    pub first_cpus: Vec<u64>,
    /// On which cpus it is from then on. If neither is said, on all that the cgroup has, whatever the caller was
    /// limited to.
    pub last_cpus: Vec<u64>,
    /// Whether it has a terminal, and of what size.
    pub terminal: Option<TerminalPlan>,
    /// How many descriptors from 3 on it inherits.
    pub preserve_fds: u32,
}

/// The terminal of a process.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TerminalPlan {
    /// Rows and columns.
    pub size: Option<(u16, u16)>,
    /// Whether the runtime itself passes its output on.
    pub relayed: bool,
}

/// One resource limit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RlimitPlan {
    /// Its name in config.json.
    pub name: &'static str,
    /// Its number.
    pub resource: u32,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// The arguments of sched_setattr(2).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SchedulerPlan {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// Nice value.
    pub nice: i32,
    /// Real-time priority.
    pub priority: u32,
    /// Deadline scheduling, in nanoseconds.
    pub runtime: u64,
    /// Deadline scheduling, in nanoseconds.
    pub deadline: u64,
    /// Deadline scheduling, in nanoseconds.
    pub period: u64,
}

/// What the configuration of a process does not say itself.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The kernel's last capability.
    pub last_capability: u8,
    /// The container's session keyring, unless it is to have none.
    pub keyring: Option<CString>,
    /// How many descriptors from 3 on are inherited.
    pub preserve_fds: u32,
    /// Whether supplementary groups may be set.
    pub may_set_groups: bool,
    /// Domain and flags of personality(2), which linux.personality sets for all processes.
    pub personality: Option<u32>,
    /// Where memory comes from, which linux.memoryPolicy sets for all processes.
    pub memory_policy: Option<MemoryPolicy>,
    /// Whether the container's cgroup has a limit of cpus.
    pub has_cpuset: bool,
    /// Whether the kernel gives processes SELinux labels; asked only for one that wants a label.
    pub has_selinux: bool,
    /// Rows and columns of the terminal that the process's own is relayed to, which count more than those asked for.
    pub terminal_size: Option<(u16, u16)>,
    /// Whether the runtime itself passes on what is written to its terminal.
    pub relayed: bool,
}

impl ProcessPlan {
    /// Returns the name under which the program was asked for.
    pub fn program_name(&self) -> String {
        self.args.strings().first().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }
}

/// Plans a process.
pub fn plan(process: &Process, seccomp: Option<CompiledFilter>, around: &Surroundings) -> Result<ProcessPlan> {
    let args = process.args().as_deref().unwrap_or_default();
    let args = args.iter().map(|arg| cstring(arg.as_ref(), "process.args")).collect::<Result<Vec<_>>>()?;
    let name = args.first().ok_or_else(|| Error::invalid("args must not be empty"))?.clone();
    let env = environment(process.env().as_deref().unwrap_or_default())?;
    let find_home = !env.iter().any(|entry| entry.as_bytes().starts_with(b"HOME=") && entry.as_bytes().len() > 5);
    let user = process.user();
    let groups = user.additional_gids().clone().unwrap_or_default();
    Ok(ProcessPlan {
        candidates: candidates(&name, &env)?,
        args: CStringArray::new(args),
        env: CStringArray::new(env.into_iter().filter(|entry| entry.as_bytes() != b"HOME=").collect()).with_spare(),
        find_home,
        cwd: cstring(process.cwd().as_os_str(), "process.cwd")?,
        uid: user.uid(),
        gid: user.gid(),
        groups,
        may_set_groups: around.may_set_groups,
        umask: user.umask().unwrap_or(DEFAULT_UMASK),
        capabilities: capabilities(process, around.last_capability),
        no_new_privs: process.no_new_privileges().unwrap_or(false),
        rlimits: rlimits(process.rlimits().as_deref().unwrap_or_default())?,
        seccomp,
        labels: labels::plan(process, around.has_selinux)?,
        oom_score_adj: process.oom_score_adj(),
        keyring: around.keyring.clone(),
        scheduler: process.scheduler().as_ref().map(scheduler).transpose()?,
        has_cpuset: around.has_cpuset,
        io_priority: process.io_priority().as_ref().map(io_priority).transpose()?,
        personality: around.personality,
        memory_policy: around.memory_policy.clone(),
        first_cpus: Vec::new(),
        last_cpus: Vec::new(),
        terminal: process.terminal().unwrap_or(false).then(|| terminal(process, around)),
        preserve_fds: around.preserve_fds,
    })
}

/// Returns the masks of process.execCPUAffinity, for [`ProcessPlan::first_cpus`] and [`ProcessPlan::last_cpus`].
pub fn exec_affinity(process: &Process) -> Result<[Vec<u64>; 2]> {
    let Some(affinity) = process.exec_cpu_affinity() else { return Ok([Vec::new(), Vec::new()]) };
    let mask = |key: &str, list: &Option<String>| {
        let list = list.as_deref().unwrap_or_default();
        let numbers = number_list::parse(list).map(|numbers| number_list::mask(&numbers));
        numbers.ok_or_else(|| Error::invalid(format!("invalid execCPUAffinity.{key} {list:?}")))
    };
    Ok([mask("initial", affinity.initial())?, mask("final", affinity.cpu_affinity_final())?])
}

/// Returns a C string, or says where the NUL byte was.
pub fn cstring(text: &OsStr, place: &str) -> Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| Error::invalid(format!("{place} has a NUL byte")))
}

fn terminal(process: &Process, around: &Surroundings) -> TerminalPlan {
    let cells = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
    let asked = || process.console_size().map(|size| (cells(size.height()), cells(size.width())));
    TerminalPlan { size: around.terminal_size.or_else(asked), relayed: around.relayed }
}

fn environment(entries: &[String]) -> Result<Vec<CString>> {
    for entry in entries {
        match entry.find('=') {
            None => return Err(Error::invalid("invalid environment variable: missing '='")),
            Some(0) => return Err(Error::invalid("invalid environment variable: name cannot be empty")),
            Some(_) => {}
        }
    }
    let kept = last_of_each_name(entries);
    kept.map(|entry| cstring(entry.as_ref(), "invalid environment variable:")).collect()
}

/// Returns an environment as Go passes it on for runc: of entries with one name the last counts, in its own place; those
/// without a `=` stay, unless they are empty.
pub(super) fn last_of_each_name(entries: &[String]) -> impl Iterator<Item = &String> {
    let counts = |at: usize, entry: &String| match variable(entry) {
        Some(name) => !entries[at + 1..].iter().any(|later| later.starts_with(name) && variable(later) == Some(name)),
        None => !entry.is_empty(),
    };
    entries.iter().enumerate().filter(move |&(at, entry)| counts(at, entry)).map(|(_, entry)| entry)
}

/// Returns the name in an entry of an environment, which for Go may begin with a `=`.
fn variable(entry: &str) -> Option<&str> {
    let first = entry.find('=')?;
    let end = if first == 0 { entry[1..].find('=').map_or(0, |at| at + 1) } else { first };
    Some(&entry[..end])
}

/// Where the program may be: as Go's exec.LookPath, a name with a slash is a path, another is looked for in PATH.
fn candidates(name: &CString, env: &[CString]) -> Result<Vec<CString>> {
    if name.as_bytes().contains(&b'/') {
        return Ok(vec![name.clone()]);
    }
    let path = env.iter().find_map(|entry| entry.as_bytes().strip_prefix(b"PATH=")).unwrap_or_default();
    if path.is_empty() || name.is_empty() {
        return Ok(Vec::new());
    }
    let join = |dir: &[u8]| {
        let dir = if dir.is_empty() { b"." } else { dir };
        cstring(OsStr::from_bytes(&[dir, b"/", name.as_bytes()].concat()), "PATH")
    };
    path.split(|&b| b == b':').map(join).collect()
}

fn capabilities(process: &Process, last: u8) -> CapMasks {
    let (mut masks, unavailable) = caps::resolve(process.capabilities().as_ref(), last);
    if !unavailable.is_empty() {
        log::warn!("{}", caps::ignored_warning(&unavailable));
    }
    // The kernel would refuse these (capabilities(7)); like runc, say so and go on.
    let raisable = masks.permitted & masks.inheritable;
    for number in (0..64).filter(|bit| masks.ambient & !raisable & (1 << bit) != 0) {
        log::warn!("can't raise ambient capability {}: operation not permitted", caps::name(number));
    }
    masks.ambient &= raisable;
    masks
}

fn rlimits(list: &[PosixRlimit]) -> Result<Vec<RlimitPlan>> {
    let mut limits: Vec<RlimitPlan> = Vec::with_capacity(list.len());
    for limit in list {
        let (name, resource) = rlimit(limit.typ());
        if limits.iter().any(|seen| seen.resource == resource) {
            return Err(Error::invalid(format!("rlimit was duplicated: {name}")));
        }
        limits.push(RlimitPlan { name, resource, soft: limit.soft(), hard: limit.hard() });
    }
    Ok(limits)
}

fn rlimit(kind: PosixRlimitType) -> (&'static str, u32) {
    use PosixRlimitType as T;
    let (name, number) = match kind {
        T::RlimitCpu => ("RLIMIT_CPU", libc::RLIMIT_CPU),
        T::RlimitFsize => ("RLIMIT_FSIZE", libc::RLIMIT_FSIZE),
        T::RlimitData => ("RLIMIT_DATA", libc::RLIMIT_DATA),
        T::RlimitStack => ("RLIMIT_STACK", libc::RLIMIT_STACK),
        T::RlimitCore => ("RLIMIT_CORE", libc::RLIMIT_CORE),
        T::RlimitRss => ("RLIMIT_RSS", libc::RLIMIT_RSS),
        T::RlimitNproc => ("RLIMIT_NPROC", libc::RLIMIT_NPROC),
        T::RlimitNofile => ("RLIMIT_NOFILE", libc::RLIMIT_NOFILE),
        T::RlimitMemlock => ("RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK),
        T::RlimitAs => ("RLIMIT_AS", libc::RLIMIT_AS),
        T::RlimitLocks => ("RLIMIT_LOCKS", libc::RLIMIT_LOCKS),
        T::RlimitSigpending => ("RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING),
        T::RlimitMsgqueue => ("RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE),
        T::RlimitNice => ("RLIMIT_NICE", libc::RLIMIT_NICE),
        T::RlimitRtprio => ("RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO),
        T::RlimitRttime => ("RLIMIT_RTTIME", libc::RLIMIT_RTTIME),
    };
    (name, number)
}

fn scheduler(asked: &Scheduler) -> Result<SchedulerPlan> {
    use LinuxSchedulerPolicy as P;
    let policy = match asked.policy() {
        P::SchedOther => libc::SCHED_OTHER,
        P::SchedFifo => libc::SCHED_FIFO,
        P::SchedRr => libc::SCHED_RR,
        P::SchedBatch => libc::SCHED_BATCH,
        P::SchedIso => 4,
        P::SchedIdle => libc::SCHED_IDLE,
        P::SchedDeadline => 6,
    };
    let nice = asked.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        return Err(Error::invalid(format!("invalid scheduler.nice: {nice}")));
    }
    let priority = asked.priority().unwrap_or(0);
    let real_time = matches!(asked.policy(), P::SchedFifo | P::SchedRr);
    if priority != 0 && !real_time {
        return Err(Error::invalid("scheduler.priority can only be specified for SchedFIFO or SchedRR policy"));
    }
    let deadline = [asked.runtime(), asked.deadline(), asked.period()].map(|ns| ns.unwrap_or(0));
    if deadline != [0; 3] && !matches!(asked.policy(), P::SchedDeadline) {
        return Err(Error::invalid("scheduler runtime/deadline/period can only be specified for SchedDeadline policy"));
    }
    Ok(SchedulerPlan {
        policy: policy as u32,
        flags: asked.flags().iter().flatten().fold(0, |flags, &flag| flags | scheduler_flag(flag)),
        nice,
        priority: u32::try_from(priority).map_err(|_| Error::invalid("scheduler.priority is negative"))?,
        runtime: deadline[0],
        deadline: deadline[1],
        period: deadline[2],
    })
}

/// The bits of linux/sched.h.
fn scheduler_flag(flag: LinuxSchedulerFlag) -> u64 {
    use LinuxSchedulerFlag as F;
    match flag {
        F::SchedResetOnFork => 0x01,
        F::SchedFlagReclaim => 0x02,
        F::SchedFlagDLOverrun => 0x04,
        F::SchedFlagKeepPolicy => 0x08,
        F::SchedFlagKeepParams => 0x10,
        F::SchedFlagUtilClampMin => 0x20,
        F::SchedFlagUtilClampMax => 0x40,
    }
}

/// Class in the upper three bits of sixteen, priority in the lower thirteen (ioprio_set(2)).
fn io_priority(asked: &LinuxIOPriority) -> Result<u32> {
    let class: u32 = match asked.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match u32::try_from(asked.priority()) {
        Ok(priority @ 0..=7) => Ok(class << 13 | priority),
        _ => Err(Error::invalid("priority of ioPriority must be between 0 and 7")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(json: serde_json::Value) -> Result<ProcessPlan> {
        let mut process = serde_json::json!({"cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["sh"]});
        let fields = json.as_object().unwrap().clone();
        process.as_object_mut().unwrap().extend(fields);
        plan(&serde_json::from_value(process).unwrap(), None, &Surroundings::default())
    }

    fn texts(list: &[CString]) -> Vec<&str> {
        list.iter().map(|s| s.to_str().unwrap()).collect()
    }

    #[test]
    fn a_name_is_looked_for_in_the_path_of_the_container() {
        let p = plan_of(serde_json::json!({"env": ["PATH=/a::/b"]})).unwrap();
        assert_eq!(texts(&p.candidates), ["/a/sh", "./sh", "/b/sh"]);
        let p = plan_of(serde_json::json!({"args": ["./x"], "env": ["PATH=/a"]})).unwrap();
        assert_eq!(texts(&p.candidates), ["./x"]);
        assert!(plan_of(serde_json::json!({})).unwrap().candidates.is_empty());
    }

    #[test]
    fn the_last_of_two_entries_counts() {
        let p = plan_of(serde_json::json!({"env": ["A=1", "AB=2", "A=3", "HOME="]})).unwrap();
        assert_eq!(texts(p.env.strings()), ["AB=2", "A=3"]);
        assert!(p.find_home);
        assert!(!plan_of(serde_json::json!({"env": ["HOME=/x"]})).unwrap().find_home);
    }

    #[test]
    fn bad_input_has_runcs_words() {
        let cases = [
            (serde_json::json!({"args": []}), "args must not be empty"),
            (serde_json::json!({"env": ["A"]}), "invalid environment variable: missing '='"),
            (
                serde_json::json!({"rlimits": [{"type": "RLIMIT_CPU", "soft": 1, "hard": 1},
                                               {"type": "RLIMIT_CPU", "soft": 1, "hard": 1}]}),
                "rlimit was duplicated: RLIMIT_CPU",
            ),
        ];
        for (json, words) in cases {
            assert_eq!(plan_of(json).unwrap_err().to_string(), words);
        }
    }

    #[test]
    fn a_terminal_that_is_relayed_has_the_size_of_the_one_it_is_relayed_to() {
        let process = serde_json::json!({"cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["sh"], "terminal": true,
            "consoleSize": {"height": 1, "width": 2}});
        let process = serde_json::from_value(process).unwrap();
        for (terminal_size, size) in [(None, (1, 2)), (Some((24, 80)), (24, 80))] {
            let p = plan(&process, None, &Surroundings { terminal_size, ..Surroundings::default() }).unwrap();
            assert_eq!(p.terminal, Some(TerminalPlan { size: Some(size), relayed: false }));
        }
    }

    #[test]
    fn classes_of_io_priority_are_the_kernels() {
        let p = plan_of(serde_json::json!({"ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 7}})).unwrap();
        assert_eq!(p.io_priority, Some(3 << 13 | 7));
    }
}
