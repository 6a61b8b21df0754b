//! What requests are answered from: the parts that a configuration describes, or their absence.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    api::ApiSettings,
    cache::FeatureCache,
    clock,
    config::{Config, StoreConfig},
    metrics::Metrics,
    proxy::{FeatureProxy, FreshnessTable, Parts, RequestLimits, RouteTable, StoreFacts},
    registry::{
        DecodeOptions, NotBuiltIn, RefreshSettings, Refresher, RegistryHandle, RegistrySource,
        StatusHandle,
    },
    resilience::ResilientStore,
    store::{self, StoreSettings},
};

/// What requests are answered from.
pub(super) struct Served {
    pub(super) proxy: Arc<FeatureProxy>,
    pub(super) registry: Arc<RegistryHandle>,
    pub(super) registry_status: StatusHandle,
    pub(super) settings: ApiSettings,
}

/// What answers every request with why it cannot be: there is no configuration.
/// `told` is what callers are told of it.
pub(super) fn unconfigured(metrics: &Arc<Metrics>, why: &str, told: &str) -> Served {
    let registry = Arc::<RegistryHandle>::default();
    let proxy = FeatureProxy::new(Parts {
        registry: Arc::clone(&registry),
        freshness: FreshnessTable::default(),
        limits: RequestLimits::default(),
        cache: Arc::new(FeatureCache::new(1 << 20)),
        stores: Vec::new(),
        routes: RouteTable::default(),
        metrics: Arc::clone(metrics),
    });
    let registry_status = StatusHandle::without(why, told);
    Served { proxy: Arc::new(proxy), registry, registry_status, settings: ApiSettings::default() }
}

/// The parts, put together. Neither store nor registry was asked yet.
pub(super) struct Ready {
    pub(super) served: Served,
    refresher: Refresher,
    config: Config,
}

impl Ready {
    /// # Errors
    ///
    /// If the configuration names something that this larder was built without.
    pub(super) fn new(config: Config, metrics: &Arc<Metrics>) -> anyhow::Result<Self> {
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
        let proxy = Arc::new(proxy_of(&config, &registry, metrics)?);
        let registry_status = refresher.status();
        let served = Served { proxy, registry, registry_status, settings: config.api };
        Ok(Self { served, refresher, config })
    }

    /// Says what is doubtful, and follows the registry until `stop`. What is left is what requests
    /// are answered from.
    pub(super) fn start(self, stop: CancellationToken) -> Served {
        for warning in &self.config.warnings {
            warn!("{warning}");
        }
        tokio::spawn(self.refresher.run(stop));
        self.served
    }
}

pub(super) fn registry_of(config: &Config) -> Result<(RegistrySource, DecodeOptions), NotBuiltIn> {
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
