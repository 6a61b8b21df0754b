//! The JSON body of a request for online features. Pure.
//!
//! Names and keys are borrowed from the body where JSON's escapes allow. A body that does not fit
//! is read a second time, to say what is wrong in the words of Feast's server (FastAPI's).

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::proxy::{Column, KeyValue, Select};

use super::invalid::{Invalid, explain};

/// What a request asks.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Body<'a> {
    /// The entity columns, in the order of the body.
    pub(super) columns: Vec<Column<'a>>,
    /// References to features.
    pub(super) features: Vec<Cow<'a, str>>,
    /// The feature service; it wins over [`features`](Self::features).
    pub(super) service: Option<Cow<'a, str>>,
    /// Whether features are called `view__feature`.
    pub(super) full_names: bool,
    /// Whether the answer says which version of each view it comes from.
    pub(super) view_metadata: bool,
}

impl<'a> Body<'a> {
    /// Reads a body. Members that are not known are ignored; of repeated ones the last counts.
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, Invalid> {
        let members: Option<Members<'a>> = serde_json::from_slice(body).ok();
        match members {
            Some(Members { body, has_entities: true }) => Ok(body),
            _ => Err(explain(body)),
        }
    }

    /// What is selected.
    pub(super) fn select(&mut self) -> Select<'a> {
        match self.service.take() {
            Some(service) if !service.is_empty() => Select::Service(service),
            _ => Select::Features(std::mem::take(&mut self.features)),
        }
    }
}

/// The words, in any case, that stand for a truth value.
pub(super) fn flag_of(word: &str) -> Option<bool> {
    const WORDS: [(&str, bool); 12] = [
        ("true", true),
        ("false", false),
        ("1", true),
        ("0", false),
        ("yes", true),
        ("no", false),
        ("on", true),
        ("off", false),
        ("y", true),
        ("n", false),
        ("t", true),
        ("f", false),
    ];
    WORDS.iter().find(|(known, _)| word.eq_ignore_ascii_case(known)).map(|(_, truth)| *truth)
}

/// A body, and whether it has the member that it must have.
#[derive(Default)]
struct Members<'a> {
    body: Body<'a>,
    has_entities: bool,
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Expected;
        impl<'de> Visitor<'de> for Expected {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Members::default();
                let body = &mut members.body;
                while let Some(Text(name)) = map.next_key()? {
                    match &*name {
                        "entities" => {
                            body.columns = map.next_value::<Columns<'de>>()?.0;
                            members.has_entities = true;
                        }
                        "features" => {
                            let features: Vec<Text<'de>> = map.next_value()?;
                            body.features = features.into_iter().map(|Text(text)| text).collect();
                        }
                        "feature_service" => {
                            let service: Option<Text<'de>> = map.next_value()?;
                            body.service = service.map(|Text(text)| text);
                        }
                        "full_feature_names" => body.full_names = map.next_value::<Flag>()?.0,
                        "include_feature_view_version_metadata" => {
                            body.view_metadata = map.next_value::<Flag>()?.0;
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Expected)
    }
}

/// Text that is borrowed where it has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Expected;
        impl<'de> Visitor<'de> for Expected {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Expected)
    }
}

/// The entity columns. One that is there twice has the place of the first and the values of the
/// last, as in a Python `dict`.
struct Columns<'a>(Vec<Column<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Columns<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Expected;
        impl<'de> Visitor<'de> for Expected {
            type Value = Columns<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of lists")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut columns: Vec<Column<'de>> = Vec::new();
                while let Some(Text(name)) = map.next_key()? {
                    let rows = columns.first().map_or(0, |first| first.values.len());
                    let values = map.next_value_seed(Keys { rows })?;
                    match columns.iter_mut().find(|column| column.name == name) {
                        Some(column) => column.values = values,
                        None => columns.push(Column { name, values }),
                    }
                }
                Ok(Columns(columns))
            }
        }
        deserializer.deserialize_map(Expected)
    }
}

/// The values of a column, of which there are probably as many as `rows`.
struct Keys {
    rows: usize,
}

impl<'de> DeserializeSeed<'de> for Keys {
    type Value = Vec<KeyValue<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Keys {
    type Value = Vec<KeyValue<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::with_capacity(self.rows);
        while let Some(Key(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(values)
    }
}

/// One value of a column.
struct Key<'a>(KeyValue<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KeyVisitor).map(Key)
    }
}

struct KeyVisitor;

/// The first that does not fit in 64 bits.
const TOO_LARGE: f64 = 9_223_372_036_854_775_808.0;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = KeyValue<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(KeyValue::Null)
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Self::Value, E> {
        Ok(KeyValue::Bool(truth))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(KeyValue::Int64(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(number)
            .map_or(KeyValue::Other("an integer beyond 64 bits"), KeyValue::Int64))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        // An integer of that size comes here too, rounded: as a key it would name another entity.
        let fits = number.abs() < TOO_LARGE;
        Ok(if fits { KeyValue::Float(number) } else { KeyValue::Other("a number beyond 64 bits") })
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(KeyValue::String(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(KeyValue::String(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(KeyValue::Other("a list"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(KeyValue::Other("an object"))
    }
}

/// A truth value, or one of the words and numbers that Feast's server takes for one.
struct Flag(bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Expected;
        impl Visitor<'_> for Expected {
            type Value = Flag;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a boolean")
            }

            fn visit_bool<E: Error>(self, truth: bool) -> Result<Flag, E> {
                Ok(Flag(truth))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Flag, E> {
                match number {
                    0 | 1 => Ok(Flag(number == 1)),
                    _ => Err(E::custom("not a boolean")),
                }
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Flag, E> {
                flag_of(word).map(Flag).ok_or_else(|| E::custom("not a boolean"))
            }
        }
        deserializer.deserialize_any(Expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Body<'_> {
        Body::parse(text.as_bytes()).unwrap()
    }

    fn keys(text: &str) -> Vec<KeyValue<'_>> {
        let mut body = parse(text);
        assert_eq!(body.columns.len(), 1);
        body.columns.remove(0).values
    }

    #[test]
    fn a_request_is_read_and_borrowed_from_its_body() {
        let body = parse(
            r#"{"features": ["v:a", "v\u003ab"], "entities": {"b": [1], "a": ["x"]},
                "full_feature_names": true, "include_feature_view_version_metadata": "On",
                "bogus": {"entities": 1}}"#,
        );
        assert_eq!(body.features, ["v:a", "v:b"]);
        assert!(matches!(body.features[0], Cow::Borrowed(_)));
        assert!(body.full_names && body.view_metadata);
        let names: Vec<_> = body.columns.iter().map(|column| &*column.name).collect();
        assert_eq!(names, ["b", "a"]);
    }

    #[test]
    fn keys_keep_the_type_that_json_gives_them() {
        use KeyValue::*;
        let values = keys(
            r#"{"entities": {"k": [null, true, -7, 9223372036854775807, 9223372036854775808,
                18446744073709551616, 1.5, 1e30, "a\u0000b", [1, [2]], {"x": 1}]}}"#,
        );
        assert_eq!(
            values,
            [
                Null,
                Bool(true),
                Int64(-7),
                Int64(i64::MAX),
                Other("an integer beyond 64 bits"),
                Other("a number beyond 64 bits"),
                Float(1.5),
                Other("a number beyond 64 bits"),
                String("a\0b".into()),
                Other("a list"),
                Other("an object"),
            ]
        );
    }

    #[test]
    fn of_repeated_members_the_last_counts_as_in_python() {
        let body = parse(r#"{"entities": {"x": [1]}, "entities": {"a": [1], "b": [2], "a": [3]}}"#);
        let column = |name: &'static str, value| Column {
            name: name.into(),
            values: vec![KeyValue::Int64(value)],
        };
        assert_eq!(body.columns, [column("a", 3), column("b", 2)]);
    }

    #[test]
    fn a_service_wins_unless_it_is_empty() {
        let select = |text| parse(text).select();
        let both = r#"{"entities": {}, "features": ["v:a"], "feature_service": "s"}"#;
        assert_eq!(select(both), Select::Service("s".into()));
        for service in ["\"\"", "null"] {
            let text = format!(
                r#"{{"entities": {{}}, "features": ["v:a"], "feature_service": {service}}}"#
            );
            let mut body = parse(&text);
            assert_eq!(body.select(), Select::Features(vec!["v:a".into()]));
        }
    }

    #[test]
    fn a_body_that_is_a_list_is_no_request() {
        assert!(Body::parse(br#"[{"a": [1]}, ["v:a"]]"#).is_err());
    }
}
