//! `restore`: a container from the images of a checkpoint.

use super::checkpoint::CriuArgs;
use super::create::BundleArgs;
use super::progress::Progress;
use super::run::follow;
use super::{Global, log, root, usage};
use anyhow::{Context, Result, bail};
use clap::Args;
use stasis::container;
use stasis::criu::options::RestoreOptions;
use stasis::sys::{process, signal::Signals};
use stasis::tmpfs::Policy;
use std::path::PathBuf;

/// Arguments of `restore`.
#[derive(Args, Debug)]
#[command(
    after_help = "Restores the saved state of the container instance that was previously saved using the checkpoint\n\
                        command. Unless detached, the exit code is that of the container's program."
)]
pub struct RestoreArgs {
    #[command(flatten)]
    pub bundle: BundleArgs,
    #[command(flatten)]
    pub criu: CriuArgs,
    /// detach from the container's process
    #[arg(long, short)]
    pub detach: bool,
    /// disable the use of the subreaper used to reap reparented processes
    #[arg(long)]
    pub no_subreaper: bool,
    /// LSM profile to be used during restore in the form of TYPE:NAME
    #[arg(long, value_name = "profile")]
    pub lsm_profile: Option<String>,
    /// LSM mount context to be used during restore
    #[arg(long, value_name = "context")]
    pub lsm_mount_context: Option<String>,
    /// what to do where a tmpfs mounted from outside, like Docker's /dev/shm, is not empty:
    /// if-empty|merge-missing|overwrite|never (default: if-empty; in a joined IPC namespace merge-missing).
    /// never also leaves SysV segments the content that they have there
    #[arg(long, value_name = "policy")]
    pub shm_policy: Option<String>,
    /// accepted for the sake of callers that give it to checkpoint and restore alike: the images know their parent
    #[arg(long, value_name = "dir", hide = true)]
    pub parent_path: Option<PathBuf>,
    /// the name of the container, unique on this host
    #[arg(value_name = "container-id")]
    pub id: String,
}

impl RestoreArgs {
    /// Returns what they mean to CRIU.
    pub fn options(&self) -> Result<RestoreOptions> {
        Ok(RestoreOptions {
            options: self.criu.options()?,
            lsm_profile: lsm_profile(self.lsm_profile.as_deref())?,
            lsm_mount_context: self.lsm_mount_context.clone().filter(|context| !context.is_empty()),
            shm_policy: self.shm_policy.as_deref().map(shm_policy).transpose()?,
        })
    }
}

/// Reads a profile as CRIU does. An empty one is none, as with runc; `none:` is one that CRIU knows.
fn lsm_profile(text: Option<&str>) -> Result<Option<String>> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let kind = text.split_once(':').map(|(kind, _)| kind);
    if !kind.is_some_and(|kind| ["apparmor", "selinux", "none"].contains(&kind)) {
        bail!("invalid --lsm-profile {text:?}: apparmor:NAME, selinux:CONTEXT or none: is expected");
    }
    Ok(Some(text.to_owned()))
}

fn shm_policy(word: &str) -> Result<Policy> {
    let found = Policy::ALL.iter().find(|(name, _)| *name == word);
    found.map(|(_, policy)| *policy).with_context(|| format!("invalid shm-policy value {word:?}"))
}

/// Restores a container, and unless detached waits for its end.
pub fn run(args: RestoreArgs, global: &Global) -> Result<u8> {
    if container::is_rootless() {
        ::log::warn!("{} restore is untested with rootless containers", usage::own_name());
    }
    if args.detach { detached(args, global) } else { attached(args, global) }
}

fn detached(args: RestoreArgs, global: &Global) -> Result<u8> {
    let wanted = args.options()?;
    let options = args.bundle.options(true, global)?;
    let mut progress = Progress::new(&args.criu.progress, "restore", &args.id, true)?;
    let root = root::select(global)?.path;
    let done = container::restore(&root, &args.id, &options, &wanted, &mut |event| progress.tell(event));
    progress.end(done.map_err(Into::into))?;
    Ok(0)
}

fn attached(args: RestoreArgs, global: &Global) -> Result<u8> {
    // Before there is a process: a signal that comes in between waits until there is somebody to pass it on to.
    let signals = Signals::block().context("block signals")?;
    if !args.no_subreaper {
        process::set_child_subreaper(true).context("become a subreaper")?;
    }
    let wanted = args.options()?;
    let options = args.bundle.options(false, global)?;
    // The terminal is the program's.
    let mut progress = Progress::new(&args.criu.progress, "restore", &args.id, false)?;
    let root = root::select(global)?.path;
    let done = container::restore(&root, &args.id, &options, &wanted, &mut |event| progress.tell(event));
    let (container, started) = progress.end(done.map_err(Into::into))?;
    log::release();
    let code = follow(&signals, started);
    container.delete(true).unwrap_or_else(|err| ::log::warn!("delete container {}: {err}", args.id));
    code
}
