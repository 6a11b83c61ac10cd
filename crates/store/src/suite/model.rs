//! The simplest store that is right: what engines are compared with.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{Compare, Event, KeyRange, KeyValue, Op, Range, Relation, Target, Txn};

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

    fn holds(&self, compare: &Compare) -> bool {
        let held = self.at(&compare.key, i64::MAX);
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

    /// The operations that a transaction applies, those of transactions within among them.
    fn chosen<'t>(&self, txn: &'t Txn, chosen: &mut Vec<&'t Op>) -> bool {
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare));
        for op in if succeeded { &txn.success } else { &txn.failure } {
            match op {
                Op::Txn(within) => {
                    self.chosen(within, chosen);
                }
                plain => chosen.push(plain),
            }
        }
        succeeded
    }

    /// Applies a transaction that touches no key twice; tells whether its compares held.
    pub fn txn(&mut self, txn: &Txn) -> bool {
        let mut ops = Vec::new();
        let succeeded = self.chosen(txn, &mut ops);
        let revision = self.revision + 1;
        let mut changed = false;
        for op in ops {
            match op {
                Op::Put { key, value, lease } => {
                    let before = self.at(key, i64::MAX);
                    let kv = KeyValue {
                        key: key.clone(),
                        value: value.clone(),
                        create_revision: before.map_or(revision, |kv| kv.create_revision),
                        mod_revision: revision,
                        version: before.map_or(1, |kv| kv.version + 1),
                        lease: *lease,
                    };
                    self.versions.entry(key.clone()).or_default().push((revision, Some(kv)));
                    changed = true;
                }
                Op::Delete { keys } => {
                    for kv in self.range(keys, i64::MAX) {
                        self.versions.entry(kv.key).or_default().push((revision, None));
                        changed = true;
                    }
                }
                Op::Range(Range { .. }) | Op::Txn(_) => {}
            }
        }
        if changed {
            self.revision = revision;
        }
        succeeded
    }
}
