//! What CRIU says while it works, as an enum.
//!
//! CRIU waits for the answer to each notification, with the processes in a known condition: frozen at `query-ext-files`,
//! in new but empty namespaces at `setup-namespaces`, restored but not yet resumed at `post-restore`. The caller of a
//! session takes part with one function over this enum, which may keep state; an error from it makes CRIU undo its work.

use rust_criu::rust_criu_protobuf::rpc::Criu_notify;
use std::os::fd::OwnedFd;

/// A point that CRIU has reached, with what it tells about it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Notification<'a> {
    /// Images are about to be streamed.
    PreStream,
    /// Nothing has been frozen yet.
    PreDump,
    /// Everything has been dumped; the processes are still stopped.
    PostDump,
    /// Nothing has been restored yet.
    PreRestore,
    /// All processes are there, stopped for the last time before they go on; `pid` is the first of them.
    PostRestore {
        /// The restored init, as this process sees it.
        pid: i32,
    },
    /// The processes are about to lose their network.
    NetworkLock,
    /// The processes get their network back.
    NetworkUnlock,
    /// The namespaces exist and have not been filled: this is where hooks run.
    SetupNamespaces {
        /// The restored init, as this process sees it.
        pid: i32,
    },
    /// The namespaces have been filled.
    PostSetupNamespaces,
    /// The processes are about to run.
    PreResume,
    /// The processes run.
    PostResume,
    /// The master of a terminal whose slave the processes have as theirs.
    OrphanPtsMaster(OwnedFd),
    /// The page server or the lazy pages can be connected to.
    StatusReady,
    /// The processes are stopped; keys of files that are not theirs may be added, as for the option `external`.
    QueryExtFiles(&'a mut Vec<String>),
    /// A point that this version does not know, by CRIU's name.
    Other(String),
}

impl<'a> Notification<'a> {
    /// Returns what `notify` says; `passed` came with it and `external` goes back with the answer.
    pub(super) fn new(notify: &Criu_notify, passed: Option<OwnedFd>, external: &'a mut Vec<String>) -> Self {
        match (notify.script(), passed) {
            ("pre-stream", _) => Self::PreStream,
            ("pre-dump", _) => Self::PreDump,
            ("post-dump", _) => Self::PostDump,
            ("pre-restore", _) => Self::PreRestore,
            ("post-restore", _) => Self::PostRestore { pid: notify.pid() },
            ("network-lock", _) => Self::NetworkLock,
            ("network-unlock", _) => Self::NetworkUnlock,
            ("setup-namespaces", _) => Self::SetupNamespaces { pid: notify.pid() },
            ("post-setup-namespaces", _) => Self::PostSetupNamespaces,
            ("pre-resume", _) => Self::PreResume,
            ("post-resume", _) => Self::PostResume,
            ("orphan-pts-master", Some(master)) => Self::OrphanPtsMaster(master),
            ("status-ready", _) => Self::StatusReady,
            ("query-ext-files", _) => Self::QueryExtFiles(external),
            (other, _) => Self::Other(other.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notification(script: &str, pid: Option<i32>) -> String {
        let mut notify = Criu_notify::new();
        notify.set_script(script.to_owned());
        notify.pid = pid;
        format!("{:?}", Notification::new(&notify, None, &mut Vec::new()))
    }

    #[test]
    fn names_are_those_of_criu() {
        let known = [
            ("pre-dump", None, "PreDump"),
            ("post-dump", None, "PostDump"),
            ("setup-namespaces", Some(12), "SetupNamespaces { pid: 12 }"),
            ("post-restore", Some(13), "PostRestore { pid: 13 }"),
            ("query-ext-files", None, "QueryExtFiles([])"),
            ("in-the-future", None, "Other(\"in-the-future\")"),
            // Without its descriptor there is nothing to act on.
            ("orphan-pts-master", None, "Other(\"orphan-pts-master\")"),
        ];
        for (script, pid, expected) in known {
            assert_eq!(notification(script, pid), expected);
        }
    }
}
