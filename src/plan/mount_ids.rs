//! Id-mapped mounts: as whose the files of a bind mount appear in the container (config.md "mounts", mount_setattr(2)).

use super::idmap::{IdMap, IdMaps, Range};
use super::namespaces::{Kind, Namespace, of};
use super::process::cstring;
use crate::error::{Error, Result};
use oci_spec::runtime::{Linux, Mount};
use std::ffi::CString;

/// As whose the files of a mount appear.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MountIds {
    /// Which ids become which.
    pub ids: Ids,
    /// Whether it holds for the mounts below too.
    pub recursive: bool,
}

/// Which ids become which: "inside" are those on the file system, "outside" those that the host sees.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ids {
    /// As these maps say.
    Maps(IdMaps),
    /// As the maps of the user namespace at this path say.
    Namespace(CString),
}

/// What the options `idmap` and `ridmap` ask for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MappingOption {
    /// Whether the mounts below are meant too.
    pub recursive: bool,
    /// Maps of its own, in Podman's words.
    pub maps: Option<String>,
}

/// Returns the ids of a container's user namespace, which a mapped mount has that names no others.
pub fn of_container(linux: &Linux) -> Result<Option<Ids>> {
    match of(linux, Kind::User) {
        Namespace::Host => Ok(None),
        Namespace::Private => Ok(super::idmap::plan(linux)?.map(Ids::Maps)),
        Namespace::Joined(path) => cstring(path.as_os_str(), "namespace").map(Ids::Namespace).map(Some),
    }
}

/// Plans the ids of a mount; the words are runc's.
pub fn plan(
    mount: &Mount,
    is_bind: bool,
    option: Option<&MappingOption>,
    container: Option<&Ids>,
) -> Result<Option<MountIds>> {
    let maps = [mount.uid_mappings(), mount.gid_mappings()].map(|maps| maps.as_deref().unwrap_or_default());
    if option.is_none() && maps.iter().all(|maps| maps.is_empty()) {
        return Ok(None);
    }
    if !is_bind {
        return Err(Error::invalid("id-mapped mounts are only supported for bind-mounts"));
    }
    let recursive = option.is_some_and(|option| option.recursive);
    let [users, groups] = maps.map(IdMap::new);
    let ids = match option.and_then(|option| option.maps.as_deref()) {
        Some(text) => Ids::Maps(parse(text, container)?),
        None if users.ranges().is_empty() && groups.ranges().is_empty() => container.cloned().ok_or_else(incomplete)?,
        None => Ids::Maps(IdMaps { users, groups }),
    };
    match &ids {
        Ids::Maps(maps) if maps.users.ranges().is_empty() || maps.groups.ranges().is_empty() => Err(incomplete()),
        _ => Ok(Some(MountIds { ids, recursive })),
    }
}

fn incomplete() -> Error {
    Error::invalid("id-mapped mounts must have both uid and gid mappings specified")
}

/// Reads `uids=0-100000-1000#...;gids=...`: first id on the file system, first id on the host, how many. A `@` in front
/// makes the second one an id of the container's.
fn parse(text: &str, container: Option<&Ids>) -> Result<IdMaps> {
    let mut maps = IdMaps::default();
    let container = match container {
        Some(Ids::Maps(maps)) => Some(maps),
        _ => None,
    };
    for part in text.split(';').filter(|part| !part.is_empty()) {
        let (map, ranges, own) = match part.split_once('=') {
            Some(("uids", ranges)) => (&mut maps.users, ranges, container.map(|maps| &maps.users)),
            Some(("gids", ranges)) => (&mut maps.groups, ranges, container.map(|maps| &maps.groups)),
            _ => return Err(broken(part)),
        };
        *map = ranges.split('#').map(|range| parse_range(range, own)).collect::<Result<Vec<_>>>()?.into();
    }
    Ok(maps)
}

fn parse_range(text: &str, container: Option<&IdMap>) -> Result<Range> {
    let relative = text.strip_prefix('@');
    let numbers: Vec<u32> = relative.unwrap_or(text).split('-').filter_map(|number| number.parse().ok()).collect();
    let &[inside, second, size] = numbers.as_slice() else { return Err(broken(text)) };
    let outside = match (relative, container) {
        (None, _) => Some(second),
        (Some(_), Some(map)) => map.outside(second).filter(|first| {
            let last = second.checked_add(size.saturating_sub(1)).and_then(|last| map.outside(last));
            last == first.checked_add(size.saturating_sub(1))
        }),
        (Some(_), None) => None,
    };
    let outside = outside.ok_or_else(|| Error::invalid(format!("{text}: not in the container's user namespace")))?;
    Ok(Range { inside, outside, size })
}

fn broken(text: &str) -> Error {
    Error::invalid(format!("invalid mapping {text:?} of mount option idmap"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn planned(mount: Value, option: Option<&str>, container: Option<&Ids>) -> std::result::Result<MountIds, String> {
        let option = option.map(|maps| MappingOption {
            recursive: false,
            maps: Some(maps.to_owned()).filter(|maps| !maps.is_empty()),
        });
        let mount: Mount = serde_json::from_value(mount).unwrap();
        match plan(&mount, true, option.as_ref(), container) {
            Ok(ids) => Ok(ids.unwrap()),
            Err(err) => Err(err.to_string()),
        }
    }

    fn maps(users: &[(u32, u32, u32)], groups: &[(u32, u32, u32)]) -> Ids {
        let map = |ranges: &[(u32, u32, u32)]| -> IdMap {
            let range = |&(inside, outside, size): &_| Range { inside, outside, size };
            ranges.iter().map(range).collect::<Vec<_>>().into()
        };
        Ids::Maps(IdMaps { users: map(users), groups: map(groups) })
    }

    #[test]
    fn maps_come_from_the_mount_or_from_the_container() {
        let map = json!([{"containerID": 5, "hostID": 7, "size": 2}]);
        let mount = json!({"destination": "/x", "uidMappings": map, "gidMappings": map});
        assert_eq!(planned(mount.clone(), None, None).unwrap().ids, maps(&[(5, 7, 2)], &[(5, 7, 2)]));
        let own = maps(&[(0, 1000, 9)], &[(0, 1000, 9)]);
        let plain = json!({"destination": "/x"});
        assert_eq!(planned(plain.clone(), Some(""), Some(&own)).unwrap().ids, own);
        let incomplete = "id-mapped mounts must have both uid and gid mappings specified";
        assert_eq!(planned(plain, Some(""), None).unwrap_err(), incomplete);
        let half = json!({"destination": "/x", "uidMappings": map});
        assert_eq!(planned(half, None, Some(&own)).unwrap_err(), incomplete);
        let mount: Mount = serde_json::from_value(mount).unwrap();
        let words = plan(&mount, false, None, None).unwrap_err().to_string();
        assert_eq!(words, "id-mapped mounts are only supported for bind-mounts");
    }

    #[test]
    fn podmans_words_are_understood() {
        let own = maps(&[(0, 100_000, 10)], &[(0, 200_000, 10)]);
        let mount = || json!({"destination": "/x"});
        let found = planned(mount(), Some("uids=0-1-10#10-11-10;gids=0-100-10"), None).unwrap().ids;
        assert_eq!(found, maps(&[(0, 1, 10), (10, 11, 10)], &[(0, 100, 10)]));
        let found = planned(mount(), Some("uids=@5-1-3;gids=@5-2-3"), Some(&own)).unwrap().ids;
        assert_eq!(found, maps(&[(5, 100_001, 3)], &[(5, 200_002, 3)]));
        for wrong in ["uids=@5-8-3;gids=@5-2-3", "uids=@5-20-1;gids=0-0-1"] {
            assert!(planned(mount(), Some(wrong), Some(&own)).unwrap_err().contains("not in the container's"));
        }
        for wrong in ["uids=1-2;gids=0-0-1", "uids=a-b-c", "pids=0-0-1", "0-0-1"] {
            assert!(planned(mount(), Some(wrong), None).unwrap_err().starts_with("invalid mapping"), "{wrong}");
        }
    }
}
