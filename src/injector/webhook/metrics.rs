//! What is measured of the injector. Labels take few values, none of them a caller's.

use std::{sync::Arc, time::Duration};

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder, SharedString};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use super::review::Outcome;

/// All metrics of an injector.
pub(super) struct InjectorMetrics {
    handle: PrometheusHandle,
    injected: Counter,
    skipped: Counter,
    invalid: Counter,
    duration: Histogram,
    /// When the certificate's time is over, in seconds since the Unix epoch.
    pub(super) certificate_expiry: Gauge,
    /// Attempts to renew what is needed for TLS that failed.
    pub(super) certificate_errors: Counter,
    /// Attempts to read changed settings that failed.
    pub(super) settings_errors: Counter,
    _recorder: PrometheusRecorder,
}

const REQUESTS: &str = "larder_injector_requests_total";
const DURATION: &str = "larder_injector_request_duration_seconds";
const CERTIFICATE_EXPIRY: &str = "larder_injector_certificate_expiry_seconds";
const CERTIFICATE_ERRORS: &str = "larder_injector_certificate_errors_total";
const SETTINGS_ERRORS: &str = "larder_injector_settings_reload_errors_total";
const BUILD_INFO: &str = "larder_build_info";

const SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

impl InjectorMetrics {
    /// All of them, at zero.
    pub(super) fn new() -> Arc<Self> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(DURATION.to_owned()), SECONDS)
            .expect("the histogram has buckets")
            .build_recorder();
        let text = SharedString::const_str;
        let describe = |name: &'static str, help| {
            recorder.describe_counter(name.into(), None, text(help));
        };
        describe(
            REQUESTS,
            "Requests of the API server, by outcome: injected, skipped (nothing to do, or larder \
             cannot be added to such a pod), invalid (no request that is understood).",
        );
        describe(
            CERTIFICATE_ERRORS,
            "Attempts that failed to read a changed certificate, or to look after the own authority \
             through the API server.",
        );
        describe(SETTINGS_ERRORS, "Changed settings that are wrong; the ones before stay.");
        let help = text("When the certificate's time is over, Unix time.");
        recorder.describe_gauge(CERTIFICATE_EXPIRY.into(), None, help);
        recorder.describe_gauge(BUILD_INFO.into(), None, text("1; the version is a label."));
        let help = text("Time to answer a request of the API server.");
        recorder.describe_histogram(DURATION.into(), None, help);

        let counter = |name: &'static str, labels| {
            recorder.register_counter(&Key::from_parts(name, labels), &METADATA)
        };
        let requests = |outcome| counter(REQUESTS, vec![Label::new("outcome", outcome)]);
        let version = vec![Label::new("version", env!("CARGO_PKG_VERSION"))];
        recorder.register_gauge(&Key::from_parts(BUILD_INFO, version), &METADATA).set(1.0);
        Arc::new(Self {
            handle: recorder.handle(),
            injected: requests("injected"),
            skipped: requests("skipped"),
            invalid: requests("invalid"),
            duration: recorder.register_histogram(&Key::from_static_name(DURATION), &METADATA),
            certificate_expiry: recorder
                .register_gauge(&Key::from_static_name(CERTIFICATE_EXPIRY), &METADATA),
            certificate_errors: counter(CERTIFICATE_ERRORS, Vec::new()),
            settings_errors: counter(SETTINGS_ERRORS, Vec::new()),
            _recorder: recorder,
        })
    }

    /// Counts a request and its time.
    pub(super) fn request(&self, outcome: Outcome, took: Duration) {
        match outcome {
            Outcome::Injected => &self.injected,
            Outcome::Skipped => &self.skipped,
            Outcome::Invalid => &self.invalid,
        }
        .increment(1);
        self.duration.record(took);
    }

    /// The text that Prometheus scrapes.
    pub(super) fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds what the histogram gathered; without it that grows. Every few seconds.
    pub(super) fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);
