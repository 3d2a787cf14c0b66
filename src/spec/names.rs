//! Names in config.json that stand for what the kernel has by numbers: those that nobody knows are refused in runc's words.

use crate::error::{Error, Result};
use oci_spec::runtime::{
    Arch, IOPriorityClass, LinuxDeviceType, LinuxNamespaceType, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSeccompOperator, PosixRlimitType,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Where a name stands, `*` being each of a list; whether it is known; and what is said of one that is not.
type Names = (&'static str, fn(&Value) -> bool, fn(&str) -> String);

const PROCESS: &[Names] = &[
    ("rlimits.*.type", known::<PosixRlimitType>, |name| format!("wrong rlimit value: {name}")),
    ("scheduler.policy", known::<LinuxSchedulerPolicy>, |name| format!("invalid scheduler policy: {name}")),
    ("scheduler.flags.*", known::<LinuxSchedulerFlag>, |name| format!("invalid scheduler flag: {name}")),
    ("ioPriority.class", known::<IOPriorityClass>, |name| format!("invalid ioPriority.Class: {name:?}")),
];

const LINUX: &[Names] = &[
    ("namespaces.*.type", known::<LinuxNamespaceType>, |name| format!("namespace {name:?} does not exist")),
    ("personality.domain", known::<LinuxPersonalityDomain>, |name| format!("invalid personality domain {name}")),
    ("devices.*.type", known::<LinuxDeviceType>, |name| format!("invalid device type {name:?}")),
    ("resources.devices.*.type", known::<LinuxDeviceType>, |name| format!("invalid cgroup device type {name:?}")),
    ("seccomp.defaultAction", known::<LinuxSeccompAction>, |name| of_seccomp("action", name)),
    ("seccomp.syscalls.*.action", known::<LinuxSeccompAction>, |name| of_seccomp("action", name)),
    ("seccomp.syscalls.*.args.*.op", known::<LinuxSeccompOperator>, |name| of_seccomp("operator", name)),
    ("seccomp.architectures.*", known::<Arch>, |name| of_seccomp("arch", name)),
    ("seccomp.flags.*", known::<LinuxSeccompFilterFlag>, |name| format!("seccomp flag {name} is not known to runc")),
];

fn known<T: DeserializeOwned>(name: &Value) -> bool {
    T::deserialize(name).is_ok()
}

fn of_seccomp(what: &str, name: &str) -> String {
    format!("string {name} is not a valid {what} for seccomp")
}

/// Looks at the names in `process`.
pub fn check_process(process: &Value) -> Result<()> {
    check(process, PROCESS)
}

/// Looks at the names in `linux`.
pub fn check_linux(linux: &Value) -> Result<()> {
    check(linux, LINUX)
}

fn check(part: &Value, names: &[Names]) -> Result<()> {
    for (place, is_known, said) in names {
        let found =
            place.split('.').fold(vec![part], |parts, step| parts.into_iter().flat_map(|p| below(p, step)).collect());
        for name in found {
            if let Some(name) = name.as_str().filter(|_| !is_known(name)) {
                return Err(Error::invalid(said(name)));
            }
        }
    }
    Ok(())
}

/// Returns what a step of a place leads to, by a key in any case.
fn below<'v>(part: &'v Value, step: &str) -> Vec<&'v Value> {
    match part {
        Value::Array(list) if step == "*" => list.iter().collect(),
        Value::Object(object) => {
            object.iter().filter(|(key, _)| key.eq_ignore_ascii_case(step)).map(|(_, value)| value).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_nobody_knows_has_runcs_words() {
        for (process, words) in [
            (json!({"rlimits": [{"type": "RLIMIT_CPU"}, {"type": "nofile"}]}), "wrong rlimit value: nofile"),
            (json!({"scheduler": {"policy": "SCHED_FOO"}}), "invalid scheduler policy: SCHED_FOO"),
            (json!({"scheduler": {"policy": "SCHED_FIFO", "flags": ["FOO"]}}), "invalid scheduler flag: FOO"),
            (json!({"IOpriority": {"Class": "FOO"}}), "invalid ioPriority.Class: \"FOO\""),
        ] {
            assert_eq!(check_process(&process).unwrap_err().to_string(), words);
        }
        for (linux, words) in [
            (json!({"namespaces": [{"type": "foo"}]}), "namespace \"foo\" does not exist"),
            (json!({"personality": {"domain": "FOO"}}), "invalid personality domain FOO"),
            (json!({"devices": [{"type": "z"}]}), "invalid device type \"z\""),
            (json!({"resources": {"devices": [{"type": "z"}]}}), "invalid cgroup device type \"z\""),
            (json!({"seccomp": {"defaultAction": "FOO"}}), "string FOO is not a valid action for seccomp"),
            (
                json!({"seccomp": {"syscalls": [{"action": "SCMP_ACT_LOG", "args": [{"op": "FOO"}]}]}}),
                "string FOO is not a valid operator for seccomp",
            ),
            (json!({"seccomp": {"architectures": ["FOO"]}}), "string FOO is not a valid arch for seccomp"),
            (json!({"seccomp": {"flags": ["FOO"]}}), "seccomp flag FOO is not known to runc"),
        ] {
            assert_eq!(check_linux(&linux).unwrap_err().to_string(), words);
        }
    }

    #[test]
    fn what_is_no_name_is_left_to_others() {
        check_process(&json!({"rlimits": 7, "scheduler": {"policy": 3}})).unwrap();
        check_linux(&json!({"namespaces": [{"path": "/x"}], "seccomp": null})).unwrap();
    }
}
