//! How far the caches have followed the store, and waiting until they have come far enough.

use super::hooks::{self, Mutant};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// The revision up to which every cache has every change.
#[derive(Debug, Default)]
pub struct Progress {
    revision: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// By the revision waited for and a number of their own.
    wakers: BTreeMap<(u64, u64), Waker>,
    last: u64,
}

impl Progress {
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    pub(super) fn advance(&self, revision: u64) {
        if self.revision.fetch_max(revision, Ordering::AcqRel) >= revision {
            return;
        }
        let ready = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.wakers.is_empty() {
                return;
            }
            let later = waiting.wakers.split_off(&(revision + 1, 0));
            std::mem::replace(&mut waiting.wakers, later)
        };
        if hooks::is(Mutant::WaiterForgotten) {
            return;
        }
        for waker in ready.into_values() {
            waker.wake();
        }
    }

    /// Waits until the caches have reached a revision, however long it takes.
    pub fn reached(&self, revision: u64) -> Reached<'_> {
        Reached { progress: self, revision, place: None }
    }
}

/// Resolves when the caches have reached a revision.
#[derive(Debug)]
pub struct Reached<'a> {
    progress: &'a Progress,
    revision: u64,
    place: Option<(u64, u64)>,
}

impl Future for Reached<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.progress.revision() >= self.revision {
            return Poll::Ready(());
        }
        hooks::pause(|| true);
        let mut waiting = self.progress.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at again under the lock: whoever advances takes it afterwards.
        if self.progress.revision() >= self.revision && !hooks::is(Mutant::WaitsWithoutALook) {
            return Poll::Ready(());
        }
        let place = self.place.unwrap_or_else(|| {
            waiting.last += 1;
            (self.revision, waiting.last)
        });
        waiting.wakers.insert(place, cx.waker().clone());
        drop(waiting);
        self.place = Some(place);
        Poll::Pending
    }
}

impl Drop for Reached<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.progress.waiting.lock().unwrap_or_else(PoisonError::into_inner).wakers.remove(&place);
        }
    }
}
