//! What readers, the writer and the upkeep share, and reading at a revision.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use tokio::sync::watch;

use super::Options;
use super::clock::Clock;
use super::disk::Disk;
use super::hooks::{self, Mutant};
use super::index::{Index, Location, Version};
use super::recent::{Recent, key_value};
use super::segment::{self, Segments};
use super::times::Times;
use super::watch::Hub;
use crate::{Error, KeyRange, KeyValue, Range, RangeResult};

/// Keys visited under one hold of the index's lock.
const CHUNK: usize = hooks::bound(2048, 5);
/// Entries closer together than this are read in one go.
const READ_GAP: u64 = 16 << 10;
/// The most read in one go.
const READ_MAX: u64 = 1 << 20;

pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: Options,
    pub(crate) store_id: u64,
    pub(crate) index: RwLock<Index>,
    /// The latest durable revision, which is what readers see.
    pub(crate) visible: AtomicI64,
    /// Reads and watches below it are refused.
    pub(crate) compacted: AtomicI64,
    /// History of keys that [are kept](Shared::keeps) reaches back to here, which is at or below the compaction mark.
    pub(crate) undo: AtomicI64,
    /// What superseded versions take that only history beyond the compaction mark needs.
    pub(crate) undo_bytes: AtomicU64,
    times: Mutex<Times>,
    pub(crate) recent: RwLock<Recent>,
    pub(crate) segments: Segments,
    pub(crate) next_segment: AtomicU64,
    pub(crate) hub: Hub,
    pub(crate) read_only: RwLock<Option<String>>,
    pub(crate) failure: watch::Sender<Failure>,
    /// Live keys at the visible revision.
    pub(crate) keys: AtomicU64,
    pins: Mutex<BTreeMap<i64, usize>>,
}

/// Why parts of the engine are not there any more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failure {
    /// Nothing can be written, and nobody is told of changes.
    pub(crate) writer: Option<String>,
    /// History grows, and the next start takes longer.
    pub(crate) upkeep: Option<String>,
}

impl Failure {
    /// The worst of it.
    pub(crate) fn reason(&self) -> Option<&String> {
        self.writer.as_ref().or(self.upkeep.as_ref())
    }
}

/// A version in memory, its value not read yet.
pub(crate) type Item = (Bytes, Version);

/// Up to where versions are dropped that no read needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Of keys without history beyond the compaction mark.
    pub(crate) compacted: i64,
    /// Of the others.
    pub(crate) undo: i64,
}

/// What a range found before values are read.
pub(crate) struct Found {
    pub(crate) items: Vec<Item>,
    pub(crate) count: usize,
    pub(crate) more: bool,
}

impl Shared {
    #[allow(clippy::too_many_arguments, reason = "the one place where a recovered state is put together")]
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        options: Options,
        store_id: u64,
        index: Index,
        revision: i64,
        compacted: i64,
        undo: i64,
        times: Times,
        segments: Segments,
        next_segment: u32,
    ) -> Self {
        Self {
            disk,
            clock,
            store_id,
            visible: AtomicI64::new(revision),
            compacted: AtomicI64::new(compacted),
            undo: AtomicI64::new(undo),
            undo_bytes: AtomicU64::new(0),
            times: Mutex::new(times),
            recent: RwLock::new(Recent::new(revision, options.recent_bytes)),
            segments,
            next_segment: AtomicU64::new(u64::from(next_segment)),
            hub: Hub::new(options.watch_events, options.watch_bytes),
            read_only: RwLock::new(None),
            failure: watch::Sender::default(),
            keys: AtomicU64::new(index.live as u64),
            index: RwLock::new(index),
            pins: Mutex::default(),
            options,
        }
    }

    pub(crate) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn recent(&self) -> RwLockReadGuard<'_, Recent> {
        self.recent.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn visible(&self) -> i64 {
        self.visible.load(Ordering::Acquire)
    }

    pub(crate) fn compacted(&self) -> i64 {
        self.compacted.load(Ordering::SeqCst)
    }

    pub(crate) fn undo(&self) -> i64 {
        self.undo.load(Ordering::SeqCst)
    }

    pub(crate) fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine's time in seconds since 1970.
    pub(crate) fn second(&self) -> i64 {
        self.clock.wall_millis().div_euclid(1000)
    }

    /// Whether history of a key is kept beyond the compaction mark.
    pub(crate) fn keeps(&self, key: &[u8]) -> bool {
        self.options.undo.as_ref().is_some_and(|undo| !undo.except.iter().any(|prefix| key.starts_with(prefix)))
    }

    /// The same, of all keys of a range.
    pub(crate) fn keeps_all(&self, keys: &KeyRange) -> bool {
        self.options.undo.as_ref().is_some_and(|undo| !undo.except.iter().any(|prefix| keys.meets_prefix(prefix)))
    }

    /// How far back the history of all keys of a range reaches.
    pub(crate) fn reach(&self, keys: &KeyRange) -> i64 {
        if self.keeps_all(keys) { self.undo() } else { self.compacted() }
    }

    /// A number for a new segment.
    pub(crate) fn new_segment(&self) -> u32 {
        self.next_segment.fetch_add(1, Ordering::Relaxed) as u32
    }

    fn pins(&self) -> MutexGuard<'_, BTreeMap<i64, usize>> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps all that a read at `revision` needs until the pin is dropped.
    ///
    /// The compaction mark is looked at after pinning and raised before the pins are looked at, so a revision that is
    /// above the mark then stays readable.
    pub(crate) fn pin(self: &Arc<Self>, revision: i64) -> Pin {
        *self.pins().entry(revision).or_default() += 1;
        Pin { shared: Arc::clone(self), revision }
    }

    /// The marks up to which history may be dropped now.
    pub(crate) fn prunable(&self) -> Marks {
        let (compacted, undo) = (self.compacted(), self.undo());
        if hooks::is(Mutant::PruneIgnoresReaders) {
            return Marks { compacted, undo };
        }
        let pinned = self.pins().keys().next().copied().unwrap_or(i64::MAX);
        Marks { compacted: compacted.min(pinned), undo: undo.min(pinned) }
    }

    /// Pins the revision that a read asks for.
    pub(crate) fn pin_for(self: &Arc<Self>, asked: i64) -> Result<Pin, Error> {
        self.pin_above(asked, || self.compacted())
    }

    /// Pins the revision that a read asks for, unless it is below what is kept.
    pub(crate) fn pin_above(self: &Arc<Self>, asked: i64, kept: impl Fn() -> i64) -> Result<Pin, Error> {
        loop {
            let mut current = self.visible();
            if hooks::is(Mutant::StaleRead) && asked == 0 {
                current = (current - 1).max(self.compacted()).max(1);
            }
            let pin = self.pin(if asked == 0 { current } else { asked });
            if pin.revision > current {
                return Err(Error::FutureRevision { asked, current });
            }
            let compacted = kept();
            if pin.revision >= compacted {
                return Ok(pin);
            }
            if asked != 0 {
                return Err(Error::Compacted { asked, compacted });
            }
            // The present moved on, and the mark with it, before the pin was there.
        }
    }

    /// Finds the live keys of a range at a pinned revision.
    pub(crate) fn find(&self, range: &Range, revision: i64) -> Found {
        let mut found = Found { items: Vec::new(), count: 0, more: false };
        self.chunks(&range.keys, |key, chain| {
            found.visit(range, key, chain.at(revision));
        });
        found
    }

    /// Visits the chains of a range, letting writers in between chunks.
    pub(crate) fn chunks(&self, keys: &KeyRange, mut visit: impl FnMut(&Bytes, &super::index::Chain)) {
        if keys.end.is_none() {
            if let Some((key, chain)) = self.index().keys.get_key_value(&keys.start[..]) {
                visit(key, chain);
            }
            return;
        }
        let mut rest = keys.clone();
        let mut skip = None;
        loop {
            let mut last = None;
            let mut visited = 0;
            let index = self.index();
            for (key, chain) in index.range(&rest).skip_while(|(key, _)| Some(*key) == skip.as_ref()).take(CHUNK) {
                visit(key, chain);
                visited += 1;
                last = Some(key);
            }
            if visited < CHUNK {
                return;
            }
            skip = last.cloned();
            drop(index);
            hooks::pause();
            if let Some(last) = &skip {
                rest.start = last.clone();
            }
        }
    }

    /// The value if it is among the recent ones or in the page cache.
    fn cached(&self, key: &[u8], version: &Version) -> Option<Bytes> {
        if let Some(value) = self.recent().value(key, version.mod_revision) {
            return Some(value);
        }
        let segment = self.segments.get(version.location.segment)?;
        let mut bytes = vec![0; version.location.len as usize];
        // A failure is reported by the read that waits.
        if !segment.file.read_cached(&mut bytes, u64::from(version.location.offset)).ok()? {
            return None;
        }
        segment::check(&bytes, key, version).ok().map(|entry| Bytes::copy_from_slice(entry.value))
    }

    /// Reads the values without waiting for the disk, or not at all.
    pub(crate) fn values_cached(&self, items: &[Item]) -> Option<Vec<KeyValue>> {
        items
            .iter()
            .map(|(key, version)| self.cached(key, version).map(|value| key_value(key.clone(), value, version)))
            .collect()
    }

    /// Reads the values, from the disk where needed. Waits for it.
    ///
    /// The caller holds a pin at a revision at which the versions are visible.
    pub(crate) fn values(&self, items: Vec<Item>) -> Result<Vec<KeyValue>, Error> {
        let mut values: Vec<Option<Bytes>> = vec![None; items.len()];
        let mut wanted = Vec::new();
        {
            let recent = self.recent();
            for (at, (key, version)) in items.iter().enumerate() {
                match recent.value(key, version.mod_revision) {
                    Some(value) => values[at] = Some(value),
                    None => wanted.push(at),
                }
            }
        }
        wanted.sort_unstable_by_key(|at| {
            let location = items[*at].1.location;
            (location.segment, location.offset)
        });
        let mut rest = &wanted[..];
        while !rest.is_empty() {
            let run = run_length(&items, rest);
            self.read_run(&items, &rest[..run], &mut values)?;
            rest = &rest[run..];
        }
        Ok(items
            .into_iter()
            .zip(values)
            .map(|((key, version), value)| key_value(key, value.unwrap_or_default(), &version))
            .collect())
    }

    /// Reads entries that lie close together.
    fn read_run(&self, items: &[Item], run: &[usize], values: &mut [Option<Bytes>]) -> Result<(), Error> {
        let first = items[run[0]].1.location;
        let last = items[run[run.len() - 1]].1.location;
        let Some(segment) = self.segments.get(first.segment) else {
            // It was rewritten since the range was found: look again where the versions are.
            return run.iter().try_for_each(|at| {
                let (key, version) = &items[*at];
                values[*at] = Some(self.read_moved(key, version)?);
                Ok(())
            });
        };
        let start = u64::from(first.offset);
        let mut bytes = vec![0; (u64::from(last.offset) + u64::from(last.len) - start) as usize];
        self.read_at(&segment, &mut bytes, start)?;
        for at in run {
            let (key, version) = &items[*at];
            let from = (u64::from(version.location.offset) - start) as usize;
            let entry = segment::check(&bytes[from..from + version.location.len as usize], key, version)
                .map_err(|what| self.damage(&segment, version.location, what))?;
            // A copy, because a slice would keep its neighbours' bytes alive for as long as the object lives.
            values[*at] = Some(Bytes::copy_from_slice(entry.value));
        }
        Ok(())
    }

    /// Reads a value that the upkeep may be moving.
    fn read_moved(&self, key: &Bytes, version: &Version) -> Result<Bytes, Error> {
        loop {
            let moved = {
                let index = self.index();
                let chain = index.keys.get(key);
                chain
                    .and_then(|chain| chain.at(version.mod_revision))
                    .filter(|held| held.mod_revision == version.mod_revision)
                    .copied()
            };
            let Some(version) = moved else {
                return Err(Error::Compacted { asked: version.mod_revision, compacted: self.compacted() });
            };
            if let Some(segment) = self.segments.get(version.location.segment) {
                let mut bytes = vec![0; version.location.len as usize];
                self.read_at(&segment, &mut bytes, u64::from(version.location.offset))?;
                let entry = segment::check(&bytes, key, &version)
                    .map_err(|what| self.damage(&segment, version.location, what))?;
                return Ok(Bytes::copy_from_slice(entry.value));
            }
        }
    }

    fn read_at(&self, segment: &segment::Segment, bytes: &mut [u8], offset: u64) -> Result<(), Error> {
        segment.file.read(bytes, offset).map_err(|source| {
            if source.kind() == std::io::ErrorKind::UnexpectedEof {
                segment::corrupt(self.disk.path(), &segment.name(), offset, "the segment is cut short")
            } else {
                Error::Io { doing: "read", path: self.disk.path().join(segment.name()), source }
            }
        })
    }

    fn damage(&self, segment: &segment::Segment, location: Location, what: &str) -> Error {
        segment.damaged.store(true, Ordering::Relaxed);
        segment::corrupt(self.disk.path(), &segment.name(), u64::from(location.offset), what)
    }

    /// Reads a range. Waits for the disk when values have to come from there.
    pub(crate) fn range(self: &Arc<Self>, range: &Range) -> Result<RangeResult, Error> {
        let pin = self.pin_for(range.revision)?;
        let found = self.find(range, pin.revision);
        hooks::pause();
        // A watch from just after this revision must leave no gap, so a read of the present tells the one it read.
        let revision = if range.revision == 0 { pin.revision } else { self.visible() };
        let revision = if hooks::is(Mutant::ListTellsLaterRevision) { self.visible() } else { revision };
        self.complete(range, found, revision)
    }

    /// Puts values to what was found.
    pub(crate) fn complete(&self, range: &Range, found: Found, revision: i64) -> Result<RangeResult, Error> {
        let kvs = if range.keys_only {
            found.items.into_iter().map(|(key, version)| key_value(key, Bytes::new(), &version)).collect()
        } else {
            self.values(found.items)?
        };
        Ok(RangeResult { kvs, count: found.count, more: found.more, revision })
    }
}

impl Found {
    /// Counts a key, and takes it if the range wants it.
    pub(crate) fn visit(&mut self, range: &Range, key: &Bytes, version: Option<&Version>) {
        let Some(version) = version.filter(|version| !version.is_tombstone()) else { return };
        self.count += 1;
        if range.count_only {
            return;
        }
        if range.limit > 0 && self.items.len() >= range.limit {
            self.more = true;
        } else {
            self.items.push((key.clone(), *version));
        }
    }
}

/// How many of the sorted entries at the front are worth one read.
fn run_length(items: &[Item], sorted: &[usize]) -> usize {
    let location = |at: usize| items[at].1.location;
    let first = location(sorted[0]);
    let mut end = u64::from(first.offset) + u64::from(first.len);
    let mut run = 1;
    for at in &sorted[1..] {
        let next = location(*at);
        let next_end = u64::from(next.offset) + u64::from(next.len);
        if next.segment != first.segment
            || u64::from(next.offset) > end + READ_GAP
            || next_end - u64::from(first.offset) > READ_MAX
        {
            break;
        }
        end = end.max(next_end);
        run += 1;
    }
    run
}

/// Keeps a revision readable.
pub(crate) struct Pin {
    shared: Arc<Shared>,
    pub(crate) revision: i64,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.shared.pins();
        if let Some(count) = pins.get_mut(&self.revision) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.revision);
            }
        }
    }
}
