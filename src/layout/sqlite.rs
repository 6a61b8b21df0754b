//! Feast's rows in SQLite: a table for each view, a row for each feature.
//!
//! ```text
//! table "PROJECT_VIEW": entity_key BLOB, feature_name TEXT, value BLOB, event_ts, ... more
//! ```
//!
//! `VIEW` is the view's versioned name. Columns are asked for by name, since Feast appends some.
//! `event_ts` is in whole seconds, or text in databases of old. Feast writes what is true only when
//! it runs in UTC; that is what is assumed here, as there is nothing that would tell.

use std::{collections::HashMap, ops::Range};

use foldhash::fast::RandomState;

use super::{DecodeError, ViewNames, cell};
use crate::model::{EntityKey, EventTimestamp, FeatureView, MaybeRow};

/// The table of one view, and how its rows are rows of the view.
#[derive(Clone, Debug)]
pub struct SqliteView {
    names: ViewNames,
    places: HashMap<Box<[u8]>, usize, RandomState>,
    /// Quoted.
    table: String,
}

/// A value of SQLite, in the types that the layout tells apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SqlValue<'a> {
    /// NULL.
    Null,
    /// INTEGER.
    Integer(i64),
    /// REAL.
    Real(f64),
    /// TEXT, which may be anything but UTF-8, too.
    Text(&'a [u8]),
    /// BLOB.
    Blob(&'a [u8]),
}

/// The columns of one row, in the order in which [`SqliteView::select`] asks for them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SqlRow<'a> {
    /// `entity_key`
    pub entity_key: SqlValue<'a>,
    /// `feature_name`
    pub feature_name: SqlValue<'a>,
    /// `value`
    pub value: SqlValue<'a>,
    /// `event_ts`
    pub event_ts: SqlValue<'a>,
}

impl SqliteView {
    /// The layout of a view: to be kept, not made for each read.
    pub fn new(view: &FeatureView) -> Self {
        let names = ViewNames::of(view);
        let table = format!("{}_{}", view.project, names.view);
        Self {
            places: names.features.iter().map(|name| name.as_bytes().into()).zip(0..).collect(),
            table: format!("\"{}\"", table.replace('"', "\"\"")),
            names,
        }
    }

    /// The statement that reads the feature rows of `keys` entities: a parameter for each of their
    /// keys, in no order. A key may be given twice, its rows come once.
    pub fn select(&self, keys: usize) -> String {
        let mut sql = format!(
            "SELECT entity_key, feature_name, value, event_ts FROM {} WHERE entity_key IN (?",
            self.table
        );
        sql.push_str(&", ?".repeat(keys.saturating_sub(1)));
        sql.push(')');
        sql
    }

    /// Begins to collect the rows of `keys`, each of which is there once.
    pub fn collect<'a>(&'a self, keys: &'a [EntityKey]) -> SqliteRows<'a> {
        SqliteRows {
            view: self,
            keys,
            entities: keys.iter().map(|key| &*key.0).zip(0..).collect(),
            entity: 0,
            place: 0,
            rows: keys.iter().map(|_| Entity::Missing).collect(),
            cells: vec![None; keys.len() * self.names.features.len()],
            values: Vec::new(),
        }
    }
}

/// Feature rows of a view, on their way to be rows of it.
#[derive(Debug)]
pub struct SqliteRows<'a> {
    view: &'a SqliteView,
    keys: &'a [EntityKey],
    entities: HashMap<&'a [u8], usize, RandomState>,
    /// The entity of the row before: a table's index has those of one entity together.
    entity: usize,
    /// The place after that of the row before: Feast writes an entity's features in their order.
    place: usize,
    rows: Vec<Entity>,
    /// For each entity and each feature of the view, where in `values` it is.
    cells: Vec<Option<Range<usize>>>,
    values: Vec<u8>,
}

#[derive(Debug)]
enum Entity {
    Missing,
    Found(EventTimestamp),
    Corrupt(DecodeError),
}

impl SqliteRows<'_> {
    /// Adds one row of the table, in any order.
    ///
    /// Ignores rows of features that the view does not have, or no longer.
    pub fn add(&mut self, row: SqlRow<'_>) {
        let (SqlValue::Blob(entity), SqlValue::Text(feature)) = (row.entity_key, row.feature_name)
        else {
            return;
        };
        if let (Some(entity), Some(place)) = (self.entity(entity), self.place(feature))
            && let Err(error) = self.add_feature(entity, place, &row)
        {
            self.rows[entity] = Entity::Corrupt(error);
        }
    }

    fn entity(&mut self, key: &[u8]) -> Option<usize> {
        if self.keys.get(self.entity).is_none_or(|last| *last.0 != *key) {
            self.entity = *self.entities.get(key)?;
        }
        Some(self.entity)
    }

    fn place(&mut self, feature: &[u8]) -> Option<usize> {
        let features = &self.view.names.features;
        let is_next = features.get(self.place).is_some_and(|next| next.as_bytes() == feature);
        let place = if is_next { self.place } else { *self.view.places.get(feature)? };
        self.place = (place + 1) % features.len();
        Some(place)
    }

    /// The rows, in the order of the keys.
    ///
    /// A row's time is that of its feature rows: the newest, should they differ.
    pub fn finish(self) -> impl Iterator<Item = Result<MaybeRow, DecodeError>> {
        let features = self.view.names.features.len();
        self.rows.into_iter().enumerate().map(move |(entity, row)| match row {
            Entity::Missing => Ok(None),
            Entity::Corrupt(error) => Err(error),
            Entity::Found(timestamp) => {
                let stored = |range: &Range<usize>| &self.values[range.clone()];
                let cells = &self.cells[entity * features..][..features];
                let cells = cells.iter().map(|range| cell(range.as_ref().map(stored)));
                self.view.names.row(cells, timestamp).map(Some)
            }
        })
    }

    fn add_feature(
        &mut self,
        entity: usize,
        place: usize,
        row: &SqlRow<'_>,
    ) -> Result<(), DecodeError> {
        let names = &self.view.names;
        let time = decode_event_ts(row.event_ts)
            .map_err(|what| DecodeError::Timestamp { view: names.view.clone(), what })?;
        let value = match row.value {
            SqlValue::Blob(value) => value,
            SqlValue::Null => &[],
            other => {
                return Err(DecodeError::NotBytes {
                    view: names.view.clone(),
                    feature: names.features[place].clone(),
                    found: other.type_name(),
                });
            }
        };
        match &mut self.rows[entity] {
            row @ Entity::Missing => *row = Entity::Found(time),
            Entity::Found(timestamp) => *timestamp = time.max(*timestamp),
            Entity::Corrupt(_) => return Ok(()),
        }
        let start = self.values.len();
        self.values.extend_from_slice(value);
        self.cells[entity * names.features.len() + place] = Some(start..self.values.len());
        Ok(())
    }
}

impl SqlValue<'_> {
    fn type_name(self) -> &'static str {
        match self {
            Self::Null => "NULL",
            Self::Integer(_) => "INTEGER",
            Self::Real(_) => "REAL",
            Self::Text(_) => "TEXT",
            Self::Blob(_) => "BLOB",
        }
    }
}

/// Whole seconds, or `YYYY-MM-DD HH:MM:SS[.ffffff]`, in UTC where it has no offset.
fn decode_event_ts(stored: SqlValue<'_>) -> Result<EventTimestamp, String> {
    match stored {
        SqlValue::Integer(seconds) => Ok(EventTimestamp { seconds, nanos: 0 }),
        SqlValue::Null => Ok(EventTimestamp::default()),
        SqlValue::Text(text) => {
            let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
            let time = match text.parse::<jiff::Timestamp>() {
                Ok(time) => time,
                Err(_) => text
                    .parse::<jiff::civil::DateTime>()
                    .and_then(|civil| civil.to_zoned(jiff::tz::TimeZone::UTC))
                    .map_err(|error| error.to_string())?
                    .timestamp(),
            };
            let nanos = time.as_nanosecond();
            Ok(EventTimestamp {
                seconds: nanos.div_euclid(NANOS) as i64,
                nanos: nanos.rem_euclid(NANOS) as i32,
            })
        }
        other => Err(format!("it is stored as {}", other.type_name())),
    }
}

const NANOS: i128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::ab;
    use crate::model::{Cell, FeatureRow};

    fn view(name: &str, version: Option<u32>) -> SqliteView {
        SqliteView::new(&ab(name, version))
    }

    type Stored<'a> = (&'a [u8], &'a str, SqlValue<'a>, SqlValue<'a>);

    fn collect(keys: &[&[u8]], stored: &[Stored<'_>]) -> Vec<Result<MaybeRow, DecodeError>> {
        let view = view("v", None);
        let keys: Vec<_> = keys.iter().map(|key| EntityKey((*key).into())).collect();
        let mut rows = view.collect(&keys);
        for (key, feature, value, event_ts) in stored {
            rows.add(SqlRow {
                entity_key: SqlValue::Blob(key),
                feature_name: SqlValue::Text(feature.as_bytes()),
                value: *value,
                event_ts: *event_ts,
            });
        }
        rows.finish().collect()
    }

    fn cells(row: &FeatureRow) -> Vec<Cell<'_>> {
        (0..row.len()).map(|index| row.cell(index)).collect()
    }

    const ONE: SqlValue<'_> = SqlValue::Blob(b"\x20\x01");
    const NOON: SqlValue<'_> = SqlValue::Integer(1_719_835_200);

    #[test]
    fn a_table_is_quoted_and_named_after_the_version() {
        let select = view("v", Some(3)).select(1);
        assert!(select.ends_with(r#" FROM "p_v_v3" WHERE entity_key IN (?)"#), "{select}");
        let select = view("a\" -- b", None).select(3);
        assert!(
            select.ends_with(r#" FROM "p_a"" -- b" WHERE entity_key IN (?, ?, ?)"#),
            "{select}"
        );
    }

    #[test]
    fn rows_come_in_the_order_of_the_keys() {
        let stored: [Stored<'_>; 3] = [
            (b"2", "b", ONE, NOON),
            (b"1", "a", SqlValue::Blob(b""), NOON),
            (b"2", "gone", SqlValue::Blob(b"no value"), SqlValue::Real(1.0)),
        ];
        let rows = collect(&[b"1", b"2", b"3"], &stored);
        let rows: Vec<_> = rows.into_iter().map(Result::unwrap).collect();
        assert_eq!(cells(rows[0].as_ref().unwrap()), [Cell::Null, Cell::Absent]);
        assert_eq!(cells(rows[1].as_ref().unwrap()), [Cell::Absent, Cell::Value(b"\x20\x01")]);
        assert_eq!(rows[2], None);
    }

    #[test]
    fn an_entity_with_foreign_features_only_has_no_row() {
        assert_eq!(collect(&[b"1"], &[(b"1", "gone", ONE, NOON)]), [Ok(None)]);
    }

    #[test]
    fn a_corrupt_value_fails_its_row_only() {
        let stored: [Stored<'_>; 4] = [
            (b"1", "a", SqlValue::Text(b"1"), NOON),
            (b"1", "b", ONE, NOON),
            (b"2", "a", SqlValue::Blob(b"\x20"), NOON),
            (b"3", "a", ONE, NOON),
        ];
        let rows = collect(&[b"1", b"2", b"3"], &stored);
        assert!(matches!(rows[0], Err(DecodeError::NotBytes { found: "TEXT", .. })));
        assert!(matches!(rows[1], Err(DecodeError::Value { .. })));
        assert!(rows[2].as_ref().unwrap().is_some());
    }

    #[test]
    fn the_newest_time_is_the_time_of_the_row() {
        let stored: [Stored<'_>; 2] =
            [(b"1", "a", ONE, NOON), (b"1", "b", ONE, SqlValue::Integer(5))];
        let rows = collect(&[b"1"], &stored);
        let row = rows[0].as_ref().unwrap().as_ref().unwrap();
        assert_eq!(row.event_timestamp().seconds, 1_719_835_200);
    }

    #[test]
    fn times_are_seconds_or_text() {
        let check = |text: &str, seconds, nanos| {
            let time = decode_event_ts(SqlValue::Text(text.as_bytes()));
            assert_eq!(time, Ok(EventTimestamp { seconds, nanos }), "{text}");
        };
        check("2024-07-01 12:00:00", 1_719_835_200, 0);
        check("2024-07-01T12:00:00", 1_719_835_200, 0);
        check("2024-07-01 12:00:00.250000", 1_719_835_200, 250_000_000);
        check("2024-07-01 17:30:00+05:30", 1_719_835_200, 0);
        check("2024-07-01 08:00:00.000001-04:00", 1_719_835_200, 1_000);
        check("2024-07-01T12:00:00Z", 1_719_835_200, 0);
        check("1969-12-31 23:59:58.500000", -2, 500_000_000);
        assert_eq!(decode_event_ts(SqlValue::Integer(-2)).unwrap().seconds, -2);
        assert_eq!(decode_event_ts(SqlValue::Null), Ok(EventTimestamp::default()));
        for bad in [SqlValue::Text(b"noon"), SqlValue::Text(b"\xff"), SqlValue::Real(0.5)] {
            assert!(decode_event_ts(bad).is_err(), "{bad:?}");
        }
    }
}
