//! Who did what became known: every revision has someone who asked for just that.

use super::{Judge, Verdict, shown};
use crate::suite::model::{Changes, events};
use crate::testing::sim::ask::Ask;
use crate::{Event, KeyRange, LeaseId};

/// Who made a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Maker {
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
pub(super) enum When {
    Now,
    /// Some time before now.
    Before,
    /// Before the store was opened.
    Recovered,
}

impl Judge {
    /// The witness was told what happened next.
    pub fn told(&mut self, events: &[Event], now: u64, recovered: bool) -> Verdict {
        let earliest = self.earliest_stamp();
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
            self.stamped(revision, earliest);
        }
        Ok(())
    }

    /// What `pending` would do right after a revision.
    pub(super) fn effect(&self, ask: &Ask, base: i64) -> Changes {
        match ask {
            Ask::Txn(txn) => self.model.evaluate(txn, base).changes,
            Ask::Revoke(lease) => self.model.lease_end(*lease, base),
            _ => Changes::new(),
        }
    }

    /// Who made a revision that did this.
    pub(super) fn explain(&mut self, revision: i64, changes: &Changes, now: u64, when: When) -> Result<Maker, String> {
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
    pub(super) fn changes_of(&self, revision: i64) -> Changes {
        let history = self.model.history(&KeyRange::all(), revision).into_iter();
        let of_it = history.take_while(|event| event.revision() == revision);
        let change = |event| match event {
            Event::Put { kv, .. } => (kv.key.clone(), Some(kv)),
            Event::Delete { key, .. } => (key, None),
        };
        of_it.map(change).collect()
    }

    /// Who was thought to have made something has not.
    pub(super) fn explain_again(&mut self, number: u64) -> Verdict {
        let made = self.makers.iter().find(|(_, maker)| **maker == Maker::Likely(number)).map(|(at, _)| *at);
        let Some(revision) = made else { return Ok(()) };
        self.makers.insert(revision, Maker::Gone);
        let changes = self.changes_of(revision);
        let time = self.times.iter().find(|(at, _)| *at == revision).map_or(0, |(_, time)| *time);
        let maker = self.explain(revision, &changes, time, When::Before)?;
        self.makers.insert(revision, maker);
        Ok(())
    }
}
