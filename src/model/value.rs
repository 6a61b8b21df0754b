//! What a value is called: its type in the registry, its status in an answer.
//!
//! The values themselves stay the bytes of a serialized `feast.types.Value`, from store to socket.

/// What a value in an answer is. The numbers are those of `feast.serving.FieldStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldStatus {
    /// The store could not be asked, and nothing stood in for it.
    Invalid = 0,
    /// A value, or a null that was stored as such.
    Present = 1,
    /// The row holds a null; only where `status_compat` asks to tell it from [`Self::Present`].
    NullValue = 2,
    /// There is no such row, or the row has no such feature.
    NotFound = 3,
    /// The row is older than its feature view allows.
    OutsideMaxAge = 4,
}

impl FieldStatus {
    /// The name in `feast.serving.FieldStatus`, as JSON has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Invalid => "INVALID",
            Self::Present => "PRESENT",
            Self::NullValue => "NULL_VALUE",
            Self::NotFound => "NOT_FOUND",
            Self::OutsideMaxAge => "OUTSIDE_MAX_AGE",
        }
    }
}

/// A number of `feast.types.ValueType.Enum`. Open: Feast adds types, and a proxy passes them on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueType(pub i32);

impl ValueType {
    /// Not declared.
    pub const UNKNOWN: Self = Self(0);
    /// Raw bytes.
    pub const BYTES: Self = Self(1);
    /// UTF-8 text.
    pub const STRING: Self = Self(2);
    /// A 32-bit integer.
    pub const INT32: Self = Self(3);
    /// A 64-bit integer.
    pub const INT64: Self = Self(4);
    /// Seconds since the Unix epoch.
    pub const UNIX_TIMESTAMP: Self = Self(8);

    /// The name as Feast's documentation has it, for messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::UNKNOWN => "an undeclared type",
            Self::BYTES => "BYTES",
            Self::STRING => "STRING",
            Self::INT32 => "INT32",
            Self::INT64 => "INT64",
            Self::UNIX_TIMESTAMP => "UNIX_TIMESTAMP",
            _ => "a type that cannot be a join key",
        }
    }
}
