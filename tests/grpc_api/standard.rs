//! The services that gRPC has for everyone: health and reflection.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use larder::{
    model::KeyEncoding,
    registry::{
        DecodeOptions, FetchLimits, RefreshSettings, Refresher, RegistryHandle, RegistrySettings,
        RegistrySource, StatusHandle,
    },
};
use prost::Message;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::{
    SERVING,
    api_fixture::{Server, Setup, golden_registry, golden_server, grpc_request, messages},
    get, request,
};

/// A server that has not loaded a registry.
fn without_registry(registry_status: StatusHandle) -> Server {
    Server::start(Setup { registry: None, registry_status, ..Setup::default() })
}

#[tokio::test]
async fn health_follows_the_registry() {
    const CHECK: &str = "/grpc.health.v1.Health/Check";
    let server = without_registry(StatusHandle::default());
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

#[tokio::test]
async fn without_a_registry_the_reason_is_told() {
    let options = DecodeOptions {
        project: "repo1".into(),
        key_encoding: KeyEncoding::V3,
        versioning: false,
        versioned_store: true,
        routing: None,
    };
    let settings = RefreshSettings {
        interval: Duration::from_secs(60),
        first_retry: Duration::from_secs(1),
        now_unix: || 0,
    };
    let nowhere = RegistrySettings::File("tests/golden/nowhere.db".into());
    let source = RegistrySource::new(nowhere, "p".into(), FetchLimits::default()).unwrap();
    let handle = Arc::new(RegistryHandle::default());
    let mut refresher = Refresher::new(source, options, settings, handle);
    assert!(!refresher.refresh().await);

    let server = without_registry(refresher.status());
    let called = get(&server, SERVING, &request(&["short_ttl:v"], &[1])).await;
    assert_eq!(called.code, Code::Unavailable);
    assert!(called.message.contains("nowhere.db"), "{}", called.message);
    let json = r#"{"features": ["short_ttl:v"], "entities": {"item_id": [1]}}"#;
    let answer = server.post(json, &[]).await;
    assert_eq!((answer.status, &answer.headers["retry-after"]), (503, &"1".parse().unwrap()));
    assert!(answer.text().contains("nowhere.db"), "{}", answer.text());
}

#[tokio::test(start_paused = true)]
async fn who_watches_health_is_told_of_a_change() {
    let server = without_registry(StatusHandle::default());
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
