//! Properties that annotations ask for: `org.systemd.property.NAME` with a value in GVariant's text format, of which
//! the types are taken that units have.

use std::collections::HashMap;

use super::{Property, Value};
use crate::error::{Error, Result};

const PREFIX: &str = "org.systemd.property.";

/// The types of numbers, by their names and by D-Bus's letters.
const TYPES: [(&str, char); 8] = [
    ("byte", 'y'),
    ("int16", 'n'),
    ("uint16", 'q'),
    ("int32", 'i'),
    ("uint32", 'u'),
    ("int64", 'x'),
    ("uint64", 't'),
    ("double", 'd'),
];

/// Returns the properties among the annotations, in the order of their names.
pub fn properties(annotations: &HashMap<String, String>) -> Result<Vec<Property>> {
    let mut entries: Vec<_> = annotations.iter().collect();
    entries.sort();
    let named = entries.into_iter().filter_map(|(key, text)| Some((key, key.strip_prefix(PREFIX)?, text)));
    named.map(|(key, name, text)| property(name, text).map_err(|what| explain(key, text, what))).collect()
}

/// What is wrong with an annotation.
enum Wrong {
    Name(&'static str),
    Value,
}

fn explain(key: &str, text: &str, wrong: Wrong) -> Error {
    match wrong {
        Wrong::Name(why) => Error::invalid(format!("annotation {key} name incorrect: {why}")),
        Wrong::Value => Error::invalid(format!("annotation {key}={text} value parse error")),
    }
}

fn property(name: &str, text: &str) -> std::result::Result<Property, Wrong> {
    if name.len() < 3 {
        return Err(Wrong::Name("too short"));
    }
    if !name.chars().all(|letter| letter.is_ascii_alphabetic()) {
        return Err(Wrong::Name("contains non-alphabetic characters"));
    }
    // What unit files have in seconds are properties in microseconds.
    let seconds = name.strip_suffix("Sec").filter(|start| start.ends_with(|letter: char| letter.is_ascii_lowercase()));
    match seconds {
        Some(start) => Ok(Property::new(&format!("{start}USec"), microseconds(text).ok_or(Wrong::Value)?)),
        None => Ok(Property::new(name, value(text).ok_or(Wrong::Value)?)),
    }
}

fn microseconds(text: &str) -> Option<Value> {
    const MICROS: u64 = 1_000_000;
    let micros = match value(text)? {
        Value::Number('b', _) => None,
        Value::Number('d', bits) => {
            let micros = f64::from_bits(bits) * MICROS as f64;
            (0.0..u64::MAX as f64).contains(&micros).then_some(micros as u64)
        }
        Value::Number('t', seconds) => seconds.checked_mul(MICROS),
        Value::Number(_, seconds) => u64::try_from(seconds as i64).ok()?.checked_mul(MICROS),
        _ => None,
    };
    micros.map(|micros| Value::Number('t', micros))
}

fn value(text: &str) -> Option<Value> {
    let text = text.trim();
    if let Some(list) = text.strip_prefix('[') {
        let (texts, rest) = strings(list)?;
        return rest.is_empty().then_some(Value::Texts(texts));
    }
    if text.starts_with(['\'', '"']) {
        let (text, rest) = string(text)?;
        return rest.is_empty().then_some(Value::Text(text));
    }
    match text {
        "true" => return Some(Value::Number('b', 1)),
        "false" => return Some(Value::Number('b', 0)),
        "@as []" => return Some(Value::Texts(Vec::new())),
        _ => {}
    }
    let (code, number) = match text.split_once(' ') {
        Some((name, number)) => (TYPES.iter().find(|(known, _)| *known == name)?.1, number.trim_start()),
        None if text.contains('.') => ('d', text),
        None => ('i', text),
    };
    number_of(code, number).map(|bits| Value::Number(code, bits))
}

/// Returns the bits of a number, if it is one of its type.
fn number_of(code: char, text: &str) -> Option<u64> {
    Some(match code {
        'y' => text.parse::<u8>().ok()?.into(),
        'n' => text.parse::<i16>().ok()? as u64,
        'q' => text.parse::<u16>().ok()?.into(),
        'i' => text.parse::<i32>().ok()? as u64,
        'u' => text.parse::<u32>().ok()?.into(),
        'x' => text.parse::<i64>().ok()? as u64,
        't' => text.parse().ok()?,
        _ => text.parse::<f64>().ok()?.to_bits(),
    })
}

/// Reads strings up to the end of their list; returns what follows that.
fn strings(mut text: &str) -> Option<(Vec<String>, &str)> {
    let mut texts = Vec::new();
    loop {
        let (one, rest) = string(text.trim_start())?;
        texts.push(one);
        text = rest.trim_start();
        match text.strip_prefix(',') {
            Some(rest) => text = rest,
            None => return Some((texts, text.strip_prefix(']')?)),
        }
    }
}

/// Reads a string in quotes; returns what follows it.
fn string(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    let mut value = String::new();
    let mut letters = text.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => value.push(match letters.next()?.1 {
                'n' => '\n',
                't' => '\t',
                other => other,
            }),
            letter if letter == quote => return Some((value, &text[at + 1..])),
            letter => value.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, text: &str) -> Result<Vec<Property>> {
        properties(&HashMap::from([(format!("{PREFIX}{name}"), text.to_owned()), ("other".into(), "x".into())]))
    }

    #[test]
    fn values_have_the_types_that_they_name() {
        let cases = [
            ("'a\\'b'", Value::Text("a'b".into())),
            ("\"/run\"", Value::Text("/run".into())),
            ("true", Value::Number('b', 1)),
            ("uint64 18446744073709551615", Value::Number('t', u64::MAX)),
            ("int32 -1", Value::Number('i', u64::MAX)),
            ("7", Value::Number('i', 7)),
            ("1.5", Value::Number('d', 1.5f64.to_bits())),
            ("['a', \"b\"]", Value::Texts(vec!["a".into(), "b".into()])),
            ("@as []", Value::Texts(Vec::new())),
        ];
        for (text, expected) in cases {
            assert_eq!(of("Some", text).unwrap(), [Property::new("Some", expected)], "{text}");
        }
    }

    #[test]
    fn seconds_become_microseconds() {
        for (text, expected) in [("uint64 2", 2_000_000), ("1.5", 1_500_000), ("3", 3_000_000)] {
            assert_eq!(of("TimeoutStopSec", text).unwrap(), [Property::number("TimeoutStopUSec", expected)]);
        }
        // Only the unit's end, not a word's.
        assert_eq!(of("XSec", "true").unwrap(), [Property::flag("XSec", true)]);
    }

    #[test]
    fn what_is_no_property_is_refused() {
        let cases = [
            ("ab", "true", "annotation org.systemd.property.ab name incorrect: too short"),
            ("a-bc", "true", "annotation org.systemd.property.a-bc name incorrect: contains non-alphabetic characters"),
            ("Some", "'a", "annotation org.systemd.property.Some='a value parse error"),
            ("Some", "'a' b", "annotation org.systemd.property.Some='a' b value parse error"),
            ("Some", "uint16 65536", "annotation org.systemd.property.Some=uint16 65536 value parse error"),
            ("SomeSec", "-1", "annotation org.systemd.property.SomeSec=-1 value parse error"),
            ("SomeSec", "some 1", "annotation org.systemd.property.SomeSec=some 1 value parse error"),
            ("SomeSec", "'1'", "annotation org.systemd.property.SomeSec='1' value parse error"),
            ("SomeSec", "true", "annotation org.systemd.property.SomeSec=true value parse error"),
            ("SomeSec", "double 1e30", "annotation org.systemd.property.SomeSec=double 1e30 value parse error"),
            (
                "SomeSec",
                "uint64 18446744073710",
                "annotation org.systemd.property.SomeSec=uint64 18446744073710 value parse error",
            ),
        ];
        for (name, text, expected) in cases {
            assert_eq!(of(name, text).unwrap_err().to_string(), expected);
        }
    }
}
