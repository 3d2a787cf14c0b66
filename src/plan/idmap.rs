//! Id maps of a new user namespace: their text, and who may write them.

use crate::error::{Error, Result};
use oci_spec::runtime::{Linux, LinuxIdMapping};

/// The maps of a user namespace.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct IdMaps {
    /// Users.
    pub users: IdMap,
    /// Groups.
    pub groups: IdMap,
}

/// Ranges of ids.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct IdMap(Vec<Range>);

/// Ids from `inside` on in the namespace are those from `outside` on in its parent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Range {
    /// First id in the namespace.
    pub inside: u32,
    /// First id in the parent namespace.
    pub outside: u32,
    /// How many.
    pub size: u32,
}

impl From<Vec<Range>> for IdMap {
    fn from(ranges: Vec<Range>) -> Self {
        Self(ranges)
    }
}

impl IdMap {
    /// Returns the map that a configuration lists.
    pub fn new(mappings: &[LinuxIdMapping]) -> Self {
        let range = |m: &LinuxIdMapping| Range { inside: m.container_id(), outside: m.host_id(), size: m.size() };
        Self(mappings.iter().map(range).collect())
    }

    /// Returns the ranges.
    pub fn ranges(&self) -> &[Range] {
        &self.0
    }

    /// Returns what /proc/PID/uid_map or gid_map takes.
    pub fn text(&self) -> String {
        self.0.iter().map(|r| format!("{} {} {}\n", r.inside, r.outside, r.size)).collect()
    }

    /// Returns the id in the parent namespace that `inside` is, if it is mapped.
    pub fn outside(&self, inside: u32) -> Option<u32> {
        let range = self.0.iter().find(|r| inside >= r.inside && inside - r.inside < r.size)?;
        range.outside.checked_add(inside - range.inside)
    }

    /// Says whether this maps one id, and that to `id`: what a process may write for itself without privilege.
    pub fn is_only(&self, id: u32) -> bool {
        matches!(self.0.as_slice(), [Range { outside, size: 1, .. }] if *outside == id)
    }
}

/// Returns the maps of the configuration, if it has any.
pub fn plan(linux: &Linux) -> Result<Option<IdMaps>> {
    let users = IdMap::new(linux.uid_mappings().as_deref().unwrap_or_default());
    let groups = IdMap::new(linux.gid_mappings().as_deref().unwrap_or_default());
    match (users.0.is_empty(), groups.0.is_empty()) {
        (true, true) => Ok(None),
        (false, false) => Ok(Some(IdMaps { users, groups })),
        (true, false) => Err(Error::invalid("gidMappings without uidMappings")),
        (false, true) => Err(Error::invalid("uidMappings without gidMappings")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_in_their_range() {
        let map =
            IdMap(vec![Range { inside: 0, outside: 100_000, size: 10 }, Range { inside: 10, outside: 5, size: 1 }]);
        assert_eq!(map.outside(9), Some(100_009));
        assert_eq!(map.outside(10), Some(5));
        assert_eq!(map.outside(11), None);
        assert_eq!(map.text(), "0 100000 10\n10 5 1\n");
        assert!(!map.is_only(100_000));
    }
}
