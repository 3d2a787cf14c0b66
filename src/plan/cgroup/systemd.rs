//! A container's cgroup as a unit of systemd: which unit in which slice, and resources in the words of its properties
//! (systemd.resource-control(5)).
//!
//! systemd is told what it has words for, since it would else undo it when it next looks at the unit; the files of the
//! cgroup are written nonetheless, as for any other cgroup, since they have more words. Names, rounding and errors are
//! runc's.

mod annotation;

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use super::{CgroupPlan, DeviceAccess, Layout, OwnCgroup, Rules, Version, v1, v2};
use crate::error::{Error, Result};
use crate::plan::number_list;

pub use annotation::properties as annotated;

/// What systemd takes for no limit.
const NO_LIMIT: u64 = u64::MAX;

/// A value in one of the types that properties have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Value {
    /// A number or a boolean, with D-Bus's letter for its type.
    Number(char, u64),
    /// A string.
    Text(String),
    /// Strings.
    Texts(Vec<String>),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Process ids.
    Pids(Vec<u32>),
    /// Pairs of strings.
    Pairs(Vec<(String, String)>),
}

/// A property of a unit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Property {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Value,
    /// The version of systemd that knows it, if it may be newer than the kernel that we ask for is: with an older one
    /// it is left out.
    pub since: u32,
}

impl Property {
    /// Makes one that every systemd knows.
    pub fn new(name: &str, value: Value) -> Self {
        Self { name: name.to_owned(), value, since: 0 }
    }

    fn flag(name: &str, value: bool) -> Self {
        Self::new(name, Value::Number('b', value.into()))
    }

    fn number(name: &str, value: u64) -> Self {
        Self::new(name, Value::Number('t', value))
    }

    fn since(mut self, version: u32) -> Self {
        self.since = version;
        self
    }
}

/// Which systemd is asked.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Host {
    /// Whether it is the user's own.
    pub is_user: bool,
    /// The cgroup below which its units are.
    pub root: PathBuf,
    /// The text of /proc/devices, which it takes its groups of devices from; asked for on v1 only.
    pub devices: String,
}

/// A unit that is made, or changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unit {
    /// Its name, which is that of a scope.
    pub name: String,
    /// Whether it is the user's own systemd's.
    pub is_user: bool,
    /// What it is made with.
    pub properties: Vec<Property>,
    /// What is set when the container's init is in it.
    pub limits: Vec<Property>,
}

const SLICE: &str = ".slice";

/// The slice that all others are in.
const ROOT_SLICE: &str = "-.slice";

/// What of the configuration decides about a unit.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// `linux.cgroupsPath`.
    pub path: Option<&'a Path>,
    /// The container's name.
    pub id: &'a str,
    /// `linux.resources`.
    pub resources: Option<&'a LinuxResources>,
    /// Properties of annotations, which win over those that every unit has. Limits win over them.
    pub annotated: Vec<Property>,
}

/// Plans the cgroup of a container as a unit of systemd.
pub fn plan(layout: &Layout, host: &Host, asked: Asked<'_>) -> Result<CgroupPlan> {
    if host.is_user && !matches!(layout, Layout::V2(_)) {
        return Err(Error::invalid("the user's own systemd can make cgroups for containers on cgroup v2 only"));
    }
    let names = Names::parse(asked.path, asked.id, host.is_user)?;
    let below = expand(&names.slice)?;
    let path = Path::new("/").join(&host.root).join(below.strip_prefix("/").unwrap_or(&below)).join(&names.unit);
    let mut plan = super::plan(layout, &OwnCgroup::default(), Some(&path), asked.id, asked.resources)?;
    let version = if matches!(layout, Layout::V2(_)) { Version::V2 } else { Version::V1 };
    let limits = asked.resources.map(|resources| limits(version, resources)).transpose()?.unwrap_or_default();
    let properties = surroundings(asked.id, &names.slice, version);
    let mut unit = Unit { name: names.unit, is_user: host.is_user, properties, limits: Vec::new() };
    let is_asked = |property: &Property| asked.annotated.iter().any(|other| other.name == property.name);
    unit.properties.retain(|property| !is_asked(property));
    // Of two with one name the later one counts.
    unit.properties.extend(asked.annotated);
    if let (Some(resources), Version::V2) = (asked.resources, version) {
        unit.properties.extend(oom_policy(resources)?);
    }
    // Whoever holds the scope until init is in it counts as well.
    let alone = |property: &Property| property.name == "TasksMax" && property.value == Value::Number('t', 1);
    (unit.limits, _) = limits.iter().cloned().partition(alone);
    unit.properties.extend(limits.into_iter().filter(|property| !alone(property)));
    if let DeviceAccess::Rules(rules) = &plan.devices {
        unit.properties.extend(devices(rules, &host.devices));
    }
    plan.unit = Some(unit);
    Ok(plan)
}

/// Returns the properties of a unit that has no limits.
fn surroundings(id: &str, slice: &str, version: Version) -> Vec<Property> {
    let mut properties = vec![
        Property::new("Description", Value::Text(format!("container {id}"))),
        Property::new("Slice", Value::Text(slice.to_owned())),
        Property::flag("Delegate", true),
    ];
    let io = if version == Version::V2 { "IOAccounting" } else { "BlockIOAccounting" };
    // The memory of what joins before the accounting begins is never counted.
    let accounting = ["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"];
    properties.extend(accounting.map(|name| Property::flag(name, true)));
    // Else a shutdown would end the container before the engine that looks after it.
    properties.push(Property::flag("DefaultDependencies", false));
    properties
}

/// Returns what systemd does when the kernel has ended a process for lack of memory. It takes this when the unit starts,
/// and not later.
fn oom_policy(resources: &LinuxResources) -> Result<Option<Property>> {
    const FILE: &str = "memory.oom.group";
    let Some(value) = resources.unified().as_ref().and_then(|unified| unified.get(FILE)) else { return Ok(None) };
    let policy = match value.trim().parse::<u64>().map_err(|_| no_value(FILE, value))? {
        0 => "continue",
        1 => "kill",
        _ => return Ok(None),
    };
    Ok(Some(Property::new("OOMPolicy", Value::Text(policy.to_owned())).since(253)))
}

/// Returns the rules for the v1 controller as properties. Without them systemd would allow all devices when it next
/// looks at the unit; on v2 it has a program of its own, beside ours.
fn devices(rules: &Rules, groups: &str) -> Vec<Property> {
    let policy = if rules.default_allow { "auto" } else { "strict" };
    let mut properties = vec![Property::new("DevicePolicy", Value::Text(policy.to_owned()))];
    if !rules.default_allow {
        let allowed = rules.exceptions.iter().filter_map(|rule| device(rule, groups)).collect();
        properties.push(Property::new("DeviceAllow", Value::Pairs(allowed)));
    }
    properties
}

/// Returns systemd's words for an exception such as `c 1:3 rwm`. A group of devices goes by its driver's name, and there
/// is none if no driver is there.
fn device(rule: &str, groups: &str) -> Option<(String, String)> {
    let mut words = rule.split([' ', ':']);
    let (kind, major, minor, access) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let (kind, title) = if kind == "b" { ("block", "Block devices:") } else { ("char", "Character devices:") };
    let name = match (major, minor) {
        ("*", "*") => format!("{kind}-*"),
        (_, "*") => {
            let mut lines =
                groups.lines().skip_while(|line| *line != title).skip(1).take_while(|line| !line.is_empty());
            let driver = lines.find_map(|line| line.trim_start().strip_prefix(major)?.strip_prefix(' '))?;
            format!("{kind}-{driver}")
        }
        _ => format!("/dev/{kind}/{major}:{minor}"),
    };
    Some((name, access.to_owned()))
}

/// What `linux.cgroupsPath` names.
struct Names {
    slice: String,
    unit: String,
}

impl Names {
    /// Reads `slice:prefix:name`.
    fn parse(path: Option<&Path>, id: &str, is_user: bool) -> Result<Self> {
        let text = path.map(Path::to_string_lossy).filter(|text| !text.is_empty());
        let text = text.unwrap_or_else(|| format!(":{}:{id}", env!("CARGO_PKG_NAME")).into());
        let [slice, prefix, name] = text.split(':').collect::<Vec<_>>()[..] else {
            let form = "\"slice:prefix:name\" for systemd cgroups";
            return Err(Error::invalid(format!("expected cgroupsPath to be of format {form}, got {text:?} instead")));
        };
        let slice = match slice {
            "" if is_user => "user.slice",
            "" => "system.slice",
            "-" => ROOT_SLICE,
            given => given,
        };
        if name.ends_with(SLICE) {
            // As with runc, whose systemd says so: one may be there, with others in it who would end with the container.
            return Err(Error::invalid(format!("unable to start unit {name:?}: a slice takes no processes")));
        }
        let unit = format!("{prefix}-{name}.scope");
        if unit.contains('/') {
            return Err(Error::invalid(format!("invalid unit name: {unit}")));
        }
        Ok(Self { slice: slice.to_owned(), unit })
    }
}

/// Returns the path of a slice: `a-b.slice` is in `a.slice`, and `-.slice` is all of them.
fn expand(slice: &str) -> Result<PathBuf> {
    let invalid = || Error::invalid(format!("invalid slice name: {slice}"));
    let name = slice.strip_suffix(SLICE).filter(|name| !name.is_empty() && !name.contains('/')).ok_or_else(invalid)?;
    let mut path = PathBuf::from("/");
    if slice == ROOT_SLICE {
        return Ok(path);
    }
    let mut prefix = String::new();
    for part in name.split('-') {
        if part.is_empty() {
            return Err(invalid());
        }
        path.push(format!("{prefix}{part}{SLICE}"));
        prefix = format!("{prefix}{part}-");
    }
    Ok(path)
}

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
///
/// systemd keeps whole percents. It has to be the next larger one, or a cgroup below could not have the quota asked for.
fn quota(quota: i64, period: u64, limits: &mut Vec<Property>) {
    const PERCENT: u64 = 10_000;
    limits.extend((period != 0).then(|| Property::number("CPUQuotaPeriodUSec", period)));
    if quota == 0 && period == 0 {
        return;
    }
    let period = if period == 0 { v2::DEFAULT_PERIOD } else { period };
    let per_second = match u64::try_from(quota) {
        Ok(quota @ 1..) => (quota.saturating_mul(1_000_000) / period).next_multiple_of(PERCENT),
        _ => NO_LIMIT,
    };
    limits.push(Property::number("CPUQuotaPerSecUSec", per_second));
}

/// Returns a list such as `0-2,5` as bits, the lowest first.
fn bits(list: &str) -> Result<Vec<u8>> {
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

fn no_value(file: &str, value: &str) -> Error {
    Error::invalid(format!("unified resource {file:?} value conversion error: {value:?}"))
}

#[cfg(test)]
mod tests;
