//! `--regex`: what `kill` and `delete` do to every container whose name a regular expression finds, as with crun.

use super::root::Root;
use anyhow::{Context, Result};
use regex::Regex;

/// Does something to each such container. Where that fails it is told, and the others' turn comes all the same.
pub fn each(root: &Root, pattern: &str, act: impl Fn(&str) -> Result<()>) -> Result<()> {
    let regex = Regex::new(pattern).with_context(|| format!("invalid regular expression {pattern:?}"))?;
    for (id, _) in root.containers()?.iter().filter(|(id, _)| regex.is_match(id)) {
        act(id).unwrap_or_else(|err| log::warn!("container {id}: {err:#}"));
    }
    Ok(())
}
