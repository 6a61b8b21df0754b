//! redis-py's options: those that larder honours, those that change nothing, and those without
//! which it would not do what was asked of it.

use std::{path::Path, time::Duration};

use serde_json::Value;

use crate::{
    store::{RedisAccess, Secret},
    tls::{ClientIdentity, TlsSettings, Verify},
};

/// How options are understood.
pub(super) struct Options<'a> {
    /// Where relative paths begin.
    pub(super) repo: &'a Path,
    /// How long an attempt to connect may take, unless an option says.
    pub(super) connect_timeout: Duration,
}

/// What is wrong or doubtful. Never with an option's value, which may be a secret.
#[derive(Default)]
pub(super) struct Remarks {
    pub(super) errors: Vec<String>,
    pub(super) warnings: Vec<String>,
}

const HONOURED: &[&str] = &[
    "db",
    "username",
    "password",
    "ssl",
    "ssl_ca_certs",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_cert_reqs",
    "ssl_check_hostname",
    "socket_connect_timeout",
];

/// Whoever sets one of these wants something that larder does not do, and must not leave out.
const CANNOT: &[(&str, &str)] = &[
    ("credential_provider", "larder logs in by username and password only"),
    ("unix_socket_path", "larder connects to Redis by TCP only"),
    ("ssl_ca_path", "name a file of authorities by `ssl_ca_certs`"),
    ("ssl_ca_data", "name a file of authorities by `ssl_ca_certs`"),
    ("ssl_password", "larder reads private keys that are not encrypted"),
    ("ssl_validate_ocsp", "larder does not ask for revocations"),
    ("ssl_validate_ocsp_stapled", "larder does not ask for revocations"),
    ("ssl_ocsp_context", "larder does not ask for revocations"),
    ("ssl_ocsp_expected_cert", "larder does not ask for revocations"),
];

impl Options<'_> {
    /// How a server is logged in to. None after an error.
    pub(super) fn access(
        &self,
        options: &[(&str, &Value)],
        remarks: &mut Remarks,
    ) -> Option<RedisAccess> {
        let errors = remarks.errors.len();
        for (name, value) in options {
            self.check(name, value, remarks);
        }
        // Of an option that is repeated, Python takes the last.
        let get = |name: &str| {
            let found = options.iter().rev().find(|(option, _)| *option == name);
            found.map(|(_, value)| *value).filter(|value| !value.is_null())
        };
        let username = get("username").and_then(text_of).filter(|name| !name.is_empty());
        let password = get("password").and_then(text_of);
        let access = RedisAccess {
            db: get("db").map_or(Some(0), database).unwrap_or_else(|| {
                remarks.error("`db` is no number of a database");
                0
            }),
            // A user without a password logs in with an empty one.
            password: password
                .or_else(|| username.as_ref().map(|_| String::new()))
                .filter(|password| !password.is_empty() || username.is_some())
                .map(Secret),
            username,
            tls: self.tls(get, remarks),
            connect_timeout: match get("socket_connect_timeout").map(seconds) {
                Some(Ok(Some(timeout))) => timeout,
                _ => self.connect_timeout,
            },
        };
        (remarks.errors.len() == errors).then_some(access)
    }

    fn check(&self, name: &str, value: &Value, remarks: &mut Remarks) {
        if name.trim() != name {
            let trimmed = name.trim();
            remarks.error(format!("has blanks at the option `{trimmed}`, which redis-py refuses"));
            return;
        }
        match name {
            "username" | "password" if !is_text(value) => {
                remarks.error(format!("`{name}` is {}; expected text", kind(value)));
            }
            "socket_timeout" | "socket_connect_timeout" if seconds(value).is_err() => {
                remarks.error(format!("`{name}` is no number of seconds above 0"));
            }
            "socket_timeout" => {
                remarks.warn("`socket_timeout` is not used here: `store.timeout` bounds a read");
            }
            _ if HONOURED.contains(&name) => {}
            _ => match CANNOT.iter().find(|(cannot, _)| *cannot == name) {
                Some((_, why)) if is_true(value) => {
                    remarks.error(format!("`{name}` is set, and {why}"));
                }
                Some(_) => {}
                None => {
                    remarks.warn(format!("the option `{name}` is redis-py's, and not used here"));
                }
            },
        }
    }

    fn tls<'v>(
        &self,
        get: impl Fn(&str) -> Option<&'v Value>,
        remarks: &mut Remarks,
    ) -> Option<TlsSettings> {
        let names = ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"];
        if !get("ssl").is_some_and(is_true) {
            for name in names.into_iter().filter(|name| get(name).is_some()) {
                remarks.warn(format!("`{name}` is set and `ssl` is not, so that it is not used"));
            }
            return None;
        }
        let [ca, certificate, key] = names.map(|name| match get(name) {
            None => None,
            Some(Value::String(path)) => Some(self.repo.join(path)),
            Some(_) => {
                remarks.errors.push(format!("`{name}` is no path of a file"));
                None
            }
        });
        // A file of both is named once.
        let identity = match (certificate, key) {
            (Some(certificate), key) => {
                let key = key.unwrap_or_else(|| certificate.clone());
                Some(ClientIdentity { certificate, key })
            }
            (None, Some(_)) => {
                remarks.error("`ssl_keyfile` is set and `ssl_certfile` is not");
                None
            }
            (None, None) => None,
        };
        let checks_name = get("ssl_check_hostname").is_none_or(is_true);
        let verify = match cert_reqs(get("ssl_cert_reqs")) {
            // `optional` asks as much of a server as `required` does.
            Some(true) if checks_name => Verify::Full,
            Some(true) => Verify::Authority,
            Some(false) => {
                remarks.warn("`ssl_cert_reqs` is none: whoever is on the way can pose as Redis");
                Verify::Nothing
            }
            None => {
                remarks.error("`ssl_cert_reqs` is not one of none, optional, required");
                Verify::Full
            }
        };
        Some(TlsSettings { ca, identity, verify })
    }
}

impl Remarks {
    pub(super) fn error(&mut self, text: impl Into<String>) {
        self.errors.push(text.into());
    }

    pub(super) fn warn(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.warnings.contains(&text) {
            self.warnings.push(text);
        }
    }
}

/// Whether a certificate is asked for, in Python's words and numbers for it.
fn cert_reqs(value: Option<&Value>) -> Option<bool> {
    match value {
        None => Some(true),
        Some(Value::String(word)) => match word.as_str() {
            "none" => Some(false),
            "optional" | "required" => Some(true),
            _ => None,
        },
        Some(Value::Number(number)) => match number.as_i64() {
            Some(0) => Some(false),
            Some(1 | 2) => Some(true),
            _ => None,
        },
        Some(_) => None,
    }
}

/// A number of seconds, or none for no limit.
pub(super) fn seconds(value: &Value) -> Result<Option<Duration>, ()> {
    match value {
        Value::Null => Ok(None),
        Value::Number(number) => {
            let seconds = number.as_f64().filter(|seconds| (0.001..=86_400.0).contains(seconds));
            seconds.map(|seconds| Some(Duration::from_secs_f64(seconds))).ok_or(())
        }
        _ => Err(()),
    }
}

/// Text as it was, numbers as their digits; `null` is none.
pub(super) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn database(value: &Value) -> Option<i64> {
    text_of(value)?.parse().ok().filter(|db| *db >= 0)
}

fn is_text(value: &Value) -> bool {
    matches!(value, Value::Null | Value::String(_) | Value::Number(_))
}

/// Whether Python takes a value for true: `False` is text, and so is `no`.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(elements) => !elements.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
