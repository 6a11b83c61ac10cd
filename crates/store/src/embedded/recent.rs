//! The latest changes with their values, so that following the present never reads the disk.

use std::collections::VecDeque;

use bytes::Bytes;

use super::index::Version;
use crate::{Event, KeyValue};

/// One key changed by one revision.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) key: Bytes,
    /// Empty for a deletion.
    pub(crate) value: Bytes,
    pub(crate) version: Version,
}

impl Change {
    pub(crate) fn event(&self) -> Event {
        if self.version.is_tombstone() {
            Event::Delete { key: self.key.clone(), revision: self.version.mod_revision, previous: None }
        } else {
            Event::Put { kv: key_value(self.key.clone(), self.value.clone(), &self.version), previous: None }
        }
    }

    fn weight(&self) -> usize {
        self.key.len() + self.value.len() + size_of::<Self>()
    }
}

pub(crate) fn key_value(key: Bytes, value: Bytes, version: &Version) -> KeyValue {
    KeyValue {
        key,
        value,
        create_revision: version.create_revision,
        mod_revision: version.mod_revision,
        version: version.version as i64,
        lease: version.lease,
    }
}

/// Whole revisions, newest last, within a bound of bytes.
#[derive(Debug)]
pub(crate) struct Recent {
    changes: VecDeque<Change>,
    bytes: usize,
    limit: usize,
    /// Every change after this revision is here.
    after: i64,
}

impl Recent {
    /// Starts empty at a revision.
    pub(crate) fn new(revision: i64, limit: usize) -> Self {
        Self { changes: VecDeque::new(), bytes: 0, limit, after: revision }
    }

    /// Adds changes in revision order and drops the oldest above the bound.
    pub(crate) fn extend(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            self.bytes += change.weight();
            self.changes.push_back(change);
        }
        while self.bytes > self.limit
            && let Some(dropped) = self.changes.pop_front()
        {
            self.bytes -= dropped.weight();
            self.after = dropped.version.mod_revision;
        }
        // A revision is here as a whole or not at all.
        while let Some(first) = self.changes.front()
            && first.version.mod_revision <= self.after
        {
            self.bytes -= first.weight();
            self.changes.pop_front();
        }
    }

    /// The value that a revision gave a key.
    pub(crate) fn value(&self, key: &[u8], revision: i64) -> Option<Bytes> {
        let first = self.changes.partition_point(|change| change.version.mod_revision < revision);
        self.changes
            .range(first..)
            .take_while(|change| change.version.mod_revision == revision)
            .find(|change| change.key == key)
            .map(|change| change.value.clone())
    }

    /// Changes from a revision on, if all of them are here.
    pub(crate) fn since(&self, revision: i64) -> Option<impl Iterator<Item = &Change>> {
        if revision <= self.after {
            return None;
        }
        let first = self.changes.partition_point(|change| change.version.mod_revision < revision);
        Some(self.changes.range(first..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::index::Location;

    fn change(revision: i64, key: &str, size: usize) -> Change {
        let location = Location { segment: 1, offset: 0, len: 0 };
        let version = Version { mod_revision: revision, create_revision: 1, version: 1, lease: 0, location };
        Change { key: Bytes::copy_from_slice(key.as_bytes()), value: vec![0; size].into(), version }
    }

    #[test]
    fn whole_revisions_are_dropped_when_the_bound_is_passed() {
        let mut recent = Recent::new(1, 3000);
        recent.extend([change(2, "a", 900), change(2, "b", 900), change(3, "a", 10)]);
        assert_eq!(recent.after, 1);
        recent.extend([change(4, "c", 1500)]);
        assert_eq!(recent.after, 2, "both changes of revision 2 went");
        assert!(recent.since(2).is_none());
        assert_eq!(recent.since(3).map(Iterator::count), Some(2));
        assert_eq!(recent.value(b"a", 3).map(|value| value.len()), Some(10));
        assert_eq!(recent.value(b"b", 2), None);
    }
}
