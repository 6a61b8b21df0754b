//! What the tests of all sources share.

use std::path::PathBuf;

use larder::{
    model::KeyEncoding,
    pb::core,
    registry::{
        DecodeOptions, FetchLimits, Fetched, Registry, RegistrySettings, RegistrySource, decode,
    },
};
use prost::Message;

/// The project of the goldens.
pub(crate) const PROJECT: &str = "golden";

pub(crate) fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/feast").join(name)
}

/// The registry that Feast wrote to a file.
pub(crate) fn golden_registry() -> core::Registry {
    core::Registry::decode(&*std::fs::read(golden("registry.db")).unwrap()).unwrap()
}

/// It without one of its views.
pub(crate) fn without_pair_stats() -> core::Registry {
    let mut registry = golden_registry();
    registry.feature_views.retain(|view| view.spec.as_ref().unwrap().name != "pair_stats");
    assert_eq!(registry.feature_views.len() + 1, golden_registry().feature_views.len());
    registry
}

pub(crate) fn options(project: &str) -> DecodeOptions {
    DecodeOptions {
        project: project.into(),
        key_encoding: KeyEncoding::V3,
        versioning: true,
        versioned_store: true,
        routing: None,
    }
}

pub(crate) fn source(settings: RegistrySettings, limits: FetchLimits) -> RegistrySource {
    RegistrySource::new(settings, PROJECT.into(), limits).unwrap()
}

/// What was read, as a snapshot.
pub(crate) fn snapshot(fetched: &Fetched) -> Registry {
    match fetched {
        Fetched::Bytes { bytes, .. } => decode(bytes, &options(PROJECT)).unwrap(),
        Fetched::Unchanged => panic!("nothing was read"),
    }
}

/// Why it cannot be read, with all causes.
pub(crate) async fn error(source: &mut RegistrySource) -> String {
    let mut error: &dyn std::error::Error = &source.fetch(None, 0).await.unwrap_err();
    let mut text = error.to_string();
    while let Some(cause) = error.source() {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        error = cause;
    }
    text
}
