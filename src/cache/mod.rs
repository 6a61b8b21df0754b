//! Rows in memory: bounded by bytes, read without waiting.
//!
//! The cache stores and evicts; what an entry is good for is [`policy`]'s to say. It knows no time
//! and no store.

pub mod policy;
pub mod singleflight;

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use quick_cache::{
    DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter,
    sync::{Cache, EntryAction, EntryResult},
};

use self::policy::Entry;
use crate::model::{RowKey, RowKeyRef};

/// Rows and absences by key.
#[derive(Debug)]
pub struct FeatureCache {
    entries: Cache<RowKey, Entry, AllocatedBytes, DefaultHashBuilder, CountEvictions>,
    evictions: Arc<AtomicU64>,
}

/// What a cache holds at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheStats {
    /// Rows and absences.
    pub entries: u64,
    /// The bytes they take, keys and table slots included.
    pub bytes: u64,
    /// The bytes they may take.
    pub max_bytes: u64,
    /// Entries that made room for others, since the start.
    pub evictions: u64,
}

impl FeatureCache {
    /// A cache that keeps at most `max_bytes`.
    pub fn new(max_bytes: u64) -> Self {
        // A shard admits nothing larger than itself: below 4 MiB a shard, there are fewer of them.
        let shards = (max_bytes / (4 << 20)).clamp(1, 64) as usize;
        let options = OptionsBuilder::new()
            .weight_capacity(max_bytes)
            .estimated_items_capacity((max_bytes / 1024).clamp(16, 1 << 22) as usize)
            .shards(shards.next_power_of_two())
            .build()
            .expect("both capacities are given");
        let evictions = Arc::<AtomicU64>::default();
        let lifecycle = CountEvictions(Arc::clone(&evictions));
        let hash_builder = DefaultHashBuilder::default();
        let entries = Cache::with_options(options, AllocatedBytes, hash_builder, lifecycle);
        Self { entries, evictions }
    }

    /// The entry under `key`, of whatever age.
    pub fn get(&self, key: RowKeyRef<'_>) -> Option<Entry> {
        self.entries.get(&key)
    }

    /// Whether the entry under `key` was read before, besides the read that found it now.
    pub fn is_hot(&self, key: RowKeyRef<'_>) -> bool {
        self.entries.item_stats(&key).is_some_and(|stats| stats.access_count >= 2)
    }

    /// Puts an entry in place of an older one, never of one that was asked for later.
    ///
    /// Others may be evicted for it. Only a moment's lock is waited for.
    pub fn insert_newer(&self, key: RowKey, entry: Entry) {
        let mut entry = Some(entry);
        let result = self.entries.entry(&key, None, |_, current| {
            if let Some(entry) = entry.take_if(|entry| entry.asked_at >= current.asked_at) {
                *current = entry;
            }
            EntryAction::Retain(())
        });
        if let (EntryResult::Vacant(guard), Some(entry)) = (result, entry) {
            // Fails if the key was removed in between, which only an eviction does.
            let _ = guard.insert(entry);
        }
    }

    /// What it holds now.
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            entries: self.entries.len() as u64,
            bytes: self.entries.weight(),
            max_bytes: self.entries.capacity(),
            evictions: self.evictions.load(Ordering::Relaxed),
        }
    }
}

/// Charges an entry for what the allocator hands out for it, and for its slot in the table.
#[derive(Clone, Copy, Debug)]
struct AllocatedBytes;

impl Weighter<RowKey, Entry> for AllocatedBytes {
    fn weight(&self, key: &RowKey, entry: &Entry) -> u64 {
        // The table keeps a hash, links and a count beside key and entry, and is never quite full.
        const SLOT: usize = (mem::size_of::<RowKey>() + mem::size_of::<Entry>() + 40) * 4 / 3;
        // Two counts stand before the bytes of an `Arc`. A key that views share is charged to each.
        let row = entry.row.as_ref().map_or(0, |row| allocated(16 + row.size()));
        (SLOT + allocated(16 + key.entity.0.len()) + row) as u64
    }
}

/// The size class that an allocation falls into: four to a doubling, as jemalloc and mimalloc have.
fn allocated(bytes: usize) -> usize {
    if bytes <= 128 {
        bytes.next_multiple_of(16)
    } else {
        bytes.next_multiple_of(bytes.next_power_of_two() / 8)
    }
}

#[derive(Clone, Debug)]
struct CountEvictions(Arc<AtomicU64>);

impl Lifecycle<RowKey, Entry> for CountEvictions {
    type RequestState = ();

    fn on_evict(&self, _state: &mut (), _key: RowKey, _entry: Entry) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Cell, EventTimestamp, FeatureRow, StoreId, Tick, ViewId};

    fn key(entity: &[u8]) -> RowKeyRef<'_> {
        RowKeyRef { view: ViewId(1), entity }
    }

    fn entry(asked_at: i64, bytes: usize) -> Entry {
        let value = vec![7; bytes];
        let row = FeatureRow::new([Cell::Value(&value)].into_iter(), EventTimestamp::default());
        let row = Some(row);
        Entry { row, asked_at: Tick(asked_at), source: StoreId(0) }
    }

    #[test]
    fn an_older_answer_never_replaces_a_newer_one() {
        let cache = FeatureCache::new(1 << 20);
        for (asked_at, expected) in [(5, 5), (3, 5), (6, 6)] {
            cache.insert_newer(key(b"a").to_owned(), entry(asked_at, 10));
            assert_eq!(cache.get(key(b"a")).unwrap().asked_at, Tick(expected));
        }
        assert!(cache.get(key(b"b")).is_none());
    }

    #[test]
    fn the_bound_holds_and_what_makes_room_is_counted() {
        let cache = FeatureCache::new(1 << 20);
        for number in 0..5_000_u32 {
            cache.insert_newer(key(&number.to_le_bytes()).to_owned(), entry(0, 1_000));
            assert!(cache.stats().bytes <= 1 << 20);
        }
        let stats = cache.stats();
        assert!(stats.entries > 500 && stats.evictions > 3_000, "{stats:?}");
        assert_eq!(stats.entries + stats.evictions, 5_000);
    }

    #[test]
    fn a_row_is_hot_from_its_second_read_on() {
        let cache = FeatureCache::new(1 << 20);
        cache.insert_newer(key(b"a").to_owned(), entry(0, 10));
        cache.get(key(b"a"));
        assert!(!cache.is_hot(key(b"a")));
        cache.get(key(b"a"));
        assert!(cache.is_hot(key(b"a")));
    }

    #[test]
    fn allocations_are_charged_by_size_class() {
        for (bytes, class) in [(0, 0), (1, 16), (128, 128), (129, 160), (513, 640), (1024, 1024)] {
            assert_eq!(allocated(bytes), class, "{bytes}");
        }
    }
}
