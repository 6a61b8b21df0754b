//! Turns a request's entity columns into the distinct rows to read. Pure.

use std::{
    borrow::Cow,
    hash::BuildHasher,
    ops::Range,
    sync::{Arc, OnceLock},
};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::{
    ProxyError,
    coerce::coerce,
    request::{Coercion, Column, KeyValue, OnlineRequest},
    settings::RequestLimits,
    shape::{KeyPart, KeySet, Shape},
};
use crate::{
    model::{EntityKey, JoinValue, Scalar, ValueType, encode_entity_key, encode_value},
    registry::Registry,
};

/// What is left of a request once its names and keys are resolved.
#[derive(Debug)]
pub(super) struct Plan {
    /// What the names mean.
    pub(super) shape: Arc<Shape>,
    /// How many rows the answer has.
    pub(super) rows: usize,
    /// The entity columns that the answer gives back.
    pub(super) entities: Vec<EntityColumn>,
    /// For each of the shape's key sets, the entities it makes.
    pub(super) entity_sets: Vec<EntitySet>,
    /// The bytes of all entity keys.
    buffer: Vec<u8>,
}

/// An entity column of the answer: serialized values, one after the other.
#[derive(Debug, Default)]
pub(super) struct EntityColumn {
    /// Its join key, as the request has it.
    pub(super) name: String,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// The entities that one key set makes of a request.
#[derive(Debug, Default)]
pub(super) struct EntitySet {
    /// Each entity once.
    pub(super) entities: Vec<Entity>,
    /// For each row of the answer, its place in `entities`; `None` where a join key is null.
    pub(super) row_to_entity: Vec<Option<u32>>,
}

/// An entity of the request.
#[derive(Debug)]
pub(super) struct Entity {
    key: Range<usize>,
    /// Its key for those who keep it, once one does.
    kept: OnceLock<EntityKey>,
    /// A hash of its key: the same for the life of the process.
    pub(super) hash: u64,
}

impl Plan {
    /// Fails if a join key is missing, or if a value cannot be one of its join key.
    pub(super) fn new(
        registry: &Registry,
        shape: Arc<Shape>,
        request: &OnlineRequest<'_>,
        limits: RequestLimits,
    ) -> Result<Self, ProxyError> {
        let rows = count_rows(&shape, &request.columns)?;
        check_limit("rows", rows, limits.max_rows, "requests.max_rows")?;
        check_limit("features", shape.columns.len(), limits.max_features, "requests.max_features")?;

        let known = recognize(registry, &shape, &request.columns)?;
        let joined = JoinColumns::new(&shape, &known, request.dialect.coercion)?;
        let mut plan = Self {
            rows,
            entities: known.iter().map(|column| joined.echo(&shape, column)).collect(),
            entity_sets: Vec::with_capacity(shape.key_sets.len()),
            buffer: Vec::new(),
            shape: Arc::clone(&shape),
        };
        for (place, key_set) in shape.key_sets.iter().enumerate() {
            let columns = joined.of(key_set).map_err(|missing| {
                let read = shape.reads.iter().find(|read| read.key_set == place);
                let read = read.expect("a key set belongs to a read");
                ProxyError::MissingJoinKey { view: Arc::clone(&read.name), missing }
            })?;
            plan.add_entities(registry, key_set, &columns);
        }
        Ok(plan)
    }

    /// The bytes of an entity's key.
    pub(super) fn key(&self, entity: &Entity) -> &[u8] {
        &self.buffer[entity.key.clone()]
    }

    /// The same to be kept: one allocation, whichever views' rows are read.
    pub(super) fn kept_key(&self, entity: &Entity) -> EntityKey {
        entity.kept.get_or_init(|| EntityKey(self.key(entity).into())).clone()
    }

    /// Builds the key of every row, and keeps each distinct one once.
    fn add_entities(&mut self, registry: &Registry, key_set: &KeySet, columns: &[&JoinColumn<'_>]) {
        let hasher = FixedState::default();
        let mut set = EntitySet::default();
        set.row_to_entity.reserve(self.rows);
        let mut places: HashTable<u32> = HashTable::with_capacity(self.rows);
        let buffer = &mut self.buffer;
        for row in 0..self.rows {
            let start = buffer.len();
            if !put_key(registry, key_set, columns, row, buffer) {
                set.row_to_entity.push(None);
                continue;
            }
            let hash = hasher.hash_one(&buffer[start..]);
            let entities = &mut set.entities;
            let same =
                |place: &u32| buffer[entities[*place as usize].key.clone()] == buffer[start..];
            if let Some(place) = places.find(hash, same).copied() {
                buffer.truncate(start);
                set.row_to_entity.push(Some(place));
                continue;
            }
            let place = u32::try_from(entities.len()).expect("a request has less than 2^32 rows");
            let kept = OnceLock::new();
            entities.push(Entity { key: start..buffer.len(), kept, hash });
            places.insert_unique(hash, place, |place| entities[*place as usize].hash);
            set.row_to_entity.push(Some(place));
        }
        self.entity_sets.push(set);
    }
}

impl EntityColumn {
    /// The serialized value of a row; empty for a null.
    pub(super) fn value(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.bytes[start..self.ends[row]]
    }

    fn push(&mut self, value: Option<Scalar<'_>>) {
        if let Some(value) = value {
            encode_value(value, &mut self.bytes);
        }
        self.ends.push(self.bytes.len());
    }
}

fn check_limit(
    what: &'static str,
    count: usize,
    limit: usize,
    key: &'static str,
) -> Result<(), ProxyError> {
    if count > limit { Err(ProxyError::TooLarge { what, count, limit, key }) } else { Ok(()) }
}

/// The common length of all columns, ignored ones too; one row where nothing needs a column.
fn count_rows(shape: &Shape, columns: &[Column<'_>]) -> Result<usize, ProxyError> {
    let Some(first) = columns.first() else {
        // Without columns, views that need one say so later.
        return Ok(if shape.join_columns.is_empty() { 1 } else { 0 });
    };
    if columns.iter().any(|column| column.values.len() != first.values.len()) {
        return Err(ProxyError::UnequalColumns);
    }
    Ok(first.values.len())
}

/// An entity column that means a join key, under its name.
type KnownColumn<'r> = (Cow<'r, str>, &'r [KeyValue<'r>]);

/// An entity column in the type of its join key; `None` for nulls.
type JoinColumn<'r> = Vec<Option<JoinValue<'r>>>;

/// The columns that mean a join key: by its name, or by its entity's.
fn recognize<'r>(
    registry: &Registry,
    shape: &Shape,
    columns: &'r [Column<'r>],
) -> Result<Vec<KnownColumn<'r>>, ProxyError> {
    let mut known: Vec<KnownColumn<'r>> = Vec::with_capacity(columns.len());
    for Column { name, values } in columns {
        let is_join_key =
            shape.join_columns.contains_key(&**name) || registry.join_keys.contains(&**name);
        let name = if is_join_key {
            Cow::Borrowed(&**name)
        } else if let Some(entity) = registry.entities.get(&**name) {
            Cow::Owned(entity.join_key.to_string())
        } else {
            continue;
        };
        if known.iter().any(|(other, _)| *other == name) {
            return Err(ProxyError::DuplicateColumn(name.into_owned()));
        }
        known.push((name, values));
    }
    Ok(known)
}

/// The entity columns in each type that a view needs of them.
struct JoinColumns<'r>(Vec<(Cow<'r, str>, ValueType, JoinColumn<'r>)>);

impl<'r> JoinColumns<'r> {
    fn new(
        shape: &Shape,
        known: &[KnownColumn<'r>],
        coercion: Coercion,
    ) -> Result<Self, ProxyError> {
        let mut columns = Self(Vec::with_capacity(known.len()));
        let parts = || shape.key_sets.iter().flat_map(|key_set| key_set.0.iter());
        for (name, values) in known {
            for part in parts().filter(|part| *part.column == **name) {
                if columns.get(name, part.value_type).is_none() {
                    let values = coerce_all(name, values, part.value_type, coercion)?;
                    columns.0.push((name.clone(), part.value_type, values));
                }
            }
        }
        Ok(columns)
    }

    fn get(&self, name: &str, value_type: ValueType) -> Option<&JoinColumn<'r>> {
        let column = self.0.iter().find(|column| column.0 == name && column.1 == value_type);
        column.map(|column| &column.2)
    }

    /// The columns of a key set, or what the request would have to call those it lacks.
    fn of(&self, key_set: &KeySet) -> Result<Vec<&JoinColumn<'r>>, Vec<Arc<str>>> {
        let get = |part: &KeyPart| self.get(&part.column, part.value_type);
        let columns: Vec<_> = key_set.0.iter().filter_map(get).collect();
        if columns.len() == key_set.0.len() {
            return Ok(columns);
        }
        let lacking = key_set.0.iter().filter(|part| get(part).is_none());
        Err(lacking.map(|part| Arc::clone(&part.column)).collect())
    }

    /// What the answer gives back of a column: in its view's type, or else as it was sent.
    fn echo(&self, shape: &Shape, (name, values): &KnownColumn<'r>) -> EntityColumn {
        let mut column = EntityColumn { name: name.to_string(), ..EntityColumn::default() };
        column.ends.reserve(values.len());
        let value_type = shape.join_columns.get(&**name);
        match value_type.and_then(|value_type| self.get(name, *value_type)) {
            Some(joined) => {
                joined.iter().for_each(|value| column.push(value.as_ref().map(Scalar::Join)));
            }
            None => values.iter().for_each(|value| push_as_sent(value, &mut column)),
        }
        column
    }
}

fn coerce_all<'r>(
    name: &str,
    values: &'r [KeyValue<'r>],
    value_type: ValueType,
    coercion: Coercion,
) -> Result<JoinColumn<'r>, ProxyError> {
    let coerce = |(row, value)| {
        coerce(value, value_type, coercion).map_err(|problem| ProxyError::InvalidKey {
            column: name.to_owned(),
            row,
            problem,
        })
    };
    values.iter().enumerate().map(coerce).collect()
}

fn push_as_sent(value: &KeyValue<'_>, column: &mut EntityColumn) {
    match value {
        KeyValue::Bool(truth) => column.push(Some(Scalar::Bool(*truth))),
        KeyValue::Float(number) => column.push(Some(Scalar::Double(*number))),
        other => {
            // What cannot be a join key's value at all has no serialized form either.
            let value = coerce(other, ValueType::UNKNOWN, Coercion::Lossless).unwrap_or(None);
            column.push(value.as_ref().map(Scalar::Join));
        }
    }
}

/// Appends the key of one row. `false`, and nothing appended, where it has none.
fn put_key(
    registry: &Registry,
    key_set: &KeySet,
    columns: &[&JoinColumn<'_>],
    row: usize,
    buffer: &mut Vec<u8>,
) -> bool {
    let encoding = registry.key_encoding;
    if key_set.0.is_empty() {
        // Feast stores an entityless view under one dummy entity.
        let dummy = JoinValue::String("".into());
        return encode_entity_key(encoding, [("__dummy_id", &dummy)].into_iter(), buffer);
    }
    if columns.iter().any(|column| column[row].is_none()) {
        return false;
    }
    let pairs = key_set.0.iter().zip(columns).map(|(part, column)| {
        let value = column[row].as_ref().expect("nulls were looked for above");
        (&*part.join_key, value)
    });
    encode_entity_key(encoding, pairs, buffer)
}
