//! Annotations `run.oci.*`: crun's, for what config.json has no other words for. Podman sets some of them.

use crate::error::{Error, Result};
use oci_spec::runtime::Spec;
use std::path::{Component, Path};

/// What the names of all of them begin with.
pub const PREFIX: &str = "run.oci.";
/// The file that hooks write to instead of where their output goes otherwise.
pub const HOOKS_STDOUT: &str = "run.oci.hooks.stdout";
/// The same for their errors.
pub const HOOKS_STDERR: &str = "run.oci.hooks.stderr";
/// Who receives a descriptor of init.
pub const PIDFD_RECEIVER: &str = "run.oci.pidfd_receiver";
/// Who receives the listener of a seccomp profile that does not say so itself.
pub const SECCOMP_RECEIVER: &str = "run.oci.seccomp.receiver";
const KEEP_GROUPS: &str = "run.oci.keep_original_groups";
const LABEL_OPTION: &str = "run.oci.mount_context_type";
const SUBGROUP: &str = "run.oci.systemd.subgroup";
const DELEGATED: &str = "run.oci.delegate-cgroup";

/// Returns the value of an annotation.
pub fn value<'a>(spec: &'a Spec, name: &str) -> Option<&'a str> {
    spec.annotations().as_ref().and_then(|annotations| annotations.get(name)).map(String::as_str)
}

/// Says whether processes keep the supplementary groups of the runtime's caller (Podman's `--group-add keep-groups`).
pub fn keeps_groups(spec: &Spec) -> bool {
    value(spec, KEEP_GROUPS) == Some("1")
}

/// Returns the mount option that gives file systems the container's SELinux label.
pub fn label_option(spec: &Spec) -> Result<&str> {
    match value(spec, LABEL_OPTION).unwrap_or("context") {
        option @ ("context" | "fscontext" | "defcontext" | "rootcontext") => Ok(option),
        other => Err(Error::invalid(format!("annotation {LABEL_OPTION}: invalid context type {other:?}"))),
    }
}

/// Returns the cgroup below its scope that a container is put in by systemd, if one is asked for.
pub fn subgroup(spec: &Spec) -> Result<Option<&Path>> {
    let path = value(spec, SUBGROUP).filter(|path| !path.is_empty()).map(Path::new);
    path.map(|path| below(SUBGROUP, path, "the scope")).transpose()
}

/// Returns the cgroup below the container's own that its processes are in, if one is asked for. A slash in front of it
/// means nothing.
pub fn delegated(spec: &Spec) -> Result<Option<&Path>> {
    let path = value(spec, DELEGATED).map(|path| Path::new(path.trim_start_matches('/')));
    path.filter(|path| !path.as_os_str().is_empty()).map(|path| below(DELEGATED, path, "the container's")).transpose()
}

fn below<'a>(name: &str, path: &'a Path, of: &str) -> Result<&'a Path> {
    match path.components().all(|part| matches!(part, Component::Normal(_))) {
        true => Ok(path),
        false => Err(Error::invalid(format!("annotation {name}: {path:?} is no cgroup below {of}"))),
    }
}

/// Returns those that mean nothing to us, by name; whoever makes the cgroup, `systemd` or not.
pub fn ignored(spec: &Spec, systemd: bool) -> Vec<&str> {
    let known = [HOOKS_STDOUT, HOOKS_STDERR, PIDFD_RECEIVER, SECCOMP_RECEIVER, KEEP_GROUPS, LABEL_OPTION, DELEGATED];
    let is_known = |name: &str, value: &str| known.contains(&name) || name == SUBGROUP && (systemd || value.is_empty());
    let annotations = spec.annotations().iter().flatten().filter(|(name, _)| name.starts_with(PREFIX));
    let unknown = annotations.filter(|(name, value)| !is_known(name, value));
    let mut names: Vec<&str> = unknown.map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(annotations: Value) -> Spec {
        serde_json::from_value(json!({"ociVersion": "1.2.0", "annotations": annotations})).unwrap()
    }

    #[test]
    fn what_is_not_known_is_named() {
        let all = spec(json!({KEEP_GROUPS: "1", SUBGROUP: "", "run.oci.handler": "krun", "run.oci.a": "", "x": "y"}));
        assert_eq!(ignored(&all, false), ["run.oci.a", "run.oci.handler"]);
        let of_systemd = spec(json!({SUBGROUP: "inner"}));
        assert_eq!((ignored(&of_systemd, false), ignored(&of_systemd, true)), (vec![SUBGROUP], vec![]));
        assert!(keeps_groups(&all) && !keeps_groups(&spec(json!({KEEP_GROUPS: "0"}))));
    }

    #[test]
    fn a_subgroup_is_below_the_scope() {
        for (path, below) in [("", None), ("container", Some("container")), ("a/b", Some("a/b"))] {
            assert_eq!(subgroup(&spec(json!({SUBGROUP: path}))).unwrap(), below.map(Path::new));
        }
        assert_eq!(subgroup(&spec(json!({}))).unwrap(), None);
        for path in ["/", "/a", "..", "a/../../b"] {
            let err = subgroup(&spec(json!({SUBGROUP: path}))).unwrap_err().to_string();
            assert!(err.ends_with("is no cgroup below the scope"), "{err}");
        }
    }

    #[test]
    fn a_delegated_cgroup_is_below_the_containers() {
        for (path, below) in [("", None), ("/", None), ("/init", Some("init")), ("a/b", Some("a/b"))] {
            assert_eq!(delegated(&spec(json!({DELEGATED: path}))).unwrap(), below.map(Path::new));
        }
        for path in ["..", "/../a"] {
            let err = delegated(&spec(json!({DELEGATED: path}))).unwrap_err().to_string();
            assert!(err.ends_with("is no cgroup below the container's"), "{err}");
        }
    }

    #[test]
    fn labels_are_given_by_four_options() {
        assert_eq!(label_option(&spec(json!({}))).unwrap(), "context");
        assert_eq!(label_option(&spec(json!({LABEL_OPTION: "rootcontext"}))).unwrap(), "rootcontext");
        let err = label_option(&spec(json!({LABEL_OPTION: "ro"}))).unwrap_err();
        assert_eq!(err.to_string(), "annotation run.oci.mount_context_type: invalid context type \"ro\"");
    }
}
