//! Namespaces that a configuration joins by path and that we are in ourselves: the host's, for all that the container can
//! tell. To join them changes nothing, but what is only allowed in a namespace of the container's own is not allowed.
//!
//! Pid namespaces stay listed where they can be joined: nothing is only allowed in one, and CRIU has to be told, as runc
//! tells it, that the container's is another's.

use crate::error::Result;
use crate::plan::namespaces::Kind;
use crate::spec::Config;
use nix::sys::stat::stat;
use oci_spec::runtime::LinuxNamespace;

/// Leaves such namespaces out, as they are left out of a configuration that means the host's.
pub fn leave_out(config: &mut Config) -> Result<()> {
    let listed = config.spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    match listed.filter(|listed| listed.iter().any(is_own)) {
        Some(listed) => config.replace_namespaces(listed.iter().filter(|listed| !is_own(listed)).cloned().collect()),
        None => Ok(()),
    }
}

fn is_own(namespace: &LinuxNamespace) -> bool {
    let Some(path) = namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty()) else { return false };
    let kind = Kind::from(namespace.typ());
    if kind == Kind::Pid && !super::is_rootless() {
        return false;
    }
    let own = format!("/proc/self/ns/{}", kind.proc_name());
    match (stat(path), stat(own.as_str())) {
        (Ok(theirs), Ok(ours)) => (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino),
        // What is not there is an error where it is joined.
        _ => false,
    }
}
