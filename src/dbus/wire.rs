//! The wire format: messages, and the types of which the runtime speaks.
//!
//! Every value is aligned to its size, counted from the beginning of its message. A body begins at a multiple of 8, so
//! that the alignment in it is that in the message.

use super::Object;
use crate::error::{Error, Result};

/// The byte that says in which order numbers are written: this machine's, as everybody's on it.
const ORDER: u8 = if cfg!(target_endian = "big") { b'B' } else { b'l' };

/// The version of the protocol.
const PROTOCOL: u8 = 1;

/// What a message is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A call of a method, which nobody makes here.
    Call = 1,
    /// The answer to a call.
    Return = 2,
    /// The refusal of a call.
    Error = 3,
    /// A signal.
    Signal = 4,
    /// What a later version of the protocol may have: to be passed over.
    Other = 255,
}

/// The header's fields, by their numbers.
mod field {
    pub const PATH: u8 = 1;
    pub const INTERFACE: u8 = 2;
    pub const MEMBER: u8 = 3;
    pub const ERROR_NAME: u8 = 4;
    pub const REPLY_SERIAL: u8 = 5;
    pub const DESTINATION: u8 = 6;
    pub const SENDER: u8 = 7;
    pub const SIGNATURE: u8 = 8;
}

/// Values on their way out.
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    bytes: Vec<u8>,
    signature: String,
}

impl Encoder {
    /// Says of which types the values are.
    pub fn with_signature(mut self, signature: &str) -> Self {
        signature.clone_into(&mut self.signature);
        self
    }

    fn align(&mut self, size: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(size), 0);
    }

    /// Adds a number or a boolean of the type `code`, which decides how many bytes it has.
    pub fn number(&mut self, code: char, value: u64) {
        let size = match code {
            'y' => 1,
            'n' | 'q' => 2,
            'x' | 't' | 'd' => 8,
            _ => 4,
        };
        self.align(size);
        let bytes = value.to_ne_bytes();
        let first = if cfg!(target_endian = "big") { bytes.len() - size } else { 0 };
        self.bytes.extend_from_slice(&bytes[first..first + size]);
    }

    /// Adds a string, or the path of an object.
    pub fn text(&mut self, text: &str) {
        self.number('u', text.len() as u64);
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
    }

    /// Adds the signature that a variant begins with.
    pub fn signature(&mut self, signature: &str) {
        self.bytes.push(signature.len() as u8);
        self.bytes.extend_from_slice(signature.as_bytes());
        self.bytes.push(0);
    }

    /// Adds a field of a header, if it says anything: number, type, text.
    fn field(&mut self, (number, kind, value): (u8, &str, &str)) {
        if value.is_empty() {
            return;
        }
        self.structure();
        self.number('y', u64::from(number));
        self.signature(kind);
        if kind == "g" { self.signature(value) } else { self.text(value) }
    }

    /// Begins a structure.
    pub fn structure(&mut self) {
        self.align(8);
    }

    /// Adds an array of what `fill` adds, each of which is aligned to `alignment`.
    pub fn array(&mut self, alignment: usize, fill: &mut dyn FnMut(&mut Self)) {
        self.number('u', 0);
        let length_at = self.bytes.len() - 4;
        // The padding before the first element is there without one too, and does not count.
        self.align(alignment);
        let start = self.bytes.len();
        fill(self);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[length_at..length_at + 4].copy_from_slice(&length.to_ne_bytes());
    }
}

/// Returns the bytes of a method's call.
pub(super) fn call(serial: u32, object: Object<'_>, method: &str, body: &Encoder) -> Vec<u8> {
    let fields = [
        (field::PATH, "o", object.path),
        (field::DESTINATION, "s", object.service),
        (field::INTERFACE, "s", object.interface),
        (field::MEMBER, "s", method),
    ];
    message(Kind::Call, serial, &mut |array| fields.iter().for_each(|field| array.field(*field)), body)
}

/// Returns the bytes of a message, to whose header `fields` adds what is not about the body.
fn message(kind: Kind, serial: u32, fields: &mut dyn FnMut(&mut Encoder), body: &Encoder) -> Vec<u8> {
    let mut message = Encoder { bytes: vec![ORDER, kind as u8, 0, PROTOCOL], signature: String::new() };
    message.number('u', body.bytes.len() as u64);
    message.number('u', u64::from(serial));
    message.array(8, &mut |array| {
        fields(array);
        array.field((field::SIGNATURE, "g", &body.signature));
    });
    message.align(8);
    message.bytes.extend_from_slice(&body.bytes);
    message.bytes
}

/// The fixed part that a message begins with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub kind: Kind,
    /// Where the header's fields end.
    fields_end: usize,
    /// Where the body begins.
    body: usize,
    /// How long the whole message is.
    pub total: usize,
}

impl Start {
    /// Its length, with that of the array of fields.
    pub const SIZE: usize = 16;

    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut decoder = Decoder { bytes, at: 0 };
        let mut byte = || decoder.byte();
        let (order, kind, _flags, version) = (byte()?, byte()?, byte()?, byte()?);
        let (body, _serial, fields) = (decoder.uint32()?, decoder.uint32()?, decoder.uint32()?);
        let kind = match kind {
            1 => Kind::Call,
            2 => Kind::Return,
            3 => Kind::Error,
            4 => Kind::Signal,
            0 => return Err(malformed()),
            _ => Kind::Other,
        };
        if order != ORDER || version != PROTOCOL {
            return Err(malformed());
        }
        let fields_end = Self::SIZE.saturating_add(fields as usize);
        let start = fields_end.saturating_add(7) & !7;
        Ok(Self { kind, fields_end, body: start, total: start.saturating_add(body as usize) })
    }
}

/// A message that came in.
#[derive(Debug)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// The call that it answers.
    pub answers: Option<u32>,
    /// The signal's name.
    pub member: Option<String>,
    /// The error's name.
    pub error_name: Option<String>,
    /// Who sent it, in the words of a bus.
    pub sender: Option<String>,
    bytes: Vec<u8>,
    body: usize,
}

impl Message {
    pub(super) fn parse(start: &Start, bytes: Vec<u8>) -> Result<Self> {
        let mut message = Self {
            kind: start.kind,
            answers: None,
            member: None,
            error_name: None,
            sender: None,
            bytes: Vec::new(),
            body: start.body,
        };
        let mut decoder = Decoder { bytes: &bytes[..start.fields_end], at: Start::SIZE };
        while decoder.at < start.fields_end {
            decoder.align(8);
            let number = decoder.byte()?;
            let value = match decoder.signature()?.as_str() {
                "s" | "o" => Field::Text(decoder.text()?),
                "g" => Field::Text(decoder.signature()?),
                "u" => Field::Number(decoder.uint32()?),
                _ => return Err(malformed()),
            };
            match (number, value) {
                (field::MEMBER, Field::Text(text)) => message.member = Some(text),
                (field::ERROR_NAME, Field::Text(text)) => message.error_name = Some(text),
                (field::SENDER, Field::Text(text)) => message.sender = Some(text),
                (field::REPLY_SERIAL, Field::Number(serial)) => message.answers = Some(serial),
                _ => {}
            }
        }
        message.bytes = bytes;
        Ok(message)
    }

    /// Returns what reads its values, from the first one on.
    pub fn body(&self) -> Decoder<'_> {
        Decoder { bytes: &self.bytes, at: self.body }
    }
}

enum Field {
    Text(String),
    Number(u32),
}

/// Values on their way in, read one after the other.
#[derive(Debug)]
pub struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Decoder<'_> {
    fn align(&mut self, size: usize) {
        self.at = self.at.next_multiple_of(size);
    }

    fn take(&mut self, len: usize) -> Result<&[u8]> {
        let end = self.at.checked_add(len).ok_or_else(malformed)?;
        let bytes = self.bytes.get(self.at..end).ok_or_else(malformed)?;
        self.at = end;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    /// Reads a number.
    pub fn uint32(&mut self) -> Result<u32> {
        self.align(4);
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.take(4)?);
        Ok(u32::from_ne_bytes(bytes))
    }

    /// Reads a string, or the path of an object.
    pub fn text(&mut self) -> Result<String> {
        let len = self.uint32()? as usize;
        self.terminated(len)
    }

    /// Reads the signature that a variant begins with.
    pub fn signature(&mut self) -> Result<String> {
        let len = self.byte()?.into();
        self.terminated(len)
    }

    fn terminated(&mut self, len: usize) -> Result<String> {
        let text = String::from_utf8(self.take(len)?.to_vec()).map_err(|_| malformed())?;
        self.take(1)?;
        Ok(text)
    }
}

fn malformed() -> Error {
    Error::other("malformed D-Bus message")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A message of somebody: what it answers, the signal's or the error's name, and who sends it.
    pub(in crate::dbus) fn other(
        kind: Kind,
        answers: Option<u32>,
        [name, sender]: [&str; 2],
        body: &Encoder,
    ) -> Vec<u8> {
        let number = if kind == Kind::Error { field::ERROR_NAME } else { field::MEMBER };
        let mut fields = |array: &mut Encoder| {
            array.field((number, "s", name));
            array.field((field::SENDER, "s", sender));
            if let Some(serial) = answers {
                array.structure();
                array.number('y', field::REPLY_SERIAL.into());
                array.signature("u");
                array.number('u', serial.into());
            }
        };
        message(kind, 1, &mut fields, body)
    }

    /// A message as dbus-monitor --binary has it: a signal JobRemoved of systemd.
    fn signal() -> Vec<u8> {
        let mut body = Encoder::default();
        body.number('u', 7);
        body.text("/job/7");
        body.text("a.scope");
        body.text("done");
        other(Kind::Signal, None, ["JobRemoved", ":1.2"], &body.with_signature("uoss"))
    }

    const OBJECT: Object<'static> = Object { service: "a.b", path: "/a", interface: "c.d" };

    #[test]
    fn a_call_is_laid_out_as_the_specification_has_it() {
        let mut body = Encoder::default();
        body.number('y', 1);
        body.number('t', 2);
        let bytes = call(3, OBJECT, "M", &body.with_signature("yt"));
        let fields = b"\x01\x01o\0\x02\0\0\0/a\0\0\0\0\0\0\
            \x06\x01s\0\x03\0\0\0a.b\0\0\0\0\0\
            \x02\x01s\0\x03\0\0\0c.d\0\0\0\0\0\
            \x03\x01s\0\x01\0\0\0M\0\0\0\0\0\0\0\
            \x08\x01g\0\x02yt\0";
        if cfg!(target_endian = "little") {
            assert_eq!(bytes[..16], *b"l\x01\0\x01\x10\0\0\0\x03\0\0\0\x48\0\0\0");
            assert_eq!(bytes[16..16 + fields.len()], *fields);
            assert_eq!(bytes[16 + fields.len()..], *b"\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0");
        }
    }

    #[test]
    fn a_signal_is_read_to_its_last_value() {
        let bytes = signal();
        let start = Start::parse(&bytes).unwrap();
        assert_eq!(start.total, bytes.len());
        let message = Message::parse(&start, bytes).unwrap();
        assert_eq!((message.kind, message.member.as_deref()), (Kind::Signal, Some("JobRemoved")));
        assert_eq!((message.sender.as_deref(), message.answers), (Some(":1.2"), None));
        let mut body = message.body();
        assert_eq!(body.uint32().unwrap(), 7);
        assert_eq!([body.text().unwrap(), body.text().unwrap(), body.text().unwrap()], ["/job/7", "a.scope", "done"]);
        assert!(body.byte().is_err());
    }

    #[test]
    fn what_is_cut_off_or_nonsense_is_an_error() {
        let bytes = signal();
        let start = Start::parse(&bytes).unwrap();
        for (at, value) in [(0, b'?'), (1, 0), (3, 2)] {
            let mut changed = bytes.clone();
            changed[at] = value;
            assert!(Start::parse(&changed).is_err(), "{at}");
        }
        // The length of the first field's text.
        let mut changed = bytes.clone();
        changed[21] = 0xff;
        assert!(Message::parse(&start, changed).is_err());
    }

    #[test]
    fn the_padding_of_an_array_does_not_count() {
        for (fill, expected) in
            [(0, vec![0, 0, 0, 0, 0, 0, 0, 0]), (1, vec![8, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0])]
        {
            let mut encoder = Encoder::default();
            encoder.array(8, &mut |array| (0..fill).for_each(|_| array.number('t', 9)));
            if cfg!(target_endian = "little") {
                assert_eq!(encoder.bytes, expected);
            }
        }
    }
}
