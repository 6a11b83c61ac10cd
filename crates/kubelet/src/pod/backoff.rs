//! Back-off that doubles: 10 s, 20 s, … 300 s, forgotten after twice the longest wait in peace.
//!
//! These are upstream's times, which users see (`CrashLoopBackOff`), exactly and for many keys. What merely tries again uses
//! [`client::backoff`].

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;

/// How fast and how far the waits grow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) first: Duration,
    pub(crate) most: Duration,
}

/// Restarts of containers and pulls of images.
pub(crate) const RESTARTS: Bounds = Bounds { first: Duration::from_secs(10), most: Duration::from_secs(300) };

/// Mounts of volumes.
pub(crate) const MOUNTS: Bounds = Bounds { first: Duration::from_millis(500), most: Duration::from_secs(122) };

#[derive(Clone, Copy, Debug)]
struct Entry {
    wait: Duration,
    updated: Timestamp,
}

/// Back-offs by key.
#[derive(Clone, Debug)]
pub(crate) struct BackOff {
    bounds: Bounds,
    entries: HashMap<String, Entry>,
}

impl BackOff {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, entries: HashMap::new() }
    }

    fn entry(&self, key: &str, event: Timestamp) -> Option<Entry> {
        let entry = *self.entries.get(key)?;
        let peace = event.duration_since(entry.updated);
        let forgotten = peace > jiff::SignedDuration::try_from(self.bounds.most * 2).ok()?;
        (!forgotten).then_some(entry)
    }

    /// The present wait of `key`; zero for an unknown one.
    pub(crate) fn wait(&self, key: &str) -> Duration {
        self.entries.get(key).map_or(Duration::ZERO, |entry| entry.wait)
    }

    /// Until when `key` waits, if it still does: its wait counted from `event`.
    pub(crate) fn until(&self, key: &str, event: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let until = event + self.entry(key, event)?.wait;
        (now < until).then_some(until)
    }

    /// As [`BackOff::until`], counted from when the wait was last lengthened.
    pub(crate) fn until_since_update(&self, key: &str, now: Timestamp) -> Option<Timestamp> {
        let entry = self.entry(key, now)?;
        let until = entry.updated + entry.wait;
        (now < until).then_some(until)
    }

    /// Lengthens the wait of `key` after `event`.
    pub(crate) fn next(&mut self, key: &str, event: Timestamp, now: Timestamp) {
        let wait = match self.entry(key, event) {
            Some(entry) => (entry.wait * 2).min(self.bounds.most),
            None => self.bounds.first,
        };
        self.entries.insert(key.to_owned(), Entry { wait, updated: now });
    }

    pub(crate) fn forget(&mut self, key: &str) {
        self.entries.remove(key);
    }

    /// Forgets every key that begins so.
    pub(crate) fn forget_all(&mut self, prefix: &str) {
        self.entries.retain(|key, _| !key.starts_with(prefix));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_the_bound_and_are_forgotten() {
        let start = Timestamp::from_second(1_700_000_000).unwrap();
        let mut backoff = BackOff::new(RESTARTS);
        assert_eq!(backoff.until("c", start, start), None);
        let mut now = start;
        for expected in [10, 20, 40, 80, 160, 300, 300] {
            backoff.next("c", now, now);
            assert_eq!(backoff.wait("c").as_secs(), expected);
            let until = backoff.until("c", now, now).unwrap();
            assert_eq!(until, now + Duration::from_secs(expected));
            now = until;
            assert_eq!(backoff.until("c", now - Duration::from_secs(expected), now), None);
        }
        now += Duration::from_secs(601);
        backoff.next("c", now, now);
        assert_eq!(backoff.wait("c").as_secs(), 10);
    }
}
