//! What CRIU counts and measures at a dump and at a restore: `stats-dump` and `stats-restore` in the work directory.

use super::image::{Message, Reader};
use crate::error::Result;
use serde::Serialize;
use std::path::Path;

/// CRIU's file about a dump.
pub const DUMP: &str = "stats-dump";

/// CRIU's file about a restore.
pub const RESTORE: &str = "stats-restore";

/// What CRIU has measured at a dump.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DumpStats {
    /// How long it took to stop the processes, in microseconds.
    pub freezing_micros: u64,
    /// How long they were stopped, in microseconds.
    pub frozen_micros: u64,
    /// How long it took to find their memory, in microseconds.
    pub memory_dump_micros: u64,
    /// How long it took to write their memory, in microseconds.
    pub memory_write_micros: u64,
    /// How many pages were looked at.
    pub pages_scanned: u64,
    /// How many pages were written.
    pub pages_written: u64,
    /// How many pages were left out since an earlier image has them.
    pub pages_in_parent: u64,
    /// How many pages were left behind, to be fetched later.
    pub pages_lazy: u64,
    /// How many pages of shared memory were written.
    pub shared_pages_written: u64,
}

/// What CRIU has measured at a restore.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreStats {
    /// How long it took to make the processes, in microseconds.
    pub forking_micros: u64,
    /// How long all of it took, in microseconds.
    pub restore_micros: u64,
    /// How many pages were filled.
    pub pages_restored: u64,
}

impl DumpStats {
    /// Reads the file, if it is there.
    pub fn load(work: &Path) -> Result<Option<Self>> {
        Ok(entry(&work.join(DUMP), 1)?.map(|entry| {
            let number = |field| entry.number(field).unwrap_or(0);
            Self {
                freezing_micros: number(1),
                frozen_micros: number(2),
                memory_dump_micros: number(3),
                memory_write_micros: number(4),
                pages_scanned: number(5),
                pages_in_parent: number(6),
                pages_written: number(7),
                pages_lazy: number(9),
                shared_pages_written: number(14),
            }
        }))
    }
}

impl RestoreStats {
    /// Reads the file, if it is there.
    pub fn load(work: &Path) -> Result<Option<Self>> {
        Ok(entry(&work.join(RESTORE), 2)?.map(|entry| {
            let number = |field| entry.number(field).unwrap_or(0);
            Self { forking_micros: number(3), restore_micros: number(4), pages_restored: number(5) }
        }))
    }
}

fn entry(path: &Path, field: u32) -> Result<Option<Message>> {
    let Some(mut reader) = Reader::open_if_there(path)? else { return Ok(None) };
    Ok(reader.message()?.and_then(|all| all.message(field)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_places() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(DumpStats::load(dir.path()).unwrap(), None);
        // {dump: {1: 10, 2: 300, 7: 5, 14: 6}}, {restore: {3: 1, 4: 2, 5: 3}}
        let head = b"\x40\x59\x10\x55\x01\x02\x03\x04";
        let dump = b"\x0b\0\0\0\x0a\x09\x08\x0a\x10\xac\x02\x38\x05\x70\x06";
        let restore = b"\x08\0\0\0\x12\x06\x18\x01\x20\x02\x28\x03";
        std::fs::write(dir.path().join(DUMP), [&head[..], dump].concat()).unwrap();
        std::fs::write(dir.path().join(RESTORE), [&head[..], restore].concat()).unwrap();
        let expected = DumpStats {
            freezing_micros: 10,
            frozen_micros: 300,
            pages_written: 5,
            shared_pages_written: 6,
            ..DumpStats::default()
        };
        assert_eq!(DumpStats::load(dir.path()).unwrap(), Some(expected));
        let expected = RestoreStats { forking_micros: 1, restore_micros: 2, pages_restored: 3 };
        assert_eq!(RestoreStats::load(dir.path()).unwrap(), Some(expected));
    }
}
