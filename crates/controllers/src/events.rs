//! Events: what the controllers tell people, as core/v1 Events; the same one again is counted, not written again.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// How many distinct events are remembered for counting.
const REMEMBERED: usize = 1024;

/// Whether an event tells of the normal course or of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Normal,
    Warning,
}

type Seen = HashMap<(String, Kind, String, String), (String, i32)>;

/// Writes events about objects in the name of a component; never waits and never fails its caller.
#[derive(Clone)]
pub struct Recorder {
    client: Client,
    component: &'static str,
    seen: Arc<Mutex<Seen>>,
}

/// The reference to an object as events carry it.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

impl Recorder {
    pub fn new(client: Client, component: &'static str) -> Self {
        Recorder { client, component, seen: Arc::default() }
    }

    /// Says something about an object.
    pub fn event<K: Resource<DynamicType = ()>>(&self, object: &K, kind: Kind, reason: &str, message: String) {
        self.about(reference(object), kind, reason, message);
    }

    /// Says something about what a reference names.
    pub fn about(&self, involved: ObjectReference, kind: Kind, reason: &str, message: String) {
        let this = self.clone();
        let reason = reason.to_owned();
        tokio::spawn(async move {
            if let Err(e) = this.write(involved, kind, &reason, message).await {
                tracing::debug!(reason, "cannot write an event: {e}");
            }
        });
    }

    async fn write(
        &self,
        involved: ObjectReference,
        kind: Kind,
        reason: &str,
        message: String,
    ) -> Result<(), kube::Error> {
        let namespace = involved.namespace.clone().unwrap_or_else(|| "default".into());
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let now = Timestamp::now();
        let subject = involved.uid.clone().or_else(|| involved.name.clone()).unwrap_or_default();
        let identity = (subject, kind, reason.to_owned(), message.clone());
        let again = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.len() > REMEMBERED {
                seen.clear();
            }
            seen.get_mut(&identity).map(|(name, count)| {
                *count += 1;
                (name.clone(), *count)
            })
        };
        if let Some((name, count)) = again {
            let patch = serde_json::json!({"count": count, "lastTimestamp": Time(now)});
            match events.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Err(e) if crate::code(&e) == 404 => {}
                other => return other.map(drop),
            }
        }
        let name = format!("{}.{:x}", involved.name.clone().unwrap_or_default(), now.as_nanosecond());
        let event = Event {
            metadata: ObjectMeta { name: Some(name.clone()), namespace: Some(namespace), ..ObjectMeta::default() },
            involved_object: involved,
            reason: Some(reason.to_owned()),
            message: Some(message),
            type_: Some(
                match kind {
                    Kind::Normal => "Normal",
                    Kind::Warning => "Warning",
                }
                .to_owned(),
            ),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(1),
            source: Some(EventSource { component: Some(self.component.to_owned()), host: None }),
            reporting_component: Some(self.component.to_owned()),
            ..Event::default()
        };
        events.create(&PostParams::default(), &event).await?;
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(identity, (name, 1));
        Ok(())
    }
}
