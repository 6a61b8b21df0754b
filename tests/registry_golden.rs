//! Registries that Feast wrote are read as Feast reads them.

use std::{collections::BTreeMap, fs, sync::Arc};

use larder::{
    model::{Feature, FeatureView, KeyEncoding, ValueType, ViewKind},
    pb::{core, types::value_type},
    registry::{DecodeOptions, Registry, Unservable, View, decode},
};
use prost::Message;
use serde_json::Value as Json;

fn options(project: &str) -> DecodeOptions {
    DecodeOptions {
        project: project.into(),
        key_encoding: KeyEncoding::V3,
        versioning: false,
        versioned_store: true,
        routing: None,
    }
}

fn load(path: &str, options: &DecodeOptions) -> Registry {
    decode(&fs::read(path).unwrap(), options).unwrap()
}

fn golden() -> Registry {
    load("tests/golden/feast/registry.db", &options("golden"))
}

fn json(path: &str) -> Json {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn list(json: &Json) -> &[Json] {
    json.as_array().map_or(&[], Vec::as_slice)
}

fn text(json: &Json) -> &str {
    json.as_str().unwrap_or_default()
}

fn value_type(json: &Json) -> ValueType {
    let number = match json {
        Json::Null => 0,
        Json::Number(number) => i32::try_from(number.as_i64().unwrap()).unwrap(),
        name => value_type::Enum::from_str_name(text(name)).unwrap() as i32,
    };
    ValueType(number)
}

fn stored<'a>(registry: &'a Registry, name: &str) -> &'a Arc<FeatureView> {
    match registry.views.get(name) {
        Some(View::Stored(stored)) => &stored.view,
        other => panic!("{name}: {other:?}"),
    }
}

fn unservable<'a>(registry: &'a Registry, name: &str) -> &'a Unservable {
    match registry.views.get(name) {
        Some(View::Unservable { why, .. }) => why,
        other => panic!("{name}: {other:?}"),
    }
}

fn names<V>(map: &BTreeMap<Arc<str>, V>) -> Vec<&str> {
    map.keys().map(|name| &**name).collect()
}

#[test]
fn views_have_feasts_features_join_keys_and_limits() {
    let (registry, golden) = (golden(), json("tests/golden/feast/registry.json"));
    let kinds = [("feature_views", ViewKind::Batch), ("label_views", ViewKind::Label)];
    let mut seen = vec!["driver_plus".to_owned()];
    for (kind, view) in
        kinds.iter().flat_map(|(name, kind)| list(&golden[name]).iter().map(move |v| (kind, v)))
    {
        let spec = &view["spec"];
        let name = text(&spec["name"]);
        let view = stored(&registry, name);
        assert_eq!((view.kind, &*view.project, &*view.name), (*kind, "golden", name));

        let features = list(&spec["features"]).iter().map(|feature| Feature {
            name: text(&feature["name"]).into(),
            value_type: value_type(&feature["value_type"]),
        });
        assert_eq!(view.features.to_vec(), features.collect::<Vec<_>>(), "{name}");

        let columns = list(&spec["entity_columns"]).iter();
        let mut join_keys: Vec<_> = columns
            .map(|column| (text(&column["name"]), value_type(&column["value_type"])))
            .filter(|(name, _)| *name != "__dummy_id")
            .collect();
        join_keys.sort_by_key(|(name, _)| *name);
        let ours = view.join_keys.iter().map(|key| (&*key.name, key.value_type));
        assert_eq!(ours.collect::<Vec<_>>(), join_keys, "{name}");

        let seconds = text(&spec["ttl"]).trim_end_matches('s').parse().unwrap_or(0);
        assert_eq!(view.max_age.map_or(0, |age| age.as_secs()), seconds, "{name}");
        seen.push(name.to_owned());
    }
    seen.sort();
    assert_eq!(names(&registry.views), seen);
    assert!(matches!(registry.views["driver_plus"], View::Computed { .. }));
    assert_eq!(registry.warnings, [""; 0]);
}

#[test]
fn join_keys_come_in_the_order_of_their_names() {
    let registry = golden();
    let pair: Vec<_> =
        stored(&registry, "pair_stats").join_keys.iter().map(|key| &*key.name).collect();
    assert_eq!(pair, ["alpha_id", "zulu_code"]);
    assert!(stored(&registry, "global_stats").join_keys.is_empty());
}

#[test]
fn entities_are_all_but_the_dummy() {
    let (registry, golden) = (golden(), json("tests/golden/feast/registry.json"));
    let mut expected = BTreeMap::new();
    for entity in list(&golden["entities"]) {
        let spec = &entity["spec"];
        if text(&spec["name"]) != "__dummy" {
            let what = (text(&spec["join_key"]), value_type(&spec["value_type"]));
            expected.insert(text(&spec["name"]), what);
        }
    }
    let ours = registry.entities.iter();
    let ours = ours.map(|(name, entity)| (&**name, (&*entity.join_key, entity.value_type)));
    assert_eq!(ours.collect::<BTreeMap<_, _>>(), expected);
    assert_eq!(registry.join_keys.len(), 4);
}

#[test]
fn services_have_feasts_projections_in_order() {
    let (registry, golden) = (golden(), json("tests/golden/feast/registry.json"));
    assert_eq!(names(&registry.services), ["svc_alias", "svc_all", "svc_pre"]);
    for service in list(&golden["feature_services"]) {
        let ours = &registry.services[text(&service["spec"]["name"])].projections;
        let theirs = list(&service["spec"]["features"]);
        assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(theirs) {
            assert_eq!(&*ours.view, text(&theirs["feature_view_name"]));
            assert_eq!(ours.alias.as_deref(), theirs["feature_view_name_alias"].as_str());
            let features: Vec<_> =
                list(&theirs["feature_columns"]).iter().map(|it| text(&it["name"])).collect();
            assert_eq!(ours.features.iter().map(|name| &**name).collect::<Vec<_>>(), features);
            let keys: BTreeMap<Arc<str>, Arc<str>> =
                serde_json::from_value(theirs["join_key_map"].clone()).unwrap_or_default();
            assert_eq!(ours.join_key_map, keys);
            assert_eq!(ours.version, None);
        }
    }
}

#[test]
fn the_state_of_the_registry_is_known_by_feasts_id_and_time() {
    let (registry, golden) = (golden(), json("tests/golden/feast/registry.json"));
    assert_eq!(&*registry.version_id, text(&golden["version_id"]));
    let updated: jiff::Timestamp = text(&golden["last_updated"]).parse().unwrap();
    assert_eq!(registry.last_updated_unix, Some(updated.as_second()));
}

#[test]
fn a_registry_with_many_kinds_of_view_is_served_where_feast_serves_it() {
    let registry = load("tests/golden/http/fixture/registry.db", &options("repo1"));
    assert_eq!(*unservable(&registry, "disabled_fv"), Unservable::Disabled);
    for computed in ["odfv_python", "odfv_pandas", "transformed_conv_rate"] {
        assert!(matches!(registry.views[computed], View::Computed { .. }), "{computed}");
    }
    assert_eq!(stored(&registry, "odfv_on_write").kind, ViewKind::OnDemand);
    stored(&registry, "offline_fv");
    assert!(stored(&registry, "global_fv").join_keys.is_empty());
    assert_eq!(stored(&registry, "short_ttl").max_age.unwrap().as_secs(), 1);
    assert_eq!(registry.warnings, [""; 0]);

    let key = |view: &str| {
        let keys = &stored(&registry, view).join_keys;
        keys.iter().map(|key| (key.name.to_string(), key.value_type)).collect::<Vec<_>>()
    };
    let two = [("item_id".into(), ValueType::INT64), ("user_id".into(), ValueType::STRING)];
    assert_eq!(key("two_keys"), two);
    // Feast answers a request for 1001 with the key "1001": its labels have keys of text.
    let labels = json("tests/golden/http/66_label_view.json");
    assert_eq!(labels["response_json"]["results"][0]["values"][0], "1001");
    assert_eq!(key("driver_quality_labels"), [("driver_id".into(), ValueType::STRING)]);
}

#[test]
fn a_service_may_take_one_view_under_two_names() {
    let registry = load("tests/golden/http/fixture/registry.db", &options("repo1"));
    let [origin, dest] = &*registry.services["fs_alias"].projections else { panic!() };
    assert_eq!((&*origin.view, origin.alias.as_deref()), ("loc_stats", Some("origin")));
    assert_eq!((&*dest.view, dest.alias.as_deref()), ("loc_stats", Some("dest")));
    assert_eq!(&*dest.join_key_map["location_id"], "dest_id");
    assert_eq!((origin.features.len(), dest.features.len()), (2, 1));
}

#[test]
fn a_registry_of_another_store_has_the_same_views() {
    let sqlite = load("tests/golden/http/fixture/registry.db", &options("repo1"));
    let redis = load("tests/golden/http/fixture/registry_redis.db", &options("repo1"));
    assert_eq!(names(&sqlite.views), names(&redis.views));
    let view = |registry| stored(registry, "all_types").clone();
    assert_eq!(view(&sqlite), view(&redis));
}

#[test]
fn the_first_version_of_each_view_is_in_the_history_that_feast_keeps() {
    let options = DecodeOptions { versioning: true, ..options("golden") };
    let registry = load("tests/golden/feast/registry.db", &options);
    assert_eq!(registry.versions.len(), 9);
    let first = &registry.versions[&("driver_stats".into(), 0)];
    let View::Stored(first) = first else { panic!("{first:?}") };
    assert_eq!(first.view, *stored(&registry, "driver_stats"));
}

/// The view of `make_golden.py` that has three versions, with the history that Feast reported.
fn three_versions(golden: &Json) -> core::Registry {
    let column = |(name, value_type): &(&str, ValueType)| core::FeatureSpecV2 {
        name: (*name).to_owned(),
        value_type: value_type.0,
    };
    let view = |features: &[(&str, ValueType)]| core::FeatureView {
        spec: Some(core::FeatureViewSpec {
            name: "vview".to_owned(),
            project: "golden".to_owned(),
            features: features.iter().map(column).collect(),
            ..Default::default()
        }),
        meta: Some(core::FeatureViewMeta {
            current_version_number: number(&golden["active_meta_current_version_number"]),
            ..Default::default()
        }),
    };
    let a = ("a", ValueType::INT64);
    let schemas = [
        view(&[a]),
        view(&[a, ("b", ValueType::STRING)]),
        view(&[a, ("b", value_type(&"DOUBLE".into()))]),
    ];
    let record = |(record, schema): (&Json, &core::FeatureView)| core::FeatureViewVersionRecord {
        feature_view_name: text(&record["feature_view_name"]).to_owned(),
        project_id: text(&record["project_id"]).to_owned(),
        version_number: number(&record["version_number"]),
        feature_view_type: text(&record["feature_view_type"]).to_owned(),
        feature_view_proto: schema.encode_to_vec(),
    };
    let records = list(&golden["history"]).iter().zip(&schemas).map(record).collect();
    core::Registry {
        feature_views: schemas.last().cloned().into_iter().collect(),
        feature_view_version_history: Some(core::FeatureViewVersionHistory { records }),
        ..Default::default()
    }
}

fn number(json: &Json) -> i32 {
    i32::try_from(json.as_i64().unwrap()).unwrap()
}

#[test]
fn versions_are_read_from_the_tables_that_feast_wrote_them_to() {
    let golden = json("tests/golden/feast/versioned_sqlite.json");
    let registry = three_versions(&golden["enabled"]["responses"]).encode_to_vec();
    let enabled = DecodeOptions { versioning: true, ..options("golden") };
    let enabled = decode(&registry, &enabled).unwrap();

    let written = |setting: &str, view: &FeatureView| {
        let table = format!("golden_{}", view.versioned_name());
        let rows = &golden[setting]["tables"][&table]["rows"];
        assert!(!list(rows).is_empty(), "{table}");
        list(rows).iter().map(|row| text(&row["feature_name"]).to_owned()).collect::<Vec<_>>()
    };
    for version in 0..3 {
        let view = &enabled.versions[&("vview".into(), version)];
        let View::Stored(view) = view else { panic!("{view:?}") };
        let features: Vec<_> = view.view.features.iter().map(|it| it.name.to_string()).collect();
        assert_eq!(written("enabled", &view.view), features, "version {version}");
    }
    assert_eq!(stored(&enabled, "vview").version, Some(2));
    written("enabled", stored(&enabled, "vview"));

    let disabled = decode(&registry, &options("golden")).unwrap();
    assert_eq!(stored(&disabled, "vview").version, None);
    written("disabled", stored(&disabled, "vview"));
    assert!(disabled.versions.is_empty());
}
