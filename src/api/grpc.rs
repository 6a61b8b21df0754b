//! `feast.serving.ServingService`, and the same under the name that Feast's Python server has.

use std::{any::Any, borrow::Cow, convert::Infallible, sync::Arc};

use axum::{
    Router,
    extract::{Request as HttpRequest, State},
    response::{IntoResponse, Response as HttpResponse},
    routing::post,
};
use http::HeaderMap;
use tokio::time::Instant;
use tonic::{
    Code, Request, Response, Status,
    codegen::{BoxFuture, Service},
    server::{Grpc, NamedService, UnaryService},
};
use tonic_health::pb::health_server::HealthServer;
use tonic_prost::ProstCodec;
use tower_http::catch_panic::CatchPanicLayer;

use super::{
    call::{Answered, Api, Call},
    codec::OnlineCodec,
    health::HealthService,
    message::Message,
    status::{Failure, name_of},
    wire::{Fields, Malformed, Wire},
};
use crate::{
    pb::{
        DESCRIPTORS,
        serving::{
            EncodedValues, GetFeastServingInfoRequest, GetFeastServingInfoResponse,
            GetOnlineFeaturesRequest, get_online_features_request::Kind,
        },
    },
    proxy::{Coercion, Column, Dialect, KeyValue, Select, TtlOnRead},
};

/// The routes of all gRPC services.
pub(super) fn routes(api: &Arc<Api>) -> Router {
    let ttl = api.state.settings.ttl_on_read;
    let feast = |name, ttl_on_read| Flavor { name, ttl_on_read };
    let (own, python) = (feast("grpc", ttl.grpc), feast("grpc_python", ttl.python_grpc));
    let online = |flavor| post(move |State(api), request| online_features(api, flavor, request));
    let routes = Router::new()
        .route("/feast.serving.ServingService/GetOnlineFeatures", online(own))
        .route("/GrpcFeatureServer/GetOnlineFeatures", online(python))
        .route("/feast.serving.ServingService/GetFeastServingInfo", post(serving_info))
        .route("/GrpcFeatureServer/Push", post(no_writes))
        .route("/GrpcFeatureServer/WriteToOnlineStore", post(no_writes))
        .with_state(Arc::clone(api));
    let health = HealthServer::new(HealthService(Arc::clone(api)));
    reflect(serve(routes, health)).layer(CatchPanicLayer::custom(panicked))
}

/// What an unknown method is answered.
pub(super) fn unknown_method(path: &str) -> HttpResponse {
    refuse(Status::unimplemented(format!("unknown method `{path}`")))
}

/// By which name Feast's service was called.
#[derive(Clone, Copy)]
struct Flavor {
    /// In metrics.
    name: &'static str,
    ttl_on_read: TtlOnRead,
}

async fn online_features(api: Arc<Api>, flavor: Flavor, request: HttpRequest) -> HttpResponse {
    let began = Instant::now();
    let service = OnlineFeatures { api: Arc::clone(&api), flavor, began };
    let max_body_bytes = api.state.settings.max_body_bytes;
    let response = Grpc::new(OnlineCodec)
        .apply_max_message_size_config(Some(max_body_bytes), None)
        .unary(service, request)
        .await;
    // Only errors are in the headers: what comes after a message is in the trailers.
    let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
    if code != Code::Ok {
        api.state.metrics.feast_request(false, 0);
    }
    api.count_request(flavor.name, "GetOnlineFeatures", name_of(code), began);
    response.into_response()
}

struct OnlineFeatures {
    api: Arc<Api>,
    flavor: Flavor,
    began: Instant,
}

impl UnaryService<GetOnlineFeaturesRequest> for OnlineFeatures {
    type Response = Message;
    type Future = BoxFuture<Response<Message>, Status>;

    fn call(&mut self, request: Request<GetOnlineFeaturesRequest>) -> Self::Future {
        let (api, flavor, began) = (Arc::clone(&self.api), self.flavor, self.began);
        Box::pin(async move {
            let (metadata, _, request) = request.into_parts();
            let answered = match to_call(&request, metadata.as_ref(), &api, flavor) {
                Ok(call) => api.answer(call).await,
                Err(failure) => Err(failure),
            };
            let Answered { answers, headers } =
                answered.map_err(|failure| failure.to_status(&api.state.registry_status))?;
            let view_metadata = request.include_feature_view_version_metadata;
            let message = Message::new(answers, view_metadata, |answers, tally| {
                api.count_answer(answers, tally, began.elapsed());
            });
            let mut response = Response::new(message);
            response.metadata_mut().as_mut().extend(headers);
            Ok(response)
        })
    }
}

/// Reads a request. `request_context` is for computed features, which are not served.
fn to_call<'a>(
    request: &'a GetOnlineFeaturesRequest,
    headers: &'a HeaderMap,
    api: &Api,
    flavor: Flavor,
) -> Result<Call<'a>, Failure> {
    let select = match &request.kind {
        Some(Kind::FeatureService(service)) => Select::Service(service.into()),
        Some(Kind::Features(list)) => Select::Features(list.val.iter().map(Cow::from).collect()),
        None => Select::Features(Vec::new()),
    };
    let column = |(name, values): (&'a String, &'a EncodedValues)| {
        let values = values.val.iter().enumerate().map(|(row, value)| {
            key_of(value).map_err(|Malformed| Failure::UndecodableKey { column: name.clone(), row })
        });
        Ok(Column { name: name.into(), values: values.collect::<Result<_, Failure>>()? })
    };
    Ok(Call {
        select,
        columns: request.entities.iter().map(column).collect::<Result<_, Failure>>()?,
        full_names: request.full_feature_names,
        dialect: Dialect {
            ttl_on_read: flavor.ttl_on_read,
            status: api.state.settings.status,
            coercion: Coercion::Lossless,
        },
        headers,
    })
}

/// The value of a join key, out of a serialized `feast.types.Value`.
fn key_of(value: &[u8]) -> Result<KeyValue<'_>, Malformed> {
    Ok(match Fields(value).last_of()? {
        // The last is `null_val`, which Feast itself never writes.
        None | Some((19, _)) => KeyValue::Null,
        Some((1, Wire::Bytes(bytes))) => KeyValue::Bytes(bytes.into()),
        Some((2, Wire::Bytes(text))) => {
            KeyValue::String(str::from_utf8(text).map_err(|_| Malformed)?.into())
        }
        Some((3, Wire::Varint(number))) => KeyValue::Int32(number as i32),
        Some((4, Wire::Varint(number))) => KeyValue::Int64(number as i64),
        Some((5, Wire::Fixed64(bytes))) => KeyValue::Float(f64::from_le_bytes(bytes)),
        Some((6, Wire::Fixed32(bytes))) => KeyValue::Float(f32::from_le_bytes(bytes).into()),
        Some((7, Wire::Varint(truth))) => KeyValue::Bool(truth != 0),
        Some((8, Wire::Varint(seconds))) => KeyValue::UnixTimestamp(seconds as i64),
        Some((1..=8, _)) => return Err(Malformed),
        Some(_) => KeyValue::Other("a value that is no scalar"),
    })
}

async fn serving_info(request: HttpRequest) -> HttpResponse {
    struct Info;
    impl UnaryService<GetFeastServingInfoRequest> for Info {
        type Response = GetFeastServingInfoResponse;
        type Future = std::future::Ready<Result<Response<Self::Response>, Status>>;

        fn call(&mut self, _: Request<GetFeastServingInfoRequest>) -> Self::Future {
            let version = env!("CARGO_PKG_VERSION").to_owned();
            std::future::ready(Ok(Response::new(GetFeastServingInfoResponse { version })))
        }
    }
    let codec = ProstCodec::<GetFeastServingInfoResponse, GetFeastServingInfoRequest>::default();
    Grpc::new(codec).unary(Info, request).await.into_response()
}

async fn no_writes() -> HttpResponse {
    refuse(Status::unimplemented(
        "larder only reads; write through Feast's own server, or with its SDK into the store",
    ))
}

fn refuse(status: Status) -> HttpResponse {
    status.into_http::<tonic::body::Body>().into_response()
}

fn panicked(_: Box<dyn Any + Send>) -> HttpResponse {
    refuse(Status::internal("larder failed to answer; its log says more"))
}

/// Adds a whole service to the routes.
fn serve<S>(routes: Router, service: S) -> Router
where
    S: Service<HttpRequest, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
    S::Response: IntoResponse,
    S::Future: Send + 'static,
{
    routes.route_service(&format!("/{}/{{*method}}", S::NAME), service)
}

/// Adds reflection, under both of its names: grpcurl then needs no files.
fn reflect(routes: Router) -> Router {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let routes = serve(routes, builder().build_v1().expect(DESCRIPTORS_DECODE));
    serve(routes, builder().build_v1alpha().expect(DESCRIPTORS_DECODE))
}

const DESCRIPTORS_DECODE: &str = "the descriptors were made with the messages";

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &[u8], expected: Result<KeyValue<'_>, Malformed>) {
        assert_eq!(key_of(value), expected, "{value:x?}");
    }

    #[test]
    fn keys_are_taken_in_the_type_in_which_they_were_sent() {
        check(b"", Ok(KeyValue::Null));
        check(b"\x98\x01\0", Ok(KeyValue::Null));
        check(b"\x0a\x01\xff", Ok(KeyValue::Bytes((&b"\xff"[..]).into())));
        check(b"\x12\x01a", Ok(KeyValue::String("a".into())));
        check(b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", Ok(KeyValue::Int32(-1)));
        check(b"\x20\x01", Ok(KeyValue::Int64(1)));
        check(b"\x29\0\0\0\0\0\0\xf8\x3f", Ok(KeyValue::Float(1.5)));
        check(b"\x35\0\0\xc0\x3f", Ok(KeyValue::Float(1.5)));
        check(b"\x38\x01", Ok(KeyValue::Bool(true)));
        check(b"\x40\x07", Ok(KeyValue::UnixTimestamp(7)));
        // Of two members of a oneof the last counts.
        check(b"\x20\x01\x20\x02", Ok(KeyValue::Int64(2)));
    }

    #[test]
    fn what_is_no_key_is_told_from_what_is_no_value() {
        check(b"\x62\0", Ok(KeyValue::Other("a value that is no scalar")));
        check(b"\x12\x01\xff", Err(Malformed));
        check(b"\x12\x05a", Err(Malformed));
        check(b"\x20", Err(Malformed));
        check(b"\x22\0", Err(Malformed));
    }
}
