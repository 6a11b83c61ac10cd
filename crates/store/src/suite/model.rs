//! The simplest store that is right: what engines are compared with.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{Compare, Event, KeyRange, KeyValue, LeaseId, Op, OpResult, Range, RangeResult, Relation, Target, Txn};

/// All versions of all keys, in a map.
#[derive(Clone, Debug)]
pub struct Model {
    /// `None` is a deletion.
    versions: BTreeMap<Bytes, Vec<(i64, Option<KeyValue>)>>,
    pub revision: i64,
    pub compacted: i64,
}

impl Default for Model {
    fn default() -> Self {
        Self { versions: BTreeMap::new(), revision: 1, compacted: 0 }
    }
}

impl Model {
    /// What a key is at a revision.
    pub fn at(&self, key: &[u8], revision: i64) -> Option<&KeyValue> {
        let versions = self.versions.get(key)?;
        versions.iter().rev().find(|(made, _)| *made <= revision)?.1.as_ref()
    }

    /// All keys of a range at a revision.
    pub fn range(&self, keys: &KeyRange, revision: i64) -> Vec<KeyValue> {
        let inside = self.versions.keys().filter(|key| keys.contains(key));
        inside.filter_map(|key| self.at(key, revision).cloned()).collect()
    }

    /// Everything that happened to a range from a revision on.
    pub fn history(&self, keys: &KeyRange, from: i64) -> Vec<Event> {
        let mut events: Vec<(i64, Event)> = Vec::new();
        for (key, versions) in self.versions.iter().filter(|(key, _)| keys.contains(key)) {
            for (revision, kv) in versions.iter().filter(|(revision, _)| *revision >= from) {
                let event = match kv {
                    Some(kv) => Event::Put { kv: kv.clone(), previous: None },
                    None => Event::Delete { key: key.clone(), revision: *revision, previous: None },
                };
                events.push((*revision, event));
            }
        }
        events.sort_by_key(|(revision, _)| *revision);
        events.into_iter().map(|(_, event)| event).collect()
    }

    fn holds(&self, compare: &Compare, base: i64) -> bool {
        let held = self.at(&compare.key, base);
        let number = |of: fn(&KeyValue) -> i64, wanted: i64| held.map_or(0, of).cmp(&wanted);
        let ordering = match &compare.target {
            Target::ModRevision(wanted) => number(|kv| kv.mod_revision, *wanted),
            Target::CreateRevision(wanted) => number(|kv| kv.create_revision, *wanted),
            Target::Version(wanted) => number(|kv| kv.version, *wanted),
            Target::Lease(wanted) => number(|kv| kv.lease, *wanted),
            Target::Value(wanted) => match held {
                Some(kv) => kv.value.cmp(wanted),
                None => return false,
            },
        };
        match compare.relation {
            Relation::Equal => ordering.is_eq(),
            Relation::NotEqual => ordering.is_ne(),
            Relation::Greater => ordering.is_gt(),
            Relation::Less => ordering.is_lt(),
        }
    }

    /// What a transaction that touches no key twice does when it comes right after revision `base`.
    pub fn evaluate(&self, txn: &Txn, base: i64) -> Effect {
        let mut changes = BTreeMap::new();
        let (succeeded, results) = self.branch(txn, base, &mut changes);
        Effect { succeeded, results, changes }
    }

    /// Which branch a transaction takes, and what its operations do.
    fn branch(&self, txn: &Txn, base: i64, changes: &mut Changes) -> (bool, Vec<OpResult>) {
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare, base));
        let ops = if succeeded { &txn.success } else { &txn.failure };
        (succeeded, ops.iter().map(|op| self.op(op, base, changes)).collect())
    }

    fn op(&self, op: &Op, base: i64, changes: &mut Changes) -> OpResult {
        match op {
            Op::Put { key, value, lease } => {
                let previous = self.at(key, base);
                let kv = KeyValue {
                    key: key.clone(),
                    value: value.clone(),
                    create_revision: previous.map_or(base + 1, |kv| kv.create_revision),
                    mod_revision: base + 1,
                    version: previous.map_or(1, |kv| kv.version + 1),
                    lease: *lease,
                };
                changes.insert(key.clone(), Some(kv));
                OpResult::Put { previous: previous.cloned() }
            }
            Op::Delete { keys } => {
                let deleted = self.overlaid(keys, base, changes);
                changes.extend(deleted.iter().map(|kv| (kv.key.clone(), None)));
                OpResult::Delete { deleted }
            }
            Op::Range(range) => {
                let found = match range.revision {
                    0 => self.overlaid(&range.keys, base, changes),
                    past => self.range(&range.keys, past),
                };
                OpResult::Range(shaped(range, found, base))
            }
            Op::Txn(within) => {
                let (succeeded, results) = self.branch(within, base, changes);
                OpResult::Txn { succeeded, results }
            }
        }
    }

    /// All keys of a range with the changes of the transaction that sees them.
    fn overlaid(&self, keys: &KeyRange, base: i64, changes: &Changes) -> Vec<KeyValue> {
        let mut found: BTreeMap<Bytes, KeyValue> =
            self.range(keys, base).into_iter().map(|kv| (kv.key.clone(), kv)).collect();
        for (key, change) in changes.iter().filter(|(key, _)| keys.contains(key)) {
            match change {
                Some(kv) => drop(found.insert(key.clone(), kv.clone())),
                None => drop(found.remove(key)),
            }
        }
        found.into_values().collect()
    }

    /// What a read of `range` answers as of `revision`.
    pub fn read(&self, range: &Range, revision: i64) -> RangeResult {
        shaped(range, self.range(&range.keys, revision), revision)
    }

    /// What ending a lease right after revision `base` does to its keys.
    pub fn lease_end(&self, lease: LeaseId, base: i64) -> Changes {
        let all = self.range(&KeyRange::all(), base).into_iter();
        all.filter(|kv| kv.lease == lease).map(|kv| (kv.key, None)).collect()
    }

    /// Makes changes the next revision, unless there are none.
    pub fn commit(&mut self, changes: Changes) {
        if !changes.is_empty() {
            self.revision += 1;
        }
        for (key, kv) in changes {
            self.versions.entry(key).or_default().push((self.revision, kv));
        }
    }

    /// Applies a transaction that touches no key twice; tells whether its compares held.
    pub fn txn(&mut self, txn: &Txn) -> bool {
        let Effect { succeeded, changes, .. } = self.evaluate(txn, self.revision);
        self.commit(changes);
        succeeded
    }
}

/// What becomes of keys in one revision; `None` is a deletion.
pub type Changes = BTreeMap<Bytes, Option<KeyValue>>;

/// What a transaction does.
#[derive(Clone, Debug)]
pub struct Effect {
    pub succeeded: bool,
    pub results: Vec<OpResult>,
    /// Nothing when it has no effect.
    pub changes: Changes,
}

/// The changes as a watch tells them.
pub fn events(changes: &Changes, revision: i64) -> Vec<Event> {
    let event = |(key, kv): (&Bytes, &Option<KeyValue>)| match kv {
        Some(kv) => Event::Put { kv: kv.clone(), previous: None },
        None => Event::Delete { key: key.clone(), revision, previous: None },
    };
    changes.iter().map(event).collect()
}

/// What a range wants of what there is.
fn shaped(range: &Range, found: Vec<KeyValue>, revision: i64) -> RangeResult {
    let count = found.len();
    let most = if range.count_only {
        0
    } else if range.limit == 0 {
        count
    } else {
        range.limit
    };
    let bare = |kv: KeyValue| if range.keys_only { KeyValue { value: Bytes::new(), ..kv } } else { kv };
    let kvs: Vec<KeyValue> = found.into_iter().take(most).map(bare).collect();
    let more = !range.count_only && kvs.len() < count;
    RangeResult { kvs, count, more, revision }
}
