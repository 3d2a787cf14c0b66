//! Every reason to refuse a configuration before anything is touched.
//!
//! The words are runc's where runc has the same check: clients and test suites match them.

use crate::error::{Error, Result};
use crate::plan;
use crate::plan::namespaces::{Kind, Namespace, of};
use oci_spec::runtime::{Linux, Process, Spec};

/// Refuses an id that could not be a directory name or could be taken for an option.
pub fn id(id: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    match id {
        "" => Err(Error::invalid("container id cannot be empty")),
        "." | ".." => Err(Error::invalid("invalid container ID format")),
        _ if id.chars().all(allowed) => Ok(()),
        _ => Err(Error::invalid("invalid container ID format")),
    }
}

/// Refuses a configuration that makes no container.
pub fn spec(spec: &Spec) -> Result<()> {
    version(spec.version())?;
    process(spec.process().as_ref().ok_or_else(|| Error::invalid("process property must not be empty"))?)?;
    let root = spec.root().as_ref().ok_or_else(|| Error::invalid("root must be specified"))?;
    if root.path().as_os_str().is_empty() {
        return Err(Error::invalid("root path must not be empty"));
    }
    let linux = plan::linux(spec)?;
    namespaces(spec, linux)?;
    user_namespace(linux)?;
    plan::ipc::check(spec)?;
    for key in linux.sysctl().iter().flatten().map(|(key, _)| key) {
        sysctl(key, linux)?;
    }
    hooks(spec)?;
    net_devices(linux)
}

fn net_devices(linux: &Linux) -> Result<()> {
    for (name, device) in linux.net_devices().iter().flatten() {
        if of(linux, Kind::Network) == Namespace::Host {
            return Err(Error::invalid("unable to move network devices without a NET namespace"));
        }
        device_name(name)?;
        device.name().as_deref().filter(|new| !new.is_empty()).map_or(Ok(()), device_name)?;
    }
    Ok(())
}

/// Refuses a name that the kernel would refuse (dev_valid_name).
fn device_name(name: &str) -> Result<()> {
    let is_valid = !matches!(name, "" | "." | "..")
        && name.len() < nix::libc::IFNAMSIZ
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_ascii_whitespace());
    if is_valid { Ok(()) } else { Err(Error::invalid(format!("invalid network device name {name:?}"))) }
}

/// Refuses a configuration of a later specification, whose words may mean something else.
fn version(text: &str) -> Result<()> {
    let numbers = text.split(['-', '+']).next().unwrap_or_default().split('.').map(str::parse::<u32>);
    match numbers.collect::<std::result::Result<Vec<_>, _>>().as_deref() {
        Ok([0 | 1, _, _]) => Ok(()),
        _ => Err(Error::invalid(format!("ociVersion {text:?} is not supported: this runtime knows 1.x.y"))),
    }
}

#[allow(deprecated, reason = "prestart hooks are still part of the contract with container engines")]
fn hooks(spec: &Spec) -> Result<()> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    let kinds = [
        hooks.prestart(),
        hooks.create_runtime(),
        hooks.create_container(),
        hooks.start_container(),
        hooks.poststart(),
        hooks.poststop(),
    ];
    for hook in kinds.into_iter().flatten().flatten() {
        let refused = |why: &str| Err(Error::invalid(format!("hook {:?}: {why}", hook.path())));
        if !hook.path().is_absolute() {
            return refused("its path must be absolute");
        }
        if hook.timeout().is_some_and(|seconds| seconds <= 0) {
            return refused("its timeout must be greater than zero");
        }
    }
    Ok(())
}

/// Refuses a process that cannot be executed.
pub fn process(process: &Process) -> Result<()> {
    let cwd = process.cwd();
    if cwd.as_os_str().is_empty() {
        return Err(Error::invalid("Cwd property must not be empty"));
    }
    if !cwd.is_absolute() {
        return Err(Error::invalid("Cwd must be an absolute path"));
    }
    if process.args().as_deref().unwrap_or_default().is_empty() {
        return Err(Error::invalid("args must not be empty"));
    }
    plan::process::exec_affinity(process).map(drop)
}

fn namespaces(spec: &Spec, linux: &Linux) -> Result<()> {
    let listed: Vec<Kind> = linux.namespaces().iter().flatten().map(|ns| ns.typ().into()).collect();
    for (at, kind) in listed.iter().enumerate() {
        if listed[..at].contains(kind) {
            return Err(Error::invalid(format!("malformed spec file: duplicated ns {:?}", kind.name())));
        }
    }
    let host = |kind| of(linux, kind) == Namespace::Host;
    let set = |value: &Option<String>| value.as_ref().is_some_and(|value| !value.is_empty());
    if host(Kind::Uts) && set(spec.hostname()) {
        return Err(Error::invalid("unable to set hostname without a private UTS namespace"));
    }
    if host(Kind::Uts) && set(spec.domainname()) {
        return Err(Error::invalid("unable to set domainname without a private UTS namespace"));
    }
    let restricts = |paths: &Option<Vec<String>>| paths.as_ref().is_some_and(|paths| !paths.is_empty());
    if host(Kind::Mount) && (restricts(linux.masked_paths()) || restricts(linux.readonly_paths())) {
        return Err(Error::invalid("unable to restrict sys entries without a private MNT namespace"));
    }
    if host(Kind::Mount) && set(linux.rootfs_propagation()) {
        return Err(Error::invalid("unable to set rootfs propagation without a private MNT namespace"));
    }
    if linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty())
        && of(linux, Kind::Time) != Namespace::Private
    {
        return Err(Error::invalid("time namespace offsets specified, but time namespace isn't enabled in the config"));
    }
    Ok(())
}

/// Refuses to move the root over the host's.
pub fn no_pivot(wanted: bool, spec: &Spec) -> Result<()> {
    match wanted && of(plan::linux(spec)?, Kind::Mount) == Namespace::Host {
        true => Err(Error::invalid("unable to use no-pivot without a private MNT namespace")),
        false => Ok(()),
    }
}

fn user_namespace(linux: &Linux) -> Result<()> {
    let mapped = |maps: &Option<Vec<_>>| maps.as_ref().is_some_and(|maps| !maps.is_empty());
    let mappings = mapped(linux.uid_mappings()) || mapped(linux.gid_mappings());
    match of(linux, Kind::User) {
        Namespace::Host if mappings => {
            Err(Error::invalid("user namespace mappings specified, but user namespace isn't enabled in the config"))
        }
        Namespace::Private if !mappings => Err(Error::invalid(
            "user namespaces enabled, but no namespace path to join nor mappings to apply specified",
        )),
        _ => Ok(()),
    }
}

/// Refuses a kernel parameter that is not the container's own: it would change the host's.
fn sysctl(key: &str, linux: &Linux) -> Result<()> {
    let path = plan::sysctl_path(key).replace('/', ".");
    let refused = |why: &str| Err(Error::invalid(format!("sysctl {key:?} {why}")));
    let owned = |kind| of(linux, kind) != Namespace::Host;
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    if IPC.contains(&path.as_str()) || path.starts_with("fs.mqueue.") {
        return if owned(Kind::Ipc) { Ok(()) } else { refused("is not allowed in the hosts ipc namespace") };
    }
    if path.starts_with("net.") {
        return if owned(Kind::Network) { Ok(()) } else { refused("not allowed in host network namespace") };
    }
    if path.starts_with("user.") {
        return if owned(Kind::User) { Ok(()) } else { refused("is not allowed in the hosts user namespace") };
    }
    match path.as_str() {
        "kernel.domainname" if owned(Kind::Uts) => Ok(()),
        "kernel.domainname" => refused("is not allowed in the hosts uts namespace"),
        "kernel.hostname" if owned(Kind::Uts) => {
            refused("is not allowed as it conflicts with the OCI \"hostname\" field")
        }
        _ => refused("is not in a separate kernel namespace"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn minimal() -> Value {
        json!({
            "ociVersion": "1.3.0",
            "root": {"path": "rootfs"},
            "process": {"cwd": "/", "args": ["sh"], "user": {"uid": 0, "gid": 0}},
            "linux": {"namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "ipc"}]},
        })
    }

    fn check(change: impl FnOnce(&mut Value)) -> std::result::Result<(), String> {
        let mut value = minimal();
        change(&mut value);
        spec(&serde_json::from_value(value).unwrap()).map_err(|err| err.to_string())
    }

    #[test]
    fn a_minimal_configuration_passes() {
        check(|_| {}).unwrap();
    }

    #[test]
    fn each_mistake_has_runcs_words() {
        type Change = fn(&mut Value);
        let cases: [(Change, &str); 12] = [
            (|v| v["process"] = Value::Null, "process property must not be empty"),
            (|v| v["process"]["cwd"] = json!(""), "Cwd property must not be empty"),
            (|v| v["process"]["cwd"] = json!("tmp"), "Cwd must be an absolute path"),
            (|v| v["process"]["args"] = json!([]), "args must not be empty"),
            (
                |v| v["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "mount"}]),
                "malformed spec file: duplicated ns \"mount\"",
            ),
            (
                |v| {
                    v["hostname"] = json!("h");
                    v["linux"]["namespaces"] = json!([{"type": "mount"}]);
                },
                "unable to set hostname without a private UTS namespace",
            ),
            (
                |v| v["linux"] = json!({"namespaces": [{"type": "uts"}], "rootfsPropagation": "rslave"}),
                "unable to set rootfs propagation without a private MNT namespace",
            ),
            (
                |v| v["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "user"}]),
                "user namespaces enabled, but no namespace path to join nor mappings to apply specified",
            ),
            (
                |v| v["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 1, "size": 1}]),
                "user namespace mappings specified, but user namespace isn't enabled in the config",
            ),
            (
                |v| v["linux"]["sysctl"] = json!({"kernel.panic": "1"}),
                "sysctl \"kernel.panic\" is not in a separate kernel namespace",
            ),
            (
                |v| v["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"}),
                "sysctl \"net.ipv4.ip_forward\" not allowed in host network namespace",
            ),
            (
                |v| v["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 1}}),
                "time namespace offsets specified, but time namespace isn't enabled in the config",
            ),
        ];
        for (change, words) in cases {
            assert_eq!(check(change), Err(words.to_owned()));
        }
    }

    #[test]
    fn a_root_is_not_moved_over_the_hosts() {
        let with = |kind: &str| {
            let mut value = minimal();
            value["linux"]["namespaces"] = json!([{"type": kind}]);
            no_pivot(true, &serde_json::from_value(value).unwrap()).map_err(|err| err.to_string())
        };
        with("mount").unwrap();
        assert_eq!(with("uts").unwrap_err(), "unable to use no-pivot without a private MNT namespace");
    }

    #[test]
    fn sysctls_of_the_containers_own_namespaces_pass() {
        check(|v| v["linux"]["sysctl"] = json!({"kernel.msgmax": "1", "fs/mqueue/queues_max": "1"})).unwrap();
    }

    #[test]
    fn ids_are_file_names() {
        assert!(id("a_B-1.+").is_ok());
        for bad in ["", ".", "..", "a/b", "a b", "é"] {
            assert!(id(bad).is_err(), "{bad}");
        }
    }
}
