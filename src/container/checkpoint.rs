//! checkpoint: a running container as images on disk.
//!
//! What is dumped is what the saved configuration says of the container, whatever has become of the bundle. Until CRIU
//! has all of it nothing is lost: it lets the processes go on when it fails, and so does everything here.

use super::external_tmpfs::ExternalTmpfs;
use super::own_cgroup::view;
use super::progress::{Dumped, Event, Listener, Phase};
use super::queues::{self, Queues};
use super::tools::Tools;
use super::{Container, Status, external, host_streams, open_files, preflight, terminal};
use crate::cgroup;
use crate::criu::images::{self, Directories};
use crate::criu::manifest::Manifest;
use crate::criu::options::{self, DUMP_LOG, DumpOptions, DumpTarget};
use crate::criu::{Launch, Notification, Session, Task, external as names, require_features, require_lazy_pipe};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::plan::ipc::IpcMode;
use crate::plan::namespaces::{Kind, Namespace, of};
use crate::sys::fd;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use oci_spec::runtime::Spec;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

impl Container {
    /// Dumps the container into images, and destroys it unless it is to go on.
    ///
    /// `status_fd` is a descriptor of the caller's that a null byte is written to once the memory can be fetched; `tell`
    /// learns what is being done.
    pub fn checkpoint(self, asked: &DumpOptions, status_fd: Option<i32>, tell: Listener<'_>) -> Result<()> {
        let status = self.status()?;
        if !matches!(status, Status::Running | Status::Paused) {
            let text = format!("Container cannot be checkpointed in {status} state");
            return Err(Error::new(ErrorKind::WrongStatus, text));
        }
        let dumped = self.dump(asked, status_fd, tell).inspect_err(|_| {
            // CRIU thaws what it froze, unless it was killed in between.
            let thawed = if status == Status::Running { self.thaw() } else { Ok(()) };
            thawed.unwrap_or_else(|err| log::warn!("thaw container {}: {err}", self.id()));
        })?;
        if !(asked.leave_running || asked.pre_dump) {
            // The checkpoint is complete: a failure from here on must not look as if there was none.
            let id = self.id().to_owned();
            if let Err(err) = self.destroy() {
                log::warn!("remove container {id} after its checkpoint: {err}");
            }
        }
        tell(&Event::Dumped(dumped));
        Ok(())
    }

    fn dump(&self, asked: &DumpOptions, status_fd: Option<i32>, tell: Listener<'_>) -> Result<Dumped> {
        tell(&Event::Phase(Phase::Checking));
        if of(crate::plan::linux(self.spec()?)?, Kind::Mount) == Namespace::Host {
            return Err(Error::invalid("a container in the host's mount namespace cannot be checkpointed"));
        }
        preflight::check(self, asked)?;
        let directories = Directories::create(&asked.options.image_path, asked.options.work_path.as_deref())?;
        self.dump_into(&directories, asked, status_fd, tell).inspect_err(|_| directories.take_back())
    }

    fn dump_into(
        &self,
        directories: &Directories,
        asked: &DumpOptions,
        status_fd: Option<i32>,
        tell: Listener<'_>,
    ) -> Result<Dumped> {
        let images = &asked.options.image_path;
        if let Some(parent) = &asked.parent_path {
            images::check_parent(images, parent)?;
        }
        let status = match status_fd {
            Some(number) if asked.options.lazy_pages => Some(writable(number)?),
            _ => None,
        };
        let spec = self.spec()?;
        let target = self.dump_target(spec, asked.pre_dump)?;
        let tools = Tools::make(&self.dir)?;
        let program = tools.program()?;
        let mut session = Session::start(&program, Launch::default())?;
        let version = program.check_version(&mut session)?;
        let parent = asked.parent_path.as_ref().map(|_| "--parent-path");
        let mem_track = if asked.pre_dump { Some("--pre-dump") } else { parent };
        require_features(&mut session, mem_track, asked.options.lazy_pages)?;
        if asked.options.lazy_pages {
            require_lazy_pipe()?;
        }
        let manifest = Manifest::new(self.id(), version.to_string(), IpcMode::of(spec).as_str());
        let mut dumping = Dumping {
            container: self,
            shell_job: asked.options.shell_job,
            images,
            status,
            manifest,
            tmpfs: Vec::new(),
            queues: None,
            shm: None,
            tell,
        };
        if !asked.pre_dump {
            dumping.tmpfs = self.external_tmpfs(spec, &asked.external_tmpfs)?;
            dumping.queues = self.queues(spec)?;
            Manifest::discard(images)?;
            images::write_descriptors(images, &self.standard_streams())?;
        }

        let task = if asked.pre_dump { Task::PreDump } else { Task::Dump };
        session
            .run(task, options::dump(asked, target, directories.fds(None)), &mut |notification| {
                dumping.notified(notification)
            })
            .map_err(|err| images::explain(err, &directories.log(DUMP_LOG)))?;
        if !asked.leave_running {
            dumping.clean_up();
        }
        Ok(Dumped::of(directories, dumping.shm))
    }

    fn thaw(&self) -> Result<()> {
        if self.state().cgroup.is_frozen()? { self.state().cgroup.thaw() } else { Ok(()) }
    }

    fn dump_target(&self, spec: &Spec, pre_dump: bool) -> Result<DumpTarget> {
        let state = self.state();
        let mut target = DumpTarget {
            pid: state.pid,
            root: external::path_text(state.rootfs.clone())?,
            freezer: state.cgroup.freezer_path().map(external::path_text).transpose()?,
            config_file: options::config_file(|name| state.annotations.get(name).cloned()),
            external: self.external_namespaces(spec)?,
            mounts: Vec::new(),
        };
        if !pre_dump {
            let linux = crate::plan::linux(spec)?;
            let view = view(&cgroup::detect()?, state.cgroup.directories(), linux)?;
            let plan = external::plan(spec, &state.bundle, &view)?;
            let root = external::open_directory(&state.rootfs)?;
            let inside = external::open_directory(format!("/proc/{}/root", state.pid).as_ref())?;
            let masked = external::masked_files(&plan, inside.as_fd())?;
            target.mounts = names::dumped_mounts(&external::binds(&plan, root.as_fd())?, &masked);
        }
        Ok(target)
    }

    /// Returns the entries for the namespaces that are not the container's own. They are looked up at its init: the path
    /// that they were joined by may be gone.
    fn external_namespaces(&self, spec: &Spec) -> Result<Vec<String>> {
        let Some(linux) = spec.linux() else { return Ok(Vec::new()) };
        let mut entries = Vec::new();
        for kind in Kind::ALL {
            if matches!(of(linux, kind), Namespace::Joined(_)) && names::namespace_key(kind.proc_name()).is_some() {
                let path = format!("/proc/{}/ns/{}", self.state().pid, kind.proc_name());
                let inode = std::fs::metadata(&path).context(|| format!("stat {path}"))?.ino();
                entries.extend(names::namespace(kind.proc_name(), inode));
            }
        }
        Ok(entries)
    }

    /// Returns where the standard streams of init lead; those that it has closed lead nowhere.
    fn standard_streams(&self) -> Vec<String> {
        let link = |number| std::fs::read_link(format!("/proc/{}/fd/{number}", self.state().pid));
        (0..3).map(|number| link(number).unwrap_or_default().to_string_lossy().into_owned()).collect()
    }
}

/// Our part in a dump.
struct Dumping<'a> {
    container: &'a Container,
    images: &'a Path,
    /// Who is told once the memory can be fetched.
    status: Option<BorrowedFd<'static>>,
    manifest: Manifest,
    tmpfs: Vec<ExternalTmpfs>,
    queues: Option<Queues>,
    /// Whether the terminal may be the caller's.
    shell_job: bool,
    /// How much is in its /dev/shm.
    shm: Option<u64>,
    tell: Listener<'a>,
}

impl Dumping<'_> {
    fn notified(&mut self, notification: Notification<'_>) -> Result<()> {
        if let Some(phase) = Phase::of_dump(&notification, !self.tmpfs.is_empty()) {
            (self.tell)(&Event::Phase(phase));
        }
        match notification {
            Notification::StatusReady => self
                .status
                .map_or(Ok(()), |status| fd::write_all(status, &[0]).context(|| "tell that the memory can be fetched")),
            Notification::QueryExtFiles(external) => {
                self.tmpfs.iter_mut().try_for_each(ExternalTmpfs::note_remaps)?;
                let open = open_files::find(self.container.state().pid, &self.container.pids()?)?;
                self.manifest.streams = host_streams::find(&open);
                external.extend(self.manifest.streams.iter().map(|stream| stream.key.clone()));
                queues::capture(self.queues.as_mut(), self.container, &open, external)
            }
            Notification::PostDump => self.complete(),
            _ => Ok(()),
        }
    }

    /// Adds what CRIU leaves out, before it lets go of the processes: without it the image would not be complete.
    fn complete(&mut self) -> Result<()> {
        self.shm = self.container.shm_used();
        for tmpfs in &self.tmpfs {
            self.manifest.tmpfs.push(tmpfs.capture(self.images)?);
        }
        if let Some(queues) = &self.queues {
            self.manifest.queues = queues.write(self.images)?;
        }
        if !self.shell_job {
            let unread = terminal::unread(self.container.state().pid)?;
            (self.manifest.terminal_input, self.manifest.terminal_ends) = (unread.bytes, unread.ends);
        }
        self.manifest.save(self.images)
    }

    /// Removes what CRIU has left in file systems that are still there. The checkpoint is complete all the same.
    fn clean_up(&self) {
        for tmpfs in &self.tmpfs {
            tmpfs.remove_remaps().unwrap_or_else(|err| log::warn!("{err}"));
        }
    }
}

/// Returns a descriptor that the caller of the runtime has left open for us to write to.
fn writable(number: i32) -> Result<BorrowedFd<'static>> {
    let attempt = || format!("invalid --status-fd argument {number}");
    let inherited = fd::inherited(number).context(attempt)?;
    let flags = OFlag::from_bits_retain(fcntl(inherited, FcntlArg::F_GETFL).context(attempt)?);
    match flags & OFlag::O_ACCMODE {
        OFlag::O_RDONLY => Err(Error::invalid(format!("{}: not writable", attempt()))),
        _ => Ok(inherited),
    }
}
