//! From which NUMA nodes the container's processes get their memory: set_mempolicy(2)'s arguments.

use super::number_list;
use crate::error::{Error, Result};
use oci_spec::runtime::{Linux, LinuxMemoryPolicy, MemoryPolicyFlagType as Flag, MemoryPolicyModeType as Mode};
use serde::Deserialize;
use serde_json::Value;

/// A memory policy, in the kernel's numbers (linux/mempolicy.h).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MemoryPolicy {
    /// Mode and flags.
    pub mode: i32,
    /// A bit for each node.
    pub nodes: Vec<u64>,
}

/// The names of its parts in config.json.
pub const NAMES: [&str; 3] = ["mode", "nodes", "flags"];

/// Plans the policy of a container that has one.
pub fn plan(linux: &Linux) -> Result<Option<MemoryPolicy>> {
    linux.memory_policy().as_ref().map(policy).transpose()
}

fn policy(asked: &LinuxMemoryPolicy) -> Result<MemoryPolicy> {
    let text = asked.nodes().as_deref().unwrap_or_default();
    let nodes = number_list::parse(text)
        .ok_or_else(|| Error::invalid(format!("invalid memory policy node {text:?}: not a list such as \"0-1,3\"")))?;
    let mode = match asked.mode() {
        Mode::MpolDefault => 0,
        Mode::MpolPreferred => 1,
        Mode::MpolBind => 2,
        Mode::MpolInterleave => 3,
        Mode::MpolLocal => 4,
        Mode::MpolPreferredMany => 5,
        Mode::MpolWeightedInterleave => 6,
    };
    if matches!(asked.mode(), Mode::MpolDefault | Mode::MpolLocal) && !nodes.is_empty() {
        return Err(Error::invalid(format!("invalid memory policy: mode requires 0 nodes but got {}", nodes.len())));
    }
    let flags = asked.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                Flag::MpolFNumaBalancing => 1 << 13,
                Flag::MpolFRelativeNodes => 1 << 14,
                Flag::MpolFStaticNodes => 1 << 15,
            }
    });
    Ok(MemoryPolicy { mode: mode | flags, nodes: number_list::mask(&nodes) })
}

/// Refuses, in runc's words, names in `linux.memoryPolicy` that [`LinuxMemoryPolicy`] cannot hold.
pub fn check_names(policy: &Value) -> Result<()> {
    let refused = |what: &str, name: &Value| Err(Error::invalid(format!("invalid memory policy {what} {name}")));
    let none = Value::from("");
    let mode = policy.get("mode").unwrap_or(&none);
    if policy.is_object() && Mode::deserialize(mode).is_err() {
        return refused("mode", mode);
    }
    let flags = policy["flags"].as_array().into_iter().flatten();
    flags.into_iter().find(|flag| Flag::deserialize(*flag).is_err()).map_or(Ok(()), |flag| refused("flag", flag))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn planned(policy: Value) -> Result<Option<MemoryPolicy>> {
        plan(&serde_json::from_value(json!({"memoryPolicy": policy})).unwrap())
    }

    #[test]
    fn policies_become_numbers() {
        let cases = [
            (json!({"mode": "MPOL_DEFAULT"}), 0, &[][..]),
            (json!({"mode": "MPOL_BIND", "nodes": "0,2", "flags": ["MPOL_F_STATIC_NODES"]}), 2 | 1 << 15, &[5]),
            (json!({"mode": "MPOL_INTERLEAVE", "nodes": "64"}), 3, &[0, 1]),
            (
                json!({"mode": "MPOL_WEIGHTED_INTERLEAVE", "nodes": "0-1", "flags": ["MPOL_F_RELATIVE_NODES"]}),
                6 | 1 << 14,
                &[3],
            ),
        ];
        for (policy, mode, nodes) in cases {
            assert_eq!(planned(policy).unwrap(), Some(MemoryPolicy { mode, nodes: nodes.to_vec() }));
        }
        assert_eq!(plan(&Linux::default()).unwrap(), None);
    }

    #[test]
    fn wrong_ones_are_refused_in_runcs_words() {
        let local = planned(json!({"mode": "MPOL_LOCAL", "nodes": "0-7"})).unwrap_err().to_string();
        assert!(local.ends_with("mode requires 0 nodes but got 8"), "{local}");
        let nodes = planned(json!({"mode": "MPOL_BIND", "nodes": "some"})).unwrap_err().to_string();
        assert!(nodes.starts_with("invalid memory policy node \"some\""), "{nodes}");
        let names = |policy: Value| check_names(&policy).unwrap_err().to_string();
        assert_eq!(names(json!({"mode": "MPOL_X"})), "invalid memory policy mode \"MPOL_X\"");
        for missing in [json!({}), json!({"nodes": "0-7"}), json!({"mode": ""})] {
            assert_eq!(names(missing), "invalid memory policy mode \"\"");
        }
        assert_eq!(names(json!({"mode": "MPOL_BIND", "flags": ["F"]})), "invalid memory policy flag \"F\"");
    }
}
