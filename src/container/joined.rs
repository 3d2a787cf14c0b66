//! Namespaces of others that a container is restored into, so that they stay as their owners have them.
//!
//! After joining a namespace CRIU writes what the images say into it, as if it were new. So it is given other images,
//! which say what is there already: the names, the limits, and of System V objects only those that are missing. What
//! becomes of an object is decided in [`crate::criu::reconcile`]; here it is read and carried out.
//!
//! Network and pid namespaces are left out of the images, and into a time namespace CRIU writes nothing.

use super::inside;
use super::work_images::WorkImages;
use crate::criu::namespace_images::{self as images, Entry, Objects};
use crate::criu::options::RestoreOptions;
use crate::criu::reconcile::{self, Dumped, Fate, Live};
use crate::error::{Context, Error, Result};
use crate::plan::namespaces::{self, Join, Kind, Namespace};
use crate::plan::process::cstring;
use crate::sys::ipc::ObjectKind;
use crate::sys::path;
use crate::tmpfs::Policy;
use nix::fcntl::OFlag;
use oci_spec::runtime::Spec;
use std::ffi::{CStr, CString};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where a UTS namespace tells its names.
const NAMES: [&CStr; 2] = [c"/proc/sys/kernel/hostname", c"/proc/sys/kernel/domainname"];

/// The namespaces of others that a container is restored into.
#[derive(Debug)]
pub struct Joined {
    images: PathBuf,
    uts: Option<Shared>,
    ipc: Option<Shared>,
    /// Whether a segment that only the container had attached keeps the content that it has now.
    keeps_content: bool,
    /// What CRIU creates, as soon as that is decided.
    created: Option<Vec<Dumped>>,
}

/// A namespace of others, and the image that CRIU writes into it.
#[derive(Debug)]
struct Shared {
    path: String,
    namespace: OwnedFd,
    image: String,
}

/// What there is in an IPC namespace: its limits, in the order of [`images::LIMITS`], and its objects.
struct There {
    limits: Vec<Option<String>>,
    objects: Vec<Live>,
}

/// What becomes of the objects of one image, in their order.
struct Decided {
    name: String,
    objects: Objects,
    fates: Vec<Fate>,
}

impl Joined {
    /// Looks at the namespaces that a configuration joins, and refuses those into which nothing can be restored.
    pub fn open(spec: &Spec, asked: &RestoreOptions) -> Result<Self> {
        let images = asked.options.image_path.clone();
        let (mut uts, mut ipc) = (None, None);
        if namespaces::of(crate::plan::linux(spec)?, Kind::Mount) == Namespace::Host {
            return Err(Error::invalid("a checkpoint cannot be restored into the host's mount namespace"));
        }
        for join in namespaces::plan(crate::plan::linux(spec)?)?.join {
            match join.kind {
                Kind::User | Kind::Mount | Kind::Cgroup => {
                    let (kind, path) = (join.kind.name(), join.path.to_string_lossy());
                    let text = format!("a checkpoint cannot be restored into a {kind} namespace that exists: {path}");
                    return Err(Error::invalid(text));
                }
                Kind::Uts => uts = Shared::open(&join, &images, images::UTS)?,
                Kind::Ipc => ipc = Shared::open(&join, &images, images::IPC_LIMITS)?,
                Kind::Network | Kind::Pid | Kind::Time => drop(open(&join)?),
            }
        }
        if let Some(ipc) = &ipc {
            ipc.decide(&images, &ipc.look()?.objects)?;
        }
        let keeps_content = asked.shm_policy == Some(Policy::Never);
        Ok(Self { images, uts, ipc, keeps_content, created: None })
    }

    /// Says whether CRIU has to be given other images.
    pub const fn changes_images(&self) -> bool {
        self.uts.is_some() || self.ipc.is_some()
    }

    /// Writes what there is into the images in `work`, and removes what CRIU creates again.
    ///
    /// This is for the last moment before CRIU reads them, since what changes in between is lost. Where CRIU is tried
    /// again, what was decided holds: the objects have been removed.
    pub fn settle(&mut self, work: &WorkImages) -> Result<()> {
        if self.created.is_some() {
            return Ok(());
        }
        if let Some(uts) = &self.uts {
            let mut names = inside::read(Kind::Uts, uts.namespace.as_fd(), &NAMES)?.into_iter().flatten();
            let mut name = || -> Result<Vec<u8>> {
                let name = names.next().ok_or_else(|| Error::other("the kernel does not tell the host name"))?;
                Ok(name.strip_suffix(b"\n").map(<[u8]>::to_vec).unwrap_or(name))
            };
            images::rename_host(&self.images, work.path(), &uts.image, [name()?, name()?])?;
        }
        let mut created = Vec::new();
        if let Some(ipc) = &self.ipc {
            let there = ipc.look()?;
            images::set_limits(&self.images, work.path(), &ipc.image, &there.limits)?;
            let decided = ipc.decide(&self.images, &there.objects)?;
            for image in &decided {
                image.write(work.path(), self.keeps_content.then_some(ipc))?;
            }
            inside::remove(ipc.namespace.as_fd(), &ids(decided.iter().flat_map(Decided::recreated)))?;
            created.extend(decided.iter().flat_map(Decided::created));
        }
        self.created = Some(created);
        Ok(())
    }

    /// Marks those segments for removal that were, once the processes have them attached: CRIU does not.
    pub fn finish(&self) -> Result<()> {
        let (Some(ipc), Some(created)) = (&self.ipc, &self.created) else { return Ok(()) };
        inside::remove(ipc.namespace.as_fd(), &ids(created.iter().filter(|dumped| dumped.doomed).copied()))
    }

    /// Removes the objects that CRIU has created.
    pub fn take_back(&self) {
        let (Some(ipc), Some(created)) = (&self.ipc, &self.created) else { return };
        if let Err(err) = inside::remove(ipc.namespace.as_fd(), &ids(created.iter().copied())) {
            log::warn!("{err}");
        }
    }
}

impl Shared {
    /// Opens a namespace, if there is something in the images that CRIU would write into it.
    fn open(join: &Join, images: &Path, image: &str) -> Result<Option<Self>> {
        let (path, namespace) = (join.path.to_string_lossy().into_owned(), open(join)?);
        Ok(images::find(images, image)?.map(|image| Self { path, namespace, image }))
    }

    /// Reads what there is in an IPC namespace.
    fn look(&self) -> Result<There> {
        let mut files = Vec::new();
        for (_, limit) in images::LIMITS {
            files.push(cstring(["/proc/sys/", limit].concat().as_ref(), "limit")?);
        }
        for kind in [c"shm", c"msg", c"sem"] {
            files.push(cstring(["/proc/sysvipc/", &kind.to_string_lossy()].concat().as_ref(), "objects")?);
        }
        let files: Vec<&CStr> = files.iter().map(CString::as_c_str).collect();
        let told = inside::read(Kind::Ipc, self.namespace.as_fd(), &files)?;
        let mut told = told.into_iter().map(|text| text.map(|text| String::from_utf8_lossy(&text).into_owned()));
        let limits = told.by_ref().take(images::LIMITS.len()).collect();
        let kinds = images::OBJECTS.iter().zip(told);
        let objects = kinds.flat_map(|((kind, _), text)| reconcile::there(*kind, &text.unwrap_or_default())).collect();
        Ok(There { limits, objects })
    }

    /// Decides what becomes of the objects of the images in an IPC namespace.
    fn decide(&self, images: &Path, there: &[Live]) -> Result<Vec<Decided>> {
        let attached = images::attached_segments(images)?;
        let mut all = Vec::new();
        for (kind, beginning) in images::OBJECTS {
            let Some(name) = images::find(images, beginning)? else { continue };
            let objects = Objects::read(&images.join(&name), kind, &attached)?;
            let fates = objects.all.iter().map(|(dumped, _)| reconcile::fate(dumped, there));
            let fates = fates.collect::<Result<_>>().context(|| format!("restore into ipc namespace {}", self.path))?;
            all.push(Decided { name, objects, fates });
        }
        Ok(all)
    }
}

impl Decided {
    fn each(&self) -> impl Iterator<Item = (Dumped, &Entry, Fate)> {
        self.objects.all.iter().zip(&self.fates).map(|((dumped, entry), fate)| (*dumped, entry, *fate))
    }

    fn created(&self) -> impl Iterator<Item = Dumped> {
        self.each().filter(|(_, _, fate)| matches!(fate, Fate::Created | Fate::Recreated)).map(|(dumped, _, _)| dumped)
    }

    fn recreated(&self) -> impl Iterator<Item = Dumped> {
        self.each().filter(|(_, _, fate)| *fate == Fate::Recreated).map(|(dumped, _, _)| dumped)
    }

    /// Writes the image with those objects that CRIU is to create. Where a namespace is given, segments that are there
    /// get their content from it.
    fn write(&self, work: &Path, content: Option<&Shared>) -> Result<()> {
        let path = work.join(&self.name);
        let (mut from_image, mut from_namespace) = (Vec::new(), Vec::new());
        for (dumped, entry, fate) in self.each() {
            match (fate, content) {
                (Fate::Recreated, Some(ipc)) => from_namespace.push((dumped, entry, ipc)),
                (Fate::Created | Fate::Recreated, _) => from_image.push(entry),
                (Fate::LeftOut, _) => {}
                (Fate::Displaced(other), _) => {
                    log::warn!("{} is not restored: in the joined namespace {other} has its place", dumped.object);
                }
            }
        }
        self.objects.write(&path, from_image.into_iter())?;
        from_namespace.into_iter().try_for_each(|(dumped, entry, ipc)| append(&path, &dumped, entry, ipc))
    }
}

/// Opens a namespace to join.
pub fn open(join: &Join) -> Result<OwnedFd> {
    let opened = path::open(&join.path, OFlag::O_RDONLY);
    opened.context(|| format!("open {} namespace {}", join.kind.name(), join.path.to_string_lossy()))
}

/// Appends a segment to an image, with the content that it has now.
fn append(path: &Path, dumped: &Dumped, entry: &Entry, ipc: &Shared) -> Result<()> {
    let attempt = || format!("write {}", path.display());
    let mut file = OpenOptions::new().append(true).open(path).context(attempt)?;
    let (message, padding) = entry.with_content_behind();
    file.write_all(&message).context(attempt)?;
    let segment = (dumped.object.id, dumped.object.size);
    inside::append_segment(ipc.namespace.as_fd(), segment, file.as_fd())?;
    file.write_all(&vec![0; padding]).context(attempt)
}

fn ids(objects: impl Iterator<Item = Dumped>) -> Vec<(ObjectKind, i32)> {
    objects.map(|dumped| (dumped.object.kind, dumped.object.id)).collect()
}
