//! The words of the domain: values, entities, feature views and rows. Pure; knows no other module.

mod entity;
mod row;
mod secret;
mod value;
mod view;
pub mod wire;

pub use self::{
    entity::{EntityKey, JoinValue, KeyEncoding, UnsupportedKeyEncoding, encode_entity_key},
    row::{Cell, EventTimestamp, FeatureRow, MaybeRow, RowKey, RowKeyRef},
    secret::Secret,
    value::{FieldStatus, Scalar, ValueType, encode_value},
    view::{Feature, FeatureView, JoinKey, ViewId, ViewKind},
};

/// Which store answered, as its place among the configured ones: the first is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StoreId(pub u8);

/// Milliseconds since the process started.
///
/// Signed: what is older than the process has a time, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub i64);

impl Tick {
    /// The milliseconds from `earlier` to this; 0 if `earlier` is later.
    pub fn millis_since(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }
}
