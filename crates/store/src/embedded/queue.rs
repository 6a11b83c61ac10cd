//! How requests reach the writer's thread, and how the upkeep's thread is woken.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::writer::Request;

/// Requests in the order in which they came.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    waiting: bool,
    closed: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request. When the queue is closed it is dropped, which its sender sees as a closed store.
    pub(crate) fn push(&self, request: Request) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        state.requests.push(request);
        // The writer looks again by itself after each group.
        if std::mem::take(&mut state.waiting) {
            drop(state);
            self.ready.notify_one();
        }
    }

    #[cfg(any(test, feature = "suite"))]
    pub(crate) fn is_empty(&self) -> bool {
        self.state().requests.is_empty()
    }

    /// All that wait, in order; waits for the first, at most for `patience`. `None` when closed and empty.
    pub(crate) fn take(&self, patience: Option<Duration>) -> Option<Vec<Request>> {
        let mut state = self.state();
        if state.requests.is_empty() && !state.closed && patience != Some(Duration::ZERO) {
            state.waiting = true;
            state = match patience {
                Some(patience) => {
                    let idle = |state: &mut State| state.requests.is_empty() && !state.closed;
                    self.ready.wait_timeout_while(state, patience, idle).unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let idle = |state: &mut State| state.requests.is_empty() && !state.closed;
                    self.ready.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner)
                }
            };
            state.waiting = false;
        }
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

/// Wakes a thread that waits.
#[derive(Default)]
pub(crate) struct Signal {
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Signal {
    fn state(&self) -> MutexGuard<'_, (bool, bool)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn raise(&self) {
        self.state().0 = true;
        self.changed.notify_all();
    }

    pub(crate) fn close(&self) {
        self.state().1 = true;
        self.changed.notify_all();
    }

    /// Waits until raised or for `patience`; `false` when closed.
    pub(crate) fn wait(&self, patience: Duration) -> bool {
        let idle = |state: &mut (bool, bool)| !state.0 && !state.1;
        let (mut state, _) =
            self.changed.wait_timeout_while(self.state(), patience, idle).unwrap_or_else(PoisonError::into_inner);
        state.0 = false;
        !state.1
    }
}
