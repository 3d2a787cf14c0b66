//! restore: a container from the images of a checkpoint.
//!
//! The bundle says what the container is, the images say what it was doing. CRIU makes its init a child of ours, as
//! creating it would have, and from then on there is no difference: the same state, the same verbs.

use super::create::{self, CreateOptions};
use super::external_tmpfs::{self, Filled};
use super::images_view::ImagesView;
use super::joined::{self, Joined};
use super::left_out::LeftOut;
use super::progress::{Event, Listener, Phase, Restored};
use super::queues::Recreated;
use super::rollback::Rollback;
use super::state::{State, StateDir};
use super::streams::{self, Streams};
use super::tools::Tools;
use super::work_images::WorkImages;
use super::{
    Container, Started, external, hooks, host_streams, inside, mount_points, notify, own_cgroup, own_namespaces,
    queues, rdt, restore_root, restored_cgroups, shm, terminal, trees,
};
use crate::criu::images::{self, Directories};
use crate::criu::options::{self, RESTORE_LOG, RestoreOptions, RestoreTarget};
use crate::criu::{
    Launch, Notification, Session, Task, external as names, is_taken_pid, require_features, shared_files,
};
use crate::error::{Context, Error, Result};
use crate::plan::mounts::CgroupView;
use crate::plan::namespaces::{self, Join, Kind, Namespace};
use crate::plan::process::cstring;
use crate::plan::{RootfsPlan, idmap, linux};
use crate::spec::{self, Config};
use crate::sys::{Errno, fd, ns, path, pidfd, proc, socket};
use nix::fcntl::OFlag;
use nix::libc;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the pid of a dumped process may stay in use in a pid namespace that the container joins.
const REAPING_PATIENCE: Duration = Duration::from_secs(5);
const REAPING_PAUSE: Duration = Duration::from_millis(50);

/// How long a killed process may take to end, in milliseconds.
const END_PATIENCE: i32 = 1000;

/// Restores the container `id`, whose state is kept below `root`. Whatever was made is removed again if it fails; `tell`
/// learns what is being done.
pub fn restore(
    root: &Path,
    id: &str,
    options: &CreateOptions,
    asked: &RestoreOptions,
    tell: Listener<'_>,
) -> Result<(Container, Started)> {
    spec::validate::id(id)?;
    let bundle = std::fs::canonicalize(&options.bundle).context(|| format!("chdir {}", options.bundle.display()))?;
    let mut config = spec::load(&bundle.join(options.config.as_deref().unwrap_or(Path::new("config.json"))))?;
    own_namespaces::leave_out(&mut config)?;
    spec::validate::spec(&config.spec)?;
    let directories = Directories::open(&asked.options.image_path, asked.options.work_path.as_deref())?;
    directories.require_writable(RESTORE_LOG)?;
    let joined = Joined::open(&config.spec, asked)?;
    let streams = streams::prepare(create::has_terminal(&config.spec), &options.streams)?;
    let files = host_streams::prepare(&asked.options.image_path, &streams.inside)?;
    let queues = queues::load(&asked.options.image_path, &config.spec)?;

    let mut undo = Rollback::default();
    let dir = StateDir::make(root, id)?;
    undo.add("state directory", {
        let dir = dir.clone();
        move || dir.remove()
    });
    shm::share(&mut config, &dir)?;
    notify::share(&mut config, &dir, options)?;
    let (cgroup_plan, layout) = own_cgroup::plan(&config.spec, id, options)?;
    let (cgroup, holder) = restored_cgroups::make(cgroup_plan.as_ref(), asked.options.cgroup_mode)?;
    undo.add("cgroup", {
        let cgroup = cgroup.clone();
        move || cgroup.remove()
    });
    if let Some(plan) = &cgroup_plan {
        cgroup.apply(plan)?;
    }
    let view = own_cgroup::view(&layout, cgroup.directories(), linux(&config.spec)?)?;
    let state = create::first_state(&config, id, &bundle, &cgroup, options)?;
    undo.add("Intel RDT group", rdt::removal(&state.rdt));
    let plan = external::settled(external::plan(&config.spec, &bundle, &view)?, &state.rootfs)?;
    let mut restoring = Restoring {
        dir,
        config,
        state,
        asked,
        console: None,
        terminal: None,
        init: None,
        others: children(),
        filled: Filled::default(),
        joined,
        images: None,
        files,
        queues,
        tell,
    };
    let restored = restoring.run((plan, &view), &directories, streams).and_then(|started| {
        super::announce(&started, options.pid_file.as_deref(), options.pidfd_socket.as_deref())?;
        Ok(started)
    });
    drop(holder);
    let started = restored.inspect_err(|_| restoring.give_up())?;
    restoring.filled.keep();
    undo.disarm();
    (restoring.tell)(&Event::Restored(Restored::of(&directories)));
    Ok((Container::new(restoring.dir, restoring.state, restoring.config.spec), started))
}

/// A container on its way back.
struct Restoring<'a> {
    dir: StateDir,
    config: Config,
    state: State,
    asked: &'a RestoreOptions,
    /// Who receives its terminal.
    console: Option<OwnedFd>,
    /// Its terminal, until there is in it what was.
    terminal: Option<OwnedFd>,
    /// Its init, as soon as there is one.
    init: Option<OwnedFd>,
    /// Children that are not its processes: those that were there before.
    others: Vec<i32>,
    /// What was put into its tmpfs from outside.
    filled: Filled,
    /// The namespaces of others that it is restored into.
    joined: Joined,
    /// What CRIU is given in place of the images, if they are not to be restored as they are.
    images: Option<WorkImages>,
    /// What takes the place of files of the host that its processes had open.
    files: Vec<host_streams::Inherited>,
    /// The message queues that it had.
    queues: Option<queues::Saved>,
    tell: Listener<'a>,
}

/// What every attempt to restore works with.
struct Setting<'a> {
    plan: &'a RootfsPlan,
    rootfs: OwnedFd,
    left_out: LeftOut,
    directories: &'a Directories,
    view: Option<ImagesView>,
    joined: Vec<(Join, Option<OwnedFd>)>,
    stdio: [Option<OwnedFd>; 3],
}

impl Restoring<'_> {
    fn run(
        &mut self,
        (mut plan, shown): (RootfsPlan, &CgroupView),
        directories: &Directories,
        mut streams: Streams,
    ) -> Result<Started> {
        let asked = self.asked;
        let images = &asked.options.image_path;
        self.filled = external_tmpfs::fill(&self.config.spec, &self.state.bundle, images, asked.shm_policy)?;
        let rootfs = external::open_directory(&self.state.rootfs)?;
        mount_points::make(&plan, rootfs.as_fd())?;
        let _mapped = trees::attach_id_mapped(&mut plan, &self.dir)?;
        let joined = self.open_namespaces()?;
        let (stdio, console) = streams.take_inside();
        self.console = console;
        let linux = crate::plan::linux(&self.config.spec)?;
        let in_userns = idmap::plan(linux)?.is_some();
        self.change_images(in_userns)?;
        let view = || ImagesView::unless_needless(&asked.options, self.images.as_ref(), &self.dir);
        let view = if in_userns { view()? } else { None };
        let left_out = LeftOut::find(images, &plan, rootfs.as_fd(), shown, &self.dir)?;
        let setting = Setting { plan: &plan, rootfs, left_out, directories, view, joined, stdio: self.stdio(stdio)? };
        let shares_pids = setting.joined.iter().any(|(join, _)| join.kind == Kind::Pid);
        let start = Instant::now();
        while let Err(err) = self.attempt(&setting) {
            // The process that was dumped keeps its pid until its parent, whoever that is now, has reaped it.
            if !(shares_pids && is_taken_pid(&err) && start.elapsed() < REAPING_PATIENCE) {
                return Err(images::explain(err, &directories.log(RESTORE_LOG)));
            }
            self.end();
            std::thread::sleep(REAPING_PAUSE);
        }
        // The ends of pipes that the container has are not ours to keep open.
        drop(setting);
        self.files.clear();
        self.started(streams)
    }

    fn attempt(&mut self, setting: &Setting<'_>) -> Result<()> {
        let mut stdio = [const { None }; 3];
        for (copy, stream) in stdio.iter_mut().zip(&setting.stdio) {
            *copy = stream.as_ref().map(OwnedFd::try_clone).transpose().context(|| "duplicate a descriptor")?;
        }
        let namespaces = setting.joined.iter().filter_map(|(_, fd)| fd.as_ref());
        let files = namespaces.chain(self.files.iter().map(|(fd, _)| fd)).map(AsFd::as_fd);
        // Anew for each attempt: CRIU fills the namespace.
        let queues = self.queues.as_ref().map(|queues| queues.recreate(&self.dir)).transpose()?;
        let passed = files.chain(queues.iter().flat_map(Recreated::passed)).collect();
        let tools = Tools::make(&self.dir)?;
        let program = tools.program()?;
        let mut session = Session::start(&program, Launch { stdio, passed })?;
        program.check_version(&mut session)?;
        require_features(&mut session, None, self.asked.options.lazy_pages)?;
        // CRIU restores into the cgroups that it is in itself.
        self.state.cgroup.attach(session.pid())?;

        let root = restore_root::mount(&self.state.rootfs, &self.dir)?;
        let mut target = self.target(setting, root.path(), session.pid())?;
        queues.iter().try_for_each(|queues| queues.tell(&mut target))?;
        let images = self.images.as_ref().map(WorkImages::opened);
        let images = setting.view.as_ref().map(|view| view.opened.as_fd()).or(images);
        let fds = setting.directories.fds(images.map(|images| images.as_raw_fd()));
        let wanted = options::restore(self.asked, target, fds);
        session.run(Task::Restore, wanted, &mut |notification| self.notified(notification)).map(drop)
    }

    fn target(&self, setting: &Setting<'_>, root: &Path, criu: i32) -> Result<RestoreTarget> {
        let binds = external::binds(setting.plan, setting.rootfs.as_fd())?;
        let descriptors = images::read_descriptors(&self.asked.options.image_path)?;
        let mut target = RestoreTarget {
            root: external::path_text(root.to_owned())?,
            config_file: options::config_file(|name| self.state.annotations.get(name).cloned()),
            mounts: names::restored_mounts(&binds, !setting.plan.masked_paths.is_empty()),
            inherited: names::inherited_pipes(&descriptors),
            joined: Vec::new(),
            cgroups: restored_cgroups::of(criu)?,
        };
        setting.left_out.mounts.iter().for_each(|mount| names::add(&mut target.mounts, &mount.key, &mount.value));
        target.inherited.extend(self.files.iter().map(|(fd, key)| (fd.as_raw_fd(), key.clone())));
        for (join, fd) in &setting.joined {
            target_namespace(&mut target, join, fd.as_ref())?;
        }
        Ok(target)
    }

    /// Makes other images for CRIU, if something of the container has changed without it, or they hold what is not the
    /// container's.
    fn change_images(&mut self, in_userns: bool) -> Result<()> {
        let (images, others) = (&self.asked.options.image_path, &self.filled.others);
        let cgroups = restored_cgroups::without_others(&self.state.cgroup, images, self.asked.options.cgroup_mode)?;
        if self.joined.changes_images() || !others.is_empty() || cgroups.is_some() {
            let changed = self.images.insert(WorkImages::make(images, &self.dir, !in_userns)?);
            if !others.is_empty() {
                shared_files::forget_sizes(images, changed.path(), others)?;
            }
            cgroups.map(|(name, image)| image.save(&changed.path().join(name))).transpose()?;
        }
        Ok(())
    }

    /// Opens the namespaces to join that CRIU is given by descriptor.
    fn open_namespaces(&self) -> Result<Vec<(Join, Option<OwnedFd>)>> {
        let linux = crate::plan::linux(&self.config.spec)?;
        let open = |join: Join| {
            let opened = names::namespace_key(join.kind.proc_name()).map(|_| joined::open(&join)).transpose()?;
            Ok((join, opened))
        };
        namespaces::plan(linux)?.join.into_iter().map(open).collect()
    }

    /// Returns the standard streams of CRIU, which a restored process may have as its own: the given ones, else ours,
    /// except beside a terminal.
    fn stdio(&self, given: [Option<OwnedFd>; 3]) -> Result<[Option<OwnedFd>; 3]> {
        if create::has_terminal(&self.config.spec) {
            return Ok(given);
        }
        let mut streams = given;
        for (number, stream) in (0..).zip(&mut streams) {
            if stream.is_none() {
                let ours = fd::inherited(number).context(|| format!("find standard stream {number}"))?;
                *stream = Some(ours.try_clone_to_owned().context(|| "duplicate a descriptor")?);
            }
        }
        Ok(streams)
    }

    fn notified(&mut self, notification: Notification<'_>) -> Result<()> {
        if let Some(phase) = Phase::of_restore(&notification) {
            (self.tell)(&Event::Phase(phase));
        }
        match notification {
            Notification::SetupNamespaces { pid } => {
                self.adopt(pid)?;
                self.bring_loopback_up()?;
                self.run_hooks()?;
                self.images.iter().try_for_each(|images| self.joined.settle(images))
            }
            Notification::PostRestore { pid } => {
                // Where no namespace is created there is no earlier word of it.
                self.adopt(pid)?;
                self.joined.finish()?;
                if let Some(master) = self.terminal.take() {
                    terminal::put_back(master.as_fd(), &self.asked.options.image_path)?;
                }
                self.dir.save_config(&self.config)?;
                self.dir.save(&self.state)
            }
            Notification::OrphanPtsMaster(master) => self.send_terminal(master),
            _ => Ok(()),
        }
    }

    /// Takes a process for init.
    fn adopt(&mut self, pid: i32) -> Result<()> {
        let attempt = || format!("open restored init, process {pid}");
        self.init = Some(pidfd::open(pid).context(attempt)?);
        self.state.pid = pid;
        self.state.start_time = proc::stat(pid).context(attempt)?.start_time;
        Ok(())
    }

    /// Brings the loopback interface of a new network namespace up, as creating the container did: CRIU leaves network
    /// interfaces to us, and connections over this one are restored after it.
    fn bring_loopback_up(&self) -> Result<()> {
        let linux = crate::plan::linux(&self.config.spec)?;
        if namespaces::of(linux, Kind::Network) != Namespace::Private {
            return Ok(());
        }
        let attempt = || "bring the loopback interface up";
        let name = cstring(format!("/proc/{}/ns/net", self.state.pid).as_ref(), "namespace")?;
        let network = path::open(&name, OFlag::O_RDONLY).context(attempt)?;
        inside::run(Kind::Network, network.as_fd(), attempt, ns::loopback_up)
    }

    #[allow(deprecated, reason = "prestart hooks are still part of the contract with container engines")]
    fn run_hooks(&self) -> Result<()> {
        let Some(listed) = self.config.spec.hooks() else { return Ok(()) };
        hooks::run("prestart", listed.prestart().as_ref(), &self.state, "creating")?;
        hooks::run("createRuntime", listed.create_runtime().as_ref(), &self.state, "creating")
    }

    fn send_terminal(&mut self, master: OwnedFd) -> Result<()> {
        let Some(socket) = &self.console else {
            let text = "the image has a terminal, and process.terminal of the configuration is not set";
            return Err(Error::invalid(text));
        };
        socket::send(socket.as_fd(), b"/dev/ptmx", Some(master.as_fd())).context(|| "send the terminal")?;
        self.terminal = Some(master);
        Ok(())
    }

    fn started(&mut self, streams: Streams) -> Result<Started> {
        // When no terminal has been sent, none will be.
        self.console = None;
        let init = self.init.as_ref().ok_or_else(|| Error::other("criu did not tell which process init is"))?;
        let pidfd = init.try_clone().context(|| "duplicate a descriptor")?;
        self.state.rdt.iter().try_for_each(|rdt| rdt.add_all(self.state.pid, &self.state.cgroup))?;
        Ok(Started { pid: self.state.pid, pidfd, io: streams.into_io()?, notify: None })
    }

    /// Takes back what has come of a restore that failed.
    fn give_up(&mut self) {
        self.end();
        self.filled.take_back();
    }

    /// Ends whatever has been restored and reaps it. CRIU has ended it already unless it had finished.
    fn end(&mut self) {
        let mut killed = match self.state.cgroup.exists() {
            true => self.state.cgroup.kill(libc::SIGKILL),
            false => Ok(()),
        };
        if let Some(init) = self.init.take() {
            match pidfd::send_signal(init.as_fd(), libc::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => killed = killed.and(Err(errno).context(|| format!("kill process {}", self.state.pid))),
            }
        }
        killed.unwrap_or_else(|err| log::debug!("could not end the restored processes: {err}"));
        for pid in children().into_iter().filter(|pid| !self.others.contains(pid)) {
            // A hook may have left a process of its own to us, which goes on.
            let ended = pidfd::open(pid).and_then(|process| pidfd::wait_ended(process.as_fd(), END_PATIENCE));
            if ended == Ok(true) {
                _ = pidfd::reap(pid);
            }
        }
        self.joined.take_back();
    }
}

/// Adds a namespace that is joined: by descriptor where CRIU has left it out at the dump, else by path.
fn target_namespace(target: &mut RestoreTarget, join: &Join, opened: Option<&OwnedFd>) -> Result<()> {
    match (opened, names::namespace_key(join.kind.proc_name())) {
        (Some(opened), Some(key)) => target.inherited.push((opened.as_raw_fd(), key.to_owned())),
        _ => target.joined.push((join.kind.proc_name().to_owned(), external::text(&join.path)?)),
    }
    Ok(())
}

/// Returns the processes that are children of the calling thread; none where the kernel does not tell
/// (CONFIG_PROC_CHILDREN).
fn children() -> Vec<i32> {
    let text = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
