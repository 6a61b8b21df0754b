//! Turns the values of entity columns into those of join keys. Pure.
//!
//! Feast's Python server passes JSON through `int()` and `str()` before it serializes a key
//! (`type_map.python_values_to_proto_values`); over gRPC, keys are taken as they were sent. larder
//! follows both, but for what would silently name another entity: that is refused.

use std::borrow::Cow;

use super::request::{Coercion, KeyValue};
use crate::model::{JoinValue, ValueType};

/// The join key's value, or `None` for a null. The error says what is wrong with `value`.
pub(super) fn coerce<'a>(
    value: &KeyValue<'a>,
    declared: ValueType,
    coercion: Coercion,
) -> Result<Option<JoinValue<'a>>, String> {
    if let KeyValue::Null = value {
        return Ok(None);
    }
    let value = match coercion {
        Coercion::Python => by_python(value, declared)?,
        Coercion::Lossless => losslessly(value, declared)?,
    };
    Ok(Some(value))
}

fn by_python<'a>(value: &KeyValue<'a>, declared: ValueType) -> Result<JoinValue<'a>, String> {
    match declared {
        ValueType::INT32 => {
            let number = python_int(value)?;
            i32::try_from(number)
                .map(JoinValue::Int32)
                .map_err(|_| format!("{number} does not fit in 32 bits"))
        }
        ValueType::INT64 => python_int(value).map(JoinValue::Int64),
        ValueType::UNIX_TIMESTAMP => python_int(value).map(JoinValue::UnixTimestamp),
        ValueType::STRING => python_str(value).map(JoinValue::String),
        // JSON has no bytes; gRPC's come through `losslessly`.
        _ => losslessly(value, declared),
    }
}

fn losslessly<'a>(value: &KeyValue<'a>, declared: ValueType) -> Result<JoinValue<'a>, String> {
    let refused = || Err(format!("expected {}, got {}", declared.name(), name_of(value)));
    Ok(match (declared, value) {
        (ValueType::INT32, KeyValue::Int32(number)) => JoinValue::Int32(*number),
        (ValueType::INT32, KeyValue::Int64(number)) => match i32::try_from(*number) {
            Ok(number) => JoinValue::Int32(number),
            Err(_) => return Err(format!("{number} does not fit in 32 bits")),
        },
        (ValueType::INT64, KeyValue::Int32(number)) => JoinValue::Int64((*number).into()),
        (ValueType::INT64, KeyValue::Int64(number)) => JoinValue::Int64(*number),
        (
            ValueType::UNIX_TIMESTAMP,
            KeyValue::UnixTimestamp(seconds) | KeyValue::Int64(seconds),
        ) => JoinValue::UnixTimestamp(*seconds),
        (ValueType::UNIX_TIMESTAMP, KeyValue::Int32(seconds)) => {
            JoinValue::UnixTimestamp((*seconds).into())
        }
        (ValueType::STRING, KeyValue::String(text)) => JoinValue::String(text.clone()),
        (ValueType::BYTES, KeyValue::Bytes(bytes)) => JoinValue::Bytes(bytes.clone()),
        (ValueType::UNKNOWN, value) => match value {
            KeyValue::Int32(number) => JoinValue::Int32(*number),
            KeyValue::Int64(number) => JoinValue::Int64(*number),
            KeyValue::UnixTimestamp(seconds) => JoinValue::UnixTimestamp(*seconds),
            KeyValue::String(text) => JoinValue::String(text.clone()),
            KeyValue::Bytes(bytes) => JoinValue::Bytes(bytes.clone()),
            _ => return refused(),
        },
        _ => return refused(),
    })
}

/// Python's `int()`.
fn python_int(value: &KeyValue<'_>) -> Result<i64, String> {
    match value {
        KeyValue::Bool(truth) => Ok((*truth).into()),
        KeyValue::Int32(number) => Ok((*number).into()),
        KeyValue::Int64(number) | KeyValue::UnixTimestamp(number) => Ok(*number),
        KeyValue::Float(number) => {
            let whole = number.trunc();
            // 2^63 itself is the first that does not fit.
            if (-(2f64.powi(63))..2f64.powi(63)).contains(&whole) {
                Ok(whole as i64)
            } else {
                Err(format!("{number} is not a 64-bit integer"))
            }
        }
        KeyValue::String(text) => {
            let digits = text.trim();
            let underscored = digits.contains('_')
                && !digits.starts_with('_')
                && !digits.ends_with('_')
                && !digits.contains("__");
            let parsed = if underscored { digits.replace('_', "").parse() } else { digits.parse() };
            parsed.map_err(|_| format!("invalid literal for int() with base 10: '{text}'"))
        }
        KeyValue::Null | KeyValue::Bytes(_) | KeyValue::Other(_) => {
            Err(format!("expected an integer, got {}", name_of(value)))
        }
    }
}

/// Python's `str()`.
fn python_str<'a>(value: &KeyValue<'a>) -> Result<Cow<'a, str>, String> {
    Ok(match value {
        KeyValue::String(text) => text.clone(),
        KeyValue::Bool(true) => "True".into(),
        KeyValue::Bool(false) => "False".into(),
        KeyValue::Int32(number) => number.to_string().into(),
        KeyValue::Int64(number) | KeyValue::UnixTimestamp(number) => number.to_string().into(),
        KeyValue::Float(number) => python_repr(*number).into(),
        KeyValue::Null | KeyValue::Bytes(_) | KeyValue::Other(_) => {
            return Err(format!("expected text, got {}", name_of(value)));
        }
    })
}

/// Python's `repr()` of a float: the shortest that reads back, an exponent from 1e16 and below 1e-4.
fn python_repr(number: f64) -> String {
    let magnitude = number.abs();
    if number.is_nan() {
        "nan".to_owned()
    } else if number.is_infinite() {
        if number > 0.0 { "inf".to_owned() } else { "-inf".to_owned() }
    } else if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let text = format!("{number:e}");
        let (digits, exponent) = text.split_once('e').expect("LowerExp writes an exponent");
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        format!("{digits}e{sign}{exponent:0>2}")
    } else {
        format!("{number:?}")
    }
}

fn name_of(value: &KeyValue<'_>) -> &'static str {
    match value {
        KeyValue::Null => "null",
        KeyValue::Bool(_) => "a boolean",
        KeyValue::Int32(_) => "a 32-bit integer",
        KeyValue::Int64(_) => "an integer",
        KeyValue::Float(_) => "a floating-point number",
        KeyValue::String(_) => "text",
        KeyValue::Bytes(_) => "bytes",
        KeyValue::UnixTimestamp(_) => "a timestamp",
        KeyValue::Other(name) => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: KeyValue<'_>, declared: ValueType, expected: Result<JoinValue<'_>, &str>) {
        let coerced = coerce(&value, declared, Coercion::Python).map(|value| value.unwrap());
        assert_eq!(coerced, expected.map_err(str::to_owned), "{value:?}");
    }

    #[test]
    fn json_is_coerced_as_python_does() {
        use KeyValue::*;
        use ValueType as T;
        check(Int64(1), T::INT64, Ok(JoinValue::Int64(1)));
        check(String(" 1_0\n".into()), T::INT64, Ok(JoinValue::Int64(10)));
        check(String("+7".into()), T::INT64, Ok(JoinValue::Int64(7)));
        check(Float(1.9), T::INT64, Ok(JoinValue::Int64(1)));
        check(Float(-1.9), T::INT64, Ok(JoinValue::Int64(-1)));
        check(Bool(true), T::INT64, Ok(JoinValue::Int64(1)));
        check(String("abc".into()), T::INT64, Err("invalid literal for int() with base 10: 'abc'"));
        check(
            Float(1e30),
            T::INT64,
            Err("1000000000000000000000000000000 is not a 64-bit integer"),
        );
        check(Float(f64::NAN), T::INT64, Err("NaN is not a 64-bit integer"));
        check(Int64(1 << 40), T::INT32, Err("1099511627776 does not fit in 32 bits"));
        check(Int64(5), T::STRING, Ok(JoinValue::String("5".into())));
        check(Bool(true), T::STRING, Ok(JoinValue::String("True".into())));
        check(Other("a list"), T::STRING, Err("expected text, got a list"));
        check(String("x".into()), T::UNKNOWN, Ok(JoinValue::String("x".into())));
        check(
            Float(0.5),
            T::UNKNOWN,
            Err("expected an undeclared type, got a floating-point number"),
        );
        check(String("x".into()), T::BYTES, Err("expected BYTES, got text"));
        assert_eq!(coerce(&Null, T::INT64, Coercion::Python), Ok(None));
    }

    #[test]
    fn floats_become_the_text_that_python_writes() {
        for (number, text) in [
            (1.0, "1.0"),
            (1.5, "1.5"),
            (-0.0, "-0.0"),
            (1e16, "1e+16"),
            (1.25e-7, "1.25e-07"),
            (123_456_789.0, "123456789.0"),
            (1e100, "1e+100"),
            (0.0001, "0.0001"),
        ] {
            check(
                KeyValue::Float(number),
                ValueType::STRING,
                Ok(JoinValue::String(text.to_owned().into())),
            );
        }
    }

    #[test]
    fn over_grpc_only_the_width_of_an_integer_changes() {
        let lossless = |value, declared| coerce(&value, declared, Coercion::Lossless);
        let widened = lossless(KeyValue::Int32(-5), ValueType::INT64);
        assert_eq!(widened, Ok(Some(JoinValue::Int64(-5))));
        let narrowed = lossless(KeyValue::Int64(7), ValueType::INT32);
        assert_eq!(narrowed, Ok(Some(JoinValue::Int32(7))));
        let text = lossless(KeyValue::String("1".into()), ValueType::INT64);
        assert_eq!(text, Err("expected INT64, got text".to_owned()));
    }
}
