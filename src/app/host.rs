//! The listeners, and what is served at them: nothing as yet, or a whole larder.

use std::{error::Error, future::ready, mem, sync::Arc, time::Duration};

use axum::Router;
use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::{task, time};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::served::Served;
use crate::{
    api::{
        self, ApiState, InFlight, Lifecycle, Opening,
        admin::{self, AdminState},
    },
    clock,
    config::ProcessSettings,
    metrics::Metrics,
    net::{BindError, ListenAddress, Listener, Routes, Server, Serving},
};

/// An address that cannot be listened at is tried again after this, and ever more rarely.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// What becomes of an address that cannot be listened at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnBindError {
    /// It ends the start.
    Stop,
    /// It is tried again and again, while the others are served.
    Retry,
}

/// Listens, and serves what it is given.
pub(super) struct Host {
    pub(super) metrics: Arc<Metrics>,
    lifecycle: Arc<Lifecycle>,
    stop: CancellationToken,
    stop_admin: CancellationToken,
    server: Server,
    admin_server: Server,
    routes: Routes,
    admin_routes: Routes,
    doors: Vec<(Door, Serving)>,
    grace: Duration,
}

/// An address, and how it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Door {
    address: ListenAddress,
    /// Permissions, of a Unix socket.
    unix_mode: u32,
    is_admin: bool,
}

impl Host {
    /// Listens nowhere yet, and serves nothing: before the first address, it has to be told what.
    pub(super) fn new(metrics: Arc<Metrics>, lifecycle: Arc<Lifecycle>) -> Self {
        let (stop, stop_admin) = (CancellationToken::new(), CancellationToken::new());
        Self {
            server: Server::new(stop.clone()),
            admin_server: Server::new(stop_admin.clone()),
            routes: Routes::new(Router::new()),
            admin_routes: Routes::new(Router::new()),
            doors: Vec::new(),
            grace: Duration::ZERO,
            metrics,
            lifecycle,
            stop,
            stop_admin,
        }
    }

    /// Serves this from now on, on connections that are open, too.
    pub(super) fn serve(&self, served: Served) {
        let in_flight = Arc::new(InFlight::at_most(served.settings.max_in_flight));
        self.routes.replace(api::router(ApiState {
            proxy: Arc::clone(&served.proxy),
            metrics: Arc::clone(&self.metrics),
            registry: Arc::clone(&served.registry),
            registry_status: served.registry_status.clone(),
            lifecycle: Arc::clone(&self.lifecycle),
            in_flight: Arc::clone(&in_flight),
            settings: served.settings,
        }));
        self.admin_routes.replace(admin::router(AdminState {
            proxy: served.proxy,
            metrics: Arc::clone(&self.metrics),
            registry: served.registry,
            registry_status: served.registry_status,
            in_flight,
            lifecycle: Arc::clone(&self.lifecycle),
            connections: Box::new(self.server.connections()),
            now: clock::now,
        }));
    }

    /// Listens where these settings say and nowhere else. What is open already stays so.
    pub(super) async fn listen_at(
        &mut self,
        process: &ProcessSettings,
        on_error: OnBindError,
    ) -> Result<(), BindError> {
        self.lifecycle.set_max_wait(process.startup_max_wait);
        self.grace = process.shutdown_grace;
        let wanted = Door::all(process);
        let doors = mem::take(&mut self.doors).into_iter();
        let (kept, closed) = doors.partition::<Vec<_>, _>(|(door, _)| wanted.contains(door));
        self.doors = kept;
        for (door, serving) in closed {
            info!(address = %door.address, "no longer serving");
            serving.close().await;
        }
        let is_open = |wanted: &Door| self.doors.iter().any(|(door, _)| door == wanted);
        let missing = wanted.into_iter().filter(|door| !is_open(door));
        // All are counted before the first can answer that all are open.
        let missing: Vec<_> = missing.map(|door| (door, self.lifecycle.opening())).collect();
        match on_error {
            OnBindError::Stop => {
                let mut listeners = Vec::with_capacity(missing.len());
                for (door, _) in &missing {
                    listeners.push(door.bind().await?);
                }
                for ((door, opening), listener) in missing.into_iter().zip(listeners) {
                    self.open(door, opening, ready(listener));
                }
            }
            OnBindError::Retry => {
                for (door, opening) in missing {
                    self.open(door.clone(), opening, door.bind_in_the_end());
                }
            }
        }
        Ok(())
    }

    fn open(
        &mut self,
        door: Door,
        opening: Opening,
        listener: impl Future<Output = Listener> + Send + 'static,
    ) {
        let (server, routes, what) = if door.is_admin {
            (&self.admin_server, &self.admin_routes, "serving health and metrics")
        } else {
            (&self.server, &self.routes, "serving gRPC and HTTP")
        };
        let listener = async move {
            let listener = listener.await;
            info!(address = %listener.address(), "{what}");
            drop(opening);
            listener
        };
        self.doors.push((door, server.serve(listener, routes.clone())));
    }

    /// Accepts no more, and finishes what is under way, within the grace period.
    pub(super) async fn stop(self) {
        self.lifecycle.stop();
        self.stop.cancel();
        if !self.server.drain(self.grace).await {
            let grace_seconds = self.grace.as_secs();
            warn!(grace_seconds, "some requests took longer, and are cut off");
        }
        // Health and metrics are there to the end.
        self.stop_admin.cancel();
        self.admin_server.drain(Duration::from_millis(100)).await;
    }
}

impl Door {
    fn all(process: &ProcessSettings) -> Vec<Self> {
        let door = |address: &ListenAddress, is_admin| Self {
            address: address.clone(),
            unix_mode: process.unix_socket_mode,
            is_admin,
        };
        let serving = process.listen.iter().map(|address| door(address, false));
        serving.chain(process.admin.iter().map(|address| door(address, true))).collect()
    }

    /// A file system may take its time.
    async fn bind(&self) -> Result<Listener, BindError> {
        let Self { address, unix_mode, .. } = self.clone();
        let bound = task::spawn_blocking(move || Listener::bind(&address, unix_mode)).await;
        bound.expect("binding does not panic")
    }

    /// Tries until it succeeds, and says why it does not whenever that has changed.
    async fn bind_in_the_end(self) -> Listener {
        let mut pauses = ExponentialBuilder::new()
            .with_min_delay(FIRST_RETRY)
            .with_max_delay(LONGEST_RETRY)
            .with_jitter()
            .without_max_times()
            .build();
        let mut said = String::new();
        loop {
            match self.bind().await {
                Ok(listener) => return listener,
                Err(error) => {
                    let cause = error.source().map(ToString::to_string).unwrap_or_default();
                    if cause != said {
                        warn!(address = %self.address, error = cause, "cannot listen; trying again");
                        said = cause;
                    }
                }
            }
            time::sleep(pauses.next().unwrap_or(LONGEST_RETRY)).await;
        }
    }
}
