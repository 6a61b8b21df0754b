//! Writes one `feast.types.Value` as JSON, straight from its serialized bytes. Pure.
//!
//! The forms are those of Feast's HTTP server: 64-bit integers are numbers, bytes are base64, NaN
//! and the infinities are text, lists and sets are arrays, maps and structs are objects.

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::{
    Timestamp,
    fmt::temporal::DateTimePrinter,
    tz::{Offset, TimeZone},
};

use super::wire::{Fields, Malformed, Wire, take_array, take_varint};

/// Appends the value. Returns `false`, and appends `null`, where the bytes are no value that is
/// known here: a newer kind, text that is not UTF-8, or nested beyond reason.
pub(super) fn put_value(value: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let put = try_put_value(value, MAX_DEPTH, out);
    if put.is_err() {
        out.truncate(start);
        put_null(out);
    }
    put.is_ok()
}

/// Appends text, in quotes.
pub(super) fn put_text(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect(MEMORY);
}

/// Appends an integer.
pub(super) fn put_integer(number: i64, out: &mut Vec<u8>) {
    serde_json::to_writer(out, &number).expect(MEMORY);
}

/// Values in values in values: as many levels as protobuf's own parsers take.
const MAX_DEPTH: u32 = 100;

const MEMORY: &str = "writing to memory does not fail";

/// What a member of `Value` holds.
enum Member {
    Null,
    One(Element),
    /// A message with `repeated <element> val = 1`.
    Many(Element),
    Zoned,
}

/// What a list holds.
#[derive(Clone, Copy)]
enum Element {
    Bytes,
    Text,
    Int32,
    Int64,
    Double,
    Float,
    Bool,
    Map,
    Value,
}

/// The members of `Value` by their numbers. Sets are written as lists.
fn member(number: u32) -> Option<Member> {
    use Element::*;
    use Member::*;
    Some(match number {
        1 => One(Bytes),
        // Text, JSON text, UUIDs and decimals.
        2 | 32 | 36 | 37 | 44 => One(Text),
        3 => One(Int32),
        // The other is a timestamp.
        4 | 8 => One(Int64),
        5 => One(Double),
        6 => One(Float),
        7 => One(Bool),
        11 | 22 => Many(Bytes),
        12 | 23 | 33 | 38..=41 | 45 | 46 => Many(Text),
        13 | 24 => Many(Int32),
        14 | 18 | 25 | 29 => Many(Int64),
        15 | 26 => Many(Double),
        16 | 27 => Many(Float),
        17 | 28 => Many(Bool),
        // Feast's server has no JSON for maps with keys that are not text, either.
        19 | 47 => Null,
        20 | 34 => One(Map),
        21 | 35 => Many(Map),
        42 | 43 => Many(Value),
        48 => Zoned,
        _ => return None,
    })
}

fn try_put_value(value: &[u8], depth: u32, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let depth = depth.checked_sub(1).ok_or(Malformed)?;
    let Some((number, wire)) = Fields(value).last_of()? else {
        put_null(out);
        return Ok(());
    };
    match (member(number).ok_or(Malformed)?, wire) {
        (Member::Null, _) => put_null(out),
        (Member::One(element), wire) => put_element(element, wire, depth, out)?,
        (Member::Many(element), Wire::Bytes(list)) => put_list(element, list, depth, out)?,
        (Member::Zoned, Wire::Bytes(zoned)) => put_zoned(zoned, out)?,
        (Member::Many(_) | Member::Zoned, _) => return Err(Malformed),
    }
    Ok(())
}

fn put_element(
    element: Element,
    wire: Wire<'_>,
    depth: u32,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    match (element, wire) {
        (Element::Bytes, Wire::Bytes(bytes)) => put_base64(bytes, out),
        (Element::Text, Wire::Bytes(text)) => {
            put_text(str::from_utf8(text).map_err(|_| Malformed)?, out);
        }
        // Negative ones have ten bytes; what exceeds the type is cut off, as by other parsers.
        (Element::Int32, Wire::Varint(number)) => put_integer((number as i32).into(), out),
        (Element::Int64, Wire::Varint(number)) => put_integer(number as i64, out),
        (Element::Bool, Wire::Varint(truth)) => {
            out.extend_from_slice(if truth != 0 { b"true" } else { b"false" });
        }
        (Element::Double, Wire::Fixed64(bytes)) => put_double(f64::from_le_bytes(bytes), out),
        // Widened, as Python does: it has no narrow ones.
        (Element::Float, Wire::Fixed32(bytes)) => put_double(f32::from_le_bytes(bytes).into(), out),
        (Element::Map, Wire::Bytes(map)) => put_map(map, depth, out)?,
        (Element::Value, Wire::Bytes(value)) => try_put_value(value, depth, out)?,
        _ => return Err(Malformed),
    }
    Ok(())
}

fn put_list(element: Element, list: &[u8], depth: u32, out: &mut Vec<u8>) -> Result<(), Malformed> {
    out.push(b'[');
    let start = out.len();
    for field in Fields(list) {
        let (number, wire) = field?;
        match wire {
            _ if number != 1 => {}
            Wire::Bytes(mut packed) if element.is_packed() => {
                while !packed.is_empty() {
                    let wire = element.unpack(&mut packed)?;
                    put_comma(start, out);
                    put_element(element, wire, depth, out)?;
                }
            }
            wire => {
                put_comma(start, out);
                put_element(element, wire, depth, out)?;
            }
        }
    }
    out.push(b']');
    Ok(())
}

impl Element {
    /// Whether a list of them may be one field with all of them.
    fn is_packed(self) -> bool {
        match self {
            Self::Int32 | Self::Int64 | Self::Double | Self::Float | Self::Bool => true,
            Self::Bytes | Self::Text | Self::Map | Self::Value => false,
        }
    }

    fn unpack<'a>(self, packed: &mut &[u8]) -> Result<Wire<'a>, Malformed> {
        Ok(match self {
            Self::Double => Wire::Fixed64(take_array(packed)?),
            Self::Float => Wire::Fixed32(take_array(packed)?),
            _ => Wire::Varint(take_varint(packed)?),
        })
    }
}

/// `map<string, Value> val = 1`: entries with the key as 1 and the value as 2.
fn put_map(map: &[u8], depth: u32, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let depth = depth.checked_sub(1).ok_or(Malformed)?;
    out.push(b'{');
    let start = out.len();
    for field in Fields(map) {
        let (1, Wire::Bytes(entry)) = field? else { return Err(Malformed) };
        let (mut key, mut value) = (&b""[..], &b""[..]);
        for field in Fields(entry) {
            match field? {
                (1, Wire::Bytes(bytes)) => key = bytes,
                (2, Wire::Bytes(bytes)) => value = bytes,
                _ => return Err(Malformed),
            }
        }
        put_comma(start, out);
        put_text(str::from_utf8(key).map_err(|_| Malformed)?, out);
        out.push(b':');
        try_put_value(value, depth, out)?;
    }
    out.push(b'}');
    Ok(())
}

/// `{int64 unix_timestamp = 1, string zone = 2}`, as ISO 8601 with the zone's offset at that time.
fn put_zoned(zoned: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let (mut seconds, mut zone) = (0, &b""[..]);
    for field in Fields(zoned) {
        match field? {
            (1, Wire::Varint(number)) => seconds = number as i64,
            (2, Wire::Bytes(text)) => zone = text,
            _ => {}
        }
    }
    if seconds == i64::MIN {
        put_null(out);
        return Ok(());
    }
    let timestamp = Timestamp::from_second(seconds).map_err(|_| Malformed)?;
    let zone = str::from_utf8(zone).map_err(|_| Malformed)?;
    let offset = offset_of(zone, timestamp).ok_or(Malformed)?;
    out.push(b'"');
    DateTimePrinter::new()
        .print_timestamp_with_offset(&timestamp, offset, &mut *out)
        .map_err(|_| Malformed)?;
    out.push(b'"');
    Ok(())
}

/// The offset of a zone: `America/New_York`, `UTC-07:00`, or nothing for UTC.
fn offset_of(zone: &str, timestamp: Timestamp) -> Option<Offset> {
    if zone.is_empty() {
        return Some(Offset::UTC);
    }
    if let Some(offset) = zone.strip_prefix("UTC").filter(|offset| !offset.is_empty()) {
        return fixed_offset(offset);
    }
    TimeZone::get(zone).ok().map(|zone| zone.to_offset(timestamp))
}

/// `-07:00`, or with seconds.
fn fixed_offset(text: &str) -> Option<Offset> {
    let (sign, text) = match text.split_at_checked(1)? {
        ("+", text) => (1, text),
        ("-", text) => (-1, text),
        _ => return None,
    };
    let mut seconds = 0;
    let mut unit = 3600;
    for part in text.split(':') {
        if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_digit()) || unit == 0 {
            return None;
        }
        seconds += part.parse::<i32>().ok()? * unit;
        unit /= 60;
    }
    Offset::from_seconds(sign * seconds).ok()
}

fn put_double(number: f64, out: &mut Vec<u8>) {
    if number.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
    } else if number.is_infinite() {
        out.extend_from_slice(if number > 0.0 { b"\"Infinity\"" } else { b"\"-Infinity\"" });
    } else {
        serde_json::to_writer(out, &number).expect(MEMORY);
    }
}

fn put_base64(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len() + 1;
    let length = base64::encoded_len(bytes.len(), true).expect("a value is smaller than memory");
    out.push(b'"');
    out.resize(start + length, 0);
    STANDARD.encode_slice(bytes, &mut out[start..]).expect("there is room for all of it");
    out.push(b'"');
}

fn put_null(out: &mut Vec<u8>) {
    out.extend_from_slice(b"null");
}

/// A comma, but before the first: `start` is where the first is written.
fn put_comma(start: usize, out: &mut Vec<u8>) {
    if out.len() > start {
        out.push(b',');
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn write(value: &[u8]) -> (String, bool) {
        let mut out = b"before".to_vec();
        let known = put_value(value, &mut out);
        (String::from_utf8(out[6..].to_vec()).unwrap(), known)
    }

    fn hex(text: &str) -> Vec<u8> {
        let digit = |place| u8::from_str_radix(&text[place..place + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(digit).collect()
    }

    /// The JSON that Feast's server has for a value of which `json` is protobuf's own JSON.
    fn as_feast_serves(kind: &str, json: &Value) -> Value {
        match json {
            Value::Object(value) if kind == "value" => match value.iter().next() {
                None => Value::Null,
                Some((kind, json)) => as_feast_serves(kind, json),
            },
            _ if matches!(kind, "null_val" | "scalar_map_val") => Value::Null,
            _ if kind == "zoned_timestamp_val" => json!("2024-07-01T12:00:00-04:00"),
            Value::Object(list) => {
                let inner = match kind {
                    "list_val" | "set_val" => "value",
                    "map_list_val" | "struct_list_val" => "map_val",
                    kind => kind,
                };
                match list.get("val") {
                    Some(Value::Array(list)) => {
                        list.iter().map(|element| as_feast_serves(inner, element)).collect()
                    }
                    Some(Value::Object(map)) => map
                        .iter()
                        .map(|(key, value)| (key.clone(), as_feast_serves("value", value)))
                        .collect(),
                    _ if kind.contains("map") || kind == "struct_val" => json!({}),
                    _ => json!([]),
                }
            }
            // Protobuf writes 64-bit integers as text.
            Value::String(text) if kind.contains("int64") || kind.contains("unix_timestamp") => {
                json!(text.parse::<i64>().unwrap())
            }
            Value::Number(number) if kind.contains("float") => {
                json!(f64::from(number.as_f64().unwrap() as f32))
            }
            other => other.clone(),
        }
    }

    #[test]
    fn every_kind_that_feast_writes_is_served_as_feast_does() {
        let golden = include_str!("../../tests/golden/feast/values.json");
        let golden: Value = serde_json::from_str(golden).unwrap();
        let cases = golden["cases"].as_array().unwrap();
        assert!(cases.len() > 40);
        for case in cases {
            let expected = as_feast_serves("value", &case["json"]);
            let (text, known) = write(&hex(case["hex"].as_str().unwrap()));
            assert!(known, "{case}");
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected, "{case}");
        }
    }

    #[track_caller]
    fn check(value: &[u8], expected: &str) {
        assert_eq!(write(value), (expected.to_owned(), true));
    }

    #[test]
    fn numbers_keep_their_kind_and_all_their_digits() {
        check(b"\x29\0\0\0\0\0\0\0\x40", "2.0");
        check(b"\x29\0\0\0\0\0\0\0\x80", "-0.0");
        check(b"\x35\xcd\xcc\xcc\x3d", "0.10000000149011612");
        check(b"\x35\0\0\x80\x7f", "\"Infinity\"");
        check(b"\x20\x81\x80\x80\x80\x80\x80\x80\x10", "9007199254740993");
        check(b"\x40\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", "-9223372036854775808");
        check(b"\x18\xf9\xff\xff\xff\xff\xff\xff\xff\xff\x01", "-7");
    }

    #[test]
    fn lists_of_numbers_are_read_packed_and_unpacked() {
        check(b"\x6a\x04\x0a\x02\x01\x02", "[1,2]");
        check(b"\x6a\x04\x08\x01\x08\x02", "[1,2]");
        check(b"\x6a\x05\x08\x01\x0a\x01\x02", "[1,2]");
        check(
            b"\x7a\x12\x0a\x10\0\0\0\0\0\0\xf0\xff\0\0\0\0\0\0\xf8\x7f",
            "[\"-Infinity\",\"NaN\"]",
        );
    }

    #[test]
    fn zoned_timestamps_have_the_offset_of_their_zone_at_that_time() {
        let zoned = |zone: &str| {
            let mut message = b"\x08\x80\xa5\x8b\xb4\x06\x12".to_vec();
            message.push(zone.len() as u8);
            message.extend_from_slice(zone.as_bytes());
            let mut value = b"\x82\x03".to_vec();
            value.push(message.len() as u8);
            value.extend_from_slice(&message);
            write(&value)
        };
        let known = |text: &str| (format!("\"{text}\""), true);
        assert_eq!(zoned("America/New_York"), known("2024-07-01T12:00:00-04:00"));
        assert_eq!(zoned("UTC-07:00"), known("2024-07-01T09:00:00-07:00"));
        assert_eq!(zoned("UTC+05:30"), known("2024-07-01T21:30:00+05:30"));
        assert_eq!(zoned("UTC"), known("2024-07-01T16:00:00+00:00"));
        assert_eq!(zoned(""), known("2024-07-01T16:00:00+00:00"));
        assert_eq!(zoned("Mars/Olympus"), ("null".to_owned(), false));
        assert_eq!(zoned("UTC+99:99"), ("null".to_owned(), false));
        check(b"\x82\x03\x0b\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", "null");
    }

    #[test]
    fn what_is_not_known_is_null_and_said_to_be() {
        let unknown = ("null".to_owned(), false);
        // Number 63, text that is not UTF-8, a list cut short, a number where text belongs.
        for value in [&b"\xfa\x03\x01\0"[..], b"\x12\x01\xff", b"\x6a\x02\x0a\x05", b"\x10\x01"] {
            assert_eq!(write(value), unknown, "{value:x?}");
        }
        // Lists in lists.
        let mut deep = Vec::new();
        for _ in 0..200 {
            let mut list = b"\x0a".to_vec();
            crate::model::wire::put_varint(deep.len() as u64, &mut list);
            list.append(&mut deep);
            deep = b"\xd2\x02".to_vec();
            crate::model::wire::put_varint(list.len() as u64, &mut deep);
            deep.append(&mut list);
        }
        assert_eq!(write(&deep), unknown);
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_bytes_the_result_is_json(bytes: Vec<u8>) {
            let (text, _) = write(&bytes);
            proptest::prop_assert!(serde_json::from_str::<Value>(&text).is_ok(), "{text}");
        }
    }
}
