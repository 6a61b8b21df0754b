//! Which features exist: the feature registry, as immutable snapshots that are replaced whole.
//!
//! ```text
//!  source: where the bytes are  ->  decode: bytes to a snapshot  ->  RegistryHandle  ->  requests
//!  \------------------- refresh: the task that does it, now and then ------/
//! ```

mod copy;
mod decode;
mod definition;
mod error;
mod refresh;
mod settings;
mod source;
mod status;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use arc_swap::ArcSwapOption;

pub use self::{
    decode::{DecodeOptions, RoutingTag, decode},
    error::{NotBuiltIn, RegistryError},
    refresh::{RefreshSettings, Refresher, load_once},
    settings::{
        Bucket, FetchLimits, MAX_BYTES, ObjectSettings, RegistrySettings, RemoteSettings,
        SqlDialect, SqlSettings, SqlTls, Token,
    },
    source::{Fetched, Marker, RegistrySource},
    status::{RegistryStatus, StatusHandle},
};
use crate::model::{FeatureView, KeyEncoding, ValueType};

/// One consistent state of one project of a registry, indexed for lookups by name.
#[derive(Debug, Default)]
pub struct Registry {
    /// Which snapshot of this process it is: 1 for the first that was published.
    pub generation: u64,
    /// The project.
    pub project: Arc<str>,
    /// Views by name: the versions in force. Names are unique across kinds.
    pub views: BTreeMap<Arc<str>, View>,
    /// Earlier and present versions by view name and version, where online versioning is enabled.
    pub versions: HashMap<(Arc<str>, u32), View>,
    /// Whether version-qualified references (`view@v2:feature`) may be asked for.
    pub versioning: bool,
    /// Feature services by name.
    pub services: BTreeMap<Arc<str>, FeatureService>,
    /// Entities by name. A caller may use the name in place of the join key.
    pub entities: BTreeMap<Arc<str>, Entity>,
    /// The join keys of all entities: columns that an answer gives back when a request has them.
    pub join_keys: HashSet<Arc<str>>,
    /// How entity keys are serialized.
    pub key_encoding: KeyEncoding,
    /// Feast's own id of this state: another one after each change. May be empty.
    pub version_id: Arc<str>,
    /// When Feast changed it last, in seconds since the Unix epoch.
    pub last_updated_unix: Option<i64>,
    /// What is wrong with single objects, a sentence each. The rest is served.
    pub warnings: Vec<String>,
}

/// A name that can be asked for.
#[derive(Clone, Debug)]
pub enum View {
    /// Its rows are stored.
    Stored(StoredView),
    /// It is computed at read time, which larder does not do.
    Computed {
        /// The on-demand feature view.
        name: Arc<str>,
    },
    /// It cannot be served, and why: a sentence for whoever asks.
    Unservable {
        /// The view.
        name: Arc<str>,
        /// Which rule of Feast's it breaks.
        why: Unservable,
    },
}

/// A view whose rows are stored, with what only resolving needs to know.
#[derive(Clone, Debug)]
pub struct StoredView {
    /// The view.
    pub view: Arc<FeatureView>,
    /// Its version in force, for `include_feature_view_version_metadata`; 0 where there is none.
    pub current_version: u32,
    /// The value of the tag that says which store it lies in, in lower case, if there is such a tag.
    pub routed_by: Option<Arc<str>>,
}

/// Why a view is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unservable {
    /// `disabled` is set.
    Disabled,
    /// Its lifecycle state is not one that serves; the state's name.
    State(&'static str),
    /// It names an entity that the registry does not have.
    UnknownEntity(Arc<str>),
    /// A join key has a type that cannot be part of an entity key.
    UnsupportedJoinKey(Arc<str>),
    /// It is a version, and the online store holds only one of each view.
    UnversionedStore,
    /// It lacks the tag that says which store it lies in, or the tag names a store that there is
    /// not.
    NoStore {
        /// The tag.
        tag: Arc<str>,
        /// Its value.
        value: Option<Arc<str>>,
    },
}

/// A named selection of features.
#[derive(Clone, Debug)]
pub struct FeatureService {
    /// Its name.
    pub name: Arc<str>,
    /// What it takes of each view, in its order.
    pub projections: Vec<Projection>,
}

/// What a feature service takes of one view, and under which names.
#[derive(Clone, Debug)]
pub struct Projection {
    /// The view's name in the registry.
    pub view: Arc<str>,
    /// The name it has in this service.
    pub alias: Option<Arc<str>>,
    /// The version it is pinned to.
    pub version: Option<u32>,
    /// The features, in order.
    pub features: Vec<Arc<str>>,
    /// For join keys of the view, the names that requests have for them.
    pub join_key_map: BTreeMap<Arc<str>, Arc<str>>,
}

/// An entity.
#[derive(Clone, Debug)]
pub struct Entity {
    /// Its name.
    pub name: Arc<str>,
    /// Its join key.
    pub join_key: Arc<str>,
    /// The type of its join key, where declared.
    pub value_type: ValueType,
}

/// Hands out the current snapshot. Reads never wait for a refresh.
#[derive(Debug, Default)]
pub struct RegistryHandle(ArcSwapOption<Registry>);

impl RegistryHandle {
    /// The snapshot in force now, if one was ever loaded. Hold it for a whole request.
    pub fn load(&self) -> Option<Arc<Registry>> {
        self.0.load_full()
    }

    /// Puts a new snapshot in force, as the next generation; requests under way keep theirs.
    ///
    /// For the one task that refreshes: two publishers would race for a generation.
    pub fn publish(&self, mut registry: Registry) {
        registry.generation = self.load().map_or(0, |current| current.generation) + 1;
        self.0.store(Some(Arc::new(registry)));
    }
}

impl View {
    /// Its name in the registry.
    pub fn name(&self) -> &Arc<str> {
        match self {
            Self::Stored(stored) => &stored.view.name,
            Self::Computed { name } | Self::Unservable { name, .. } => name,
        }
    }
}
