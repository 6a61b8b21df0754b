//! An injector that serves within the test, and a client of it.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::symlink,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use larder::injector::webhook::{self, CertificateSource, InjectorOptions};
use larder::tls::{TlsSettings, Verify, client_config};
use rustls::pki_types::ServerName;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{net::TcpStream, sync::oneshot, task::JoinHandle};
use tokio_rustls::{TlsConnector, client::TlsStream};

pub(crate) fn golden(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/kubernetes").join(name);
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

pub(crate) async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !condition().await {
        assert!(Instant::now() < end, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) fn crypto() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Longer than any test: none waits for it.
const DRAIN_DELAY: Duration = Duration::from_secs(600);

/// An injector. It ends with the test's runtime, if not before.
pub(crate) struct Injector {
    folder: TempDir,
    port: u16,
    admin: u16,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Result<(), String>>,
}

impl Injector {
    /// One with a certificate from files, which answers.
    pub(crate) async fn start() -> Self {
        Self::start_with_drain_delay(DRAIN_DELAY).await
    }

    pub(crate) fn start_with(folder: TempDir, certificate: CertificateSource) -> Self {
        Self::start_draining(folder, certificate, DRAIN_DELAY)
    }

    /// One from files that takes requests for so long after it is told to stop.
    pub(crate) async fn start_with_drain_delay(drain_delay: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        put_certificate(folder.path(), "a.example");
        fs::create_dir(folder.path().join("settings")).unwrap();
        let files = files(folder.path());
        let injector = Self::start_draining(folder, files, drain_delay);
        injector.wait_until_ready().await;
        injector
    }

    fn start_draining(
        folder: TempDir,
        certificate: CertificateSource,
        drain_delay: Duration,
    ) -> Self {
        let (port, admin) = (free_port(), free_port());
        let mut options = options(folder.path(), port, admin, certificate);
        options.drain_delay = drain_delay;
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(async move {
            let told_to_stop = async {
                match stopped.await {
                    Ok(()) => "a test",
                    Err(_) => std::future::pending().await,
                }
            };
            webhook::run(options, told_to_stop).await.map_err(|error| error.to_string())
        });
        Self { folder, port, admin, stop: Some(stop), running }
    }

    pub(crate) async fn wait_until_ready(&self) {
        until("the injector is ready", async || {
            assert!(!self.running.is_finished(), "it ended");
            TcpStream::connect(("127.0.0.1", self.admin)).await.is_ok()
                && self.ready().await.0 == 200
        })
        .await;
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn put_certificate(&self, name: &str) {
        put_certificate(self.folder(), name);
    }

    /// One whose time is over.
    pub(crate) fn put_old_certificate(&self) {
        put_certificate_until(self.folder(), "old.example", 2020);
    }

    /// Replaces the settings as Kubernetes does.
    pub(crate) fn mount_settings(&self, settings: &[(&str, &str)]) {
        let mount = self.folder().join("settings");
        let version = tempfile::Builder::new().prefix("..").tempdir_in(&mount).unwrap().keep();
        for (name, value) in settings {
            fs::write(version.join(name), value).unwrap();
            let _ = symlink(Path::new("..data").join(name), mount.join(name));
        }
        let link = mount.join("..data_tmp");
        symlink(&version, &link).unwrap();
        fs::rename(&link, mount.join("..data")).unwrap();
    }

    pub(crate) fn tell_to_stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    pub(crate) async fn ended(self) {
        self.running.await.unwrap().unwrap();
    }

    /// A connection to it, whatever it shows.
    pub(crate) async fn connect(&self) -> TlsStream<TcpStream> {
        let settings = TlsSettings { verify: Verify::Nothing, ..TlsSettings::default() };
        let mut config = client_config(&settings).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let name = ServerName::try_from("any.example").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        stream
    }

    /// The certificate that it shows.
    pub(crate) async fn shown(&self) -> Vec<u8> {
        let stream = self.connect().await;
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }

    pub(crate) async fn ask(&self, review: &Value) -> (u16, Value) {
        self.ask_text(review.to_string()).await
    }

    pub(crate) async fn ask_text(&self, body: String) -> (u16, Value) {
        self.request("POST", "/mutate", body).await
    }

    pub(crate) async fn request(&self, method: &str, path: &str, body: String) -> (u16, Value) {
        let stream = TokioIo::new(self.connect().await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let answer = sender.send_request(request(method, path, body)).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    pub(crate) async fn ready(&self) -> (u16, String) {
        self.admin("/readyz").await
    }

    /// The same while it may not listen yet.
    pub(crate) async fn try_ready(&self) -> Option<(u16, String)> {
        TcpStream::connect(("127.0.0.1", self.admin)).await.ok()?;
        Some(self.ready().await)
    }

    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.admin("/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    async fn admin(&self, path: &str) -> (u16, String) {
        let stream = TcpStream::connect(("127.0.0.1", self.admin)).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let answer = sender.send_request(request("GET", path, String::new())).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }
}

/// Why an injector does not start with what is in this folder.
pub(crate) async fn start_error(folder: &Path) -> String {
    let options = options(folder, free_port(), free_port(), files(folder));
    webhook::run(options, std::future::pending()).await.unwrap_err().to_string()
}

fn options(
    folder: &Path,
    port: u16,
    admin: u16,
    certificate: CertificateSource,
) -> InjectorOptions {
    let local = |port: u16| format!("127.0.0.1:{port}").parse().unwrap();
    InjectorOptions {
        settings: folder.join("settings"),
        listen: local(port),
        admin: Some(local(admin)),
        certificate,
        drain_delay: DRAIN_DELAY,
    }
}

fn files(folder: &Path) -> CertificateSource {
    let (certificate, key) = (folder.join("tls.crt"), folder.join("tls.key"));
    CertificateSource::Files { certificate, key }
}

pub(crate) fn put_certificate(folder: &Path, name: &str) {
    put_certificate_until(folder, name, 4096);
}

fn put_certificate_until(folder: &Path, name: &str, year: i32) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    let made = params.self_signed(&key).unwrap();
    fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    fs::write(folder.join("tls.crt"), made.pem()).unwrap();
}

fn request(method: &str, path: &str, body: String) -> Request<Full<Bytes>> {
    let builder = Request::builder().method(method).uri(format!("https://any.example{path}"));
    builder.header("host", "any.example").body(Full::new(Bytes::from(body))).unwrap()
}
