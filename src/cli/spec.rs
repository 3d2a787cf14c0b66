//! `spec`: a config.json to begin with, in one of Docker's IPC modes.

use super::{Global, root, size};
use anyhow::{Context, Result, bail};
use clap::Args;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use stasis::container::Container;
use stasis::spec::template::{self, Ipc};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Arguments of `spec`.
#[derive(Args, Debug)]
#[command(after_help = "The specification is a start: its \"args\" run \"sh\" in a root filesystem named \"rootfs\".")]
pub struct SpecArgs {
    /// path to the root of the bundle directory
    #[arg(long, short, value_name = "dir")]
    pub bundle: Option<PathBuf>,
    /// generate a configuration for a rootless container
    #[arg(long)]
    pub rootless: bool,
    /// write to this file instead of config.json
    #[arg(long, short, value_name = "file")]
    pub file: Option<PathBuf>,
    /// IPC mode: private|shareable|none|host|container:ID (default: private)
    #[arg(long, value_name = "mode")]
    pub ipc: Option<String>,
    /// size of /dev/shm, with b, k, m or g behind it (default: 64m)
    #[arg(long, value_name = "size")]
    pub shm_size: Option<String>,
}

/// Writes the template to where nothing is yet.
pub fn run(args: &SpecArgs, global: &Global) -> Result<u8> {
    let ipc = ipc(args, global)?;
    let name = args.file.clone().unwrap_or_else(|| PathBuf::from("config.json"));
    let path = args.bundle.clone().unwrap_or_default().join(&name);
    let users = args
        .rootless
        .then(|| template::Users { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() });
    let unified = statfs("/sys/fs/cgroup").is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC);
    match OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(mut file) => file
            .write_all(template::text(users, unified, &ipc).as_bytes())
            .with_context(|| format!("write {}", path.display()))?,
        Err(err) if err.kind() == ErrorKind::AlreadyExists => {
            bail!("File {} exists. Remove it first", name.display())
        }
        Err(err) => return Err(err).with_context(|| format!("create {}", path.display())),
    }
    Ok(0)
}

/// Returns what the template has to say of the mode that was asked for.
fn ipc(args: &SpecArgs, global: &Global) -> Result<Ipc> {
    let size = args.shm_size.as_deref().map(shm_size).transpose()?;
    let word = args.ipc.as_deref().unwrap_or("private");
    let shares = word == "shareable" || word.starts_with("container:");
    if args.rootless && shares {
        bail!("--ipc {word} is not for rootless containers: only root can mount a /dev/shm that others join");
    }
    let ipc = match word.split_once(':') {
        None if word == "private" => return Ok(Ipc::Private(size)),
        None if word == "shareable" => return Ok(Ipc::Shareable(size)),
        None if word == "none" => Ipc::None,
        None if word == "host" => Ipc::Host { queues: Path::new("/dev/mqueue").is_dir() },
        Some(("container", id)) if !id.is_empty() => joined(id, global)?,
        _ => bail!("invalid IPC mode: {word}"),
    };
    match size {
        None => Ok(ipc),
        Some(_) => bail!("--shm-size has no meaning with --ipc {word}, which makes no /dev/shm"),
    }
}

fn joined(id: &str, global: &Global) -> Result<Ipc> {
    let attempt = || format!("--ipc container:{id}");
    let container = Container::load(&root::select(global)?.path, id).with_context(attempt)?;
    let shared = container.shared_ipc().with_context(attempt)?;
    let text = |path: PathBuf| {
        path.into_os_string().into_string().map_err(|path| anyhow::anyhow!("{}: {path:?} is not UTF-8", attempt()))
    };
    Ok(Ipc::Container { namespace: text(shared.namespace)?, shm: text(shared.shm)? })
}

/// Reads the size of a /dev/shm.
fn shm_size(text: &str) -> Result<u64> {
    let mistake = || format!("invalid --shm-size {text:?}");
    match size::parse(text).with_context(mistake)? {
        // To the kernel that is no limit, to Docker its default: neither is what it says.
        0 => bail!("{}: it has to be more than nothing", mistake()),
        bytes => Ok(bytes),
    }
}
