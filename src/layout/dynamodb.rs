//! Feast's rows in DynamoDB: a table for each view, an item for each entity.
//!
//! ```text
//! table PROJECT.VIEW, or as `table_name_template` says
//! item: entity_id (S) = hex(murmur3_x64_128(entity key)): the whole of the primary key
//!       event_ts  (S) = YYYY-MM-DD HH:MM:SS[.ffffff](+|-)HH:MM[:SS]
//!       values    (M) = feature -> serialized Value (B); empty for a null
//! ```
//!
//! `VIEW` is the view's versioned name. `event_ts` is in whatever zone the writer's time was.

use std::{fmt, sync::Arc};

use jiff::civil;

use super::{DecodeError, ViewNames, cell};
use crate::model::{Cell, EntityKey, EventTimestamp, FeatureRow, FeatureView};

/// The name of the attribute that identifies an item.
pub const ENTITY_ID: &str = "entity_id";
/// The name of the attribute with the time of an item.
pub const EVENT_TS: &str = "event_ts";
/// The name of the attribute with the features of an item.
pub const VALUES: &str = "values";

/// The id of an entity, the same in all tables.
pub fn entity_id(entity: &EntityKey) -> String {
    let hash = murmur3::murmur3_x64_128(&mut &*entity.0, 0).expect("reading a slice cannot fail");
    hash.to_le_bytes().iter().fold(String::with_capacity(32), |mut id, byte| {
        for nibble in [byte >> 4, byte & 15] {
            id.push(char::from_digit(nibble.into(), 16).expect("a nibble is a digit"));
        }
        id
    })
}

/// How tables are named: `table_name_template`, in which Feast allows for `{project}` and
/// `{table_name}`, and for `{{` and `}}` as braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableNameTemplate(Box<[Piece]>);

/// A template that names something else, or that does not end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTemplate {
    /// Something else than the two names is in braces.
    #[error("`{{{0}}}` is neither `{{project}}` nor `{{table_name}}`")]
    Unknown(String),
    /// A brace has no partner.
    #[error("a brace is alone; a brace that is part of the name is written twice")]
    LoneBrace,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Project,
    TableName,
}

impl TableNameTemplate {
    /// Reads a template.
    ///
    /// # Errors
    ///
    /// What Python's `str.format` would refuse, and its finer points: `{project:>9}`.
    pub fn parse(template: &str) -> Result<Self, BadTemplate> {
        let (mut pieces, mut text, mut rest) = (Vec::new(), String::new(), template);
        while let Some(at) = rest.find(['{', '}']) {
            text.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                text.push_str(brace);
                rest = after;
                continue;
            }
            let (name, after) = match brace {
                "{" => rest.split_once('}').ok_or(BadTemplate::LoneBrace)?,
                _ => return Err(BadTemplate::LoneBrace),
            };
            let piece = match name {
                "project" => Piece::Project,
                "table_name" => Piece::TableName,
                _ => return Err(BadTemplate::Unknown(name.to_owned())),
            };
            pieces.push(Piece::Text(std::mem::take(&mut text).into()));
            pieces.push(piece);
            rest = after;
        }
        text.push_str(rest);
        pieces.push(Piece::Text(text.into()));
        Ok(Self(pieces.into()))
    }

    /// Whether each view has a table of its own.
    pub fn tells_views_apart(&self) -> bool {
        self.0.contains(&Piece::TableName)
    }

    fn table(&self, project: &str, view: &str) -> String {
        let piece = |piece: &'_ Piece| match piece {
            Piece::Text(text) => text.to_string(),
            Piece::Project => project.to_owned(),
            Piece::TableName => view.to_owned(),
        };
        self.0.iter().map(piece).collect()
    }
}

impl Default for TableNameTemplate {
    /// `{project}.{table_name}`
    fn default() -> Self {
        let dot = Piece::Text(".".into());
        Self([Piece::Project, dot, Piece::TableName].into())
    }
}

/// The table of one view, and how its items are rows of the view.
#[derive(Clone, Debug)]
pub struct DynamoDbView {
    names: ViewNames,
    table: Arc<str>,
}

/// An attribute of an item, in the types that the layout tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute<'a> {
    /// B.
    Bytes(&'a [u8]),
    /// S.
    Text(&'a str),
    /// Another type, by the letters that DynamoDB has for it.
    Other(&'static str),
}

/// The attribute `values` of an item.
#[derive(Clone, Copy, Debug)]
pub enum Values<F> {
    /// There is none, as no feature was written.
    Missing,
    /// A map, by a function that gives what it has under a name.
    Map(F),
    /// Another type, by the letters that DynamoDB has for it.
    Other(&'static str),
}

impl DynamoDbView {
    /// The layout of a view: to be kept, not made for each read.
    pub fn new(view: &FeatureView, template: &TableNameTemplate) -> Self {
        let names = ViewNames::of(view);
        Self { table: template.table(&view.project, &names.view).into(), names }
    }

    /// The name of its table.
    pub fn table(&self) -> &Arc<str> {
        &self.table
    }

    /// The row in an item. Features that the view does not have, or no longer, are passed over.
    pub fn decode<'a>(
        &self,
        event_ts: Option<Attribute<'a>>,
        values: Values<impl Fn(&str) -> Option<Attribute<'a>>>,
    ) -> Result<FeatureRow, DecodeError> {
        let view = &self.names.view;
        let timestamp = decode_event_ts(event_ts)
            .map_err(|what| DecodeError::Timestamp { view: view.clone(), what })?;
        let stored = |feature: &Arc<str>| match &values {
            Values::Missing => Ok(None),
            Values::Other(found) => Err(DecodeError::NotAMap { view: view.clone(), found }),
            Values::Map(get) => match get(feature) {
                None => Ok(None),
                Some(Attribute::Bytes(bytes)) => Ok(Some(bytes)),
                Some(other) => Err(DecodeError::NotBytes {
                    view: view.clone(),
                    feature: feature.clone(),
                    found: other.type_name(),
                }),
            },
        };
        let cells: Vec<Cell<'_>> = self
            .names
            .features
            .iter()
            .map(|name| stored(name).map(cell))
            .collect::<Result<_, _>>()?;
        self.names.row(cells.into_iter(), timestamp)
    }
}

impl Attribute<'_> {
    fn type_name(self) -> &'static str {
        match self {
            Self::Bytes(_) => "B",
            Self::Text(_) => "S",
            Self::Other(name) => name,
        }
    }
}

fn decode_event_ts(stored: Option<Attribute<'_>>) -> Result<EventTimestamp, String> {
    match stored {
        Some(Attribute::Text(text)) => {
            parse_event_ts(text).ok_or_else(|| format!("it is {}", Excerpt(text)))
        }
        Some(other) => Err(format!("it is stored as {}, not as S", other.type_name())),
        None => Err("it is missing".to_owned()),
    }
}

/// Python's `str(datetime)`, in UTC where it has no offset.
fn parse_event_ts(text: &str) -> Option<EventTimestamp> {
    // The date has dashes of its own.
    let time_at = text.char_indices().nth(10)?.0;
    let offset_at = text[time_at..].find(['+', '-', 'Z']).map_or(text.len(), |at| time_at + at);
    let (local, offset) = text.split_at(offset_at);
    let local: civil::DateTime = local.parse().ok()?;
    let epoch = civil::date(1970, 1, 1).at(0, 0, 0, 0);
    let since = local.duration_since(epoch).as_nanos() - 1_000_000_000 * parse_offset(offset)?;
    Some(EventTimestamp {
        seconds: since.div_euclid(1_000_000_000).try_into().ok()?,
        nanos: since.rem_euclid(1_000_000_000).try_into().ok()?,
    })
}

/// Seconds of `+HH:MM`, `-HH:MM:SS`, `Z` or nothing.
fn parse_offset(text: &str) -> Option<i128> {
    let (sign, parts) = match text.as_bytes().first() {
        None => return Some(0),
        Some(b'Z') if text.len() == 1 => return Some(0),
        Some(b'+') => (1, &text[1..]),
        Some(b'-') => (-1, &text[1..]),
        Some(_) => return None,
    };
    let mut seconds = 0;
    let mut units = [(3600, 24), (60, 60), (1, 60)].into_iter();
    for part in parts.split(':') {
        let (unit, end) = units.next()?;
        let digits = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        let number = part.parse::<i128>().ok().filter(|number| digits && *number < end)?;
        seconds += unit * number;
    }
    Some(sign * seconds)
}

/// The beginning of a text that may be anything.
struct Excerpt<'a>(&'a str);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.char_indices().nth(40).map_or(self.0.len(), |(at, _)| at);
        write!(f, "{:?}", &self.0[..end])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::layout::ab;

    fn table(template: &str, version: Option<u32>) -> Result<String, BadTemplate> {
        let template = TableNameTemplate::parse(template)?;
        Ok(DynamoDbView::new(&ab("v", version), &template).table().to_string())
    }

    fn decode(
        event_ts: Option<Attribute<'_>>,
        values: &[(&str, Attribute<'static>)],
    ) -> Result<FeatureRow, DecodeError> {
        let values: HashMap<_, _> = values.iter().copied().collect();
        let get = |name: &str| values.get(name).copied();
        DynamoDbView::new(&ab("v", None), &TableNameTemplate::default())
            .decode(event_ts, Values::Map(get))
    }

    const ONE: Attribute<'static> = Attribute::Bytes(b"\x20\x01");
    const NOON: Option<Attribute<'static>> = Some(Attribute::Text("2024-07-01 12:00:00+00:00"));

    #[test]
    fn tables_are_named_by_the_template() {
        assert_eq!(
            TableNameTemplate::parse("{project}.{table_name}").unwrap().table("p", "v"),
            "p.v"
        );
        assert_eq!(TableNameTemplate::default().table("p", "v"), "p.v");
        assert_eq!(table("{project}.{table_name}", Some(3)).unwrap(), "p.v_v3");
        assert_eq!(table("x-{table_name}_{{{project}}}", None).unwrap(), "x-v_{p}");
        assert_eq!(table("fixed", None).unwrap(), "fixed");
        assert!(!TableNameTemplate::parse("fixed").unwrap().tells_views_apart());
        for (template, error) in [
            ("{table}", "`{table}` is neither `{project}` nor `{table_name}`"),
            ("{}", "`{}` is neither"),
            ("{project!r}", "`{project!r}` is neither"),
            ("{project", "a brace is alone"),
            ("project}", "a brace is alone"),
            ("{{project}", "a brace is alone"),
        ] {
            let found = table(template, None).unwrap_err().to_string();
            assert!(found.starts_with(error), "{template}: {found}");
        }
    }

    #[test]
    fn a_name_within_a_name_is_no_name() {
        let template = TableNameTemplate::parse("{project}{table_name}").unwrap();
        assert_eq!(template.table("{table_name}", "{project}"), "{table_name}{project}");
    }

    #[test]
    fn nulls_absences_and_foreign_features_are_told_apart() {
        let row = decode(NOON, &[("a", Attribute::Bytes(b"")), ("gone", Attribute::Other("N"))]);
        let row = row.unwrap();
        assert_eq!((row.cell(0), row.cell(1)), (Cell::Null, Cell::Absent));
        let layout = DynamoDbView::new(&ab("v", None), &TableNameTemplate::default());
        let missing = Values::<fn(&str) -> Option<Attribute<'static>>>::Missing;
        let row = layout.decode(NOON, missing).unwrap();
        assert_eq!((row.cell(0), row.cell(1)), (Cell::Absent, Cell::Absent));
    }

    #[test]
    fn what_is_stored_otherwise_is_named() {
        let error = |row: Result<FeatureRow, DecodeError>| row.unwrap_err().to_string();
        assert_eq!(
            error(decode(NOON, &[("b", Attribute::Text("1"))])),
            "feature `b` of feature view `v` is stored as S, not as bytes"
        );
        assert_eq!(
            error(decode(NOON, &[("a", ONE), ("b", Attribute::Bytes(b"\x20"))])),
            "feature `b` of feature view `v` is stored as no `feast.types.Value`"
        );
        assert!(error(decode(None, &[("a", ONE)])).ends_with("it is missing"));
        assert!(error(decode(Some(ONE), &[])).ends_with("it is stored as B, not as S"));
        let layout = DynamoDbView::new(&ab("v", None), &TableNameTemplate::default());
        let list = Values::<fn(&str) -> Option<Attribute<'static>>>::Other("L");
        assert_eq!(
            error(layout.decode(NOON, list)),
            "feature view `v` holds a row whose features are stored as L, not as a map"
        );
    }

    #[test]
    fn times_are_read_in_every_zone() {
        for (text, seconds, nanos) in [
            ("2024-01-02 03:04:05.678901+00:00", 1_704_164_645, 678_901_000),
            ("2024-01-02 03:04:05-05:00", 1_704_182_645, 0),
            ("2024-01-02 03:04:05+05:30", 1_704_144_845, 0),
            ("2024-01-02T03:04:05Z", 1_704_164_645, 0),
            ("2024-01-02 03:04:05", 1_704_164_645, 0),
            ("1900-01-01 00:00:00+00:19:32", -2_208_989_972, 0),
            ("1969-12-31 23:59:58.500000+00:00", -2, 500_000_000),
            ("0001-01-01 00:00:00+00:00", -62_135_596_800, 0),
            ("9999-12-31 23:59:59.999999+00:00", 253_402_300_799, 999_999_000),
        ] {
            assert_eq!(parse_event_ts(text), Some(EventTimestamp { seconds, nanos }), "{text}");
        }
        for text in [
            "",
            "2024-01-02",
            "2024-13-02 03:04:05+00:00",
            "2024-01-02 03:04:05+24:00",
            "2024-01-02 03:04:05+1:00",
            "2024-01-02 03:04:05+01:00:00:00",
            "2024-01-02 03:04:05+",
            "2024-01-02 03:04:05Zz",
            "1704164645",
            "ééééééééééééé",
        ] {
            assert_eq!(parse_event_ts(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_template_and_any_item_have_an_answer(
            template in "[{}a-z]{0,12}|[{]?(project|table_name)[}]?.{0,9}",
            time in ".{0,40}|[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}[-+.Z:0-9]{0,14}",
            value in proptest::collection::vec(any::<u8>(), 0..30),
            kind in 0..5,
        ) {
            let _ = table(&template, Some(1));
            let attribute = || Some(match kind {
                0 => Attribute::Text(&time),
                1 => Attribute::Other("BOOL"),
                _ => Attribute::Bytes(&value),
            });
            let layout = DynamoDbView::new(&ab("v", None), &TableNameTemplate::default());
            let _ = layout.decode(Some(Attribute::Text(&time)), Values::Map(|_: &str| attribute()));
            let _ = layout.decode(attribute(), Values::Map(|_: &str| attribute()));
        }
    }
}
