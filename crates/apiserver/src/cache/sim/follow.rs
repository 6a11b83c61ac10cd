//! What a watch may tell: every change of its view once and in order, bookmarks that promise nothing more than was told, and
//! an end only for a reason.

use super::judge::{Judge, Since};
use super::view::{Object, Told, View};
use crate::cache::watchers::MAX_DELIVERIES;
use serde_json::Value;
use std::collections::{BTreeSet, VecDeque};
use store::testing::sim::world::{Verdict, expect};

/// The ends of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Slow,
    Timeout,
    Expired,
}

/// What one watch was told.
pub(super) struct Follower {
    pub(super) view: View,
    since: Since,
    /// When it is over at the latest.
    deadline: u64,
    /// What there was when it began, as far as it was not told yet.
    initial: VecDeque<Object>,
    /// It begins with what there is, of this revision, and that has not all been told.
    beginning: Option<i64>,
    /// The bookmark that ends the beginning is wanted.
    marks_beginning: bool,
    bookmarks: bool,
    /// All before this revision was told.
    next: i64,
    /// Unless it began as early as this, and was told nothing yet.
    earliest: Option<i64>,
    /// Of it these were told.
    told: BTreeSet<String>,
    /// The client knows all up to here, as far as it was told so.
    pub(super) version: Option<i64>,
    /// The revision of the last bookmark.
    pub(super) marked: i64,
    /// The most changes that waited for it.
    waited: usize,
    /// Up to where they were counted.
    counted: i64,
}

/// Where a watch begins.
pub(super) enum Begin {
    After(i64),
    /// With what there was at a revision.
    With(i64),
    /// After a revision that nobody tells, between these.
    Between(i64, i64),
}

impl Follower {
    pub(super) fn new(
        view: View,
        since: Since,
        begin: &Begin,
        (bookmarks, marks_beginning): (bool, bool),
        timeout: u64,
        judge: &Judge,
    ) -> Self {
        let (after, beginning) = match *begin {
            Begin::After(revision) => (revision, None),
            Begin::With(revision) => (revision, Some(revision)),
            Begin::Between(_, latest) => (latest, None),
        };
        let earliest = if let Begin::Between(earliest, _) = *begin { Some(earliest) } else { None };
        let initial = match beginning {
            Some(revision) => {
                judge.history.seen(&view, revision).into_iter().map(|object| (**object).clone()).collect()
            }
            None => VecDeque::new(),
        };
        Follower {
            view,
            since,
            deadline: since.time + timeout,
            initial,
            beginning,
            marks_beginning,
            bookmarks,
            next: after + 1,
            told: BTreeSet::new(),
            earliest,
            version: matches!(begin, Begin::After(_)).then_some(after),
            marked: 0,
            waited: 0,
            counted: 0,
        }
    }

    /// It began at a revision that nobody tells, and what it is told first shows that it was before.
    fn begun_before(&mut self, told: &Told) {
        let revision = told.object.revision;
        if self.version.is_none() && self.earliest.is_some_and(|earliest| earliest < revision && revision < self.next) {
            self.next = revision;
        }
        self.earliest = None;
    }

    /// What it was not told yet.
    fn pending<'a>(&'a self, judge: &'a Judge) -> impl Iterator<Item = Told> + 'a {
        let told = |change: &Told| change.object.revision == self.next && self.told.contains(&change.object.key);
        judge.history.told(&self.view, self.next).filter(move |change| !told(change))
    }

    /// Notes how many changes wait for it.
    pub(super) fn waits(&mut self, judge: &Judge) {
        if self.counted < judge.revision() {
            self.counted = judge.revision();
            let since = self.earliest.map_or(0, |earliest| judge.history.told(&self.view, earliest + 1).count());
            self.waited = self.waited.max(since).max(self.pending(judge).count());
        }
    }

    /// It was told something.
    pub(super) fn told(&mut self, event: &Value, judge: &Judge) -> Result<Option<Ended>, String> {
        let kind = event["type"].as_str().unwrap_or_default();
        match kind {
            "ERROR" => {
                let code = event.pointer("/object/code").and_then(Value::as_u64);
                expect(code == Some(410), || format!("it ends with {event}"))?;
                return self.expired(judge).map(|()| Some(Ended::Expired));
            }
            "BOOKMARK" => self.marks(event, judge)?,
            _ => {
                let told = Told { kind: kind.to_owned(), object: Object::of(&event["object"], None)? };
                if self.beginning.is_some() && !self.initial.is_empty() {
                    self.begins(&told)?;
                } else {
                    expect(self.beginning.is_none() || !self.marks_beginning, || {
                        format!("the beginning is not marked before {told:?}")
                    })?;
                    self.beginning = None;
                    self.changed(told, judge)?;
                }
            }
        }
        Ok(None)
    }

    fn begins(&mut self, told: &Told) -> Verdict {
        let expected = self.initial.pop_front();
        expect(told.kind == "ADDED" && expected.as_ref() == Some(&told.object), || {
            format!("it begins with {told:?}, and {expected:?} is next")
        })
    }

    fn changed(&mut self, told: Told, judge: &Judge) -> Verdict {
        self.begun_before(&told);
        let first = self.pending(judge).next().map_or(i64::MAX, |first| first.object.revision);
        let expected: Vec<Told> = self.pending(judge).take_while(|change| change.object.revision == first).collect();
        expect(expected.contains(&told), || format!("it is told\n {told:?}, and next is\n {expected:?}"))?;
        if self.next != first {
            self.next = first;
            self.told.clear();
        }
        self.told.insert(told.object.key);
        self.version = Some(first);
        Ok(())
    }

    fn marks(&mut self, event: &Value, judge: &Judge) -> Verdict {
        let version = event.pointer("/object/metadata/resourceVersion").and_then(Value::as_str);
        let revision: i64 = version.and_then(|version| version.parse().ok()).ok_or_else(|| format!("{event}"))?;
        let ends = event.pointer("/object/metadata/annotations/k8s.io~1initial-events-end").is_some();
        if let Some(beginning) = self.beginning.take() {
            expect(self.initial.is_empty(), || format!("{event} comes before {:?}", self.initial))?;
            expect(ends == self.marks_beginning, || format!("the beginning is marked {ends}"))?;
            expect(!ends || revision == beginning, || format!("the beginning of {beginning} is marked {revision}"))?;
        } else {
            expect(!ends, || "the beginning is marked again".into())?;
        }
        expect(self.bookmarks, || format!("it wants no {event}"))?;
        expect(revision > self.marked && revision >= self.version.unwrap_or(0), || {
            format!("a bookmark of {revision} comes after {} and {:?}", self.marked, self.version)
        })?;
        expect(revision <= judge.revision(), || format!("a bookmark is of {revision}, which is not there"))?;
        let missed = self.pending(judge).next().filter(|change| change.object.revision <= revision);
        expect(missed.is_none(), || format!("a bookmark is of {revision}, and it was not told {missed:?}"))?;
        let began_before = self.earliest.take().is_some();
        self.marked = revision;
        self.version = Some(revision);
        if revision >= self.next || began_before {
            self.next = revision + 1;
            self.told.clear();
        }
        Ok(())
    }

    /// It is told that what it follows is lost.
    fn expired(&self, judge: &Judge) -> Verdict {
        let (before, known) = (self.since.known, judge.known);
        let turned = judge.dark.turned_since(self.view.storage, self.since.look);
        let lost = known.compacted > before.compacted || before.reloading || turned;
        expect(lost, || format!("it expired, and nothing was lost since {before:?}"))
    }

    /// It ended without a word.
    pub(super) fn ended(&self, judge: &Judge) -> Result<Ended, String> {
        if judge.now >= self.deadline {
            return Ok(Ended::Timeout);
        }
        expect(self.waited > MAX_DELIVERIES, || format!("it ended, and {} changes have waited", self.waited))?;
        Ok(Ended::Slow)
    }

    /// It has nothing more to tell, and is asked whether it told everything.
    pub(super) fn caught_up(&self, judge: &Judge) -> Verdict {
        let missed: Vec<Told> = self.pending(judge).collect();
        expect(missed.is_empty() && self.initial.is_empty(), || {
            format!("a watch of {:?} was never told {:?}, {missed:?}", self.view, self.initial)
        })
    }

    /// It was told lately up to where it has seen everything, if it wants to know.
    pub(super) fn knows(&self, revision: i64) -> Verdict {
        let ahead = self.version.is_some_and(|version| version > revision);
        expect(!self.bookmarks || ahead || self.marked == revision, || {
            format!("the last bookmark is of {}, and there is nothing since {revision}", self.marked)
        })
    }
}
