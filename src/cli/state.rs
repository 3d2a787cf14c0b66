//! `state`: one container, as JSON.

use super::{Global, output, root};
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use stasis::container::{Container, Status};
use stasis::plan::ipc::IpcMode;
use std::collections::BTreeMap;
use std::path::Path;

/// Arguments of `state`.
#[derive(Args, Debug)]
pub struct StateArgs {
    /// the name of the container
    #[arg(value_name = "container-id")]
    pub id: String,
}

/// What `state` and `list` tell of a container, in runc's order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report<'a> {
    oci_version: &'a str,
    pub id: &'a str,
    /// 0 once init has ended: the number may be somebody else's by now.
    pub pid: i32,
    pub status: &'static str,
    pub bundle: &'a Path,
    rootfs: &'a Path,
    pub created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    pub owner: String,
    /// Its IPC mode, which only `state` tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipc: Option<&'static str>,
}

impl<'a> Report<'a> {
    /// Takes what was noted and asks for the rest.
    pub fn of(container: &'a Container, owner: String) -> Result<Self> {
        let (state, status) = (container.state(), container.status()?);
        Ok(Self {
            oci_version: &state.oci_version,
            id: &state.id,
            pid: if status == Status::Stopped { 0 } else { state.pid },
            status: status.as_str(),
            bundle: &state.bundle,
            rootfs: &state.rootfs,
            created: &state.created,
            annotations: &state.annotations,
            owner,
            ipc: None,
        })
    }
}

/// Prints the state of a container.
pub fn run(args: &StateArgs, global: &Global) -> Result<u8> {
    let container = Container::find(&root::select(global)?.path, &args.id)?;
    // The owner is only told by list.
    let mut report = Report::of(&container, String::new())?;
    // A configuration that cannot be read any more is no reason to tell nothing.
    report.ipc = container.spec().ok().map(|spec| IpcMode::of(spec).as_str());
    output::print(&output::json(&report, "  ")?)?;
    Ok(0)
}
