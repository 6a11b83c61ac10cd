//! Leases: what hangs on them and when they end.
//!
//! Deadlines are of the monotonic clock. A renewal is not written down; after a restart a lease has the time that was
//! last written for it, so a renewal writes when less than its full time had been written.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use crate::LeaseId;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) ttl: Duration,
    deadline: Duration,
    /// What the disk says it has left, if less than all.
    pub(crate) written: Option<Duration>,
    pub(crate) keys: BTreeSet<Bytes>,
}

impl Lease {
    /// What it has left.
    pub(crate) fn left(&self, now: Duration) -> Duration {
        self.deadline.saturating_sub(now)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Leases {
    map: BTreeMap<LeaseId, Lease>,
    deadlines: BTreeSet<(Duration, LeaseId)>,
}

impl Leases {
    pub(crate) fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.map.get(&id)
    }

    pub(crate) fn contains(&self, id: LeaseId) -> bool {
        self.map.contains_key(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (LeaseId, &Lease)> {
        self.map.iter().map(|(id, lease)| (*id, lease))
    }

    /// Adds a lease that ends `written` (or its full time) from `now`.
    pub(crate) fn insert(&mut self, id: LeaseId, ttl: Duration, written: Option<Duration>, now: Duration) {
        let deadline = now.saturating_add(written.unwrap_or(ttl));
        self.put_back(id, Lease { ttl, deadline, written, keys: BTreeSet::new() });
    }

    /// Adds a lease as it was before [`Leases::remove`].
    pub(crate) fn put_back(&mut self, id: LeaseId, lease: Lease) {
        self.deadlines.insert((lease.deadline, id));
        self.map.insert(id, lease);
    }

    pub(crate) fn remove(&mut self, id: LeaseId) -> Option<Lease> {
        let lease = self.map.remove(&id)?;
        self.deadlines.remove(&(lease.deadline, id));
        Some(lease)
    }

    /// Gives a lease its full time from `now`.
    pub(crate) fn renew(&mut self, id: LeaseId, now: Duration) {
        if let Some(mut lease) = self.remove(id) {
            lease.deadline = now.saturating_add(lease.ttl);
            self.put_back(id, lease);
        }
    }

    /// Notes what the disk says a lease has left.
    pub(crate) fn set_written(&mut self, id: LeaseId, written: Option<Duration>) {
        if let Some(lease) = self.map.get_mut(&id) {
            lease.written = written;
        }
    }

    pub(crate) fn attach(&mut self, id: LeaseId, key: &Bytes) {
        if let Some(lease) = self.map.get_mut(&id) {
            lease.keys.insert(key.clone());
        }
    }

    pub(crate) fn detach(&mut self, id: LeaseId, key: &[u8]) {
        if let Some(lease) = self.map.get_mut(&id) {
            lease.keys.remove(key);
        }
    }

    /// When the next one ends.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Those whose time is over.
    pub(crate) fn expired(&self, now: Duration) -> Vec<LeaseId> {
        self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now).map(|(_, id)| *id).collect()
    }

    /// Long leases that have lost more than `step` since what is written: what to write for them.
    ///
    /// A short lease is renewed all the time and has its full time after a restart.
    pub(crate) fn to_write(&self, now: Duration, step: Duration) -> Vec<(LeaseId, Duration)> {
        let due = |(id, lease): (&LeaseId, &Lease)| {
            let left = lease.deadline.saturating_sub(now);
            let written = lease.written.unwrap_or(lease.ttl);
            (lease.ttl > step * 2 && written.saturating_sub(left) >= step).then_some((*id, left))
        };
        self.map.iter().filter_map(due).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn a_renewed_lease_ends_a_full_time_later() {
        let mut leases = Leases::default();
        leases.insert(7, S(10), None, S(100));
        assert!(leases.expired(S(109)).is_empty());
        leases.renew(7, S(109));
        assert!(leases.expired(S(110)).is_empty());
        assert_eq!(leases.next_deadline(), Some(S(119)));
        assert_eq!(leases.expired(S(119)), [7]);
    }

    #[test]
    fn only_long_leases_are_written_and_only_when_much_has_passed() {
        let mut leases = Leases::default();
        leases.insert(1, S(3600), None, S(0));
        leases.insert(2, S(40), None, S(0));
        assert!(leases.to_write(S(200), S(300)).is_empty());
        assert_eq!(leases.to_write(S(400), S(300)), [(1, S(3200))]);
        leases.set_written(1, Some(S(3200)));
        assert!(leases.to_write(S(500), S(300)).is_empty());
    }
}
