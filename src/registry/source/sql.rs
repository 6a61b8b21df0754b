//! A registry in the tables that Feast's SQL registry keeps: one for each kind of object, one row
//! an object, the message as a blob.
//!
//! ```text
//!  connect - begin, read only - marker: is it still what is known? - sizes - rows - close
//! ```
//!
//! All of it is one transaction that sees one state. Each read has a connection of its own, so
//! that a thousand larders hold none between their reads.

use prost::Message;

use super::{Fetched, Fetching, Marker, RegistryError};
use crate::pb::core;

/// A registry in a database.
#[derive(Debug)]
pub(super) struct SqlSource {
    database: Database,
    /// The marker that was found last, and when it was found first, in Unix seconds.
    seen: Option<(Marker, i64)>,
    /// The tables that were there.
    had: Vec<&'static str>,
}

#[derive(Debug)]
enum Database {
    #[cfg(feature = "sql-registry")]
    Server(Box<crate::registry::SqlSettings>),
    #[cfg(feature = "sqlite")]
    Sqlite(super::sqlite::SqliteFile),
}

/// How long a marker must have stood before another write is sure to change it: Feast stamps
/// seconds, of a clock that is not larder's.
const SETTLED_SECONDS: i64 = 2;

/// The projects that are named to whoever asks for one that is not there.
const MAX_PROJECTS: usize = 100;

/// A table of objects.
struct Table {
    name: &'static str,
    /// The columns that tell its objects apart within a project.
    key: &'static str,
    blob: &'static str,
    /// The column that says when an object was written.
    stamp: &'static str,
    /// Whether there is no registry without it; others came with newer versions of Feast.
    required: bool,
    add: fn(&mut core::Registry, &str, Row) -> Result<(), prost::DecodeError>,
}

/// A row of a table of objects.
pub(super) struct Row {
    pub(super) blob: Vec<u8>,
    /// Of a version, its view's name, type and number.
    pub(super) version: Option<(String, String, i32)>,
}

/// Why a database did not answer a query.
pub(super) enum QueryError {
    NoSuchTable,
    Other(RegistryError),
}

/// How one database is asked. Bound to one connection; what is dropped is closed.
pub(super) trait Session {
    /// Begins the transaction.
    async fn begin(&mut self) -> Result<(), QueryError>;
    /// The first column, as text. `{p}` in `sql` is the project.
    async fn texts(&mut self, sql: &str) -> Result<Vec<String>, QueryError>;
    /// Each row's first column, and the three next where there are any.
    async fn rows(&mut self, sql: &str) -> Result<Vec<Row>, QueryError>;
    /// Says goodbye.
    async fn end(self);
}

/// A table that is named like the field of its objects. Not every version of Feast has their
/// messages name their project: the column does.
macro_rules! objects {
    ($name:ident: $message:ident, $key:literal, $blob:literal, required: $required:literal) => {
        Table {
            name: stringify!($name),
            key: $key,
            blob: $blob,
            stamp: "last_updated_timestamp",
            required: $required,
            add: |registry, project, row| {
                let mut object = core::$message::decode(&*row.blob)?;
                object.spec.get_or_insert_default().project = project.to_owned();
                registry.$name.push(object);
                Ok(())
            },
        }
    };
}

#[rustfmt::skip]
const TABLES: &[Table] = &[
    objects!(entities: Entity, "entity_name", "entity_proto", required: true),
    objects!(feature_views: FeatureView, "feature_view_name", "feature_view_proto", required: true),
    objects!(stream_feature_views: StreamFeatureView, "feature_view_name", "feature_view_proto", required: true),
    objects!(on_demand_feature_views: OnDemandFeatureView, "feature_view_name", "feature_view_proto", required: true),
    objects!(label_views: LabelView, "feature_view_name", "feature_view_proto", required: false),
    objects!(feature_services: FeatureService, "feature_service_name", "feature_service_proto", required: true),
    Table {
        name: "feature_view_version_history",
        key: "feature_view_name, version_number",
        blob: "feature_view_proto",
        stamp: "created_timestamp",
        required: false,
        add: |registry, project, row| {
            let (feature_view_name, feature_view_type, version_number) =
                row.version.unwrap_or_default();
            let history = registry.feature_view_version_history.get_or_insert_default();
            history.records.push(core::FeatureViewVersionRecord {
                feature_view_name,
                project_id: project.to_owned(),
                version_number,
                feature_view_type,
                feature_view_proto: row.blob,
            });
            Ok(())
        },
    },
];

/// Tables that are asked for something else than objects.
const PROJECTS: &str = "projects";
const METADATA: &str = "feast_metadata";

/// Tables that older versions of Feast, or some settings of it, do without.
const OPTIONAL: [&str; 4] = [PROJECTS, METADATA, "label_views", "feature_view_version_history"];

impl SqlSource {
    #[cfg(feature = "sql-registry")]
    pub(super) fn server(settings: crate::registry::SqlSettings) -> Self {
        Self { database: Database::Server(Box::new(settings)), seen: None, had: Vec::new() }
    }

    #[cfg(feature = "sqlite")]
    pub(super) fn sqlite(path: std::path::PathBuf) -> Self {
        Self {
            database: Database::Sqlite(super::sqlite::SqliteFile::new(path)),
            seen: None,
            had: Vec::new(),
        }
    }

    pub(super) async fn fetch(&mut self, fetching: Fetching<'_>) -> Result<Fetched, RegistryError> {
        match &self.database {
            #[cfg(feature = "sql-registry")]
            Database::Server(settings) => match settings.dialect {
                crate::registry::SqlDialect::Postgres => {
                    let session = super::sql_server::postgres(settings, fetching).await?;
                    self.read(session, fetching).await
                }
                crate::registry::SqlDialect::MySql => {
                    let session = super::sql_server::mysql(settings, fetching).await?;
                    self.read(session, fetching).await
                }
            },
            #[cfg(feature = "sqlite")]
            Database::Sqlite(file) => {
                let session = file.open(fetching).await?;
                self.read(session, fetching).await
            }
        }
    }

    async fn read(
        &mut self,
        mut session: impl Session,
        fetching: Fetching<'_>,
    ) -> Result<Fetched, RegistryError> {
        let place = fetching.place;
        let there = self.tables(&mut session).await?;
        session.begin().await.map_err(|error| error.at(place))?;
        let marker = session.texts(&union(&there, marker_query)).await;
        let mut marker = marker.map_err(|error| error.at(place))?;
        // A database gives the parts of a union in any order.
        marker.sort_unstable();
        let updated = updated(&marker);
        let marker = Marker::new(marker.join("\n"));
        if fetching.known == Some(&marker) {
            session.end().await;
            return Ok(Fetched::Unchanged);
        }
        let registry = read_all(&mut session, &there, updated, fetching).await?;
        session.end().await;
        self.had = there;
        let settled = self.is_settled(&marker, fetching.now_unix);
        Ok(Fetched::Bytes { bytes: registry.encode_to_vec(), marker: settled.then_some(marker) })
    }

    /// The tables that are there. One that was is not asked for: without it, the read fails.
    async fn tables(&self, session: &mut impl Session) -> Result<Vec<&'static str>, RegistryError> {
        let mut there: Vec<_> =
            TABLES.iter().filter(|table| table.required).map(|table| table.name).collect();
        for name in OPTIONAL {
            if self.had.contains(&name) {
                there.push(name);
                continue;
            }
            match session.texts(&format!("SELECT '' FROM {name} WHERE 1 = 0")).await {
                Ok(_) => there.push(name),
                Err(QueryError::NoSuchTable) => {}
                Err(QueryError::Other(error)) => return Err(error),
            }
        }
        Ok(there)
    }

    /// Whether a write after this one is sure to change the marker.
    fn is_settled(&mut self, marker: &Marker, now_unix: i64) -> bool {
        match &self.seen {
            Some((seen, since)) if seen == marker => {
                since.saturating_add(SETTLED_SECONDS) < now_unix
            }
            _ => {
                self.seen = Some((marker.clone(), now_unix));
                false
            }
        }
    }
}

async fn read_all(
    session: &mut impl Session,
    there: &[&'static str],
    updated: Option<i64>,
    fetching: Fetching<'_>,
) -> Result<core::Registry, RegistryError> {
    let Fetching { place, project, limits, .. } = fetching;
    let sizes = session.texts(&union(there, size_query)).await;
    let sizes = sizes.map_err(|error| error.at(place))?;
    let size: u64 = sizes.iter().filter_map(|size| size.trim().parse::<u64>().ok()).sum();
    if size > limits.max_bytes {
        let (place, max_bytes) = (place.to_owned(), limits.max_bytes);
        return Err(RegistryError::TooLarge { place, max_bytes });
    }
    let mut registry = core::Registry {
        last_updated: updated.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
        ..core::Registry::default()
    };
    if there.contains(&PROJECTS) {
        let query = format!("SELECT project_id FROM {PROJECTS} ORDER BY project_id = {{p}} DESC");
        let names = session.texts(&format!("{query}, project_id LIMIT {MAX_PROJECTS}")).await;
        for name in names.map_err(|error| error.at(place))? {
            let spec = Some(core::ProjectSpec { name });
            registry.projects.push(core::Project { spec });
        }
    }
    for table in TABLES.iter().filter(|table| there.contains(&table.name)) {
        let rows = session.rows(&row_query(table)).await;
        for row in rows.map_err(|error| error.at(place))? {
            (table.add)(&mut registry, project, row).map_err(|error| {
                let cause =
                    format!("table `{}` has a row that is no such message: {error}", table.name);
                RegistryError::unreadable(place, cause)
            })?;
        }
    }
    Ok(registry)
}

/// One query for all tables.
fn union(there: &[&str], of: fn(&str) -> Option<String>) -> String {
    let parts: Vec<_> = there.iter().filter_map(|name| of(name)).collect();
    parts.join(" UNION ALL ")
}

/// Its rows, their newest and all their stamps: a row that goes, or is written by a clock that is
/// behind, changes one of them.
fn marker_query(name: &str) -> Option<String> {
    if name == METADATA {
        let key = "metadata_key = 'last_updated_timestamp'";
        return Some(format!(
            "SELECT CONCAT('{name} ', metadata_value) FROM {name} WHERE project_id = {{p}} AND {key}"
        ));
    }
    let stamp = match TABLES.iter().find(|table| table.name == name) {
        Some(table) => table.stamp,
        None => "last_updated_timestamp",
    };
    Some(format!(
        "SELECT CONCAT('{name} ', COUNT(*), ' ', COALESCE(MAX({stamp}), 0), ' ', \
         COALESCE(SUM({stamp}), 0)) FROM {name} WHERE project_id = {{p}}"
    ))
}

fn size_query(name: &str) -> Option<String> {
    let Table { name, blob, .. } = TABLES.iter().find(|table| table.name == name)?;
    Some(format!(
        "SELECT CONCAT('', COALESCE(SUM(OCTET_LENGTH({blob})), 0)) FROM {name} \
         WHERE project_id = {{p}}"
    ))
}

fn row_query(table: &Table) -> String {
    let Table { name, key, blob, .. } = table;
    let version = match *name {
        "feature_view_version_history" => ", feature_view_name, feature_view_type, version_number",
        _ => "",
    };
    format!("SELECT {blob}{version} FROM {name} WHERE project_id = {{p}} ORDER BY {key}")
}

/// When Feast changed the project last: what it says, or else its newest object.
fn updated(marker: &[String]) -> Option<i64> {
    let second_of = |line: &String, nth| line.split(' ').nth(nth)?.parse::<i64>().ok();
    let said = marker.iter().find(|line| line.starts_with(METADATA));
    let newest = || marker.iter().filter_map(|line| second_of(line, 2)).max();
    said.and_then(|line| second_of(line, 1)).or_else(newest).filter(|seconds| *seconds > 0)
}

impl QueryError {
    fn at(self, place: &str) -> RegistryError {
        match self {
            Self::Other(error) => error,
            Self::NoSuchTable => RegistryError::Incomplete {
                place: place.to_owned(),
                what: "all tables of Feast's SQL registry: has `feast apply` run?".to_owned(),
            },
        }
    }
}
