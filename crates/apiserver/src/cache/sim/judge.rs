//! What the API server may answer to reads, given all that the store ever told.

use super::dark::Dark;
use super::history::History;
use super::view::{Object, STORAGES, Storage, View};
use super::wire::{Known, Veils};
use super::write::Writes;
use crate::cache::cacher::{REACH, REACH_BYTES};
use crate::cache::feed::{PATIENCE, REPLAY};
use crate::cache::{Cacher, Change, ChangeKind, Observer};
use crate::options::{ListOptions, Match};
use api::Status;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use store::Event;
use store::testing::sim::world::{Verdict, expect};

/// What was known when something was asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Since {
    /// All up to here was visible, so whoever wants the most recent must see it.
    pub(super) revision: i64,
    pub(super) time: u64,
    /// Numbers the looks of the judge.
    pub(super) look: u64,
    pub(super) known: Known,
}

/// A read.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there are few at a time")]
pub(super) enum Read {
    List(View, ListOptions),
    Get(Storage, String, Option<u64>),
}

/// What a read found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) revision: i64,
    pub(super) objects: Vec<Object>,
    pub(super) next: String,
    pub(super) remaining: Option<usize>,
}

/// Whether someone who waited in vain says that what it waited for is not there.
fn is_behind(status: &Status) -> bool {
    let numbers = status.message.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse::<u64>().ok());
    matches!(numbers.collect::<Vec<_>>()[..], [asked, current] if current < asked)
}

pub(super) struct Judge {
    pub(super) history: History,
    /// No cache may refuse what is later than this as too old.
    floor: i64,
    /// Nor may that of a storage.
    floors: BTreeMap<Storage, i64>,
    /// The cache was loading anew when it was last looked at.
    reloading: bool,
    pub(super) dark: Dark,
    /// The last look at which the key was not there that some values are encrypted with.
    pub(super) keyless: Option<u64>,
    pub(super) writes: Writes,
    pub(super) known: Known,
    pub(super) now: u64,
    look: u64,
}

impl Judge {
    pub(super) fn new() -> Self {
        Judge {
            history: History::new(),
            floor: 0,
            floors: BTreeMap::new(),
            reloading: false,
            dark: Dark::default(),
            keyless: None,
            writes: Writes::default(),
            known: Known::default(),
            now: 0,
            look: 0,
        }
    }

    pub(super) fn revision(&self) -> i64 {
        self.history.revision
    }

    pub(super) fn since(&self) -> Since {
        Since { revision: self.revision(), time: self.now, look: self.look, known: self.known }
    }

    /// An API server is started.
    pub(super) fn started(&mut self) {
        self.floor = 0;
        self.floors.clear();
        self.dark.started();
    }

    /// A storage was added to it.
    pub(super) fn added(&mut self, storage: Storage) {
        self.raise(storage);
    }

    /// What is before the present may be refused as too old.
    fn raise(&mut self, storage: Storage) {
        self.floors.insert(storage, self.history.revision);
    }

    /// Looks at what happened. `at_rest`: the API server has done all that comes of what it was told.
    pub(super) fn see(
        &mut self,
        events: &[Event],
        known: Known,
        veils: &BTreeMap<Storage, Veils>,
        at_rest: bool,
        now: u64,
    ) -> Verdict {
        (self.known, self.now) = (known, now);
        self.look += 1;
        let before = self.history.revision;
        self.history.add(events, now)?;
        for storage in STORAGES {
            let happened = self.history.since(storage, before + 1).to_vec();
            self.explain(storage, &happened)?;
        }
        if known.keyless {
            self.keyless = Some(self.look);
        }
        if known.reloading || self.reloading {
            self.floor = self.revision();
        }
        self.reloading = known.reloading;
        for storage in self.dark.see(veils, at_rest, self.look) {
            self.raise(storage);
        }
        Ok(())
    }

    /// What is before may be refused as too old.
    pub(super) fn floor(&self, storage: Storage) -> i64 {
        let (revision, compacted) = self.known.status;
        let replayed = compacted.max(revision - REPLAY).max(1);
        let aged = self.history.aged(REACH.as_millis() as u64, self.now);
        let mut bytes = 0;
        let kept = self.history.since(storage, 0).iter().rev().find(|happened| {
            bytes += happened.size;
            bytes > REACH_BYTES
        });
        let own = self.floors.get(&storage).copied().unwrap_or(0);
        self.floor.max(own).max(replayed).max(aged).max(kept.map_or(0, |happened| happened.revision))
    }

    /// Whether a wait may have been given up since.
    pub(super) fn lost_patience(&self, since: Since) -> bool {
        self.now - since.time >= PATIENCE.as_millis() as u64
    }

    /// Whether a read, or the beginning of a watch, may be refused so. `seen`: whether it has to do with a key.
    pub(super) fn may_refuse(
        &self,
        status: &Status,
        asked: i64,
        storage: Storage,
        seen: impl Fn(&str) -> bool,
        since: Since,
    ) -> Verdict {
        let failed = self.known.failures > since.known.failures;
        let allowed = match status.code {
            500..=504 if failed => true,
            410 => asked > 0 && asked < self.floor(storage),
            504 => self.lost_patience(since) && is_behind(status),
            503 => self.known.losses > since.known.losses,
            500 => self.dark.was(storage, seen, since.look),
            _ => false,
        };
        expect(allowed, || {
            let floor = self.floor(storage);
            format!("{} {}: {asked} was asked for, and {floor} is the floor", status.code, status.message)
        })
    }

    /// A read was answered.
    pub(super) fn answered(&self, read: &Read, since: Since, answer: &Result<Found, Status>) -> Verdict {
        match read {
            Read::List(view, options) => self.listed(view, options, since, answer),
            Read::Get(storage, key, version) => self.got(*storage, key, *version, since, answer),
        }
    }

    fn listed(&self, view: &View, options: &ListOptions, since: Since, answer: &Result<Found, Status>) -> Verdict {
        let token = options.token.as_ref();
        let version = options.version.map(u64::cast_signed);
        // Of the one revision, or not older than it.
        let (exact, least) = match (token, version) {
            (Some(token), _) => match token.revision {
                Some(revision) => (Some(revision.cast_signed()), 0),
                None => (None, since.revision),
            },
            (None, None) => (None, since.revision),
            (None, Some(0)) => (None, 0),
            (None, Some(version)) => match options.version_match {
                Match::Exact => (Some(version), 0),
                Match::Unset if options.limit > 0 => (Some(version), 0),
                Match::Unset | Match::NotOlderThan => (None, version),
            },
        };
        let found = match answer {
            Ok(found) => found,
            Err(status) => {
                return self.may_refuse(status, exact.unwrap_or(0), view.storage, |key| view.reaches(key), since);
            }
        };
        let revision = found.revision;
        expect(exact.is_none_or(|exact| exact == revision), || format!("it is of {revision}, not of {exact:?}"))?;
        expect(revision >= least, || format!("it is of {revision}, and {least} was there before"))?;
        expect(revision <= self.revision(), || format!("it is of {revision}, which is not there"))?;
        let after = token.map_or("", |token| &token.after);
        let mut expected = self.history.seen(view, revision);
        expected.retain(|object| object.key.as_str() > after);
        let limit = if version == Some(0) && token.is_none() { 0 } else { options.limit };
        let rest = if limit == 0 { 0 } else { expected.len().saturating_sub(limit) };
        expected.truncate(expected.len() - rest);
        expect(found.objects.iter().eq(expected.iter().map(|object| &***object)), || {
            format!("it has at {revision}\n {:?}, and there was\n {expected:?}", found.objects)
        })?;
        expect(found.next.is_empty() == (rest == 0), || {
            format!("{rest} are left, and it goes on at {:?}", found.next)
        })?;
        expect(found.remaining.is_none_or(|remaining| remaining == rest), || {
            format!("{rest} are left, and {:?} are said to be", found.remaining)
        })?;
        expect(rest == 0 || view.selects() || found.remaining.is_some(), || "nobody says how many are left".into())
    }

    fn got(
        &self,
        storage: Storage,
        key: &str,
        version: Option<u64>,
        since: Since,
        answer: &Result<Found, Status>,
    ) -> Verdict {
        let least = version.map_or(since.revision, u64::cast_signed).max(1);
        let found = match answer {
            Ok(found) => found.objects.first(),
            Err(status) if status.code == 404 => None,
            Err(status) => return self.may_refuse(status, 0, storage, |dark| dark == key, since),
        };
        let mut possible = (least..=self.revision()).map(|revision| self.history.at(storage, key, revision));
        expect(possible.any(|object| object.map(|object| &**object) == found), || {
            format!("it is {found:?}, which it was at no revision from {least} to {}", self.revision())
        })
    }
}

/// What one who is told of every change knows.
#[derive(Default)]
pub(super) struct Projection(Mutex<Projected>);

#[derive(Default)]
struct Projected {
    objects: BTreeMap<String, i64>,
    wrong: Option<String>,
}

impl Observer for Projection {
    fn changed(&self, _: &Cacher, change: &Change) {
        let mut projected = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (key, revision) = (change.entry.key(), change.revision().cast_signed());
        let known = match change.kind {
            ChangeKind::Deleted => projected.objects.remove(key),
            ChangeKind::Added | ChangeKind::Modified => projected.objects.insert(key.to_owned(), revision),
        };
        let fits = known.is_some() != (change.kind == ChangeKind::Added) && known.is_none_or(|known| known < revision);
        if !fits {
            let told = format!("an observer was told {:?} of {key} at {revision}, and knew {known:?}", change.kind);
            projected.wrong.get_or_insert(told);
        }
    }
}

impl Projection {
    /// What it was told makes sense.
    pub(super) fn check(&self) -> Verdict {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).wrong.clone().map_or(Ok(()), Err)
    }

    /// It knows the present.
    pub(super) fn settled(&self, storage: Storage, history: &History) -> Verdict {
        let all = history.seen(&View::all(storage), history.revision);
        let expected: BTreeMap<String, i64> = all.iter().map(|object| (object.key.clone(), object.revision)).collect();
        let projected = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        expect(projected.objects == expected, || {
            format!("an observer of {storage:?} knows\n {:?}, and there is\n {expected:?}", projected.objects)
        })
    }
}

/// One for each storage.
pub(super) type Projections = [std::sync::Arc<Projection>; STORAGES.len()];
