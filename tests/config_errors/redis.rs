//! `online_store` of type `redis`.

use larder::{
    store::{RedisReadFrom, RedisSettings, RedisTopology, Secret, StoreSettings},
    tls::Verify,
};

use crate::repo::{MINIMAL, Repo};

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
