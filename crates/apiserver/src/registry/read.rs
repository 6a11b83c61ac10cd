//! Get, list and watch, from memory.

use super::token::{Seen, Token};
use super::{Registry, Served, check_segments, not_all};
use crate::cache::hooks::{self, Mutant};
use crate::cache::{Cacher, Entry, Filter, NoWatch, Scope, Start, State, Watcher};
use crate::options::{ListOptions, Match};
use api::Status;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// What a list found.
#[derive(Clone, Debug)]
pub struct Listed {
    pub entries: Vec<Arc<Entry>>,
    pub revision: u64,
    /// Where it goes on; empty: nowhere.
    pub next: String,
    pub remaining: Option<usize>,
}

const TOO_OLD: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

impl Registry {
    /// An object, at least as new as `version` says (`None`: as new as the store has it).
    ///
    /// # Errors
    /// 404 when there is none, 504 for a version that is not there yet.
    pub async fn get(
        &self,
        served: &Served,
        namespace: &str,
        name: &str,
        version: Option<u64>,
    ) -> Result<Arc<Entry>, Status> {
        let cacher = served.storage("get")?;
        check_segments(namespace, name)?;
        self.fresh(cacher, version).await?;
        let found = cacher.get(&Cacher::key(namespace, name)).inspect_err(|_| cacher.counts.unread())?;
        found.ok_or_else(|| Status::not_found(&served.group_resource(), name))
    }

    /// Waits until a cache is as new as a read wants it (`None`: as the store is), which is timed.
    async fn fresh(&self, cacher: &Cacher, version: Option<u64>) -> Result<(), Status> {
        if version == Some(0) {
            return Ok(());
        }
        let began = Instant::now();
        let reached = match version {
            None => self.caches.consistent().await.map(|_| ()),
            Some(version) => self.caches.reached(version).await,
        };
        cacher.counts.read_waits.took(began.elapsed());
        Ok(reached?)
    }

    /// The state to list from, and the revision that the list has.
    async fn state(&self, cacher: &Cacher, options: &ListOptions) -> Result<(State, u64), Status> {
        let too_old = |_| Status::expired("The resourceVersion for the provided list is too old.");
        if let Some(token) = &options.token {
            let Some(revision) = token.revision else {
                self.fresh(cacher, None).await?;
                return Ok(cacher.now());
            };
            self.fresh(cacher, Some(revision)).await?;
            return match cacher.at(revision) {
                Ok(_) if hooks::is(Mutant::PageOfPresent) => Ok((cacher.now().0, revision)),
                Ok(state) => Ok((state, revision)),
                Err(_) => {
                    let mut status = Status::expired(TOO_OLD);
                    status.details_mut().continue_token =
                        Token { revision: None, after: token.after.clone(), seen: None }.encode();
                    Err(status)
                }
            };
        }
        match (options.version, options.version_match) {
            (None, _) => {
                let fresh = self.fresh(cacher, None).await;
                cacher.counts.consistent[usize::from(fresh.is_ok())].fetch_add(1, Ordering::Relaxed);
                fresh?;
                Ok(cacher.now())
            }
            (Some(0), _) => Ok(cacher.now()),
            (Some(version), Match::Exact) => {
                self.fresh(cacher, Some(version)).await?;
                let state = cacher.at(version).map_err(too_old)?;
                Ok((state, version))
            }
            (Some(version), Match::Unset) if options.limit > 0 => {
                self.fresh(cacher, Some(version)).await?;
                let state = cacher.at(version).map_err(too_old)?;
                Ok((state, version))
            }
            (Some(version), _) => {
                self.fresh(cacher, Some(version)).await?;
                Ok(cacher.now())
            }
        }
    }

    /// The objects that a filter sees.
    ///
    /// # Errors
    /// 410 when the version asked for is too old, 504 when it is not there yet.
    pub async fn list(&self, served: &Served, filter: &Filter, options: &ListOptions) -> Result<Listed, Status> {
        let cacher = served.storage("list")?;
        let (state, revision) = self.state(cacher, options).await?;
        filter.check(&state).map_err(|unreadable| {
            cacher.counts.unread();
            not_all(cacher, &unreadable)
        })?;
        let after = options.token.as_ref().map(|token| token.after.as_str());
        // A limit asks for pages of one consistent state; "any state" has always been given whole, unless it goes on.
        let limit = if options.version == Some(0) && options.token.is_none() { 0 } else { options.limit };
        let selects = filter.selects();
        let mut entries: Vec<Arc<Entry>> = Vec::new();
        let mut more = false;
        let mut looked_at = 0;
        for entry in state.range(&filter.scope, after) {
            looked_at += 1;
            if selects && !filter.selected(entry, cacher.paths()) {
                continue;
            }
            if limit > 0 && entries.len() == limit {
                more = true;
                break;
            }
            entries.push(entry.clone());
        }
        cacher.counts.list(looked_at, entries.len());
        let mut listed = Listed { entries, revision, next: String::new(), remaining: None };
        if more && let Some(last) = listed.entries.last() {
            let selector = !options.label_selector.is_empty() || !options.field_selector.is_empty();
            // Upstream tells of no selected list how much remains.
            let seen = size(&state, &filter.scope).filter(|_| !selector).map(|(all, namespace)| {
                let before = match &options.token {
                    None => Some(0),
                    // A count of another list (or of a token that is not ours) is none of this one.
                    Some(token) => {
                        token.seen.as_ref().filter(|seen| seen.namespace == namespace).map(|seen| seen.count)
                    }
                };
                let count = before.and_then(|before| before.checked_add(listed.entries.len()));
                let rest = || state.range(&filter.scope, Some(last.key())).count();
                let count = count.filter(|count| *count < all).unwrap_or_else(|| all - rest());
                listed.remaining = all.checked_sub(count);
                Seen { count, namespace: namespace.to_owned() }
            });
            listed.next = Token { revision: Some(revision), after: last.key().to_owned(), seen }.encode();
            cacher.pin(&state, revision);
        }
        Ok(listed)
    }

    /// Watches what a filter sees.
    ///
    /// # Errors
    /// 410 when the start is too old: upstream tells it in the stream.
    pub async fn watch(
        &self,
        served: &Served,
        filter: Filter,
        options: &ListOptions,
    ) -> Result<(Watcher, Option<(State, u64)>), Status> {
        let cacher = served.storage("watch")?;
        // With `sendInitialEvents` unset, no version and 0 mean: all there is first, as if it were added.
        let initial = options.send_initial_events.unwrap_or(matches!(options.version, None | Some(0)));
        match options.version {
            Some(_) if options.send_initial_events != Some(true) => {}
            version => self.fresh(cacher, version).await?,
        }
        let start = match options.version {
            _ if initial => Start::Initial,
            None | Some(0) if hooks::is(Mutant::NowBeforeWatch) => Start::After(cacher.now().1),
            None | Some(0) => Start::Now,
            Some(version) => Start::After(version),
        };
        let asked = options.version.unwrap_or(0);
        let (watcher, state, revision) = cacher.watch(filter, start).map_err(|error| match error {
            NoWatch::TooOld(error) => Status::too_old(asked, error.oldest),
            NoWatch::Unreadable(unreadable) => not_all(cacher, &unreadable),
        })?;
        Ok((watcher, initial.then_some((state, revision))))
    }
}

/// How many objects are in a scope, and the namespace that it is; `None` for one that selects.
fn size<'a>(state: &State, scope: &'a Scope) -> Option<(usize, &'a str)> {
    match scope {
        Scope::All => Some((state.len(), "")),
        Scope::Namespace(namespace) => Some((state.len_of_namespace(namespace), namespace)),
        Scope::Key(_) | Scope::Field(..) | Scope::Label { .. } => None,
    }
}
