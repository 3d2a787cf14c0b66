//! `delete`: whatever a container still holds.

use super::{Global, matching, root};
use anyhow::Result;
use clap::Args;
use stasis::ErrorKind;
use stasis::container::{Container, delete_damaged, state::StateDir};
use std::path::Path;

/// Arguments of `delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// forcibly delete the container if it is still running (uses SIGKILL)
    #[arg(long, short)]
    pub force: bool,
    /// take the name for a regular expression, and delete every container that it finds
    #[arg(long, short)]
    pub regex: bool,
    /// the name of the container
    #[arg(value_name = "container-id")]
    pub id: String,
}

/// Deletes a container, or several.
pub fn run(args: &DeleteArgs, global: &Global) -> Result<u8> {
    let root = root::select(global)?;
    let delete = |id: &str| delete(&root.path, id, args.force);
    if args.regex {
        matching::each(&root, &args.id, delete)?
    } else {
        delete(&args.id)?
    }
    Ok(0)
}

fn delete(root: &Path, id: &str, force: bool) -> Result<()> {
    match Container::find(root, id) {
        Ok(container) => container.delete(force)?,
        Err(err) if err.kind() == ErrorKind::NotFound => {
            // Its creation may have been cut short. A restore that was killed has left the root file system mounted
            // there, which this detaches before it deletes anything.
            StateDir::of(root, id)?.remove()?;
            if !force {
                return Err(err.into());
            }
        }
        Err(err) if err.kind() == ErrorKind::Damaged && force => {
            log::warn!("{err}: what is left of container {id} is removed");
            delete_damaged(&StateDir::of(root, id)?, id)?;
        }
        Err(err) => return Err(err.into()),
    }
    Ok(())
}
