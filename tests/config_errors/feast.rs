//! Feature repos that Feast itself reads or refuses.

use larder::{
    config::Config,
    registry::RegistrySettings,
    store::{RedisTopology, StoreSettings},
};

use crate::repo::Repo;

/// What the real Feast said of some repo configs (`make_golden.py` has their texts), against larder.
#[test]
fn repo_configs_are_read_or_refused_as_feast_does() {
    let golden = include_str!("../golden/feast/config.json");
    let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
    let cases = golden["repo_config"].as_object().unwrap();
    // Feast reads these and larder refuses them, since it could not serve them.
    let only_feast = ["online_store_yaml_null"];
    // Feast refuses these for what they would write; larder reads what there is.
    let only_larder = ["hyphen_project_sqlite", "hyphen_project_redis"];

    // As larder names them: without user and password.
    let places = std::collections::HashMap::from([
        ("registry_map", "s3://b/k"),
        ("registry_sql", "postgresql://h/db"),
        ("registry_remote", "grpc://localhost:6570"),
    ]);

    let texts = repo_configs();
    assert_eq!(texts.len(), cases.len(), "every recorded case has its text here");
    for (label, text) in texts {
        let feast = &cases[label];
        let repo = Repo::new(text, None);
        let read = Config::load(&repo.sources, &repo.surroundings);
        let expected = (feast["error"].is_null() && !only_feast.contains(&label))
            || only_larder.contains(&label);
        assert_eq!(read.is_ok(), expected, "{label}: {read:?}");
        let (Ok(config), true) = (read, feast["error"].is_null()) else { continue };
        assert_eq!(*config.feast.project, *feast["project"].as_str().unwrap(), "{label}");
        let path = feast["registry_path"].as_str().unwrap();
        match &config.feast.registry {
            RegistrySettings::File(file) => {
                assert_eq!(*file, repo.dir.path().join(path), "{label}");
            }
            other => assert_eq!(other.to_string(), places[label], "{label}"),
        }
        match &config.stores[0].settings {
            StoreSettings::Sqlite(sqlite) => {
                let path = feast["online_store"]["path"].as_str().unwrap();
                assert_eq!(sqlite.path, repo.dir.path().join(path), "{label}");
            }
            StoreSettings::Redis(redis) => {
                let RedisTopology::Single(address) = &redis.topology else { panic!("{label}") };
                let connection = address.to_string();
                assert_eq!(feast["online_store"]["connection_string"], *connection, "{label}");
            }
            other => panic!("{label}: {other:?}"),
        }
    }
}

fn repo_configs() -> Vec<(&'static str, &'static str)> {
    vec![
        ("minimal", "project: p\nregistry: r.db\n"),
        ("no_project", "registry: r.db\n"),
        ("no_registry", "project: p\n"),
        ("online_store_string", "project: p\nregistry: r.db\nonline_store: redis\n"),
        ("online_store_null_word", "project: p\nregistry: r.db\nonline_store: \"null\"\n"),
        ("online_store_yaml_null", "project: p\nregistry: r.db\nonline_store:\n"),
        ("registry_map", "project: p\nregistry:\n  path: s3://b/k\n  cache_ttl_seconds: 5\n"),
        (
            "registry_sql",
            "project: p\nregistry:\n  registry_type: sql\n  path: postgresql://u:p@h/db\n",
        ),
        (
            "registry_remote",
            "project: p\nregistry:\n  registry_type: remote\n  path: localhost:6570\n",
        ),
        ("registry_bad_type", "project: p\nregistry:\n  registry_type: nope\n  path: x\n"),
        (
            "unknown_online_key",
            "project: p\nregistry: r.db\nonline_store:\n  type: redis\n  bogus: 1\n",
        ),
        ("unknown_top_key", "project: p\nregistry: r.db\nbogus: 1\n"),
        ("unknown_registry_key", "project: p\nregistry:\n  path: x\n  bogus: 1\n"),
        ("version_2", "project: p\nregistry: r.db\nentity_key_serialization_version: 2\n"),
        ("version_string", "project: p\nregistry: r.db\nentity_key_serialization_version: \"3\"\n"),
        ("hyphen_project_sqlite", "project: my-p\nregistry: r.db\n"),
        ("hyphen_project_redis", "project: my-p\nregistry: r.db\nonline_store:\n  type: redis\n"),
        ("dynamo_no_region", "project: p\nregistry: r.db\nonline_store:\n  type: dynamodb\n"),
        (
            "class_path_online",
            "project: p\nregistry: r.db\nonline_store:\n  type: \
             feast.infra.online_stores.sqlite.SqliteOnlineStore\n",
        ),
    ]
}

#[test]
fn a_variable_that_is_not_set_is_hinted_at_where_something_is_wrong() {
    let text = "project: p\nregistry: r.db\nonline_store:\n  type: redis\n  \
                connection_string: ${REDIS}\n";
    let errors = Repo::new(text, None).errors();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("`host:port`") && errors[0].contains("is not set"), "{errors:?}");
    let set = Repo::new(text, None).variable("REDIS", "nonsense").errors();
    assert!(set[0].contains("`host:port`") && !set[0].contains("is not set"), "{set:?}");
}
