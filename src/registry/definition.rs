//! Views as the registry defines them, and what is served of them. Pure.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Entity, RoutingTag, StoredView, Unservable, View};
use crate::{
    model::{Feature, FeatureView, JoinKey, ValueType, ViewId, ViewKind},
    pb::core::{self, FeatureSpecV2, FeatureViewState},
};

/// The entity of views that are about nothing in particular. Feast declares it in every project.
pub(super) const DUMMY_ENTITY: &str = "__dummy";

/// What the kinds of view have in common.
pub(super) struct Definition {
    pub(super) name: Arc<str>,
    pub(super) project: String,
    pub(super) kind: ViewKind,
    /// Whether it has rows. An on-demand view has them only if it is computed when written.
    pub(super) is_stored: bool,
    /// The number of the version in force; 0 for the first, and where there is none.
    pub(super) version: u32,
    entities: Vec<String>,
    features: Vec<FeatureSpecV2>,
    entity_columns: Vec<FeatureSpecV2>,
    tags: BTreeMap<String, String>,
    max_age: Option<Duration>,
    is_disabled: bool,
    state: FeatureViewState,
}

/// Whose view it is to be.
pub(super) struct Scope<'a> {
    pub(super) project: &'a Arc<str>,
    pub(super) entities: &'a BTreeMap<Arc<str>, Entity>,
    pub(super) routing: Option<&'a RoutingTag>,
}

impl Definition {
    /// The view, where its rows are stored under the name of `version`.
    pub(super) fn into_view(self, version: Option<u32>, scope: &Scope<'_>) -> View {
        match self.join_keys(scope) {
            Err(why) => View::Unservable { name: self.name, why },
            Ok(_) if !self.is_stored => View::Computed { name: self.name },
            Ok(join_keys) => match self.routed_by(scope) {
                Err(why) => View::Unservable { name: self.name, why },
                Ok(routed_by) => self.into_stored(version, join_keys, routed_by, scope),
            },
        }
    }

    fn into_stored(
        self,
        version: Option<u32>,
        join_keys: Vec<JoinKey>,
        routed_by: Option<Arc<str>>,
        scope: &Scope<'_>,
    ) -> View {
        let feature = |spec: FeatureSpecV2| Feature {
            name: spec.name.into(),
            value_type: ValueType(spec.value_type),
        };
        let features: Box<[Feature]> = self.features.into_iter().map(feature).collect();
        let view = FeatureView {
            id: ViewId::of(scope.project, &self.name, version, &features, &join_keys),
            project: Arc::clone(scope.project),
            name: self.name,
            version,
            kind: self.kind,
            features,
            join_keys: join_keys.into(),
            max_age: self.max_age,
        };
        let current_version = self.version;
        View::Stored(StoredView { view: Arc::new(view), current_version, routed_by })
    }

    /// The value of the tag that says which store it lies in (`HybridOnlineStore`).
    fn routed_by(&self, scope: &Scope<'_>) -> Result<Option<Arc<str>>, Unservable> {
        let Some(RoutingTag { tag, values }) = scope.routing else { return Ok(None) };
        let value = self.tags.get(&**tag).filter(|value| !value.is_empty());
        let value = value.map(|value| Arc::from(value.to_lowercase()));
        match value {
            Some(value) if values.contains(&value) => Ok(Some(value)),
            value => Err(Unservable::NoStore { tag: Arc::clone(tag), value }),
        }
    }

    /// Its join keys, sorted by name, or the first of Feast's rules that it breaks.
    fn join_keys(&self, scope: &Scope<'_>) -> Result<Vec<JoinKey>, Unservable> {
        if self.is_disabled {
            return Err(Unservable::Disabled);
        }
        match self.state {
            // A view that is being materialized has the rows of the time before.
            FeatureViewState::StateUnspecified
            | FeatureViewState::Materializing
            | FeatureViewState::AvailableOnline => {}
            FeatureViewState::Created | FeatureViewState::Generated => {
                return Err(Unservable::State(self.state.as_str_name()));
            }
        }
        // What is computed takes its join keys from its sources.
        if !self.is_stored || self.entities.iter().all(|entity| entity == DUMMY_ENTITY) {
            return Ok(Vec::new());
        }
        let mut join_keys = Vec::with_capacity(self.entities.len());
        for name in &self.entities {
            let entity = scope.entities.get(name.as_str());
            let entity = entity.ok_or_else(|| Unservable::UnknownEntity(name.as_str().into()))?;
            join_keys.push(self.join_key(entity)?);
        }
        join_keys.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        join_keys.dedup_by(|a, b| a.name == b.name);
        Ok(join_keys)
    }

    fn join_key(&self, entity: &Entity) -> Result<JoinKey, Unservable> {
        let column = self.entity_columns.iter().find(|column| *column.name == *entity.join_key);
        let value_type = match column.map_or(ValueType::UNKNOWN, |spec| ValueType(spec.value_type))
        {
            ValueType::UNKNOWN => entity.value_type,
            declared => declared,
        };
        match value_type {
            // Feast gives label views the type that it leaves open for others.
            ValueType::UNKNOWN if self.kind == ViewKind::Label => {
                Ok(JoinKey { name: Arc::clone(&entity.join_key), value_type: ValueType::STRING })
            }
            ValueType::UNKNOWN
            | ValueType::BYTES
            | ValueType::STRING
            | ValueType::INT32
            | ValueType::INT64
            | ValueType::UNIX_TIMESTAMP => {
                Ok(JoinKey { name: Arc::clone(&entity.join_key), value_type })
            }
            _ => Err(Unservable::UnsupportedJoinKey(Arc::clone(&entity.join_key))),
        }
    }
}

impl From<core::FeatureView> for Definition {
    fn from(view: core::FeatureView) -> Self {
        let (spec, meta) = (view.spec.unwrap_or_default(), view.meta.unwrap_or_default());
        Self {
            name: spec.name.into(),
            project: spec.project,
            kind: ViewKind::Batch,
            is_stored: true,
            version: version(meta.current_version_number),
            entities: spec.entities,
            features: spec.features,
            entity_columns: spec.entity_columns,
            tags: spec.tags,
            max_age: max_age(spec.ttl),
            is_disabled: spec.disabled,
            state: meta.state(),
        }
    }
}

impl From<core::StreamFeatureView> for Definition {
    fn from(view: core::StreamFeatureView) -> Self {
        let (spec, meta) = (view.spec.unwrap_or_default(), view.meta.unwrap_or_default());
        Self {
            name: spec.name.into(),
            project: spec.project,
            kind: ViewKind::Stream,
            is_stored: true,
            version: version(meta.current_version_number),
            entities: spec.entities,
            features: spec.features,
            entity_columns: spec.entity_columns,
            tags: spec.tags,
            max_age: max_age(spec.ttl),
            is_disabled: spec.disabled,
            state: meta.state(),
        }
    }
}

impl From<core::OnDemandFeatureView> for Definition {
    fn from(view: core::OnDemandFeatureView) -> Self {
        let (spec, meta) = (view.spec.unwrap_or_default(), view.meta.unwrap_or_default());
        Self {
            name: spec.name.into(),
            project: spec.project,
            kind: ViewKind::OnDemand,
            is_stored: spec.write_to_online_store,
            version: version(meta.current_version_number),
            entities: spec.entities,
            features: spec.features,
            entity_columns: spec.entity_columns,
            tags: spec.tags,
            max_age: None,
            is_disabled: spec.disabled,
            state: meta.state(),
        }
    }
}

impl From<core::LabelView> for Definition {
    fn from(view: core::LabelView) -> Self {
        let spec = view.spec.unwrap_or_default();
        Self {
            name: spec.name.into(),
            project: spec.project,
            kind: ViewKind::Label,
            is_stored: true,
            version: 0,
            entities: spec.entities,
            features: spec.features,
            entity_columns: spec.entity_columns,
            tags: spec.tags,
            max_age: max_age(spec.ttl),
            is_disabled: false,
            state: FeatureViewState::StateUnspecified,
        }
    }
}

fn version(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

/// Feast's `ttl`: absent, zero and less are no limit.
fn max_age(ttl: Option<prost_types::Duration>) -> Option<Duration> {
    let max_age = Duration::try_from(ttl?).ok()?;
    (!max_age.is_zero()).then_some(max_age)
}
