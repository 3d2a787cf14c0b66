//! Which processors a process may run on: not those of whoever started it, but all that its cgroup lets it.

use crate::error::{Error, Result};
use nix::sched::CpuSet;
use oci_spec::runtime::Process;

/// What becomes of a process's affinity once it is in its cgroup.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Affinity {
    /// It may run on every processor. The kernel leaves out what the cgroup does not have.
    #[default]
    Every,
    /// It stays as it was inherited.
    Inherited,
    /// It may run on these.
    Only(CpuSet),
}

/// The affinity of a process that exec adds: outside of its cgroup, and in it.
pub fn plan_exec(process: &Process) -> Result<(Option<CpuSet>, Affinity)> {
    let Some(asked) = process.exec_cpu_affinity() else { return Ok((None, Affinity::Every)) };
    let initial = asked.initial().as_deref().map(cpus).transpose()?;
    let last = asked.cpu_affinity_final().as_deref().map(cpus).transpose()?;
    Ok((initial, last.map_or(Affinity::Inherited, Affinity::Only)))
}

/// Reads a list like `0-3,7`.
fn cpus(list: &str) -> Result<CpuSet> {
    let refuse = || Error::invalid(format!("invalid CPU affinity {list:?}"));
    let mut set = CpuSet::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let first: usize = first.parse().map_err(|_| refuse())?;
        let last: usize = last.parse().map_err(|_| refuse())?;
        if first > last {
            return Err(refuse());
        }
        for cpu in first..=last {
            set.set(cpu).map_err(|_| refuse())?;
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_ranges() {
        let listed = |list| {
            let set = cpus(list).ok()?;
            Some((0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap()).collect::<Vec<_>>())
        };
        assert_eq!(listed("0-2,7"), Some(vec![0, 1, 2, 7]));
        assert_eq!(listed("1023"), Some(vec![1023]));
        for refused in ["", "1024", "0-99999999999", "3-2", "a", "1,,2", "-1"] {
            assert_eq!(listed(refused), None, "{refused}");
        }
    }

    #[test]
    fn what_is_not_said_is_inherited_only_beside_what_is() {
        let plan = |json| {
            let mut process = Process::default();
            process.set_exec_cpu_affinity(serde_json::from_str(json).unwrap());
            plan_exec(&process).unwrap()
        };
        let one = cpus("1").unwrap();
        assert_eq!(plan("null"), (None, Affinity::Every));
        assert_eq!(plan(r#"{"initial": "1"}"#), (Some(one), Affinity::Inherited));
        assert_eq!(plan(r#"{"final": "1"}"#), (None, Affinity::Only(one)));
    }
}
