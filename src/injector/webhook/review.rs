//! `AdmissionReview` v1: what the API server asks, and the answer. Pure.
//!
//! A pod is never refused: whatever cannot be done is said in a warning, and the pod passes as it
//! is.

use std::{
    borrow::Cow,
    panic::{AssertUnwindSafe, catch_unwind},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use crate::injector::{
    Outcome as Sidecar, Patch, Reason, Settings, Way, asks, inject, settings::shortened,
};

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The pod gets larder.
    Injected,
    /// There is nothing to do, or nothing that can be done.
    Skipped,
    /// It is no request, or its pod cannot be read.
    Invalid,
}

/// An answer, and what is told of it.
#[derive(Debug)]
pub(super) struct Answered {
    /// The `AdmissionReview` that goes back.
    pub(super) body: String,
    /// What became of the request.
    pub(super) outcome: Outcome,
    /// Whose pod it is.
    pub(super) pod: PodName,
    /// What the API server tells the user.
    pub(super) warnings: Vec<String>,
}

/// A pod's name, as far as it has one yet, for people to read: shortened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PodName {
    /// Its namespace.
    pub(super) namespace: String,
    /// Its name, or else `generateName`, which the API server makes a name of.
    pub(super) name: String,
}

/// Text that is no `AdmissionReview` of version 1 with a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an AdmissionReview of admission.k8s.io/v1 with a request: {0}")]
pub(super) struct NotAReview(String);

impl NotAReview {
    /// What is wrong may quote what was sent.
    fn because(mut why: String) -> Self {
        shorten(&mut why);
        Self(why)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    #[serde(borrow)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    request: Request<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    uid: Cow<'a, str>,
    kind: Kind,
    #[serde(borrow)]
    operation: Cow<'a, str>,
    #[serde(default)]
    sub_resource: String,
    #[serde(default)]
    namespace: String,
    #[serde(borrow, default)]
    object: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(default)]
    group: String,
    version: String,
    kind: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Response<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    warnings: &'a [String],
}

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// The API server cuts warnings off when they are longer, or 4096 characters together.
const MAX_WARNING_CHARS: usize = 256;
const MAX_WARNINGS: usize = 16;

/// What a pod may weigh, by [`weight`]. Once it is read it takes at most some 200 bytes for each:
/// 25 MB. A pod with 15,000 variables is not too large.
const MAX_WEIGHT: usize = 120_000;

/// Each is changed, and while it is made a patch takes kilobytes for it.
const MAX_CONTAINERS: usize = 500;

/// Bytes of a patch. It holds what a pod may make large: some hundred bytes for each container, and
/// twice the ports of stores, for annotations of which the API server takes as much at most.
const MAX_PATCH: usize = 256 << 10;

/// Answers a request.
///
/// # Errors
///
/// If it is none: there is nobody to answer.
pub(super) fn answer(body: &[u8], settings: &Settings) -> Result<Answered, NotAReview> {
    let review: Review<'_> =
        serde_json::from_slice(body).map_err(|error| NotAReview::because(error.to_string()))?;
    if (&*review.api_version, &*review.kind) != (API_VERSION, KIND) {
        let (version, kind) = (review.api_version, review.kind);
        return Err(NotAReview::because(format!("this is a {kind:.60} of {version:.60}")));
    }
    let request = review.request;
    let pod = (request.is_new_pod()).then(|| request.object.map(RawValue::get)).flatten();
    let decided = match pod {
        Some(pod) => Decided::on(pod, settings),
        None => Decided::skip(None),
    };
    let Decided { mut outcome, patch, mut warnings, name } = decided;
    let mut patch = patch.map(|patch| serde_json::to_vec(&patch).expect("a patch is JSON"));
    if patch.as_ref().is_some_and(|patch| patch.len() > MAX_PATCH) {
        patch = None;
        Decided { outcome, warnings, .. } = Decided::invalid("it would be too large with it");
    }
    warnings.truncate(MAX_WARNINGS);
    warnings.iter_mut().for_each(shorten);
    let patch = patch.map(|patch| STANDARD.encode(patch));
    let answer = Answer {
        api_version: API_VERSION,
        kind: KIND,
        response: Response {
            uid: &request.uid,
            allowed: true,
            patch_type: patch.is_some().then_some("JSONPatch"),
            patch,
            warnings: &warnings,
        },
    };
    let body = serde_json::to_string(&answer).expect("text and lists of text are JSON");
    let pod = PodName { namespace: shortened(&request.namespace), name };
    Ok(Answered { body, outcome, pod, warnings })
}

impl Request<'_> {
    /// Whether a pod is made. Anything else is sent only if the webhook's rules were changed.
    fn is_new_pod(&self) -> bool {
        let Kind { group, version, kind } = &self.kind;
        (&**group, &**version, &**kind) == ("", "v1", "Pod")
            && self.operation == "CREATE"
            && self.sub_resource.is_empty()
    }
}

/// What is to be done with a pod.
struct Decided {
    outcome: Outcome,
    patch: Option<Patch>,
    warnings: Vec<String>,
    name: String,
}

impl Decided {
    fn on(pod: &str, settings: &Settings) -> Self {
        if weight(pod) > MAX_WEIGHT {
            return Self::invalid("it is too large");
        }
        // Deeper than serde_json reads is deeper than any pod.
        let Ok(pod) = serde_json::from_str::<Value>(pod) else {
            return Self::invalid("it is nested too deeply, or no pod");
        };
        if containers(&pod) > MAX_CONTAINERS {
            return Self { name: name_of(&pod), ..Self::invalid("it has too many containers") };
        }
        // Kubernetes would refuse the pod, where the webhook must not fail.
        let decided = catch_unwind(AssertUnwindSafe(|| Self::on_parsed(&pod, settings)));
        let decided = decided.unwrap_or_else(|_| Self::invalid("of an error within larder"));
        Self { name: name_of(&pod), ..decided }
    }

    fn on_parsed(pod: &Value, settings: &Settings) -> Self {
        if !asks(pod) {
            return Self::skip(None);
        }
        match inject(pod, settings, Way::Webhook) {
            Sidecar::Injected { patch, warnings } => Self {
                outcome: Outcome::Injected,
                patch: (!patch.is_empty()).then_some(patch),
                warnings,
                name: String::new(),
            },
            Sidecar::Unchanged(Reason::AlreadyThere) => Self::skip(None),
            Sidecar::Unchanged(reason) => Self::skip(Some(reason)),
        }
    }

    fn skip(why: Option<Reason>) -> Self {
        let warning = |reason: Reason| format!("larder is not added to the pod: {reason}");
        let warnings = why.map(warning).into_iter().collect();
        Self { outcome: Outcome::Skipped, patch: None, warnings, name: String::new() }
    }

    fn invalid(why: &str) -> Self {
        let warnings = vec![format!("larder is not added to the pod: {why}")];
        Self { outcome: Outcome::Invalid, patch: None, warnings, name: String::new() }
    }
}

/// A pod that a controller makes has no name yet.
fn name_of(pod: &Value) -> String {
    let text = |key: &str| pod["metadata"][key].as_str().filter(|name| !name.is_empty());
    shortened(text("name").or_else(|| text("generateName")).unwrap_or_default())
}

fn containers(pod: &Value) -> usize {
    pod["spec"]["containers"].as_array().map_or(0, Vec::len)
}

/// How much memory a text in JSON takes once it is read: one for each value, and more for a mapping,
/// which has room for some entries from its first. What stands in texts counts by its length,
/// which is bounded.
fn weight(json: &str) -> usize {
    let mut weight = 0;
    let mut bytes = json.bytes();
    let mut in_text = false;
    while let Some(byte) = bytes.next() {
        match (byte, in_text) {
            (b'"', _) => in_text = !in_text,
            (b'\\', true) => {
                bytes.next();
            }
            (b'{', false) => weight += 4,
            (b',' | b'[', false) => weight += 1,
            _ => {}
        }
    }
    weight
}

fn shorten(warning: &mut String) {
    if let Some((end, _)) = warning.char_indices().nth(MAX_WARNING_CHARS) {
        warning.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_in_texts_has_no_weight() {
        for (json, expected) in [
            (r#"{"a":"b"}"#, 4),
            (r#"[1,2,{"a":[]}]"#, 8),
            (r#"["[{,,\"[{,\\",","]"#, 2),
            (r#"["\\\","#, 1),
            ("", 0),
        ] {
            assert_eq!(weight(json), expected, "{json}");
        }
    }

    fn review(object: &Value) -> Answered {
        let review = json!({
            "apiVersion": API_VERSION,
            "kind": KIND,
            "request": {
                "uid": "u",
                "kind": { "group": "", "version": "v1", "kind": "Pod" },
                "operation": "CREATE",
                "namespace": "n".repeat(10_000),
                "object": object,
            },
        });
        answer(review.to_string().as_bytes(), &Settings::default()).unwrap()
    }

    fn pod(containers: Value) -> Value {
        let metadata = json!({
            "generateName": "g".repeat(100_000),
            "labels": { "larder.dev/inject": "enabled" },
        });
        json!({ "metadata": metadata, "spec": { "containers": containers } })
    }

    #[test]
    fn a_pod_that_would_take_much_memory_is_not_read() {
        let small: Vec<_> = (0..50_000).map(|_| json!({ "key": "a" })).collect();
        let mut large = pod(json!([{ "name": "a" }]));
        large["spec"]["more"] = json!(small);
        assert_eq!(review(&large).outcome, Outcome::Invalid);
        large["spec"]["more"] = json!(small[..20_000]);
        assert_eq!(review(&large).outcome, Outcome::Injected);
        large["spec"]["more"] = json!({ "text": "[{,".repeat(500_000) });
        assert_eq!(review(&large).outcome, Outcome::Injected);
        let many = (0..501).map(|number| json!({ "name": number.to_string() })).collect();
        assert_eq!(review(&pod(many)).outcome, Outcome::Invalid);
        let most = (0..500).map(|number| json!({ "name": number.to_string() })).collect();
        assert_eq!(review(&pod(most)).outcome, Outcome::Injected);
        let mut ports = pod(json!([{ "name": "a" }]));
        ports["metadata"]["annotations"] =
            json!({ "larder.dev/store-ports": "6379,".repeat(100_000) + "1" });
        let answered = review(&ports);
        assert_eq!(answered.outcome, Outcome::Invalid);
        assert!(answered.body.len() < 1000, "{}", answered.body);
    }

    #[test]
    fn what_is_logged_is_short_whatever_was_sent() {
        let answered = review(&pod(json!([{ "name": "a" }])));
        assert_eq!(answered.outcome, Outcome::Injected);
        let PodName { namespace, name } = answered.pod;
        assert!(namespace.len() < 100 && namespace.starts_with('n'), "{namespace}");
        assert!(name.len() < 100 && name.starts_with('g'), "{name}");

        let long = json!({ "apiVersion": "x".repeat(100_000), "kind": "y", "request": "z".repeat(1 << 20) });
        let error = answer(long.to_string().as_bytes(), &Settings::default()).unwrap_err();
        assert!(error.to_string().len() < 400, "{error}");
    }
}
