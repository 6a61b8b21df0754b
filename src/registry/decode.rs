//! From the bytes of a registry to a snapshot of one project. Pure.
//!
//! The bytes as a whole must be right, or the snapshot in force is better than they are. A single
//! object that makes no sense is left out or not served, with a warning, and harms no other.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use prost::{DecodeError, Message};

use super::{
    Entity, FeatureService, Projection, Registry, RegistryError, Unservable, View,
    definition::{DUMMY_ENTITY, Definition, Scope},
};
use crate::{
    model::{KeyEncoding, ValueType},
    pb::core::{
        self, FeatureServiceSpec, FeatureView, FeatureViewProjection, FeatureViewVersionRecord,
        LabelView, OnDemandFeatureView, StreamFeatureView,
    },
};

/// What is wanted of a registry, and what the feature store's settings say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeOptions {
    /// The project. Objects of others are not seen.
    pub project: Arc<str>,
    /// How entity keys are serialized.
    pub key_encoding: KeyEncoding,
    /// Feast's `enable_online_feature_view_versioning`.
    pub versioning: bool,
    /// Whether the online store has a place for each version of a view: not so in Cassandra.
    pub versioned_store: bool,
    /// The tag by which views are told apart that lie in different stores, if there is one.
    pub routing: Option<RoutingTag>,
}

/// The tag of Feast's `hybrid` online store: its value in a view names the store of the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutingTag {
    /// The tag.
    pub tag: Arc<str>,
    /// Its values that there are stores for, in lower case.
    pub values: BTreeSet<Arc<str>>,
}

/// Decodes a serialized `feast.core.Registry`. Takes memory in proportion to `bytes`.
///
/// # Errors
///
/// If the bytes are not a whole registry, or not one that has the project.
pub fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<Registry, RegistryError> {
    let mut source = core::Registry::decode(bytes)?;
    check_project(&source, &options.project)?;

    let mut registry = Registry {
        project: Arc::clone(&options.project),
        versioning: options.versioning,
        key_encoding: options.key_encoding,
        version_id: std::mem::take(&mut source.version_id).into(),
        last_updated_unix: source.last_updated.map(|time| time.seconds),
        ..Registry::default()
    };
    add_entities(&mut registry, std::mem::take(&mut source.entities));
    let services = std::mem::take(&mut source.feature_services);
    let history = source.feature_view_version_history.take().unwrap_or_default();
    add_views(&mut registry, source, options);
    if options.versioning {
        add_versions(&mut registry, history.records, options);
    }
    add_services(&mut registry, services);
    Ok(registry)
}

fn check_project(source: &core::Registry, project: &Arc<str>) -> Result<(), RegistryError> {
    fn name<'a, T>(spec: &'a Option<T>, project: impl Fn(&'a T) -> &'a String) -> Option<&'a str> {
        spec.as_ref().map(|spec| project(spec).as_str()).filter(|name| !name.is_empty())
    }
    let existing: BTreeSet<&str> = std::iter::empty()
        .chain(source.projects.iter().filter_map(|it| name(&it.spec, |spec| &spec.name)))
        .chain(source.entities.iter().filter_map(|it| name(&it.spec, |spec| &spec.project)))
        .chain(source.feature_views.iter().filter_map(|it| name(&it.spec, |spec| &spec.project)))
        .chain(source.stream_feature_views.iter().filter_map(|it| name(&it.spec, |s| &s.project)))
        .chain(
            source.on_demand_feature_views.iter().filter_map(|it| name(&it.spec, |s| &s.project)),
        )
        .chain(source.label_views.iter().filter_map(|it| name(&it.spec, |spec| &spec.project)))
        .chain(source.feature_services.iter().filter_map(|it| name(&it.spec, |spec| &spec.project)))
        .collect();
    if existing.contains(&**project) {
        return Ok(());
    }
    let existing = existing.into_iter().map(str::to_owned).collect();
    Err(RegistryError::NoSuchProject { project: Arc::clone(project), existing })
}

fn add_entities(registry: &mut Registry, entities: Vec<core::Entity>) {
    for spec in entities.into_iter().filter_map(|entity| entity.spec) {
        if *spec.project != *registry.project || spec.name == DUMMY_ENTITY {
            continue;
        }
        let name: Arc<str> = spec.name.into();
        let join_key = match spec.join_key {
            none if none.is_empty() => Arc::clone(&name),
            join_key => join_key.into(),
        };
        registry.join_keys.insert(Arc::clone(&join_key));
        let entity = Entity { name, join_key, value_type: ValueType(spec.value_type) };
        registry.entities.entry(Arc::clone(&entity.name)).or_insert(entity);
    }
}

/// In the order in which Feast looks views up: of those with one name, the first is it.
fn add_views(registry: &mut Registry, source: core::Registry, options: &DecodeOptions) {
    let definitions = std::iter::empty()
        .chain(source.feature_views.into_iter().map(Definition::from))
        .chain(source.stream_feature_views.into_iter().map(Definition::from))
        .chain(source.on_demand_feature_views.into_iter().map(Definition::from))
        .chain(source.label_views.into_iter().map(Definition::from))
        .filter(|definition| *definition.project == *options.project);
    let scope = Scope {
        project: &options.project,
        entities: &registry.entities,
        routing: options.routing.as_ref(),
    };
    for definition in definitions {
        let name = Arc::clone(&definition.name);
        if name.is_empty() || registry.views.contains_key(&name) {
            let what = if name.is_empty() { "has no name" } else { "is there twice" };
            registry.warnings.push(format!("feature view `{name}` {what}, and is left out"));
            continue;
        }
        let version = stored_version(definition.version, options);
        let view = definition.into_view(version, &scope);
        registry.warnings.extend(broken(&view));
        registry.views.insert(name, view);
    }
}

/// The version whose name the rows have. The first has none.
fn stored_version(version: u32, options: &DecodeOptions) -> Option<u32> {
    (options.versioning && options.versioned_store && version > 0).then_some(version)
}

/// A warning where a view cannot be served, and nobody can have meant it.
fn broken(view: &View) -> Option<String> {
    match view {
        View::Unservable { name, why: Unservable::UnknownEntity(entity) } => {
            Some(format!("feature view `{name}` is not served: there is no entity `{entity}`"))
        }
        View::Unservable { name, why: Unservable::UnsupportedJoinKey(key) } => Some(format!(
            "feature view `{name}` is not served: \
             join key `{key}` has a type that Feast cannot make keys of"
        )),
        _ => None,
    }
}

fn add_versions(
    registry: &mut Registry,
    records: Vec<FeatureViewVersionRecord>,
    options: &DecodeOptions,
) {
    let scope = Scope {
        project: &options.project,
        entities: &registry.entities,
        routing: options.routing.as_ref(),
    };
    for record in records {
        if *record.project_id != *options.project {
            continue;
        }
        let name: Arc<str> = record.feature_view_name.as_str().into();
        let Ok(version) = u32::try_from(record.version_number) else { continue };
        let mut definition = match snapshot(&record) {
            Ok(definition) => definition,
            Err(why) => {
                let warning = format!("version {version} of feature view `{name}` {why}");
                registry.warnings.push(warning);
                continue;
            }
        };
        // The record's, whatever the view itself was told.
        definition.name = Arc::clone(&name);
        definition.version = version;
        let view = if options.versioned_store {
            definition.into_view(stored_version(version, options), &scope)
        } else {
            View::Unservable { name: Arc::clone(&name), why: Unservable::UnversionedStore }
        };
        registry.versions.entry((name, version)).or_insert(view);
    }
}

/// The view as it was when the record was made.
fn snapshot(record: &FeatureViewVersionRecord) -> Result<Definition, String> {
    let bytes = record.feature_view_proto.as_slice();
    let definition = match record.feature_view_type.as_str() {
        "feature_view" => FeatureView::decode(bytes).map(Definition::from),
        "stream_feature_view" => StreamFeatureView::decode(bytes).map(Definition::from),
        "on_demand_feature_view" => OnDemandFeatureView::decode(bytes).map(Definition::from),
        "label_view" => LabelView::decode(bytes).map(Definition::from),
        other => return Err(format!("is of the unknown type `{other}`, and is left out")),
    };
    definition.map_err(|error: DecodeError| format!("cannot be decoded, and is left out: {error}"))
}

fn add_services(registry: &mut Registry, services: Vec<core::FeatureService>) {
    for spec in services.into_iter().filter_map(|service| service.spec) {
        if *spec.project != *registry.project {
            continue;
        }
        let service = service(spec, &mut registry.warnings);
        check_projections(registry, &service);
        registry.services.entry(Arc::clone(&service.name)).or_insert(service);
    }
}

fn service(spec: FeatureServiceSpec, warnings: &mut Vec<String>) -> FeatureService {
    let mut service = FeatureService { name: spec.name.into(), projections: Vec::new() };
    for source in spec.features {
        let (view, tag) = (source.feature_view_name.clone(), source.version_tag);
        match projection(source) {
            Some(projection) => merge(&mut service.projections, projection),
            None => warnings.push(format!(
                "feature service `{}` wants version {} of feature view `{view}`: left out",
                service.name,
                tag.unwrap_or_default(),
            )),
        }
    }
    service
}

fn projection(source: FeatureViewProjection) -> Option<Projection> {
    let version = source.version_tag.map(u32::try_from).transpose().ok()?;
    let alias = source.feature_view_name_alias;
    Some(Projection {
        view: source.feature_view_name.into(),
        alias: (!alias.is_empty()).then(|| alias.into()),
        version,
        features: source.feature_columns.into_iter().map(|spec| spec.name.into()).collect(),
        join_key_map: source
            .join_key_map
            .into_iter()
            .map(|(key, name)| (key.into(), name.into()))
            .collect(),
    })
}

/// Two projections of one view under one name are one, with the features of both.
fn merge(projections: &mut Vec<Projection>, new: Projection) {
    fn name(projection: &Projection) -> (&str, &str, Option<u32>) {
        let alias = projection.alias.as_ref().unwrap_or(&projection.view);
        (&projection.view, alias, projection.version)
    }
    let same = projections.iter_mut().find(|present| name(present) == name(&new));
    let Some(present) = same else { return projections.push(new) };
    let known: HashSet<_> = present.features.iter().cloned().collect();
    present.features.extend(new.features.into_iter().filter(|name| !known.contains(name)));
    for (key, name) in new.join_key_map {
        present.join_key_map.entry(key).or_insert(name);
    }
}

/// A service that names what is not there stays: whoever asks for it is told.
fn check_projections(registry: &mut Registry, service: &FeatureService) {
    for projection in &service.projections {
        let (name, view) = (&service.name, &projection.view);
        match registry.views.get(view) {
            None => registry.warnings.push(format!(
                "feature service `{name}` cannot be served: there is no feature view `{view}`"
            )),
            Some(View::Stored(stored)) if projection.version.is_none() => {
                let unknown = |name: &&Arc<str>| stored.view.feature_index(name).is_none();
                if let Some(feature) = projection.features.iter().find(unknown) {
                    registry.warnings.push(format!(
                        "feature service `{name}` cannot be served: \
                         feature view `{view}` has no feature `{feature}`"
                    ));
                }
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        model::{JoinKey, ViewKind},
        pb::core::{
            EntitySpecV2, FeatureSpecV2, FeatureViewMeta, FeatureViewSpec, LabelViewSpec,
            OnDemandFeatureViewSpec, Project, ProjectSpec, StreamFeatureViewSpec,
        },
    };

    const DOUBLE: i32 = 5;

    fn options() -> DecodeOptions {
        DecodeOptions {
            project: "p".into(),
            key_encoding: KeyEncoding::V3,
            versioning: false,
            versioned_store: true,
            routing: None,
        }
    }

    fn load(source: &core::Registry) -> Registry {
        decode(&source.encode_to_vec(), &options()).unwrap()
    }

    fn entity(name: &str, join_key: &str, value_type: ValueType) -> core::Entity {
        let (name, join_key, project) = (name.into(), join_key.into(), "p".into());
        let value_type = value_type.0;
        core::Entity { spec: Some(EntitySpecV2 { name, value_type, join_key, project }) }
    }

    fn column(name: &str, value_type: ValueType) -> FeatureSpecV2 {
        FeatureSpecV2 { name: name.into(), value_type: value_type.0 }
    }

    fn spec(name: &str) -> FeatureViewSpec {
        FeatureViewSpec { name: name.into(), project: "p".into(), ..Default::default() }
    }

    fn batch(spec: FeatureViewSpec) -> FeatureView {
        FeatureView { spec: Some(spec), meta: None }
    }

    fn stored(registry: &Registry, name: &str) -> super::super::StoredView {
        match &registry.views[name] {
            View::Stored(stored) => stored.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn unservable(registry: &Registry, name: &str) -> Unservable {
        match &registry.views[name] {
            View::Unservable { why, .. } => why.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn objects_of_other_projects_are_not_seen() {
        let foreign = |name: &str| FeatureViewSpec { project: "q".into(), ..spec(name) };
        let mut id = entity("id", "id", ValueType::INT64);
        id.spec.as_mut().unwrap().project = "q".into();
        let registry = load(&core::Registry {
            entities: vec![id, entity("user", "user_id", ValueType::INT64)],
            feature_views: vec![batch(foreign("a")), batch(spec("a")), batch(foreign("b"))],
            ..Default::default()
        });
        assert_eq!(registry.views.keys().map(|name| &**name).collect::<Vec<_>>(), ["a"]);
        assert_eq!(registry.entities.keys().map(|name| &**name).collect::<Vec<_>>(), ["user"]);
        assert_eq!(registry.join_keys, HashSet::from(["user_id".into()]));
        assert_eq!(registry.warnings, [""; 0]);
    }

    #[test]
    fn a_project_that_is_not_there_is_an_error_that_names_those_that_are() {
        let mut source = core::Registry {
            projects: vec![Project { spec: Some(ProjectSpec { name: "q".into() }) }],
            feature_views: vec![batch(FeatureViewSpec { project: "r".into(), ..spec("a") })],
            ..Default::default()
        };
        let error = decode(&source.encode_to_vec(), &options()).unwrap_err().to_string();
        assert_eq!(error, "the registry has no project `p`, it has `q`, `r`");
        let error = decode(&[], &options()).unwrap_err().to_string();
        assert_eq!(error, "the registry has no project `p`, it is empty");
        // A project without objects is there all the same.
        source.projects.push(Project { spec: Some(ProjectSpec { name: "p".into() }) });
        assert!(load(&source).views.is_empty());
    }

    #[test]
    fn of_views_with_one_name_the_first_in_feasts_order_is_it() {
        let registry = load(&core::Registry {
            stream_feature_views: vec![core::StreamFeatureView {
                spec: Some(StreamFeatureViewSpec {
                    name: "a".into(),
                    project: "p".into(),
                    ..Default::default()
                }),
                meta: None,
            }],
            label_views: vec![LabelView {
                spec: Some(LabelViewSpec {
                    name: "a".into(),
                    project: "p".into(),
                    ..Default::default()
                }),
            }],
            ..Default::default()
        });
        assert_eq!(stored(&registry, "a").view.kind, ViewKind::Stream);
        assert_eq!(registry.warnings, ["feature view `a` is there twice, and is left out"]);
    }

    #[test]
    fn join_keys_are_sorted_and_typed_by_the_view_then_by_the_entity() {
        let entities = vec![
            entity("z", "alpha", ValueType::INT32),
            entity("a", "zulu", ValueType::UNKNOWN),
            entity("m", "", ValueType::STRING),
        ];
        let names = ["a", "m", "z"].map(String::from).to_vec();
        let registry = load(&core::Registry {
            entities,
            feature_views: vec![batch(FeatureViewSpec {
                entities: names.clone(),
                entity_columns: vec![column("m", ValueType::INT64), column("alpha", ValueType(0))],
                ..spec("view")
            })],
            label_views: vec![LabelView {
                spec: Some(LabelViewSpec {
                    name: "labels".into(),
                    project: "p".into(),
                    entities: names,
                    ..Default::default()
                }),
            }],
            ..Default::default()
        });
        let keys = |name: &str, m, zulu| {
            let key = |name: &str, value_type| JoinKey { name: name.into(), value_type };
            let expected = [key("alpha", ValueType::INT32), key("m", m), key("zulu", zulu)];
            assert_eq!(*stored(&registry, name).view.join_keys, expected);
        };
        keys("view", ValueType::INT64, ValueType::UNKNOWN);
        keys("labels", ValueType::STRING, ValueType::STRING);
    }

    #[test]
    fn a_view_without_entities_or_of_the_dummy_has_no_join_keys() {
        let dummy = FeatureViewSpec { entities: vec!["__dummy".into()], ..spec("dummy") };
        let registry = load(&core::Registry {
            entities: vec![entity("__dummy", "__dummy_id", ValueType::STRING)],
            feature_views: vec![batch(dummy), batch(spec("none"))],
            ..Default::default()
        });
        assert!(stored(&registry, "dummy").view.join_keys.is_empty());
        assert!(stored(&registry, "none").view.join_keys.is_empty());
        assert!(registry.join_keys.is_empty());
    }

    #[test]
    fn a_broken_view_is_not_served_and_takes_no_other_down() {
        let of = |name: &str, entity: &str| {
            batch(FeatureViewSpec { entities: vec![entity.into()], ..spec(name) })
        };
        let registry = load(&core::Registry {
            entities: vec![entity("ratio", "ratio", ValueType(DOUBLE))],
            feature_views: vec![of("lost", "nobody"), of("odd", "ratio"), batch(spec("good"))],
            ..Default::default()
        });
        assert_eq!(unservable(&registry, "lost"), Unservable::UnknownEntity("nobody".into()));
        assert_eq!(unservable(&registry, "odd"), Unservable::UnsupportedJoinKey("ratio".into()));
        stored(&registry, "good");
        assert_eq!(
            registry.warnings,
            [
                "feature view `lost` is not served: there is no entity `nobody`",
                "feature view `odd` is not served: \
                 join key `ratio` has a type that Feast cannot make keys of",
            ]
        );
    }

    #[test]
    fn disabled_views_and_those_on_their_way_are_not_served() {
        let in_state = |state: i32| {
            let meta = Some(FeatureViewMeta { state, ..Default::default() });
            FeatureView { spec: Some(spec(&format!("in{state}"))), meta }
        };
        let mut views: Vec<_> = (0..=4).map(in_state).collect();
        views.push(batch(FeatureViewSpec { disabled: true, ..spec("off") }));
        let registry = load(&core::Registry { feature_views: views, ..Default::default() });
        assert_eq!(unservable(&registry, "off"), Unservable::Disabled);
        assert_eq!(unservable(&registry, "in1"), Unservable::State("CREATED"));
        assert_eq!(unservable(&registry, "in2"), Unservable::State("GENERATED"));
        for served in ["in0", "in3", "in4"] {
            stored(&registry, served);
        }
    }

    #[test]
    fn an_on_demand_view_is_stored_if_it_is_computed_when_written() {
        let view = |name: &str, write_to_online_store| OnDemandFeatureView {
            spec: Some(OnDemandFeatureViewSpec {
                name: name.into(),
                project: "p".into(),
                write_to_online_store,
                ..Default::default()
            }),
            meta: None,
        };
        let registry = load(&core::Registry {
            on_demand_feature_views: vec![view("read", false), view("written", true)],
            ..Default::default()
        });
        assert!(matches!(registry.views["read"], View::Computed { .. }));
        assert_eq!(stored(&registry, "written").view.kind, ViewKind::OnDemand);
    }

    #[test]
    fn a_ttl_of_zero_or_less_is_no_limit() {
        let view = |name: &str, seconds, nanos| {
            let ttl = Some(prost_types::Duration { seconds, nanos });
            batch(FeatureViewSpec { ttl, ..spec(name) })
        };
        let registry = load(&core::Registry {
            feature_views: vec![view("day", 86_400, 0), view("zero", 0, 0), view("less", -1, 0)],
            ..Default::default()
        });
        let seconds = |name| stored(&registry, name).view.max_age.map(|age| age.as_secs());
        assert_eq!(seconds("day"), Some(86_400));
        assert_eq!(seconds("zero"), None);
        assert_eq!(seconds("less"), None);
    }

    fn take(view: &str, features: &[&str]) -> FeatureViewProjection {
        let features = features.iter().map(|name| column(name, ValueType::INT64));
        FeatureViewProjection {
            feature_view_name: view.into(),
            feature_columns: features.collect(),
            ..Default::default()
        }
    }

    fn with_service(features: Vec<FeatureViewProjection>) -> Registry {
        let features_of_view = ["f", "g", "h"].map(|name| column(name, ValueType::INT64)).to_vec();
        let (name, project) = ("s".into(), "p".into());
        load(&core::Registry {
            feature_views: vec![
                batch(FeatureViewSpec { features: features_of_view.clone(), ..spec("v") }),
                batch(FeatureViewSpec { features: features_of_view, ..spec("w") }),
            ],
            feature_services: vec![core::FeatureService {
                spec: Some(FeatureServiceSpec { name, project, features }),
            }],
            ..Default::default()
        })
    }

    #[test]
    fn projections_of_one_view_under_one_name_are_merged_in_order() {
        let alias = |name: &str, projection| FeatureViewProjection {
            feature_view_name_alias: name.into(),
            join_key_map: [("id".into(), name.into())].into(),
            ..projection
        };
        let registry = with_service(vec![
            take("v", &["g", "f"]),
            alias("x", take("v", &["f"])),
            take("w", &["h"]),
            alias("v", take("v", &["f", "h"])),
        ]);
        let service = &registry.services["s"];
        let projections: Vec<_> = service
            .projections
            .iter()
            .map(|it| {
                (&*it.view, it.alias.as_deref(), it.features.join(","), it.join_key_map.len())
            })
            .collect();
        let expected: [(&str, Option<&str>, String, usize); 3] = [
            ("v", None, "g,f,h".into(), 1),
            ("v", Some("x"), "f".into(), 1),
            ("w", None, "h".into(), 0),
        ];
        assert_eq!(projections, expected);
        assert_eq!(&*service.projections[1].join_key_map["id"], "x");
    }

    #[test]
    fn a_service_of_what_is_not_there_is_kept_and_warned_of() {
        let pinned = FeatureViewProjection { version_tag: Some(-1), ..take("v", &["f"]) };
        let registry = with_service(vec![take("nope", &["f"]), take("v", &["lost"]), pinned]);
        assert_eq!(registry.services["s"].projections.len(), 2);
        assert_eq!(
            registry.warnings,
            [
                "feature service `s` wants version -1 of feature view `v`: left out",
                "feature service `s` cannot be served: there is no feature view `nope`",
                "feature service `s` cannot be served: feature view `v` has no feature `lost`",
            ]
        );
    }

    /// A view at version 2, and the records of its history.
    fn with_history() -> core::Registry {
        let meta = Some(FeatureViewMeta { current_version_number: 2, ..Default::default() });
        let view = |features: &[&str]| FeatureView {
            spec: Some(FeatureViewSpec {
                features: features.iter().map(|name| column(name, ValueType::INT64)).collect(),
                ..spec("v")
            }),
            meta,
        };
        let record = |version_number, kind: &str, proto: Vec<u8>| FeatureViewVersionRecord {
            feature_view_name: "v".into(),
            project_id: "p".into(),
            version_number,
            feature_view_type: kind.into(),
            feature_view_proto: proto,
        };
        let foreign = record(5, "feature_view", view(&[]).encode_to_vec());
        core::Registry {
            feature_views: vec![view(&["a", "b"])],
            feature_view_version_history: Some(core::FeatureViewVersionHistory {
                records: vec![
                    record(0, "feature_view", view(&["a"]).encode_to_vec()),
                    record(1, "label_view", view(&["x"]).encode_to_vec()),
                    record(2, "feature_view", view(&["a", "b"]).encode_to_vec()),
                    record(3, "feature_view", b"\xff".to_vec()),
                    record(4, "riddle", Vec::new()),
                    FeatureViewVersionRecord { project_id: "q".into(), ..foreign },
                ],
            }),
            ..Default::default()
        }
    }

    #[test]
    fn versions_have_their_own_features_and_all_but_the_first_their_own_rows() {
        let options = DecodeOptions { versioning: true, ..options() };
        let registry = decode(&with_history().encode_to_vec(), &options).unwrap();
        let name = |view: &View| match view {
            View::Stored(stored) => stored.view.versioned_name(),
            other => panic!("{other:?}"),
        };
        assert_eq!(name(&registry.views["v"]), "v_v2");
        let mut versions: Vec<_> =
            registry.versions.iter().map(|((_, number), view)| (*number, name(view))).collect();
        versions.sort();
        assert_eq!(versions, [(0, "v".into()), (1, "v_v1".into()), (2, "v_v2".into())]);

        let View::Stored(first) = &registry.versions[&("v".into(), 0)] else { panic!() };
        assert_eq!((first.view.features.len(), first.current_version), (1, 0));
        let View::Stored(labels) = &registry.versions[&("v".into(), 1)] else { panic!() };
        assert_eq!(labels.view.kind, ViewKind::Label);
        // One row under two references is one row in the cache.
        let View::Stored(last) = &registry.versions[&("v".into(), 2)] else { panic!() };
        assert_eq!(last.view.id, stored(&registry, "v").view.id);
        assert_eq!(registry.warnings.len(), 2, "{:?}", registry.warnings);
    }

    #[test]
    fn without_versioning_rows_have_the_plain_name() {
        let registry = load(&with_history());
        assert!(registry.versions.is_empty());
        assert_eq!(stored(&registry, "v").view.version, None);
        assert_eq!(stored(&registry, "v").current_version, 2);
    }

    #[test]
    fn a_store_without_versions_serves_the_version_in_force_alone() {
        let options = DecodeOptions { versioning: true, versioned_store: false, ..options() };
        let registry = decode(&with_history().encode_to_vec(), &options).unwrap();
        assert_eq!(stored(&registry, "v").view.version, None);
        let second = &registry.versions[&("v".into(), 2)];
        let why = Unservable::UnversionedStore;
        assert!(matches!(second, View::Unservable { why: it, .. } if *it == why));
    }

    #[test]
    fn a_view_lies_in_the_store_that_its_tag_names_or_is_not_served() {
        let tagged = |name: &str, tag: Option<&str>| {
            let tags = tag.map(|tag| ("tribe".to_owned(), tag.to_owned()));
            batch(FeatureViewSpec { tags: tags.into_iter().collect(), ..spec(name) })
        };
        let source = core::Registry {
            feature_views: vec![
                tagged("fast", Some("Redis")),
                tagged("lost", Some("oracle")),
                tagged("bare", None),
            ],
            ..Default::default()
        };
        let tag: Arc<str> = "tribe".into();
        let routing = RoutingTag { tag: Arc::clone(&tag), values: ["redis".into()].into() };
        let options = DecodeOptions { routing: Some(routing), ..options() };
        let registry = decode(&source.encode_to_vec(), &options).unwrap();
        assert_eq!(stored(&registry, "fast").routed_by.as_deref(), Some("redis"));
        let value = Some("oracle".into());
        let lost = Unservable::NoStore { tag: Arc::clone(&tag), value };
        assert_eq!(unservable(&registry, "lost"), lost);
        assert_eq!(unservable(&registry, "bare"), Unservable::NoStore { tag, value: None });
        assert_eq!(stored(&load(&source), "bare").routed_by, None, "without a tag all are served");
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            // Random bytes name no project, whatever else they may decode to.
            prop_assert!(decode(&bytes, &options()).is_err());
        }

        #[test]
        fn a_changed_or_cut_registry_never_panics(
            cut in 0.0..1.0_f64,
            at in 0.0..1.0_f64,
            byte in any::<u8>(),
        ) {
            let options = DecodeOptions { versioning: true, ..options() };
            let mut bytes = with_history().encode_to_vec();
            let place = |share: f64, length: usize| (share * length as f64) as usize;
            let at = place(at, bytes.len());
            bytes[at] = byte;
            let length = place(cut, bytes.len() + 1);
            let _ = decode(&bytes[..length], &options);
        }
    }
}
