//! What a list of names, or a feature service, means in one registry snapshot.
//!
//! Models ask for the same features over and over, so shapes are computed once for each snapshot
//! and kept: a request then compares no strings but its own key.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{Hash, Hasher},
    sync::Arc,
};

use quick_cache::{Equivalent, Weighter, sync::Cache};

use super::{
    ProxyError,
    request::Select,
    route::{Route, RouteTable},
    settings::FreshnessTable,
};
use crate::{
    model::{FeatureView, ValueType},
    proxy::Freshness,
    registry::{Projection, Registry, StoredView, View},
};

/// A resolved selection.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// The views to read, each under the name it has in the request.
    pub(super) reads: Vec<ShapeRead>,
    /// The ways in which entity columns make entity keys. Views with the same share their keys.
    pub(super) key_sets: Vec<KeySet>,
    /// The features, in the order of the request.
    pub(super) columns: Vec<FeatureColumn>,
    /// The entity columns that the views need, with their types; a later view overrides.
    pub(super) join_columns: HashMap<Arc<str>, ValueType>,
}

/// A view to read.
#[derive(Debug)]
pub(super) struct ShapeRead {
    /// The name the request has for it: its alias, or its own with a version.
    pub(super) name: Arc<str>,
    /// The view.
    pub(super) view: Arc<FeatureView>,
    /// The version in force, 0 where there is none.
    pub(super) version: u32,
    /// Its place in [`Shape::key_sets`].
    pub(super) key_set: usize,
    /// Where its rows are.
    pub(super) route: Route,
    /// How its rows age.
    pub(super) freshness: Freshness,
}

/// Which entity column stands for which join key. Sorted by join key; empty if entityless.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeySet(pub(super) Box<[KeyPart]>);

/// One join key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyPart {
    /// Its name within the entity key.
    pub(super) join_key: Arc<str>,
    /// The entity column that holds it.
    pub(super) column: Arc<str>,
    /// Its type.
    pub(super) value_type: ValueType,
}

/// A feature of the answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FeatureColumn {
    /// Its name in the answer.
    pub(super) name: String,
    /// Which read.
    pub(super) read: usize,
    /// Which of the view's features.
    pub(super) feature: usize,
}

impl Shape {
    /// Resolves `select`. Fails for what the registry does not have or cannot serve.
    fn resolve(
        registry: &Registry,
        tables: Tables<'_>,
        select: &Select<'_>,
        full_names: bool,
    ) -> Result<Self, ProxyError> {
        let mut builder = Builder { registry, tables, full_names, shape: Self::default() };
        match select {
            Select::Features(references) => {
                if references.is_empty() {
                    return Err(ProxyError::NoFeatures);
                }
                references.iter().try_for_each(|reference| builder.add_reference(reference))?;
            }
            Select::Service(name) => {
                let service = registry.services.get(&**name).ok_or_else(|| {
                    let project = Arc::clone(&registry.project);
                    ProxyError::UnknownService { service: name.to_string(), project }
                })?;
                service.projections.iter().try_for_each(|each| builder.add_projection(each))?;
            }
        }
        builder.finish()
    }
}

/// What operators said of single views.
#[derive(Clone, Copy)]
pub(super) struct Tables<'a> {
    pub(super) freshness: &'a FreshnessTable,
    pub(super) routes: &'a RouteTable,
}

struct Builder<'a> {
    registry: &'a Registry,
    tables: Tables<'a>,
    full_names: bool,
    shape: Shape,
}

impl<'a> Builder<'a> {
    /// `view[@version]:feature`, split at the first colon.
    fn add_reference(&mut self, reference: &str) -> Result<(), ProxyError> {
        let invalid = || ProxyError::InvalidReference(reference.to_owned());
        let (left, feature) = reference.split_once(':').ok_or_else(invalid)?;
        if left.is_empty() || feature.is_empty() {
            return Err(invalid());
        }
        let (name, version) = split_version(left);
        if version.is_some() && !self.registry.versioning {
            return Err(ProxyError::VersioningDisabled(reference.to_owned()));
        }
        let stored = self.find(name, version)?;
        let called = match version {
            Some(version) => format!("{name}@v{version}").into(),
            None => Arc::clone(&stored.view.name),
        };
        let read = self.read(called, stored, &BTreeMap::new());
        self.add_feature(read, feature)
    }

    fn add_projection(&mut self, projection: &Projection) -> Result<(), ProxyError> {
        let stored = self.find(&projection.view, projection.version)?;
        let name = projection.alias.as_ref().unwrap_or(&projection.view);
        let called = match projection.version {
            Some(version) => format!("{name}@v{version}").into(),
            None => Arc::clone(name),
        };
        let read = self.read(called, stored, &projection.join_key_map);
        projection.features.iter().try_for_each(|feature| self.add_feature(read, feature))
    }

    /// The stored view of this name, at the version in force or the one given.
    fn find(&self, name: &str, version: Option<u32>) -> Result<&'a StoredView, ProxyError> {
        let registry = self.registry;
        let project = || Arc::clone(&registry.project);
        let unknown = || ProxyError::UnknownView { view: name.to_owned(), project: project() };
        let current = registry.views.get(name);
        let view = match version {
            None => current.ok_or_else(unknown)?,
            Some(version) => {
                registry.versions.get(&(Arc::from(name), version)).ok_or_else(|| {
                    if current.is_none() {
                        return unknown();
                    }
                    ProxyError::UnknownVersion {
                        view: name.to_owned(),
                        version,
                        project: project(),
                    }
                })?
            }
        };
        match view {
            View::Stored(stored) => Ok(stored),
            View::Computed { name } => Err(ProxyError::Computed(Arc::clone(name))),
            View::Unservable { name, why } => {
                Err(ProxyError::Unservable { view: Arc::clone(name), why: why.clone() })
            }
        }
    }

    /// The read of `stored` under the name `called`: that of an earlier reference, or a new one.
    fn read(
        &mut self,
        called: Arc<str>,
        stored: &StoredView,
        join_key_map: &BTreeMap<Arc<str>, Arc<str>>,
    ) -> usize {
        if let Some(read) = self.shape.reads.iter().position(|read| read.name == called) {
            return read;
        }
        let parts = stored.view.join_keys.iter().map(|join_key| KeyPart {
            join_key: Arc::clone(&join_key.name),
            column: Arc::clone(join_key_map.get(&join_key.name).unwrap_or(&join_key.name)),
            value_type: join_key.value_type,
        });
        let key_set = KeySet(parts.collect());
        for part in &key_set.0 {
            self.shape.join_columns.insert(Arc::clone(&part.column), part.value_type);
        }
        let key_sets = &mut self.shape.key_sets;
        let place = key_sets.iter().position(|known| *known == key_set).unwrap_or_else(|| {
            key_sets.push(key_set);
            key_sets.len() - 1
        });
        self.shape.reads.push(ShapeRead {
            name: called,
            view: Arc::clone(&stored.view),
            version: stored.current_version,
            key_set: place,
            route: self.tables.routes.of(stored),
            freshness: self.tables.freshness.of(&stored.view.name),
        });
        self.shape.reads.len() - 1
    }

    fn add_feature(&mut self, read: usize, feature: &str) -> Result<(), ProxyError> {
        let ShapeRead { name, view, .. } = &self.shape.reads[read];
        let index = view.feature_index(feature).ok_or_else(|| ProxyError::UnknownFeature {
            view: name.to_string(),
            feature: feature.to_owned(),
        })?;
        let name = if self.full_names { format!("{name}__{feature}") } else { feature.to_owned() };
        self.shape.columns.push(FeatureColumn { name, read, feature: index });
        Ok(())
    }

    /// Refuses columns of one name: a caller could not tell them apart.
    fn finish(self) -> Result<Shape, ProxyError> {
        let mut seen = HashSet::with_capacity(self.shape.columns.len());
        let names = self.shape.columns.iter().map(|column| &column.name);
        let mut twice: Vec<_> = names.filter(|name| !seen.insert(*name)).cloned().collect();
        if twice.is_empty() {
            return Ok(self.shape);
        }
        twice.sort();
        twice.dedup();
        Err(ProxyError::Collision { names: twice, full_names: self.full_names })
    }
}

/// Splits `view@v2`. `@latest` and a bare `@` mean the version in force; any other suffix is part
/// of the name.
fn split_version(left: &str) -> (&str, Option<u32>) {
    let Some((name, suffix)) = left.split_once('@') else {
        return (left, None);
    };
    if suffix.is_empty() || suffix.eq_ignore_ascii_case("latest") {
        return (name, None);
    }
    let digits = suffix
        .strip_prefix(['v', 'V'])
        .filter(|digits| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(version) => (name, Some(version)),
        None => (left, None),
    }
}

/// Shapes by snapshot and selection, bounded by the bytes of their names.
#[derive(Debug)]
pub(super) struct ShapeCache(Cache<ShapeKey, Arc<Shape>, NameBytes>);

const MAX_SHAPE_BYTES: u64 = 16 << 20;

impl ShapeCache {
    /// An empty cache.
    pub(super) fn new() -> Self {
        Self(Cache::with_weighter(256, MAX_SHAPE_BYTES, NameBytes))
    }

    /// The shape of `select` in `registry`: known, or resolved now.
    pub(super) fn get(
        &self,
        registry: &Registry,
        tables: Tables<'_>,
        select: &Select<'_>,
        full_names: bool,
    ) -> Result<Arc<Shape>, ProxyError> {
        let query = ShapeQuery { generation: registry.generation, full_names, select };
        if let Some(shape) = self.0.get(&query) {
            return Ok(shape);
        }
        let shape = Arc::new(Shape::resolve(registry, tables, select, full_names)?);
        self.0.insert(query.to_key(), Arc::clone(&shape));
        Ok(shape)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ShapeKey {
    generation: u64,
    full_names: bool,
    select: Select<'static>,
}

struct ShapeQuery<'a> {
    generation: u64,
    full_names: bool,
    select: &'a Select<'a>,
}

impl ShapeQuery<'_> {
    fn to_key(&self) -> ShapeKey {
        let select = match self.select {
            Select::Features(references) => Select::Features(
                references.iter().map(|each| each.clone().into_owned().into()).collect(),
            ),
            Select::Service(name) => Select::Service(name.clone().into_owned().into()),
        };
        ShapeKey { generation: self.generation, full_names: self.full_names, select }
    }
}

impl Hash for ShapeQuery<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.generation, self.full_names, self.select).hash(state);
    }
}

impl Hash for ShapeKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.generation, self.full_names, &self.select).hash(state);
    }
}

impl Equivalent<ShapeKey> for ShapeQuery<'_> {
    fn equivalent(&self, key: &ShapeKey) -> bool {
        self.generation == key.generation
            && self.full_names == key.full_names
            && *self.select == key.select
    }
}

#[derive(Clone, Debug)]
struct NameBytes;

impl Weighter<ShapeKey, Arc<Shape>> for NameBytes {
    fn weight(&self, key: &ShapeKey, shape: &Arc<Shape>) -> u64 {
        // A name is kept in the key and in the shape; the rest is what the structs take.
        let names = match &key.select {
            Select::Features(names) => names.iter().map(|name| name.len() + 24).sum(),
            Select::Service(name) => name.len() + 24,
        };
        let columns: usize = shape.columns.iter().map(|column| column.name.len() + 40).sum();
        (256 + names + columns + 200 * shape.reads.len()) as u64
    }
}
