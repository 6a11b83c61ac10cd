//! Which leases there are, and when they may end and must.

use std::time::Duration;

use super::{Judge, Since, Verdict, expect, millis};
use crate::testing::random::Random;
use crate::{Error, LeaseId};

/// What is known of a lease.
pub(super) struct LeaseModel {
    pub(super) ttl: u64,
    /// Its time began at this moment or later.
    pub(super) begun: u64,
    /// Its time began at this moment or earlier.
    pub(super) begun_latest: u64,
    /// Someone was told that it is gone: the number of what was asked last then.
    pub(super) gone: Option<u64>,
    /// It was asked to be revoked, so it may be gone.
    pub(super) revoked: bool,
    /// Its grant was not answered yet, but another was told that it exists.
    pub(super) rumoured: bool,
    /// It may be over, and another of its number be there whose grant was not answered.
    pub(super) ambiguous: bool,
    /// The number of what was asked last when its grant was answered.
    pub(super) told: u64,
}

/// What was asked for when a lease was.
pub(super) struct Grant {
    pub(super) number: u64,
    pub(super) ttl: u64,
    pub(super) chosen: LeaseId,
    pub(super) time: u64,
    /// The process ended, so it is not answered any more.
    pub(super) lost: bool,
}

impl LeaseModel {
    pub(super) fn new(ttl: u64, begun: u64, begun_latest: u64, told: u64) -> Self {
        Self { ttl, begun, begun_latest, gone: None, revoked: false, rumoured: false, ambiguous: false, told }
    }
}

impl Judge {
    /// Leases that are not known to be gone.
    pub fn leases(&self) -> Vec<LeaseId> {
        self.leases.iter().filter(|(_, lease)| lease.gone.is_none()).map(|(id, _)| *id).collect()
    }

    /// Leases whose time is not over.
    pub fn held(&self, now: u64) -> Vec<LeaseId> {
        let held = |lease: &LeaseModel| lease.gone.is_none() && !lease.revoked && now < lease.begun + lease.ttl;
        self.leases.iter().filter(|(_, lease)| held(lease)).map(|(id, _)| *id).collect()
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

    pub(super) fn granted(
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
    pub(super) fn rumour(&mut self, id: LeaseId, now: u64) {
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
    pub(super) fn alive(&mut self, id: LeaseId, since: Since) -> Result<Option<&mut LeaseModel>, String> {
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
    pub(super) fn lease_missing(&mut self, id: LeaseId, since: Since, error: Error, now: u64) -> Verdict {
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
}
