//! As much of an API server as the injector asks of it: versions of objects, and conflicts.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use larder::{
    injector::webhook::{CertificateSource, Cluster, SelfSigned},
    net::{Listener, Routes, Server},
    tls::{ServedCertificate, server_config},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub(crate) struct ApiServer {
    folder: TempDir,
    port: u16,
    pub(crate) objects: Arc<Objects>,
    _server: Server,
}

#[derive(Default)]
pub(crate) struct Objects {
    pub(crate) secret: Mutex<Option<Value>>,
    pub(crate) configuration: Mutex<Option<Value>>,
    /// Whether everything is refused.
    pub(crate) forbids: AtomicBool,
    /// Whether changes of the Secret are.
    pub(crate) forbids_secrets: AtomicBool,
    /// When something was.
    pub(crate) refused: Mutex<Vec<Instant>>,
    pub(crate) authorities_made: AtomicUsize,
    /// Each `caBundle` that there was, and since when.
    bundles: Mutex<Vec<(Instant, String)>>,
}

type Answer = (StatusCode, Json<Value>);

impl ApiServer {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        fs::write(folder.path().join("ca.crt"), made.cert.pem()).unwrap();
        fs::write(folder.path().join("token"), "of the account\n").unwrap();
        let served = Arc::<ServedCertificate>::default();
        let key = made.signing_key.serialize_pem();
        served.replace(made.cert.pem().as_bytes(), key.as_bytes()).unwrap();

        let objects = Arc::<Objects>::default();
        *objects.configuration.lock() = Some(configuration());
        let secret = get(get_secret).put(put_secret);
        let name = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/injector";
        let router = Router::new()
            .route("/api/v1/namespaces/home/secrets", post(post_secret))
            .route("/api/v1/namespaces/home/secrets/ca", secret)
            .route(name, get(get_configuration).patch(patch_configuration))
            .with_state(Arc::clone(&objects));
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap(), 0o600).unwrap();
        let port = listener.address().to_string().rsplit_once(':').unwrap().1.parse().unwrap();
        let server = Server::new(CancellationToken::new());
        let tls = Arc::new(server_config(served).unwrap());
        server.serve_tls(async { listener }, Routes::new(router), tls);
        Self { folder, port, objects, _server: server }
    }

    pub(crate) fn settings(&self) -> CertificateSource {
        CertificateSource::SelfSigned(SelfSigned {
            cluster: Cluster {
                host: "127.0.0.1".into(),
                port: self.port,
                service_account: self.folder.path().to_owned(),
            },
            namespace: "home".into(),
            service: "injector".into(),
            ca_secret: "ca".into(),
            webhook_configuration: "injector".into(),
            interval: Duration::from_millis(200),
        })
    }

    pub(crate) fn account(&self) -> &Path {
        self.folder.path()
    }
}

impl Objects {
    /// `caBundle` of the webhook.
    pub(crate) fn bundle(&self) -> String {
        let configuration = self.configuration.lock();
        let bundle = &configuration.as_ref().unwrap()["webhooks"][0]["clientConfig"]["caBundle"];
        bundle.as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn set_bundle(&self, bundle: Value) {
        let mut configuration = self.configuration.lock();
        let configuration = configuration.as_mut().unwrap();
        configuration["webhooks"][0]["clientConfig"]["caBundle"] = bundle;
        next_version(configuration);
        self.bundle_changed(configuration);
    }

    fn bundle_changed(&self, configuration: &Value) {
        let bundle = &configuration["webhooks"][0]["clientConfig"]["caBundle"];
        let bundle = bundle.as_str().unwrap_or_default().to_owned();
        self.bundles.lock().push((Instant::now(), bundle));
    }

    /// `caBundle` as an API server trusts it that hears of changes so much later.
    pub(crate) fn bundle_heard(&self, lag: Duration) -> String {
        let bundles = self.bundles.lock();
        let heard = bundles.iter().rfind(|(since, _)| since.elapsed() >= lag);
        heard.map(|(_, bundle)| bundle.clone()).unwrap_or_default()
    }

    fn enter(&self, headers: &HeaderMap) -> Result<(), Answer> {
        assert_eq!(headers["authorization"], "Bearer of the account");
        self.refuse_if(&self.forbids)
    }

    fn refuse_if(&self, forbids: &AtomicBool) -> Result<(), Answer> {
        if forbids.load(Ordering::Relaxed) {
            self.refused.lock().push(Instant::now());
            return Err(status(StatusCode::FORBIDDEN, "not allowed"));
        }
        Ok(())
    }
}

fn configuration() -> Value {
    let webhooks = json!([{ "name": "a.larder.dev", "clientConfig": {} }]);
    json!({
        "metadata": { "name": "injector", "uid": "u-1", "resourceVersion": "1" },
        "webhooks": webhooks,
    })
}

fn status(code: StatusCode, message: &str) -> Answer {
    (code, Json(json!({ "kind": "Status", "message": message })))
}

fn next_version(object: &mut Value) {
    let version: u64 = object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    object["metadata"]["resourceVersion"] = (version + 1).to_string().into();
}

fn found(object: Option<&Value>) -> Result<Answer, Answer> {
    let object = object.ok_or_else(|| status(StatusCode::NOT_FOUND, "not found"))?;
    Ok((StatusCode::OK, Json(object.clone())))
}

async fn get_secret(
    State(objects): State<Arc<Objects>>,
    headers: HeaderMap,
) -> Result<Answer, Answer> {
    objects.enter(&headers)?;
    found(objects.secret.lock().as_ref())
}

async fn post_secret(
    State(objects): State<Arc<Objects>>,
    headers: HeaderMap,
    Json(mut new): Json<Value>,
) -> Result<Answer, Answer> {
    objects.enter(&headers)?;
    assert_eq!(new["type"], "kubernetes.io/tls");
    let mut secret = objects.secret.lock();
    if secret.is_some() {
        return Err(status(StatusCode::CONFLICT, "already exists"));
    }
    new["metadata"]["resourceVersion"] = "1".into();
    objects.authorities_made.fetch_add(1, Ordering::Relaxed);
    *secret = Some(new);
    found(secret.as_ref())
}

async fn put_secret(
    State(objects): State<Arc<Objects>>,
    headers: HeaderMap,
    Json(new): Json<Value>,
) -> Result<Answer, Answer> {
    objects.enter(&headers)?;
    objects.refuse_if(&objects.forbids_secrets)?;
    let mut secret = objects.secret.lock();
    let old = secret.as_mut().ok_or_else(|| status(StatusCode::NOT_FOUND, "not found"))?;
    if old["metadata"]["resourceVersion"] != new["metadata"]["resourceVersion"] {
        return Err(status(StatusCode::CONFLICT, "changed"));
    }
    if old["data"] != new["data"] {
        objects.authorities_made.fetch_add(1, Ordering::Relaxed);
    }
    *old = new;
    next_version(old);
    found(secret.as_ref())
}

async fn get_configuration(
    State(objects): State<Arc<Objects>>,
    headers: HeaderMap,
) -> Result<Answer, Answer> {
    objects.enter(&headers)?;
    found(objects.configuration.lock().as_ref())
}

async fn patch_configuration(
    State(objects): State<Arc<Objects>>,
    headers: HeaderMap,
    Json(fields): Json<Value>,
) -> Result<Answer, Answer> {
    objects.enter(&headers)?;
    let mut configuration = objects.configuration.lock();
    let old = configuration.as_mut().ok_or_else(|| status(StatusCode::NOT_FOUND, "not found"))?;
    if old["metadata"]["resourceVersion"] != fields["metadata"]["resourceVersion"] {
        return Err(status(StatusCode::CONFLICT, "changed"));
    }
    assert_eq!(fields["webhooks"][0]["name"], old["webhooks"][0]["name"]);
    let bundle = fields["webhooks"][0]["clientConfig"]["caBundle"].clone();
    old["webhooks"][0]["clientConfig"]["caBundle"] = bundle;
    next_version(old);
    objects.bundle_changed(old);
    found(configuration.as_ref())
}
