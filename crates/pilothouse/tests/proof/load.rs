//! Clients that read and write the same few objects as fast as they can, and remember what they were told.

use crate::Fallible;
use crate::arena::PATIENCE;
use crate::dice::Dice;
use crate::server::Server;
use crate::trace::{Outcome, Trace};
use crate::watch::{Habit, Watcher};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::{Api, ResourceExt};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use store::testing::history::{Action, Checked, Watched};
use tokio::task::JoinHandle;

pub const SELECTOR: &str = "load=yes";
/// Written last.
pub const SENTINEL: &str = "sentinel";
/// Objects that all fight for.
const KEYS: u64 = 24;
/// In this place an object says what it holds.
const TOKEN: &str = "token";

/// What all clients of a load share.
#[derive(Debug)]
pub struct Shared {
    pub trace: Trace,
    up: tokio::sync::watch::Sender<bool>,
    over: AtomicBool,
    tokens: AtomicU64,
}

impl Shared {
    /// Waits while the server is down.
    pub async fn up(&self) {
        // It can't be gone: it is here.
        let _ = self.up.subscribe().wait_for(|up| *up).await;
    }

    /// Lists all; the revision, if there was an answer.
    pub async fn list(&self, api: &Api<ConfigMap>, client: usize) -> Option<i64> {
        let call = self.trace.now();
        let list = api.list(&ListParams::default().labels(SELECTOR)).await.ok()?;
        let revision = list.metadata.resource_version.as_ref()?.parse().ok()?;
        let found = list.items.iter().map(|item| (item.name_any(), revision_of(item), token_of(item))).collect();
        self.trace.note(client, call, Action::List { prefix: String::new(), revision, found }, Outcome::Done);
        Some(revision)
    }
}

fn revision_of(object: &ConfigMap) -> i64 {
    object.resource_version().and_then(|text| text.parse().ok()).unwrap_or_default()
}

pub fn token_of(object: &ConfigMap) -> String {
    object.data.as_ref().and_then(|data| data.get(TOKEN)).cloned().unwrap_or_default()
}

/// What a failed call tells.
fn failure(error: &kube::Error) -> Outcome {
    match error {
        kube::Error::Api(status) if matches!(status.code, 404 | 409) => Outcome::Conflict,
        kube::Error::Api(status) if status.code < 500 => Outcome::Rejected,
        _ => Outcome::Unknown,
    }
}

/// One writer with what it believes of each object: its revision, or 0: it is not there.
struct Writer {
    number: usize,
    api: Api<ConfigMap>,
    shared: Arc<Shared>,
    dice: Dice,
    known: HashMap<String, i64>,
    /// The largest filling of an object.
    size: u64,
}

impl Writer {
    async fn run(mut self) {
        while !self.shared.over.load(Ordering::Relaxed) {
            self.shared.up().await;
            let key = format!("o-{}", self.dice.below(KEYS));
            let now = match self.known.get(&key).copied() {
                _ if self.dice.once_in(40) => {
                    self.shared.list(&self.api, self.number).await;
                    continue;
                }
                None => self.get(&key).await,
                Some(_) if self.dice.once_in(5) => self.get(&key).await,
                Some(base) if base > 0 && self.dice.once_in(6) => self.delete(&key, base).await,
                Some(base) => self.put(&key, base).await,
            };
            match now {
                Some(revision) => self.known.insert(key, revision),
                None => self.known.remove(&key),
            };
        }
    }

    async fn get(&self, key: &str) -> Option<i64> {
        let call = self.shared.trace.now();
        let (found, outcome) = match self.api.get(key).await {
            Ok(object) => (Some((revision_of(&object), token_of(&object))), Outcome::Done),
            Err(kube::Error::Api(status)) if status.code == 404 => (None, Outcome::Done),
            Err(error) => (None, failure(&error)),
        };
        let now = found.as_ref().map_or(0, |(revision, _)| *revision);
        self.shared.trace.note(self.number, call, Action::Get { key: key.to_owned(), found }, outcome);
        (outcome == Outcome::Done).then_some(now)
    }

    /// Creates an object, or updates the one of a revision.
    async fn put(&self, key: &str, base: i64) -> Option<i64> {
        let value = format!("t{}", self.shared.tokens.fetch_add(1, Ordering::Relaxed));
        let mut object = ConfigMap::default();
        object.metadata.name = Some(key.to_owned());
        object.metadata.labels = Some([("load".to_owned(), "yes".to_owned())].into());
        let filling = "x".repeat(usize::try_from(self.dice.below(self.size)).unwrap_or_default());
        object.data = Some([(TOKEN.to_owned(), value.clone()), ("filling".to_owned(), filling)].into());
        let call = self.shared.trace.now();
        let written = if base == 0 {
            self.api.create(&PostParams::default(), &object).await
        } else {
            object.metadata.resource_version = Some(base.to_string());
            self.api.replace(key, &PostParams::default(), &object).await
        };
        let revision = written.as_ref().ok().map(revision_of);
        let action = Action::Put { key: key.to_owned(), value, expected: Some(base), revision };
        let outcome = written.as_ref().err().map_or(Outcome::Done, failure);
        self.shared.trace.note(self.number, call, action, outcome);
        revision
    }

    async fn delete(&self, key: &str, base: i64) -> Option<i64> {
        let only = Preconditions { resource_version: Some(base.to_string()), uid: None };
        let params = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
        let call = self.shared.trace.now();
        let deleted = self.api.delete(key, &params).await;
        let outcome = deleted.as_ref().err().map_or(Outcome::Done, failure);
        let action = Action::Delete { key: key.to_owned(), expected: Some(base), revision: None };
        self.shared.trace.note(self.number, call, action, outcome);
        (outcome == Outcome::Done).then_some(0)
    }
}

/// What a load came to.
#[derive(Debug)]
pub struct Summary {
    pub acknowledged: usize,
    pub seen: usize,
    checked: Checked,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { acknowledged, seen, checked } = self;
        write!(f, "{acknowledged} writes acknowledged, {seen} events seen; checked: {checked}")
    }
}

/// Writers and watchers at work.
pub struct Load {
    pub shared: Arc<Shared>,
    writers: Vec<JoinHandle<()>>,
    watchers: Vec<JoinHandle<Fallible<Vec<Watched>>>>,
}

impl Load {
    /// Begins, on servers that are ready; each client has one of them. Objects are of up to `size` bytes.
    pub async fn begin(servers: &[&Server], writers: usize, size: u64) -> Fallible<Self> {
        let shared = Arc::new(Shared {
            trace: Trace::default(),
            up: tokio::sync::watch::Sender::new(true),
            over: AtomicBool::new(false),
            tokens: AtomicU64::new(0),
        });
        let mut load = Load { shared: shared.clone(), writers: Vec::new(), watchers: Vec::new() };
        for (number, habit) in [Habit::Resume, Habit::Restless, Habit::Relist, Habit::Resume].into_iter().enumerate() {
            let dice = Dice::new(1000 + number as u64);
            let watcher = Watcher { number: 100 + number, habit, dice, shared: shared.clone() };
            let client = servers[number % servers.len()].client().await?;
            load.watchers.push(tokio::spawn(watcher.run(client)));
        }
        for number in 0..writers {
            let api = Api::default_namespaced(servers[number % servers.len()].client().await?);
            let (dice, known) = (Dice::new(number as u64), HashMap::new());
            let writer = Writer { number, api, shared: shared.clone(), dice, known, size };
            load.writers.push(tokio::spawn(writer.run()));
        }
        Ok(load)
    }

    /// Waits until so many more writes have been acknowledged.
    pub async fn acknowledged(&mut self, more: usize) -> Fallible {
        let wanted = self.shared.trace.acknowledged.load(Ordering::Relaxed) + more;
        let deadline = Instant::now() + PATIENCE;
        while self.shared.trace.acknowledged.load(Ordering::Relaxed) < wanted {
            self.watch_on().await?;
            if Instant::now() > deadline {
                let counts = self.shared.trace.counts();
                return Err(format!("not {more} more writes are acknowledged in {PATIENCE:?}: {counts:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Fails when a watcher has ended, and says why.
    async fn watch_on(&mut self) -> Fallible {
        if let Some(ended) = self.watchers.iter().position(JoinHandle::is_finished) {
            self.watchers.remove(ended).await??;
            return Err("a watcher ended by itself".into());
        }
        Ok(())
    }

    /// Tells the clients whether there is a server to talk to.
    pub fn set_up(&self, up: bool) {
        self.shared.up.send_replace(up);
    }

    /// Ends the load, waits until every watcher has seen the end, and judges all that was remembered.
    pub async fn end(mut self, server: &Server) -> Fallible<Summary> {
        self.watch_on().await?;
        self.shared.over.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await?;
        }
        let api = Api::default_namespaced(server.client().await?);
        let (shared, known) = (self.shared.clone(), HashMap::new());
        let last = Writer { number: 99, api, shared, dice: Dice::new(9), known, size: 1 };
        for key in (0..KEYS).map(|n| format!("o-{n}")) {
            last.get(&key).await;
        }
        self.shared.list(&last.api, last.number).await.ok_or("the last list is not answered")?;
        last.put(SENTINEL, 0).await.ok_or("the last write is not taken")?;
        let mut watched = Vec::new();
        for watcher in self.watchers {
            let told = tokio::time::timeout(PATIENCE, watcher).await;
            watched.extend(told.map_err(|_| "a watcher never sees the last write")???);
        }
        let trace = &self.shared.trace;
        let (acknowledged, seen) = (trace.acknowledged.load(Ordering::Relaxed), trace.seen.load(Ordering::Relaxed));
        let counts = trace.counts();
        let checked = trace.judge(watched).map_err(|e| format!("{e}\n{acknowledged} acknowledged; {counts:?}"))?;
        Ok(Summary { acknowledged, seen, checked })
    }
}
