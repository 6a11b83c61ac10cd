//! Events (core/v1) on their way to the API: what repeats is counted, what is similar is told together, and what floods is
//! dropped, by the measures of client-go's event correlator. Here it is decided; who sends does what a [`Delivery`] says.

use crate::names;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

/// How many reports wait to be sent; what comes when there are as many is dropped (upstream: 1000).
pub const QUEUED: usize = 1000;
/// How many objects, groups of similar events, and events are remembered.
const REMEMBERED: usize = 4096;
/// From how many texts on, none [`SIMILAR_WINDOW`] seconds after another, events that differ only in their text become one.
const SIMILAR: usize = 10;
const SIMILAR_WINDOW: f64 = 600.0;
/// How many events of an object a source tells at once, and how many seconds it takes to earn another.
const BURST: f64 = 25.0;
const EARN: f64 = 300.0;
/// How often an event is sent to a server that does not answer, and how long is waited between.
const TRIES: u32 = 12;
const WAIT: Duration = Duration::from_secs(10);
/// How often one is sent to a server that asks to come again later.
const PUT_OFF: u32 = 10;

/// Whether an event tells of the normal course or of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Kind {
    Normal,
    Warning,
}

/// What an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reference {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field_path: String,
}

/// Who tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Source {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub component: String,
    /// The node; empty for who is on none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
}

/// What a component wants to be told.
#[derive(Clone, Debug)]
pub struct Report {
    pub about: Reference,
    pub kind: Kind,
    /// A word that programs know.
    pub reason: String,
    /// For people.
    pub message: String,
    pub at: Timestamp,
}

/// An event as the API has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    pub metadata: Metadata,
    pub involved_object: Reference,
    pub reason: String,
    pub message: String,
    pub source: Source,
    pub first_timestamp: String,
    pub last_timestamp: String,
    pub count: u64,
    #[serde(rename = "type")]
    pub kind: Kind,
    pub reporting_component: String,
    pub reporting_instance: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Metadata {
    pub name: String,
    pub namespace: String,
}

impl Event {
    /// An event that happened once.
    pub fn new(source: &Source, report: &Report) -> Self {
        let namespace = if report.about.namespace.is_empty() { "default" } else { &report.about.namespace };
        let at = seconds(report.at);
        Event {
            metadata: Metadata { name: name(&report.about.name, report.at), namespace: namespace.to_owned() },
            involved_object: report.about.clone(),
            reason: report.reason.clone(),
            message: report.message.clone(),
            source: source.clone(),
            first_timestamp: at.clone(),
            last_timestamp: at,
            count: 1,
            kind: report.kind,
            reporting_component: source.component.clone(),
            reporting_instance: source.host.clone(),
        }
    }

    /// The whole object, with its kind.
    pub fn object(&self) -> Value {
        // Strings, a number and structs of them: it cannot fail.
        let mut object = serde_json::to_value(self).unwrap_or_default();
        object["apiVersion"] = "v1".into();
        object["kind"] = "Event".into();
        object
    }

    /// Where events of its namespace are made.
    pub fn collection(&self) -> String {
        format!("/api/v1/namespaces/{}/events", self.metadata.namespace)
    }
}

fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The name of an event of an object; a random one, where the object's is none for an Event.
fn name(of: &str, at: Timestamp) -> String {
    let name = format!("{of}.{:x}", at.as_nanosecond());
    if names::dns1123_subdomain(&name).is_empty() {
        return name;
    }
    let random = || RandomState::new().hash_one(at.as_nanosecond());
    let (high, low) = (random(), random());
    // The shape of a random UUID.
    let (version, variant) = (0x4000 | high & 0x0fff, 0x8000 | low >> 48 & 0x3fff);
    format!(
        "{:08x}-{:04x}-{version:04x}-{variant:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        low & 0xffff_ffff_ffff
    )
}

/// A random number from 0 to 1.
fn spread() -> f64 {
    f64::from((RandomState::new().hash_one(()) >> 32) as u32) / f64::from(u32::MAX)
}

/// What is remembered by a key, until as much else was used since.
#[derive(Debug)]
struct Recent<V> {
    values: HashMap<Arc<str>, (u64, V)>,
    /// The same keys, as they were used.
    used: BTreeMap<u64, Arc<str>>,
    clock: u64,
}

impl<V> Recent<V> {
    fn new() -> Self {
        Recent { values: HashMap::new(), used: BTreeMap::new(), clock: 0 }
    }

    /// What is remembered, or what is remembered from now on.
    fn entry(&mut self, key: &str, first: impl FnOnce() -> V) -> &mut V {
        self.clock += 1;
        let held = match self.values.get(key) {
            Some((last, _)) => self.used.remove(last),
            None if self.values.len() >= REMEMBERED => {
                if let Some((_, oldest)) = self.used.pop_first() {
                    self.values.remove(&oldest);
                }
                None
            }
            None => None,
        };
        let key = held.unwrap_or_else(|| key.into());
        self.used.insert(self.clock, key.clone());
        let entry = self.values.entry(key).or_insert_with(|| (0, first()));
        entry.0 = self.clock;
        &mut entry.1
    }
}

/// What was told of an object by its source.
#[derive(Debug)]
struct Budget {
    tokens: f64,
    at: Timestamp,
}

/// The texts of events that are alike but for them, by their hashes: the events that were told have them in full.
#[derive(Debug)]
struct Similar {
    texts: Vec<u64>,
    at: Timestamp,
}

/// An event that was told.
#[derive(Debug)]
struct Told {
    name: String,
    first: String,
    count: u64,
}

/// Counts and limits what one source tells.
#[derive(Debug)]
pub struct Correlator {
    source: Source,
    similar: Recent<Similar>,
    hashes: RandomState,
    told: Recent<Told>,
    budgets: Recent<Budget>,
}

/// A key of several texts, none of which runs into the next.
fn key(parts: &[&str]) -> String {
    parts.join("\0")
}

impl Correlator {
    pub fn new(source: Source) -> Self {
        let hashes = RandomState::new();
        Correlator { source, similar: Recent::new(), hashes, told: Recent::new(), budgets: Recent::new() }
    }

    /// What is to be sent of a report; `None` when its object has been told of too much.
    pub fn take(&mut self, report: &Report) -> Option<Delivery> {
        let about = &report.about;
        let object = key(&[&about.kind, &about.namespace, &about.name, &about.uid, &about.api_version]);
        let kind = match report.kind {
            Kind::Normal => "Normal",
            Kind::Warning => "Warning",
        };
        let group = key(&[&object, kind, &report.reason]);
        let mut event = Event::new(&self.source, report);
        let known_by = if self.is_one_of_many(&group, report) {
            event.message = format!("(combined from similar events): {}", report.message);
            event.reporting_component.clear();
            event.reporting_instance.clear();
            group
        } else {
            key(&[&group, &about.field_path, &report.message])
        };
        let told = self.told.entry(&known_by, || Told {
            name: event.metadata.name.clone(),
            first: event.first_timestamp.clone(),
            count: 0,
        });
        told.count += 1;
        event.metadata.name.clone_from(&told.name);
        event.first_timestamp.clone_from(&told.first);
        event.count = told.count;
        self.affords(&object, report.at).then_some(Delivery { counts: event.count > 1, event, tries: 0, put_off: 0 })
    }

    /// Whether so many events of this kind were told of the object lately that they become one.
    fn is_one_of_many(&mut self, group: &str, report: &Report) -> bool {
        let similar = self.similar.entry(group, || Similar { texts: Vec::new(), at: report.at });
        if report.at.duration_since(similar.at).as_secs_f64() > SIMILAR_WINDOW {
            similar.texts.clear();
        }
        similar.at = report.at;
        let text = self.hashes.hash_one(&report.message);
        if !similar.texts.contains(&text) {
            similar.texts.push(text);
        }
        if similar.texts.len() < SIMILAR {
            return false;
        }
        similar.texts.remove(0);
        true
    }

    fn affords(&mut self, object: &str, now: Timestamp) -> bool {
        let budget = self.budgets.entry(object, || Budget { tokens: BURST, at: now });
        let earned = now.duration_since(budget.at).as_secs_f64().max(0.0) / EARN;
        budget.tokens = (budget.tokens + earned).min(BURST);
        budget.at = now;
        if budget.tokens < 1.0 {
            return false;
        }
        budget.tokens -= 1.0;
        true
    }
}

/// What is sent of a report, again and again until [`Delivery::answered`] says that it is over.
#[derive(Debug)]
pub struct Delivery {
    event: Event,
    counts: bool,
    tries: u32,
    put_off: u32,
}

/// Why an event was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There was no answer.
    NoAnswer,
    /// With this HTTP code; and when to come again, if it says so.
    Refused(u16, Option<Duration>),
    /// It cannot even be sent.
    Unsendable,
}

impl Failure {
    /// A refusal with this HTTP code; `seconds` is the `retryAfterSeconds` of its details. Who refuses because of too many requests
    /// may say it in a header only, and it is one second.
    pub fn refused(code: u16, seconds: Option<u32>) -> Self {
        let seconds = seconds.filter(|seconds| *seconds > 0).or((code == 429).then_some(1));
        Failure::Refused(code, seconds.map(|seconds| Duration::from_secs(seconds.into())))
    }
}

/// What the API is asked.
#[derive(Debug, PartialEq)]
pub enum Request<'a> {
    /// To make the event.
    Create(&'a Event),
    /// To change the event of this name with a merge patch: it happened again.
    Count(&'a Event, Value),
}

/// What is done after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it was told, or can't be.
    Done,
    /// What the delivery asks now.
    Now,
    /// The same, a while later.
    After(Duration),
}

impl Delivery {
    pub fn request(&self) -> Request<'_> {
        let Event { count, last_timestamp, message, .. } = &self.event;
        if self.counts {
            let patch = json!({ "count": count, "lastTimestamp": last_timestamp, "message": message });
            Request::Count(&self.event, patch)
        } else {
            Request::Create(&self.event)
        }
    }

    /// What follows from an answer. What is refused is given up, as others wait behind it, unless the server says when to come
    /// again; only a server that does not answer is waited for (client-go's `recordEvent`, and its requests).
    pub fn answered(&mut self, answer: Result<(), Failure>) -> Next {
        match answer {
            Ok(()) | Err(Failure::Unsendable) => Next::Done,
            // The event that is counted has outlived its time in the API.
            Err(Failure::Refused(404, _)) if self.counts => {
                self.counts = false;
                Next::Now
            }
            Err(Failure::Refused(code, Some(wait))) if (code == 429 || code >= 500) && self.put_off < PUT_OFF => {
                self.put_off += 1;
                Next::After(wait)
            }
            Err(Failure::Refused(..)) => Next::Done,
            Err(Failure::NoAnswer) => {
                self.tries += 1;
                match self.tries {
                    // Not all that a server lost come back to it at once.
                    1 => Next::After(WAIT.mul_f64(spread())),
                    2..TRIES => Next::After(WAIT),
                    _ => Next::Done,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(reason: &str, message: &str, second: i64) -> Report {
        let text = str::to_owned;
        Report {
            about: Reference {
                kind: text("Pod"),
                namespace: text("ns"),
                name: text("p"),
                uid: text("u"),
                api_version: text("v1"),
                ..Reference::default()
            },
            kind: Kind::Warning,
            reason: text(reason),
            message: text(message),
            at: Timestamp::from_second(1_700_000_000 + second).expect("a time"),
        }
    }

    fn correlator() -> Correlator {
        Correlator::new(Source { component: "kubelet".into(), host: "n".into() })
    }

    #[test]
    fn an_event_has_what_its_kind_has() {
        let made = correlator().take(&report("BackOff", "again", 0)).expect("told");
        let Request::Create(event) = made.request() else { panic!("{made:?}") };
        assert_eq!(event.collection(), "/api/v1/namespaces/ns/events");
        assert_eq!(
            event.object(),
            json!({
                "apiVersion": "v1", "kind": "Event",
                "metadata": {"name": "p.17979cfe362a0000", "namespace": "ns"},
                "involvedObject": {"kind": "Pod", "namespace": "ns", "name": "p", "uid": "u", "apiVersion": "v1"},
                "reason": "BackOff", "message": "again", "type": "Warning", "count": 1,
                "source": {"component": "kubelet", "host": "n"},
                "firstTimestamp": "2023-11-14T22:13:20Z", "lastTimestamp": "2023-11-14T22:13:20Z",
                "reportingComponent": "kubelet", "reportingInstance": "n",
            })
        );
    }

    #[test]
    fn names_are_those_of_events() {
        let at = Timestamp::from_second(1_700_000_000).expect("a time");
        assert_eq!(name("p", at), "p.17979cfe362a0000");
        let made = name("Not a name", at);
        assert!(names::dns1123_subdomain(&made).is_empty() && made.len() == 36, "{made}");
        assert_ne!(made, name("Not a name", at));
        let cluster = Report { about: Reference { name: "n".into(), ..Reference::default() }, ..report("A", "b", 0) };
        assert_eq!(Event::new(&Source::default(), &cluster).metadata.namespace, "default");
    }

    #[test]
    fn what_repeats_is_counted() {
        let mut c = correlator();
        let first = c.take(&report("BackOff", "again", 0)).expect("told");
        let again = c.take(&report("BackOff", "again", 9)).expect("told");
        let Request::Count(event, patch) = again.request() else { panic!("{again:?}") };
        assert_eq!(patch, json!({"count": 2, "lastTimestamp": "2023-11-14T22:13:29Z", "message": "again"}));
        assert_eq!((&event.metadata, &event.first_timestamp), (&first.event.metadata, &first.event.first_timestamp));
        let other = c.take(&report("BackOff", "other", 9)).expect("told");
        assert!(matches!(other.request(), Request::Create(_)));
        // Of another container it is another event.
        let mut container = report("BackOff", "again", 10);
        container.about.field_path = "spec.containers{a}".into();
        assert!(matches!(c.take(&container).expect("told").request(), Request::Create(_)));
    }

    #[test]
    fn similar_events_become_one() {
        let mut c = correlator();
        for i in 0..9 {
            let made = c.take(&report("Unhealthy", &format!("{i}"), i)).expect("told");
            assert!(matches!(made.request(), Request::Create(_)), "{i}");
        }
        let combined = c.take(&report("Unhealthy", "9", 9)).expect("told");
        let Request::Create(event) = combined.request() else { panic!("{combined:?}") };
        assert_eq!((event.message.as_str(), event.count), ("(combined from similar events): 9", 1));
        let next = c.take(&report("Unhealthy", "10", 10)).expect("told");
        let Request::Count(counted, patch) = next.request() else { panic!("{next:?}") };
        assert_eq!((&patch["message"], &patch["count"]), (&"(combined from similar events): 10".into(), &2.into()));
        assert_eq!(counted.metadata, event.metadata);
        // Another reason is another matter, and after a silence all begins anew.
        assert!(matches!(c.take(&report("Killing", "11", 11)).expect("told").request(), Request::Create(_)));
        let later = c.take(&report("Unhealthy", "12", 700)).expect("told");
        assert_eq!(later.event.message, "12");
    }

    #[test]
    fn a_flood_is_dropped_until_time_passed_and_counted_all_the_same() {
        let mut c = correlator();
        for n in 0..25 {
            assert!(c.take(&report("X", "m", 0)).is_some(), "{n}");
        }
        assert!(c.take(&report("X", "m", 0)).is_none());
        // Containers of the pod share its budget, other objects have their own.
        let mut container = report("Y", "m", 0);
        container.about.field_path = "spec.containers{a}".into();
        assert!(c.take(&container).is_none());
        let mut other = report("X", "m", 0);
        other.about.uid = "other".into();
        assert!(c.take(&other).is_some());
        let later = c.take(&report("X", "m", 301)).expect("told");
        assert_eq!(later.event.count, 27);
        assert!(c.take(&report("X", "m", 302)).is_none());
    }

    #[test]
    fn what_was_not_used_longest_is_forgotten() {
        let mut recent = Recent::new();
        for n in 0..=REMEMBERED {
            recent.entry("0", || 0);
            recent.entry(&n.to_string(), || n);
        }
        assert_eq!((recent.values.len(), recent.used.len()), (REMEMBERED, REMEMBERED));
        assert_eq!(*recent.entry("0", || 99), 0);
        assert_eq!(*recent.entry("1", || 99), 99);
    }

    #[test]
    fn a_delivery_goes_on_until_it_is_answered() {
        let mut c = correlator();
        let report = report("X", "m", 0);
        let mut first = c.take(&report).expect("told");
        let refused = |code| Err(Failure::Refused(code, None));
        assert_eq!(first.answered(refused(404)), Next::Done, "its namespace is gone");
        let mut again = c.take(&report).expect("told");
        assert!(matches!(again.request(), Request::Count(..)));
        assert_eq!(again.answered(refused(404)), Next::Now);
        let Request::Create(event) = again.request() else { panic!("{again:?}") };
        assert_eq!(event.count, 2);
        assert!(matches!(again.answered(Err(Failure::NoAnswer)), Next::After(wait) if wait <= Duration::from_secs(10)));
        for _ in 0..10 {
            assert_eq!(again.answered(Err(Failure::NoAnswer)), Next::After(Duration::from_secs(10)));
        }
        assert_eq!(again.answered(Err(Failure::NoAnswer)), Next::Done);
        let mut later = c.take(&report).expect("told");
        for _ in 0..10 {
            let put_off = Failure::Refused(429, Some(Duration::from_secs(1)));
            assert_eq!(later.answered(Err(put_off)), Next::After(Duration::from_secs(1)));
        }
        assert_eq!(later.answered(Err(Failure::Refused(429, Some(Duration::from_secs(1))))), Next::Done);
        let mut third = c.take(&report).expect("told");
        assert_eq!(third.answered(Err(Failure::Refused(403, Some(Duration::from_secs(1))))), Next::Done);
        assert_eq!(
            third.answered(Err(Failure::Refused(500, None))),
            Next::Done,
            "a webhook that fails holds up nobody"
        );
        assert_eq!(third.answered(Err(Failure::Unsendable)), Next::Done);
        assert_eq!(third.answered(Ok(())), Next::Done);
    }
}
