//! Which hashes a read is about, and how replies become its rows. Pure.

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;
use redis::{Cmd, Pipeline, Value};

use super::{
    Rows, StoreError, ViewKeys,
    error::{self, Fault},
};
use crate::{
    layout::redis::{RedisView, hash_key},
    model::{EntityKey, MaybeRow},
};

/// Which hashes are read, and for whom.
pub(super) struct Plan<'a> {
    views: &'a [Arc<RedisView>],
    hashes: Vec<Hash>,
    /// For each view and key, the place of its hash and of its fields therein.
    places: Vec<Vec<Place>>,
}

struct Hash {
    key: Vec<u8>,
    /// The views that are read of it, as places in the read.
    views: Vec<usize>,
    fields: usize,
}

#[derive(Clone, Copy)]
struct Place {
    hash: usize,
    field: usize,
}

/// What became of one HMGET.
pub(super) type HashReply = Result<Value, StoreError>;

impl<'a> Plan<'a> {
    pub(super) fn new(reads: &[ViewKeys<'a>], views: &'a [Arc<RedisView>]) -> Self {
        let mut hashes: Vec<Hash> = Vec::new();
        let keys = reads.first().map_or(0, |read| read.keys.len());
        let mut known = HashMap::with_capacity_and_hasher(keys, RandomState::default());
        let mut places = Vec::with_capacity(reads.len());
        for (index, (read, view)) in reads.iter().zip(views).enumerate() {
            let place = |key: &'a EntityKey| {
                let hash = *known.entry((&*read.view.project, &*key.0)).or_insert_with(|| {
                    let key = hash_key(key, &read.view.project);
                    hashes.push(Hash { key, views: Vec::new(), fields: 0 });
                    hashes.len() - 1
                });
                let Hash { views, fields, .. } = &mut hashes[hash];
                let place = Place { hash, field: *fields };
                views.push(index);
                *fields += view.field_count();
                place
            };
            places.push(read.keys.iter().map(place).collect());
        }
        Self { views, hashes, places }
    }

    /// How many hashes are read.
    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }

    /// The key of a hash.
    pub(super) fn key(&self, hash: usize) -> &[u8] {
        &self.hashes[hash].key
    }

    /// The command that reads a hash.
    pub(super) fn hmget(&self, hash: usize) -> Cmd {
        let hash = &self.hashes[hash];
        let mut hmget = Cmd::with_capacity(2 + hash.fields, hash.key.len() + 6 * hash.fields);
        hmget.arg("HMGET").arg(&hash.key[..]);
        for view in &hash.views {
            self.views[*view].fields().for_each(|field| {
                hmget.arg(field);
            });
        }
        hmget
    }

    /// The commands that read these hashes, in one go.
    pub(super) fn pipeline(&self, hashes: impl ExactSizeIterator<Item = usize>) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(hashes.len());
        for hash in hashes {
            pipeline.add_command(self.hmget(hash));
        }
        pipeline
    }

    /// The rows of the read, of a reply for each hash.
    pub(super) fn rows(&self, replies: &[HashReply]) -> Rows {
        let replies: Vec<_> = replies.iter().map(Reply::of).collect();
        let view_rows = |(places, view): (&Vec<Place>, &Arc<RedisView>)| {
            let row = |place: &Place| match replies.get(place.hash) {
                Some(reply) => reply.row(view, place.field),
                None => Err(Fault::Protocol("a command without a reply").corrupt()),
            };
            places.iter().map(row).collect()
        };
        self.places.iter().zip(self.views).map(view_rows).collect()
    }
}

/// What came back of one hash.
enum Reply<'a> {
    Fields(Vec<Option<&'a [u8]>>),
    Failed(StoreError),
}

impl<'a> Reply<'a> {
    fn of(reply: &'a HashReply) -> Self {
        let values = match reply {
            Ok(Value::Array(values)) => values,
            Ok(Value::ServerError(error)) => return Self::Failed(error::of_server(error)),
            Ok(_) => return Self::Failed(Fault::Protocol("no array for an HMGET").corrupt()),
            Err(error) => return Self::Failed(error.clone()),
        };
        let mut fields = Vec::with_capacity(values.len());
        for value in values {
            fields.push(match value {
                Value::Nil => None,
                Value::BulkString(bytes) => Some(&bytes[..]),
                _ => return Self::Failed(Fault::Protocol("a field that is no string").corrupt()),
            });
        }
        Self::Fields(fields)
    }

    fn row(&self, view: &RedisView, start: usize) -> Result<MaybeRow, StoreError> {
        match self {
            Self::Failed(error) => Err(error.clone()),
            Self::Fields(fields) => {
                let fields = &fields[start.min(fields.len())..];
                let fields = &fields[..view.field_count().min(fields.len())];
                view.decode(fields).map_err(|error| StoreError::Corrupt(Arc::new(error)))
            }
        }
    }
}
