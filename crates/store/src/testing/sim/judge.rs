//! What a store may answer, given all that it has told: the model, and every answer compared with it.
//!
//! The order of the writes is not guessed. A witness, which is a watch of everything that is read whenever the simulator
//! has its turn, tells what each revision did; the judge looks for something that was asked and does just that. An answer
//! names the revision at which it was given, so whether it fits is looked up.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ask::{Answer, Ask};
use crate::suite::model::{Changes, Effect, Model, events};
use crate::testing::random::Random;
use crate::{Error, Event, KeyRange, KeyValue, LeaseId, OpResult, Range, RangeResult, Txn, TxnResult, WatchBatch};

/// Why no store with etcd's semantics does this.
pub type Verdict = Result<(), String>;

/// What was known when something was asked.
#[derive(Clone, Copy, Debug)]
pub struct Since {
    /// Numbers what is asked.
    pub number: u64,
    /// Every revision up to here was told to someone before.
    revision: i64,
    /// Reads below it were refused before, or a compaction acknowledged.
    compacted: i64,
    time: u64,
    /// Calls of the disk that failed before.
    pub failures: u64,
}

/// Who made a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Maker {
    /// It told so itself.
    Sure(u64),
    /// It would do just that, and has not answered yet.
    Likely(u64),
    /// A lease that ended by itself.
    Lease(LeaseId),
    /// Nobody can be asked any more.
    Gone,
}

/// When a revision was made that is to be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Now,
    /// Some time before now.
    Before,
    /// Before the store was opened.
    Recovered,
}

struct Pending {
    ask: Ask,
    since: Since,
    /// It was answered that nobody knows, so it may be found after a restart.
    unknown: bool,
    /// It made no later revision than this.
    until: i64,
}

struct LeaseModel {
    ttl: u64,
    /// Its time began at this moment or later.
    begun: u64,
    /// Its time began at this moment or earlier.
    begun_latest: u64,
    /// Someone was told that it is gone: the number of what was asked last then.
    gone: Option<u64>,
    /// It was asked to be revoked, so it may be gone.
    revoked: bool,
    /// Its grant was not answered yet, but another was told that it exists.
    rumoured: bool,
    /// It may be over, and another of its number be there whose grant was not answered.
    ambiguous: bool,
    /// The number of what was asked last when its grant was answered.
    told: u64,
}

/// What was asked for when a lease was.
struct Grant {
    number: u64,
    ttl: u64,
    chosen: LeaseId,
    time: u64,
    /// The process ended, so it is not answered any more.
    lost: bool,
}

impl LeaseModel {
    fn new(ttl: u64, begun: u64, begun_latest: u64, told: u64) -> Self {
        Self { ttl, begun, begun_latest, gone: None, revoked: false, rumoured: false, ambiguous: false, told }
    }
}

/// What one watch was told.
pub struct Follower {
    pub keys: KeyRange,
    pub previous: bool,
    /// The next revision that it has not been told of.
    pub next: i64,
    /// What was known when it began.
    since: Since,
    greeted: bool,
    /// The most events that have waited for it.
    backlog: usize,
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
        }
    }

    /// Every revision up to it is known.
    pub fn revision(&self) -> i64 {
        self.model.revision
    }

    /// Reads below are refused for sure.
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// Leases that are not known to be gone.
    pub fn leases(&self) -> Vec<LeaseId> {
        self.leases.iter().filter(|(_, lease)| lease.gone.is_none()).map(|(id, _)| *id).collect()
    }

    /// The full time of a lease that is not known to be gone, in milliseconds.
    pub fn ttl(&self, random: &mut Random) -> Option<u64> {
        let leases = self.leases();
        if leases.is_empty() { None } else { self.leases.get(random.pick(&leases)).map(|lease| lease.ttl) }
    }

    /// A number that is taken for sure, or is being taken.
    pub fn taken(&self, now: u64) -> Option<LeaseId> {
        let sure =
            |lease: &LeaseModel| lease.gone.is_none() && !lease.revoked && lease.begun + lease.ttl > now + 2_000_000;
        let held = self.leases.iter().find(|(_, lease)| sure(lease)).map(|(id, _)| *id);
        let asked = |grant: &&Grant| grant.chosen != 0 && !self.leases.contains_key(&grant.chosen);
        let loose = self.loose_grants.iter().rfind(asked).map(|grant| grant.chosen);
        loose.or(held)
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
        let (revision, compacted) = (self.revision(), self.compacted);
        Since { number: self.numbers, revision, compacted, time: now, failures }
    }

    /// The witness was told what happened next.
    pub fn told(&mut self, events: &[Event], now: u64, recovered: bool) -> Verdict {
        for event in events.chunk_by(|a, b| a.revision() == b.revision()) {
            let revision = event[0].revision();
            if revision != self.revision() + 1 {
                return Err(format!("revision {revision} was made known, and {} was the present", self.revision()));
            }
            let changes = event.iter().map(|event| match event {
                Event::Put { kv, .. } => (kv.key.clone(), Some(kv.clone())),
                Event::Delete { key, .. } => (key.clone(), None),
            });
            let changes: Changes = changes.collect();
            let maker = self.explain(revision, &changes, now, if recovered { When::Recovered } else { When::Now })?;
            if !recovered {
                // What was not known to have happened is disowned by what happened since.
                let unknown = self.pending.values_mut().filter(|pending| pending.unknown);
                unknown.for_each(|pending| pending.until = pending.until.min(revision - 1));
            }
            self.makers.insert(revision, maker);
            self.model.commit(changes);
            self.times.push((revision, now));
        }
        Ok(())
    }

    /// What `pending` would do right after a revision.
    fn effect(&self, ask: &Ask, base: i64) -> Changes {
        match ask {
            Ask::Txn(txn) => self.model.evaluate(txn, base).changes,
            Ask::Revoke(lease) => self.model.lease_end(*lease, base),
            _ => Changes::new(),
        }
    }

    /// Who made a revision that did this.
    fn explain(&mut self, revision: i64, changes: &Changes, now: u64, when: When) -> Result<Maker, String> {
        let base = revision - 1;
        // Leases first: they need not be asked, so nothing else is left without an explanation.
        let ended = self.leases.iter().filter(|(id, lease)| {
            let there = lease.gone.is_none() || when == When::Before;
            there && !changes.is_empty() && self.model.lease_end(**id, base) == *changes
        });
        let ended: Vec<(LeaseId, u64, u64, bool)> = ended
            .map(|(id, lease)| {
                (*id, now - lease.begun, lease.ttl, lease.ambiguous || (lease.revoked && when == When::Before))
            })
            .collect();
        if let Some((id, ..)) = ended.iter().find(|(_, age, ttl, excused)| age >= ttl || *excused) {
            return Ok(Maker::Lease(*id));
        }
        let fits = |number: &u64, base: i64, changes: &Changes, when: When| {
            let pending = &self.pending[number];
            let late = pending.since.revision > base || pending.until <= base || (pending.unknown && when == When::Now);
            !late && self.effect(&pending.ask, base) == *changes
        };
        let made =
            |number: &u64| self.makers.iter().find(|(_, maker)| **maker == Maker::Likely(*number)).map(|(at, _)| *at);
        let suspects: Vec<u64> =
            self.pending.keys().copied().filter(|number| fits(number, base, changes, when)).collect();
        if let Some(number) = suspects.iter().find(|number| made(number).is_none()) {
            return Ok(Maker::Likely(*number));
        }
        // One that was thought to have made another revision, if someone else can have made that.
        for number in suspects {
            let Some(other) = made(&number) else { continue };
            let before = self.changes_of(other);
            let instead = self.pending.keys().copied().find(|instead| {
                *instead != number && made(instead).is_none() && fits(instead, other - 1, &before, When::Before)
            });
            if let Some(instead) = instead {
                self.makers.insert(other, Maker::Likely(instead));
                return Ok(Maker::Likely(number));
            }
        }
        let told = shown(&events(changes, revision));
        if let Some((id, age, ttl, _)) = ended.first() {
            return Err(format!("lease {id:x} of {ttl} ms ended after {age} ms at revision {revision}: {told}"));
        }
        let asked: Vec<String> = self.pending.values().map(|pending| format!("{:?}", pending.ask)).collect();
        Err(format!("revision {revision} did what nobody asked for: {told}; pending: {asked:#?}"))
    }

    /// What a revision did.
    fn changes_of(&self, revision: i64) -> Changes {
        let history = self.model.history(&KeyRange::all(), revision).into_iter();
        let of_it = history.take_while(|event| event.revision() == revision);
        let change = |event| match event {
            Event::Put { kv, .. } => (kv.key.clone(), Some(kv)),
            Event::Delete { key, .. } => (key, None),
        };
        of_it.map(change).collect()
    }

    /// Who was thought to have made something has not.
    fn explain_again(&mut self, number: u64) -> Verdict {
        let made = self.makers.iter().find(|(_, maker)| **maker == Maker::Likely(number)).map(|(at, _)| *at);
        let Some(revision) = made else { return Ok(()) };
        self.makers.insert(revision, Maker::Gone);
        let changes = self.changes_of(revision);
        let time = self.times.iter().find(|(at, _)| *at == revision).map_or(0, |(_, time)| *time);
        let maker = self.explain(revision, &changes, time, When::Before)?;
        self.makers.insert(revision, maker);
        Ok(())
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

    fn granted(
        &mut self,
        ttl: Duration,
        chosen: LeaseId,
        since: Since,
        result: Result<LeaseId, Error>,
        now: u64,
    ) -> Verdict {
        let ttl = millis(ttl);
        match result {
            Ok(id) => {
                // Those that were lost before have not been granted, or are over.
                let other = |loose: &Grant| loose.number != since.number && !(loose.lost && loose.chosen == id);
                self.loose_grants.retain(other);
                expect(chosen == 0 || chosen == id, || format!("lease {id:x} was granted for {chosen:x}"))?;
                if let Some(rumoured) = self.leases.get_mut(&id).filter(|lease| lease.rumoured) {
                    rumoured.rumoured = false;
                    rumoured.ttl = ttl;
                    rumoured.begun_latest = now;
                    return Ok(());
                }
                let may_be_gone =
                    |lease: &LeaseModel| lease.gone.is_some() || lease.revoked || lease.begun + lease.ttl <= now;
                let lease = LeaseModel::new(ttl, since.time, now, self.numbers);
                let free = self.leases.get(&id).is_none_or(may_be_gone);
                // The one that is known may have been granted after this one, which is over already.
                expect(free || may_be_gone(&lease), || format!("lease {id:x} was granted twice"))?;
                if free {
                    self.leases.insert(id, lease);
                }
                Ok(())
            }
            Err(Error::LeaseExists(id)) => {
                self.loose_grants.retain(|loose| loose.number != since.number);
                self.rumour(id, now);
                let known = self.leases.get(&id).is_some_and(|lease| lease.gone.is_none_or(|told| since.number < told));
                expect(id == chosen && known, || format!("lease {id:x} is said to exist"))
            }
            Err(other) => Err(format!("a lease was refused: {other:?}")),
        }
    }

    /// A lease that is there may be one whose grant was not answered.
    fn rumour(&mut self, id: LeaseId, now: u64) {
        let Some(at) = self.loose_grants.iter().position(|loose| loose.chosen == id) else { return };
        match self.leases.get_mut(&id) {
            Some(lease) if lease.gone.is_none() => lease.ambiguous |= lease.revoked || lease.begun + lease.ttl <= now,
            _ => {
                let loose = self.loose_grants.swap_remove(at);
                // Which of several it is can't be told.
                let ambiguous = self.loose_grants.iter().any(|other| other.chosen == id);
                let lease = LeaseModel::new(loose.ttl, loose.time, now, self.numbers);
                let rumoured = LeaseModel { rumoured: true, ambiguous, ..lease };
                self.leases.insert(id, rumoured);
            }
        }
    }

    /// A lease that was used, unless it was gone before that was told.
    fn alive(&mut self, id: LeaseId, since: Since) -> Result<Option<&mut LeaseModel>, String> {
        if self.leases.get(&id).is_some_and(|lease| lease.gone.is_some_and(|told| since.number <= told)) {
            return Ok(None);
        }
        self.rumour(id, since.time);
        match self.leases.get_mut(&id) {
            Some(lease) if lease.gone.is_none() => Ok(Some(lease)),
            _ => Err(format!("lease {id:x} is gone, and was used")),
        }
    }

    /// Someone was told that a lease is not there.
    fn lease_missing(&mut self, id: LeaseId, since: Since, error: Error, now: u64) -> Verdict {
        let Error::LeaseNotFound(told) = error else { return Err(format!("lease {id:x}: {error:?}")) };
        expect(told == id, || format!("lease {told:x} was said to be missing, not {id:x}"))?;
        let keys = self.model.lease_end(id, self.revision());
        let number = self.numbers;
        let Some(lease) = self.leases.get_mut(&id) else { return Ok(()) };
        if since.number <= lease.told {
            // It may have been asked for before it was granted.
            return Ok(());
        }
        let may_be = lease.ambiguous || lease.gone.is_some() || lease.revoked || lease.begun + lease.ttl <= now;
        expect(may_be, || {
            format!("lease {id:x} of {} ms was said to be gone after {} ms", lease.ttl, now - lease.begun)
        })?;
        lease.gone.get_or_insert(number);
        expect(keys.is_empty(), || format!("lease {id:x} was said to be gone, and {keys:?} hang on it"))
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
        let since = self.since(now, 0);
        self.mark(since, compacted, now)
    }

    /// All that was asked is answered and time does not pass: leases whose time is over must be gone, others there.
    pub fn settled(&mut self, there: &[LeaseId], now: u64) -> Verdict {
        there.iter().for_each(|id| self.rumour(*id, now));
        for (id, lease) in self.leases.iter().filter(|(_, lease)| !lease.ambiguous) {
            let over = now >= lease.begun_latest + lease.ttl;
            let listed = there.contains(id);
            expect(!(listed && (over || lease.gone.is_some())), || format!("lease {id:x} is over, and there"))?;
            let must = lease.gone.is_none() && !lease.revoked && now < lease.begun + lease.ttl;
            expect(listed || !must, || format!("lease {id:x} of {} ms is lost", lease.ttl))?;
            let keys = self.model.lease_end(*id, self.revision());
            expect(listed || keys.is_empty(), || format!("lease {id:x} is not there, and {keys:?} hang on it"))?;
        }
        Ok(())
    }

    /// A watch begins.
    pub fn watches(&mut self, keys: KeyRange, previous: bool, start: i64, now: u64, failures: u64) -> Follower {
        let since = self.since(now, failures);
        let next = if start == 0 { self.revision() + 1 } else { start };
        Follower { keys, previous, next, since, greeted: false, backlog: 0 }
    }

    /// Notes how many events wait for a watch.
    pub fn waits(&self, follower: &mut Follower) {
        if self.watch_events < 1000 {
            follower.backlog = follower.backlog.max(self.model.history(&follower.keys, follower.next).len());
        }
    }

    /// A watch was told something; whether it goes on.
    pub fn followed(
        &mut self,
        follower: &mut Follower,
        told: Result<WatchBatch, Error>,
        now: u64,
        failures: u64,
    ) -> Result<bool, String> {
        let next = follower.next;
        let batch = match told {
            Ok(batch) => batch,
            Err(Error::SlowWatcher { last }) => {
                let waiting = follower.backlog;
                expect(waiting > self.watch_events, || format!("a watch was ended as slow with {waiting} events"))?;
                expect(last == next - 1, || format!("a watch was ended after {last}, and had been told {}", next - 1))?;
                return Ok(false);
            }
            Err(error) => {
                self.watch_refused(follower, error, now, failures)?;
                return Ok(false);
            }
        };
        if !follower.greeted {
            follower.greeted = true;
            expect(batch.events.is_empty(), || format!("the first batch has events: {batch:?}"))?;
            self.present(follower.since, batch.revision)?;
            return Ok(true);
        }
        expect(batch.revision <= self.revision(), || {
            format!("a watch told of {}, which is not there", batch.revision)
        })?;
        let mut expected = self.model.history(&follower.keys, next);
        expected.retain(|event| event.revision() <= batch.revision);
        let told: Vec<Event> = batch.events.iter().cloned().map(without_previous).collect();
        expect(told == expected, || {
            format!(
                "a watch of {:?} from {next} was told up to {}\n {}, and it was\n {}",
                follower.keys,
                batch.revision,
                shown(&told),
                shown(&expected)
            )
        })?;
        if follower.previous {
            self.check_previous(&batch.events, now)?;
        }
        follower.next = next.max(batch.revision + 1);
        Ok(true)
    }

    /// A watch was not begun, or ended.
    pub fn watch_refused(&mut self, follower: &Follower, error: Error, now: u64, failures: u64) -> Verdict {
        match error {
            Error::Compacted { compacted, .. } => {
                let next = follower.next;
                expect(next < compacted, || format!("a watch from {next} was refused as below {compacted}"))?;
                self.mark(follower.since, compacted, now)
            }
            Error::Io { .. } if failures > follower.since.failures => Ok(()),
            other => Err(format!("a watch from {} ended: {other:?}", follower.next)),
        }
    }

    /// The values that changes replaced, unless the mark has passed them.
    fn check_previous(&self, told: &[Event], now: u64) -> Verdict {
        let first = told.first().map_or(0, Event::revision);
        let excused = first - 1 < self.compacted_most(now);
        for event in told {
            let (Event::Put { previous, .. } | Event::Delete { previous, .. }) = event;
            let expected = self.model.at(event.key(), event.revision() - 1);
            let right = previous.as_ref() == expected || (previous.is_none() && excused);
            expect(right, || format!("{event:?} replaced {expected:?}"))?;
        }
        Ok(())
    }

    /// A watch has nothing more to tell.
    pub fn caught_up(&self, follower: &Follower) -> Verdict {
        let missed = self.model.history(&follower.keys, follower.next);
        expect(missed.is_empty(), || format!("a watch was never told {}", shown(&missed)))
    }
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn without_previous(event: Event) -> Event {
    match event {
        Event::Put { kv, .. } => Event::Put { kv, previous: None },
        Event::Delete { key, revision, .. } => Event::Delete { key, revision, previous: None },
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
