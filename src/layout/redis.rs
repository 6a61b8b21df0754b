//! Feast's rows in Redis: one hash for each entity, shared by all views of the project.
//!
//! ```text
//! key:    entity key || project
//! fields: LE32(murmur3_32("VIEW:feature"))  -> serialized Value; empty for a null
//!         "_ts:VIEW"                        -> serialized google.protobuf.Timestamp
//! ```
//!
//! `VIEW` is the view's versioned name. Cluster, sentinel and other servers that speak Redis hold
//! the same.

use std::sync::Arc;

use super::{
    DecodeError, ViewNames, cell,
    wire::{Field, Payload, WireError},
};
use crate::model::{EntityKey, EventTimestamp, FeatureView, MaybeRow};

/// The key of the hash that holds all views of an entity.
pub fn hash_key(entity: &EntityKey, project: &str) -> Vec<u8> {
    [&entity.0, project.as_bytes()].concat()
}

/// The field that holds a feature, of its name as `VIEW:feature`.
///
/// Two features of an entity may share one by chance; Feast does not notice, and nor can a reader.
pub fn feature_field(name: &str) -> [u8; 4] {
    let hash = murmur3::murmur3_32(&mut name.as_bytes(), 0).expect("reading a slice cannot fail");
    hash.to_le_bytes()
}

/// The fields of one view, and how their values are a row of it.
#[derive(Clone, Debug)]
pub struct RedisView {
    names: ViewNames,
    features: Box<[[u8; 4]]>,
    timestamp: Arc<str>,
}

impl RedisView {
    /// The layout of a view. Hashes a name for each feature: to be kept, not made for each read.
    pub fn new(view: &FeatureView) -> Self {
        let names = ViewNames::of(view);
        let field = |feature: &Arc<str>| feature_field(&format!("{}:{feature}", names.view));
        Self {
            features: names.features.iter().map(field).collect(),
            timestamp: format!("_ts:{}", names.view).into(),
            names,
        }
    }

    /// The fields to ask for: the features in the view's order, then the timestamp.
    pub fn fields(&self) -> impl Iterator<Item = &[u8]> {
        self.features.iter().map(<[u8; 4]>::as_slice).chain([self.timestamp.as_bytes()])
    }

    /// How many those are.
    pub fn field_count(&self) -> usize {
        self.features.len() + 1
    }

    /// The row in a reply to [`fields`](Self::fields), in their order; `None` for a field that the
    /// hash does not have.
    ///
    /// There is a row if there is any of the fields. Without a timestamp its time is the epoch, as
    /// it is for Feast.
    pub fn decode(&self, reply: &[Option<&[u8]>]) -> Result<MaybeRow, DecodeError> {
        let Some((timestamp, features)) =
            reply.split_last().filter(|_| reply.len() == self.field_count())
        else {
            return Err(DecodeError::FieldCount {
                view: self.names.view.clone(),
                asked: self.field_count(),
                found: reply.len(),
            });
        };
        if reply.iter().all(Option::is_none) {
            return Ok(None);
        }
        let timestamp = decode_timestamp(timestamp.unwrap_or_default()).map_err(|what| {
            DecodeError::Timestamp { view: self.names.view.clone(), what: what.to_string() }
        })?;
        self.names.row(features.iter().map(|stored| cell(*stored)), timestamp).map(Some)
    }
}

#[derive(Debug, thiserror::Error)]
enum TimestampError {
    #[error(transparent)]
    NoMessage(#[from] WireError),
    #[error("its nanoseconds are {0}")]
    Nanos(i64),
}

/// Decodes a `google.protobuf.Timestamp`: field 1 seconds, field 2 nanos, zeros left out.
fn decode_timestamp(mut bytes: &[u8]) -> Result<EventTimestamp, TimestampError> {
    let (mut seconds, mut nanos) = (0, 0);
    while !bytes.is_empty() {
        let field = Field::read(&mut bytes)?;
        match (field.number, field.payload) {
            (1, Payload::Varint(number)) => seconds = number as i64,
            (2, Payload::Varint(number)) => nanos = number as i64,
            (1 | 2, _) => return Err(WireError::BadTag.into()),
            _ => {}
        }
    }
    match i32::try_from(nanos) {
        Ok(nanos @ 0..1_000_000_000) => Ok(EventTimestamp { seconds, nanos }),
        _ => Err(TimestampError::Nanos(nanos)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::layout::ab;
    use crate::model::Cell;

    fn decode(reply: &[Option<&[u8]>]) -> Result<MaybeRow, DecodeError> {
        RedisView::new(&ab("v", None)).decode(reply)
    }

    #[test]
    fn a_version_is_part_of_every_field() {
        let fields = |view| RedisView::new(&view).fields().map(<[u8]>::to_vec).collect::<Vec<_>>();
        let plain = fields(ab("v", None));
        assert_eq!(plain[0], feature_field("v:a"));
        assert_eq!(plain[2], b"_ts:v");
        let versioned = fields(ab("v", Some(2)));
        assert_eq!(versioned[0], feature_field("v_v2:a"));
        assert_eq!(versioned[2], b"_ts:v_v2");
    }

    #[test]
    fn any_field_makes_a_row_and_none_makes_none() {
        assert_eq!(decode(&[None, None, None]), Ok(None));
        let row = decode(&[None, None, Some(b"\x08\x05")]).unwrap().unwrap();
        assert_eq!((row.cell(0), row.cell(1)), (Cell::Absent, Cell::Absent));
        assert_eq!(row.event_timestamp(), EventTimestamp { seconds: 5, nanos: 0 });
        let row = decode(&[Some(b""), None, None]).unwrap().unwrap();
        assert_eq!((row.cell(0), row.cell(1)), (Cell::Null, Cell::Absent));
        assert_eq!(row.event_timestamp(), EventTimestamp::default());
        let row = decode(&[None, None, Some(b"")]).unwrap().unwrap();
        assert_eq!(row.event_timestamp(), EventTimestamp::default(), "the epoch is empty");
    }

    #[test]
    fn what_is_no_value_is_named() {
        let error = decode(&[Some(b"\x20\x01"), Some(b"\x20"), None]).unwrap_err();
        let expected = "feature `b` of feature view `v` is stored as no `feast.types.Value`";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_timestamp_that_is_none_is_refused() {
        for bytes in [&b"\x08"[..], b"\x0a\x01a", b"\x10\xff\xff\xff\xff\x0f"] {
            let error = decode(&[None, None, Some(bytes)]).unwrap_err();
            assert!(matches!(error, DecodeError::Timestamp { .. }), "{bytes:x?}: {error}");
        }
        let past = b"\x08\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01\x18\x01";
        let row = decode(&[None, None, Some(past)]).unwrap().unwrap();
        assert_eq!(row.event_timestamp().seconds, -2);
    }

    #[test]
    fn a_reply_of_another_length_is_refused() {
        for reply in [&[][..], &[None; 2], &[None; 4]] {
            assert!(matches!(decode(reply), Err(DecodeError::FieldCount { asked: 3, .. })));
        }
    }

    proptest! {
        #[test]
        fn any_reply_has_an_answer(
            reply in proptest::collection::vec(
                proptest::option::of(proptest::collection::vec(any::<u8>(), 0..30)), 0..5),
        ) {
            let reply: Vec<_> = reply.iter().map(Option::as_deref).collect();
            let _ = decode(&reply);
        }
    }
}
