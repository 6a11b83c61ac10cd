//! Events: what happened to pods and the node, told in the API. What repeats is counted, and what
//! floods is dropped, by upstream's measures.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference, Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::spec::{PodExt, Role};

/// The component that reports.
const COMPONENT: &str = "kubelet";
/// How many different events are remembered for counting.
const REMEMBERED: usize = 4096;
/// From how many on, in [`SIMILAR_WINDOW`], events that differ only in their text become one.
const SIMILAR: usize = 10;
const SIMILAR_WINDOW: Duration = Duration::from_secs(600);
/// How many events of one object are taken at once, and how long it takes to earn another.
const BURST: f64 = 25.0;
const EARN: f64 = 300.0;

/// How an event is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Severity {
    Normal,
    Warning,
}

#[derive(Clone, Debug)]
struct Report {
    object: ObjectReference,
    severity: Severity,
    reason: &'static str,
    message: String,
    at: Timestamp,
}

/// A place to report events to; cheap to clone, never blocks.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    sender: mpsc::UnboundedSender<Report>,
}

impl Recorder {
    /// A recorder, and the task that sends what it is told until `stop`.
    pub(crate) fn new(client: Client, node: &str, stop: CancellationToken) -> (Self, impl Future<Output = ()> + use<>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let source = EventSource { component: Some(COMPONENT.to_owned()), host: Some(node.to_owned()) };
        (Self { sender }, send(client, source, receiver, stop))
    }

    fn report(&self, object: ObjectReference, severity: Severity, reason: &'static str, message: String) {
        let at = Timestamp::now();
        // Nobody listens any more when the kubelet stops.
        let _ = self.sender.send(Report { object, severity, reason, message, at });
    }

    /// Reports about a pod.
    pub(crate) fn pod(&self, pod: &Pod, severity: Severity, reason: &'static str, message: impl Into<String>) {
        self.report(reference(pod), severity, reason, message.into());
    }

    /// Reports about a container of a pod.
    pub(crate) fn container(
        &self,
        pod: &Pod,
        role: Role,
        name: &str,
        severity: Severity,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let mut object = reference(pod);
        object.field_path = Some(format!("spec.{}{{{name}}}", role.field()));
        self.report(object, severity, reason, message.into());
    }

    /// Reports about the node; its name serves as its uid, as upstream has it.
    pub(crate) fn node(&self, name: &str, severity: Severity, reason: &'static str, message: impl Into<String>) {
        let object = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(name.to_owned()),
            uid: Some(name.to_owned()),
            ..ObjectReference::default()
        };
        self.report(object, severity, reason, message.into());
    }
}

fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.namespace().to_owned()),
        name: Some(pod.name().to_owned()),
        uid: Some(pod.uid().to_owned()),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: None,
    }
}

/// What a report leads to.
#[derive(Debug, PartialEq)]
enum Action {
    Create(Box<Event>),
    /// The event of this namespace and name happened again.
    Count {
        namespace: String,
        name: String,
        count: i32,
        message: String,
        at: Timestamp,
    },
    Drop,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ObjectKey {
    kind: String,
    namespace: String,
    name: String,
    uid: String,
    field_path: String,
}

#[derive(Debug, PartialEq, Eq, Hash, Clone)]
struct Key {
    object: ObjectKey,
    severity: Severity,
    reason: &'static str,
    /// Empty for the one event that stands for many similar ones.
    message: String,
}

struct Known {
    name: String,
    count: i32,
}

/// Counts and limits; decides without sending.
struct Correlator {
    source: EventSource,
    known: HashMap<Key, Known>,
    order: VecDeque<Key>,
    similar: HashMap<Key, (Timestamp, Vec<String>)>,
    budgets: HashMap<ObjectKey, (Timestamp, f64)>,
}

impl Correlator {
    fn new(source: EventSource) -> Self {
        Self { source, known: HashMap::new(), order: VecDeque::new(), similar: HashMap::new(), budgets: HashMap::new() }
    }

    fn take(&mut self, report: Report) -> Action {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let object = ObjectKey {
            kind: text(&report.object.kind),
            namespace: text(&report.object.namespace),
            name: text(&report.object.name),
            uid: text(&report.object.uid),
            field_path: text(&report.object.field_path),
        };
        if !self.affordable(&object, report.at) {
            return Action::Drop;
        }
        let mut key = Key { object, severity: report.severity, reason: report.reason, message: report.message.clone() };
        let mut message = report.message;
        if self.too_similar(&key, report.at) {
            message = format!("(combined from similar events): {message}");
            key.message.clear();
        }
        if let Some(known) = self.known.get_mut(&key) {
            known.count += 1;
            return Action::Count {
                namespace: namespace(&key.object),
                name: known.name.clone(),
                count: known.count,
                message,
                at: report.at,
            };
        }
        let nanos = report.at.as_nanosecond();
        let name = format!("{}.{nanos:x}", key.object.name);
        let event = self.event(&report.object, &key, name.clone(), message, report.at);
        self.remember(key, name);
        Action::Create(Box::new(event))
    }

    fn remember(&mut self, key: Key, name: String) {
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
            self.similar.retain(|similar, _| similar.object != oldest.object);
            self.budgets.remove(&oldest.object);
        }
        self.order.push_back(key.clone());
        self.known.insert(key, Known { name, count: 1 });
    }

    /// An event that the server no longer has is made anew.
    fn forget(&mut self, namespace_: &str, name: &str) {
        self.known.retain(|key, known| known.name != name || namespace(&key.object) != namespace_);
        let known = &self.known;
        self.order.retain(|key| known.contains_key(key));
    }

    fn affordable(&mut self, object: &ObjectKey, now: Timestamp) -> bool {
        let (at, tokens) = self.budgets.entry(object.clone()).or_insert((now, BURST));
        let earned = now.duration_since(*at).as_secs_f64() / EARN;
        *tokens = (*tokens + earned).min(BURST);
        *at = now;
        if *tokens < 1.0 {
            return false;
        }
        *tokens -= 1.0;
        true
    }

    fn too_similar(&mut self, key: &Key, now: Timestamp) -> bool {
        let group = Key { message: String::new(), ..key.clone() };
        let (since, messages) = self.similar.entry(group).or_insert_with(|| (now, Vec::new()));
        if now.duration_since(*since).unsigned_abs() > SIMILAR_WINDOW {
            messages.clear();
        }
        *since = now;
        if !messages.contains(&key.message) {
            if messages.len() >= SIMILAR {
                messages.remove(0);
                messages.push(key.message.clone());
                return true;
            }
            messages.push(key.message.clone());
        }
        messages.len() >= SIMILAR
    }

    fn event(&self, object: &ObjectReference, key: &Key, name: String, message: String, at: Timestamp) -> Event {
        let time = Some(Time(crate::pod::status::seconds(at)));
        Event {
            metadata: ObjectMeta { name: Some(name), namespace: Some(namespace(&key.object)), ..ObjectMeta::default() },
            involved_object: object.clone(),
            reason: Some(key.reason.to_owned()),
            message: Some(message),
            type_: Some(match key.severity {
                Severity::Normal => "Normal".to_owned(),
                Severity::Warning => "Warning".to_owned(),
            }),
            source: Some(self.source.clone()),
            reporting_component: Some(COMPONENT.to_owned()),
            reporting_instance: self.source.host.clone(),
            first_timestamp: time.clone(),
            last_timestamp: time,
            count: Some(1),
            ..Event::default()
        }
    }
}

/// Events of what has no namespace stand in `default`.
fn namespace(object: &ObjectKey) -> String {
    if object.namespace.is_empty() { "default".to_owned() } else { object.namespace.clone() }
}

async fn send(
    client: Client,
    source: EventSource,
    mut reports: mpsc::UnboundedReceiver<Report>,
    stop: CancellationToken,
) {
    let mut correlator = Correlator::new(source);
    loop {
        let report = tokio::select! {
            report = reports.recv() => report,
            () = stop.cancelled() => return,
        };
        let Some(report) = report else { return };
        let mut action = correlator.take(report.clone());
        // Twelve attempts, as upstream; the API server may be starting.
        for attempt in 0..12u32 {
            match deliver(&client, &action).await {
                Ok(()) => break,
                Err(Undelivered::Gone) => {
                    if let Action::Count { namespace, name, .. } = &action {
                        correlator.forget(namespace, name);
                    }
                    action = correlator.take(report.clone());
                }
                Err(Undelivered::Refused(error)) => {
                    tracing::debug!(%error, "an event was refused");
                    break;
                }
                Err(Undelivered::Later(error)) => {
                    tracing::debug!(%error, "an event could not be sent; trying again");
                    let wait = Duration::from_millis(100 << attempt.min(6));
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = stop.cancelled() => return,
                    }
                }
            }
        }
    }
}

enum Undelivered {
    /// The event to count on is gone.
    Gone,
    Refused(kube::Error),
    Later(kube::Error),
}

async fn deliver(client: &Client, action: &Action) -> Result<(), Undelivered> {
    let classify = |error: kube::Error| match &error {
        kube::Error::Api(status) if status.code == 404 => Undelivered::Gone,
        kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429 => {
            Undelivered::Refused(error)
        }
        _ => Undelivered::Later(error),
    };
    match action {
        Action::Drop => Ok(()),
        Action::Create(event) => {
            let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
            let api: Api<Event> = Api::namespaced(client.clone(), namespace);
            match api.create(&PostParams::default(), event).await {
                Ok(_) => Ok(()),
                // The namespace is going away, and what happens there with it.
                Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404 | 409) => Ok(()),
                Err(error) => Err(classify(error)),
            }
        }
        Action::Count { namespace, name, count, message, at } => {
            let api: Api<Event> = Api::namespaced(client.clone(), namespace);
            let patch = json!({
                "count": count,
                "message": message,
                "lastTimestamp": Time(crate::pod::status::seconds(*at)),
            });
            api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop).map_err(classify)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(reason: &'static str, message: &str, second: i64) -> Report {
        Report {
            object: ObjectReference {
                kind: Some("Pod".into()),
                namespace: Some("ns".into()),
                name: Some("p".into()),
                uid: Some("u".into()),
                ..ObjectReference::default()
            },
            severity: Severity::Warning,
            reason,
            message: message.to_owned(),
            at: Timestamp::from_second(1_700_000_000 + second).unwrap(),
        }
    }

    fn correlator() -> Correlator {
        Correlator::new(EventSource { component: Some(COMPONENT.into()), host: Some("n".into()) })
    }

    #[test]
    fn repetitions_are_counted() {
        let mut c = correlator();
        let Action::Create(event) = c.take(report("BackOff", "again", 0)) else { panic!() };
        assert_eq!(event.metadata.name.as_deref(), Some("p.17979cfe362a0000"));
        assert_eq!(event.reporting_component.as_deref(), Some("kubelet"));
        assert_eq!(event.reporting_instance.as_deref(), Some("n"));
        let Action::Count { count, name, .. } = c.take(report("BackOff", "again", 9)) else { panic!() };
        assert_eq!((count, Some(name)), (2, event.metadata.name));
        assert!(matches!(c.take(report("BackOff", "other", 9)), Action::Create(_)));
    }

    #[test]
    fn similar_events_become_one() {
        let mut c = correlator();
        for i in 0..9 {
            let action = c.take(report("Unhealthy", &format!("{i}"), i));
            assert!(matches!(action, Action::Create(_)), "{i}");
        }
        let Action::Create(event) = c.take(report("Unhealthy", "9", 9)) else { panic!() };
        assert_eq!(event.message.as_deref(), Some("(combined from similar events): 9"));
        let Action::Count { message, count, .. } = c.take(report("Unhealthy", "10", 10)) else { panic!() };
        assert_eq!((message.as_str(), count), ("(combined from similar events): 10", 2));
    }

    #[test]
    fn a_flood_is_dropped_until_time_passed() {
        let mut c = correlator();
        for _ in 0..25 {
            assert_ne!(c.take(report("X", "m", 0)), Action::Drop);
        }
        assert_eq!(c.take(report("X", "m", 0)), Action::Drop);
        assert_ne!(c.take(report("X", "m", 301)), Action::Drop);
    }
}
