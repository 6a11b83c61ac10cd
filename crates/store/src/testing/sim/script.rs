//! What happens in a simulation, step by step.

use std::time::Duration;

use bytes::Bytes;

use super::ask::Ask;
use super::judge::Judge;
use super::world;
use super::world::Kind::{Advance, Crash, Fail, Heal, Own, Settle, Upkeep};
use crate::embedded::{Options, Undo};
use crate::suite::key;
use crate::testing::random::Random;
use crate::{Compare, KeyRange, KeyValue, LeaseId, Op, Range, Relation, Target, Txn};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Txn,
    Read,
    Lease,
    Compact,
    Ask,
    /// History is asked, beyond the compaction mark.
    Past,
    /// Some keys are made what they were.
    Restore,
    Watch,
    Follow,
    Cut,
    /// All history is compacted and given back while whoever is under way stays where it is.
    Squeeze,
    /// Leases lose time, which is noted; then they are renewed, and the store is opened again.
    Renew,
    WallJump,
    Snapshot,
    /// It is closed and opened again, perhaps with another history than before.
    Reopen,
}

/// What a seed decides beside.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Keys that are used, at most.
    pub keys: u64,
    /// It is about leases, which all have the same time, and time passes in parts of it.
    pub leases: bool,
    /// What is kept of history, if it is.
    pub undo: Option<Undo>,
    /// The calendar goes wrong, which excuses what is said of times.
    wrong_clock: bool,
}

/// The time of leases where they matter most.
const TTL: u64 = 60;
/// So many of them are held there at a time, mostly.
const FEW: usize = 2;

/// What is kept of history, where some is.
pub fn undo(random: &mut Random) -> Undo {
    Undo {
        horizon: Duration::from_secs(*random.pick(&[20, 60, 3600])),
        bytes: *random.pick(&[1 << 30, 1 << 30, 3000]),
        except: if random.chance(50) { vec![key("/b/")] } else { Vec::new() },
    }
}

impl world::Setting for Setting {
    type Kind = Kind;

    const VALUE: u64 = 600;
    const STEPS: u64 = 40;
    const WEIGHTS: &'static [(world::Kind<Kind>, u64)] = &[
        (Own(Kind::Txn), 40),
        (Own(Kind::Read), 12),
        (Own(Kind::Lease), 8),
        (Own(Kind::Compact), 3),
        (Own(Kind::Ask), 2),
        (Own(Kind::Past), 2),
        (Own(Kind::Restore), 1),
        (Own(Kind::Watch), 6),
        (Own(Kind::Follow), 12),
        (Own(Kind::Cut), 2),
        (Own(Kind::Squeeze), 2),
        (Own(Kind::Renew), 1),
        (Own(Kind::WallJump), 1),
        (Own(Kind::Snapshot), 1),
        (Own(Kind::Reopen), 1),
        (Upkeep, 6),
        (Advance, 8),
        (Crash, 3),
        (Fail, 2),
        (Heal, 3),
        (Settle, 2),
    ];

    fn of(options: &mut Options, random: &mut Random) -> Self {
        // Some seeds are about leases, whose bugs need time to pass between renewals, notes and restarts.
        let leases = random.chance(15);
        options.history_bytes = *random.pick(&[1 << 30, 1 << 30, 1 << 30, 3000]);
        if leases {
            options.retention = Some(Duration::from_secs(5));
        } else if random.chance(40) {
            options.undo = Some(undo(random));
        }
        let (keys, wrong_clock) = (*random.pick(&[4, 10, 10, 25]), random.chance(20));
        Self { keys, leases, undo: options.undo.clone(), wrong_clock }
    }

    fn weight(&self, kind: world::Kind<Kind>, usual: u64) -> Option<u64> {
        let keeps = self.undo.is_some();
        match kind {
            Own(Kind::Lease | Kind::Reopen | Kind::Renew) | Advance | Upkeep if self.leases => Some(usual * 5),
            Own(Kind::Txn) => Some(if self.leases { usual / 2 } else { usual }),
            Own(Kind::Squeeze | Kind::Past | Kind::Watch | Kind::Follow | Kind::Read) if self.leases => Some(0),
            Own(Kind::Past) if keeps => Some(usual * 12),
            Own(Kind::Restore | Kind::Compact | Kind::Reopen) if keeps => Some(usual * 3),
            Own(Kind::Restore) => Some(0),
            Own(Kind::WallJump) if keeps => Some(if self.wrong_clock { usual } else { 0 }),
            _ => None,
        }
    }
}

impl Setting {
    /// How long nothing happens, in milliseconds.
    pub fn span(&self, random: &mut Random, ttl: Option<u64>) -> u64 {
        if self.leases {
            return *random.pick(&[900, 5000, 5000, 20_000, TTL * 600, TTL * 1000 - 1]);
        }
        let any = *random.pick(&[1, 50, 900, 1100, 5000, 20_000, 45_000, 400_000]);
        ttl.filter(|_| random.chance(40)).map_or(any, |ttl| ttl * 6 / 10)
    }
}

/// Draws what clients ask, given what they can know.
pub struct Draw<'a> {
    pub random: Random,
    pub judge: &'a Judge,
    pub setting: &'a Setting,
    pub now: u64,
    /// Makes each value another.
    pub unique: &'a mut u64,
}

impl Draw<'_> {
    fn name(&mut self) -> Bytes {
        let number = self.random.below(self.setting.keys);
        if number.is_multiple_of(3) { key(&format!("/b/{number}")) } else { key(&format!("/a/{number}")) }
    }

    pub fn keys(&mut self) -> KeyRange {
        match self.random.below(6) {
            0 | 1 => KeyRange::key(self.name()),
            2 => KeyRange::prefix(key("/a/")),
            3 => KeyRange::between(self.name(), self.name()),
            _ => KeyRange::all(),
        }
    }

    fn value(&mut self) -> Bytes {
        *self.unique += 1;
        let padding = *self.random.pick(&[0, 0, 30, 200, 700]);
        format!("{}{}", *self.unique, "x".repeat(padding)).into()
    }

    /// A lease that may be there, or nearly always; mostly one that is.
    fn lease(&mut self) -> LeaseId {
        let held = self.judge.held(self.now);
        let leases = if held.is_empty() || self.random.chance(30) { self.judge.leases() } else { held };
        if leases.is_empty() || self.random.chance(5) { 0x7777 } else { *self.random.pick(&leases) }
    }

    fn compare(&mut self) -> Compare {
        let key = self.name();
        let held = self.judge.model.at(&key, i64::MAX).cloned();
        let near = |number: i64, random: &mut Random| if random.chance(75) { number } else { random.below(40) as i64 };
        let random = &mut self.random;
        let target = match random.below(8) {
            0..4 => Target::ModRevision(near(held.map_or(0, |kv| kv.mod_revision), random)),
            4 => Target::CreateRevision(near(held.map_or(0, |kv| kv.create_revision), random)),
            5 => Target::Version(near(held.map_or(0, |kv| kv.version), random)),
            6 => Target::Lease(held.map_or(0, |kv| kv.lease)),
            _ => Target::Value(held.map_or(Bytes::new(), |kv| kv.value)),
        };
        let relation = *self.random.pick(&[
            Relation::Equal,
            Relation::Equal,
            Relation::Equal,
            Relation::NotEqual,
            Relation::Greater,
            Relation::Less,
        ]);
        Compare { key, relation, target }
    }

    /// Operations that touch no key twice, whichever branches are taken.
    fn ops(&mut self, used: &mut Vec<KeyRange>, depth: u32) -> Vec<Op> {
        let count = *self.random.pick(&[1, 1, 1, 2, 3, 5]);
        let mut ops = Vec::new();
        for _ in 0..count {
            let overlap = |keys: &KeyRange, used: &[KeyRange], all: u64| {
                let names = (0..all).map(|n| if n.is_multiple_of(3) { format!("/b/{n}") } else { format!("/a/{n}") });
                names
                    .map(|name| key(&name))
                    .any(|name| keys.contains(&name) && used.iter().any(|other| other.contains(&name)))
            };
            match self.random.below(12) {
                0..7 => {
                    let (key, value) = (self.name(), self.value());
                    let lease = if self.random.chance(25) { self.lease() } else { 0 };
                    let keys = KeyRange::key(key.clone());
                    if !overlap(&keys, used, self.setting.keys) {
                        used.push(keys);
                        ops.push(Op::Put { key, value, lease });
                    }
                }
                7..10 => {
                    let keys = if self.random.chance(70) { KeyRange::key(self.name()) } else { self.keys() };
                    if !overlap(&keys, used, self.setting.keys) {
                        used.push(keys.clone());
                        ops.push(Op::Delete { keys });
                    }
                }
                10 => {
                    let range = self.range();
                    ops.push(Op::Range(range));
                }
                _ if depth < 2 => {
                    let txn = self.branches(used, depth + 1);
                    ops.push(Op::Txn(txn));
                }
                _ => {}
            }
        }
        ops
    }

    fn branches(&mut self, used: &mut Vec<KeyRange>, depth: u32) -> Txn {
        let compares = (0..self.random.below(3)).map(|_| self.compare()).collect();
        let success = self.ops(used, depth);
        let failure = if self.random.chance(50) { self.ops(used, depth) } else { Vec::new() };
        Txn { compares, success, failure, previous: false }
    }

    pub fn txn(&mut self) -> Ask {
        let previous = self.random.chance(40);
        let txn = Txn { previous, ..self.branches(&mut Vec::new(), 0) };
        Ask::Txn(txn)
    }

    /// A revision that is held, mostly.
    pub fn revision(&mut self) -> i64 {
        let (low, high) = (self.judge.compacted().max(1), self.judge.revision());
        match self.random.below(12) {
            0 => high + 1 + self.random.below(2000) as i64,
            1 => 1 + self.random.below(high as u64) as i64,
            2 => low,
            _ => low + self.random.below((high - low + 1) as u64) as i64,
        }
    }

    pub fn range(&mut self) -> Range {
        Range {
            keys: self.keys(),
            revision: if self.random.chance(35) { self.revision() } else { 0 },
            limit: *self.random.pick(&[0, 0, 1, 3]),
            count_only: self.random.chance(10),
            keys_only: self.random.chance(15),
        }
    }

    /// A revision of which history is held, mostly.
    fn past(&mut self) -> i64 {
        let (low, high) = (self.judge.kept().max(1), self.judge.revision());
        match self.random.below(10) {
            0 => self.revision(),
            1 => low,
            2 => 1 + self.random.below(high as u64) as i64,
            _ => low + self.random.below((high - low + 1) as u64) as i64,
        }
    }

    /// Keys of which history may be kept, mostly.
    fn past_keys(&mut self) -> KeyRange {
        if self.random.chance(60) { KeyRange::prefix(key("/a/")) } else { self.keys() }
    }

    pub fn past_ask(&mut self) -> Ask {
        match self.random.below(10) {
            0 => Ask::Kept,
            1 | 2 => {
                let second = self.judge.wall.div_euclid(1000);
                // Mostly about when something happened.
                let happened = self.judge.ago(self.now, &mut self.random).filter(|_| self.random.chance(60));
                let ago = happened.unwrap_or_else(|| *self.random.pick(&[0, 1, 5, 20, 30, 60, 100, 500]));
                Ask::RevisionAt(self.past_keys(), second - ago + self.random.below(3) as i64 - 1)
            }
            3 => Ask::TimeOf(self.past()),
            4..6 => {
                let until = if self.random.chance(40) { 0 } else { self.past() };
                Ask::Versions(self.name(), until, *self.random.pick(&[0, 0, 1, 3]))
            }
            _ => Ask::Past(Range { revision: self.past(), keys: self.past_keys(), ..self.range() }),
        }
    }

    /// Reads what some keys were.
    pub fn recall(&mut self) -> Range {
        Range::of(self.past_keys()).at(self.past())
    }

    /// Makes the keys of a range what they were.
    pub fn restore(&self, keys: &KeyRange, was: &[KeyValue]) -> Ask {
        let gone =
            self.judge.model.range(keys, i64::MAX).into_iter().filter(|kv| was.iter().all(|old| old.key != kv.key));
        let deletes = gone.map(|kv| Op::Delete { keys: KeyRange::key(kv.key) });
        let puts = was.iter().map(|kv| Op::Put { key: kv.key.clone(), value: kv.value.clone(), lease: 0 });
        Ask::Txn(Txn::of(puts.chain(deletes).collect()))
    }

    pub fn lease_ask(&mut self) -> Ask {
        // Where they matter most there are few, which are renewed again and again.
        let few = self.setting.leases && self.judge.held(self.now).len() >= FEW;
        match if few { 4 + self.random.below(8) } else { self.random.below(10) } {
            0..4 => {
                let ttl = if self.setting.leases { TTL } else { *self.random.pick(&[1, 3, 10, 60, 700, 3600]) };
                let chosen = match self.random.below(10) {
                    // Mostly another each time: who has one that may be over is hard to tell.
                    0 | 1 => {
                        *self.unique += 1;
                        *self.unique as i64
                    }
                    2 => self.judge.taken(self.now).unwrap_or(0),
                    _ => 0,
                };
                Ask::Grant(Duration::from_secs(ttl), chosen)
            }
            4..8 | 10.. => Ask::KeepAlive(self.lease()),
            _ => Ask::Revoke(self.lease()),
        }
    }

    pub fn compact(&mut self) -> Ask {
        let present = self.random.chance(40);
        Ask::Compact(if present { self.judge.revision() } else { self.revision() })
    }
}
