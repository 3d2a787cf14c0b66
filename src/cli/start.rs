//! `start`: the program of a created container.

use super::create::notify_socket;
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
    let mut container = Container::load(&root::select(global)?.path, &args.id)?;
    let notify = match notify_socket() {
        Some(host) => container.notify_socket(&host)?,
        None => None,
    };
    container.start()?;
    notify.map_or(Ok(()), |notify| container.wait_notified(notify))?;
    Ok(0)
}
