//! Feature rows: what one view holds for one entity, in one allocation.
//!
//! ```text
//!  0        8       12      16          16 + 4n            + t
//!  | seconds | nanos | n | t | end 1 .. end n | timestamp | value 1 .. value n |
//!     i64      i32   u16 u16    u32, top bit    encoded      the store's bytes
//!                               set: absent
//! ```
//!
//! The timestamp is kept twice: as numbers, to compare, and as the serialized
//! `google.protobuf.Timestamp` that goes out with every value.

use std::{hash::Hash, iter, sync::Arc};

use quick_cache::Equivalent;

use super::{EntityKey, ViewId};

/// What one feature view holds for one entity. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct FeatureRow(Arc<[u8]>);

/// A row, or the knowledge that there is none.
pub type MaybeRow = Option<FeatureRow>;

/// What a row holds of one feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    /// The feature was never written for this entity.
    Absent,
    /// A null was written.
    Null,
    /// A value: a serialized `feast.types.Value`.
    Value(&'a [u8]),
}

/// When the values of a row became true, by the clock of whoever wrote them, since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventTimestamp {
    /// Whole seconds.
    pub seconds: i64,
    /// The rest, below 1,000,000,000.
    pub nanos: i32,
}

/// Identifies one row across all views: the key of cache, flights and reads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowKey {
    /// The view.
    pub view: ViewId,
    /// The entity.
    pub entity: EntityKey,
}

/// A [`RowKey`] that is looked up, not kept. Hashes like one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowKeyRef<'a> {
    /// The view.
    pub view: ViewId,
    /// The bytes of the entity key.
    pub entity: &'a [u8],
}

const HEADER: usize = 16;
const ABSENT: u32 = 1 << 31;

impl FeatureRow {
    /// A row of these cells, one for each feature, in the view's order.
    ///
    /// Panics if there are 65,536 of them, or 2 GiB: stores and layouts have lower limits.
    pub fn new<'a>(
        cells: impl Iterator<Item = Cell<'a>> + Clone,
        timestamp: EventTimestamp,
    ) -> Self {
        let (features, value_bytes) = cells.clone().fold((0, 0), |(features, bytes), cell| {
            (features + 1, bytes + if let Cell::Value(value) = cell { value.len() } else { 0 })
        });
        assert!(value_bytes < ABSENT as usize, "stores limit rows to less than 2 GiB");
        let feature_count = u16::try_from(features).expect("a view has less than 65,536 features");
        let encoded = EncodedTimestamp::of(timestamp);
        let encoded = encoded.bytes();

        let size = HEADER + 4 * features + encoded.len() + value_bytes;
        let mut row: Arc<[u8]> = iter::repeat_n(0, size).collect();
        let bytes = Arc::get_mut(&mut row).expect("nobody else has it yet");
        bytes[0..8].copy_from_slice(&timestamp.seconds.to_le_bytes());
        bytes[8..12].copy_from_slice(&timestamp.nanos.to_le_bytes());
        bytes[12..14].copy_from_slice(&feature_count.to_le_bytes());
        bytes[14..16].copy_from_slice(&(encoded.len() as u16).to_le_bytes());
        let (ends, rest) = bytes[HEADER..].split_at_mut(4 * features);
        let (timestamp, values) = rest.split_at_mut(encoded.len());
        timestamp.copy_from_slice(encoded);
        let mut end = 0;
        for (slot, cell) in ends.as_chunks_mut().0.iter_mut().zip(cells) {
            let absent = match cell {
                Cell::Absent => ABSENT,
                Cell::Null => 0,
                Cell::Value(value) => {
                    values[end..end + value.len()].copy_from_slice(value);
                    end += value.len();
                    0
                }
            };
            *slot = (end as u32 | absent).to_le_bytes();
        }
        Self(row)
    }

    /// When its values became true.
    pub fn event_timestamp(&self) -> EventTimestamp {
        let seconds = i64::from_le_bytes(self.0[0..8].try_into().expect("eight bytes"));
        let nanos = i32::from_le_bytes(self.0[8..12].try_into().expect("four bytes"));
        EventTimestamp { seconds, nanos }
    }

    /// The same, as a serialized `google.protobuf.Timestamp`; empty for the epoch.
    pub fn encoded_timestamp(&self) -> &[u8] {
        let start = HEADER + 4 * self.len();
        &self.0[start..start + self.timestamp_len()]
    }

    /// How many features it has room for.
    pub fn len(&self) -> usize {
        usize::from(u16::from_le_bytes([self.0[12], self.0[13]]))
    }

    /// Whether its view has no features.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it holds of the view's feature `index`.
    ///
    /// Panics if the view has no such feature: a row is read by the view it was built for.
    pub fn cell(&self, index: usize) -> Cell<'_> {
        let end = self.end(index);
        if end & ABSENT != 0 {
            return Cell::Absent;
        }
        let start = if index == 0 { 0 } else { self.end(index - 1) & !ABSENT };
        if start == end {
            return Cell::Null;
        }
        let values = HEADER + 4 * self.len() + self.timestamp_len();
        Cell::Value(&self.0[values + start as usize..values + end as usize])
    }

    /// The bytes it takes, without what the allocator adds.
    pub fn size(&self) -> usize {
        self.0.len()
    }

    fn timestamp_len(&self) -> usize {
        usize::from(u16::from_le_bytes([self.0[14], self.0[15]]))
    }

    fn end(&self, index: usize) -> u32 {
        assert!(index < self.len(), "a row is read by the view it was built for");
        let at = HEADER + 4 * index;
        u32::from_le_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }
}

impl std::fmt::Debug for FeatureRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cells: Vec<_> = (0..self.len()).map(|index| self.cell(index)).collect();
        f.debug_struct("FeatureRow")
            .field("event_timestamp", &self.event_timestamp())
            .field("cells", &cells)
            .finish()
    }
}

impl RowKey {
    /// The key as one that is looked up.
    pub fn by_ref(&self) -> RowKeyRef<'_> {
        RowKeyRef { view: self.view, entity: &self.entity.0 }
    }
}

impl Hash for RowKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.by_ref().hash(state);
    }
}

impl RowKeyRef<'_> {
    /// The key as one that is kept.
    pub fn to_owned(self) -> RowKey {
        RowKey { view: self.view, entity: EntityKey(self.entity.into()) }
    }
}

impl Equivalent<RowKey> for RowKeyRef<'_> {
    fn equivalent(&self, key: &RowKey) -> bool {
        self.view == key.view && *self.entity == *key.entity.0
    }
}

/// A serialized `google.protobuf.Timestamp`: field 1 seconds, field 2 nanos, zeros left out.
#[derive(Default)]
struct EncodedTimestamp {
    /// Two tags of a byte, and two numbers of up to ten.
    buffer: [u8; 22],
    len: usize,
}

impl EncodedTimestamp {
    fn of(timestamp: EventTimestamp) -> Self {
        let mut encoded = Self::default();
        encoded.put(0x08, timestamp.seconds as u64);
        encoded.put(0x10, i64::from(timestamp.nanos) as u64);
        encoded
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    fn put(&mut self, tag: u8, mut number: u64) {
        if number == 0 {
            return;
        }
        self.push(tag);
        while number >= 0x80 {
            self.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.push(number as u8);
    }

    fn push(&mut self, byte: u8) {
        self.buffer[self.len] = byte;
        self.len += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_gives_back_what_was_put_in() {
        let timestamp = EventTimestamp { seconds: 1_704_164_645, nanos: 678_901_000 };
        let cells = [Cell::Absent, Cell::Value(b"\x20\x01"), Cell::Null, Cell::Value(b"\x12\0")];
        let row = FeatureRow::new(cells.into_iter(), timestamp);

        assert_eq!(row.event_timestamp(), timestamp);
        let read: Vec<_> = (0..row.len()).map(|index| row.cell(index)).collect();
        assert_eq!(read, cells);
        assert_eq!(row.encoded_timestamp(), b"\x08\xa5\xfa\xcd\xac\x06\x10\x88\xea\xdc\xc3\x02");
    }

    #[test]
    fn the_epoch_is_an_empty_timestamp_and_the_past_a_negative_one() {
        let row = FeatureRow::new(iter::empty(), EventTimestamp::default());
        assert!(row.is_empty() && row.encoded_timestamp().is_empty());
        let row = FeatureRow::new(iter::empty(), EventTimestamp { seconds: -1, nanos: 0 });
        assert_eq!(row.encoded_timestamp().len(), 11);
        assert_eq!(row.event_timestamp().seconds, -1);
    }

    #[test]
    fn a_borrowed_key_hashes_and_compares_like_an_owned_one() {
        use std::hash::BuildHasher;
        let borrowed = RowKeyRef { view: ViewId(7), entity: b"key" };
        let owned = borrowed.to_owned();
        let hasher = foldhash::fast::FixedState::default();
        assert_eq!(hasher.hash_one(borrowed), hasher.hash_one(&owned));
        assert!(borrowed.equivalent(&owned));
        assert!(!RowKeyRef { view: ViewId(8), entity: b"key" }.equivalent(&owned));
    }
}
