//! Why there is no registry to be had.

use std::{io, sync::Arc};

/// Why a registry was not loaded. The one in force, if any, stays in force.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Its bytes cannot be read.
    #[error("registry `{place}` cannot be read")]
    Unreadable {
        /// The file.
        place: String,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// It is larger than [`MAX_BYTES`](super::MAX_BYTES).
    #[error("registry `{place}` is larger than {max_bytes} bytes")]
    TooLarge {
        /// The file.
        place: String,
        /// What is allowed.
        max_bytes: u64,
    },
    /// It was being written whenever it was read.
    #[error("registry `{place}` is being written")]
    BeingWritten {
        /// The file.
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

fn has(projects: &[String]) -> String {
    match projects {
        [] => "it is empty".to_owned(),
        projects => format!("it has `{}`", projects.join("`, `")),
    }
}
