//! Keys and their versions in memory.
//!
//! Versions above the visible revision may be here already, put by transactions that are not durable yet: every reader
//! asks at a revision, so none sees them.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use super::hooks::{self, Mutant};
use crate::KeyRange;

/// One version of a key and where its entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) mod_revision: i64,
    pub(crate) create_revision: i64,
    /// 0: the key was deleted.
    pub(crate) version: u64,
    pub(crate) lease: i64,
    pub(crate) location: Location,
}

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) segment: u32,
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

impl Version {
    pub(crate) fn is_tombstone(&self) -> bool {
        self.version == 0
    }
}

/// The versions of one key, nearly always one.
#[derive(Debug)]
pub(crate) struct Chain {
    latest: Version,
    /// Ascending. Boxed because it is nearly always absent, and there are very many chains.
    #[allow(clippy::box_collection, reason = "8 bytes a key, not 24")]
    older: Option<Box<Vec<Version>>>,
}

impl Chain {
    pub(crate) fn new(first: Version) -> Self {
        Self { latest: first, older: None }
    }

    pub(crate) fn latest(&self) -> &Version {
        &self.latest
    }

    /// All versions, oldest first.
    pub(crate) fn versions(&self) -> impl DoubleEndedIterator<Item = &Version> {
        self.older.iter().flat_map(|older| older.iter()).chain(std::iter::once(&self.latest))
    }

    /// The newest version at or below `revision`, tombstones included.
    pub(crate) fn at(&self, revision: i64) -> Option<&Version> {
        if self.latest.mod_revision <= revision {
            return Some(&self.latest);
        }
        let older = self.older.as_ref()?;
        let after = older.partition_point(|version| version.mod_revision <= revision);
        older[..after].last()
    }

    /// The version that `revision` made.
    pub(crate) fn exact_mut(&mut self, revision: i64) -> Option<&mut Version> {
        if self.latest.mod_revision == revision {
            return Some(&mut self.latest);
        }
        let older = self.older.as_mut()?;
        let at = older.binary_search_by_key(&revision, |version| version.mod_revision).ok()?;
        older.get_mut(at)
    }

    pub(crate) fn push(&mut self, version: Version) {
        let replaced = std::mem::replace(&mut self.latest, version);
        self.older.get_or_insert_default().push(replaced);
    }

    /// Takes the latest version away; `None` when it was the only one (the chain is then to be dropped).
    pub(crate) fn pop(&mut self) -> Option<Version> {
        let older = self.older.as_mut()?;
        let below = older.pop()?;
        if older.is_empty() {
            self.older = None;
        }
        Some(std::mem::replace(&mut self.latest, below))
    }

    /// What [`Chain::prune`] would drop at `mark`, each version with the lowest mark that drops it.
    pub(crate) fn superseded(&self, mark: i64) -> impl Iterator<Item = (i64, &Version)> {
        let after = self.versions().skip(1).map(|version| version.mod_revision).chain(std::iter::once(i64::MAX));
        let dropped = self.versions().zip(after).map(|(version, next)| {
            let alone = if version.is_tombstone() { version.mod_revision + 1 } else { i64::MAX };
            (next.min(alone), version)
        });
        dropped.take_while(move |(at, _)| *at <= mark)
    }

    /// Drops what no read at or above `mark`, and no watch from `mark`, needs; `true` when nothing is left.
    ///
    /// That is: versions older than the one in force at `mark`, and that one too if it is a deletion below `mark`.
    pub(crate) fn prune(&mut self, mark: i64, mut dropped: impl FnMut(&Version)) -> bool {
        if let Some(older) = self.older.as_mut() {
            let mut keep = older.partition_point(|version| version.mod_revision <= mark).saturating_sub(1);
            if self.latest.mod_revision <= mark {
                keep = older.len();
            } else if older[keep].mod_revision < mark && older[keep].is_tombstone() {
                keep += 1;
            }
            if keep > 0 {
                older.drain(..keep).for_each(|version| dropped(&version));
                if older.is_empty() {
                    self.older = None;
                } else {
                    older.shrink_to_fit();
                }
            }
        }
        let forgotten = mark + i64::from(hooks::is(Mutant::CompactionForgetsTombstone));
        if self.older.is_none() && self.latest.is_tombstone() && self.latest.mod_revision < forgotten {
            dropped(&self.latest);
            return true;
        }
        false
    }
}

/// All keys.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) keys: BTreeMap<Bytes, Chain>,
    /// Keys whose latest version is not a deletion.
    pub(crate) live: usize,
}

impl Index {
    /// The chains of a range in key order.
    pub(crate) fn range<'a>(&'a self, keys: &'a KeyRange) -> impl DoubleEndedIterator<Item = (&'a Bytes, &'a Chain)> {
        let bounds = bounds(keys);
        bounds.into_iter().flat_map(|bounds| self.keys.range::<[u8], _>(bounds))
    }

    /// The live version of a key at a revision.
    pub(crate) fn get(&self, key: &[u8], revision: i64) -> Option<(&Bytes, &Version)> {
        let (key, chain) = self.keys.get_key_value(key)?;
        chain.at(revision).filter(|version| !version.is_tombstone()).map(|version| (key, version))
    }

    /// Adds the newest version of a key; the key is copied if it is new.
    pub(crate) fn push(&mut self, key: &[u8], version: Version) -> Bytes {
        let live = usize::from(!version.is_tombstone());
        let only = (Bound::Included(key), Bound::Included(key));
        if let Some((held, chain)) = self.keys.range_mut::<[u8], _>(only).next() {
            self.live = self.live + live - usize::from(!chain.latest.is_tombstone());
            chain.push(version);
            return held.clone();
        }
        // The caller's bytes may be a slice of something large, which a key must not keep alive.
        let key = Bytes::copy_from_slice(key);
        self.live += live;
        self.keys.insert(key.clone(), Chain::new(version));
        key
    }

    /// Takes back the newest version of a key.
    pub(crate) fn pop(&mut self, key: &[u8]) {
        let Some(chain) = self.keys.get_mut(key) else { return };
        let was_live = usize::from(!chain.latest.is_tombstone());
        if chain.pop().is_some() {
            self.live = self.live + usize::from(!chain.latest.is_tombstone()) - was_live;
        } else {
            self.keys.remove(key);
            self.live -= was_live;
        }
    }
}

type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The bounds of a range for a sorted map; `None` for a range that is empty.
fn bounds(keys: &KeyRange) -> Option<Bounds<'_>> {
    let start = &keys.start[..];
    match &keys.end {
        None => Some((Bound::Included(start), Bound::Included(start))),
        Some(end) if end.is_empty() => Some((Bound::Included(start), Bound::Unbounded)),
        Some(end) if start < &end[..] => Some((Bound::Included(start), Bound::Excluded(&end[..]))),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(mod_revision: i64, version: u64) -> Version {
        let location = Location { segment: 1, offset: 0, len: 0 };
        Version { mod_revision, create_revision: 0, version, lease: 0, location }
    }

    fn chain(versions: &[(i64, u64)]) -> Chain {
        let mut chain = Chain::new(version(versions[0].0, versions[0].1));
        for (revision, number) in &versions[1..] {
            chain.push(version(*revision, *number));
        }
        chain
    }

    fn pruned(versions: &[(i64, u64)], mark: i64) -> Vec<i64> {
        let mut chain = chain(versions);
        let mut dropped = 0;
        if chain.prune(mark, |_| dropped += 1) {
            assert_eq!(dropped, versions.len());
            return Vec::new();
        }
        let left: Vec<i64> = chain.versions().map(|version| version.mod_revision).collect();
        assert_eq!(dropped + left.len(), versions.len());
        left
    }

    #[test]
    fn pruning_keeps_what_reads_and_watches_from_the_mark_need() {
        assert_eq!(pruned(&[(5, 1)], 9), [5]);
        assert_eq!(pruned(&[(2, 1), (4, 2), (6, 3)], 5), [4, 6]);
        assert_eq!(pruned(&[(2, 1), (4, 2), (6, 3)], 1), [2, 4, 6]);
        assert_eq!(pruned(&[(2, 1), (4, 2), (6, 3)], 6), [6]);
        assert_eq!(pruned(&[(2, 1), (4, 0)], 4), [4], "a watch from 4 sees the deletion");
        assert_eq!(pruned(&[(2, 1), (4, 0)], 5), [] as [i64; 0]);
        assert_eq!(pruned(&[(2, 1), (4, 0), (6, 1)], 5), [6]);
        assert_eq!(pruned(&[(2, 1), (4, 0), (6, 1)], 4), [4, 6]);
    }

    #[test]
    fn what_is_superseded_is_what_pruning_drops() {
        for versions in [&[(5, 1)][..], &[(2, 1), (4, 2), (6, 3)], &[(2, 1), (4, 0)], &[(2, 1), (4, 0), (6, 1)]] {
            for mark in 1..9 {
                let left = pruned(versions, mark);
                let chain = chain(versions);
                let dropped: Vec<i64> = chain.superseded(mark).map(|(_, version)| version.mod_revision).collect();
                let all: Vec<i64> = versions.iter().map(|(revision, _)| *revision).collect();
                assert_eq!([&dropped[..], &left[..]].concat(), all, "at {mark}");
            }
        }
    }

    #[test]
    fn a_version_is_found_at_a_revision() {
        let chain = chain(&[(2, 1), (4, 0), (6, 1)]);
        let at = |revision| chain.at(revision).map(|version| version.mod_revision);
        assert_eq!(
            [at(1), at(2), at(3), at(4), at(5), at(6), at(9)],
            [None, Some(2), Some(2), Some(4), Some(4), Some(6), Some(6)]
        );
    }
}
