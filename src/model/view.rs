//! Feature views: what is stored together, under which join keys.

use std::{sync::Arc, time::Duration};

use xxhash_rust::xxh3::Xxh3;

use super::ValueType;

/// A feature view at one version of its schema.
///
/// Two views with equal [`id`](Self::id) hold the same rows in the same order. A changed schema has
/// a different id, so rows cached under the old one are never found again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureView {
    /// Identity of this version of the view.
    pub id: ViewId,
    /// The project it belongs to.
    pub project: Arc<str>,
    /// Name in the registry.
    pub name: Arc<str>,
    /// The version whose rows these are, where online versioning applies and it is above 0.
    ///
    /// Most layouts put it into the view's physical name, as `NAME_vN`.
    pub version: Option<u32>,
    /// Which of Feast's kinds it is.
    pub kind: ViewKind,
    /// The features, in the order in which rows hold their values.
    pub features: Box<[Feature]>,
    /// The join keys, sorted by name. Empty for an entityless view.
    pub join_keys: Box<[JoinKey]>,
    /// Age beyond which a value is `OUTSIDE_MAX_AGE`. Feast calls this the view's `ttl`.
    pub max_age: Option<Duration>,
}

/// A feature of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name.
    pub name: Arc<str>,
    /// Its declared type; stored values are passed on whatever they are.
    pub value_type: ValueType,
}

/// A join key of a view.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JoinKey {
    /// Its name: the one that is part of the entity key.
    pub name: Arc<str>,
    /// The type in which its values are part of the entity key.
    pub value_type: ValueType,
}

/// The kinds of view that are stored. All are read alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ViewKind {
    /// `FeatureView`.
    Batch,
    /// `StreamFeatureView`.
    Stream,
    /// `OnDemandFeatureView` with `write_to_online_store`.
    OnDemand,
    /// `LabelView`.
    Label,
}

/// Identifies a view at one version of its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ViewId(pub u64);

impl FeatureView {
    /// The name under which layouts with online versioning store it: `NAME`, or `NAME_vN`.
    pub fn versioned_name(&self) -> String {
        match self.version {
            None => self.name.to_string(),
            Some(version) => format!("{}_v{version}", self.name),
        }
    }

    /// The place of a feature in the view's rows.
    pub fn feature_index(&self, name: &str) -> Option<usize> {
        self.features.iter().position(|feature| &*feature.name == name)
    }

    /// Whether values of `event_seconds` are older than the view allows, both since the epoch.
    ///
    /// In whole seconds and strictly, as Feast's Go and Java servers count.
    pub fn is_outside_max_age(&self, event_seconds: i64, now_seconds: i64) -> bool {
        self.max_age.is_some_and(|max_age| {
            let age = now_seconds.saturating_sub(event_seconds);
            age > i64::try_from(max_age.as_secs()).unwrap_or(i64::MAX)
        })
    }
}

impl ViewId {
    /// The id of a view with these names: stable over processes and machines.
    pub fn of(
        project: &str,
        name: &str,
        version: Option<u32>,
        features: &[Feature],
        join_keys: &[JoinKey],
    ) -> Self {
        let mut hash = Xxh3::new();
        let mut put = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        put(project.as_bytes());
        put(name.as_bytes());
        put(&version.unwrap_or(0).to_le_bytes());
        put(&(features.len() as u64).to_le_bytes());
        for feature in features {
            put(feature.name.as_bytes());
            put(&feature.value_type.0.to_le_bytes());
        }
        for join_key in join_keys {
            put(join_key.name.as_bytes());
            put(&join_key.value_type.0.to_le_bytes());
        }
        Self(hash.digest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_as_old_as_the_limit_is_within_it() {
        let mut view = FeatureView {
            id: ViewId(0),
            project: "p".into(),
            name: "v".into(),
            version: None,
            kind: ViewKind::Batch,
            features: Box::default(),
            join_keys: Box::default(),
            max_age: Some(Duration::from_secs(10)),
        };
        assert!(!view.is_outside_max_age(100, 110));
        assert!(view.is_outside_max_age(100, 111));
        view.max_age = None;
        assert!(!view.is_outside_max_age(i64::MIN, i64::MAX));
    }

    #[test]
    fn another_schema_has_another_id() {
        let feature = |name: &str, value_type| Feature { name: name.into(), value_type };
        let id = |features: &[Feature]| ViewId::of("p", "v", None, features, &[]);
        let one = id(&[feature("ab", ValueType::INT64)]);
        assert_ne!(one, id(&[feature("ab", ValueType::INT32)]));
        assert_ne!(
            id(&[feature("ab", ValueType(0)), feature("c", ValueType(0))]),
            id(&[feature("a", ValueType(0)), feature("bc", ValueType(0))]),
        );
        assert_eq!(one, id(&[feature("ab", ValueType::INT64)]));
    }
}
