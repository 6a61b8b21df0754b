//! A YAML document as a tree whose nodes know where they were said.
//!
//! Files, environment and flags all become such trees and are laid over each other; only the
//! result is read into types, so that a wrong value is reported where it stands.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{Options, Spanned, options::DuplicateKeyPolicy};

use super::problem::{Origin, Problem};

/// A value and where it was said.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key of a mapping, where it was said, and what it has.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) origin: Origin,
    pub(super) node: Node,
}

/// Whose rules a document is read by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `off` is text; a repeated key is an error.
    Larder,
    /// As PyYAML reads it: `off` is false; of a repeated key the last counts.
    Python,
}

/// Reads a document. An error has the place, and never the text around it: that may be secret.
pub(super) fn parse(text: &str, origin: &Origin, dialect: Dialect) -> Result<Node, Problem> {
    match serde_saphyr::from_str_with_options::<Node>(text, options(dialect)) {
        Ok(mut node) => {
            node.relabel(origin);
            Ok(node)
        }
        Err(error) => {
            let origin = match (origin, error.location()) {
                (Origin::File { name, .. }, Some(place)) => {
                    Origin::File { name: name.clone(), line: place.line(), column: place.column() }
                }
                _ => origin.clone(),
            };
            let message = format!("cannot be read as YAML: {}", first_line(&error));
            Err(Problem { origin, key: String::new(), message })
        }
    }
}

fn options(dialect: Dialect) -> Options {
    let larder = dialect == Dialect::Larder;
    serde_saphyr::options! {
        // A configuration has some hundred nodes; aliases that multiply are stopped early.
        budget: serde_saphyr::budget! {
            max_depth: 32,
            max_nodes: 20_000,
            max_events: 60_000,
            max_documents: 1,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 20_000 },
        duplicate_keys: if larder { DuplicateKeyPolicy::Error } else { DuplicateKeyPolicy::LastWins },
        strict_booleans: larder,
        leading_zero_numbers_as_strings: larder,
        with_snippet: false,
    }
}

fn first_line(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

impl Node {
    /// An empty mapping.
    pub(super) fn empty() -> Self {
        Self { origin: Origin::Default, value: Value::Map(Vec::new()) }
    }

    /// `value` under `path`, all of it said at `origin`.
    pub(super) fn at_path(path: &[&str], value: Value, origin: &Origin) -> Self {
        let leaf = Self { origin: origin.clone(), value };
        path.iter().rev().fold(leaf, |node, key| Self {
            origin: origin.clone(),
            value: Value::Map(vec![Entry { key: (*key).to_owned(), origin: origin.clone(), node }]),
        })
    }

    /// The node that a mapping has for `key`.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        let Value::Map(entries) = &mut self.value else { return None };
        entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.node)
    }

    /// Where `path`, written with dots, was said: a default if it was not.
    pub(super) fn origin_of(&self, path: &str) -> Origin {
        let node = path.split('.').try_fold(self, |node, key| node.get(key));
        node.map_or(Origin::Default, |node| node.origin.clone())
    }

    /// Lays `over` over this: mappings are merged, anything else is replaced.
    pub(super) fn overlay(&mut self, over: Self) {
        match (&mut self.value, over.value) {
            (Value::Map(entries), Value::Map(over)) => {
                for entry in over {
                    match entries.iter_mut().find(|known| known.key == entry.key) {
                        Some(known) => known.node.overlay(entry.node),
                        None => entries.push(entry),
                    }
                }
            }
            (value, over_value) => {
                *value = over_value;
                self.origin = over.origin;
            }
        }
    }

    /// Removes the node at `path`, the places of its ancestors in theirs. The root becomes empty.
    pub(super) fn remove(&mut self, path: &[usize]) {
        match (&mut self.value, path) {
            (Value::Map(entries), [place]) => drop(entries.remove(*place)),
            (Value::Map(entries), [place, rest @ ..]) => entries[*place].node.remove(rest),
            (Value::List(nodes), [place]) => drop(nodes.remove(*place)),
            (Value::List(nodes), [place, rest @ ..]) => nodes[*place].remove(rest),
            _ => *self = Self::empty(),
        }
    }

    /// Says where the document came from, keeping lines and columns if that is a file.
    fn relabel(&mut self, source: &Origin) {
        relabel(&mut self.origin, source);
        match &mut self.value {
            Value::List(nodes) => nodes.iter_mut().for_each(|node| node.relabel(source)),
            Value::Map(entries) => {
                for entry in entries {
                    relabel(&mut entry.origin, source);
                    entry.node.relabel(source);
                }
            }
            _ => {}
        }
    }
}

fn relabel(origin: &mut Origin, source: &Origin) {
    match (origin, source) {
        (Origin::File { name, .. }, Origin::File { name: source, .. }) => *name = source.clone(),
        (origin, source) => *origin = source.clone(),
    }
}

impl Value {
    /// What it is, for a message: scalars as they are, the rest by its kind.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Null => "empty".to_owned(),
            Self::Bool(value) => format!("`{value}`"),
            Self::Integer(value) => format!("`{value}`"),
            Self::Float(value) => format!("`{value}`"),
            Self::Text(text) => format!("the text `{text}`"),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a mapping".to_owned(),
        }
    }

    /// What kind of thing it is: all that a message may say of a secret.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "empty",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { origin: place(referenced), value })
    }
}

fn place(location: serde_saphyr::Location) -> Origin {
    Origin::File { name: "".into(), line: location.line(), column: location.column() }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = access.next_element()? {
            nodes.push(node);
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, node)) = access.next_entry::<Spanned<String>, Node>()? {
            let entry = Entry { key: key.value, origin: place(key.referenced), node };
            // Of a repeated key the last counts, where the dialect lets it come here at all.
            match entries.iter_mut().find(|known: &&mut Entry| known.key == entry.key) {
                Some(known) => *known = entry,
                None => entries.push(entry),
            }
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_larder(text: &str) -> Result<Node, Problem> {
        parse(text, &Origin::file("f"), Dialect::Larder)
    }

    fn key_at(node: &Node, path: &str) -> String {
        node.origin_of(path).to_string()
    }

    #[test]
    fn every_node_knows_its_place() {
        let node = parse_larder("a:\n  b: 1\nc: [x, {d: y}]\n").unwrap();
        assert_eq!(key_at(&node, "a.b"), "f:2:6");
        assert_eq!(key_at(&node, "c"), "f:3:4");
        assert_eq!(key_at(&node, "nowhere"), "default");
        let Value::List(list) = &node.get("c").unwrap().value else { panic!() };
        assert_eq!(key_at(&list[1], "d"), "f:3:12");
    }

    #[test]
    fn off_is_a_word_for_larder_and_false_for_python() {
        let of = |dialect| parse("a: off", &Origin::file("f"), dialect).unwrap();
        assert_eq!(of(Dialect::Larder).get("a").unwrap().value, Value::Text("off".into()));
        assert_eq!(of(Dialect::Python).get("a").unwrap().value, Value::Bool(false));
    }

    #[test]
    fn of_a_repeated_key_python_takes_the_last_and_larder_neither() {
        let error = parse_larder("a: 1\nb: 2\na: 3\n").unwrap_err();
        assert!(error.to_string().starts_with("f:3:1: "), "{error}");
        let node = parse("a: 1\na: 3\n", &Origin::file("f"), Dialect::Python).unwrap();
        assert_eq!(node.get("a").unwrap().value, Value::Integer(3));
    }

    #[test]
    fn layers_merge_mappings_and_replace_the_rest() {
        let mut node = parse_larder("a: {b: 1, c: [1, 2]}\nd: 4\n").unwrap();
        node.overlay(Node::at_path(&["a", "c"], Value::Bool(true), &Origin::Flag("--c".into())));
        node.overlay(Node::at_path(&["d", "e"], Value::Bool(true), &Origin::Flag("--e".into())));
        assert_eq!(key_at(&node, "a.b"), "f:1:8");
        assert_eq!(key_at(&node, "a.c"), "--c");
        assert_eq!(key_at(&node, "d.e"), "--e");
    }

    #[test]
    fn a_document_that_multiplies_itself_is_stopped() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let last = format!("*a{}, ", level - 1).repeat(9);
            bomb += &format!("a{level}: &a{level} [{last}]\n");
        }
        assert!(parse_larder(&bomb).is_err());
        assert!(parse_larder(&format!("{}{}", "[".repeat(100), "]".repeat(100))).is_err());
    }

    #[test]
    fn a_syntax_error_does_not_show_what_the_file_says() {
        let error = parse_larder("password: hunter2\n  bad: : indent\n").unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(error.to_string().starts_with("f:"), "{error}");
    }
}
