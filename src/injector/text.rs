//! YAML with the places of everything in it, so that a manifest can be changed where it stands.
//!
//! JSON is YAML, too. Scalars mean what they mean to kubectl: `yes` is true, `0644` is octal.

use std::{collections::HashMap, ops::Range};

use granit_parser::{Event, Parser, ScalarStyle, Span, StructureStyle};
use serde_json::{Map, Number, Value};

/// A manifest has some hundreds of nodes; one of ten thousand objects is still read.
const MAX_NODES: usize = 1_000_000;
const MAX_DEPTH: usize = 64;

/// One document of a stream.
pub(super) struct Document {
    pub(super) root: Node,
    /// What the document's anchors name.
    anchors: HashMap<usize, Value>,
    /// Which of them an alias refers to.
    pub(super) aliased: Vec<usize>,
}

/// A value, and where it is.
pub(super) struct Node {
    /// Bytes of the text: with the brackets, without anchor and tag.
    pub(super) at: Range<usize>,
    /// The line, from 1.
    pub(super) line: usize,
    /// The column, from 0.
    pub(super) column: usize,
    /// The number of its anchor; 0 is none.
    pub(super) anchor: usize,
    pub(super) content: Content,
}

pub(super) enum Content {
    Scalar { value: Value, text: String },
    List { flow: bool, items: Vec<Node> },
    Map { flow: bool, entries: Vec<Entry> },
    Alias(usize),
}

pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_at: Range<usize>,
    pub(super) column: usize,
    pub(super) node: Node,
}

/// Why a text cannot be read or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The line, from 1; 0 is the whole text.
    pub(super) line: usize,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(line: usize, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

/// Reads all documents of a text. Empty ones are left out.
pub(super) fn read(text: &str) -> Result<Vec<Document>, Refusal> {
    let mut reader = Reader {
        text,
        parser: Parser::new_from_str(text),
        nodes: 0,
        anchors: HashMap::new(),
        aliased: Vec::new(),
    };
    let mut documents = Vec::new();
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamEnd => return Ok(documents),
            Event::DocumentStart(..) => {
                reader.anchors.clear();
                reader.aliased.clear();
                let first = reader.next()?;
                let root = reader.node(first, 0)?;
                if !matches!(&root.content, Content::Scalar { value: Value::Null, .. }) {
                    let anchors = std::mem::take(&mut reader.anchors);
                    let aliased = std::mem::take(&mut reader.aliased);
                    documents.push(Document { root, anchors, aliased });
                }
            }
            Event::StreamStart | Event::DocumentEnd => {}
            _ => return Err(Refusal::new(span.start.line(), "no document begins here")),
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    nodes: usize,
    anchors: HashMap<usize, Value>,
    aliased: Vec<usize>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Refusal> {
        match self.parser.next() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(Refusal::new(
                error.marker().line(),
                format!("cannot be read as YAML: {}", error.info()),
            )),
            None => Err(Refusal::new(0, "ends in the middle")),
        }
    }

    fn node(&mut self, (event, span): (Event<'a>, Span), depth: usize) -> Result<Node, Refusal> {
        let line = span.start.line();
        self.nodes += 1;
        if self.nodes > MAX_NODES || depth > MAX_DEPTH {
            return Err(Refusal::new(line, "is too large or too deep for a manifest"));
        }
        let byte = |mark: granit_parser::Marker| mark.byte_offset().unwrap_or_default();
        let mut at = byte(span.start)..byte(span.end);
        let (anchor, content) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = tag.as_ref().is_some_and(|tag| !tag.is_yaml_core_schema())
                    || tag.as_ref().is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
                if matches!(style, ScalarStyle::Literal | ScalarStyle::Folded) {
                    at.end = at.start
                        + block_length(self.text.get(at.clone()).unwrap_or_default(), &text);
                }
                let value = match style {
                    ScalarStyle::Plain if !is_text => plain(&text),
                    _ => Value::from(text.as_ref()),
                };
                (anchor, Content::Scalar { value, text: text.into_owned() })
            }
            Event::SequenceStart(style, anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, span) => {
                            at.end = byte(span.end);
                            break;
                        }
                        next => items.push(self.node(next, depth + 1)?),
                    }
                }
                (anchor, Content::List { flow: style == StructureStyle::Flow, items })
            }
            Event::MappingStart(style, anchor, _) => {
                let mut entries = Vec::new();
                loop {
                    match self.next()? {
                        (Event::MappingEnd, span) => {
                            at.end = byte(span.end);
                            break;
                        }
                        next => entries.push(self.entry(next, depth + 1)?),
                    }
                }
                (anchor, Content::Map { flow: style == StructureStyle::Flow, entries })
            }
            Event::Alias(id) => {
                self.aliased.push(id);
                (0, Content::Alias(id))
            }
            _ => return Err(Refusal::new(line, "a value is missing")),
        };
        at.end = at.end.max(at.start);
        let node = Node { at, line, column: span.start.col(), anchor, content };
        if anchor != 0 {
            let value = node.to_json(&self.anchors, &mut self.nodes)?;
            self.anchors.insert(anchor, value);
        }
        Ok(node)
    }

    fn entry(&mut self, key: (Event<'a>, Span), depth: usize) -> Result<Entry, Refusal> {
        let key = self.node(key, depth)?;
        let Content::Scalar { text, .. } = key.content else {
            return Err(Refusal::new(key.line, "a key is not a plain word"));
        };
        let value = self.next()?;
        let node = self.node(value, depth)?;
        Ok(Entry { key: text, key_at: key.at, column: key.column, node })
    }
}

impl Document {
    /// The value of a node of this document, aliases and merge keys followed.
    pub(super) fn json(&self, node: &Node) -> Result<Value, Refusal> {
        node.to_json(&self.anchors, &mut 0)
    }
}

impl Node {
    /// What a mapping has for `key`.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.node)
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        let Content::Map { entries, .. } = &self.content else { return None };
        entries.iter().find(|entry| entry.key == key)
    }

    /// The text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// `budget` is what was counted so far: aliases that multiply are stopped.
    fn to_json(
        &self,
        anchors: &HashMap<usize, Value>,
        count: &mut usize,
    ) -> Result<Value, Refusal> {
        *count += 1;
        if *count > MAX_NODES {
            return Err(Refusal::new(self.line, "is too large: its aliases multiply"));
        }
        Ok(match &self.content {
            Content::Scalar { value, .. } => value.clone(),
            Content::List { items, .. } => {
                let items = items.iter().map(|item| item.to_json(anchors, count));
                Value::Array(items.collect::<Result<_, _>>()?)
            }
            Content::Map { entries, .. } => self.map(entries, anchors, count)?,
            Content::Alias(id) => {
                let value = anchors.get(id);
                let value = value.ok_or_else(|| Refusal::new(self.line, "an alias of itself"))?;
                *count += size(value);
                if *count > MAX_NODES {
                    return Err(Refusal::new(self.line, "is too large: its aliases multiply"));
                }
                value.clone()
            }
        })
    }

    fn map(
        &self,
        entries: &[Entry],
        anchors: &HashMap<usize, Value>,
        count: &mut usize,
    ) -> Result<Value, Refusal> {
        let mut map = Map::new();
        let mut merged = Vec::new();
        for entry in entries {
            let value = entry.node.to_json(anchors, count)?;
            if entry.key == "<<" {
                merged.push(value);
            } else if map.insert(entry.key.clone(), value).is_some() {
                let key = super::settings::shortened(&entry.key);
                return Err(Refusal::new(
                    entry.node.line,
                    format!("the key `{key}` is there twice"),
                ));
            }
        }
        for value in merged {
            let maps = if let Value::Array(list) = value { list } else { vec![value] };
            for value in maps {
                let Value::Object(more) = value else {
                    return Err(Refusal::new(self.line, "`<<` merges what is no mapping"));
                };
                more.into_iter().for_each(|(key, value)| {
                    map.entry(key).or_insert(value);
                });
            }
        }
        Ok(Value::Object(map))
    }
}

/// How long the text of a block scalar is: blank lines behind it are its own only if it keeps them.
/// The parser counts them, and the blanks before what follows.
fn block_length(source: &str, value: &str) -> usize {
    if value.ends_with("\n\n") {
        source.rfind('\n').map_or(source.len(), |end| end + 1)
    } else {
        source.trim_end().len()
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(size).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(size).sum::<usize>(),
        _ => 1,
    }
}

/// What an unquoted scalar means.
pub(super) fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => {
            return Value::Bool(true);
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    number(text).map_or_else(|| Value::from(text), Value::Number)
}

fn number(text: &str) -> Option<Number> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let negative = text.starts_with('-');
    let first = unsigned.bytes().next()?;
    if !(first.is_ascii_digit() || first == b'.') {
        return None;
    }
    let digits = unsigned.replace('_', "");
    let radix = |digits: &str, radix| i128::from_str_radix(digits, radix).ok();
    let whole = if let Some(hex) = digits.strip_prefix("0x") {
        radix(hex, 16)
    } else if let Some(octal) = digits.strip_prefix("0o") {
        radix(octal, 8)
    } else if let Some(binary) = digits.strip_prefix("0b") {
        radix(binary, 2)
    } else if digits.len() > 1
        && digits.starts_with('0')
        && digits.bytes().all(|b| b.is_ascii_digit())
    {
        radix(&digits, 8)
    } else {
        radix(&digits, 10)
    };
    if let Some(whole) = whole {
        return Number::from_i128(if negative { -whole } else { whole });
    }
    let is_float = digits.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b))
        && digits.bytes().any(|b| b.is_ascii_digit());
    let float: f64 = is_float.then(|| digits.parse().ok())??;
    Number::from_f64(if negative { -float } else { float })
}
