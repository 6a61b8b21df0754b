//! `online_store` of types `cassandra` and `scylladb`.

use larder::{
    config::Config,
    store::{CassandraSettings, Consistency, StoreSettings},
    tls::Verify,
};

use crate::repo::{MINIMAL, Repo};

fn cassandra(config: &Config) -> CassandraSettings {
    match &config.stores[0].settings {
        StoreSettings::Cassandra(settings) => settings.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cluster_is_read_from_feasts_options_and_from_larders_own() {
    for (file, consistency) in [
        (include_str!("../golden/feast/yaml/feature_store.cassandra.yaml"), Consistency::LocalOne),
        (
            include_str!("../golden/feast/yaml/feature_store.scylladb.yaml"),
            Consistency::LocalQuorum,
        ),
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
