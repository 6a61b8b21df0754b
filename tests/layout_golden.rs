//! The layouts against what Feast wrote: entity keys, values, and dumps of Redis and SQLite.

use std::collections::{BTreeMap, BTreeSet};

use larder::{
    layout::{
        check_value,
        redis::{RedisView, feature_field, hash_key},
        sqlite::{SqlRow, SqlValue, SqliteView},
    },
    model::{EntityKey, EventTimestamp, FeatureView, KeyEncoding, MaybeRow},
};
use serde_json::Value;

use self::golden::{entity_key, expected_rows, expected_views, hex, json, values, view};

#[path = "store_contract/golden.rs"]
#[allow(dead_code, reason = "shared with the stores' tests, which need more of it")]
mod golden;

#[test]
fn entity_keys_are_feasts_in_every_version() {
    let golden = json("feast/entity_keys.json");
    let cases = golden["cases"].as_object().unwrap();
    assert_eq!(cases.len(), 20);
    let versions = [("v1", KeyEncoding::V1), ("v2", KeyEncoding::V2), ("v3", KeyEncoding::V3)];
    for (name, case) in cases {
        for (version, encoding) in versions {
            let key = entity_key(encoding, &case["entity_key"]);
            let expected = case.get(version).map(|key| EntityKey(hex(key).into()));
            assert_eq!(key, expected, "{name} {version}");
        }
        if let Some(expected) = case.get("redis_key") {
            let key = entity_key(KeyEncoding::V3, &case["entity_key"]).unwrap();
            assert_eq!(hash_key(&key, "golden"), hex(expected), "{name}");
        }
    }
}

#[test]
fn fields_of_redis_are_feasts_hashes() {
    let golden = json("feast/entity_keys.json");
    let hashes = golden["mmh3_32"].as_object().unwrap();
    assert_eq!(hashes.len(), 12);
    for (name, hash) in hashes {
        assert_eq!(feature_field(name).to_vec(), hex(hash), "{name}");
    }
}

#[test]
fn all_kinds_of_values_are_values_and_their_beginnings_are_not() {
    let golden = json("feast/values.json");
    let kinds = golden["oneof_field_numbers"].as_object().unwrap();
    let mut seen = BTreeSet::new();
    for list in ["cases", "writer_conversions"] {
        for case in golden[list].as_array().unwrap() {
            let value = hex(&case["hex"]);
            assert_eq!(check_value(&value), Ok(()), "{case}");
            for cut in 1..value.len() {
                assert!(check_value(&value[..cut]).is_err(), "{case} cut at {cut}");
            }
            seen.extend(case["kind"].as_str().map(str::to_owned));
        }
    }
    assert_eq!(seen, kinds.keys().cloned().collect());
}

#[test]
fn redis_holds_every_expected_row() {
    let dump = json("feast/redis.json");
    let hashes = dump["main"].as_array().unwrap();
    let views = expected_views();
    for row in expected_rows() {
        let key = hash_key(&row.key, "golden");
        let hash = hashes.iter().find(|hash| hex(&hash["key_hex"]) == key).unwrap();
        let view = &views[&row.view];
        let read = read_redis(view, &raw_fields(hash)).unwrap();
        assert_eq!(values(view, &read), row.values, "{} {:?}", row.view, row.key);
        assert_eq!(read.event_timestamp().seconds, row.seconds);
    }
}

#[test]
fn redis_holds_nothing_that_is_not_explained() {
    let dump = json("feast/redis.json");
    let plain = |name: &str| (name.to_owned(), None);
    let versioned = |name: &str| match name.rsplit_once("_v") {
        Some((name, version)) => (name.to_owned(), Some(version.parse().unwrap())),
        None => (name.to_owned(), None),
    };
    assert_eq!(explain_redis(&dump["main"], KeyEncoding::V3, plain), 11);
    assert_eq!(explain_redis(&dump["versioned"]["keys"], KeyEncoding::V3, versioned), 1);
    assert_eq!(explain_redis(&dump["key_ttl_seconds_86400"], KeyEncoding::V3, plain), 1);
    assert_eq!(explain_redis(&dump["legacy_key_versions"]["v2"], KeyEncoding::V2, plain), 8);
    assert_eq!(explain_redis(&dump["legacy_key_versions"]["v1"], KeyEncoding::V1, plain), 8);
}

/// Reads all views of all hashes and accounts for every field. Returns how many hashes there are.
fn explain_redis(
    hashes: &Value,
    encoding: KeyEncoding,
    view_of: fn(&str) -> (String, Option<u32>),
) -> usize {
    let hashes = hashes.as_array().unwrap();
    let mut features: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (view, feature, _) in hashes.iter().flat_map(labelled_fields) {
        features.entry(view).or_default().extend(feature);
    }
    for hash in hashes {
        let key = entity_key(encoding, &hash["entity"]).unwrap();
        assert_eq!(hash_key(&key, "golden"), hex(&hash["key_hex"]));
        let mut explained = 0;
        for (physical, features) in &features {
            let (name, version) = view_of(physical);
            let view = view("golden", &name, version, features.iter().copied());
            let of_view: Vec<_> =
                labelled_fields(hash).filter(|(view, ..)| view == physical).collect();
            let Some(row) = read_redis(&view, &raw_fields(hash)) else {
                assert!(of_view.is_empty(), "{physical}");
                continue;
            };
            let expected = of_view.iter().filter_map(|(_, feature, stored)| {
                Some(((*feature)?.to_owned(), hex(&stored["value_hex"])))
            });
            assert_eq!(values(&view, &row), expected.collect(), "{physical}");
            let time = of_view.iter().find(|(_, feature, _)| feature.is_none());
            let time = &time.unwrap().2["timestamp"];
            let seconds = time["seconds"].as_i64().unwrap();
            let nanos = time["nanos"].as_i64().unwrap().try_into().unwrap();
            assert_eq!(row.event_timestamp(), EventTimestamp { seconds, nanos }, "{physical}");
            explained += of_view.len();
        }
        assert_eq!(explained, hash["fields"].as_array().unwrap().len());
    }
    hashes.len()
}

/// (view, feature, field), as Feast calls them; no feature for the timestamp.
fn labelled_fields(hash: &Value) -> impl Iterator<Item = (&str, Option<&str>, &Value)> {
    hash["fields"].as_array().unwrap().iter().map(|field| {
        let label = field["field"].as_str().unwrap();
        match label.strip_prefix("_ts:") {
            Some(view) => (view, None, field),
            None => {
                let (view, feature) = label.split_once(':').unwrap();
                (view, Some(feature), field)
            }
        }
    })
}

fn raw_fields(hash: &Value) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let fields = hash["fields"].as_array().unwrap().iter();
    fields.map(|field| (hex(&field["field_hex"]), hex(&field["value_hex"]))).collect()
}

fn read_redis(view: &FeatureView, fields: &BTreeMap<Vec<u8>, Vec<u8>>) -> MaybeRow {
    let layout = RedisView::new(view);
    let reply: Vec<_> = layout.fields().map(|field| fields.get(field).map(Vec::as_slice)).collect();
    assert_eq!(reply.len(), layout.field_count());
    layout.decode(&reply).unwrap()
}

#[test]
fn sqlite_holds_every_expected_row() {
    let dump = json("feast/sqlite.json");
    let mut rows = 0;
    for (name, view) in expected_views() {
        let table = &dump["tables"][format!("golden_{name}")];
        let expected: Vec<_> = expected_rows().into_iter().filter(|row| row.view == name).collect();
        let keys: Vec<_> = expected.iter().map(|row| row.key.clone()).collect();
        for (read, row) in read_sqlite(&view, table, &keys).into_iter().zip(expected) {
            let read = read.unwrap();
            assert_eq!(values(&view, &read), row.values, "{name} {:?}", row.key);
            assert_eq!(read.event_timestamp().seconds, row.seconds);
            rows += 1;
        }
    }
    assert_eq!(rows, 17);
}

#[test]
fn tables_of_versions_and_of_other_schemas_are_read_alike() {
    let versioned = json("feast/versioned_sqlite.json");
    let variants = json("feast/sqlite.json")["variants"].clone();
    let both: &[&str] = &["a", "b"];
    let docs: &[&str] = &["embedding", "n", "ok", "title"];
    check_table(&versioned["enabled"], "vview", None, &["a"]);
    check_table(&versioned["enabled"], "vview", Some(1), both);
    check_table(&versioned["enabled"], "vview", Some(2), both);
    check_table(&versioned["disabled"], "vview", None, both);
    check_table(
        &serde_json::json!({ "tables": variants["openai_compatible"] }),
        "docs",
        None,
        docs,
    );
    check_table(&serde_json::json!({ "tables": variants["vector_enabled"] }), "docs", None, docs);
}

/// The first entity of a table has exactly these features.
fn check_table(database: &Value, name: &str, version: Option<u32>, features: &[&str]) {
    let view = view("golden", name, version, features.iter().copied());
    let name = format!("golden_{}", view.versioned_name());
    let table = &database["tables"][&name];
    let sql = SqliteView::new(&view).select(1);
    assert!(sql.contains(&format!(" FROM \"{name}\" ")), "{sql}");
    let rows = table["rows"].as_array().unwrap();
    let key = entity_key(KeyEncoding::V3, &rows[0]["entity"]).unwrap();
    let row = read_sqlite(&view, table, &[key]).remove(0).unwrap();
    let expected: BTreeMap<_, _> = rows
        .iter()
        .map(|row| (row["feature_name"].as_str().unwrap().to_owned(), hex(&row["value_hex"])))
        .collect();
    assert_eq!(expected.keys().collect::<Vec<_>>(), features, "{name}");
    assert_eq!(values(&view, &row), expected, "{name}");
    assert_eq!(row.event_timestamp().seconds, rows[0]["event_ts"].as_i64().unwrap());
}

fn read_sqlite(view: &FeatureView, table: &Value, keys: &[EntityKey]) -> Vec<MaybeRow> {
    let layout = SqliteView::new(view);
    let mut rows = layout.collect(keys);
    for row in table["rows"].as_array().unwrap() {
        assert_eq!(row["types"]["event_ts"], "integer");
        rows.add(SqlRow {
            entity_key: SqlValue::Blob(&hex(&row["entity_key_hex"])),
            feature_name: SqlValue::Text(row["feature_name"].as_str().unwrap().as_bytes()),
            value: SqlValue::Blob(&hex(&row["value_hex"])),
            event_ts: SqlValue::Integer(row["event_ts"].as_i64().unwrap()),
        });
    }
    rows.finish().map(Result::unwrap).collect()
}
