//! Labels of security modules: what a process writes of itself, and what is said where that is refused.

use super::process::cstring;
use crate::error::{Error, Result, describe};
use nix::errno::Errno;
use oci_spec::runtime::Process;
use std::ffi::{CStr, CString};

/// The file that takes AppArmor's profile.
const APPARMOR: &CStr = c"attr/apparmor/exec";

/// A security label that takes effect at execve, or on what the process makes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Label {
    /// The file in /proc/self.
    pub attribute: CString,
    /// What is written.
    pub value: CString,
}

impl Label {
    /// Returns why it could not be written, in runc's words. Podman knows a refused label by the path in backquotes.
    pub fn refused(&self, errno: Errno) -> String {
        let write = format!("write `/proc/self/{}`", self.attribute.to_string_lossy());
        let cause = describe(errno);
        match self.value.to_string_lossy().strip_prefix("exec ").filter(|_| self.attribute.as_c_str() == APPARMOR) {
            Some(profile) => {
                let cause = if errno == Errno::ENOENT { "profile not loaded" } else { &cause };
                format!(
                    "unable to apply apparmor profile {profile:?}: apparmor failed to apply profile: {write}: {cause}"
                )
            }
            None => format!("{write}: {cause}"),
        }
    }
}

/// Plans the labels of a process.
pub fn plan(process: &Process, has_selinux: bool) -> Result<Vec<Label>> {
    let mut labels = Vec::new();
    let mut push = |attribute: &CStr, value: String| -> Result<()> {
        labels.push(Label { attribute: attribute.to_owned(), value: cstring(value.as_ref(), "security label")? });
        Ok(())
    };
    if let Some(profile) = process.apparmor_profile().as_ref().filter(|profile| !profile.is_empty()) {
        push(APPARMOR, format!("exec {profile}"))?;
    }
    if let Some(label) = process.selinux_label().as_ref().filter(|label| !label.is_empty()) {
        if !has_selinux {
            let text = "selinux label is specified in config, but selinux is disabled or not supported";
            return Err(Error::invalid(text));
        }
        push(c"attr/exec", label.clone())?;
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_that_is_not_loaded_is_named() {
        let process = serde_json::json!({"cwd": "/", "user": {"uid": 0, "gid": 0}, "apparmorProfile": "mine",
                                         "selinuxLabel": "exec x"});
        let labels = plan(&serde_json::from_value(process).unwrap(), true).unwrap();
        let refused = |index: usize, errno| labels[index].refused(errno);
        let unable = "unable to apply apparmor profile \"mine\": apparmor failed to apply profile: \
                      write `/proc/self/attr/apparmor/exec`: ";
        assert_eq!(refused(0, Errno::ENOENT), format!("{unable}profile not loaded"));
        assert_eq!(refused(0, Errno::EACCES), format!("{unable}permission denied"));
        assert_eq!(refused(1, Errno::EINVAL), "write `/proc/self/attr/exec`: invalid argument");
    }
}
