//! Callers: pre-encoded requests over gRPC, each answer timed.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use larder::pb::serving::{
    EncodedValues, FeatureList, GetOnlineFeaturesRequest, get_online_features_request::Kind,
};
use prost::Message;
use tokio::{net::UnixStream, task::JoinSet};
use tonic::{
    Request,
    client::Grpc,
    transport::{Channel, Endpoint},
};

use crate::{echo::RawCodec, server::Process};

/// Where a server listens.
#[derive(Clone)]
pub(crate) enum Target {
    Tcp(u16),
    Unix(PathBuf),
}

/// What is asked, and how.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    pub(crate) in_flight: usize,
    /// Entities a request.
    pub(crate) batch: usize,
    pub(crate) zipf: f64,
    pub(crate) duration: Duration,
    /// Whether the cache is passed by.
    pub(crate) cold: bool,
}

/// What was seen.
pub(crate) struct Outcome {
    /// In nanoseconds.
    pub(crate) latencies: Histogram<u64>,
    pub(crate) took: Duration,
    /// What the server used.
    pub(crate) cpu: Duration,
    pub(crate) rss_bytes: u64,
}

const METHOD: &str = "/feast.serving.ServingService/GetOnlineFeatures";

/// The quickstart's users are 1 to 2,000.
const USERS: usize = 2000;

const FEATURES: &[&str] = &[
    "user_profile:age",
    "user_profile:country",
    "user_profile:plan",
    "user_profile:orders",
    "user_profile:churn_risk",
    "user_profile:embedding",
    "user_activity:clicks",
    "user_activity:dwell",
    "user_activity:last_item",
];

impl Target {
    /// A word for the table.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "TCP",
            Self::Unix(_) => "Unix",
        }
    }

    async fn connect(&self) -> Channel {
        let endpoint = |uri: String| Endpoint::from_shared(uri).expect("a legal URI");
        match self {
            Self::Tcp(port) => {
                endpoint(format!("http://127.0.0.1:{port}")).tcp_nodelay(true).connect().await
            }
            Self::Unix(path) => {
                let path = path.clone();
                let connect = tower::service_fn(move |_| {
                    let path = path.clone();
                    async move { UnixStream::connect(path).await.map(TokioIo::new) }
                });
                endpoint("http://localhost".to_owned()).connect_with_connector(connect).await
            }
        }
        .expect("the server accepts connections")
    }
}

impl Load {
    /// The same for a moment.
    pub(crate) fn shortly(&self) -> Self {
        Self { duration: Duration::from_secs(1), ..self.clone() }
    }
}

/// Runs a load, and says what was seen.
pub(crate) async fn run(target: &Target, load: &Load, process: &Process) -> Outcome {
    let requests: Arc<[Bytes]> = (0..512).map(|_| request(load)).collect();
    let mut callers = JoinSet::new();
    let (cpu, begun) = (process.cpu(), Instant::now());
    for connection in 0..load.connections {
        let channel = target.connect().await;
        for caller in 0..load.in_flight {
            let first = (connection * load.in_flight + caller) * 37;
            let (channel, requests, load) = (channel.clone(), Arc::clone(&requests), load.clone());
            callers.spawn(call(channel, requests, first, load, begun));
        }
    }
    let mut latencies = histogram();
    while let Some(seen) = callers.join_next().await {
        latencies.add(seen.expect("a caller ends")).expect("all have the same bounds");
    }
    let took = begun.elapsed();
    Outcome { latencies, took, cpu: process.cpu() - cpu, rss_bytes: process.rss_bytes() }
}

/// Gives the echo server an answer of larder's to give back.
pub(crate) async fn prime_echo(echo: &Target, load: &Load, larder: &Target) {
    let mut asked = Grpc::new(larder.connect().await);
    let answer = send(&mut asked, METHOD, request(load), false).await;
    let mut echo = Grpc::new(echo.connect().await);
    send(&mut echo, "/echo/Prime", answer, false).await;
}

async fn call(
    channel: Channel,
    requests: Arc<[Bytes]>,
    first: usize,
    load: Load,
    begun: Instant,
) -> Histogram<u64> {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(64 << 20);
    let mut latencies = histogram();
    for number in first.. {
        let asked = Instant::now();
        if asked - begun >= load.duration {
            break;
        }
        let request = requests[number % requests.len()].clone();
        send(&mut grpc, METHOD, request, load.cold).await;
        latencies.saturating_record(asked.elapsed().as_nanos() as u64);
    }
    latencies
}

async fn send(grpc: &mut Grpc<Channel>, method: &'static str, body: Bytes, cold: bool) -> Bytes {
    grpc.ready().await.expect("the connection stands");
    let mut request = Request::new(body);
    if cold {
        let wishes = request.metadata_mut();
        wishes.insert("larder-max-age-ms", "0".parse().expect("a number"));
        // Else a read that takes long is answered from the cache.
        wishes.insert("larder-allow-stale", "false".parse().expect("a word"));
    }
    let path = PathAndQuery::from_static(method);
    let answer = grpc.unary(request, path, RawCodec).await.expect("every request is answered");
    // The echo says nothing of the kind.
    let said = answer.metadata();
    assert!(said.get("larder-stale-rows").is_none_or(|rows| rows == "0"), "stale: {said:?}");
    assert!(said.get("larder-unavailable-views").is_none(), "rows are missing: {said:?}");
    answer.into_inner()
}

fn request(load: &Load) -> Bytes {
    let value = |user: usize| {
        let mut value = vec![0x20];
        larder::model::wire::put_varint(user as u64, &mut value);
        Bytes::from(value)
    };
    let users = (0..load.batch).map(|_| value(draw(load.zipf))).collect();
    let features = FEATURES.iter().map(|name| (*name).to_owned()).collect();
    let request = GetOnlineFeaturesRequest {
        kind: Some(Kind::Features(FeatureList { val: features })),
        entities: [("user_id".to_owned(), EncodedValues { val: users })].into(),
        ..GetOnlineFeaturesRequest::default()
    };
    request.encode_to_vec().into()
}

/// A user, by Zipf's law: inverse transform over the weights, which are few.
fn draw(exponent: f64) -> usize {
    let weight = |rank: usize| (rank as f64).powf(-exponent);
    let total: f64 = (1..=USERS).map(weight).sum();
    let mut left = fastrand::f64() * total;
    (1..=USERS)
        .find(|rank| {
            left -= weight(*rank);
            left <= 0.0
        })
        .unwrap_or(USERS)
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 60_000_000_000, 3).expect("legal bounds")
}
