//! `online_store` of type `sqlite`.

use super::{online_store::StoreContext, section::Section};
use crate::store::{SqliteSettings, StoreSettings};

const OPTIONS: &[&str] = &[
    "type",
    "path",
    "vector_enabled",
    "similarity",
    "text_search_enabled",
    "enable_openai_compatible_store",
];

pub(super) fn read(mut section: Section<'_>, context: &StoreContext<'_>) -> Option<StoreSettings> {
    section.known_options(OPTIONS);
    let path = section.text("path")?.unwrap_or("data/online.db");
    let path = context.repo.join(path);
    Some(StoreSettings::Sqlite(SqliteSettings {
        path,
        connections: context.store.sqlite.connections,
    }))
}
