//! Replays the requests that Feast's HTTP server was asked, and compares the answers with its own.
//!
//! `tests/golden/deviations.json` declares what differs, and why. A difference that is not declared
//! fails the test; so does a declared one that is none any more.

mod api_fixture;
#[allow(dead_code, reason = "made for the tests of the stores, which use all of it")]
#[path = "store_contract/redis_server.rs"]
mod redis_server;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use axum::body::Body;
use http::Request;
use larder::store::{StoreSettings, connect};
use redis::Commands;
use serde::Deserialize;
use serde_json::Value;

use api_fixture::{Answer, Server, Setup, golden_registry, golden_server};
use redis_server::RedisServer;

/// A request, and what Feast's server answered.
#[derive(Deserialize)]
struct Golden {
    /// Its file's: the name within does not tell the stores apart.
    #[serde(skip)]
    name: String,
    request: GoldenRequest,
    status: u16,
    response_headers: BTreeMap<String, String>,
    response_body: Option<String>,
}

#[derive(Deserialize)]
struct GoldenRequest {
    method: String,
    path: String,
    headers: Option<BTreeMap<String, String>>,
    body: Option<String>,
}

/// What is declared to differ.
#[derive(Deserialize)]
struct Declared {
    /// By the beginning of their names: requests that are not replayed.
    not_replayed: Vec<NotReplayed>,
    deviations: Vec<Deviation>,
}

#[derive(Deserialize)]
struct NotReplayed {
    prefix: String,
    why: String,
}

#[derive(Deserialize)]
struct Deviation {
    goldens: Vec<String>,
    differs: BTreeSet<String>,
    why: String,
}

impl Declared {
    fn load() -> Self {
        let text = fs::read_to_string("tests/golden/deviations.json").unwrap();
        let declared: Self = serde_json::from_str(&text).unwrap();
        let reasons = declared.not_replayed.iter().map(|group| &group.why);
        let mut reasons = reasons.chain(declared.deviations.iter().map(|each| &each.why));
        assert!(reasons.all(|why| !why.is_empty()), "every deviation has a reason");
        declared
    }

    fn is_replayed(&self, name: &str) -> bool {
        !self.not_replayed.iter().any(|group| name.starts_with(&group.prefix))
    }

    fn of(&self, name: &str) -> BTreeSet<String> {
        let deviations =
            self.deviations.iter().filter(|each| each.goldens.iter().any(|n| n == name));
        deviations.flat_map(|each| each.differs.iter().cloned()).collect()
    }
}

/// All requests, in the order in which Feast was asked.
fn goldens() -> Vec<Golden> {
    let mut files: Vec<_> = fs::read_dir("tests/golden/http")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    let requests = files.iter().filter_map(|path| {
        let json: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        // The others are no exchanges over HTTP.
        json.get("request")?;
        let golden: Golden = serde_json::from_value(json).unwrap();
        Some(Golden { name: path.file_stem()?.to_str()?.to_owned(), ..golden })
    });
    requests.collect()
}

/// What a body says, apart from how it says it.
#[derive(Debug)]
enum Said {
    Answer { columns: BTreeMap<String, Column>, views: Value },
    Error { class: Option<String>, message: String },
    Detail(Value),
    Other(Value),
    Nothing,
}

#[derive(Debug)]
struct Column {
    values: Value,
    statuses: Value,
    timestamps: Value,
}

fn read(body: &str) -> Said {
    if body.is_empty() {
        return Said::Nothing;
    }
    match serde_json::from_str(body).unwrap() {
        Value::String(message) => match serde_json::from_str::<Value>(&message) {
            Ok(error) if error.get("class").is_some() => Said::Error {
                class: error["class"].as_str().map(str::to_owned),
                message: error["message"].as_str().unwrap().to_owned(),
            },
            _ => Said::Error { class: None, message: unquote(&message).to_owned() },
        },
        Value::Object(object) if object.contains_key("results") => {
            let names = object["metadata"]["feature_names"].as_array().unwrap();
            let results = object["results"].as_array().unwrap();
            assert_eq!(names.len(), results.len(), "a name for each vector");
            let columns = names.iter().zip(results).map(|(name, vector)| {
                let part = |part: &str| vector[part].clone();
                let column = Column {
                    values: part("values"),
                    statuses: part("statuses"),
                    timestamps: part("event_timestamps"),
                };
                (name.as_str().unwrap().to_owned(), column)
            });
            let views = object["metadata"]["feature_view_metadata"].clone();
            Said::Answer { columns: columns.collect(), views }
        }
        Value::Object(object) if object.contains_key("detail") => {
            let mut detail = object["detail"].clone();
            // Which parser says it in which words is of no matter.
            for problem in detail.as_array_mut().into_iter().flatten() {
                problem.as_object_mut().unwrap().remove("ctx");
            }
            Said::Detail(detail)
        }
        other => Said::Other(other),
    }
}

/// The text of a Python KeyError, which comes in quotes.
fn unquote(text: &str) -> &str {
    let within = |quote| text.strip_prefix(quote)?.strip_suffix(quote);
    within('\'').or_else(|| within('"')).unwrap_or(text)
}

/// Whether two JSON values are the same, numbers by their value.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => match (left.as_i64(), right.as_i64()) {
            (Some(left), Some(right)) => left == right,
            _ => left.as_f64() == right.as_f64(),
        },
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len()
                && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .all(|(key, left)| right.get(key).is_some_and(|right| same(left, right)))
        }
        _ => left == right,
    }
}

/// In what an answer differs from Feast's.
fn differences(golden: &Golden, answer: &Answer) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut note = |what: &str, differs: bool| {
        if differs {
            found.insert(what.to_owned());
        }
    };
    note("status", golden.status != answer.status);
    let header = |name| answer.headers.get(name).map(|value| value.to_str().unwrap());
    for name in ["content-type", "allow"] {
        let expected = golden.response_headers.get(name).map(String::as_str);
        note(name, expected != header(name));
    }
    let location = golden.response_headers.get("location");
    let path = location.map(|location| location.trim_start_matches("http://127.0.0.1:6566"));
    note("location", path != header("location"));

    match (read(golden.response_body.as_deref().unwrap_or_default()), read(&answer.text())) {
        (
            Said::Answer { columns: theirs, views: their_views },
            Said::Answer { columns: ours, views },
        ) => {
            note("names", theirs.keys().ne(ours.keys()));
            note("views", !same(&their_views, &views));
            for (name, theirs) in &theirs {
                let Some(ours) = ours.get(name) else { continue };
                note("values", !same(&theirs.values, &ours.values));
                note("statuses", theirs.statuses != ours.statuses);
                note("timestamps", theirs.timestamps != ours.timestamps);
            }
        }
        (
            Said::Error { class: their_class, message: theirs },
            Said::Error { class, message: ours },
        ) => {
            note("class", their_class != class);
            note("message", theirs != ours);
        }
        (Said::Detail(theirs), Said::Detail(ours)) => note("detail", !same(&theirs, &ours)),
        (Said::Other(theirs), Said::Other(ours)) => note("body", !same(&theirs, &ours)),
        (Said::Nothing, Said::Nothing) => {}
        _ => note("body", true),
    }
    found
}

async fn replay(server: &Server, golden: &Golden) -> Answer {
    let GoldenRequest { method, path, headers, body } = &golden.request;
    let mut request = Request::builder().method(&**method).uri(path);
    for (name, value) in headers.iter().flatten() {
        request = request.header(name, value);
    }
    let body = body.clone().map_or(Body::empty(), Body::from);
    let mut answer = server.ask(request.body(body).unwrap()).await;
    if method == "HEAD" {
        // The connection does not send it.
        answer.body.clear();
    }
    answer
}

/// Replays some requests, and tells of all that differ otherwise than declared.
async fn check(server: &Server, goldens: &[&Golden], declared: &Declared) {
    let mut surprises = Vec::new();
    for golden in goldens {
        let answer = replay(server, golden).await;
        let (found, expected) = (differences(golden, &answer), declared.of(&golden.name));
        if found != expected {
            surprises.push(format!(
                "{}: differs in {found:?}, declared {expected:?}\n  Feast:  {} {}\n  larder: {} {}",
                golden.name,
                golden.status,
                golden.response_body.as_deref().unwrap_or_default(),
                answer.status,
                answer.text(),
            ));
        }
    }
    assert!(surprises.is_empty(), "\n{}", surprises.join("\n"));
}

fn is_of_redis(golden: &Golden) -> bool {
    golden.name.starts_with("redis_")
}

#[test]
fn every_declaration_is_of_a_golden_request() {
    let (declared, goldens) = (Declared::load(), goldens());
    for deviation in &declared.deviations {
        for name in &deviation.goldens {
            let known = goldens.iter().any(|golden| golden.name == *name);
            assert!(known && declared.is_replayed(name), "`{name}` is not replayed");
        }
    }
    for NotReplayed { prefix, .. } in &declared.not_replayed {
        assert!(goldens.iter().any(|golden| golden.name.starts_with(prefix)), "none is {prefix}");
    }
}

#[tokio::test]
async fn answers_from_sqlite_are_those_of_feasts_server() {
    let (declared, goldens) = (Declared::load(), goldens());
    let of_sqlite =
        goldens.iter().filter(|golden| !is_of_redis(golden) && declared.is_replayed(&golden.name));
    let of_sqlite: Vec<_> = of_sqlite.collect();
    assert!(of_sqlite.len() > 70, "only {}", of_sqlite.len());
    check(&golden_server(), &of_sqlite, &declared).await;
}

#[tokio::test]
async fn answers_from_redis_are_those_of_feasts_server() {
    let (declared, goldens) = (Declared::load(), goldens());
    let (without, with): (Vec<&Golden>, Vec<_>) = goldens
        .iter()
        .filter(|golden| is_of_redis(golden) && declared.is_replayed(&golden.name))
        .partition(|golden| golden.name.contains("backend_down"));
    assert!(with.len() > 9 && without.len() == 2);

    let mut redis = RedisServer::start();
    fill(&mut redis.admin(), Path::new("tests/golden/http/fixture/redis_dump.json"));
    let server = || {
        Server::start(Setup {
            store: connect(&StoreSettings::Redis(redis.settings())).unwrap(),
            kind: "redis",
            registry: Some(golden_registry("registry_redis.db")),
            ..Setup::default()
        })
    };
    check(&server(), &with, &declared).await;
    let server = server();
    redis.kill();
    check(&server, &without, &declared).await;
}

/// Writes the hashes of a dump.
fn fill(redis: &mut redis::Connection, dump: &Path) {
    #[derive(Deserialize)]
    struct Hash {
        key_hex: String,
        fields: Vec<(String, String)>,
    }
    let dump: Vec<Hash> = serde_json::from_str(&fs::read_to_string(dump).unwrap()).unwrap();
    for Hash { key_hex, fields } in dump {
        let fields: Vec<_> = fields.iter().map(|(field, value)| (hex(field), hex(value))).collect();
        let _: () = redis.hset_multiple(hex(&key_hex), &fields).unwrap();
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits = |place| u8::from_str_radix(&text[place..place + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digits).collect()
}
