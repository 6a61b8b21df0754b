//! Says what is wrong with the body of a request, in the form of Feast's server. Pure.
//!
//! That is FastAPI's: `{"detail":[{"type","loc","msg","input"}]}`, an entry for each problem.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::body::flag_of;

/// What is wrong with a body.
#[derive(Debug, Serialize)]
pub(super) struct Invalid {
    detail: Vec<Problem>,
}

#[derive(Debug, Serialize)]
struct Problem {
    r#type: &'static str,
    loc: Vec<Value>,
    msg: &'static str,
    input: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    ctx: Option<Value>,
}

impl Invalid {
    /// The body of the answer.
    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("problems are plain JSON")
    }

    fn one(problem: Problem) -> Self {
        Self { detail: vec![problem] }
    }
}

/// Finds the problems of a body that [`Body::parse`](super::body::Body::parse) could not read.
pub(super) fn explain(body: &[u8]) -> Invalid {
    if body.is_empty() {
        return Invalid::one(Problem::new(MISSING, &[], &Value::Null));
    }
    let body: Value = match serde_json::from_slice(body) {
        Ok(body) => body,
        Err(error) => return Invalid::one(syntax(body, &error)),
    };
    let mut problems = Problems(Vec::new());
    match &body {
        Value::Object(members) => problems.find(&body, members),
        Value::Null => problems.add(MISSING, &[], &body),
        _ => problems.add(NO_OBJECT, &[], &body),
    }
    if problems.0.is_empty() {
        problems.add(UNREADABLE, &[], &Value::Null);
    }
    Invalid { detail: problems.0 }
}

/// A kind of problem: its name and what is said of it.
type Kind = (&'static str, &'static str);

const MISSING: Kind = ("missing", "Field required");
const NO_OBJECT: Kind = (
    "model_attributes_type",
    "Input should be a valid dictionary or object to extract fields from",
);
const NO_DICT: Kind = ("dict_type", "Input should be a valid dictionary");
const NO_LIST: Kind = ("list_type", "Input should be a valid list");
const NO_STRING: Kind = ("string_type", "Input should be a valid string");
const NO_BOOL: Kind = ("bool_type", "Input should be a valid boolean");
const UNCLEAR_BOOL: Kind =
    ("bool_parsing", "Input should be a valid boolean, unable to interpret input");
const UNREADABLE: Kind = ("value_error", "Value error, the body cannot be read");

struct Problems(Vec<Problem>);

impl Problems {
    fn find(&mut self, body: &Value, members: &Map<String, Value>) {
        match members.get("entities") {
            None => self.add(MISSING, &["entities".into()], body),
            Some(Value::Object(columns)) => {
                for (name, values) in columns.iter().filter(|(_, values)| !values.is_array()) {
                    self.add(NO_LIST, &["entities".into(), json!(name)], values);
                }
            }
            Some(other) => self.add(NO_DICT, &["entities".into()], other),
        }
        match members.get("feature_service") {
            None | Some(Value::Null | Value::String(_)) => {}
            Some(other) => self.add(NO_STRING, &["feature_service".into()], other),
        }
        match members.get("features") {
            None => {}
            Some(Value::Array(features)) => {
                let wrong = features.iter().enumerate().filter(|(_, each)| !each.is_string());
                for (place, feature) in wrong {
                    self.add(NO_STRING, &["features".into(), json!(place)], feature);
                }
            }
            Some(other) => self.add(NO_LIST, &["features".into()], other),
        }
        for name in ["full_feature_names", "include_feature_view_version_metadata"] {
            if let Some((kind, flag)) =
                members.get(name).and_then(|flag| Some((no_flag(flag)?, flag)))
            {
                self.add(kind, &[name.into()], flag);
            }
        }
    }

    fn add(&mut self, kind: Kind, place: &[Value], input: &Value) {
        self.0.push(Problem::new(kind, place, input));
    }
}

/// What is wrong with a truth value.
fn no_flag(flag: &Value) -> Option<Kind> {
    match flag {
        Value::Bool(_) => None,
        Value::Number(number) if matches!(number.as_u64(), Some(0 | 1)) => None,
        Value::String(word) if flag_of(word).is_some() => None,
        Value::Number(_) | Value::String(_) => Some(UNCLEAR_BOOL),
        Value::Null | Value::Array(_) | Value::Object(_) => Some(NO_BOOL),
    }
}

impl Problem {
    fn new((kind, msg): Kind, place: &[Value], input: &Value) -> Self {
        let loc = std::iter::once(&json!("body")).chain(place).cloned().collect();
        Self { r#type: kind, loc, msg, input: input.clone(), ctx: None }
    }
}

/// JSON that breaks off or goes wrong, and at which character.
fn syntax(body: &[u8], error: &serde_json::Error) -> Problem {
    let text = String::from_utf8_lossy(body);
    let offset = if error.is_eof() {
        text.chars().count()
    } else {
        let before: usize = text
            .split_inclusive('\n')
            .take(error.line().saturating_sub(1))
            .map(|line| line.chars().count())
            .sum();
        before + error.column().saturating_sub(1)
    };
    let message = error.to_string();
    let message = message.rsplit_once(" at line ").map_or(&*message, |(message, _)| message);
    Problem {
        r#type: "json_invalid",
        loc: vec![json!("body"), json!(offset)],
        msg: "JSON decode error",
        input: json!({}),
        ctx: Some(json!({ "error": message })),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::body::Body, *};

    #[track_caller]
    fn check(body: &str, expected: Value) {
        let invalid = Body::parse(body.as_bytes()).expect_err("a body that cannot be read");
        let json: Value = serde_json::from_slice(&invalid.to_json()).unwrap();
        assert_eq!(json["detail"], expected);
    }

    #[test]
    fn problems_are_told_as_by_feasts_server() {
        check(
            "",
            json!([{"type": "missing", "loc": ["body"], "msg": "Field required", "input": null}]),
        );
        check(
            r#"{"features": [""#,
            json!([{"type": "json_invalid", "loc": ["body", 15], "msg": "JSON decode error",
                    "input": {}, "ctx": {"error": "EOF while parsing a string"}}]),
        );
        check(
            r#"{"entities": {"k": 1, "l": [1]}, "features": "v:a"}"#,
            json!([
                {"type": "list_type", "loc": ["body", "entities", "k"],
                 "msg": "Input should be a valid list", "input": 1},
                {"type": "list_type", "loc": ["body", "features"],
                 "msg": "Input should be a valid list", "input": "v:a"},
            ]),
        );
        check(
            r#"{"features": [1], "feature_service": [], "full_feature_names": 2}"#,
            json!([
                {"type": "missing", "loc": ["body", "entities"], "msg": "Field required",
                 "input": {"features": [1], "feature_service": [], "full_feature_names": 2}},
                {"type": "string_type", "loc": ["body", "feature_service"],
                 "msg": "Input should be a valid string", "input": []},
                {"type": "string_type", "loc": ["body", "features", 0],
                 "msg": "Input should be a valid string", "input": 1},
                {"type": "bool_parsing", "loc": ["body", "full_feature_names"],
                 "msg": "Input should be a valid boolean, unable to interpret input", "input": 2},
            ]),
        );
    }

    #[test]
    fn hostile_json_is_told_to_be_none() {
        let deep = format!("{{\"entities\": {}", "[".repeat(100_000));
        for body in [
            &deep,
            r#"{"entities": {"k": ["\ud800"]}}"#,
            r#"{"entities": {"k": [1e999]}}"#,
            "{\"entities\": {\"k\": [\"\0\"]}}",
            r#"{"entities": {}} {}"#,
            "\u{feff}{}",
            "NaN",
        ] {
            let invalid = Body::parse(body.as_bytes()).expect_err("no JSON");
            assert_eq!(invalid.detail[0].r#type, "json_invalid", "{:.40}", body);
        }
    }

    proptest::proptest! {
        /// What the quick reading refuses, the thorough one finds a reason for.
        #[test]
        fn there_is_always_a_reason(
            entities in r#"(\{"k":(\[1,null\]|1)\}|null|\[\])"#,
            features in r#"(\["v:a",(1|"x")\]|null|"x")"#,
            flag in r#"(true|"yes"|"maybe"|0|2|1\.0|null|\[\])"#,
        ) {
            let text = format!(
                r#"{{"entities":{entities},"features":{features},"full_feature_names":{flag}}}"#
            );
            if let Err(invalid) = Body::parse(text.as_bytes()) {
                proptest::prop_assert_ne!(invalid.detail[0].r#type, "value_error", "{}", text);
            }
        }
    }
}
