//! API Priority and Fairness (KEP-1040): which requests are served when there are more than the server takes at once.
//!
//! A request is of the first flow schema that matches it, and so of a priority level. A level has a share of the server's
//! seats; what it does not need it lends to others. Who finds no seat in its level waits in one of its queues, for no longer
//! than a quarter of the time that it may take, or is refused.
//!
//! | file | what |
//! |---|---|
//! | `config` | levels and schemas out of their objects, prepared when these change and swapped in as a whole |
//! | `classify` | the schema of a request |
//! | `estimate` | the seats that it is thought to need |
//! | `queueset` | seats and queues of a level: fair queuing, without IO or clock |
//! | `level` | the same behind a lock, with those who wait |
//! | `borrow`, `timing` | what levels asked for, and what they get of each other's seats |
//! | `dangling` | the condition of schemas whose level is not there |
//! | `in_flight`, `metrics`, `dump` | what is told of it |

mod borrow;
mod classify;
mod config;
mod dangling;
mod dump;
mod estimate;
pub(crate) mod in_flight;
mod level;
mod metrics;
mod queueset;
mod timing;

use crate::cache::{Cacher, Change, ChangeKind, Observer};
use crate::context::Context;
use crate::limit::MaxInFlight;
use crate::measure::HeldGauge;
use crate::registry::Registry;
use crate::request::RequestInfo;
use classify::FlowSpec;
use config::{Config, LevelSpec, Schema};
use estimate::{Estimator, Watched};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use in_flight::InFlight;
use jiff::Timestamp;
use level::{About, Ticket};
use schema::{Map, Value};
use std::fmt::{self, Write};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

pub(crate) const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const LEVELS: &str = "prioritylevelconfigurations";
const SCHEMAS: &str = "flowschemas";
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");
const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
/// Between two times that seats are shared anew.
const PERIOD: Duration = Duration::from_secs(10);
/// No request waits longer, however long it may take.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// `--max-requests-inflight`, `--max-mutating-requests-inflight` and `--enable-priority-and-fairness`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub reading: usize,
    pub writing: usize,
    /// Whether both together are the seats that priority levels share; otherwise each is a limit of its own.
    pub fair: bool,
}

impl Default for Settings {
    /// Upstream's.
    fn default() -> Self {
        Settings { reading: 400, writing: 200, fair: true }
    }
}

/// How requests are limited.
pub enum Limit {
    Fair(Box<FlowControl>),
    Pools(MaxInFlight),
}

impl From<MaxInFlight> for Limit {
    fn from(pools: MaxInFlight) -> Self {
        Limit::Pools(pools)
    }
}

/// What a request holds while it is served.
#[must_use]
#[derive(Default)]
pub struct Place {
    seat: Option<Seat>,
    /// It is a watch that is counted.
    _watched: Option<Watched>,
    waited: Duration,
    marks: Marks,
    _gauge: Option<HeldGauge>,
    /// How long its request may take, or may hold a seat if it takes as long as it likes.
    allotted: Duration,
}

enum Seat {
    Fair {
        _ticket: Ticket,
        _counted: Counted,
    },
    Pool(#[allow(dead_code, reason = "held")] crate::limit::Held),
    /// Given back at the latest when a task says so.
    Bounded(#[allow(dead_code, reason = "held")] Bounded),
}

/// A seat that goes back after some time, though nobody asks for the rest of the answer.
struct Bounded {
    _seat: Arc<Mutex<Option<Box<Seat>>>>,
    task: AbortHandle,
}

impl Bounded {
    fn new(seat: Seat, time: Duration) -> Self {
        let seat = Arc::new(Mutex::new(Some(Box::new(seat))));
        let held = Arc::downgrade(&seat);
        let task = tokio::spawn(async move {
            tokio::time::sleep(time).await;
            let seat = held.upgrade().and_then(|held| held.lock().unwrap_or_else(PoisonError::into_inner).take());
            drop(seat);
        });
        Bounded { _seat: seat, task: task.abort_handle() }
    }
}

impl Drop for Bounded {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A request in flight, until this is dropped.
struct Counted(Arc<[InFlight; 2]>, usize);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0[self.1].leave();
    }
}

impl Place {
    /// A watch has begun: it needs no seat any more.
    pub fn begun(&mut self) {
        self.seat = None;
    }

    /// What is left of its answer is made as its client takes it. The seat is held for that, but no longer than the request
    /// was allotted: a client that takes nothing keeps no seat.
    pub fn outlasts(&mut self) {
        self.seat = self.seat.take().map(|seat| Seat::Bounded(Bounded::new(seat, self.allotted)));
    }

    /// Counts it as what lasts as long as its client likes.
    pub fn count(&mut self, gauge: Option<HeldGauge>) {
        self._gauge = gauge;
    }

    /// How long it waited for the seat.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// What its answer is marked with.
    pub fn marks(&self) -> Marks {
        self.marks.clone()
    }
}

/// Which schema and level a request is of, as its answer tells by their uids: names are not for everybody.
#[derive(Clone, Default)]
pub struct Marks(Option<Arc<Schema>>);

impl Marks {
    /// Adds the headers to an answer.
    pub fn add(&self, headers: &mut HeaderMap) {
        if let Some(schema) = &self.0 {
            headers.insert(LEVEL_UID, schema.level.uid.clone());
            headers.insert(SCHEMA_UID, schema.uid.clone());
        }
    }
}

/// A request that is not served now.
pub struct Refused {
    pub marks: Marks,
    /// Seconds after which it should be tried again.
    pub retry_after: i64,
}

impl Refused {
    /// What its answer says, in plain text.
    pub const TEXT: &'static str = "Too many requests, please try again later.\n";

    /// The value of `Retry-After`.
    pub fn retry_after(&self) -> HeaderValue {
        HeaderValue::from(self.retry_after)
    }
}

impl Limit {
    /// As the settings say. Priority levels follow their objects from here on.
    pub fn new(settings: Settings, registry: &Arc<Registry>) -> Self {
        if settings.fair {
            Limit::Fair(Box::new(FlowControl::new(settings.reading + settings.writing, registry)))
        } else {
            Limit::Pools(MaxInFlight::new(settings.reading, settings.writing))
        }
    }

    /// A place for a request, as soon as there is one; it may take `timeout`.
    ///
    /// # Errors
    /// There is none for too long, or too many wait for one.
    pub async fn admit(
        &self,
        cx: &Context,
        info: &Arc<RequestInfo>,
        query: &str,
        timeout: Duration,
    ) -> Result<Place, Refused> {
        // What lasts as long as its client likes takes no place. With priority levels, the beginning of a watch does.
        if info.long_running() && (info.verb != "watch" || matches!(self, Limit::Pools(_))) {
            return Ok(Place { allotted: timeout, ..Place::default() });
        }
        match self {
            Limit::Pools(pools) => {
                let held = pools.admit(info, &cx.user, cx.now.as_second())?;
                Ok(Place { seat: Some(Seat::Pool(held)), allotted: timeout, ..Place::default() })
            }
            Limit::Fair(fair) => fair.admit(cx, info, query, timeout).await,
        }
    }

    /// A dump of what is in priority levels; `None`: there is none of this name.
    pub fn dump(&self, name: &str, query: &str) -> Option<String> {
        let Limit::Fair(fair) = self else { return None };
        let prepared = fair.config.load();
        Some(match name {
            "dump_priority_levels" => dump::levels(&prepared),
            "dump_queues" => dump::queues(&prepared),
            "dump_requests" => {
                let details = crate::request::parameter(query, "includeRequestDetails");
                dump::requests(&prepared, details.is_some_and(|details| !details.is_empty()))
            }
            _ => return None,
        })
    }

    /// Writes what is measured.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn render(&self, out: &mut String) -> fmt::Result {
        let second = Timestamp::now().as_second();
        let (executing, waiting) = match self {
            Limit::Fair(fair) => (&*fair.requests.executing, Some(&*fair.requests.waiting)),
            Limit::Pools(pools) => (pools.in_flight(), None),
        };
        for (name, help, kinds) in [
            (
                "apiserver_current_inflight_requests",
                "[STABLE] Maximal number of currently used inflight request limit of this apiserver per request kind in last second.",
                Some(executing),
            ),
            (
                "apiserver_current_inqueue_requests",
                "[ALPHA] Maximal number of queued requests in this apiserver per request kind in last second.",
                waiting,
            ),
        ] {
            let Some(kinds) = kinds else { continue };
            crate::measure::head(out, name, "gauge", help)?;
            for (kind, in_flight) in KINDS.iter().zip(kinds) {
                writeln!(out, "{name}{{request_kind=\"{kind}\"}} {}", in_flight.most(second))?;
            }
        }
        let name = "apiserver_flowcontrol_read_vs_write_current_requests";
        crate::measure::head(
            out,
            name,
            "histogram",
            "[ALPHA] Observations, at the end of every nanosecond, of the number of requests (as a fraction of the relevant limit) waiting or in regular stage of execution",
        )?;
        for (phase, kinds) in [("executing", Some(executing)), ("waiting", waiting)] {
            for (kind, in_flight) in KINDS.iter().zip(kinds.into_iter().flatten()) {
                in_flight.write_parts(out, name, &format!("phase=\"{phase}\",request_kind=\"{kind}\""))?;
            }
        }
        match self {
            Limit::Fair(fair) => metrics::render(&fair.config.load(), out),
            Limit::Pools(_) => Ok(()),
        }
    }
}

/// By [`kind`].
const KINDS: [&str; 2] = ["mutating", "readOnly"];

/// Which of the two kinds a request is: mutating, or reading.
pub(crate) fn kind(info: &RequestInfo) -> usize {
    usize::from(info.read_only())
}

/// Priority levels at work.
pub struct FlowControl {
    config: Arc<Config>,
    estimator: Estimator,
    /// Whose hashes clients cannot know, so that none can choose its queues.
    hasher: RandomState,
    requests: Arc<Requests>,
}

/// What requests do here, by their kind.
#[derive(Default)]
struct Requests {
    executing: Arc<[InFlight; 2]>,
    waiting: Arc<[InFlight; 2]>,
}

impl Requests {
    /// Takes over how many there may be.
    fn limit(&self, config: &Config) {
        let (executing, waiting) = config.load().most();
        self.executing.iter().for_each(|requests| requests.of(executing));
        self.waiting.iter().for_each(|requests| requests.of(waiting));
    }
}

impl FlowControl {
    fn new(server: usize, registry: &Arc<Registry>) -> Self {
        let config = Arc::new(Config::new(server as u64));
        let changed = Arc::new(Notify::new());
        let requests = Arc::new(Requests::default());
        requests.limit(&config);
        for plural in [LEVELS, SCHEMAS] {
            let follows = Follows {
                schemas: plural == SCHEMAS,
                config: config.clone(),
                requests: requests.clone(),
                changed: changed.clone(),
            };
            registry.observe(GROUP, plural, Arc::new(follows));
        }
        tokio::spawn(dangling::keep(Arc::downgrade(registry), config.clone(), changed));
        let shared = Arc::downgrade(&config);
        let server = Arc::downgrade(registry);
        tokio::spawn(async move {
            let mut period = tokio::time::interval(PERIOD);
            period.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                period.tick().await;
                let (Some(config), true) = (shared.upgrade(), server.strong_count() > 0) else { return };
                config.adjust();
            }
        });
        FlowControl { config, estimator: Estimator::new(registry), hasher: RandomState::new(), requests }
    }

    fn classify(&self, info: &RequestInfo, cx: &Context) -> Arc<Schema> {
        let prepared = self.config.load();
        let found = prepared.schemas.iter().find(|schema| schema.spec.matches(info, &cx.user));
        found.unwrap_or(&prepared.catch_all).clone()
    }

    async fn admit(
        &self,
        cx: &Context,
        info: &Arc<RequestInfo>,
        query: &str,
        timeout: Duration,
    ) -> Result<Place, Refused> {
        let schema = self.classify(info, cx);
        let level = &schema.level;
        let estimate =
            self.estimator.estimate(info, query, level.widest, |watchers| schema.flow.watchers.observe(watchers));
        schema.flow.seats.observe(u64::from(estimate.most()));
        let hash = if level.level.exempt {
            0
        } else {
            self.hasher.hash_one((schema.seed, schema.spec.distinguisher.of(info, &cx.user)))
        };
        let about = About::new(info, &cx.user, &schema.name, cx.now);
        let kind = kind(info);
        let marks = Marks(Some(schema.clone()));
        let patience = (timeout / 4).min(LONGEST_WAIT);
        let waits = || {
            self.requests.waiting[kind].enter(Timestamp::now().as_second());
            Counted(self.requests.waiting.clone(), kind)
        };
        match level.level.enter(&schema.flow, estimate, hash, about, patience, waits).await {
            Ok((ticket, waited)) => {
                // Who waited is executed from now on, not since it came.
                let second = if waited.is_zero() { cx.now.as_second() } else { Timestamp::now().as_second() };
                self.requests.executing[kind].enter(second);
                let counted = Counted(self.requests.executing.clone(), kind);
                let watched = if info.verb == "watch" { self.estimator.watches.begin(info) } else { None };
                Ok(Place {
                    seat: Some(Seat::Fair { _ticket: ticket, _counted: counted }),
                    _watched: watched,
                    waited,
                    marks,
                    _gauge: None,
                    allotted: timeout,
                })
            }
            Err(refusal) => {
                tracing::debug!(level = level.level.name, schema = &*schema.name, ?refusal, "a request is refused");
                let retry_after = level.level.dropped(Timestamp::now().as_second());
                Err(Refused { marks, retry_after })
            }
        }
    }
}

/// Brings objects into the configuration.
struct Follows {
    schemas: bool,
    config: Arc<Config>,
    requests: Arc<Requests>,
    changed: Arc<Notify>,
}

impl Observer for Follows {
    fn changed(&self, cacher: &Cacher, change: &Change) {
        let name = change.entry.name();
        let object = match change.kind {
            ChangeKind::Deleted => None,
            _ => cacher
                .decode(&change.entry)
                .inspect_err(|error| tracing::error!(name, %error, "a stored object of flow control cannot be read"))
                .ok(),
        };
        let read = |object: &Map| {
            let spec = object.get("spec").and_then(Value::as_map)?.clone();
            Some((spec, object.str_at(&["metadata", "uid"]).to_owned()))
        };
        let read = object.as_ref().and_then(read);
        if self.schemas {
            self.config.schema(name, read.map(|(spec, uid)| (FlowSpec::of(&spec), uid)));
        } else {
            let level = read.and_then(|(spec, uid)| Some((LevelSpec::of(name, &spec)?, uid)));
            if level.is_none() && object.is_some() {
                tracing::warn!(name, "a PriorityLevelConfiguration contradicts itself, and counts as absent");
            }
            self.config.level(name, level);
        }
        self.requests.limit(&self.config);
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests;
