//! Checks that bytes are a serialized `feast.types.Value`, without decoding them.
//!
//! Values are passed on as they were stored, so this is the only look at them. It accepts what a
//! protobuf parser would: unknown fields, packed and unpacked numbers. It is stricter in one way:
//! a value is one field, as its fields are one `oneof`, which Feast never writes twice.

use super::wire::{Field, Payload, WireError, read_varint};

/// Why bytes are no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedValue {
    /// They are no protobuf message at all.
    #[error(transparent)]
    NoMessage(#[from] WireError),
    /// A field is encoded as one of another type.
    #[error("field {0} is encoded as one of another type")]
    WrongType(u32),
    /// Text is not UTF-8.
    #[error("field {0} is text, but not UTF-8")]
    NotUtf8(u32),
    /// A value has more than one field.
    #[error("a value has more than one field")]
    SecondField,
    /// Values are nested too deeply.
    #[error("values are nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
}

/// Checks that `bytes` are a serialized `feast.types.Value`. No bytes are one: the null.
///
/// Takes time in the order of their length, and bounded stack.
pub fn check_value(bytes: &[u8]) -> Result<(), MalformedValue> {
    if is_plain_scalar(bytes) { Ok(()) } else { check_message(&VALUE, bytes, MAX_DEPTH) }
}

/// Whether they are a scalar as most features are, which is told without a look at the tables.
/// What is not plain may be a value all the same.
fn is_plain_scalar(bytes: &[u8]) -> bool {
    match bytes {
        [] => true,
        [DOUBLE, number @ ..] => number.len() == 8,
        [FLOAT, number @ ..] => number.len() == 4,
        [INT32 | INT64 | BOOL | UNIX_TIMESTAMP, number @ .., last] => {
            *last < 0x80 && number.len() < 9 && number.iter().all(|byte| *byte >= 0x80)
        }
        [STRING, length @ ..0x80, text @ ..] => {
            text.len() == usize::from(*length) && std::str::from_utf8(text).is_ok()
        }
        _ => false,
    }
}

// Tags: the field's number, then its wire type in three bits.
const STRING: u8 = 2 << 3 | 2;
const INT32: u8 = 3 << 3;
const INT64: u8 = 4 << 3;
const DOUBLE: u8 = 5 << 3 | 1;
const FLOAT: u8 = 6 << 3 | 5;
const BOOL: u8 = 7 << 3;
const UNIX_TIMESTAMP: u8 = 8 << 3;

/// Messages within messages: protobuf's own limit.
const MAX_DEPTH: usize = 100;

/// How the fields of a message are encoded, by their numbers. Numbers beyond are unknown.
struct Message {
    /// Whether it is a `oneof`, and has at most one field.
    one: bool,
    fields: &'static [Kind],
}

#[derive(Clone, Copy)]
enum Kind {
    /// Not in use, as far as is known here. Skipped.
    Unknown,
    Varint,
    Fixed32,
    Fixed64,
    Bytes,
    Text,
    /// Numbers, all in one field or each in one of its own.
    Varints,
    Fixed32s,
    Fixed64s,
    Of(&'static Message),
}

use Kind::{Bytes, Fixed32, Fixed32s, Fixed64, Fixed64s, Of, Text, Unknown, Varint, Varints};

#[rustfmt::skip]
static VALUE: Message = Message { one: true, fields: &[
    Unknown,
    Bytes, Text, Varint, Varint, Fixed64, Fixed32, Varint, Varint,                  // 1: scalars
    Unknown, Unknown,
    Of(&BYTES_LIST), Of(&TEXTS), Of(&VARINTS), Of(&VARINTS), Of(&FIXED64S),         // 11: lists
    Of(&FIXED32S), Of(&VARINTS), Of(&VARINTS),
    Varint,                                                                         // 19: null
    Of(&MAP), Of(&MAPS),                                                            // 20
    Of(&BYTES_LIST), Of(&TEXTS), Of(&VARINTS), Of(&VARINTS), Of(&FIXED64S),         // 22: sets
    Of(&FIXED32S), Of(&VARINTS), Of(&VARINTS),
    Unknown, Unknown,
    Text, Of(&TEXTS),                                                               // 32: JSON
    Of(&MAP), Of(&MAPS),                                                            // 34: structs
    Text, Text, Of(&TEXTS), Of(&TEXTS), Of(&TEXTS), Of(&TEXTS),                     // 36: UUIDs
    Of(&VALUES), Of(&VALUES),                                                       // 42: nested
    Text, Of(&TEXTS), Of(&TEXTS),                                                   // 44: decimals
    Of(&SCALAR_MAP),                                                                // 47
    Of(&ZONED_TIMESTAMP),                                                           // 48
]};

static BYTES_LIST: Message = list(&[Unknown, Bytes]);
static TEXTS: Message = list(&[Unknown, Text]);
static VARINTS: Message = list(&[Unknown, Varints]);
static FIXED32S: Message = list(&[Unknown, Fixed32s]);
static FIXED64S: Message = list(&[Unknown, Fixed64s]);
static VALUES: Message = list(&[Unknown, Of(&VALUE)]);
static MAPS: Message = list(&[Unknown, Of(&MAP)]);
static MAP: Message = list(&[Unknown, Of(&MAP_ENTRY)]);
static MAP_ENTRY: Message = list(&[Unknown, Text, Of(&VALUE)]);
static SCALAR_MAP: Message = list(&[Unknown, Of(&SCALAR_MAP_ENTRY)]);
static SCALAR_MAP_ENTRY: Message = list(&[Unknown, Of(&MAP_KEY), Of(&VALUE)]);
static ZONED_TIMESTAMP: Message = list(&[Unknown, Varint, Text]);
#[rustfmt::skip]
static MAP_KEY: Message = Message { one: true, fields: &[
    Unknown, Varint, Varint, Fixed32, Fixed64, Varint, Varint, Bytes, Text, Text, Text,
]};

const fn list(fields: &'static [Kind]) -> Message {
    Message { one: false, fields }
}

fn check_message(
    message: &'static Message,
    bytes: &[u8],
    depth: usize,
) -> Result<(), MalformedValue> {
    let depth = depth.checked_sub(1).ok_or(MalformedValue::TooDeep)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let field = Field::read(&mut rest)?;
        let kind = message.fields.get(field.number as usize).copied().unwrap_or(Unknown);
        check_field(kind, &field, depth)?;
        if message.one && !rest.is_empty() {
            return Err(MalformedValue::SecondField);
        }
    }
    Ok(())
}

fn check_field(kind: Kind, field: &Field<'_>, depth: usize) -> Result<(), MalformedValue> {
    match (kind, field.payload) {
        (Unknown, _) => Ok(()),
        (Varint | Varints, Payload::Varint(_))
        | (Fixed32 | Fixed32s, Payload::Fixed32)
        | (Fixed64 | Fixed64s, Payload::Fixed64)
        | (Bytes, Payload::Bytes(_)) => Ok(()),
        (Text, Payload::Bytes(text)) => match std::str::from_utf8(text) {
            Ok(_) => Ok(()),
            Err(_) => Err(MalformedValue::NotUtf8(field.number)),
        },
        (Varints, Payload::Bytes(mut packed)) => {
            while !packed.is_empty() {
                read_varint(&mut packed)?;
            }
            Ok(())
        }
        (Fixed32s, Payload::Bytes(packed)) if packed.len() % 4 == 0 => Ok(()),
        (Fixed64s, Payload::Bytes(packed)) if packed.len() % 8 == 0 => Ok(()),
        (Fixed32s | Fixed64s, Payload::Bytes(_)) => Err(WireError::Truncated.into()),
        (Of(message), Payload::Bytes(inner)) => check_message(message, inner, depth),
        _ => Err(MalformedValue::WrongType(field.number)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(bytes: &[u8]) -> Result<(), MalformedValue> {
        check_value(bytes)
    }

    #[test]
    fn nothing_is_a_null_and_scalars_are_values() {
        for value in [&b""[..], b"\x20\x01", b"\x12\x00", b"\x35\x00\x00\x80\x3f", b"\x98\x01\x00"]
        {
            assert_eq!(check(value), Ok(()), "{value:x?}");
        }
    }

    #[test]
    fn what_ends_early_or_late_is_refused() {
        let truncated = Err(WireError::Truncated.into());
        assert_eq!(check(b"\x20"), truncated);
        assert_eq!(check(b"\x20\x80"), truncated);
        assert_eq!(check(b"\x12\x05ab"), truncated);
        assert_eq!(check(b"\x29\0\0\0"), truncated);
        assert_eq!(check(b"\x7a\x05\x0a\x03abc"), truncated, "a packed double of three bytes");
        assert_eq!(check(b"\x72\x03\x0a\x01\x80"), truncated, "a packed number without an end");
    }

    #[test]
    fn a_known_field_of_another_type_is_refused_and_an_unknown_one_is_not() {
        assert_eq!(check(b"\x22\x01a"), Err(MalformedValue::WrongType(4)));
        assert_eq!(check(b"\x10\x01"), Err(MalformedValue::WrongType(2)));
        assert_eq!(check(b"\x92\x03\x01a"), Ok(()), "field 50");
        assert_eq!(check(b"\x52\x01a"), Ok(()), "field 10, which is not in use");
    }

    #[test]
    fn text_is_utf8_wherever_it_is() {
        assert_eq!(check(b"\x12\x01\xff"), Err(MalformedValue::NotUtf8(2)));
        assert_eq!(check(b"\x0a\x01\xff"), Ok(()), "bytes need not be");
        assert_eq!(check(b"\x62\x03\x0a\x01\xff"), Err(MalformedValue::NotUtf8(1)), "in a list");
        let key = b"\xa2\x01\x07\x0a\x05\x0a\x01\xff\x12\x00";
        assert_eq!(check(key), Err(MalformedValue::NotUtf8(1)), "a key of a map");
        let value = b"\xa2\x01\x0a\x0a\x08\x0a\x01k\x12\x03\x12\x01\xff";
        assert_eq!(check(value), Err(MalformedValue::NotUtf8(2)), "a value in a map");
        let zone = b"\x82\x03\x03\x12\x01\xff";
        assert_eq!(check(zone), Err(MalformedValue::NotUtf8(2)), "a time zone");
    }

    #[test]
    fn numbers_of_a_list_may_be_packed_or_not() {
        assert_eq!(check(b"\x72\x02\x08\x01"), Ok(()));
        assert_eq!(check(b"\x72\x04\x0a\x02\x01\x02"), Ok(()));
        assert_eq!(check(b"\x7a\x09\x09\0\0\0\0\0\0\0\0"), Ok(()));
        assert_eq!(check(b"\x7a\x02\x08\x01"), Err(MalformedValue::WrongType(1)));
    }

    #[test]
    fn a_value_has_one_field() {
        assert_eq!(check(b"\x20\x01\x20\x02"), Err(MalformedValue::SecondField));
    }

    #[test]
    fn depth_is_bounded() {
        let nest = |levels: usize| {
            let mut value = Vec::new();
            for _ in 0..levels {
                let list = message(1, &value);
                value = message(42, &list);
            }
            value
        };
        assert_eq!(check(&nest(49)), Ok(()));
        assert_eq!(check(&nest(50)), Err(MalformedValue::TooDeep));
        assert_eq!(check(&nest(5_000)), Err(MalformedValue::TooDeep));
    }

    fn message(number: u64, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for mut part in [number << 3 | 2, payload.len() as u64] {
            while part >= 0x80 {
                out.push(part as u8 | 0x80);
                part >>= 7;
            }
            out.push(part as u8);
        }
        out.extend_from_slice(payload);
        out
    }

    #[test]
    fn plain_scalars_are_seen_to_be_plain() {
        let negative = b"\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        for (value, plain) in [
            (&b""[..], true),
            (b"\x18\x00", true),
            (b"\x20\x80\x80\x01", true),
            (b"\x29\0\0\0\0\0\0\xf0\x3f", true),
            (b"\x35\0\0\x80\x3f", true),
            (b"\x38\x01", true),
            (b"\x40\x01", true),
            (b"\x12\x02\xc3\xa9", true),
            (negative, false),
            (b"\x0a\x01a", false),
            (b"\x72\x02\x08\x01", false),
        ] {
            assert_eq!(is_plain_scalar(value), plain, "{value:x?}");
            assert_eq!(check(value), Ok(()), "{value:x?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_have_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = check_value(&bytes);
        }

        #[test]
        fn what_is_plain_is_a_value(
            tag in prop::sample::select(vec![STRING, INT32, INT64, DOUBLE, FLOAT, BOOL]),
            length in 0..12_u8,
            rest in proptest::collection::vec(any::<u8>(), 0..12),
        ) {
            for bytes in [[&[tag], &*rest].concat(), [&[tag, length], &*rest].concat()] {
                if is_plain_scalar(&bytes) {
                    prop_assert_eq!(check_message(&VALUE, &bytes, MAX_DEPTH), Ok(()));
                }
            }
        }

        #[test]
        fn a_value_that_is_cut_short_is_refused(
            texts in proptest::collection::vec(".{1,20}", 1..5),
            cut in any::<proptest::sample::Index>(),
        ) {
            let list: Vec<u8> = texts.iter().flat_map(|text| message(1, text.as_bytes())).collect();
            let value = message(12, &list);
            prop_assert_eq!(check_value(&value), Ok(()));
            let cut = 1 + cut.index(value.len() - 1);
            prop_assert!(check_value(&value[..cut]).is_err());
        }
    }
}
