//! Lets concurrent requests for one row share one read (request coalescing).
//!
//! Everyone who joins a flight gets a [`Waiter`]; the first also gets the [`Leader`], and has to do
//! the work. A leader never waits for a follower, so flights cannot wait for each other in a circle.

use std::{hash::BuildHasher, sync::Arc};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use parking_lot::Mutex;
use tokio::sync::SetOnce;

use crate::model::{RowKey, Tick};

/// The flights under way, by row.
#[derive(Debug)]
pub struct SingleFlight<V> {
    shards: Arc<[Shard<V>]>,
    hasher: RandomState,
}

type Shard<V> = Mutex<HashTable<Arc<Flight<V>>>>;

/// So many that two threads rarely want one at once.
const SHARDS: usize = 32;

/// Waits for the result of a flight.
#[derive(Debug)]
pub struct Waiter<V>(Arc<Flight<V>>);

/// Owes a flight its result. Dropped without one, it abandons the flight.
#[derive(Debug)]
pub struct Leader<V> {
    flight: Arc<Flight<V>>,
    shards: Arc<[Shard<V>]>,
}

#[derive(Debug)]
struct Flight<V> {
    key: RowKey,
    hash: u64,
    began: Tick,
    /// `None` if it was abandoned.
    result: SetOnce<Option<V>>,
}

impl<V: Clone> SingleFlight<V> {
    /// Joins a flight that began at `not_before` or later, or becomes the leader of a new one,
    /// which begins at `now`.
    ///
    /// A flight that began too early goes on for those who are on it.
    pub fn join(&self, key: RowKey, not_before: Tick, now: Tick) -> (Waiter<V>, Option<Leader<V>>) {
        let hash = self.hasher.hash_one(&key);
        let mut flights = shard(&self.shards, hash).lock();
        let known = flights.find_mut(hash, |flight| flight.key == key);
        if let Some(flight) = &known
            && flight.began >= not_before
        {
            return (Waiter(Arc::clone(flight)), None);
        }
        let flight = Arc::new(Flight { key, hash, began: now, result: SetOnce::new() });
        match known {
            Some(known) => *known = Arc::clone(&flight),
            None => {
                flights.insert_unique(hash, Arc::clone(&flight), |flight| flight.hash);
            }
        }
        drop(flights);
        let leader = Leader { flight: Arc::clone(&flight), shards: Arc::clone(&self.shards) };
        (Waiter(flight), Some(leader))
    }

    /// How many are under way.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn shard<V>(shards: &[Shard<V>], hash: u64) -> &Shard<V> {
    // The table within takes the lowest bits and the highest.
    &shards[(hash >> 32) as usize % SHARDS]
}

impl<V> Default for SingleFlight<V> {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, hasher: RandomState::default() }
    }
}

impl<V: Clone> Waiter<V> {
    /// The result, if it is there: `Some(None)` if the flight was abandoned.
    pub fn landed(&self) -> Option<Option<V>> {
        self.0.result.get().cloned()
    }

    /// Waits for the result; `None` if the flight was abandoned. May be dropped at any time.
    pub async fn wait(&self) -> Option<V> {
        self.0.result.wait().await.clone()
    }
}

impl<V> Leader<V> {
    /// The row to read.
    pub fn key(&self) -> &RowKey {
        &self.flight.key
    }

    /// When the flight began.
    pub fn began(&self) -> Tick {
        self.flight.began
    }

    /// Hands the result to everyone who waits. Whoever joins after this starts a new flight.
    pub fn complete(self, value: V) {
        // Only a leader sets it, and only once: this consumes it.
        let _ = self.flight.result.set(Some(value));
    }
}

impl<V> Drop for Leader<V> {
    fn drop(&mut self) {
        let mut flights = shard(&self.shards, self.flight.hash).lock();
        // A later flight for the row may have taken this one's place.
        let this = |flight: &Arc<Flight<V>>| Arc::ptr_eq(flight, &self.flight);
        if let Ok(flight) = flights.find_entry(self.flight.hash, this) {
            flight.remove();
        }
        drop(flights);
        let _ = self.flight.result.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EntityKey, ViewId};

    fn key() -> RowKey {
        RowKey { view: ViewId(1), entity: EntityKey(b"k".as_slice().into()) }
    }

    const ANY: Tick = Tick(i64::MIN);

    #[tokio::test]
    async fn only_the_first_leads_and_all_get_the_result() {
        let flights = SingleFlight::<u32>::default();
        let (first, leader) = flights.join(key(), ANY, Tick(0));
        let (second, none) = flights.join(key(), ANY, Tick(1));
        assert!(none.is_none());

        leader.unwrap().complete(7);

        assert_eq!(first.wait().await, Some(7));
        assert_eq!(second.wait().await, Some(7));
        assert!(flights.join(key(), ANY, Tick(2)).1.is_some());
    }

    #[tokio::test]
    async fn a_dropped_leader_abandons_its_flight() {
        let flights = SingleFlight::<u32>::default();
        let (waiter, leader) = flights.join(key(), ANY, Tick(0));
        drop(leader);
        assert_eq!(waiter.wait().await, None);
        assert!(flights.is_empty());
    }

    #[tokio::test]
    async fn a_flight_that_began_too_early_is_not_joined_and_ends_alone() {
        let flights = SingleFlight::<u32>::default();
        let (early_waiter, early) = flights.join(key(), ANY, Tick(1));
        let (late_waiter, late) = flights.join(key(), Tick(2), Tick(2));
        let late = late.expect("the flight began before");

        early.unwrap().complete(1);

        assert_eq!(early_waiter.wait().await, Some(1));
        let (third_waiter, none) = flights.join(key(), Tick(2), Tick(3));
        assert!(none.is_none(), "the end of the early flight ended the late one");
        late.complete(2);
        assert_eq!(late_waiter.wait().await, Some(2));
        assert_eq!(third_waiter.wait().await, Some(2));
    }
}
