//! Feast's rows in Cassandra and ScyllaDB: a table for each view, a partition for each entity, a
//! row for each feature.
//!
//! ```text
//! table "KEYSPACE"."PROJECT_VIEW": entity_key text, feature_name text, value blob,
//!                                  event_ts timestamp, ... PRIMARY KEY ((entity_key), feature_name)
//! ```
//!
//! Names are quoted, so their case counts. All versions of a view share its table: the version is
//! in no name. `entity_key` is the key in hexadecimal digits, `event_ts` is in milliseconds.

use std::{collections::HashMap, sync::Arc};

use super::{DecodeError, ViewNames, cell};
use crate::model::{EntityKey, EventTimestamp, FeatureView, MaybeRow};

/// The table of one view, and how its rows are rows of the view.
#[derive(Clone, Debug)]
pub struct CassandraView {
    names: ViewNames,
    places: HashMap<Arc<str>, usize>,
    /// With its keyspace, quoted.
    table: String,
}

/// The columns of one row, in the order in which [`CassandraView::select`] asks for them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CqlRow<'a> {
    /// `feature_name`
    pub feature_name: &'a str,
    /// `value`
    pub value: Option<&'a [u8]>,
    /// `event_ts`, in milliseconds since 1970.
    pub event_ts: Option<i64>,
}

/// Rows of a partition that are read: features that the view has, or once had.
pub const MAX_PARTITION_ROWS: usize = 10_000;

impl CassandraView {
    /// The layout of a view: to be kept, not made for each read.
    pub fn new(keyspace: &str, view: &FeatureView) -> Self {
        let mut names = ViewNames::of(view);
        names.view = Arc::clone(&view.name);
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let table = format!("{}_{}", view.project, view.name);
        Self {
            places: names.features.iter().cloned().zip(0..).collect(),
            table: format!("{}.{}", quoted(keyspace), quoted(&table)),
            names,
        }
    }

    /// The table with its keyspace, quoted.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The statement that reads one entity; its parameter is [`partition_key`].
    pub fn select(&self) -> String {
        format!(
            "SELECT feature_name, value, event_ts FROM {} WHERE entity_key = ? LIMIT {}",
            self.table,
            // One more, so that it can be told that there are more.
            MAX_PARTITION_ROWS + 1
        )
    }

    /// The row of an entity, of the rows of its partition in any order.
    ///
    /// Features that the view does not have, or no longer, are passed over. A `value` that is null
    /// was never written, or has expired: Feast's nulls are no bytes. The row's time is that of its
    /// features: the newest, should they differ.
    ///
    /// # Errors
    ///
    /// If a value is none, or there is more than any view has.
    pub fn decode<'a>(
        &self,
        rows: impl IntoIterator<Item = CqlRow<'a>>,
    ) -> Result<MaybeRow, DecodeError> {
        let mut values: Vec<Option<&'a [u8]>> = vec![None; self.names.features.len()];
        let mut newest = None;
        for (count, row) in rows.into_iter().enumerate() {
            if count == MAX_PARTITION_ROWS {
                let view = Arc::clone(&self.names.view);
                return Err(DecodeError::TooManyFeatures { view, limit: MAX_PARTITION_ROWS });
            }
            let place = self.places.get(row.feature_name);
            if let (Some(&place), Some(value)) = (place, row.value) {
                values[place] = Some(value);
                newest = newest.max(Some(row.event_ts.map_or_else(Default::default, time)));
            }
        }
        let Some(timestamp) = newest else {
            return Ok(None);
        };
        self.names.row(values.iter().map(|value| cell(*value)), timestamp).map(Some)
    }
}

/// An entity's key as the column has it: lower-case hexadecimal digits.
pub fn partition_key(key: &EntityKey) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    key.0.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn time(millis: i64) -> EventTimestamp {
    let nanos = millis.rem_euclid(1000) as i32 * 1_000_000;
    EventTimestamp { seconds: millis.div_euclid(1000), nanos }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::layout::ab;
    use crate::model::{Cell, FeatureRow};

    fn view(keyspace: &str, name: &str, version: Option<u32>) -> CassandraView {
        CassandraView::new(keyspace, &ab(name, version))
    }

    type Stored<'a> = (&'a str, Option<&'a [u8]>, Option<i64>);

    fn decode(stored: &[Stored<'_>]) -> Result<MaybeRow, DecodeError> {
        let rows = stored.iter().map(|(feature_name, value, event_ts)| CqlRow {
            feature_name,
            value: *value,
            event_ts: *event_ts,
        });
        view("ks", "v", None).decode(rows)
    }

    fn cells(row: &FeatureRow) -> Vec<Cell<'_>> {
        (0..row.len()).map(|index| row.cell(index)).collect()
    }

    const ONE: Option<&[u8]> = Some(b"\x20\x01");

    #[test]
    fn a_table_is_quoted_and_knows_no_versions() {
        let select = view("Ks", "v", Some(3)).select();
        let table = r#" FROM "Ks"."p_v" WHERE entity_key = ? LIMIT 10001"#;
        assert!(select.ends_with(table), "{select}");
        let select = view("k\"s", "a\" -- b", None).select();
        assert!(select.contains(r#" FROM "k""s"."p_a"" -- b" WHERE"#), "{select}");
    }

    #[test]
    fn a_key_is_its_lower_case_digits() {
        let key = EntityKey([0x00, 0x0f, 0xa5, 0xff].as_slice().into());
        assert_eq!(partition_key(&key), "000fa5ff");
        assert_eq!(partition_key(&EntityKey([].as_slice().into())), "");
    }

    #[test]
    fn nulls_absences_and_missing_rows_are_told_apart() {
        let row = decode(&[("b", Some(b""), Some(5000)), ("gone", ONE, Some(9000))]);
        let row = row.unwrap().unwrap();
        assert_eq!(cells(&row), [Cell::Absent, Cell::Null]);
        assert_eq!(row.event_timestamp(), EventTimestamp { seconds: 5, nanos: 0 });
        assert_eq!(decode(&[]), Ok(None));
        assert_eq!(decode(&[("gone", ONE, Some(1))]), Ok(None));
        // Deleted, or expired: there is a row, and nothing in it.
        assert_eq!(decode(&[("a", None, None)]), Ok(None));
    }

    #[test]
    fn times_are_milliseconds_and_the_newest_is_the_row_s() {
        let time = |millis| {
            let row = decode(&[("a", ONE, millis), ("b", ONE, Some(i64::MIN))]).unwrap().unwrap();
            (row.event_timestamp().seconds, row.event_timestamp().nanos)
        };
        assert_eq!(time(Some(1_704_164_645_678)), (1_704_164_645, 678_000_000));
        assert_eq!(time(Some(-1)), (-1, 999_000_000));
        assert_eq!(time(Some(i64::MAX)), (i64::MAX / 1000, 807_000_000));
        assert_eq!(time(None), (0, 0));
    }

    #[test]
    fn what_is_no_value_is_named() {
        let error = decode(&[("a", ONE, None), ("b", Some(b"\x20"), None)]).unwrap_err();
        let expected = "feature `b` of feature view `v` is stored as no `feast.types.Value`";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_partition_without_end_is_refused() {
        let full = vec![("gone", ONE, None); MAX_PARTITION_ROWS];
        assert_eq!(decode(&full), Ok(None));
        let more = vec![("gone", ONE, None); MAX_PARTITION_ROWS + 1];
        assert!(matches!(decode(&more), Err(DecodeError::TooManyFeatures { .. })));
    }

    proptest! {
        #[test]
        fn any_rows_have_an_answer(
            rows in proptest::collection::vec(
                (
                    "a|b|.{0,3}",
                    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..30)),
                    any::<Option<i64>>(),
                ),
                0..5,
            ),
        ) {
            let rows: Vec<_> =
                rows.iter().map(|(name, value, ts)| (&name[..], value.as_deref(), *ts)).collect();
            let _ = decode(&rows);
        }
    }
}
