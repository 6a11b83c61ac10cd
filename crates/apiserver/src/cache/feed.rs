//! Follows the store: loads what it holds, then brings every change to the storage it belongs to.

use super::cacher::{Age, Cacher, Chain, Layout, Raw};
use super::hooks::{self, Mutant};
use super::mender;
use super::parsers::{Parsers, Piece};
use super::progress::Progress;
use super::state::State;
use super::watchers::End;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use store::{Event, KeyRange, Range, Store, Watch, WatchStream};
use tokio::sync::{mpsc, oneshot};

/// Everything is stored below this.
const ROOT: &str = "/registry/";
const PAGE: usize = hooks::bound(1_000, 5);
/// How many of the store's last revisions are replayed at a start, so that watches that the restart cut off go on where they
/// were, as they do within one life of the server.
pub(super) const REPLAY: i64 = hooks::bound(10_000, 30) as i64;
const RETRY: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How long a read waits for the caches to catch up before it says that they can't.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// The revision by which the store means the last.
const PRESENT: i64 = 0;

type Table = BTreeMap<String, Arc<Cacher>>;

/// The caches of all storages, and the one task that feeds them.
pub struct Caches {
    store: Arc<dyn Store>,
    table: RwLock<Table>,
    progress: Arc<Progress>,
    following: AtomicBool,
    /// The damage because of which the store cannot be followed.
    damage: Mutex<Option<store::Error>>,
    commands: mpsc::Sender<Command>,
}

/// Asked of the feeding task, which alone may touch a storage's contents.
enum Command {
    Add(Box<Layout>, oneshot::Sender<Result<Arc<Cacher>, store::Error>>),
}

/// The caches cannot serve a read now.
#[derive(Debug, thiserror::Error)]
pub enum NotReached {
    #[error("the caches are at revision {current}, not yet at {asked}")]
    Behind { asked: u64, current: u64 },
    #[error("the store does not answer")]
    Store(#[from] store::Error),
}

impl Caches {
    /// Loads all storages as they were a little while ago, and follows the store from there to the present and on.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn open(store: Arc<dyn Store>, layouts: Vec<Layout>) -> Result<Arc<Self>, store::Error> {
        let (caches, tasks) = Self::begin(store, layouts).await?;
        tokio::spawn(tasks.feed);
        tokio::spawn(tasks.mender);
        caches.replayed().await?;
        Ok(caches)
    }

    /// Loads all storages as they were a little while ago. The tasks, which whoever asks must run, bring them to the present.
    pub(super) async fn begin(store: Arc<dyn Store>, layouts: Vec<Layout>) -> Result<(Arc<Self>, Tasks), store::Error> {
        let progress = Arc::new(Progress::default());
        let table = layouts
            .into_iter()
            .map(|layout| (layout.prefix.clone(), Arc::new(Cacher::new(layout, progress.clone(), 0))))
            .collect();
        let (commands, inbox) = mpsc::channel(16);
        let caches = Arc::new(Caches {
            store,
            table: RwLock::new(table),
            progress,
            following: AtomicBool::new(false),
            damage: Mutex::default(),
            commands,
        });
        let status = caches.store.status().await?;
        let past = status.compacted.max(status.revision - REPLAY).max(1);
        let (revision, stream) = match caches.load(past).await {
            // Another server compacts just now, or what was is damaged.
            Err(store::Error::Compacted { .. } | store::Error::Corrupt { .. }) => caches.load(PRESENT).await?,
            loaded => loaded?,
        };
        let replayed = status.revision.cast_unsigned();
        let feed = Feed { caches: Arc::downgrade(&caches), inbox, revision, replayed, pause: None };
        let tasks = Tasks { feed: feed.run(stream).boxed(), mender: mender::run(Arc::downgrade(&caches)).boxed() };
        Ok((caches, tasks))
    }

    /// Waits until the present is reached, however long it takes, unless what is there is damaged.
    pub(super) async fn replayed(&self) -> Result<(), store::Error> {
        loop {
            match self.consistent().await {
                Ok(_) => return Ok(()),
                Err(NotReached::Behind { asked, current }) => {
                    if let Some(damage) = self.damage().take() {
                        return Err(damage);
                    }
                    tracing::info!(asked, current, "replaying what was written")
                }
                Err(NotReached::Store(error)) => return Err(error),
            }
        }
    }

    fn damage(&self) -> std::sync::MutexGuard<'_, Option<store::Error>> {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The storage of a prefix.
    pub fn get(&self, prefix: &str) -> Option<Arc<Cacher>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).get(prefix).cloned()
    }

    pub fn all(&self) -> Vec<Arc<Cacher>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Adds a storage and loads it; one that is there stays, unless its layout is another.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn add(&self, layout: Layout) -> Result<Arc<Cacher>, store::Error> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::Add(Box::new(layout), answer)).await.map_err(|_| store::Error::Closed)?;
        answered.await.map_err(|_| store::Error::Closed)?
    }

    /// Drops a storage from memory, ending its watches.
    pub fn remove(&self, prefix: &str) {
        let removed = self.table.write().unwrap_or_else(PoisonError::into_inner).remove(prefix);
        if let Some(cacher) = removed {
            cacher.end_watches(End::Closed);
        }
    }

    pub(super) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Whether changes reach the caches.
    pub fn following(&self) -> bool {
        self.following.load(Ordering::Acquire)
    }

    /// Waits until everything that is in the store now is in the caches.
    ///
    /// # Errors
    /// [`NotReached`] when that takes too long, or the store does not say.
    pub async fn consistent(&self) -> Result<u64, NotReached> {
        let revision = self.store.request_progress().await?.cast_unsigned();
        if !hooks::is(Mutant::ReadWithoutProgress) {
            self.reached(revision).await?;
        }
        Ok(revision)
    }

    /// Waits until the caches have reached a revision.
    ///
    /// # Errors
    /// [`NotReached::Behind`] when that takes too long.
    pub async fn reached(&self, revision: u64) -> Result<(), NotReached> {
        if self.progress.revision() >= revision {
            return Ok(());
        }
        // The store tells no progress of itself while nothing is written.
        let patience = tokio::time::timeout(PATIENCE, self.progress.reached(revision));
        patience.await.map_err(|_| NotReached::Behind { asked: revision, current: self.progress.revision() })
    }

    /// Ends every watch: the server stops.
    pub fn close(&self) {
        for cacher in self.all() {
            cacher.end_watches(End::Closed);
        }
    }

    fn storage_of<'t>(table: &'t Table, key: &str) -> Option<(&'t Arc<Cacher>, usize)> {
        let (prefix, cacher) = table.range::<str, _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
        key.starts_with(prefix.as_str()).then_some((cacher, prefix.len()))
    }

    /// Reads what storages of a table hold below a prefix, at one revision, which is told.
    ///
    /// `at`: the revision, or [`PRESENT`].
    async fn read(&self, prefix: &str, at: i64, table: &Table) -> Result<(BTreeMap<String, State>, u64), store::Error> {
        let mut contents: BTreeMap<String, State> = BTreeMap::new();
        let mut fill = |(cacher, parsed): Piece| {
            // Not `entry`, which wants an owned prefix each time.
            match contents.get_mut(&cacher.layout.prefix) {
                Some(state) => cacher.fill(state, parsed),
                None => cacher.fill(contents.entry(cacher.layout.prefix.clone()).or_insert(State::new(0)), parsed),
            }
        };
        let mut parsers = Parsers::new();
        let mut revision = at;
        let whole = KeyRange::prefix(prefix.to_owned());
        let mut start = Some(whole.start.clone());
        while let Some(from) = start {
            let keys = KeyRange { start: from, end: whole.end.clone() };
            let page = self.store.range(Range::of(keys).at(revision).limit(PAGE)).await?;
            if revision == PRESENT {
                revision = page.revision;
            }
            let last = page.kvs.last().filter(|_| page.more);
            start = last.map(|kv| [&kv.key[..], &[0]].concat().into());
            let versions = page.kvs.into_iter().map(|kv| (kv.key, kv.mod_revision, Some(kv.value)));
            for (cacher, raws) in by_storage(table, versions) {
                parsers.parse(&cacher, raws).await?.into_iter().for_each(&mut fill);
            }
        }
        while let Some(piece) = parsers.next().await? {
            fill(piece);
        }
        Ok((contents, revision.cast_unsigned()))
    }

    /// Loads every storage anew, as of a revision, and begins to follow from there.
    async fn load(&self, at: i64) -> Result<(u64, WatchStream), store::Error> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (mut contents, revision) = self.read(ROOT, at, &table).await?;
        let age = if at == PRESENT { Age::Present } else { Age::Past };
        for (prefix, cacher) in &table {
            let state = contents.remove(prefix).unwrap_or(State::new(0));
            if !cacher.replace(state, revision, age) {
                self.load_present(cacher).await?;
            }
        }
        self.progress.advance(revision);
        let stream = self.follow(revision).await?;
        Ok((revision, stream))
    }

    /// Loads one storage as it is now, ahead of the others if need be.
    async fn load_present(&self, cacher: &Arc<Cacher>) -> Result<(), store::Error> {
        let prefix = &cacher.layout.prefix;
        let alone = Table::from([(prefix.clone(), cacher.clone())]);
        let (mut contents, revision) = self.read(prefix, PRESENT, &alone).await?;
        cacher.replace(contents.remove(prefix).unwrap_or(State::new(0)), revision, Age::Present);
        Ok(())
    }

    async fn follow(&self, revision: u64) -> Result<WatchStream, store::Error> {
        let start = revision.cast_signed() + 1;
        let mut stream = self.store.watch(Watch::of(KeyRange::prefix(ROOT), start)).await?;
        // The first batch tells where the store is, but what happened on the way there is told only after it.
        stream.next().await.unwrap_or(Err(store::Error::Closed))?;
        self.following.store(true, Ordering::Release);
        Ok(stream)
    }

    /// Brings every change to its storage. What happened up to the revision `replayed` is history. The storages are returned
    /// whose changes were refused.
    fn apply(&self, events: Vec<Event>, replayed: u64) -> Vec<Arc<Cacher>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let versions = events.into_iter().map(|event| match event {
            Event::Put { kv, .. } => (kv.key, kv.mod_revision, Some(kv.value)),
            Event::Delete { key, revision, .. } => (key, revision, None),
        });
        let by_storage = by_storage(&table, versions);
        // Who observes the changes may read the caches under a lock of his own, which another waits for who has the table.
        drop(table);
        let mut refused = Vec::new();
        for (cacher, raws) in by_storage {
            let past = raws.first().is_some_and(|raw| raw.revision <= replayed);
            if !cacher.apply(raws, if past { Age::Past } else { Age::Present }) {
                refused.push(cacher);
            }
        }
        refused
    }
}

/// What is done as long as there are caches.
pub(super) struct Tasks {
    pub(super) feed: BoxFuture<'static, ()>,
    pub(super) mender: BoxFuture<'static, ()>,
}

/// The task that feeds the caches.
struct Feed {
    caches: std::sync::Weak<Caches>,
    inbox: mpsc::Receiver<Command>,
    revision: u64,
    /// Where the store was at the start: up to there the past is replayed.
    replayed: u64,
    /// How long to wait before the store is followed anew; `None`: it brought something since it was.
    pause: Option<Duration>,
}

impl Feed {
    async fn run(mut self, mut stream: WatchStream) {
        loop {
            let ended = loop {
                tokio::select! {
                    biased;
                    command = self.inbox.recv() => match command {
                        Some(command) => self.obey(command).await,
                        // Nobody can ask any more: the caches are gone.
                        None => return,
                    },
                    batch = stream.next() => match batch {
                        Some(Ok(batch)) => {
                            let Some(caches) = self.caches.upgrade() else { return };
                            if hooks::is(Mutant::ProgressBeforeChanges) {
                                caches.progress.advance(batch.revision.cast_unsigned());
                                hooks::pause(|| true);
                            }
                            let refused = caches.apply(batch.events, self.replayed);
                            hooks::pause(|| true);
                            let loaded = refused.iter().map(|cacher| caches.load_present(cacher));
                            if let Err(error) = futures::future::try_join_all(loaded).await {
                                break error;
                            }
                            if batch.revision.cast_unsigned() > self.revision {
                                self.revision = batch.revision.cast_unsigned();
                                self.pause = None;
                            }
                            caches.progress.advance(self.revision);
                        }
                        Some(Err(error)) => break error,
                        None => break store::Error::Closed,
                    },
                }
            };
            let Some(caches) = self.caches.upgrade() else { return };
            caches.following.store(false, Ordering::Release);
            if matches!(ended, store::Error::Closed) {
                // As when the server ends.
                tracing::debug!(revision = self.revision, "the store's watch ended; following anew");
            } else {
                tracing::warn!(error = %Chain(&ended), revision = self.revision, "the store's watch ended; following anew");
            }
            drop(caches);
            match self.resume(ended).await {
                Some(resumed) => stream = resumed,
                None => return,
            }
        }
    }

    /// Follows again from where it stopped; loads all anew when the past is gone or damaged.
    async fn resume(&mut self, mut ended: store::Error) -> Option<WatchStream> {
        loop {
            if let Some(pause) = self.pause {
                tokio::time::sleep(pause).await;
            }
            self.pause = Some(self.pause.map_or(RETRY, |pause| (pause * 2).min(RETRY_MAX)));
            let caches = self.caches.upgrade()?;
            let resumed = if matches!(ended, store::Error::Compacted { .. } | store::Error::Corrupt { .. }) {
                caches.load(PRESENT).await.map(|(revision, stream)| {
                    self.revision = revision;
                    stream
                })
            } else {
                caches.follow(self.revision + u64::from(hooks::is(Mutant::ResumeSkipsOne))).await
            };
            match resumed {
                Ok(stream) => return Some(stream),
                Err(store::Error::Closed) => return None,
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "the store cannot be followed yet");
                    if let store::Error::Corrupt { what, place } = &error {
                        let damage = store::Error::Corrupt { what: what.clone(), place: place.clone() };
                        *caches.damage() = Some(damage);
                    }
                    ended = error;
                }
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        let Command::Add(layout, answer) = command;
        let Some(caches) = self.caches.upgrade() else { return };
        if let Some(there) = caches.get(&layout.prefix)
            && there.layout.kind == layout.kind
            && there.layout.api_version == layout.api_version
            && there.paths().fields() == layout.paths.fields()
        {
            let _ = answer.send(Ok(there));
            return;
        }
        let prefix = layout.prefix.clone();
        let cacher = Arc::new(Cacher::new(*layout, caches.progress.clone(), 0));
        let loaded = caches.load_present(&cacher).await.map(|()| {
            let mut table = caches.table.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(replaced) = table.insert(prefix, cacher.clone()) {
                replaced.end_watches(End::Expired);
            }
            cacher
        });
        // Who asked may have gone meanwhile; the storage stays.
        let _ = answer.send(loaded);
    }
}

/// The versions of each storage of a table, in the order in which they come.
fn by_storage(
    table: &Table,
    versions: impl Iterator<Item = (Bytes, i64, Option<Bytes>)>,
) -> Vec<(Arc<Cacher>, Vec<Raw>)> {
    let mut sorted: Vec<(Arc<Cacher>, Vec<Raw>)> = Vec::new();
    for (key, revision, value) in versions {
        let Ok(key) = std::str::from_utf8(&key) else {
            tracing::warn!(?key, "a key of the store is no text and is left alone");
            continue;
        };
        let Some((cacher, length)) = Caches::storage_of(table, key) else { continue };
        let raw = Raw { key: key[length..].to_owned(), revision: revision.cast_unsigned(), value };
        // What belongs together mostly comes together.
        match sorted.iter_mut().rev().find(|(other, _)| Arc::ptr_eq(other, cacher)) {
            Some((_, raws)) => raws.push(raw),
            None => sorted.push((cacher.clone(), vec![raw])),
        }
    }
    sorted
}

impl std::fmt::Debug for Caches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Caches(at {})", self.progress.revision())
    }
}
