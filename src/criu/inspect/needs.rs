//! What a restore needs to be given: options, and replacements for what is not in the image.

use super::files::Files;
use super::{Image, Mount};
use crate::criu::mount_images::is_null;
use serde::Serialize;
use std::collections::BTreeSet;

/// What a restore needs to be given.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Needs {
    /// Options of `restore`.
    pub options: Vec<&'static str>,
    /// Mounts that config.json has to have, by the name that the image has for them.
    pub mounts: Vec<String>,
    /// Namespaces that config.json has to name, by kind.
    pub namespaces: Vec<&'static str>,
    /// Open files, by the name that the image has for them.
    pub files: Vec<String>,
}

impl Needs {
    /// Returns what follows from what an image holds.
    pub(super) fn of(image: &Image, files: &Files, tcp_closed: bool) -> Self {
        let lazy = |memory: &super::Memory| memory.lazy_pages > 0;
        // CRIU restores what belongs to a session from outside into the caller's.
        let foreign_session = image.processes.first().is_some_and(|init| init.sid != init.pid);
        let options = [
            ("--tcp-established", files.sockets.tcp_connected > 0 && !tcp_closed),
            ("--tcp-close", files.sockets.tcp_connected > 0 && tcp_closed),
            ("--ext-unix-sk", files.sockets.unix_external > 0),
            ("--shell-job", foreign_session),
            ("--file-locks", image.file_locks > 0),
            ("--lazy-pages", lazy(&image.memory) || lazy(&image.shared_memory.memory)),
        ];
        // What we have taken out of CRIU's hands we give it back ourselves.
        let queues = image.message_queues.iter();
        let ours: BTreeSet<&String> = image
            .host_files
            .iter()
            .map(|stream| &stream.key)
            .chain(queues.clone().flat_map(|all| &all.mounts))
            .chain(queues.flat_map(|all| &all.queues).flat_map(|queue| &queue.keys))
            .collect();
        let needed = image.mounts.iter().filter(|mount| !is_mask(mount));
        let external: BTreeSet<&String> = needed.filter_map(|mount| mount.external.as_ref()).collect();
        let given = image.namespaces.iter().filter(|namespace| matches!(namespace.scope, "external" | "joined"));
        Self {
            options: options.into_iter().filter_map(|(option, needed)| needed.then_some(option)).collect(),
            mounts: external.into_iter().filter(|key| !ours.contains(key)).cloned().collect(),
            namespaces: given.map(|namespace| namespace.kind).collect(),
            files: files.external().into_iter().filter(|key| !ours.contains(key)).collect(),
        }
    }
}

/// Says whether a mount only hides what is there, which a restore does by itself: with /dev/null, and directories with
/// an empty one that only crun has outside of the container.
fn is_mask(mount: &Mount) -> bool {
    let key = mount.external.as_deref().unwrap_or_default();
    let of_the_kernel = ["/proc/", "/sys/"].iter().any(|top| mount.destination.starts_with(top));
    key == "/dev/null"
        || of_the_kernel && (mount.root.as_deref().is_some_and(is_null) || key.ends_with("/.empty-directory"))
}
