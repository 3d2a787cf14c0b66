//! JSON as Go's decoder takes it, and clients of runc therefore write it: keys in any case, and whatever behind the value.
//!
//! A type that is derived tells its deserializer which fields it has. The one here stands between serde_json's and the
//! type, and gives a key that differs from a field in its case alone as that field.

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::{Map, Value};
use std::cell::Cell;
use std::fmt::Formatter;

/// What was read.
#[derive(Debug)]
pub struct Read<T> {
    /// The value.
    pub value: Box<T>,
    /// How many bytes of the text it took.
    pub length: usize,
    /// Whether a key had another case than its field.
    pub recased: bool,
}

/// Reads the value at the beginning of a text.
pub fn read<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<Read<T>> {
    let recased = Cell::new(false);
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = T::deserialize(Folding { inner: &mut deserializer, fields: &[], recased: &recased }).map(Box::new)?;
    let length = match deserializer.end() {
        Ok(()) => text.len(),
        Err(_) => {
            let mut values = serde_json::Deserializer::from_slice(text).into_iter::<IgnoredAny>();
            _ = values.next();
            values.byte_offset()
        }
    };
    Ok(Read { value, length, recased: recased.get() })
}

/// Keys of the specification whose values are maps, in which the case belongs to the key.
const MAPS: [&str; 5] = ["annotations", "netDevices", "rdma", "sysctl", "unified"];

/// Reads the value at the beginning of a text, in which one key may stand several times, in any case: what stands there
/// is joined in the order of the text, under the first spelling. The types would take none, or one alone.
pub fn value(text: &[u8]) -> serde_json::Result<Value> {
    Joining { is_map: false }.deserialize(&mut serde_json::Deserializer::from_slice(text))
}

/// Reads a value, while the order of its keys is still known.
#[derive(Clone, Copy)]
struct Joining {
    /// Whether it is one of [`MAPS`].
    is_map: bool,
}

impl<'de> DeserializeSeed<'de> for Joining {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Joining {
    type Value = Value;

    fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(Joining { is_map: false })? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut joined = Map::new();
        while let Some(key) = object.next_key::<String>()? {
            let is_map = !self.is_map && MAPS.iter().any(|map| map.eq_ignore_ascii_case(&key));
            let value = object.next_value_seed(Joining { is_map })?;
            join(&mut joined, key, value, self.is_map);
        }
        Ok(joined.into())
    }
}

/// Adds what stands under a key to what an earlier spelling of it had.
fn join(object: &mut Map<String, Value>, key: String, value: Value, is_map: bool) {
    let same = |known: &&String| if is_map { **known == key } else { known.eq_ignore_ascii_case(&key) };
    let known = object.keys().find(same).cloned();
    match (known.as_ref().and_then(|known| object.get_mut(known)), value) {
        (Some(Value::Object(first)), Value::Object(more)) => {
            let is_map = MAPS.iter().any(|map| map.eq_ignore_ascii_case(&key));
            more.into_iter().for_each(|(key, value)| join(first, key, value, is_map));
        }
        (Some(first), value) => *first = value,
        (None, value) => _ = object.insert(key, value),
    }
}

/// Something of serde's, wrapped so that what it leads to is wrapped too. `fields` are those of a struct whose keys come
/// next.
struct Folding<'f, T> {
    inner: T,
    fields: &'static [&'static str],
    recased: &'f Cell<bool>,
}

impl<'f, T> Folding<'f, T> {
    fn around<U>(&self, inner: U) -> Folding<'f, U> {
        self.with_fields(inner, self.fields)
    }

    fn with_fields<U>(&self, inner: U, fields: &'static [&'static str]) -> Folding<'f, U> {
        Folding { inner, fields, recased: self.recased }
    }

    /// Returns the field that a key stands for.
    fn field<'k>(&self, key: &'k str) -> &'k str {
        if self.fields.contains(&key) {
            return key;
        }
        match self.fields.iter().find(|field| field.eq_ignore_ascii_case(key)) {
            Some(field) => {
                self.recased.set(true);
                field
            }
            None => key,
        }
    }
}

macro_rules! deserialize {
    ($($name:ident)*) => {
        $(fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            let visitor = self.with_fields(visitor, &[]);
            self.inner.$name(visitor)
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Folding<'_, D> {
    type Error = D::Error;

    deserialize! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64 deserialize_char deserialize_str
        deserialize_string deserialize_bytes deserialize_byte_buf deserialize_option deserialize_unit deserialize_seq
        deserialize_map deserialize_ignored_any
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = self.with_fields(visitor, &[]);
        self.inner.deserialize_unit_struct(name, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = self.with_fields(visitor, &[]);
        self.inner.deserialize_newtype_struct(name, visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = self.with_fields(visitor, &[]);
        self.inner.deserialize_tuple(len, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.with_fields(visitor, &[]);
        self.inner.deserialize_tuple_struct(name, len, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.with_fields(visitor, fields);
        self.inner.deserialize_struct(name, fields, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        // Variants are values, whose case counts.
        self.inner.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        // A key: the fields are those of the struct around it.
        let visitor = self.with_fields(visitor, self.fields);
        self.inner.deserialize_identifier(visitor)
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Folding<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<V::Value, E> {
        self.inner.visit_bool(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<V::Value, E> {
        self.inner.visit_i64(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<V::Value, E> {
        self.inner.visit_u64(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<V::Value, E> {
        self.inner.visit_f64(value)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<V::Value, E> {
        let text = self.field(text);
        self.inner.visit_str(text)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let inner = self.around(inner);
        self.inner.visit_some(inner)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let inner = self.around(inner);
        self.inner.visit_newtype_struct(inner)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let inner = self.around(inner);
        self.inner.visit_seq(inner)
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let inner = self.around(inner);
        self.inner.visit_map(inner)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(inner)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Folding<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let seed = self.around(seed);
        self.inner.next_element_seed(seed)
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Folding<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let seed = self.around(seed);
        self.inner.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.around(seed);
        self.inner.next_value_seed(seed)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Folding<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        let inner = self.around(inner);
        self.inner.deserialize(inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{Process, Spec};
    use serde_json::json;
    use std::collections::HashMap;

    #[test]
    fn keys_of_fields_have_any_case_and_those_of_maps_their_own() {
        let text = br#"{"OCIVERSION": "1.0.2", "Process": {"CWD": "/", "user": {"UID": 7, "gid": 8}, "ARGS": ["Args"]},
                        "annotations": {"Key": "Cwd"}, "linux": {"Namespaces": [{"Type": "pid"}]}}"#;
        let Read { value: spec, recased, .. } = read::<Spec>(text).unwrap();
        assert!(recased);
        assert_eq!(spec.version(), "1.0.2");
        let process = spec.process().as_ref().unwrap();
        assert_eq!((process.user().uid(), process.user().gid()), (7, 8));
        assert_eq!(process.args().as_deref(), Some(&["Args".to_owned()][..]));
        let annotations = HashMap::from([("Key".to_owned(), "Cwd".to_owned())]);
        assert_eq!(spec.annotations().as_ref(), Some(&annotations));
        assert_eq!(spec.linux().as_ref().unwrap().namespaces().as_ref().unwrap().len(), 1);
    }

    #[test]
    fn spellings_of_one_key_are_joined_in_the_order_of_the_text_but_in_maps() {
        for (text, expected) in [
            (
                r#"{"cpu": {"quota": 5}, "CPU": {"Cpus": "0", "cpus": "1"}} and more"#,
                json!({"cpu": {"quota": 5, "Cpus": "1"}}),
            ),
            (r#"{"CPU": {"cpus": "1"}, "cpu": {"CPUs": "0"}}"#, json!({"CPU": {"cpus": "0"}})),
            (r#"{"a": {"b": 1}, "a": {"c": [2, -1, 0.5, true]}}"#, json!({"a": {"b": 1, "c": [2, -1, 0.5, true]}})),
            (r#"{"a": {"b": 1}, "A": null, "c": 1, "C": "d"}"#, json!({"a": null, "c": "d"})),
            (
                r#"{"Unified": {"A": "1", "a": "2"}, "unified": {"a": "3", "b": ""}}"#,
                json!({"Unified": {"A": "1", "a": "3", "b": ""}}),
            ),
            (r#"{"rdma": {"a": {"X": 1, "x": 2}, "A": {}}}"#, json!({"rdma": {"a": {"X": 2}, "A": {}}})),
        ] {
            assert_eq!(value(text.as_bytes()).unwrap(), expected, "{text}");
        }
        assert!(value(b"{").is_err());
    }

    #[test]
    fn what_is_written_as_the_field_is_read_as_ever() {
        let text = crate::spec::template::text(None, false, &crate::spec::template::Ipc::Private(None));
        let Read { value, length, recased } = read::<Spec>(text.as_bytes()).unwrap();
        assert_eq!(value, serde_json::from_str(&text).unwrap());
        assert!(length == text.len() && !recased);
    }

    #[test]
    fn what_stands_behind_the_value_is_not_read() {
        let process = r#"{"cwd": "/", "user": {"uid": 0, "gid": 0}}"#;
        for rest in ["", "\n \n"] {
            let text = format!("{process}{rest}");
            assert_eq!(read::<Process>(text.as_bytes()).unwrap().length, text.len());
        }
        for rest in ["}", " and more", "\n{}", "\0"] {
            let text = format!("{process}{rest}");
            assert_eq!(read::<Process>(text.as_bytes()).unwrap().length, process.len(), "{rest:?}");
        }
        assert!(read::<Process>(&process.as_bytes()[1..]).is_err());
    }
}
