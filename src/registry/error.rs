//! Why there is no registry to be had.

use std::{error::Error, sync::Arc, time::Duration};

/// Why a registry was not loaded. The one in force, if any, stays in force.
///
/// A place is named without user and password.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Its bytes cannot be read.
    #[error("registry `{place}` cannot be read")]
    Unreadable {
        /// Where it is.
        place: String,
        /// Why not.
        #[source]
        cause: Box<dyn Error + Send + Sync>,
    },
    /// Whoever keeps it does not let larder read it.
    #[error("registry `{place}` may not be read by larder: check {check}")]
    Refused {
        /// Where it is.
        place: String,
        /// What to look at.
        check: &'static str,
        /// What was answered.
        #[source]
        cause: Box<dyn Error + Send + Sync>,
    },
    /// It was not read in time.
    #[error("registry `{place}` was not read within {after:?}")]
    TimedOut {
        /// Where it is.
        place: String,
        /// What `registry.timeout` allows.
        after: Duration,
    },
    /// A part of it is not there, or no longer.
    #[error("registry `{place}` does not have {what}")]
    Incomplete {
        /// Where it is.
        place: String,
        /// What is missing.
        what: String,
    },
    /// Its server, or whoever stands before it, does not know a call.
    #[error("registry `{place}` does not know `{method}`: is it Feast's registry server?")]
    Unimplemented {
        /// Where it is.
        place: String,
        /// The call.
        method: &'static str,
        /// Whether Feast's server says so itself, and no proxy.
        by_server: bool,
        /// What was answered.
        #[source]
        cause: Box<dyn Error + Send + Sync>,
    },
    /// It is larger than what is allowed.
    #[error("registry `{place}` is larger than {max_bytes} bytes")]
    TooLarge {
        /// Where it is.
        place: String,
        /// What is allowed.
        max_bytes: u64,
    },
    /// It was being written whenever it was read.
    #[error("registry `{place}` is being written")]
    BeingWritten {
        /// Where it is.
        place: String,
    },
    /// Reading or decoding it was broken off.
    #[error("the registry was not loaded")]
    Interrupted(#[from] tokio::task::JoinError),
    /// Its bytes are no registry, or a part of one.
    #[error("the registry is not a `feast.core.Registry`")]
    Malformed(#[from] prost::DecodeError),
    /// It has other projects only.
    #[error("the registry has no project `{project}`, {}", has(existing))]
    NoSuchProject {
        /// The project that is configured.
        project: Arc<str>,
        /// The projects that there are, by name.
        existing: Vec<String>,
    },
}

/// A kind of registry that was left out when this larder was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this larder was built without registries of this kind; build it with `--features {feature}`"
)]
pub struct NotBuiltIn {
    /// The Cargo feature that has it.
    pub feature: &'static str,
}

impl RegistryError {
    /// Of a place that cannot be read for this cause.
    pub(super) fn unreadable(place: &str, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unreadable { place: place.to_owned(), cause: cause.into() }
    }
}

fn has(projects: &[String]) -> String {
    match projects {
        [] => "it is empty".to_owned(),
        projects => format!("it has `{}`", projects.join("`, `")),
    }
}
