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
use store::testing::sim::rig;
use store::testing::sim::story::{self, Step};
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
    Upkeep,
    Advance,
    /// Nothing of the store's watch arrives, until it is released.
    Stall,
    Release,
    /// Calls, or the watch, of the API server are cut off.
    Lose,
    /// The API server follows so slowly that what it was not told yet is compacted.
    Overtake,
    /// The store ends, with or without the page cache, and is started again.
    Crash,
    /// The same, but it stays away.
    Away,
    Back,
    /// The API server is started anew; or all of the process, the store with it.
    Restart,
    CrashTogether,
    /// The store's disk fails, or no longer.
    Fail,
    Heal,
    /// A storage is served that was not.
    Add,
    /// The key that some values are encrypted with goes, or comes back.
    Key,
    /// All is finished and looked at.
    Settle,
}

const WEIGHTS: [(Kind, u64); 27] = [
    (Kind::Request, 40),
    (Kind::Sweep, 3),
    (Kind::Write, 16),
    (Kind::Burst, 6),
    (Kind::Lease, 1),
    (Kind::Read, 18),
    (Kind::Watch, 10),
    (Kind::Follow, 24),
    (Kind::Due, 6),
    (Kind::Cut, 3),
    (Kind::Compact, 2),
    (Kind::Upkeep, 2),
    (Kind::Advance, 8),
    (Kind::Stall, 3),
    (Kind::Release, 3),
    (Kind::Lose, 3),
    (Kind::Overtake, 2),
    (Kind::Crash, 2),
    (Kind::Away, 1),
    (Kind::Back, 3),
    (Kind::Restart, 1),
    (Kind::CrashTogether, 1),
    (Kind::Fail, 1),
    (Kind::Heal, 3),
    (Kind::Add, 2),
    (Kind::Key, 2),
    (Kind::Settle, 1),
];

/// What a seed stands for.
#[derive(Clone, Debug)]
pub(in crate::cache) struct Script {
    pub(super) seed: u64,
    pub(super) options: Options,
    pub(super) steps: Vec<Step<Kind>>,
    /// Names that are used, at most.
    pub(super) keys: u64,
    /// Only the first storage is served from the start.
    pub(super) late: bool,
    /// Some values are encrypted.
    pub(super) seals: bool,
}

impl rig::Script for Script {
    type Kind = Kind;

    fn seed(&self) -> u64 {
        self.seed
    }

    fn steps(&self) -> &[Step<Kind>] {
        &self.steps
    }

    fn with(&self, steps: Vec<Step<Kind>>) -> Script {
        Script { steps, ..self.clone() }
    }

    fn crashes(kind: Kind) -> bool {
        matches!(kind, Kind::Crash | Kind::Away | Kind::CrashTogether)
    }

    fn of(seed: u64) -> Script {
        let mut random = Random::new(seed);
        let options = Options {
            segment_bytes: 4096 + *random.pick(&[1500, 6000, 20_000]),
            checkpoint_bytes: *random.pick(&[4000, 1 << 20]),
            retention: *random.pick(&[None, None, Some(Duration::from_secs(5)), Some(Duration::from_secs(60))]),
            recent_bytes: *random.pick(&[0, 2000, 4 << 20]),
            watch_events: *random.pick(&[6, 64 << 10, 64 << 10]),
            ..Options::default()
        };
        let seals = random.chance(35);
        let late = random.chance(40);
        // A store whose disk failed takes no writes for a while, so little else happens.
        let fails = random.chance(20);
        // Each seed leaves something out, so that what is left comes more often and in longer runs.
        let weights = WEIGHTS.map(|(kind, weight)| match kind {
            Kind::Request | Kind::Write | Kind::Follow | Kind::Read => (kind, weight * (1 + random.below(2))),
            Kind::Key if seals => (kind, weight * 4),
            Kind::Key => (kind, 0),
            Kind::Add if !late => (kind, 0),
            Kind::Fail | Kind::Heal if !fails => (kind, 0),
            Kind::Heal => (kind, weight * 3),
            _ if random.chance(25) => (kind, 0),
            _ => (kind, weight * (1 + random.below(3))),
        });
        let comes_back = weights.iter().any(|(kind, weight)| *kind == Kind::Back && *weight > 0);
        let weights = weights.map(|(kind, weight)| (kind, if kind == Kind::Away && !comes_back { 0 } else { weight }));
        let count = 40 + random.below(120);
        let keys = *random.pick(&[3, 6, 6, 12]);
        let steps = story::steps(&weights, count, &mut random);
        Script { seed, options, steps, keys, late, seals }
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
    pub(super) script: &'a Script,
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
        (*self.random.pick(&NAMESPACES), name(self.random.below(self.script.keys)))
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
        if self.script.seals && random.chance(40) {
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
        let count = 2 + self.random.below(2 * self.script.keys);
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

    fn options(&mut self, view: &View) -> ListOptions {
        ListOptions {
            label_selector: view.label_selector(),
            field_selector: view.field_selector(),
            ..ListOptions::default()
        }
    }

    pub(super) fn view(&mut self) -> View {
        View::any(&mut self.random, self.script.keys)
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
        let options = ListOptions { version, version_match, limit, ..self.options(&view) };
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
            ListOptions { watch: true, version, version_match, send_initial_events, bookmarks, ..self.options(&view) };
        Watched { view, options, timeout }
    }

    /// How long nothing happens, in milliseconds.
    pub(super) fn pass(&mut self) -> u64 {
        *self.random.pick(&[1, 150, 900, 3100, 3100, 11_000, 61_000, 61_000, 150_000, 301_000])
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
    pub(super) fn everything(&mut self) -> [(View, ListOptions); STORAGES.len()] {
        STORAGES.map(|storage| {
            let view = View::all(storage);
            let options = self.options(&view);
            (view, options)
        })
    }
}
