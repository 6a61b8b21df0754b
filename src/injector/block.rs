//! Writes values as YAML, as people write it.

use serde_json::Value;

use super::{patch::Tree, text::plain};

/// How a manifest is laid out.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// Whether the dashes of a list stand deeper than its key.
    pub(super) deep_lists: bool,
    /// What ends a line.
    pub(super) line_end: &'static str,
}

impl Layout {
    /// Where the dashes of a list stand whose key stands at `column`.
    pub(super) fn list_column(self, column: usize) -> usize {
        if self.deep_lists { column + 2 } else { column }
    }

    /// Entries of a mapping whose keys stand at `column`, each with its line's end.
    pub(super) fn entries(self, entries: &[(String, Tree)], column: usize, out: &mut String) {
        for (key, value) in entries {
            self.indent(column, out);
            self.entry(key, value, column, out);
        }
    }

    /// Items of a list whose dashes stand at `column`, each with its line's end.
    pub(super) fn items(self, items: &[Tree], column: usize, out: &mut String) {
        for item in items {
            self.indent(column, out);
            out.push_str("- ");
            match item {
                Tree::Map(entries) if !entries.is_empty() => {
                    for (place, (key, value)) in entries.iter().enumerate() {
                        if place > 0 {
                            self.indent(column + 2, out);
                        }
                        self.entry(key, value, column + 2, out);
                    }
                }
                other => self.line(&scalar(other), out),
            }
        }
    }

    fn entry(self, key: &str, value: &Tree, column: usize, out: &mut String) {
        out.push_str(&word(key));
        out.push(':');
        match value {
            Tree::Map(entries) if !entries.is_empty() => {
                self.line("", out);
                self.entries(entries, column + 2, out);
            }
            Tree::List(items) if !items.is_empty() => {
                self.line("", out);
                self.items(items, self.list_column(column), out);
            }
            other => {
                out.push(' ');
                self.line(&scalar(other), out);
            }
        }
    }

    fn line(self, text: &str, out: &mut String) {
        out.push_str(text);
        out.push_str(self.line_end);
    }

    fn indent(self, column: usize, out: &mut String) {
        out.extend(std::iter::repeat_n(' ', column));
    }
}

/// A value on one line.
pub(super) fn inline(value: &Tree) -> String {
    serde_json::to_string(value).expect("a tree can be written as JSON")
}

fn scalar(value: &Tree) -> String {
    match value {
        Tree::Text(text) => word(text),
        other => inline(other),
    }
}

/// Text, in quotes where it would mean something else to some reader of YAML.
fn word(text: &str) -> String {
    let safe = |b: u8| b.is_ascii_alphanumeric() || b"_./:@-".contains(&b);
    let first = text.bytes().find(|b| *b != b'-').unwrap_or(b':');
    let digits = text.bytes().next().is_some_and(|b| b.is_ascii_digit());
    let bare = text.bytes().all(safe)
        && (first.is_ascii_alphanumeric() || first == b'/')
        && !text.ends_with(':')
        && !text.starts_with("---")
        // Dates and times.
        && !(digits && (text.contains('-') || text.bytes().all(|b| b.is_ascii_digit() || b == b':')))
        && matches!(plain(text), Value::String(_));
    if bare { text.to_owned() } else { inline(&Tree::from(text)) }
}
