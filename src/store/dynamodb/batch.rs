//! Which keys go into which call, and what an answer says of each: pure, like the layout.
//!
//! ```text
//!  wanted --ask--> in Responses            a row
//!    ^             in UnprocessedKeys ---.  still wanted
//!    '-----------------------------------'
//!                  in neither              there is no row
//! ```

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::Arc,
};

use aws_sdk_dynamodb::{
    operation::batch_get_item::BatchGetItemOutput,
    types::{AttributeValue, KeysAndAttributes},
};
use foldhash::fast::RandomState;

use super::{StoreError, ViewKeys, error::Fault};
use crate::{
    layout::dynamodb::{Attribute, DynamoDbView, ENTITY_ID, EVENT_TS, VALUES, Values, entity_id},
    model::{EntityKey, FeatureRow, MaybeRow},
};

/// The row of a read that a key is read for.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) view: usize,
    pub(super) key: usize,
    layout: Arc<DynamoDbView>,
}

/// What became of a row.
pub(super) type Outcome = (Place, Result<MaybeRow, StoreError>);

/// The keys of one call, and whom they are for.
#[derive(Debug, Default)]
pub(super) struct Batch {
    tables: BTreeMap<Arc<str>, Wanted>,
}

type Wanted = HashMap<String, Vec<Place>, RandomState>;
type Item = HashMap<String, AttributeValue>;

/// What an answer said.
#[derive(Debug, Default)]
pub(super) struct Absorbed {
    pub(super) outcomes: Vec<Outcome>,
    /// The size of the items that came, roughly.
    pub(super) bytes: usize,
}

/// Spreads a read over calls of at most `size` keys, each of which is asked for once.
///
/// Tables that are to stay `apart` share no call with others.
pub(super) fn batches(
    reads: &[ViewKeys<'_>],
    layouts: &[Arc<DynamoDbView>],
    size: usize,
    apart: impl Fn(&Arc<str>) -> bool,
) -> Vec<Batch> {
    let mut tables: BTreeMap<Arc<str>, Vec<(String, Place)>> = BTreeMap::new();
    for (view, (read, layout)) in reads.iter().zip(layouts).enumerate() {
        let place =
            |(key, entity)| (entity_id(entity), Place { view, key, layout: layout.clone() });
        let keys = read.keys.iter().enumerate().map(place);
        tables.entry(layout.table().clone()).or_default().extend(keys);
    }
    let (mut batches, mut open) = (Vec::new(), Batch::default());
    for (table, keys) in tables {
        let alone = apart(&table);
        if alone {
            close(&mut open, &mut batches);
        }
        // Two views of one table may want the same item.
        let mut wanted: Wanted = HashMap::default();
        for (id, place) in keys {
            wanted.entry(id).or_default().push(place);
        }
        for (id, places) in wanted {
            if open.len() >= size {
                close(&mut open, &mut batches);
            }
            open.tables.entry(table.clone()).or_default().insert(id, places);
        }
        if alone {
            close(&mut open, &mut batches);
        }
    }
    close(&mut open, &mut batches);
    batches
}

fn close(open: &mut Batch, batches: &mut Vec<Batch>) {
    if !open.is_empty() {
        batches.push(std::mem::take(open));
    }
}

impl Batch {
    /// One key of one table.
    pub(super) fn of_one(layout: &Arc<DynamoDbView>, entity: &EntityKey) -> Self {
        let place = Place { view: 0, key: 0, layout: layout.clone() };
        let wanted = Wanted::from_iter([(entity_id(entity), vec![place])]);
        Self { tables: BTreeMap::from([(layout.table().clone(), wanted)]) }
    }

    /// How many keys are still wanted.
    pub(super) fn len(&self) -> usize {
        self.tables.values().map(HashMap::len).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    pub(super) fn tables(&self) -> Vec<Arc<str>> {
        self.tables.keys().cloned().collect()
    }

    /// The layout of any view that is read.
    pub(super) fn any_layout(&self) -> Option<&Arc<DynamoDbView>> {
        let places = self.tables.values().flat_map(HashMap::values);
        places.flatten().map(|place| &place.layout).next()
    }

    /// One batch for each table.
    pub(super) fn split(self) -> impl Iterator<Item = Self> {
        self.tables.into_iter().map(|table| Self { tables: BTreeMap::from([table]) })
    }

    /// What to ask for.
    pub(super) fn request(&self, consistent: bool) -> HashMap<String, KeysAndAttributes> {
        let of_table = |(table, wanted): (&Arc<str>, &Wanted)| {
            let key =
                |id: &String| Item::from([(ENTITY_ID.to_owned(), AttributeValue::S(id.clone()))]);
            let keys = KeysAndAttributes::builder()
                .set_keys(Some(wanted.keys().map(key).collect()))
                .consistent_read(consistent)
                .build()
                .expect("its only required part are the keys");
            (table.to_string(), keys)
        };
        self.tables.iter().map(of_table).collect()
    }

    /// Takes what an answer decides. What is left has to be asked for again.
    pub(super) fn absorb(&mut self, answer: BatchGetItemOutput) -> Absorbed {
        let mut absorbed = Absorbed::default();
        let Some(mut responses) = answer.responses else {
            let error = StoreError::Corrupt(Arc::new(Fault::NoResponses));
            absorbed.outcomes = self.fail(&error);
            return absorbed;
        };
        let mut unprocessed = answer.unprocessed_keys.unwrap_or_default();
        let tables = std::mem::take(&mut self.tables);
        for (table, mut wanted) in tables {
            let items = responses.remove(&*table).unwrap_or_default();
            let fits = absorbed.take_items(&mut wanted, items);
            let keys = unprocessed.remove(&*table).map(|keys| keys.keys).unwrap_or_default();
            match leave_unprocessed(&mut wanted, &keys) {
                // Only an answer that is understood to the end says what there is not.
                (left, true) if fits => {
                    absorbed.settle(wanted, &Ok(None));
                    if !left.is_empty() {
                        self.tables.insert(table, left);
                    }
                }
                (left, _) => {
                    let fault = Fault::Unfitting(table);
                    let error = Err(StoreError::Corrupt(Arc::new(fault)));
                    absorbed.settle(wanted, &error);
                    absorbed.settle(left, &error);
                }
            }
        }
        absorbed
    }

    /// The same error for all that is still wanted.
    pub(super) fn fail(&mut self, error: &StoreError) -> Vec<Outcome> {
        let mut absorbed = Absorbed::default();
        for (_, wanted) in std::mem::take(&mut self.tables) {
            absorbed.settle(wanted, &Err(error.clone()));
        }
        absorbed.outcomes
    }
}

impl Absorbed {
    fn settle(&mut self, wanted: Wanted, outcome: &Result<MaybeRow, StoreError>) {
        let places = wanted.into_values().flatten();
        self.outcomes.extend(places.map(|place| (place, outcome.clone())));
    }

    /// Makes rows of items. Whether each of them was wanted.
    fn take_items(&mut self, wanted: &mut Wanted, items: Vec<Item>) -> bool {
        let mut fits = true;
        for item in items {
            self.bytes += size_of(&item);
            let id = item.get(ENTITY_ID).and_then(|id| id.as_s().ok());
            match id.and_then(|id| wanted.remove(id)) {
                Some(places) => self.outcomes.extend(places.into_iter().map(|place| {
                    let row = decode(&place.layout, &item).map(Some);
                    (place, row)
                })),
                None => fits = false,
            }
        }
        fits
    }
}

/// Moves what is unprocessed out of `wanted`. Whether all of `keys` was wanted.
fn leave_unprocessed(wanted: &mut Wanted, keys: &[Item]) -> (Wanted, bool) {
    let (mut left, mut fits) = (Wanted::default(), true);
    for key in keys {
        let id = key.get(ENTITY_ID).and_then(|id| id.as_s().ok());
        match id.and_then(|id| wanted.remove_entry(id)) {
            Some((id, places)) => {
                if let Entry::Vacant(entry) = left.entry(id) {
                    entry.insert(places);
                }
            }
            None => fits = false,
        }
    }
    (left, fits)
}

fn decode(layout: &DynamoDbView, item: &Item) -> Result<FeatureRow, StoreError> {
    let values = match item.get(VALUES) {
        None => Values::Missing,
        Some(AttributeValue::M(values)) => {
            Values::Map(|name: &str| values.get(name).map(attribute))
        }
        Some(other) => Values::Other(type_name(other)),
    };
    let row = layout.decode(item.get(EVENT_TS).map(attribute), values);
    row.map_err(|error| StoreError::Corrupt(Arc::new(error)))
}

fn attribute(value: &AttributeValue) -> Attribute<'_> {
    match value {
        AttributeValue::B(bytes) => Attribute::Bytes(bytes.as_ref()),
        AttributeValue::S(text) => Attribute::Text(text),
        other => Attribute::Other(type_name(other)),
    }
}

fn type_name(value: &AttributeValue) -> &'static str {
    match value {
        AttributeValue::B(_) => "B",
        AttributeValue::Bool(_) => "BOOL",
        AttributeValue::Bs(_) => "BS",
        AttributeValue::L(_) => "L",
        AttributeValue::M(_) => "M",
        AttributeValue::N(_) => "N",
        AttributeValue::Ns(_) => "NS",
        AttributeValue::Null(_) => "NULL",
        AttributeValue::S(_) => "S",
        AttributeValue::Ss(_) => "SS",
        _ => "a type that is unknown here",
    }
}

/// The bytes of an item, without what its form adds.
fn size_of(item: &Item) -> usize {
    let value = |value: &AttributeValue| match value {
        AttributeValue::B(bytes) => bytes.as_ref().len(),
        AttributeValue::M(values) => size_of(values),
        AttributeValue::S(text) => text.len(),
        _ => 1,
    };
    item.iter().map(|(name, stored)| name.len() + value(stored)).sum()
}
