//! Turns the rows that were read into the columns that were asked for. Pure.

use std::sync::Arc;

use super::{
    plan::{EntityColumn, EntitySet, Plan},
    request::Dialect,
    settings::{StatusCompat, TtlOnRead},
    shape::{FeatureColumn, ShapeRead},
};
use crate::{
    model::{Cell, EventTimestamp, FeatureRow, FieldStatus, StoreId},
    store::StoreError,
};

/// What is known of one row in the end.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// The row.
    Row {
        row: FeatureRow,
        /// Milliseconds since its store was asked.
        age: u64,
        source: StoreId,
        /// Why it is past its TTL.
        stale: Option<StaleWhy>,
    },
    /// There is none.
    NoRow { age: u64, source: StoreId, stale: Option<StaleWhy> },
    /// It cannot be had.
    Unavailable(Missing),
}

/// Why a row is served past its TTL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StaleWhy {
    /// `stale_while_revalidate` allows it.
    Revalidate,
    /// The store took longer than `stale_after`.
    Slow,
    /// The store failed: [`StoreError::kind`].
    Store(&'static str),
}

/// Why a row cannot be had.
#[derive(Clone, Debug)]
pub(super) enum Missing {
    /// The store failed.
    Store(StoreError),
    /// The caller stopped waiting.
    Deadline,
}

/// The answer to a request: columns of values with their statuses.
#[derive(Debug)]
pub struct Answers {
    pub(super) plan: Plan,
    /// For each read of the shape, the rows of its entities.
    pub(super) rows: Vec<Vec<Answer>>,
    pub(super) dialect: Dialect,
    pub(super) unix_seconds: i64,
    pub(super) stores: Arc<[StoreFacts]>,
}

/// What an answer tells of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFacts {
    /// What it is called.
    pub name: Arc<str>,
    /// Whether Feast's Python server says PRESENT for what this kind of store does not have.
    pub python_finds_everything: bool,
}

/// One column of an answer.
#[derive(Clone, Copy, Debug)]
pub enum AnswerColumn<'a> {
    /// An entity column, given back.
    Entity(EntityAnswer<'a>),
    /// A feature.
    Feature(FeatureAnswer<'a>),
}

/// An entity column, given back in the type of its join key.
#[derive(Clone, Copy, Debug)]
pub struct EntityAnswer<'a>(&'a EntityColumn);

/// The values of a feature.
#[derive(Clone, Copy, Debug)]
pub struct FeatureAnswer<'a> {
    answers: &'a Answers,
    column: &'a FeatureColumn,
}

/// One value of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// A serialized `feast.types.Value`; empty for null.
    pub value: &'a [u8],
    /// What it is.
    pub status: FieldStatus,
    /// When it became true, as a serialized `google.protobuf.Timestamp`; empty for the epoch.
    pub encoded_timestamp: &'a [u8],
    /// The same as numbers.
    pub event_timestamp: EventTimestamp,
}

/// What an answer says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Milliseconds since the store was asked for the oldest row.
    pub age_millis: u64,
    /// Rows past their TTL.
    pub stale_rows: usize,
    /// Views, by the names in the request, of which a row could not be had.
    pub unavailable_views: Vec<Arc<str>>,
    /// The stores that rows came from, now or earlier.
    pub stores: Vec<Arc<str>>,
}

impl Answers {
    /// How many rows it has.
    pub fn rows(&self) -> usize {
        self.plan.rows
    }

    /// The columns: first the entities', in the order of the request, then the features'.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = AnswerColumn<'_>> {
        let entities = &self.plan.entities;
        let features = &self.plan.shape.columns;
        (0..entities.len() + features.len()).map(move |place| match entities.get(place) {
            Some(column) => AnswerColumn::Entity(EntityAnswer(column)),
            None => AnswerColumn::Feature(FeatureAnswer {
                answers: self,
                column: &features[place - entities.len()],
            }),
        })
    }

    /// The views that were read, by the names in the request, with their version in force; 0 for
    /// none.
    pub fn views(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, u32)> {
        self.plan.shape.reads.iter().map(|read| (&read.name, read.version))
    }

    /// How many features were asked for.
    pub fn features(&self) -> usize {
        self.plan.shape.columns.len()
    }

    /// What it says about itself.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        for (read, rows) in self.plan.shape.reads.iter().zip(&self.rows) {
            let mut unavailable = false;
            for answer in rows {
                match answer {
                    Answer::Row { age, source, stale, .. }
                    | Answer::NoRow { age, source, stale } => {
                        summary.age_millis = summary.age_millis.max(*age);
                        summary.stale_rows += usize::from(stale.is_some());
                        let store = &self.stores[usize::from(source.0)].name;
                        if !summary.stores.contains(store) {
                            summary.stores.push(Arc::clone(store));
                        }
                    }
                    Answer::Unavailable(_) => unavailable = true,
                }
            }
            if unavailable {
                summary.unavailable_views.push(Arc::clone(&read.name));
            }
        }
        summary
    }
}

impl<'a> AnswerColumn<'a> {
    /// Its name.
    pub fn name(&self) -> &'a str {
        match self {
            Self::Entity(EntityAnswer(column)) => &column.name,
            Self::Feature(feature) => &feature.column.name,
        }
    }
}

impl<'a> EntityAnswer<'a> {
    /// The value of a row. Feast gives entity values no time.
    pub fn field(&self, row: usize) -> Field<'a> {
        Field {
            value: self.0.value(row),
            status: FieldStatus::Present,
            encoded_timestamp: &[],
            event_timestamp: EventTimestamp::default(),
        }
    }
}

impl<'a> FeatureAnswer<'a> {
    /// The view it comes from, by its name in the registry.
    pub fn view(&self) -> &'a Arc<str> {
        &self.read().view.name
    }

    /// The value of a row.
    pub fn field(&self, row: usize) -> Field<'a> {
        let answers = self.answers;
        let set: &EntitySet = &answers.plan.entity_sets[self.read().key_set];
        let Some(entity) = set.row_to_entity[row] else {
            // A null is no entity.
            return without_row(FieldStatus::NotFound);
        };
        match &answers.rows[self.column.read][entity as usize] {
            Answer::Row { row, source, .. } => self.cell(row, *source),
            Answer::NoRow { source, .. } => without_row(self.absent(*source)),
            Answer::Unavailable(_) => without_row(FieldStatus::Invalid),
        }
    }

    fn cell(&self, row: &'a FeatureRow, source: StoreId) -> Field<'a> {
        let Dialect { ttl_on_read, status: compat, .. } = self.answers.dialect;
        let event_timestamp = row.event_timestamp();
        let (value, status): (&[u8], _) = match row.cell(self.column.feature) {
            Cell::Absent => (&[], self.absent(source)),
            Cell::Null if compat == StatusCompat::Proto => (&[], FieldStatus::NullValue),
            Cell::Null => (&[], FieldStatus::Present),
            Cell::Value(value) => (value, FieldStatus::Present),
        };
        let outside = ttl_on_read != TtlOnRead::Off
            && status != FieldStatus::NotFound
            && self
                .read()
                .view
                .is_outside_max_age(event_timestamp.seconds, self.answers.unix_seconds);
        let (value, status) = match (outside, ttl_on_read) {
            (false, _) => (value, status),
            (true, TtlOnRead::Null) => (&[][..], FieldStatus::OutsideMaxAge),
            (true, _) => (value, FieldStatus::OutsideMaxAge),
        };
        Field { value, status, encoded_timestamp: row.encoded_timestamp(), event_timestamp }
    }

    /// The status of what a store does not have.
    fn absent(&self, source: StoreId) -> FieldStatus {
        let store = &self.answers.stores[usize::from(source.0)];
        match self.answers.dialect.status {
            StatusCompat::Python if store.python_finds_everything => FieldStatus::Present,
            _ => FieldStatus::NotFound,
        }
    }

    fn read(&self) -> &'a ShapeRead {
        &self.answers.plan.shape.reads[self.column.read]
    }
}

/// A null that no row stands behind.
fn without_row(status: FieldStatus) -> Field<'static> {
    Field { value: &[], status, encoded_timestamp: &[], event_timestamp: EventTimestamp::default() }
}
