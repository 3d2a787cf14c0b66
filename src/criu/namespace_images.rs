//! The images of IPC and UTS namespaces: which objects they hold, and how they are written with something changed.
//!
//! CRIU writes what these images say into the namespace of the restored processes, new or joined. Each message's
//! fields have their numbers in CRIU's images/utsns.proto, ipc-*.proto, mm.proto and vma.proto.

use super::image::{Message, Reader};
use super::reconcile::{Dumped, Object, SHM_DEST};
use crate::error::{Context, Result};
use crate::sys::ipc::ObjectKind;
use std::collections::BTreeSet;
use std::path::Path;

/// The beginning of the name of the image of host and domain name, behind which the namespace has a number.
pub const UTS: &str = "utsns-";

/// The beginning of the name of the image of an IPC namespace's limits.
pub const IPC_LIMITS: &str = "ipcns-var-";

/// The kinds of objects, and the beginnings of their images' names.
pub const OBJECTS: [(ObjectKind, &str); 3] =
    [(ObjectKind::Shm, "ipcns-shm-"), (ObjectKind::Msg, "ipcns-msg-"), (ObjectKind::Sem, "ipcns-sem-")];

/// The limits of an IPC namespace: fields of their image, and below /proc/sys.
///
/// The numbers that objects are to get next (fields 15 to 17) are not among them: CRIU leaves alone what is not said.
pub const LIMITS: [(u32, &str); 14] = [
    (1, "kernel/sem"),
    (2, "kernel/msgmax"),
    (3, "kernel/msgmnb"),
    (4, "kernel/msgmni"),
    (5, "kernel/auto_msgmni"),
    (6, "kernel/shmmax"),
    (7, "kernel/shmall"),
    (8, "kernel/shmmni"),
    (9, "kernel/shm_rmid_forced"),
    (10, "fs/mqueue/queues_max"),
    (11, "fs/mqueue/msg_max"),
    (12, "fs/mqueue/msgsize_max"),
    (13, "fs/mqueue/msg_default"),
    (14, "fs/mqueue/msgsize_default"),
];
const NEXT_IDS: [u32; 3] = [15, 16, 17];

/// What CRIU says of a mapping that is a System V segment: a bit of its status.
const VMA_AREA_SYSVIPC: u64 = 1 << 10;

/// Returns the name of the image that begins so, if there is one. A container has one namespace of a kind.
pub fn find(images: &Path, beginning: &str) -> Result<Option<String>> {
    Ok(names(images, beginning)?.pop())
}

fn names(images: &Path, beginning: &str) -> Result<Vec<String>> {
    let attempt = || format!("read {}", images.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(images).context(attempt)? {
        let name = entry.context(attempt)?.file_name();
        found.extend(
            name.to_str().filter(|name| name.starts_with(beginning) && name.ends_with(".img")).map(str::to_owned),
        );
    }
    Ok(found)
}

/// Writes the image `name` with other names of the host and its domain.
pub fn rename_host(images: &Path, work: &Path, name: &str, [host, domain]: [Vec<u8>; 2]) -> Result<()> {
    change(images, work, name, |message| {
        message.set_bytes(1, host);
        message.set_bytes(2, domain);
    })
}

/// Writes the image `name` with these limits, in the order of [`LIMITS`]; what the kernel does not have stays.
pub fn set_limits(images: &Path, work: &Path, name: &str, limits: &[Option<String>]) -> Result<()> {
    change(images, work, name, |message| {
        for ((field, _), text) in LIMITS.iter().zip(limits) {
            let Some(text) = text else { continue };
            let numbers: Vec<u64> = text.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect();
            message.set_numbers(*field, &numbers);
        }
        NEXT_IDS.into_iter().for_each(|field| message.remove(field));
    })
}

/// Writes an image of one message with something changed.
fn change(images: &Path, work: &Path, name: &str, edit: impl FnOnce(&mut Message)) -> Result<()> {
    let mut reader = Reader::open(&images.join(name))?;
    let mut writer = reader.writer();
    if let Some(mut message) = reader.message()? {
        edit(&mut message);
        writer.message(&message);
    }
    writer.save(&work.join(name))
}

/// The objects of one kind that an image holds.
#[derive(Debug)]
pub struct Objects {
    reader: Reader,
    /// Each object, and what stands in the file for it.
    pub all: Vec<(Dumped, Entry)>,
}

/// What stands in an image for an object: its message, with raw content behind it or messages of its own.
#[derive(Clone, Debug)]
pub struct Entry {
    message: Message,
    bytes: Vec<u8>,
}

impl Objects {
    /// Reads the image `name`; `attached` are the segments that the container has attached.
    pub fn read(path: &Path, kind: ObjectKind, attached: &BTreeSet<u64>) -> Result<Self> {
        let mut reader = Reader::open(path)?;
        let mut all = Vec::new();
        loop {
            let start = reader.at();
            let Some(message) = reader.message()? else { break };
            skip_content(&mut reader, kind, &message)?;
            let dumped = dumped(kind, &message, attached);
            all.push((dumped, Entry { message, bytes: reader.since(start).to_vec() }));
        }
        Ok(Self { reader, all })
    }

    /// Writes an image with these objects alone.
    pub fn write<'a>(&self, path: &Path, kept: impl Iterator<Item = &'a Entry>) -> Result<()> {
        let mut writer = self.reader.writer();
        kept.for_each(|entry| writer.raw(&entry.bytes));
        writer.save(path)
    }
}

impl Entry {
    /// Returns the same segment with its content behind it instead of in images of its own: what stands before the
    /// content, and how many bytes behind it are to be zero.
    pub fn with_content_behind(&self) -> (Vec<u8>, usize) {
        let mut message = self.message.clone();
        message.remove(IN_PAGEMAPS);
        let bytes = message.bytes();
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let padding = padding(self.message.number(2).unwrap_or(0), 4);
        ([&length.to_le_bytes(), &bytes[..]].concat(), padding)
    }
}

/// The field of a segment that says that its content is in images of its own.
const IN_PAGEMAPS: u32 = 3;

/// Reads what follows the message of an object.
fn skip_content(reader: &mut Reader, kind: ObjectKind, message: &Message) -> Result<()> {
    let number = |field| message.number(field).unwrap_or(0);
    match kind {
        ObjectKind::Shm if message.flag(IN_PAGEMAPS) => {}
        ObjectKind::Shm => skip(reader, number(2), 4)?,
        ObjectKind::Sem => skip(reader, number(2).saturating_mul(2), 8)?,
        ObjectKind::Msg => {
            for _ in 0..number(3) {
                let Some(one) = reader.message()? else { break };
                skip(reader, one.number(2).unwrap_or(0), 8)?;
            }
        }
    }
    Ok(())
}

fn skip(reader: &mut Reader, bytes: u64, unit: u64) -> Result<()> {
    reader.raw(usize::try_from(bytes).unwrap_or(usize::MAX).saturating_add(padding(bytes, unit))).map(drop)
}

/// Returns how many bytes are missing to whole units.
fn padding(bytes: u64, unit: u64) -> usize {
    (unit - 1 - bytes.wrapping_sub(1) % unit) as usize
}

fn dumped(kind: ObjectKind, message: &Message, attached: &BTreeSet<u64>) -> Dumped {
    let description = message.message(1).unwrap_or_default();
    let number = |field| description.number(field).unwrap_or(0);
    let (id, mode) = (number(7), number(6) as u32);
    let is_segment = kind == ObjectKind::Shm;
    let object = Object {
        kind,
        id: id as i32,
        key: number(1) as u32,
        size: if kind == ObjectKind::Msg { 0 } else { message.number(2).unwrap_or(0) },
    };
    let (attached, doomed) = (is_segment && attached.contains(&id), is_segment && mode & SHM_DEST != 0);
    Dumped { object, attached, doomed }
}

/// Returns the segments that the dumped processes have attached.
pub fn attached_segments(images: &Path) -> Result<BTreeSet<u64>> {
    let mut attached = BTreeSet::new();
    for name in names(images, "mm-")? {
        for memory in Reader::open(&images.join(name))?.messages()? {
            let mappings = memory.messages(14);
            let segments = mappings.iter().filter(|vma| vma.number(7).unwrap_or(0) & VMA_AREA_SYSVIPC != 0);
            attached.extend(segments.filter_map(|vma| vma.number(4)));
        }
    }
    Ok(attached)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::criu::image::Writer;

    /// The magic numbers of an image, which are not looked at beyond the first.
    const MAGIC: &[u8] = b"\x19\x43\x56\x54\x01\x02\x03\x04";

    /// A message of an image, and the bytes behind it.
    type Part<'a> = (Message, &'a [u8]);

    fn message(numbers: &[(u32, u64)], description: Option<&Message>) -> Message {
        let mut message = Message::default();
        numbers.iter().for_each(|(field, number)| message.set_number(*field, *number));
        if let Some(description) = description {
            message.set_bytes(1, description.bytes());
        }
        message
    }

    /// Writes an image that holds these messages, each with what is behind it.
    fn image(path: &Path, parts: &[Part<'_>]) {
        std::fs::write(path, MAGIC).unwrap();
        let mut writer: Writer = Reader::open(path).unwrap().writer();
        for (message, raw) in parts {
            writer.message(message);
            writer.raw(raw);
        }
        writer.save(path).unwrap();
    }

    fn object(id: u64, key: u64, mode: u64) -> Message {
        message(&[(1, key), (2, 0), (3, 0), (4, 0), (5, 0), (6, mode), (7, id)], None)
    }

    #[test]
    fn objects_are_found_with_what_is_behind_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.img");
        let segment = |id, size, elsewhere| message(&[(2, size), (3, elsewhere)], Some(&object(id, 5, 0o1600)));
        let cases: [(ObjectKind, Vec<Part<'_>>); 3] = [
            // The content of the first is in other images.
            (ObjectKind::Shm, vec![(segment(7, 6, 1), b""), (segment(8, 6, 0), b"content!"), (segment(9, 4, 1), b"")]),
            (
                ObjectKind::Sem,
                vec![
                    (message(&[(2, 1)], Some(&object(7, 5, 0o600))), &[1, 0, 0, 0, 0, 0, 0, 0]),
                    (message(&[(2, 5)], Some(&object(8, 6, 0o600))), &[2; 16]),
                ],
            ),
            (
                ObjectKind::Msg,
                vec![
                    (message(&[(2, 16384), (3, 2)], Some(&object(7, 5, 0o600))), b""),
                    (message(&[(1, 3), (2, 3)], None), b"abc\0\0\0\0\0"),
                    (message(&[(1, 4), (2, 8)], None), b"12345678"),
                    (message(&[(2, 16384), (3, 0)], Some(&object(8, 6, 0o600))), b""),
                ],
            ),
        ];
        for (kind, parts) in cases {
            image(&path, &parts);
            let objects = Objects::read(&path, kind, &BTreeSet::from([8])).unwrap();
            let found: Vec<_> = objects.all.iter().map(|(dumped, _)| (dumped.object.id, dumped.attached)).collect();
            assert_eq!(found[..2], [(7, false), (8, kind == ObjectKind::Shm)]);
            assert_eq!(objects.all[0].0.doomed, kind == ObjectKind::Shm);
            assert_eq!(objects.all[0].0.object.key, 5);
            // All of them are the file again, and without the first they are the rest of it.
            let original = std::fs::read(&path).unwrap();
            let copy = dir.path().join("copy.img");
            objects.write(&copy, objects.all.iter().map(|(_, entry)| entry)).unwrap();
            assert_eq!(std::fs::read(&copy).unwrap(), original);
            objects.write(&copy, objects.all.iter().skip(1).map(|(_, entry)| entry)).unwrap();
            let rest = Objects::read(&copy, kind, &BTreeSet::new()).unwrap();
            assert_eq!((rest.all.len(), rest.all[0].0.object.id), (found.len() - 1, 8));
        }
    }

    #[test]
    fn a_segment_can_have_its_content_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.img");
        image(&path, &[(message(&[(2, 6), (3, 1)], Some(&object(7, 5, 0o600))), b"")]);
        let objects = Objects::read(&path, ObjectKind::Shm, &BTreeSet::new()).unwrap();
        let (before, padding) = objects.all[0].1.with_content_behind();
        assert_eq!(padding, 2);
        std::fs::write(&path, [MAGIC, &before, b"conten\0\0"].concat()).unwrap();
        let objects = Objects::read(&path, ObjectKind::Shm, &BTreeSet::new()).unwrap();
        assert_eq!((objects.all.len(), objects.all[0].0.object.size), (1, 6));
    }

    #[test]
    fn limits_and_names_are_replaced_and_no_number_comes_next() {
        let (images, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let read = |name: &str| Reader::open(&work.path().join(name)).unwrap().message().unwrap().unwrap();
        image(&images.path().join("ipcns-var-9.img"), &[(message(&[(2, 1), (6, 2), (10, 3), (17, 4)], None), b"")]);
        let name = find(images.path(), IPC_LIMITS).unwrap().unwrap();
        let mut limits = vec![None; LIMITS.len()];
        limits[0] = Some("250\t32000\t32\t128\n".to_owned());
        limits[5] = Some("18446744073692774399\n".to_owned());
        set_limits(images.path(), work.path(), &name, &limits).unwrap();
        let found = read(&name);
        assert_eq!(found.numbers(1), [250, 32000, 32, 128]);
        assert_eq!(
            (found.number(2), found.number(6), found.number(10)),
            (Some(1), Some(18446744073692774399), Some(3))
        );
        assert_eq!(found.number(17), None);

        image(&images.path().join("utsns-8.img"), &[(Message::default(), b"")]);
        rename_host(images.path(), work.path(), "utsns-8.img", [b"a".to_vec(), b"(none)".to_vec()]).unwrap();
        assert_eq!(
            (read("utsns-8.img").text(1), read("utsns-8.img").text(2)),
            (Some("a".into()), Some("(none)".into()))
        );
        assert_eq!(find(images.path(), "pidns-").unwrap(), None);
    }

    #[test]
    fn attached_segments_are_those_of_all_processes() {
        let dir = tempfile::tempdir().unwrap();
        let mapping = |id, status| message(&[(4, id), (7, status)], None);
        for (name, vmas) in
            [("mm-1.img", [mapping(5, 1 << 10 | 1), mapping(6, 1)]), ("mm-9.img", [mapping(7, 1 << 10), mapping(8, 0)])]
        {
            // A field that is there twice is what two messages in a row make of it.
            let bytes: Vec<u8> = vmas
                .iter()
                .flat_map(|vma| {
                    let mut memory = Message::default();
                    memory.set_bytes(14, vma.bytes());
                    memory.bytes()
                })
                .collect();
            image(&dir.path().join(name), &[(Message::parse(&bytes).unwrap(), b"")]);
        }
        assert_eq!(attached_segments(dir.path()).unwrap(), BTreeSet::from([5, 7]));
    }
}
