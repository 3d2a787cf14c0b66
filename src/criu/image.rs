//! CRIU's image files: reading them, and writing them with something changed.
//!
//! A file begins with a magic number, or two, and goes on with protobuf messages, each behind its length; some have raw
//! bytes in between. Here a message is its numbered fields: of those hundreds that CRIU defines, the few that are of
//! interest have their numbers where they are used, and what is not known stays as it was. The numbers are those of
//! CRIU's images/*.proto, in which a number once given is never given again.

use crate::error::{Context, Error, ErrorKind, Result};
use protobuf::well_known_types::empty::Empty;
use protobuf::{CodedInputStream, Message as _, UnknownFields, UnknownValueRef};
use std::path::{Path, PathBuf};

/// The first of two magic numbers: of an image of processes, and of one that only tells about the dump.
const IMG_COMMON_MAGIC: u32 = 0x5456_4319;
const IMG_SERVICE_MAGIC: u32 = 0x5510_5940;

/// The alignment of raw bytes behind a message.
const WORD: usize = 4;

/// A message: its fields, by number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message(UnknownFields);

impl Message {
    /// Reads a message.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut all = Empty::parse_from_bytes(bytes).ok()?;
        Some(Self(std::mem::take(all.special_fields.mut_unknown_fields())))
    }

    /// Returns the bytes that are read as this message.
    pub fn bytes(&self) -> Vec<u8> {
        let mut all = Empty::new();
        *all.special_fields.mut_unknown_fields() = self.0.clone();
        // What has no required fields cannot lack one.
        all.write_to_bytes().unwrap_or_default()
    }

    fn values(&self, field: u32) -> impl Iterator<Item = UnknownValueRef<'_>> {
        self.0.iter().filter(move |(number, _)| *number == field).map(|(_, value)| value)
    }

    /// Returns a number.
    pub fn number(&self, field: u32) -> Option<u64> {
        self.numbers(field).pop()
    }

    /// Returns all numbers of a repeated field, packed or not.
    pub fn numbers(&self, field: u32) -> Vec<u64> {
        let mut all = Vec::new();
        for value in self.values(field) {
            match value {
                UnknownValueRef::Varint(number) | UnknownValueRef::Fixed64(number) => all.push(number),
                UnknownValueRef::Fixed32(number) => all.push(number.into()),
                UnknownValueRef::LengthDelimited(packed) => {
                    let mut packed = CodedInputStream::from_bytes(packed);
                    while let Ok(number) = packed.read_raw_varint64() {
                        all.push(number);
                    }
                }
            }
        }
        all
    }

    /// Returns a signed number: `int32` and `int64`, which protobuf sign-extends alike.
    pub fn signed(&self, field: u32) -> Option<i64> {
        self.number(field).map(|number| number as i64)
    }

    /// Returns whether a flag is set.
    pub fn flag(&self, field: u32) -> bool {
        self.number(field).is_some_and(|number| number != 0)
    }

    /// Returns the bytes of all values of a field.
    pub fn all_bytes(&self, field: u32) -> Vec<&[u8]> {
        let bytes = |value| match value {
            UnknownValueRef::LengthDelimited(bytes) => Some(bytes),
            _ => None,
        };
        self.values(field).filter_map(bytes).collect()
    }

    /// Returns a text.
    pub fn text(&self, field: u32) -> Option<String> {
        self.all_bytes(field).pop().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// Returns a message within the message.
    pub fn message(&self, field: u32) -> Option<Self> {
        self.all_bytes(field).pop().and_then(Self::parse)
    }

    /// Returns the messages of a repeated field.
    pub fn messages(&self, field: u32) -> Vec<Self> {
        self.all_bytes(field).into_iter().filter_map(Self::parse).collect()
    }

    /// Gives a field this number for its only value.
    pub fn set_number(&mut self, field: u32, number: u64) {
        self.0.remove(field);
        self.0.add_varint(field, number);
    }

    /// Gives a field this text for its only value.
    pub fn set_text(&mut self, field: u32, text: &str) {
        self.0.remove(field);
        self.0.add_length_delimited(field, text.as_bytes().to_vec());
    }

    /// Gives a field these bytes, of a text or of a message, for its only value.
    pub fn set_bytes(&mut self, field: u32, bytes: Vec<u8>) {
        self.0.remove(field);
        self.0.add_length_delimited(field, bytes);
    }

    /// Gives a repeated field these numbers, as CRIU writes them.
    pub fn set_numbers(&mut self, field: u32, numbers: &[u64]) {
        self.0.remove(field);
        numbers.iter().for_each(|number| self.0.add_varint(field, *number));
    }

    /// Gives a field these numbers, packed.
    pub fn set_packed(&mut self, field: u32, numbers: &[u64]) {
        let mut packed = Vec::new();
        for number in numbers {
            let mut one = UnknownFields::default();
            one.add_varint(1, *number);
            // Behind a key of one byte, which is not wanted.
            packed.extend_from_slice(one.write_to_bytes().get(1..).unwrap_or_default());
        }
        self.0.remove(field);
        self.0.add_length_delimited(field, packed);
    }

    /// Gives a field this message for its only value.
    pub fn set_message(&mut self, field: u32, message: &Self) {
        self.0.remove(field);
        self.0.add_length_delimited(field, message.bytes());
    }

    /// Gives a repeated field these messages.
    pub fn set_messages(&mut self, field: u32, messages: &[Self]) {
        self.0.remove(field);
        messages.iter().for_each(|message| self.0.add_length_delimited(field, message.bytes()));
    }

    /// Takes a field away.
    pub fn remove(&mut self, field: u32) {
        self.0.remove(field);
    }
}

/// An image file while it is read from its beginning to its end.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    bytes: Vec<u8>,
    at: usize,
    magic: Vec<u8>,
}

impl Reader {
    /// Reads an image file. Those that hold memory itself have no messages, and are not for this.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).context(|| format!("read {}", path.display()))?;
        let mut reader = Self { path: path.to_owned(), bytes, at: 0, magic: Vec::new() };
        let first = reader.length("magic number")?;
        if [IMG_COMMON_MAGIC, IMG_SERVICE_MAGIC].contains(&first) {
            reader.length("magic number")?;
        }
        reader.magic = reader.bytes.get(..reader.at).unwrap_or_default().to_vec();
        Ok(reader)
    }

    /// Reads an image file that may be missing, which CRIU does when there is nothing to be told.
    pub fn open_if_there(path: &Path) -> Result<Option<Self>> {
        match path.try_exists() {
            Ok(false) => Ok(None),
            _ => Self::open(path).map(Some),
        }
    }

    /// Returns the next message, or nothing at the end of the file.
    pub fn message(&mut self) -> Result<Option<Message>> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let length = self.length("message")? as usize;
        let bytes = self.raw(length)?;
        Message::parse(&bytes).map(Some).ok_or_else(|| self.broken("a message that is none"))
    }

    /// Returns all messages from here to the end.
    pub fn messages(mut self) -> Result<Vec<Message>> {
        let mut all = Vec::new();
        while let Some(message) = self.message()? {
            all.push(message);
        }
        Ok(all)
    }

    /// Returns the next bytes, which are no message.
    pub fn raw(&mut self, length: usize) -> Result<Vec<u8>> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| self.broken("the end of the file"))?;
        let bytes = self.bytes.get(self.at..end).unwrap_or_default().to_vec();
        self.at = end;
        Ok(bytes)
    }

    /// Returns how many bytes have been read.
    pub const fn at(&self) -> usize {
        self.at
    }

    /// Returns the bytes that have been read since [`at`](Self::at) was `start`, as they are in the file.
    pub fn since(&self, start: usize) -> &[u8] {
        self.bytes.get(start..self.at).unwrap_or_default()
    }

    fn length(&mut self, what: &str) -> Result<u32> {
        let bytes = self.raw(WORD).map_err(|err| err.context(what))?;
        Ok(bytes.try_into().map_or(0, u32::from_le_bytes))
    }

    fn broken(&self, found: &str) -> Error {
        Error::new(ErrorKind::Criu, format!("read {}: {found} at byte {}", self.path.display(), self.at))
    }

    /// Returns a writer of an image of the same kind.
    pub fn writer(&self) -> Writer {
        Writer { bytes: self.magic.clone() }
    }
}

/// An image file while it is made.
#[derive(Clone, Debug)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Adds a message.
    pub fn message(&mut self, message: &Message) {
        let bytes = message.bytes();
        self.bytes.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.bytes.extend_from_slice(&bytes);
    }

    /// Adds bytes that are no message.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes the file; one that is there is replaced, not written into: it may be a link to the original.
    pub fn save(self, path: &Path) -> Result<()> {
        let attempt = || format!("write {}", path.display());
        match std::fs::remove_file(path) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(err).context(attempt),
            _ => std::fs::write(path, self.bytes).context(attempt),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file as CRIU writes it: two magic numbers, then `{1: 300, 2: "ab", 3: [1, 2]}` and four raw bytes.
    const FILE: &[u8] = b"\x19\x43\x56\x54\x01\x02\x03\x04\x0b\0\0\0\x08\xac\x02\x12\x02ab\x1a\x02\x01\x02raw!";

    #[test]
    fn a_message_is_its_fields() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.img");
        std::fs::write(&path, FILE).unwrap();
        let mut reader = Reader::open(&path).unwrap();
        let message = reader.message().unwrap().unwrap();
        assert_eq!((message.number(1), message.text(2).as_deref()), (Some(300), Some("ab")));
        assert_eq!((message.numbers(3), message.number(4)), (vec![1, 2], None));
        assert_eq!(reader.raw(4).unwrap(), b"raw!");
        assert_eq!(reader.message().unwrap(), None);
    }

    #[test]
    fn what_is_not_changed_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("x.img"), dir.path().join("link.img"));
        std::fs::write(&path, FILE).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut reader = Reader::open(&link).unwrap();
        let mut message = reader.message().unwrap().unwrap();
        message.set_text(2, "changed");
        message.set_packed(3, &[7, 300]);
        let mut writer = reader.writer();
        writer.message(&message);
        writer.raw(b"raw!");
        writer.save(&link).unwrap();
        let again = Reader::open(&link).unwrap().message().unwrap().unwrap();
        assert_eq!((again.number(1), again.text(2).as_deref()), (Some(300), Some("changed")));
        assert_eq!(again.numbers(3), [7, 300]);
        assert_eq!(std::fs::read(&path).unwrap(), FILE);
    }

    #[test]
    fn a_file_that_ends_too_early_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.img");
        std::fs::write(&path, &FILE[..16]).unwrap();
        let words = Reader::open(&path).unwrap().message().unwrap_err().to_string();
        assert_eq!(words, format!("read {}: the end of the file at byte 12", path.display()));
        assert!(Reader::open_if_there(&dir.path().join("none")).unwrap().is_none());
    }
}
