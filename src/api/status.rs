//! The one table of what an error is called: gRPC code, HTTP status, class in Feast's SDK.

use std::error::Error;

use http::StatusCode;
use tonic::{Code, Status};

use crate::{
    proxy::{ProxyError, StoreError},
    registry::{StatusHandle, Unservable},
};

/// Why a request for features was not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The read path said so.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// A value of larder's own metadata is none.
    #[error("metadata `{name}` must be {expected}, is \"{value}\"")]
    Metadata {
        /// The header.
        name: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        value: String,
    },
    /// A value of an entity column cannot be decoded.
    #[error("entity column `{column}`, row {row}: not a serialized feast.types.Value")]
    UndecodableKey {
        /// The column.
        column: String,
        /// The row, from 0.
        row: usize,
    },
    /// Too many requests are under way.
    #[error("too many requests are under way")]
    Overloaded,
}

/// What an error is called by each of those who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Over gRPC.
    pub(super) code: Code,
    /// Over HTTP.
    pub(super) status: StatusCode,
    /// The exception that Feast's SDK raises.
    pub(super) class: &'static str,
}

impl Failure {
    /// The table.
    pub(super) fn outcome(&self) -> Outcome {
        const NO_VIEW: &str = "FeatureViewNotFoundException";
        const NO_SERVICE: &str = "FeatureServiceNotFoundException";
        const NO_VERSION: &str = "FeatureViewVersionNotFound";
        const NO_ENTITY: &str = "EntityNotFoundException";
        const NO_OBJECT: &str = "FeastObjectNotFoundException";
        const COLLISION: &str = "FeatureNameCollisionError";
        const OTHER: &str = "FeastError";
        use ProxyError as E;

        let (code, status, class) = match self {
            Self::Metadata { .. } | Self::UndecodableKey { .. } => {
                (Code::InvalidArgument, StatusCode::BAD_REQUEST, OTHER)
            }
            Self::Overloaded => (Code::ResourceExhausted, StatusCode::SERVICE_UNAVAILABLE, OTHER),
            Self::Proxy(error) => match error {
                E::UnknownView { .. } => (Code::NotFound, StatusCode::NOT_FOUND, NO_VIEW),
                E::UnknownFeature { .. } => (Code::NotFound, StatusCode::NOT_FOUND, NO_OBJECT),
                E::UnknownService { .. } => (Code::NotFound, StatusCode::NOT_FOUND, NO_SERVICE),
                E::UnknownVersion { .. } => (Code::NotFound, StatusCode::NOT_FOUND, NO_VERSION),
                E::Unservable { why: Unservable::UnknownEntity(_), .. } => {
                    (Code::NotFound, StatusCode::NOT_FOUND, NO_ENTITY)
                }
                E::Unservable { .. } => (Code::FailedPrecondition, StatusCode::CONFLICT, OTHER),
                E::Collision { .. } => (Code::InvalidArgument, StatusCode::BAD_REQUEST, COLLISION),
                E::NoFeatures
                | E::InvalidReference(_)
                | E::VersioningDisabled(_)
                | E::MissingJoinKey { .. }
                | E::UnequalColumns
                | E::DuplicateColumn(_)
                | E::InvalidKey { .. }
                | E::TooLarge { .. } => (Code::InvalidArgument, StatusCode::BAD_REQUEST, OTHER),
                E::Computed(_) => (Code::Unimplemented, StatusCode::NOT_IMPLEMENTED, OTHER),
                E::NoRegistry => (Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, OTHER),
                E::DeadlineExceeded { .. } => {
                    (Code::DeadlineExceeded, StatusCode::GATEWAY_TIMEOUT, OTHER)
                }
                E::Unavailable { cause, .. } => match cause {
                    StoreError::Overloaded => {
                        (Code::ResourceExhausted, StatusCode::SERVICE_UNAVAILABLE, OTHER)
                    }
                    // Asking again does not help, and no other store holds another row.
                    StoreError::Corrupt(_) => {
                        (Code::Internal, StatusCode::INTERNAL_SERVER_ERROR, OTHER)
                    }
                    // A refusal is mended by someone, and then the same request is answered.
                    StoreError::Unavailable(_)
                    | StoreError::NodeUnavailable(_)
                    | StoreError::TimedOut
                    | StoreError::CircuitOpen
                    | StoreError::Refused(_) => {
                        (Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, OTHER)
                    }
                },
            },
        };
        Outcome { code, status, class }
    }

    /// What is told to the caller: the message, and those of all its causes.
    pub(super) fn message(&self, registry: &StatusHandle) -> String {
        if let (Self::Proxy(ProxyError::NoRegistry), Some(told)) = (self, &registry.load().told) {
            return told.to_string();
        }
        let mut text = self.to_string();
        let mut cause = match self {
            // Its own message has the cause's already.
            Self::Proxy(ProxyError::Unavailable { cause, .. }) => cause.source(),
            other => other.source(),
        };
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        if let (Self::Proxy(ProxyError::NoRegistry), Some(error)) =
            (self, &registry.load().last_error)
        {
            text.push_str(": ");
            text.push_str(error);
        }
        text
    }

    /// The answer over gRPC.
    pub(super) fn to_status(&self, registry: &StatusHandle) -> Status {
        Status::new(self.outcome().code, self.message(registry))
    }

    /// The body over HTTP, in the form of Feast's server: JSON text that itself holds JSON.
    pub(super) fn to_json(&self, registry: &StatusHandle) -> Vec<u8> {
        feast_error(self.outcome().class, &self.message(registry))
    }
}

/// The body from which Feast's SDK raises the exception `class`.
pub(super) fn feast_error(class: &str, message: &str) -> Vec<u8> {
    let text = |text| serde_json::to_string(text).expect("text is plain JSON");
    // Spaced as Python does, for whoever compares bytes.
    let inner = format!(
        r#"{{"module": "feast.errors", "class": {}, "message": {}}}"#,
        text(class),
        text(message)
    );
    serde_json::to_vec(&inner).expect("text is plain JSON")
}

/// A code's name in the gRPC specification, as metrics have it.
pub(super) fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use super::*;

    fn unavailable(cause: StoreError) -> Failure {
        Failure::Proxy(ProxyError::Unavailable { view: "orders".into(), cause })
    }

    #[test]
    fn a_message_tells_all_causes_once() {
        let refused = Arc::new(io::Error::other("connection refused"));
        let failure = unavailable(StoreError::Unavailable(refused));
        let status = failure.to_status(&StatusHandle::default());
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(
            status.message(),
            "rows of feature view `orders` cannot be had: the online store cannot be reached: \
             connection refused"
        );
    }

    #[test]
    fn an_error_over_http_is_one_that_feasts_sdk_raises() {
        let failure = Failure::Proxy(ProxyError::UnknownView {
            view: "no\"pe".to_owned(),
            project: "shop".into(),
        });
        assert_eq!(failure.outcome().status, StatusCode::NOT_FOUND);
        let body: String =
            serde_json::from_slice(&failure.to_json(&StatusHandle::default())).unwrap();
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "module": "feast.errors",
                "class": "FeatureViewNotFoundException",
                "message": "Feature view no\"pe does not exist in project shop",
            })
        );
    }

    #[test]
    fn a_callers_mistake_is_never_a_server_error() {
        let name = || "x".to_owned();
        for error in [
            ProxyError::NoFeatures,
            ProxyError::InvalidReference(name()),
            ProxyError::VersioningDisabled(name()),
            ProxyError::Collision { names: vec![name()], full_names: false },
            ProxyError::MissingJoinKey { view: "v".into(), missing: vec!["k".into()] },
            ProxyError::UnequalColumns,
            ProxyError::DuplicateColumn(name()),
            ProxyError::InvalidKey { column: name(), row: 0, problem: name() },
            ProxyError::TooLarge { what: "rows", count: 2, limit: 1, key: "requests.max_rows" },
            ProxyError::Unservable { view: "v".into(), why: Unservable::Disabled },
        ] {
            let outcome = Failure::Proxy(error).outcome();
            assert!(outcome.status.is_client_error(), "{outcome:?}");
            assert!(matches!(outcome.code, Code::InvalidArgument | Code::FailedPrecondition));
        }
    }

    #[test]
    fn a_stores_failure_says_whether_to_ask_again() {
        let cause = || Arc::new(io::Error::other("no such table"));
        for (error, code) in [
            (StoreError::TimedOut, Code::Unavailable),
            (StoreError::CircuitOpen, Code::Unavailable),
            (StoreError::Refused(cause()), Code::Unavailable),
            (StoreError::Overloaded, Code::ResourceExhausted),
            (StoreError::Corrupt(cause()), Code::Internal),
        ] {
            assert_eq!(unavailable(error).outcome().code, code);
        }
    }
}
