//! `run`: `create` and `start` in one, and unless detached also the wait for the end.

use super::create::BundleArgs;
use super::{Global, log, root, usage};
use anyhow::{Context, Result};
use clap::Args;
use stasis::container::{self, Started, relay::relay};
use stasis::sys::{pidfd, process, signal::Signals};
use std::os::fd::AsFd;

/// Arguments of `run`.
#[derive(Args, Debug)]
#[command(
    after_help = "The bundle is a directory with a specification file named \"config.json\" and a root filesystem.\n\
                        Unless detached, the exit code is that of the container's program."
)]
pub struct RunArgs {
    #[command(flatten)]
    pub bundle: BundleArgs,
    /// detach from the container's process
    #[arg(long, short)]
    pub detach: bool,
    /// do not delete the container after it exits
    #[arg(long)]
    pub keep: bool,
    /// disable the use of the subreaper used to reap reparented processes
    #[arg(long)]
    pub no_subreaper: bool,
    /// the name of the container, unique on this host
    #[arg(value_name = "container-id")]
    pub id: String,
}

/// Creates a container, starts it, and unless detached waits for its end.
pub fn run(args: RunArgs, global: &Global) -> Result<u8> {
    let prefix = || format!("{} run failed", usage::own_name());
    if args.detach {
        return detached(args, global).with_context(prefix);
    }
    attached(args, global).with_context(prefix)
}

fn detached(args: RunArgs, global: &Global) -> Result<u8> {
    let options = args.bundle.options(true, global)?;
    let (container, started) = container::run(&root::select(global)?.path, &args.id, &options)?;
    if let Some(Err(err)) = started.notify.map(|notify| container.wait_notified(notify)) {
        // The container runs.
        ::log::warn!("{err}");
    }
    Ok(0)
}

fn attached(args: RunArgs, global: &Global) -> Result<u8> {
    // Before the process is made: a signal that comes in between waits until there is somebody to pass it on to.
    let signals = Signals::block().context("block signals")?;
    if !args.no_subreaper {
        process::set_child_subreaper(true).context("become a subreaper")?;
    }
    let options = args.bundle.options(false, global)?;
    let (container, started) = container::run(&root::select(global)?.path, &args.id, &options)?;
    log::release();
    let code = follow(&signals, started);
    if !args.keep {
        container.delete(true).unwrap_or_else(|err| ::log::warn!("delete container {}: {err}", args.id));
    }
    code
}

/// Serves a process until it ends; returns its exit code.
pub fn follow(signals: &Signals, started: Started) -> Result<u8> {
    let Started { pid, pidfd, io, notify } = started;
    let code = relay(signals, io, pid, pidfd.as_fd(), notify).inspect_err(|_| {
        // Nobody would look after its streams any more.
        if let Err(errno) = pidfd::send_signal(pidfd.as_fd(), libc::SIGKILL) {
            ::log::debug!("kill process {pid}: {}", errno.desc());
        }
    })?;
    u8::try_from(code).with_context(|| format!("exit code {code}"))
}
