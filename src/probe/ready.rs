//! Asks gRPC health whether larder's start is done: `larder.startup`.

use std::{io, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use h2::RecvStream;
use http::{HeaderMap, Request};
use prost::Message;
use tokio::time;
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
};

use super::connect;
use crate::net::ListenAddress;

/// Who asks is asked by a kubelet, which waits not much longer.
const TIMEOUT: Duration = Duration::from_secs(1);

const SERVICE: &str = "larder.startup";

/// An answer has some bytes.
const MAX_ANSWER_BYTES: usize = 4096;

/// Why larder is not known to be ready.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// Nobody is there, or nobody who may be asked.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// It does not speak HTTP/2, or broke off.
    #[error("cannot be asked: {0}")]
    Protocol(#[from] h2::Error),
    /// It did not answer in time.
    #[error("does not answer within 1 s")]
    TimedOut,
    /// It answered something else than a gRPC message.
    #[error("{0}")]
    Refused(String),
    /// It says that it is not.
    #[error("is starting: there is no feature registry yet, or a listener is not open")]
    Starting,
}

/// Asks once, for 1 s at most.
///
/// # Errors
///
/// Unless the answer is that the start is done.
pub async fn ready(address: &ListenAddress) -> Result<(), NotReady> {
    time::timeout(TIMEOUT, ask(address)).await.unwrap_or(Err(NotReady::TimedOut))
}

async fn ask(address: &ListenAddress) -> Result<(), NotReady> {
    let stream = connect(address).await.map_err(NotReady::Connect)?;
    let (client, connection) = h2::client::handshake(stream).await?;
    let answer = async {
        let mut client = client.ready().await?;
        let request = Request::post("http://localhost/grpc.health.v1.Health/Check")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .expect("the request is well-formed");
        let (response, mut body) = client.send_request(request, false)?;
        body.send_data(framed(&HealthCheckRequest { service: SERVICE.to_owned() }), true)?;
        let (head, body) = response.await?.into_parts();
        let (message, trailers) = read(body).await?;
        judge(&head.headers, &message, trailers.as_ref())
    };
    tokio::select! {
        answer = answer => answer,
        // It ends while somebody waits for an answer only if it breaks.
        ended = connection => match ended {
            Ok(()) => Err(NotReady::Refused("hung up".to_owned())),
            Err(error) => Err(error.into()),
        },
    }
}

/// A message as gRPC sends it: not compressed, its length before it.
fn framed(message: &impl Message) -> Bytes {
    let bytes = message.encode_to_vec();
    let mut frame = BytesMut::with_capacity(5 + bytes.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(bytes.len()).expect("a name is short"));
    frame.extend_from_slice(&bytes);
    frame.freeze()
}

async fn read(mut body: RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), NotReady> {
    let mut message = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        if message.len() + data.len() > MAX_ANSWER_BYTES {
            return Err(NotReady::Refused("answers more than health is".to_owned()));
        }
        message.extend_from_slice(&data);
    }
    Ok((message, body.trailers().await?))
}

/// What an answer says. An error has its code in the headers, or behind the message.
fn judge(
    headers: &HeaderMap,
    message: &[u8],
    trailers: Option<&HeaderMap>,
) -> Result<(), NotReady> {
    let said = |name: &str| {
        let value = headers.get(name).or_else(|| trailers?.get(name))?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    match said("grpc-status").as_deref() {
        Some("0") => {}
        Some(code) => {
            let why = said("grpc-message").unwrap_or_default();
            return Err(NotReady::Refused(format!("answers with gRPC code {code}: {why}")));
        }
        None => return Err(NotReady::Refused("answers, but not as gRPC does".to_owned())),
    }
    let response = message.get(5..).map(HealthCheckResponse::decode);
    match response {
        Some(Ok(response)) if response.status() == ServingStatus::Serving => Ok(()),
        Some(Ok(_)) => Err(NotReady::Starting),
        _ => Err(NotReady::Refused("answers with what is no health".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn health(status: ServingStatus) -> Bytes {
        framed(&HealthCheckResponse { status: status.into() })
    }

    #[test]
    fn only_serving_is_ready() {
        let (none, ok) = (headers(&[]), headers(&[("grpc-status", "0")]));
        let answer = |status| judge(&none, &health(status), Some(&ok));
        answer(ServingStatus::Serving).unwrap();
        assert!(matches!(answer(ServingStatus::NotServing), Err(NotReady::Starting)));
        assert!(matches!(answer(ServingStatus::Unknown), Err(NotReady::Starting)));
    }

    #[test]
    fn what_is_no_health_is_told() {
        let none = headers(&[]);
        let code = headers(&[("grpc-status", "5"), ("grpc-message", "unknown service")]);
        for (head, message, trailers, expected) in [
            (&code, &b""[..], None, "gRPC code 5: unknown service"),
            (&none, &b""[..], Some(&code), "gRPC code 5: unknown service"),
            (&none, &health(ServingStatus::Serving)[..], None, "not as gRPC does"),
            (&headers(&[("grpc-status", "0")]), &b"\0\0"[..], None, "no health"),
            (&headers(&[("grpc-status", "0")]), &b"\0\0\0\0\x02\xff\xff"[..], None, "no health"),
        ] {
            let error = judge(head, message, trailers).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
