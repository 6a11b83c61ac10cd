//! What a watch may tell, and when it may end.

use super::{Judge, Since, Verdict, expect, shown};
use crate::{Error, Event, KeyRange, WatchBatch};

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

impl Judge {
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
    pub(super) fn check_previous(&self, told: &[Event], now: u64) -> Verdict {
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

fn without_previous(event: Event) -> Event {
    match event {
        Event::Put { kv, .. } => Event::Put { kv, previous: None },
        Event::Delete { key, revision, .. } => Event::Delete { key, revision, previous: None },
    }
}
