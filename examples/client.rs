//! Asks larder for features with tonic, over TCP or over its Unix socket.
//!
//! ```sh
//! cargo run --example client -- http://127.0.0.1:6566 rides:count rider_id 3
//! cargo run --example client -- /run/larder/larder.sock rides:count rider_id 3
//! ```
//!
//! In a pod the first argument is `$LARDER_URL` or `$LARDER_SOCKET`. An application has its client
//! generated from `proto/` by tonic-prost-build; what that client does is spelled out here.

use std::{collections::BTreeMap, env, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use hyper_util::rt::TokioIo;
use larder::pb::{
    serving::{
        EncodedValues, FeatureList, GetOnlineFeaturesRequest, GetOnlineFeaturesResponse,
        get_online_features_request::Kind,
    },
    types::{Value, value::Val},
};
use prost::Message;
use tokio::net::UnixStream;
use tonic::{
    Request,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tower::service_fn;

const METHOD: &str = "/feast.serving.ServingService/GetOnlineFeatures";

/// A channel that connects when it is first used, and again whenever larder was restarted.
fn channel(target: &str) -> anyhow::Result<Channel> {
    if target.starts_with("http://") {
        return Ok(Endpoint::from_shared(target.to_owned())?.tcp_nodelay(true).connect_lazy());
    }
    // The URI only gives the requests their authority; the connector knows where to go.
    let path = PathBuf::from(target);
    let connect = service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Ok(Endpoint::from_static("http://localhost").connect_with_connector_lazy(connect))
}

fn request(feature: &str, join_key: &str, id: i64) -> GetOnlineFeaturesRequest {
    let id = Value { val: Some(Val::Int64Val(id)) }.encode_to_vec();
    GetOnlineFeaturesRequest {
        kind: Some(Kind::Features(FeatureList { val: vec![feature.to_owned()] })),
        entities: BTreeMap::from([(join_key.to_owned(), EncodedValues { val: vec![id.into()] })]),
        ..Default::default()
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [target, feature, join_key, id] = &arguments[..] else {
        bail!("usage: client URL|SOCKET FEATURE JOIN_KEY ID");
    };
    let mut request = Request::new(request(feature, join_key, id.parse().context("ID")?));
    request.set_timeout(Duration::from_secs(5));

    let mut client = Grpc::new(channel(target)?);
    client.ready().await.with_context(|| format!("cannot connect to {target}"))?;
    let codec =
        tonic_prost::ProstCodec::<GetOnlineFeaturesRequest, GetOnlineFeaturesResponse>::default();
    let answer = client.unary(request, PathAndQuery::from_static(METHOD), codec).await?;

    println!("metadata: {:?}", answer.metadata());
    let answer = answer.into_inner();
    let names = answer.metadata.and_then(|metadata| metadata.feature_names).unwrap_or_default();
    for (name, column) in names.val.iter().zip(&answer.results) {
        let values: Result<Vec<_>, _> =
            column.values.iter().map(|value| Value::decode(value.clone())).collect();
        println!("{name}: {:?}", values?);
    }
    Ok(())
}
