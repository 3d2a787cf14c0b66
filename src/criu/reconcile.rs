//! What becomes of the System V objects of an image in an IPC namespace that others use: pure functions.
//!
//! CRIU dumps all objects of a namespace, whoever made them, and creates all of them at the restore. In a namespace of
//! the container's own that is right; in one that it joins, the objects that are there belong to others, and stay.
//! Which they are is read by the caller, from the images and from /proc/sysvipc, and carried out by it.

use crate::error::{Error, Result};
use crate::sys::ipc::ObjectKind;
use std::fmt;

/// The part of an object's number that says which slot of the kernel's table it is in; the rest counts how often the
/// slot was used. With `ipcmni_extend` on the kernel's command line it is wider, and then this finds too many objects
/// in the way, never too few.
const SLOT: i32 = 0x7fff;

/// The bit of a segment's mode that says that it goes away with its last attachment (linux/shm.h).
pub(super) const SHM_DEST: u32 = 0o1000;

/// What of an object cannot change while it is there. Its creator is not part of it: CRIU makes all that it creates
/// root's, and then gives it to its owner.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Object {
    /// Its kind.
    pub kind: ObjectKind,
    /// The number that processes use it by.
    pub id: i32,
    /// The key that processes find it by, 0 for none.
    pub key: u32,
    /// The bytes of a segment, the semaphores of a set, 0 for a queue.
    pub size: u64,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ObjectKind::Shm => "shared memory segment",
            ObjectKind::Msg => "message queue",
            ObjectKind::Sem => "semaphore set",
        };
        write!(f, "{kind} {} (key {:#010x})", self.id, self.key)
    }
}

/// An object of an image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Dumped {
    /// Which.
    pub object: Object,
    /// Whether the container's processes have it attached: a segment that CRIU has to create.
    pub attached: bool,
    /// Whether it is to go away with its last attachment.
    pub doomed: bool,
}

/// An object that is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Live {
    /// Which.
    pub object: Object,
    /// How often a segment is attached.
    pub attachments: u64,
    /// Whether it goes away with its last attachment, which has already cost it its key.
    pub doomed: bool,
}

/// What becomes of an object of an image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// CRIU creates it.
    Created,
    /// That which is there is removed, and CRIU creates it.
    Recreated,
    /// It is left out: it is there, or nobody could ever reach it.
    LeftOut,
    /// It is left out because another object is in its place or has its key.
    Displaced(Object),
}

/// Decides what becomes of an object of an image beside those that are there.
///
/// # Errors
///
/// An attached segment that cannot be created: others use it, or another object is in the way.
pub fn fate(dumped: &Dumped, there: &[Live]) -> Result<Fate> {
    let Dumped { object, attached, doomed } = *dumped;
    if doomed && !attached {
        return Ok(Fate::LeftOut);
    }
    let of_kind = || there.iter().filter(|live| live.object.kind == object.kind);
    let same = of_kind().find(|live| is_same(live, &object));
    let in_the_way = of_kind().find(|live| {
        let taken = live.object.id & SLOT == object.id & SLOT || object.key != 0 && live.object.key == object.key;
        taken && !is_same(live, &object)
    });
    match (same, in_the_way, attached) {
        (None, None, _) => Ok(Fate::Created),
        (Some(_), _, false) => Ok(Fate::LeftOut),
        (None, Some(other), false) => Ok(Fate::Displaced(other.object)),
        (_, Some(other), true) => {
            let text = format!("{object}, which the container has attached, has lost its place to {}", other.object);
            Err(Error::other(text))
        }
        (Some(live), None, true) if live.attachments == 0 => Ok(Fate::Recreated),
        (Some(live), None, true) => {
            let others = live.attachments;
            let text =
                format!("{object}, which the container has attached, is attached by others (attachments: {others})");
            Err(Error::other(text))
        }
    }
}

/// Says whether an object that is there is that of the image.
fn is_same(live: &Live, dumped: &Object) -> bool {
    let Live { object, doomed, .. } = live;
    let key = object.key == dumped.key || *doomed;
    object.id == dumped.id && key && object.size == dumped.size
}

/// Reads a file of /proc/sysvipc (proc_sysvipc(5)).
pub fn there(kind: ObjectKind, text: &str) -> Vec<Live> {
    let mut lines = text.lines();
    let columns: Vec<&str> = lines.next().unwrap_or_default().split_ascii_whitespace().collect();
    let (id, size) = match kind {
        ObjectKind::Shm => ("shmid", Some("size")),
        ObjectKind::Msg => ("msqid", None),
        ObjectKind::Sem => ("semid", Some("nsems")),
    };
    let object = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let number = |name: &str| -> Option<i64> {
            fields.get(columns.iter().position(|column| *column == name)?)?.parse().ok()
        };
        let object = Object {
            kind,
            id: number(id)? as i32,
            // A key is printed as a signed number.
            key: number("key")? as u32,
            size: size.map_or(Some(0), number)? as u64,
        };
        let mode = fields.get(columns.iter().position(|column| *column == "perms")?)?;
        let doomed = kind == ObjectKind::Shm && u32::from_str_radix(mode, 8).ok()? & SHM_DEST != 0;
        Some(Live { object, attachments: number("nattch").unwrap_or(0) as u64, doomed })
    };
    lines.filter_map(object).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: Object = Object { kind: ObjectKind::Shm, id: 32769, key: 0x1234, size: 4096 };

    fn live(object: Object, attachments: u64) -> Live {
        Live { object, attachments, doomed: false }
    }

    #[test]
    fn what_is_there_stays_and_what_is_not_is_created() {
        let elsewhere = Object { id: 2, key: 0x99, ..SEGMENT };
        let reused = Object { id: 65537, key: 0x99, ..SEGMENT };
        let rekeyed = Object { id: 2, ..SEGMENT };
        let grown = Object { size: 8192, ..SEGMENT };
        let keyless = Object { key: 0, ..SEGMENT };
        let set = Object { kind: ObjectKind::Sem, ..SEGMENT };
        let attached = "shared memory segment 32769 (key 0x00001234), which the container has attached,";
        let lost = |other: &str| Err(format!("{attached} has lost its place to shared memory segment {other}"));
        let shared = || Err(format!("{attached} is attached by others (attachments: 2)"));
        let cases = [
            (vec![], Ok(Fate::Created), Ok(Fate::Created)),
            (vec![live(elsewhere, 1)], Ok(Fate::Created), Ok(Fate::Created)),
            // Kinds have numbers and keys of their own.
            (vec![live(set, 0)], Ok(Fate::Created), Ok(Fate::Created)),
            (vec![live(SEGMENT, 0)], Ok(Fate::LeftOut), Ok(Fate::Recreated)),
            (vec![live(SEGMENT, 2)], Ok(Fate::LeftOut), shared()),
            (vec![Live { doomed: true, ..live(keyless, 2) }], Ok(Fate::LeftOut), shared()),
            (vec![live(reused, 0)], Ok(Fate::Displaced(reused)), lost("65537 (key 0x00000099)")),
            (vec![live(rekeyed, 0)], Ok(Fate::Displaced(rekeyed)), lost("2 (key 0x00001234)")),
            (vec![live(grown, 0)], Ok(Fate::Displaced(grown)), lost("32769 (key 0x00001234)")),
            (vec![live(keyless, 2)], Ok(Fate::Displaced(keyless)), lost("32769 (key 0x00000000)")),
        ];
        for (there, loose, attached) in cases {
            let found = |attached| {
                let dumped = Dumped { object: SEGMENT, attached, doomed: false };
                fate(&dumped, &there).map_err(|err| err.to_string())
            };
            assert_eq!(found(false), loose, "{there:?}");
            assert_eq!(found(true), attached, "{there:?}");
        }
    }

    #[test]
    fn objects_without_a_key_are_told_by_their_number() {
        let private = Object { key: 0, ..SEGMENT };
        let other = Object { key: 0, id: 7, ..SEGMENT };
        let dumped = Dumped { object: private, attached: true, doomed: false };
        assert_eq!(fate(&dumped, &[live(other, 1)]).unwrap(), Fate::Created);
        assert_eq!(fate(&dumped, &[live(private, 0)]).unwrap(), Fate::Recreated);
    }

    #[test]
    fn what_is_to_go_away_comes_back_only_for_who_has_it_attached() {
        let object = Object { key: 0, ..SEGMENT };
        let of = |attached| fate(&Dumped { object, attached, doomed: true }, &[]).unwrap();
        assert_eq!((of(false), of(true)), (Fate::LeftOut, Fate::Created));
    }

    #[test]
    fn objects_are_read_as_the_kernel_shows_them() {
        let shm = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid\n\
                   -559038737      32769  1640                  4096     2     9      3     0     0  1000  1001\n";
        let object = Object { key: 0xdead_beef, ..SEGMENT };
        assert_eq!(there(ObjectKind::Shm, shm), [Live { doomed: true, ..live(object, 3) }]);
        let sem = "key semid perms nsems uid gid cuid cgid otime ctime\n119 0 600 2 0 0 0 0 0 1795618541\n";
        let object = Object { kind: ObjectKind::Sem, id: 0, key: 119, size: 2 };
        assert_eq!(there(ObjectKind::Sem, sem), [live(object, 0)]);
        let msg = "key msqid perms cbytes qnum lspid lrpid uid gid cuid cgid stime rtime ctime\n\
                   136 5 600 9 2 5 0 0 0 0 0 1795618541 0 1795618541\n";
        let object = Object { kind: ObjectKind::Msg, id: 5, key: 136, size: 0 };
        assert_eq!(there(ObjectKind::Msg, msg), [live(object, 0)]);
        assert_eq!(there(ObjectKind::Msg, ""), []);
    }
}
