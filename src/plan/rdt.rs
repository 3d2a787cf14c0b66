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
    let class = rdt.clos_id().clone().filter(|name| !name.is_empty());
    if let Some(name) =
        class.as_deref().filter(|&name| name == "." || name == ".." || name != "/" && name.contains('/'))
    {
        return Err(Error::invalid(format!("invalid intelRdt.ClosID {name:?}")));
    }
    let cache = "intelRdt.l3CacheSchema is specified in config, but Intel RDT/CAT is not enabled";
    let bandwidth = "intelRdt.memBwSchema is specified in config, but Intel RDT/MBA is not enabled";
    let mut shares =
        RdtPlan::of([(rdt.l3_cache_schema().clone(), L3, cache), (rdt.mem_bw_schema().clone(), MB, bandwidth)]);
    shares.schemata.extend(rdt.schemata().clone().unwrap_or_default());
    Ok(RdtPlan { class, monitored: rdt.enable_monitoring().unwrap_or(false), ..shares })
}

impl RdtPlan {
    /// Plans shares of resources, each with the line of the schemata, what is needed, and how its absence is told.
    pub fn of(shares: [(Option<String>, &'static str, &'static str); 2]) -> Self {
        let given = |schema: Option<String>| schema.filter(|schema| !schema.is_empty());
        let shares = shares.into_iter().filter_map(|(schema, need, text)| Some((given(schema)?, (need, text))));
        let (schemata, needs) = shares.unzip();
        Self { schemata, needs, ..Self::default() }
    }
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
