//! Puts the parts together, runs them, stops them.
//!
//! ```text
//!  Config -> parts -> listeners open -> serving ... told to stop -> drain within the grace -> end
//! ```

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    api::{
        self, ApiState, InFlight,
        admin::{self, AdminState},
    },
    cache::FeatureCache,
    clock,
    config::{Config, StoreConfig},
    metrics::Metrics,
    net::{Listener, Server},
    proxy::{FeatureProxy, Parts, StoreFacts},
    registry::{
        DecodeOptions, NotBuiltIn, RefreshSettings, Refresher, Registry, RegistryHandle,
        RegistrySource, StatusHandle, load_once,
    },
    resilience::ResilientStore,
    store::{self, StoreSettings},
};

/// Histograms are folded this often.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// A larder that is put together, and listens, but does not serve yet.
pub struct App {
    config: Config,
    metrics: Arc<Metrics>,
    registry: Arc<RegistryHandle>,
    registry_status: StatusHandle,
    refresher: Refresher,
    proxy: Arc<FeatureProxy>,
    listeners: Vec<Listener>,
    admin: Option<Listener>,
}

impl App {
    /// Puts the parts together and opens the listeners. Neither store nor registry is waited for.
    pub fn new(config: Config) -> anyhow::Result<Self> {
        let metrics = Metrics::new();
        let registry = Arc::<RegistryHandle>::default();
        let settings = RefreshSettings {
            interval: config.registry_refresh_interval,
            first_retry: Duration::from_secs(1),
            now_unix: || clock::now().unix_seconds,
        };
        let (source, options) = registry_of(&config)?;
        let mut refresher = Refresher::new(source, options, settings, Arc::clone(&registry));
        if let Some(path) = &config.registry_disk_copy {
            refresher = refresher.with_disk_copy(path.clone());
        }
        let proxy = Arc::new(proxy_of(&config, &registry, &metrics)?);

        let bind = |address| Listener::bind(address, config.unix_socket_mode);
        let listeners = config.listen.iter().map(bind).collect::<Result<_, _>>()?;
        let admin = config.admin.as_ref().map(bind).transpose()?;
        let registry_status = refresher.status();
        Ok(Self { config, metrics, registry, registry_status, refresher, proxy, listeners, admin })
    }

    /// Serves until `told_to_stop`, then finishes what is under way, within the grace period.
    pub async fn run(self, told_to_stop: impl Future<Output = &'static str>) {
        let stop = CancellationToken::new();
        let listening = Arc::new(AtomicBool::new(true));
        let background = CancellationToken::new();
        tokio::spawn(self.refresher.run(background.clone()));
        tokio::spawn(upkeep(Arc::clone(&self.metrics), background.clone()));

        let in_flight = Arc::new(InFlight::at_most(self.config.api.max_in_flight));
        let router = api::router(ApiState {
            proxy: Arc::clone(&self.proxy),
            metrics: Arc::clone(&self.metrics),
            registry: Arc::clone(&self.registry),
            registry_status: self.registry_status.clone(),
            in_flight: Arc::clone(&in_flight),
            settings: self.config.api,
        });
        let server = Server::new(stop.clone());
        for listener in self.listeners {
            info!(address = %listener.address(), "serving gRPC and HTTP");
            server.serve(listener, router.clone());
        }
        let admin_server = Server::new(background.clone());
        if let Some(listener) = self.admin {
            info!(address = %listener.address(), "serving health and metrics");
            let state = AdminState {
                proxy: self.proxy,
                metrics: self.metrics,
                registry: self.registry,
                registry_status: self.registry_status,
                in_flight,
                listening: Arc::clone(&listening),
                now: clock::now,
            };
            admin_server.serve(listener, admin::router(state));
        }

        let signal = told_to_stop.await;
        info!(signal, "stopping: requests under way are finished");
        listening.store(false, Ordering::Relaxed);
        stop.cancel();
        let grace = self.config.shutdown_grace;
        if !server.drain(grace).await {
            warn!(grace_seconds = grace.as_secs(), "some requests took longer, and are cut off");
        }
        // Health and metrics are there to the end.
        background.cancel();
        admin_server.drain(Duration::from_millis(100)).await;
        info!("stopped");
    }
}

/// Loads the registry once, as `check` does.
pub async fn load_registry(config: &Config) -> anyhow::Result<Registry> {
    let (mut source, options) = registry_of(config)?;
    let loaded = load_once(&mut source, &options).await;
    loaded.with_context(|| format!("feature registry {source}"))
}

fn registry_of(config: &Config) -> Result<(RegistrySource, DecodeOptions), NotBuiltIn> {
    let feast = &config.feast;
    let options = DecodeOptions {
        project: Arc::clone(&feast.project),
        key_encoding: feast.key_encoding,
        versioning: feast.versioning,
        versioned_store: config.stores.iter().all(|store| store.settings.keeps_versions()),
        routing: feast.routing_tag.clone(),
    };
    let project = Arc::clone(&feast.project);
    let source = RegistrySource::new(feast.registry.clone(), project, config.registry_limits)?;
    Ok((source, options))
}

fn proxy_of(
    config: &Config,
    registry: &Arc<RegistryHandle>,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<FeatureProxy> {
    let store = |store: &StoreConfig| -> anyhow::Result<_> {
        let name = Arc::clone(&store.name);
        let facts = StoreFacts {
            name: Arc::clone(&name),
            python_finds_everything: matches!(store.settings, StoreSettings::Redis(_)),
        };
        let inner = store::connect(&store.settings)?;
        let store_metrics = metrics.store(&name);
        Ok((ResilientStore::new(name, inner, store.limits, store_metrics), facts))
    };
    Ok(FeatureProxy::new(Parts {
        registry: Arc::clone(registry),
        freshness: config.freshness.clone(),
        limits: config.requests,
        cache: Arc::new(FeatureCache::new(config.cache_max_bytes)),
        stores: config.stores.iter().map(store).collect::<Result<_, _>>()?,
        routes: config.routes.clone(),
        metrics: Arc::clone(metrics),
    }))
}

async fn upkeep(metrics: Arc<Metrics>, stop: CancellationToken) {
    let mut ticks = time::interval(UPKEEP_INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => metrics.upkeep(),
        }
    }
}
