//! The inside: what a container's init does between clone and execve, and what a process that exec adds does.
//!
//! It runs on a copy of the runtime's memory in which only one thread survived, so it carries out a plan and decides
//! nothing: no allocation, no logging, no configuration, only system calls on what was prepared. A failure is three
//! integers (report.rs). The order of the steps is the security of the container; each says why it stands where it does.

mod console;
mod copy_up;
mod devices;
mod home;
mod hooks;
mod namespaces;
mod process;
pub mod report;
mod root_change;
mod rootfs;

use crate::handshake::{Inside, Message};
use crate::plan::InitPlan;
use crate::plan::step::{Failure, Step};
use crate::sys::clone::exit_now;
use crate::sys::fd;
use crate::sys::path::{self, Missing};
use report::{At, Result};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The descriptors that the inside works with, opened outside before the clone.
#[derive(Debug)]
pub struct Descriptors {
    /// Our end of the handshake.
    pub handshake: Inside,
    /// The host's /proc: the container's may be anything (CVE-2025-52881).
    pub proc: OwnedFd,
    /// The namespaces of the plan's joins, in their order; for exec the pidfd of the container's init.
    pub joins: Vec<OwnedFd>,
    /// What becomes descriptors 0 to 2; what is missing there stays as the runtime has it.
    pub stdio: [Option<OwnedFd>; 3],
    /// The tree of the root file system, opened outside for a user namespace whose root may not reach its path; for exec
    /// the container's root, where its mounts are the host's.
    pub rootfs: Option<OwnedFd>,
    /// The trees of the plan's mounts that were made outside, by the mounts' index.
    pub trees: Vec<Option<OwnedFd>>,
    /// Where the terminal is sent.
    pub console_socket: Option<OwnedFd>,
    /// What start writes to; without it the program is started at once.
    pub exec_fifo: Option<OwnedFd>,
    /// The container's state for createContainer hooks.
    pub creating_state: Option<OwnedFd>,
    /// The container's state for startContainer hooks.
    pub created_state: Option<OwnedFd>,
    /// Where an annotation sends what hooks write.
    pub hook_streams: [Option<OwnedFd>; 2],
    /// The cgroup that a joiner clones the process into (v2).
    pub cgroup: Option<OwnedFd>,
    /// Whether it stays out of the cgroup if it may not be put there.
    pub may_stay: bool,
    /// The `tasks` files of its v1 cgroups.
    pub cgroup_tasks: Vec<OwnedFd>,
}

/// Runs a container's init, or the joiner that clones it. Never returns.
pub fn run(plan: &mut InitPlan, with: &Descriptors) -> ! {
    if let Err(failed) = namespaces::enter(plan, with) {
        end(failed, with);
    }
    if plan.namespaces.joiner {
        let flags = plan.namespaces.clone_flags;
        clone_and_leave(flags, plan, with, sequence);
    }
    finish(plan, with, sequence)
}

/// Runs the joiner that clones a process beside a container's init. Never returns.
pub fn run_exec(plan: &mut InitPlan, with: &Descriptors) -> ! {
    if let Err(failed) = namespaces::enter_running(plan, with) {
        end(failed, with);
    }
    clone_and_leave(0, plan, with, exec_sequence)
}

type Sequence = fn(&mut InitPlan, &Descriptors) -> Result<()>;

fn clone_and_leave(flags: u64, plan: &mut InitPlan, with: &Descriptors, sequence: Sequence) -> ! {
    let cloned = namespaces::clone_sibling(flags, with, || finish(plan, with, sequence));
    match cloned {
        Ok(()) => exit_now(0),
        Err(failed) => end(failed, with),
    }
}

fn finish(plan: &mut InitPlan, with: &Descriptors, sequence: Sequence) -> ! {
    match sequence(plan, with) {
        Ok(()) => exit_now(0),
        Err(failed) => end(failed, with),
    }
}

/// Says what failed, and ends.
fn end(failed: Failure, with: &Descriptors) -> ! {
    // Nobody listens any more if the outside is gone.
    _ = with.handshake.tell(Message::Failed(failed), None);
    exit_now(1)
}

fn sequence(plan: &mut InitPlan, with: &Descriptors) -> Result<()> {
    namespaces::make_network_early(plan)?;
    handshake(plan, with)?;
    namespaces::become_root(plan)?;
    namespaces::complete(plan)?;
    process::new_session()?;
    process::join_keyring(&plan.process)?;
    rootfs_sequence(plan, with)?;
    write_sysctls(plan, with.proc.as_fd())?;
    process::stdio(with)?;
    let prepared = process::prepare(&mut plan.process, with)?;
    prepared.tell_ready(with)?;
    process::wait_for_start(with)?;
    become_program(plan, with, &prepared)
}

/// Runs the hooks that are left, and executes the program.
///
/// Create has been told that all is well: what fails now is the container's own affair, and said on its stderr, to
/// whoever reads it (runc does so too, also if that is run).
fn become_program(plan: &InitPlan, with: &Descriptors, prepared: &process::Prepared) -> ! {
    let given =
        hooks::Given { state: with.created_state.as_ref(), streams: &with.hook_streams, process: &plan.process };
    let hooked = hooks::run_all(&plan.start_container, given, Step::StartContainerHook);
    let failed = hooked.err().unwrap_or_else(|| prepared.exec(&plan.process));
    process::complain(plan, failed);
    exit_now(255)
}

fn rootfs_sequence(plan: &InitPlan, with: &Descriptors) -> Result<()> {
    // Mount points and their parents are for everybody to pass, whatever the caller's mask is.
    crate::sys::process::set_umask(0o022);
    let root = rootfs::mount_root(&plan.rootfs, with)?;
    rootfs::mount_all(&plan.rootfs, root.as_fd(), with)?;
    devices::make_all(&plan.rootfs, root.as_fd())?;
    if plan.pause_for_hooks {
        with.handshake.tell(Message::Mounted, None).at(Step::Handshake)?;
        proceed(with);
    }
    // As with runc, createContainer hooks run in the root file system.
    nix::unistd::fchdir(&root).at(Step::Rootfs)?;
    let given =
        hooks::Given { state: with.creating_state.as_ref(), streams: &with.hook_streams, process: &plan.process };
    hooks::run_all(&plan.create_container, given, Step::CreateContainerHook)?;
    // Where it cannot be made, changing to it fails, and says so.
    let _made = path::ensure_in_root(root.as_fd(), &plan.process.cwd, Missing::Directory);
    if let Some(terminal) = &plan.process.terminal {
        // Before the root is read-only, since /dev/console may have to be made.
        console::open(*terminal, root.as_fd(), true, with)?;
    }
    rootfs::protect_paths(&plan.rootfs, root.as_fd())?;
    if !plan.namespaces.host_mounts {
        // runc leaves that out too where others see the mounts.
        rootfs::make_readonly(&plan.rootfs, root.as_fd())?;
    }
    root_change::change_root(&plan.rootfs, root.as_fd())
}

fn exec_sequence(plan: &mut InitPlan, with: &Descriptors) -> Result<()> {
    handshake(plan, with)?;
    namespaces::become_root(plan)?;
    process::new_session()?;
    process::join_keyring(&plan.process)?;
    if let Some(root) = &with.rootfs {
        root_change::enter(root.as_fd()).at(Step::PivotRoot)?;
    }
    if let Some(terminal) = &plan.process.terminal {
        let root = crate::sys::path::open(c"/", nix::fcntl::OFlag::O_PATH).at(Step::Console)?;
        console::open(*terminal, root.as_fd(), false, with)?;
    }
    process::stdio(with)?;
    let prepared = process::prepare(&mut plan.process, with)?;
    prepared.tell_ready(with)?;
    Err(prepared.exec(&plan.process))
}

/// Joins the v1 cgroups, introduces us, and waits until the outside has done what only it can.
fn handshake(plan: &InitPlan, with: &Descriptors) -> Result<()> {
    for tasks in &with.cgroup_tasks {
        // By ourselves and while we are one thread: moving a whole process in from outside through cgroup.procs waits
        // for an RCU grace period, ten milliseconds and more on an idle machine.
        fd::write_all(tasks.as_fd(), b"0").at(Step::Cgroup)?;
    }
    process::move_to_cpus(&plan.process)?;
    with.handshake.tell(Message::Hello, None).at(Step::Handshake)?;
    proceed(with);
    Ok(())
}

/// Waits for Proceed; ends when the outside is gone.
fn proceed(with: &Descriptors) {
    if !with.handshake.may_proceed() {
        exit_now(1);
    }
}

/// Writes kernel parameters through the host's /proc, which shows those of the writer's own namespaces.
fn write_sysctls(plan: &InitPlan, proc: BorrowedFd<'_>) -> Result<()> {
    if plan.sysctls.is_empty() {
        return Ok(());
    }
    let flags = nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_DIRECTORY;
    let dir = crate::sys::path::open_at(proc, c"sys", flags).at(Step::Sysctl)?;
    for (index, sysctl) in plan.sysctls.iter().enumerate() {
        let file = crate::sys::path::open_at(dir.as_fd(), &sysctl.path, nix::fcntl::OFlag::O_WRONLY);
        let file = file.at_nth(Step::Sysctl, index)?;
        fd::write_all(file.as_fd(), sysctl.value.to_bytes()).at_nth(Step::Sysctl, index)?;
    }
    Ok(())
}
