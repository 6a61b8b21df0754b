//! The layouts against what Feast wrote: entity keys, values, and dumps of Redis, SQLite, Cassandra
//! and DynamoDB.

use std::collections::{BTreeMap, BTreeSet};

use larder::{
    layout::{
        cassandra::{CassandraView, CqlRow, partition_key},
        check_value,
        dynamodb::{Attribute, DynamoDbView, TableNameTemplate, Values, entity_id},
        redis::{RedisView, feature_field, hash_key},
        sqlite::{SqlRow, SqlValue, SqliteView},
    },
    model::{EntityKey, EventTimestamp, FeatureRow, FeatureView, KeyEncoding, MaybeRow},
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
        for (version, encoding) in [("v2", KeyEncoding::V2), ("v3", KeyEncoding::V3)] {
            if let Some(expected) = case.get(format!("entity_id_{version}")) {
                let key = entity_key(encoding, &case["entity_key"]).unwrap();
                assert_eq!(entity_id(&key), *expected, "{name} {version}");
            }
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

#[test]
fn cassandra_holds_every_expected_row() {
    let dump = json("feast/cassandra.json");
    let (mut rows, mut explained) = (0, 0);
    for (name, view) in expected_views() {
        let layout = CassandraView::new("feast_ks", &view);
        for row in expected_rows().iter().filter(|row| row.view == name) {
            let stored = cassandra_rows(&dump["cassandra"], "writes", &layout, &row.key);
            let read = read_cassandra(&layout, &stored).unwrap();
            assert_eq!(values(&view, &read), row.values, "{name} {:?}", row.key);
            assert_eq!(read.event_timestamp().seconds, row.seconds);
            (rows, explained) = (rows + 1, explained + stored.len());
        }
    }
    assert_eq!(rows, 17);
    assert_eq!(explained, dump["cassandra"]["writes"].as_array().unwrap().len());
}

/// What Feast's store for ScyllaDB wrote is a sample, and has more columns.
#[test]
fn scylladb_holds_rows_of_the_same_layout() {
    let dump = json("feast/cassandra.json");
    let mut explained = 0;
    for row in expected_rows() {
        let view = &expected_views()[&row.view];
        let layout = CassandraView::new("feast_ks", view);
        let stored = cassandra_rows(&dump["scylladb"], "sample_writes", &layout, &row.key);
        if stored.is_empty() {
            continue;
        }
        let read = read_cassandra(&layout, &stored).unwrap();
        for (feature, value) in values(view, &read) {
            assert_eq!(value, row.values[&feature], "{feature}");
        }
        assert_eq!(read.event_timestamp().seconds, row.seconds);
        explained += stored.len();
    }
    assert_eq!(explained, dump["scylladb"]["sample_writes"].as_array().unwrap().len());
}

/// The tables and the reads of Feast itself, and that versions share a table.
#[test]
fn statements_for_cassandra_are_feasts() {
    let dump = json("feast/cassandra.json");
    let texts = |list: &Value| -> BTreeSet<String> {
        list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let select = |view: &FeatureView| {
        let select = CassandraView::new("feast_ks", view).select();
        let (select, _) = select.split_once(" LIMIT ").unwrap();
        format!("{select};")
    };
    for prepared in [&dump["cassandra"]["prepared"], &dump["scylladb"]["prepared"]] {
        let mut reads = texts(prepared);
        reads.retain(|text| text.starts_with("SELECT"));
        expected_views().values().for_each(|view| _ = reads.remove(&select(view)));
        // What larder does not read: precomputed vectors of a service.
        let other: Vec<_> = reads.iter().collect();
        assert!(matches!(other[..], [one] if one.contains("__precomputed__")), "{other:?}");
    }
    let versioned = texts(&dump["versioning_enabled"]["prepared"]);
    for version in [None, Some(1), Some(2)] {
        assert!(versioned.contains(&select(&view("golden", "vview", version, ["a"]))));
    }
}

/// Feature, value, and time of each row that Feast wrote for an entity.
type CassandraRow = (String, Vec<u8>, i64);

fn cassandra_rows(
    dump: &Value,
    writes: &str,
    layout: &CassandraView,
    key: &EntityKey,
) -> Vec<CassandraRow> {
    let key = partition_key(key);
    let insert = format!("INSERT INTO {} ", layout.table());
    let mut rows = Vec::new();
    for write in dump[writes].as_array().unwrap() {
        let statement = &dump["insert_statements"][write["stmt"].as_u64().unwrap() as usize];
        let params = &write["params"];
        if statement.as_str().unwrap().starts_with(&insert) && params[2] == *key {
            let feature = params[0].as_str().unwrap().to_owned();
            let millis = params[3]["wire_ms"].as_i64().unwrap();
            rows.push((feature, hex(&params[1]["blob_hex"]), millis));
        }
    }
    rows
}

fn read_cassandra(layout: &CassandraView, rows: &[CassandraRow]) -> MaybeRow {
    let rows = rows.iter().map(|(feature_name, value, millis)| CqlRow {
        feature_name,
        value: Some(value),
        event_ts: Some(*millis),
    });
    layout.decode(rows).unwrap()
}

#[test]
fn ids_of_dynamodb_are_feasts_hashes() {
    let golden = json("feast/entity_keys.json");
    let hashes = golden["mmh3_128_x64"].as_object().unwrap();
    assert!(hashes.len() > 5, "{hashes:?}");
    for (text, hash) in hashes {
        assert_eq!(entity_id(&EntityKey(text.as_bytes().into())), *hash, "{text}");
    }
}

#[test]
fn dynamodb_holds_every_expected_row() {
    let dump = json("feast/dynamodb.json");
    let views = expected_views();
    let mut rows = 0;
    for row in expected_rows() {
        let view = &views[&row.view];
        let layout = dynamodb_view(view);
        let items = dump["tables"][&**layout.table()]["items"].as_array().unwrap();
        let id = entity_id(&row.key);
        let item = items.iter().find(|item| item["item"]["entity_id"]["S"] == *id).unwrap();
        let read = read_dynamodb(view, &item["item"]);
        assert_eq!(values(view, &read), row.values, "{} {:?}", row.view, row.key);
        assert_eq!(read.event_timestamp().seconds, row.seconds);
        rows += 1;
    }
    assert_eq!(rows, 17);
}

#[test]
fn dynamodb_holds_nothing_that_is_not_explained() {
    let dump = json("feast/dynamodb.json");
    assert_eq!(explain_dynamodb(&dump["tables"]), 17);
    assert_eq!(explain_dynamodb(&dump["versioned"]["tables"]), 3);
}

/// Reads every item of every table and accounts for its attributes. Returns how many there are.
fn explain_dynamodb(tables: &Value) -> usize {
    let mut explained = 0;
    for (table, content) in tables.as_object().unwrap() {
        let name = table.strip_prefix("golden.").unwrap();
        let (name, version) = match name.rsplit_once("_v") {
            Some((name, version)) => (name, Some(version.parse().unwrap())),
            None => (name, None),
        };
        for item in content["items"].as_array().unwrap() {
            let (entity, item) = (&item["entity"], &item["item"]);
            let stored = item["values"]["M"].as_object().unwrap();
            let view = view("golden", name, version, stored.keys().map(String::as_str));
            assert_eq!(**dynamodb_view(&view).table(), **table);
            let key = entity_key(KeyEncoding::V3, entity).unwrap();
            assert_eq!(entity_id(&key), item["entity_id"]["S"], "{table} {entity}");
            let row = read_dynamodb(&view, item);
            let expected = stored.iter().map(|(name, value)| (name.clone(), hex(&value["B_hex"])));
            assert_eq!(values(&view, &row), expected.collect(), "{table} {entity}");
            assert_eq!(item.as_object().unwrap().len(), 3);
            explained += 1;
        }
    }
    explained
}

#[test]
fn times_of_dynamodb_are_read_whatever_their_zone() {
    let dump = json("feast/dynamodb.json");
    let formats = dump["event_ts_formats"].as_object().unwrap();
    let expected = BTreeMap::from([
        ("utc, microseconds", "2024-01-02T03:04:05.678901Z"),
        ("utc, whole second", "2024-01-02T03:04:05Z"),
        ("utc, milliseconds", "2024-01-02T03:04:05.12Z"),
        ("naive", "2024-01-02T03:04:05Z"),
        ("fixed offset", "2024-01-02T08:04:05Z"),
        ("offset with minutes", "2024-01-01T21:34:05Z"),
        ("zoneinfo", "2024-07-01T16:00:00Z"),
        ("before epoch", "1969-12-31T23:59:58.5Z"),
        ("year 1", "0001-01-01T00:00:00Z"),
    ]);
    assert_eq!(formats.len(), expected.len());
    let view = view("golden", "v", None, []);
    for (name, text) in formats {
        let time: jiff::Timestamp = expected[name.as_str()].parse().unwrap();
        let row = read_dynamodb(&view, &serde_json::json!({ "event_ts": { "S": text } }));
        let EventTimestamp { seconds, nanos } = row.event_timestamp();
        let nanos = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        assert_eq!(nanos, time.as_nanosecond(), "{name}");
    }
}

fn dynamodb_view(view: &FeatureView) -> DynamoDbView {
    DynamoDbView::new(view, &TableNameTemplate::default())
}

fn read_dynamodb(view: &FeatureView, item: &Value) -> FeatureRow {
    let features = item["values"]["M"].as_object();
    let stored: BTreeMap<_, _> = features
        .iter()
        .flat_map(|features| features.iter())
        .map(|(name, value)| (name.as_str(), hex(&value["B_hex"])))
        .collect();
    let get = |name: &str| stored.get(name).map(|bytes| Attribute::Bytes(bytes));
    let values = if features.is_some() { Values::Map(get) } else { Values::Missing };
    let event_ts = Attribute::Text(item["event_ts"]["S"].as_str().unwrap());
    dynamodb_view(view).decode(Some(event_ts), values).unwrap()
}
