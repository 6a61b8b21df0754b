//! What is served at the listeners: a router that can be replaced while they are open.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use axum::{Router, response::Response, routing::future::RouteFuture};
use http::Request;
use hyper::body::Incoming;
use tower::Service;

/// The router in force. Clones have the same one; connections that are open get a new one, too.
#[derive(Clone)]
pub struct Routes(Arc<ArcSwap<Router>>);

impl Routes {
    /// Begins with this one.
    pub fn new(router: Router) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(router)))
    }

    /// Answers with this one from now on; requests under way keep theirs.
    pub fn replace(&self, router: Router) {
        self.0.store(Arc::new(router));
    }
}

impl Service<Request<Incoming>> for Routes {
    type Response = Response;
    type Error = Infallible;
    type Future = RouteFuture<Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        Router::clone(&self.0.load()).call(request)
    }
}
