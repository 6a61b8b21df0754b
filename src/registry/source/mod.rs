//! Where a registry's bytes are, and how they are had: a file for each kind of place.
//!
//! Each gives the bytes of one `feast.core.Registry`, whatever form it keeps them in, and tells
//! cheaply whether they are still those that are known. One fetch is one attempt: what fails is
//! tried again by the next, and a place that cannot give all of a registry gives none of it.

mod file;
#[cfg(feature = "object-store")]
mod object;
#[cfg(feature = "remote-registry")]
mod remote;
#[cfg(any(feature = "sql-registry", feature = "sqlite"))]
mod sql;
#[cfg(feature = "sql-registry")]
mod sql_server;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::{fmt, sync::Arc};

use tokio::time;

use super::{FetchLimits, NotBuiltIn, RegistryError, RegistrySettings};

/// Where a registry is, and what is kept between two reads of it.
#[derive(Debug)]
pub struct RegistrySource {
    /// As messages name it: without a secret.
    place: Arc<str>,
    project: Arc<str>,
    limits: FetchLimits,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    File(file::FileSource),
    #[cfg(feature = "object-store")]
    Object(object::ObjectSource),
    #[cfg(any(feature = "sql-registry", feature = "sqlite"))]
    Sql(sql::SqlSource),
    #[cfg(feature = "remote-registry")]
    Remote(remote::RemoteSource),
}

/// What tells one state of a registry from another without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker(Arc<str>);

/// What a source has.
#[derive(Debug)]
pub enum Fetched {
    /// What it had when the marker was taken.
    Unchanged,
    /// Something else, or perhaps the same.
    Bytes {
        /// The registry.
        bytes: Vec<u8>,
        /// Its marker. None where it is so new that another write need not change it.
        marker: Option<Marker>,
    },
}

/// What a kind of source is told about one fetch.
#[derive(Clone, Copy)]
struct Fetching<'a> {
    place: &'a str,
    /// For places that are asked by project; a file or an object has all of them.
    #[cfg_attr(
        not(any(feature = "sql-registry", feature = "sqlite", feature = "remote-registry")),
        allow(dead_code, reason = "no such place is built in")
    )]
    project: &'a str,
    known: Option<&'a Marker>,
    now_unix: i64,
    limits: FetchLimits,
}

impl RegistrySource {
    /// The registry that the settings describe. Neither waits nor connects.
    ///
    /// # Errors
    ///
    /// If this larder was built without that kind of registry.
    pub fn new(
        settings: RegistrySettings,
        project: Arc<str>,
        limits: FetchLimits,
    ) -> Result<Self, NotBuiltIn> {
        let place = settings.to_string().into();
        let kind = match settings {
            RegistrySettings::File(path) => Kind::File(file::FileSource::new(path)),
            #[cfg(feature = "object-store")]
            RegistrySettings::Object(object) => Kind::Object(object::ObjectSource::new(object)),
            #[cfg(feature = "sql-registry")]
            RegistrySettings::Sql(server) => Kind::Sql(sql::SqlSource::server(server)),
            #[cfg(feature = "sqlite")]
            RegistrySettings::Sqlite(path) => Kind::Sql(sql::SqlSource::sqlite(path)),
            #[cfg(feature = "remote-registry")]
            RegistrySettings::Remote(remote) => Kind::Remote(remote::RemoteSource::new(remote)),
            #[cfg(not(all(
                feature = "object-store",
                feature = "sql-registry",
                feature = "sqlite",
                feature = "remote-registry"
            )))]
            left_out => return Err(NotBuiltIn { feature: left_out.feature() }),
        };
        Ok(Self { place, project, limits, kind })
    }

    /// The largest registry that is read from it.
    pub(super) fn max_bytes(&self) -> u64 {
        self.limits.max_bytes
    }

    /// Reads the registry, unless it is still the one with the marker `known`.
    ///
    /// `now_unix`: seconds since the Unix epoch. Returns within the limits' timeout, whatever the
    /// place does, and blocks no thread of the caller's.
    ///
    /// # Errors
    ///
    /// If it cannot be read as a whole, takes too long, is too large or is being written.
    pub async fn fetch(
        &mut self,
        known: Option<&Marker>,
        now_unix: i64,
    ) -> Result<Fetched, RegistryError> {
        let place = Arc::clone(&self.place);
        let limits = self.limits;
        let fetching = Fetching { place: &place, project: &self.project, known, now_unix, limits };
        let fetch = async {
            match &mut self.kind {
                Kind::File(file) => file.fetch(fetching).await,
                #[cfg(feature = "object-store")]
                Kind::Object(object) => object.fetch(fetching).await,
                #[cfg(any(feature = "sql-registry", feature = "sqlite"))]
                Kind::Sql(sql) => sql.fetch(fetching).await,
                #[cfg(feature = "remote-registry")]
                Kind::Remote(remote) => remote.fetch(fetching).await,
            }
        };
        match time::timeout(limits.timeout, fetch).await {
            Ok(fetched) => fetched,
            Err(_) => {
                Err(RegistryError::TimedOut { place: place.to_string(), after: limits.timeout })
            }
        }
    }
}

impl fmt::Display for RegistrySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

impl Marker {
    fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }
}
