//! Writes an answer as a `GetOnlineFeaturesResponse`, straight from the rows' bytes. Pure.
//!
//! Protobuf puts the length before the content, so there are two passes: [`Message::new`] adds up
//! the lengths, [`Message::encode`] copies each value once, to where it leaves from.
//!
//! ```text
//! 1 metadata   { 1 names { 1 name* }   2 view { 1 name  2 version }* }
//! 2 results*   { 1 value*   2 statuses, packed   3 timestamp* }
//! ```

use bytes::BufMut;
use prost::{encode_length_delimiter, length_delimiter_len};

use super::tally::{ColumnTally, Tally, view_versions};
use crate::proxy::{AnswerColumn, Answers, Field};

/// An answer that knows how long it is.
#[derive(Debug)]
pub(super) struct Message {
    answers: Answers,
    view_metadata: bool,
    names: usize,
    metadata: usize,
    vectors: Vec<usize>,
    total: usize,
}

impl Message {
    /// Measures an answer; it has the versions of its views if `view_metadata` says so. `count`
    /// is told what it holds.
    pub(super) fn new(
        answers: Answers,
        view_metadata: bool,
        count: impl FnOnce(&Answers, &Tally<'_>),
    ) -> Self {
        let rows = answers.rows();
        let mut tally = Tally::default();
        let mut vectors = Vec::with_capacity(answers.columns().len());
        for column in answers.columns() {
            let (length, counted) = match &column {
                AnswerColumn::Entity(entity) => measure(rows, |row| entity.field(row)),
                AnswerColumn::Feature(feature) => measure(rows, |row| feature.field(row)),
            };
            vectors.push(length);
            tally.add(&column, rows, counted);
        }
        count(&answers, &tally);

        let names = answers.columns().map(|column| field_len(column.name().len())).sum();
        let mut metadata = field_len(names);
        if view_metadata {
            let views = view_versions(&answers);
            metadata += views.iter().map(|view| field_len(view_len(view))).sum::<usize>();
        }
        let results: usize = vectors.iter().map(|length| field_len(*length)).sum();
        let total = field_len(metadata) + results;
        Self { answers, view_metadata, names, metadata, vectors, total }
    }

    /// How many bytes [`encode`](Self::encode) appends.
    pub(super) fn encoded_len(&self) -> usize {
        self.total
    }

    /// Appends it. `out` has room for all of it, or grows.
    pub(super) fn encode(&self, out: &mut impl BufMut) {
        put_length(1, self.metadata, out);
        put_length(1, self.names, out);
        for column in self.answers.columns() {
            put_bytes(1, column.name().as_bytes(), out);
        }
        if self.view_metadata {
            for view in view_versions(&self.answers) {
                put_length(2, view_len(&view), out);
                put_view(view, out);
            }
        }
        let rows = self.answers.rows();
        for (column, length) in self.answers.columns().zip(&self.vectors) {
            put_length(2, *length, out);
            match column {
                AnswerColumn::Entity(entity) => put_vector(rows, |row| entity.field(row), out),
                AnswerColumn::Feature(feature) => put_vector(rows, |row| feature.field(row), out),
            }
        }
    }
}

/// The length of a column, and what it holds.
fn measure<'a>(rows: usize, field: impl Fn(usize) -> Field<'a>) -> (usize, ColumnTally) {
    let mut counted = ColumnTally::default();
    // Every status takes one byte.
    let mut length = if rows == 0 { 0 } else { field_len(rows) };
    for row in 0..rows {
        let Field { value, status, encoded_timestamp, .. } = field(row);
        counted.count(status);
        length += field_len(value.len()) + field_len(encoded_timestamp.len());
    }
    (length, counted)
}

fn put_vector<'a>(rows: usize, field: impl Fn(usize) -> Field<'a>, out: &mut impl BufMut) {
    for row in 0..rows {
        put_bytes(1, field(row).value, out);
    }
    if rows > 0 {
        put_length(2, rows, out);
    }
    for row in 0..rows {
        out.put_u8(field(row).status as u8);
    }
    for row in 0..rows {
        put_bytes(3, field(row).encoded_timestamp, out);
    }
}

/// `{ 1 name, 2 version }`, without what is empty or 0.
fn put_view((name, version): (&str, u32), out: &mut impl BufMut) {
    if !name.is_empty() {
        put_bytes(1, name.as_bytes(), out);
    }
    if version > 0 {
        out.put_u8(2 << 3);
        put_varint(version as usize, out);
    }
}

fn view_len((name, version): &(&str, u32)) -> usize {
    let name = if name.is_empty() { 0 } else { field_len(name.len()) };
    let version = if *version == 0 { 0 } else { 1 + length_delimiter_len(*version as usize) };
    name + version
}

/// The length of a length-delimited field with a number below 16.
fn field_len(content: usize) -> usize {
    1 + length_delimiter_len(content) + content
}

fn put_bytes(number: u8, bytes: &[u8], out: &mut impl BufMut) {
    put_length(number, bytes.len(), out);
    out.put_slice(bytes);
}

fn put_length(number: u8, length: usize, out: &mut impl BufMut) {
    out.put_u8(number << 3 | 2);
    put_varint(length, out);
}

fn put_varint(number: usize, out: &mut impl BufMut) {
    encode_length_delimiter(number, out).expect("the buffer grows");
}
