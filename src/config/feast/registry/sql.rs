//! `registry_type: sql`: SQLAlchemy's URLs, with the options of the drivers that Feast uses.

use super::{Place, sqlalchemy_url::SqlalchemyUrl};
use crate::{
    config::tree::{Node, Value},
    model::Secret,
    registry::{RegistrySettings, SqlDialect, SqlSettings, SqlTls},
    tls::{ClientIdentity, TlsSettings, Verify},
};

/// Options that say nothing about where the registry is, or that larder has its own of.
const WITHOUT_EFFECT: &[&str] = &[
    "application_name",
    "autocommit",
    "charset",
    "client_encoding",
    "connect_timeout",
    "fallback_application_name",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "prepare_threshold",
    "read_timeout",
    "tcp_user_timeout",
    "write_timeout",
];

/// Options without which a connection would be less than what was asked for.
const REFUSED: &[&str] = &[
    "channel_binding",
    "krbsrvname",
    "passfile",
    "requirepeer",
    "service",
    "ssl_capath",
    "ssl_cipher",
    "sslcrl",
    "sslcrldir",
    "sslpassword",
    "target_session_attrs",
];

/// What the options say of TLS, in the words of whichever driver.
#[derive(Default)]
struct TlsOptions {
    mode: Option<String>,
    ca: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
    check_hostname: Option<bool>,
}

pub(super) fn read(mut place: Place<'_, '_>) -> Option<RegistrySettings> {
    // Who only reads is to read from there.
    let (key, text) = match place.section.text("read_path")? {
        Some(text) if !text.is_empty() => ("read_path", text),
        _ => ("path", place.text),
    };
    let Some(url) = SqlalchemyUrl::parse(text) else {
        let example = "postgresql+psycopg://USER:PASSWORD@HOST:5432/DATABASE";
        place.section.error(key, format!("is no SQLAlchemy URL, as {example}"));
        return None;
    };
    let driver = url.driver.as_deref();
    let dialect = match (url.dialect.as_str(), driver) {
        ("postgresql", None | Some("psycopg" | "psycopg2")) => SqlDialect::Postgres,
        ("mysql" | "mariadb", None | Some("pymysql" | "mysqldb")) => SqlDialect::MySql,
        ("sqlite", None | Some("pysqlite")) => return sqlite(place, key, &url),
        (dialect, driver) => {
            let driver = driver.map(|driver| format!("+{driver}")).unwrap_or_default();
            let known = "postgresql+psycopg, mysql+pymysql and sqlite";
            place.section.error(key, format!("is of `{dialect}{driver}`; larder reads {known}"));
            return None;
        }
    };
    let mut options = url.query;
    options.extend(connect_args(&mut place)?);
    let mut settings = SqlSettings {
        dialect,
        host: url.host,
        port: url.port,
        socket: None,
        user: url.user,
        password: url.password.map(Secret),
        database: url.database,
        options: Vec::new(),
        tls: None,
    };
    let mut tls = TlsOptions::default();
    let mut fine = true;
    for (name, value) in &options {
        fine &= set_option(&mut place, key, &mut settings, &mut tls, name, value).is_some();
    }
    settings.tls = tls.settings(&mut place, key, dialect)?;
    fine.then_some(RegistrySettings::Sql(settings))
}

fn sqlite(mut place: Place<'_, '_>, key: &str, url: &SqlalchemyUrl) -> Option<RegistrySettings> {
    match url.database.as_deref() {
        Some(path) if path != ":memory:" => Some(RegistrySettings::Sqlite(place.beside_us(path))),
        _ => {
            place.section.error(key, "is a SQLite database in memory; expected sqlite:///PATH");
            None
        }
    }
}

/// `connect_args` of `sqlalchemy_config_kwargs`, which go to the driver as the URL's options do.
fn connect_args(place: &mut Place<'_, '_>) -> Option<Vec<(String, String)>> {
    const KWARGS: &str = "sqlalchemy_config_kwargs";
    let Some(kwargs) = place.section.get(KWARGS) else { return Some(Vec::new()) };
    if kwargs.get("execution_options").is_some_and(|node| node.value != Value::Null) {
        place.section.error(KWARGS, "has `execution_options`, which larder cannot honour");
        return None;
    }
    let mut options = Vec::new();
    let mut collect = |prefix: &str, node: &Node| {
        let Value::Map(entries) = &node.value else { return };
        for entry in entries {
            let value = match &entry.node.value {
                Value::Text(text) => text.clone(),
                Value::Bool(flag) => flag.to_string(),
                Value::Integer(number) => number.to_string(),
                _ => continue,
            };
            options.push((format!("{prefix}{}", entry.key), value));
        }
    };
    if let Some(arguments) = kwargs.get("connect_args") {
        collect("", arguments);
        // PyMySQL takes them in a mapping of their own.
        if let Some(ssl) = arguments.get("ssl") {
            collect("ssl_", ssl);
        }
    }
    Some(options)
}

/// `None` if it cannot be honoured, which is reported: without its value, which may be secret.
fn set_option(
    place: &mut Place<'_, '_>,
    key: &str,
    settings: &mut SqlSettings,
    tls: &mut TlsOptions,
    name: &str,
    value: &str,
) -> Option<()> {
    let text = value.to_owned();
    let mut wrong = |what: &str| {
        place.section.error(key, format!("has the option `{name}`, {what}"));
        None
    };
    match (settings.dialect, name) {
        (SqlDialect::Postgres, "host") if value.starts_with('/') => {
            settings.socket = Some(value.into());
        }
        (_, "host" | "hostaddr") if value.contains(',') => {
            return wrong("of which larder reads one");
        }
        (_, "host" | "hostaddr") => settings.host = Some(text),
        (_, "port") => match value.parse() {
            Ok(port) => settings.port = Some(port),
            Err(_) => return wrong("which is no port"),
        },
        (_, "user") => settings.user = Some(text),
        (_, "password") => settings.password = Some(Secret(text)),
        (_, "dbname" | "database") => settings.database = Some(text),
        (SqlDialect::MySql, "unix_socket") => settings.socket = Some(value.into()),
        (SqlDialect::Postgres, "options") => match session_options(value) {
            Some(options) => settings.options.extend(options),
            None => return wrong("expected `-c NAME=VALUE`"),
        },
        (SqlDialect::Postgres, "sslmode") => tls.mode = Some(text),
        (_, "sslrootcert" | "ssl_ca") => tls.ca = Some(text),
        (_, "sslcert" | "ssl_cert") => tls.certificate = Some(text),
        (_, "sslkey" | "ssl_key") => tls.key = Some(text),
        (_, "ssl_check_hostname" | "ssl_verify_identity") => {
            tls.check_hostname =
                Some(matches!(value.to_lowercase().as_str(), "true" | "1" | "yes"));
        }
        (_, name) if WITHOUT_EFFECT.contains(&name) => {}
        (_, name) if REFUSED.contains(&name) => return wrong("which larder cannot honour"),
        (_, name) => {
            place.section.warn(key, format!("has the option `{name}`, which is not used here"));
        }
    }
    Some(())
}

/// `-c search_path=ml -c role=reader`, with which PostgreSQL's sessions begin.
fn session_options(text: &str) -> Option<Vec<(String, String)>> {
    let mut words = text.split_whitespace();
    let mut options = Vec::new();
    while let Some(word) = words.next() {
        let setting = match word.strip_prefix("-c") {
            Some("") => words.next()?,
            Some(setting) => setting,
            None => word.strip_prefix("--")?,
        };
        let (name, value) = setting.split_once('=')?;
        options.push((name.to_owned(), value.to_owned()));
    }
    Some(options)
}

impl TlsOptions {
    /// By the rules of libpq, or of PyMySQL. The outer `None`: an error was reported.
    fn settings(
        self,
        place: &mut Place<'_, '_>,
        key: &str,
        dialect: SqlDialect,
    ) -> Option<Option<SqlTls>> {
        let identity = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Some(ClientIdentity {
                certificate: place.beside_us(certificate),
                key: place.beside_us(key),
            }),
            (None, None) => None,
            _ => {
                place.section.error(key, "has a client's certificate or its key without the other");
                return None;
            }
        };
        let system = self.ca.as_deref() == Some("system");
        let ca = self.ca.as_deref().filter(|_| !system).map(|ca| place.beside_us(ca));
        let verify = match dialect {
            SqlDialect::Postgres => match self.mode.as_deref() {
                None if system => Verify::Full,
                None => return Some(None),
                Some("disable") => return Some(Some(SqlTls::Off)),
                Some("allow" | "prefer") => return Some(Some(SqlTls::IfOffered)),
                Some("require") if ca.is_none() => Verify::Nothing,
                // As libpq has it: whoever names authorities wants them asked.
                Some("require" | "verify-ca") => Verify::Authority,
                Some("verify-full") => Verify::Full,
                Some(other) => {
                    place.section.error(key, format!("has the unknown sslmode `{other}`"));
                    return None;
                }
            },
            SqlDialect::MySql => match (&ca, self.check_hostname) {
                (None, _) if identity.is_none() => return Some(None),
                (None, _) => Verify::Nothing,
                (Some(_), Some(false)) => Verify::Authority,
                (Some(_), _) => Verify::Full,
            },
        };
        Some(Some(SqlTls::Always(TlsSettings { ca, identity, verify })))
    }
}
