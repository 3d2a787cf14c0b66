//! `delete`: whatever a container still holds.

use super::{Global, root};
use anyhow::Result;
use clap::Args;
use stasis::ErrorKind;
use stasis::container::{Container, delete_damaged, state::StateDir};

/// Arguments of `delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// forcibly delete the container if it is still running (uses SIGKILL)
    #[arg(long, short)]
    pub force: bool,
    /// the name of the container
    #[arg(value_name = "container-id")]
    pub id: String,
}

/// Deletes a container.
pub fn run(args: &DeleteArgs, global: &Global) -> Result<u8> {
    let root = root::select(global)?.path;
    match Container::find(&root, &args.id) {
        Ok(container) => container.delete(args.force)?,
        Err(err) if err.kind() == ErrorKind::NotFound => {
            // Its creation may have been cut short. A restore that was killed has left the root file system mounted
            // there, which this detaches before it deletes anything.
            StateDir::of(&root, &args.id)?.remove()?;
            if !args.force {
                return Err(err.into());
            }
        }
        Err(err) if err.kind() == ErrorKind::Damaged && args.force => {
            log::warn!("{err}: what is left of container {} is removed", args.id);
            delete_damaged(&StateDir::of(&root, &args.id)?, &args.id)?;
        }
        Err(err) => return Err(err.into()),
    }
    Ok(0)
}
