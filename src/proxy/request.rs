//! What is asked, free of any wire format.

use std::borrow::Cow;

use tokio::time::Instant;

use super::settings::{StatusCompat, TtlOnRead};
use crate::cache::policy::Ask;

/// An online request.
#[derive(Clone, Debug)]
pub struct OnlineRequest<'a> {
    /// The features wanted.
    pub select: Select<'a>,
    /// The entity columns, in the order in which an answer gives them back. All of one length.
    pub columns: Vec<Column<'a>>,
    /// Whether features are called `view__feature` in the answer, or `feature`.
    pub full_names: bool,
    /// What this request tightens of the cache's policy.
    pub ask: Ask,
    /// The manners of the API that was called.
    pub dialect: Dialect,
    /// When the caller stops waiting.
    pub deadline: Instant,
}

/// Which features.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Select<'a> {
    /// References: `view:feature` or `view@v2:feature`.
    Features(Vec<Cow<'a, str>>),
    /// Those of a feature service.
    Service(Cow<'a, str>),
}

/// One entity column: a value for each row of the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Column<'a> {
    /// A join key, as the views or the service's join key maps call it, or an entity's name.
    pub name: Cow<'a, str>,
    /// The values.
    pub values: Vec<KeyValue<'a>>,
}

/// A value of an entity column, as it was sent.
#[derive(Clone, Debug, PartialEq)]
pub enum KeyValue<'a> {
    /// None: its row has no entity, and no features.
    Null,
    /// A truth value.
    Bool(bool),
    /// A 32-bit integer; JSON has none.
    Int32(i32),
    /// An integer.
    Int64(i64),
    /// A floating-point number.
    Float(f64),
    /// Text.
    String(Cow<'a, str>),
    /// Bytes; JSON has none.
    Bytes(Cow<'a, [u8]>),
    /// Seconds since the Unix epoch; JSON has none.
    UnixTimestamp(i64),
    /// What cannot be part of a key, in words: `a list`.
    Other(&'static str),
}

/// In what the APIs differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// What becomes of values older than their view's `ttl`.
    pub ttl_on_read: TtlOnRead,
    /// How nulls and absences are reported.
    pub status: StatusCompat,
    /// How values of entity columns become those of join keys.
    pub coercion: Coercion,
}

/// How a value of an entity column becomes one of its join key's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coercion {
    /// As Feast's Python server does with JSON: by `int()` and `str()`.
    Python,
    /// Only where nothing is lost: integers of another width.
    Lossless,
}
