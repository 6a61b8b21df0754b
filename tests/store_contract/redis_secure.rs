//! Redis by TLS, with users of few rights.

use std::{fs, path::PathBuf};

use larder::{
    model::{EntityKey, FeatureView},
    store::{
        OnlineStore, RedisSentinels, RedisSettings, RedisTopology, Secret, StoreError,
        redis::RedisStore,
    },
    tls::{ClientIdentity, TlsSettings, Verify},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use redis::Commands;

use crate::{
    contract_tests,
    redis_nodes::{Hash, hash},
    redis_server::{RedisServer, at},
    world::{Cells, ONE, World, ab, key, patient, read, until_it_answers},
};

mod user {
    use super::*;
    contract_tests!(SecureWorld::new(ClientAuth::Password));
}

mod certificate {
    use super::*;
    contract_tests!(SecureWorld::new(ClientAuth::Certificate));
}

#[derive(Clone, Copy, PartialEq)]
enum ClientAuth {
    /// A user that may read, and nothing else, not even PING, INFO or ROLE.
    Password,
    /// Whoever has a certificate.
    Certificate,
}

struct SecureWorld {
    server: RedisServer,
    certificates: Certificates,
    store: RedisStore,
    written: Vec<Hash>,
}

/// Certificates and keys, as PEM files.
struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    /// An authority, a server's certificate by it, and a client's.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority_key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Authorities of one name are told apart by their signatures only.
        let name = folder.path().to_str().unwrap();
        authority.distinguished_name.push(DnType::CommonName, name);
        let write = |name: &str, pem: String| fs::write(folder.path().join(name), pem).unwrap();
        write("ca.crt", authority.self_signed(&authority_key).unwrap().pem());
        let issuer = Issuer::new(authority, authority_key);
        for (name, hosts) in [
            ("server", vec!["127.0.0.1"]),
            ("other", vec!["elsewhere.example"]),
            ("client", vec!["client"]),
        ] {
            let hosts: Vec<_> = hosts.into_iter().map(str::to_owned).collect();
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new(hosts).unwrap().signed_by(&key, &issuer);
            write(&format!("{name}.crt"), certificate.unwrap().pem());
            write(&format!("{name}.key"), key.serialize_pem());
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn tls(&self) -> TlsSettings {
        TlsSettings { ca: Some(self.path("ca.crt")), ..TlsSettings::default() }
    }

    fn identity(&self) -> ClientIdentity {
        ClientIdentity { certificate: self.path("client.crt"), key: self.path("client.key") }
    }
}

/// A server that speaks TLS only, with this certificate.
fn server(certificates: &Certificates, name: &str, auth: ClientAuth) -> RedisServer {
    let (certificate, key) = (format!("{name}.crt"), format!("{name}.key"));
    let [certificate, key, ca] = [&certificate, &key, "ca.crt"].map(|file| certificates.text(file));
    let tls = ["--port", "0", "--tls-port", "{port}", "--tls-cert-file", &certificate];
    let more = ["--tls-key-file", &key, "--tls-ca-cert-file", &ca, "--tls-auth-clients"];
    let users = "--user reader on >secret ~* +hmget --user admin on >admin-secret ~* &* +@all \
                 --user default off";
    let mut arguments: Vec<_> = tls.into_iter().chain(more).collect();
    match auth {
        ClientAuth::Password => {
            arguments.push("no");
            arguments.extend(users.split_whitespace());
        }
        ClientAuth::Certificate => arguments.push("yes"),
    }
    let mut server = RedisServer::with(&arguments);
    if auth == ClientAuth::Password {
        server.admin = Some(("admin".into(), "admin-secret".into()));
    }
    server
}

fn settings(server: &RedisServer, auth: ClientAuth, certificates: &Certificates) -> RedisSettings {
    let mut settings = server.settings();
    let mut tls = certificates.tls();
    match auth {
        ClientAuth::Password => settings = server.settings_of("reader", "secret"),
        ClientAuth::Certificate => tls.identity = Some(certificates.identity()),
    }
    settings.access.tls = Some(tls);
    settings
}

impl SecureWorld {
    fn new(auth: ClientAuth) -> Self {
        let certificates = Certificates::new();
        let server = server(&certificates, "server", auth);
        let store = RedisStore::new(settings(&server, auth, &certificates));
        Self { server, certificates, store, written: Vec::new() }
    }
}

impl World for SecureWorld {
    fn store(&self) -> &dyn OnlineStore {
        &self.store
    }

    fn put(&mut self, view: &FeatureView, key: &EntityKey, cells: Cells<'_>, seconds: i64) {
        let (hash, fields) = hash(view, key, cells, seconds);
        let _: () = self.server.admin().hset_multiple(&hash, &fields).unwrap();
        self.written.push((hash, fields));
    }

    fn stop(&mut self) {
        self.server.kill();
    }

    fn start(&mut self) {
        self.server.restart();
        let mut admin = self.server.admin();
        for (hash, fields) in &self.written {
            let _: () = admin.hset_multiple(hash, fields).unwrap();
        }
    }
}

/// Why a read with these settings is refused, in words.
async fn refusal(settings: RedisSettings) -> String {
    let store = RedisStore::new(settings);
    match read(&store, &ab("view"), &[key("1")], patient()).await.remove(0) {
        Err(error @ StoreError::Refused(_)) => error.chain(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_wrong_with_tls_or_a_login_is_named() {
    let world = SecureWorld::new(ClientAuth::Password);
    let settings = settings(&world.server, ClientAuth::Password, &world.certificates);
    let address = format!("127.0.0.1:{}", world.server.port);
    let check = async |change: &dyn Fn(&mut RedisSettings), expected: &str| {
        let mut changed = settings.clone();
        change(&mut changed);
        let text = refusal(changed).await;
        assert!(text.contains(expected) && text.contains(&address), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    };
    let others = Certificates::new();
    check(&|s| s.access.tls = Some(others.tls()), "UnknownIssuer").await;
    check(&|s| s.access.tls = Some(TlsSettings::default()), "certificate").await;
    let missing = TlsSettings { ca: Some("/nonexistent/ca".into()), ..TlsSettings::default() };
    check(&|s| s.access.tls = Some(missing.clone()), "`/nonexistent/ca` cannot be read").await;
    check(&|s| s.access.password = Some(Secret("hunter2".into())), "WRONGPASS").await;
    check(&|s| s.access.username = Some("nobody".into()), "WRONGPASS").await;
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused_by_name() {
    let world = SecureWorld::new(ClientAuth::Certificate);
    let mut settings = settings(&world.server, ClientAuth::Certificate, &world.certificates);
    settings.access.tls = Some(world.certificates.tls());
    let text = refusal(settings.clone()).await;
    assert!(text.contains("TLS with redis"), "{text}");
    // Nor may one ask who else there is.
    let seeds = vec![at(world.server.port)];
    let sentinels = RedisSentinels {
        sentinels: seeds.clone(),
        access: settings.access.clone(),
        master: "larder".into(),
        force_host: None,
        min_other_sentinels: 0,
    };
    for topology in [RedisTopology::Cluster(seeds), RedisTopology::Sentinel(sentinels)] {
        let text = refusal(RedisSettings { topology, ..settings.clone() }).await;
        assert!(text.contains("TLS with redis"), "{text}");
    }
    // Of an authority that the server does not know.
    let others = Certificates::new();
    let tls = TlsSettings { identity: Some(others.identity()), ..world.certificates.tls() };
    settings.access.tls = Some(tls);
    let text = refusal(settings).await;
    assert!(text.contains("TLS with redis"), "{text}");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_unless_names_do_not_matter() {
    let certificates = Certificates::new();
    let server = server(&certificates, "other", ClientAuth::Password);
    let mut settings = settings(&server, ClientAuth::Password, &certificates);
    let text = refusal(settings.clone()).await;
    assert!(text.contains("not valid for name"), "{text}");
    for (verify, ca) in [(Verify::Authority, true), (Verify::Nothing, false)] {
        let ca = ca.then(|| certificates.path("ca.crt"));
        settings.access.tls = Some(TlsSettings { ca, identity: None, verify });
        let store = RedisStore::new(settings.clone());
        let rows = read(&store, &ab("view"), &[key("1")], patient()).await;
        assert!(matches!(rows[0], Ok(None)), "{rows:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_were_renewed_are_used_from_the_next_connection_on() {
    let mut world = SecureWorld::new(ClientAuth::Certificate);
    let (view, keys) = (ab("view"), [key("1")]);
    world.put(&view, &keys[0], &[("a", ONE)], 1);
    until_it_answers(&world.store).await;
    // All are of another authority now, in the same files.
    let renewed = Certificates::new();
    for file in fs::read_dir(renewed.folder.path()).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), world.certificates.folder.path().join(file.file_name())).unwrap();
    }
    world.stop();
    world.start();
    until_it_answers(&world.store).await;
    let rows = read(&world.store, &view, &keys, patient()).await;
    assert!(matches!(rows[0], Ok(Some(_))), "{rows:?}");
}

#[tokio::test]
async fn a_server_that_speaks_tls_is_not_read_without() {
    let world = SecureWorld::new(ClientAuth::Password);
    let mut settings = world.server.settings_of("reader", "secret");
    settings.topology = RedisTopology::Single(at(world.server.port));
    let rows = read(&RedisStore::new(settings), &ab("view"), &[key("1")], patient()).await;
    assert!(rows[0].is_err(), "{rows:?}");
}
