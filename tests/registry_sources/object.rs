//! Registries in object stores: S3 as a real server speaks it to the larder program, which takes
//! its credentials from the environment; Google's and Azure's as a script answers.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use larder::{
    model::Secret,
    registry::{Bucket, FetchLimits, Fetched, ObjectSettings, RegistryError, RegistrySettings},
};
use object_store::{ObjectStoreExt, aws::AmazonS3Builder};
use parking_lot::Mutex;
use prost::Message;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream as TokioStream};

use crate::{
    services::{PASSWORD, Service, USER, free_port, versitygw},
    world::{PROJECT, golden_registry, snapshot, source, without_pair_stats},
};

const BUCKET: &str = "registries";
const KEY: &str = "team/registry.db";

/// Passes connections on, and keeps how many bytes each brought back.
struct Relay {
    address: SocketAddr,
    brought: Arc<Mutex<Vec<u64>>>,
}

impl Relay {
    async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let brought = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&brought);
        tokio::spawn(async move {
            while let Ok((mut inner, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                tokio::spawn(async move {
                    let Ok(mut outer) = TokioStream::connect(("127.0.0.1", port)).await else {
                        return;
                    };
                    let copied = tokio::io::copy_bidirectional(&mut inner, &mut outer).await;
                    kept.lock().push(copied.map_or(0, |(_, back)| back));
                });
            }
        });
        Self { address, brought }
    }
}

/// The larder program on a feature repository, and what it is told by its environment.
struct Larder {
    process: Child,
    admin: u16,
    repo: tempfile::TempDir,
}

fn command(repo: &Path, port: u16, what: &str) -> Command {
    let yaml = format!(
        "project: {PROJECT}\nregistry: s3://{BUCKET}/{KEY}\n\
         online_store: {{type: sqlite, path: {}}}\n",
        crate::world::golden("sqlite.db").display()
    );
    std::fs::write(repo.join("feature_store.yaml"), yaml).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command
        .arg(what)
        .arg("-c")
        .arg(repo)
        .env("AWS_ACCESS_KEY_ID", USER)
        .env("AWS_SECRET_ACCESS_KEY", PASSWORD)
        .env("AWS_REGION", "us-east-1")
        .env("FEAST_S3_ENDPOINT_URL", format!("http://127.0.0.1:{port}"))
        .stdin(Stdio::null());
    command
}

fn check(port: u16, change: impl FnOnce(&mut Command)) -> Output {
    let repo = tempfile::tempdir().unwrap();
    let mut command = command(repo.path(), port, "check");
    change(&mut command);
    command.output().unwrap()
}

impl Larder {
    fn serve(port: u16, copy: &Path) -> Self {
        let repo = tempfile::tempdir().unwrap();
        let admin = free_port();
        let process = command(repo.path(), port, "serve")
            .args(["--listen", &format!("unix:{}", repo.path().join("socket").display())])
            .args(["--admin", &format!("127.0.0.1:{admin}")])
            .env("LARDER_REGISTRY__REFRESH_INTERVAL", "100ms")
            .env("LARDER_REGISTRY__DISK_COPY", copy)
            .stderr(std::fs::File::create(repo.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        Self { process, admin, repo }
    }

    fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.admin)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// Waits until the registry's status is so.
    async fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) {
        let begun = Instant::now();
        loop {
            let status = self.get("/status").map(|(_, body)| body).unwrap_or_default();
            let status: Value = serde_json::from_str(&status).unwrap_or_default();
            if is_so(&status["registry"]) {
                return;
            }
            let log = || std::fs::read_to_string(self.repo.path().join("log")).unwrap();
            assert!(begun.elapsed() < Duration::from_secs(60), "{what}: {status}\n{}", log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Larder {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn put(service: &Service, bytes: Vec<u8>) {
    let store = AmazonS3Builder::new()
        .with_access_key_id(USER)
        .with_secret_access_key(PASSWORD)
        .with_region("us-east-1")
        .with_bucket_name(BUCKET)
        .with_endpoint(format!("http://127.0.0.1:{}", service.port))
        .with_allow_http(true)
        .build()
        .unwrap();
    store.put(&KEY.into(), bytes.into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_in_s3_is_followed_through_changes_and_outages() {
    let mut service = versitygw(BUCKET);
    let golden = golden_registry().encode_to_vec();
    put(&service, golden.clone()).await;
    let relay = Relay::before(service.port).await;
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");

    let larder = Larder::serve(relay.address.port(), &copy);
    larder.until("it is loaded", |registry| registry["loaded"] == true).await;
    larder.until("all views", |registry| registry["feature_views"] == 9).await;

    // Once read, it is asked for and not sent.
    let reads = |brought: &[u64]| brought.iter().filter(|it| **it > golden.len() as u64).count();
    let begun = Instant::now();
    while relay.brought.lock().len() < 5 {
        assert!(begun.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(reads(&relay.brought.lock()), 1);

    let changed = without_pair_stats().encode_to_vec();
    put(&service, changed.clone()).await;
    larder.until("a view is gone", |registry| registry["feature_views"] == 8).await;
    larder
        .until("it is on the disk", |_| std::fs::read(&copy).is_ok_and(|it| it.ends_with(&changed)))
        .await;

    service.stop();
    larder.until("it fails", |registry| registry["last_error"].is_string()).await;
    larder.until("the last good stays", |registry| registry["feature_views"] == 8).await;
    drop(larder);

    let larder = Larder::serve(relay.address.port(), &copy);
    larder
        .until("the copy stands in", |registry| {
            registry["from_disk_copy"] == true && registry["feature_views"] == 8
        })
        .await;
    assert_eq!(larder.get("/readyz").unwrap().0, 200);
    service.restart();
    put(&service, golden).await;
    larder
        .until("the source is back", |registry| {
            registry["from_disk_copy"] == false && registry["feature_views"] == 9
        })
        .await;
    larder.until("nothing is wrong", |registry| registry["last_error"].is_null()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_says_what_is_wrong_with_a_registry_in_s3() {
    let mut service = versitygw(BUCKET);
    put(&service, golden_registry().encode_to_vec()).await;
    let port = service.port;
    let good = check(port, |_| {});
    assert!(good.status.success(), "{good:?}");
    let text = String::from_utf8_lossy(&good.stdout).into_owned();
    assert!(text.starts_with("project golden: 9 feature views"), "{text}");

    let refused = |output: &Output| {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("s3://registries/team/registry.db"), "{text}");
        assert!(!text.contains(PASSWORD) && !text.contains("wr0ng"), "{text}");
        text
    };
    let wrong = check(port, |command| {
        command.env("AWS_SECRET_ACCESS_KEY", "wr0ng");
    });
    assert!(refused(&wrong).contains("check that the bucket exists"), "{wrong:?}");

    // The gateway keeps objects as files: a hole is as large as any.
    let object = service.folder.path().join("data").join(BUCKET).join(KEY);
    std::fs::File::options().write(true).open(&object).unwrap().set_len(300 << 20).unwrap();
    let large = check(port, |_| {});
    assert!(refused(&large).contains("is larger than 268435456 bytes"), "{large:?}");

    std::fs::remove_file(object).unwrap();
    let missing = check(port, |_| {});
    assert!(refused(&missing).contains("check that the bucket exists"), "{missing:?}");

    service.stop();
    let down = check(port, |_| {});
    assert!(refused(&down).contains("cannot be read"), "{down:?}");
}

/// An HTTP server with one object.
#[derive(Default)]
struct Script {
    path: String,
    /// What a request must have, besides its path.
    header: Option<&'static str>,
    bytes: Vec<u8>,
    etag: String,
    /// Requests that were answered with all of it, and those that were not.
    sent: usize,
    unchanged: usize,
    /// Cuts the body off.
    cut: bool,
}

async fn answer(State(script): State<Arc<Mutex<Script>>>, request: Request) -> Response {
    let mut script = script.lock();
    let authorized = script.header.is_none_or(|name| request.headers().contains_key(name));
    if !authorized {
        return StatusCode::FORBIDDEN.into_response();
    }
    if request.uri().path() != script.path {
        return StatusCode::NOT_FOUND.into_response();
    }
    if request.headers().get(header::IF_NONE_MATCH).is_some_and(|etag| *etag == *script.etag) {
        script.unchanged += 1;
        return StatusCode::NOT_MODIFIED.into_response();
    }
    script.sent += 1;
    let head = [
        (header::ETAG, script.etag.clone()),
        (header::LAST_MODIFIED, "Fri, 20 Nov 2026 09:30:00 GMT".into()),
        (header::CONTENT_LENGTH, script.bytes.len().to_string()),
    ];
    let mut bytes = script.bytes.clone();
    if script.cut {
        bytes.truncate(bytes.len() / 2);
    }
    (head, Body::from(bytes)).into_response()
}

async fn scripted(script: Script) -> (Arc<Mutex<Script>>, String) {
    let script = Arc::new(Mutex::new(script));
    let router = Router::new().fallback(answer).with_state(Arc::clone(&script));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (script, url)
}

async fn follows(script: &Mutex<Script>, bucket: Bucket) {
    let settings = ObjectSettings { bucket, key: KEY.into(), ca: None };
    let settings = RegistrySettings::Object(settings);
    let mut object = source(settings.clone(), FetchLimits::default());
    let fetched = object.fetch(None, 0).await.unwrap();
    assert_eq!(snapshot(&fetched).views.len(), 9);
    let Fetched::Bytes { marker, .. } = fetched else { unreachable!() };
    let again = object.fetch(marker.as_ref(), 0).await.unwrap();
    assert!(matches!(again, Fetched::Unchanged));
    let counts = |script: &Script| (script.sent, script.unchanged);
    assert_eq!(counts(&script.lock()), (1, 1));

    {
        let mut script = script.lock();
        (script.bytes, script.etag) = (without_pair_stats().encode_to_vec(), "\"2\"".into());
    }
    let changed = object.fetch(marker.as_ref(), 0).await.unwrap();
    assert_eq!(snapshot(&changed).views.len(), 8);

    let limits = FetchLimits { max_bytes: 100, ..FetchLimits::default() };
    let too_large = source(settings, limits).fetch(None, 0).await;
    assert!(matches!(too_large, Err(RegistryError::TooLarge { .. })), "{too_large:?}");

    script.lock().cut = true;
    assert!(object.fetch(None, 0).await.is_err());
    script.lock().path = "/elsewhere".into();
    let missing = object.fetch(None, 0).await;
    assert!(matches!(missing, Err(RegistryError::Refused { .. })), "{missing:?}");
}

#[tokio::test]
async fn a_registry_in_google_cloud_storage_is_followed() {
    let (script, url) = scripted(Script {
        // Google's path has one segment for the whole key.
        path: format!("/{BUCKET}/team%2Fregistry%2Edb"),
        bytes: golden_registry().encode_to_vec(),
        etag: "\"1\"".into(),
        ..Script::default()
    })
    .await;
    follows(&script, Bucket::Gcs { bucket: BUCKET.into(), emulator: Some(url) }).await;
}

#[tokio::test]
async fn a_registry_in_azure_is_followed() {
    let (script, url) = scripted(Script {
        path: format!("/{BUCKET}/{KEY}"),
        header: Some("authorization"),
        bytes: golden_registry().encode_to_vec(),
        etag: "\"1\"".into(),
        ..Script::default()
    })
    .await;
    let bucket = Bucket::Azure {
        account: Some("account".into()),
        endpoint: Some(url),
        container: BUCKET.into(),
        access_key: Some(Secret("c2VjcmV0".into())),
    };
    follows(&script, bucket).await;
}
