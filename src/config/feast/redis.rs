//! `online_store` of type `redis`, with Feast's connection strings.

use super::{online_store::StoreContext, section::Section};
use crate::{
    config::connection_string::ConnectionString,
    store::{RedisSettings, Secret, StoreSettings},
};

const OPTIONS: &[&str] = &[
    "type",
    "redis_type",
    "connection_string",
    "sentinel_master",
    "key_ttl_seconds",
    "full_scan_for_deletion",
    "skip_dedup",
    "client",
];

const CONNECTION_STRING: &str = "connection_string";

/// Options of the connection string that are honoured, or that change nothing.
const KNOWN_OPTIONS: &[&str] =
    &["db", "username", "password", "ssl", "socket_timeout", "socket_connect_timeout"];

pub(super) fn read(mut section: Section<'_>, context: &StoreContext<'_>) -> Option<StoreSettings> {
    section.known_options(OPTIONS);
    if let Some(node) = section.get("redis_type")
        && node.value != crate::config::tree::Value::Text("redis".to_owned())
    {
        let found = node.value.describe();
        section
            .error("redis_type", format!("is {found}; this larder reads single servers, `redis`"));
        return None;
    }
    let text = section.text(CONNECTION_STRING)?.unwrap_or("localhost:6379");
    server(&ConnectionString::parse(text), &mut section, context)
}

fn server(
    connection: &ConnectionString,
    section: &mut Section<'_>,
    context: &StoreContext<'_>,
) -> Option<StoreSettings> {
    let first = connection.nodes.first();
    let server = first.and_then(|(host, port)| Some((host, port.as_ref()?.parse().ok()?)));
    let Some((host, port)) = server.filter(|(host, _)| !host.is_empty()) else {
        let message = "expected `host:port` first, as in `redis.default:6379,db=1`";
        section.error(CONNECTION_STRING, message);
        return None;
    };
    if connection.nodes.len() > 1 {
        let message = format!("of several servers the first is read, {host}:{port}, as Feast does");
        section.warn(CONNECTION_STRING, message);
    }
    let mut settings = RedisSettings {
        host: host.clone(),
        port,
        db: 0,
        username: None,
        password: None,
        connect_timeout: context.store.connect_timeout.0,
        max_backoff: context.store.max_backoff.0,
    };
    for (name, value) in &connection.options {
        if let Err(message) = set_option(&mut settings, name, value) {
            section.error(CONNECTION_STRING, message);
        } else if !KNOWN_OPTIONS.contains(&name.as_str()) {
            let message = format!("the option `{name}` is redis-py's, and not used here");
            section.warn(CONNECTION_STRING, message);
        }
    }
    Some(StoreSettings::Redis(settings))
}

fn set_option(
    settings: &mut RedisSettings,
    name: &str,
    value: &serde_json::Value,
) -> Result<(), String> {
    match name {
        "db" => match value.as_i64().filter(|db| *db >= 0) {
            Some(db) => settings.db = db,
            None => return Err("`db` is no number".to_owned()),
        },
        "username" => settings.username = text_of(value),
        "password" => settings.password = text_of(value).map(Secret),
        "ssl" if value != false => {
            return Err("`ssl` is on; this larder does not speak TLS to Redis".to_owned());
        }
        "socket_connect_timeout" => {
            if let Some(seconds) =
                value.as_f64().filter(|seconds| (0.001..3600.0).contains(seconds))
            {
                settings.connect_timeout = std::time::Duration::from_secs_f64(seconds);
            }
        }
        _ => {}
    }
    Ok(())
}

/// Text as it was, numbers as their digits; `null` is none.
fn text_of(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}
