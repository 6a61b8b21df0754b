//! Wrong configurations: all that is wrong is said at once, with its place.

mod cassandra;
mod dynamodb;
mod feast;
mod redis;
mod registries;
mod repo;
mod several_stores;

use std::{fs, path::Path};

use larder::{
    config::{Config, LogFormat, Sources},
    registry::RegistrySettings,
    store::StoreSettings,
};

use crate::repo::{MINIMAL, Repo};

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
fn numbers_that_no_process_can_take_are_refused() {
    let larder = "\
store:
  max_in_flight: 1000001
  max_queue: 18446744073709551615
  sqlite: {connections: 1025}
  redis: {connections: 65}
  cassandra: {connections: 65, max_concurrent_reads: 4611686018427387904}
  breaker: {window: 2h, probe_interval: 1ms}
requests:
  max_rows: 1000001
  max_features: 100001
  max_in_flight: 18446744073709551615
  max_body_bytes: 2GiB
runtime: {worker_threads: 1025}
";
    assert_eq!(
        Repo::new(MINIMAL, Some(larder)).errors(),
        [
            "larder.yaml:2:18: store.max_in_flight: must be 1000000 at most",
            "larder.yaml:3:14: store.max_queue: must be 1000000 at most",
            "larder.yaml:4:25: store.sqlite.connections: must be 1024 at most",
            "larder.yaml:5:24: store.redis.connections: must be 64 at most",
            "larder.yaml:6:28: store.cassandra.connections: must be 64 at most",
            "larder.yaml:6:54: store.cassandra.max_concurrent_reads: must be 100000 at most",
            "larder.yaml:7:21: store.breaker.window: must be 1h at most",
            "larder.yaml:7:41: store.breaker.probe_interval: must be 10ms at least",
            "larder.yaml:9:13: requests.max_rows: must be 1000000 at most",
            "larder.yaml:10:17: requests.max_features: must be 100000 at most",
            "larder.yaml:11:18: requests.max_in_flight: must be 1000000 at most",
            "larder.yaml:12:19: requests.max_body_bytes: must be 1GiB at most",
            "larder.yaml:13:27: runtime.worker_threads: must be 1024 at most",
        ]
    );
    let most = "\
store:
  max_in_flight: 1000000
  max_queue: 1000000
  sqlite: {connections: 1024}
  redis: {connections: 64}
  cassandra: {connections: 64, max_concurrent_reads: 100000}
  breaker: {window: 1h}
requests: {max_rows: 1000000, max_features: 100000, max_in_flight: 1000000, max_body_bytes: 1GiB}
runtime: {worker_threads: 1024}
";
    Repo::new(MINIMAL, Some(most)).load();
    let many = Repo::new(MINIMAL, None).variable("LARDER_CPU", "1000000");
    assert_eq!(many.load().process.worker_threads, 1024);

    let other = "stores: {spare: {online_store: sqlite, store: {max_in_flight: 1000001}}}\n";
    let errors = Repo::new(MINIMAL, Some(other)).errors();
    assert!(
        errors[0].starts_with("larder.yaml:1:63: stores.spare.store.max_in_flight: must be"),
        "{errors:?}"
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
    assert_eq!((config.cache_max_bytes, config.process.worker_threads), (64 << 20, 1));
}

#[test]
fn limits_that_the_pod_passes_on_are_numbers_and_0_is_none() {
    let limited = |memory: &str, cpu: &str| {
        let mut repo =
            Repo::new(MINIMAL, None).variable("LARDER_MEMORY", memory).variable("LARDER_CPU", cpu);
        repo.surroundings.memory_limit = Some(64 << 20);
        repo
    };
    let seen = |memory, cpu| {
        let config = limited(memory, cpu).load();
        (config.cache_max_bytes, config.process.worker_threads)
    };
    assert_eq!(seen("134217728", "2"), (64 << 20, 2));
    assert_eq!(seen("1099511627776", "2"), (256 << 20, 2));
    assert_eq!(seen("0", "0"), (32 << 20, 3), "what surrounds the process counts");
    assert_eq!(seen("", ""), (32 << 20, 3));
    assert_eq!(
        limited("256Mi", "100m").errors(),
        [
            "environment variable LARDER_MEMORY: is `256Mi`; expected a number of bytes, as \
             `limits.memory` is passed on",
            "environment variable LARDER_CPU: is `100m`; expected a number of cores, as \
             `requests.cpu` is passed on",
        ]
    );
}

#[test]
fn the_repos_larder_yaml_is_read_unless_another_is_named() {
    let mut repo = Repo::new(MINIMAL, Some("requests: {max_rows: 1}\n"));
    let named = repo.sources.config.take();
    assert_eq!(repo.load().requests.max_rows, 1, "it is found");
    repo.sources.config = named;
    let other = repo.dir.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::copy(repo.dir.path().join("feature_store.yaml"), other.join("feature_store.yaml")).unwrap();
    fs::write(other.join("larder.yaml"), "requests: {max_rows: 2}\n").unwrap();
    repo.sources.chdir = Some("other".into());
    assert_eq!(repo.load().requests.max_rows, 1, "the one that is named wins");
    repo.sources.config = None;
    assert_eq!(repo.load().requests.max_rows, 2, "it is the repo's");

    // What is there and is no file is not passed over.
    fs::remove_file(other.join("larder.yaml")).unwrap();
    fs::create_dir(other.join("larder.yaml")).unwrap();
    assert!(repo.errors()[0].contains("other/larder.yaml: cannot be read"), "{:?}", repo.errors());
}

#[test]
fn what_the_process_needs_is_known_whatever_is_wrong() {
    let larder = "listen: [nowhere]\nadmin: ':1'\nstartup: {max_wait: 3s}\ncache: nonsense\n\
                  log: {level: debug, format: json}\n";
    let repo = Repo::new("nonsense", Some(larder)).variable("LARDER_CPU", "2");
    let (process, config) = Config::read(&repo.sources, &repo.surroundings);
    config.unwrap_err();
    let listen: Vec<_> = process.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["127.0.0.1:6566"], "the default, since there is no other");
    assert_eq!(process.admin.unwrap().to_string(), "0.0.0.0:1");
    assert_eq!(process.startup_max_wait.as_secs(), 3);
    assert_eq!((process.worker_threads, process.log_format), (2, LogFormat::Json));
}

#[test]
fn relative_paths_begin_in_the_repo_and_variables_are_expanded() {
    let mut repo = Repo::new("project: ${NAME}\nregistry: data/$FILE\n", None)
        .variable("NAME", "from-outside")
        .variable("FILE", "r.db");
    let config = repo.load();
    assert_eq!(&*config.feast.project, "from-outside");
    let file = RegistrySettings::File(repo.dir.path().join("data/r.db"));
    assert_eq!(config.feast.registry, file);
    let StoreSettings::Sqlite(sqlite) = &config.stores[0].settings else {
        panic!("SQLite is Feast's default")
    };
    assert_eq!(sqlite.path, repo.dir.path().join("data/online.db"));

    // With -f, they still begin in the repo, not beside the file.
    fs::create_dir(repo.dir.path().join("elsewhere")).unwrap();
    repo.sources.feature_store_yaml = Some("feature_store.yaml".into());
    repo.sources.chdir = Some("elsewhere".into());
    let elsewhere = RegistrySettings::File(repo.dir.path().join("elsewhere/data/r.db"));
    assert_eq!(repo.load().feast.registry, elsewhere);
}

#[test]
fn what_larder_cannot_honour_is_named() {
    for (text, expected) in [
        ("project: p\nregistry: r\nonline_store: {type: bigtable}\n", "`bigtable`"),
        ("project: p\nregistry: r\nonline_store:\n", "nothing to be served from"),
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
