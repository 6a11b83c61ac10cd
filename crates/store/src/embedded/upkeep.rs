//! Forgetting history, moving what lives out of segments that are mostly dead, writing checkpoints, giving space back.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::checkpoint;
use super::format::{Entry, EntryKind, FIRST, GroupWriter, Kind, Place, SegmentHeader};
use super::index::{Location, Version};
use super::queue::{Queue, Signal};
use super::segment::{self, Segment};
use super::shared::Shared;
use super::writer::{Reply, Request};
use crate::{Error, KeyRange};

/// A sealed segment is packed when less than this share of it lives (percent).
const PACK_BELOW: u64 = 50;
/// Keys pruned under one hold of the index's lock.
const PRUNE_CHUNK: usize = 1024;
/// What long leases have left is written at this step.
const LEASE_STEP: Duration = Duration::from_secs(60);

/// The upkeep's thread.
pub(crate) struct Upkeep {
    signal: Arc<Signal>,
    thread: JoinHandle<()>,
}

impl Upkeep {
    pub(crate) fn start(shared: Arc<Shared>, requests: Arc<Queue>, signal: Arc<Signal>) -> Result<Self, Error> {
        let raised = Arc::clone(&signal);
        let path = shared.disk.path().to_owned();
        let thread = std::thread::Builder::new()
            .name("store-upkeep".into())
            .spawn(move || run(&shared, &requests, &raised))
            .map_err(|source| Error::Io { doing: "start a thread for", path, source })?;
        Ok(Self { signal, thread })
    }

    pub(crate) fn stop(self) {
        self.signal.close();
        if self.thread.join().is_err() {
            tracing::error!("the store's upkeep panicked");
        }
    }
}

fn run(shared: &Arc<Shared>, requests: &Queue, signal: &Signal) {
    // When each revision was the latest, for forgetting by age.
    let mut past: VecDeque<(Duration, i64)> = VecDeque::new();
    while signal.wait(shared.options.upkeep_interval) {
        if let Err(e) = forget_old(shared, requests, &mut past).and_then(|()| pass(shared, requests, false)) {
            tracing::warn!("the store's upkeep failed and is tried again: {e}");
        }
    }
}

fn forget_old(shared: &Arc<Shared>, requests: &Queue, past: &mut VecDeque<(Duration, i64)>) -> Result<(), Error> {
    let history = shared.options.history;
    if history.is_zero() {
        return Ok(());
    }
    let now = shared.clock.monotonic();
    let revision = shared.visible();
    if past.back().is_none_or(|(_, last)| *last != revision) {
        past.push_back((now, revision));
    }
    let mut mark = None;
    // The newest revision that was already superseded by then stays readable: the one in force at the horizon.
    while past.len() > 1 && past[1].0 + history <= now {
        past.pop_front();
    }
    if let Some((at, revision)) = past.front()
        && *at + history <= now
        && *revision > shared.compacted()
    {
        mark = Some(*revision);
    }
    match mark {
        Some(revision) => match ask(requests, |reply| Request::Compact(revision, reply)) {
            // Someone else compacted further meanwhile.
            Err(Error::Compacted { .. }) => Ok(()),
            other => other,
        },
        None => Ok(()),
    }
}

fn ask<T>(requests: &Queue, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Error> {
    let (reply, answer) = oneshot::channel();
    requests.push(request(reply));
    answer.blocking_recv().map_err(|_| Error::Closed)?
}

/// One round. A checkpoint is written when it is due, or when `all` is asked for.
pub(crate) fn pass(shared: &Arc<Shared>, requests: &Queue, all: bool) -> Result<(), Error> {
    ask(requests, |reply| Request::NoteLeases(LEASE_STEP, reply))?;
    prune(shared);
    let io = |doing: &'static str| {
        let path = shared.disk.path().to_owned();
        move |source: io::Error| Error::Io { doing, path, source }
    };
    let packed = pack(shared)?;
    let log: u64 = shared.segments.all().iter().filter(|s| s.kind == Kind::Log).map(|s| s.used()).sum();
    let dead = shared.segments.all().iter().any(|s| is_dead(s));
    if !(all || packed || dead || log >= shared.options.checkpoint_bytes) {
        return Ok(());
    }
    let mark = ask(requests, Request::Mark)?;
    if !(all || packed || dead || mark.appended >= shared.options.checkpoint_bytes) {
        return Ok(());
    }
    let referred = checkpoint::write(shared, &mark).map_err(io("write a checkpoint in"))?;
    let mut removed = false;
    for segment in shared.segments.all() {
        let behind = segment.kind == Kind::Packed || segment.id < mark.segment;
        let unused = behind && segment.sealed.load(Ordering::Acquire) && !segment.damaged.load(Ordering::Relaxed);
        if unused && is_dead(&segment) && !referred.contains(&segment.id) {
            shared.segments.remove(segment.id);
            shared.disk.remove(&segment.name()).map_err(io("remove a segment of"))?;
            removed = true;
        }
    }
    if removed {
        shared.disk.sync_names().map_err(io("sync"))?;
    }
    Ok(())
}

fn is_dead(segment: &Segment) -> bool {
    segment.sealed.load(Ordering::Acquire) && segment.live.load(Ordering::Relaxed) == 0
}

/// Drops versions that nobody can ask for any more.
fn prune(shared: &Arc<Shared>) {
    let mark = shared.prunable();
    let mut start = KeyRange::all();
    loop {
        let mut index = shared.index_mut();
        let keys: Vec<Bytes> = index.range(&start).map(|(key, _)| key.clone()).take(PRUNE_CHUNK).collect();
        let Some(last) = keys.last().cloned() else { return };
        for key in &keys {
            let gone = index
                .keys
                .get_mut(key)
                .is_some_and(|chain| chain.prune(mark, |version| shared.segments.account(version.location, false)));
            if gone {
                index.keys.remove(key);
            }
        }
        if keys.len() < PRUNE_CHUNK {
            return;
        }
        start = KeyRange::between([&last[..], &[0]].concat(), Vec::new());
    }
}

/// Moves what lives out of sealed segments that are mostly dead; tells whether anything moved.
fn pack(shared: &Arc<Shared>) -> Result<bool, Error> {
    let sparse: Vec<Arc<Segment>> = shared
        .segments
        .all()
        .into_iter()
        .filter(|s| {
            let (live, used) = (s.live.load(Ordering::Relaxed), s.used());
            s.sealed.load(Ordering::Acquire)
                && !s.damaged.load(Ordering::Relaxed)
                && live > 0
                && used >= shared.options.segment_bytes / 4
                && live * 100 < used * PACK_BELOW
        })
        .collect();
    let mut moved = false;
    for segment in sparse {
        moved |= pack_one(shared, &segment)?;
    }
    Ok(moved)
}

fn pack_one(shared: &Arc<Shared>, source: &Segment) -> Result<bool, Error> {
    let mut items: Vec<(Bytes, Version)> = Vec::new();
    // Versions that are not durable yet are in the active segment, which is never packed.
    shared.chunks(&KeyRange::all(), |key, chain| {
        items.extend(chain.versions().filter(|v| v.location.segment == source.id).map(|v| (key.clone(), *v)));
    });
    if items.is_empty() {
        return Ok(false);
    }
    items.sort_by_key(|(_, version)| version.location.offset);
    let io = |doing: &'static str| {
        let path = shared.disk.path().join(source.name());
        move |error: io::Error| Error::Io { doing, path, source: error }
    };
    let id = shared.new_segment();
    let header = SegmentHeader { kind: Kind::Packed, id, store: shared.store_id, previous: 0, previous_end: 0, revision: 0 };
    let target = segment::create(&*shared.disk, &header, 0).map_err(io("pack"))?;
    let place = Place { store: shared.store_id, segment: id, offset: FIRST };
    let mut frames = GroupWriter::new(Vec::new(), place);
    frames.begin();
    let mut moves: Vec<(Bytes, i64, Location, Location)> = Vec::with_capacity(items.len());
    for (key, version) in items {
        let mut bytes = vec![0; version.location.len as usize];
        source.file.read(&mut bytes, u64::from(version.location.offset)).map_err(io("read"))?;
        let entry = segment::check(&bytes, &key, &version).map_err(|what| {
            source.damaged.store(true, Ordering::Relaxed);
            segment::corrupt(shared.disk.path(), &source.name(), u64::from(version.location.offset), what)
        })?;
        let (offset, len) = frames.entry(&Entry {
            kind: if version.is_tombstone() { EntryKind::Tombstone } else { EntryKind::Put },
            ..entry
        });
        moves.push((key, version.mod_revision, version.location, Location { segment: id, offset, len }));
    }
    frames.finish(0, shared.clock.wall_millis());
    target.file.write(&frames.buffer, FIRST).map_err(io("pack"))?;
    target.file.sync().map_err(io("pack"))?;
    target.end.store(FIRST + frames.buffer.len() as u64, Ordering::Relaxed);
    target.sealed.store(true, Ordering::Release);
    shared.segments.insert(Arc::new(target));
    for chunk in moves.chunks(PRUNE_CHUNK) {
        let mut index = shared.index_mut();
        for (key, revision, from, to) in chunk {
            let held = index.keys.get_mut(key).and_then(|chain| chain.exact_mut(*revision));
            // Pruned meanwhile, perhaps.
            if let Some(version) = held.filter(|v| v.location == *from) {
                version.location = *to;
                shared.segments.account(*to, true);
                shared.segments.account(*from, false);
            }
        }
    }
    Ok(true)
}
