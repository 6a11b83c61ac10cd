//! What may be told of history beyond the compaction mark: how far back it reaches, what was there, and when.

use super::{Judge, Since, Verdict, expect, millis};
use crate::embedded::Undo;
use crate::testing::sim::ask::{Answer, Ask};
use crate::{Error, Event, Kept, KeyRange, Range, RangeResult, Version, Versions};

/// What is known of history.
pub(super) struct Past {
    /// What the engine keeps that runs, or ran last.
    undo: Option<Undo>,
    /// Everything below was told by this run of the engine not to be kept.
    told: i64,
    /// It may reach no further for another reason than its age.
    most: i64,
    /// It began anew when it was opened, and does so again at the next start unless it is written down until then.
    anew: bool,
    /// Of these revisions and those before nothing is known of when they were made.
    untimed: i64,
    /// The calendar went wrong: what is said of times says nothing.
    jumped: bool,
    /// Between which seconds each revision was made.
    stamps: Vec<(i64, i64, i64)>,
}

impl Past {
    pub(super) fn new(undo: Option<Undo>) -> Self {
        Self { undo, told: 0, most: 0, anew: false, untimed: 0, jumped: false, stamps: Vec::new() }
    }
}

impl Ask {
    /// Whether history is asked.
    pub(super) fn is_of_the_past(&self) -> bool {
        matches!(self, Ask::Kept | Ask::RevisionAt(..) | Ask::TimeOf(_) | Ask::Past(_) | Ask::Versions(..))
    }
}

impl Judge {
    /// History below is refused for sure.
    pub fn kept(&self) -> i64 {
        self.past.told
    }

    /// The calendar is set.
    pub fn clock_set(&mut self) {
        self.past.jumped = true;
    }

    /// The engine was ended, and is opened with another history.
    pub fn reopened_with(&mut self, undo: Option<Undo>, now: u64) {
        // What it has dropped already is gone, whatever the next keeps.
        let any = KeyRange::key(crate::suite::key("/a/"));
        self.past.most = self.past.most.max(self.kept_most(&any, now));
        let (before, after) = (&self.past.undo, &undo);
        self.past.anew |= before.as_ref().map(|undo| &undo.except) != after.as_ref().map(|undo| &undo.except);
        self.past.undo = undo;
    }

    /// A new run of the engine: what it has not written down to be dropped it may keep again.
    pub(super) fn reopened(&mut self, now: u64) {
        self.past.told = 0;
        if self.past.anew {
            // Of what was not kept before no times are known either.
            self.past.most = self.past.most.max(self.compacted_most(now));
            self.past.untimed = self.revision();
        }
    }

    /// The upkeep has done all that was due.
    pub fn kept_up(&mut self) {
        self.past.anew = false;
    }

    /// What is made known next was made in this second or later: the writer does one thing after another.
    pub(super) fn earliest_stamp(&self) -> i64 {
        self.past.stamps.last().map_or(i64::MIN, |(_, _, latest)| *latest)
    }

    /// A revision was made known.
    pub(super) fn stamped(&mut self, revision: i64, earliest: i64) {
        self.past.stamps.push((revision, earliest, self.wall.div_euclid(1000)));
    }

    /// Between which seconds a revision was made.
    fn stamp(&self, revision: i64) -> (i64, i64) {
        let at = self.past.stamps.partition_point(|(made, ..)| *made < revision);
        self.past.stamps.get(at).map_or((i64::MIN, i64::MAX), |(_, earliest, latest)| (*earliest, *latest))
    }

    /// Whether history is kept of all keys of a range.
    fn keeps(&self, keys: &KeyRange) -> bool {
        let undo = self.past.undo.as_ref();
        undo.is_some_and(|undo| !undo.except.iter().any(|prefix| keys.meets_prefix(prefix)))
    }

    /// The furthest that the mark can be below which there is no history of keys.
    fn kept_most(&self, keys: &KeyRange, now: u64) -> i64 {
        let compacted = self.compacted_most(now);
        let Some(undo) = self.past.undo.as_ref().filter(|_| self.keeps(keys) && !self.past.jumped) else {
            return compacted;
        };
        if undo.bytes < 1 << 20 {
            return compacted;
        }
        let then = self.wall.div_euclid(1000) - (millis(undo.horizon) / 1000).cast_signed();
        // Right before what was surely made since; what changed no key with a history makes no difference.
        let since = self.of_history(undo, 0).find(|made| self.stamp(*made).0 > then);
        self.past.most.max(since.map_or(compacted, |since| since - 1)).min(compacted)
    }

    /// The revisions from one on that changed keys of which history is kept.
    fn of_history<'a>(&'a self, undo: &'a Undo, from: i64) -> impl Iterator<Item = i64> + 'a {
        let all = self.model.history(&KeyRange::all(), from).into_iter();
        let kept = all.filter(|event| !undo.except.iter().any(|prefix| event.key().starts_with(prefix)));
        kept.map(|event| event.revision())
    }

    /// Someone was told that there is no history of keys below a mark.
    fn keeps_from(&mut self, keys: &KeyRange, mark: i64, since: Since, now: u64) -> Verdict {
        if !self.keeps(keys) {
            return self.mark(since, mark, now);
        }
        let most = self.kept_most(keys, now);
        expect((since.kept..=most).contains(&mark), || {
            format!("history of {keys:?} reaches back to {mark}, and must to one from {} to {most}", since.kept)
        })?;
        self.past.told = self.past.told.max(mark);
        Ok(())
    }

    /// Something of history was answered.
    pub(super) fn recalled(&mut self, ask: &Ask, since: Since, answer: Answer, now: u64) -> Verdict {
        match (ask, answer) {
            (Ask::Kept, Answer::Kept(Ok(Kept { revision, .. }))) => {
                let any = KeyRange::key(crate::suite::key("/a/"));
                let told = if self.keeps(&any) { since.kept } else { since.compacted };
                match revision {
                    // All of it, also where nothing was compacted yet.
                    1 => expect(told <= 1, || format!("history reaches back to 1, and {told} was the oldest")),
                    mark => self.keeps_from(&any, mark, since, now),
                }
            }
            (Ask::Past(range), Answer::Range(result)) => self.recalled_range(range, since, result, now),
            (Ask::Versions(key, until, limit), Answer::Versions(result)) => {
                self.recalled_versions(key, *until, *limit, since, result, now)
            }
            (Ask::TimeOf(revision), Answer::Time(Ok(time))) => self.timed(*revision, time, now),
            (Ask::RevisionAt(keys, second), Answer::Revision(result)) => {
                self.recalled_second(keys, *second, since, result, now)
            }
            (ask, answer) => Err(format!("{ask:?} was answered {answer:?}")),
        }
    }

    fn refused_past(&mut self, keys: &KeyRange, asked: i64, error: Error, since: Since, now: u64) -> Verdict {
        match error {
            Error::FutureRevision { .. } => expect(asked > since.revision, || format!("{asked} is no future")),
            Error::Compacted { compacted, .. } => {
                expect(asked != 0 && asked < compacted, || format!("{asked} was said to be below {compacted}"))?;
                self.keeps_from(keys, compacted, since, now)
            }
            other => Err(format!("history of {keys:?} at {asked}: {other:?}")),
        }
    }

    fn recalled_range(&mut self, range: &Range, since: Since, result: Result<RangeResult, Error>, now: u64) -> Verdict {
        let asked = range.revision;
        let mut result = match result {
            Ok(result) => result,
            Err(error) => return self.refused_past(&range.keys, asked, error, since, now),
        };
        self.present(since, result.revision)?;
        let at = if asked == 0 { result.revision } else { asked };
        let mark = if self.keeps(&range.keys) { since.kept } else { since.compacted };
        expect(at >= mark && at <= self.revision(), || format!("{at} was read, and {mark} is the mark"))?;
        let expected = self.model.read(range, at);
        result.revision = at;
        expect(result == expected, || {
            format!("history of {range:?} has at {at}\n {result:?}, and it was\n {expected:?}")
        })
    }

    fn recalled_versions(
        &mut self,
        key: &bytes::Bytes,
        until: i64,
        limit: usize,
        since: Since,
        result: Result<Versions, Error>,
        now: u64,
    ) -> Verdict {
        let keys = KeyRange::key(key.clone());
        let told = match result {
            Ok(told) => told,
            Err(error) => return self.refused_past(&keys, until, error, since, now),
        };
        if told.since > 1 {
            self.keeps_from(&keys, told.since, since, now)?;
        }
        let all = self.model.history(&keys, 0);
        // Of the present it is the newest that was there while it was asked; what came after need not be told.
        let newest = told.versions.first().map_or(0, |version| version.revision);
        let until = match until {
            0 => all.iter().map(Event::revision).rfind(|made| *made <= newest.max(since.revision)).unwrap_or(newest),
            until => until,
        };
        let made: Vec<i64> = all.iter().map(Event::revision).filter(|made| *made <= until).collect();
        let above = made.partition_point(|made| *made <= told.since);
        let at_mark =
            above.checked_sub(1).filter(|at| matches!(all[*at], Event::Put { .. }) || made[*at] == told.since);
        let mut expected: Vec<Event> = all[at_mark.unwrap_or(above)..made.len()].to_vec();
        expected.reverse();
        let more = limit > 0 && expected.len() > limit;
        if more {
            expected.truncate(limit);
        }
        let event = |version: &Version| match &version.kv {
            Some(kv) => Event::Put { kv: kv.clone(), previous: None },
            None => Event::Delete { key: key.clone(), revision: version.revision, previous: None },
        };
        let events: Vec<Event> = told.versions.iter().map(event).collect();
        expect(events == expected && told.more == more, || {
            format!("{key:?} up to {until} was since {}\n {events:?}, and it was\n {expected:?}", told.since)
        })?;
        let timed = self.keeps(&keys);
        for version in &told.versions {
            match version.time {
                time if timed => self.timed(version.revision, time, now)?,
                time => expect(time.is_none(), || format!("{version:?} has a time, and no history is kept"))?,
            }
        }
        Ok(())
    }

    /// The last revision up to one that changed keys of which history is kept, if that is known to be kept with its time.
    fn last_timed(&self, until: i64, now: u64) -> Option<i64> {
        let undo = self.past.undo.as_ref()?;
        let mark = self.kept_most(&KeyRange::key(crate::suite::key("/a/")), now).max(self.past.untimed + 1);
        self.of_history(undo, mark).take_while(|made| *made <= until).last()
    }

    /// When a revision was made.
    fn timed(&self, revision: i64, time: Option<i64>, now: u64) -> Verdict {
        if self.past.jumped || revision > self.revision() {
            return Ok(());
        }
        let last = self.last_timed(revision, now);
        let earliest = last.map_or(i64::MIN, |last| self.stamp(last).0);
        let latest = self.stamp(revision).1;
        match time {
            Some(second) => expect((earliest..=latest).contains(&second), || {
                format!("revision {revision} is of second {second}, and was made from {earliest} to {latest}")
            }),
            None => {
                expect(last.is_none(), || format!("no time is known of {revision}, and {last:?} was made with one"))
            }
        }
    }

    fn recalled_second(
        &mut self,
        keys: &KeyRange,
        second: i64,
        since: Since,
        result: Result<i64, Error>,
        now: u64,
    ) -> Verdict {
        if !self.keeps(keys) {
            let refused = matches!(result, Err(Error::TimeNotKept { oldest: None, .. }));
            return expect(refused, || format!("{keys:?} have no history, and were at {second}: {result:?}"));
        }
        if self.past.jumped {
            return Ok(());
        }
        let known = |made: &i64| *made > self.past.untimed;
        match result {
            Ok(found) => {
                expect(found >= since.kept && found <= self.revision(), || {
                    format!("second {second} is of {found}, which is not kept")
                })?;
                for made in self.model.history(keys, 0).iter().map(Event::revision).filter(known) {
                    let (earliest, latest) = self.stamp(made);
                    let fits = if made <= found { earliest <= second } else { latest > second };
                    // What was made known since it was asked may have been made before the second ended.
                    expect(fits || made > since.revision, || {
                        format!("second {second} is of {found}, and {made} was made from {earliest} to {latest}")
                    })?;
                }
                Ok(())
            }
            Err(Error::TimeNotKept { .. }) => {
                let before = self
                    .past
                    .stamps
                    .iter()
                    .rev()
                    .find(|(made, _, latest)| *latest <= second && *made <= since.revision);
                let kept = before.and_then(|(made, ..)| self.last_timed(*made, now));
                expect(kept.is_none(), || format!("second {second} is refused, and {kept:?} was made before its end"))
            }
            Err(other) => Err(format!("second {second}: {other:?}")),
        }
    }
}
