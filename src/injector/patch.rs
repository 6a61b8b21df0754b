//! Changes to a pod, as a JSON Patch (RFC 6902) or done at once.
//!
//! Values keep the order of their keys, so that what is written for people to read is in the
//! order in which they would write it.

use std::fmt;

use serde::{
    Serialize, Serializer,
    ser::{SerializeMap, SerializeStruct},
};
use serde_json::Value;

/// A value whose keys have an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tree {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Number(u64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Tree>),
    /// A mapping.
    Map(Vec<(String, Tree)>),
}

/// A step into a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// To what a mapping has for this key.
    Key(String),
    /// To what a list has there.
    Index(usize),
    /// Behind the last of a list.
    End,
}

/// The way to a place in a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Path(pub Vec<Step>);

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A key is set, or a value is put into a list before what is there.
    Add,
    /// What is there is replaced.
    Replace,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What is done.
    pub action: Action,
    /// Where.
    pub path: Path,
    /// The new value.
    pub value: Tree,
}

/// Changes, to be made one after the other. As JSON: a JSON Patch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Patch(pub Vec<Change>);

/// A patch does not fit the value that it is applied to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no place `{0}` to change")]
pub struct NoSuchPlace(pub Path);

impl Patch {
    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes the changes. If one cannot be made, those before it are made.
    pub fn apply(&self, value: &mut Value) -> Result<(), NoSuchPlace> {
        self.0.iter().try_for_each(|change| {
            change.apply(value).ok_or_else(|| NoSuchPlace(change.path.clone()))
        })
    }

    pub(super) fn add(&mut self, path: Path, value: Tree) {
        self.0.push(Change { action: Action::Add, path, value });
    }

    pub(super) fn replace(&mut self, path: Path, value: Tree) {
        self.0.push(Change { action: Action::Replace, path, value });
    }
}

impl Change {
    fn apply(&self, root: &mut Value) -> Option<()> {
        let (last, parents) = self.path.0.split_last()?;
        let parent = parents.iter().try_fold(root, |value, step| match step {
            Step::Key(key) => value.get_mut(key),
            Step::Index(index) => value.get_mut(index),
            Step::End => None,
        })?;
        let new = self.value.to_json();
        match (parent, last, self.action) {
            (Value::Object(map), Step::Key(key), Action::Add) => {
                map.insert(key.clone(), new);
            }
            (Value::Object(map), Step::Key(key), Action::Replace) => *map.get_mut(key)? = new,
            (Value::Array(list), Step::Index(index), Action::Add) if *index <= list.len() => {
                list.insert(*index, new);
            }
            (Value::Array(list), Step::Index(index), Action::Replace) => {
                *list.get_mut(*index)? = new;
            }
            (Value::Array(list), Step::End, Action::Add) => list.push(new),
            _ => return None,
        }
        Some(())
    }
}

impl Tree {
    /// The same without an order.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Bool(value) => Value::from(*value),
            Self::Number(value) => Value::from(*value),
            Self::Text(text) => Value::from(text.as_str()),
            Self::List(list) => list.iter().map(Self::to_json).collect(),
            Self::Map(entries) => {
                entries.iter().map(|(key, value)| (key.clone(), value.to_json())).collect()
            }
        }
    }

    /// A mapping of these entries, in this order.
    pub(super) fn map<const N: usize>(entries: [(&str, Self); N]) -> Self {
        Self::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// A list of texts.
    pub(super) fn texts<const N: usize>(texts: [&str; N]) -> Self {
        Self::List(texts.into_iter().map(Self::from).collect())
    }
}

impl From<&str> for Tree {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u64> for Tree {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Tree {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl Path {
    /// The place of this key in what is here.
    pub fn key(&self, key: &str) -> Self {
        self.then(Step::Key(key.to_owned()))
    }

    /// The place with this number in the list that is here.
    pub fn index(&self, index: usize) -> Self {
        self.then(Step::Index(index))
    }

    /// The place behind the last one of the list that is here.
    pub fn end(&self) -> Self {
        self.then(Step::End)
    }

    fn then(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

/// As a JSON Pointer (RFC 6901).
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| match step {
            Step::Key(key) => write!(f, "/{}", key.replace('~', "~0").replace('/', "~1")),
            Step::Index(index) => write!(f, "/{index}"),
            Step::End => f.write_str("/-"),
        })
    }
}

impl Serialize for Change {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut change = serializer.serialize_struct("Change", 3)?;
        let action = match self.action {
            Action::Add => "add",
            Action::Replace => "replace",
        };
        change.serialize_field("op", action)?;
        change.serialize_field("path", &self.path.to_string())?;
        change.serialize_field("value", &self.value)?;
        change.end()
    }
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(value) => serializer.serialize_u64(*value),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(list) => list.serialize(serializer),
            Self::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_is_written_as_the_api_server_reads_it() {
        let mut patch = Patch::default();
        let annotations = Path::default().key("metadata").key("annotations");
        patch.add(annotations.key("larder.dev/a~b"), "c".into());
        patch.add(
            Path::default().key("list").end(),
            Tree::map([("z", 1.into()), ("a", true.into())]),
        );
        assert_eq!(
            serde_json::to_string(&patch).unwrap(),
            r#"[{"op":"add","path":"/metadata/annotations/larder.dev~1a~0b","value":"c"},"#
                .to_owned()
                + r#"{"op":"add","path":"/list/-","value":{"z":1,"a":true}}]"#
        );
    }

    #[test]
    fn changes_are_made_where_they_fit_and_nowhere_else() {
        let mut value = json!({"list": [1, 2], "map": {}});
        let root = Path::default();
        let mut patch = Patch::default();
        patch.add(root.key("list").index(0), 0.into());
        patch.add(root.key("list").end(), 3.into());
        patch.replace(root.key("list").index(1), 9.into());
        patch.add(root.key("map").key("a"), Tree::List(vec![]));
        patch.apply(&mut value).unwrap();
        assert_eq!(value, json!({"list": [0, 9, 2, 3], "map": {"a": []}}));

        for path in [
            root.clone(),
            root.key("nowhere").key("a"),
            root.key("list").key("a"),
            root.key("list").index(9),
            root.key("map").index(0),
            root.key("map").end(),
        ] {
            let mut patch = Patch::default();
            patch.add(path, 0.into());
            assert!(patch.apply(&mut value).is_err(), "{patch:?}");
        }
    }
}
