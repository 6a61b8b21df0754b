//! Certificates of its own, and what becomes of them while the API server is away or says no.

use std::sync::atomic::Ordering;

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
    let bundle = STANDARD.decode(api.objects.bundle()).unwrap();
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
    let before = replicas[0].shown().await;
    *api.objects.secret.lock() = None;
    until("another is made", async || {
        for one in &replicas {
            assert!(is_trusted(&api, one).await);
        }
        api.objects.secret.lock().is_some()
    })
    .await;
    until("what it signed is shown", async || {
        for one in &replicas {
            assert!(is_trusted(&api, one).await);
        }
        replicas[0].shown().await != before
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
    let before = api.objects.requests.load(Ordering::Relaxed);
    let began = std::time::Instant::now();
    until("it tries again", async || one.metric(errors).await >= 3.0).await;
    let asked = api.objects.requests.load(Ordering::Relaxed) - before;
    let most = 2 + 2 * began.elapsed().as_secs() as usize;
    assert!(asked <= most, "{asked} requests in {:?}", began.elapsed());
    assert_eq!(one.ready().await.0, 200);
    assert_eq!(one.ask(&golden("create.json")).await.0, 200);
    api.objects.forbids.store(false, Ordering::Relaxed);
    api.objects.set_bundle(Value::Null);
    until("it is looked after again", async || !api.objects.bundle().is_empty()).await;
}
