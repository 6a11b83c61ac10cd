//! The store as the API server reaches it: every call and every batch of a watch goes over a wire, which may be slow, cut or
//! end nowhere, and beyond which values can be encrypted.

use super::view::Storage;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::testing::fiber;
use store::testing::sim::ask::{Answer, Ask};
use store::testing::sim::machine::{Machine, Request, Slot, answered};
use store::{
    Embedded, Error, Event, KeyRange, KeyValue, LeaseId, OpResult, Range, RangeResult, Store, StoreStatus, Txn,
    TxnResult, Watch, WatchBatch, WatchStream,
};
use tokio::sync::{mpsc, oneshot};

/// What values have that cannot be read without the key.
pub(super) const SEALED: &str = "\"sealed\":\"1\"";
/// What is there in their place.
const VEIL: &[u8] = b"k8s:enc:aescbc:v1:key1:";
/// Batches that are on their way.
const ON_THE_WAY: usize = 1;

type Batches = mpsc::Receiver<Result<WatchBatch, Error>>;

/// Something that waits at the API server's end.
struct Asked {
    ask: Ask,
    reply: oneshot::Sender<Answer>,
}

/// A watch that waits at the API server's end.
struct Watched {
    watch: Watch,
    reply: oneshot::Sender<Result<Batches, Error>>,
}

/// What of a storage the API server can't read, as far as it was told.
#[derive(Clone, Debug, Default)]
pub(super) struct Veils {
    /// The keys behind the storage's prefix, and the version of each.
    pub(super) keys: BTreeMap<String, i64>,
    /// How often it was told of a version that it can't read, or again of one that it could not.
    pub(super) turns: u64,
    /// Those that it could read when it looked again, and how often it was not answered before that.
    mended: BTreeMap<String, u64>,
}

/// A wire with those in the store's process who bring over what waits at the API server's end.
pub(super) struct Line {
    pub(super) wire: Arc<Wire>,
    /// The seats of those who call, and of those who serve a watch.
    seats: (std::ops::Range<usize>, std::ops::Range<usize>),
    callers: Vec<Option<Request<Asked, (), Answer>>>,
    connections: Vec<Slot<()>>,
}

impl Line {
    pub(super) fn new(callers: std::ops::Range<usize>, connections: std::ops::Range<usize>) -> Line {
        Line {
            wire: Arc::default(),
            callers: callers.clone().map(|_| None).collect(),
            connections: connections.clone().map(|_| Slot::default()).collect(),
            seats: (callers, connections),
        }
    }

    /// Nothing is under way but watches.
    pub(super) fn is_idle(&self) -> bool {
        self.wire.is_quiet() && self.callers.iter().all(Option::is_none)
    }

    /// Nothing that was sent arrives: one end is gone.
    pub(super) fn drop_all(&mut self) {
        self.callers.iter_mut().for_each(|caller| *caller = None);
        self.wire.drop_all();
    }

    /// Cuts off what is under way: the watch, or the calls.
    pub(super) fn cut(&mut self, machine: &Machine, watch: bool) -> Result<(), String> {
        if watch {
            return self.seats.1.clone().try_for_each(|seat| machine.stop(seat));
        }
        self.callers.iter_mut().for_each(|caller| *caller = None);
        self.seats.0.clone().try_for_each(|seat| machine.stop(seat))
    }

    /// What waits at one end of the wire gets to the other.
    pub(super) fn pump(&mut self, machine: &Machine) {
        for caller in &mut self.callers {
            if let Some((asked, (), answer)) = answered(caller) {
                // Who asked may be gone.
                drop(asked.reply.send(answer));
            }
        }
        if !machine.is_open() {
            self.wire.drop_all();
            return;
        }
        for (seat, caller) in self.seats.0.clone().zip(&mut self.callers) {
            if !machine.is_free(seat) {
                continue;
            }
            let Some(asked) = self.wire.next_asked() else { break };
            let (engine, answer, ask) = (machine.engine(), Slot::default(), asked.ask.clone());
            machine.start(seat, &answer, move || fiber::wait(ask.of(&engine)));
            *caller = Some(Request { asked, since: (), answer });
        }
        for (seat, slot) in self.seats.1.clone().zip(&self.connections) {
            if !machine.is_free(seat) {
                continue;
            }
            let Some(watched) = self.wire.next_watched() else { break };
            let engine = machine.engine();
            machine.start(seat, slot, move || serve(&engine, watched));
        }
    }
}

/// What the judge may know of the wire.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// Calls and watches of which the end was lost.
    pub(super) losses: u64,
    /// Values that could not be read.
    pub(super) veiled: u64,
    /// Calls that were not answered, or with an error.
    pub(super) unanswered: u64,
    /// How often the API server was told that what it wants is compacted.
    pub(super) compacted: u64,
    /// It was, and does not follow the store again yet.
    pub(super) reloading: bool,
    /// How often the API server lost the store's watch, for whatever reason.
    pub(super) breaks: u64,
    /// It has, and does not follow the store again yet.
    pub(super) apart: bool,
    /// The key that some values are encrypted with is not there.
    pub(super) keyless: bool,
    /// Calls of the store's disk that failed.
    pub(super) failures: u64,
    /// The revision and the compaction mark that it was told last.
    pub(super) status: (i64, i64),
}

#[derive(Default)]
struct Inner {
    asked: VecDeque<Asked>,
    watched: VecDeque<Watched>,
    known: Known,
    veils: BTreeMap<Storage, Veils>,
    /// The key that values are encrypted with is not there.
    keyless: bool,
}

#[derive(Default)]
pub(super) struct Wire(Mutex<Inner>);

fn lost() -> Error {
    Error::Unavailable("the connection was lost".into())
}

impl Wire {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn known(&self) -> Known {
        let inner = self.inner();
        Known { keyless: inner.keyless, ..inner.known }
    }

    pub(super) fn has_key(&self) -> bool {
        !self.inner().keyless
    }

    pub(super) fn set_key(&self, there: bool) {
        self.inner().keyless = !there;
    }

    fn next_asked(&self) -> Option<Asked> {
        self.inner().asked.pop_front()
    }

    fn next_watched(&self) -> Option<Watched> {
        self.inner().watched.pop_front()
    }

    pub(super) fn is_quiet(&self) -> bool {
        let inner = self.inner();
        inner.asked.is_empty() && inner.watched.is_empty()
    }

    /// Nothing that was sent arrives.
    fn drop_all(&self) {
        let mut inner = self.inner();
        inner.asked.clear();
        inner.watched.clear();
    }

    async fn ask(&self, ask: Ask) -> Result<Answer, Error> {
        let (reply, answer) = oneshot::channel();
        self.inner().asked.push_back(Asked { ask, reply });
        let answer = answer.await.map_err(|_| {
            let mut inner = self.inner();
            inner.known.losses += 1;
            inner.known.unanswered += 1;
            lost()
        })?;
        if let Some(error) = answer.error() {
            self.note(error);
        }
        Ok(answer)
    }

    fn note(&self, error: &Error) {
        let mut inner = self.inner();
        inner.known.unanswered += 1;
        if matches!(error, Error::Compacted { .. }) {
            inner.known.compacted += 1;
            inner.known.reloading = true;
        }
    }

    /// What of each storage can't be read.
    pub(super) fn veils(&self) -> BTreeMap<Storage, Veils> {
        self.inner().veils.clone()
    }

    /// A new API server was told of nothing yet.
    pub(super) fn forget_veils(&self) {
        self.inner().veils.values_mut().for_each(|veils| *veils = Veils { turns: veils.turns, ..Veils::default() });
    }

    /// The API server has done all that comes of what it was told. What it looked at again it has taken in, unless it was
    /// not answered meanwhile: then it does with none of it.
    pub(super) fn rests(&self) {
        let mut inner = self.inner();
        let unanswered = inner.known.unanswered;
        for veils in inner.veils.values_mut() {
            for (key, before) in std::mem::take(&mut veils.mended) {
                if before == unanswered {
                    veils.keys.remove(&key);
                }
            }
        }
    }

    /// What is left of a value; whether that is nothing.
    fn veil(&self, kv: &mut KeyValue) -> bool {
        let mut inner = self.inner();
        let veiled = inner.keyless && kv.value.windows(SEALED.len()).any(|part| part == SEALED.as_bytes());
        if veiled {
            inner.known.veiled += 1;
            kv.value = Bytes::from_static(VEIL);
        }
        veiled
    }

    /// The API server is told that a version of a key is there, or none; `since`: what it was told of this or a later one
    /// counts, as of what a load was ahead of.
    fn told(&self, key: &[u8], revision: i64, veiled: bool, since: i64) {
        let Some((storage, key)) = std::str::from_utf8(key).ok().and_then(Storage::of) else { return };
        let mut inner = self.inner();
        let veils = inner.veils.entry(storage).or_default();
        let dark = veils.keys.get(key).copied();
        if dark.is_some_and(|dark| dark >= since) {
            return;
        }
        if veiled {
            veils.keys.insert(key.to_owned(), revision);
        } else {
            veils.keys.remove(key);
        }
        veils.turns += u64::from(veiled || dark.is_some());
    }

    /// The API server loads some keys, or looks again at one that it could not read.
    fn loaded(&self, keys: &KeyRange, result: &mut RangeResult) {
        let last = result.kvs.last().filter(|_| result.more).map(|kv| kv.key.clone());
        let mut found = BTreeSet::new();
        for kv in &mut result.kvs {
            let veiled = self.veil(kv);
            let (storage, key) = match std::str::from_utf8(&kv.key).ok().and_then(Storage::of) {
                Some((storage, key)) => (storage, key.to_owned()),
                None => continue,
            };
            let dark = self.inner().veils.get(&storage).and_then(|veils| veils.keys.get(&key).copied());
            if keys.end.is_some() {
                self.told(&kv.key, kv.mod_revision, veiled, kv.mod_revision + 1);
            } else if !veiled && dark == Some(kv.mod_revision) {
                // Of a key alone it is only of use that the same version can be read.
                let mut inner = self.inner();
                let unanswered = inner.known.unanswered;
                let veils = inner.veils.entry(storage).or_default();
                veils.mended.insert(key.clone(), unanswered);
                veils.turns += 1;
            }
            found.insert((storage, key));
        }
        if keys.end.is_none() {
            return;
        }
        let mut inner = self.inner();
        for (storage, veils) in &mut inner.veils {
            let before = veils.keys.len();
            veils.keys.retain(|key, _| {
                let full = Bytes::from(format!("{}{key}", storage.prefix()));
                let covered = keys.contains(&full) && last.as_ref().is_none_or(|last| full <= *last);
                !covered || found.contains(&(*storage, key.clone()))
            });
            veils.turns += u64::from(veils.keys.len() < before);
        }
    }
}

/// The store's end of a watch: hands batches on until one end has had enough.
fn serve(engine: &Embedded, watched: Watched) {
    fiber::wait(async {
        let mut stream = match engine.watch(watched.watch).await {
            Ok(stream) => stream,
            Err(error) => {
                // Who asked may be gone.
                drop(watched.reply.send(Err(error)));
                return;
            }
        };
        let (batches, receiver) = mpsc::channel(ON_THE_WAY);
        if watched.reply.send(Ok(receiver)).is_err() {
            return;
        }
        loop {
            let told = tokio::select! {
                biased;
                () = batches.closed() => return,
                told = stream.next() => told,
            };
            let Some(told) = told else { return };
            let ended = told.is_err();
            if batches.send(told).await.is_err() || ended {
                return;
            }
        }
    });
}

/// The answer that belongs to a call.
macro_rules! answer {
    ($wire:expr, $ask:expr, $kind:ident) => {
        match $wire.ask($ask).await? {
            Answer::$kind(result) => result,
            other => panic!("the store answers {other:?}"),
        }
    };
}

/// The wire as the API server holds it.
pub(super) struct End(pub(super) Arc<Wire>);

#[async_trait]
impl Store for End {
    async fn txn(&self, txn: Txn) -> Result<TxnResult, Error> {
        let mut result = answer!(self.0, Ask::Txn(txn), Txn)?;
        for result in &mut result.results {
            if let OpResult::Range(found) = result {
                for kv in &mut found.kvs {
                    self.0.veil(kv);
                }
            }
        }
        Ok(result)
    }

    async fn range(&self, range: Range) -> Result<RangeResult, Error> {
        let mut result = answer!(self.0, Ask::Range(range.clone()), Range)?;
        self.0.loaded(&range.keys, &mut result);
        Ok(result)
    }

    async fn watch(&self, watch: Watch) -> Result<WatchStream, Error> {
        let (reply, answer) = oneshot::channel();
        self.0.inner().watched.push_back(Watched { watch, reply });
        let begun = answer.await.unwrap_or_else(|_| {
            self.0.inner().known.losses += 1;
            Err(lost())
        });
        let batches = begun.inspect_err(|error| self.0.note(error))?;
        self.0.inner().known.reloading = false;
        let wire = self.0.clone();
        Ok(Box::pin(futures::stream::unfold(Some(batches), move |batches| {
            let wire = wire.clone();
            async move {
                let mut batches = batches?;
                let mut told = batches.recv().await.unwrap_or_else(|| {
                    wire.inner().known.losses += 1;
                    Err(lost())
                });
                match &mut told {
                    Ok(batch) => {
                        wire.inner().known.apart = false;
                        for event in &mut batch.events {
                            match event {
                                Event::Put { kv, .. } => {
                                    let veiled = wire.veil(kv);
                                    wire.told(&kv.key, kv.mod_revision, veiled, kv.mod_revision);
                                }
                                Event::Delete { key, revision, .. } => wire.told(key, *revision, false, *revision),
                            }
                        }
                    }
                    Err(error) => {
                        wire.note(error);
                        let mut inner = wire.inner();
                        inner.known.breaks += 1;
                        inner.known.apart = true;
                    }
                }
                let rest = told.is_ok().then_some(batches);
                Some((told, rest))
            }
        })))
    }

    async fn compact(&self, revision: i64) -> Result<(), Error> {
        answer!(self.0, Ask::Compact(revision), Done)
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId, Error> {
        answer!(self.0, Ask::Grant(ttl, 0), Lease)
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<Duration, Error> {
        answer!(self.0, Ask::KeepAlive(lease), Ttl)
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), Error> {
        answer!(self.0, Ask::Revoke(lease), Done)
    }

    async fn request_progress(&self) -> Result<i64, Error> {
        answer!(self.0, Ask::Progress, Revision)
    }

    async fn status(&self) -> Result<StoreStatus, Error> {
        let status = answer!(self.0, Ask::Status, Status)?;
        self.0.inner().known.status = (status.revision, status.compacted);
        Ok(status)
    }
}
