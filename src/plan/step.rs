//! The steps of a container's init, by number, and the words for each when it fails.
//!
//! The inside reports three integers - step, index, errno - because it may not allocate; the outside, which holds the
//! same plan, makes the sentence.

use super::hooks::HookPlan;
use super::mounts::{MountAction, MountStep, NOT_PROC};
use super::{InitPlan, RootfsPlan};
use crate::error::describe;
use nix::errno::Errno;
use nix::libc;

macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What the inside was doing, one variant per line of `init`'s sequence.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        #[repr(u8)]
        pub enum Step { $($(#[$doc])* $name,)* }

        impl Step {
            /// Every step, in the order of the sequence.
            pub const ALL: &[Step] = &[$(Step::$name,)*];
        }
    };
}

steps! {
    /// Waiting for the outside.
    Handshake,
    /// Joining namespace number `index` of the plan.
    JoinNamespace,
    /// Unsharing the time namespace and writing its offsets.
    TimeOffsets,
    /// Cloning init from the joiner.
    CloneInit,
    /// Moving to other cpus.
    CpuAffinity,
    /// Joining the cgroups.
    Cgroup,
    /// Becoming uid 0 and gid 0 of the user namespace.
    BecomeRoot,
    /// Unsharing the network namespace.
    NetworkNamespace,
    /// Unsharing the cgroup namespace.
    CgroupNamespace,
    /// Starting a session.
    Session,
    /// Joining a session keyring.
    Keyring,
    /// Bringing the loopback interface up.
    Loopback,
    /// Setting the host name.
    Hostname,
    /// Setting the NIS domain name.
    Domainname,
    /// Changing the propagation of the mounts that were inherited.
    Propagation,
    /// Opening the root file system and making it a mount.
    Rootfs,
    /// Opening the source of mount `index`.
    MountSource,
    /// Finding or making the place of mount `index`.
    MountTarget,
    /// Mounting mount `index`.
    Mount,
    /// Copying what mount `index`, a tmpfs, begins with.
    CopyUp,
    /// Setting the attributes of mount `index`.
    MountAttributes,
    /// Making device node `index`.
    Device,
    /// Finding a file of another type, see [`Failure::errno`], in the place of device node `index`.
    DeviceType,
    /// Finding another device, see [`pack`](super::devices::pack), in the place of device node `index`.
    DeviceNumber,
    /// Making symlink `index` of /dev.
    DeviceLink,
    /// Allocating the terminal.
    Console,
    /// Sending the terminal to the console socket.
    ConsoleSocket,
    /// Running createContainer hook `index`.
    CreateContainerHook,
    /// Making path `index` read-only.
    ReadonlyPath,
    /// Masking path `index`.
    MaskedPath,
    /// Making mount `index`, which had to be writable until now, read-only.
    LateReadonly,
    /// Making the root read-only.
    ReadonlyRoot,
    /// Changing the root.
    PivotRoot,
    /// Setting the propagation of the root.
    RootPropagation,
    /// Writing sysctl `index`.
    Sysctl,
    /// Setting resource limit `index`.
    Rlimit,
    /// Setting the scheduling policy.
    Scheduler,
    /// Setting the I/O priority.
    IoPriority,
    /// Setting where memory comes from.
    MemoryPolicy,
    /// Setting the execution domain.
    Personality,
    /// Changing to the working directory.
    WorkingDirectory,
    /// Making sure that the working directory lies below the root.
    DirectoryBelowRoot,
    /// Loading the seccomp filter.
    Seccomp,
    /// Handing the seccomp listener over.
    SeccompListener,
    /// Limiting the capability bounding set.
    BoundingSet,
    /// Setting the supplementary groups.
    Groups,
    /// Setting the group id.
    Gid,
    /// Setting the user id.
    Uid,
    /// Setting the capabilities.
    Capabilities,
    /// Raising capability `index` in the ambient set.
    AmbientCapability,
    /// Setting no_new_privs.
    NoNewPrivs,
    /// Setting security label `index` for the program.
    Label,
    /// Finding the program.
    Program,
    /// Passing descriptors on.
    Descriptors,
    /// Waiting for start.
    ExecFifo,
    /// Running startContainer hook `index`.
    StartContainerHook,
    /// Executing the program.
    Exec,
}

/// A step that failed: what the inside sends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Failure {
    /// The step.
    pub step: Step,
    /// Which of the plan's objects it was about, for steps that have many.
    pub index: u16,
    /// The kernel's answer; for a hook that failed its wait status, see [`HookEnd`], and what was found instead for a
    /// device node.
    pub errno: i32,
}

/// How a hook failed, packed into the one integer that a failure has room for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HookEnd {
    /// It could not be run.
    Errno(i32),
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It did not end within its timeout.
    Timeout,
}

impl HookEnd {
    /// Returns the integer that stands for this end.
    pub fn pack(self) -> i32 {
        match self {
            HookEnd::Errno(errno) => errno,
            HookEnd::Code(code) => 0x1_0000 | code,
            HookEnd::Signal(signal) => 0x2_0000 | signal,
            HookEnd::Timeout => 0x3_0000,
        }
    }

    /// Returns the end that the integer stands for.
    pub fn unpack(packed: i32) -> Self {
        match (packed >> 16, packed & 0xffff) {
            (1, code) => HookEnd::Code(code),
            (2, signal) => HookEnd::Signal(signal),
            (3, _) => HookEnd::Timeout,
            (_, errno) => HookEnd::Errno(errno),
        }
    }
}

impl std::fmt::Display for HookEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HookEnd::Errno(errno) => f.write_str(&describe(Errno::from_raw(*errno))),
            HookEnd::Code(code) => write!(f, "exit status {code}"),
            HookEnd::Signal(signal) => match signal_words(*signal) {
                Some(words) => write!(f, "signal: {words}"),
                None => write!(f, "signal: signal {signal}"),
            },
            HookEnd::Timeout => f.write_str("timed out"),
        }
    }
}

/// What Go calls a signal that ends a program.
fn signal_words(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGHUP => "hangup",
        libc::SIGINT => "interrupt",
        libc::SIGQUIT => "quit",
        libc::SIGILL => "illegal instruction",
        libc::SIGTRAP => "trace/breakpoint trap",
        libc::SIGABRT => "aborted",
        libc::SIGBUS => "bus error",
        libc::SIGFPE => "floating point exception",
        libc::SIGKILL => "killed",
        libc::SIGSEGV => "segmentation fault",
        libc::SIGPIPE => "broken pipe",
        libc::SIGALRM => "alarm clock",
        libc::SIGTERM => "terminated",
        libc::SIGSYS => "bad system call",
        _ => return None,
    })
}

impl Failure {
    /// Says in words what failed, and why.
    pub fn describe(&self, plan: &InitPlan) -> String {
        let cause = describe(Errno::from_raw(self.errno));
        let unmapped = |verb, kind, id| format!("cannot {verb} to unmapped {kind} {id} in user namespace");
        match self.step {
            Step::Gid if self.errno == Errno::EINVAL as i32 => unmapped("setgid", "gid", plan.process.gid),
            Step::Uid if self.errno == Errno::EINVAL as i32 => unmapped("setuid", "uid", plan.process.uid),
            Step::DirectoryBelowRoot if self.errno == Errno::ENOENT as i32 => super::process::OUTSIDE.into(),
            Step::Program | Step::Exec => self.describe_program(plan),
            Step::CreateContainerHook => self.describe_hook("createContainer", &plan.create_container),
            Step::StartContainerHook => self.describe_hook("startContainer", &plan.start_container),
            Step::DeviceType | Step::DeviceNumber => self.describe_device(plan),
            Step::Label => match plan.process.labels.get(usize::from(self.index)) {
                Some(label) => label.refused(Errno::from_raw(self.errno)),
                None => format!("set the security label: {cause}"),
            },
            _ => format!("{}: {cause}", self.attempt(plan)),
        }
    }

    fn describe_hook(&self, kind: &str, hooks: &[HookPlan]) -> String {
        let end = HookEnd::unpack(self.errno);
        let path = hooks.get(usize::from(self.index)).filter(|_| matches!(end, HookEnd::Errno(_)));
        let attempt = path.map_or_else(String::new, |hook| format!("fork/exec {}: ", hook.path.to_string_lossy()));
        format!("error running {kind} hook #{}: {attempt}{end}", self.index)
    }

    fn describe_device(&self, plan: &InitPlan) -> String {
        let node = plan.rootfs.devices.get(usize::from(self.index));
        node.map_or_else(String::new, |node| node.contradiction(self.step == Step::DeviceType, self.errno))
    }

    /// The words of Go's exec.LookPath: clients tell "not found" from "not executable" by them.
    fn describe_program(&self, plan: &InitPlan) -> String {
        let cause = describe(Errno::from_raw(self.errno));
        if self.step == Step::Exec {
            let path = plan.process.candidates.get(usize::from(self.index));
            return format!(
                "exec {}: {cause}",
                path.map_or_else(String::new, |path| path.to_string_lossy().into_owned())
            );
        }
        let name = plan.process.program_name();
        match Errno::from_raw(self.errno) {
            _ if !name.contains('/') => format!("exec: {name:?}: executable file not found in $PATH"),
            Errno::EACCES => format!("exec: {name:?}: {cause}"),
            // execve(2) has EACCES for a directory, and docker before 28 takes only that for "not executable".
            Errno::EISDIR => format!("exec: {name:?}: {cause}: {}", describe(Errno::EACCES)),
            _ => format!("exec: {name:?}: stat {name}: {cause}"),
        }
    }

    fn attempt(&self, plan: &InitPlan) -> String {
        let index = usize::from(self.index);
        let root = &plan.rootfs;
        let mount = || root.mounts.get(index).map_or_else(String::new, |m| m.to_string());
        let text = |list: &[std::ffi::CString]| {
            list.get(index).map_or_else(String::new, |path| path.to_string_lossy().into_owned())
        };
        match self.step {
            Step::Handshake => "wait for the runtime".into(),
            Step::JoinNamespace => match plan.namespaces.join.get(index) {
                Some(join) => format!("join {} namespace {}", join.kind.name(), join.path.to_string_lossy()),
                None => "join namespaces".into(),
            },
            Step::TimeOffsets => "set the time namespace's offsets".into(),
            Step::CloneInit => "clone the container's init".into(),
            Step::Cgroup => "join the cgroup".into(),
            Step::BecomeRoot => "become root in the user namespace".into(),
            Step::NetworkNamespace => "unshare the network namespace".into(),
            Step::CgroupNamespace => "unshare the cgroup namespace".into(),
            Step::Session => "start a session".into(),
            Step::Keyring => "join a session keyring (--no-new-keyring leaves this out)".into(),
            Step::Loopback => "bring the loopback interface up".into(),
            Step::Hostname => "set the hostname".into(),
            Step::Domainname => "set the domainname".into(),
            Step::Propagation => "change the propagation of /".into(),
            Step::Rootfs => format!("mount rootfs {}", root.source.to_string_lossy()),
            Step::MountSource => format!("{}: open its source", mount()),
            Step::MountTarget => format!("{}: {}", mount(), self.attempt_of_target(root, index)),
            Step::Mount => mount(),
            Step::CopyUp => {
                let place =
                    root.mounts.get(index).map_or_else(String::new, |m| m.target.to_string_lossy().into_owned());
                format!("{}: tmpcopyup: failed to copy {place}", mount())
            }
            Step::MountAttributes => format!("{}: {}", mount(), attempt_of_flags(root.mounts.get(index))),
            Step::Device => format!(
                "make device {}",
                root.devices.get(index).map_or_else(String::new, |d| d.path.to_string_lossy().into_owned())
            ),
            Step::DeviceLink => format!(
                "make symlink {}",
                root.links.get(index).map_or_else(String::new, |link| link.path.to_string_lossy().into_owned())
            ),
            Step::Console => "allocate a terminal".into(),
            Step::ConsoleSocket => "send the terminal to the console socket".into(),
            Step::ReadonlyPath => format!("can't make {:?} read-only", text(&root.readonly_paths)),
            Step::MaskedPath => format!("can't mask path {:?}", text(&root.masked_paths)),
            Step::LateReadonly => format!("{}: remount read-only", mount()),
            Step::ReadonlyRoot => "make the rootfs read-only".into(),
            Step::PivotRoot => format!("change root to {}", root.source.to_string_lossy()),
            Step::RootPropagation => "set the rootfs propagation".into(),
            Step::Sysctl => format!(
                "write sysctl {}",
                plan.sysctls.get(index).map_or_else(String::new, |sysctl| sysctl.path.to_string_lossy().into_owned())
            ),
            _ => self.attempt_of_process(plan),
        }
    }

    /// Why a place was refused that is there, but leads elsewhere, is said in runc's words.
    fn attempt_of_target(&self, root: &RootfsPlan, index: usize) -> String {
        let Some(step) = root.mounts.get(index) else { return String::new() };
        match (&step.action, Errno::from_raw(self.errno)) {
            (_, Errno::EBUSY) => {
                let (target, root) = (step.target.to_string_lossy(), root.source.to_string_lossy());
                format!("create mountpoint for {target} mount: mountpoint {root:?} is on the top of rootfs {root:?}")
            }
            (MountAction::Bind { .. }, Errno::EOPNOTSUPP) => format!("{:?} {NOT_PROC}", step.target.to_string_lossy()),
            (MountAction::Filesystem { fstype, .. }, Errno::ELOOP | Errno::ENOTDIR)
                if matches!(fstype.to_bytes(), b"proc" | b"sysfs") =>
            {
                format!("filesystem {:?} must be mounted on ordinary directory", fstype.to_string_lossy())
            }
            _ => "make its mount point".into(),
        }
    }

    fn attempt_of_process(&self, plan: &InitPlan) -> String {
        let index = usize::from(self.index);
        let process = &plan.process;
        match self.step {
            Step::Rlimit => {
                format!("error setting rlimit {}", process.rlimits.get(index).map_or("", |limit| limit.name))
            }
            Step::Scheduler if self.errno == Errno::EPERM as i32 && process.has_cpuset => {
                "process scheduler can't be used together with AllowedCPUs".into()
            }
            Step::Scheduler => "set the scheduler".into(),
            Step::IoPriority => "set the I/O priority".into(),
            Step::CpuAffinity => "set the CPU affinity".into(),
            Step::MemoryPolicy => "set the memory policy".into(),
            Step::Personality => "set the personality".into(),
            Step::WorkingDirectory => {
                let cwd = process.cwd.to_string_lossy();
                format!("chdir to cwd ({cwd:?}) set in config.json failed")
            }
            Step::DirectoryBelowRoot => "failed to verify if current working directory is safe".into(),
            Step::Seccomp => "load the seccomp filter".into(),
            Step::SeccompListener => "hand the seccomp listener over".into(),
            Step::BoundingSet => "limit the capability bounding set".into(),
            Step::Groups => "set the additional groups".into(),
            Step::Gid => format!("set gid {}", process.gid),
            Step::Uid => format!("set uid {}", process.uid),
            Step::Capabilities => "set the capabilities".into(),
            Step::AmbientCapability => {
                format!("can't raise ambient capability {}", super::caps::name(self.index))
            }
            Step::NoNewPrivs => "set no_new_privs".into(),
            Step::Descriptors => "pass descriptors on".into(),
            Step::ExecFifo => "wait for start".into(),
            _ => format!("{:?}", self.step),
        }
    }
}

fn attempt_of_flags(step: Option<&MountStep>) -> &'static str {
    match step.map(|step| &step.action) {
        Some(MountAction::Bind { .. }) => "failed to set user-requested vfs flags on bind-mount",
        _ => "set its flags",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_words() {
        let plan = InitPlan::default();
        for &step in Step::ALL {
            let words = Failure { step, index: 0, errno: libc::EPERM }.describe(&plan);
            let own = words.contains("$PATH") || matches!(step, Step::DeviceType | Step::DeviceNumber);
            assert!(words.ends_with("operation not permitted") || own, "{step:?}: {words}");
            assert!(!words.starts_with(&format!("{step:?}:")), "{step:?} has no words of its own");
        }
    }

    #[test]
    fn steps_are_numbered_in_order() {
        for (number, &step) in Step::ALL.iter().enumerate() {
            assert_eq!(step as usize, number);
        }
    }

    #[test]
    fn the_end_of_a_hook_survives_packing() {
        for end in [HookEnd::Errno(2), HookEnd::Code(1), HookEnd::Signal(9), HookEnd::Timeout] {
            assert_eq!(HookEnd::unpack(end.pack()), end);
        }
    }
}
