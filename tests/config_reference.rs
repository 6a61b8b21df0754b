//! `config/reference.yaml` and `config/larder.schema.json` say what the program does.

use std::{collections::BTreeSet, fs, path::Path};

use larder::config::{Config, Flag, Sources, Surroundings, json_schema};
use serde_json::Value;

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn load(config: Option<&str>, flags: Vec<Flag>) -> Config {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = Sources {
        chdir: Some("examples/quickstart".into()),
        config: config.map(|name| Path::new("config").join(name)),
        flags,
        ..Sources::default()
    };
    let surroundings =
        Surroundings { working_directory: root.into(), cores: 2, ..Surroundings::default() };
    Config::load(&sources, &surroundings).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn the_reference_has_every_key_at_its_default() {
    assert_eq!(
        format!("{:?}", load(Some("reference.yaml"), Vec::new())),
        format!("{:?}", load(None, Vec::new())),
    );
    let flag = Flag { name: "--set".into(), key: "store.timeout".into(), value: "1s".into() };
    assert_ne!(
        format!("{:?}", load(None, vec![flag])),
        format!("{:?}", load(None, Vec::new())),
        "a setting that differs shows",
    );
}

#[test]
fn the_reference_leaves_no_key_out() {
    let schema: Value = serde_json::from_str(&json_schema()).unwrap();
    let mut keys = BTreeSet::new();
    collect(&schema, &schema, &mut String::new(), &mut keys);
    assert!(keys.contains("store.breaker.window") && keys.len() > 40, "{keys:?}");
    let reference: Value = serde_saphyr::from_str(&file("reference.yaml")).unwrap();
    for key in keys {
        let pointer = format!("/{}", key.replace('.', "/"));
        assert!(reference.pointer(&pointer).is_some(), "config/reference.yaml lacks {key}");
    }
}

/// The paths of all keys that the schema describes, those of single views aside.
fn collect(schema: &Value, node: &Value, path: &mut String, keys: &mut BTreeSet<String>) {
    let node = match node["$ref"].as_str() {
        Some(reference) => &schema[&"$defs"][reference.rsplit('/').next().unwrap()],
        None => node,
    };
    for (name, property) in node["properties"].as_object().into_iter().flatten() {
        let length = path.len();
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(name);
        keys.insert(path.clone());
        collect(schema, property, path, keys);
        path.truncate(length);
    }
}

#[test]
fn the_schema_is_that_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/larder.schema.json");
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::write(&path, json_schema()).unwrap();
    }
    let stored = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(stored, json_schema(), "run the test with UPDATE_SCHEMA=1, and look at the change");
}
