//! Wrong configurations: all that is wrong is said at once, with its place.

use std::{fs, path::Path, time::Duration};

use larder::{
    config::{Config, Flag, Sources, Surroundings},
    model::StoreId,
    proxy::RouteStep,
    registry::RegistrySettings,
    store::{
        CassandraSettings, Consistency, DynamoDbSettings, RedisReadFrom, RedisSettings,
        RedisTopology, Secret, StoreSettings, TableNameTemplate,
    },
    tls::Verify,
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
    assert_eq!(many.load().worker_threads, 1024);

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
    assert_eq!((config.cache_max_bytes, config.worker_threads), (64 << 20, 1));
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
fn a_redis_is_read_from_feasts_connection_string() {
    let store = |connection: &str| {
        let store = format!("online_store: {{type: redis, connection_string: '{connection}'}}\n");
        Repo::new(&format!("{MINIMAL}{store}"), None)
    };
    let config = store("cache.default:6380,db=2,username=u,password=\"p=:w\"").load();
    let StoreSettings::Redis(redis) = config.stores[0].settings.clone() else {
        panic!("it is a Redis")
    };
    let RedisTopology::Single(address) = redis.topology else { panic!("it is a single server") };
    assert_eq!((address.to_string().as_str(), redis.access.db), ("cache.default:6380", 2));
    assert_eq!(redis.access.username.as_deref(), Some("u"));
    assert_eq!(redis.access.password.unwrap().0, "p=:w");

    for (connection, expected) in [
        ("h", "expected `host:port` first"),
        ("h:port", "expected `host:port` first"),
        ("[::1]:6379", "expected `host:port` first"),
        ("h:6379,db=x,password=hunter2", "`db` is no number"),
        ("h:6379,password=true", "`password` is true or false"),
        ("h:6379, password=hunter2", "has blanks at the option `password`"),
        ("h:6379,socket_connect_timeout=soon", "`socket_connect_timeout` is no number"),
        ("h:6379,credential_provider=x", "`credential_provider` is set"),
        ("h:6379,unix_socket_path=/s", "`unix_socket_path` is set"),
        ("h:6379,ssl=true,ssl_cert_reqs=maybe", "`ssl_cert_reqs` is not one of"),
        ("h:6379,ssl=true,ssl_keyfile=k", "`ssl_certfile` is not"),
        ("h:6379,ssl=true,ssl_ca_path=/certs", "`ssl_ca_path` is set"),
        ("h:6379,ssl=true,ssl_password=hunter2", "`ssl_password` is set"),
    ] {
        let errors = store(connection).errors();
        assert!(errors[0].contains(expected), "{connection}: {errors:?}");
        assert!(!errors[0].contains("hunter2"));
    }
}

fn cassandra(config: &Config) -> CassandraSettings {
    match &config.stores[0].settings {
        StoreSettings::Cassandra(settings) => settings.clone(),
        other => panic!("{other:?}"),
    }
}

fn dynamodb(config: &Config) -> DynamoDbSettings {
    match &config.stores[0].settings {
        StoreSettings::DynamoDb(settings) => settings.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cluster_is_read_from_feasts_options_and_from_larders_own() {
    for (file, consistency) in [
        (include_str!("golden/feast/yaml/feature_store.cassandra.yaml"), Consistency::LocalOne),
        (include_str!("golden/feast/yaml/feature_store.scylladb.yaml"), Consistency::LocalQuorum),
    ] {
        let config = Repo::new(file, None).load();
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        let read = cassandra(&config);
        assert_eq!((&*read.hosts[0], read.port, &*read.keyspace), ("127.0.0.1", 9042, "feast_ks"));
        assert_eq!((read.consistency, read.login, read.tls), (consistency, None, None));
        assert_eq!(read.local_datacenter, None);
    }
    let feature_store = format!(
        "{MINIMAL}online_store:\n  type: feast.infra.online_stores.cassandra_online_store.\
         cassandra_online_store.CassandraOnlineStore\n  hosts: [a.svc, \"::1\"]\n  port: 9142\n  \
         username: u\n  password: s3cret\n  protocol_version: 5\n  request_timeout: 1.5\n  \
         load_balancing: {{load_balancing_policy: DCAwareRoundRobinPolicy, local_dc: eu}}\n"
    );
    let config = Repo::new(&feature_store, None).load();
    let read = cassandra(&config);
    assert_eq!(read.hosts, ["a.svc", "::1"]);
    assert_eq!((read.port, &*read.keyspace), (9142, "feast_keyspace"));
    assert_eq!(read.local_datacenter.as_deref(), Some("eu"));
    assert!(!format!("{config:?}").contains("s3cret"));
    let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");

    let own = "store:\n  max_backoff: 2s\n  cassandra:\n    consistency: quorum\n    \
               local_datacenter: us\n    max_concurrent_reads: 9\n    connections: 2\n    \
               tls: {enabled: true, ca: ca.pem, certificate: c.pem, key: k.pem, verify: authority}\n";
    let repo = Repo::new(&feature_store, Some(own));
    let read = cassandra(&repo.load());
    assert_eq!((read.consistency, read.max_concurrent_reads), (Consistency::Quorum, 9));
    assert_eq!((read.connections, read.local_datacenter.as_deref()), (2, Some("us")));
    let tls = read.tls.unwrap();
    assert_eq!(tls.verify, Verify::Authority);
    assert_eq!(tls.ca, Some(repo.dir.path().join("ca.pem")));
    assert_eq!(tls.identity.unwrap().key, repo.dir.path().join("k.pem"));
}

#[test]
fn datacenters_of_feast_are_hosts_of_which_one_is_read() {
    let store = |more: &str| {
        format!(
            "{MINIMAL}online_store:\n  type: cassandra\n  datacenters:\n    \
             - {{name: dc1, hosts: [a, b], replication_factor: 3}}\n    \
             - {{name: dc2, hosts: [c]}}\n{more}"
        )
    };
    let check = |more: &str, hosts: [&str; 3], local: &str| {
        let read = cassandra(&Repo::new(&store(more), None).load());
        assert_eq!(read.hosts, hosts);
        assert_eq!(read.local_datacenter.as_deref(), Some(local));
    };
    let balancing =
        "  load_balancing: {load_balancing_policy: DCAwareRoundRobinPolicy, local_dc: dc2}\n";
    check("", ["a", "b", "c"], "dc1");
    check(balancing, ["c", "a", "b"], "dc2");
    check(&format!("{balancing}  routing: {{read_dc: dc1}}\n"), ["a", "b", "c"], "dc1");
    let errors = Repo::new(&store("  routing: {read_dc: dc3}\n"), None).errors();
    assert!(errors[0].contains("has no datacenter `dc3`"), "{errors:?}");
    let errors = Repo::new(&store("  hosts: [a]\n"), None).errors();
    assert!(errors[0].contains("cannot stand beside `hosts`"), "{errors:?}");
}

#[test]
fn clusters_that_larder_cannot_read_are_refused_by_name() {
    let check = |kind: &str, options: &str, larder: Option<&str>, expected: &[&str]| {
        let text = format!("{MINIMAL}online_store: {{type: {kind}, {options}}}\n");
        let errors = Repo::new(&text, larder).errors();
        assert_eq!(errors.len(), expected.len(), "{errors:?}");
        for (error, expected) in errors.iter().zip(expected) {
            assert!(error.starts_with("feature_store.yaml:3:") || larder.is_some(), "{error}");
            assert!(error.contains(expected), "{error} lacks {expected}");
        }
    };
    let refuses = |options, expected: &str| check("cassandra", options, None, &[expected]);
    refuses("secure_bundle_path: b.zip", "secure_bundle_path: is Astra's");
    refuses("keyspace: k", "online_store.hosts: is missing; expected a list");
    refuses("hosts: a", "expected a list of host names");
    refuses("hosts: [\"a:9042\"]", "a port belongs into `port`");
    refuses("hosts: [a], port: 70000", "online_store.port: is `70000`; expected a port");
    refuses("hosts: [a], username: u", "online_store.username: has no `password` beside it");
    refuses("hosts: [a], load_balancing: {load_balancing_policy: RoundRobin}", "expected a `load_");
    refuses("hosts: [a], local_dc: x", "online_store.local_dc: no such option");
    refuses("hosts: [cassandra.eu-west-1.amazonaws.com]", "is Amazon Keyspaces");
    check("scylladb", "hosts: [a], protocol_version: 4", None, &["no such option"]);
    check("cassandra", "hosts: [a]", Some("store: {cassandra: {consistency: most}}\n"), &["most"]);
    let larder = "store:\n  cassandra: {max_concurrent_reads: 0, tls: {key: k.pem}}\n";
    let expected = ["max_concurrent_reads: must be greater", "both `certificate` and `key`"];
    check("cassandra", "hosts: [a]", Some(larder), &expected);

    let text = format!(
        "{MINIMAL}online_store: {{type: cassandra, hosts: [cassandra.eu-west-1.amazonaws.com], \
         port: 9142, username: u, password: p}}\n"
    );
    let larder = "store: {cassandra: {tls: {enabled: true}}}\n";
    let config = Repo::new(&text, Some(larder)).load();
    assert!(config.warnings[0].to_string().contains("never tried"), "{:?}", config.warnings);
}

#[test]
fn dynamodb_is_read_from_feasts_options() {
    let file = include_str!("golden/feast/yaml/feature_store.dynamodb.yaml");
    let config = Repo::new(file, None).load();
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    assert!(!dynamodb(&config).region.is_empty());
    assert!(config.stores[0].settings.keeps_versions());

    let text = format!(
        "{MINIMAL}online_store:\n  type: feast.infra.online_stores.dynamodb.DynamoDBOnlineStore\n  \
         region: eu-west-1\n  endpoint_url: http://localhost:8000\n  \
         table_name_template: 'x-{{table_name}}'\n  consistent_reads: true\n  batch_size: 40\n  \
         max_pool_connections: 7\n  connect_timeout: 1.5\n  session_based_auth: true\n  \
         warmup_connections: true\n  tags: {{team: t}}\n"
    );
    let config = Repo::new(&text, None).load();
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let expected = DynamoDbSettings {
        region: "eu-west-1".into(),
        endpoint_url: Some("http://localhost:8000".into()),
        table_name_template: TableNameTemplate::parse("x-{table_name}").unwrap(),
        consistent_reads: true,
        batch_size: 40,
        max_calls: 7,
        connect_timeout: Duration::from_millis(1500),
    };
    assert_eq!(dynamodb(&config), expected);

    let region = |name: &str| {
        let text = format!("{MINIMAL}online_store: {{type: dynamodb}}\n");
        dynamodb(&Repo::new(&text, None).variable(name, "us-east-1").load()).region
    };
    assert_eq!([region("AWS_REGION"), region("AWS_DEFAULT_REGION")], ["us-east-1", "us-east-1"]);
}

#[test]
fn options_of_dynamodb_that_are_wrong_are_errors_and_those_that_are_not_used_warnings() {
    let store = |options: &str| {
        let text = format!("{MINIMAL}online_store: {{type: dynamodb, {options}}}\n");
        Repo::new(&text, None)
    };
    for (options, expected) in [
        ("", ["AWS_REGION", "AWS_DEFAULT_REGION"].as_slice()),
        ("region: 'a/b'", &["region: is the text `a/b`; expected an AWS region"]),
        ("region: x, endpoint_url: localhost:8000", &["endpoint_url", "expected a URL"]),
        ("region: x, table_name_template: '{table}'", &["`{table}` is neither"]),
        ("region: x, consistent_reads: 'yes'", &["consistent_reads", "true or false"]),
        ("region: x, batch_size: 0", &["expected a whole number from 1 to 100"]),
        ("region: x, max_pool_connections: 0", &["expected a whole number from 1 to 1000"]),
        ("region: x, connect_timeout: -1", &["expected seconds"]),
        ("region: x, endpoint: y", &["endpoint: no such option", "endpoint_url"]),
    ] {
        let errors = store(options).errors();
        assert_eq!(errors.len(), 1, "{options}: {errors:?}");
        assert!(errors[0].starts_with("feature_store.yaml:3:"), "{errors:?}");
        assert!(expected.iter().all(|part| errors[0].contains(part)), "{options}: {errors:?}");
    }
    let wrong = store("batch_size: x, consistent_reads: 1, table_name_template: '{'");
    assert_eq!(wrong.errors().len(), 4, "all that is wrong is said at once");
    for (options, expected) in [
        ("read_timeout: 1", "store.timeout"),
        ("retry_mode: legacy", "repeats no failed call"),
        ("total_max_retry_attempts: 9", "repeats no failed call"),
        ("max_read_workers: 9", "max_pool_connections"),
        ("keepalive_timeout: 9", "kept for 90s"),
        ("batch_size: 101", "100 keys at most"),
        ("table_name_template: '{project}'", "has no `{table_name}`"),
    ] {
        let warnings = store(&format!("region: x, {options}")).load().warnings;
        assert_eq!(warnings.len(), 1, "{options}: {warnings:?}");
        assert!(warnings[0].to_string().contains(expected), "{options}: {warnings:?}");
    }
}

/// The settings of an online store that is a Redis, and the warnings besides.
fn redis(online_store: &str, larder: Option<&str>) -> (RedisSettings, Vec<String>) {
    let text = format!("{MINIMAL}online_store: {{type: redis, {online_store}}}\n");
    let config = Repo::new(&text, larder).load();
    let StoreSettings::Redis(redis) = config.stores[0].settings.clone() else {
        panic!("it is a Redis")
    };
    (redis, config.warnings.iter().map(ToString::to_string).collect())
}

#[test]
fn a_redis_cluster_and_sentinels_are_read_as_feast_reads_them() {
    let cluster =
        "redis_type: redis_cluster, connection_string: 'a:1,b:2,skip_full_coverage_check=true'";
    let larder = "store: {redis: {read_from: prefer_replica, connections: 3}}\n";
    let (settings, warnings) = redis(cluster, Some(larder));
    let RedisTopology::Cluster(seeds) = &settings.topology else { panic!("{settings:?}") };
    assert_eq!(seeds.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a:1", "b:2"]);
    assert_eq!((settings.read_from, settings.connections), (RedisReadFrom::PreferReplica, 3));
    assert!(warnings[0].contains("`skip_full_coverage_check` is redis-py's"), "{warnings:?}");

    // Sentinels are not logged in to as their master is.
    let options = "password=p,ssl=true,socket_connect_timeout=0.2,min_other_sentinels=1";
    let sentinel = format!("redis_type: redis_sentinel, connection_string: 'a:1,b:2,{options}'");
    let (settings, _) = redis(&sentinel, None);
    let RedisTopology::Sentinel(sentinels) = &settings.topology else { panic!("{settings:?}") };
    assert_eq!((&*sentinels.master, sentinels.min_other_sentinels), ("mymaster", 1));
    assert_eq!((&sentinels.access.password, &sentinels.access.tls), (&None, &None));
    assert_eq!(sentinels.access.connect_timeout.as_millis(), 200);
    assert!(settings.access.password.is_some() && settings.access.tls.is_some());
    let kwargs = "redis_type: redis_sentinel, sentinel_master: m, client: glide, \
                  connection_string: 'a:1,sentinel_kwargs={\"password\":\"s\"}'";
    let (settings, warnings) = redis(kwargs, None);
    let RedisTopology::Sentinel(sentinels) = &settings.topology else { panic!("{settings:?}") };
    assert_eq!((&*sentinels.master, &sentinels.access.password), ("m", &Some(Secret("s".into()))));
    assert!(settings.access.password.is_none());
    assert!(warnings[0].contains("which Feast refuses"), "{warnings:?}");

    for (store, expected) in [
        ("redis_type: redis_clusters", "expected `redis` or `redis_cluster` or `redis_sentinel`"),
        ("client: jedis", "expected `redis` or `glide`"),
        ("redis_type: redis_cluster, connection_string: 'a:1,b'", "for each server"),
        ("redis_type: redis_cluster, connection_string: 'a:1,db=1'", "`db` cannot be chosen"),
        ("redis_type: redis_sentinel, connection_string: 'a:1,sentinel_kwargs=x'", "JSON object"),
    ] {
        let text = format!("{MINIMAL}online_store: {{type: redis, {store}}}\n");
        let errors = Repo::new(&text, None).errors();
        assert!(errors[0].contains(expected), "{store}: {errors:?}");
    }
    let errors = Repo::new(MINIMAL, Some("store: {redis: {connections: 0}}\n")).errors();
    assert!(errors[0].contains("store.redis.connections: must be greater than 0"), "{errors:?}");
}

#[test]
fn options_of_tls_mean_what_they_do_to_redis_py() {
    let tls =
        |options: &str| redis(&format!("connection_string: 'h:1,{options}'"), None).0.access.tls;
    let verify = |options: &str| tls(options).map(|tls| tls.verify);
    assert_eq!(tls("ssl=false,ssl_ca_certs=ca"), None);
    assert_eq!(tls("ssl=0"), None);
    assert_eq!(verify("ssl=true"), Some(Verify::Full));
    assert_eq!(verify("ssl=False"), Some(Verify::Full), "any text is true in Python");
    assert_eq!(verify("ssl=true,ssl_cert_reqs=optional"), Some(Verify::Full));
    assert_eq!(verify("ssl=true,ssl_check_hostname=false"), Some(Verify::Authority));
    assert_eq!(verify("ssl=true,ssl_cert_reqs=none"), Some(Verify::Nothing));
    let tls = tls("ssl=true,ssl_ca_certs=/ca.pem,ssl_certfile=/c.pem").unwrap();
    assert_eq!(tls.ca.unwrap().to_str(), Some("/ca.pem"));
    assert_eq!(tls.identity.unwrap().key.to_str(), Some("/c.pem"), "one file may hold both");
    let (_, warnings) = redis("connection_string: 'h:1,socket_timeout=1'", None);
    assert!(warnings[0].contains("socket_timeout"), "{warnings:?}");
    let sentinels = "redis_type: redis_sentinel, connection_string: 'h:1,min_other_sentinels=x'";
    let text = format!("{MINIMAL}online_store: {{type: redis, {sentinels}}}\n");
    let errors = Repo::new(&text, None).errors();
    assert!(errors[0].contains("`min_other_sentinels` is no number"), "{errors:?}");
    // A number is its digits, however many.
    let (settings, _) = redis("connection_string: 'h:1,password=12345678901234567890123'", None);
    assert_eq!(settings.access.password.unwrap().0, "12345678901234567890123");
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

/// What the real Feast said of some repo configs (`make_golden.py` has their texts), against larder.
#[test]
fn repo_configs_are_read_or_refused_as_feast_does() {
    let golden = include_str!("golden/feast/config.json");
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
