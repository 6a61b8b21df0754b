//! How Feast lays rows out in each store: keys to bytes, bytes to rows. Pure; knows no client.
//!
//! A layout is told what a store answered and makes rows of it. Every value is checked on the way:
//! rows pass it on as bytes, so what is no `feast.types.Value` has to be found here or never.

pub mod cassandra;
pub mod dynamodb;
pub mod redis;
pub mod sqlite;
mod value;
mod wire;

use std::sync::Arc;

pub use self::{
    value::{MalformedValue, check_value},
    wire::WireError,
};
use crate::model::{Cell, EventTimestamp, FeatureRow, FeatureView};

/// What a store holds is not what the layout prescribes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A feature's bytes are no value.
    #[error("feature `{feature}` of feature view `{view}` is stored as no `feast.types.Value`")]
    Value {
        /// The view's physical name.
        view: Arc<str>,
        /// The feature.
        feature: Arc<str>,
        /// What is wrong with the bytes.
        #[source]
        source: MalformedValue,
    },
    /// A feature's value has a type that the store's schema does not foresee.
    #[error("feature `{feature}` of feature view `{view}` is stored as {found}, not as bytes")]
    NotBytes {
        /// The view's physical name.
        view: Arc<str>,
        /// The feature.
        feature: Arc<str>,
        /// What it is stored as.
        found: &'static str,
    },
    /// The features of a row have a type that the store's schema does not foresee.
    #[error("feature view `{view}` holds a row whose features are stored as {found}, not as a map")]
    NotAMap {
        /// The view's physical name.
        view: Arc<str>,
        /// What they are stored as.
        found: &'static str,
    },
    /// The row's event timestamp cannot be read.
    #[error("feature view `{view}` holds a row whose event timestamp cannot be read: {what}")]
    Timestamp {
        /// The view's physical name.
        view: Arc<str>,
        /// What is wrong with it.
        what: String,
    },
    /// The store answered with more or fewer fields than it was asked for.
    #[error("feature view `{view}` was answered with {found} fields, asked for {asked}")]
    FieldCount {
        /// The view's physical name.
        view: Arc<str>,
        /// How many it was asked for.
        asked: usize,
        /// How many came.
        found: usize,
    },
    /// The row has more features than any view.
    #[error("feature view `{view}` holds a row of more than {limit} features")]
    TooManyFeatures {
        /// The view's physical name.
        view: Arc<str>,
        /// How many are read.
        limit: usize,
    },
    /// The row is larger than any row may be.
    #[error("feature view `{view}` holds a row of {bytes} bytes, more than the limit of 2 GiB")]
    TooLarge {
        /// The view's physical name.
        view: Arc<str>,
        /// The size of its values.
        bytes: usize,
    },
}

/// Names of a view that all layouts use: computed once, not with every read.
#[derive(Clone, Debug)]
struct ViewNames {
    /// The physical name: `VIEW` or `VIEW_vN`.
    view: Arc<str>,
    /// The features, in the order in which rows hold them.
    features: Box<[Arc<str>]>,
}

impl ViewNames {
    fn of(view: &FeatureView) -> Self {
        Self {
            view: view.versioned_name().into(),
            features: view.features.iter().map(|feature| feature.name.clone()).collect(),
        }
    }

    /// A row of these cells, one for each feature, after a look at every value.
    fn row<'a>(
        &self,
        cells: impl Iterator<Item = Cell<'a>> + Clone,
        timestamp: EventTimestamp,
    ) -> Result<FeatureRow, DecodeError> {
        let mut bytes = 0_usize;
        for (feature, cell) in self.features.iter().zip(cells.clone()) {
            if let Cell::Value(value) = cell {
                bytes = bytes.saturating_add(value.len());
                check_value(value).map_err(|source| DecodeError::Value {
                    view: self.view.clone(),
                    feature: feature.clone(),
                    source,
                })?;
            }
        }
        if bytes > i32::MAX as usize {
            return Err(DecodeError::TooLarge { view: self.view.clone(), bytes });
        }
        Ok(FeatureRow::new(cells, timestamp))
    }
}

/// What stored bytes are: no bytes are a null.
fn cell(stored: Option<&[u8]>) -> Cell<'_> {
    match stored {
        None => Cell::Absent,
        Some([]) => Cell::Null,
        Some(value) => Cell::Value(value),
    }
}

/// A view of the features `a` and `b` of the project `p`, for the layouts' tests.
#[cfg(test)]
fn ab(name: &str, version: Option<u32>) -> FeatureView {
    use crate::model::{Feature, ValueType, ViewId, ViewKind};
    let feature = |name: &str| Feature { name: name.into(), value_type: ValueType::INT64 };
    FeatureView {
        id: ViewId(1),
        project: "p".into(),
        name: name.into(),
        version,
        kind: ViewKind::Batch,
        features: ["a", "b"].map(feature).into(),
        join_keys: Box::default(),
        max_age: None,
    }
}
