//! `stores`, `routing`, and Feast's `hybrid`.

use std::time::Duration;

use larder::{model::StoreId, proxy::RouteStep, store::StoreSettings};

use crate::repo::{MINIMAL, Repo};

#[test]
fn stores_beside_feasts_are_read_by_its_rules_and_routes_name_them() {
    let larder = "stores:\n  spare:\n    online_store: {type: sqlite, path: $FILE}\n    \
                  store: {timeout: 2s}\nrouting:\n  stores: [default, spare]\n  \
                  views: {v: [spare]}\n";
    let repo = Repo::new(MINIMAL, Some(larder)).variable("FILE", "copy.db");
    let config = repo.load();
    let names: Vec<_> = config.stores.iter().map(|store| &*store.name).collect();
    assert_eq!(names, ["default", "spare"]);
    let StoreSettings::Sqlite(sqlite) = &config.stores[1].settings else { panic!("SQLite") };
    assert_eq!(sqlite.path, repo.dir.path().join("copy.db"));
    assert_eq!(config.stores[1].limits.timeout, Duration::from_secs(2));
    assert_ne!(config.stores[0].limits.timeout, Duration::from_secs(2));
    let spare = RouteStep::Store(StoreId(1));
    assert_eq!(config.routes.default, [RouteStep::Feast, spare]);
    assert_eq!(config.routes.views["v"], [spare]);
    let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("longer than requests.default_timeout"), "{warnings:?}");
}

#[test]
fn what_is_wrong_with_stores_and_routes_is_said_with_its_place() {
    let larder = "stores:\n  default: {online_store: sqlite}\n  a: {online_store: {type: oracle}}\n  \
                  b: {store: {timeout: 0s}}\n  c: {online_store: {path: p, pth: q}}\n\
                  routing: {stores: [default, spere], views: {v: [], w: [default, default]}}\n";
    let repo = Repo::new(MINIMAL, Some(larder));
    let errors = repo.errors();
    for expected in [
        "larder.yaml:2:12: stores.default: is what a store of feature_store.yaml is called",
        "larder.yaml:3:28: stores.a.online_store.type: is `oracle`",
        "larder.yaml:4:24: stores.b.store.timeout: must be greater than 0",
        "larder.yaml:4:6: stores.b: lacks `online_store`",
        "larder.yaml:5:31: stores.c.online_store.pth: no such option; did you mean `path`?",
        "larder.yaml:6:19: routing.stores: has no store `spere`",
        "larder.yaml:6:48: routing.views.v: is empty",
        "larder.yaml:6:55: routing.views.w: names `default` twice",
    ] {
        assert!(errors.iter().any(|error| error.starts_with(expected)), "{expected}: {errors:#?}");
    }
    assert_eq!(errors.len(), 8, "{errors:#?}");

    let token = "registry: {token_file: t}\n";
    let warnings = Repo::new(MINIMAL, Some(token)).load().warnings;
    let expected = "larder.yaml:1:24: registry.token_file: is not used";
    assert!(warnings[0].to_string().starts_with(expected), "{warnings:?}");

    let unused = "stores: {spare: {online_store: sqlite}}\n";
    let warnings = Repo::new(MINIMAL, Some(unused)).load().warnings;
    assert!(warnings[0].to_string().contains("stores.spare: is not used"), "{warnings:?}");
}

#[test]
fn hybrid_is_a_store_for_each_value_of_its_tag() {
    let hybrid = |stores: &str| {
        let store = format!("online_store: {{type: hybrid, online_stores: {stores}}}\n");
        Repo::new(&format!("{MINIMAL}{store}"), None)
    };
    let config = hybrid(
        "[{type: Redis, conf: {connection_string: 'h:1'}}, {type: sqlite, conf: {path: o.db}}]",
    )
    .load();
    let names: Vec<_> = config.stores.iter().map(|store| &*store.name).collect();
    assert_eq!(names, ["redis", "sqlite"]);
    assert_eq!(config.routes.tagged["sqlite"], StoreId(1));
    let tag = config.feast.routing_tag.unwrap();
    assert_eq!(&*tag.tag, "tribe");
    assert!(tag.values.contains("redis") && tag.values.contains("sqlite"), "{tag:?}");

    for (stores, expected) in [
        ("[]", "online_store.online_stores: is a list; expected a list of stores"),
        ("[{conf: {}}]", "online_store.online_stores[0].type: is missing"),
        ("[{type: sqlite, conf: {pth: x}}]", "online_store.online_stores[0].conf.pth: no such"),
        ("[{type: oracle, conf: {}}]", "online_store.online_stores[0].type: is `oracle`"),
    ] {
        let errors = hybrid(stores).errors();
        assert!(errors[0].contains(expected), "{stores}: {errors:?}");
    }
}

#[test]
fn stores_that_keep_versions_otherwise_are_refused_where_there_are_versions() {
    let versioned =
        "project: p\nregistry: {path: r.db, enable_online_feature_view_versioning: true}\n";
    let cassandra = "{type: cassandra, hosts: [h], keyspace: k}";
    let larder = format!(
        "stores: {{spare: {{online_store: {cassandra}}}}}\nrouting: {{stores: [default, spare]}}\n"
    );
    let errors = Repo::new(versioned, Some(&larder)).errors();
    assert!(errors[0].starts_with("larder.yaml:1:17: stores.spare: keeps versions"), "{errors:?}");
    Repo::new(MINIMAL, Some(&larder)).load();

    let hybrid = format!(
        "{versioned}online_store: {{type: hybrid, online_stores: [{{type: sqlite, conf: {{}}}}, \
         {{type: cassandra, conf: {{hosts: [h], keyspace: k}}}}]}}\n"
    );
    let errors = Repo::new(&hybrid, None).errors();
    assert!(errors[0].contains("online_store: has stores of which some keep"), "{errors:?}");
}
