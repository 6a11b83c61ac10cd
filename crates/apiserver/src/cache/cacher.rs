//! The objects of one storage, kept up to date, with the recent past and those who watch.

use super::batch::{Batch, Delivery};
use super::change::{Change, ChangeKind};
use super::counts::Counts;
use super::entry::Entry;
use super::fields::Paths;
use super::hooks::{self, Mutant};
use super::marked::{self, Noted, Underway};
use super::progress::Progress;
use super::scan::Scanned;
use super::state::{Scope, State, Unreadable};
use super::watchers::{End, Filter, Mailbox, Registration, Watchers};
use bytes::Bytes;
use schema::{DecodeError, Encoded, Map, Schema};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::Instant;

/// How far back exact lists, `continue` tokens and watches reach.
pub(super) const REACH: Duration = Duration::from_secs(300);
/// What the past may take in memory, for each storage.
pub(super) const REACH_BYTES: usize = hooks::bound(64 << 20, 64 << 10);
/// Changes whose encoded bytes are kept for those who come a little later.
const HOT: usize = hooks::bound(128, 4);
/// Snapshots kept for lists that go on.
pub(super) const PINS: usize = hooks::bound(64, 8);

/// What is stored where, and as what.
#[derive(Clone, Debug)]
pub struct Layout {
    /// With both slashes: `/registry/pods/`.
    pub prefix: String,
    /// The plural, for what is measured.
    pub resource: String,
    pub api_version: String,
    pub kind: String,
    pub schema: Schema,
    pub paths: Paths,
}

/// Told of every change of a storage, in order, before anyone else: projections that must not lag behind reads
/// (RBAC, quotas, namespaces). It is called with the storage locked: it must be quick and ask nothing of the cache.
pub trait Observer: Send + Sync + 'static {
    fn changed(&self, cacher: &Cacher, change: &Change);
}

/// The revision asked for is older than what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooOld {
    pub oldest: u64,
}

/// A watch cannot begin.
#[derive(Clone, Debug)]
pub enum NoWatch {
    TooOld(TooOld),
    /// It would have to tell of an object that nobody can read.
    Unreadable(Unreadable),
}

/// One version of one key, from the store.
#[derive(Debug)]
pub(super) struct Raw {
    /// Behind the prefix.
    pub(super) key: String,
    pub(super) revision: u64,
    /// `None`: removed.
    pub(super) value: Option<Bytes>,
}

impl Raw {
    fn unreadable(&self, why: String) -> Unreadable {
        Unreadable { key: self.key.clone(), revision: self.revision, why }
    }
}

/// What became of a version: the entry, none of a removed key, or why it cannot be read.
pub(super) type Parsed = (Raw, Result<Option<Arc<Entry>>, String>);

/// What values are to a storage that are read from the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    /// How things are: what cannot be read of it is taken note of.
    Present,
    /// History, read at a start. It is refused as a whole, and without a word, when something of it cannot be read: the
    /// present may have none of it any more, as when the key that it was encrypted with was given up since.
    Past,
}

/// The objects of one storage.
pub struct Cacher {
    pub layout: Layout,
    head: Vec<u8>,
    progress: Arc<Progress>,
    state: RwLock<State>,
    flow: Mutex<Flow>,
    underway: Underway,
    pub counts: Counts,
}

struct Flow {
    log: VecDeque<(Arc<Change>, Instant)>,
    log_bytes: usize,
    /// Every change after this revision is in the log.
    floor: u64,
    watchers: Watchers,
    observers: Vec<Arc<dyn Observer>>,
    pins: VecDeque<Pin>,
}

/// A snapshot that is valid from its own revision up to `until`.
struct Pin {
    until: u64,
    state: State,
    at: Instant,
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// After this revision.
    After(u64),
    /// After whatever happened so far.
    Now,
    /// With all objects there are.
    Initial,
}

impl Cacher {
    pub(super) fn new(layout: Layout, progress: Arc<Progress>, revision: u64) -> Self {
        let state = State::new(revision);
        Cacher {
            head: schema::encoded::head(&layout.api_version, &layout.kind),
            layout,
            progress,
            state: RwLock::new(state),
            counts: Counts::default(),
            underway: Underway::default(),
            flow: Mutex::new(Flow {
                log: VecDeque::new(),
                log_bytes: 0,
                floor: revision,
                watchers: Watchers::default(),
                observers: Vec::new(),
                pins: VecDeque::new(),
            }),
        }
    }

    /// What stored values and objects in the stored version begin with.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    pub fn paths(&self) -> &Paths {
        &self.layout.paths
    }

    /// The tree of an entry, in the stored version.
    ///
    /// # Errors
    /// [`DecodeError`] when it is no object of the schema.
    pub fn decode(&self, entry: &Entry) -> Result<Map, DecodeError> {
        entry.decode(&self.layout.schema, &self.layout.api_version, &self.layout.kind)
    }

    /// The same for a write, which may leave parts of it as they are: see [`Entry::decode_leaving`].
    pub(crate) fn decode_leaving(&self, entry: &Arc<Entry>) -> Result<Map, DecodeError> {
        entry.decode_leaving(&self.layout.schema, &self.layout.api_version, &self.layout.kind)
    }

    /// Encodes an object of this storage that is to be written, with what is known of its text by that. `from`: what it was made
    /// from, if something is there.
    pub(crate) fn encode(&self, object: &Map, from: Option<&Entry>) -> (Encoded, Option<Scanned>) {
        marked::encode(object, from, &self.layout.paths)
    }

    /// Says what is known of a value that is being given to the store: its entry is made of that if it comes back while the
    /// answer is held.
    pub(crate) fn note(&self, value: Bytes, known: Scanned) -> Noted<'_> {
        self.underway.note(value, known)
    }

    /// The key of an object: `namespace/name`, or `name`.
    pub fn key(namespace: &str, name: &str) -> String {
        if namespace.is_empty() { name.to_owned() } else { [namespace, "/", name].concat() }
    }

    fn flow(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another thread may come in between here.
    fn pause(&self) {
        hooks::pause(|| self.flow.try_lock().is_ok() && self.state.try_write().is_ok());
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object of a key, as far as the cache has followed.
    ///
    /// # Errors
    /// There is one that cannot be read.
    pub fn get(&self, key: &str) -> Result<Option<Arc<Entry>>, Unreadable> {
        self.state().find(key).map(Option::<&Arc<Entry>>::cloned)
    }

    /// What cannot be read, in the order of keys.
    pub(super) fn unreadable(&self) -> Vec<Unreadable> {
        self.state().unreadables().cloned().collect()
    }

    /// The newest revision of what cannot be read, if there is any.
    pub(super) fn newest_unreadable(&self) -> Option<u64> {
        self.state().unreadables().map(|unreadable| unreadable.revision).max()
    }

    /// Whether a version can be read.
    pub(super) fn reads(&self, raw: &Raw) -> bool {
        raw.value.as_ref().is_none_or(|value| self.entry(&raw.key, raw.revision, value).is_ok())
    }

    /// Takes in what could not be read before, whenever it was read again: what has another version meanwhile is left alone.
    /// Tells how many objects can be read now.
    pub(super) fn mend(&self, parsed: Vec<Parsed>) -> usize {
        self.pause();
        let mut flow = self.flow();
        let mut state = self.state_mut();
        let mut added = Vec::new();
        for (raw, parsed) in parsed {
            if state.unreadable(&raw.key).is_none_or(|unreadable| unreadable.revision != raw.revision) {
                continue;
            }
            match parsed {
                Ok(Some(entry)) => {
                    state.insert(entry.clone(), &self.layout.paths);
                    added.push(Change::new(ChangeKind::Added, entry, None));
                }
                Ok(None) => {}
                Err(why) => {
                    state.lose(raw.unreadable(why), &self.layout.paths);
                }
            }
        }
        let now = state.revision();
        drop(state);
        if added.is_empty() {
            return 0;
        }
        tracing::info!(prefix = self.layout.prefix, mended = added.len(), "stored objects can be read again");
        // The state has other objects at the revision that it had: nobody may go on from there, nor find the one before.
        flow.watchers.end_all(End::Expired);
        flow.forget(now);
        flow.pins.clear();
        flow.show(self, &added);
        added.len()
    }

    /// All objects, and the revision that this is the state of. Who tells them to be all must [`State::check`] it.
    pub fn now(&self) -> (State, u64) {
        // Read before the state: all changes up to it are in the state then.
        let progress = self.progress.revision();
        self.pause();
        let state = self.state().clone();
        let revision = progress.max(state.revision());
        (state, revision)
    }

    /// All objects as they were at a revision, which the cache has reached. Who tells them to be all must [`State::check`]
    /// it.
    ///
    /// # Errors
    /// [`TooOld`] when it is not kept any more.
    pub fn at(&self, revision: u64) -> Result<State, TooOld> {
        self.pause();
        let flow = self.flow();
        let state = self.state().clone();
        if state.revision() <= revision {
            return Ok(state);
        }
        let alive = flow.pins.iter().filter(|pin| pin.at.elapsed() < REACH && pin.until >= revision);
        let base = alive.min_by_key(|pin| pin.until).map_or(&state, |pin| &pin.state);
        if base.revision() <= revision {
            return Ok(base.clone());
        }
        if revision < flow.floor {
            return Err(TooOld { oldest: flow.floor });
        }
        let mut past = base.clone();
        let from = flow.log.partition_point(|(change, _)| change.revision() <= revision);
        let to = flow.log.partition_point(|(change, _)| change.revision() <= past.revision());
        let undo = |(change, _): &(Arc<Change>, Instant)| match &change.previous {
            Some(previous) => drop(past.insert(previous.clone(), &self.layout.paths)),
            None => drop(past.remove(change.entry.key(), &self.layout.paths)),
        };
        let since = flow.log.range(from..to);
        if hooks::is(Mutant::UndoneForward) {
            since.for_each(undo);
        } else {
            since.rev().for_each(undo);
        }
        past.set_revision(revision);
        Ok(past)
    }

    /// Keeps a snapshot for a list that will go on from it.
    pub fn pin(&self, state: &State, until: u64) {
        self.pause();
        let mut flow = self.flow();
        flow.pins.retain(|pin| pin.at.elapsed() < REACH);
        if flow.pins.iter().any(|pin| pin.until == until) {
            return;
        }
        if flow.pins.len() == PINS {
            flow.pins.pop_front();
        }
        flow.pins.push_back(Pin { until, state: state.clone(), at: Instant::now() });
    }

    /// Watches. With [`Start::Initial`] there is a snapshot too, and its revision; changes follow it without gap.
    ///
    /// # Errors
    /// [`NoWatch`] when the changes after the start are not all kept, or an object of the scope cannot be read now.
    pub fn watch(self: &Arc<Self>, filter: Filter, start: Start) -> Result<(Watcher, State, u64), NoWatch> {
        self.pause();
        let mut flow = self.flow();
        let (state, now) = self.now();
        filter.check(&state).map_err(NoWatch::Unreadable)?;
        let mut backlog = Vec::new();
        if let Start::After(revision) = start {
            if revision < flow.floor {
                return Err(NoWatch::TooOld(TooOld { oldest: flow.floor }));
            }
            let told = if hooks::is(Mutant::ResumeTellsAgain) { revision.saturating_sub(1) } else { revision };
            let from = flow.log.partition_point(|(change, _)| change.revision() <= told);
            for (change, _) in flow.log.range(from..) {
                if let Some(kind) = change.seen(|entry| filter.sees(entry, &self.layout.paths)) {
                    backlog.push(Delivery { change: change.clone(), kind });
                }
            }
        }
        let after = match start {
            Start::After(revision) => revision,
            Start::Now => now,
            Start::Initial => 0,
        };
        let mailbox = Arc::new(Mailbox::new(after, backlog));
        if hooks::is(Mutant::WatchAfterSnapshot) {
            drop(flow);
            self.pause();
            flow = self.flow();
        }
        let registration = flow.watchers.add(filter, mailbox.clone());
        drop(flow);
        Ok((Watcher { cacher: self.clone(), mailbox, registration }, state, now))
    }

    /// Has an observer told of all objects there are (as added), then of every change.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        let mut flow = self.flow();
        let state = self.state().clone();
        for entry in state.range(&Scope::All, None) {
            observer.changed(self, &Change::new(ChangeKind::Added, entry.clone(), None));
        }
        flow.observers.push(observer);
    }

    #[cfg(test)]
    pub(super) fn progress_for_tests(&self, revision: u64) {
        self.progress.advance(revision);
    }

    /// How many objects there are, and what they take in memory, about.
    pub fn size(&self) -> (usize, usize) {
        let state = self.state();
        (state.len(), state.bytes())
    }

    /// How many watch.
    pub fn watchers(&self) -> usize {
        self.flow().watchers.len()
    }

    /// Ends every watch.
    pub(super) fn end_watches(&self, end: End) {
        self.flow().watchers.end_all(end);
    }

    /// Brings changes in. They are in the order of their revisions, and no revision is split over two calls. Tells whether
    /// they were taken.
    pub(super) fn apply(&self, raws: Vec<Raw>, age: Age) -> bool {
        // A storage that was added while the feed runs is ahead of it.
        let seen = self.state().revision();
        let news = raws.into_iter().filter(|raw| raw.revision > seen);
        let parsed: Vec<Parsed> = news.map(|raw| self.parse(raw)).collect();
        Counts::add(&self.counts.received, parsed.len());
        if age == Age::Past && parsed.iter().any(|(_, entry)| entry.is_err()) {
            return false;
        }
        for (raw, entry) in &parsed {
            entry.as_ref().err().into_iter().for_each(|why| self.log_unreadable(&raw.key, why));
        }
        self.pause();
        let mut flow = self.flow();
        let mut turned = false;
        let mut changes = Vec::with_capacity(parsed.len());
        let mut last = 0;
        {
            let mut state = self.state_mut();
            for (raw, entry) in parsed {
                last = raw.revision;
                turned |= entry.is_err() || state.unreadable(&raw.key).is_some();
                let deleted = |previous: Arc<Entry>| {
                    let last = Arc::new(previous.at_revision(raw.revision));
                    Change::new(ChangeKind::Deleted, last, Some(previous))
                };
                let change = match entry {
                    Ok(Some(entry)) => {
                        let previous = state.insert(entry.clone(), &self.layout.paths);
                        let kind = if previous.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
                        Some(Change::new(kind, entry, previous))
                    }
                    Ok(None) => state.remove(&raw.key, &self.layout.paths).map(deleted),
                    Err(why) => state.lose(raw.unreadable(why), &self.layout.paths).map(deleted),
                };
                state.set_revision(raw.revision);
                changes.extend(change.map(Arc::new));
            }
        }
        if turned && !hooks::is(Mutant::UnreadableToldRemoved) {
            // What cannot be read is gone for observers, but watchers would take it for removed, or miss that it is again.
            // They are ended before they are told of any of this, list again, and are told why not.
            flow.watchers.end_all(End::Expired);
        }
        let now = Instant::now();
        Counts::add(&self.counts.dispatched, changes.len());
        let wake = flow.tell(self, changes, now);
        if turned {
            flow.forget(last);
        }
        flow.trim(now);
        drop(flow);
        wake.into_iter().for_each(Waker::wake);
        true
    }

    /// Adds to what a storage holds some of what was read of it.
    pub(super) fn fill(&self, contents: &mut State, parsed: Vec<Parsed>) {
        for (raw, entry) in parsed {
            match entry {
                Ok(Some(entry)) => {
                    contents.insert(entry, &self.layout.paths);
                }
                Ok(None) => {}
                Err(why) => {
                    contents.lose(raw.unreadable(why), &self.layout.paths);
                }
            }
        }
    }

    /// Takes over what a storage holds at a revision, after the changes up to it were missed. Tells whether it was taken.
    pub(super) fn replace(&self, mut fresh: State, revision: u64, age: Age) -> bool {
        if age == Age::Past && fresh.unreadables().next().is_some() {
            return false;
        }
        fresh.unreadables().for_each(|unreadable| self.log_unreadable(&unreadable.key, &unreadable.why));
        Counts::add(&self.counts.loads, 1);
        self.pause();
        let mut flow = self.flow();
        fresh.set_revision(revision);
        let stale = std::mem::replace(&mut *self.state_mut(), fresh.clone());
        if !hooks::is(Mutant::ReloadKeepsWatches) {
            flow.watchers.end_all(End::Expired);
        }
        flow.forget(revision);
        if flow.observers.is_empty() || hooks::is(Mutant::ReloadForgetsDifference) {
            return true;
        }
        let gone = stale.range(&Scope::All, None).filter(|entry| fresh.get(entry.key()).is_none());
        let mut changes: Vec<Change> = gone
            .map(|entry| Change::new(ChangeKind::Deleted, Arc::new(entry.at_revision(revision)), Some(entry.clone())))
            .collect();
        for entry in fresh.range(&Scope::All, None) {
            let previous = stale.get(entry.key()).cloned();
            if previous.as_ref().is_none_or(|previous| previous.revision() != entry.revision()) {
                let kind = if previous.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
                changes.push(Change::new(kind, entry.clone(), previous));
            }
        }
        flow.show(self, &changes);
        true
    }

    /// An entry of what the store has; a value that is read is not kept.
    pub(super) fn parse(&self, mut raw: Raw) -> Parsed {
        let Some(value) = &raw.value else { return (raw, Ok(None)) };
        if let Some(known) = self.underway.take(value) {
            let entry = Entry::from_known(&raw.key, raw.revision, value, &self.head, known);
            raw.value = None;
            return (raw, Ok(Some(Arc::new(entry))));
        }
        match self.entry(&raw.key, raw.revision, value) {
            Ok(entry) => {
                raw.value = None;
                (raw, Ok(Some(Arc::new(entry))))
            }
            Err(error) => (raw, Err(Chain(&error).to_string())),
        }
    }

    fn log_unreadable(&self, key: &str, why: &str) {
        tracing::error!(prefix = self.layout.prefix, key, why, "a stored object cannot be read");
    }

    /// The entry of a stored value.
    ///
    /// # Errors
    /// [`super::StoredError`] when it is no object of this storage.
    pub fn entry(&self, key: &str, revision: u64, value: &[u8]) -> Result<Entry, super::StoredError> {
        Entry::from_stored(key, revision, value, &self.head, &self.layout.schema, &self.layout.paths)
    }
}

impl Flow {
    /// Forgets all changes up to a revision.
    fn forget(&mut self, revision: u64) {
        self.log.clear();
        self.log_bytes = 0;
        self.floor = revision;
    }

    /// Shows changes to the observers, and to nobody else: the watchers are told, or have been ended.
    fn show<'c>(&self, cacher: &Cacher, changes: impl IntoIterator<Item = &'c Change>) {
        for change in changes {
            for observer in &self.observers {
                observer.changed(cacher, change);
            }
        }
    }

    /// Tells everybody of changes that came together, and keeps them for those who come later. Who waits is to be woken then.
    fn tell(&mut self, cacher: &Cacher, changes: Vec<Arc<Change>>, now: Instant) -> Vec<Waker> {
        self.show(cacher, changes.iter().map(|change| &**change));
        let wake = self.watchers.tell(&changes, &cacher.layout.paths);
        for change in changes {
            self.log_bytes += change.entry.size();
            self.log.push_back((change, now));
            if let Some(at) = self.log.len().checked_sub(HOT + 1) {
                self.log[at].0.forget_frames();
            }
        }
        wake
    }

    /// Forgets what is too old or too much.
    fn trim(&mut self, now: Instant) {
        while let Some((oldest, at)) = self.log.front() {
            let revision = oldest.revision();
            if self.log_bytes <= REACH_BYTES && now.duration_since(*at) < REACH {
                return;
            }
            // The changes of one revision go together.
            while let Some((change, _)) = self.log.front()
                && change.revision() == revision
            {
                self.log_bytes -= change.entry.size();
                self.log.pop_front();
            }
            if !hooks::is(Mutant::TrimForgetsFloor) {
                self.floor = revision;
            }
        }
    }
}

impl std::fmt::Debug for Cacher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cacher({})", self.layout.prefix)
    }
}

/// An error with what caused it.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// Gets the changes that a filter sees, each once and in order, until it ends.
#[derive(Debug)]
pub struct Watcher {
    cacher: Arc<Cacher>,
    mailbox: Arc<Mailbox>,
    registration: Registration,
}

impl Watcher {
    /// The next changes, or why there are none any more.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Arc<Batch>, End>> {
        self.mailbox.poll_next(cx)
    }

    /// The next changes, or why there are none any more.
    ///
    /// # Errors
    /// The end.
    pub async fn next(&mut self) -> Result<Arc<Batch>, End> {
        std::future::poll_fn(|cx| self.mailbox.poll_next(cx)).await
    }

    /// A revision up to which everything has been taken from here; `None` while something waits.
    pub fn caught_up(&self) -> Option<u64> {
        // Changes are put here before the progress is advanced: it must be read first.
        let revision = self.cacher.progress.revision();
        self.cacher.pause();
        let nothing_waits = self.mailbox.is_empty();
        if hooks::is(Mutant::BookmarkAhead) {
            self.cacher.pause();
            return nothing_waits.then_some(self.cacher.progress.revision());
        }
        nothing_waits.then_some(revision)
    }

    pub fn cacher(&self) -> &Arc<Cacher> {
        &self.cacher
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.cacher.flow().watchers.remove(self.registration);
    }
}
