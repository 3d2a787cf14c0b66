//! Intel RDT: which class of service the processes of a container are in, and what share of caches and memory
//! bandwidth that has (runtime-spec, "IntelRdt").

use crate::error::{Error, Result};
use oci_spec::runtime::LinuxIntelRdt;

/// What a container wants of resctrl.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RdtPlan {
    /// The class of service, which may be there already and outlives the container; without a name it is the
    /// container's own. The name of the one that everybody is in is `/`.
    pub class: Option<String>,
    /// The lines of its schemata, of which the later win.
    pub schemata: Vec<String>,
    /// What resctrl has to be able to do for that, as it calls it, and how its absence is told.
    pub needs: Vec<(&'static str, &'static str)>,
    /// Whether the container is in a monitoring group of its own in it.
    pub monitored: bool,
}

/// What allots the L3 cache.
pub const L3: &str = "L3";

/// What allots memory bandwidth.
pub const MB: &str = "MB";

/// Plans what config.json asks for. That CMT or MBM are wanted says nothing, as with runc: they are told wherever they are.
pub fn plan(rdt: &LinuxIntelRdt) -> Result<RdtPlan> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let class = given(rdt.clos_id());
    if let Some(name) =
        class.as_deref().filter(|&name| name == "." || name == ".." || name != "/" && name.contains('/'))
    {
        return Err(Error::invalid(format!("invalid intelRdt.ClosID {name:?}")));
    }
    let (cache, bandwidth) = (given(rdt.l3_cache_schema()), given(rdt.mem_bw_schema()));
    let told = [
        (&cache, L3, "intelRdt.l3CacheSchema is specified in config, but Intel RDT/CAT is not enabled"),
        (&bandwidth, MB, "intelRdt.memBwSchema is specified in config, but Intel RDT/MBA is not enabled"),
    ];
    Ok(RdtPlan {
        class,
        needs: told.into_iter().filter(|(schema, ..)| schema.is_some()).map(|(_, need, text)| (need, text)).collect(),
        schemata: [cache, bandwidth].into_iter().flatten().chain(rdt.schemata().clone().unwrap_or_default()).collect(),
        monitored: rdt.enable_monitoring().unwrap_or(false),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn planned(rdt: Value) -> Result<RdtPlan> {
        plan(&serde_json::from_value(rdt).unwrap())
    }

    #[test]
    fn lines_are_in_the_order_in_which_the_last_wins() {
        let all = json!({"closID": "gold", "memBwSchema": "MB:0=20", "l3CacheSchema": "L3:0=f", "schemata": ["L2:0=3"],
                         "enableMonitoring": true, "enableCMT": true});
        let planned = planned(all).unwrap();
        assert_eq!(planned.schemata, ["L3:0=f", "MB:0=20", "L2:0=3"]);
        assert_eq!(planned.needs.iter().map(|(need, _)| *need).collect::<Vec<_>>(), [L3, MB]);
        assert_eq!((planned.class.as_deref(), planned.monitored), (Some("gold"), true));
    }

    #[test]
    fn nothing_is_a_class_of_the_containers_own() {
        assert_eq!(planned(json!({"closID": "", "l3CacheSchema": ""})).unwrap(), RdtPlan::default());
    }

    #[test]
    fn a_class_is_a_name_or_the_one_of_everybody() {
        assert_eq!(planned(json!({"closID": "/"})).unwrap().class.as_deref(), Some("/"));
        for name in [".", "..", "../x", "a/b", "//"] {
            let words = planned(json!({"closID": name})).unwrap_err().to_string();
            assert_eq!(words, format!("invalid intelRdt.ClosID {name:?}"));
        }
    }
}
