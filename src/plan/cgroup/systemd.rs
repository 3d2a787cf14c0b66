//! A container's cgroup as a unit of systemd: which unit in which slice, and resources in the words of its properties
//! (systemd.resource-control(5)).
//!
//! systemd is told what it has words for, since it would else undo it when it next looks at the unit; the files of the
//! cgroup are written nonetheless, as for any other cgroup, since they have more words. Names, rounding and errors are
//! runc's. Limits are in `limits`, what annotations ask for in `annotation`.

mod annotation;
mod limits;

use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;

use super::{CgroupPlan, DeviceAccess, Layout, OwnCgroup, Rules, Version};
use crate::error::{Error, Result};

pub use annotation::properties as annotated;
pub use limits::{limits, rounded};

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
    /// The cgroup below the scope that the container is put in.
    pub subgroup: Option<&'a Path>,
}

/// Plans the cgroup of a container as a unit of systemd.
pub fn plan(layout: &Layout, host: &Host, asked: Asked<'_>) -> Result<CgroupPlan> {
    if host.is_user && !matches!(layout, Layout::V2(_)) {
        return Err(Error::invalid("the user's own systemd can make cgroups for containers on cgroup v2 only"));
    }
    let names = Names::parse(asked.path, asked.id, host.is_user)?;
    let below = expand(&names.slice)?;
    let mut path = Path::new("/").join(&host.root).join(below.strip_prefix("/").unwrap_or(&below)).join(&names.unit);
    if let Some(subgroup) = asked.subgroup {
        if subgroup.ends_with(&names.unit) {
            return Err(Error::invalid(format!("cgroup {} below a scope has the scope's name", subgroup.display())));
        }
        path.push(subgroup);
    }
    let resources = asked.resources.map(rounded);
    let mut plan = super::plan(layout, &OwnCgroup::default(), Some(&path), asked.id, resources.as_ref())?;
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
        unit.properties.extend(devices(rules));
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
    let policy = match value.trim().parse::<u64>().map_err(|_| limits::no_value(FILE, value))? {
        0 => "continue",
        1 => "kill",
        _ => return Ok(None),
    };
    Ok(Some(Property::new("OOMPolicy", Value::Text(policy.to_owned())).since(253)))
}

/// Returns the rules for the v1 controller as properties. Without them systemd would allow all devices when it next
/// looks at the unit; on v2 it has a program of its own, beside ours.
fn devices(rules: &Rules) -> Vec<Property> {
    let policy = |policy: &str| Property::new("DevicePolicy", Value::Text(policy.to_owned()));
    let allowed = match (rules.default_allow, rules.exceptions.is_empty()) {
        (true, true) => return vec![policy("auto")],
        (true, false) => {
            log::warn!("systemd doesn't support blacklist device rules -- applying temporary deny-all rule");
            Vec::new()
        }
        (false, _) => rules.exceptions.iter().filter_map(|rule| device(rule)).collect(),
    };
    vec![policy("strict"), Property::new("DeviceAllow", Value::Pairs(allowed))]
}

/// Returns systemd's words for an exception such as `c 1:3 rwm`, if it has any.
fn device(rule: &str) -> Option<(String, String)> {
    let mut words = rule.split([' ', ':']);
    let (kind, major, minor, access) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let kind = if kind == "b" { "block" } else { "char" };
    let name = match (major, minor) {
        (_, "*") => format!("{kind}-{major}"),
        ("*", _) => {
            log::warn!("systemd doesn't support '*:n' device rules -- temporarily ignoring rule: {rule}");
            return None;
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

/// Returns the user whose slice a cgroup is in.
pub fn owner_of(cgroup: &OwnCgroup) -> Option<u32> {
    let path = cgroup.path("").filter(|path| *path != Path::new("/")).or_else(|| cgroup.path("name=systemd"))?;
    path.iter().find_map(|name| name.to_str()?.strip_prefix("user-")?.strip_suffix(SLICE)?.parse().ok())
}

#[cfg(test)]
mod tests;
