//! Every metric: its name, what it means, its labels. Handed down, never global.
//!
//! Names follow Prometheus' conventions; those that begin with `feast_` are Feast's own
//! (`feast/metrics.py`), so that its dashboards go on working. Labels take few values each: APIs,
//! codes, kinds of error, stores and feature views, never what a caller sent.

use std::{collections::HashMap, sync::Arc, time::Duration};

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder, SharedString};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use parking_lot::RwLock;

/// Counters: name and meaning.
const COUNTERS: &[(&str, &str)] = &[
    ("larder_requests_total", "Requests for features, by API, method and resulting code."),
    (
        "larder_rows_total",
        "Rows answered (a feature view's for an entity), by outcome: hit, negative (known not to \
         exist), miss (read for this request), coalesced (read for another request that was under \
         way), stale, unavailable.",
    ),
    (
        "larder_stale_rows_total",
        "Rows answered past their TTL, by reason: revalidate (refreshed behind), slow (the store \
         took longer than stale_after), or the kind of the store's error.",
    ),
    ("larder_store_reads_total", "Reads of a store, each of one or more rows, by result."),
    ("larder_store_errors_total", "Reads of a store that failed for at least one row, by kind."),
    (
        "larder_spare_rows_total",
        "Rows that a store gave which is not the first of their feature view, by that store.",
    ),
    ("larder_refreshes_total", "Rows that were refreshed behind a request, by reason."),
    (
        "larder_undecodable_values_total",
        "Values served as null over HTTP since they are of a kind that this version does not know.",
    ),
    ("larder_registry_errors_total", "Attempts to read the feature registry that failed."),
    ("larder_cache_evictions_total", "Rows that made room for others."),
    ("feast_feature_server_request_total", "Requests by endpoint and status (success, error)."),
    ("feast_online_features_request_total", "Requests for online features."),
    (
        "feast_online_features_status_total",
        "Feature values answered, by feature view and status (present, not_found); unlike in \
         Feast's own server, a row that Redis does not have is not_found.",
    ),
];

/// Gauges: name and meaning.
const GAUGES: &[(&str, &str)] = &[
    ("larder_build_info", "1; the version is a label."),
    ("larder_breaker_open", "1 while a store is left alone since it kept failing, else 0."),
    ("larder_config_errors", "What is wrong with the configuration that larder waits for, else 0."),
    ("larder_connections", "Connections at the serving addresses."),
    ("larder_cache_entries", "Rows and absences in the cache."),
    ("larder_cache_bytes", "Bytes that the cache's rows, keys and slots take."),
    ("larder_cache_max_bytes", "Bytes that they may take."),
    ("larder_flights", "Rows that are being read now."),
    (
        "larder_requests_in_flight",
        "Requests for features that are under way, of at most requests.max_in_flight.",
    ),
    (
        "larder_registry_snapshot_age_seconds",
        "Seconds since the feature registry was last read successfully, changed or not.",
    ),
    ("larder_registry_last_updated_seconds", "When the registry was last changed, Unix time."),
    (
        "larder_registry_consecutive_failures",
        "Attempts to read the feature registry that failed since the last success.",
    ),
    (
        "larder_registry_from_disk_copy",
        "1 while a copy on disk stands in for the feature registry, which was not read yet, else 0.",
    ),
    ("larder_registry_loaded", "1 once a feature registry is loaded, else 0."),
];

/// Histograms: name, meaning, buckets.
const HISTOGRAMS: &[(&str, &str, &[f64])] = &[
    ("larder_request_duration_seconds", "Time to answer a request, by API.", FINE_SECONDS),
    (
        "larder_served_age_seconds",
        "Age of the oldest row of each answer: how long ago its store was asked.",
        &[0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0],
    ),
    ("larder_store_read_duration_seconds", "Time that reads of a store took.", FINE_SECONDS),
    (
        "larder_store_read_rows",
        "Rows asked for by a read of a store.",
        &[1.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1000.0, 5000.0],
    ),
    (
        "feast_feature_server_request_latency_seconds",
        "Time to answer a request, by endpoint and the numbers of features and feature views.",
        FEAST_SECONDS,
    ),
    (
        "feast_online_features_entity_count",
        "Entity rows of a request.",
        &[1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0],
    ),
    (
        "feast_feature_server_online_store_read_duration_seconds",
        "Time that reads of the online store took.",
        &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0],
    ),
];

const FINE_SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

const FEAST_SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// All metrics of a process.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    /// Rows answered, by outcome.
    pub rows: RowMetrics,
    /// Age of the oldest row of each answer, in seconds.
    pub served_age: Histogram,
    feast_requests: Counter,
    feast_entities: Histogram,
    // Handles by what distinguishes them: asking the recorder for one takes a lock and a hash map.
    counters: RwLock<HashMap<Labels, Counter>>,
    histograms: RwLock<HashMap<Labels, Histogram>>,
}

type Labels = (&'static str, [SharedString; 3]);

/// Rows answered, by outcome.
pub struct RowMetrics {
    /// From the cache, within their TTL.
    pub hit: Counter,
    /// Known not to exist.
    pub negative: Counter,
    /// Read for this request.
    pub miss: Counter,
    /// Read for another request that was under way.
    pub coalesced: Counter,
    /// From the cache, past their TTL.
    pub stale: Counter,
    /// Neither read nor cached.
    pub unavailable: Counter,
}

/// What is measured of one store.
#[derive(Clone)]
pub struct StoreMetrics {
    metrics: Arc<Metrics>,
    store: Arc<str>,
    /// 1 while it is left alone.
    pub breaker_open: Gauge,
    succeeded: Counter,
    failed: Counter,
    duration: Histogram,
    feast_duration: Histogram,
    rows: Histogram,
}

impl Metrics {
    /// All of them, at zero.
    pub fn new() -> Arc<Self> {
        let mut builder = PrometheusBuilder::new();
        for (name, _, buckets) in HISTOGRAMS {
            builder = builder
                .set_buckets_for_metric(Matcher::Full((*name).to_owned()), buckets)
                .expect("every histogram has buckets");
        }
        let recorder = builder.build_recorder();
        let text = SharedString::const_str;
        for (name, help) in COUNTERS {
            recorder.describe_counter((*name).into(), None, text(help));
        }
        for (name, help) in GAUGES {
            recorder.describe_gauge((*name).into(), None, text(help));
        }
        for (name, help, _) in HISTOGRAMS {
            recorder.describe_histogram((*name).into(), None, text(help));
        }
        let row = |outcome| counter(&recorder, "larder_rows_total", &[("outcome", outcome)]);
        let rows = RowMetrics {
            hit: row("hit"),
            negative: row("negative"),
            miss: row("miss"),
            coalesced: row("coalesced"),
            stale: row("stale"),
            unavailable: row("unavailable"),
        };
        let metrics = Self {
            handle: recorder.handle(),
            rows,
            served_age: histogram(&recorder, "larder_served_age_seconds", &[]),
            feast_requests: counter(&recorder, "feast_online_features_request_total", &[]),
            feast_entities: histogram(&recorder, "feast_online_features_entity_count", &[]),
            counters: RwLock::default(),
            histograms: RwLock::default(),
            recorder,
        };
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        metrics.gauge("larder_build_info", &version).set(1.0);
        metrics.gauge("larder_config_errors", &[]).set(0.0);
        Arc::new(metrics)
    }

    /// The text that Prometheus scrapes.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds what histograms gathered; without it they grow. Every few seconds.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// The measures of the store called `store`.
    pub fn store(self: &Arc<Self>, store: &Arc<str>) -> StoreMetrics {
        let result = |result| {
            let labels = [("store", &**store), ("result", result)];
            counter(&self.recorder, "larder_store_reads_total", &labels)
        };
        let labels = [("store", &**store)];
        let histogram = |name, labels: &_| histogram(&self.recorder, name, labels);
        StoreMetrics {
            breaker_open: self.gauge("larder_breaker_open", &labels),
            succeeded: result("success"),
            failed: result("error"),
            duration: histogram("larder_store_read_duration_seconds", &labels[..]),
            feast_duration: histogram(
                "feast_feature_server_online_store_read_duration_seconds",
                &[],
            ),
            rows: histogram("larder_store_read_rows", &labels[..]),
            store: Arc::clone(store),
            metrics: Arc::clone(self),
        }
    }

    /// Counts a request and its time. `code` is a gRPC code's name or an HTTP status.
    pub fn request(&self, api: &'static str, method: &'static str, code: &str, took: Duration) {
        let labels = [api.into(), method.into(), code.to_owned().into()];
        self.counter_of(("larder_requests_total", labels), ["api", "method", "code"]).increment(1);
        let labels = [api.into(), "".into(), "".into()];
        self.histogram_of(("larder_request_duration_seconds", labels), ["api", "", ""])
            .record(took);
    }

    /// Counts a request for online features as Feast's server does.
    pub fn feast_request(&self, succeeded: bool, rows: usize) {
        const ENDPOINT: &str = "/get-online-features";
        let status = if succeeded { "success" } else { "error" };
        let labels = [ENDPOINT.into(), status.into(), "".into()];
        self.counter_of(("feast_feature_server_request_total", labels), ["endpoint", "status", ""])
            .increment(1);
        self.feast_requests.increment(1);
        if succeeded {
            self.feast_entities.record(rows as f64);
        }
    }

    /// The time of an answer as Feast's server measures it, with its bins of feature counts.
    pub fn feast_latency(&self, features: usize, views: usize, took: Duration) {
        let features = match features {
            0 => "0",
            1..=10 => "1-10",
            11..=50 => "11-50",
            51..=200 => "51-200",
            _ => "201+",
        };
        let views: SharedString = match views {
            0..=20 => views.to_string().into(),
            _ => "21+".into(),
        };
        self.histogram_of(
            (
                "feast_feature_server_request_latency_seconds",
                ["/get-online-features".into(), features.into(), views],
            ),
            ["endpoint", "feature_count", "feature_view_count"],
        )
        .record(took);
    }

    /// Counts feature values that one view answered.
    pub fn feast_statuses(&self, view: &Arc<str>, present: u64, not_found: u64) {
        for (status, count) in [("present", present), ("not_found", not_found)] {
            if count > 0 {
                let view = SharedString::from_shared(Arc::clone(view));
                let labels = [view, status.into(), "".into()];
                self.counter_of(
                    ("feast_online_features_status_total", labels),
                    ["feature_view", "status", ""],
                )
                .increment(count);
            }
        }
    }

    /// Counts rows served past their TTL.
    pub fn stale_rows(&self, reason: &'static str, count: u64) {
        let labels = [reason.into(), "".into(), "".into()];
        self.counter_of(("larder_stale_rows_total", labels), ["reason", "", ""]).increment(count);
    }

    /// Counts rows that `store` gave since those before it could not.
    pub fn spare_rows(&self, store: &Arc<str>, count: u64) {
        let store = SharedString::from_shared(Arc::clone(store));
        let labels = [store, "".into(), "".into()];
        self.counter_of(("larder_spare_rows_total", labels), ["store", "", ""]).increment(count);
    }

    /// Counts rows that are refreshed behind a request.
    pub fn refreshes(&self, reason: &'static str, count: u64) {
        let labels = [reason.into(), "".into(), "".into()];
        self.counter_of(("larder_refreshes_total", labels), ["reason", "", ""]).increment(count);
    }

    /// Sets a counter that is counted elsewhere.
    pub fn set_counter(&self, name: &'static str, labels: &[(&'static str, &str)], count: u64) {
        counter(&self.recorder, name, labels).absolute(count);
    }

    /// A gauge.
    pub fn gauge(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
        self.recorder.register_gauge(&key(name, labels), &METADATA)
    }

    fn counter_of(&self, labels: Labels, names: [&'static str; 3]) -> Counter {
        if let Some(counter) = self.counters.read().get(&labels) {
            return counter.clone();
        }
        let counter = counter(&self.recorder, labels.0, &pairs(&names, &labels.1));
        self.counters.write().entry(labels).or_insert(counter).clone()
    }

    fn histogram_of(&self, labels: Labels, names: [&'static str; 3]) -> Histogram {
        if let Some(histogram) = self.histograms.read().get(&labels) {
            return histogram.clone();
        }
        let histogram = histogram(&self.recorder, labels.0, &pairs(&names, &labels.1));
        self.histograms.write().entry(labels).or_insert(histogram).clone()
    }
}

impl StoreMetrics {
    /// Counts a read of `rows` rows.
    pub fn read(&self, rows: usize, took: Duration, succeeded: bool) {
        (if succeeded { &self.succeeded } else { &self.failed }).increment(1);
        self.duration.record(took);
        self.feast_duration.record(took);
        self.rows.record(rows as f64);
    }

    /// Counts a read that failed for some of its rows.
    pub fn failed(&self, kind: &'static str) {
        let store = SharedString::from_shared(Arc::clone(&self.store));
        let labels = [store, kind.into(), "".into()];
        self.metrics
            .counter_of(("larder_store_errors_total", labels), ["store", "kind", ""])
            .increment(1);
    }
}

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    let labels: Vec<_> =
        labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
    Key::from_parts(name, labels)
}

fn counter(
    recorder: &PrometheusRecorder,
    name: &'static str,
    labels: &[(&'static str, &str)],
) -> Counter {
    recorder.register_counter(&key(name, labels), &METADATA)
}

fn histogram(
    recorder: &PrometheusRecorder,
    name: &'static str,
    labels: &[(&'static str, &str)],
) -> Histogram {
    recorder.register_histogram(&key(name, labels), &METADATA)
}

/// The labels that have a name.
fn pairs<'a>(
    names: &[&'static str; 3],
    values: &'a [SharedString; 3],
) -> Vec<(&'static str, &'a str)> {
    let pairs = names.iter().zip(values).filter(|(name, _)| !name.is_empty());
    pairs.map(|(name, value)| (*name, &**value)).collect()
}
