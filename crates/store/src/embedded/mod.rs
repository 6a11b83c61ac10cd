//! The embedded engine: keys and revisions in memory, values on disk, one fsync for all that waits.
//!
//! | file | what |
//! |---|---|
//! | [`disk`], [`clock`] | the outside, injected |
//! | `format`, `segment`, `log` | bytes on disk; open files; the end of the log |
//! | `index`, `recent`, `lease` | keys and their versions; the latest changes with values; what ends by itself |
//! | `writer` | evaluates, makes durable, publishes |
//! | `shared` | reading at a revision |
//! | `watch` | who follows what |
//! | `checkpoint`, `recovery` | a fast start |
//! | `upkeep` | forgetting history, giving space back |
//!
//! Nothing is visible before it is durable. Readers and watchers never wait for the disk's syncs; they run on the writer's
//! thread only. A start reads the newest checkpoint and the log behind it.

mod checkpoint;
pub mod clock;
pub mod disk;
mod format;
mod index;
mod lease;
mod log;
mod queue;
mod recent;
mod recovery;
mod segment;
mod shared;
mod upkeep;
mod watch;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;

use self::clock::{Clock, SystemClock};
use self::disk::{Disk, OsDisk};
use self::queue::{Queue, Signal};
use self::shared::Shared;
use self::writer::{Done, Outcome, Reply, Request, Writer};
use crate::{Error, LeaseId, OpResult, Range, RangeResult, Store, StoreStatus, Txn, TxnResult, Watch, WatchStream};

/// How an engine is tuned. The defaults are those of a cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// A log segment is followed by another at this size.
    pub segment_bytes: u64,
    /// Values of recent changes kept in memory.
    pub recent_bytes: usize,
    /// Events that may wait for one slow watcher.
    pub watch_events: usize,
    /// Bytes that may wait for one slow watcher.
    pub watch_bytes: usize,
    /// History older than this is forgotten by itself; zero: only when asked.
    pub history: Duration,
    /// A checkpoint is due when this much log was written since the last.
    pub checkpoint_bytes: u64,
    /// How often the upkeep looks.
    pub upkeep_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 32 << 20,
            recent_bytes: 4 << 20,
            watch_events: 100_000,
            watch_bytes: 64 << 20,
            history: Duration::from_secs(300),
            checkpoint_bytes: 16 << 20,
            upkeep_interval: Duration::from_secs(30),
        }
    }
}

/// The embedded engine of one directory.
pub struct Embedded {
    shared: Arc<Shared>,
    requests: Arc<Queue>,
    threads: Mutex<Threads>,
    _lock: Option<Lock>,
}

struct Threads {
    writer: Option<JoinHandle<()>>,
    upkeep: Option<upkeep::Upkeep>,
}

/// Keeps other processes out of the directory while it lives.
struct Lock {
    _file: std::fs::File,
}

fn lock(directory: &Path) -> Result<Lock, Error> {
    let path = directory.join("lock");
    let io = |doing, source| Error::Io { doing, path: path.clone(), source };
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|e| io("open", e))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock { _file: file }),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Locked { path: directory.to_owned() }),
        Err(errno) => Err(io("lock", errno.into())),
    }
}

impl Embedded {
    /// Opens the store of a directory, which is made when it isn't there.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has it, [`Error::Corrupt`] when something that was durable is damaged,
    /// [`Error::Io`].
    pub fn open(directory: impl Into<PathBuf>, options: Options) -> Result<Arc<Self>, Error> {
        let directory = directory.into();
        std::fs::create_dir_all(&directory)
            .map_err(|source| Error::Io { doing: "create", path: directory.clone(), source })?;
        let lock = lock(&directory)?;
        Self::open_on(Arc::new(OsDisk::new(directory)), Arc::new(SystemClock::default()), options, Some(lock))
    }

    fn open_on(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, options: Options, lock: Option<Lock>) -> Result<Arc<Self>, Error> {
        let recovered = recovery::recover(disk, clock, options)?;
        let shared = recovered.shared;
        let writer = Writer::new(Arc::clone(&shared), recovered.log, recovered.leases);
        let requests = Arc::new(Queue::default());
        let signal = Arc::new(Signal::default());
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let path = shared.disk.path().to_owned();
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(run)
                .map_err(|source| Error::Io { doing: "start a thread for", path, source })
        };
        let (inbox, wake) = (Arc::clone(&requests), Arc::clone(&signal));
        let writer = spawn("store-writer", Box::new(move || write(writer, &inbox, &wake)))?;
        let upkeep = upkeep::Upkeep::start(Arc::clone(&shared), Arc::clone(&requests), signal)?;
        let threads = Mutex::new(Threads { writer: Some(writer), upkeep: Some(upkeep) });
        Ok(Arc::new(Self { shared, requests, threads, _lock: lock }))
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.requests.push(request(reply));
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Ends all watches, writes what waits, and stops the engine's threads.
    pub fn close(&self) {
        self.shared.hub.close();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(upkeep) = threads.upkeep.take() {
            upkeep.stop();
        }
    }

    /// Forgets, packs and writes a checkpoint now rather than at the next interval.
    ///
    /// # Errors
    /// As the disk fails.
    pub async fn maintain(&self) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        let requests = Arc::clone(&self.requests);
        blocking(move || upkeep::pass(&shared, &requests, true)).await
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.close();
        self.requests.close();
        let writer = self.threads.lock().unwrap_or_else(PoisonError::into_inner).writer.take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!("the store's writer panicked");
        }
    }
}

/// The writer's thread: waits, takes all that is there, carries it out.
fn write(mut writer: Writer, inbox: &Queue, wake_upkeep: &Signal) {
    while let Some(requests) = inbox.take(writer.patience()) {
        writer.step(requests);
        if writer.wants_upkeep() {
            wake_upkeep.raise();
        }
    }
}

/// Runs what may wait for the disk on a thread for that.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failed) => Err(Error::Unavailable(format!("a read was cut off: {failed}"))),
    }
}

/// Puts values to what a transaction did.
fn finish(shared: &Shared, outcome: Outcome, previous: bool) -> Result<TxnResult, Error> {
    let values = |items: Vec<shared::Item>| {
        if previous {
            return shared.values(items);
        }
        Ok(items.into_iter().map(|(key, version)| recent::key_value(key, bytes::Bytes::new(), &version)).collect())
    };
    let mut results = Vec::with_capacity(outcome.results.len());
    for done in outcome.results {
        results.push(match done {
            Done::Put(item) => OpResult::Put { previous: values(item.into_iter().collect())?.pop() },
            Done::Delete(items) => OpResult::Delete { deleted: values(items)? },
            Done::Range(range, found) => OpResult::Range(shared.complete(&range, found, outcome.revision)?),
        });
    }
    Ok(TxnResult { succeeded: outcome.succeeded, revision: outcome.revision, results })
}

/// Whether finishing an outcome reads values.
fn reads_values(outcome: &Outcome, previous: bool) -> bool {
    outcome.results.iter().any(|done| match done {
        Done::Put(item) => previous && item.is_some(),
        Done::Delete(items) => previous && !items.is_empty(),
        Done::Range(range, found) => !range.keys_only && !found.items.is_empty(),
    })
}

#[async_trait]
impl Store for Embedded {
    async fn txn(&self, txn: Txn) -> Result<TxnResult, Error> {
        let previous = txn.previous;
        let outcome = self.ask(|reply| Request::Txn(txn, reply)).await?;
        if !reads_values(&outcome, previous) {
            return finish(&self.shared, outcome, previous);
        }
        let shared = Arc::clone(&self.shared);
        blocking(move || finish(&shared, outcome, previous)).await
    }

    async fn range(&self, range: Range) -> Result<RangeResult, Error> {
        let pin = self.shared.pin_for(range.revision)?;
        if range.keys.end.is_none() || range.keys_only || range.count_only {
            // Few or no values: nearly always in memory.
            let found = self.shared.find(&range, pin.revision);
            let revision = if range.revision == 0 { pin.revision } else { self.shared.visible() };
            if range.keys_only || range.count_only || found.items.is_empty() {
                return self.shared.complete(&range, found, revision);
            }
            if let Some(kvs) = self.shared.values_cached(&found.items) {
                return Ok(RangeResult { kvs, count: found.count, more: found.more, revision });
            }
        }
        drop(pin);
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.range(&range)).await
    }

    async fn watch(&self, watch: Watch) -> Result<WatchStream, Error> {
        watch::watch(&self.shared, watch)
    }

    async fn compact(&self, revision: i64) -> Result<(), Error> {
        self.ask(|reply| Request::Compact(revision, reply)).await
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId, Error> {
        self.ask(|reply| Request::LeaseGrant(ttl, reply)).await
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

    async fn status(&self) -> Result<StoreStatus, Error> {
        let read_only = self.shared.read_only.read().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(StoreStatus {
            revision: self.shared.visible(),
            compacted: self.shared.compacted(),
            keys: usize::try_from(self.shared.keys.load(std::sync::atomic::Ordering::Relaxed)).unwrap_or(usize::MAX),
            size: self.shared.segments.all().iter().map(|segment| segment.used()).sum(),
            read_only,
        })
    }
}

#[cfg(test)]
mod tests;
