//! create: from a bundle to a container that waits for start, or has it behind it.

use super::rollback::Rollback;
use super::seccomp_agent::Subject;
use super::start::has_poststart_hooks;
use super::state::{self, State, StateDir};
use super::streams::{self, StreamOptions, Streams};
use super::{
    Container, NotifySocket, Started, hooks, host_mounts, idmap, net_devices, no_pivot, notify, own_cgroup,
    own_namespaces, rdt, seccomp_agent, shm, spawn, trees,
};
use crate::cgroup::{Cgroup, Holder};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::handshake::Outside;
use crate::init::Descriptors;
use crate::plan::cgroup::CgroupPlan;
use crate::plan::mounts::CgroupView;
use crate::plan::process::Surroundings;
use crate::plan::{self, Host, InitPlan, run_oci, seccomp};
use crate::spec::{self, Config};
use crate::sys::fd;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use oci_spec::runtime::{Linux, Spec};
use std::ffi::{CString, OsString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Where compiled seccomp filters are kept: a name that no container can have.
const SECCOMP_CACHE: &str = "@seccomp";

/// How a container is created.
#[derive(Clone, Debug, Default)]
pub struct CreateOptions {
    /// The bundle.
    pub bundle: PathBuf,
    /// Its configuration: `config.json` in the bundle, if not named.
    pub config: Option<PathBuf>,
    /// Who looks after the standard streams.
    pub streams: StreamOptions,
    /// Whether the program is started at once.
    pub start: bool,
    /// Where the pid of init is written.
    pub pid_file: Option<PathBuf>,
    /// Who receives a descriptor of init.
    pub pidfd_socket: Option<PathBuf>,
    /// Whether the root is moved over `/` instead of exchanged with it, for a root on a ramfs.
    pub no_pivot: bool,
    /// Whether the processes keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// How many descriptors from 3 on the process inherits.
    pub preserve_fds: u32,
    /// Entries that the runtime adds to the environment of the process, `LISTEN_FDS=1` for example.
    pub env: Vec<String>,
    /// Where a service manager waits to hear that the program is ready (NOTIFY_SOCKET).
    pub notify_socket: Option<OsString>,
    /// Whether a missing privilege over cgroups is no failure; `None` decides by who we are.
    pub rootless: Option<bool>,
    /// Whether the container gets no cgroup at all.
    pub no_cgroup: bool,
    /// Whether systemd makes the cgroup.
    pub systemd: bool,
}

/// Creates the container `id`, whose state is kept below `root`. Whatever was made is removed again if it fails.
pub fn create(root: &Path, id: &str, options: &CreateOptions) -> Result<(Container, Started)> {
    spec::validate::id(id)?;
    let bundle = std::fs::canonicalize(&options.bundle).context(|| format!("chdir {}", options.bundle.display()))?;
    let mut config = spec::load(&bundle.join(options.config.as_deref().unwrap_or(Path::new("config.json"))))?;
    own_namespaces::leave_out(&mut config)?;
    add_environment(&mut config.spec, &options.env);
    spec::validate::no_pivot(options.no_pivot, &config.spec)?;
    spec::validate::spec(&config.spec)?;
    if !nix::unistd::geteuid().is_root() {
        spec::rootless::spec(&config.spec)?;
    }
    let ignored = run_oci::ignored(&config.spec, options.systemd);
    ignored.iter().for_each(|name| log::warn!("annotation {name} is not supported"));
    check_preserved(options.preserve_fds)?;
    let streams = streams::prepare(has_terminal(&config.spec), &options.streams)?;

    let mut undo = Rollback::default();
    let dir = StateDir::make(root, id)?;
    undo.add("state directory", {
        let dir = dir.clone();
        move || dir.remove()
    });
    shm::share(&mut config, &dir)?;
    let notify = share_notify_socket(&mut config, &dir, options)?;
    let (cgroup_plan, layout) = own_cgroup::plan(&config.spec, id, options)?;
    let (cgroup, holder) = own_cgroup::make(cgroup_plan.as_ref())?;
    undo.add("cgroup", {
        let cgroup = cgroup.clone();
        move || cgroup.remove()
    });
    // Only now is it known where a rootless caller has a cgroup to show.
    let linux = plan::linux(&config.spec)?;
    own_cgroup::warn_of_strays(cgroup_plan.as_ref(), &cgroup, linux);
    let view = own_cgroup::view(&layout, cgroup.directories(), linux)?;
    let mut plan = plan_init(&config.spec, id, &bundle, root, (&view, options, &streams))?;
    log::debug!("plan of container {id}: {plan:?}");

    let state = first_state(&config, id, &bundle, &cgroup, options)?;
    undo.add("Intel RDT group", rdt::removal(&state.rdt));
    if plan.namespaces.host_mounts {
        let before = host_mounts::Before::look(&state.rootfs)?;
        undo.add("mounts", move || before.take_back());
    }
    let making = Making { dir: &dir, config: &config, cgroup: &cgroup, cgroup_plan: cgroup_plan.as_ref(), options };
    let (state, started) = making.run(&mut plan, streams, state, holder)?;
    undo.disarm();
    Ok((Container::new(dir, state, config.spec), Started { notify, ..started }))
}

/// What the second half of create works on.
struct Making<'a> {
    dir: &'a StateDir,
    config: &'a Config,
    cgroup: &'a Cgroup,
    cgroup_plan: Option<&'a CgroupPlan>,
    options: &'a CreateOptions,
}

impl Making<'_> {
    fn run(
        &self,
        plan: &mut InitPlan,
        mut streams: Streams,
        mut state: State,
        mut holder: Option<Holder>,
    ) -> Result<(State, Started)> {
        let (descriptors, handshake) = self.descriptors(plan, &mut streams)?;
        let for_hooks = [&descriptors.creating_state, &descriptors.created_state].map(|file| duplicate(file.as_ref()));
        if let Some(uid) = plan.cgroup_owner() {
            self.cgroup.delegate(uid)?;
        }
        let entry = self.cgroup.entry()?;
        // v1 takes device rules one by one, which must be complete before init makes its nodes.
        let limits_first = !entry.tasks.is_empty();
        if limits_first {
            self.limit()?;
        }
        let may_stay = entry.may_stay;
        let spawned = spawn::init(plan, descriptors, handshake, entry).map_err(|err| self.explain(err))?;
        let mut undo = Rollback::default();
        undo.add("init", || spawned.kill());
        self.cgroup.bring_in(spawned.pid, may_stay).map_err(own_cgroup::not_applied)?;
        // It is in the scope, or (v1) moves there before it does anything else.
        holder = holder.filter(|_| limits_first);
        state.pid = spawned.pid;
        hooks::tell_inside(for_hooks, &state)?;
        if let Some(maps) = &plan.id_maps {
            idmap::write(spawned.pid, maps)?;
        }
        state.rdt.iter().try_for_each(|rdt| rdt.add(spawned.pid))?;
        if let Some(score) = plan.process.oom_score_adj {
            super::write_oom_score(spawned.pid, score)?;
        }
        spawned.proceed()?;
        // While init mounts:
        if !limits_first {
            self.limit()?;
        }
        state.start_time = crate::sys::proc::stat(spawned.pid).context(|| "read init's start time")?.start_time;
        self.dir.save_config(self.config)?;
        // The state is complete now: with it on disk, the program may be started.
        let publish = || -> Result<()> {
            self.dir.save(&state)?;
            if self.options.start { spawned.proceed() } else { Ok(()) }
        };
        // Said before init gets there, so that it does not stop on its way to the program.
        let early = self.options.start && !waits_for_outside(plan);
        if early {
            publish()?;
        }
        let at_mounts = || {
            net_devices::attach(plan::linux(&self.config.spec)?, state.pid)?;
            self.run_hooks(&state)
        };
        let subject = Subject { pid: state.pid, state: &state, status: "creating" };
        let at_listener = |listener: &_| seccomp_agent::hand_over(listener, plan.process.seccomp.as_ref(), &subject);
        spawned.wait_ready(plan, at_mounts, at_listener).map_err(|err| self.explain(err))?;
        log::debug!("init: closing the pipe to signal completion");
        drop(holder);
        if !early {
            publish()?;
        }
        // Hooks that run just before the program may write more than a pipe holds, which is read only later.
        let may_wait = plan.start_container.is_empty() || has_poststart_hooks(&self.config.spec);
        if self.options.start && may_wait {
            spawned.wait_executed(plan)?;
        }

        let pidfd = spawned.pidfd.try_clone().context(|| "duplicate a descriptor")?;
        let started = Started { pid: spawned.pid, pidfd, io: streams.into_io()?, notify: None };
        self.announce(&started)?;
        undo.disarm();
        Ok((state, started))
    }

    /// Tells those of init who are to know.
    fn announce(&self, started: &Started) -> Result<()> {
        let receiver = run_oci::value(&self.config.spec, run_oci::PIDFD_RECEIVER).map(Path::new);
        let receiver = self.options.pidfd_socket.as_deref().or(receiver);
        super::announce(started, self.options.pid_file.as_deref(), receiver)
    }

    /// Opens what init needs.
    fn descriptors(&self, plan: &InitPlan, streams: &mut Streams) -> Result<(Descriptors, Outside)> {
        let (mut descriptors, handshake) = spawn::descriptors(plan, streams)?;
        descriptors.rootfs = trees::rootfs(plan)?;
        descriptors.trees = trees::mounts(plan, descriptors.rootfs.is_some())?;
        descriptors.exec_fifo = if self.options.start { None } else { Some(self.make_fifo()?) };
        descriptors.creating_state = state_file(!plan.create_container.is_empty())?;
        descriptors.created_state = state_file(!plan.start_container.is_empty())?;
        descriptors.hook_streams = hooks::streams(|name| run_oci::value(&self.config.spec, name))?;
        Ok((descriptors, handshake))
    }

    fn limit(&self) -> Result<()> {
        self.cgroup_plan.map_or(Ok(()), |plan| self.cgroup.apply(plan))
    }

    /// The fifo that init reads a byte from once start is called.
    fn make_fifo(&self) -> Result<OwnedFd> {
        let path = self.dir.fifo();
        let attempt = || format!("make exec fifo {}", path.display());
        nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o600)).context(attempt)?;
        let text = plan::process::cstring(path.as_os_str(), "state directory")?;
        crate::sys::path::open(&text, OFlag::O_RDWR).context(attempt)
    }

    #[allow(deprecated, reason = "prestart hooks are still part of the contract with container engines")]
    fn run_hooks(&self, state: &State) -> Result<()> {
        let Some(listed) = self.config.spec.hooks() else { return Ok(()) };
        hooks::run("prestart", listed.prestart().as_ref(), state, "creating")?;
        hooks::run("createRuntime", listed.create_runtime().as_ref(), state, "creating")
    }

    /// Adds the likely cause when init was killed for using more memory than it was given.
    fn explain(&self, err: Error) -> Error {
        match self.cgroup.oom_kills() {
            Some(kills) if kills > 0 => {
                let cause = "container init was OOM-killed (memory limit too low?)";
                Error::new(ErrorKind::Init, cause).context(spawn::NOT_STARTED)
            }
            _ => err,
        }
    }
}

/// Says whether something happens outside between init's mounts and its program.
fn waits_for_outside(plan: &InitPlan) -> bool {
    let notifies = plan.process.seccomp.as_ref().is_some_and(|filter| filter.notify.is_some());
    let maps_late = plan.rootfs.mounts.iter().any(|step| step.ids.is_some() && plan.is_source_inside(step));
    plan.pause_for_hooks || notifies || maps_late
}

pub(super) fn has_terminal(spec: &Spec) -> bool {
    spec.process().as_ref().and_then(|process| process.terminal()).unwrap_or(false)
}

/// Gives the program a way to say that it is ready, and listens there if it is started at once.
fn share_notify_socket(config: &mut Config, dir: &StateDir, options: &CreateOptions) -> Result<Option<NotifySocket>> {
    notify::share(config, dir, options)?;
    let Some(host) = &options.notify_socket else { return Ok(None) };
    if !options.start {
        return Ok(None);
    }
    // With nobody at the other end the program starts all the same, as with runc.
    Ok(NotifySocket::bind(dir, host).inspect_err(|err| log::warn!("{err}")).ok())
}

fn add_environment(spec: &mut Spec, entries: &[String]) {
    if let Some(process) = spec.process_mut().as_mut().filter(|_| !entries.is_empty()) {
        process.env_mut().get_or_insert_default().extend_from_slice(entries);
    }
}

/// Refuses a promise of descriptors that the caller has not kept.
pub(super) fn check_preserved(count: u32) -> Result<()> {
    for number in 0..count {
        let fd = i32::try_from(3 + number).map_err(|_| Error::invalid("too many preserved descriptors"))?;
        fd::inherited(fd).context(|| format!("unable to stat preserved-fd {} (of {count})", number))?;
    }
    Ok(())
}

fn plan_init(
    spec: &Spec,
    id: &str,
    bundle: &Path,
    root: &Path,
    (cgroups, options, streams): (&CgroupView, &CreateOptions, &Streams),
) -> Result<InitPlan> {
    let linux = spec.linux().as_ref();
    let filter = compile_seccomp(linux, root)?;
    let id = CString::new(id).map_err(|_| Error::invalid("invalid container ID format"))?;
    let process = Surroundings {
        keyring: (!options.no_new_keyring).then(|| plan::keyring_name(&id)),
        preserve_fds: options.preserve_fds,
        ..super::surroundings(spec, spec.process().as_ref(), streams)?
    };
    let kcore = Path::new("/proc/kcore").exists();
    let no_pivot =
        options.no_pivot.then(|| plan::root_path(spec, bundle).and_then(|root| no_pivot::places(&root))).transpose()?;
    InitPlan::new(spec, filter, &Host { bundle, cgroups, kcore, process, no_pivot })
}

/// Compiles the container's seccomp profile, if it has one, or takes it from the cache below the state root.
pub(super) fn compile_seccomp(linux: Option<&Linux>, root: &Path) -> Result<Option<seccomp::CompiledFilter>> {
    let Some(profile) = linux.and_then(|linux| linux.seccomp().as_ref()) else { return Ok(None) };
    let filter = seccomp::compile(profile, Some(&root.join(SECCOMP_CACHE)))?;
    if filter.flags != 0 {
        filter.check_flags(crate::sys::seccomp::supported_flags())?;
    }
    Ok(Some(filter))
}

pub(super) fn first_state(
    config: &Config,
    id: &str,
    bundle: &Path,
    cgroup: &Cgroup,
    options: &CreateOptions,
) -> Result<State> {
    let spec = &config.spec;
    let rootfs = plan::root_path(spec, bundle)?;
    let real = std::fs::canonicalize(&rootfs).context(|| format!("invalid rootfs: stat {}", rootfs.display()))?;
    if real != plan::mounts::clean(&rootfs) {
        return Err(Error::invalid("invalid rootfs: not an absolute path, or a symlink"));
    }
    Ok(State {
        version: state::VERSION,
        oci_version: spec.version().clone(),
        id: id.to_owned(),
        bundle: bundle.to_owned(),
        rootfs: real,
        created: crate::time::now(),
        pid: 0,
        start_time: 0,
        annotations: spec.annotations().clone().unwrap_or_default().into_iter().collect(),
        owner: nix::unistd::geteuid().as_raw(),
        cgroup: cgroup.clone(),
        no_new_keyring: options.no_new_keyring,
        rdt: rdt::wanted(spec)?.make(id)?,
    })
}

fn state_file(wanted: bool) -> Result<Option<OwnedFd>> {
    match wanted {
        true => fd::memfd(c"state", b"").map(Some).context(|| "make a file for the state"),
        false => Ok(None),
    }
}

fn duplicate(file: Option<&OwnedFd>) -> Result<Option<OwnedFd>> {
    file.map(|file| file.try_clone().context(|| "duplicate a descriptor")).transpose()
}
