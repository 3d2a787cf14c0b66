//! Bind mounts whose sources are made again where they are symlinks (crun's option `copy-symlink`): which of them ask for
//! that. Where the symlinks lead is known outside, before anything is planned.

use super::ipc;
use super::mount_options::COPY_SYMLINK;
use oci_spec::runtime::Mount;
use std::collections::BTreeMap;
use std::ffi::CString;

/// Where the symlinks lead that are made again, by the number of the mount's entry.
pub type Symlinks = BTreeMap<usize, CString>;

/// Says whether a mount asks for its source to be made again if that is a symlink.
pub fn is_asked_for(mount: &Mount) -> bool {
    let says = |word: &str| mount.options().iter().flatten().any(|option| option == word);
    says(COPY_SYMLINK) && !says("remount") && ipc::is_bind(mount)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_bind_mounts_ask() {
        let cases = [
            ("bind", &["copy-symlink"][..], true),
            ("none", &["rbind", "copy-symlink"], true),
            ("bind", &["copy-symlink", "remount"], false),
            ("tmpfs", &["copy-symlink"], false),
            ("bind", &["rbind"], false),
        ];
        for (kind, options, expected) in cases {
            let mount = json!({"destination": "/x", "type": kind, "source": "/y", "options": options});
            assert_eq!(is_asked_for(&serde_json::from_value(mount).unwrap()), expected, "{kind} {options:?}");
        }
    }
}
