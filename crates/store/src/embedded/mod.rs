//! The embedded engine: keys and revisions in memory, values on disk, one writer that syncs once for many.
//!
//! ```text
//! callers ──queue──▶ writer: evaluate in order ▶ append, one sync ▶ publish ▶ answer
//!    │                                │                       │
//!    │                           log segments            index, recent changes, watchers
//!    └──ranges at a revision──▶ index, recent changes, segments ◀── upkeep: prune, pack, checkpoint
//! ```
//!
//! | file | what |
//! |---|---|
//! | `disk`, `clock` | the outside, injected |
//! | `format`, `segment`, `log` | bytes on disk; open files; the end of the log |
//! | `index`, `recent`, `lease` | keys and their versions; the latest changes with values; what ends by itself |
//! | `queue`, `writer` | requests; evaluating, making durable, publishing |
//! | `shared`, `watch` | reading at a revision; who follows what |
//! | `history`, `times` | what is kept beyond the compaction mark; when revisions were made |
//! | `checkpoint`, `recovery` | a fast start |
//! | `upkeep`, `pack` | forgetting history, giving space back |
//! | `hooks` | where tests take hold |
//! | `export`, `tools` | all that is held, for snapshots; what an administrator asks of a store that is not open |
//!
//! Invariants: nothing is visible to readers before it is durable, nor is a refusal that tells of it answered; no sync runs
//! on a caller's thread; reads of the disk that may wait run on the runtime's blocking threads; the disk and the clock are
//! touched only through [`Disk`] and [`Clock`].

mod checkpoint;
mod clock;
mod disk;
mod export;
mod format;
mod history;
#[cfg(any(test, feature = "suite"))]
pub mod hooks;
#[cfg(not(any(test, feature = "suite")))]
pub(crate) mod hooks;
mod index;
mod lease;
mod log;
mod pack;
mod queue;
mod recent;
mod recovery;
mod segment;
mod shared;
mod times;
pub(crate) mod tools;
mod upkeep;
mod watch;
mod writer;

use std::any::Any;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;

pub use clock::{Clock, SystemClock};
pub use disk::{Disk, File, OsDisk};
pub use export::{Export, Record};

use self::format::Kind;
use self::log::Log;
use self::queue::{Queue, Signal};
use self::recovery::Recovered;
use self::shared::{Item, Shared};
use self::upkeep::Upkeep;
pub use self::writer::LeaseState;
use self::writer::{Done, Outcome, Reply, Request, Writer};
use crate::{
    Error, History, KeyValue, LeaseId, OpResult, Range, RangeResult, Store, StoreStatus, Txn, TxnResult, Watch,
    WatchStream,
};

/// Up to so many values are first looked for without waiting for the disk.
const FEW: usize = 64;

/// What can be set. The defaults suit a cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// A log segment is left for a new one at this size.
    pub segment_bytes: u64,
    /// At least this much log is written between checkpoints; a start reads about as much.
    pub checkpoint_bytes: u64,
    /// History older than this is compacted; `None`: only when asked.
    pub retention: Option<Duration>,
    /// History is compacted earlier when its log is larger than this.
    pub history_bytes: u64,
    /// What is kept of history beyond the compaction mark; `None`: nothing.
    pub undo: Option<Undo>,
    /// Recent changes kept in memory with their values.
    pub recent_bytes: usize,
    /// A watcher for which more events than this wait is ended.
    pub watch_events: usize,
    /// A watcher for which more bytes than this wait is ended.
    pub watch_bytes: usize,
    /// How often the upkeep looks what is due.
    pub upkeep_interval: Duration,
}

/// What is kept of history beyond the compaction mark, for [`History`](crate::History). Reads and watches of the store
/// itself do not see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undo {
    /// Versions that were superseded longer ago are dropped.
    pub horizon: Duration,
    /// The oldest are dropped earlier when they take more than this. A version costs the length of its record (key, value
    /// and 48 bytes) on disk, and 48 bytes of memory; a deleted key its place in the index too.
    pub bytes: u64,
    /// Prefixes of keys of which no history is kept: those that change all the time and say nothing later. When a store is
    /// opened with others than before, its history begins anew.
    pub except: Vec<Bytes>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 32 << 20,
            checkpoint_bytes: 16 << 20,
            retention: Some(Duration::from_secs(300)),
            history_bytes: 1 << 30,
            undo: None,
            recent_bytes: 4 << 20,
            watch_events: 64 << 10,
            watch_bytes: 64 << 20,
            upkeep_interval: Duration::from_secs(30),
        }
    }
}

/// The embedded engine. Dropping it stops it; what was acknowledged is durable already.
pub struct Embedded {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    signal: Arc<Signal>,
    upkeep: Arc<Mutex<Upkeep>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Held as long as the store is open.
    lock: Mutex<Option<fs::File>>,
}

impl Embedded {
    /// Opens the store in a directory, which is created (for its owner only) when it is not there.
    ///
    /// Reads the disk; returns when the store is ready. Fails with [`Error::Locked`] when another process has it open,
    /// with [`Error::Corrupt`] when what must be there is damaged or missing, with [`Error::Io`].
    pub fn open(directory: impl AsRef<Path>, options: Options) -> Result<Arc<Self>, Error> {
        let directory = directory.as_ref();
        let lock = lock(directory)?;
        Self::start(Arc::new(OsDisk::new(directory)), Arc::new(SystemClock::default()), options, Some(lock))
    }

    /// Opens the store on a disk and a clock of the caller's, who sees to it that nobody else has it open.
    pub fn open_on(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, options: Options) -> Result<Arc<Self>, Error> {
        Self::start(disk, clock, options, None)
    }

    fn start(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        options: Options,
        lock: Option<fs::File>,
    ) -> Result<Arc<Self>, Error> {
        let interval = options.upkeep_interval;
        let id = new_store_id(&*clock);
        let (engine, turns) = Self::at_rest(disk, clock, options, id)?;
        *engine.lock.lock().unwrap_or_else(PoisonError::into_inner) = lock;
        let threads = vec![
            spawn("store-writer", move || turns.take_until_closed())?,
            spawn("store-upkeep", {
                let (upkeep, queue) = (Arc::clone(&engine.upkeep), Arc::clone(&engine.queue));
                let (signal, shared) = (Arc::clone(&engine.signal), Arc::clone(&engine.shared));
                move || keep_up_until_closed(&upkeep, &queue, &signal, &shared, interval)
            })?,
        ];
        *engine.threads.lock().unwrap_or_else(PoisonError::into_inner) = threads;
        Ok(engine)
    }

    /// An engine without threads: whoever has the writer's turns must take them, and see to the upkeep. `id` is for a
    /// store that is made anew.
    pub(crate) fn at_rest(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        options: Options,
        id: u64,
    ) -> Result<(Arc<Self>, Turns), Error> {
        let (writer, upkeep, shared) = assemble(disk, clock, options, id)?;
        let (queue, signal) = (Arc::new(Queue::default()), Arc::new(Signal::default()));
        let turns =
            Turns { writer, shared: Arc::clone(&shared), queue: Arc::clone(&queue), signal: Arc::clone(&signal) };
        let upkeep = Arc::new(Mutex::new(upkeep));
        let engine = Self { shared, queue, signal, upkeep, threads: Mutex::default(), lock: Mutex::default() };
        Ok((Arc::new(engine), turns))
    }

    /// Carries out what is queued, ends watches, stops, and lets others open the directory.
    ///
    /// Later calls fail with [`Error::Closed`]. Waits for the disk. Dropping the last handle does the same.
    pub fn close(&self) {
        self.queue.close();
        self.signal.close();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Forgets history that is not kept any more, packs and writes a checkpoint now, not when it is due.
    pub async fn maintain(&self) -> Result<(), Error> {
        let (upkeep, queue) = (Arc::clone(&self.upkeep), Arc::clone(&self.queue));
        let shared = Arc::clone(&self.shared);
        blocking(move || keep_up(&upkeep, &queue, &shared, true)).await
    }

    /// Waits until the store has failed so that nothing can be written any more, and tells why. It must be opened again;
    /// what was acknowledged is there then.
    pub async fn failed(&self) -> String {
        let mut failure = self.shared.failure.subscribe();
        let failed = failure.wait_for(|failure| failure.writer.is_some()).await;
        let reason = failed.ok().and_then(|failure| failure.writer.clone());
        match reason {
            Some(reason) => reason,
            // The sender is this engine's own, and is there as long as it is.
            None => std::future::pending().await,
        }
    }

    /// Why nobody answers.
    fn gone(&self) -> Error {
        match &self.shared.failure.borrow().writer {
            Some(reason) => Error::Failed { reason: reason.clone() },
            None => Error::Closed,
        }
    }

    /// Copies the present state into another directory, which must be empty or absent: a store of its own without
    /// history. Tells the revision that it has.
    pub async fn snapshot(&self, directory: impl AsRef<Path>) -> Result<i64, Error> {
        let mark = self.ask(Request::Mark).await?;
        let shared = Arc::clone(&self.shared);
        let directory = directory.as_ref().to_owned();
        blocking(move || tools::copy(&shared, &mark, &directory)).await
    }

    /// The same onto a disk, which must be empty; `id` tells the copy from other stores.
    #[cfg(any(test, feature = "suite"))]
    pub(crate) async fn snapshot_onto(&self, disk: Arc<dyn Disk>, id: u64) -> Result<i64, Error> {
        let mark = self.ask(Request::Mark).await?;
        tools::copy_into(tools::Builder::on(disk, id), &self.shared, &mark)
    }

    /// One step of the upkeep, `all` of it also if it is not due; `ask` hands requests to the writer and returns when they
    /// are answered.
    #[cfg(any(test, feature = "suite"))]
    pub(crate) fn keep_up(&self, all: bool, answered: &dyn Fn(&Self)) -> Result<(), Error> {
        let ask = |request| {
            self.queue.push_now(request);
            answered(self);
        };
        self.upkeep.lock().unwrap_or_else(PoisonError::into_inner).step(&ask, all)
    }

    /// Whether requests wait for the writer.
    #[cfg(any(test, feature = "suite"))]
    pub(crate) fn has_requests(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether this thread may let others go first: it holds no lock that they need.
    #[cfg(any(test, feature = "suite"))]
    pub(crate) fn is_unlocked(&self) -> bool {
        self.shared.index.try_write().is_ok()
    }

    async fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> Request) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.queue.push(make(reply)).await;
        answer.await.map_err(|_| self.gone())?
    }

    /// Grants a lease under a number that the caller chose.
    pub async fn lease_grant_as(&self, lease: LeaseId, ttl: Duration) -> Result<LeaseId, Error> {
        self.ask(|reply| Request::LeaseGrant(ttl, lease, reply)).await
    }

    /// All leases.
    pub async fn leases(&self) -> Result<Vec<LeaseId>, Error> {
        self.ask(Request::Leases).await
    }

    /// What is known of a lease.
    pub async fn lease_state(&self, lease: LeaseId) -> Result<LeaseState, Error> {
        self.ask(|reply| Request::LeaseState(lease, reply)).await
    }

    /// The latest revision that readers see.
    pub fn revision(&self) -> i64 {
        self.shared.visible()
    }

    /// Where the store is.
    pub fn directory(&self) -> &Path {
        self.shared.disk.path()
    }

    /// All that is held at a moment, with the history since the compaction mark.
    pub async fn export(&self) -> Result<Export, Error> {
        let mark = self.ask(Request::Mark).await?;
        let shared = Arc::clone(&self.shared);
        blocking(move || Export::new(shared, &mark)).await
    }

    /// Tells this store from others.
    pub fn id(&self) -> u64 {
        self.shared.store_id
    }

    /// What the operations of a transaction did, with values.
    async fn results(&self, done: Vec<Done>, previous: bool, revision: i64) -> Result<Vec<OpResult>, Error> {
        let mut results = Vec::with_capacity(done.len());
        for done in done {
            results.push(match done {
                // What most transactions do, without the box that nesting needs.
                Done::Put(item) => {
                    OpResult::Put { previous: self.told(item.into_iter().collect(), previous).await?.pop() }
                }
                done => self.result(done, previous, revision).await?,
            });
        }
        Ok(results)
    }

    /// What an operation did, with values.
    fn result(
        &self,
        done: Done,
        previous: bool,
        revision: i64,
    ) -> futures::future::BoxFuture<'_, Result<OpResult, Error>> {
        Box::pin(async move {
            Ok(match done {
                Done::Put(item) => {
                    OpResult::Put { previous: self.told(item.into_iter().collect(), previous).await?.pop() }
                }
                Done::Delete(items) => OpResult::Delete { deleted: self.told(items, previous).await? },
                Done::Range(range, found) => OpResult::Range(RangeResult {
                    kvs: self.told(found.items, !range.keys_only).await?,
                    count: found.count,
                    more: found.more,
                    revision,
                }),
                Done::Txn(succeeded, within) => {
                    OpResult::Txn { succeeded, results: self.results(within, previous, revision).await? }
                }
            })
        })
    }

    /// Reads values if they are wanted, on a blocking thread only if the disk may be waited for.
    async fn told(&self, items: Vec<Item>, values: bool) -> Result<Vec<KeyValue>, Error> {
        if !values {
            let bare = |(key, version): Item| recent::key_value(key, Bytes::new(), &version);
            return Ok(items.into_iter().map(bare).collect());
        }
        if items.len() <= FEW
            && let Some(values) = self.shared.values_cached(&items)
        {
            return Ok(values);
        }
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.values(items)).await
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.close();
    }
}

#[async_trait]
impl Store for Embedded {
    async fn txn(&self, txn: Txn) -> Result<TxnResult, Error> {
        let previous = txn.previous;
        let outcome = self.ask(|reply| Request::Txn(txn, reply)).await?;
        let Outcome { succeeded, revision, changed, results: done, pin } = outcome;
        let results = self.results(done, previous, revision).await.map_err(|error| match changed {
            // A plain error would say that nothing was done.
            true => Error::Unknown {
                reason: format!("revision {revision} was written, but not what was there read: {error}"),
            },
            false => error,
        })?;
        drop(pin);
        Ok(TxnResult { succeeded, revision, results })
    }

    async fn range(&self, range: Range) -> Result<RangeResult, Error> {
        if range.keys.end.is_some() {
            // It may be long: even counting it is not for a thread that others wait for.
            let shared = Arc::clone(&self.shared);
            return blocking(move || shared.range(&range)).await;
        }
        let pin = self.shared.pin_for(range.revision)?;
        let found = self.shared.find(&range, pin.revision);
        let revision = if range.revision == 0 { pin.revision } else { self.shared.visible() };
        let kvs = self.told(found.items, !range.keys_only).await?;
        Ok(RangeResult { kvs, count: found.count, more: found.more, revision })
    }

    async fn watch(&self, watch: Watch) -> Result<WatchStream, Error> {
        watch::watch(&self.shared, watch)
    }

    async fn compact(&self, revision: i64) -> Result<(), Error> {
        self.ask(|reply| Request::Compact(revision, reply)).await?;
        self.signal.raise();
        Ok(())
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId, Error> {
        self.ask(|reply| Request::LeaseGrant(ttl, 0, reply)).await
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<Duration, Error> {
        self.ask(|reply| Request::LeaseKeepAlive(lease, reply)).await
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.ask(|reply| Request::LeaseRevoke(lease, reply)).await
    }

    async fn request_progress(&self) -> Result<i64, Error> {
        let revision = self.shared.visible();
        self.shared.hub.progress(revision);
        Ok(revision)
    }

    fn history(&self) -> Option<&dyn History> {
        Some(self)
    }

    /// Fails with [`Error::Failed`] also when the store still answers, but only its upkeep has ended.
    async fn health(&self) -> Result<Option<String>, Error> {
        if let Some(reason) = self.shared.failure.borrow().reason() {
            return Err(Error::Failed { reason: reason.clone() });
        }
        Ok(self.shared.read_only.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    async fn status(&self) -> Result<StoreStatus, Error> {
        let read_only = self.shared.read_only.read().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(StoreStatus {
            revision: self.shared.visible(),
            compacted: self.shared.compacted(),
            keys: self.shared.keys.load(Ordering::Relaxed) as usize,
            size: self.shared.segments.all().iter().map(|segment| segment.used()).sum(),
            read_only,
        })
    }
}

/// Takes the lock of a directory, which is created when it is not there.
fn lock(directory: &Path) -> Result<fs::File, Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(Error::io("create", directory))?;
    let path = directory.join("lock");
    let mut options = fs::File::options();
    let opened = match options.read(true).write(true).create(true).truncate(false).open(&path) {
        // Nobody writes there, and who rescues what is there must be able to read it.
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => fs::File::open(directory),
        opened => opened,
    };
    let file = opened.map_err(Error::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::Locked { path: directory.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(Error::io("lock", &path)(source)),
    }
}

/// Reads the store back, or makes a new one, and puts its parts together.
fn assemble(
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    options: Options,
    id: u64,
) -> Result<(Writer, Upkeep, Arc<Shared>), Error> {
    let recovered = match recovery::recover(&*disk, clock.monotonic())? {
        Some(recovered) => recovered,
        None => {
            recovery::initialize(&*disk, id)?;
            let lost = || segment::corrupt(disk.path(), checkpoint::NAME, 0, "what was just written is not there");
            recovery::recover(&*disk, clock.monotonic())?.ok_or_else(lost)?
        }
    };
    if !hooks::is(hooks::Mutant::TailTakenAsDurable) {
        recovery::make_durable(&*disk, &recovered)?;
    }
    for segment in recovered.segments.all().iter().filter(|segment| segment.kind == Kind::Log) {
        // Nothing is appended to it any more, and each start would leave another one.
        upkeep::trim(segment).map_err(Error::io("cut", disk.path().join(segment.name())))?;
    }
    for stray in &recovered.strays {
        tracing::debug!(file = %stray, "removed what an unfinished step left");
        disk.remove(stray).map_err(Error::io("remove", disk.path().join(stray)))?;
    }
    if !recovered.strays.is_empty() {
        // A segment that was never finished must not come back beside newer ones.
        disk.sync_names().map_err(Error::io("sync", disk.path()))?;
    }
    Ok(join(disk, clock, options, recovered))
}

fn join(
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    options: Options,
    recovered: Recovered,
) -> (Writer, Upkeep, Arc<Shared>) {
    let Recovered { store_id, index, leases, revision, compacted, past, segments, next_segment, log_end, .. } =
        recovered;
    // Without it all is dropped below the compaction mark; of keys that were an exception until now, all was.
    let forgotten = hooks::is(hooks::Mutant::ExceptionsForgotten);
    let (undo, times, anew) = match &options.undo {
        Some(_) if hooks::is(hooks::Mutant::HistoryMarkForgotten) => (0, past.times, false),
        Some(undo) if past.except.is_none_or(|except| except == undo.except || forgotten) => {
            (past.undo.min(compacted), past.times, false)
        }
        Some(_) => (compacted, past.times, true),
        None => (compacted, times::Times::default(), false),
    };
    let shared =
        Shared::new(disk, clock, options, store_id, index, revision, compacted, undo, times, segments, next_segment);
    let shared = Arc::new(shared);
    let upkeep = Upkeep::new(Arc::clone(&shared), log_end.0, recovered.replayed, recovered.checkpoint_bytes, anew);
    (Writer::new(Arc::clone(&shared), Log::after(log_end.0, log_end.1), leases), upkeep, shared)
}

/// Tells stores apart, so that a file of another is never taken for one of this.
fn new_store_id(clock: &dyn Clock) -> u64 {
    let elapsed = clock.monotonic().as_nanos() as u64;
    let process = u64::from(std::process::id()) << 40;
    (clock.wall_millis() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ process ^ elapsed
}

fn spawn(name: &'static str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(Error::io("start the thread", name))
}

/// The writer and what it waits for.
pub(crate) struct Turns {
    writer: Writer,
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    signal: Arc<Signal>,
}

impl Turns {
    /// Whether there is something to do now.
    #[cfg(any(test, feature = "suite"))]
    pub(crate) fn due(&self) -> bool {
        !self.queue.is_empty() || self.writer.patience() == Some(Duration::ZERO)
    }

    /// Does so until the engine is closed. A panic is noted before callers find the store closed: the group that was being
    /// made is half in memory, so nothing goes on from there.
    fn take_until_closed(mut self) {
        let taken = panic::catch_unwind(AssertUnwindSafe(|| while self.next(true) {}));
        if let Err(panic) = taken {
            let reason = format!("its writer panicked: {}", text_of(&*panic));
            self.shared.failure.send_modify(|failure| failure.writer = Some(reason.clone()));
            tracing::error!(reason, "the store has failed and must be opened again");
        }
    }

    /// Carries out what is queued and what time demands; first `waits` until there is something. `false` when the engine
    /// is closed.
    pub(crate) fn next(&mut self, waits: bool) -> bool {
        let patience = if waits { self.writer.patience() } else { Some(Duration::ZERO) };
        let Some(requests) = self.queue.take(patience) else { return false };
        self.writer.step(requests);
        if self.writer.wants_upkeep() {
            self.signal.raise();
        }
        true
    }
}

// Also when the writer panics: callers then see a closed store and never wait for ever.
impl Drop for Turns {
    fn drop(&mut self) {
        self.queue.close();
        drop(self.queue.take(Some(Duration::ZERO)));
        self.shared.hub.close();
    }
}

fn keep_up_until_closed(upkeep: &Mutex<Upkeep>, queue: &Queue, signal: &Signal, shared: &Shared, interval: Duration) {
    while signal.wait(interval) {
        match keep_up(upkeep, queue, shared, false) {
            Ok(()) => {}
            Err(Error::Closed | Error::Failed { .. }) => return,
            Err(error) => {
                tracing::warn!(error = %error.with_causes(), "the store's upkeep failed and will be tried again");
            }
        }
    }
}

/// One step of the upkeep. After a panic there is none any more, as what it counts may be wrong, and it removes files by that;
/// reading and writing go on without, and health tells it.
fn keep_up(upkeep: &Mutex<Upkeep>, queue: &Queue, shared: &Shared, all: bool) -> Result<(), Error> {
    let mut upkeep = upkeep.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(reason) = &shared.failure.borrow().upkeep {
        return Err(Error::Failed { reason: reason.clone() });
    }
    let step = AssertUnwindSafe(|| upkeep.step(&|request| queue.push_now(request), all));
    panic::catch_unwind(step).unwrap_or_else(|panic| {
        let reason = format!("its upkeep panicked: {}", text_of(&*panic));
        shared.failure.send_modify(|failure| failure.upkeep = Some(reason.clone()));
        tracing::error!(reason, "the store forgets no history any more and must be opened again");
        Err(Error::Failed { reason })
    })
}

/// What was said in a panic.
fn text_of(panic: &(dyn Any + Send)) -> &str {
    let owned = || panic.downcast_ref::<String>().map(String::as_str);
    panic.downcast_ref::<&str>().copied().or_else(owned).unwrap_or("without a message")
}

/// Runs what may wait for the disk where waiting is allowed.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(work).await.map_err(|_| Error::Closed)?,
        Err(_) => work(),
    }
}

#[cfg(test)]
mod tests;
