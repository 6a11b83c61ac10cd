//! Trying a write until it is settled: against the object that memory has first, then against the one that the store has.

use super::commit::{Committed, contended, is_final};
use super::create::SIDE_TRIES;
use super::{Registry, Served};
use crate::cache::hooks::{self, Mutant};
use crate::cache::{Cacher, Entry};
use api::Status;
use schema::Map;
use std::future::Future;
use std::sync::Arc;

/// How often a write is tried again against a newer object.
const TRIES: usize = 256;

/// What an attempt came to, when it was not refused.
pub(super) enum Attempt<T> {
    Done(T),
    /// Nothing was to be written to the object as it was tried against; what is answered then.
    Unchanged(T),
    /// Somebody else was quicker; the object as it is now.
    Again(Option<Arc<Entry>>),
    /// Something that goes along with the write is not as it was seen.
    SideChanged,
}

/// The object of an entry, as a write goes out from it: as upstream reads it from its store, with the defaults that were not known
/// yet, or were dropped, when it was written. So all of it has its defaults, and what a write leaves as it is needs no look.
///
/// # Errors
/// 500 when it can't be read.
pub(super) fn stored(served: &Served, cacher: &Cacher, entry: &Arc<Entry>) -> Result<Map, Status> {
    let object = if entry.filled() { cacher.decode_leaving(entry) } else { cacher.decode(entry) };
    let mut object = object.map_err(|error| {
        cacher.counts.unread();
        Status::internal(format!("the stored {} {:?} cannot be read: {error}", served.group_resource(), entry.name()))
    })?;
    if entry.filled() {
        debug_assert!(
            {
                // Not of the object, of which parts are to stay text.
                let read = cacher.decode(entry).unwrap_or_default();
                let mut filled = read.clone();
                schema::defaults::apply(cacher.layout.schema.root(), &mut filled);
                // Where a gate is closed, what a default would open again is not stored.
                served.closed.drop_from(&mut filled, Some(&read));
                filled == read
            },
            "{} {:?} was written without all its defaults",
            served.group_resource(),
            entry.key()
        );
    } else {
        super::complete::complete(cacher.layout.schema.root(), &mut object, None);
    }
    Ok(object)
}

impl Registry {
    /// Attempts a write to the object of a key until it is settled. An attempt gets the object, and whether that is the
    /// store's own.
    ///
    /// What memory has is as good as the store's until the store says otherwise. A refusal, and an answer that nothing is to be
    /// done, never asked the store: they count only when memory was up to date.
    ///
    /// # Errors
    /// What an attempt refuses, and 409 when the object changes faster than it can be tried again.
    pub(super) async fn attempts<T, F>(
        &self,
        served: &Served,
        cacher: &Cacher,
        key: &str,
        attempt: impl Fn(Option<Arc<Entry>>, bool) -> F,
    ) -> Result<T, Status>
    where
        F: Future<Output = Result<Attempt<T>, Status>>,
    {
        let mut current = cacher.get(key)?;
        let mut fresh = false;
        let mut sides = 0;
        for _ in 0..TRIES {
            let settled = match attempt(current.clone(), fresh).await {
                Ok(Attempt::Done(done)) => return Ok(done),
                Ok(Attempt::Unchanged(told)) => Ok(told),
                Ok(Attempt::Again(now)) => {
                    current = match (now, current) {
                        (Some(now), Some(stale)) if hooks::is(Mutant::RetryReusesStaleObject) => {
                            Some(Arc::new(stale.at_revision(now.revision())))
                        }
                        (now, _) => now,
                    };
                    fresh = true;
                    continue;
                }
                Ok(Attempt::SideChanged) => {
                    sides += 1;
                    if sides == SIDE_TRIES {
                        break;
                    }
                    continue;
                }
                Err(status) => Err(status),
            };
            if settled.as_ref().is_err_and(is_final) {
                return settled;
            }
            if fresh {
                // Whoever is told of an object finds it at once, also if memory did not have it.
                if let Some(entry) = &current {
                    self.shown(entry.revision()).await;
                }
                return settled;
            }
            let untold = match &settled {
                Ok(_) => Mutant::UnchangedOfStaleObject,
                Err(_) => Mutant::RefusalOfStaleObject,
            };
            if hooks::is(untold) {
                return settled;
            }
            self.caches.consistent().await?;
            let now = cacher.get(key)?;
            if now.as_ref().map(|entry| entry.revision()) == current.as_ref().map(|entry| entry.revision()) {
                return settled;
            }
            current = now;
            fresh = true;
        }
        let name = key.rsplit('/').next().unwrap_or(key);
        Err(contended(&served.group_resource(), name))
    }

    /// The attempt that ends with a transaction; `done` makes what is answered of the revision.
    ///
    /// # Errors
    /// 500 when the object as it is now can't be read.
    pub(super) fn attempted<T>(
        &self,
        cacher: &Cacher,
        key: &str,
        committed: Committed,
        done: impl FnOnce(u64) -> T,
    ) -> Result<Attempt<T>, Status> {
        Ok(match committed {
            Committed::Done(revision) => Attempt::Done(done(revision)),
            Committed::Changed(now) => Attempt::Again(self.entry_of(cacher, key, now)?),
            Committed::SideChanged => Attempt::SideChanged,
        })
    }

    /// Waits until readers of memory find what the store has at a revision. When the caches are cut off from the store, they
    /// do later.
    pub(super) async fn shown(&self, revision: u64) {
        let waits = self.caches.following() && !hooks::is(Mutant::AnsweredBeforeTheCaches);
        if waits && self.caches.reached(revision).await.is_err() {
            tracing::warn!(revision, "the caches lag behind a write");
        }
    }
}
