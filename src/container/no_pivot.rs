//! What `--no-pivot` has to hide: the host's own procfs and sysfs.
//!
//! Moved over `/`, the container's root leaves the host's mounts in the namespace. They are out of its sight, but a
//! whole procfs among them is what the kernel wants to see before it lets a user namespace mount one without masks
//! (mount_namespaces(7)).

use crate::error::{Context, Result};
use crate::plan::process::cstring;
use crate::sys::mountinfo::{self, Mount};
use std::ffi::CString;
use std::path::Path;

/// Returns where the host has all of a procfs or sysfs outside of the container's root.
pub fn places(rootfs: &Path) -> Result<Vec<CString>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").context(|| "read /proc/self/mountinfo")?;
    whole(&table, rootfs).iter().map(|place| cstring(place.as_ref(), "mount point")).collect()
}

fn whole(table: &str, rootfs: &Path) -> Vec<String> {
    let is_meant = |mount: &Mount<'_>| {
        mount.root == "/" && matches!(mount.fstype, "proc" | "sysfs") && !Path::new(&mount.place).starts_with(rootfs)
    };
    mountinfo::parse(table).filter(is_meant).map(|mount| mount.place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_ones_outside_of_the_root_are_meant() {
        let table = "40 31 0:5 / /proc rw shared:3 - proc proc rw\n41 31 0:6 / /a\\040sys ro - sysfs sysfs ro\n\
                     42 31 0:5 /sys /elsewhere rw - proc proc rw\n43 31 0:7 / /tmp rw - tmpfs proc rw\n\
                     44 31 0:5 / /c/rootfs/proc rw - proc proc rw\n";
        assert_eq!(whole(table, Path::new("/c/rootfs")), ["/proc", "/a sys"]);
    }
}
