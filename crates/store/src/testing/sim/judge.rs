//! What a store may answer, given all that it has told: the model, and every answer compared with it.
//!
//! The order of the writes is not guessed. A witness, which is a watch of everything that is read whenever the simulator
//! has its turn, tells what each revision did; the judge looks for something that was asked and does just that. An answer
//! names the revision at which it was given, so whether it fits is looked up.

mod explain;
mod follow;
mod leases;
mod past;

use std::collections::BTreeMap;
use std::time::Duration;

use self::explain::Maker;
pub use self::follow::Follower;
use self::leases::{Grant, LeaseModel};
use self::past::Past;

use super::ask::{Answer, Ask};
use super::world::{Verdict, expect};
use crate::suite::model::{Effect, Model, events};
use crate::testing::random::Random;
use crate::{Error, Event, KeyRange, KeyValue, LeaseId, OpResult, Range, RangeResult, Txn, TxnResult};

/// What was known when something was asked.
#[derive(Clone, Copy, Debug)]
pub struct Since {
    /// Numbers what is asked.
    pub number: u64,
    /// Every revision up to here was told to someone before.
    revision: i64,
    /// Reads below it were refused before, or a compaction acknowledged.
    compacted: i64,
    /// History below it was refused before, by this run of the engine.
    kept: i64,
    time: u64,
    /// Calls of the disk that failed before.
    pub failures: u64,
}

struct Pending {
    ask: Ask,
    since: Since,
    /// It was answered that nobody knows, so it may be found after a restart.
    unknown: bool,
    /// It made no later revision than this.
    until: i64,
}

/// The model and what is not known of the store.
pub struct Judge {
    pub model: Model,
    makers: BTreeMap<i64, Maker>,
    /// When each revision was made known.
    times: Vec<(i64, u64)>,
    pending: BTreeMap<u64, Pending>,
    leases: BTreeMap<LeaseId, LeaseModel>,
    numbers: u64,
    /// Leases that may have been granted without an answer.
    loose_grants: Vec<Grant>,
    /// Everything below was told to be compacted.
    compacted: i64,
    /// No compaction can have gone further.
    compacted_most: i64,
    /// History of this age is compacted without being asked for.
    retention: Option<u64>,
    /// History is compacted by size too, whenever.
    by_size: bool,
    watch_events: usize,
    past: Past,
    /// What the machine's calendar says, in milliseconds.
    pub wall: i64,
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

impl Judge {
    pub fn new(options: &crate::embedded::Options) -> Self {
        Self {
            model: Model::default(),
            makers: BTreeMap::new(),
            times: vec![(1, 0)],
            pending: BTreeMap::new(),
            leases: BTreeMap::new(),
            numbers: 0,
            loose_grants: Vec::new(),
            compacted: 0,
            compacted_most: 0,
            retention: options.retention.map(millis),
            by_size: options.history_bytes < 1 << 20,
            watch_events: options.watch_events,
            past: Past::new(options.undo.clone()),
            wall: 0,
        }
    }

    /// Every revision up to it is known.
    pub fn revision(&self) -> i64 {
        self.model.revision
    }

    /// How many seconds ago a revision was made, one of them all.
    pub fn ago(&self, now: u64, random: &mut Random) -> Option<i64> {
        if self.times.is_empty() {
            return None;
        }
        let (_, time) = self.times[random.index(self.times.len())];
        Some((now.saturating_sub(time) / 1000) as i64)
    }

    /// Reads below are refused for sure.
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// The furthest mark that a compaction can have set by now.
    fn compacted_most(&self, now: u64) -> i64 {
        let aged = self.retention.map_or(0, |retention| {
            // The last that was the present so long ago.
            let then = self.times.iter().take_while(|(_, time)| time + retention <= now).last();
            then.map_or(0, |(revision, _)| *revision)
        });
        let sized = if self.by_size { self.revision() } else { 0 };
        self.compacted_most.max(aged).max(sized)
    }

    /// Something is asked now.
    pub fn asked(&mut self, ask: &Ask, now: u64, failures: u64) -> Since {
        let since = self.since(now, failures);
        match ask {
            Ask::Txn(_) | Ask::Revoke(_) => {
                let pending = Pending { ask: ask.clone(), since, unknown: false, until: i64::MAX };
                self.pending.insert(since.number, pending);
            }
            // What is far in the future is refused.
            Ask::Compact(revision) if *revision <= self.revision() + 10 => {
                self.compacted_most = self.compacted_most.max(*revision);
            }
            Ask::Grant(ttl, id) => self.loose_grants.push(Grant {
                number: since.number,
                ttl: millis(*ttl),
                chosen: *id,
                time: now,
                lost: false,
            }),
            _ => {}
        }
        if let Ask::Revoke(id) = ask
            && let Some(lease) = self.leases.get_mut(id)
        {
            lease.revoked = true;
        }
        since
    }

    fn since(&mut self, now: u64, failures: u64) -> Since {
        self.numbers += 1;
        let (revision, compacted, kept) = (self.revision(), self.compacted, self.kept());
        Since { number: self.numbers, revision, compacted, kept, time: now, failures }
    }

    /// Something was answered.
    pub fn answered(&mut self, ask: &Ask, since: Since, answer: Answer, now: u64, failures: u64) -> Verdict {
        let failed = failures > since.failures;
        if let Some(error) = answer.error() {
            match error {
                Error::Unknown { .. } if failed => {
                    if let Some(pending) = self.pending.get_mut(&since.number) {
                        pending.unknown = true;
                    }
                    self.unanswered(ask, now);
                    return Ok(());
                }
                Error::ReadOnly { .. } if failures > 0 => {
                    self.pending.remove(&since.number);
                    return self.explain_again(since.number);
                }
                // A read; what writes says that it does not know.
                Error::Io { .. } if failed => {
                    self.pending.remove(&since.number);
                    return self.explain_again(since.number);
                }
                _ => {}
            }
        }
        self.pending.remove(&since.number);
        match (ask, answer) {
            (Ask::Txn(txn), Answer::Txn(Ok(result))) => self.did(txn, since, &result),
            (Ask::Txn(txn), Answer::Txn(Err(error))) => {
                self.explain_again(since.number)?;
                self.refused(txn, since, error, now)
            }
            (Ask::Range(range), Answer::Range(result)) => self.ranged(range, since, result, now),
            (Ask::Compact(revision), Answer::Done(result)) => self.compacted_by(*revision, since, result, now),
            (Ask::Grant(ttl, chosen), Answer::Lease(result)) => self.granted(*ttl, *chosen, since, result, now),
            (Ask::KeepAlive(id), Answer::Ttl(result)) => match result {
                Ok(ttl) => {
                    let Some(lease) = self.alive(*id, since)? else { return Ok(()) };
                    lease.begun = lease.begun.max(since.time);
                    lease.begun_latest = now;
                    expect(millis(ttl) == lease.ttl || lease.ambiguous, || {
                        format!("lease {id:x} was renewed for {ttl:?}")
                    })
                }
                Err(error) => self.lease_missing(*id, since, error, now),
            },
            (Ask::Revoke(id), Answer::Done(result)) => match result {
                Ok(()) => {
                    let number = self.numbers;
                    if let Some(lease) = self.alive(*id, since)? {
                        if since.number <= lease.told {
                            // It may have been the one before that was revoked.
                            lease.ambiguous = true;
                            return Ok(());
                        }
                        lease.gone = Some(number);
                    }
                    let keys = self.model.lease_end(*id, self.revision());
                    expect(keys.is_empty(), || format!("lease {id:x} was revoked, and {keys:?} hang on it"))
                }
                Err(error) => {
                    self.explain_again(since.number)?;
                    self.lease_missing(*id, since, error, now)
                }
            },
            (Ask::Status, Answer::Status(Ok(status))) => {
                self.present(since, status.revision)?;
                self.mark(since, status.compacted, now)
            }
            (Ask::Progress, Answer::Revision(Ok(revision))) => self.present(since, revision),
            (ask, answer) if ask.is_of_the_past() => self.recalled(ask, since, answer, now),
            (ask, answer) => Err(format!("{ask:?} was answered {answer:?}")),
        }
    }

    /// Nobody will be told what became of it.
    fn unanswered(&mut self, ask: &Ask, now: u64) {
        if let Ask::KeepAlive(id) = ask
            && let Some(lease) = self.leases.get_mut(id)
        {
            lease.begun_latest = now;
        }
    }

    /// A revision that was told as the present.
    fn present(&self, since: Since, revision: i64) -> Verdict {
        expect(revision >= since.revision, || {
            format!("revision {revision} is stale: {} was told before", since.revision)
        })?;
        expect(revision <= self.revision(), || {
            format!("revision {revision} was told, and the latest that was made known is {}", self.revision())
        })
    }

    fn mark(&mut self, since: Since, compacted: i64, now: u64) -> Verdict {
        let most = self.compacted_most(now);
        expect((since.compacted..=most).contains(&compacted), || {
            format!("the compaction mark is {compacted}, and must be from {} to {most}", since.compacted)
        })?;
        self.compacted = self.compacted.max(compacted);
        Ok(())
    }

    fn did(&mut self, txn: &Txn, since: Since, result: &TxnResult) -> Verdict {
        self.present(since, result.revision)?;
        let told = stamped(&result.results, result.revision, txn.previous);
        let fits = |effect: &Effect| {
            let expected = stamped(&effect.results, result.revision, txn.previous);
            effect.succeeded == result.succeeded && expected == told
        };
        // Without an effect it was evaluated at the revision that it tells, otherwise right before.
        let idle = self.model.evaluate(txn, result.revision);
        if idle.changes.is_empty() && fits(&idle) {
            return self.explain_again(since.number);
        }
        let effect = self.model.evaluate(txn, result.revision - 1);
        if !fits(&effect) || effect.changes.is_empty() {
            return Err(format!("{txn:?} was answered {result:?}, and the model answers {effect:?}"));
        }
        let revision = result.revision;
        let history: Vec<Event> = self.model.history(&KeyRange::all(), revision);
        let of_it: Vec<Event> = history.into_iter().take_while(|event| event.revision() == revision).collect();
        if of_it != events(&effect.changes, revision) || revision <= since.revision {
            return Err(format!("{txn:?} is said to have made revision {revision}, which did {}", shown(&of_it)));
        }
        match self.makers.insert(revision, Maker::Sure(since.number)) {
            Some(Maker::Sure(other)) => Err(format!("revision {revision} was given to #{other} and #{}", since.number)),
            Some(Maker::Likely(other)) if other == since.number => Ok(()),
            _ => self.explain_again(since.number),
        }
    }

    fn refused(&mut self, txn: &Txn, since: Since, error: Error, now: u64) -> Verdict {
        match error {
            Error::LeaseNotFound(id) => self.lease_missing(id, since, Error::LeaseNotFound(id), now),
            Error::FutureRevision { asked, .. } => expect(asked > since.revision, || format!("{asked} is no future")),
            Error::Compacted { asked, compacted } => {
                expect(asked < compacted, || format!("{asked} was said to be below {compacted}"))?;
                self.mark(since, compacted, now)
            }
            other => Err(format!("{txn:?} was refused: {other:?}")),
        }
    }

    fn ranged(&mut self, range: &Range, since: Since, result: Result<RangeResult, Error>, now: u64) -> Verdict {
        let asked = range.revision;
        match result {
            Ok(mut result) => {
                self.present(since, result.revision)?;
                let at = if asked == 0 { result.revision } else { asked };
                expect(asked == 0 || asked >= since.compacted, || format!("{asked} is compacted, and was read"))?;
                expect(at <= self.revision(), || format!("revision {at} was read, and is not there"))?;
                let expected = self.model.read(range, at);
                result.revision = at;
                expect(result == expected, || {
                    format!("{range:?} found at {at}\n {result:?}, and it was\n {expected:?}")
                })
            }
            Err(Error::FutureRevision { .. }) => expect(asked > since.revision, || format!("{asked} is no future")),
            Err(Error::Compacted { compacted, .. }) => {
                expect(asked != 0 && asked < compacted, || format!("{asked} was said to be below {compacted}"))?;
                self.mark(since, compacted, now)
            }
            Err(other) => Err(format!("{range:?} failed: {other:?}")),
        }
    }

    fn compacted_by(&mut self, asked: i64, since: Since, result: Result<(), Error>, now: u64) -> Verdict {
        match result {
            Ok(()) => {
                expect(asked > since.compacted && asked <= self.revision(), || format!("{asked} was compacted"))?;
                self.compacted = self.compacted.max(asked);
                Ok(())
            }
            Err(Error::FutureRevision { .. }) => expect(asked > since.revision, || format!("{asked} is no future")),
            Err(Error::Compacted { compacted, .. }) => {
                expect(asked <= compacted, || format!("{asked} was said to be below {compacted}"))?;
                self.mark(since, compacted, now)
            }
            Err(other) => Err(format!("compacting {asked} failed: {other:?}")),
        }
    }

    /// The process ended, whatever was under way in it.
    pub fn crashed(&mut self, now: u64) {
        self.loose_grants.iter_mut().for_each(|grant| grant.lost = true);
        for lease in self.leases.values_mut() {
            lease.begun_latest = now;
        }
    }

    /// A store was opened; the witness has been told everything up to its `revision`.
    pub fn recovered(&mut self, revision: i64, compacted: i64, now: u64) -> Verdict {
        expect(revision == self.revision(), || {
            format!("the store came back at revision {revision}, and {} was made known", self.revision())
        })?;
        self.pending.clear();
        for maker in self.makers.values_mut().filter(|maker| matches!(maker, Maker::Likely(_))) {
            *maker = Maker::Gone;
        }
        for lease in self.leases.values_mut() {
            lease.begun_latest = now;
        }
        self.reopened(now);
        let since = self.since(now, 0);
        self.mark(since, compacted, now)
    }
}

/// Results in the form in which they can be compared: what may be left out is.
fn stamped(results: &[OpResult], revision: i64, previous: bool) -> Vec<OpResult> {
    let bare =
        |kv: &KeyValue| if previous { kv.clone() } else { KeyValue { value: bytes::Bytes::new(), ..kv.clone() } };
    let stamp = |result: &OpResult| match result {
        OpResult::Put { previous: kv } => OpResult::Put { previous: kv.as_ref().filter(|_| previous).cloned() },
        OpResult::Delete { deleted } => OpResult::Delete { deleted: deleted.iter().map(bare).collect() },
        OpResult::Range(range) => OpResult::Range(RangeResult { revision, ..range.clone() }),
        OpResult::Txn { succeeded, results } => {
            OpResult::Txn { succeeded: *succeeded, results: stamped(results, revision, previous) }
        }
    };
    results.iter().map(stamp).collect()
}

fn shown(events: &[Event]) -> String {
    let words: Vec<String> = events.iter().map(|event| crate::suite::words(event).chars().take(80).collect()).collect();
    format!("[{}]", words.join(", "))
}
