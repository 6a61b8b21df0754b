//! Entity keys: how Feast spells the identity of an entity (`key_encoding_utils.py`).
//!
//! ```text
//! v3:  LE32(pairs)  { LE32(2) LE32(len) name }*  { LE32(type) LE32(len) payload }*
//! v2:               { LE32(2) name }*            { LE32(type) LE32(len) payload }*
//! v1:  as v2, but an int64 takes four bytes
//! ```
//!
//! All names come first, in byte order; then all values, in the order of their names.

use std::{borrow::Cow, sync::Arc};

/// The identity of an entity: Feast's serialized entity key.
///
/// Two requests name the same entity if and only if these bytes are equal. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityKey(pub Arc<[u8]>);

/// One value of a join key, in the type of its column.
///
/// Only these types can be in a key; Feast cannot write any other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum JoinValue<'a> {
    /// `bytes_val`.
    Bytes(Cow<'a, [u8]>),
    /// `string_val`.
    String(Cow<'a, str>),
    /// `int32_val`.
    Int32(i32),
    /// `int64_val`.
    Int64(i64),
    /// `unix_timestamp_val`: seconds since the epoch.
    UnixTimestamp(i64),
}

/// Feast's `entity_key_serialization_version`: one for a whole feature store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyEncoding {
    /// Version 1, and 0. An int64 outside of 32 bits has no key.
    V1,
    /// Version 2.
    V2,
    /// Version 3, the default, and all above.
    #[default]
    V3,
}

/// A number that is no version of the encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entity_key_serialization_version must be 1, 2 or 3, is {0}")]
pub struct UnsupportedKeyEncoding(pub i64);

impl TryFrom<i64> for KeyEncoding {
    type Error = UnsupportedKeyEncoding;

    fn try_from(version: i64) -> Result<Self, UnsupportedKeyEncoding> {
        match version {
            0 | 1 => Ok(Self::V1),
            2 => Ok(Self::V2),
            3 => Ok(Self::V3),
            _ => Err(UnsupportedKeyEncoding(version)),
        }
    }
}

/// Appends the key of `pairs` to `out`. Returns `false`, and appends nothing, where no key exists:
/// under [`KeyEncoding::V1`], for an int64 that does not fit in 32 bits.
///
/// `pairs` are (join key, value), sorted by the bytes of the name.
pub fn encode_entity_key<'a>(
    encoding: KeyEncoding,
    pairs: impl Iterator<Item = (&'a str, &'a JoinValue<'a>)> + Clone,
    out: &mut Vec<u8>,
) -> bool {
    let start = out.len();
    if encoding == KeyEncoding::V3 {
        put_u32(out, pairs.clone().count());
    }
    for (name, _) in pairs.clone() {
        out.extend_from_slice(&STRING_TAG.to_le_bytes());
        if encoding == KeyEncoding::V3 {
            put_u32(out, name.len());
        }
        out.extend_from_slice(name.as_bytes());
    }
    for (_, value) in pairs {
        if !put_value(encoding, value, out) {
            out.truncate(start);
            return false;
        }
    }
    true
}

const STRING_TAG: u32 = 2;

fn put_value(encoding: KeyEncoding, value: &JoinValue<'_>, out: &mut Vec<u8>) -> bool {
    let mut put = |tag: u32, payload: &[u8]| {
        out.extend_from_slice(&tag.to_le_bytes());
        put_u32(out, payload.len());
        out.extend_from_slice(payload);
    };
    match value {
        JoinValue::Bytes(bytes) => put(1, bytes),
        JoinValue::String(text) => put(STRING_TAG, text.as_bytes()),
        JoinValue::Int32(number) => put(3, &number.to_le_bytes()),
        JoinValue::Int64(number) if encoding == KeyEncoding::V1 => match i32::try_from(*number) {
            Ok(number) => put(4, &number.to_le_bytes()),
            Err(_) => return false,
        },
        JoinValue::Int64(number) => put(4, &number.to_le_bytes()),
        JoinValue::UnixTimestamp(seconds) => put(8, &seconds.to_le_bytes()),
    }
    true
}

fn put_u32(out: &mut Vec<u8>, length: usize) {
    let length = u32::try_from(length).expect("a request is smaller than 4 GiB");
    out.extend_from_slice(&length.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(encoding: KeyEncoding, pairs: &[(&str, JoinValue<'_>)]) -> Option<Vec<u8>> {
        let mut out = b"before".to_vec();
        let pairs = pairs.iter().map(|(name, value)| (*name, value));
        encode_entity_key(encoding, pairs, &mut out).then(|| out[6..].to_vec())
    }

    #[test]
    fn the_versions_differ_in_counts_lengths_and_integers() {
        let pairs = [("id", JoinValue::Int64(1))];
        let v3 = b"\x01\0\0\0\x02\0\0\0\x02\0\0\0id\x04\0\0\0\x08\0\0\0\x01\0\0\0\0\0\0\0";
        assert_eq!(key(KeyEncoding::V3, &pairs).unwrap(), v3);
        let v2 = b"\x02\0\0\0id\x04\0\0\0\x08\0\0\0\x01\0\0\0\0\0\0\0";
        assert_eq!(key(KeyEncoding::V2, &pairs).unwrap(), v2);
        let v1 = b"\x02\0\0\0id\x04\0\0\0\x04\0\0\0\x01\0\0\0";
        assert_eq!(key(KeyEncoding::V1, &pairs).unwrap(), v1);
    }

    #[test]
    fn an_integer_that_version_1_cannot_hold_has_no_key() {
        assert_eq!(key(KeyEncoding::V1, &[("id", JoinValue::Int64(1 << 40))]), None);
    }
}
