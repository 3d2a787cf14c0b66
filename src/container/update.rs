//! update: other limits for a container that is there.

use super::kill::not_running;
use super::{Container, Status};
use crate::error::{Context, Error, Result};
use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value};

/// What Go's JSON reads in any case, and clients therefore write in any.
const NAMES: &[&str] = &[
    "blockIO",
    "burst",
    "checkBeforeUpdate",
    "cpu",
    "cpus",
    "devices",
    "hugepageLimits",
    "idle",
    "limit",
    "memory",
    "mems",
    "network",
    "period",
    "pids",
    "quota",
    "rdma",
    "realtimePeriod",
    "realtimeRuntime",
    "reservation",
    "shares",
    "swap",
    "swappiness",
    "unified",
    "weight",
];

impl Container {
    /// Changes the limits that `change` names, in the words of config.json's `linux.resources`, and notes them down.
    ///
    /// All limits are written again, since some depend on others: a new period of the cpu controller needs the old
    /// quota. Device rules stay as they are, whatever somebody else may have added to them.
    pub fn update(self, change: Value) -> Result<()> {
        if self.status()? == Status::Stopped {
            return Err(not_running());
        }
        let path = self.dir.config();
        let text = std::fs::read(&path).context(|| format!("read {}", path.display()))?;
        let mut config: Value =
            serde_json::from_slice(&text).map_err(|err| Error::other(format!("parse {}: {err}", path.display())))?;
        let before = config["linux"]["resources"].take();
        let after = merged(&before, change)?;
        if let Err(err) = self.apply(&after) {
            // What was written before the kernel refused something is taken back, as far as it was limited at all.
            if let Err(err) = self.apply(&before) {
                log::debug!("limits as they were: {err}");
            }
            return Err(err);
        }
        config["linux"]["resources"] = after;
        self.dir.replace_config(config.to_string().as_bytes())
    }

    fn apply(&self, resources: &Value) -> Result<()> {
        let resources: Option<LinuxResources> = serde_json::from_value(resources.clone())
            .map_err(|err| Error::invalid(format!("invalid resources: {err}")))?;
        let cgroup = &self.state.cgroup;
        cgroup.apply(&cgroup.update(&resources.unwrap_or_default())?)
    }
}

/// Returns what is limited after a change.
fn merged(before: &Value, change: Value) -> Result<Value> {
    let Value::Object(mut change) = spelt(change) else {
        return Err(Error::invalid("invalid resources: not an object"));
    };
    change.remove("devices");
    if let Some(Value::Object(memory)) = change.get_mut("memory") {
        // Both have no limit then: v1 would refuse memory without and memory with swap with one.
        if memory.get("limit").and_then(Value::as_i64) == Some(-1) && memory.get("swap").is_none_or(Value::is_null) {
            memory.insert("swap".to_owned(), Value::from(-1));
        }
    }
    let mut after = before.as_object().cloned().unwrap_or_default();
    // They are files, which are written last: an old value would win over a new one that has a name.
    after.remove("unified");
    merge(&mut after, change);
    Ok(Value::Object(after))
}

/// Returns the object with its keys as config.json has them.
fn spelt(value: Value) -> Value {
    let Value::Object(object) = value else { return value };
    let entries = object.into_iter().map(|(key, value)| {
        let known = NAMES.iter().find(|name| name.eq_ignore_ascii_case(&key));
        (known.map_or(key, |name| (*name).to_owned()), spelt(value))
    });
    Value::Object(entries.collect())
}

/// Puts new values in the place of old ones, at any depth; null changes nothing.
fn merge(into: &mut Map<String, Value>, change: Map<String, Value>) {
    for (key, value) in change {
        match (into.get_mut(&key), value) {
            (_, Value::Null) => {}
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (_, value) => _ = into.insert(key, value),
        }
    }
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
                json!({"unified": {"cpu.max": "max"}, "cpu": null}),
                json!({"cpu": {"quota": 5, "period": 10}, "devices": [{"allow": false}], "unified": {"cpu.max": "max"}}),
            ),
        ];
        for (change, after) in cases {
            assert_eq!(merged(&before, change).unwrap(), after);
        }
        assert_eq!(merged(&before, json!([])).unwrap_err().to_string(), "invalid resources: not an object");
    }

    #[test]
    fn memory_without_a_limit_has_none_of_swap_either() {
        let memory = |change: Value| merged(&json!({}), json!({"memory": change})).unwrap()["memory"].clone();
        assert_eq!(memory(json!({"limit": -1})), json!({"limit": -1, "swap": -1}));
        assert_eq!(memory(json!({"limit": -1, "swap": 7})), json!({"limit": -1, "swap": 7}));
        assert_eq!(memory(json!({"limit": 5})), json!({"limit": 5}));
    }
}
