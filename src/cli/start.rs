//! `start`: the program of a created container.

use super::{Global, root};
use anyhow::Result;
use clap::Args;
use stasis::container::Container;

/// Arguments of `start`.
#[derive(Args, Debug)]
pub struct StartArgs {
    /// the name of the container
    #[arg(value_name = "container-id")]
    pub id: String,
}

/// Starts a container.
pub fn run(args: &StartArgs, global: &Global) -> Result<u8> {
    Container::load(&root::select(global)?.path, &args.id)?.start()?;
    Ok(0)
}
