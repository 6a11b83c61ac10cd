//! The store as the API server reaches it: every call and every batch of a watch goes over a wire, which may be slow, cut or
//! end nowhere, and beyond which values can be encrypted.

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::testing::fiber;
use store::testing::sim::ask::{Answer, Ask};
use store::{
    Embedded, Error, Event, KeyValue, LeaseId, Range, RangeResult, Store, StoreStatus, Txn, TxnResult, Watch,
    WatchBatch, WatchStream,
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
pub(super) struct Asked {
    pub(super) ask: Ask,
    pub(super) reply: oneshot::Sender<Answer>,
}

/// A watch that waits at the API server's end.
pub(super) struct Watched {
    watch: Watch,
    reply: oneshot::Sender<Result<Batches, Error>>,
}

/// What the judge may know of the wire.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// Calls and watches of which the end was lost.
    pub(super) losses: u64,
    /// Values that could not be read.
    pub(super) veiled: u64,
    /// How often the API server was told that what it wants is compacted.
    pub(super) compacted: u64,
    /// It was, and does not follow the store again yet.
    pub(super) reloading: bool,
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
        self.inner().known
    }

    pub(super) fn has_key(&self) -> bool {
        !self.inner().keyless
    }

    pub(super) fn set_key(&self, there: bool) {
        self.inner().keyless = !there;
    }

    pub(super) fn next_asked(&self) -> Option<Asked> {
        self.inner().asked.pop_front()
    }

    pub(super) fn next_watched(&self) -> Option<Watched> {
        self.inner().watched.pop_front()
    }

    pub(super) fn is_quiet(&self) -> bool {
        let inner = self.inner();
        inner.asked.is_empty() && inner.watched.is_empty()
    }

    /// Nothing that was sent arrives.
    pub(super) fn drop_all(&self) {
        let mut inner = self.inner();
        inner.asked.clear();
        inner.watched.clear();
    }

    async fn ask(&self, ask: Ask) -> Result<Answer, Error> {
        let (reply, answer) = oneshot::channel();
        self.inner().asked.push_back(Asked { ask, reply });
        let answer = answer.await.map_err(|_| {
            self.inner().known.losses += 1;
            lost()
        })?;
        if let Some(error) = answer.error() {
            self.note(error);
        }
        Ok(answer)
    }

    fn note(&self, error: &Error) {
        if matches!(error, Error::Compacted { .. }) {
            let mut inner = self.inner();
            inner.known.compacted += 1;
            inner.known.reloading = true;
        }
    }

    /// What is left of a value.
    fn seen(&self, kv: &mut KeyValue) {
        let mut inner = self.inner();
        if inner.keyless && kv.value.windows(SEALED.len()).any(|part| part == SEALED.as_bytes()) {
            inner.known.veiled += 1;
            kv.value = Bytes::from_static(VEIL);
        }
    }
}

/// The store's end of a watch: hands batches on until one end has had enough.
pub(super) fn serve(engine: &Embedded, watched: Watched) {
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
macro_rules! answered {
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
        answered!(self.0, Ask::Txn(txn), Txn)
    }

    async fn range(&self, range: Range) -> Result<RangeResult, Error> {
        let mut result = answered!(self.0, Ask::Range(range), Range)?;
        result.kvs.iter_mut().for_each(|kv| self.0.seen(kv));
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
                        for event in &mut batch.events {
                            if let Event::Put { kv, .. } = event {
                                wire.seen(kv);
                            }
                        }
                    }
                    Err(error) => wire.note(error),
                }
                let rest = told.is_ok().then_some(batches);
                Some((told, rest))
            }
        })))
    }

    async fn compact(&self, revision: i64) -> Result<(), Error> {
        answered!(self.0, Ask::Compact(revision), Done)
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId, Error> {
        answered!(self.0, Ask::Grant(ttl, 0), Lease)
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<Duration, Error> {
        answered!(self.0, Ask::KeepAlive(lease), Ttl)
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), Error> {
        answered!(self.0, Ask::Revoke(lease), Done)
    }

    async fn request_progress(&self) -> Result<i64, Error> {
        answered!(self.0, Ask::Progress, Revision)
    }

    async fn status(&self) -> Result<StoreStatus, Error> {
        let status = answered!(self.0, Ask::Status, Status)?;
        self.0.inner().known.status = (status.revision, status.compacted);
        Ok(status)
    }
}
