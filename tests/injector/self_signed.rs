//! Certificates of its own, and what becomes of them while the API server is away or says no.

use std::{sync::atomic::Ordering, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use larder::tls::{TlsSettings, client_config};
use rustls::{client::danger::ServerCertVerifier, pki_types::ServerName};
use serde_json::{Value, json};

use crate::{
    fixture::{Injector, crypto, golden, until},
    scripted::ApiServer,
};

fn replica(api: &ApiServer) -> Injector {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("settings")).unwrap();
    Injector::start_with(folder, api.settings())
}

/// Whether whoever trusts the bundle trusts what the replica shows.
async fn is_trusted(api: &ApiServer, replica: &Injector) -> bool {
    is_trusted_by(&api.objects.bundle(), api, replica).await
}

async fn is_trusted_by(bundle: &str, api: &ApiServer, replica: &Injector) -> bool {
    let bundle = STANDARD.decode(bundle).unwrap();
    let ca = api.account().join("bundle.crt");
    std::fs::write(&ca, bundle).unwrap();
    let Ok(_) = client_config(&TlsSettings { ca: Some(ca.clone()), ..TlsSettings::default() })
    else {
        return false;
    };
    let mut roots = rustls::RootCertStore::empty();
    use rustls::pki_types::pem::PemObject;
    for certificate in rustls::pki_types::CertificateDer::pem_file_iter(&ca).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let verifier =
        rustls::client::WebPkiServerVerifier::builder_with_provider(roots.into(), crypto())
            .build()
            .unwrap();
    let shown = replica.shown().await.into();
    let name = ServerName::try_from("injector.home.svc").unwrap();
    let now = rustls::pki_types::UnixTime::now();
    verifier.verify_server_cert(&shown, &[], &name, &[], now).is_ok()
}

#[tokio::test]
async fn replicas_that_start_at_once_share_one_authority() {
    let api = ApiServer::start();
    let replicas = [replica(&api), replica(&api), replica(&api)];
    for one in &replicas {
        one.wait_until_ready().await;
        assert!(is_trusted(&api, one).await);
        assert_eq!(one.ask(&golden("create.json")).await.0, 200);
    }
    assert_eq!(api.objects.authorities_made.load(Ordering::Relaxed), 1);
    let secret = api.objects.secret.lock().clone().unwrap();
    assert_eq!(secret["data"]["tls.crt"], api.objects.bundle());
    assert_eq!(secret["metadata"]["ownerReferences"][0]["uid"], "u-1");
}

#[tokio::test]
async fn a_bundle_that_is_set_back_is_set_again() {
    let api = ApiServer::start();
    let one = replica(&api);
    one.wait_until_ready().await;
    let before = api.objects.bundle();
    for bundle in [Value::Null, "Cg==".into(), "not base64".into()] {
        api.objects.set_bundle(bundle);
        until("it is set again", async || api.objects.bundle() == before).await;
    }
}

#[tokio::test]
async fn an_authority_that_is_gone_is_replaced_while_what_is_shown_stays_trusted() {
    let api = ApiServer::start();
    let replicas = [replica(&api), replica(&api)];
    for one in &replicas {
        one.wait_until_ready().await;
    }
    // API servers hear of a changed bundle later, the one or the other.
    let lag = Duration::from_secs(2);
    let all_are_trusted = async || {
        for one in &replicas {
            let heard = api.objects.bundle_heard(lag);
            assert!(is_trusted_by(&heard, &api, one).await);
            assert!(is_trusted(&api, one).await);
        }
    };
    until("they have heard", async || api.objects.bundle_heard(lag) == api.objects.bundle()).await;
    let before = [replicas[0].shown().await, replicas[1].shown().await];
    *api.objects.secret.lock() = None;
    until("another is made", async || {
        all_are_trusted().await;
        api.objects.secret.lock().is_some()
    })
    .await;
    until("what it signed is shown", async || {
        all_are_trusted().await;
        replicas[0].shown().await != before[0] && replicas[1].shown().await != before[1]
    })
    .await;
    assert_eq!(api.objects.authorities_made.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn until_the_bundle_is_set_it_is_not_ready_and_says_why() {
    let api = ApiServer::start();
    let configuration = api.objects.configuration.lock().take();
    let one = replica(&api);
    let says = async |part: &str| {
        let connected = one.try_ready().await;
        connected.is_some_and(|(status, text)| status == 503 && text.contains(part))
    };
    until("it says what is not there", async || says("404").await).await;
    *api.objects.configuration.lock() = configuration;
    *api.objects.secret.lock() = Some(json!({ "data": { "tls.crt": "", "tls.key": "" } }));
    until("it says what is no authority", async || says("secret `ca` holds no authority").await)
        .await;
    *api.objects.secret.lock() = None;
    one.wait_until_ready().await;
    assert!(is_trusted(&api, &one).await);
}

#[tokio::test]
async fn an_api_server_that_refuses_ends_nothing_and_is_not_hammered() {
    let api = ApiServer::start();
    let one = replica(&api);
    one.wait_until_ready().await;
    api.objects.forbids.store(true, Ordering::Relaxed);
    let errors = "larder_injector_certificate_errors_total";
    until("it is counted", async || one.metric(errors).await >= 1.0).await;
    until("it tries again", async || one.metric(errors).await >= 3.0).await;
    let refused = api.objects.refused.lock().clone();
    let apart: Vec<_> = refused.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(apart.len() >= 2);
    assert!(apart.iter().all(|apart| *apart >= Duration::from_secs(1)), "{apart:?}");
    assert_eq!(one.ready().await.0, 200);
    assert_eq!(one.ask(&golden("create.json")).await.0, 200);
    api.objects.forbids.store(false, Ordering::Relaxed);
    api.objects.set_bundle(Value::Null);
    until("it is looked after again", async || !api.objects.bundle().is_empty()).await;
}

const DAY: i64 = 24 * 3600;

/// An authority that is valid from and until so many seconds from now: its certificate, and the
/// Secret.
fn authority(from: i64, until: i64) -> (String, Value) {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
    let now = rustls::pki_types::UnixTime::now().as_secs() as i64;
    let at = |from_now: i64| {
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs((now + from_now).unsigned_abs())
    };
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "larder-injector-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    (params.not_before, params.not_after) = (at(from), at(until));
    let certificate = params.self_signed(&key).unwrap().pem();
    let data = json!({
        "tls.crt": STANDARD.encode(&certificate),
        "tls.key": STANDARD.encode(key.serialize_pem()),
    });
    let metadata = json!({ "name": "ca", "resourceVersion": "1" });
    (certificate, json!({ "metadata": metadata, "data": data }))
}

#[tokio::test]
async fn what_another_replica_announced_a_moment_ago_is_not_shown_yet() {
    let api = ApiServer::start();
    let one = replica(&api);
    one.wait_until_ready().await;
    let lag = Duration::from_secs(2);
    until("API servers have heard", async || api.objects.bundle_heard(lag) == api.objects.bundle())
        .await;
    let before = one.shown().await;
    let (new, secret) = authority(-3600, 365 * DAY);
    let old = STANDARD.decode(api.objects.bundle()).unwrap();
    api.objects.set_bundle(STANDARD.encode([new.as_bytes(), &old].concat()).into());
    *api.objects.secret.lock() = Some(secret);
    until("what the new one signed is shown", async || {
        assert!(is_trusted_by(&api.objects.bundle_heard(lag), &api, &one).await);
        one.shown().await != before
    })
    .await;
}

#[tokio::test]
async fn an_authority_that_cannot_be_renewed_is_used_on() {
    let api = ApiServer::start();
    *api.objects.secret.lock() = Some(authority(-300 * DAY, 65 * DAY).1);
    api.objects.forbids_secrets.store(true, Ordering::Relaxed);
    let one = replica(&api);
    one.wait_until_ready().await;
    assert!(is_trusted(&api, &one).await);
    let errors = "larder_injector_certificate_errors_total";
    until("it is counted, again and again", async || one.metric(errors).await >= 2.0).await;
    api.objects.set_bundle(Value::Null);
    until("the bundle is looked after", async || !api.objects.bundle().is_empty()).await;
    assert_eq!(api.objects.authorities_made.load(Ordering::Relaxed), 0);

    api.objects.forbids_secrets.store(false, Ordering::Relaxed);
    let made = async || api.objects.authorities_made.load(Ordering::Relaxed) == 1;
    until("it is renewed", made).await;
    assert!(is_trusted(&api, &one).await);
}

#[tokio::test]
async fn an_authority_of_tomorrow_is_replaced() {
    let api = ApiServer::start();
    *api.objects.secret.lock() = Some(authority(DAY, 366 * DAY).1);
    let one = replica(&api);
    one.wait_until_ready().await;
    assert!(is_trusted(&api, &one).await);
    assert_eq!(api.objects.authorities_made.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn what_is_shown_stays_trusted_when_the_bundle_is_set_back() {
    let api = ApiServer::start();
    let one = replica(&api);
    one.wait_until_ready().await;
    let before = api.objects.bundle();
    *api.objects.secret.lock() = None;
    until("another is announced", async || api.objects.bundle() != before).await;
    api.objects.set_bundle(Value::Null);
    until("the bundle is set again", async || !api.objects.bundle().is_empty()).await;
    assert!(is_trusted(&api, &one).await);
}
