//! How requests reach the writer's thread, and how the upkeep's thread is woken.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::writer::Request;

/// Requests in the order in which they came.
///
/// The first of them opens a gathering, in which the writer leaves them alone. It ends as soon as one of the senders has
/// let all others go first that were ready to run: where the processors are busy, many share a sync and all that goes with
/// it; where they are not, nobody waits.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    /// No sender of what is queued was here again yet.
    gathering: bool,
    /// Counts what was taken.
    group: u64,
    waiting: bool,
    closed: bool,
}

impl State {
    fn is_idle(&mut self) -> bool {
        (self.requests.is_empty() || self.gathering) && !self.closed
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request and returns when the writer may take it. When the queue is closed the request is dropped, which its
    /// sender sees as a closed store.
    pub(crate) async fn push(&self, request: Request) {
        // Each sender comes back for itself, as another may never be polled again; one that goes away leaves its request.
        if let Some(_gathered) = self.add(request) {
            tokio::task::yield_now().await;
        }
    }

    fn add(&self, request: Request) -> Option<Gathered<'_>> {
        let mut state = self.state();
        if state.closed {
            return None;
        }
        state.gathering |= state.requests.is_empty();
        state.requests.push(request);
        state.gathering.then(|| Gathered { queue: self, group: state.group })
    }

    /// Adds a request that the writer may take at once.
    pub(crate) fn push_now(&self, request: Request) {
        let mut state = self.state();
        if !state.closed {
            state.requests.push(request);
            self.gathered(state);
        }
    }

    /// Lets the writer take what is there.
    fn gathered(&self, mut state: MutexGuard<'_, State>) {
        state.gathering = false;
        // The writer looks again by itself after each group.
        if !state.requests.is_empty() && std::mem::take(&mut state.waiting) {
            drop(state);
            self.ready.notify_one();
        }
    }

    #[cfg(any(test, feature = "suite"))]
    pub(crate) fn is_empty(&self) -> bool {
        self.state().requests.is_empty()
    }

    /// All that wait, in order; waits for the first to be gathered, at most for `patience`. `None` when closed and empty.
    pub(crate) fn take(&self, patience: Option<Duration>) -> Option<Vec<Request>> {
        let mut state = self.state();
        if state.is_idle() && patience != Some(Duration::ZERO) {
            state.waiting = true;
            state = match patience {
                Some(patience) => {
                    let waited = self.ready.wait_timeout_while(state, patience, State::is_idle);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.ready.wait_while(state, State::is_idle).unwrap_or_else(PoisonError::into_inner),
            };
            state.waiting = false;
        }
        state.gathering = false;
        state.group += 1;
        if state.closed && state.requests.is_empty() {
            return None;
        }
        Some(std::mem::take(&mut state.requests))
    }

    /// Takes no more requests; those that wait are still carried out.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.ready.notify_all();
    }
}

/// Ends the gathering of a group when it is dropped.
struct Gathered<'a> {
    queue: &'a Queue,
    group: u64,
}

impl Drop for Gathered<'_> {
    fn drop(&mut self) {
        let state = self.queue.state();
        if state.gathering && state.group == self.group {
            self.queue.gathered(state);
        }
    }
}

/// Wakes a thread that waits.
#[derive(Default)]
pub(crate) struct Signal {
    flags: Mutex<Flags>,
    changed: Condvar,
}

#[derive(Default)]
struct Flags {
    raised: bool,
    closed: bool,
}

impl Signal {
    fn flags(&self) -> MutexGuard<'_, Flags> {
        self.flags.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn raise(&self) {
        self.flags().raised = true;
        self.changed.notify_all();
    }

    pub(crate) fn close(&self) {
        self.flags().closed = true;
        self.changed.notify_all();
    }

    /// Waits until raised or for `patience`; `false` when closed.
    pub(crate) fn wait(&self, patience: Duration) -> bool {
        let idle = |flags: &mut Flags| !flags.raised && !flags.closed;
        let waited = self.changed.wait_timeout_while(self.flags(), patience, idle);
        let (mut flags, _) = waited.unwrap_or_else(PoisonError::into_inner);
        flags.raised = false;
        !flags.closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::sync::oneshot;

    fn request() -> Request {
        Request::Leases(oneshot::channel().0)
    }

    /// What a writer that waits is given first.
    fn taken(queue: &Arc<Queue>) -> std::thread::JoinHandle<Option<usize>> {
        let queue = queue.clone();
        std::thread::spawn(move || queue.take(None).map(|requests| requests.len()))
    }

    #[tokio::test]
    async fn requests_gather_while_their_senders_are_ready_to_run() {
        let queue = Arc::new(Queue::default());
        let taken = taken(&queue);
        let push = |queue: Arc<Queue>| async move { queue.push(request()).await };
        let senders: Vec<_> = (0..5).map(|_| tokio::spawn(push(queue.clone()))).collect();
        futures::future::join_all(senders).await.into_iter().for_each(|sent| sent.expect("sent"));
        assert_eq!(taken.join().expect("taken"), Some(5));
    }

    #[tokio::test]
    async fn a_sender_that_is_not_polled_again_holds_nobody_up() {
        let queue = Arc::new(Queue::default());
        let taken = taken(&queue);
        let mut stuck = Box::pin(queue.push(request()));
        assert!(futures::poll!(&mut stuck).is_pending());
        queue.push(request()).await;
        assert_eq!(taken.join().expect("taken"), Some(2));
        stuck.await;
    }

    #[tokio::test]
    async fn a_sender_that_goes_away_leaves_its_request() {
        let queue = Arc::new(Queue::default());
        let taken = taken(&queue);
        let mut gone = Box::pin(queue.push(request()));
        assert!(futures::poll!(&mut gone).is_pending());
        drop(gone);
        assert_eq!(taken.join().expect("taken"), Some(1));
    }

    #[tokio::test]
    async fn what_comes_late_does_not_end_a_later_gathering() {
        let queue = Arc::new(Queue::default());
        let mut first = Box::pin(queue.push(request()));
        assert!(futures::poll!(&mut first).is_pending());
        assert_eq!(queue.take(Some(Duration::ZERO)).map(|requests| requests.len()), Some(1));
        let mut second = Box::pin(queue.push(request()));
        assert!(futures::poll!(&mut second).is_pending());
        first.await;
        assert!(queue.state().gathering, "the second's own");
        second.await;
        assert!(!queue.state().gathering);
    }
}
