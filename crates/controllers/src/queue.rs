//! The work queue: keys, each at most once in it and never worked on by two at once, with back-off for failures.

mod measures;

pub use measures::Queues;

use measures::Counts;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt::Display;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// As client-go's default controller rate limiter.
const FIRST_BACK_OFF: Duration = Duration::from_millis(5);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(1000);

/// A namespace and a name; cluster-scoped objects have an empty namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(namespace: &str, name: &str) -> Self {
        Key { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// A work queue. Clones are the same queue.
pub struct Queue<K> {
    state: Arc<Mutex<State<K>>>,
    changed: Arc<Notify>,
}

struct State<K> {
    counts: Arc<Counts>,
    ready: VecDeque<K>,
    /// In `ready`, or asked for again while worked on; and since when.
    dirty: HashMap<K, Instant>,
    /// Worked on, and since when.
    processing: HashMap<K, Instant>,
    /// Keys to add at a time; the counter keeps equal times apart.
    delayed: BTreeSet<(Instant, u64)>,
    delayed_keys: HashMap<u64, K>,
    next_delayed: u64,
    failures: HashMap<K, u32>,
}

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Queue { state: self.state.clone(), changed: self.changed.clone() }
    }
}

impl<K> Drop for State<K> {
    /// What is left of it is nobody's work any more.
    fn drop(&mut self) {
        self.counts.dropped(self.dirty.len(), self.processing.values());
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    /// Notes that a key is asked for. Whether it was not before, and nobody works on it.
    fn ask(&mut self, key: &K) -> bool {
        if self.dirty.contains_key(key) {
            return false;
        }
        self.dirty.insert(key.clone(), Instant::now());
        self.counts.added();
        !self.processing.contains_key(key)
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// A queue that is measured under upstream's name for it.
    pub fn named(queues: &Queues, name: &'static str) -> Self {
        Self::counted(queues.of(name))
    }

    /// One that nobody measures.
    #[cfg(test)]
    fn unnamed() -> Self {
        Self::named(&Queues::default(), "")
    }

    fn counted(counts: Arc<Counts>) -> Self {
        Queue {
            state: Arc::new(Mutex::new(State {
                counts,
                ready: VecDeque::new(),
                dirty: HashMap::new(),
                processing: HashMap::new(),
                delayed: BTreeSet::new(),
                delayed_keys: HashMap::new(),
                next_delayed: 0,
                failures: HashMap::new(),
            })),
            changed: Arc::new(Notify::new()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a key to be worked on.
    pub fn add(&self, key: K) {
        let mut state = self.lock();
        if state.ask(&key) {
            state.ready.push_back(key);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Asks for a key to be worked on after a while.
    pub fn add_after(&self, key: K, wait: Duration) {
        let mut state = self.lock();
        state.counts.retried();
        if wait.is_zero() {
            drop(state);
            return self.add(key);
        }
        let id = state.next_delayed;
        state.next_delayed += 1;
        state.delayed.insert((Instant::now() + wait, id));
        state.delayed_keys.insert(id, key);
        drop(state);
        self.changed.notify_one();
    }

    /// Asks for a key again after its failure, ever later while it keeps failing.
    pub fn add_after_failure(&self, key: K) {
        let mut state = self.lock();
        let failures = state.failures.entry(key.clone()).or_insert(0);
        let wait = FIRST_BACK_OFF.saturating_mul(1u32.checked_shl(*failures).unwrap_or(u32::MAX)).min(LONGEST_BACK_OFF);
        *failures = failures.saturating_add(1).min(31);
        drop(state);
        self.add_after(key, wait);
    }

    /// The key's last reconcile went well.
    pub fn forget(&self, key: &K) {
        self.lock().failures.remove(key);
    }

    /// The next key, marked as worked on until [`Queue::done`].
    pub async fn get(&self) -> K {
        loop {
            let wake = {
                let mut state = self.lock();
                let now = Instant::now();
                while let Some(&(at, id)) = state.delayed.first().filter(|(at, _)| *at <= now) {
                    state.delayed.remove(&(at, id));
                    if let Some(key) = state.delayed_keys.remove(&id)
                        && state.ask(&key)
                    {
                        state.ready.push_back(key);
                    }
                }
                if let Some(key) = state.ready.pop_front() {
                    if let Some(since) = state.dirty.remove(&key) {
                        state.counts.begun(now, now.saturating_duration_since(since));
                    }
                    state.processing.insert(key.clone(), now);
                    if !state.ready.is_empty() {
                        self.changed.notify_one();
                    }
                    return key;
                }
                state.delayed.first().map(|(at, _)| *at)
            };
            match wake {
                Some(at) => tokio::select! {
                    () = self.changed.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    /// The key is no longer worked on; it is ready again if it was asked for meanwhile.
    pub fn done(&self, key: &K) {
        let mut state = self.lock();
        if let Some(since) = state.processing.remove(key) {
            state.counts.done(since, since.elapsed());
        }
        if state.dirty.contains_key(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.changed.notify_one();
        }
    }
}

impl<K: Clone + Eq + Hash + Display> Queue<K> {
    /// Works the queue off with so many reconciles at once, until shutdown.
    ///
    /// A reconcile gives when it wants its key again, if it does; a failure is logged and tried again with back-off.
    pub async fn run<F, R>(&self, controller: &'static str, workers: usize, shutdown: CancellationToken, reconcile: F)
    where
        F: Fn(K) -> R,
        R: Future<Output = Result<Option<Duration>, crate::Error>>,
    {
        let worker = || async {
            loop {
                let key = self.get().await;
                match reconcile(key.clone()).await {
                    Ok(again) => {
                        self.forget(&key);
                        if let Some(wait) = again {
                            self.add_after(key.clone(), wait);
                        }
                    }
                    Err(e) => {
                        // Conflicts are the normal way of optimistic writes.
                        if matches!(&e, crate::Error::Api(e) if crate::code(e) == 409) {
                            tracing::debug!(controller, %key, "tried again: {e}");
                        } else {
                            tracing::warn!(controller, %key, "the reconcile failed and is tried again: {e}");
                        }
                        self.add_after_failure(key.clone());
                    }
                }
                self.done(&key);
            }
        };
        let workers = futures::future::join_all((0..workers).map(|_| worker()));
        tokio::select! {
            () = shutdown.cancelled() => {}
            // Workers never end by themselves.
            _ = workers => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::measure::Tells;
    use std::cell::RefCell;
    use std::collections::HashSet;

    #[tokio::test(start_paused = true)]
    async fn a_key_is_worked_on_once_at_a_time_and_again_when_asked_meanwhile() {
        let queue = Queue::<Key>::unnamed();
        let key = Key::new("a", "b");
        queue.add(key.clone());
        queue.add(key.clone());
        assert_eq!(queue.get().await, key);
        queue.add(key.clone());
        assert!(queue.lock().ready.is_empty(), "not ready while worked on");
        queue.done(&key);
        assert_eq!(queue.get().await, key);
        queue.done(&key);
        assert!(queue.lock().ready.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_each_time() {
        let queue = Queue::<Key>::unnamed();
        let key = Key::new("", "x");
        let start = Instant::now();
        let mut waits = Vec::new();
        queue.add(key.clone());
        for _ in 0..4 {
            assert_eq!(queue.get().await, key);
            waits.push(start.elapsed().as_millis());
            queue.add_after_failure(key.clone());
            queue.done(&key);
        }
        assert_eq!(waits, [0, 5, 15, 35]);
        queue.forget(&key);
        assert!(queue.lock().failures.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_queue_does_is_measured_by_its_name() {
        let queues = Queues::default();
        let told = || {
            let mut text = String::new();
            queues.render(&mut text).expect("a String takes every write");
            text
        };
        let expect = |series: &[&str]| {
            let text = told();
            for line in series {
                let (name, value) = line.split_once(' ').expect("a name and a value");
                let line = format!("workqueue_{name}{{name=\"job\"}} {value}\n");
                assert!(text.contains(&line), "{line}{text}");
            }
        };
        let queue = Queue::<Key>::named(&queues, "job");
        let key = Key::new("a", "b");
        queue.add(key.clone());
        queue.add(key.clone());
        expect(&["depth 1", "adds_total 1", "unfinished_work_seconds 0"]);
        tokio::time::advance(Duration::from_secs(2)).await;
        queue.get().await;
        tokio::time::advance(Duration::from_secs(3)).await;
        expect(&["depth 0", "queue_duration_seconds_sum 2", "queue_duration_seconds_count 1"]);
        expect(&["unfinished_work_seconds 3", "longest_running_processor_seconds 3", "work_duration_seconds_count 0"]);
        // Asked for again while it is worked on, and after a failure.
        queue.add(key.clone());
        queue.add_after_failure(key.clone());
        expect(&["depth 1", "adds_total 2", "retries_total 1"]);
        queue.done(&key);
        expect(&["unfinished_work_seconds 0", "work_duration_seconds_sum 3", "work_duration_seconds_count 1"]);
        queue.get().await;
        queue.add(key);
        drop(queue);
        expect(&["depth 0", "adds_total 3", "longest_running_processor_seconds 0"]);
    }

    #[tokio::test(start_paused = true)]
    async fn every_key_is_reconciled_by_some_worker() {
        let queue = Queue::<Key>::unnamed();
        for i in 0..20 {
            queue.add(Key::new("", &i.to_string()));
        }
        let seen = RefCell::new(HashSet::new());
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        queue
            .run("test", 3, shutdown, |key: Key| {
                seen.borrow_mut().insert(key.name);
                if seen.borrow().len() == 20 {
                    stop.cancel();
                }
                async { Ok(None) }
            })
            .await;
        assert_eq!(seen.borrow().len(), 20);
    }
}
