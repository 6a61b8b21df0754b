//! `larder injector`, as the API server meets it: over TLS, with real requests and hostile ones.
#![cfg(feature = "injector")]

mod fixture;
mod scripted;
mod self_signed;

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use fixture::{Injector, golden, until};
use larder::net::{Listener, Routes, Server};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

fn patch(review: &Value) -> Value {
    let response = &review["response"];
    assert_eq!(response["patchType"], "JSONPatch");
    let patch = STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    serde_json::from_slice(&patch).unwrap()
}

fn warnings(review: &Value) -> String {
    review["response"]["warnings"].to_string()
}

#[tokio::test]
async fn a_pod_that_asks_gets_larder() {
    let injector = Injector::start().await;
    for name in ["create.json", "create-generate-name.json", "create-minimal.json"] {
        let request = golden(name);
        let (status, review) = injector.ask(&request).await;
        assert_eq!(status, 200);
        assert_eq!(review["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(review["kind"], "AdmissionReview");
        assert_eq!(review["response"]["uid"], request["request"]["uid"]);
        assert_eq!(review["response"]["allowed"], true);
        assert_eq!(review["response"].get("warnings"), None);
        let patch = patch(&review).to_string();
        assert!(patch.contains(r#""name":"larder""#), "{patch}");
    }
    assert_eq!(injector.metric("larder_injector_requests_total{outcome=\"injected\"}").await, 3.0);
}

/// Sends the head of a request with a body of 8 MiB, and the first bytes of that.
async fn begin_large_request(injector: &Injector, bytes: usize) -> impl AsyncRead + use<> {
    let mut stream = injector.connect().await;
    let head = format!("POST /mutate HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", 8 << 20);
    stream.write_all(head.as_bytes()).await.unwrap();
    // It may answer before it has everything.
    let _ = stream.write_all(&vec![b' '; bytes]).await;
    let _ = stream.flush().await;
    stream
}

async fn status_of(mut answer: impl AsyncRead + Unpin) -> String {
    let mut status = [0; 12];
    let read = tokio::time::timeout(Duration::from_secs(60), answer.read_exact(&mut status)).await;
    read.expect("there is an answer").unwrap();
    String::from_utf8(status.to_vec()).unwrap()
}

#[tokio::test]
async fn large_bodies_that_do_not_come_hold_nobody_up() {
    let injector = Injector::start().await;
    let mut slow = Vec::new();
    for _ in 0..8 {
        slow.push(Box::pin(begin_large_request(&injector, 1000).await));
    }
    let began = std::time::Instant::now();
    assert_eq!(injector.ask(&golden("create.json")).await.0, 200);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    for one in slow {
        assert_eq!(status_of(one).await, "HTTP/1.1 408");
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test]
async fn beyond_the_room_for_large_bodies_only_large_ones_are_refused() {
    let injector = Injector::start().await;
    let mut slow = Vec::new();
    for _ in 0..4 {
        slow.push(Box::pin(begin_large_request(&injector, (8 << 20) - 1).await));
    }
    assert_eq!(injector.ask(&golden("create.json")).await.0, 200);
    let mut answers = Vec::new();
    for one in slow {
        answers.push(status_of(one).await);
    }
    answers.sort();
    assert_eq!(answers, ["HTTP/1.1 408", "HTTP/1.1 408", "HTTP/1.1 503", "HTTP/1.1 503"]);
}

#[tokio::test]
async fn a_connection_may_be_idle_for_as_long_as_it_is_told_to() {
    let server = Server::new(CancellationToken::new()).idle_timeout(Duration::from_millis(300));
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap(), 0o600).unwrap();
    let address = listener.address().to_string();
    server.serve(async { listener }, Routes::new(axum::Router::new()));
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut all = String::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_string(&mut all));
    read.await.expect("it is closed").unwrap();
    assert!(all.starts_with("HTTP/1.1 404"), "{all}");
}

#[tokio::test]
async fn what_is_no_new_pod_that_asks_passes_as_it_is() {
    let injector = Injector::start().await;
    let mut unlabelled = golden("create.json");
    unlabelled["request"]["object"]["metadata"]["labels"] = json!({});
    let mut binding = golden("create.json");
    binding["request"]["subResource"] = "binding".into();
    let mut other = golden("create.json");
    other["request"]["kind"] = json!({ "group": "apps", "version": "v1", "kind": "Deployment" });
    let mut nothing = golden("create.json");
    nothing["request"]["object"] = Value::Null;
    for request in [
        unlabelled,
        binding,
        other,
        nothing,
        golden("create-already-injected.json"),
        golden("update.json"),
        golden("update-ephemeral-containers.json"),
    ] {
        let (status, review) = injector.ask(&request).await;
        let uid = &request["request"]["uid"];
        assert_eq!((status, &review["response"]), (200, &json!({ "uid": uid, "allowed": true })));
    }
    assert_eq!(injector.metric("larder_injector_requests_total{outcome=\"skipped\"}").await, 7.0);
}

#[tokio::test]
async fn a_pod_is_never_refused_and_is_told_why_it_has_no_larder() {
    let injector = Injector::start().await;
    let with = |change: fn(&mut Value)| {
        let mut request = golden("create.json");
        change(&mut request["request"]["object"]);
        request
    };
    for (request, why) in [
        (with(|pod| pod["spec"]["hostNetwork"] = true.into()), "hostNetwork"),
        (with(|pod| pod["spec"]["os"] = json!({ "name": "windows" })), "windows"),
        (with(|pod| pod["spec"]["containers"] = json!("none")), "no pod"),
        (with(|pod| pod["spec"]["nested"] = nested(500)), "nested too deeply"),
        (with(|pod| pod["spec"]["long"] = json!(vec![0; 600_000])), "too large"),
    ] {
        let (status, review) = injector.ask_text(text(&request)).await;
        assert_eq!((status, &review["response"]["allowed"]), (200, &json!(true)));
        assert_eq!(review["response"].get("patch"), None);
        assert!(warnings(&review).contains(why), "{why}: {}", warnings(&review));
    }
    let (_, review) = injector
        .ask(&with(|pod| {
            pod["metadata"]["annotations"] = json!({ "larder.dev/disk": "é".repeat(500) });
        }))
        .await;
    assert!(warnings(&review).contains("larder.dev/disk"));
    assert!(patch(&review).is_array());
}

/// Lists in lists; serde_json writes them one by one, and so does not overflow.
fn nested(depth: usize) -> Value {
    (0..depth).fold(Value::Null, |inner, _| json!([inner]))
}

fn text(request: &Value) -> String {
    serde_json::to_string(request).unwrap()
}

#[tokio::test]
async fn what_is_no_review_is_refused_with_a_reason() {
    let injector = Injector::start().await;
    let mut old = golden("create.json");
    old["apiVersion"] = "admission.k8s.io/v1beta1".into();
    let mut empty = golden("create.json");
    empty["request"] = Value::Null;
    let deep = format!("{{\"request\":{}", "[".repeat(100_000));
    for body in [text(&old), text(&empty), deep, String::new(), "[]".into(), "\u{0}".into()] {
        let (status, _) = injector.ask_text(body).await;
        assert_eq!(status, 400);
    }
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(9 << 20));
    assert_eq!(injector.ask_text(large).await.0, 413);
    assert_eq!(injector.ask(&golden("create.json")).await.0, 200, "it lives on");
    assert_eq!(injector.request("GET", "/mutate", String::new()).await.0, 405);
    assert_eq!(injector.request("POST", "/other", String::new()).await.0, 404);
    let query = text(&golden("create.json"));
    assert_eq!(injector.request("POST", "/mutate?timeout=2s", query).await.0, 200);
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_and_a_bad_one_is_not() {
    let injector = Injector::start().await;
    let first = injector.shown().await;
    injector.put_certificate("b.example");
    until("the renewed certificate is shown", async || injector.shown().await != first).await;
    let second = injector.shown().await;

    let errors = "larder_injector_certificate_errors_total";
    std::fs::write(injector.folder().join("tls.key"), "no key").unwrap();
    until("it is counted", async || injector.metric(errors).await == 1.0).await;
    assert_eq!(injector.shown().await, second);
    std::fs::remove_file(injector.folder().join("tls.crt")).unwrap();
    until("it is counted", async || injector.metric(errors).await == 2.0).await;
    assert_eq!(injector.shown().await, second);
    assert_eq!(injector.ready().await.0, 200);

    injector.put_certificate("c.example");
    until("the next one is shown", async || injector.shown().await != second).await;
    let expiry = injector.metric("larder_injector_certificate_expiry_seconds").await;
    assert_eq!(expiry, 67_090_118_400.0, "4096-01-01, where rcgen ends");
}

#[tokio::test]
async fn with_a_certificate_whose_time_is_over_it_is_not_ready() {
    let injector = Injector::start().await;
    injector.put_old_certificate();
    until("it is not ready", async || {
        let (status, text) = injector.ready().await;
        status == 503 && text.contains("is over")
    })
    .await;
    injector.put_certificate("b.example");
    injector.wait_until_ready().await;
}

#[tokio::test]
async fn changed_settings_count_and_wrong_ones_do_not() {
    let injector = Injector::start().await;
    let has = async |value: &str| {
        let review = injector.ask(&golden("create.json")).await.1;
        patch(&review).to_string().contains(value)
    };
    assert!(has(concat!("\"larder:", env!("CARGO_PKG_VERSION"), "\"")).await);
    // As Kubernetes does it: a link to a folder is replaced.
    injector.mount_settings(&[("image", "registry.example/larder:2")]);
    until("it is used", async || has("registry.example/larder:2").await).await;
    injector.mount_settings(&[("image", "no image"), ("wether", "fine")]);
    let errors = "larder_injector_settings_reload_errors_total";
    until("it is counted", async || injector.metric(errors).await == 1.0).await;
    assert!(has("registry.example/larder:2").await);
    injector.mount_settings(&[("image", "registry.example/larder:3\n")]);
    until("it is used", async || has("registry.example/larder:3").await).await;
}

#[tokio::test]
async fn everything_wrong_at_start_is_said_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("settings");
    std::fs::create_dir(&settings).unwrap();
    std::fs::write(settings.join("memory-limit"), "much").unwrap();
    std::fs::write(settings.join("imge"), "x").unwrap();
    let error = fixture::start_error(folder.path()).await;
    for part in ["memory-limit: expected", "did you mean `image`", "tls.crt` cannot be read"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[tokio::test]
async fn told_to_stop_it_is_unready_and_serves_on_for_a_while() {
    let mut injector = Injector::start().await;
    assert_eq!(injector.ready().await.0, 200);
    injector.tell_to_stop();
    until("it is not ready", async || injector.ready().await.0 == 503).await;
    assert_eq!(injector.ask(&golden("create.json")).await.0, 200);
}

#[tokio::test]
async fn told_to_stop_it_ends() {
    let mut injector = Injector::start_with_drain_delay(Duration::from_millis(10)).await;
    injector.tell_to_stop();
    injector.ended().await;
}
