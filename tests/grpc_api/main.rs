//! gRPC, from frame to frame: both services of Feast, metadata, deadlines, health, reflection.

#[path = "../api_fixture/mod.rs"]
mod api_fixture;
mod hostile;
mod standard;

use std::{collections::BTreeMap, fs, sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::body::Body;
use http::Request;
use larder::{
    api::ApiSettings,
    model::{Cell, EventTimestamp, FeatureRow, FeatureView},
    pb::{
        serving::{
            EncodedValues, FeatureList, GetFeastServingInfoResponse, GetOnlineFeaturesRequest,
            GetOnlineFeaturesResponse, get_online_features_request::Kind,
        },
        types::{Value, value::Val},
    },
    proxy::StatusCompat,
    store::{OnlineStore, ReadOptions, Rows, StoreError, ViewKeys, fail_all},
};
use prost::Message;
use serde_json::{Value as Json, json};
use tokio::time::advance;
use tonic::Code;

use api_fixture::{
    Called, Server, Setup, golden_registry, golden_server, patient,
    protobuf_json::{by_name, encoded, names, request_of, to_json},
};

const SERVING: &str = "/feast.serving.ServingService/GetOnlineFeatures";
const PYTHON: &str = "/GrpcFeatureServer/GetOnlineFeatures";

fn request(features: &[&str], item_ids: &[i64]) -> GetOnlineFeaturesRequest {
    let val = item_ids.iter().map(|id| encoded(Val::Int64Val(*id))).collect();
    let features = features.iter().map(|feature| (*feature).to_owned()).collect();
    GetOnlineFeaturesRequest {
        kind: Some(Kind::Features(FeatureList { val: features })),
        entities: BTreeMap::from([("item_id".to_owned(), EncodedValues { val })]),
        ..Default::default()
    }
}

async fn get(server: &Server, path: &str, request: &GetOnlineFeaturesRequest) -> Called {
    server.call(path, &request.encode_to_vec(), &[]).await
}

fn response(called: &Called) -> GetOnlineFeaturesResponse {
    assert_eq!(called.code, Code::Ok, "{}", called.message);
    let [message] = &called.messages[..] else { panic!("one message: {called:?}") };
    GetOnlineFeaturesResponse::decode(message.clone()).unwrap()
}

/// Where the code, or the answer, is declared to be another than that of Feast's Python server.
fn declared() -> BTreeMap<String, Code> {
    let text = fs::read_to_string("tests/golden/deviations.json").unwrap();
    let json: Json = serde_json::from_str(&text).unwrap();
    let mut codes = BTreeMap::new();
    for deviation in json["grpc_python"].as_array().unwrap() {
        assert_ne!(deviation["why"], "");
        for case in deviation["cases"].as_array().unwrap() {
            codes.insert(case.as_str().unwrap().to_owned(), code_of(&deviation["code"]));
        }
    }
    codes
}

fn code_of(name: &Json) -> Code {
    match name.as_str().unwrap() {
        "OK" => Code::Ok,
        "UNKNOWN" => Code::Unknown,
        "INTERNAL" => Code::Internal,
        "NOT_FOUND" => Code::NotFound,
        "INVALID_ARGUMENT" => Code::InvalidArgument,
        "UNIMPLEMENTED" => Code::Unimplemented,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn answers_are_those_of_feasts_python_server() {
    let golden = fs::read_to_string("tests/golden/http/grpc_python_contrib.json").unwrap();
    let golden: BTreeMap<String, Json> = serde_json::from_str(&golden).unwrap();
    let (server, mut declared) = (golden_server(), declared());
    for (name, case) in &golden {
        let request = request_of(&case["request"]);
        let called = get(&server, case["method"].as_str().unwrap(), &request).await;
        let is_same = match case.get("ok") {
            Some(expected) if called.code == Code::Ok => {
                by_name(&to_json(&response(&called))) == by_name(expected)
            }
            Some(_) => false,
            None => called.code == code_of(&case["code"]),
        };
        match declared.remove(name) {
            None => assert!(is_same, "{name} differs: {called:?}"),
            Some(code) => {
                assert!(!is_same, "{name} is declared to differ, and does not");
                assert_eq!(called.code, code, "{name}: {}", called.message);
            }
        }
    }
    assert!(declared.is_empty(), "no such cases: {declared:?}");
}

#[tokio::test]
async fn an_answer_is_byte_for_byte_what_prost_writes() {
    let all_types: Vec<_> = {
        let registry = golden_registry("registry.db");
        let larder::registry::View::Stored(stored) = &registry.views["all_types"] else {
            panic!("all_types is stored")
        };
        stored.view.features.iter().map(|feature| format!("all_types:{}", feature.name)).collect()
    };
    let all_types: Vec<_> = all_types.iter().map(String::as_str).collect();
    let server = golden_server();
    for (features, ids) in [
        (&all_types[..], &[1, 2, 3, 4, 9999][..]),
        (&["short_ttl:v"], &[1]),
        (&["short_ttl:v"], &[]),
        (&["short_ttl:v", "global_fv:g"], &[1; 200]),
    ] {
        for view_metadata in [false, true] {
            let request = GetOnlineFeaturesRequest {
                include_feature_view_version_metadata: view_metadata,
                ..request(features, ids)
            };
            let called = get(&server, SERVING, &request).await;
            let response = response(&called);
            assert_eq!(response.encode_to_vec(), called.messages[0]);
            assert_eq!(names(&response).len(), features.len() + 1);
            let views = &response.metadata.as_ref().unwrap().feature_view_metadata;
            assert_eq!(views.is_empty(), !view_metadata);
        }
    }
}

#[tokio::test]
async fn values_go_out_as_the_store_held_them() {
    let called = get(&golden_server(), SERVING, &request(&["all_types:f_zts"], &[1])).await;
    let response = response(&called);
    let value = Value::decode(response.results[1].values[0].clone()).unwrap();
    assert!(matches!(value.val, Some(Val::ZonedTimestampVal(_))), "{value:?}");
}

#[tokio::test]
async fn what_is_past_its_ttl_is_flagged_where_feasts_server_of_that_name_does() {
    let server = golden_server();
    for (path, status) in [(SERVING, 4), (PYTHON, 1)] {
        let response = response(&get(&server, path, &request(&["short_ttl:v"], &[1])).await);
        assert_eq!(response.results[1].statuses, [status], "{path}");
        assert_eq!(response.results[1].values, [encoded(Val::Int64Val(11))]);
    }
}

#[tokio::test]
async fn a_stored_null_is_a_null_value_where_the_operator_wants_it() {
    let settings = ApiSettings { status: StatusCompat::Proto, ..patient() };
    let server = Server::start(Setup { settings, ..Setup::default() });
    let asked = request(&["all_types:f_i64"], &[1, 2, 9999]);
    let response = response(&get(&server, PYTHON, &asked).await);
    assert_eq!(response.results[1].statuses, [1, 2, 3]);
}

#[tokio::test]
async fn an_answer_says_what_it_is_made_of() {
    let server = golden_server();
    let message = request(&["short_ttl:v"], &[1]).encode_to_vec();
    let called = server.call(SERVING, &message, &[]).await;
    assert!(called.headers.contains_key("larder-age-ms"));
    assert_eq!(called.headers["larder-stale-rows"], "0");
    assert_eq!(called.headers["larder-stores"], "default");
    assert!(!called.headers.contains_key("larder-unavailable-views"));
}

#[tokio::test]
async fn metadata_that_is_mistyped_is_the_callers_mistake_on_both_apis() {
    let server = golden_server();
    let message = request(&["short_ttl:v"], &[1]).encode_to_vec();
    let json = r#"{"features": ["short_ttl:v"], "entities": {"item_id": [1]}}"#;
    for metadata in
        [("larder-max-age-ms", "soon"), ("larder-allow-stale", "1"), ("larder-timeout-ms", "-1")]
    {
        let called = server.call(SERVING, &message, &[metadata]).await;
        assert_eq!(called.code, Code::InvalidArgument, "{metadata:?}");
        assert!(called.message.contains(metadata.0), "{}", called.message);
        assert_eq!(server.post(json, &[metadata]).await.status, 400, "{metadata:?}");
    }
}

/// A store that never answers, or always with an error.
struct Broken(Option<StoreError>);

#[async_trait]
impl OnlineStore for Broken {
    async fn read(&self, reads: &[ViewKeys<'_>], _: ReadOptions) -> Rows {
        match &self.0 {
            Some(error) => fail_all(reads, error),
            None => std::future::pending().await,
        }
    }

    async fn probe(&self) -> Result<(), StoreError> {
        Err(StoreError::TimedOut)
    }
}

fn server_over(store: Arc<dyn OnlineStore>, settings: ApiSettings) -> Server {
    Server::start(Setup { store, settings, ..Setup::default() })
}

#[tokio::test(start_paused = true)]
async fn the_shorter_deadline_ends_the_waiting() {
    let server = server_over(Arc::new(Broken(None)), ApiSettings::default());
    let message = request(&["short_ttl:v"], &[1]).encode_to_vec();
    for (metadata, millis) in [
        (&[][..], 1000),
        (&[("grpc-timeout", "300m")], 300),
        (&[("grpc-timeout", "3S"), ("larder-timeout-ms", "200")], 200),
    ] {
        let began = tokio::time::Instant::now();
        let called = server.call(SERVING, &message, metadata).await;
        assert_eq!(called.code, Code::DeadlineExceeded, "{}", called.message);
        assert_eq!(began.elapsed().as_millis(), millis);
    }
    let json = r#"{"features": ["short_ttl:v"], "entities": {"item_id": [1]}}"#;
    let answer = server.post(json, &[("larder-timeout-ms", "50")]).await;
    assert_eq!(answer.status, 504);
    assert!(answer.json().is_string(), "{}", answer.text());
}

#[tokio::test]
async fn a_store_that_fails_is_told_with_its_causes() {
    let refused = || Arc::new(std::io::Error::other("connection refused by 10.0.0.7"));
    let message = request(&["short_ttl:v"], &[1]).encode_to_vec();
    let json = r#"{"features": ["short_ttl:v"], "entities": {"item_id": [1]}}"#;
    for (error, code, status) in [
        (StoreError::Unavailable(refused()), Code::Unavailable, 503),
        (StoreError::Refused(refused()), Code::Unavailable, 503),
        (StoreError::Overloaded, Code::ResourceExhausted, 503),
        (StoreError::Corrupt(refused()), Code::Internal, 500),
    ] {
        let server = server_over(Arc::new(Broken(Some(error.clone()))), patient());
        let called = server.call(SERVING, &message, &[]).await;
        assert_eq!(called.code, code, "{}", called.message);
        if !matches!(error, StoreError::Overloaded) {
            assert!(called.message.contains("10.0.0.7"), "{}", called.message);
        }
        let answer = server.post(json, &[]).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.headers.contains_key("retry-after"), status == 503);
    }
}

#[tokio::test(start_paused = true)]
async fn more_requests_than_may_be_under_way_are_refused() {
    let settings = ApiSettings { max_in_flight: 1, ..ApiSettings::default() };
    let server = server_over(Arc::new(Broken(None)), settings);
    let message = request(&["short_ttl:v"], &[1]).encode_to_vec();
    let first = server.call(SERVING, &message, &[]);
    let second = async {
        tokio::task::yield_now().await;
        server.call(SERVING, &message, &[]).await
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!(first.code, Code::DeadlineExceeded);
    assert_eq!(second.code, Code::ResourceExhausted);
}

#[tokio::test]
async fn a_message_that_is_none_or_too_large_is_refused() {
    let server = golden_server();
    let called = server.call(SERVING, b"\x0a\xff", &[]).await;
    assert_eq!(called.code, Code::InvalidArgument, "{}", called.message);
    let settings = ApiSettings { max_body_bytes: 100, ..patient() };
    let server = server_over(Arc::new(Broken(None)), settings);
    let called = server.call(SERVING, &[b' '; 101], &[]).await;
    assert_eq!(called.code, Code::OutOfRange, "{}", called.message);
    let answer = server.post(vec![b' '; 101], &[]).await;
    assert_eq!(answer.status, 413);
    assert!(answer.json()["detail"].is_string());
}

#[tokio::test]
async fn what_is_not_served_says_so() {
    let server = golden_server();
    for path in [
        "/GrpcFeatureServer/Push",
        "/GrpcFeatureServer/WriteToOnlineStore",
        "/feast.serving.ServingService/Nope",
        "/nope.Service/Nope",
    ] {
        let called = server.call(path, b"", &[]).await;
        assert_eq!((called.http, called.code), (200, Code::Unimplemented), "{path}");
        assert!(!called.message.is_empty(), "{path}");
    }
}

#[tokio::test]
async fn what_feasts_sdk_makes_of_a_url_with_a_slash_is_understood() {
    let server = golden_server();
    let json = r#"{"features": ["short_ttl:v"], "entities": {"item_id": [1]}}"#;
    let request = Request::post("//get-online-features").body(Body::from(json)).unwrap();
    assert_eq!(server.ask(request).await.status, 200);
}

/// A store whose rows hold a kind of value that is not known here.
struct Newer;

#[async_trait]
impl OnlineStore for Newer {
    async fn read(&self, reads: &[ViewKeys<'_>], _: ReadOptions) -> Rows {
        let row = |view: &FeatureView| {
            let cells = view.features.iter().map(|_| Cell::Value(b"\xfa\x03\x01\x07"));
            Ok(Some(FeatureRow::new(cells, EventTimestamp::default())))
        };
        reads.iter().map(|read| read.keys.iter().map(|_| row(read.view)).collect()).collect()
    }

    async fn probe(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_kind_of_value_that_is_not_known_passes_grpc_and_is_null_and_counted_in_json() {
    let server = server_over(Arc::new(Newer), patient());
    let called = get(&server, SERVING, &request(&["short_ttl:v"], &[1])).await;
    assert_eq!(response(&called).results[1].values, [&b"\xfa\x03\x01\x07"[..]]);
    let json = r#"{"features": ["short_ttl:v"], "entities": {"item_id": [1, 2]}}"#;
    let answer = server.post(json, &[]).await;
    assert_eq!(answer.json()["results"][1]["values"], json!([null, null]));
    let text = server.metrics.render();
    assert!(text.contains("larder_undecodable_values_total 2"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_no_older_than_its_caller_wants() {
    let server = server_over(Arc::new(Newer), ApiSettings::default());
    let json = r#"{"features": ["short_ttl:v"], "entities": {"item_id": [1]}}"#;
    // What the caller wants, after five seconds each, and the age that is answered.
    for (wanted, age) in [
        (None, "0"),
        (None, "5000"),
        (Some("10000"), "10000"),
        (Some("14999"), "0"),
        (Some("0"), "0"),
    ] {
        let header = wanted.map(|millis| ("larder-max-age-ms", millis));
        let answer = server.post(json, header.as_slice()).await;
        assert_eq!((answer.status, &answer.headers["larder-age-ms"]), (200, &age.parse().unwrap()));
        advance(Duration::from_secs(5)).await;
    }
}

#[tokio::test]
async fn the_serving_info_has_larders_version() {
    let server = golden_server();
    let called = server.call("/feast.serving.ServingService/GetFeastServingInfo", b"", &[]).await;
    let info = GetFeastServingInfoResponse::decode(called.messages[0].clone()).unwrap();
    assert_eq!(info.version, env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn requests_are_counted_by_their_codes_and_values_by_their_views() {
    let server = golden_server();
    get(&server, SERVING, &request(&["short_ttl:v"], &[1, 9999])).await;
    get(&server, PYTHON, &request(&["nope:v"], &[1])).await;
    server.call(PYTHON, b"\x0a\xff", &[]).await;
    let json = r#"{"features": ["short_ttl:v"], "entities": {"item_id": [9999]}}"#;
    server.post(json, &[]).await;
    server.post("{", &[]).await;
    let text = server.metrics.render();
    for line in [
        r#"larder_requests_total{api="grpc",method="GetOnlineFeatures",code="OK"} 1"#,
        r#"larder_requests_total{api="grpc_python",method="GetOnlineFeatures",code="NOT_FOUND"} 1"#,
        r#"larder_requests_total{api="grpc_python",method="GetOnlineFeatures",code="INVALID_ARGUMENT"} 1"#,
        r#"larder_requests_total{api="http",method="GetOnlineFeatures",code="200"} 1"#,
        r#"larder_requests_total{api="http",method="GetOnlineFeatures",code="422"} 1"#,
        r#"feast_online_features_status_total{feature_view="short_ttl",status="present"} 1"#,
        r#"feast_online_features_status_total{feature_view="short_ttl",status="not_found"} 2"#,
        r#"feast_feature_server_request_total{endpoint="/get-online-features",status="success"} 2"#,
        r#"feast_feature_server_request_total{endpoint="/get-online-features",status="error"} 3"#,
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}
