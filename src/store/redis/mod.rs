//! Redis, and what speaks it: all views of an entity in one HMGET, a whole read in one pipeline.
//!
//! This file sends what the layout says and puts replies back into the order of the read.
//! `link` keeps the connections. Writes nothing.

mod error;
mod health;
mod link;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use foldhash::fast::RandomState;
use quick_cache::sync::Cache;
use redis::{Cmd, Pipeline, Value};
use tokio::time::{Instant, timeout_at};

use self::{
    error::Fault,
    link::{Link, Live, State},
};
use super::{OnlineStore, ReadOptions, RedisSettings, Rows, StoreError, ViewKeys, fail_all};
use crate::{
    layout::redis::{RedisView, hash_key},
    model::{EntityKey, FeatureView, MaybeRow, ViewId},
};

/// A single Redis server.
///
/// Connects in the background from the first read or probe on, and again whenever a connection
/// breaks. A read without a connection fails at once, except that it waits for the first one.
pub struct RedisStore {
    links: [Link; CONNECTIONS],
    next: AtomicUsize,
    views: Cache<ViewId, Arc<RedisView>>,
}

/// One socket is one queue: with two, a large reply does not delay all others.
const CONNECTIONS: usize = 2;
/// How many views' fields are kept; those of others are hashed again.
const MAX_VIEWS: usize = 4096;
/// How long a probe waits for a connection and its answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

impl RedisStore {
    /// A store that is not connected yet. Neither waits nor fails.
    pub fn new(settings: RedisSettings) -> Self {
        let settings = Arc::new(settings);
        Self {
            links: std::array::from_fn(|_| Link::new(settings.clone())),
            next: AtomicUsize::new(0),
            views: Cache::new(MAX_VIEWS),
        }
    }

    /// A connection that works, as far as is known; the first one is waited for until `until`.
    async fn connection(&self, until: Instant) -> Result<Live, StoreError> {
        let first = self.next.fetch_add(1, Ordering::Relaxed) % CONNECTIONS;
        let links = [&self.links[first], &self.links[(first + 1) % CONNECTIONS]];
        let mut failed = None;
        for link in links {
            match link.state() {
                State::Up(live) => return Ok(live),
                State::Starting => {}
                State::Down(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) => Err(error),
            None => match timeout_at(until, links[0].settled()).await {
                Ok(settled) => settled,
                Err(_) => Err(links[0].never_connected()),
            },
        }
    }

    fn view(&self, view: &FeatureView) -> Arc<RedisView> {
        let layout = || Ok::<_, std::convert::Infallible>(Arc::new(RedisView::new(view)));
        let Ok(layout) = self.views.get_or_insert_with(&view.id, layout);
        layout
    }

    /// Asks again for connections that are down, and waits for the outcome of one.
    async fn reconnect(&self, until: Instant) -> Result<Live, StoreError> {
        self.links.iter().for_each(Link::hurry);
        match timeout_at(until, self.links[0].outcome()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.links[0].never_connected()),
        }
    }
}

#[async_trait]
impl OnlineStore for RedisStore {
    async fn read(&self, reads: &[ViewKeys<'_>], options: ReadOptions) -> Rows {
        let live = match self.connection(options.give_up_at).await {
            Ok(live) => live,
            Err(error) => return fail_all(reads, &error),
        };
        let views: Vec<_> = reads.iter().map(|read| self.view(read.view)).collect();
        let plan = Plan::new(reads, &views);
        if plan.hashes.is_empty() {
            return reads.iter().map(|_| Vec::new()).collect();
        }
        match live.send(&plan.pipeline(), options.give_up_at).await {
            Ok(replies) => plan.rows(&replies),
            Err(error) => fail_all(reads, &error),
        }
    }

    async fn probe(&self) -> Result<(), StoreError> {
        let until = Instant::now() + PROBE_TIMEOUT;
        let up = self.links.iter().find_map(|link| match link.state() {
            State::Up(live) => Some(live),
            _ => None,
        });
        let live = match up {
            Some(live) => live,
            None => self.reconnect(until).await?,
        };
        live.ping(until).await
    }
}

/// Which hashes are read, and for whom.
struct Plan<'a> {
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

impl<'a> Plan<'a> {
    fn new(reads: &[ViewKeys<'a>], views: &'a [Arc<RedisView>]) -> Self {
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

    fn pipeline(&self) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(self.hashes.len());
        for hash in &self.hashes {
            let mut hmget = Cmd::with_capacity(2 + hash.fields, hash.key.len() + 6 * hash.fields);
            hmget.arg("HMGET").arg(&hash.key[..]);
            for view in &hash.views {
                self.views[*view].fields().for_each(|field| {
                    hmget.arg(field);
                });
            }
            pipeline.add_command(hmget);
        }
        pipeline
    }

    fn rows(&self, replies: &[Value]) -> Rows {
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
    fn of(reply: &'a Value) -> Self {
        let fields = match reply {
            Value::Array(fields) => fields.iter().map(|field| match field {
                Value::Nil => Some(None),
                Value::BulkString(bytes) => Some(Some(&bytes[..])),
                _ => None,
            }),
            Value::ServerError(error) => return Self::Failed(error::of_server(error)),
            _ => return Self::Failed(Fault::Protocol("no array for an HMGET").corrupt()),
        };
        match fields.collect() {
            Some(fields) => Self::Fields(fields),
            None => Self::Failed(Fault::Protocol("a field that is no string").corrupt()),
        }
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
