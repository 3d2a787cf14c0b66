//! Resources in the words of the cgroup v2 controllers (Documentation/admin-guide/cgroup-v2.rst of
//! the kernel).
//!
//! config.json speaks of v1, so its values are converted with runc's formulas. What v2 has no word
//! for (swappiness, the OOM killer's switch, realtime cpu time, leaf weights, network classes) is
//! left out, as runc leaves it out.

use std::collections::HashMap;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};

use super::v1::{cpuset, hugetlb, pids_max, rdma};
use super::{Refusal, UsageCheck, Write};
use crate::error::{Error, Result};

/// The period that cpu.max has when none was set, in microseconds.
pub(super) const DEFAULT_PERIOD: u64 = 100_000;

/// Returns what `resources` asks of `controller`.
pub(super) fn writes(controller: &str, resources: &LinuxResources) -> Result<Vec<Write>> {
    Ok(match controller {
        "pids" => resources.pids().map(|pids| pids_max(pids.limit())).into_iter().collect(),
        "memory" => resources.memory().as_ref().map(memory).transpose()?.unwrap_or_default(),
        "io" => resources.block_io().as_ref().map(io).unwrap_or_default(),
        "cpu" => resources.cpu().as_ref().map(cpu).unwrap_or_default(),
        "cpuset" => resources.cpu().as_ref().map(cpuset).unwrap_or_default(),
        "hugetlb" => hugetlb(resources, "max", amount)?,
        "rdma" => resources.rdma().as_ref().map(rdma).unwrap_or_default(),
        _ => Vec::new(),
    })
}

/// Returns the words for an amount, which in config.json is -1 if it is not limited.
fn amount(value: i64) -> String {
    if value == -1 { "max".to_owned() } else { value.to_string() }
}

fn memory(memory: &LinuxMemory) -> Result<Vec<Write>> {
    if memory.kernel().is_some() || memory.kernel_tcp().is_some() {
        log::warn!("kernel memory limits are ignored: the kernel no longer has them");
    }
    let mut writes = Vec::new();
    let limit = memory.limit().unwrap_or(0);
    if let Some(swap) = swap_max(memory.swap().unwrap_or(0), limit)? {
        let write = Write::new("memory", "memory.swap.max", amount(swap));
        // Without swap accounting there is no file, and nothing that those two values would change.
        let needless = matches!(swap, -1 | 0);
        writes.push(if needless { write.refused(Refusal::MayBeAbsent) } else { write });
    }
    if limit != 0 {
        writes.push(Write::new("memory", "memory.max", amount(limit)));
    }
    if let Some(reservation) = memory.reservation().filter(|reservation| *reservation != 0) {
        writes.push(Write::new("memory", "memory.low", amount(reservation)));
    }
    Ok(writes)
}

/// Returns the limit of swap alone; config.json has that of memory and swap together.
pub(super) fn swap_max(swap: i64, memory: i64) -> Result<Option<i64>> {
    match (swap, memory) {
        // No limit of memory, and nothing said of swap: v1 then has no limit of both.
        (0, -1) => Ok(Some(-1)),
        (0, _) => Ok(None),
        (-1, _) => Ok(Some(-1)),
        (_, -1) => Ok(Some(swap)),
        (_, 0) => Err(Error::invalid("unable to set swap limit without memory limit")),
        (_, ..0) => Err(Error::invalid(format!("invalid memory value: {memory}"))),
        _ if swap < memory => Err(Error::invalid("memory+swap limit should be >= memory limit")),
        _ => Ok(Some(swap - memory)),
    }
}

/// Returns the check that `memory.checkBeforeUpdate` asks for.
pub(super) fn usage_check(resources: &LinuxResources) -> Option<UsageCheck> {
    let memory = resources.memory().as_ref().filter(|memory| memory.check_before_update() == Some(true))?;
    let limit = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value != 0);
    let check = UsageCheck { memory: limit(memory.limit()), memory_and_swap: limit(memory.swap()) };
    (check.memory.is_some() || check.memory_and_swap.is_some()).then_some(check)
}

/// Returns the cpu.weight (1 to 10000, default 100) of shares (2 to 262144, default 1024).
///
/// A curve through both ends and through the two defaults, which a straight line misses: with that,
/// a container with the default of shares got less than half of the time of one that had none.
pub(super) fn weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            10f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil() as u64
        }
    }
}

fn cpu(cpu: &LinuxCpu) -> Vec<Write> {
    let mut writes = Vec::new();
    let file = |name: &str, value: String| Write::new("cpu", name, value);
    let is_idle = cpu.idle().is_some_and(|idle| idle != 0);
    writes.extend(cpu.idle().map(|idle| file("cpu.idle", idle.to_string())));
    // The kernel refuses a weight for an idle cgroup.
    let shares = cpu.shares().filter(|shares| *shares != 0 && !is_idle);
    writes.extend(shares.map(|shares| file("cpu.weight", weight(shares).to_string())));
    // A burst may not exceed the quota, the old one if it is written first.
    writes.extend(cpu.burst().map(|burst| file("cpu.max.burst", burst.to_string()).refused(Refusal::TryLater)));
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    if quota.is_some() || period.is_some() {
        let quota = quota.filter(|quota| *quota > 0).map_or("max".to_owned(), |quota| quota.to_string());
        writes.push(file("cpu.max", format!("{quota} {}", period.unwrap_or(DEFAULT_PERIOD))));
    }
    writes
}

fn io(io: &LinuxBlockIo) -> Vec<Write> {
    // BFQ takes the weights of config.json (10 to 1000) as they are, the other schedulers 1 to
    // 10000.
    let converted = |weight: u16| 1 + (u64::from(weight).saturating_sub(10)) * 9999 / 990;
    let mut writes = Vec::new();
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        let plain = Write::new("io", "io.weight", converted(weight));
        writes.push(Write::new("io", "io.bfq.weight", weight).refused(Refusal::Otherwise(Box::new(plain))));
    }
    for device in io.weight_device().iter().flatten() {
        let Some(weight) = device.weight().filter(|weight| *weight != 0) else { continue };
        let value = |weight: u64| format!("{}:{} {weight}", device.major(), device.minor());
        // runc passes over this one where there is no BFQ; so do we where there are no weights at
        // all.
        let plain = Write::new("io", "io.weight", value(converted(weight))).refused(Refusal::MayBeAbsent);
        let bfq = Write::new("io", "io.bfq.weight", value(u64::from(weight)));
        writes.push(bfq.refused(Refusal::Otherwise(Box::new(plain))));
    }
    let mut throttle = |key: &str, devices: &Option<Vec<LinuxThrottleDevice>>| {
        for device in devices.iter().flatten().filter(|device| device.rate() != 0) {
            let value = format!("{}:{} {key}={}", device.major(), device.minor(), device.rate());
            writes.push(Write::new("io", "io.max", value));
        }
    };
    throttle("rbps", io.throttle_read_bps_device());
    throttle("wbps", io.throttle_write_bps_device());
    throttle("riops", io.throttle_read_iops_device());
    throttle("wiops", io.throttle_write_iops_device());
    writes
}

/// The file of a cgroup's weight.
pub(super) const WEIGHT: &str = "cpu.weight";

/// Says whether the files are those of an idle cgroup.
pub(super) fn is_idle(unified: &HashMap<String, String>) -> bool {
    unified.get("cpu.idle").is_some_and(|value| value.trim() == "1")
}

/// Returns the writes of `unified`, in the order of their names; `is_available` knows the
/// controllers.
pub(super) fn unified(resources: &LinuxResources, is_available: &dyn Fn(&str) -> bool) -> Result<Vec<Write>> {
    let Some(unified) = resources.unified() else { return Ok(Vec::new()) };
    // The kernel refuses a weight for an idle cgroup.
    let is_idle = is_idle(unified);
    let mut entries: Vec<_> = unified.iter().filter(|(file, _)| !is_idle || *file != WEIGHT).collect();
    entries.sort();
    let mut writes = Vec::new();
    for (file, value) in entries {
        if file.contains('/') {
            return Err(Error::invalid(format!("unified resource {file:?} must be a file name (no slashes)")));
        }
        let Some((controller, _)) = file.split_once('.').filter(|(controller, _)| !controller.is_empty()) else {
            let form = "must be in the form CONTROLLER.PARAMETER";
            return Err(Error::invalid(format!("unified resource {file:?} {form}")));
        };
        let controller = if controller == "cgroup" { "" } else { controller };
        if !controller.is_empty() && !is_available(controller) {
            let reason = format!("controller {controller:?} not available");
            return Err(Error::invalid(format!("unified resource {file:?} can't be set: {reason}")));
        }
        writes.push(Write::new(controller, file, value));
    }
    Ok(writes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(controller: &str, json: &str) -> Result<Vec<String>> {
        let resources = serde_json::from_str(json).unwrap();
        let line = |write: &Write| format!("{}={}", write.file, write.value);
        Ok(writes(controller, &resources)?.iter().map(line).collect())
    }

    /// Controller, resources, and what is written for them.
    const CASES: &[(&str, &str, &[&str])] = &[
        ("pids", r#"{"pids": {"limit": -1}}"#, &["pids.max=max"]),
        ("memory", r#"{"memory": {"limit": 8192}}"#, &["memory.max=8192"]),
        (
            "memory",
            r#"{"memory": {"limit": 8192, "swap": 9000, "reservation": 7000}}"#,
            &["memory.swap.max=808", "memory.max=8192", "memory.low=7000"],
        ),
        ("memory", r#"{"memory": {"limit": 8192, "swap": 8192}}"#, &["memory.swap.max=0", "memory.max=8192"]),
        ("memory", r#"{"memory": {"limit": 8192, "swap": -1}}"#, &["memory.swap.max=max", "memory.max=8192"]),
        ("memory", r#"{"memory": {"limit": -1}}"#, &["memory.swap.max=max", "memory.max=max"]),
        (
            "memory",
            r#"{"memory": {"limit": -1, "swap": 5, "reservation": -1}}"#,
            &["memory.swap.max=5", "memory.max=max", "memory.low=max"],
        ),
        ("memory", r#"{"memory": {"swappiness": 200, "disableOOMKiller": true}}"#, &[]),
        ("cpu", r#"{"cpu": {"shares": 1024}}"#, &["cpu.weight=100"]),
        ("cpu", r#"{"cpu": {"shares": 1024, "idle": 1}}"#, &["cpu.idle=1"]),
        ("cpu", r#"{"cpu": {"shares": 1024, "idle": 0}}"#, &["cpu.idle=0", "cpu.weight=100"]),
        ("cpu", r#"{"cpu": {"quota": 500}}"#, &["cpu.max=500 100000"]),
        ("cpu", r#"{"cpu": {"quota": -1, "period": 1000, "burst": 9}}"#, &["cpu.max.burst=9", "cpu.max=max 1000"]),
        ("cpu", r#"{"cpu": {"realtimeRuntime": 5}}"#, &[]),
        ("cpuset", r#"{"cpu": {"cpus": "0", "mems": "1"}}"#, &["cpuset.cpus=0", "cpuset.mems=1"]),
        (
            "io",
            r#"{"blockIO": {"weight": 10, "leafWeight": 20, "weightDevice": [{"major": 8, "minor": 0, "weight": 1000}]}}"#,
            &["io.bfq.weight=10", "io.bfq.weight=8:0 1000"],
        ),
        (
            "io",
            r#"{"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 1, "rate": 5}, {"major": 8, "minor": 2, "rate": 0}]}}"#,
            &["io.max=8:1 rbps=5"],
        ),
        (
            "hugetlb",
            r#"{"hugepageLimits": [{"pageSize": "1GB", "limit": -1}]}"#,
            &["hugetlb.1GB.max=max", "hugetlb.1GB.rsvd.max=max"],
        ),
        ("net_cls", r#"{"network": {"classID": 1}}"#, &[]),
    ];

    #[test]
    fn resources_become_writes() {
        for (controller, json, expected) in CASES {
            assert_eq!(lines(controller, json).unwrap(), *expected, "{json}");
        }
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        let cases = [
            ("memory", r#"{"memory": {"swap": 5}}"#, "unable to set swap limit without memory limit"),
            ("memory", r#"{"memory": {"limit": 6, "swap": 5}}"#, "memory+swap limit should be >= memory limit"),
            ("memory", r#"{"memory": {"limit": -2, "swap": 5}}"#, "invalid memory value: -2"),
        ];
        for (controller, json, text) in cases {
            assert_eq!(lines(controller, json).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn shares_become_weights_on_a_curve() {
        let cases = [
            (0, 1),
            (2, 1),
            (3, 2),
            (100, 17),
            (512, 59),
            (1024, 100),
            (2048, 174),
            (262_144, 10_000),
            (1 << 40, 10_000),
        ];
        for (shares, expected) in cases {
            assert_eq!(weight(shares), expected, "{shares}");
        }
    }

    #[test]
    fn weights_of_devices_are_converted_where_there_is_no_bfq() {
        for (weight, expected) in [(10, "1"), (500, "4950"), (1000, "10000")] {
            let json = format!(r#"{{"blockIO": {{"weight": {weight}}}}}"#);
            let writes = writes("io", &serde_json::from_str(&json).unwrap()).unwrap();
            let Refusal::Otherwise(other) = &writes[0].refusal else { panic!("no other way") };
            assert_eq!((other.file.as_str(), other.value.as_str()), ("io.weight", expected));
        }
    }

    #[test]
    fn use_is_checked_when_that_is_asked_for() {
        let check = |json: &str| usage_check(&serde_json::from_str(json).unwrap());
        assert_eq!(check(r#"{"memory": {"limit": 5}}"#), None);
        assert_eq!(check(r#"{"memory": {"limit": -1, "checkBeforeUpdate": true}}"#), None);
        let expected = UsageCheck { memory: Some(5), memory_and_swap: None };
        assert_eq!(check(r#"{"memory": {"limit": 5, "swap": -1, "checkBeforeUpdate": true}}"#), Some(expected));
    }
}
