//! What the platform decides of the sidecar, and what a pod may ask for by annotation.
//!
//! One list of keys: those of the settings, and, behind `larder.dev/`, of the annotations.

use std::fmt;

use super::{names, quantity::Quantity};
use crate::spelling::closest;

/// One thing that can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The container's image.
    Image,
    /// The ConfigMap with `feature_store.yaml` and, if wanted, `larder.yaml`.
    Config,
    /// The Secret whose keys become variables of larder.
    EnvFrom,
    /// What of a CPU is set aside.
    CpuRequest,
    /// What of a CPU may be used.
    CpuLimit,
    /// What memory is set aside.
    MemoryRequest,
    /// What memory may be used.
    MemoryLimit,
    /// The size of the volume that keeps the registry over restarts.
    Disk,
    /// The ports that are to bypass a mesh's proxy.
    StorePorts,
    /// How much larder logs.
    LogLevel,
}

/// What the sidecar is like unless a pod asks for something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    values: [Option<String>; Key::ALL.len()],
}

/// One setting that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingError {
    /// The key, as it was written.
    pub key: String,
    /// What there is, and what is expected.
    pub message: String,
}

/// Everything that is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingErrors(pub Vec<SettingError>);

impl Key {
    /// All keys, in the order of the documentation.
    pub const ALL: [Self; 10] = [
        Self::Image,
        Self::Config,
        Self::EnvFrom,
        Self::CpuRequest,
        Self::CpuLimit,
        Self::MemoryRequest,
        Self::MemoryLimit,
        Self::Disk,
        Self::StorePorts,
        Self::LogLevel,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Config => "config",
            Self::EnvFrom => "env-from",
            Self::CpuRequest => "cpu-request",
            Self::CpuLimit => "cpu-limit",
            Self::MemoryRequest => "memory-request",
            Self::MemoryLimit => "memory-limit",
            Self::Disk => "disk",
            Self::StorePorts => "store-ports",
            Self::LogLevel => "log-level",
        }
    }

    /// The key of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.name() == name)
    }

    /// Whether it may be unset: an empty value unsets it.
    pub fn is_optional(self) -> bool {
        self.default_value().is_none()
    }

    /// Whether `value` can be taken. An empty one of an optional key can.
    pub fn accepts(self, value: &str) -> bool {
        if value.is_empty() {
            return self.is_optional();
        }
        match self {
            Self::Image => is_image(value),
            Self::Config | Self::EnvFrom => is_object_name(value),
            Self::CpuRequest
            | Self::CpuLimit
            | Self::MemoryRequest
            | Self::MemoryLimit
            | Self::Disk => is_amount(value),
            Self::StorePorts => value.split(',').all(|port| {
                (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit())
            }),
            Self::LogLevel => LOG_LEVELS.contains(&value),
        }
    }

    /// What a value must be, with an example.
    pub fn expected(self) -> &'static str {
        match self {
            Self::Image => "an image such as registry.example/larder:1.2.3",
            Self::Config => "the name of a ConfigMap, such as larder",
            Self::EnvFrom => "the name of a Secret, such as store-credentials",
            Self::CpuRequest | Self::CpuLimit => "an amount above 0, such as 100m or 2",
            Self::MemoryRequest | Self::MemoryLimit | Self::Disk => {
                "an amount above 0, such as 256Mi"
            }
            Self::StorePorts => "ports with commas between them, such as 6379,6380",
            Self::LogLevel => "one of off, error, warn, info, debug, trace",
        }
    }

    fn default_value(self) -> Option<&'static str> {
        match self {
            Self::Image => Some(names::DEFAULT_IMAGE),
            Self::Config => Some("larder"),
            Self::CpuRequest => Some("100m"),
            Self::MemoryRequest => Some("64Mi"),
            Self::MemoryLimit => Some("256Mi"),
            Self::EnvFrom | Self::CpuLimit | Self::Disk | Self::StorePorts | Self::LogLevel => None,
        }
    }
}

const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl Default for Settings {
    fn default() -> Self {
        Self { values: Key::ALL.map(|key| key.default_value().map(str::to_owned)) }
    }
}

impl Settings {
    /// The defaults, with `pairs` over them: of a key that comes twice the last counts. All errors
    /// are found.
    pub fn from_pairs<K: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, SettingErrors> {
        let mut settings = Self::default();
        let mut errors = Vec::new();
        for (name, value) in pairs {
            if let Err(error) = settings.set_named(name.as_ref(), value.as_ref()) {
                errors.push(error);
            }
        }
        if errors.is_empty() { Ok(settings) } else { Err(SettingErrors(errors)) }
    }

    /// Sets what has this name.
    pub fn set_named(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
        let error = |message| Err(SettingError { key: name.to_owned(), message });
        let Some(key) = Key::of(name) else {
            let known = Key::ALL.map(Key::name);
            return error(format!("there is no such setting{}", suggestion(name, &known)));
        };
        if self.set(key, value) {
            return Ok(());
        }
        error(format!("expected {}, got `{}`", key.expected(), shortened(value)))
    }

    /// What is set.
    pub fn get(&self, key: Key) -> Option<&str> {
        self.values[key as usize].as_deref()
    }

    /// Sets `key`, unless the value cannot be taken: then false.
    pub(super) fn set(&mut self, key: Key, value: &str) -> bool {
        if !key.accepts(value) {
            return false;
        }
        self.values[key as usize] = (!value.is_empty()).then(|| value.to_owned());
        true
    }

    /// What is set for a key that is not optional.
    pub(super) fn required(&self, key: Key) -> &str {
        self.get(key).expect("what is not optional has a default, and is never unset")
    }
}

fn is_image(text: &str) -> bool {
    let inside = |b: u8| b.is_ascii_alphanumeric() || b"._:/@-".contains(&b);
    text.len() <= 512
        && text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
        && text.bytes().all(inside)
}

/// A DNS subdomain: labels with dots between them, none of which begins or ends with a hyphen.
fn is_object_name(text: &str) -> bool {
    let edge = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_label = |label: &str| {
        label.as_bytes().first().is_some_and(edge)
            && label.as_bytes().last().is_some_and(edge)
            && label.bytes().all(|b| edge(&b) || b == b'-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

/// A quantity above 0, of a size that people write. To compare `1e30000000` with another takes the
/// API server seconds, so that there is a bound, which the policies have, too.
fn is_amount(text: &str) -> bool {
    const MAX_LEN: usize = 32;
    const MAX_EXPONENT_DIGITS: usize = 2;
    let exponent = text.split_once(['e', 'E']).map_or("", |(_, exponent)| exponent);
    let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    let digits = digits.bytes().take_while(u8::is_ascii_digit).count();
    text.len() <= MAX_LEN
        && digits <= MAX_EXPONENT_DIGITS
        && Quantity::parse(text).is_some_and(Quantity::is_positive)
}

/// The word of `known` that was probably meant, as `; did you mean ...?`, or else all of them.
pub(super) fn suggestion(word: &str, known: &[&str]) -> String {
    match closest(word, known) {
        Some(candidate) => format!("; did you mean `{candidate}`?"),
        None => format!("; there are {}", known.join(", ")),
    }
}

/// A value for a message: whoever wrote it decides how long it is.
pub(super) fn shortened(value: &str) -> String {
    const MAX_CHARS: usize = 80;
    let mut text: String = value.chars().take(MAX_CHARS).flat_map(char::escape_debug).collect();
    if value.chars().nth(MAX_CHARS).is_some() {
        text.push('…');
    }
    text
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", shortened(&self.key), self.message)
    }
}

impl fmt::Display for SettingErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, error) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for SettingError {}
impl std::error::Error for SettingErrors {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_as_documented() {
        let settings = Settings::default();
        let set: Vec<_> =
            Key::ALL.iter().filter_map(|key| Some((key.name(), settings.get(*key)?))).collect();
        assert_eq!(
            set,
            [
                ("image", concat!("larder:", env!("CARGO_PKG_VERSION"))),
                ("config", "larder"),
                ("cpu-request", "100m"),
                ("memory-request", "64Mi"),
                ("memory-limit", "256Mi"),
            ]
        );
    }

    #[test]
    fn keys_lie_where_they_are_looked_for() {
        for (place, key) in Key::ALL.into_iter().enumerate() {
            assert_eq!(key as usize, place);
            assert_eq!(Key::of(key.name()), Some(key));
        }
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let errors = Settings::from_pairs([
            ("memory-limt", "1Gi"),
            ("cpu-request", "0"),
            ("config", ""),
            ("weather", "fine"),
            ("disk", "1Gi"),
        ])
        .unwrap_err();
        let text = errors.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert_eq!(lines[0], "memory-limt: there is no such setting; did you mean `memory-limit`?");
        assert_eq!(lines[1], "cpu-request: expected an amount above 0, such as 100m or 2, got `0`");
        assert!(lines[2].starts_with("config: expected the name of a ConfigMap"), "{text}");
        assert!(lines[3].contains("there are image, config, env-from"), "{text}");
    }

    #[test]
    fn an_empty_value_unsets_what_is_optional() {
        let settings =
            Settings::from_pairs([("disk", "1Gi"), ("disk", ""), ("log-level", "debug")]).unwrap();
        assert_eq!(settings.get(Key::Disk), None);
        assert_eq!(settings.get(Key::LogLevel), Some("debug"));
    }

    #[test]
    fn values_are_held_to_their_kind() {
        let long = "a".repeat(254);
        for (key, good, bad) in [
            (
                Key::Image,
                &["x", "r.io:5000/a/b@sha256:0f", "A-1_b"][..],
                &["-x", "a b", "é", "a\n", "{{x}}"][..],
            ),
            (
                Key::Config,
                &["a", "a-b.c", "0", "a--b.0"],
                &["A", "-a", "a-", "a_b", &long, "a\n", "a..b", "a.-b", "a-.b", ".a", "a."],
            ),
            (Key::MemoryLimit, &["1Gi", "1e9", "0.5"], &["-1Gi", "0Mi", "1GiB", "", "x"]),
            (
                Key::MemoryRequest,
                &["1e09", "2E+10", "1E", "1Ei", "00000000000000000000000000000001"],
                &["1e100", "1E+030", "1e-100", "1e30000000", "000000000000000000000000000000001"],
            ),
            (Key::StorePorts, &["6379", "1,2,65535", ""], &["6379,", "a", "123456", "1, 2"]),
            (Key::LogLevel, &["off", "trace", ""], &["INFO", "verbose"]),
        ] {
            good.iter().for_each(|value| assert!(key.accepts(value), "{key:?} {value:?}"));
            bad.iter().for_each(|value| assert!(!key.accepts(value), "{key:?} {value:?}"));
        }
    }
}
