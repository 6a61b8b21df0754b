//! Writes an answer as the JSON of Feast's HTTP server, into one buffer. Pure.

use jiff::{Timestamp, fmt::temporal::DateTimePrinter};

use super::{
    json_value::{put_integer, put_text, put_value},
    tally::{ColumnTally, Tally, view_versions},
};
use crate::{
    model::EventTimestamp,
    proxy::{AnswerColumn, Answers, Field},
};

/// An answer as JSON.
#[derive(Debug)]
pub(super) struct Rendered<'a> {
    /// The body.
    pub(super) body: Vec<u8>,
    /// How many values are null since they could not be decoded.
    pub(super) undecodable: u64,
    /// What was counted on the way.
    pub(super) tally: Tally<'a>,
}

/// Renders an answer, with the versions of its views if `view_metadata` says so.
pub(super) fn render(answers: &Answers, view_metadata: bool) -> Rendered<'_> {
    let (rows, columns) = (answers.rows(), answers.columns().len());
    let mut writer = Writer {
        out: Vec::with_capacity(64 + columns * (64 + rows * BYTES_PER_VALUE)),
        times: Times::default(),
        undecodable: 0,
    };
    let mut tally = Tally::default();

    writer.put("{\"results\":[");
    for (place, column) in answers.columns().enumerate() {
        writer.comma_unless_first(place);
        let counted = match &column {
            AnswerColumn::Entity(entity) => writer.vector(rows, |row| entity.field(row)),
            AnswerColumn::Feature(feature) => writer.vector(rows, |row| feature.field(row)),
        };
        tally.add(&column, rows, counted);
    }
    writer.put("],\"metadata\":{\"feature_names\":[");
    for (place, column) in answers.columns().enumerate() {
        writer.comma_unless_first(place);
        put_text(column.name(), &mut writer.out);
    }
    writer.put("]");
    if view_metadata {
        writer.views(&view_versions(answers));
    }
    writer.put("}}");

    Rendered { body: writer.out, undecodable: writer.undecodable, tally }
}

/// A number, a status and a time, roughly.
const BYTES_PER_VALUE: usize = 12 + 11 + 23;

struct Writer {
    out: Vec<u8>,
    times: Times,
    undecodable: u64,
}

impl Writer {
    fn put(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn comma_unless_first(&mut self, place: usize) {
        if place > 0 {
            self.out.push(b',');
        }
    }

    /// A column: its values, their statuses, their times.
    fn vector<'a>(&mut self, rows: usize, field: impl Fn(usize) -> Field<'a>) -> ColumnTally {
        let mut counted = ColumnTally::default();
        self.put("{\"values\":[");
        for row in 0..rows {
            self.comma_unless_first(row);
            if !put_value(field(row).value, &mut self.out) {
                self.undecodable += 1;
            }
        }
        self.put("],\"statuses\":[");
        for row in 0..rows {
            self.comma_unless_first(row);
            let status = field(row).status;
            counted.count(status);
            self.put("\"");
            self.put(status.name());
            self.put("\"");
        }
        // Feast's server leaves empty times out, and only those.
        if rows > 0 {
            self.put("],\"event_timestamps\":[");
        }
        for row in 0..rows {
            self.comma_unless_first(row);
            self.times.put(field(row).event_timestamp, &mut self.out);
        }
        self.put("]}");
        counted
    }

    fn views(&mut self, views: &[(&str, u32)]) {
        if views.is_empty() {
            return;
        }
        self.put(",\"feature_view_metadata\":[");
        for (place, (name, version)) in views.iter().enumerate() {
            self.comma_unless_first(place);
            self.put("{\"name\":");
            put_text(name, &mut self.out);
            if *version > 0 {
                self.put(",\"version\":");
                put_integer((*version).into(), &mut self.out);
            }
            self.put("}");
        }
        self.put("]");
    }
}

/// Writes times, and keeps the last: rows that were written by one job have one time.
struct Times {
    last: EventTimestamp,
    text: Vec<u8>,
}

impl Default for Times {
    fn default() -> Self {
        let last = EventTimestamp::default();
        Self { last, text: text_of(last) }
    }
}

impl Times {
    fn put(&mut self, time: EventTimestamp, out: &mut Vec<u8>) {
        if time != self.last {
            self.text = text_of(time);
            self.last = time;
        }
        out.extend_from_slice(&self.text);
    }
}

/// RFC 3339 in UTC with as few of 0, 3, 6 and 9 digits as are needed, in quotes; `null` for what is
/// beyond the calendar.
fn text_of(EventTimestamp { seconds, nanos }: EventTimestamp) -> Vec<u8> {
    let digits = match nanos {
        0 => 0,
        _ if nanos % 1_000_000 == 0 => 3,
        _ if nanos % 1_000 == 0 => 6,
        _ => 9,
    };
    let mut text = b"\"".to_vec();
    let printed = Timestamp::from_second(seconds)
        .and_then(|time| time.checked_add(jiff::SignedDuration::from_nanos(nanos.into())))
        .and_then(|time| {
            let printer = DateTimePrinter::new().precision(Some(digits));
            printer.print_timestamp(&time, &mut text)
        });
    match printed {
        Ok(()) => {
            text.push(b'"');
            text
        }
        Err(_) => b"null".to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_as_many_digits_as_they_need_in_steps_of_three() {
        for (seconds, nanos, expected) in [
            (0, 0, "\"1970-01-01T00:00:00Z\""),
            (1_785_585_600, 123_456_000, "\"2026-08-01T12:00:00.123456Z\""),
            (1_785_585_600, 100_000_000, "\"2026-08-01T12:00:00.100Z\""),
            (1_785_585_600, 1, "\"2026-08-01T12:00:00.000000001Z\""),
            (-1, 500_000_000, "\"1969-12-31T23:59:59.500Z\""),
            (i64::MAX, 0, "null"),
        ] {
            let mut out = Vec::new();
            Times::default().put(EventTimestamp { seconds, nanos }, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
