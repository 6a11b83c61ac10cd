//! History beyond the compaction mark.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::Bytes;

use super::shared::{Item, Shared};
use super::{Embedded, blocking};
use crate::{Error, History, Kept, KeyRange, Range, RangeResult, Version, Versions};

#[async_trait]
impl History for Embedded {
    async fn kept(&self) -> Result<Kept, Error> {
        let shared = &self.shared;
        let revision = if shared.options.undo.is_some() { shared.undo() } else { shared.compacted() }.max(1);
        let times = shared.times();
        let since = times.of(revision).or_else(|| times.oldest());
        Ok(Kept { revision, since, bytes: shared.undo_bytes.load(Ordering::Relaxed) })
    }

    async fn revision_at(&self, keys: &KeyRange, second: i64) -> Result<i64, Error> {
        if !self.shared.keeps_all(keys) {
            return Err(Error::TimeNotKept { asked: second, oldest: None });
        }
        let current = self.shared.visible();
        let times = self.shared.times();
        let found = times.revision_at(second, current).filter(|found| *found >= self.shared.undo());
        found.ok_or_else(|| Error::TimeNotKept { asked: second, oldest: times.oldest() })
    }

    async fn time_of(&self, revision: i64) -> Result<Option<i64>, Error> {
        Ok(self.shared.times().of(revision))
    }

    async fn range_at(&self, range: Range) -> Result<RangeResult, Error> {
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let pin = shared.pin_above(range.revision, || shared.reach(&range.keys))?;
            let found = shared.find(&range, pin.revision);
            let revision = if range.revision == 0 { pin.revision } else { shared.visible() };
            shared.complete(&range, found, revision)
        })
        .await
    }

    async fn versions(&self, key: Bytes, until: i64, limit: usize) -> Result<Versions, Error> {
        let shared = Arc::clone(&self.shared);
        blocking(move || versions(&shared, key, until, limit)).await
    }
}

fn versions(shared: &Arc<Shared>, key: Bytes, until: i64, limit: usize) -> Result<Versions, Error> {
    let keys = KeyRange::key(key);
    let reach = || shared.reach(&keys);
    let current = shared.visible();
    if until > current {
        return Err(Error::FutureRevision { asked: until, current });
    }
    let until = if until == 0 { current } else { until };
    // All from there on stays while it is pinned; the mark may be raised meanwhile.
    let (_pin, since) = loop {
        let since = reach().max(1);
        if until < since {
            return Err(Error::Compacted { asked: until, compacted: since });
        }
        match shared.pin_above(since, reach) {
            Ok(pin) => break (pin, since),
            Err(Error::Compacted { .. }) => {}
            Err(error) => return Err(error),
        }
    };
    let mut found: Vec<Item> = Vec::new();
    let mut more = false;
    if let Some((key, chain)) = shared.index().keys.get_key_value(&keys.start[..]) {
        for version in chain.versions().rev().filter(|version| version.mod_revision <= until) {
            // What is not dropped yet is as good as gone below the mark, but for what was there at the mark.
            let superseded = found.last().is_some_and(|(_, newer)| newer.mod_revision <= since);
            if superseded || version.is_tombstone() && version.mod_revision < since {
                break;
            }
            more = limit > 0 && found.len() == limit;
            if more {
                break;
            }
            found.push((key.clone(), *version));
        }
    }
    let puts: Vec<Item> = found.iter().filter(|(_, version)| !version.is_tombstone()).cloned().collect();
    let mut values = shared.values(puts)?.into_iter();
    // Of other keys, changes leave no mark in the times.
    let timed = shared.keeps_all(&keys);
    let times = shared.times();
    let told = found.iter().map(|(_, version)| Version {
        revision: version.mod_revision,
        time: if timed { times.of(version.mod_revision) } else { None },
        kv: if version.is_tombstone() { None } else { values.next() },
    });
    Ok(Versions { versions: told.collect(), more, since })
}
