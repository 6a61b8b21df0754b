//! What Feast wrote, as it says itself: rows, keys and dumps of `tests/golden`.

use std::{collections::BTreeMap, path::PathBuf};

use base64::{Engine, prelude::BASE64_STANDARD};
use larder::model::{
    Cell, EntityKey, Feature, FeatureRow, FeatureView, JoinValue, KeyEncoding, ValueType, ViewId,
    ViewKind, encode_entity_key,
};
use serde_json::Value;

/// One row of one view.
pub(crate) struct GoldenRow {
    pub(crate) view: String,
    pub(crate) key: EntityKey,
    pub(crate) seconds: i64,
    /// By feature; empty for a null.
    pub(crate) values: BTreeMap<String, Vec<u8>>,
}

pub(crate) fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

pub(crate) fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(path(name)).unwrap()).unwrap()
}

pub(crate) fn hex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

/// A view of these features. Types and join keys do not matter to stores.
pub(crate) fn view<'a>(
    project: &str,
    name: &str,
    version: Option<u32>,
    features: impl IntoIterator<Item = &'a str>,
) -> FeatureView {
    let feature = |name: &str| Feature { name: name.into(), value_type: ValueType::UNKNOWN };
    let features: Box<[_]> = features.into_iter().map(feature).collect();
    FeatureView {
        id: ViewId::of(project, name, version, &features, &[]),
        project: project.into(),
        name: name.into(),
        version,
        kind: ViewKind::Batch,
        features,
        join_keys: Box::default(),
        max_age: None,
    }
}

/// All rows that Feast wrote to every store.
pub(crate) fn expected_rows() -> Vec<GoldenRow> {
    let row = |row: &Value| GoldenRow {
        view: row["feature_view"].as_str().unwrap().into(),
        key: EntityKey(hex(&row["entity_key_v3_hex"]).into()),
        seconds: row["event_ts_seconds"].as_i64().unwrap(),
        values: entries(&row["features"]).map(|(name, value)| (name, hex(&value["hex"]))).collect(),
    };
    json("feast/expected.json")["rows"].as_array().unwrap().iter().map(row).collect()
}

/// The views of those, by name.
pub(crate) fn expected_views() -> BTreeMap<String, FeatureView> {
    let mut features: BTreeMap<String, BTreeMap<String, ()>> = BTreeMap::new();
    for row in expected_rows() {
        let names = row.values.into_keys().map(|name| (name, ()));
        features.entry(row.view).or_default().extend(names);
    }
    let view = |(name, features): (String, BTreeMap<String, ()>)| {
        let view = view("golden", &name, None, features.keys().map(String::as_str));
        (name, view)
    };
    features.into_iter().map(view).collect()
}

/// The key of an entity as the dumps have it; none if there is no such key.
pub(crate) fn entity_key(encoding: KeyEncoding, entity: &Value) -> Option<EntityKey> {
    let names = entity["join_keys"].as_array().unwrap().iter().map(|name| name.as_str().unwrap());
    let values = entity["entity_values"].as_array().unwrap().iter();
    let mut pairs: Vec<_> = names
        .zip(values)
        .map(|(name, value)| Some((name, join_value(value)?)))
        .collect::<Option<_>>()?;
    pairs.sort_by_key(|(name, _)| *name);
    let mut key = Vec::new();
    let pairs = pairs.iter().map(|(name, value)| (*name, value));
    encode_entity_key(encoding, pairs, &mut key).then(|| EntityKey(key.into()))
}

/// The values of a row by feature, without those that were never written.
pub(crate) fn values(view: &FeatureView, row: &FeatureRow) -> BTreeMap<String, Vec<u8>> {
    let value = |(index, feature): (usize, &Feature)| match row.cell(index) {
        Cell::Absent => None,
        Cell::Null => Some((feature.name.to_string(), Vec::new())),
        Cell::Value(value) => Some((feature.name.to_string(), value.to_vec())),
    };
    view.features.iter().enumerate().filter_map(value).collect()
}

fn join_value(value: &Value) -> Option<JoinValue<'static>> {
    let (kind, value) = entries(value).next()?;
    let number = || match value {
        Value::String(text) => text.parse::<i64>().unwrap(),
        number => number.as_i64().unwrap(),
    };
    let text = || value.as_str().unwrap().to_owned();
    Some(match kind.as_str() {
        "int64_val" => JoinValue::Int64(number()),
        "int32_val" => JoinValue::Int32(number().try_into().unwrap()),
        "unix_timestamp_val" => JoinValue::UnixTimestamp(number()),
        "string_val" => JoinValue::String(text().into()),
        "bytes_val" => JoinValue::Bytes(BASE64_STANDARD.decode(text()).unwrap().into()),
        _ => return None,
    })
}

fn entries(object: &Value) -> impl Iterator<Item = (String, &Value)> {
    object.as_object().unwrap().iter().map(|(name, value)| (name.clone(), value))
}
