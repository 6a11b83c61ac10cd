//! What is counted of a storage, for `/metrics`.

use crate::measure::{Family, Histogram};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const SIZES: &[f64] = &[1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0, 131072.0];
const WATCH_LISTS: &[f64] = &[0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0];

/// Upstream's buckets of how long a cache is waited for.
const READ_WAITS: &[f64] = &[0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0];

/// The counts.
#[derive(Debug)]
pub struct Counts {
    /// Events sent to watchers, and those of the beginning among them.
    pub events: AtomicU64,
    pub initial: AtomicU64,
    /// How large they were, in bytes.
    pub sizes: Histogram,
    /// How long it took until a watcher who asked for all there is had it, by scope.
    pub watch_lists: Family<&'static str, Histogram>,
    /// Versions that came from the store, and changes that were told.
    pub received: AtomicU64,
    pub dispatched: AtomicU64,
    /// How often everything was loaded.
    pub loads: AtomicU64,
    /// Watchers that were too slow.
    pub slow: AtomicU64,
    /// Lists, the objects that were looked at for them, and those that were in them.
    pub lists: AtomicU64,
    pub looked_at: AtomicU64,
    pub listed: AtomicU64,
    /// How long reads waited until the cache was as new as they want it.
    pub read_waits: Histogram,
    /// Lists that were to be as new as the store: those that could not be, and those that were.
    pub consistent: [AtomicU64; 2],
    /// Stored objects that could not be read.
    pub unreadable: AtomicU64,
}

impl Default for Counts {
    fn default() -> Self {
        let [events, initial, received, dispatched, loads, slow, lists, looked_at, listed, unreadable] =
            Default::default();
        Counts {
            events,
            initial,
            sizes: Self::no_sizes(),
            watch_lists: Family::default(),
            received,
            dispatched,
            loads,
            slow,
            lists,
            looked_at,
            listed,
            read_waits: Histogram::of_times(READ_WAITS),
            consistent: Default::default(),
            unreadable,
        }
    }
}

impl Counts {
    pub(super) fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Notes an event that was sent.
    pub fn sent(&self, size: usize, initial: bool) {
        Self::add(&self.events, 1);
        Self::add(&self.initial, usize::from(initial));
        self.sizes.observe(size as u64);
    }

    /// Nothing yet, to gather sizes of events in.
    pub fn no_sizes() -> Histogram {
        Histogram::of_counts(SIZES)
    }

    /// Notes events that were sent together, and their sizes.
    pub fn sent_together(&self, events: usize, sizes: &Histogram) {
        Self::add(&self.events, events);
        self.sizes.add(sizes);
    }

    /// Notes that a watcher has all there was.
    pub fn watch_listed(&self, scope: &'static str, took: Duration) {
        self.watch_lists.with(&scope, || Histogram::of_times(WATCH_LISTS), |histogram| histogram.took(took));
    }

    /// Notes that a stored object can't be read.
    pub fn unread(&self) {
        Self::add(&self.unreadable, 1);
    }

    /// Notes a list.
    pub fn list(&self, looked_at: usize, listed: usize) {
        Self::add(&self.lists, 1);
        Self::add(&self.looked_at, looked_at);
        Self::add(&self.listed, listed);
    }
}
