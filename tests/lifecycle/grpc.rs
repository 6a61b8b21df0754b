//! gRPC over a Unix socket, down to the frames' end: what a library would hide.

use std::{future::poll_fn, path::Path};

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, SendStream, client::SendRequest};
use http::{HeaderMap, Request};
use prost::Message;
use tokio::{net::UnixStream, task::JoinHandle, time::timeout};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::world::LONG;

/// A connection.
pub(crate) struct Client {
    requests: SendRequest<Bytes>,
    /// Ends with the connection.
    connection: JoinHandle<Result<(), h2::Error>>,
}

/// A call whose message was not sent yet.
pub(crate) struct Call {
    body: SendStream<Bytes>,
    response: h2::client::ResponseFuture,
}

/// What a call ended with.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: String,
    pub(crate) why: String,
    pub(crate) message: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).await.unwrap();
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        Self { requests, connection: tokio::spawn(connection) }
    }

    pub(crate) async fn begin(&mut self, path: &str) -> Call {
        poll_fn(|context| self.requests.poll_ready(context)).await.unwrap();
        let request = Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (response, body) = self.requests.send_request(request, false).unwrap();
        Call { body, response }
    }

    /// Waits until the other side has told it to go, or has gone: it may be just saying something.
    pub(crate) async fn goes(self) {
        let ended = timeout(LONG, self.connection).await.expect("it is told to go").unwrap();
        if let Err(error) = ended {
            assert!(error.is_go_away() || error.is_io(), "{error}");
        }
    }

    /// What the health of a service is: 1 for serving.
    pub(crate) async fn health(&mut self, service: &str) -> i32 {
        let call = self.begin("/grpc.health.v1.Health/Check").await;
        let ended = call.finish(&HealthCheckRequest { service: service.to_owned() }).await;
        assert_eq!(ended.code, "0", "{ended:?}");
        HealthCheckResponse::decode(&*ended.message).unwrap().status
    }
}

impl Call {
    pub(crate) async fn finish(mut self, message: &impl Message) -> Ended {
        let message = message.encode_to_vec();
        let mut frame = BytesMut::from(&[0][..]);
        frame.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(&message);
        self.body.send_data(frame.freeze(), true).unwrap();
        timeout(LONG, self.read()).await.expect("an answer comes")
    }

    async fn read(self) -> Ended {
        let (head, mut body) = self.response.await.unwrap().into_parts();
        let (message, trailers) = read(&mut body).await;
        let said = |name: &str| {
            let value = head.headers.get(name).or_else(|| trailers.get(name));
            value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
        };
        let message = message.get(5..).unwrap_or_default().to_vec();
        Ended { code: said("grpc-status"), why: said("grpc-message"), message }
    }
}

async fn read(body: &mut RecvStream) -> (Vec<u8>, HeaderMap) {
    let mut message = Vec::new();
    while let Some(data) = body.data().await {
        message.extend_from_slice(&data.unwrap());
    }
    (message, body.trailers().await.unwrap().unwrap_or_default())
}
