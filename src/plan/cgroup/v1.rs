//! Resources in the words of the cgroup v1 controllers (Documentation/admin-guide/cgroup-v1 of the
//! kernel).
//!
//! Values pass through as config.json has them, since its units are those of v1; what the kernel
//! would silently change is refused here, as runc refuses it after reading it back.

use std::collections::HashMap;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxRdma, LinuxResources, LinuxThrottleDevice};

use super::{Refusal, Write};
use crate::error::{Error, Result};

/// Returns what `resources` asks of `controller`.
pub(super) fn writes(controller: &str, resources: &LinuxResources) -> Result<Vec<Write>> {
    Ok(match controller {
        "pids" => resources.pids().map(|pids| pids_max(pids.limit())).into_iter().collect(),
        "memory" => resources.memory().as_ref().map(memory).transpose()?.unwrap_or_default(),
        "blkio" => resources.block_io().as_ref().map(blkio).unwrap_or_default(),
        "cpu" => resources.cpu().as_ref().map(cpu).transpose()?.unwrap_or_default(),
        "cpuset" => resources.cpu().as_ref().map(cpuset).unwrap_or_default(),
        "hugetlb" => hugetlb(resources, "limit_in_bytes", |limit| limit.to_string())?,
        "net_cls" => {
            let class = resources.network().as_ref().and_then(|network| network.class_id()).filter(|class| *class != 0);
            class.map(|class| Write::new("net_cls", "net_cls.classid", class)).into_iter().collect()
        }
        "net_prio" => net_prio(resources),
        "rdma" => resources.rdma().as_ref().map(rdma).unwrap_or_default(),
        _ => Vec::new(),
    })
}

/// The same file in both interfaces. No processes at all cannot be meant by 0, which as a limit
/// would only stop the container from being made: runc takes it for 1.
pub(super) fn pids_max(limit: i64) -> Write {
    let value = match limit {
        0 => "1".to_owned(),
        1.. => limit.to_string(),
        _ => "max".to_owned(),
    };
    Write::new("pids", "pids.max", value)
}

fn memory(memory: &LinuxMemory) -> Result<Vec<Write>> {
    if memory.kernel().is_some() || memory.kernel_tcp().is_some() {
        log::warn!("kernel memory limits are ignored: the kernel no longer has them");
    }
    let mut writes = Vec::new();
    let limit = memory.limit().filter(|limit| *limit != 0);
    let swap = memory.swap().filter(|swap| *swap != 0);
    if let Some(limit) = limit {
        // The kernel keeps memory <= memory+swap at every moment, so an increase of both has to
        // begin with the latter.
        writes.push(Write::new("memory", "memory.limit_in_bytes", limit).refused(Refusal::TryLater));
    }
    match (limit, swap) {
        // Without a limit of memory there is nothing to limit swap for. The file is absent with
        // swapaccount=0.
        (_, Some(-1)) | (Some(-1), None) => {
            writes.push(Write::new("memory", "memory.memsw.limit_in_bytes", -1).refused(Refusal::MayBeAbsent));
        }
        (_, Some(swap)) => writes.push(Write::new("memory", "memory.memsw.limit_in_bytes", swap)),
        _ => {}
    }
    if let Some(reservation) = memory.reservation().filter(|reservation| *reservation != 0) {
        writes.push(Write::new("memory", "memory.soft_limit_in_bytes", reservation));
    }
    if memory.disable_oom_killer() == Some(true) {
        writes.push(Write::new("memory", "memory.oom_control", 1));
    }
    match memory.swappiness() {
        // An unsigned -1, which some clients write for "as it is".
        None | Some(u64::MAX) => {}
        Some(swappiness @ 0..=100) => writes.push(Write::new("memory", "memory.swappiness", swappiness)),
        Some(swappiness) => {
            return Err(Error::invalid(format!(
                "invalid memory swappiness value: {swappiness} (valid range is 0-100)"
            )));
        }
    }
    Ok(writes)
}

fn cpu(cpu: &LinuxCpu) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    let file = |name: &str, value: String| Write::new("cpu", name, value);
    let is_idle = cpu.idle().is_some_and(|idle| idle != 0);
    if let Some(idle) = cpu.idle() {
        writes.push(file("cpu.idle", idle.to_string()));
    }
    // The kernel refuses shares for an idle cgroup, and moves shares silently into its range.
    match cpu.shares().filter(|shares| *shares != 0 && !is_idle) {
        None => {}
        Some(1) => return Err(Error::invalid("the minimum allowed cpu-shares is 2")),
        Some(shares) if shares > 1 << 18 => {
            return Err(Error::invalid(format!("the maximum allowed cpu-shares is {}", 1 << 18)));
        }
        Some(shares) => writes.push(file("cpu.shares", shares.to_string())),
    }
    // Period, burst and quota are checked against each other and against the parent at every write.
    let period = cpu.period().filter(|period| *period != 0);
    writes.extend(period.map(|period| file("cpu.cfs_period_us", period.to_string()).refused(Refusal::TryLater)));
    writes.extend(cpu.burst().map(|burst| file("cpu.cfs_burst_us", burst.to_string()).refused(Refusal::TryLater)));
    let quota = cpu.quota().filter(|quota| *quota != 0);
    writes.extend(quota.map(|quota| file("cpu.cfs_quota_us", quota.to_string())));
    let period = cpu.realtime_period().filter(|period| *period != 0);
    writes.extend(period.map(|period| file("cpu.rt_period_us", period.to_string()).refused(Refusal::TryLater)));
    let runtime = cpu.realtime_runtime().filter(|runtime| *runtime != 0);
    writes.extend(runtime.map(|runtime| file("cpu.rt_runtime_us", runtime.to_string())));
    Ok(writes)
}

/// The same files in both interfaces.
pub(super) fn cpuset(cpu: &LinuxCpu) -> Vec<Write> {
    let files = [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())];
    let asked = files.into_iter().filter_map(|(file, list)| Some((file, list.as_deref()?)));
    asked.filter(|(_, list)| !list.is_empty()).map(|(file, list)| Write::new("cpuset", file, list)).collect()
}

fn blkio(io: &LinuxBlockIo) -> Vec<Write> {
    // "blkio.weight" was CFQ's and left the kernel with it (5.0); BFQ has its own. What is left is
    // taken.
    let either = |name: &str, value: String| {
        let bfq = Write::new("blkio", name.replacen("blkio.", "blkio.bfq.", 1), value.clone());
        Write::new("blkio", name, value).refused(Refusal::Otherwise(Box::new(bfq)))
    };
    let mut writes = Vec::new();
    writes.extend(io.weight().filter(|weight| *weight != 0).map(|weight| either("blkio.weight", weight.to_string())));
    let leaf = io.leaf_weight().filter(|weight| *weight != 0);
    writes.extend(leaf.map(|weight| Write::new("blkio", "blkio.leaf_weight", weight)));
    for device in io.weight_device().iter().flatten() {
        let value = |weight: u16| format!("{}:{} {weight}", device.major(), device.minor());
        let weight = device.weight().filter(|weight| *weight != 0);
        writes.extend(weight.map(|weight| either("blkio.weight_device", value(weight))));
        let leaf = device.leaf_weight().filter(|weight| *weight != 0);
        writes.extend(leaf.map(|weight| Write::new("blkio", "blkio.leaf_weight_device", value(weight))));
    }
    let mut throttle = |file: &str, devices: &Option<Vec<LinuxThrottleDevice>>| {
        for device in devices.iter().flatten() {
            let value = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            writes.push(Write::new("blkio", file, value));
        }
    };
    throttle("blkio.throttle.read_bps_device", io.throttle_read_bps_device());
    throttle("blkio.throttle.write_bps_device", io.throttle_write_bps_device());
    throttle("blkio.throttle.read_iops_device", io.throttle_read_iops_device());
    throttle("blkio.throttle.write_iops_device", io.throttle_write_iops_device());
    writes
}

/// A limit of pages in use and one of pages reserved, where the kernel has the latter (5.7), as
/// runc sets both.
pub(super) fn hugetlb(resources: &LinuxResources, suffix: &str, value: fn(i64) -> String) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    for limit in resources.hugepage_limits().iter().flatten() {
        let size = limit.page_size();
        if size.is_empty() || !size.chars().all(|letter| letter.is_ascii_alphanumeric()) {
            return Err(Error::invalid(format!("invalid huge page size {size:?}")));
        }
        writes.push(Write::new("hugetlb", format!("hugetlb.{size}.{suffix}"), value(limit.limit())));
        let reserved = Write::new("hugetlb", format!("hugetlb.{size}.rsvd.{suffix}"), value(limit.limit()));
        writes.push(reserved.refused(Refusal::MayBeAbsent));
    }
    Ok(writes)
}

fn net_prio(resources: &LinuxResources) -> Vec<Write> {
    let priorities = resources.network().as_ref().and_then(|network| network.priorities().as_ref());
    let value = |name: &str, priority: u32| format!("{name} {priority}");
    let entries = priorities.into_iter().flatten().map(|entry| value(entry.name(), entry.priority()));
    entries.map(|value| Write::new("net_prio", "net_prio.ifpriomap", value)).collect()
}

/// The same file in both interfaces.
pub(super) fn rdma(limits: &HashMap<String, LinuxRdma>) -> Vec<Write> {
    let mut devices: Vec<_> = limits.iter().collect();
    devices.sort_by_key(|(name, _)| *name);
    let mut writes = Vec::new();
    for (name, limit) in devices {
        let handles = limit.hca_handles().map(|count| format!(" hca_handle={count}")).unwrap_or_default();
        let objects = limit.hca_objects().map(|count| format!(" hca_object={count}")).unwrap_or_default();
        if !(handles.is_empty() && objects.is_empty()) {
            writes.push(Write::new("rdma", "rdma.max", format!("{name}{handles}{objects}")));
        }
    }
    writes
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
        ("pids", r#"{"pids": {"limit": 7}}"#, &["pids.max=7"]),
        ("pids", r#"{"pids": {"limit": -1}}"#, &["pids.max=max"]),
        ("pids", r#"{"pids": {"limit": 0}}"#, &["pids.max=1"]),
        ("memory", r#"{"memory": {"limit": 8192}}"#, &["memory.limit_in_bytes=8192"]),
        (
            "memory",
            r#"{"memory": {"limit": 8192, "swap": 9000, "reservation": 7000}}"#,
            &["memory.limit_in_bytes=8192", "memory.memsw.limit_in_bytes=9000", "memory.soft_limit_in_bytes=7000"],
        ),
        ("memory", r#"{"memory": {"limit": -1}}"#, &["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1"]),
        ("memory", r#"{"memory": {"limit": 0, "swap": 0, "kernel": 5}}"#, &[]),
        (
            "memory",
            r#"{"memory": {"disableOOMKiller": true, "swappiness": 0}}"#,
            &["memory.oom_control=1", "memory.swappiness=0"],
        ),
        ("memory", r#"{"memory": {"disableOOMKiller": false, "useHierarchy": true}}"#, &[]),
        (
            "cpu",
            r#"{"cpu": {"shares": 2, "quota": -1, "period": 1000, "burst": 0}}"#,
            &["cpu.shares=2", "cpu.cfs_period_us=1000", "cpu.cfs_burst_us=0", "cpu.cfs_quota_us=-1"],
        ),
        ("cpu", r#"{"cpu": {"shares": 2, "idle": 1}}"#, &["cpu.idle=1"]),
        (
            "cpu",
            r#"{"cpu": {"realtimeRuntime": 5, "realtimePeriod": 6}}"#,
            &["cpu.rt_period_us=6", "cpu.rt_runtime_us=5"],
        ),
        ("cpuset", r#"{"cpu": {"cpus": "0-1", "mems": ""}}"#, &["cpuset.cpus=0-1"]),
        ("blkio", r#"{"blockIO": {"weight": 10, "leafWeight": 20}}"#, &["blkio.weight=10", "blkio.leaf_weight=20"]),
        (
            "blkio",
            r#"{"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 10, "leafWeight": 20}]}}"#,
            &["blkio.weight_device=8:0 10", "blkio.leaf_weight_device=8:0 20"],
        ),
        (
            "blkio",
            r#"{"blockIO": {"throttleWriteIOPSDevice": [{"major": 8, "minor": 1, "rate": 0}]}}"#,
            &["blkio.throttle.write_iops_device=8:1 0"],
        ),
        (
            "hugetlb",
            r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 4}]}"#,
            &["hugetlb.2MB.limit_in_bytes=4", "hugetlb.2MB.rsvd.limit_in_bytes=4"],
        ),
        ("net_cls", r#"{"network": {"classID": 1048577}}"#, &["net_cls.classid=1048577"]),
        (
            "net_prio",
            r#"{"network": {"priorities": [{"name": "eth0", "priority": 5}]}}"#,
            &["net_prio.ifpriomap=eth0 5"],
        ),
        (
            "rdma",
            r#"{"rdma": {"b": {"hcaObjects": 2}, "a": {"hcaHandles": 1, "hcaObjects": 3}, "c": {}}}"#,
            &["rdma.max=a hca_handle=1 hca_object=3", "rdma.max=b hca_object=2"],
        ),
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
            (
                "memory",
                r#"{"memory": {"swappiness": 101}}"#,
                "invalid memory swappiness value: 101 (valid range is 0-100)",
            ),
            ("cpu", r#"{"cpu": {"shares": 1}}"#, "the minimum allowed cpu-shares is 2"),
            ("cpu", r#"{"cpu": {"shares": 262145}}"#, "the maximum allowed cpu-shares is 262144"),
            ("hugetlb", r#"{"hugepageLimits": [{"pageSize": "../x", "limit": 4}]}"#, "invalid huge page size \"../x\""),
        ];
        for (controller, json, text) in cases {
            assert_eq!(lines(controller, json).unwrap_err().to_string(), text);
        }
    }
}
