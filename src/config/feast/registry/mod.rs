//! `registry`: where the feature registry is. Each kind of place has a file of its own.

mod object;
mod remote;
mod sql;
mod sqlalchemy_url;

use std::path::{Path, PathBuf};

use super::section::Section;
use crate::{
    config::{
        Surroundings,
        file::RegistrySection,
        tree::{Node, Value},
    },
    registry::RegistrySettings,
};

const VERSIONING: &str = "enable_online_feature_view_versioning";

const FILE_STORES: &[&str] = &["FileRegistryStore", "feast.infra.registry.file.FileRegistryStore"];
const S3_STORES: &[&str] = &["S3RegistryStore", "feast.infra.registry.s3.S3RegistryStore"];
const GCS_STORES: &[&str] = &["GCSRegistryStore", "feast.infra.registry.gcs.GCSRegistryStore"];
const AZURE_STORES: &[&str] = &[
    "AzureRegistryStore",
    "feast.infra.registry.contrib.azure.azure_registry_store.AzBlobRegistryStore",
];

/// What a registry is read with, besides its section.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    /// Where the registry's relative path begins.
    pub(super) repo: &'a Path,
    pub(super) surroundings: &'a Surroundings,
    /// larder's own settings of the registry.
    pub(super) larder: &'a RegistrySection,
}

/// The section's path, and how problems with it are named: never with its text, which may hold a
/// password.
struct Place<'a, 's> {
    text: &'a str,
    section: Section<'s>,
    context: Context<'a>,
}

/// The registry, and whether it keeps versions apart. The section is a path or a mapping.
pub(super) fn read(
    mut section: Section<'_>,
    context: Context<'_>,
) -> Option<(RegistrySettings, bool)> {
    if let Some(Node { value: Value::Text(path), .. }) = section.node {
        return Some((Place { text: path, section, context }.by_scheme()?, false));
    }
    let versioning = section.flag(VERSIONING);
    let kind = section.text("registry_type")?.unwrap_or("file");
    let Some(text) = section.text("path")? else {
        return section.expected("path", "the registry's path");
    };
    let mut place = Place { text, section, context };
    let settings = match kind {
        "file" => place.by_store_type(),
        "sql" => sql::read(place),
        "remote" => remote::read(place),
        other => {
            let message = format!("is `{other}`; larder reads file, sql and remote");
            place.section.error("registry_type", message);
            None
        }
    };
    Some((settings?, versioning?))
}

impl Place<'_, '_> {
    /// Feast's class wins over what the path looks like.
    fn by_store_type(mut self) -> Option<RegistrySettings> {
        match self.section.text("registry_store_type")? {
            None => self.by_scheme(),
            Some(store) if FILE_STORES.contains(&store) => self.file(self.text),
            Some(store) if S3_STORES.contains(&store) => object::s3(self),
            Some(store) if GCS_STORES.contains(&store) => object::gcs(self),
            Some(store) if AZURE_STORES.contains(&store) => object::azure(self),
            Some(store) => {
                let message = format!(
                    "is `{store}`; larder reads FileRegistryStore, S3RegistryStore, \
                     GCSRegistryStore and AzureRegistryStore"
                );
                self.section.error("registry_store_type", message);
                None
            }
        }
    }

    fn by_scheme(mut self) -> Option<RegistrySettings> {
        match self.text.split_once("://") {
            None => self.file(self.text),
            Some(("file", path)) => self.file(path),
            Some(("s3", _)) => object::s3(self),
            Some(("gs", _)) => object::gcs(self),
            Some(("az" | "abfs" | "abfss", _)) => object::azure(self),
            Some((scheme, _)) => {
                let hint = match scheme {
                    "http" | "https" => {
                        "; a blob of Azure needs `registry_store_type: AzureRegistryStore`"
                    }
                    "postgresql" | "mysql" => "; a database needs `registry_type: sql`",
                    _ => "",
                };
                let known = "a path, s3://, gs://, az:// and abfss://";
                self.error(format!("is at `{scheme}://`; larder reads {known}{hint}"));
                None
            }
        }
    }

    fn file(&self, path: &str) -> Option<RegistrySettings> {
        Some(RegistrySettings::File(self.context.repo.join(path)))
    }

    /// A problem with the path.
    fn error(&mut self, message: impl Into<String>) {
        match self.section.node {
            Some(Node { value: Value::Text(_), origin }) => {
                self.section.problems.error(origin, "registry", message);
            }
            _ => self.section.error("path", message),
        }
    }

    fn variable(&self, name: &str) -> Option<&str> {
        let found = self.context.surroundings.environment.get(name).map(String::as_str);
        found.filter(|value| !value.is_empty())
    }

    /// A file that Feast opens by its name as it is: from where it was started.
    fn beside_us(&self, path: &str) -> PathBuf {
        self.context.surroundings.working_directory.join(path)
    }
}
