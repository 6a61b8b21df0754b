//! `registry_type: sql` on PostgreSQL, MariaDB and SQLite: the same promises on each.

use std::sync::Arc;

use larder::{
    model::Secret,
    registry::{
        FetchLimits, Fetched, Marker, Registry, RegistryError, RegistrySettings, RegistrySource,
        SqlDialect, SqlSettings, SqlTls, decode,
    },
    tls::{TlsSettings, Verify},
};
use prost::Message;
use rusqlite::types::Value;
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection};

use crate::{
    services::{AUTHORITY, PASSWORD, STRANGER, Service, USER, mariadb, postgres},
    world::{PROJECT, error, golden, golden_registry, options, source},
};

/// A database with the tables that Feast wrote into `registry_sql.db`.
enum Database<'a> {
    Postgres(&'a Service, PgConnection, String),
    MariaDb(&'a Service, MySqlConnection, String),
    Sqlite(tempfile::TempDir),
}

impl<'a> Database<'a> {
    /// A new one of that name.
    async fn postgres(service: &'a Service, name: &str) -> Self {
        let url = format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{}", service.port);
        let mut admin = PgConnection::connect(&format!("{url}/postgres")).await.unwrap();
        admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        let connection = PgConnection::connect(&format!("{url}/{name}")).await.unwrap();
        let mut database = Self::Postgres(service, connection, name.to_owned());
        database.copy_golden("BYTEA").await;
        database
    }

    async fn mariadb(service: &'a Service, name: &str) -> Self {
        let url = format!("mysql://{USER}:{PASSWORD}@127.0.0.1:{}", service.port);
        let mut admin = MySqlConnection::connect(&url).await.unwrap();
        admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        let connection = MySqlConnection::connect(&format!("{url}/{name}")).await.unwrap();
        let mut database = Self::MariaDb(service, connection, name.to_owned());
        database.copy_golden("LONGBLOB").await;
        database
    }

    fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(golden("registry_sql.db"), folder.path().join("registry.db")).unwrap();
        Self::Sqlite(folder)
    }

    fn settings(&self) -> RegistrySettings {
        let server = |dialect, service: &Service, database: &str| SqlSettings {
            dialect,
            host: Some("127.0.0.1".into()),
            port: Some(service.port),
            socket: None,
            user: Some(USER.into()),
            password: Some(Secret(PASSWORD.into())),
            database: Some(database.into()),
            options: Vec::new(),
            tls: None,
        };
        match self {
            Self::Postgres(service, _, name) => {
                RegistrySettings::Sql(server(SqlDialect::Postgres, service, name))
            }
            Self::MariaDb(service, _, name) => {
                RegistrySettings::Sql(server(SqlDialect::MySql, service, name))
            }
            Self::Sqlite(folder) => RegistrySettings::Sqlite(folder.path().join("registry.db")),
        }
    }

    fn source(&self) -> RegistrySource {
        source(self.settings(), FetchLimits::default())
    }

    async fn execute(&mut self, sql: &str) {
        match self {
            Self::Postgres(_, connection, _) => {
                connection.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
            }
            Self::MariaDb(_, connection, _) => {
                connection.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
            }
            Self::Sqlite(folder) => {
                let path = folder.path().join("registry.db");
                rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
            }
        }
    }

    /// Every table of the golden file, with its rows.
    async fn copy_golden(&mut self, blob: &str) {
        let file = rusqlite::Connection::open(golden("registry_sql.db")).unwrap();
        let texts = |sql: &str| -> Vec<String> {
            let mut statement = file.prepare(sql).unwrap();
            statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
        };
        for create in texts("SELECT sql FROM sqlite_master WHERE type = 'table'") {
            self.execute(&create.replace(" BLOB", &format!(" {blob}"))).await;
        }
        for table in texts("SELECT name FROM sqlite_master WHERE type = 'table'") {
            let mut statement = file.prepare(&format!("SELECT * FROM {table}")).unwrap();
            let columns = statement.column_count();
            let mut rows = statement.query([]).unwrap();
            let mut statements = Vec::new();
            while let Some(row) = rows.next().unwrap() {
                let values: Vec<_> =
                    (0..columns).map(|column| self.literal(&row.get(column).unwrap())).collect();
                statements.push(format!("INSERT INTO {table} VALUES ({})", values.join(", ")));
            }
            for insert in statements {
                self.execute(&insert).await;
            }
        }
    }

    fn literal(&self, value: &Value) -> String {
        match value {
            Value::Null => "NULL".into(),
            Value::Integer(number) => number.to_string(),
            Value::Real(number) => number.to_string(),
            Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
            Value::Blob(bytes) => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                match self {
                    Self::Postgres(..) => format!("'\\x{hex}'"),
                    _ => format!("x'{hex}'"),
                }
            }
        }
    }
}

/// The registry, if it is not what is known.
async fn fetch(
    source: &mut RegistrySource,
    known: Option<&Marker>,
    now: i64,
) -> Option<(Registry, Option<Marker>)> {
    match source.fetch(known, now).await.unwrap() {
        Fetched::Unchanged => None,
        Fetched::Bytes { bytes, marker } => {
            Some((decode(&bytes, &options(PROJECT)).unwrap(), marker))
        }
    }
}

fn names(registry: &Registry) -> Vec<Arc<str>> {
    registry.views.keys().cloned().collect()
}

/// What the file registry of the same goldens has.
fn expected() -> Registry {
    decode(&golden_registry().encode_to_vec(), &options(PROJECT)).unwrap()
}

async fn a_registry_has_what_feasts_file_has(mut database: Database<'_>) {
    let (registry, _) = fetch(&mut database.source(), None, 0).await.unwrap();
    let expected = expected();
    assert_eq!(names(&registry), names(&expected));
    assert_eq!(
        registry.services.keys().collect::<Vec<_>>(),
        expected.services.keys().collect::<Vec<_>>()
    );
    assert_eq!(
        registry.entities.keys().collect::<Vec<_>>(),
        expected.entities.keys().collect::<Vec<_>>()
    );
    let versions = |registry: &Registry| {
        let mut versions: Vec<_> = registry.versions.keys().cloned().collect();
        versions.sort();
        versions
    };
    assert!(!registry.versions.is_empty());
    assert_eq!(versions(&registry), versions(&expected));
    assert!(registry.last_updated_unix.unwrap() > 1_700_000_000);
    assert_eq!(registry.warnings, expected.warnings);

    // Objects of other projects are not seen, nor is another project found.
    database.execute("UPDATE feature_views SET project_id = 'other'").await;
    let (registry, _) = fetch(&mut database.source(), None, 0).await.unwrap();
    assert!(registry.views.len() < expected.views.len());
    let mut nowhere =
        RegistrySource::new(database.settings(), "nope".into(), FetchLimits::default()).unwrap();
    let Fetched::Bytes { bytes, .. } = nowhere.fetch(None, 0).await.unwrap() else { panic!() };
    let error = decode(&bytes, &options("nope")).unwrap_err().to_string();
    assert_eq!(error, "the registry has no project `nope`, it has `golden`");
}

async fn a_change_is_seen_and_nothing_else_is_read(mut database: Database<'_>) {
    let mut source = database.source();
    let (first, marker) = fetch(&mut source, None, 100).await.unwrap();
    assert_eq!(marker, None, "another write within the second would not show");
    assert_eq!(fetch(&mut source, None, 102).await.unwrap().1, None);
    let (_, marker) = fetch(&mut source, None, 103).await.unwrap();
    let marker = marker.unwrap();
    assert!(fetch(&mut source, Some(&marker), 104).await.is_none());

    // Written by a clock that is far behind.
    let view = "feature_view_name = 'pair_stats'";
    database
        .execute(&format!("UPDATE feature_views SET last_updated_timestamp = 7 WHERE {view}"))
        .await;
    let (_, changed) = fetch(&mut source, Some(&marker), 105).await.unwrap();
    assert_eq!(changed, None);
    let (_, marker) = fetch(&mut source, None, 108).await.unwrap();

    database.execute(&format!("DELETE FROM feature_views WHERE {view}")).await;
    let (without, _) = fetch(&mut source, marker.as_ref(), 109).await.unwrap();
    let mut left = names(&first);
    left.retain(|name| &**name != "pair_stats");
    assert_eq!(names(&without), left);
}

async fn a_registry_without_newer_tables_is_read_and_one_that_lost_a_table_is_not(
    mut database: Database<'_>,
) {
    for table in ["label_views", "feature_view_version_history", "projects", "feast_metadata"] {
        database.execute(&format!("ALTER TABLE {table} RENAME TO away_{table}")).await;
    }
    let mut old = database.source();
    let (registry, _) = fetch(&mut old, None, 0).await.unwrap();
    assert_eq!(registry.views.len() + 1, expected().views.len());

    // They may come, and then they are not to go.
    database.execute("ALTER TABLE away_label_views RENAME TO label_views").await;
    let (registry, _) = fetch(&mut old, None, 0).await.unwrap();
    assert_eq!(registry.views.len(), expected().views.len());
    database.execute("ALTER TABLE label_views RENAME TO away_label_views").await;
    let text = error(&mut old).await;
    assert!(
        text.ends_with("does not have all tables of Feast's SQL registry: has `feast apply` run?"),
        "{text}"
    );

    let mut new = database.source();
    database.execute("ALTER TABLE entities RENAME TO away_entities").await;
    assert!(matches!(new.fetch(None, 0).await, Err(RegistryError::Incomplete { .. })));
}

async fn a_registry_that_is_too_large_is_refused(database: Database<'_>) {
    let limits = FetchLimits { max_bytes: 1000, ..FetchLimits::default() };
    let mut small = source(database.settings(), limits);
    assert!(matches!(small.fetch(None, 0).await, Err(RegistryError::TooLarge { .. })));
}

async fn a_row_that_is_no_message_fails_the_read(mut database: Database<'_>) {
    let blob = database.literal(&Value::Blob(vec![0xff, 0xff]));
    database.execute(&format!("UPDATE feature_services SET feature_service_proto = {blob}")).await;
    let text = error(&mut database.source()).await;
    assert!(text.contains("table `feature_services` has a row that is no such message"), "{text}");
}

/// Each promise in a database of its own, on one server: to set one up takes seconds.
macro_rules! promises {
    ($database:expr) => {
        promises! {
            $database,
            a_registry_has_what_feasts_file_has
            a_change_is_seen_and_nothing_else_is_read
            a_registry_without_newer_tables_is_read_and_one_that_lost_a_table_is_not
            a_registry_that_is_too_large_is_refused
            a_row_that_is_no_message_fails_the_read
        }
    };
    ($database:expr, $($promise:ident)*) => { $(
        let database: Database<'_> = $database(concat!("d_", stringify!($promise))).await;
        eprintln!("{}", stringify!($promise));
        $promise(database).await;
    )* };
}

#[tokio::test]
async fn postgres_keeps_its_promises() {
    let service = postgres();
    promises!(async |name: &str| Database::postgres(&service, &name[..name.len().min(60)]).await);
    who_may_not_read_is_told_what_to_check(Database::postgres(&service, "refusals").await).await;
    tls_is_as_strict_as_asked(Database::postgres(&service, "tls").await, &service).await;
}

#[tokio::test]
async fn mariadb_keeps_its_promises() {
    let mut service = mariadb();
    promises!(async |name: &str| Database::mariadb(&service, &name[..name.len().min(60)]).await);
    who_may_not_read_is_told_what_to_check(Database::mariadb(&service, "refusals").await).await;
    tls_is_as_strict_as_asked(Database::mariadb(&service, "tls").await, &service).await;

    let settings = Database::mariadb(&service, "restarts").await.settings();
    let mut source = source(settings, FetchLimits::default());
    assert!(fetch(&mut source, None, 0).await.is_some());
    service.stop();
    assert!(matches!(source.fetch(None, 0).await, Err(RegistryError::Unreadable { .. })));
    service.restart();
    assert!(fetch(&mut source, None, 0).await.is_some());
}

#[tokio::test]
async fn sqlite_keeps_its_promises() {
    promises!(async |_: &str| Database::sqlite());
}

#[tokio::test]
async fn a_server_that_says_nothing_is_not_waited_for() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    for dialect in [SqlDialect::Postgres, SqlDialect::MySql] {
        let settings = SqlSettings {
            dialect,
            host: Some("127.0.0.1".into()),
            port: Some(port),
            socket: None,
            user: None,
            password: None,
            database: None,
            options: Vec::new(),
            tls: None,
        };
        let timeout = std::time::Duration::from_millis(50);
        let limits = FetchLimits { timeout, ..FetchLimits::default() };
        let mut source = source(RegistrySettings::Sql(settings), limits);
        let text = error(&mut source).await;
        assert!(text.ends_with("was not read within 50ms"), "{text}");
    }
}

async fn who_may_not_read_is_told_what_to_check(mut database: Database<'_>) {
    let RegistrySettings::Sql(settings) = database.settings() else { unreachable!() };
    let wrong = SqlSettings { password: Some(Secret("wr0ng-one".into())), ..settings.clone() };
    let missing = SqlSettings { database: Some("nowhere".into()), ..settings.clone() };
    let stranger = SqlSettings { user: Some("stranger".into()), ..settings };
    if let Database::Postgres(..) = database {
        database.execute(&format!("CREATE USER stranger PASSWORD '{PASSWORD}'")).await;
    }
    for settings in [wrong, missing, stranger] {
        let mut source = source(RegistrySettings::Sql(settings), FetchLimits::default());
        let text = error(&mut source).await;
        assert!(text.contains("check user, password and database"), "{text}");
        assert!(!text.contains("wr0ng-one") && !text.contains(PASSWORD), "{text}");
    }
}

/// The server's certificate is for `localhost`, and of one of two authorities.
async fn tls_is_as_strict_as_asked(database: Database<'_>, service: &Service) {
    let RegistrySettings::Sql(settings) = database.settings() else { unreachable!() };
    let file = |name: &str| Some(service.folder.path().join(name));
    let (own, other) = (file(AUTHORITY), file(STRANGER));
    for (host, ca, verify, is_read) in [
        ("localhost", &own, Verify::Full, true),
        ("localhost", &other, Verify::Full, false),
        ("localhost", &None, Verify::Full, false),
        ("127.0.0.1", &own, Verify::Full, false),
        ("127.0.0.1", &own, Verify::Authority, true),
        ("127.0.0.1", &other, Verify::Authority, false),
        ("127.0.0.1", &None, Verify::Nothing, true),
    ] {
        let tls = TlsSettings { ca: ca.clone(), identity: None, verify };
        let settings = SqlSettings {
            host: Some(host.into()),
            tls: Some(SqlTls::Always(tls)),
            ..settings.clone()
        };
        let mut source = source(RegistrySettings::Sql(settings), FetchLimits::default());
        let fetched = source.fetch(None, 0).await;
        assert_eq!(fetched.is_ok(), is_read, "{host} {ca:?} {verify:?}: {fetched:?}");
    }
}
