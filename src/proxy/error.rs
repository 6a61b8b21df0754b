//! Why a request was not answered.

use std::sync::Arc;

use crate::{registry::Unservable, store::StoreError};

/// Why a request was not answered. `api` gives each its code.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProxyError {
    /// No registry was loaded yet.
    #[error("the feature registry could not be loaded yet")]
    NoRegistry,
    /// The request names neither features nor a service.
    #[error("No features specified for retrieval")]
    NoFeatures,
    /// A reference without a colon, or with nothing on one of its sides.
    #[error(
        "Invalid feature reference '{0}'. Expected format: '<feature_view>:<feature>' or \
         '<feature_view>@<version>:<feature>'"
    )]
    InvalidReference(String),
    /// The registry has no such view.
    #[error("Feature view {view} does not exist in project {project}")]
    UnknownView {
        /// The view.
        view: String,
        /// The project that is served.
        project: Arc<str>,
    },
    /// The view has no such feature.
    #[error("Feature {feature} not found in projection {view}")]
    UnknownFeature {
        /// The view.
        view: String,
        /// The feature.
        feature: String,
    },
    /// The registry has no such service.
    #[error("Feature service {service} does not exist in project {project}")]
    UnknownService {
        /// The service.
        service: String,
        /// The project that is served.
        project: Arc<str>,
    },
    /// The view has no such version.
    #[error("Version v{version} of feature view {view} does not exist in project {project}")]
    UnknownVersion {
        /// The view.
        view: String,
        /// The version.
        version: u32,
        /// The project that is served.
        project: Arc<str>,
    },
    /// A version was asked for where the registry does not keep them apart.
    #[error(
        "Version-qualified ref '{}' not supported: online versioning is disabled. Set \
         'enable_online_feature_view_versioning: true' under 'registry' in feature_store.yaml.",
        .0.split_once(':').map_or(&**.0, |(view, _)| view)
    )]
    VersioningDisabled(String),
    /// Two columns of the answer would have one name.
    #[error(
        "Duplicate features named {} found.\nTo resolve this collision, {}",
        .names.join(", "),
        if *.full_names {
            "please ensure that the feature views or their own features have different names. If \
             you're intentionally joining the same feature view twice on different sets of \
             entities, please rename one of the feature views with '.with_name'."
        } else {
            "either use the full feature name by setting 'full_feature_names=True', or ensure \
             that the features in question have different names."
        }
    )]
    Collision {
        /// The names.
        names: Vec<String>,
        /// Whether they are full names.
        full_names: bool,
    },
    /// The view is computed at read time.
    #[error(
        "On-demand feature view `{0}` is computed at read time, which larder does not do; ask \
         Feast's own server for it, or store it with write_to_online_store"
    )]
    Computed(Arc<str>),
    /// The view is not in a state to be served.
    #[error("Feature view '{view}' {}", describe(.view, .why))]
    Unservable {
        /// The view.
        view: Arc<str>,
        /// Why.
        why: Unservable,
    },
    /// A view needs a join key for which the request has no column.
    #[error("Missing join key values for keys: {missing:?}, which feature view `{view}` needs")]
    MissingJoinKey {
        /// The view.
        view: Arc<str>,
        /// What the request's columns would have to be called.
        missing: Vec<Arc<str>>,
    },
    /// The entity columns differ in length.
    #[error("All entity rows must have the same columns.")]
    UnequalColumns,
    /// Two entity columns mean the same join key.
    #[error("entity column `{0}` is there twice, by its join key and by its entity's name")]
    DuplicateColumn(String),
    /// A value cannot be one of its join key.
    #[error("entity column `{column}`, row {row}: {problem}")]
    InvalidKey {
        /// The column.
        column: String,
        /// The row, from 0.
        row: usize,
        /// What is wrong.
        problem: String,
    },
    /// The request is larger than `requests` in larder.yaml allows.
    #[error("the request has {count} {what}, more than the {limit} that {key} allows")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
        /// The setting.
        key: &'static str,
    },
    /// Rows can be had neither from a store nor from the cache.
    #[error("rows of feature view `{view}` cannot be had: {cause}")]
    Unavailable {
        /// The view.
        view: Arc<str>,
        /// What the store said.
        cause: StoreError,
    },
    /// The store did not answer before the request's deadline, and nothing stood in for it.
    #[error("rows of feature view `{view}` could not be had before the request's deadline")]
    DeadlineExceeded {
        /// The view.
        view: Arc<str>,
    },
}

fn describe(view: &str, why: &Unservable) -> String {
    match why {
        Unservable::Disabled => format!(
            "is disabled and cannot serve features. Enable it with `feast feature-views enable \
             {view}` or set enabled=True."
        ),
        Unservable::State(state) => format!(
            "is in state '{state}' and cannot serve features. Only AVAILABLE_ONLINE feature views \
             can serve."
        ),
        Unservable::UnknownEntity(entity) => {
            format!("names the entity `{entity}`, which the registry does not have")
        }
        Unservable::NoStore { tag, value: None } => {
            format!("has no tag `{tag}`, which says in which online store it lies")
        }
        Unservable::NoStore { tag, value: Some(value) } => {
            format!("has the tag `{tag}: {value}`, and there is no online store of that name")
        }
        Unservable::UnversionedStore => {
            "is asked for at a version, and this online store holds only one of each view"
                .to_owned()
        }
        Unservable::UnsupportedJoinKey(key) => {
            format!("has the join key `{key}`, whose type cannot be part of an entity key")
        }
    }
}
