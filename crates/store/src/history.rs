//! History beyond the compaction mark: what was there at a moment, and what became of a key.

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;

use crate::{Error, Event, KeyRange, KeyValue, Range, RangeResult, Store, Watch};

/// What a store tells of its past, as far back as it keeps it.
///
/// Ranges and watches of the [`Store`] itself end at the compaction mark; this reaches further where the engine keeps more.
/// Times are whole seconds since 1970; a second's state is what was there when it ended.
#[async_trait]
pub trait History: Send + Sync {
    /// How far back it reaches.
    async fn kept(&self) -> Result<Kept, Error>;

    /// A revision at which these keys were as they were when a second ended.
    ///
    /// Fails with [`Error::TimeNotKept`] for a time before what is kept, or when no times are kept of these keys.
    async fn revision_at(&self, keys: &KeyRange, second: i64) -> Result<i64, Error>;

    /// When a revision was made, or the last before it of which that is known; `None`: not known.
    async fn time_of(&self, revision: i64) -> Result<Option<i64>, Error>;

    /// Reads keys at a revision, as [`Store::range`] does; 0: the present.
    ///
    /// Fails with [`Error::Compacted`] below what is kept of these keys.
    async fn range_at(&self, range: Range) -> Result<RangeResult, Error>;

    /// The latest versions of a key up to a revision (0: the present), deletions among them, at most `limit` (0: all).
    ///
    /// Fails with [`Error::Compacted`] when the revision is below what is kept of the key.
    async fn versions(&self, key: Bytes, until: i64, limit: usize) -> Result<Versions, Error>;
}

/// How far back history reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The oldest revision that is readable, of keys of which history is kept.
    pub revision: i64,
    /// When that revision, or the first of which the time is known, was the present.
    pub since: Option<i64>,
    /// What superseded versions take on disk and in memory, if that is known.
    pub bytes: u64,
}

/// Versions of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// Newest first.
    pub versions: Vec<Version>,
    /// There are older ones.
    pub more: bool,
    /// What happened to the key before this revision is not kept, but for the version that was there then.
    pub since: i64,
}

/// A version of a key, or its deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub revision: i64,
    /// When it was made, if that is known.
    pub time: Option<i64>,
    /// `None`: the key was deleted.
    pub kv: Option<KeyValue>,
}

/// Versions out of what any store can do: the key at its mark, and a watch from there. It keeps no times.
pub(crate) async fn versions_by_watch(
    store: &dyn Store,
    key: Bytes,
    until: i64,
    limit: usize,
) -> Result<Versions, Error> {
    let keys = KeyRange::key(key);
    let status = store.status().await?;
    let since = status.compacted.max(1);
    let until = if until == 0 { status.revision } else { until };
    if until > status.revision {
        return Err(Error::FutureRevision { asked: until, current: status.revision });
    }
    if until < since {
        return Err(Error::Compacted { asked: until, compacted: since });
    }
    let first = store.range(Range::of(keys.clone()).at(since)).await?.kvs;
    let version = |kv: KeyValue| Version { revision: kv.mod_revision, time: None, kv: Some(kv) };
    let mut versions: Vec<Version> = first.into_iter().map(version).collect();
    if until > since {
        let mut stream = store.watch(Watch::of(keys, since + 1)).await?;
        // It tells where the watch was established, not what it has seen.
        stream.next().await.unwrap_or(Err(Error::Closed))?;
        // A key that is quiet up to there says nothing by itself.
        store.request_progress().await?;
        let mut told = since;
        while told < until {
            let batch = stream.next().await.unwrap_or(Err(Error::Closed))?;
            told = told.max(batch.revision);
            versions.extend(batch.events.into_iter().filter(|event| event.revision() <= until).map(
                |event| match event {
                    Event::Put { kv, .. } => version(kv),
                    Event::Delete { revision, .. } => Version { revision, time: None, kv: None },
                },
            ));
        }
    }
    versions.reverse();
    let more = limit > 0 && versions.len() > limit;
    if more {
        versions.truncate(limit);
    }
    Ok(Versions { versions, more, since })
}
