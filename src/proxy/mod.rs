//! The read path.

mod settings;

pub use self::settings::{Freshness, OnUnavailable, StatusCompat, TtlOnRead};
