//! Namespaces that a configuration joins by path and that we are in ourselves: the host's, for all that the container can
//! tell. To join them changes nothing, but what is only allowed in a namespace of the container's own is not allowed.

use crate::plan::namespaces::Kind;
use nix::sys::stat::stat;
use oci_spec::runtime::{LinuxNamespace, Spec};

/// Leaves such namespaces out, as they are left out of a configuration that means the host's.
pub fn leave_out(spec: &mut Spec) {
    let linux = spec.linux_mut().as_mut();
    if let Some(namespaces) = linux.and_then(|linux| linux.namespaces_mut().as_mut()) {
        namespaces.retain(|namespace| !is_own(namespace));
    }
}

fn is_own(namespace: &LinuxNamespace) -> bool {
    let Some(path) = namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty()) else { return false };
    let own = format!("/proc/self/ns/{}", Kind::from(namespace.typ()).proc_name());
    match (stat(path), stat(own.as_str())) {
        (Ok(theirs), Ok(ours)) => (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino),
        // What is not there is an error where it is joined.
        _ => false,
    }
}
