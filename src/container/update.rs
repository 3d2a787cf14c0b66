//! update: other limits for a container that is there.

use super::kill::not_running;
use super::{Container, Status, rdt};
use crate::cgroup::Cgroup;
use crate::error::{Context, Error, Result};
use crate::plan::cgroup::{CgroupPlan, Write};
use crate::spec;
use serde_json::Value;

impl Container {
    /// Changes the limits that `change` names, in the words of config.json's `linux.resources`, and notes them down.
    ///
    /// All limits are written again, since some depend on others: a new period of the cpu controller needs the old
    /// quota. Device rules stay as they are, whatever somebody else may have added to them. Shares of Intel RDT that are
    /// given come first, and are taken back if a limit is refused.
    pub fn update(mut self, change: Value, [l3_cache, bandwidth]: [Option<String>; 2]) -> Result<()> {
        let shares = rdt::wanted_shares(l3_cache, bandwidth)?;
        if self.status()? == Status::Stopped {
            return Err(not_running());
        }
        let path = self.dir.config();
        let text = std::fs::read(&path).context(|| format!("read {}", path.display()))?;
        let mut config: Value =
            serde_json::from_slice(&text).map_err(|err| Error::other(format!("parse {}: {err}", path.display())))?;
        let before = config["linux"]["resources"].take();
        let after = merged(&before, change)?;
        let cgroup = self.state.cgroup.clone();
        let had_shares = self.state.rdt.is_some();
        let undo = self.share(shares)?;
        let new = plan(&cgroup, &after)?;
        let held = cgroup.held(&new);
        let changed = cgroup.apply(&new).and_then(|()| {
            config["linux"]["resources"] = after;
            self.dir.replace_config(config.to_string().as_bytes())?;
            if self.state.rdt.is_some() == had_shares { Ok(()) } else { self.dir.save(&self.state) }
        });
        changed.inspect_err(|_| {
            if let Err(err) = set_back(&cgroup, held.as_deref(), &before) {
                log::warn!("limits could not all be set back: {err}");
            }
        })?;
        undo.disarm();
        Ok(())
    }
}

fn plan(cgroup: &Cgroup, resources: &Value) -> Result<CgroupPlan> {
    match resources {
        Value::Null => cgroup.update(&Default::default()),
        resources => cgroup.update(&spec::parse_resources(resources.clone())?),
    }
}

/// Takes back what was written before something was refused: files get what they held, whoever set it. systemd is told
/// the limits that were in force until now, and so without a check.
fn set_back(cgroup: &Cgroup, held: Option<&[Write]>, before: &Value) -> Result<()> {
    match held {
        // Some take their old value only once others have theirs.
        Some(held) => cgroup.put_back(held).or_else(|_| cgroup.put_back(held)),
        None => cgroup.apply(&CgroupPlan { usage_check: None, ..plan(cgroup, before)? }),
    }
}

/// Returns what is limited after a change.
fn merged(before: &Value, change: Value) -> Result<Value> {
    let mut change = spec::parse_resources(change)?;
    change.set_devices(None);
    if let Some(memory) = change.memory_mut() {
        // Both have no limit then: v1 would refuse memory without and memory with swap with one.
        if memory.limit() == Some(-1) && memory.swap().is_none() {
            memory.set_swap(Some(-1));
        }
    }
    let mut after = before.clone();
    // They are files, which are written last: an old value would win over a new one that has a name.
    after.as_object_mut().map(|after| after.remove("unified"));
    let change = serde_json::to_value(change).map_err(|err| Error::other(format!("write resources: {err}")))?;
    merge(&mut after, change);
    Ok(after)
}

/// Puts new values in the place of old ones, at any depth.
fn merge(into: &mut Value, change: Value) {
    match (into, change) {
        (Value::Object(old), Value::Object(new)) => {
            new.into_iter().for_each(|(key, value)| merge(old.entry(key).or_insert(Value::Null), value));
        }
        (Value::Array(old), Value::Array(new)) => {
            old.retain(|entry| !new.iter().any(|other| is_about_the_same(entry, other)));
            old.extend(new);
        }
        (into, value) => *into = value,
    }
}

/// Says whether two entries of a list limit the same thing: a device, a size of pages, an interface. The kernel keeps
/// what it was told of others.
fn is_about_the_same(entry: &Value, other: &Value) -> bool {
    ["major", "minor", "pageSize", "name"].iter().all(|key| entry.get(key) == other.get(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_named_stays() {
        let before = json!({
            "cpu": {"quota": 5, "period": 10}, "devices": [{"allow": false}], "unified": {"pids.max": "7"}
        });
        let cases = [
            (json!({}), json!({"cpu": {"quota": 5, "period": 10}, "devices": [{"allow": false}]})),
            (
                json!({"CPU": {"Quota": 6, "idle": null}, "pids": {"limit": 3}, "devices": []}),
                json!({"cpu": {"quota": 6, "period": 10}, "devices": [{"allow": false}], "pids": {"limit": 3}}),
            ),
            (
                json!({"unified": {"cpu.max": "max"}, "cpu": null, "blockIO": null}),
                json!({"cpu": {"quota": 5, "period": 10}, "devices": [{"allow": false}], "unified": {"cpu.max": "max"}}),
            ),
            (
                json!({"memory": {"limit": null, "swap": 8}, "rdma": {"a": {"hcaHandles": null}}}),
                json!({
                    "cpu": {"quota": 5, "period": 10}, "devices": [{"allow": false}],
                    "memory": {"swap": 8}, "rdma": {"a": {}},
                }),
            ),
        ];
        for (change, after) in cases {
            assert_eq!(merged(&before, change).unwrap(), after);
        }
        assert_eq!(merged(&before, json!([])).unwrap_err().to_string(), "invalid resources: not an object");
    }

    #[test]
    fn entries_of_lists_stay_that_are_about_something_else() {
        let device = |minor: u64, rate: u64| json!({"major": 8, "minor": minor, "rate": rate});
        let pages = |size: &str, limit: u64| json!({"pageSize": size, "limit": limit});
        let lists = |devices: &[Value], pages: &[Value]| json!({"blockIO": {"throttleReadBpsDevice": devices}, "hugepageLimits": pages});
        let before = lists(&[device(0, 5), device(16, 6)], &[pages("2MB", 1)]);
        let change = lists(&[device(0, 7)], &[pages("1GB", 2)]);
        let after = lists(&[device(16, 6), device(0, 7)], &[pages("2MB", 1), pages("1GB", 2)]);
        assert_eq!(merged(&before, change).unwrap(), after);
    }

    #[test]
    fn memory_without_a_limit_has_none_of_swap_either() {
        let memory = |change: Value| merged(&json!({}), json!({"memory": change})).unwrap()["memory"].clone();
        assert_eq!(memory(json!({"limit": -1})), json!({"limit": -1, "swap": -1}));
        assert_eq!(memory(json!({"limit": -1, "swap": 7})), json!({"limit": -1, "swap": 7}));
        assert_eq!(memory(json!({"limit": 5})), json!({"limit": 5}));
    }

    /// A directory with the files of a cgroup that has 300 bytes in use; a limit of cpu time fails, for lack of a file.
    fn cgroup(dir: &std::path::Path) -> Cgroup {
        for (file, text) in [
            ("cgroup.controllers", "cpu memory pids"),
            ("memory.current", "300"),
            ("memory.max", "200\n"),
            ("pids.max", "max\n"),
        ] {
            std::fs::write(dir.join(file), text).unwrap();
        }
        let directory = json!({"version": "v2", "controllers": ["cpu", "memory", "pids"], "mount": dir, "path": dir});
        let cgroup = json!({"driver": "cgroupfs", "directories": [directory], "lenient": false});
        serde_json::from_value(cgroup).unwrap()
    }

    #[test]
    fn files_get_back_what_they_held_whatever_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let limits = |limit: u64| json!({"memory": {"limit": limit, "checkBeforeUpdate": true}});
        let mut after = limits(400);
        merge(&mut after, json!({"pids": {"limit": 5}, "cpu": {"shares": 9}}));
        let cgroup = cgroup(dir.path());
        let new = plan(&cgroup, &after).unwrap();
        let held = cgroup.held(&new).unwrap();
        let err = cgroup.apply(&new).unwrap_err();
        assert!(err.to_string().contains("cpu.weight"), "{err}");
        let file = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!((file("memory.max"), file("pids.max")), ("400\n".to_owned(), "5ax\n".to_owned()));
        // Not the limit of config.json, which somebody has raised since.
        set_back(&cgroup, Some(&held), &limits(100)).unwrap();
        assert_eq!((file("memory.max"), file("pids.max")), ("200\n".to_owned(), "max\n".to_owned()));
    }

    #[test]
    fn a_limit_below_what_is_in_use_is_refused_unless_it_was_in_force() {
        let dir = tempfile::tempdir().unwrap();
        let (cgroup, before) = (cgroup(dir.path()), json!({"memory": {"limit": 200, "checkBeforeUpdate": true}}));
        let err = cgroup.apply(&plan(&cgroup, &before).unwrap()).unwrap_err();
        assert_eq!(err.to_string(), "rejecting memory limit 200 <= usage 300");
        set_back(&cgroup, None, &before).unwrap();
    }

    #[test]
    fn what_cannot_be_set_back_does_not_keep_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let cgroup = cgroup(dir.path());
        std::fs::write(dir.path().join("cpu.weight"), "\n").unwrap();
        let new = plan(&cgroup, &json!({"pids": {"limit": 5}, "cpu": {"shares": 9}})).unwrap();
        let held = cgroup.held(&new).unwrap();
        assert_eq!(held.len(), 2, "{held:?}");
        cgroup.apply(&new).unwrap();
        for (gone, kept, was) in [("cpu.weight", "pids.max", "max\n"), ("pids.max", "cpu.weight", "\n")] {
            let text = std::fs::read_to_string(dir.path().join(gone)).unwrap();
            std::fs::remove_file(dir.path().join(gone)).unwrap();
            assert!(set_back(&cgroup, Some(&held), &Value::Null).is_err());
            assert_eq!(std::fs::read_to_string(dir.path().join(kept)).unwrap(), was);
            std::fs::write(dir.path().join(gone), text).unwrap();
        }
    }
}
