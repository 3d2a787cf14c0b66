//! pause and resume: all processes of a container frozen, and thawed again.

use super::kill::not_running;
use super::{Container, Status};
use crate::error::{Error, ErrorKind, Result};

impl Container {
    /// Freezes all processes.
    pub fn pause(&self) -> Result<()> {
        match self.status()? {
            Status::Running | Status::Created => self.state.cgroup.freeze(),
            Status::Paused | Status::Stopped => Err(not_running()),
        }
    }

    /// Lets all processes go on.
    pub fn resume(&self) -> Result<()> {
        match self.status()? {
            Status::Paused => self.state.cgroup.thaw(),
            _ => Err(Error::new(ErrorKind::WrongStatus, "container not paused")),
        }
    }
}
