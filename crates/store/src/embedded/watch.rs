//! Watches: who follows which keys, what waits for them, and replaying history to those who start in the past.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use bytes::Bytes;
use futures::task::AtomicWaker;

use super::blocking;
use super::hooks::{self, Mutant};
use super::index::Version;
use super::recent::{Change, key_value};
use super::shared::{Item, Shared};
use crate::{Error, Event, KeyRange, KeyValue, Watch, WatchBatch, WatchStream};

/// Revisions of history looked for in one pass over the index.
const HISTORY_WINDOW: i64 = hooks::bound(50_000, 40) as i64;
/// Events in one batch of history, but a revision is never split.
const HISTORY_BATCH: usize = hooks::bound(512, 5);

/// All watchers of the store.
pub(crate) struct Hub {
    groups: Mutex<Groups>,
    max_events: usize,
    max_bytes: usize,
}

/// Watchers by the range they watch, sorted by its start, so that a change finds its watchers without a look at all.
#[derive(Default)]
struct Groups {
    sorted: Vec<Group>,
    closed: bool,
}

struct Group {
    keys: KeyRange,
    /// The furthest end of this group's range and those before it in order; `None` is the end of the key space.
    reach: Option<Bytes>,
    watchers: Vec<Arc<Watcher>>,
    /// Events of the write being published.
    events: Vec<Event>,
}

pub(crate) struct Watcher {
    start: i64,
    progress: bool,
    queue: Mutex<Queue>,
    waker: AtomicWaker,
    /// The stream was dropped or the queue ended.
    gone: AtomicBool,
}

#[derive(Default)]
struct Queue {
    batches: VecDeque<WatchBatch>,
    events: usize,
    bytes: usize,
    /// The last revision queued for it.
    revision: i64,
    end: Option<End>,
}

#[derive(Clone, Copy)]
enum End {
    Slow,
    Closed,
}

fn range_end(keys: &KeyRange) -> Option<Bytes> {
    match &keys.end {
        // The smallest key above the only one.
        None => Some([&keys.start[..], &[0]].concat().into()),
        Some(end) if end.is_empty() => None,
        Some(end) => Some(end.clone()),
    }
}

impl Groups {
    fn insert(&mut self, keys: &KeyRange, watcher: Arc<Watcher>) {
        match self.sorted.iter_mut().find(|group| group.keys == *keys) {
            Some(group) => group.watchers.push(watcher),
            None => {
                let at = self.sorted.partition_point(|group| group.keys.start <= keys.start);
                self.sorted
                    .insert(at, Group { keys: keys.clone(), reach: None, watchers: vec![watcher], events: Vec::new() });
                self.measure();
            }
        }
    }

    fn remove_gone(&mut self) {
        for group in &mut self.sorted {
            group.watchers.retain(|watcher| !watcher.gone.load(Ordering::Acquire));
        }
        self.sorted.retain(|group| !group.watchers.is_empty());
        self.measure();
    }

    fn measure(&mut self) {
        let mut reach: Option<Option<Bytes>> = None;
        for group in &mut self.sorted {
            let end = range_end(&group.keys);
            let furthest = match reach {
                None => end,
                Some(None) => None,
                Some(Some(before)) => end.map(|end| end.max(before)),
            };
            group.reach = furthest.clone();
            reach = Some(furthest);
        }
    }

    /// Collects a change into every group whose range has its key.
    fn collect(&mut self, change: &Change) {
        let mut at = self.sorted.partition_point(|group| group.keys.start <= change.key);
        while at > 0 {
            at -= 1;
            let group = &mut self.sorted[at];
            if group.reach.as_ref().is_some_and(|reach| *reach <= change.key) {
                return;
            }
            if group.keys.contains(&change.key) {
                group.events.push(change.event());
            }
        }
    }
}

impl Hub {
    pub(crate) fn new(max_events: usize, max_bytes: usize) -> Self {
        Self { groups: Mutex::default(), max_events, max_bytes }
    }

    fn groups(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes changes visible and queues them for their watchers.
    ///
    /// `make_visible` runs under the lock that registrations take, so a watch sees each change as history or live, never
    /// as both or neither.
    pub(crate) fn publish(&self, changes: &[Change], revision: i64, make_visible: impl FnOnce()) {
        let mut groups = self.groups();
        make_visible();
        if groups.sorted.is_empty() {
            return;
        }
        for change in changes {
            groups.collect(change);
        }
        let mut ended = false;
        for group in groups.sorted.iter_mut().filter(|group| !group.events.is_empty()) {
            let events = std::mem::take(&mut group.events);
            for watcher in &group.watchers {
                ended |= watcher.push(&events, revision, self);
            }
        }
        if ended {
            groups.remove_gone();
        }
    }

    /// Tells watchers that want to know that they have seen all up to `revision`.
    pub(crate) fn progress(&self, revision: i64) {
        for group in &self.groups().sorted {
            for watcher in group.watchers.iter().filter(|watcher| watcher.progress) {
                watcher.progress(revision);
            }
        }
    }

    /// Ends all watches.
    pub(crate) fn close(&self) {
        let mut groups = self.groups();
        groups.closed = true;
        for group in groups.sorted.drain(..) {
            for watcher in group.watchers {
                watcher.end(End::Closed);
            }
        }
    }
}

impl Watcher {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues events; `true` when that was too much for it and it was ended instead.
    fn push(&self, events: &[Event], revision: i64, hub: &Hub) -> bool {
        let wanted = events.partition_point(|event| event.revision() < self.start);
        let events = &events[wanted..];
        if events.is_empty() {
            return false;
        }
        let bytes = events.iter().map(weight).sum::<usize>();
        let mut queue = self.queue();
        if queue.end.is_some() {
            return false;
        }
        // One write always fits, however large, into a queue that is empty.
        if queue.events > 0 && (queue.events + events.len() > hub.max_events || queue.bytes + bytes > hub.max_bytes) {
            if hooks::is(Mutant::SlowWatcherSkips) {
                return false;
            }
            queue.end = Some(End::Slow);
            drop(queue);
            self.gone.store(true, Ordering::Release);
            self.waker.wake();
            return true;
        }
        queue.events += events.len();
        queue.bytes += bytes;
        queue.revision = revision;
        queue.batches.push_back(WatchBatch { revision, events: events.to_vec() });
        drop(queue);
        self.waker.wake();
        false
    }

    fn progress(&self, revision: i64) {
        let mut queue = self.queue();
        if queue.end.is_some() || queue.revision >= revision {
            return;
        }
        queue.revision = revision;
        match queue.batches.back_mut() {
            Some(last) => last.revision = revision,
            None => queue.batches.push_back(WatchBatch { revision, events: Vec::new() }),
        }
        drop(queue);
        self.waker.wake();
    }

    fn end(&self, end: End) {
        self.queue().end.get_or_insert(end);
        self.gone.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// The next batch; `None` after the last of a store that closed, an error after the last of a slow watcher.
    async fn next(&self, delivered: i64) -> Option<Result<WatchBatch, Error>> {
        std::future::poll_fn(|context| {
            let take = || {
                let mut queue = self.queue();
                if let Some(batch) = queue.batches.pop_front() {
                    queue.events -= batch.events.len();
                    queue.bytes -= batch.events.iter().map(weight).sum::<usize>();
                    return Some(Some(Ok(batch)));
                }
                queue.end.map(|end| match end {
                    End::Slow => Some(Err(Error::SlowWatcher { last: delivered })),
                    End::Closed => Some(Err(Error::Closed)),
                })
            };
            if let Some(ready) = take() {
                return Poll::Ready(ready);
            }
            self.waker.register(context.waker());
            take().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

fn weight(event: &Event) -> usize {
    match event {
        Event::Put { kv, .. } => kv.key.len() + kv.value.len() + size_of::<Event>(),
        Event::Delete { key, .. } => key.len() + size_of::<Event>(),
    }
}

/// A watcher's side of its stream.
struct Follower {
    shared: Arc<Shared>,
    watch: Watch,
    watcher: Arc<Watcher>,
    /// The revision at which live events begin to be queued, less one.
    joined: i64,
    /// The next revision of history to replay; above `joined` when that is done.
    next: i64,
    /// History found but not delivered yet.
    found: VecDeque<Item>,
    delivered: i64,
    /// The first batch, which tells where the watch was established, is out.
    greeted: bool,
    ended: bool,
}

impl Drop for Follower {
    fn drop(&mut self) {
        if !self.watcher.gone.swap(true, Ordering::AcqRel) {
            self.shared.hub.groups().remove_gone();
        }
    }
}

/// Registers a watch.
pub(crate) fn watch(shared: &Arc<Shared>, mut watch: Watch) -> Result<WatchStream, Error> {
    let mut groups = shared.hub.groups();
    if groups.closed {
        return Err(Error::Closed);
    }
    let joined = shared.visible();
    let compacted = shared.compacted();
    if hooks::is(Mutant::WatchSkipsToTheMark) && watch.start_revision != 0 {
        watch.start_revision = watch.start_revision.max(compacted);
    }
    if watch.start_revision != 0 && watch.start_revision < compacted {
        return Err(Error::Compacted { asked: watch.start_revision, compacted });
    }
    let start = if watch.start_revision == 0 { joined + 1 } else { watch.start_revision };
    let watcher = Arc::new(Watcher {
        start,
        progress: watch.progress,
        // Until history is delivered, progress is still to be told.
        queue: Mutex::new(Queue { revision: joined.min(start - 1), ..Queue::default() }),
        waker: AtomicWaker::new(),
        gone: AtomicBool::new(false),
    });
    groups.insert(&watch.keys, Arc::clone(&watcher));
    drop(groups);
    let follower = Follower {
        shared: Arc::clone(shared),
        watch,
        watcher,
        joined,
        next: start,
        found: VecDeque::new(),
        delivered: start - 1,
        greeted: false,
        ended: false,
    };
    Ok(Box::pin(futures::stream::unfold(follower, |mut follower| async move {
        if follower.ended {
            return None;
        }
        let result = follower.next().await;
        follower.ended = result.is_err();
        Some((result, follower))
    })))
}

impl Follower {
    async fn next(&mut self) -> Result<WatchBatch, Error> {
        if !self.greeted {
            self.greeted = true;
            return Ok(WatchBatch { revision: self.joined, events: Vec::new() });
        }
        let mut batch = match self.history().await? {
            Some(batch) => batch,
            None => self.watcher.next(self.delivered).await.unwrap_or(Err(Error::Closed))?,
        };
        self.delivered = batch.revision;
        if self.watch.previous {
            self.put_previous(&mut batch).await?;
        }
        Ok(batch)
    }

    /// The next batch of history, or none when the watch has caught up.
    async fn history(&mut self) -> Result<Option<WatchBatch>, Error> {
        while self.next <= self.joined || !self.found.is_empty() {
            if self.found.is_empty() {
                if let Some(batch) = self.recent_history() {
                    if batch.events.is_empty() {
                        return Ok(None);
                    }
                    return Ok(Some(batch));
                }
                let until = self.joined.min(self.next + HISTORY_WINDOW - 1);
                let (shared, keys, from) = (Arc::clone(&self.shared), self.watch.keys.clone(), self.next);
                hooks::pause();
                self.found = blocking(move || find_history(&shared, &keys, from, until)).await?;
                self.next = until + 1;
                continue;
            }
            return self.disk_history().await.map(Some);
        }
        Ok(None)
    }

    /// All of the rest of the history if it is among the recent changes.
    fn recent_history(&mut self) -> Option<WatchBatch> {
        let recent = self.shared.recent();
        let changes = recent.since(self.next)?;
        let events = changes
            .take_while(|change| change.version.mod_revision <= self.joined || hooks::is(Mutant::HistoryOverlapsLive))
            .filter(|change| self.watch.keys.contains(&change.key))
            .map(Change::event)
            .collect();
        self.next = self.joined + 1;
        Some(WatchBatch { revision: self.joined, events })
    }

    async fn disk_history(&mut self) -> Result<WatchBatch, Error> {
        let mut take = self.found.len().min(HISTORY_BATCH);
        while take < self.found.len() && self.found[take].1.mod_revision == self.found[take - 1].1.mod_revision {
            take += 1;
        }
        let items: Vec<Item> = self.found.drain(..take).collect();
        let first = items[0].1.mod_revision;
        let revision = match self.found.is_empty() {
            true => self.next - 1,
            false => items[take - 1].1.mod_revision,
        };
        let shared = Arc::clone(&self.shared);
        let events = blocking(move || {
            let _pin = shared.pin_for(first)?;
            history_events(&shared, items)
        })
        .await?;
        Ok(WatchBatch { revision, events })
    }

    /// Reads the values that changes replaced, where history still has them.
    async fn put_previous(&self, batch: &mut WatchBatch) -> Result<(), Error> {
        let changed: Vec<(Bytes, i64)> =
            batch.events.iter().map(|event| (event.key().clone(), event.revision())).collect();
        let Some(first) = changed.first().map(|(_, revision)| revision - 1) else { return Ok(()) };
        let shared = Arc::clone(&self.shared);
        let previous = blocking(move || {
            // Without the pin (when the mark has passed) what is found may be gone when it is read.
            let Ok(_pin) = shared.pin_for(first.max(1)) else { return Ok(vec![None; changed.len()]) };
            let items = {
                let index = shared.index();
                let before = |(key, revision): &(Bytes, i64)| {
                    index.get(key, revision - 1).map(|(key, version)| (key.clone(), *version))
                };
                changed.iter().map(before).collect::<Vec<Option<Item>>>()
            };
            let mut values = shared.values(items.iter().flatten().cloned().collect())?.into_iter();
            Ok(items.iter().map(|item| item.as_ref().and_then(|_| values.next())).collect::<Vec<Option<KeyValue>>>())
        })
        .await?;
        for (event, before) in batch.events.iter_mut().zip(previous) {
            match event {
                Event::Put { previous, .. } | Event::Delete { previous, .. } => *previous = before,
            }
        }
        Ok(())
    }
}

/// The versions that revisions `from..=until` made in a range, in revision order.
fn find_history(shared: &Arc<Shared>, keys: &KeyRange, from: i64, until: i64) -> Result<VecDeque<Item>, Error> {
    let _pin = shared.pin_for(from)?;
    let mut found: Vec<Item> = Vec::new();
    shared.chunks(keys, |key, chain| {
        let newer = chain.versions().rev().take_while(|version| version.mod_revision >= from);
        found.extend(newer.filter(|version| version.mod_revision <= until).map(|version| (key.clone(), *version)));
    });
    // Stable, so that the keys of one revision stay in order.
    found.sort_by_key(|(_, version)| version.mod_revision);
    Ok(found.into())
}

fn history_events(shared: &Arc<Shared>, items: Vec<Item>) -> Result<Vec<Event>, Error> {
    let puts: Vec<Item> = items.iter().filter(|(_, version)| !version.is_tombstone()).cloned().collect();
    let mut values = shared.values(puts)?.into_iter();
    let event = |(key, version): (Bytes, Version)| {
        if version.is_tombstone() {
            return Event::Delete { key, revision: version.mod_revision, previous: None };
        }
        let value = values.next().map(|kv| kv.value).unwrap_or_default();
        Event::Put { kv: key_value(key, value, &version), previous: None }
    };
    Ok(items.into_iter().map(event).collect())
}
