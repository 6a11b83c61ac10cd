//! Whether what concurrent clients saw can have come from one store with etcd's semantics: a checker of strict
//! serializability over the whole key space, and of watches.
//!
//! In general that is a hard search. Here it is cheap, because a successful write names its revision and a read names the
//! revision of what it found: the order of the writes is given, and each operation must only fit in. An operation takes
//! effect at one moment between its call and its return; the checker gives each the earliest moment that is possible, so if
//! a later one does not fit, none would have.
//!
//! What the one who records must see to: each value is written by one operation only (put a number into it), and times are
//! of one clock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

/// One thing that a client did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// For the report.
    pub client: usize,
    /// When it was asked for, before the request was sent.
    pub call: u64,
    /// When the answer had come; `None`: no answer that says what happened, so a write may take effect at any time.
    pub answer: Option<u64>,
    pub action: Action,
}

/// What was asked, and what the answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A put, guarded by the revision that the key must have (0: none) or not. Done at `revision`.
    Put { key: String, value: String, expected: Option<i64>, revision: Option<i64> },
    /// A deletion, likewise. Done at `revision`, which may be unknown although it was done.
    Delete { key: String, expected: Option<i64>, revision: Option<i64> },
    /// A guarded write that was refused because the key was not at the revision expected.
    Refused { key: String, expected: i64 },
    /// A read of one key: revision and value, or that it is absent.
    Get { key: String, found: Option<(i64, String)> },
    /// A read of all keys that begin with `prefix`: key, revision and value; all as of `revision`.
    List { prefix: String, revision: i64, found: Vec<(String, i64, String)> },
}

/// What one watch told of the keys that begin with a prefix, in the order in which it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// For the report.
    pub client: usize,
    pub prefix: String,
    /// The watch was to tell everything after this revision.
    pub after: i64,
    /// It claimed, or was waited for, to have told everything up to here.
    pub until: i64,
    pub events: Vec<Told>,
}

/// One event of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub key: String,
    pub revision: i64,
    /// `None`: the key was deleted.
    pub value: Option<String>,
}

/// What all clients did and saw.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// What was there before the first operation: key, revision, value.
    pub start: Vec<(String, i64, String)>,
    pub operations: Vec<Operation>,
    pub watches: Vec<Watched>,
}

/// What was checked, so that a test can demand that there was enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Writes whose revision is known.
    pub writes: usize,
    /// Writes without an answer that were seen to have taken effect.
    pub found_done: usize,
    pub reads: usize,
    pub events: usize,
}

/// Why no store with etcd's semantics can have done this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}\n{}", shown(.evidence))]
pub struct Violation {
    pub what: String,
    /// The operations that contradict each other.
    pub evidence: Vec<String>,
}

fn shown(evidence: &[String]) -> String {
    evidence.iter().map(|line| format!("  {line}\n")).collect()
}

/// A write whose place in the order is known.
#[derive(Clone, Copy, Debug)]
struct Write<'a> {
    revision: i64,
    /// `None`: a deletion.
    value: Option<&'a str>,
    /// The operation, unless it was there before all.
    by: Option<usize>,
}

/// The writes of one key in their order, and what may have been done to it besides.
#[derive(Debug, Default)]
struct Key<'a> {
    writes: Vec<Write<'a>>,
    /// When deletions began whose revision nobody knows.
    loose_deletes: Vec<u64>,
}

impl Key<'_> {
    /// The write in force at a revision.
    fn at(&self, revision: i64) -> Option<&Write<'_>> {
        let after = self.writes.partition_point(|write| write.revision <= revision);
        after.checked_sub(1).map(|at| &self.writes[at])
    }

    /// The first revision from `low` on at which the state satisfies `wanted`, given as revision (0: absent).
    fn first(&self, low: i64, wanted: impl Fn(i64) -> bool) -> Option<i64> {
        let state = |write: Option<&Write<'_>>| write.map_or(0, |write| write.value.map_or(0, |_| write.revision));
        if wanted(state(self.at(low))) {
            return Some(low);
        }
        let after = self.writes.partition_point(|write| write.revision <= low);
        self.writes[after..].iter().find(|write| wanted(state(Some(write)))).map(|write| write.revision)
    }
}

impl History {
    /// Checks everything.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn check(&self) -> Result<Checked, Violation> {
        let mut checked = Checked::default();
        let revisions = self.revisions(&mut checked)?;
        let keys = self.keys(&revisions)?;
        self.check_guards(&keys)?;
        self.check_order(&revisions, &keys, &mut checked)?;
        for watched in &self.watches {
            self.check_watch(watched, &keys)?;
            checked.events += watched.events.len();
        }
        Ok(checked)
    }

    fn violation(&self, what: impl Into<String>, evidence: &[usize]) -> Violation {
        let line = |at: &usize| format!("#{at} {:?}", self.operations[*at]);
        Violation { what: what.into(), evidence: evidence.iter().map(line).collect() }
    }

    /// The revision of every write that has one, also of those without an answer that somebody saw.
    fn revisions(&self, checked: &mut Checked) -> Result<Vec<Option<i64>>, Violation> {
        let mut by_value: HashMap<(&str, &str), usize> = HashMap::new();
        let mut revisions = vec![None; self.operations.len()];
        for (at, operation) in self.operations.iter().enumerate() {
            match &operation.action {
                Action::Put { key, value, revision, .. } => {
                    revisions[at] = *revision;
                    if let Some(other) = by_value.insert((key, value), at) {
                        return Err(
                            self.violation("the same value was put twice: this cannot be checked", &[other, at])
                        );
                    }
                }
                Action::Delete { revision, .. } => revisions[at] = *revision,
                _ => {}
            }
        }
        checked.writes = revisions.iter().flatten().count();
        let started: BTreeSet<(&str, i64, &str)> =
            self.start.iter().map(|(key, revision, value)| (&key[..], *revision, &value[..])).collect();
        for (key, revision, value, seen_by) in self.seen() {
            if started.contains(&(key, revision, value)) {
                continue;
            }
            let evidence: Vec<usize> = seen_by.into_iter().collect();
            let Some(put) = by_value.get(&(key, value)).copied() else {
                let what = format!("{key} was seen as {value:?} at revision {revision}, which nobody put");
                return Err(self.violation(what, &evidence));
            };
            match revisions[put] {
                Some(known) if known != revision => {
                    let what = format!("{key} as {value:?} was seen at revision {revision}, and put at {known}");
                    return Err(self.violation(what, &[&[put], &evidence[..]].concat()));
                }
                Some(_) => {}
                None => {
                    revisions[put] = Some(revision);
                    checked.found_done += 1;
                }
            }
        }
        Ok(revisions)
    }

    /// Every version of a key that anyone saw, and who.
    fn seen(&self) -> impl Iterator<Item = (&str, i64, &str, Option<usize>)> {
        let read = self.operations.iter().enumerate().flat_map(|(at, operation)| {
            let found: Vec<(&str, i64, &str, Option<usize>)> = match &operation.action {
                Action::Get { key, found: Some((revision, value)) } => {
                    vec![(&key[..], *revision, &value[..], Some(at))]
                }
                Action::List { found, .. } => {
                    found.iter().map(|(key, revision, value)| (&key[..], *revision, &value[..], Some(at))).collect()
                }
                _ => Vec::new(),
            };
            found
        });
        let told = self.watches.iter().flat_map(|watched| &watched.events).filter_map(|event| {
            let value = event.value.as_deref()?;
            Some((&event.key[..], event.revision, value, None))
        });
        read.chain(told)
    }

    /// The writes of each key in order. A revision is of one write of a key.
    fn keys(&self, revisions: &[Option<i64>]) -> Result<BTreeMap<&str, Key<'_>>, Violation> {
        let mut keys: BTreeMap<&str, Key<'_>> = BTreeMap::new();
        for (key, revision, value) in &self.start {
            let write = Write { revision: *revision, value: Some(value), by: None };
            keys.entry(key).or_default().writes.push(write);
        }
        for (at, operation) in self.operations.iter().enumerate() {
            let (key, value) = match &operation.action {
                Action::Put { key, value, .. } => (key, Some(&value[..])),
                Action::Delete { key, .. } => (key, None),
                _ => continue,
            };
            let entry = keys.entry(key).or_default();
            match revisions[at] {
                Some(revision) => entry.writes.push(Write { revision, value, by: Some(at) }),
                None if value.is_none() => entry.loose_deletes.push(operation.call),
                None => {}
            }
        }
        self.place_told_deletes(&mut keys);
        let mut owners: HashMap<i64, usize> = HashMap::new();
        for key in keys.values_mut() {
            key.writes.sort_by_key(|write| write.revision);
            for by in key.writes.iter().filter_map(|write| Some((write.revision, write.by?))) {
                if let Some(other) = owners.insert(by.0, by.1) {
                    let what = format!("revision {} was given to two writes", by.0);
                    return Err(self.violation(what, &[other, by.1]));
                }
            }
        }
        Ok(keys)
    }

    /// Deletions of unknown revision that a watch told the revision of.
    fn place_told_deletes<'a>(&'a self, keys: &mut BTreeMap<&'a str, Key<'a>>) {
        for event in self.watches.iter().flat_map(|watched| &watched.events) {
            if event.value.is_some() {
                continue;
            }
            if let Some(key) = keys.get_mut(&event.key[..])
                && !key.loose_deletes.is_empty()
                && key.writes.iter().all(|write| write.revision != event.revision)
            {
                key.writes.push(Write { revision: event.revision, value: None, by: None });
            }
        }
    }

    /// A guarded write was done only if the key was as expected just before.
    fn check_guards(&self, keys: &BTreeMap<&str, Key<'_>>) -> Result<(), Violation> {
        for (name, key) in keys {
            for (place, write) in key.writes.iter().enumerate() {
                let Some(by) = write.by else { continue };
                let (Action::Put { expected: Some(expected), .. } | Action::Delete { expected: Some(expected), .. }) =
                    &self.operations[by].action
                else {
                    continue;
                };
                let before = place.checked_sub(1).map(|place| &key.writes[place]);
                let held = before.map_or(0, |write| write.value.map_or(0, |_| write.revision));
                let excused = *expected == 0 && !key.loose_deletes.is_empty();
                if held != *expected && !excused {
                    let what = format!(
                        "{name} was written at revision {} on the condition that it was at {expected}, and it was at {held}",
                        write.revision
                    );
                    let evidence: Vec<usize> = before.and_then(|write| write.by).into_iter().chain([by]).collect();
                    return Err(self.violation(what, &evidence));
                }
            }
        }
        Ok(())
    }

    /// Every operation fits between its call and its return.
    fn check_order(
        &self,
        revisions: &[Option<i64>],
        keys: &BTreeMap<&str, Key<'_>>,
        checked: &mut Checked,
    ) -> Result<(), Violation> {
        let mut by_call: Vec<usize> = (0..self.operations.len()).collect();
        by_call.sort_by_key(|at| self.operations[*at].call);
        // Operations that have begun, by their return, with the earliest revision that each can be at.
        let mut pending: BTreeSet<(u64, i64, usize)> = BTreeSet::new();
        // The highest of those that have returned.
        let mut low = (0, None);
        for at in by_call {
            let operation = &self.operations[at];
            while let Some(done) = pending.first().copied().filter(|(answer, ..)| *answer < operation.call) {
                pending.remove(&done);
                if done.1 > low.0 {
                    low = (done.1, Some(done.2));
                }
            }
            let against = |what: String| {
                let evidence: Vec<usize> = low.1.into_iter().chain([at]).collect();
                self.violation(what, &evidence)
            };
            let moment = match &operation.action {
                Action::Put { .. } | Action::Delete { .. } => match revisions[at] {
                    Some(revision) if revision <= low.0 => {
                        let what =
                            format!("a write is at revision {revision}, and {} was there before it began", low.0);
                        return Err(against(what));
                    }
                    Some(revision) => revision,
                    None => continue,
                },
                Action::Get { key, found } => {
                    checked.reads += 1;
                    let wanted = found.as_ref().map_or(0, |(revision, _)| *revision);
                    match self.moment(keys, key, low.0, operation, |state| state == wanted) {
                        Some(moment) => moment,
                        None => return Err(against(format!("a read of {key} is stale: {} was there before", low.0))),
                    }
                }
                Action::Refused { key, expected } => {
                    checked.reads += 1;
                    match self.moment(keys, key, low.0, operation, |state| state != *expected) {
                        Some(moment) => moment,
                        None => return Err(against(format!("{key} was at {expected}, and the write was refused"))),
                    }
                }
                Action::List { prefix, revision, found } => {
                    checked.reads += 1;
                    if *revision < low.0 {
                        return Err(against(format!("a list is of {revision}, and {} was there before", low.0)));
                    }
                    self.check_list(at, prefix, *revision, found, keys)?;
                    *revision
                }
            };
            if let Some(answer) = operation.answer {
                pending.insert((answer, moment, at));
            }
        }
        Ok(())
    }

    /// The earliest revision from `low` on at which a key can have been in a wanted state.
    fn moment(
        &self,
        keys: &BTreeMap<&str, Key<'_>>,
        name: &str,
        low: i64,
        operation: &Operation,
        wanted: impl Fn(i64) -> bool,
    ) -> Option<i64> {
        let Some(key) = keys.get(name) else { return wanted(0).then_some(low) };
        let by_then = |begun: &u64| operation.answer.is_none_or(|answer| *begun <= answer);
        let first = key.first(low, &wanted);
        // A deletion whose revision nobody knows may have been in between.
        first.or_else(|| (wanted(0) && key.loose_deletes.iter().any(by_then)).then_some(low))
    }

    fn check_list(
        &self,
        at: usize,
        prefix: &str,
        revision: i64,
        found: &[(String, i64, String)],
        keys: &BTreeMap<&str, Key<'_>>,
    ) -> Result<(), Violation> {
        let found: BTreeMap<&str, i64> = found.iter().map(|(key, revision, _)| (&key[..], *revision)).collect();
        for (name, key) in keys.range(prefix..).take_while(|(name, _)| name.starts_with(prefix)) {
            let write = key.at(revision);
            let held = write.and_then(|write| write.value.map(|_| write.revision));
            let listed = found.get(name).copied();
            let excused = listed.is_none() && !key.loose_deletes.is_empty();
            if held != listed && !excused {
                let what = format!("a list of revision {revision} has {name} at {listed:?}, and it was at {held:?}");
                let evidence: Vec<usize> = write.and_then(|write| write.by).into_iter().chain([at]).collect();
                return Err(self.violation(what, &evidence));
            }
        }
        match found.keys().find(|name| !keys.contains_key(*name)) {
            Some(stranger) => Err(self.violation(format!("a list has {stranger}, which nobody wrote"), &[at])),
            None => Ok(()),
        }
    }

    /// A watch told every change of its keys once, and in order.
    fn check_watch(&self, watched: &Watched, keys: &BTreeMap<&str, Key<'_>>) -> Result<(), Violation> {
        let fail = |what: String| {
            let start = watched.events.len().saturating_sub(8);
            let mut evidence =
                vec![format!("client {} watched {:?} after {}", watched.client, watched.prefix, watched.after)];
            evidence.extend(watched.events[start..].iter().map(|event| format!("{event:?}")));
            Violation { what, evidence }
        };
        let mut last = watched.after;
        let mut told: BTreeSet<(i64, &str)> = BTreeSet::new();
        for event in &watched.events {
            if event.revision < last || event.revision <= watched.after {
                return Err(fail(format!("{event:?} was told after revision {last}")));
            }
            last = event.revision;
            if !told.insert((event.revision, &event.key)) {
                return Err(fail(format!("{event:?} was told twice")));
            }
            let Some(write) = keys.get(&event.key[..]).and_then(|key| key.at(event.revision)) else {
                return Err(fail(format!("{event:?} was told, and nobody wrote it")));
            };
            if write.revision != event.revision || write.value != event.value.as_deref() {
                return Err(fail(format!("{event:?} was told, and it was {write:?}")));
            }
        }
        let until = watched.until.max(last);
        for (name, key) in keys.range(&watched.prefix[..]..).take_while(|(name, _)| name.starts_with(&watched.prefix)) {
            let within = |write: &&Write<'_>| (watched.after + 1..=until).contains(&write.revision);
            if let Some(missed) = key.writes.iter().filter(within).find(|write| !told.contains(&(write.revision, name)))
            {
                return Err(fail(format!("the change of {name} at revision {} was not told", missed.revision)));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { writes, found_done, reads, events } = self;
        write!(f, "{writes} writes ({found_done} more found done), {reads} reads, {events} events")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(call: u64, answer: u64, action: Action) -> Operation {
        Operation { client: 0, call, answer: Some(answer), action }
    }

    fn put(key: &str, value: &str, expected: Option<i64>, revision: i64) -> Action {
        Action::Put { key: key.into(), value: value.into(), expected, revision: Some(revision) }
    }

    fn get(key: &str, found: Option<(i64, &str)>) -> Action {
        Action::Get { key: key.into(), found: found.map(|(revision, value)| (revision, value.into())) }
    }

    fn list(revision: i64, found: &[(&str, i64, &str)]) -> Action {
        let found = found.iter().map(|(key, at, value)| ((*key).into(), *at, (*value).into())).collect();
        Action::List { prefix: String::new(), revision, found }
    }

    fn told(key: &str, revision: i64, value: Option<&str>) -> Told {
        Told { key: key.into(), revision, value: value.map(Into::into) }
    }

    fn check(operations: Vec<Operation>) -> Result<Checked, String> {
        History { operations, ..History::default() }.check().map_err(|violation| violation.what)
    }

    #[test]
    fn what_overlaps_may_go_either_way() {
        let write = op(10, 20, put("a", "1", Some(0), 2));
        for found in [None, Some((2, "1"))] {
            check(vec![write.clone(), op(12, 18, get("a", found))]).expect("both are possible");
        }
        check(vec![write.clone(), op(12, 18, get("a", Some((2, "1")))), op(19, 30, get("a", None))])
            .expect_err("a later read must not go back");
        check(vec![write, op(12, 18, get("a", None)), op(13, 30, get("a", Some((2, "1"))))]).expect("fine");
    }

    #[test]
    fn stale_and_future_reads_are_found() {
        let writes = [op(10, 20, put("a", "1", Some(0), 2)), op(30, 40, put("a", "2", Some(2), 3))];
        let with = |operation| check([&writes[..], &[operation]].concat());
        with(op(41, 50, get("a", Some((2, "1"))))).expect_err("stale");
        with(op(41, 50, get("a", None))).expect_err("stale");
        with(op(21, 29, get("a", Some((3, "2"))))).expect_err("not begun yet");
        with(op(35, 39, get("a", Some((2, "1"))))).expect("overlaps");
        with(op(41, 50, list(2, &[("a", 2, "1")]))).expect_err("stale");
        with(op(25, 28, list(2, &[]))).expect_err("it lacks what was there");
        with(op(25, 28, list(2, &[("a", 2, "1")]))).expect("right");
        with(op(41, 50, Action::Refused { key: "a".into(), expected: 3 })).expect_err("it was as expected");
        with(op(41, 50, Action::Refused { key: "a".into(), expected: 2 })).expect("rightly refused");
    }

    #[test]
    fn the_order_is_that_of_all_keys_together() {
        check(vec![op(10, 20, put("a", "1", None, 3)), op(21, 30, put("b", "1", None, 2))])
            .expect_err("the later write has the lower revision");
        check(vec![op(10, 20, put("a", "1", None, 2)), op(21, 30, put("b", "1", None, 2))]).expect_err("reused");
        check(vec![
            op(10, 50, put("a", "1", None, 2)),
            op(11, 50, put("b", "1", None, 3)),
            op(20, 22, get("b", Some((3, "1")))),
            op(23, 25, get("a", None)),
        ])
        .expect_err("who saw revision 3 cannot miss revision 2 afterwards");
    }

    #[test]
    fn guards_are_checked() {
        check(vec![op(10, 20, put("a", "1", Some(0), 2)), op(10, 20, put("a", "2", Some(0), 3))])
            .expect_err("both created it");
        check(vec![
            op(10, 20, put("a", "1", Some(0), 2)),
            op(30, 40, Action::Delete { key: "a".into(), expected: Some(2), revision: Some(3) }),
            op(50, 60, put("a", "2", Some(0), 4)),
        ])
        .expect("created again");
    }

    #[test]
    fn what_has_no_answer_may_have_happened() {
        let unknown = Operation {
            answer: None,
            ..op(10, 0, Action::Put { key: "a".into(), value: "1".into(), expected: None, revision: None })
        };
        check(vec![unknown.clone(), op(20, 30, get("a", None))]).expect("not done, or not yet");
        let seen = vec![unknown.clone(), op(20, 30, get("a", Some((2, "1"))))];
        assert_eq!(check(seen.clone()).expect("done").found_done, 1);
        check([seen, vec![op(31, 40, get("a", None))]].concat()).expect_err("once seen, it stays");
        check(vec![op(5, 9, get("a", Some((2, "1")))), unknown]).expect_err("seen before it was asked for");
        let deletion = Action::Delete { key: "a".into(), expected: None, revision: None };
        check(vec![
            op(10, 20, put("a", "1", None, 2)),
            Operation { answer: None, ..op(30, 0, deletion) },
            op(40, 50, get("a", None)),
        ])
        .expect("the deletion was done");
    }

    #[test]
    fn watches_tell_all_once_in_order() {
        let operations = vec![
            op(10, 20, put("a", "1", None, 2)),
            op(30, 40, put("b", "1", None, 3)),
            op(50, 60, Action::Delete { key: "a".into(), expected: None, revision: Some(4) }),
        ];
        let with = |after, until, events: Vec<Told>| {
            let watches = vec![Watched { after, until, events, ..Watched::default() }];
            History { operations: operations.clone(), watches, ..History::default() }
                .check()
                .map_err(|error| error.what)
        };
        let all = [told("a", 2, Some("1")), told("b", 3, Some("1")), told("a", 4, None)];
        assert_eq!(with(1, 4, all.to_vec()).expect("right").events, 3);
        with(2, 4, all[1..].to_vec()).expect("right");
        with(1, 4, all[1..].to_vec()).expect_err("the first is missing");
        with(1, 4, all[..2].to_vec()).expect_err("the last is missing");
        with(1, 2, vec![all[0].clone(), all[2].clone()]).expect_err("one between is missing");
        with(1, 4, vec![all[1].clone(), all[0].clone(), all[2].clone()]).expect_err("out of order");
        with(1, 4, [&all[..1], &all[..]].concat()).expect_err("twice");
        with(1, 4, vec![told("a", 2, Some("9")), all[1].clone(), all[2].clone()]).expect_err("never written");
    }
}
