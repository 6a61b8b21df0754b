//! Reads a tree into types, and collects all that does not fit on the way.
//!
//! serde stops at the first error. So what is wrong is taken out of the tree, which leaves the
//! default in its place, and the rest is read again, until it fits.

use std::fmt;

use serde::{
    de::{
        self, DeserializeOwned, DeserializeSeed, Expected, IntoDeserializer, MapAccess, SeqAccess,
        Unexpected, Visitor,
    },
    forward_to_deserialize_any,
};

use super::{
    problem::{Origin, Problems, suggestion},
    tree::{Entry, Node, Value},
};

/// Reads `root`. What does not fit is removed from it and reported.
pub(super) fn read<T: DeserializeOwned + Default>(root: &mut Node, problems: &mut Problems) -> T {
    loop {
        match T::deserialize(&*root) {
            Ok(value) => return value,
            Err(mismatch) => {
                let (keys, places): (Vec<_>, Vec<_>) = mismatch.steps.into_iter().rev().unzip();
                let origin = mismatch.origin.unwrap_or(Origin::Default);
                problems.error(&origin, &join(&keys), mismatch.message);
                if places.is_empty() {
                    return T::default();
                }
                // Each round makes the tree smaller, so that this ends.
                root.remove(&places);
            }
        }
    }
}

fn join(keys: &[Key]) -> String {
    let mut path = String::new();
    for key in keys {
        match key {
            Key::Name(name) if path.is_empty() => path.push_str(name),
            Key::Name(name) => path = format!("{path}.{name}"),
            Key::Place(place) => path = format!("{path}[{place}]"),
        }
    }
    path
}

/// Why a tree is not a value of the type, and where.
#[derive(Debug)]
pub(super) struct Mismatch {
    message: String,
    origin: Option<Origin>,
    /// From the node outwards: its key, and its place among its siblings.
    steps: Vec<(Key, usize)>,
}

#[derive(Debug)]
enum Key {
    Name(String),
    Place(usize),
}

impl Mismatch {
    fn at(mut self, origin: &Origin) -> Self {
        self.origin.get_or_insert_with(|| origin.clone());
        self
    }

    fn within(mut self, key: Key, place: usize) -> Self {
        self.steps.push((key, place));
        self
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Mismatch {}

impl de::Error for Mismatch {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { message: message.to_string(), origin: None, steps: Vec::new() }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("is {}; expected {}", describe(found), wanted(expected)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(found: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format_args!("is `{found}`; expected one of {}", expected.join(", ")))
    }

    fn unknown_field(found: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format_args!("no such key{}", suggestion(found, expected)))
    }
}

fn describe(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => format!("`{value}`"),
        Unexpected::Unsigned(value) => format!("`{value}`"),
        Unexpected::Signed(value) => format!("`{value}`"),
        Unexpected::Float(value) => format!("`{value}`"),
        Unexpected::Str(text) => format!("`{text}`"),
        Unexpected::Unit => "empty".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a mapping".to_owned(),
        other => other.to_string(),
    }
}

/// serde's names of Rust's types, in the words of a YAML file.
fn wanted(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, not below 0".to_owned(),
        "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a map" => "a mapping".to_owned(),
        _ if text.starts_with("struct ") => "a mapping".to_owned(),
        _ => text,
    }
}

impl<'de> de::Deserializer<'de> for &'de Node {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        let result = match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => match u64::try_from(*value) {
                Ok(value) => visitor.visit_u64(value),
                Err(_) => visitor.visit_i64(i64::try_from(*value).unwrap_or(i64::MIN)),
            },
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::List(nodes) => visitor.visit_seq(Elements { nodes, next: 0 }),
            Value::Map(entries) => visitor.visit_map(Entries { entries, next: 0 }),
        };
        result.map_err(|mismatch| mismatch.at(&self.origin))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        self.deserialize_map(visitor)
    }

    /// A section whose keys are all commented out is empty, which is as good as no section.
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.value {
            Value::Null => visitor.visit_map(Entries { entries: &[], next: 0 }),
            // serde's own structs would take a list as their fields, in their order.
            Value::List(_) => {
                let mismatch: Mismatch = de::Error::invalid_type(Unexpected::Seq, &"a mapping");
                Err(mismatch.at(&self.origin))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        let result = match &self.value {
            Value::Text(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            // A word like the others to whoever writes it, and nothing to YAML.
            Value::Null if variants.contains(&"null") => {
                visitor.visit_enum("null".into_deserializer())
            }
            other => Err(de::Error::custom(format_args!(
                "is {}; expected one of {}",
                other.describe(),
                variants.join(", ")
            ))),
        };
        result.map_err(|mismatch: Mismatch| mismatch.at(&self.origin))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct identifier ignored_any
    }
}

struct Elements<'de> {
    nodes: &'de [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for Elements<'de> {
    type Error = Mismatch;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Mismatch> {
        let place = self.next;
        let Some(node) = self.nodes.get(place) else { return Ok(None) };
        self.next += 1;
        seed.deserialize(node)
            .map(Some)
            .map_err(|mismatch| mismatch.within(Key::Place(place), place))
    }
}

struct Entries<'de> {
    entries: &'de [Entry],
    next: usize,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Mismatch;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Mismatch> {
        let Some(Entry { key, origin, .. }) = self.entries.get(self.next) else { return Ok(None) };
        self.next += 1;
        seed.deserialize(key.as_str().into_deserializer()).map(Some).map_err(
            |mismatch: Mismatch| mismatch.at(origin).within(Key::Name(key.clone()), self.next - 1),
        )
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Mismatch> {
        let place = self.next - 1;
        let Entry { key, node, .. } = &self.entries[place];
        seed.deserialize(node).map_err(|mismatch| mismatch.within(Key::Name(key.clone()), place))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;
    use crate::config::tree::{Dialect, parse};

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Outer {
        size: u32,
        share: f64,
        on: bool,
        inner: BTreeMap<String, Inner>,
        list: Vec<u32>,
        word: Word,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Inner {
        size: Option<u32>,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Word {
        #[default]
        One,
        Two,
    }

    fn read_outer(text: &str) -> (Outer, Vec<String>) {
        let mut tree = parse(text, &Origin::file("f"), Dialect::Larder).unwrap();
        let mut problems = Problems::default();
        let outer = read(&mut tree, &mut problems);
        (outer, problems.errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn every_mismatch_is_reported_and_the_rest_is_read() {
        let text = "size: -1\nshare: 2\nsise: 3\ninner: {a: {size: x}, b: {size: 7}}\n\
                    list: [1, two, 3]\nword: three\non: 1\n";
        let (outer, errors) = read_outer(text);
        assert_eq!(
            errors,
            [
                "f:1:7: size: is `-1`; expected a whole number, not below 0",
                "f:3:1: sise: no such key; did you mean `size`?",
                "f:4:19: inner.a.size: is `x`; expected a whole number, not below 0",
                "f:5:11: list[1]: is `two`; expected a whole number, not below 0",
                "f:6:7: word: is `three`; expected one of one, two",
                "f:7:5: on: is `1`; expected true or false",
            ]
        );
        let inner = [("a", None), ("b", Some(7))];
        let inner = inner.map(|(name, size)| (name.to_owned(), Inner { size })).into();
        assert_eq!(outer, Outer { share: 2.0, list: vec![1, 3], inner, ..Outer::default() });
    }

    #[test]
    fn an_empty_section_is_a_section_of_defaults() {
        assert_eq!(read_outer("inner:\n"), (Outer::default(), vec![]));
        assert_eq!(read_outer(""), (Outer::default(), vec![]));
        assert_eq!(read_outer("size:\n").1.len(), 1);
    }

    #[test]
    fn a_document_that_is_no_mapping_is_one_problem() {
        assert_eq!(read_outer("just text").1, ["f:1:1: is `just text`; expected a mapping"]);
        assert_eq!(read_outer("[1, 2]").1, ["f:1:1: is a list; expected a mapping"]);
    }
}
