//! `pause` and `resume`: all processes of a container stop, and go on.

use super::{Global, root, usage};
use anyhow::{Context, Result};
use clap::Args;
use stasis::container::{Container, is_rootless};
use stasis::{Error, ErrorKind, sys::Errno};

/// Arguments of `pause`.
#[derive(Args, Debug)]
pub struct PauseArgs {
    /// the name of the container
    #[arg(value_name = "container-id")]
    pub id: String,
}

/// Arguments of `resume`.
#[derive(Args, Debug)]
pub struct ResumeArgs {
    /// the name of the container
    #[arg(value_name = "container-id")]
    pub id: String,
}

/// Suspends all processes of a container.
pub fn run(args: &PauseArgs, global: &Global) -> Result<u8> {
    let container = Container::find(&root::select(global)?.path, &args.id)?;
    explain("pause", container.pause())
}

/// Lets all processes of a container go on.
pub fn resume(args: &ResumeArgs, global: &Global) -> Result<u8> {
    let container = Container::find(&root::select(global)?.path, &args.id)?;
    explain("resume", container.resume())
}

/// Names the likely cause where a caller that is not root was refused.
fn explain(verb: &str, outcome: Result<(), Error>) -> Result<u8> {
    let refused = |err: &Error| matches!(err.kind(), ErrorKind::System(Errno::EPERM | Errno::EACCES));
    match outcome {
        Err(err) if refused(&err) && is_rootless() => Err(err).with_context(|| {
            format!("{} {verb} failure might be caused by lack of full access to cgroups", usage::own_name())
        }),
        Err(err) => Err(err.into()),
        Ok(()) => Ok(0),
    }
}
