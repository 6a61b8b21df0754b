//! A feature repo of a test, and what larder reads of it.

use std::fs;

use larder::config::{Config, Flag, Sources, Surroundings};

/// A folder with a `feature_store.yaml`, and perhaps a `larder.yaml`.
pub(crate) struct Repo {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) sources: Sources,
    pub(crate) surroundings: Surroundings,
}

pub(crate) const MINIMAL: &str = "project: p\nregistry: r.db\n";

impl Repo {
    pub(crate) fn new(feature_store: &str, larder: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("feature_store.yaml"), feature_store).unwrap();
        let mut sources = Sources::default();
        if let Some(text) = larder {
            fs::write(dir.path().join("larder.yaml"), text).unwrap();
            sources.config = Some("larder.yaml".into());
        }
        let surroundings = Surroundings {
            working_directory: dir.path().into(),
            cores: 3,
            ..Surroundings::default()
        };
        Self { dir, sources, surroundings }
    }

    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.surroundings.environment.insert(name.into(), value.into());
        self
    }

    pub(crate) fn flag(mut self, name: &str, key: &str, value: &str) -> Self {
        self.sources.flags.push(Flag { name: name.into(), key: key.into(), value: value.into() });
        self
    }

    pub(crate) fn load(&self) -> Config {
        Config::load(&self.sources, &self.surroundings).unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// The problems, without the folder's name.
    #[track_caller]
    pub(crate) fn errors(&self) -> Vec<String> {
        let errors = Config::load(&self.sources, &self.surroundings).unwrap_err();
        let dir = format!("{}/", self.dir.path().display());
        errors.0.iter().map(|problem| problem.to_string().replace(&dir, "")).collect()
    }
}
