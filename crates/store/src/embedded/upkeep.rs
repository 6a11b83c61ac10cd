//! What keeps the store small and its start fast: compaction by age and size, pruning, moving live values out of
//! segments that are mostly dead, checkpoints.
//!
//! There are two marks. Reads and watches end at the compaction mark. Versions of keys whose history is kept are dropped
//! only below the undo mark, which follows by age and size. It needs no record in the log: a start finds all that was there
//! at the last checkpoint, which has the mark that it was written with.
//!
//! Order matters in one place: a segment's file is removed only after a checkpoint that does not refer to it is durable.

use std::collections::VecDeque;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::checkpoint::{self, Head, Past, SegmentRecord};
use super::format::Kind;
use super::hooks::{self, Mutant};
use super::index::Version;
use super::pack::pack;
use super::segment::Segment;
use super::shared::{Marks, Shared};
use super::times::Times;
use super::writer::{Mark, Reply, Request};
use crate::Error;

/// Long leases' remaining time is written when it has shrunk by this much.
const LEASE_STEP: Duration = Duration::from_secs(hooks::bound(300, 3) as u64);
/// Keys changed under one hold of the index's lock.
const CHUNK: usize = hooks::bound(1024, 3);
/// Segments of less than an eighth are put together when there are this many.
const SMALL_SEGMENTS: usize = 8;

/// The state of the upkeep between its steps.
pub(crate) struct Upkeep {
    shared: Arc<Shared>,
    /// When which revision was the present.
    samples: VecDeque<(Duration, i64)>,
    /// History has been dropped up to here.
    pruned: Marks,
    /// Log bytes since the last checkpoint.
    appended: u64,
    checkpoint_bytes: u64,
    /// The newest segment at the start, until a checkpoint refers to a later one. Only what a checkpoint refers to is missed
    /// when its file is gone; so the first that a process begins is referred to soon, not when there is much in it.
    began_after: Option<u32>,
    /// Something waits for a checkpoint: a segment to be removed, or the next start, which else would not rely on the history
    /// that begins now.
    awaited: bool,
}

/// How the upkeep asks the writer.
pub(crate) type Ask<'a> = &'a dyn Fn(Request);

impl Upkeep {
    /// After a start that read back `replayed` bytes of log, up to the segment `last`, and a checkpoint of `checkpoint_bytes`;
    /// `anew`: whose history is not relied on.
    pub(crate) fn new(shared: Arc<Shared>, last: u32, replayed: u64, checkpoint_bytes: u64, anew: bool) -> Self {
        Self {
            shared,
            samples: VecDeque::new(),
            pruned: Marks::default(),
            appended: replayed,
            checkpoint_bytes,
            began_after: Some(last),
            awaited: anew,
        }
    }

    /// Does what is due; `all`: also the checkpoint if it is not.
    pub(crate) fn step(&mut self, ask: Ask<'_>, all: bool) -> Result<(), Error> {
        self.shared.hub.progress(self.shared.visible());
        self.compact_by_age(ask)?;
        self.compact_by_size(ask)?;
        self.forget_by_age();
        self.prune();
        self.forget_by_size();
        self.pack()?;
        let mark = request(ask, Request::Mark)?;
        self.appended += mark.appended;
        // A large index is worth more log before it is written again.
        let due = self.shared.options.checkpoint_bytes.max(self.checkpoint_bytes * 4);
        let begun = self.began_after.is_some_and(|last| mark.segment > last);
        if all || begun || self.awaited || self.appended >= due { self.checkpoint(&mark) } else { Ok(()) }
    }

    fn compact_by_age(&mut self, ask: Ask<'_>) -> Result<(), Error> {
        let Some(retention) = self.shared.options.retention else { return Ok(()) };
        let now = self.shared.clock.monotonic();
        let current = self.shared.visible();
        if self.samples.back().is_none_or(|(_, revision)| *revision != current) {
            self.samples.push_back((now, current));
        }
        // The youngest sample that is old enough; what was the present then must stay readable.
        while self.samples.len() > 1 && self.samples[1].0 + retention <= now {
            self.samples.pop_front();
        }
        match self.samples.front() {
            Some((then, revision)) if *then + retention <= now && *revision > self.shared.compacted() => {
                request(ask, |reply| Request::NoteLeases(LEASE_STEP, reply))?;
                compact(ask, *revision)
            }
            _ => Ok(()),
        }
    }

    fn compact_by_size(&mut self, ask: Ask<'_>) -> Result<(), Error> {
        let compacted = self.shared.compacted();
        let kept = |segment: &Arc<Segment>| {
            let newest = segment.newest.load(Ordering::Relaxed);
            (segment.kind == Kind::Log && newest > compacted).then(|| (segment.used(), newest))
        };
        let kept: Vec<(u64, i64)> = self.shared.segments.all().iter().filter_map(kept).collect();
        let mut bytes: u64 = kept.iter().map(|(used, _)| used).sum();
        let mut target = 0;
        for (used, newest) in kept {
            if bytes <= self.shared.options.history_bytes {
                break;
            }
            bytes -= used;
            target = newest;
        }
        if target > compacted { compact(ask, target) } else { Ok(()) }
    }

    /// Raises the undo mark to what was the present as long ago as history is to reach.
    fn forget_by_age(&self) {
        let compacted = self.shared.compacted();
        let mark = match &self.shared.options.undo {
            None => Some(compacted),
            Some(undo) => {
                let horizon = i64::try_from(undo.horizon.as_secs()).unwrap_or(i64::MAX);
                let then = self.shared.second().saturating_sub(horizon);
                self.shared.times().revision_at(then, self.shared.visible())
            }
        };
        if let Some(mark) = mark {
            self.shared.undo.fetch_max(mark.min(compacted), Ordering::SeqCst);
        }
    }

    /// Raises the undo mark, and prunes again, when what is kept below the compaction mark takes too much.
    fn forget_by_size(&mut self) {
        let Some(undo) = &self.shared.options.undo else { return };
        let mut bytes = self.shared.undo_bytes.load(Ordering::Relaxed);
        if bytes <= undo.bytes {
            return;
        }
        let compacted = self.shared.compacted();
        // What is dropped by which mark.
        let mut kept: Vec<(i64, u64)> = Vec::new();
        self.shared.chunks(&crate::KeyRange::all(), |_, chain| {
            kept.extend(chain.superseded(compacted).map(|(at, version)| (at, cost(version))));
        });
        kept.sort_unstable();
        // Some room, so that this is not to be done again at the next step.
        let room = undo.bytes - undo.bytes / 8;
        let mut mark = 0;
        for (at, cost) in kept {
            if bytes <= room && at > mark {
                break;
            }
            mark = at;
            bytes = bytes.saturating_sub(cost);
        }
        self.shared.undo.fetch_max(mark.min(compacted), Ordering::SeqCst);
        self.prune();
    }

    /// Drops versions that no read can ask for.
    fn prune(&mut self) {
        let marks = self.shared.prunable();
        if marks.compacted <= self.pruned.compacted && marks.undo <= self.pruned.undo {
            return;
        }
        let segments = &self.shared.segments;
        let mut bytes = 0;
        let mut start = Bytes::new();
        loop {
            let mut index = self.shared.index_mut();
            let mut dead = Vec::new();
            let mut last = None;
            let mut visited = 0;
            for (key, chain) in
                index.keys.range_mut::<[u8], _>((Bound::Included(&start[..]), Bound::Unbounded)).take(CHUNK)
            {
                let kept = self.shared.keeps(key) && !hooks::is(Mutant::HistoryPrunedAtTheMark);
                let mark = if kept { marks.undo } else { marks.compacted };
                if chain.prune(mark, |version| segments.account(version.location, false)) {
                    dead.push(key.clone());
                } else {
                    bytes += chain.superseded(marks.compacted).map(|(_, version)| cost(version)).sum::<u64>();
                }
                last = Some(key);
                visited += 1;
            }
            // The least key that is greater than the last.
            let next = last.filter(|_| visited == CHUNK).map(|last| Bytes::from([&last[..], &[0]].concat()));
            for key in &dead {
                index.keys.remove(key);
            }
            drop(index);
            hooks::pause();
            match next {
                Some(next) => start = next,
                None => break,
            }
        }
        self.pruned = marks;
        self.shared.undo_bytes.store(bytes, Ordering::Relaxed);
        self.shared.times().forget_below(marks.undo);
    }

    /// Moves live values out of segments that are not worth their space.
    fn pack(&mut self) -> Result<(), Error> {
        let all = self.shared.segments.all();
        // The log is continued from its newest segment after a restart.
        let last = all.iter().rfind(|segment| segment.kind == Kind::Log).map(|segment| segment.id);
        let settled = |segment: &Arc<Segment>| {
            Some(segment.id) != last
                && segment.sealed.load(Ordering::Acquire)
                && !segment.damaged.load(Ordering::Relaxed)
                && segment.newest.load(Ordering::Relaxed) <= self.pruned.compacted
        };
        let settled: Vec<Arc<Segment>> = all.into_iter().filter(settled).collect();
        let small = |segment: &Arc<Segment>| segment.used() < self.shared.options.segment_bytes / 8;
        let merge = settled.iter().filter(|segment| small(segment)).count() >= SMALL_SEGMENTS;
        let (dead, alive): (Vec<_>, Vec<_>) =
            settled.into_iter().partition(|segment| segment.live.load(Ordering::Relaxed) == 0);
        let sparse: Vec<Arc<Segment>> = alive
            .into_iter()
            .filter(|segment| segment.live.load(Ordering::Relaxed) * 2 < segment.used() || (merge && small(segment)))
            .collect();
        self.awaited |= !dead.is_empty();
        self.awaited |= pack(&self.shared, &sparse)?;
        Ok(())
    }

    /// Writes the index as of the mark, then removes what it does not refer to.
    fn checkpoint(&mut self, mark: &Mark) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        let failed = |doing, name: &str| Error::io(doing, shared.disk.path().join(name));
        // What the log has from the mark on is read back in any case.
        let all = shared.segments.all().into_iter();
        let all = all.filter(|segment| segment.kind == Kind::Packed || segment.id <= mark.segment);
        let (dead, kept): (Vec<_>, Vec<_>) = all.partition(|segment| {
            segment.live.load(Ordering::Relaxed) == 0
                && segment.sealed.load(Ordering::Acquire)
                && (segment.kind == Kind::Packed || segment.id < mark.segment)
                && segment.newest.load(Ordering::Relaxed) <= self.pruned.compacted
        });
        let head = Head {
            store: shared.store_id,
            revision: mark.pin.revision,
            compacted: mark.compacted,
            segment: mark.segment,
            offset: mark.offset,
            next_segment: shared.next_segment.load(Ordering::Relaxed) as u32,
            segments: kept.iter().map(|segment| record(segment, mark)).collect(),
            leases: mark.leases.clone(),
        };
        if hooks::is(Mutant::SegmentRemovedEarly) {
            for segment in &dead {
                shared.disk.remove(&segment.name()).map_err(failed("remove", &segment.name()))?;
            }
        }
        let past = shared.options.undo.as_ref().map(|undo| {
            let mut times = Times::default();
            if !hooks::is(Mutant::TimesNotWritten) {
                shared.times().up_to(mark.pin.revision).for_each(|(second, revision)| times.note(second, revision));
            }
            Past { undo: shared.undo(), except: Some(undo.except.clone()), times }
        });
        let written = checkpoint::Writer::new(&*shared.disk, &head).and_then(|mut writer| {
            let mut result = Ok(());
            shared.chunks(&crate::KeyRange::all(), |key, chain| {
                if result.is_ok() {
                    result = writer.key(key, chain, mark.pin.revision);
                }
            });
            result.and_then(|()| writer.finish(past.as_ref()))
        });
        self.checkpoint_bytes = written.map_err(failed("write", checkpoint::NEW_NAME))?;
        self.appended = 0;
        self.awaited = false;
        self.began_after = self.began_after.filter(|last| mark.segment <= *last);
        for segment in dead {
            shared.segments.remove(segment.id);
            if hooks::is(Mutant::SegmentRemovedEarly) {
                continue;
            }
            shared.disk.remove(&segment.name()).map_err(failed("remove", &segment.name()))?;
        }
        for segment in kept.iter().filter(|segment| segment.kind == Kind::Log && segment.id < mark.segment) {
            trim(segment).map_err(failed("cut", &segment.name()))?;
        }
        Ok(())
    }
}

/// A segment as the checkpoint at a mark refers to it: of the one being written, only what is before the mark.
fn record(segment: &Segment, mark: &Mark) -> SegmentRecord {
    let here = segment.kind == Kind::Log && segment.id == mark.segment;
    SegmentRecord {
        id: segment.id,
        kind: segment.kind,
        end: if here { mark.offset } else { segment.end.load(Ordering::Relaxed) },
        newest: if here { mark.pin.revision } else { segment.newest.load(Ordering::Relaxed) },
    }
}

/// What a superseded version takes: its entry on disk, and its place in memory.
fn cost(version: &Version) -> u64 {
    u64::from(version.location.len) + size_of::<Version>() as u64
}

/// Gives back the space that was reserved and not used.
pub(super) fn trim(segment: &Segment) -> io::Result<()> {
    let end = segment.end.load(Ordering::Relaxed);
    if segment.file.size()? > end { segment.file.set_len(end) } else { Ok(()) }
}

fn request<T>(ask: Ask<'_>, make: impl FnOnce(Reply<T>) -> Request) -> Result<T, Error> {
    let (reply, answer) = oneshot::channel();
    ask(make(reply));
    answer.blocking_recv().map_err(|_| Error::Closed)?
}

fn compact(ask: Ask<'_>, target: i64) -> Result<(), Error> {
    match request(ask, |reply| Request::Compact(target, reply)) {
        // Someone else was faster.
        Err(Error::Compacted { .. }) => Ok(()),
        other => other,
    }
}
