//! Carries a patch out in the text of a manifest, which stays as it is but for that: its comments,
//! its order, its quotes.
//!
//! ```text
//!  containers:                       containers:
//!    - name: app  # ours               - name: app  # ours
//!  volumes: []               ->          env:
//!                                          - name: LARDER_ADDRESS
//!                                            ...
//! ```
//!
//! Lines are put in where mappings and lists are in block style, JSON where they are in brackets.
//! Whoever calls this reads the result again, and compares: a text that is laid out as nobody
//! would is refused, not broken.

use std::ops::Range;

use super::{
    block::{Layout, inline},
    patch::{Action, Patch, Step, Tree},
    text::{Content, Document, Entry, Node, Refusal},
};

/// One stretch of text that becomes another. Of those at one place the deeper comes first.
struct Edit {
    at: Range<usize>,
    depth: usize,
    text: String,
}

/// What is put behind the last of a collection.
enum More {
    Entries(Vec<(String, Tree)>),
    Items(Vec<Tree>),
}

/// A node to be changed, and how it is reached.
#[derive(Clone, Copy)]
struct Place<'a> {
    node: &'a Node,
    /// The entry of which it is the value.
    entry: Option<&'a Entry>,
    /// Whether it is within brackets.
    in_flow: bool,
    depth: usize,
}

/// The text with the patches carried out.
pub(super) fn splice(
    text: &str,
    patches: &[(&Document, &Patch)],
    deep_lists: bool,
) -> Result<String, Refusal> {
    let line_end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut editor = Editor { text, layout: Layout { deep_lists, line_end }, edits: Vec::new() };
    for (document, patch) in patches {
        editor.document(document, patch)?;
    }
    Ok(editor.finish())
}

/// Whether the dashes of the document's lists stand deeper than their keys.
pub(super) fn has_deep_lists(text: &str, node: &Node) -> Option<bool> {
    match &node.content {
        Content::Map { flow: false, entries } => {
            entries.iter().find_map(|entry| match dash_column(text, &entry.node) {
                Some(column) => Some(column > entry.column),
                None => has_deep_lists(text, &entry.node),
            })
        }
        Content::List { flow: false, items } => {
            items.iter().find_map(|item| has_deep_lists(text, item))
        }
        _ => None,
    }
}

/// Where the dashes of a list stand: blanks, the dash, and what the first item begins with.
fn dash_column(text: &str, list: &Node) -> Option<usize> {
    let Content::List { flow: false, items } = &list.content else { return None };
    let before = &text[..items.first()?.at.start];
    let line = &before[before.rfind('\n').map_or(0, |end| end + 1)..];
    let column = line.bytes().take_while(|b| *b == b' ').count();
    (line[column..].trim_end() == "-").then_some(column)
}

struct Editor<'a> {
    text: &'a str,
    layout: Layout,
    edits: Vec<Edit>,
}

impl<'a> Editor<'a> {
    fn document(&mut self, document: &'a Document, patch: &Patch) -> Result<(), Refusal> {
        let mut appended: Vec<(Place<'a>, More)> = Vec::new();
        for change in &patch.0 {
            let Some((last, parents)) = change.path.0.split_last() else { continue };
            let place = find(document, parents)?;
            let value = change.value.clone();
            match (&place.node.content, last, change.action) {
                (Content::Map { .. }, Step::Key(key), _) => match place.node.entry(key) {
                    Some(entry) => self.set(place, entry, &value)?,
                    None => append(&mut appended, place, More::Entries(vec![(key.clone(), value)])),
                },
                (Content::List { items, .. }, Step::Index(index), Action::Add)
                    if *index < items.len() =>
                {
                    self.insert(place, items, *index, &value)?;
                }
                (Content::List { items, .. }, Step::Index(index), Action::Replace)
                    if *index < items.len() =>
                {
                    self.replace(place, &items[*index], &value)?;
                }
                (Content::List { .. }, _, Action::Add) => {
                    append(&mut appended, place, More::Items(vec![value]));
                }
                _ => return Err(Refusal::new(place.node.line, "there is nothing to change here")),
            }
        }
        appended.into_iter().try_for_each(|(place, more)| self.append(place, more))
    }

    /// Gives a value to a key that has none.
    fn set(&mut self, map: Place<'a>, entry: &'a Entry, value: &Tree) -> Result<(), Refusal> {
        let place = Place {
            node: &entry.node,
            entry: Some(entry),
            in_flow: map.in_flow || matches!(map.node.content, Content::Map { flow: true, .. }),
            depth: map.depth + 1,
        };
        match value {
            Tree::List(items) if !place.in_flow => self.fill(place, More::Items(items.clone())),
            Tree::Map(entries) if !place.in_flow => {
                self.fill(place, More::Entries(entries.clone()))
            }
            _ if entry.node.at.is_empty() => {
                return Err(Refusal::new(
                    entry.node.line,
                    format!("`{}` has no value: give it one, or take it out", entry.key),
                ));
            }
            _ => self.edit(entry.node.at.clone(), place.depth, inline(value)),
        }
        Ok(())
    }

    /// Puts lines under a key instead of `[]`, `{}`, `null` or nothing.
    fn fill(&mut self, place: Place<'a>, more: More) {
        let Some(entry) = place.entry else { return };
        let mut lines = String::new();
        match more {
            More::Items(items) => {
                self.layout.items(&items, self.layout.list_column(entry.column), &mut lines);
            }
            More::Entries(entries) => {
                self.layout.entries(&entries, entry.column + 2, &mut lines);
            }
        }
        let mut end = entry.key_at.end;
        if !place.node.at.is_empty() {
            // With the blanks before it, unless a comment follows.
            let mut start = place.node.at.start;
            end = place.node.at.end;
            if self.text[end..].chars().next().is_none_or(|next| next == '\n' || next == '\r') {
                start = self.text[..start].trim_end_matches([' ', '\t']).len();
            }
            self.edit(start..end, place.depth, String::new());
        }
        self.lines_behind(end, place.depth, lines);
    }

    fn append(&mut self, place: Place<'a>, more: More) -> Result<(), Refusal> {
        let (flow, last) = match &place.node.content {
            Content::List { flow, items } => {
                (*flow, items.last().map(|item| (item.at.start, item)))
            }
            Content::Map { flow, entries } => {
                (*flow, entries.last().map(|entry| (entry.key_at.start, &entry.node)))
            }
            _ => return Err(Refusal::new(place.node.line, "there is nothing to add to")),
        };
        let Some((start, last)) = last else {
            if place.in_flow || place.entry.is_none() {
                let inside = place.node.at.start + 1;
                self.edit(inside..inside, place.depth, self.parts(&more, None).join(", "));
            } else {
                self.fill(place, more);
            }
            return Ok(());
        };
        if flow {
            let own_line = self.own_line(start);
            let separator = own_line
                .map_or(", ".to_owned(), |indent| format!(",{}{indent}", self.layout.line_end));
            let parts = self.parts(&more, own_line).into_iter();
            let text: String = parts.map(|part| separator.clone() + &part).collect();
            let end = extent(last, entry_end(place.node));
            self.edit(end..end, place.depth, text);
            return Ok(());
        }
        let mut lines = String::new();
        match more {
            More::Entries(entries) => {
                let column = first_column(place.node);
                self.layout.entries(&entries, column, &mut lines);
            }
            More::Items(items) => {
                self.layout.items(&items, self.dashes(place.node)?, &mut lines);
            }
        }
        self.lines_behind(extent(place.node, 0), place.depth, lines);
        Ok(())
    }

    /// Puts an item before another one.
    fn insert(
        &mut self,
        place: Place<'a>,
        items: &'a [Node],
        index: usize,
        value: &Tree,
    ) -> Result<(), Refusal> {
        let before = &items[index];
        if matches!(place.node.content, Content::List { flow: true, .. }) {
            let own_line = self.own_line(before.at.start);
            let part = self.parts(&More::Items(vec![value.clone()]), own_line).concat();
            let separator = own_line
                .map_or(", ".to_owned(), |indent| format!(",{}{indent}", self.layout.line_end));
            let at = before.at.start;
            self.edit(at..at, place.depth, part + &separator);
            return Ok(());
        }
        let mut lines = String::new();
        self.layout.items(std::slice::from_ref(value), self.dashes(place.node)?, &mut lines);
        // Comments above an item are the item's.
        let behind = match (index.checked_sub(1), place.entry) {
            (Some(last), _) => extent(&items[last], items[last].at.start),
            (None, Some(entry)) => entry.key_at.end,
            (None, None) => {
                return Err(Refusal::new(before.line, "a list that no key names"));
            }
        };
        self.lines_behind(behind, place.depth, lines);
        Ok(())
    }

    fn replace(&mut self, place: Place<'a>, item: &Node, value: &Tree) -> Result<(), Refusal> {
        if matches!(place.node.content, Content::List { flow: true, .. }) {
            let own_line = self.own_line(item.at.start);
            let part = self.parts(&More::Items(vec![value.clone()]), own_line).concat();
            self.edit(item.at.clone(), place.depth, part);
            return Ok(());
        }
        let column = self.dashes(place.node)?;
        let start = self.text[..item.at.start].rfind('\n').map_or(0, |end| end + 1);
        let lead = &self.text[start..item.at.start];
        if lead.trim_start_matches(' ').trim_end() != "-" {
            return Err(Refusal::new(
                item.line,
                "write `- name: larder` on one line, so that the container can be replaced",
            ));
        }
        let mut lines = String::new();
        self.layout.items(std::slice::from_ref(value), column, &mut lines);
        let end = self.next_line(extent(item, item.at.end));
        if !self.text[..end].ends_with('\n') {
            lines.truncate(lines.trim_end().len());
        }
        self.edit(start..end, place.depth, lines);
        Ok(())
    }

    fn edit(&mut self, at: Range<usize>, depth: usize, text: String) {
        self.edits.push(Edit { at, depth, text });
    }

    /// Puts lines behind the line in which something ends.
    fn lines_behind(&mut self, end: usize, depth: usize, lines: String) {
        let at = self.next_line(end);
        self.edit(at..at, depth, lines);
    }

    /// Where the line begins that follows the one in which something ends.
    fn next_line(&self, end: usize) -> usize {
        if self.text[..end].ends_with('\n') {
            return end;
        }
        self.text[end..].find('\n').map_or(self.text.len(), |length| end + length + 1)
    }

    /// What stands before something in its line, if that is blank.
    fn own_line(&self, start: usize) -> Option<&'a str> {
        let before = &self.text[..start];
        let line = before.rfind('\n').map(|end| &before[end + 1..])?;
        line.bytes().all(|b| b == b' ' || b == b'\t').then_some(line)
    }

    fn dashes(&self, list: &Node) -> Result<usize, Refusal> {
        dash_column(self.text, list).ok_or_else(|| {
            Refusal::new(list.line, "begin the first item of this list in the line of its `-`")
        })
    }

    /// Values in JSON; over several lines if they stand in lines of their own.
    fn parts(&self, more: &More, own_line: Option<&str>) -> Vec<String> {
        let json = |value: &Tree| match own_line {
            None => inline(value),
            // Within texts an end of line is written as `\n`.
            Some(indent) => serde_json::to_string_pretty(value)
                .expect("a tree can be written as JSON")
                .replace('\n', &format!("{}{indent}", self.layout.line_end)),
        };
        let entry = |(key, value): &(String, Tree)| {
            format!("{}: {}", inline(&Tree::from(key.as_str())), json(value))
        };
        match more {
            More::Items(items) => items.iter().map(json).collect(),
            More::Entries(entries) => entries.iter().map(entry).collect(),
        }
    }

    fn finish(mut self) -> String {
        // Stable: what was first stays first.
        self.edits.sort_by_key(|edit| (edit.at.start, std::cmp::Reverse(edit.depth)));
        let mut out = String::with_capacity(self.text.len() + 4096);
        let mut done = 0;
        for edit in self.edits {
            let start = edit.at.start.max(done);
            out.push_str(&self.text[done..start]);
            let at_end = start == self.text.len() && edit.text.ends_with('\n');
            if at_end && !out.is_empty() && !out.ends_with('\n') {
                out.push_str(self.layout.line_end);
            }
            out.push_str(&edit.text);
            done = edit.at.end.max(start);
        }
        out.push_str(&self.text[done..]);
        out
    }
}

fn append<'a>(appended: &mut Vec<(Place<'a>, More)>, place: Place<'a>, more: More) {
    let known = appended.iter_mut().find(|(known, _)| std::ptr::eq(known.node, place.node));
    match (known.map(|(_, known)| known), more) {
        (Some(More::Entries(known)), More::Entries(more)) => known.extend(more),
        (Some(More::Items(known)), More::Items(more)) => known.extend(more),
        (_, more) => appended.push((place, more)),
    }
}

/// The node at a path. What an alias shows elsewhere, too, cannot be changed for one place.
fn find<'a>(document: &'a Document, path: &[Step]) -> Result<Place<'a>, Refusal> {
    let mut place = Place { node: &document.root, entry: None, in_flow: false, depth: 0 };
    for step in path {
        check_unshared(document, place.node)?;
        let flow = matches!(
            place.node.content,
            Content::List { flow: true, .. } | Content::Map { flow: true, .. }
        );
        let missing = || {
            Refusal::new(
                place.node.line,
                "what larder has to change here comes through a merge key (`<<`): write it out",
            )
        };
        let (node, entry) = match (step, &place.node.content) {
            (Step::Key(key), _) => {
                let entry = place.node.entry(key).ok_or_else(missing)?;
                (&entry.node, Some(entry))
            }
            (Step::Index(index), Content::List { items, .. }) => {
                (items.get(*index).ok_or_else(missing)?, None)
            }
            _ => return Err(missing()),
        };
        place = Place { node, entry, in_flow: place.in_flow || flow, depth: place.depth + 1 };
    }
    check_unshared(document, place.node)?;
    Ok(place)
}

fn check_unshared(document: &Document, node: &Node) -> Result<(), Refusal> {
    let shared = match node.content {
        Content::Alias(_) => true,
        _ => node.anchor != 0 && document.aliased.contains(&node.anchor),
    };
    if !shared {
        return Ok(());
    }
    Err(Refusal::new(
        node.line,
        "larder has to change this, and an alias (`*`) shares it with another place: write it out",
    ))
}

/// Where the keys of a mapping stand.
fn first_column(map: &Node) -> usize {
    match &map.content {
        Content::Map { entries, .. } => entries.first().map_or(map.column, |entry| entry.column),
        _ => map.column,
    }
}

fn entry_end(map: &Node) -> usize {
    match &map.content {
        Content::Map { entries, .. } => entries.last().map_or(map.at.start, |e| e.key_at.end),
        Content::List { .. } | Content::Scalar { .. } | Content::Alias(_) => map.at.start,
    }
}

/// Where the last thing in a node ends; `or` if there is nothing.
fn extent(node: &Node, or: usize) -> usize {
    match &node.content {
        Content::Map { flow: false, entries } => {
            entries.last().map_or(or, |entry| extent(&entry.node, entry.key_at.end))
        }
        Content::List { flow: false, items } => {
            items.last().map_or(or, |item| extent(item, item.at.start))
        }
        _ if node.at.is_empty() => or,
        _ => node.at.end,
    }
}
