//! `process.capabilities` and `exec --cap` -> the five sets as the kernel takes them.
//!
//! Names are resolved here, once; what the kernel does not have is left out and listed, since
//! configurations are written for more kernels than one. Applying the sets is init's work.

use caps::Capability;
use oci_spec::runtime::{Capabilities, LinuxCapabilities};
use serde_json::Value;
use std::collections::BTreeSet;

/// The names of the sets in config.json.
pub const SETS: [&str; 5] = ["bounding", "effective", "inheritable", "permitted", "ambient"];

/// The capability sets of a process, bit n standing for capability n (linux/capability.h).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CapMasks {
    /// What the process and its descendants can ever gain.
    pub bounding: u64,
    /// What the kernel checks.
    pub effective: u64,
    /// What is kept over execve for a file that has it as inheritable too.
    pub inheritable: u64,
    /// What can be made effective.
    pub permitted: u64,
    /// What is kept over execve of an ordinary file.
    pub ambient: u64,
}

/// Removes the names that are no capability from `process.capabilities` as it stands in
/// config.json, and returns them.
///
/// To be called before the configuration becomes typed: the type has no place for an unknown name,
/// and would take `chown` for `CAP_CHOWN`, which runc ignores.
pub fn remove_unknown(capabilities: &mut Value) -> Vec<String> {
    let mut removed = BTreeSet::new();
    for set in SETS {
        let Some(names) = capabilities.get_mut(set).and_then(Value::as_array_mut) else { continue };
        names.retain(|name| match name.as_str() {
            Some(name) if name.parse::<Capability>().is_err() => {
                removed.insert(name.to_owned());
                false
            }
            // Anything but a string is an error that the typed reader words.
            _ => true,
        });
    }
    removed.into_iter().collect()
}

/// Resolves the sets against the kernel's last capability; a process without any gets none.
///
/// Returns the names beyond `last_cap` too, sorted.
pub fn resolve(caps: Option<&LinuxCapabilities>, last_cap: u8) -> (CapMasks, Vec<String>) {
    let Some(caps) = caps else { return (CapMasks::default(), Vec::new()) };
    let mut unavailable = BTreeSet::new();
    let mut mask = |set: &Option<Capabilities>| {
        let mut mask = 0;
        for cap in set.iter().flatten() {
            let name = format!("CAP_{cap}");
            match name.parse::<Capability>() {
                Ok(cap) if cap.index() <= last_cap => mask |= cap.bitmask(),
                _ => {
                    unavailable.insert(name);
                }
            }
        }
        mask
    };
    let masks = CapMasks {
        bounding: mask(caps.bounding()),
        effective: mask(caps.effective()),
        inheritable: mask(caps.inheritable()),
        permitted: mask(caps.permitted()),
        ambient: mask(caps.ambient()),
    };
    (masks, unavailable.into_iter().collect())
}

/// Adds what `exec --cap` asks for, and returns the names that are no available capability.
///
/// `has_inheritable` tells whether the process has an inheritable set, be it empty: without one
/// the kernel would refuse every ambient capability, so none is added, as runc does.
pub fn add(masks: &mut CapMasks, names: &[String], has_inheritable: bool, last_cap: u8) -> Vec<String> {
    let mut unknown = BTreeSet::new();
    for name in names {
        match name.parse::<Capability>() {
            Ok(cap) if cap.index() <= last_cap => {
                masks.bounding |= cap.bitmask();
                masks.effective |= cap.bitmask();
                masks.permitted |= cap.bitmask();
                if has_inheritable {
                    masks.ambient |= cap.bitmask();
                }
            }
            _ => {
                unknown.insert(name.clone());
            }
        }
    }
    unknown.into_iter().collect()
}

/// Returns the name of the capability with that number.
pub fn name(number: u16) -> String {
    let known = caps::all().into_iter().find(|cap| u16::from(cap.index()) == number);
    known.map_or_else(|| format!("{number}"), |cap| cap.to_string())
}

/// Returns the warning about names that were left out, in runc's words.
pub fn ignored_warning(names: &[String]) -> String {
    format!("ignoring unknown or unavailable capabilities: [{}]", names.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const CHOWN: u64 = 1 << 0;
    const NET_RAW: u64 = 1 << 13;
    const CHECKPOINT_RESTORE: u64 = 1 << 40;
    /// That of Linux 5.9 and everything since.
    const LAST: u8 = 40;

    fn caps(json: Value) -> LinuxCapabilities {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn each_set_becomes_its_own_mask() {
        let caps = caps(json!({
            "bounding": ["CAP_CHOWN", "CAP_NET_RAW", "CAP_CHECKPOINT_RESTORE"],
            "effective": ["CAP_CHOWN"],
            "inheritable": [],
            "permitted": ["CAP_CHOWN", "CAP_NET_RAW"],
        }));
        let expected = CapMasks {
            bounding: CHOWN | NET_RAW | CHECKPOINT_RESTORE,
            effective: CHOWN,
            inheritable: 0,
            permitted: CHOWN | NET_RAW,
            ambient: 0,
        };
        assert_eq!(resolve(Some(&caps), LAST), (expected, vec![]));
        assert_eq!(resolve(None, LAST), (CapMasks::default(), vec![]));
    }

    #[test]
    fn what_the_kernel_lacks_is_listed_once_and_in_order() {
        let caps = caps(json!({
            "bounding": ["CAP_PERFMON", "CAP_CHOWN", "CAP_BPF"],
            "ambient": ["CAP_BPF"],
        }));
        let (masks, unavailable) = resolve(Some(&caps), 37);
        assert_eq!((masks.bounding, masks.ambient), (CHOWN, 0));
        assert_eq!(unavailable, ["CAP_BPF", "CAP_PERFMON"]);
        assert_eq!(
            ignored_warning(&unavailable),
            "ignoring unknown or unavailable capabilities: [CAP_BPF CAP_PERFMON]"
        );
    }

    #[test]
    fn names_of_no_capability_are_removed_before_the_typed_reader_sees_them() {
        let mut json = json!({
            "bounding": ["CAP_CHOWN", "CAP_UNKNOWN", "net_raw", "CAP_net_raw"],
            "ambient": ["CAP_UNKNOWN"],
            "permitted": null,
        });
        assert_eq!(remove_unknown(&mut json), ["CAP_UNKNOWN", "CAP_net_raw", "net_raw"]);
        let expected = CapMasks { bounding: CHOWN, ..CapMasks::default() };
        assert_eq!(resolve(Some(&caps(json)), LAST), (expected, vec![]));

        let mut odd = json!({"bounding": [7]});
        assert!(remove_unknown(&mut odd).is_empty());
        assert_eq!(odd, json!({"bounding": [7]}));
        assert!(remove_unknown(&mut Value::Null).is_empty());
    }

    #[test]
    fn exec_adds_ambient_only_beside_an_inheritable_set() {
        for has_inheritable in [false, true] {
            let mut masks = CapMasks { bounding: CHOWN, ..CapMasks::default() };
            let names = ["CAP_NET_RAW", "CAP_NONE", "kill"].map(str::to_owned);
            let unknown = add(&mut masks, &names, has_inheritable, LAST);
            let expected = CapMasks {
                bounding: CHOWN | NET_RAW,
                effective: NET_RAW,
                inheritable: 0,
                permitted: NET_RAW,
                ambient: if has_inheritable { NET_RAW } else { 0 },
            };
            assert_eq!(masks, expected);
            assert_eq!(unknown, ["CAP_NONE", "kill"]);
        }
    }

    #[test]
    fn every_capability_of_the_specification_resolves() {
        let all: Vec<_> = caps::all().iter().map(ToString::to_string).collect();
        assert_eq!(all.len(), usize::from(LAST) + 1);
        let set = json!({"bounding": all});
        assert_eq!(resolve(Some(&caps(set)), LAST).0.bounding, (1 << (LAST + 1)) - 1);
    }
}
