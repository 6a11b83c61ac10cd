//! All that the store holds at a moment, in the order of revisions: what a snapshot is made of, and a hash.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::shared::{Item, Pin, Shared};
use super::writer::Mark;
use crate::{Error, KeyRange, KeyValue, LeaseId};

/// Values read in one go.
const BATCH: usize = 512;

/// A moment, held readable as long as this lives.
pub struct Export {
    pub revision: i64,
    pub compacted: i64,
    /// Number, full time, and what is left of it if that is less.
    pub leases: Vec<(LeaseId, Duration, Option<Duration>)>,
    shared: Arc<Shared>,
    _pin: Pin,
    /// In order of revisions, and of keys within one.
    items: Vec<Item>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub revision: i64,
    /// Which of the revision's changes it is.
    pub sub: i64,
    /// A deletion has only its key.
    pub kv: KeyValue,
    pub deleted: bool,
}

impl Export {
    /// Waits for other holders of the index, not for the disk.
    pub(crate) fn new(shared: Arc<Shared>, mark: &Mark) -> Result<Self, Error> {
        let revision = mark.pin.revision;
        // From the mark on all that happened is kept while it is pinned; the mark may have been raised meanwhile.
        let (pin, compacted) = loop {
            let compacted = shared.compacted();
            match shared.pin_for(compacted.max(1)) {
                Ok(pin) => break (pin, compacted),
                Err(Error::Compacted { .. }) => {}
                Err(error) => return Err(error),
            }
        };
        let mut items: Vec<Item> = Vec::new();
        shared.chunks(&KeyRange::all(), |key, chain| {
            let held = chain.at(compacted).filter(|held| held.mod_revision < compacted && !held.is_tombstone());
            let later = chain.versions().filter(|later| (compacted..=revision).contains(&later.mod_revision));
            items.extend(held.into_iter().chain(later).map(|version| (key.clone(), *version)));
        });
        // Stable, and keys came in order.
        items.sort_by_key(|(_, version)| version.mod_revision);
        Ok(Self { revision, compacted, leases: mark.leases.clone(), shared, _pin: pin, items })
    }

    /// All changes in order, without their values: key, revision, whether it is a deletion.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (&Bytes, i64, bool)> {
        self.items.iter().map(|(key, version)| (key, version.mod_revision, version.is_tombstone()))
    }

    /// Visits all changes in order. Waits for the disk.
    pub fn visit<E: From<Error>>(&self, mut each: impl FnMut(Record) -> Result<(), E>) -> Result<(), E> {
        let (mut revision, mut sub) = (0, 0);
        for items in self.items.chunks(BATCH) {
            let puts: Vec<Item> = items.iter().filter(|(_, version)| !version.is_tombstone()).cloned().collect();
            let mut values = self.shared.values(puts)?.into_iter();
            for (key, version) in items {
                sub = if version.mod_revision == revision { sub + 1 } else { 0 };
                revision = version.mod_revision;
                let deleted = version.is_tombstone();
                let kv = if deleted { None } else { values.next() };
                let kv = kv.unwrap_or_else(|| super::recent::key_value(key.clone(), Bytes::new(), version));
                each(Record { revision, sub, kv, deleted })?;
            }
        }
        Ok(())
    }
}
