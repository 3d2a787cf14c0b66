//! What a checkpoint and a restore tell while they go on: phases as CRIU reaches them, and at the end what it took.

use crate::criu::Notification;
use crate::criu::images::Directories;
use crate::criu::stats::{DumpStats, RestoreStats};
use crate::error::Result;

/// Who is told.
pub type Listener<'a> = &'a mut dyn FnMut(&Event);

/// What is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// Something has begun.
    Phase(Phase),
    /// A checkpoint is complete.
    Dumped(Dumped),
    /// A container runs again.
    Restored(Restored),
}

/// What is being done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// It is looked for what could not be dumped; the processes run.
    Checking,
    /// The processes are being stopped.
    Freezing,
    /// What the processes have is written: memory, files, and all else that CRIU knows.
    Memory,
    /// The content of tmpfs from outside is written.
    SharedMemory,
    /// The processes are made again.
    Processes,
    /// The processes are there, and about to go on.
    Resuming,
}

impl Phase {
    /// Returns its name for programs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Checking => "checking",
            Self::Freezing => "freezing",
            Self::Memory => "memory",
            Self::SharedMemory => "shared-memory",
            Self::Processes => "processes",
            Self::Resuming => "resuming",
        }
    }

    /// Returns what begins at a point of a dump that CRIU has reached; `outside` says whether there are tmpfs from
    /// outside.
    pub(super) fn of_dump(reached: &Notification<'_>, outside: bool) -> Option<Self> {
        match reached {
            Notification::PreDump => Some(Self::Freezing),
            Notification::QueryExtFiles(_) => Some(Self::Memory),
            Notification::PostDump if outside => Some(Self::SharedMemory),
            _ => None,
        }
    }

    /// Returns what begins at a point of a restore that CRIU has reached.
    pub(super) fn of_restore(reached: &Notification<'_>) -> Option<Self> {
        match reached {
            Notification::PreRestore => Some(Self::Processes),
            Notification::PostRestore { .. } => Some(Self::Resuming),
            _ => None,
        }
    }
}

/// What a checkpoint took.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Dumped {
    /// What CRIU has measured, if it tells.
    pub stats: Option<DumpStats>,
    /// How much was in the container's /dev/shm, if it has one that is not the host's.
    pub shm_bytes: Option<u64>,
}

/// What a restore took.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Restored {
    /// What CRIU has measured, if it tells.
    pub stats: Option<RestoreStats>,
}

impl Dumped {
    /// Reads what there is to tell of a dump.
    pub(super) fn of(directories: &Directories, shm_bytes: Option<u64>) -> Self {
        Self { stats: readable(DumpStats::load(directories.work_path())), shm_bytes }
    }
}

impl Restored {
    /// Reads what there is to tell of a restore.
    pub(super) fn of(directories: &Directories) -> Self {
        Self { stats: readable(RestoreStats::load(directories.work_path())) }
    }
}

/// What was done is done, whether or not it can be told how.
fn readable<T>(read: Result<Option<T>>) -> Option<T> {
    read.unwrap_or_else(|err| {
        log::debug!("{err}");
        None
    })
}
