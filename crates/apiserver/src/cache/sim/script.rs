//! What happens in a simulation, step by step.

use super::judge::Judge;
use super::view::{NAMESPACES, NODES, PHASES, STORAGES, Storage, View, name};
use super::wire::SEALED;
use super::write::{self, Subject};
use crate::options::{ListOptions, Match};
use bytes::Bytes;
use std::time::Duration;
use store::embedded::Options;
use store::testing::random::Random;
use store::testing::sim::ask::Ask;
use store::testing::sim::world;
use store::testing::sim::world::Kind::{Advance, Crash, Fail, Heal, Own, Settle, Upkeep};
use store::{KeyRange, LeaseId, Op, Txn};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cache) enum Kind {
    /// A request writes, through the registry.
    Request,
    /// A collection is deleted, through the registry.
    Sweep,
    /// Another server writes.
    Write,
    /// Many objects in one transaction.
    Burst,
    Lease,
    Read,
    Watch,
    Follow,
    /// Bookmarks are due while something is written.
    Due,
    /// A client goes away from its watch.
    Cut,
    Compact,
    /// Nothing of the store's watch arrives, until it is released.
    Stall,
    Release,
    /// Calls, or the watch, of the API server are cut off.
    Lose,
    /// The API server follows so slowly that what it was not told yet is compacted.
    Overtake,
    /// The store is started if it stayed away.
    Back,
    /// The API server is started anew.
    Restart,
    /// A storage is served that was not.
    Add,
    /// The key that some values are encrypted with goes, or comes back.
    Key,
}

/// What a seed decides beside.
#[derive(Clone, Debug)]
pub(in crate::cache) struct Setting {
    /// Names that are used, at most.
    keys: u64,
    /// Only the first storage is served from the start.
    pub(super) late: bool,
    /// Some values are encrypted.
    seals: bool,
    /// The disk fails now and then: a store whose disk failed takes no writes for a while, so little else happens.
    fails: bool,
}

impl world::Setting for Setting {
    type Kind = Kind;

    const VALUE: u64 = 2000;
    const STEPS: u64 = 40;
    const WEIGHTS: &'static [(world::Kind<Kind>, u64)] = &[
        (Own(Kind::Request), 60),
        (Own(Kind::Sweep), 3),
        (Own(Kind::Write), 24),
        (Own(Kind::Burst), 6),
        (Own(Kind::Lease), 1),
        (Own(Kind::Read), 27),
        (Own(Kind::Watch), 10),
        (Own(Kind::Follow), 36),
        (Own(Kind::Due), 6),
        (Own(Kind::Cut), 3),
        (Own(Kind::Compact), 2),
        (Own(Kind::Stall), 3),
        (Own(Kind::Release), 3),
        (Own(Kind::Lose), 3),
        (Own(Kind::Overtake), 2),
        (Own(Kind::Back), 6),
        (Own(Kind::Restart), 1),
        (Own(Kind::Add), 2),
        (Own(Kind::Key), 2),
        (Upkeep, 2),
        (Advance, 8),
        (Crash, 4),
        (Fail, 1),
        (Heal, 3),
        (Settle, 1),
    ];

    fn of(_: &mut Options, random: &mut Random) -> Setting {
        let (seals, late, fails) = (random.chance(35), random.chance(40), random.chance(20));
        Setting { keys: *random.pick(&[3, 6, 6, 12]), late, seals, fails }
    }

    fn weight(&self, kind: world::Kind<Kind>, usual: u64) -> Option<u64> {
        match kind {
            // A store that stays away comes back.
            Own(Kind::Request | Kind::Write | Kind::Follow | Kind::Read | Kind::Back) => Some(usual),
            Own(Kind::Key) => Some(if self.seals { 4 * usual } else { 0 }),
            Own(Kind::Add) if !self.late => Some(0),
            Fail | Heal if !self.fails => Some(0),
            Heal => Some(3 * usual),
            _ => None,
        }
    }
}

/// Where and how a watch begins.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub(super) view: View,
    pub(super) options: ListOptions,
    pub(super) timeout: Duration,
}

/// Draws what is asked, given what those who ask can know.
pub(super) struct Draw<'a> {
    pub(super) random: Random,
    pub(super) judge: &'a Judge,
    pub(super) setting: &'a Setting,
    pub(super) leases: &'a [LeaseId],
    /// What the calendar says, in milliseconds.
    pub(super) wall: i64,
    /// Makes each object another.
    pub(super) unique: &'a mut u64,
}

impl Draw<'_> {
    pub(super) fn storage(&mut self) -> Storage {
        if self.random.chance(80) { Storage::Pods } else { Storage::ConfigMaps }
    }

    fn key(&mut self) -> (&'static str, String) {
        (*self.random.pick(&NAMESPACES), name(self.random.below(self.setting.keys)))
    }

    /// The name of an object, mostly one that anyone uses, or one that was there.
    pub(super) fn named(&mut self, storage: Storage) -> (&'static str, String) {
        let keys = self.judge.history.keys(storage);
        if keys.is_empty() || self.random.chance(80) {
            return self.key();
        }
        let (namespace, name) = self.random.pick(&keys).split_once('/').unwrap_or_default();
        (NAMESPACES.into_iter().find(|known| *known == namespace).unwrap_or(NAMESPACES[0]), name.to_owned())
    }

    /// An object; with a name, or what one is generated from. `uid`: as another server has stored it.
    pub(super) fn text(
        &mut self,
        storage: Storage,
        (namespace, name): (&str, Result<&str, &str>),
        mark: &str,
        finalizers: &[&str],
        uid: Option<u64>,
    ) -> String {
        let random = &mut self.random;
        let mut labels = vec![format!("\"l\":\"{}\"", random.below(3))];
        if self.setting.seals && random.chance(40) {
            labels.push(SEALED.to_owned());
        }
        if random.chance(30) {
            labels.push("\"t\":\"x\"".to_owned());
        }
        let padding = "x".repeat(*random.pick(&[0, 0, 0, 100, 1500]));
        let labels = labels.join(",");
        let node = match *random.pick(&NODES) {
            "" => String::new(),
            node => format!(",\"nodeName\":\"{node}\""),
        };
        let rest = match storage {
            Storage::Pods => {
                let status = match uid {
                    Some(_) => format!(",\"status\":{{\"phase\":\"{}\"}}", random.pick(&PHASES)),
                    None => String::new(),
                };
                format!("\"spec\":{{\"containers\":[{{\"name\":\"c\",\"image\":\"i\"}}]{node}}}{status}")
            }
            Storage::ConfigMaps => format!("\"data\":{{\"k\":\"{padding}\"}}"),
        };
        let uid = uid.map_or(String::new(), |uid| format!(",\"uid\":\"{uid}\""));
        let name = match name {
            Ok(name) => format!("\"name\":\"{name}\""),
            Err(base) => format!("\"generateName\":\"{base}\""),
        };
        let finalizers: Vec<String> = finalizers.iter().map(|finalizer| format!("\"{finalizer}\"")).collect();
        let finalizers = match finalizers[..] {
            [] => String::new(),
            _ => format!("\"finalizers\":[{}],", finalizers.join(",")),
        };
        format!(
            "{{\"kind\":\"{}\",\"apiVersion\":\"v1\",\"metadata\":{{\"annotations\":{{\"n\":\"0\",\"p\":\"{padding}\",\"w\":\"{mark}\"}},{finalizers}\"labels\":{{{labels}}},{name},\"namespace\":\"{namespace}\"{uid}}},{rest}}}",
            storage.kind(),
        )
    }

    fn put(&mut self, storage: Storage, (namespace, name): (&str, &str)) -> Op {
        *self.unique += 1;
        let unique = *self.unique;
        let text = self.text(storage, (namespace, Ok(name)), &format!("s{unique}"), &[], Some(unique));
        let mut value = write::stored(storage, &text);
        // Not all that is stored was written by such a server.
        if self.random.chance(5) {
            value = String::from_utf8_lossy(&value).replacen(',', ", ", 1).into();
        }
        let lease = if self.leases.is_empty() || !self.random.chance(20) { 0 } else { *self.random.pick(self.leases) };
        Op::Put { key: format!("{}{namespace}/{name}", storage.prefix()).into(), value, lease }
    }

    fn op(&mut self, subject: Option<Subject>) -> Op {
        let (storage, namespace, name) = match subject {
            Some(subject) => subject,
            None => {
                let storage = self.storage();
                let (namespace, name) = self.named(storage);
                (storage, namespace, name)
            }
        };
        match self.random.below(20) {
            // Nobody has an eye on these.
            0 => Op::Put { key: "/elsewhere/x".into(), value: "1".into(), lease: 0 },
            1 => Op::Put { key: "/registry/others/x".into(), value: "1".into(), lease: 0 },
            2..7 => Op::Delete { keys: KeyRange::key(format!("{}{namespace}/{name}", storage.prefix())) },
            7 => Op::Delete { keys: KeyRange::prefix(format!("{}{namespace}/", storage.prefix())) },
            _ => self.put(storage, (namespace, &name)),
        }
    }

    pub(super) fn write(&mut self, subject: Option<Subject>) -> Ask {
        let mut ops = vec![self.op(subject)];
        if self.random.chance(10) {
            let other = self.op(None);
            let key = |op: &Op| match op {
                Op::Put { key, .. } => KeyRange::key(key.clone()),
                Op::Delete { keys } => keys.clone(),
                Op::Range(_) | Op::Txn(_) => KeyRange::all(),
            };
            let (one, two) = (key(&ops[0]), key(&other));
            if !one.contains(&two.start) && !two.contains(&one.start) {
                ops.push(other);
            }
        }
        Ask::Txn(Txn::of(ops))
    }

    pub(super) fn burst(&mut self) -> Ask {
        let count = 2 + self.random.below(2 * self.setting.keys);
        let storage = self.storage();
        let mut keys: Vec<(&str, String)> = (0..count).map(|_| self.key()).collect();
        keys.sort();
        keys.dedup();
        let ops = keys.iter().map(|(namespace, name)| self.put(storage, (*namespace, name.as_str())));
        Ask::Txn(Txn::of(ops.collect()))
    }

    /// A revision that is kept, mostly.
    fn version(&mut self) -> u64 {
        let high = self.judge.revision();
        let low = self.judge.floor(Storage::Pods).clamp(1, high);
        let revision = match self.random.below(12) {
            0 => high + 1 + self.random.below(3).cast_signed(),
            1 => 1 + self.random.below(high.cast_unsigned()).cast_signed(),
            2..6 => high,
            _ => low + self.random.below((high - low + 1).cast_unsigned()).cast_signed(),
        };
        revision.cast_unsigned()
    }

    pub(super) fn view(&mut self) -> View {
        View::any(&mut self.random, self.setting.keys)
    }

    pub(super) fn list(&mut self) -> (View, ListOptions) {
        let view = self.view();
        let (version, version_match) = match self.random.below(10) {
            0 => (Some(0), Match::Unset),
            1 | 2 => (Some(self.version()), Match::Exact),
            3 => (Some(self.version()), Match::NotOlderThan),
            4 => (Some(self.version()), Match::Unset),
            _ => (None, Match::Unset),
        };
        let limit = *self.random.pick(&[0, 0, 1, 2]);
        let options = ListOptions { version, version_match, limit, ..view.options() };
        (view, options)
    }

    pub(super) fn get(&mut self) -> (Storage, String, Option<u64>) {
        let storage = self.storage();
        let (namespace, name) = self.named(storage);
        let version = match self.random.below(4) {
            0 => Some(0),
            1 => Some(self.version()),
            _ => None,
        };
        (storage, format!("{namespace}/{name}"), version)
    }

    pub(super) fn watch(&mut self, from: Option<(View, i64)>) -> Watched {
        let bookmarks = self.random.chance(75);
        let timeout = Duration::from_secs(*self.random.pick(&[50, 1000, 100_000]));
        let (view, version, send_initial_events) = match from {
            Some((view, version)) => (view, Some(version.cast_unsigned()), None),
            None => {
                let view = self.view();
                match self.random.below(11) {
                    8 | 10 => (view, None, Some(false)),
                    9 => (view, Some(0), Some(false)),
                    0 => (view, None, None),
                    1 => (view, Some(0), None),
                    2 => (view, None, Some(true)),
                    3 => (view, Some(0), Some(true)),
                    4 => (view, Some(self.version()), Some(true)),
                    _ => (view, Some(self.version()), None),
                }
            }
        };
        let version_match = send_initial_events.map_or(Match::Unset, |_| Match::NotOlderThan);
        let options =
            ListOptions { watch: true, version, version_match, send_initial_events, bookmarks, ..view.options() };
        Watched { view, options, timeout }
    }

    pub(super) fn compact(&mut self) -> Ask {
        let high = self.judge.revision();
        let back = *self.random.pick(&[0, 0, 1, 5, 20]);
        Ask::Compact((high - back).max(1))
    }

    /// Some bytes of a storage that nobody serves: so the store goes on, and no cache has anything to do.
    pub(super) fn nothing() -> Ask {
        let put = Op::Put { key: Bytes::from_static(b"/elsewhere/y"), value: Bytes::from_static(b"1"), lease: 0 };
        Ask::Txn(Txn::of(vec![put]))
    }

    /// All that is in a storage.
    pub(super) fn everything() -> [(View, ListOptions); STORAGES.len()] {
        STORAGES.map(|storage| {
            let view = View::all(storage);
            let options = view.options();
            (view, options)
        })
    }
}
