//! The last mile, the same for a container's init and for exec: limits, identity, privileges, program.

use super::Descriptors;
use super::home;
use super::report::{At, Result, failure};
use crate::handshake::Message;
use crate::plan::InitPlan;
use crate::plan::process::ProcessPlan;
use crate::plan::step::{Failure, HookEnd, Step};
use crate::sys::{self, Errno, fd, path, process, seccomp};
use nix::fcntl::{AtFlags, OFlag};
use nix::libc;
use nix::sys::stat::FileStat;
use nix::unistd::AccessFlags;
use std::ffi::CStr;
use std::fmt::{Display, Formatter, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// More than any machine has; the kernel takes what there is.
const ALL_CPUS: [u64; 128] = [u64::MAX; 128];

/// A process that has only to execute its program.
#[derive(Debug)]
pub struct Prepared {
    program: usize,
}

/// Leaves the session of the runtime's caller, whose terminal is none of the container's business.
pub fn new_session() -> Result<()> {
    process::new_session().at(Step::Session)
}

/// Moves to the cpus that were asked for, or to all that the cgroup has: those of the runtime's caller, which may be
/// limited to some, are none of the container's business (runc does so too).
pub fn move_to_cpus(plan: &ProcessPlan) -> Result<()> {
    match (plan.first_cpus.is_empty(), plan.last_cpus.is_empty()) {
        (_, false) => process::set_affinity(&plan.last_cpus).at(Step::CpuAffinity),
        (false, true) => Ok(()),
        (true, true) => {
            // Refused to a container that goes on where it was, and no reason not to start.
            let _refused = process::set_affinity(&ALL_CPUS);
            Ok(())
        }
    }
}

/// Joins a session keyring of the container's own, so that the caller's keys stay out of its reach.
pub fn join_keyring(plan: &ProcessPlan) -> Result<()> {
    let Some(name) = &plan.keyring else { return Ok(()) };
    match process::join_session_keyring(name) {
        // A kernel without keyrings has nothing to protect.
        Err(Errno::ENOSYS) => Ok(()),
        Err(errno) => Err(failure(Step::Keyring, 0, errno)),
        // The user's own processes may use the keyring, which its key alone does not allow.
        Ok(key) => process::allow_key_search(key).at(Step::Keyring),
    }
}

/// Makes the prepared descriptors the standard streams.
pub fn stdio(with: &Descriptors) -> Result<()> {
    for (number, stream) in (0..).zip(&with.stdio) {
        if let Some(stream) = stream {
            fd::dup_to(stream.as_fd(), number).at(Step::Descriptors)?;
        }
    }
    own_null()
}

/// Makes standard streams that lead to the host's null device lead to the container's: a checkpoint could not tell where
/// the host's is (runc does so too).
fn own_null() -> Result<()> {
    let mut null = None;
    for number in 0..3 {
        // One that is closed stays closed.
        let Ok(stream) = fd::inherited(number) else { continue };
        if !is_null(&path::fstat(stream).at(Step::Descriptors)?) {
            continue;
        }
        if null.is_none() {
            // A root file system without the device, or with something else in its place, keeps the host's.
            let Ok(opened) = path::open(c"/dev/null", OFlag::O_RDWR | OFlag::O_NOCTTY) else { return Ok(()) };
            if !is_null(&path::fstat(opened.as_fd()).at(Step::Descriptors)?) {
                return Ok(());
            }
            null = Some(opened);
        }
        if let Some(null) = &null {
            fd::dup_to(null.as_fd(), number).at(Step::Descriptors)?;
        }
    }
    Ok(())
}

fn is_null(status: &FileStat) -> bool {
    status.st_mode & libc::S_IFMT == libc::S_IFCHR && status.st_rdev == libc::makedev(1, 3)
}

/// Becomes the process that the plan describes, up to the program. The order is the point:
pub fn prepare(plan: &mut ProcessPlan, with: &Descriptors) -> Result<Prepared> {
    own_stdio(plan.uid)?;
    limit(plan)?;
    label(plan, with.proc.as_fd())?;
    // Before anything is looked up by a path from the configuration, which may lead through /proc/self/fd.
    close_descriptors(plan.preserve_fds, with)?;
    // Without no_new_privs loading a filter takes CAP_SYS_ADMIN, which is about to go.
    if !plan.no_new_privs {
        load_seccomp(plan, with)?;
    }
    // As root first: the user may not be able to reach a directory that the configuration names (runc does so too).
    let reached = nix::unistd::chdir(plan.cwd.as_c_str());
    become_user(plan)?;
    change_directory(plan, reached)?;
    set_capabilities(plan)?;
    if plan.no_new_privs {
        process::set_no_new_privs().at(Step::NoNewPrivs)?;
    }
    find_home(plan);
    let program = find_program(plan)?;
    process::reset_signals().at(Step::Descriptors)?;
    if with.exec_fifo.is_some() {
        // Who waits for start may be ended without it.
        process::end_on_signals().at(Step::Descriptors)?;
    }
    preserve_descriptors(plan.preserve_fds)?;
    if plan.no_new_privs {
        // Last, so that the filter only has to allow what comes after it: write, read and execve.
        load_seccomp(plan, with)?;
    }
    Ok(Prepared { program })
}

impl Prepared {
    /// Tells the outside that only the program is missing.
    pub fn tell_ready(&self, with: &Descriptors) -> Result<()> {
        with.handshake.tell(Message::Ready, None).at(Step::Handshake)
    }

    /// Executes the program. Returns only on failure.
    pub fn exec(&self, plan: &ProcessPlan) -> Failure {
        let path = plan.candidates.get(self.program).map_or(c"", |path| path.as_c_str());
        failure(Step::Exec, self.program, process::execve(path, &plan.args, &plan.env))
    }
}

/// Waits until start writes to the fifo, or, where there is none, until the outside says so.
///
/// The fifo is open for writing too, so that it never sees end of file and start finds a reader for exactly as long as
/// init lives.
pub fn wait_for_start(with: &Descriptors) -> Result<()> {
    match &with.exec_fifo {
        Some(fifo) => fd::read(fifo.as_fd(), &mut [0]).at(Step::ExecFifo).map(drop),
        None => {
            super::proceed(with);
            Ok(())
        }
    }
}

/// Says on the process's own stderr what kept its program from being executed: its hook or the kernel.
pub fn complain(plan: &InitPlan, failed: Failure) {
    let (number, index) = (failed.index, usize::from(failed.index));
    // A stderr that is closed hears nothing.
    _ = match (failed.step, HookEnd::unpack(failed.errno)) {
        (Step::Exec, _) => {
            let path = plan.process.candidates.get(index).map_or(&b""[..], |path| path.to_bytes());
            say(&[b"exec ", path, b": "]);
            writeln!(Stderr, "{}", Words(failed.errno))
        }
        (_, HookEnd::Errno(errno)) => {
            _ = write!(Stderr, "error running startContainer hook #{number}: ");
            let path = plan.start_container.get(index).map_or(&b""[..], |hook| hook.path.to_bytes());
            say(&[b"fork/exec ", path, b": "]);
            writeln!(Stderr, "{}", Words(errno))
        }
        (_, end) => writeln!(Stderr, "error running startContainer hook #{number}: {end}"),
    };
}

/// An error number in words, which begin with a small letter. Those of the C library would take memory.
struct Words(i32);

impl Display for Words {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let mut words = Errno::from_raw(self.0).desc().chars();
        let first = words.next().unwrap_or_default().to_ascii_lowercase();
        write!(f, "{first}{}", words.as_str())
    }
}

/// The process's own stderr.
struct Stderr;

impl Write for Stderr {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        fd::inherited(2).and_then(|stderr| fd::write_all(stderr, text.as_bytes())).map_err(|_| std::fmt::Error)
    }
}

fn say(parts: &[&[u8]]) {
    let Ok(stderr) = fd::inherited(2) else { return };
    for part in parts {
        if fd::write_all(stderr, part).is_err() {
            return;
        }
    }
}

/// Gives the standard streams to the user, who could not reopen them through /dev/stdout otherwise.
fn own_stdio(uid: u32) -> Result<()> {
    for number in 0..3 {
        let Ok(stream) = fd::inherited(number) else { continue };
        let status = path::fstat(stream).at(Step::Descriptors)?;
        if is_null(&status) || status.st_uid == uid {
            continue;
        }
        match nix::unistd::fchown(stream, Some(nix::unistd::Uid::from_raw(uid)), None) {
            // Unmapped owner, read-only or foreign file system: the stream works all the same.
            Ok(()) | Err(Errno::EINVAL | Errno::EPERM | Errno::EROFS | Errno::EACCES) => {}
            Err(errno) => return Err(failure(Step::Descriptors, 0, errno)),
        }
    }
    Ok(())
}

fn limit(plan: &ProcessPlan) -> Result<()> {
    for (index, limit) in plan.rlimits.iter().enumerate() {
        process::set_rlimit(limit.resource, limit.soft, limit.hard).at_nth(Step::Rlimit, index)?;
    }
    if let Some(scheduler) = &plan.scheduler {
        process::set_scheduler(scheduler).at(Step::Scheduler)?;
    }
    if let Some(priority) = plan.io_priority {
        process::set_io_priority(priority).at(Step::IoPriority)?;
    }
    if let Some(policy) = &plan.memory_policy {
        process::set_memory_policy(policy.mode, &policy.nodes).at(Step::MemoryPolicy)?;
    }
    if let Some(personality) = plan.personality {
        process::set_personality(personality).at(Step::Personality)?;
    }
    process::set_umask(plan.umask);
    Ok(())
}

fn label(plan: &ProcessPlan, proc: BorrowedFd<'_>) -> Result<()> {
    if plan.labels.is_empty() {
        return Ok(());
    }
    let own = path::open_at(proc, c"thread-self", OFlag::O_PATH | OFlag::O_DIRECTORY).at(Step::Label)?;
    for (index, label) in plan.labels.iter().enumerate() {
        // A kernel without the module has no such file, and refuses its label to runc, which then writes to that of all.
        // AppArmor has this error for a profile that it does not know.
        let file = path::open_at(own.as_fd(), &label.attribute, OFlag::O_WRONLY)
            .map_err(|errno| if errno == Errno::ENOENT { Errno::EINVAL } else { errno });
        let file = file.at_nth(Step::Label, index)?;
        fd::write_all(file.as_fd(), label.value.to_bytes()).at_nth(Step::Label, index)?;
    }
    Ok(())
}

/// Loads the filter, and lets the outside take its listener at once: a call that it notifies of, be it one of ours, waits
/// until the agent has the listener and answers.
fn load_seccomp(plan: &ProcessPlan, with: &Descriptors) -> Result<()> {
    let Some(filter) = &plan.seccomp else { return Ok(()) };
    let Some(listener) = seccomp::load(&filter.program, filter.flags).at(Step::Seccomp)? else { return Ok(()) };
    with.handshake.tell(Message::SeccompListener(listener.as_raw_fd()), None).at(Step::SeccompListener)?;
    super::proceed(with);
    Ok(())
}

/// Drops from the bounding set first, which takes CAP_SETPCAP; then groups before the user, which takes CAP_SETGID.
fn become_user(plan: &ProcessPlan) -> Result<()> {
    process::limit_bounding_set(plan.capabilities.bounding).at(Step::BoundingSet)?;
    process::keep_capabilities(true).at(Step::Uid)?;
    if plan.may_set_groups {
        process::set_groups(&plan.groups).at(Step::Groups)?;
    }
    process::set_gid(plan.gid).at(Step::Gid)?;
    process::set_uid(plan.uid).at(Step::Uid)?;
    process::keep_capabilities(false).at(Step::Uid)
}

fn change_directory(plan: &ProcessPlan, reached: sys::Result<()>) -> Result<()> {
    match reached {
        // The other way round: a directory that root may not enter (NFS, FUSE) but the user may.
        Err(Errno::EACCES) => nix::unistd::chdir(plan.cwd.as_c_str()).at(Step::WorkingDirectory)?,
        other => other.at(Step::WorkingDirectory)?,
    }
    process::check_working_directory().at(Step::DirectoryBelowRoot)
}

fn set_capabilities(plan: &ProcessPlan) -> Result<()> {
    let masks = &plan.capabilities;
    process::set_capabilities(masks.effective, masks.permitted, masks.inheritable).at(Step::Capabilities)?;
    process::clear_ambient_set().at(Step::Capabilities)?;
    for capability in (0..64).filter(|bit| masks.ambient & (1 << bit) != 0) {
        process::raise_ambient(capability).at_nth(Step::AmbientCapability, capability as usize)?;
    }
    Ok(())
}

fn find_home(plan: &mut ProcessPlan) {
    if !plan.find_home {
        return;
    }
    let env = &mut plan.env;
    let looked = home::find(plan.uid, |home| {
        env.push_into_spare(&[b"HOME=", home]);
    });
    // No such file or entry: `/`, as runc has it.
    let _missing = looked;
    env.push_into_spare(&[b"HOME=", b"/"]);
}

/// Finds the program now, when create can still say that it is missing.
fn find_program(plan: &ProcessPlan) -> Result<usize> {
    let mut last = Errno::ENOENT;
    for (index, candidate) in plan.candidates.iter().enumerate() {
        match executable(candidate) {
            Ok(()) => return Ok(index),
            Err(errno) => last = errno,
        }
    }
    Err(failure(Step::Program, 0, last))
}

fn executable(path: &CStr) -> sys::Result<()> {
    let here = fd::working_directory();
    if nix::sys::stat::stat(path)?.st_mode & libc::S_IFMT == libc::S_IFDIR {
        return Err(Errno::EISDIR);
    }
    nix::unistd::faccessat(here, path, AccessFlags::X_OK, AtFlags::AT_EACCESS)
}

/// Closes what the runtime and its caller left open, but for what is still needed: none of it is a directory.
fn close_descriptors(preserved: u32, with: &Descriptors) -> Result<()> {
    let [out, err] = &with.hook_streams;
    let [fifo, state, out, err] =
        [&with.exec_fifo, &with.created_state, out, err].map(|fd| fd.as_ref().map(AsFd::as_fd));
    fd::close_all_but(3 + preserved, [Some(with.handshake.as_fd()), fifo, state, out, err]).at(Step::Descriptors)
}

/// Takes close-on-exec off the descriptors that the caller left open for the process.
fn preserve_descriptors(count: u32) -> Result<()> {
    for number in 3..3 + count {
        let inherited = i32::try_from(number).map_err(|_| failure(Step::Descriptors, 0, Errno::EBADF))?;
        let inherited = fd::inherited(inherited).at(Step::Descriptors)?;
        fd::set_cloexec(inherited, false).at(Step::Descriptors)?;
    }
    Ok(())
}
