//! Events of the scheduler, in `events.k8s.io/v1` as upstream's. What repeats is one event with a series, which is written when it
//! begins, from time to time, and when it has ended.

use crate::objects::PodInfo;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub(crate) const CONTROLLER: &str = "default-scheduler";

/// How often series are looked through, and after which silence one has ended: upstream's.
pub(crate) const LOOK: Duration = Duration::from_secs(360);
const SILENCE: SignedDuration = SignedDuration::from_secs(360);
/// Every so many looks, series that go on are written too: upstream does it each half hour.
const REFRESH: u64 = 5;

/// One event about a pod.
pub(crate) struct Note {
    pub(crate) warning: bool,
    pub(crate) reason: &'static str,
    pub(crate) action: &'static str,
    pub(crate) text: String,
}

/// Where events are told. Copies share their series.
#[derive(Clone)]
pub(crate) struct Recorder {
    client: Client,
    instance: Arc<str>,
    series: Arc<Mutex<Series>>,
}

/// What makes two events the same: all but what they say.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    pod: Box<str>,
    version: u64,
    warning: bool,
    reason: &'static str,
    action: &'static str,
}

impl Key {
    fn of(pod: &PodInfo, note: &Note) -> Self {
        let Note { warning, reason, action, .. } = *note;
        Key { pod: pod.uid.clone(), version: pod.version, warning, reason, action }
    }
}

/// The events that can repeat, as they were written last.
#[derive(Default)]
struct Series {
    events: HashMap<Key, Event>,
    looks: u64,
}

impl Series {
    /// What is to be written of an event: itself when it is new, the beginning of its series when it comes again, and nothing while
    /// that goes on.
    fn take(&mut self, key: Key, event: Event, now: Timestamp) -> Option<Event> {
        let Some(known) = self.events.get_mut(&key) else {
            self.events.insert(key, event.clone());
            return Some(event);
        };
        let last_observed_time = MicroTime(now);
        if let Some(series) = &mut known.series {
            series.count += 1;
            series.last_observed_time = last_observed_time;
            return None;
        }
        known.series = Some(EventSeries { count: 2, last_observed_time });
        Some(known.clone())
    }

    /// Forgets what has ended; the series that are to be written.
    fn look(&mut self, now: Timestamp) -> Vec<Event> {
        self.looks += 1;
        let refresh = self.looks.is_multiple_of(REFRESH);
        let mut written = Vec::new();
        self.events.retain(|_, event| {
            let last = event.series.as_ref().map(|series| &series.last_observed_time).or(event.event_time.as_ref());
            let goes_on = last.is_some_and(|last| now.duration_since(last.0) <= SILENCE);
            if event.series.is_some() && (refresh || !goes_on) {
                written.push(event.clone());
            }
            goes_on
        });
        written
    }
}

impl Recorder {
    /// `instance` names this process.
    pub(crate) fn new(client: Client, instance: &str) -> Self {
        Recorder { client, instance: instance.into(), series: Arc::default() }
    }

    /// Writes an event; failing to is no reason to fail anything else.
    pub(crate) async fn record(&self, pod: &PodInfo, note: Note) {
        let now = Timestamp::now();
        let key = Key::of(pod, &note);
        let event = event(&self.instance, pod, note, now);
        // What goes well happens to a pod once.
        let event = if key.warning { self.series().take(key, event, now) } else { Some(event) };
        if let Some(event) = event {
            self.write(event).await;
        }
    }

    /// Writes the series that it is time for; to be called each [`LOOK`].
    pub(crate) async fn look(&self) {
        let due = self.series().look(Timestamp::now());
        for event in due {
            self.write(event).await;
        }
    }

    fn series(&self) -> std::sync::MutexGuard<'_, Series> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(&self, event: Event) {
        let name = event.metadata.name.as_deref().unwrap_or("");
        let events: Api<Event> =
            Api::namespaced(self.client.clone(), event.metadata.namespace.as_deref().unwrap_or("default"));
        if let Some(series) = &event.series {
            let patch = Patch::Strategic(serde_json::json!({ "series": series }));
            match events.patch(name, &PatchParams::default(), &patch).await {
                Ok(_) => return,
                // It has outlived its time in the API, and is told anew.
                Err(e) if crate::run::code(&e) == 404 => {}
                Err(e) => return tracing::debug!(event = name, "cannot write the series of an event: {e}"),
            }
        }
        if let Err(e) = events.create(&PostParams::default(), &event).await {
            tracing::debug!(event = name, "cannot write an event: {e}");
        }
    }
}

fn event(instance: &str, pod: &PodInfo, note: Note, now: Timestamp) -> Event {
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{:x}", pod.name, now.as_nanosecond())),
            namespace: Some(pod.namespace.to_string()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(note.reason.to_owned()),
        action: Some(note.action.to_owned()),
        note: Some(note.text),
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(pod.name.to_string()),
            namespace: Some(pod.namespace.to_string()),
            uid: Some(pod.uid.to_string()),
            resource_version: (pod.version > 0).then(|| pod.version.to_string()),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_is_one_event_with_a_series() {
        let mut series = Series::default();
        let start = Timestamp::from_second(1_700_000_000).expect("a time");
        let at = |seconds| start + SignedDuration::from_secs(seconds);
        let pod = |version| PodInfo { uid: "u".into(), name: "p".into(), version, ..PodInfo::default() };
        let take = |series: &mut Series, version, seconds| {
            let (pod, text) = (pod(version), "no room".to_owned());
            let note = Note { warning: true, reason: "FailedScheduling", action: "Scheduling", text };
            series.take(Key::of(&pod, &note), event("me", &pod, note, at(seconds)), at(seconds))
        };
        let first = take(&mut series, 1, 0).expect("new");
        assert!(first.series.is_none());
        let second = take(&mut series, 1, 10).expect("its series begins");
        assert_eq!((&second.metadata.name, second.series.map(|s| s.count)), (&first.metadata.name, Some(2)));
        assert!(take(&mut series, 1, 20).is_none(), "it goes on");
        // A pod that changed is another matter.
        assert!(take(&mut series, 2, 20).is_some_and(|event| event.series.is_none()));
        assert!(series.look(at(370)).is_empty(), "all go on");
        let ended = series.look(at(381));
        let ended: Vec<_> = ended.into_iter().filter_map(|event| event.series).collect();
        assert_eq!(ended, [EventSeries { count: 3, last_observed_time: MicroTime(at(20)) }]);
        assert!(series.events.is_empty(), "what came once has ended, too");
        // One that does not end is written again and again.
        take(&mut series, 1, 400);
        let written: Vec<usize> = (0..8)
            .map(|n| {
                take(&mut series, 1, 400 + n * 300);
                series.look(at(400 + n * 300)).len()
            })
            .collect();
        assert_eq!(written, [0, 0, 1, 0, 0, 0, 0, 1]);
    }
}
