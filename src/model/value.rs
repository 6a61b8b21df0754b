//! What a value is called: its type in the registry, its status in an answer.
//!
//! The values themselves stay the bytes of a serialized `feast.types.Value`, from store to socket.

use super::{
    JoinValue,
    wire::{put_bytes_field, put_varint},
};

/// What a value in an answer is. The numbers are those of `feast.serving.FieldStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldStatus {
    /// The store could not be asked, and nothing stood in for it.
    Invalid = 0,
    /// A value, or a null that was stored as such.
    Present = 1,
    /// The row holds a null; only where `status_compat` asks to tell it from [`Self::Present`].
    NullValue = 2,
    /// There is no such row, or the row has no such feature.
    NotFound = 3,
    /// The row is older than its feature view allows.
    OutsideMaxAge = 4,
}

impl FieldStatus {
    /// The name in `feast.serving.FieldStatus`, as JSON has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Invalid => "INVALID",
            Self::Present => "PRESENT",
            Self::NullValue => "NULL_VALUE",
            Self::NotFound => "NOT_FOUND",
            Self::OutsideMaxAge => "OUTSIDE_MAX_AGE",
        }
    }
}

/// A number of `feast.types.ValueType.Enum`. Open: Feast adds types, and a proxy passes them on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueType(pub i32);

impl ValueType {
    /// Not declared.
    pub const UNKNOWN: Self = Self(0);
    /// Raw bytes.
    pub const BYTES: Self = Self(1);
    /// UTF-8 text.
    pub const STRING: Self = Self(2);
    /// A 32-bit integer.
    pub const INT32: Self = Self(3);
    /// A 64-bit integer.
    pub const INT64: Self = Self(4);
    /// Seconds since the Unix epoch.
    pub const UNIX_TIMESTAMP: Self = Self(8);

    /// The name as Feast's documentation has it, for messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::UNKNOWN => "an undeclared type",
            Self::BYTES => "BYTES",
            Self::STRING => "STRING",
            Self::INT32 => "INT32",
            Self::INT64 => "INT64",
            Self::UNIX_TIMESTAMP => "UNIX_TIMESTAMP",
            _ => "a type that cannot be a join key",
        }
    }
}

/// A value that larder writes itself: what an entity column gives back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar<'a> {
    /// A join key's value.
    Join(&'a JoinValue<'a>),
    /// `double_val`.
    Double(f64),
    /// `bool_val`.
    Bool(bool),
}

/// Appends a serialized `feast.types.Value`.
pub fn encode_value(value: Scalar<'_>, out: &mut Vec<u8>) {
    let mut varint = |field: u64, number: u64| {
        put_varint(field << 3, out);
        put_varint(number, out);
    };
    match value {
        Scalar::Join(JoinValue::Bytes(bytes)) => put_bytes_field(1, bytes, out),
        Scalar::Join(JoinValue::String(text)) => put_bytes_field(2, text.as_bytes(), out),
        Scalar::Join(JoinValue::Int32(number)) => varint(3, i64::from(*number) as u64),
        Scalar::Join(JoinValue::Int64(number)) => varint(4, *number as u64),
        Scalar::Join(JoinValue::UnixTimestamp(seconds)) => varint(8, *seconds as u64),
        Scalar::Bool(truth) => varint(7, truth.into()),
        Scalar::Double(number) => {
            put_varint(5 << 3 | 1, out);
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_written_as_protobuf_does() {
        #[track_caller]
        fn check(value: Scalar<'_>, expected: &[u8]) {
            let mut out = Vec::new();
            encode_value(value, &mut out);
            assert_eq!(out, expected);
        }
        check(Scalar::Join(&JoinValue::Int64(0)), b"\x20\0");
        check(Scalar::Join(&JoinValue::Int32(-1)), b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
        check(Scalar::Join(&JoinValue::String("ab".into())), b"\x12\x02ab");
        check(Scalar::Join(&JoinValue::UnixTimestamp(300)), b"\x40\xac\x02");
        check(Scalar::Double(1.0), b"\x29\0\0\0\0\0\0\xf0\x3f");
        check(Scalar::Bool(true), b"\x38\x01");
    }
}
