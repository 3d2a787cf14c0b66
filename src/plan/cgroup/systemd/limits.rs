//! Limits in the words of a unit's properties: those of `linux.resources`, and files of the cgroup that have a property.

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use super::{Property, Value, Version};
use crate::error::{Error, Result};
use crate::plan::cgroup::{v1, v2};
use crate::plan::number_list;

/// What systemd takes for no limit.
pub(super) const NO_LIMIT: u64 = u64::MAX;

/// Returns what of `resources` systemd has words for.
pub fn limits(version: Version, resources: &LinuxResources) -> Result<Vec<Property>> {
    let mut limits = Vec::new();
    if let Some(asked) = resources.memory() {
        memory(version, asked, &mut limits)?;
    }
    if let Some(asked) = resources.cpu() {
        cpu(version, asked, &mut limits)?;
    }
    let weight = resources.block_io().as_ref().and_then(|io| io.weight()).filter(|weight| *weight != 0);
    if let (Some(weight), Version::V1) = (weight, version) {
        limits.push(Property::number("BlockIOWeight", weight.into()));
    }
    // What the file takes: a number, or no limit.
    let tasks = resources.pids().map(|pids| v1::pids_max(pids.limit()).value.parse().unwrap_or(NO_LIMIT));
    limits.extend(tasks.map(|tasks| Property::number("TasksMax", tasks)));
    if let (Some(unified), Version::V2) = (resources.unified(), version) {
        let mut entries: Vec<_> = unified.iter().collect();
        entries.sort();
        for (file, value) in entries {
            from_file(file, value, &mut limits)?;
        }
        if v2::is_idle(unified) {
            add_idle((v2::WEIGHT, "cpu.idle"), unified.contains_key(v2::WEIGHT), &mut limits);
        }
    }
    Ok(limits)
}

fn memory(version: Version, memory: &LinuxMemory, limits: &mut Vec<Property>) -> Result<()> {
    let amount = |value: i64| u64::try_from(value).unwrap_or(NO_LIMIT);
    let limit = memory.limit().unwrap_or(0);
    let max = if version == Version::V2 { "MemoryMax" } else { "MemoryLimit" };
    limits.extend((limit != 0).then(|| Property::number(max, amount(limit))));
    if version == Version::V2 {
        let low = memory.reservation().filter(|low| *low != 0);
        limits.extend(low.map(|low| Property::number("MemoryLow", amount(low))));
        let swap = v2::swap_max(memory.swap().unwrap_or(0), limit)?;
        limits.extend(swap.map(|swap| Property::number("MemorySwapMax", amount(swap))));
    }
    Ok(())
}

fn cpu(version: Version, cpu: &LinuxCpu, limits: &mut Vec<Property>) -> Result<()> {
    let shares = cpu.shares().filter(|shares| *shares != 0);
    match version {
        Version::V2 => {
            limits.extend(shares.map(|shares| Property::number("CPUWeight", v2::weight(shares))));
            if cpu.idle() == Some(1) {
                add_idle(("CPUWeight", "CpuIdle"), shares.is_some(), limits);
            }
        }
        Version::V1 => limits.extend(shares.map(|shares| Property::number("CPUShares", shares))),
    }
    quota(cpu.quota().unwrap_or(0), cpu.period().unwrap_or(0), limits);
    for (name, list) in [("AllowedCPUs", cpu.cpus()), ("AllowedMemoryNodes", cpu.mems())] {
        if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
            limits.push(Property::new(name, Value::Bytes(bits(list)?)));
        }
    }
    Ok(())
}

/// Adds the weight of 0 that makes a cgroup idle; it counts in the place of one before it.
fn add_idle((weight, idle): (&str, &str), has_weight: bool, limits: &mut Vec<Property>) {
    if has_weight {
        log::warn!("unable to apply both {weight} and {idle} to systemd, ignoring {weight}");
    }
    limits.push(Property::number("CPUWeight", 0).since(252));
}

/// Adds a quota of cpu time, which is not limited if it is negative.
fn quota(quota: i64, period: u64, limits: &mut Vec<Property>) {
    limits.extend((period != 0).then(|| Property::number("CPUQuotaPeriodUSec", period)));
    if quota != 0 || period != 0 {
        limits.push(Property::number("CPUQuotaPerSecUSec", per_second(quota, period).unwrap_or(NO_LIMIT)));
    }
}

/// Returns a quota for a second, if it is limited.
///
/// systemd keeps whole percents. It has to be the next larger one, or a cgroup below could not have the quota asked for.
fn per_second(quota: i64, period: u64) -> Option<u64> {
    const PERCENT: u64 = 10_000;
    let quota = u64::try_from(quota).ok().filter(|quota| *quota != 0)?;
    Some((quota.saturating_mul(SECOND) / usual(period)).checked_next_multiple_of(PERCENT).unwrap_or(NO_LIMIT))
}

/// Returns resources with the quota of cpu time that systemd will write when it next looks at the unit.
pub fn rounded(resources: &LinuxResources) -> LinuxResources {
    let mut resources = resources.clone();
    if let Some(cpu) = resources.cpu_mut() {
        let (quota, period) = (cpu.quota().unwrap_or(0), cpu.period().unwrap_or(0));
        let written =
            |per_second: u64| (u128::from(per_second) * u128::from(usual(period)) / u128::from(SECOND)) as i64;
        if let Some(per_second) = per_second(quota, period) {
            cpu.set_quota(Some(written(per_second).max(quota)));
        }
    }
    resources
}

/// In microseconds.
const SECOND: u64 = 1_000_000;

fn usual(period: u64) -> u64 {
    if period == 0 { v2::DEFAULT_PERIOD } else { period }
}

/// Returns a list such as `0-2,5` as bits, the lowest first.
pub(super) fn bits(list: &str) -> Result<Vec<u8>> {
    let numbers = number_list::parse(list).filter(|numbers| !numbers.is_empty());
    let numbers = numbers.ok_or_else(|| Error::invalid(format!("invalid list of cpus or memory nodes: {list:?}")))?;
    let mut bits: Vec<u8> = number_list::mask(&numbers).into_iter().flat_map(u64::to_le_bytes).collect();
    bits.truncate(bits.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    Ok(bits)
}

/// Adds what a file of `linux.resources.unified` means, if systemd has a word for it.
fn from_file(file: &str, value: &str, limits: &mut Vec<Property>) -> Result<()> {
    let invalid = || no_value(file, value);
    let number = |text: &str| text.trim().parse::<u64>().map_err(|_| invalid());
    let amount = |text: &str| if text.trim() == "max" { Ok(NO_LIMIT) } else { number(text) };
    let name = match file {
        "cpu.max" => {
            let mut words = value.split_whitespace();
            let most = amount(words.next().ok_or_else(invalid)?)?;
            let period = words.next().map_or(Ok(v2::DEFAULT_PERIOD), number)?;
            if words.next().is_some() {
                return Err(Error::invalid(format!("unified resource {file:?} value invalid: {value:?}")));
            }
            quota(i64::try_from(most).unwrap_or(-1), period, limits);
            return Ok(());
        }
        "cpuset.cpus" | "cpuset.mems" => {
            let name = if file == "cpuset.cpus" { "AllowedCPUs" } else { "AllowedMemoryNodes" };
            limits.push(Property::new(name, Value::Bytes(bits(value)?)));
            return Ok(());
        }
        v2::WEIGHT => {
            limits.push(Property::number("CPUWeight", number(value)?));
            return Ok(());
        }
        "memory.high" => "MemoryHigh",
        "memory.low" => "MemoryLow",
        "memory.min" => "MemoryMin",
        "memory.max" => "MemoryMax",
        "memory.swap.max" => "MemorySwapMax",
        "pids.max" => "TasksMax",
        _ => return Ok(()),
    };
    limits.push(Property::number(name, amount(value)?));
    Ok(())
}

/// Returns the error of a file that cannot have a value.
pub(super) fn no_value(file: &str, value: &str) -> Error {
    Error::invalid(format!("unified resource {file:?} value conversion error: {value:?}"))
}
