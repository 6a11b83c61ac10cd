//! The one writer: evaluates transactions in order, makes a group of them durable with one sync, then publishes it.
//!
//! It takes requests and time, and does its IO through [`Shared::disk`]; the thread around it only waits and calls it.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::format::{Entry, EntryKind, GroupWriter, Place};
use super::hooks::{self, Mutant};
use super::index::{Index, Location, Version};
use super::lease::{Lease, Leases};
use super::log::Log;
use super::recent::Change;
use super::shared::{Found, Item, Pin, Shared};
use crate::{Compare, Error, KeyRange, LeaseId, Op, Range, Relation, Target, Txn};

/// A group is written when it has this many bytes, even if more requests wait.
const GROUP_BYTES: usize = hooks::bound(8 << 20, 1500);
/// A transaction's entries are never more.
const TXN_BYTES: usize = 64 << 20;
/// After the disk failed it is tried again this often.
const RETRY: Duration = Duration::from_secs(1);

pub(crate) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What callers ask of the writer.
pub(crate) enum Request {
    Txn(Txn, Reply<Outcome>),
    /// With a number that the caller chose, or 0.
    LeaseGrant(Duration, LeaseId, Reply<LeaseId>),
    LeaseKeepAlive(LeaseId, Reply<Duration>),
    LeaseRevoke(LeaseId, Reply<()>),
    Compact(i64, Reply<()>),
    /// Write down what long leases have left, if that is at least this much less than what is written.
    NoteLeases(Duration, Reply<()>),
    Mark(Reply<Mark>),
    Leases(Reply<Vec<LeaseId>>),
    LeaseState(LeaseId, Reply<LeaseState>),
}

impl Request {
    /// Whether it only looks at what is durable.
    fn is_look(&self) -> bool {
        matches!(self, Self::Mark(_) | Self::Leases(_) | Self::LeaseState(..))
    }
}

/// What is known of one lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseState {
    pub granted: Duration,
    pub left: Duration,
    pub keys: Vec<Bytes>,
}

/// A moment between two groups, from which a checkpoint is made.
pub(crate) struct Mark {
    pub(crate) pin: Pin,
    pub(crate) compacted: i64,
    pub(crate) segment: u32,
    pub(crate) offset: u64,
    pub(crate) leases: Vec<(LeaseId, Duration, Option<Duration>)>,
    /// Bytes of log since the mark before.
    pub(crate) appended: u64,
}

/// What a transaction did, values not read yet.
pub(crate) struct Outcome {
    pub(crate) succeeded: bool,
    pub(crate) revision: i64,
    /// The revision is its own.
    pub(crate) changed: bool,
    pub(crate) results: Vec<Done>,
    /// Keeps what `results` refers to.
    pub(crate) pin: Option<Pin>,
}

pub(crate) enum Done {
    Put(Option<Item>),
    Delete(Vec<Item>),
    Range(Range, Found),
    Txn(bool, Vec<Done>),
}

/// How the results of operations are nested, where transactions are.
enum Shape {
    Op,
    Txn(bool, Vec<Shape>),
}

impl Shape {
    fn fold(shapes: Vec<Shape>, flat: &mut impl Iterator<Item = Done>) -> Vec<Done> {
        let done = |shape| match shape {
            Self::Op => flat.next(),
            Self::Txn(succeeded, within) => Some(Done::Txn(succeeded, Self::fold(within, flat))),
        };
        shapes.into_iter().filter_map(done).collect()
    }
}

/// An answer that waits for its group to be durable: a refusal too, because it tells of what was staged before it.
enum Answer {
    Txn(Reply<Outcome>, Result<Outcome, Error>),
    Lease(Reply<LeaseId>, Result<LeaseId, Error>),
    Duration(Reply<Duration>, Result<Duration, Error>),
    Unit(Reply<()>, Result<(), Error>),
}

/// How to take back what a group staged.
enum Undo {
    Version(Bytes),
    Attached(LeaseId, Bytes),
    Detached(LeaseId, Bytes),
    Granted(LeaseId),
    Ended(LeaseId, Lease),
    Written(LeaseId, Option<Duration>),
}

/// The writer's state.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    log: Log,
    leases: Leases,
    /// The latest revision given, durable or staged.
    revision: i64,
    lease_seed: u64,
    buffer: Vec<u8>,
    retry_at: Option<Duration>,
    /// Bytes of log at which the upkeep was last woken.
    noticed: u64,
}

/// A group under construction.
struct Stage<'a> {
    index: &'a mut Index,
    frames: GroupWriter,
    changes: Vec<Change>,
    undo: Vec<Undo>,
    answers: Vec<Answer>,
    compact: i64,
    time: i64,
    now: Duration,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, log: Log, leases: Leases) -> Self {
        let revision = shared.visible();
        // No two runs that grant a lease have the same first segment, whatever the machine's calendar says.
        let run = shared.next_segment.load(Ordering::Relaxed).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let lease_seed = shared.store_id ^ (shared.clock.wall_millis() as u64).rotate_left(20) ^ run;
        Self { shared, log, leases, revision, lease_seed, buffer: Vec::new(), retry_at: None, noticed: 0 }
    }

    /// Whether so much was written that a checkpoint may be due.
    pub(crate) fn wants_upkeep(&mut self) -> bool {
        let due = self.log.appended >= self.shared.options.checkpoint_bytes && self.log.appended > self.noticed * 2;
        if due {
            self.noticed = self.log.appended;
        }
        due
    }

    /// How long to wait at most for requests before calling [`Writer::step`] without.
    pub(crate) fn patience(&self) -> Option<Duration> {
        let due = match (self.retry_at, self.leases.next_deadline()) {
            (Some(retry), _) => retry,
            (None, deadline) => deadline?,
        };
        Some(due.saturating_sub(self.now()))
    }

    /// What leases are measured with.
    fn now(&self) -> Duration {
        let clock = &self.shared.clock;
        if hooks::is(Mutant::LeaseByWallClock) {
            return Duration::from_millis(clock.wall_millis().max(0) as u64);
        }
        clock.monotonic()
    }

    /// Carries out requests in order, and what time demands. When it returns, all are answered.
    pub(crate) fn step(&mut self, requests: Vec<Request>) {
        // Between groups, where memory has exactly what is durable.
        let (looks, requests): (Vec<_>, Vec<_>) = requests.into_iter().partition(Request::is_look);
        looks.into_iter().for_each(|request| self.look(request));
        let mut requests = requests.into_iter().peekable();
        let now = self.now();
        let mut expired = match self.retry_at {
            Some(retry) if now < retry => Vec::new(),
            _ => self.leases.expired(now),
        };
        if let Some(retry) = self.retry_at {
            if now >= retry {
                self.retry();
            }
            if self.retry_at.is_some() {
                requests.for_each(|request| self.refuse(request));
                return;
            }
        }
        while requests.peek().is_some() || !expired.is_empty() {
            let place = match self.log.place(&self.shared, self.revision) {
                Ok(place) => place,
                Err(error) => {
                    self.fail(&error);
                    requests.for_each(|request| self.refuse(request));
                    return;
                }
            };
            self.group(&mut requests, std::mem::take(&mut expired), place);
            if self.retry_at.is_some() {
                requests.for_each(|request| self.refuse(request));
                return;
            }
        }
    }

    /// Stages, writes and publishes one group.
    fn group(&mut self, requests: &mut impl Iterator<Item = Request>, expired: Vec<LeaseId>, place: Place) {
        let shared = Arc::clone(&self.shared);
        let mut index = shared.index_mut();
        let mut stage = Stage {
            index: &mut index,
            frames: GroupWriter::new(std::mem::take(&mut self.buffer), place),
            changes: Vec::new(),
            undo: Vec::new(),
            answers: Vec::new(),
            compact: 0,
            time: shared.clock.wall_millis(),
            now: self.now(),
        };
        for lease in expired {
            self.end_lease(&mut stage, lease);
        }
        while stage.frames.buffer.len() < GROUP_BYTES {
            let Some(request) = requests.next() else { break };
            self.stage(&mut stage, request);
        }
        let Stage { frames, changes, undo, answers, compact, time, .. } = stage;
        let keys = index.live as u64;
        drop(index);
        let before = shared.visible();
        if hooks::is(Mutant::VisibleBeforeDurable) {
            shared.visible.store(self.revision, Ordering::Release);
        }
        if !frames.is_empty()
            && let Err(error) = self.log.append(&frames.buffer, self.revision)
        {
            if !hooks::is(Mutant::FailedGroupStays) {
                self.undo(undo);
            }
            self.revision = before;
            let reason = self.fail(&error);
            for answer in answers {
                answer.fail(&reason);
            }
            return;
        }
        if self.revision > before {
            if let Some(kept) = changes.iter().find(|change| shared.keeps(&change.key)) {
                shared.times().note(time.div_euclid(1000), kept.version.mod_revision);
            }
            shared.hub.publish(&changes, self.revision, || {
                let mut recent = shared.recent.write().unwrap_or_else(PoisonError::into_inner);
                recent.extend(changes.iter().cloned());
                shared.visible.store(self.revision, Ordering::Release);
            });
            shared.keys.store(keys, Ordering::Relaxed);
        }
        if compact > 0 {
            shared.compacted.fetch_max(compact, Ordering::SeqCst);
        }
        self.buffer = frames.buffer;
        if self.buffer.capacity() > 1 << 20 {
            self.buffer = Vec::new();
        }
        answers.into_iter().for_each(Answer::send);
    }

    fn stage(&mut self, stage: &mut Stage<'_>, request: Request) {
        match request {
            Request::Txn(txn, reply) => {
                let result = self.txn(stage, txn);
                stage.answer(Answer::Txn(reply, result));
            }
            Request::LeaseGrant(_, id, reply) if self.leases.contains(id) => {
                stage.answer(Answer::Lease(reply, Err(Error::LeaseExists(id))));
            }
            Request::LeaseGrant(ttl, chosen, reply) => {
                let id = if chosen == 0 { self.new_lease_id() } else { chosen };
                let millis = ttl.as_millis().min(u128::from(u64::MAX)) as u64;
                stage.control(&Entry::control(EntryKind::LeaseGrant, 0, millis, id));
                self.leases.insert(id, ttl, None, stage.now);
                stage.undo.push(Undo::Granted(id));
                stage.answer(Answer::Lease(reply, Ok(id)));
            }
            Request::LeaseKeepAlive(id, reply) => {
                let renewed = self.keep_alive(stage, id).ok_or(Error::LeaseNotFound(id));
                stage.answer(Answer::Duration(reply, renewed));
            }
            Request::LeaseRevoke(id, reply) => {
                let ended = self.end_lease(stage, id);
                stage.answer(Answer::Unit(reply, if ended { Ok(()) } else { Err(Error::LeaseNotFound(id)) }));
            }
            Request::Compact(revision, reply) => {
                let compacted = self.shared.compacted().max(stage.compact);
                let result = if revision > self.revision {
                    Err(Error::FutureRevision { asked: revision, current: self.revision })
                } else if revision <= compacted {
                    Err(Error::Compacted { asked: revision, compacted })
                } else {
                    stage.control(&Entry::control(EntryKind::Compact, revision, 0, 0));
                    stage.compact = revision;
                    Ok(())
                };
                stage.answer(Answer::Unit(reply, result));
            }
            Request::NoteLeases(step, reply) => {
                for (id, left) in self.leases.to_write(stage.now, step) {
                    self.note_lease(stage, id, Some(left));
                }
                stage.answer(Answer::Unit(reply, Ok(())));
            }
            look @ (Request::Mark(_) | Request::Leases(_) | Request::LeaseState(..)) => self.look(look),
        }
    }

    fn look(&mut self, request: Request) {
        match request {
            Request::Mark(reply) => answer(reply, Ok(self.mark())),
            Request::Leases(reply) => answer(reply, Ok(self.leases.iter().map(|(id, _)| id).collect())),
            Request::LeaseState(id, reply) => {
                let now = self.now();
                let state = self.leases.get(id).map(|lease| LeaseState {
                    granted: lease.ttl,
                    left: lease.left(now),
                    keys: lease.keys.iter().cloned().collect(),
                });
                answer(reply, state.ok_or(Error::LeaseNotFound(id)));
            }
            _ => {}
        }
    }

    /// The moment between two groups that is now.
    pub(crate) fn mark(&mut self) -> Mark {
        self.noticed = 0;
        let (segment, offset) = self.log.position();
        Mark {
            pin: self.shared.pin(self.revision),
            compacted: self.shared.compacted(),
            segment,
            offset,
            leases: self.leases.iter().map(|(id, lease)| (id, lease.ttl, lease.written)).collect(),
            appended: std::mem::take(&mut self.log.appended),
        }
    }

    fn new_lease_id(&mut self) -> LeaseId {
        loop {
            // splitmix64: spread out, so that numbers of another run are not met again.
            self.lease_seed = self.lease_seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.lease_seed;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let id = ((mixed ^ (mixed >> 31)) >> 1) as i64;
            if id != 0 && !self.leases.contains(id) {
                return id;
            }
        }
    }

    fn keep_alive(&mut self, stage: &mut Stage<'_>, id: LeaseId) -> Option<Duration> {
        let lease = self.leases.get(id)?;
        let ttl = lease.ttl;
        if lease.written.is_some() && !hooks::is(Mutant::RenewalNotLogged) {
            self.note_lease(stage, id, None);
        }
        self.leases.renew(id, stage.now);
        Some(ttl)
    }

    /// Writes what a lease has left; `None` is all of it.
    fn note_lease(&mut self, stage: &mut Stage<'_>, id: LeaseId, left: Option<Duration>) {
        let Some(lease) = self.leases.get(id) else { return };
        let millis = left.unwrap_or(lease.ttl).as_millis() as u64;
        stage.undo.push(Undo::Written(id, lease.written));
        stage.control(&Entry::control(EntryKind::LeaseRemaining, 0, millis, id));
        self.leases.set_written(id, left);
    }

    /// Ends a lease and deletes its keys under one revision; tells whether there was one.
    fn end_lease(&mut self, stage: &mut Stage<'_>, id: LeaseId) -> bool {
        let Some(lease) = self.leases.remove(id) else { return false };
        let revision = self.revision + 1;
        stage.frames.begin();
        if !hooks::is(Mutant::LeaseEndNotLogged) {
            stage.frames.entry(&Entry::control(EntryKind::LeaseEnd, 0, 0, id));
        }
        let mut changed = false;
        for key in &lease.keys {
            changed |= self.delete(stage, key, revision).is_some();
        }
        self.revision += i64::from(changed);
        stage.frames.finish(if changed { revision } else { 0 }, stage.time);
        stage.undo.push(Undo::Ended(id, lease));
        true
    }

    fn txn(&mut self, stage: &mut Stage<'_>, txn: Txn) -> Result<Outcome, Error> {
        let succeeded = self.all_hold(stage, &txn.compares)?;
        let mut ops = if succeeded { txn.success } else { txn.failure };
        let mut shapes = None;
        if ops.iter().any(|op| matches!(op, Op::Txn(_))) {
            let mut flat = Vec::new();
            shapes = Some(self.flatten(stage, ops, &mut flat)?);
            ops = flat;
        }
        let writes = self.check(stage, &ops)?;
        let revision = self.revision + 1;
        let first_change = stage.changes.len();
        let first_undo = stage.undo.len();
        if writes {
            stage.frames.begin();
        }
        let frame = stage.frames.buffer.len();
        let mut results = Vec::with_capacity(ops.len());
        let mut reads = txn.previous;
        // What was replaced is still needed below this revision, and what a range asks for at its own.
        let mut oldest = self.revision;
        for op in ops {
            results.push(match op {
                Op::Put { key, value, lease } => Done::Put(self.put(stage, &key, value, lease, revision)),
                Op::Delete { keys } => {
                    let doomed: Vec<Bytes> = stage.live(&keys, revision).map(|(key, _)| key.clone()).collect();
                    Done::Delete(doomed.iter().filter_map(|key| self.delete(stage, key, revision)).collect())
                }
                Op::Range(range) => {
                    reads |= !range.keys_only && !range.count_only;
                    let at = if range.revision == 0 { revision } else { range.revision };
                    oldest = oldest.min(at);
                    let mut found = Found { items: Vec::new(), count: 0, more: false };
                    for (key, chain) in stage.index.range(&range.keys) {
                        found.visit(&range, key, chain.at(at));
                    }
                    Done::Range(range, found)
                }
                // None is left by `flatten`.
                Op::Txn(_) => Done::Txn(false, Vec::new()),
            });
        }
        if let Some(shapes) = shapes {
            results = Shape::fold(shapes, &mut results.into_iter());
        }
        let changed = stage.undo.len() > first_undo;
        if changed {
            // Within a revision, changes are told in key order, as history finds them.
            stage.changes[first_change..].sort_by(|a, b| a.key.cmp(&b.key));
            self.revision = revision;
            stage.frames.finish(revision, stage.time);
        } else if writes {
            stage.frames.buffer.truncate(frame - super::format::FRAME_HEADER);
        }
        let pin = reads.then(|| self.shared.pin(oldest));
        Ok(Outcome { succeeded, revision: self.revision, changed, results, pin })
    }

    /// Chooses the branches of transactions within, all by what is there before the first operation.
    fn flatten(&self, stage: &Stage<'_>, ops: Vec<Op>, flat: &mut Vec<Op>) -> Result<Vec<Shape>, Error> {
        let mut shapes = Vec::with_capacity(ops.len());
        for op in ops {
            let Op::Txn(txn) = op else {
                flat.push(op);
                shapes.push(Shape::Op);
                continue;
            };
            let succeeded = self.all_hold(stage, &txn.compares)?;
            let ops = if succeeded { txn.success } else { txn.failure };
            shapes.push(Shape::Txn(succeeded, self.flatten(stage, ops, flat)?));
        }
        Ok(shapes)
    }

    /// Refuses operations that can't be applied as a whole; tells whether any of them writes.
    fn check(&self, stage: &Stage<'_>, ops: &[Op]) -> Result<bool, Error> {
        let mut size = 0;
        let mut puts: BTreeSet<&[u8]> = BTreeSet::new();
        let mut writes = 0;
        for op in ops {
            match op {
                Op::Put { key, value, lease } => {
                    writes += 1;
                    size += key.len() + value.len();
                    if *lease != 0 && !self.leases.contains(*lease) {
                        return Err(Error::LeaseNotFound(*lease));
                    }
                    if !puts.insert(key) {
                        return Err(Error::DuplicateKey { key: String::from_utf8_lossy(key).into_owned() });
                    }
                }
                Op::Delete { .. } => writes += 1,
                Op::Txn(_) => {}
                Op::Range(range) => {
                    let compacted = self.shared.compacted().max(stage.compact);
                    if range.revision > self.revision {
                        return Err(Error::FutureRevision { asked: range.revision, current: self.revision });
                    }
                    if range.revision != 0 && range.revision < compacted {
                        return Err(Error::Compacted { asked: range.revision, compacted });
                    }
                }
            }
        }
        if size > TXN_BYTES {
            return Err(Error::TooLarge { size, limit: TXN_BYTES });
        }
        if writes > 1 {
            for op in ops {
                if let Op::Delete { keys } = op
                    && let Some(key) = puts.iter().find(|key| keys.contains(key))
                {
                    return Err(Error::DuplicateKey { key: String::from_utf8_lossy(key).into_owned() });
                }
            }
        }
        Ok(writes > 0)
    }

    fn all_hold(&self, stage: &Stage<'_>, compares: &[Compare]) -> Result<bool, Error> {
        for compare in compares {
            if !self.holds(stage, compare)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn holds(&self, stage: &Stage<'_>, compare: &Compare) -> Result<bool, Error> {
        let held = stage.index.get(&compare.key, i64::MAX).map(|(_, version)| *version);
        let ordering = match &compare.target {
            Target::ModRevision(wanted) => held.map_or(0, |held| held.mod_revision).cmp(wanted),
            Target::CreateRevision(wanted) => held.map_or(0, |held| held.create_revision).cmp(wanted),
            Target::Version(wanted) => held.map_or(0, |held| held.version as i64).cmp(wanted),
            Target::Lease(wanted) => held.map_or(0, |held| held.lease).cmp(wanted),
            Target::Value(wanted) => {
                // As in etcd, no comparison of values holds for a key that is not there.
                let Some(held) = held else { return Ok(false) };
                let staged =
                    |change: &&Change| change.version.mod_revision == held.mod_revision && change.key == compare.key;
                let value = match stage.changes.iter().rev().find(staged) {
                    Some(change) => change.value.clone(),
                    None => {
                        let mut kvs = self.shared.values(vec![(compare.key.clone(), held)])?;
                        kvs.pop().map(|kv| kv.value).unwrap_or_default()
                    }
                };
                value.cmp(wanted)
            }
        };
        Ok(match compare.relation {
            Relation::Equal => ordering.is_eq(),
            Relation::NotEqual => ordering.is_ne(),
            Relation::Greater => ordering.is_gt(),
            Relation::Less => ordering.is_lt(),
        })
    }

    fn put(&mut self, stage: &mut Stage<'_>, key: &Bytes, value: Bytes, lease: LeaseId, revision: i64) -> Option<Item> {
        let previous = stage.index.get(key, i64::MAX).map(|(key, version)| (key.clone(), *version));
        let (create_revision, version) = match &previous {
            Some((_, previous)) => (previous.create_revision, previous.version + 1),
            None => (revision, 1),
        };
        let entry =
            Entry { kind: EntryKind::Put, mod_revision: revision, create_revision, version, lease, key, value: &value };
        let location = stage.entry(&entry);
        let version = Version { mod_revision: revision, create_revision, version, lease, location };
        let key = stage.push(&self.shared, key, value, version);
        let before = previous.as_ref().map_or(0, |(_, previous)| previous.lease);
        if before != lease {
            self.detach(stage, before, &key);
            if lease != 0 {
                self.leases.attach(lease, &key);
                stage.undo.push(Undo::Attached(lease, key));
            }
        }
        previous
    }

    fn delete(&mut self, stage: &mut Stage<'_>, key: &Bytes, revision: i64) -> Option<Item> {
        let (key, previous) = stage.index.get(key, i64::MAX).map(|(key, version)| (key.clone(), *version))?;
        let kind = EntryKind::Tombstone;
        let entry =
            Entry { kind, mod_revision: revision, create_revision: 0, version: 0, lease: 0, key: &key, value: &[] };
        let location = stage.entry(&entry);
        let version = Version { mod_revision: revision, create_revision: 0, version: 0, lease: 0, location };
        stage.push(&self.shared, &key, Bytes::new(), version);
        self.detach(stage, previous.lease, &key);
        Some((key, previous))
    }

    fn detach(&mut self, stage: &mut Stage<'_>, lease: LeaseId, key: &Bytes) {
        if lease != 0 && self.leases.contains(lease) {
            self.leases.detach(lease, key);
            stage.undo.push(Undo::Detached(lease, key.clone()));
        }
    }

    fn undo(&mut self, undo: Vec<Undo>) {
        let mut index = self.shared.index_mut();
        for step in undo.into_iter().rev() {
            match step {
                Undo::Version(key) => {
                    if let Some(chain) = index.keys.get(&key) {
                        self.shared.segments.account(chain.latest().location, false);
                    }
                    index.pop(&key);
                }
                Undo::Attached(lease, key) => self.leases.detach(lease, &key),
                Undo::Detached(lease, key) => self.leases.attach(lease, &key),
                Undo::Granted(lease) => drop(self.leases.remove(lease)),
                Undo::Ended(id, lease) => self.leases.put_back(id, lease),
                Undo::Written(id, written) => self.leases.set_written(id, written),
            }
        }
    }

    /// Takes no writes until a retry succeeds; tells why.
    fn fail(&mut self, error: &std::io::Error) -> String {
        let reason = format!("{} cannot be written: {error}", self.shared.disk.path().display());
        tracing::error!(%reason, "the store is read-only until the disk takes writes again");
        *self.shared.read_only.write().unwrap_or_else(PoisonError::into_inner) = Some(reason.clone());
        self.retry_at = Some(self.now() + RETRY);
        reason
    }

    /// Begins a new segment to see whether the disk takes writes again.
    fn retry(&mut self) {
        match self.log.place(&self.shared, self.revision) {
            Ok(_) => {
                tracing::info!("the store takes writes again");
                *self.shared.read_only.write().unwrap_or_else(PoisonError::into_inner) = None;
                self.retry_at = None;
            }
            Err(error) => {
                tracing::debug!(%error, "the store is still read-only");
                self.retry_at = Some(self.now() + RETRY);
            }
        }
    }

    fn refuse(&self, request: Request) {
        let reason = self.shared.read_only.read().unwrap_or_else(PoisonError::into_inner).clone();
        let error = || Error::ReadOnly { reason: reason.clone().unwrap_or_default() };
        match request {
            Request::Txn(_, reply) => answer(reply, Err(error())),
            Request::LeaseGrant(_, _, reply) => answer(reply, Err(error())),
            Request::LeaseKeepAlive(_, reply) => answer(reply, Err(error())),
            Request::LeaseRevoke(_, reply) | Request::Compact(_, reply) | Request::NoteLeases(_, reply) => {
                answer(reply, Err(error()));
            }
            Request::Mark(reply) => answer(reply, Err(error())),
            Request::Leases(reply) => answer(reply, Err(error())),
            Request::LeaseState(_, reply) => answer(reply, Err(error())),
        }
    }
}

impl Stage<'_> {
    fn entry(&mut self, entry: &Entry<'_>) -> Location {
        let (offset, len) = self.frames.entry(entry);
        Location { segment: self.frames.segment(), offset, len }
    }

    /// Answers when what is staged is durable.
    fn answer(&mut self, answer: Answer) {
        if hooks::is(Mutant::RefusalNotDurable) && answer.is_refusal() {
            return answer.send();
        }
        self.answers.push(answer);
    }

    /// A frame of one entry about a lease or the history.
    fn control(&mut self, entry: &Entry<'_>) {
        self.frames.begin();
        self.frames.entry(entry);
        self.frames.finish(0, self.time);
    }

    /// Puts a version into memory, above what readers see.
    fn push(&mut self, shared: &Shared, key: &[u8], value: Bytes, version: Version) -> Bytes {
        let key = self.index.push(key, version);
        shared.segments.account(version.location, true);
        self.changes.push(Change { key: key.clone(), value, version });
        self.undo.push(Undo::Version(key.clone()));
        key
    }

    /// Live keys of a range as the transaction sees them.
    fn live<'b>(&'b self, keys: &'b KeyRange, revision: i64) -> impl Iterator<Item = (&'b Bytes, &'b Version)> {
        self.index.range(keys).filter_map(move |(key, chain)| {
            chain.at(revision).filter(|version| !version.is_tombstone()).map(|version| (key, version))
        })
    }
}

impl Answer {
    fn send(self) {
        match self {
            Self::Txn(reply, result) => answer(reply, result),
            Self::Lease(reply, result) => answer(reply, result),
            Self::Duration(reply, result) => answer(reply, result),
            Self::Unit(reply, result) => answer(reply, result),
        }
    }

    fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Txn(_, Err(_)) | Self::Lease(_, Err(_)) | Self::Duration(_, Err(_)) | Self::Unit(_, Err(_))
        )
    }

    fn fail(self, reason: &str) {
        let error = Error::Unknown { reason: reason.to_owned() };
        match self {
            Self::Txn(reply, _) => answer(reply, Err(error)),
            Self::Lease(reply, _) => answer(reply, Err(error)),
            Self::Duration(reply, _) => answer(reply, Err(error)),
            Self::Unit(reply, _) => answer(reply, Err(error)),
        }
    }
}

fn answer<T>(reply: Reply<T>, result: Result<T, Error>) {
    // A caller that went away no longer wants to know.
    drop(reply.send(result));
}
