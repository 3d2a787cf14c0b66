//! exec: another process in a running container.

use super::create::{check_preserved, compile_seccomp};
use super::rollback::Rollback;
use super::seccomp_agent::{self, Subject};
use super::streams::{self, StreamOptions, Streams};
use super::{Container, Started, Status, external, spawn};
use crate::cgroup::Cgroup;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::plan::cgroup::Version;
use crate::plan::namespaces::{Kind, Namespace, NamespacePlan, of};
use crate::plan::process::{ProcessPlan, Surroundings};
use crate::plan::{self, InitPlan};
use crate::spec;
use crate::sys::Errno;
use nix::sys::stat::stat;
use oci_spec::runtime::Process;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long init may take from its release to its program.
const PROGRAM_PATIENCE: Duration = Duration::from_secs(2);

/// How a process is put into a container.
#[derive(Clone, Debug, Default)]
pub struct ExecOptions {
    /// Who looks after the standard streams.
    pub streams: StreamOptions,
    /// Where its pid is written.
    pub pid_file: Option<PathBuf>,
    /// Who receives a descriptor of it.
    pub pidfd_socket: Option<PathBuf>,
    /// How many descriptors from 3 on it inherits.
    pub preserve_fds: u32,
    /// Whether a paused container is no obstacle: the process then waits until it is resumed.
    pub ignore_paused: bool,
    /// Cgroups below the container's that it is put in: the controllers meant, or all, and the path.
    pub cgroups: Vec<(Option<Vec<String>>, PathBuf)>,
}

impl Container {
    /// Starts a process beside the container's init.
    pub fn exec(&self, process: &Process, options: &ExecOptions) -> Result<Started> {
        let refuse = |text| Err(Error::new(ErrorKind::WrongStatus, text));
        match self.status()? {
            Status::Stopped => return refuse("cannot exec in a stopped container"),
            Status::Paused if !options.ignore_paused => {
                return refuse("cannot exec in a paused container (use --ignore-paused to override)");
            }
            _ => {}
        }
        spec::validate::process(process)?;
        if !nix::unistd::geteuid().is_root() {
            spec::rootless::process(process)?;
        }
        check_preserved(options.preserve_fds)?;
        let cgroup = self.cgroup_for(options)?;
        let streams = streams::prepare(process.terminal().unwrap_or(false), &options.streams)?;
        let kills = cgroup.oom_kills();
        self.put(process, &cgroup, streams, options).map_err(|err| match cgroup.oom_kills() {
            now if now > kills => Error::new(err.kind(), format!("{err} (possibly OOM-killed)")),
            _ => err,
        })
    }

    fn put(&self, process: &Process, cgroup: &Cgroup, mut streams: Streams, options: &ExecOptions) -> Result<Started> {
        let mut plan = self.plan_exec(process, &streams, options)?;
        log::debug!("plan of a process in container {}: {plan:?}", self.id());
        let (mut descriptors, handshake) = spawn::descriptors(&plan, &mut streams)?;
        descriptors.joins.push(self.init()?.ok_or_else(stopped)?);
        if plan.namespaces.host_mounts {
            // To join namespaces leads to their root, which is the host's (runc stays there).
            descriptors.rootfs = Some(external::open_directory(format!("/proc/{}/root", self.state.pid).as_ref())?);
        }
        let entry = cgroup.entry_beside(plan.namespaces.in_userns).map_err(not_added)?;
        if let Some(first) = plan.process.first_cpus.first() {
            log::debug!("nsexec: affinity: {first:#x}");
        }
        (descriptors.cgroup, descriptors.cgroup_tasks) = (entry.clone_into, entry.tasks);
        descriptors.may_stay = entry.may_stay;
        let spawned = spawn::exec(&mut plan, descriptors, handshake).map_err(|err| name_cgroup(err, cgroup))?;
        let mut undo = Rollback::default();
        undo.add("process", || spawned.kill());
        match cgroup.bring_in(spawned.pid, entry.may_stay) {
            Err(err) if cgroup.rootless => log::debug!("{err}"),
            other => other.map_err(not_added)?,
        }
        self.state.rdt.iter().try_for_each(|rdt| rdt.add_beside(spawned.pid))?;
        if let Some(score) = plan.process.oom_score_adj {
            super::write_oom_score(spawned.pid, score)?;
        }
        spawned.proceed()?;
        let subject = Subject { pid: spawned.pid, state: &self.state, status: Status::Running.as_str() };
        let at_listener = |listener: &_| seccomp_agent::hand_over(listener, plan.process.seccomp.as_ref(), &subject);
        spawned.wait_ready(&plan, || Ok(()), at_listener)?;
        log::debug!("setns_init: about to exec");
        spawned.wait_executed(&plan)?;
        let pidfd = spawned.pidfd.try_clone().context(|| "duplicate a descriptor")?;
        let started = Started { pid: spawned.pid, pidfd, io: streams.into_io()?, notify: None };
        super::announce(&started, options.pid_file.as_deref(), options.pidfd_socket.as_deref())?;
        undo.disarm();
        Ok(started)
    }

    /// Plans the process with what the container has for all of its processes: namespaces, filter, keyring.
    fn plan_exec(&self, process: &Process, streams: &Streams, options: &ExecOptions) -> Result<InitPlan> {
        let spec = self.spec()?;
        let linux = spec.linux().as_ref();
        let filter = compile_seccomp(linux, self.root())?;
        let id = CString::new(self.id()).unwrap_or_default();
        let around = Surroundings {
            keyring: (!self.state.no_new_keyring).then(|| plan::keyring_name(&id)),
            preserve_fds: options.preserve_fds,
            ..super::surroundings(spec, Some(process), streams)?
        };
        let host_mounts = of(plan::linux(spec)?, Kind::Mount) == Namespace::Host;
        let [first_cpus, last_cpus] = plan::process::exec_affinity(process)?;
        Ok(InitPlan {
            namespaces: NamespacePlan { host_mounts, ..self.namespaces_to_join()? },
            process: ProcessPlan { first_cpus, last_cpus, ..plan::process::plan(process, filter, &around)? },
            ..InitPlan::default()
        })
    }

    /// Returns which namespaces of init are not the ones that we are in.
    fn namespaces_to_join(&self) -> Result<NamespacePlan> {
        let mut plan = NamespacePlan { joiner: true, ..NamespacePlan::default() };
        for kind in Kind::ALL {
            let name = kind.proc_name();
            // A kernel without this kind of namespace has no file for it.
            let Some(ours) = namespace(&format!("/proc/self/ns/{name}"))? else { continue };
            let theirs = self.namespace_of_init(name)?;
            if ours != theirs {
                plan.join_process |= kind.flag();
            }
        }
        plan.in_userns = plan.join_process & Kind::User.flag() != 0;
        Ok(plan)
    }

    /// Returns the number of a namespace of init's, once that may be looked at: by who has no privilege not before it has
    /// executed its program, if it has joined namespaces (prctl(2), PR_SET_DUMPABLE). Until it is started nobody waits.
    fn namespace_of_init(&self, name: &str) -> Result<u64> {
        let name = format!("/proc/{}/ns/{name}", self.state.pid);
        let until = Instant::now() + PROGRAM_PATIENCE;
        loop {
            match namespace(&name) {
                Err(err)
                    if err.kind() == ErrorKind::System(Errno::EACCES)
                        && Instant::now() < until
                        && self.status()? == Status::Running =>
                {
                    sleep(Duration::from_millis(1));
                }
                other => return other?.ok_or_else(stopped),
            }
        }
    }

    fn cgroup_for(&self, options: &ExecOptions) -> Result<Cgroup> {
        let mut cgroup = self.state.cgroup.clone();
        if options.cgroups.is_empty() {
            return cgroup.beside(self.state.pid);
        }
        for (controllers, path) in &options.cgroups {
            let names: Option<Vec<&str>> = controllers.as_ref().map(|names| names.iter().map(String::as_str).collect());
            cgroup = cgroup.below(names.as_deref(), path)?;
        }
        Ok(cgroup)
    }

    fn root(&self) -> &Path {
        self.dir.path().parent().unwrap_or(Path::new("/"))
    }
}

/// Returns the number of a namespace, if the file is there.
fn namespace(name: &str) -> Result<Option<u64>> {
    match stat(name) {
        Ok(found) => Ok(Some(found.st_ino)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(Error::system(format!("stat {name}"), errno)),
    }
}

/// Names the cgroup of a process that could not be made: only one on v2 whose controllers are enabled below is too busy.
fn name_cgroup(err: Error, cgroup: &Cgroup) -> Error {
    let v2 = cgroup.directories().iter().find(|directory| directory.version == Version::V2);
    match (err.kind(), v2) {
        (ErrorKind::System(errno @ Errno::EBUSY), Some(directory)) => {
            let file = directory.path.join("cgroup.procs");
            not_added(Error::system(format!("write 0 to {}", file.display()), errno))
        }
        _ => err,
    }
}

fn not_added(err: Error) -> Error {
    err.context("error adding pid of a process to cgroups").context(spawn::NOT_STARTED)
}

fn stopped() -> Error {
    Error::new(ErrorKind::WrongStatus, "cannot exec in a stopped container")
}
