//! Flags of a mount: what its options set and clear in mount(2)'s words, and what that is in mount_setattr(2)'s.
//!
//! The rules are mount(2)'s for `MS_REMOUNT | MS_BIND`, since that is what runc calls: flags that nobody names are
//! cleared, but how access times are kept stays as it was when no flag of theirs is set.

use super::mount_options::AttributeChange;
use nix::libc;

/// The three ways of keeping access times, of which a mount has one.
const ACCESS_TIME_KIND: u64 = libc::MS_NOATIME | libc::MS_RELATIME | libc::MS_STRICTATIME;

/// All flags about access times.
const ACCESS_TIME: u64 = ACCESS_TIME_KIND | libc::MS_NODIRATIME;

/// What a less privileged mount namespace may not take away from a mount that it has got from another; access times
/// may not change at all (mount_namespaces(7)).
const LOCKABLE: u64 = libc::MS_RDONLY | libc::MS_NODEV | libc::MS_NOEXEC | libc::MS_NOSUID;

/// The flags that are one bit each in both worlds.
const PLAIN: [(u64, u64); 5] = [
    (libc::MS_RDONLY, libc::MOUNT_ATTR_RDONLY),
    (libc::MS_NOSUID, libc::MOUNT_ATTR_NOSUID),
    (libc::MS_NODEV, libc::MOUNT_ATTR_NODEV),
    (libc::MS_NOEXEC, libc::MOUNT_ATTR_NOEXEC),
    (libc::MS_NOSYMFOLLOW, libc::MOUNT_ATTR_NOSYMFOLLOW),
];

/// What options say about the flags of a mount.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct MountFlags {
    /// `MS_*` bits that are set.
    pub set: u64,
    /// `MS_*` bits that are cleared by name.
    pub cleared: u64,
    /// Whether any flag is named, be it one that only a superblock has: without, a bind mount keeps those of its source.
    pub named: bool,
}

impl MountFlags {
    /// Returns flags that are set.
    pub const fn new(set: u64) -> Self {
        Self { set, cleared: 0, named: set != 0 }
    }

    /// Adds what one more option says. The later one wins, but the ways of keeping access times do not know each other.
    pub fn name(&mut self, bits: u64, clear: bool) {
        let (more, less) = if clear { (&mut self.cleared, &mut self.set) } else { (&mut self.set, &mut self.cleared) };
        *more |= bits;
        *less &= !bits;
        self.named = true;
    }

    /// Says whether the mount is to be read-only.
    pub fn readonly(&self) -> bool {
        self.set & libc::MS_RDONLY != 0
    }

    /// Returns the `MOUNT_ATTR_*` bits that a new mount has.
    pub fn attributes(&self) -> u64 {
        plain(self.set) | access_time(self.set)
    }

    /// Returns how an existing mount changes.
    pub fn change(&self) -> AttributeChange {
        let times = libc::MOUNT_ATTR__ATIME | libc::MOUNT_ATTR_NODIRATIME;
        let times = if self.set & ACCESS_TIME == 0 { 0 } else { times };
        AttributeChange { set: self.attributes(), clear: plain(u64::MAX) | times }
    }

    /// Says whether [`change`](Self::change) takes nothing away that is locked, in a mount whose flags are `existing`
    /// and all locked.
    pub fn spares(&self, existing: u64) -> bool {
        let same_times = self.set & ACCESS_TIME == 0 || access_time(self.set) == access_time(existing);
        existing & LOCKABLE & !self.set == 0 && same_times
    }

    /// Returns how a mount changes whose flags are `existing` and locked; nothing where that contradicts an option.
    pub fn change_beside(&self, existing: u64) -> Option<AttributeChange> {
        let takes_away = existing & self.cleared & (LOCKABLE | ACCESS_TIME) != 0;
        let times = self.set & ACCESS_TIME;
        let other_times = times != 0 && times != existing & ACCESS_TIME;
        (!takes_away && !other_times)
            .then(|| AttributeChange { set: plain(self.set | existing & LOCKABLE), clear: plain(u64::MAX) })
    }
}

/// Returns the change that one option makes to all mounts of a tree, on top of what others made.
pub fn change_recursively(change: &mut AttributeChange, bits: u64, clear: bool) {
    let plain = plain(bits) | if bits & libc::MS_NODIRATIME != 0 { libc::MOUNT_ATTR_NODIRATIME } else { 0 };
    if bits & ACCESS_TIME_KIND != 0 {
        // They are one field, which is cleared before it is set; zero is relatime.
        let kind = if clear { 0 } else { access_time(bits) };
        change.set = (change.set & !libc::MOUNT_ATTR__ATIME) | kind;
        change.clear |= libc::MOUNT_ATTR__ATIME;
    } else if clear {
        change.set &= !plain;
        change.clear |= plain;
    } else {
        change.set |= plain;
        change.clear &= !plain;
    }
}

fn plain(flags: u64) -> u64 {
    PLAIN.iter().filter(|(flag, _)| flags & flag != 0).fold(0, |all, (_, attribute)| all | attribute)
}

/// Returns what flags say of access times; of several kinds strictatime counts first, then noatime, as for mount(2).
fn access_time(flags: u64) -> u64 {
    let kind = match flags {
        _ if flags & libc::MS_STRICTATIME != 0 => libc::MOUNT_ATTR_STRICTATIME,
        _ if flags & libc::MS_NOATIME != 0 => libc::MOUNT_ATTR_NOATIME,
        _ => libc::MOUNT_ATTR_RELATIME,
    };
    kind | if flags & libc::MS_NODIRATIME != 0 { libc::MOUNT_ATTR_NODIRATIME } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libc::{MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_RDONLY, MOUNT_ATTR_STRICTATIME};
    use libc::{MS_NOATIME, MS_NODEV, MS_NODIRATIME, MS_RDONLY, MS_RELATIME, MS_STRICTATIME};

    fn flags(words: &[(u64, bool)]) -> MountFlags {
        let mut flags = MountFlags::default();
        words.iter().for_each(|&(bits, clear)| flags.name(bits, clear));
        flags
    }

    #[test]
    fn access_times_stay_unless_one_is_set() {
        let times = libc::MOUNT_ATTR__ATIME | MOUNT_ATTR_NODIRATIME;
        for (words, set, clears) in [
            (&[(MS_NOATIME, true)][..], 0, false),
            (&[(MS_RDONLY, false)], MOUNT_ATTR_RDONLY, false),
            (&[(MS_RELATIME, false)], 0, true),
            (&[(MS_NODIRATIME, false)], MOUNT_ATTR_NODIRATIME, true),
            (&[(MS_NODIRATIME, false), (MS_RELATIME, true)], MOUNT_ATTR_NODIRATIME, true),
            (&[(MS_NOATIME, false), (MS_STRICTATIME, false)], MOUNT_ATTR_STRICTATIME, true),
            (&[(MS_STRICTATIME, false), (MS_NOATIME, false)], MOUNT_ATTR_STRICTATIME, true),
            (&[(MS_NOATIME, false)], MOUNT_ATTR_NOATIME, true),
        ] {
            let change = flags(words).change();
            assert_eq!((change.set, change.clear & times), (set, if clears { times } else { 0 }), "{words:?}");
        }
    }

    #[test]
    fn what_is_locked_stays_or_is_a_contradiction() {
        let existing = MS_RDONLY | MS_NODEV | MS_RELATIME;
        let change = flags(&[(libc::MS_NOSUID, false)]).change_beside(existing).unwrap();
        assert_eq!(change.set, MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV);
        assert_eq!(change.clear & libc::MOUNT_ATTR__ATIME, 0);
        for words in [(MS_RDONLY, true), (MS_RELATIME, true), (MS_NOATIME, false), (MS_NODIRATIME, false)] {
            assert_eq!(flags(&[words]).change_beside(existing), None, "{words:?}");
        }
        assert!(flags(&[(MS_RELATIME, false)]).change_beside(existing).is_some());
    }

    #[test]
    fn a_change_that_takes_nothing_away_needs_no_care() {
        assert!(flags(&[(MS_RDONLY, false), (MS_NOATIME, true)]).spares(MS_RDONLY | MS_NOATIME));
        assert!(flags(&[(MS_NODIRATIME, false)]).spares(MS_NODIRATIME | MS_RELATIME));
        assert!(!flags(&[(MS_NODIRATIME, false)]).spares(MS_NODIRATIME | MS_NOATIME));
        assert!(!flags(&[(MS_NODEV, false)]).spares(MS_RDONLY));
    }
}
