//! Handing a seccomp listener to the agent that the profile names (runtime-spec, "The Container Process State").

use super::state::State;
use crate::error::{Context, Error, Result};
use crate::plan::seccomp::CompiledFilter;
use crate::sys::socket;
use serde_json::json;
use std::os::fd::{AsFd, OwnedFd};

/// The process that a listener is about.
pub struct Subject<'a> {
    /// Its pid: init's, or that of a process beside it.
    pub pid: i32,
    /// Its container.
    pub state: &'a State,
    /// How the container is.
    pub status: &'a str,
}

/// Sends the listener with the process's state to the profile's agent.
pub fn hand_over(listener: &OwnedFd, filter: Option<&CompiledFilter>, subject: &Subject<'_>) -> Result<()> {
    let state = subject.state;
    let plan = filter.and_then(|filter| filter.notify.as_ref());
    let plan = plan.ok_or_else(|| Error::other("a seccomp listener of a profile without an agent"))?;
    let attempt = || format!("failed to connect with seccomp agent {}", plan.path.display());
    let agent = socket::connect_stream(&plan.path).context(attempt)?;
    let mut message = json!({
        "ociVersion": state.oci_version,
        "fds": ["seccompFd"],
        "pid": subject.pid,
        "state": {
            "ociVersion": state.oci_version,
            "id": state.id,
            "status": subject.status,
            "pid": state.pid,
            "bundle": state.bundle,
            "annotations": state.annotations,
        },
    });
    if let Some(metadata) = &plan.metadata {
        message["metadata"] = json!(metadata);
    }
    socket::send(agent.as_fd(), message.to_string().as_bytes(), Some(listener.as_fd())).context(attempt)
}
