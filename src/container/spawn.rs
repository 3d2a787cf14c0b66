//! The parent's half of making a process: opening what the inside needs, the clone, and the handshake up to Ready.

use super::streams::Streams;
use super::trees;
use crate::cgroup::Entry;
use crate::error::{Context, Error, ErrorKind, Result, describe};
use crate::handshake::{self, Message, Outside};
use crate::init::{self, Descriptors};
use crate::plan::InitPlan;
use crate::plan::step::Step;
use crate::sys::clone::{Child, Clone, clone_child};
use crate::sys::pidfd::{self, Exit};
use crate::sys::{Errno, path, proc};
use nix::fcntl::OFlag;
use nix::libc;
use std::os::fd::{AsFd, OwnedFd};

/// What is said of any process of a container that does not come to run its program.
pub const NOT_STARTED: &str = "unable to start container process";

/// A process that waits to be let go on.
#[derive(Debug)]
pub struct Spawned {
    /// Its pid, as we see it.
    pub pid: i32,
    /// A descriptor that stands for it.
    pub pidfd: OwnedFd,
    /// Whether it is the container's init, and not one more process.
    is_init: bool,
    handshake: Outside,
}

/// Opens what the inside needs beside its streams.
pub fn descriptors(plan: &InitPlan, streams: &mut Streams) -> Result<(Descriptors, Outside)> {
    // runc's words for what comes now, here and below: its tests know by them that debugging reaches that far.
    log::debug!("nsexec container setup");
    let (outside, inside) = handshake::pair().context(|| "make the handshake's sockets")?;
    let (stdio, console_socket) = streams.take_inside();
    let joins = plan.namespaces.join.iter().map(|join| {
        let attempt = || format!("open {} namespace {}", join.kind.name(), join.path.to_string_lossy());
        path::open(&join.path, OFlag::O_RDONLY).context(attempt)
    });
    let descriptors = Descriptors {
        handshake: inside,
        proc: proc::open_root().context(|| "open /proc")?,
        joins: joins.collect::<Result<_>>()?,
        stdio,
        rootfs: None,
        trees: Vec::new(),
        console_socket,
        exec_fifo: None,
        creating_state: None,
        created_state: None,
        hook_streams: [None, None],
        cgroup: None,
        may_stay: false,
        cgroup_tasks: Vec::new(),
    };
    Ok((descriptors, outside))
}

/// Clones init, in its cgroup where the kernel can do that.
pub fn init(plan: &mut InitPlan, mut descriptors: Descriptors, handshake: Outside, cgroup: Entry) -> Result<Spawned> {
    let withheld = Some(handshake.as_fd());
    let mut request = Clone { flags: plan.namespaces.clone_flags, withheld, ..Clone::default() };
    descriptors.cgroup_tasks = cgroup.tasks;
    if plan.namespaces.joiner {
        // The joiner stays where we are; it clones init into the cgroup.
        request.flags = 0;
        (descriptors.cgroup, descriptors.may_stay) = (cgroup.clone_into, cgroup.may_stay);
    } else {
        (request.cgroup, request.may_stay) = (cgroup.clone_into.as_ref().map(AsFd::as_fd), cgroup.may_stay);
    }
    let child = clone_child(request, || init::run(plan, &descriptors)).context(|| "clone the container's init")?;
    // The inside's end must be in its hands alone, or its end would go unnoticed.
    drop(descriptors);
    match plan.namespaces.joiner {
        true => introduced(child, handshake, plan, true),
        false => {
            let pidfd = child.pidfd.map_or_else(|| open(child.pid), Ok)?;
            Ok(Spawned { pid: child.pid, pidfd, is_init: true, handshake })
        }
    }
}

/// Clones the joiner of a process that exec adds.
pub fn exec(plan: &mut InitPlan, descriptors: Descriptors, handshake: Outside) -> Result<Spawned> {
    let request = Clone { withheld: Some(handshake.as_fd()), ..Clone::default() };
    let child = clone_child(request, || init::run_exec(plan, &descriptors)).context(|| "clone a process")?;
    drop(descriptors);
    introduced(child, handshake, plan, false)
}

/// Waits until the process that the joiner cloned introduces itself, and for the joiner's end.
fn introduced(joiner: Child, handshake: Outside, plan: &InitPlan, is_init: bool) -> Result<Spawned> {
    let pidfd = joiner.pidfd.map_or_else(|| open(joiner.pid), Ok)?;
    let mut joiner = Spawned { pid: joiner.pid, pidfd, is_init, handshake };
    let received = joiner.handshake.receive().context(|| "wait for the container's init");
    let received = received.or_else(|err| joiner.kill().and(Err(err)))?;
    let pid = received.as_ref().map_or(joiner.pid, |received| received.pid);
    let spawned = if pid == joiner.pid {
        joiner
    } else {
        pidfd::reap(joiner.pid).context(|| "wait for the joining process")?;
        // An unreaped child keeps its pid, so it cannot have become another process.
        joiner.pidfd = open(pid)?;
        Spawned { pid, ..joiner }
    };
    match received.map(|received| received.message) {
        Some(Message::Hello) => Ok(spawned),
        other => {
            let err = spawned.failed(other, plan);
            spawned.kill()?;
            Err(err)
        }
    }
}

fn open(pid: i32) -> Result<OwnedFd> {
    pidfd::open(pid).context(|| format!("open process {pid}"))
}

impl Spawned {
    /// Lets the process go on. One that has failed in the meantime is not told any more, but has said why: ECONNRESET
    /// when it went with a message of ours unread.
    pub fn proceed(&self) -> Result<()> {
        match self.handshake.proceed() {
            Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
            other => other.context(|| "talk to the container's init"),
        }
    }

    /// Waits until only the program is missing. `at_mounts` is called when the mounts are there, if the plan pauses for
    /// that, and `at_listener` with a seccomp listener, whose agent the process may be waiting for.
    pub fn wait_ready(
        &self,
        plan: &InitPlan,
        at_mounts: impl FnOnce() -> Result<()>,
        at_listener: impl Fn(&OwnedFd) -> Result<()>,
    ) -> Result<()> {
        let mut at_mounts = Some(at_mounts);
        log::debug!("child process in init()");
        loop {
            let received = self.handshake.receive().context(|| "wait for the container's init")?;
            let Some(received) = received else { return Err(self.failed(None, plan)) };
            match received.message {
                // From an init that needed no joiner, whose pid the clone has told already.
                Message::Hello => {}
                Message::MapIds(index) => {
                    trees::map_ids(&plan.rootfs, index.into(), received.fd)?;
                    self.proceed()?;
                }
                Message::Mounted => {
                    at_mounts.take().map_or(Ok(()), |call| call())?;
                    self.proceed()?;
                }
                Message::SeccompListener(number) => {
                    let listener = pidfd::duplicate(self.pidfd.as_fd(), number);
                    let listener = listener.context(|| "take the seccomp listener from the container's init")?;
                    self.proceed()?;
                    at_listener(&listener)?;
                }
                Message::Ready => return Ok(()),
                other => return Err(self.failed(Some(other), plan)),
            }
        }
    }

    /// Waits until the process has executed its program, which closes its end of the handshake.
    pub fn wait_executed(&self, plan: &InitPlan) -> Result<()> {
        match self.handshake.receive().context(|| "wait for the process")? {
            None => Ok(()),
            Some(received) => Err(self.failed(Some(received.message), plan)),
        }
    }

    /// Ends the process and reaps it.
    pub fn kill(&self) -> Result<()> {
        match pidfd::send_signal(self.pidfd.as_fd(), libc::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(Error::system(format!("kill process {}", self.pid), errno)),
        }
        match pidfd::reap(self.pid) {
            // Reaped when its failure was reported.
            Ok(_) | Err(Errno::ECHILD) => Ok(()),
            Err(errno) => Err(Error::system(format!("wait for process {}", self.pid), errno)),
        }
    }

    /// Returns the failure that a message, or its absence, means. The process has ended or is ending.
    fn failed(&self, message: Option<Message>, plan: &InitPlan) -> Error {
        let kind = match &message {
            Some(Message::Failed(failure)) if failure.step == Step::CloneInit => {
                ErrorKind::System(Errno::from_raw(failure.errno))
            }
            _ => ErrorKind::Init,
        };
        let text = match message {
            // What comes of execve itself is no failure of ours.
            Some(Message::Failed(failure)) if self.is_init && failure.step != Step::Exec => {
                format!("error during container init: {}", failure.describe(plan))
            }
            Some(Message::Failed(failure)) => failure.describe(plan),
            Some(other) => format!("container init said {other:?} out of turn"),
            None => match pidfd::reap(self.pid) {
                Ok(Exit::Signal(signal)) => format!("container init was killed by signal {signal}"),
                Ok(Exit::Code(code)) => format!("container init ended with exit status {code}"),
                Err(errno) => format!("container init ended: {}", describe(errno)),
            },
        };
        Error::new(kind, text).context(NOT_STARTED)
    }
}
