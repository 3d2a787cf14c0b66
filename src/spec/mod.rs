//! What was asked for: config.json, in the words of the OCI runtime specification.
//!
//! Reading and refusing happen here and nowhere else: what [`validate`] let through is not checked again.

pub mod json;
mod names;
pub mod rootless;
pub mod template;
pub mod validate;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::plan::{caps, memory_policy, run_oci};
use json::Read;
use oci_spec::runtime::{LinuxNamespace, LinuxResources, Mount, Process, Spec};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A configuration, and the text that it was read from.
#[derive(Debug)]
pub struct Config {
    /// What it says: 3 KiB, which would pass through every stack frame.
    pub spec: Box<Spec>,
    /// The file as it was, or as it was understood: later commands use this copy, whatever becomes of the bundle.
    pub text: Vec<u8>,
}

impl Config {
    /// Puts another entry in the place of one of `mounts`.
    pub fn replace_mount(&mut self, index: usize, mount: Mount) -> Result<()> {
        self.put_mount(Some(index), mount)
    }

    /// Puts other namespaces in the place of those that are listed, in the copy too.
    pub fn replace_namespaces(&mut self, namespaces: Vec<LinuxNamespace>) -> Result<()> {
        let mut value: Value = serde_json::from_slice(&self.text).map_err(invalid)?;
        value["linux"]["namespaces"] = serde_json::to_value(&namespaces).map_err(invalid)?;
        self.text = value.to_string().into_bytes();
        if let Some(linux) = self.spec.linux_mut() {
            linux.set_namespaces(Some(namespaces));
        }
        Ok(())
    }

    /// Adds an entry to `mounts`.
    pub fn add_mount(&mut self, mount: Mount) -> Result<()> {
        self.put_mount(None, mount)
    }

    /// Puts an entry into `mounts`, and into the copy: all else there stays, be it words that we do not know.
    fn put_mount(&mut self, index: Option<usize>, mount: Mount) -> Result<()> {
        let mut value: Value = serde_json::from_slice(&self.text).map_err(invalid)?;
        let entry = serde_json::to_value(&mount).map_err(invalid)?;
        let mounts = value.as_object_mut().map(|config| config.entry("mounts").or_insert(Value::Null));
        let mounts = mounts.ok_or_else(|| Error::invalid("not an object"))?;
        if mounts.is_null() {
            *mounts = json!([]);
        }
        put(mounts.as_array_mut(), index, entry);
        put(Some(self.spec.mounts_mut().get_or_insert_default()), index, mount);
        self.text = value.to_string().into_bytes();
        Ok(())
    }
}

/// Puts an entry into the place of another one, or at the end.
fn put<T>(list: Option<&mut Vec<T>>, index: Option<usize>, entry: T) {
    let Some(list) = list else { return };
    match index.and_then(|index| list.get_mut(index)) {
        Some(place) => *place = entry,
        None => list.push(entry),
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
    let mut config = parse_text(text)?;
    let receiver = run_oci::value(&config.spec, run_oci::SECCOMP_RECEIVER).map(PathBuf::from);
    let profile = config.spec.linux_mut().as_mut().and_then(|linux| linux.seccomp_mut().as_mut());
    if let (Some(receiver), Some(profile)) = (receiver, profile.filter(|profile| profile.listener_path().is_none())) {
        profile.set_listener_path(Some(receiver));
    }
    Ok(config)
}

fn parse_text(text: Vec<u8>) -> Result<Config> {
    match json::read(&text) {
        Ok(read) if is_whole(&read.value) => return understood(read, text),
        _ => {}
    }
    let mut value = json::value(&text).map_err(invalid)?;
    drop_nulls(&mut value);
    if let Some(policy) = part(&mut value, "linux").and_then(|linux| part(linux, "memoryPolicy")) {
        respell(policy, &memory_policy::NAMES);
        memory_policy::check_names(policy)?;
    }
    if let Some(process) = part(&mut value, "process") {
        accept_as_runc(process);
        names::check_process(process)?;
    }
    fill_in(&mut value, "linux", json!({}));
    if let Some(linux) = part(&mut value, "linux") {
        names::check_linux(linux)?;
        part(linux, "resources").map(drop_unlimited);
    }
    // An empty profile is none.
    if let Some(Value::Object(linux)) = part(&mut value, "linux") {
        linux.retain(|key, part| {
            !key.eq_ignore_ascii_case("seccomp") || part.as_object().is_none_or(|profile| !profile.is_empty())
        });
    }
    // What was dropped with a warning is dropped from the copy too: one warning is enough.
    let text = value.to_string().into_bytes();
    understood(json::read(&text).map_err(invalid_part)?, text)
}

/// Says whether nothing can be missing that means something else than our types have in its place: `linux`, without
/// which everything is the host's, and a limit of processes, which is read as 0.
fn is_whole(spec: &Spec) -> bool {
    let Some(linux) = spec.linux() else { return false };
    linux.resources().as_ref().and_then(|resources| resources.pids().as_ref()).is_none_or(|pids| pids.limit() != 0)
}

/// Cuts the copy to what was read, and spells it as the specification does: later commands look for its words there.
fn understood(read: Read<Spec>, mut text: Vec<u8>) -> Result<Config> {
    match read.recased {
        true => text = serde_json::to_vec(&read.value).map_err(invalid)?,
        false => text.truncate(read.length),
    }
    Ok(Config { spec: read.value, text })
}

/// Reads the text of a process, as `exec --process` is given it.
pub fn parse_process(text: &[u8]) -> Result<Process> {
    if let Ok(read) = json::read(text) {
        return Ok(*read.value);
    }
    let mut process = json::value(text).map_err(invalid)?;
    drop_nulls(&mut process);
    accept_as_runc(&mut process);
    names::check_process(&process)?;
    Ok(*json::read(process.to_string().as_bytes()).map_err(invalid_part)?.value)
}

/// Reads `linux.resources`, as `update` is given them.
pub fn parse_resources(mut value: Value) -> Result<LinuxResources> {
    drop_nulls(&mut value);
    drop_unlimited(&mut value);
    let invalid = |why: &dyn std::fmt::Display| Error::invalid(format!("invalid resources: {why}"));
    // A list of their values would be taken for the resources.
    if !value.is_object() {
        return Err(invalid(&"not an object"));
    }
    json::read(value.to_string().as_bytes()).map(|read| *read.value).map_err(|err| invalid(&invalid_part(err)))
}

/// Removes what is null, at any depth: to Go it is the same as nothing.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, value| !value.is_null());
            object.values_mut().for_each(drop_nulls);
        }
        Value::Array(values) => values.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Removes `pids` without a limit, which asks for nothing; a limit of 0 is one.
fn drop_unlimited(resources: &mut Value) {
    let has_none = |pids: &mut Value| pids.is_object() && part(pids, "limit").is_none();
    if part(resources, "pids").is_some_and(has_none) {
        resources.as_object_mut().map(|resources| resources.remove("pids"));
    }
}

fn invalid(err: serde_json::Error) -> Error {
    Error::invalid(err.to_string())
}

/// Leaves the place out, which is one in a text that the user has not seen.
fn invalid_part(err: serde_json::Error) -> Error {
    Error::invalid(err.to_string().split(" at line ").next().unwrap_or_default())
}

/// Returns the part of an object that goes by a name, in whatever case, and from now on by that name.
fn part<'v>(object: &'v mut Value, name: &str) -> Option<&'v mut Value> {
    let object = object.as_object_mut()?;
    let key = if object.contains_key(name) { None } else { object.keys().find(|key| key.eq_ignore_ascii_case(name)) };
    if let Some(key) = key.cloned() {
        let part = object.remove(&key)?;
        object.insert(name.to_owned(), part);
    }
    object.get_mut(name)
}

/// Gives the parts of an object that go by these names in whatever case those names.
fn respell(object: &mut Value, names: &[&str]) {
    for name in names {
        part(object, name);
    }
}

/// Adds a part to an object that has none of that name.
fn fill_in(object: &mut Value, name: &str, default: Value) {
    if part(object, name).is_some() {
        return;
    }
    if let Some(object) = object.as_object_mut() {
        object.insert(name.to_owned(), default);
    }
}

/// Names of scheduler flags as the specification has them, where our types have others.
const SCHEDULER_FLAGS: [(&str, &str); 2] =
    [("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"), ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN")];

/// Fills in what runc does without and our types insist on, puts their names in the place of the specification's, and
/// drops capabilities that nobody knows.
fn accept_as_runc(process: &mut Value) {
    if let Some(capabilities) = part(process, "capabilities") {
        respell(capabilities, &caps::SETS);
        let unknown = caps::remove_unknown(capabilities);
        if !unknown.is_empty() {
            log::warn!("{}", caps::ignored_warning(&unknown));
        }
    }
    if let Some(Value::Array(flags)) = part(process, "scheduler").and_then(|scheduler| part(scheduler, "flags")) {
        for flag in flags {
            if let Some((_, ours)) = SCHEDULER_FLAGS.iter().find(|(name, _)| flag == name) {
                *flag = json!(ours);
            }
        }
    }
    // An empty one is refused by name later.
    fill_in(process, "cwd", json!(""));
    fill_in(process, "user", json!({}));
    if let Some(user) = part(process, "user") {
        fill_in(user, "uid", json!(0));
        fill_in(user, "gid", json!(0));
    }
    for limit in part(process, "rlimits").and_then(Value::as_array_mut).into_iter().flatten() {
        fill_in(limit, "type", json!(""));
        fill_in(limit, "soft", json!(0));
        fill_in(limit, "hard", json!(0));
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
    fn a_mount_is_put_into_the_copy_too() {
        let text = br#"{"ociVersion": "1.0.2", "x-unknown": 7,
                        "mounts": [{"destination": "/a", "x-new": [1]}, {"destination": "/b"}]}"#;
        let mut config = parse(text.to_vec()).unwrap();
        let mount = |place: &str| serde_json::from_value(json!({"destination": place, "type": "bind"})).unwrap();
        config.replace_mount(1, mount("/c")).unwrap();
        config.add_mount(mount("/d")).unwrap();
        let copy: Value = serde_json::from_slice(&config.text).unwrap();
        let expected = json!([{"destination": "/a", "x-new": [1]}, {"destination": "/c", "type": "bind"},
            {"destination": "/d", "type": "bind"}]);
        assert_eq!(copy["mounts"], expected);
        assert_eq!(copy["x-unknown"], 7);
        assert_eq!(parse(config.text).unwrap().spec, config.spec);
    }

    #[test]
    fn a_mount_is_put_where_there_were_none() {
        for text in [r#"{"ociVersion": "1.0.2"}"#, r#"{"ociVersion": "1.0.2", "mounts": null}"#] {
            let mut config = parse(text.into()).unwrap();
            config.add_mount(serde_json::from_value(json!({"destination": "/a"})).unwrap()).unwrap();
            assert_eq!(parse(config.text).unwrap().spec.mounts().as_ref().unwrap().len(), 1);
        }
    }

    #[test]
    fn a_container_without_namespaces_is_one() {
        let config = parse(br#"{"ociVersion": "1.0.2"}"#.to_vec()).unwrap();
        assert!(config.spec.linux().as_ref().unwrap().namespaces().is_none());
        assert_eq!(parse(config.text).unwrap().spec, config.spec);
    }

    #[test]
    fn what_is_null_or_has_no_limit_is_not_asked_for() {
        let pids = |resources: &str| {
            let text = format!(r#"{{"ociVersion": "1.0.2", "linux": {{"resources": {resources}}}}}"#);
            let config = parse(text.into_bytes()).unwrap();
            let again = parse(config.text).unwrap().spec;
            assert_eq!(config.spec, again);
            let read = parse_resources(serde_json::from_str(resources).unwrap()).unwrap();
            let linux = again.linux().as_ref().unwrap();
            assert_eq!(linux.resources().clone().unwrap(), read);
            read.pids().as_ref().map(|pids| pids.limit())
        };
        for (resources, limit) in [
            (r#"{"pids": {}}"#, None),
            (r#"{"pids": {"limit": null}}"#, None),
            (r#"{"pids": null}"#, None),
            (r#"{"pids": {"limit": 0}}"#, Some(0)),
            (r#"{"pids": {"limit": 0}, "unified": null}"#, Some(0)),
            (r#"{"pids": {"limit": -1}, "cpu": {"cpus": null}, "blockIO": {"weightDevice": null}}"#, Some(-1)),
        ] {
            assert_eq!(pids(resources), limit, "{resources}");
        }
        let err = parse_resources(json!({"pids": {"limit": "many"}})).unwrap_err().to_string();
        assert!(err.starts_with("invalid resources: invalid type"), "{err}");
    }

    #[test]
    fn resources_are_read_in_any_case() {
        let text = br#"{"BlockIO": {"ThrottleReadIOPSDevice": [{"Major": 8, "MINOR": 0, "rate": 5}]},
                        "hugepagelimits": [{"PageSize": "2MB", "Limit": 7}], "CPU": {"Cpus": "0"}, "cpu": {"Shares": 3}}"#;
        let read = parse_resources(json::value(text).unwrap()).unwrap();
        let expected = json!({
            "blockIO": {"throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 5}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 7}], "cpu": {"cpus": "0", "shares": 3},
        });
        assert_eq!(serde_json::to_value(read).unwrap(), expected);
        assert_eq!(parse_resources(json!([])).unwrap_err().to_string(), "invalid resources: not an object");
    }

    #[test]
    fn the_later_one_of_two_spellings_counts() {
        let cwd = |text: &[u8]| parse_process(text).unwrap().cwd().display().to_string();
        assert_eq!(cwd(br#"{"cwd": "/a", "CWD": "/b", "user": {}}"#), "/b");
        assert_eq!(cwd(br#"{"CWD": "/b", "cwd": "/a", "user": {}}"#), "/a");
    }

    #[test]
    fn names_of_a_memory_policy_are_refused_in_any_case() {
        let text = br#"{"ociVersion": "1.0.2", "Linux": {"MemoryPolicy": {"Mode": "MPOL_X"}}}"#;
        assert_eq!(parse(text.to_vec()).unwrap_err().to_string(), "invalid memory policy mode \"MPOL_X\"");
    }

    #[test]
    fn an_annotation_names_the_receiver_of_a_profile_that_names_none() {
        let receiver = |profile: Value| {
            let linux = json!({"seccomp": profile});
            let annotations = json!({"run.oci.seccomp.receiver": "/a"});
            let text = json!({"ociVersion": "1.0.2", "linux": linux, "annotations": annotations}).to_string();
            let spec = parse(text.into_bytes()).unwrap().spec;
            spec.linux().as_ref().unwrap().seccomp().as_ref().unwrap().listener_path().clone()
        };
        assert_eq!(receiver(json!({"defaultAction": "SCMP_ACT_ALLOW"})), Some("/a".into()));
        assert_eq!(receiver(json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/b"})), Some("/b".into()));
    }

    #[test]
    fn an_empty_seccomp_profile_is_none() {
        let spec = parse(br#"{"ociVersion": "1.0.2", "linux": {"seccomp": {}}}"#.to_vec()).unwrap().spec;
        assert!(spec.linux().as_ref().unwrap().seccomp().is_none());
    }

    #[test]
    fn unknown_capabilities_are_dropped() {
        for (capabilities, bounding) in [("capabilities", "bounding"), ("Capabilities", "Bounding")] {
            let text = format!(
                r#"{{"cwd": "/", "user": {{"uid": 0, "gid": 0}},
                     "{capabilities}": {{"{bounding}": ["CAP_KILL", "CAP_NEW_AND_SHINY"]}}}}"#
            );
            let process = parse_process(text.as_bytes()).unwrap();
            assert_eq!(process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap().len(), 1);
        }
    }

    #[test]
    fn the_copy_has_the_words_of_the_specification_and_nothing_behind() {
        let config = parse(br#"{"ociVersion": "1.0.2", "Mounts": [{"Destination": "/a"}]} end"#.to_vec()).unwrap();
        let copy: Value = serde_json::from_slice(&config.text).unwrap();
        assert_eq!(copy["mounts"][0]["destination"], "/a");
        let mut config = parse(br#"{"ociVersion": "1.0.2", "x-unknown": 7} end"#.to_vec()).unwrap();
        config.add_mount(serde_json::from_value(json!({"destination": "/c"})).unwrap()).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&config.text).unwrap()["x-unknown"], 7);
        // Two spellings of one key.
        let text = br#"{"ociVersion": "1.0.2", "linux": {"resources": {"cpu": {"quota": 5}, "CPU": {"Cpus": "0"}}}}"#;
        let spec = parse(text.to_vec()).unwrap().spec;
        let resources = spec.linux().as_ref().unwrap().resources().as_ref().unwrap();
        let cpu = resources.cpu().as_ref().unwrap();
        assert_eq!((cpu.quota(), cpu.cpus().as_deref()), (Some(5), Some("0")));
        // With something else that has to be understood first.
        let text =
            br#"{"ociVersion": "1.0.2", "Process": {"ARGS": ["a"], "User": {"Uid": 5}}, "Linux": {"Seccomp": {}}}"#;
        let spec = parse(text.to_vec()).unwrap().spec;
        assert_eq!(spec.process().as_ref().unwrap().user().uid(), 5);
        assert!(spec.linux().as_ref().unwrap().seccomp().is_none());
    }

    #[test]
    fn a_limit_in_another_case_is_one() {
        for (pids, limit) in [(r#"{"Limit": 5}"#, Some(5)), ("{}", None)] {
            let text = format!(
                r#"{{"ociVersion": "1.0.2", "process": {{"cwd": null}}, "linux": {{"resources": {{"Pids": {pids}}}}}}}"#
            );
            let spec = parse(text.into_bytes()).unwrap().spec;
            let resources = spec.linux().as_ref().unwrap().resources().as_ref().unwrap();
            assert_eq!(resources.pids().as_ref().map(|pids| pids.limit()), limit, "{pids}");
        }
    }

    #[test]
    fn null_is_nothing_in_a_process() {
        let process = parse_process(br#"{"cwd": null, "user": null, "args": ["a"]}"#).unwrap();
        assert_eq!((process.user().uid(), process.cwd().as_path()), (0, Path::new("")));
    }

    #[test]
    fn scheduler_flags_have_the_names_of_the_specification() {
        for name in ["RESET_ON_FORK", "RECLAIM", "DL_OVERRUN", "KEEP_POLICY", "KEEP_PARAMS", "UTIL_CLAMP_MIN"] {
            let text = json!({"scheduler": {"policy": "SCHED_OTHER", "flags": [format!("SCHED_FLAG_{name}")]}});
            let process = parse_process(text.to_string().as_bytes()).unwrap();
            let scheduler = process.scheduler().as_ref().unwrap();
            assert_eq!(scheduler.flags().as_ref().unwrap().len(), 1, "{name}");
        }
    }

    #[test]
    fn limits_of_a_process_are_read_as_by_runc() {
        let read = |limits: Value| parse_process(json!({"args": ["x"], "rlimits": limits}).to_string().as_bytes());
        let read = |limits: Value| read(limits).map(|process| process.rlimits().clone().unwrap());
        let limits = read(json!([{"TYPE": "RLIMIT_CPU", "hard": 7}])).unwrap();
        assert_eq!((limits[0].soft(), limits[0].hard()), (0, 7));
        for (kind, words) in [(json!("nofile"), "nofile"), (json!("RLIMIT_FOO"), "RLIMIT_FOO"), (Value::Null, "")] {
            let err = read(json!([{"type": kind, "soft": 1, "hard": 1}])).unwrap_err();
            assert_eq!(err.to_string(), format!("wrong rlimit value: {words}"));
        }
    }

    #[test]
    fn a_mistake_is_named_with_its_place() {
        let err = parse(b"{\"ociVersion\": 1}".to_vec()).unwrap_err().to_string();
        assert!(err.contains("invalid type") && err.contains("string"), "{err}");
    }
}
