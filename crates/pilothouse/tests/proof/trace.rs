//! What clients and watchers remember, and its judgement: `store::testing::history` asks whether there is one order of all
//! that happened that explains every answer and every event.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use store::testing::history::{Action, Checked, History, Operation, Watched};

/// What became of one call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    Done,
    /// The object was not as the write demanded.
    Conflict,
    /// It had no effect, for reasons that are not in the state.
    Rejected,
    /// No answer, or one that nobody knows: it may have happened.
    Unknown,
}

/// All that was done and seen.
#[derive(Debug)]
pub struct Trace {
    begun: Instant,
    calls: Mutex<Vec<(Operation, Outcome)>>,
    pub acknowledged: AtomicUsize,
    pub seen: AtomicUsize,
}

impl Default for Trace {
    fn default() -> Self {
        let (acknowledged, seen) = Default::default();
        Trace { begun: Instant::now(), calls: Mutex::default(), acknowledged, seen }
    }
}

impl Trace {
    fn calls(&self) -> MutexGuard<'_, Vec<(Operation, Outcome)>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Notes what was asked at `call`, and what has just been answered.
    pub fn note(&self, client: usize, call: u64, action: Action, outcome: Outcome) {
        if outcome == Outcome::Done && matches!(action, Action::Put { .. } | Action::Delete { .. }) {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        let answer = (outcome != Outcome::Unknown).then(|| self.now());
        self.calls().push((Operation { client, call, answer, action }, outcome));
    }

    /// Whatever was under way has happened by now or never will: the process that had it is gone.
    pub fn settle(&self) {
        let now = self.now();
        for (operation, _) in self.calls().iter_mut().filter(|(o, _)| o.answer.is_none()) {
            operation.answer = Some(now);
        }
    }

    /// How often each outcome was.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for (_, outcome) in self.calls().iter() {
            *counts.entry(format!("{outcome:?}")).or_default() += 1;
        }
        counts
    }

    /// Judges it. Watches must have seen everything, from before the first write to after the last.
    pub fn judge(&self, watches: Vec<Watched>) -> Result<Checked, String> {
        let told = watches.iter().flat_map(|watched| &watched.events);
        let written: BTreeMap<&str, i64> = told.filter_map(|e| Some((e.value.as_deref()?, e.revision))).collect();
        let mut operations = Vec::new();
        let mut deletions: BTreeMap<(String, i64), Vec<(Operation, Outcome)>> = BTreeMap::new();
        for (mut operation, outcome) in self.calls().drain(..) {
            if let (Action::Put { value, .. }, Outcome::Conflict | Outcome::Rejected) = (&operation.action, outcome)
                && let Some(revision) = written.get(value.as_str())
            {
                return Err(format!("refused, and done at revision {revision} all the same: {operation:?}"));
            }
            operation.action = match (operation.action, outcome) {
                (_, Outcome::Rejected) => continue,
                (Action::Put { key, expected: Some(expected), .. }, Outcome::Conflict)
                | (Action::Delete { key, expected: Some(expected), .. }, Outcome::Conflict) => {
                    Action::Refused { key, expected }
                }
                (Action::Get { .. } | Action::List { .. }, Outcome::Unknown) => continue,
                (Action::Delete { key, expected: Some(expected), revision }, outcome) => {
                    let place = (key.clone(), expected);
                    operation.action = Action::Delete { key, expected: Some(expected), revision };
                    deletions.entry(place).or_default().push((operation, outcome));
                    continue;
                }
                (action, _) => action,
            };
            operations.push(operation);
        }
        operations.extend(done(deletions, &watches)?);
        History { start: Vec::new(), operations, watches }.check().map_err(|violation| violation.to_string())
    }
}

/// Puts the revisions to deletions, of which only watches tell them. Of several who asked for the same one it was done by
/// who was told so, or else by the first; what no watch saw never happened.
fn done(
    mut asked: BTreeMap<(String, i64), Vec<(Operation, Outcome)>>,
    watches: &[Watched],
) -> Result<Vec<Operation>, String> {
    let mut seen: BTreeMap<(String, i64), i64> = BTreeMap::new();
    for watched in watches {
        let mut last: BTreeMap<&str, i64> = BTreeMap::new();
        for told in &watched.events {
            let before = last.insert(&told.key, told.revision);
            if let (None, Some(before)) = (&told.value, before) {
                seen.insert((told.key.clone(), before), told.revision);
            }
        }
    }
    let mut done = Vec::new();
    for (place, at) in seen {
        let mut candidates = asked.remove(&place).unwrap_or_default();
        candidates.sort_by_key(|(operation, outcome)| (*outcome != Outcome::Done, operation.call));
        let mut candidates = candidates.into_iter();
        let Some((mut operation, _)) = candidates.next() else {
            return Err(format!("{} of revision {} was deleted at {at}, and nobody asked for that", place.0, place.1));
        };
        if let Action::Delete { revision, .. } = &mut operation.action {
            *revision = Some(at);
        }
        if let Some((second, _)) = candidates.find(|(_, outcome)| *outcome == Outcome::Done) {
            return Err(format!("acknowledged twice: {operation:?} and {second:?}"));
        }
        done.push(operation);
    }
    match asked.into_values().flatten().find(|(_, outcome)| *outcome == Outcome::Done) {
        Some((lost, _)) => Err(format!("acknowledged and lost: {lost:?}")),
        None => Ok(done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::testing::history::Told;

    fn delete(trace: &Trace, outcome: Outcome) {
        let action = Action::Delete { key: "k".into(), expected: Some(5), revision: None };
        trace.note(0, trace.now(), action, outcome);
    }

    /// An object that was written at revision 5, and deletions of it; whether a watch saw one.
    fn judged(deletions: &[Outcome], gone: bool) -> Result<Checked, String> {
        let trace = Trace::default();
        let action = Action::Put { key: "k".into(), value: "a".into(), expected: Some(0), revision: Some(5) };
        trace.note(0, trace.now(), action, Outcome::Done);
        for outcome in deletions {
            delete(&trace, *outcome);
        }
        let told = |revision, value: Option<&str>| Told { key: "k".into(), revision, value: value.map(str::to_owned) };
        let mut events = vec![told(5, Some("a"))];
        events.extend(gone.then(|| told(6, None)));
        trace.judge(vec![Watched { after: 1, until: 6, events, ..Watched::default() }])
    }

    #[test]
    fn deletions_are_found_in_watches() {
        use Outcome::{Conflict, Done, Unknown};
        for (deletions, gone, wrong) in [
            (&[Done][..], true, None),
            (&[Unknown], true, None),
            (&[Unknown], false, None),
            (&[Unknown, Done, Conflict], true, None),
            (&[Done], false, Some("acknowledged and lost")),
            (&[Done, Done], true, Some("acknowledged twice")),
            (&[], true, Some("nobody asked")),
            (&[Conflict], false, Some("was refused")),
        ] {
            let told = judged(deletions, gone);
            match wrong {
                None => assert!(told.is_ok(), "{deletions:?}: {told:?}"),
                Some(wrong) => assert!(told.clone().is_err_and(|e| e.contains(wrong)), "{deletions:?}: {told:?}"),
            }
        }
    }
}
