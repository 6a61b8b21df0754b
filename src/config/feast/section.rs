//! A mapping of `feature_store.yaml`, read key by key; what is wrong with a key is reported with
//! its place.

use crate::config::{
    problem::{Origin, Problems, suggestion},
    tree::{Node, Value},
};

/// A mapping, and what it is called.
pub(super) struct Section<'a> {
    /// The mapping; none where the file has none, so that everything is at its default.
    pub(super) node: Option<&'a Node>,
    /// Its own key, from the root of the file: `online_store`.
    pub(super) key: String,
    /// Where a key is missed.
    pub(super) origin: Origin,
    pub(super) problems: &'a mut Problems,
}

impl<'a> Section<'a> {
    /// The value of a key, unless it is empty.
    pub(super) fn get(&self, name: &str) -> Option<&'a Node> {
        self.node?.get(name).filter(|node| node.value != Value::Null)
    }

    /// Text, if it is there. The outer `None` says that it was something else, which is reported
    /// without its value: it may be a secret.
    pub(super) fn text(&mut self, name: &str) -> Option<Option<&'a str>> {
        match self.get(name) {
            None => Some(None),
            Some(Node { value: Value::Text(text), .. }) => Some(Some(text)),
            Some(other) => {
                let message = format!("is {}; expected text", other.value.kind());
                self.error(name, message);
                None
            }
        }
    }

    /// A yes or no; no where it is not there.
    pub(super) fn flag(&mut self, name: &str) -> Option<bool> {
        match self.get(name) {
            None => Some(false),
            Some(Node { value: Value::Bool(flag), .. }) => Some(*flag),
            Some(_) => self.expected(name, "true or false"),
        }
    }

    /// Feast refuses options of a store that it does not know, and so does larder.
    pub(super) fn known_options(&mut self, known: &[&str]) {
        let Some(Node { value: Value::Map(entries), .. }) = self.node else { return };
        for entry in entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            let message = format!("no such option{}", suggestion(&entry.key, known));
            self.problems.error(&entry.origin, &self.path(&entry.key), message);
        }
    }

    /// Reports that a key's value is not what it should be.
    pub(super) fn expected<T>(&mut self, name: &str, what: &str) -> Option<T> {
        let found = self.node.and_then(|node| node.get(name));
        let found = found.map_or("missing".to_owned(), |node| node.value.describe());
        self.error(name, format!("is {found}; expected {what}"));
        None
    }

    /// Reports an error of a key, or of the whole section if there is no such key.
    pub(super) fn error(&mut self, name: &str, message: impl Into<String>) {
        let (origin, path) = (self.place(name), self.path(name));
        self.problems.error(&origin, &path, message);
    }

    /// Reports a doubt about a key.
    pub(super) fn warn(&mut self, name: &str, message: impl Into<String>) {
        let (origin, path) = (self.place(name), self.path(name));
        self.problems.warn(&origin, &path, message);
    }

    fn place(&self, name: &str) -> Origin {
        let node = self.node.and_then(|node| node.get(name)).or(self.node);
        node.map_or_else(|| self.origin.clone(), |node| node.origin.clone())
    }

    fn path(&self, name: &str) -> String {
        format!("{}.{name}", self.key)
    }
}
