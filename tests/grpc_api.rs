//! gRPC, from frame to frame: both services of Feast, metadata, deadlines, health, reflection.

mod api_fixture;

use std::{collections::BTreeMap, fs, sync::Arc};

use async_trait::async_trait;
use axum::body::Body;
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use larder::{
    api::ApiSettings,
    model::{Cell, EventTimestamp, FeatureView, RowBuilder},
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
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use api_fixture::{
    Called, Server, Setup, golden_registry, golden_server, grpc_request, messages, patient, store,
};

const SERVING: &str = "/feast.serving.ServingService/GetOnlineFeatures";
const PYTHON: &str = "/GrpcFeatureServer/GetOnlineFeatures";

/// A value as the wire has it.
fn encoded(value: Val) -> Bytes {
    Value { val: Some(value) }.encode_to_vec().into()
}

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

/// The names of a response, and its statuses as Feast's JSON has them.
fn names(response: &GetOnlineFeaturesResponse) -> &[String] {
    &response.metadata.as_ref().unwrap().feature_names.as_ref().unwrap().val
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

/// Reads protobuf's JSON of a request.
fn request_of(json: &Json) -> GetOnlineFeaturesRequest {
    let text = |json: &Json| json.as_str().unwrap().to_owned();
    let kind = match (&json["features"]["val"], &json["feature_service"]) {
        (Json::Array(list), _) => {
            Some(Kind::Features(FeatureList { val: list.iter().map(text).collect() }))
        }
        (_, Json::String(service)) => Some(Kind::FeatureService(service.clone())),
        _ => None,
    };
    let value = |json: &Json| match json.as_object().unwrap().iter().next().unwrap() {
        (kind, value) if kind == "int64_val" => {
            encoded(Val::Int64Val(text(value).parse().unwrap()))
        }
        (kind, value) if kind == "int32_val" => {
            encoded(Val::Int32Val(value.as_i64().unwrap().try_into().unwrap()))
        }
        (_, value) => encoded(Val::StringVal(text(value))),
    };
    let columns = |json: &Json| {
        let columns = json.as_object().into_iter().flatten();
        columns
            .map(|(name, column)| {
                let val = column["val"].as_array().unwrap().iter().map(value).collect();
                (name.clone(), EncodedValues { val })
            })
            .collect()
    };
    GetOnlineFeaturesRequest {
        kind,
        entities: columns(&json["entities"]),
        request_context: columns(&json["request_context"]),
        full_feature_names: json["full_feature_names"].as_bool().unwrap_or_default(),
        include_feature_view_version_metadata: json["include_feature_view_version_metadata"]
            .as_bool()
            .unwrap_or_default(),
    }
}

/// Writes protobuf's JSON of a response, of the kinds of value that the goldens have.
fn to_json(response: &GetOnlineFeaturesResponse) -> Json {
    let value = |value: &Bytes| match Value::decode(value.clone()).unwrap().val {
        None => json!({}),
        Some(Val::Int64Val(number)) => json!({"int64_val": number.to_string()}),
        Some(Val::Int32Val(number)) => json!({"int32_val": number}),
        Some(Val::DoubleVal(number)) => json!({"double_val": number}),
        Some(Val::StringVal(text)) => json!({"string_val": text}),
        Some(other) => panic!("{other:?}"),
    };
    let status = |status: &i32| {
        ["INVALID", "PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE"][*status as usize]
    };
    let time = |time: &prost_types::Timestamp| {
        jiff::Timestamp::new(time.seconds, time.nanos).unwrap().to_string()
    };
    let results: Vec<_> = response
        .results
        .iter()
        .map(|vector| {
            json!({
                "values": vector.values.iter().map(value).collect::<Vec<_>>(),
                "statuses": vector.statuses.iter().map(status).collect::<Vec<_>>(),
                "event_timestamps": vector.event_timestamps.iter().map(time).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({"metadata": {"feature_names": {"val": names(response)}}, "results": results})
}

/// The vectors of a response by their names: Feast's order differs from run to run.
fn by_name(json: &Json) -> BTreeMap<&str, &Json> {
    let names = json["metadata"]["feature_names"]["val"].as_array().unwrap();
    let results = json["results"].as_array().unwrap();
    assert_eq!(names.len(), results.len());
    names.iter().map(|name| name.as_str().unwrap()).zip(results).collect()
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
    let server = server_over(store::sqlite("tests/golden/http/fixture/online_store.db"), settings);
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

    let json = r#"{"features": ["short_ttl:v"], "entities": {"item_id": [1]}}"#;
    let answer = server.post(json, &[("larder-max-age-ms", "0")]).await;
    assert_eq!((answer.status, &answer.headers["larder-age-ms"]), (200, &"0".parse().unwrap()));
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
    let registry = Some(golden_registry("registry.db"));
    Server::start(Setup { store, kind: "sqlite", registry, settings })
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
            let mut row = RowBuilder::with_capacity(view.features.len(), 0);
            view.features.iter().for_each(|_| row.push(Cell::Value(b"\xfa\x03\x01\x07")));
            Ok(Some(row.finish(EventTimestamp::default())))
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

#[tokio::test]
async fn the_serving_info_has_larders_version() {
    let server = golden_server();
    let called = server.call("/feast.serving.ServingService/GetFeastServingInfo", b"", &[]).await;
    let info = GetFeastServingInfoResponse::decode(called.messages[0].clone()).unwrap();
    assert_eq!(info.version, env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn health_follows_the_registry() {
    const CHECK: &str = "/grpc.health.v1.Health/Check";
    let server = Server::start(Setup {
        store: Arc::new(Broken(None)),
        kind: "sqlite",
        registry: None,
        settings: patient(),
    });
    let check = async |service: &str| {
        let request = HealthCheckRequest { service: service.to_owned() };
        let called = server.call(CHECK, &request.encode_to_vec(), &[]).await;
        let message = called.messages.first();
        message
            .map(|message| HealthCheckResponse::decode(message.clone()).unwrap().status)
            .ok_or(called.code)
    };
    let http = async || server.ask(Request::get("/health").body(Body::empty()).unwrap()).await;
    const SERVICES: [&str; 3] = ["", "feast.serving.ServingService", "GrpcFeatureServer"];

    for service in SERVICES {
        assert_eq!(check(service).await, Ok(2), "{service}");
    }
    assert_eq!(http().await.status, 503);
    let called = get(&server, SERVING, &request(&["short_ttl:v"], &[1])).await;
    assert_eq!(called.code, Code::Unavailable);

    server.registry.publish(golden_registry("registry.db"));
    for service in SERVICES {
        assert_eq!(check(service).await, Ok(1), "{service}");
    }
    assert_eq!(http().await.status, 200);
    assert_eq!(check("nope").await, Err(Code::NotFound));
}

#[tokio::test(start_paused = true)]
async fn who_watches_health_is_told_of_a_change() {
    let server = Server::start(Setup {
        store: Arc::new(Broken(None)),
        kind: "sqlite",
        registry: None,
        settings: patient(),
    });
    let request = grpc_request("/grpc.health.v1.Health/Watch", b"", &[]);
    let mut body = server.send(request).await.into_body();
    let mut next = async || {
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        HealthCheckResponse::decode(messages(frame).remove(0)).unwrap().status
    };
    assert_eq!(next().await, 2);
    server.registry.publish(golden_registry("registry.db"));
    assert_eq!(next().await, 1);
}

#[tokio::test]
async fn reflection_shows_values_as_feast_declares_them() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, ServerReflectionResponse,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let server = golden_server();
    for version in ["v1", "v1alpha"] {
        // The messages of both versions are the same.
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let ask = async |request| {
            let request =
                ServerReflectionRequest { host: String::new(), message_request: Some(request) };
            let called = server.call(&path, &request.encode_to_vec(), &[]).await;
            let message = called.messages[0].clone();
            ServerReflectionResponse::decode(message).unwrap().message_response.unwrap()
        };
        let MessageResponse::ListServicesResponse(list) =
            ask(MessageRequest::ListServices(String::new())).await
        else {
            panic!("a list of services")
        };
        for service in
            ["feast.serving.ServingService", "GrpcFeatureServer", "grpc.health.v1.Health"]
        {
            assert!(list.service.iter().any(|known| known.name == service), "{service}");
        }
        let symbol = "feast.serving.GetOnlineFeaturesResponse".to_owned();
        let MessageResponse::FileDescriptorResponse(files) =
            ask(MessageRequest::FileContainingSymbol(symbol)).await
        else {
            panic!("a file")
        };
        let file = prost_types::FileDescriptorProto::decode(&*files.file_descriptor_proto[0]);
        let file = file.unwrap();
        let response = file.message_type.iter().find(|m| m.name() == "GetOnlineFeaturesResponse");
        let vector = &response.unwrap().nested_type[0];
        let values = vector.field.iter().find(|field| field.name() == "values").unwrap();
        assert_eq!(values.type_name(), ".feast.types.Value");
    }
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

mod hostile {
    use proptest::prelude::*;

    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    /// Text that looks like JSON for a request, with something wrong somewhere.
    fn nearly_json() -> impl Strategy<Value = String> {
        let word = prop_oneof![
            Just(r#"{"entities":{"item_id":[1,"#.to_owned()),
            Just(r#"]},"features":["short_ttl:v""#.to_owned()),
            Just(r#"],"feature_service":"fs_basic"}"#.to_owned()),
            Just(r#""\ud800""#.to_owned()),
            Just("\\u0000".to_owned()),
            Just("[".repeat(200)),
            Just("1e999".to_owned()),
            Just("123456789012345678901234567890".to_owned()),
            Just("null".to_owned()),
            Just("}".to_owned()),
            Just(",".to_owned()),
            any::<String>(),
        ];
        proptest::collection::vec(word, 0..8).prop_map(|words| words.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_body_is_a_server_error(body in nearly_json(), cut in any::<proptest::sample::Index>()) {
            let server = golden_server();
            let whole = r#"{"entities":{"item_id":[1,null,"x"]},"features":["short_ttl:v"]}"#;
            let part = &whole[..cut.index(whole.len())];
            for body in [body, part.to_owned()] {
                let answer = block_on(server.post(body.clone(), &[]));
                prop_assert!(answer.status < 500, "{} for {body}", answer.status);
                prop_assert!(serde_json::from_slice::<Json>(&answer.body).is_ok());
            }
        }

        #[test]
        fn no_message_is_a_fault_of_the_server(
            bytes: Vec<u8>,
            cut in any::<proptest::sample::Index>(),
            key: Vec<u8>,
        ) {
            let server = golden_server();
            let mut whole = request(&["short_ttl:v"], &[1]);
            let part = whole.encode_to_vec();
            whole.entities.get_mut("item_id").unwrap().val = vec![key.into()];
            for message in [&bytes, &part[..cut.index(part.len())], &whole.encode_to_vec()] {
                let called = block_on(server.call(SERVING, message, &[]));
                let fault = matches!(called.code, Code::Internal | Code::Unknown | Code::DataLoss);
                prop_assert!(!fault, "{called:?} for {message:x?}");
            }
        }
    }
}
