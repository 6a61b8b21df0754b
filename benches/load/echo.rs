//! What larder is measured against: the same listener and gRPC stack, and an answer that is ready.

use std::{convert::Infallible, future::Ready, sync::Arc};

use axum::{Router, extract::Request as HttpRequest, routing::post};
use bytes::{Buf, BufMut, Bytes};
use larder::net::{ListenAddress, Listener, Routes, Server};
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{Grpc, UnaryService},
};

/// Serves until killed. `/echo/Prime` sets the answer to every other method.
pub(crate) async fn serve(port: u16) {
    let answer = Arc::<RwLock<Bytes>>::default();
    let primed = Arc::clone(&answer);
    let prime = move |request: HttpRequest| {
        let service = Echo { answer: Arc::clone(&primed), prime: true };
        async move { Ok::<_, Infallible>(Grpc::new(RawCodec).unary(service, request).await) }
    };
    let give_back = move |request: HttpRequest| {
        let service = Echo { answer: Arc::clone(&answer), prime: false };
        async move { Ok::<_, Infallible>(Grpc::new(RawCodec).unary(service, request).await) }
    };
    let router = Router::new().route("/echo/Prime", post(prime)).fallback(give_back);
    let stop = CancellationToken::new();
    let server = Server::new(stop.clone());
    let address = ListenAddress::Tcp(([127, 0, 0, 1], port).into());
    let listener = Listener::bind(&address, 0o600).expect("the port is free");
    server.serve(std::future::ready(listener), Routes::new(router));
    stop.cancelled().await;
}

struct Echo {
    answer: Arc<RwLock<Bytes>>,
    prime: bool,
}

impl UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        if self.prime {
            *self.answer.write() = request.into_inner();
        }
        std::future::ready(Ok(Response::new(self.answer.read().clone())))
    }
}

/// Messages as they are on the wire.
#[derive(Clone, Copy, Default)]
pub(crate) struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
