//! Wrong configurations: all that is wrong is said at once, with its place.

use std::{fs, path::Path, time::Duration};

use larder::{
    config::{Config, Flag, Sources, Surroundings},
    model::StoreId,
    proxy::RouteStep,
    store::StoreSettings,
};

/// A folder with a `feature_store.yaml`, and perhaps a `larder.yaml`.
struct Repo {
    dir: tempfile::TempDir,
    sources: Sources,
    surroundings: Surroundings,
}

const MINIMAL: &str = "project: p\nregistry: r.db\n";

impl Repo {
    fn new(feature_store: &str, larder: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("feature_store.yaml"), feature_store).unwrap();
        let mut sources = Sources::default();
        if let Some(text) = larder {
            fs::write(dir.path().join("larder.yaml"), text).unwrap();
            sources.config = Some("larder.yaml".into());
        }
        let surroundings = Surroundings {
            working_directory: dir.path().into(),
            cores: 3,
            ..Surroundings::default()
        };
        Self { dir, sources, surroundings }
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.surroundings.environment.insert(name.into(), value.into());
        self
    }

    fn flag(mut self, name: &str, key: &str, value: &str) -> Self {
        self.sources.flags.push(Flag { name: name.into(), key: key.into(), value: value.into() });
        self
    }

    fn load(&self) -> Config {
        Config::load(&self.sources, &self.surroundings).unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// The problems, without the folder's name.
    #[track_caller]
    fn errors(&self) -> Vec<String> {
        let errors = Config::load(&self.sources, &self.surroundings).unwrap_err();
        let dir = format!("{}/", self.dir.path().display());
        errors.0.iter().map(|problem| problem.to_string().replace(&dir, "")).collect()
    }
}

#[test]
fn everything_is_reported_at_once_from_every_source() {
    let repo = Repo::new(
        "project: p\nonline_store: {type: redis, connection_sting: h:1}\nauth: {type: oidc}\n",
        Some(
            "cache:\n  max_bytes: lots\nfreshness: {ttl: 0s, refresh_ahead: 1.5}\n\
             store:\n  time_out: 1s\n",
        ),
    )
    .variable("LARDER_STORE__MAX_QUEUE", "many")
    .flag("--listen", "listen", "[\"nowhere\"]");
    assert_eq!(
        repo.errors(),
        [
            "larder.yaml:2:14: cache.max_bytes: is `lots`; expected `auto`, a size such as 256MiB, \
             or a number of bytes",
            "larder.yaml:5:3: store.time_out: no such key; did you mean `timeout`?",
            "environment variable LARDER_STORE__MAX_QUEUE: store.max_queue: is `many`; expected a \
             whole number, not below 0",
            "--listen: listen[0]: is `nowhere`; expected an address such as 127.0.0.1:6566, :6566, \
             unix:PATH or unix-abstract:NAME",
            "larder.yaml:3:18: freshness.ttl: must be greater than 0",
            "larder.yaml:3:37: freshness.refresh_ahead: is 1.5; must be greater than 0, and 1 at \
             most",
            "feature_store.yaml:3:14: auth.type: is the text `oidc`, which larder does not \
             enforce; set `no_auth`, or pass --ignore-feast-auth to serve everybody who reaches \
             its port",
            "feature_store.yaml: registry: is missing; expected the registry's path, as in \
             `registry: registry.db`",
            "feature_store.yaml:2:29: online_store.connection_sting: no such option; did you mean \
             `connection_string`?",
        ]
    );
}

#[test]
fn flags_win_over_variables_and_these_over_the_file() {
    let larder = "requests: {max_rows: 1, max_features: 1, max_in_flight: 1}\n";
    let repo = Repo::new(MINIMAL, Some(larder))
        .variable("LARDER_REQUESTS__MAX_FEATURES", "2")
        .variable("LARDER_REQUESTS__MAX_IN_FLIGHT", "2")
        .flag("--set", "requests.max_in_flight", "3");
    let config = repo.load();
    let seen = (config.requests.max_rows, config.requests.max_features, config.api.max_in_flight);
    assert_eq!(seen, (1, 2, 3));
}

#[test]
fn null_is_a_word_among_others() {
    use larder::proxy::{OnUnavailable, TtlOnRead};
    let larder = "freshness: {on_unavailable: null, views: {v: {on_unavailable: error}}}\n\
                  compat: {ttl_on_read: {grpc: null, http: off}}\n";
    let config = Repo::new(MINIMAL, Some(larder)).load();
    assert_eq!(config.freshness.default.on_unavailable, OnUnavailable::Null);
    assert_eq!(config.freshness.of("v").on_unavailable, OnUnavailable::Error);
    let ttl_on_read = config.api.ttl_on_read;
    assert_eq!((ttl_on_read.grpc, ttl_on_read.http), (TtlOnRead::Null, TtlOnRead::Off));
}

#[test]
fn variables_that_are_no_settings_are_left_alone() {
    let repo = Repo::new(MINIMAL, None)
        .variable("LARDER_PORT_6566_TCP", "tcp://10.0.0.1:6566")
        .variable("LARDER_ADDRESS", "127.0.0.1:6566")
        .variable("LARDER_MEMORY", "134217728")
        .variable("LARDER_CPU", "1");
    let config = repo.load();
    assert_eq!((config.cache_max_bytes, config.worker_threads), (64 << 20, 1));
}

#[test]
fn relative_paths_begin_in_the_repo_and_variables_are_expanded() {
    let mut repo = Repo::new("project: ${NAME}\nregistry: data/$FILE\n", None)
        .variable("NAME", "from-outside")
        .variable("FILE", "r.db");
    let config = repo.load();
    assert_eq!(&*config.feast.project, "from-outside");
    assert_eq!(config.feast.registry_path, repo.dir.path().join("data/r.db"));
    let StoreSettings::Sqlite(sqlite) = &config.stores[0].settings else {
        panic!("SQLite is Feast's default")
    };
    assert_eq!(sqlite.path, repo.dir.path().join("data/online.db"));

    // With -f, they still begin in the repo, not beside the file.
    fs::create_dir(repo.dir.path().join("elsewhere")).unwrap();
    repo.sources.feature_store_yaml = Some("feature_store.yaml".into());
    repo.sources.chdir = Some("elsewhere".into());
    let path = repo.load().feast.registry_path;
    assert_eq!(path, repo.dir.path().join("elsewhere/data/r.db"));
}

#[test]
fn a_redis_is_read_from_feasts_connection_string() {
    let store = |connection: &str| {
        let store = format!("online_store: {{type: redis, connection_string: '{connection}'}}\n");
        Repo::new(&format!("{MINIMAL}{store}"), None)
    };
    let config = store("cache.default:6380,db=2,username=u,password=\"p=:w\"").load();
    let StoreSettings::Redis(redis) = &config.stores[0].settings else { panic!("it is a Redis") };
    assert_eq!((&*redis.host, redis.port, redis.db), ("cache.default", 6380, 2));
    assert_eq!(redis.username.as_deref(), Some("u"));
    assert_eq!(redis.password.as_ref().unwrap().0, "p=:w");

    for (connection, expected) in [
        ("h", "expected `host:port` first"),
        ("h:port", "expected `host:port` first"),
        ("[::1]:6379", "expected `host:port` first"),
        ("h:6379,ssl=true", "`ssl` is on"),
        ("h:6379,db=x,password=hunter2", "`db` is no number"),
    ] {
        let errors = store(connection).errors();
        assert!(errors[0].contains(expected), "{connection}: {errors:?}");
        assert!(!errors[0].contains("hunter2"));
    }
}

#[test]
fn what_larder_cannot_honour_is_named() {
    for (text, expected) in [
        ("project: p\nregistry: s3://bucket/r.db\n", "reads registries from files only"),
        ("project: p\nregistry: {registry_type: sql, path: x}\n", "registry.registry_type"),
        ("project: p\nregistry: r\nonline_store: {type: dynamodb, region: x}\n", "`dynamodb`"),
        ("project: p\nregistry: r\nonline_store:\n", "nothing to be served from"),
        (
            "project: p\nregistry: r\nonline_store: {type: redis, redis_type: redis_cluster}\n",
            "redis_type",
        ),
        ("project: p\nregistry: r\nentity_key_serialization_version: '3'\n", "without quotes"),
        ("project: p\nregistry: r\nentity_key_serialization_version: 4\n", "must be 1, 2 or 3"),
        ("project: [p\n", "cannot be read as YAML"),
    ] {
        let errors = Repo::new(text, None).errors();
        assert!(errors.iter().any(|error| error.contains(expected)), "{text}: {errors:?}");
    }
    let ignored = Repo::new(&format!("{MINIMAL}auth: {{type: oidc}}\n"), None).flag(
        "--ignore-feast-auth",
        "feast.ignore_auth",
        "true",
    );
    assert_eq!(ignored.load().warnings.len(), 1);
}

#[test]
fn feasts_file_may_come_in_a_variable() {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let encoded = BASE64_STANDARD.encode("project: encoded\nregistry: r.db\n");
    let repo = Repo::new(MINIMAL, None).variable("FEATURE_STORE_YAML_BASE64", &encoded);
    assert_eq!(&*repo.load().feast.project, "encoded");
    let wrong = Repo::new(MINIMAL, None).variable("FEATURE_STORE_YAML_BASE64", "%%%");
    assert!(wrong.errors()[0].contains("FEATURE_STORE_YAML_BASE64"));
    let none = Sources { chdir: Some("/nonexistent".into()), ..Sources::default() };
    let errors = Config::load(&none, &repo.surroundings).unwrap_err();
    assert!(errors.to_string().contains("/nonexistent/feature_store.yaml"), "{errors}");
    assert!(Path::new("/nonexistent").metadata().is_err());
}

/// What the real Feast said of some repo configs (`make_golden.py` has their texts), against larder.
#[test]
fn repo_configs_are_read_or_refused_as_feast_does() {
    let golden = include_str!("golden/feast/config.json");
    let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
    let cases = golden["repo_config"].as_object().unwrap();
    // Feast reads these and larder refuses them, since it could not serve them.
    let only_feast = ["online_store_yaml_null", "registry_map", "registry_sql", "registry_remote"];
    // Feast refuses these for what they would write; larder reads what there is.
    let only_larder = ["hyphen_project_sqlite", "hyphen_project_redis"];

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
        let registry = repo.dir.path().join(feast["registry_path"].as_str().unwrap());
        assert_eq!(config.feast.registry_path, registry, "{label}");
        match &config.stores[0].settings {
            StoreSettings::Sqlite(sqlite) => {
                let path = feast["online_store"]["path"].as_str().unwrap();
                assert_eq!(sqlite.path, repo.dir.path().join(path), "{label}");
            }
            StoreSettings::Redis(redis) => {
                let connection = format!("{}:{}", redis.host, redis.port);
                assert_eq!(feast["online_store"]["connection_string"], *connection, "{label}");
            }
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
