//! What is wrong with a configuration, and where it says so.

use std::{error::Error, fmt, sync::Arc};

use crate::spelling::closest;

/// Where a setting was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In a file.
    File {
        /// The file, as it was named by whoever pointed to it.
        name: Arc<str>,
        /// The line, from 1; 0 if the whole file is meant.
        line: u64,
        /// The column, from 1.
        column: u64,
    },
    /// In an environment variable.
    Environment(Arc<str>),
    /// On the command line.
    Flag(Arc<str>),
    /// Nowhere: it is the default.
    Default,
}

/// One thing that is wrong, or doubtful.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it was said.
    pub origin: Origin,
    /// The setting, as `cache.max_bytes`; empty if it is not about one.
    pub key: String,
    /// What there is, and what is expected. Never the text of a secret.
    pub message: String,
}

/// Everything that is wrong with a configuration, in the order of the sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<Problem>);

/// What has been found so far.
#[derive(Debug, Default)]
pub(super) struct Problems {
    /// What stops the start.
    pub(super) errors: Vec<Problem>,
    /// What only is to be said.
    pub(super) warnings: Vec<Problem>,
}

impl Origin {
    /// A whole file.
    pub(super) fn file(name: &str) -> Self {
        Self::File { name: name.into(), line: 0, column: 0 }
    }
}

impl Problems {
    pub(super) fn error(&mut self, origin: &Origin, key: &str, message: impl Into<String>) {
        self.errors.push(Problem {
            origin: origin.clone(),
            key: key.to_owned(),
            message: message.into(),
        });
    }

    pub(super) fn warn(&mut self, origin: &Origin, key: &str, message: impl Into<String>) {
        self.warnings.push(Problem {
            origin: origin.clone(),
            key: key.to_owned(),
            message: message.into(),
        });
    }
}

/// The word of `known` that was probably meant, as `; did you mean ...?`, or else all of them.
pub(super) fn suggestion(word: &str, known: &[&str]) -> String {
    match closest(word, known) {
        Some(candidate) => format!("; did you mean `{candidate}`?"),
        None => format!("; expected one of {}", known.join(", ")),
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line: 0, .. } => f.write_str(name),
            Self::File { name, line, column } => write!(f, "{name}:{line}:{column}"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => f.write_str(name),
            Self::Default => f.write_str("default"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, problem) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl Error for ConfigErrors {}
