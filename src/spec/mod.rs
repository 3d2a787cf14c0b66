//! What was asked for: config.json, in the words of the OCI runtime specification.
//!
//! Reading and refusing happen here and nowhere else: what [`validate`] let through is not checked again.

pub mod rootless;
pub mod template;
pub mod validate;

use crate::error::{Context, Error, ErrorKind, Result};
use oci_spec::runtime::{Mount, Process, Spec};
use serde_json::{Value, json};
use std::path::Path;

/// A configuration, and the text that it was read from.
#[derive(Debug)]
pub struct Config {
    /// What it says.
    pub spec: Spec,
    /// The file as it was, or as it was understood: later commands use this copy, whatever becomes of the bundle.
    pub text: Vec<u8>,
}

impl Config {
    /// Puts another entry in the place of one of `mounts`, in the copy too.
    pub fn replace_mount(&mut self, index: usize, mount: Mount) -> Result<()> {
        let mut value: Value = serde_json::from_slice(&self.text).map_err(invalid)?;
        if let Some(place) = value.get_mut("mounts").and_then(|mounts| mounts.get_mut(index)) {
            *place = serde_json::to_value(&mount).map_err(invalid)?;
        }
        self.text = value.to_string().into_bytes();
        if let Some(place) = self.spec.mounts_mut().as_mut().and_then(|mounts| mounts.get_mut(index)) {
            *place = mount;
        }
        Ok(())
    }

    /// Adds an entry to `mounts`, in the copy too.
    pub fn add_mount(&mut self, mount: Mount) -> Result<()> {
        let mounts = self.spec.mounts_mut().get_or_insert_default();
        mounts.push(mount);
        let mut value: Value = serde_json::from_slice(&self.text).map_err(invalid)?;
        value["mounts"] = serde_json::to_value(mounts).map_err(invalid)?;
        self.text = value.to_string().into_bytes();
        Ok(())
    }
}

/// Reads a configuration.
pub fn load(path: &Path) -> Result<Config> {
    let text = std::fs::read(path).map_err(|err| match err.kind() {
        std::io::ErrorKind::NotFound => {
            Error::new(ErrorKind::NotFound, format!("JSON specification file {} not found", name(path)))
        }
        _ => Error::other(format!("read {}: {err}", path.display())),
    })?;
    parse(text).context(|| format!("parse {}", path.display()))
}

fn name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// Reads the text of a configuration.
pub fn parse(text: Vec<u8>) -> Result<Config> {
    if let Ok(spec) = serde_json::from_slice(&text) {
        return Ok(Config { spec, text });
    }
    let mut value: Value = serde_json::from_slice(&text).map_err(invalid)?;
    crate::plan::memory_policy::check_names(&value)?;
    if let Some(process) = value.get_mut("process") {
        accept_as_runc(process);
    }
    // An empty profile is none.
    if let Some(linux) = value.get_mut("linux").and_then(Value::as_object_mut) {
        linux.retain(|key, part| key != "seccomp" || part.as_object().is_none_or(|profile| !profile.is_empty()));
    }
    // What was dropped with a warning is dropped from the copy too: one warning is enough.
    let text = value.to_string().into_bytes();
    Ok(Config { spec: serde_json::from_value(value).map_err(invalid)?, text })
}

/// Reads the text of a process, as `exec --process` is given it.
pub fn parse_process(text: &[u8]) -> Result<Process> {
    serde_json::from_slice(text).or_else(|_| {
        let mut process: Value = serde_json::from_slice(text).map_err(invalid)?;
        accept_as_runc(&mut process);
        serde_json::from_value(process).map_err(invalid)
    })
}

fn invalid(err: serde_json::Error) -> Error {
    Error::invalid(err.to_string())
}

/// Fills in what runc does without and our types insist on, and drops capabilities that nobody knows.
fn accept_as_runc(process: &mut Value) {
    if let Some(capabilities) = process.get_mut("capabilities") {
        let unknown = crate::plan::caps::remove_unknown(capabilities);
        if !unknown.is_empty() {
            log::warn!("{}", crate::plan::caps::ignored_warning(&unknown));
        }
    }
    if let Some(process) = process.as_object_mut() {
        // An empty one is refused by name later.
        process.entry("cwd").or_insert_with(|| json!(""));
        let user = process.entry("user").or_insert_with(|| json!({}));
        if let Some(user) = user.as_object_mut() {
            user.entry("uid").or_insert_with(|| json!(0));
            user.entry("gid").or_insert_with(|| json!(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runc_does_without_is_not_missed() {
        let text = br#"{"ociVersion": "1.0.2", "process": {"args": ["a"], "user": {"uid": 1}}}"#;
        let spec = parse(text.to_vec()).unwrap().spec;
        let process = spec.process().as_ref().unwrap();
        assert_eq!((process.user().uid(), process.user().gid()), (1, 0));
        assert_eq!(process.cwd(), Path::new(""));
    }

    #[test]
    fn a_mount_is_replaced_in_the_copy_too() {
        let text =
            r#"{"ociVersion": "1.0.2", "x-unknown": 7, "mounts": [{"destination": "/a"}, {"destination": "/b"}]}"#;
        let mut config = parse(text.as_bytes().to_vec()).unwrap();
        let mount: Mount = serde_json::from_value(json!({"destination": "/c", "type": "bind"})).unwrap();
        config.replace_mount(1, mount).unwrap();
        let copy: Value = serde_json::from_slice(&config.text).unwrap();
        assert_eq!(copy["mounts"], json!([{"destination": "/a"}, {"destination": "/c", "type": "bind"}]));
        assert_eq!(copy["x-unknown"], 7);
        assert_eq!(parse(config.text).unwrap().spec, config.spec);
    }

    #[test]
    fn an_empty_seccomp_profile_is_none() {
        let spec = parse(br#"{"ociVersion": "1.0.2", "linux": {"seccomp": {}}}"#.to_vec()).unwrap().spec;
        assert!(spec.linux().as_ref().unwrap().seccomp().is_none());
    }

    #[test]
    fn unknown_capabilities_are_dropped() {
        let text = br#"{"cwd": "/", "user": {"uid": 0, "gid": 0},
                        "capabilities": {"bounding": ["CAP_KILL", "CAP_NEW_AND_SHINY"]}}"#;
        let process = parse_process(text).unwrap();
        assert_eq!(process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap().len(), 1);
    }

    #[test]
    fn a_mistake_is_named_with_its_place() {
        let err = parse(b"{\"ociVersion\": 1}".to_vec()).unwrap_err().to_string();
        assert!(err.contains("invalid type") && err.contains("string"), "{err}");
    }
}
