//! The values of `larder.yaml` that have a spelling of their own: durations, sizes, addresses.

use std::{fmt, num::NonZeroUsize, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::net::ListenAddress;

/// A span of time: `60s`, `250ms`, `1h 30m`. At most a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurationText(pub Duration);

/// A number of bytes: `256MiB`, `64Ki`, `1GB`, or a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

/// A value, or the word `auto` to have it found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Auto<T> {
    /// It depends on the machine.
    #[default]
    Auto,
    /// It is this.
    Value(T),
}

/// An address to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(pub ListenAddress);

/// An address to listen at, or the word `off`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressOrOff {
    /// Not served.
    Off,
    /// Served there.
    At(ListenAddress),
}

/// One address, or a list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses(pub Vec<Address>);

/// A file, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathOrOff {
    /// None.
    Off,
    /// This one; a relative path begins where larder was started.
    Path(String),
}

/// Permissions of a file, as octal digits: `"0660"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(pub u32);

/// What is logged: a level, or levels by target, as `info,larder=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(pub String);

/// A value that is written as one scalar.
trait Scalar: Sized {
    /// What to write, with an example.
    const EXPECTED: &'static str;

    fn from_text(text: &str) -> Option<Self>;

    fn from_number(_: u64) -> Option<Self> {
        None
    }

    fn to_text(&self) -> String;
}

impl Scalar for DurationText {
    const EXPECTED: &'static str = "a duration such as 60s, 250ms or 1h, of at most 8760h";

    fn from_text(text: &str) -> Option<Self> {
        let duration = Duration::try_from(text.parse::<jiff::SignedDuration>().ok()?).ok()?;
        (duration <= MAX_DURATION).then_some(Self(duration))
    }

    fn to_text(&self) -> String {
        match i64::try_from(self.0.as_nanos()) {
            Ok(nanos) => format!("{:#}", jiff::SignedDuration::from_nanos(nanos)),
            Err(_) => format!("{}s", self.0.as_secs()),
        }
    }
}

// A deadline that far ahead can still be added to any clock.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 3600);

impl Scalar for ByteSize {
    const EXPECTED: &'static str = "a size such as 256MiB, or a number of bytes";

    fn from_text(text: &str) -> Option<Self> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let scale = match unit.trim_start().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" => 1000,
            "m" | "mb" => 1000_u64.pow(2),
            "g" | "gb" => 1000_u64.pow(3),
            "ki" | "kib" => 1 << 10,
            "mi" | "mib" => 1 << 20,
            "gi" | "gib" => 1 << 30,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(scale).map(Self)
    }

    fn from_number(number: u64) -> Option<Self> {
        Some(Self(number))
    }

    fn to_text(&self) -> String {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        match units.iter().find(|(shift, _)| self.0 > 0 && self.0.is_multiple_of(1 << shift)) {
            Some((shift, unit)) => format!("{}{unit}", self.0 >> shift),
            None => self.0.to_string(),
        }
    }
}

impl Scalar for Auto<ByteSize> {
    const EXPECTED: &'static str = "`auto`, a size such as 256MiB, or a number of bytes";

    fn from_text(text: &str) -> Option<Self> {
        if text == AUTO { Some(Self::Auto) } else { ByteSize::from_text(text).map(Self::Value) }
    }

    fn from_number(number: u64) -> Option<Self> {
        Some(Self::Value(ByteSize(number)))
    }

    fn to_text(&self) -> String {
        match self {
            Self::Auto => AUTO.to_owned(),
            Self::Value(size) => size.to_text(),
        }
    }
}

impl Scalar for Auto<NonZeroUsize> {
    const EXPECTED: &'static str = "`auto`, or a whole number from 1";

    fn from_text(text: &str) -> Option<Self> {
        (text == AUTO).then_some(Self::Auto)
    }

    fn from_number(number: u64) -> Option<Self> {
        NonZeroUsize::new(usize::try_from(number).ok()?).map(Self::Value)
    }

    fn to_text(&self) -> String {
        match self {
            Self::Auto => AUTO.to_owned(),
            Self::Value(number) => number.to_string(),
        }
    }
}

impl Scalar for Auto<String> {
    const EXPECTED: &'static str = "`auto`, or a name";

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "" => None,
            AUTO => Some(Self::Auto),
            name => Some(Self::Value(name.to_owned())),
        }
    }

    fn to_text(&self) -> String {
        match self {
            Self::Auto => AUTO.to_owned(),
            Self::Value(name) => name.clone(),
        }
    }
}

const AUTO: &str = "auto";

impl Scalar for Address {
    const EXPECTED: &'static str =
        "an address such as 127.0.0.1:6566, :6566, unix:PATH or unix-abstract:NAME";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }

    fn to_text(&self) -> String {
        self.0.to_string()
    }
}

impl Scalar for AddressOrOff {
    const EXPECTED: &'static str =
        "`off`, or an address such as 127.0.0.1:6567, :6567 or unix:PATH";

    fn from_text(text: &str) -> Option<Self> {
        if text == OFF { Some(Self::Off) } else { text.parse().ok().map(Self::At) }
    }

    fn to_text(&self) -> String {
        match self {
            Self::Off => OFF.to_owned(),
            Self::At(address) => address.to_string(),
        }
    }
}

const OFF: &str = "off";

impl Scalar for PathOrOff {
    const EXPECTED: &'static str = "`off`, or the path of a file";

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "" => None,
            OFF => Some(Self::Off),
            path => Some(Self::Path(path.to_owned())),
        }
    }

    fn to_text(&self) -> String {
        match self {
            Self::Off => OFF.to_owned(),
            Self::Path(path) => path.clone(),
        }
    }
}

impl Scalar for FileMode {
    const EXPECTED: &'static str = "permissions as octal digits in quotes, such as \"0660\"";

    fn from_text(text: &str) -> Option<Self> {
        let octal = text.bytes().all(|digit| digit.is_ascii_digit());
        let mode = u32::from_str_radix(text, 8).ok().filter(|_| octal)?;
        (mode <= 0o777).then_some(Self(mode))
    }

    fn to_text(&self) -> String {
        format!("{:04o}", self.0)
    }
}

impl Scalar for LogFilter {
    const EXPECTED: &'static str = "a level (error, warn, info, debug, trace or off), or levels by \
                                    target such as info,larder=debug";

    fn from_text(text: &str) -> Option<Self> {
        let known = !text.is_empty()
            && text.split(',').all(|part| {
                let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
                // Without a level, a lone target would switch everything else off.
                level.parse::<LevelFilter>().is_ok()
            });
        (known && Targets::from_str(text).is_ok()).then(|| Self(text.to_owned()))
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

/// Libraries that report what is in order, or every attempt of theirs, and how much of it is heard:
/// that there are no credentials, or no connection, is said by whoever wants them.
const CHATTY: &[(&str, LevelFilter)] = &[
    ("aws_config", LevelFilter::WARN),
    ("aws_config::meta", LevelFilter::ERROR),
    ("scylla", LevelFilter::OFF),
];

impl LogFilter {
    /// The filter itself. Up to `info`, libraries that talk are not heard unless they are named:
    /// larder says what there is to say.
    pub fn targets(&self) -> Targets {
        let said: Targets = self.0.parse().expect("the text was parsed when it was read");
        let level = said.default_level().unwrap_or(LevelFilter::OFF);
        if level > LevelFilter::INFO {
            return said;
        }
        let named = |target: &str| {
            let library = target.split("::").next().unwrap_or_default();
            said.iter().any(|(name, _)| name.starts_with(library))
        };
        let quieted = CHATTY.iter().filter(|(target, _)| !named(target));
        quieted.fold(said.clone(), |targets, (target, most)| {
            targets.with_target(*target, level.min(*most))
        })
    }
}

struct ScalarVisitor<T>(std::marker::PhantomData<T>);

impl<T: Scalar> de::Visitor<'_> for ScalarVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        T::from_number(number)
            .ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(number), &self))
    }
}

/// serde and schema of a type that is one scalar.
macro_rules! scalar {
    ($($type:ty, $name:literal, $schema:tt;)*) => { $(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(ScalarVisitor(std::marker::PhantomData))
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.to_text())
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )* };
}

scalar! {
    DurationText, "Duration", {
        "description": "A span of time such as 60s, 250ms or 1h.", "type": "string"
    };
    ByteSize, "Size", {
        "description": "A size such as 256MiB, or a number of bytes.", "type": ["string", "integer"], "minimum": 0
    };
    Auto<ByteSize>, "AutoOrSize", {
        "description": "`auto`, a size such as 256MiB, or a number of bytes.",
        "type": ["string", "integer"], "minimum": 0
    };
    Auto<NonZeroUsize>, "AutoOrCount", {
        "description": "`auto`, or a number.",
        "anyOf": [{ "const": "auto" }, { "type": "integer", "minimum": 1 }]
    };
    Auto<String>, "AutoOrName", {
        "description": "`auto`, or a name.", "type": "string", "minLength": 1
    };
    Address, "Address", {
        "description": "127.0.0.1:6566, :6566, unix:PATH or unix-abstract:NAME.", "type": "string"
    };
    AddressOrOff, "AddressOrOff", {
        "description": "`off`, 127.0.0.1:6567, :6567, unix:PATH or unix-abstract:NAME.",
        "type": "string"
    };
    PathOrOff, "PathOrOff", { "description": "`off`, or the path of a file.", "type": "string" };
    FileMode, "FileMode", {
        "description": "Permissions as octal digits.", "type": "string", "pattern": "^[0-7]{3,4}$"
    };
    LogFilter, "LogFilter", {
        "description": "A level, or levels by target such as info,larder=debug.", "type": "string"
    };
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> de::Visitor<'de> for OneOrMany {
            type Value = Addresses;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}, or a list of them", Address::EXPECTED)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Addresses, E> {
                match Address::from_text(text) {
                    Some(address) => Ok(Addresses(vec![address])),
                    None => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, access: A) -> Result<Addresses, A::Error> {
                Vec::deserialize(de::value::SeqAccessDeserializer::new(access)).map(Addresses)
            }
        }

        deserializer.deserialize_any(OneOrMany)
    }
}

impl Serialize for Addresses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl JsonSchema for Addresses {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Addresses".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<Address>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<T: Scalar>(text: &str, expected: Option<&str>) {
        assert_eq!(T::from_text(text).map(|value| value.to_text()).as_deref(), expected, "{text}");
    }

    #[test]
    fn a_driver_that_chats_is_heard_only_if_it_is_named() {
        let heard = |filter: &str| {
            let filter = LogFilter::from_text(filter).unwrap().targets();
            let info = tracing::Level::INFO;
            (filter.would_enable("scylla::cluster", &info), filter.would_enable("larder", &info))
        };
        assert_eq!(heard("info"), (false, true));
        assert_eq!(heard("info,scylla=info"), (true, true));
        assert_eq!(heard("warn"), (false, false));
    }

    #[test]
    fn durations_have_units() {
        check::<DurationText>("60s", Some("1m"));
        check::<DurationText>("250ms", Some("250ms"));
        check::<DurationText>("1h 30m", Some("1h 30m"));
        check::<DurationText>("0s", Some("0s"));
        check::<DurationText>("8760h", Some("8760h"));
        for text in ["", "60", "soon", "-1s", "1s ago", "8761h", "1d", "99999999999999h"] {
            check::<DurationText>(text, None);
        }
    }

    #[test]
    fn sizes_are_binary_or_decimal() {
        check::<ByteSize>("256MiB", Some("256MiB"));
        check::<ByteSize>("256Mi", Some("256MiB"));
        check::<ByteSize>("1 GiB", Some("1GiB"));
        check::<ByteSize>("1kB", Some("1000"));
        check::<ByteSize>("1024", Some("1KiB"));
        check::<ByteSize>("0", Some("0"));
        for text in ["", "MiB", "1.5GiB", "-1", "1XiB", "99999999999999999999", "18446744073709GiB"]
        {
            check::<ByteSize>(text, None);
        }
    }

    #[test]
    fn a_log_filter_is_a_level_or_levels_by_target() {
        check::<LogFilter>("info", Some("info"));
        check::<LogFilter>("larder=debug,warn", Some("larder=debug,warn"));
        for text in ["", "loud", "larder", "larder=loud", "info,larder"] {
            check::<LogFilter>(text, None);
        }
    }

    #[test]
    fn chatty_libraries_are_quiet_unless_they_are_wanted() {
        let shows = |text: &str, target: &str| {
            LogFilter(text.into()).targets().would_enable(target, &tracing::Level::INFO)
        };
        assert!(shows("info", "larder") && !shows("info", "aws_config::profile::credentials"));
        assert!(!shows("info,larder=debug", "aws_config::profile"));
        assert!(shows("info,aws_config=info", "aws_config::profile"));
        assert!(shows("debug", "aws_config::profile"));
        assert!(!shows("error", "aws_config::profile"));
    }

    #[test]
    fn a_mode_is_octal() {
        check::<FileMode>("0660", Some("0660"));
        check::<FileMode>("600", Some("0600"));
        for text in ["", "0888", "1777", "+660", "rw"] {
            check::<FileMode>(text, None);
        }
    }
}
