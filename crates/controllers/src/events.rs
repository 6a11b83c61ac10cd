//! Events: what the controllers tell people, as core/v1 Events. What is told of it is decided by [`Correlator`].

pub use api::events::{Kind, Source};

use api::events::{Correlator, Delivery, Failure, Next, QUEUED, Reference, Report, Request};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use serde_json::Value;
use tokio::sync::mpsc;

/// Writes events about objects in the name of a component; never waits and never fails its caller.
#[derive(Clone, Debug)]
pub struct Recorder {
    reports: mpsc::Sender<Report>,
}

/// The reference to an object as others carry it.
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
    /// What it is told is sent as long as the runtime runs that this is called in, also when all its copies are gone.
    pub fn new(client: Client, component: &'static str) -> Self {
        Self::of(client, Source { component: component.to_owned(), host: String::new() })
    }

    /// The same, of whoever is on a node.
    pub fn of(client: Client, source: Source) -> Self {
        let (reports, told) = mpsc::channel(QUEUED);
        tokio::spawn(send(client, Correlator::new(source), told));
        Recorder { reports }
    }

    /// Says something about an object.
    pub fn event<K: Resource<DynamicType = ()>>(&self, object: &K, kind: Kind, reason: &str, message: String) {
        let meta = object.meta();
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let about = Reference {
            kind: K::kind(&()).into_owned(),
            namespace: text(&meta.namespace),
            name: text(&meta.name),
            uid: text(&meta.uid),
            api_version: K::api_version(&()).into_owned(),
            resource_version: text(&meta.resource_version),
            field_path: String::new(),
        };
        let report = Report { about, kind, reason: reason.to_owned(), message, at: Timestamp::now() };
        if self.reports.try_send(report).is_err() {
            tracing::debug!(reason, "an event is dropped: too many wait to be sent");
        }
    }
}

async fn send(client: Client, mut correlator: Correlator, mut reports: mpsc::Receiver<Report>) {
    while let Some(report) = reports.recv().await {
        let Some(mut delivery) = correlator.take(&report) else { continue };
        loop {
            let sent = ask(&client, &delivery).await;
            if let Err(error) = &sent {
                tracing::debug!(reason = report.reason, "cannot write an event: {error}");
            }
            match delivery.answered(sent.map_err(|error| failure(&error))) {
                Next::Done => break,
                Next::Now => {}
                Next::After(wait) => tokio::time::sleep(wait).await,
            }
        }
    }
}

fn failure(error: &kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) => {
            Failure::refused(status.code, status.details.as_ref().map(|details| details.retry_after_seconds))
        }
        kube::Error::BuildRequest(_) | kube::Error::HttpError(_) => Failure::Unsendable,
        _ => Failure::NoAnswer,
    }
}

async fn ask(client: &Client, delivery: &Delivery) -> Result<(), kube::Error> {
    let request = match delivery.request() {
        Request::Create(event) => kube::core::Request::new(event.collection())
            .create(&PostParams::default(), event.object().to_string().into_bytes()),
        Request::Count(event, patch) => kube::core::Request::new(event.collection()).patch(
            &event.metadata.name,
            &PatchParams::default(),
            &Patch::Strategic(patch),
        ),
    };
    client.request::<Value>(request.map_err(kube::Error::BuildRequest)?).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;
    use tokio::sync::watch;

    type Events = serde_json::Map<String, Value>;

    /// An API that has events by their names, and nothing else.
    fn api(events: watch::Sender<Events>) -> Client {
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let events = events.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body: Value = serde_json::from_slice(&body.collect().await?.to_bytes())?;
                let last = parts.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
                let mut answer = (200, json!({}));
                events.send_modify(|events| {
                    if parts.method == http::Method::POST {
                        let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                        events.insert(name, body.clone());
                    } else if let Some(Value::Object(known)) = events.get_mut(&last) {
                        known.extend(body.as_object().cloned().unwrap_or_default());
                    } else {
                        let status =
                            json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "message": ""});
                        answer = (404, status);
                        answer.1["code"] = 404.into();
                    }
                });
                let body = http_body_util::Full::new(answer.1.to_string().into_bytes().into());
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(
                    http::Response::builder().status(answer.0).body::<http_body_util::Full<bytes::Bytes>>(body)?,
                )
            }
        });
        Client::new(service, "default")
    }

    #[tokio::test]
    async fn what_is_told_again_is_counted_where_it_still_is_and_made_anew_where_not() {
        let events: watch::Sender<Events> = watch::Sender::default();
        let mut seen = events.subscribe();
        let recorder = Recorder::new(api(events.clone()), "some-controller");
        let mut map = ConfigMap::default();
        map.metadata.name = Some("m".into());
        map.metadata.namespace = Some("n".into());
        let tell = || recorder.event(&map, Kind::Warning, "Failed", "it failed".into());
        let is_counted = |count: u64| {
            move |events: &Events| events.len() == 1 && events.values().all(|event| event["count"] == json!(count))
        };
        tell();
        tell();
        let first = seen.wait_for(is_counted(2)).await.expect("told").clone();
        let event = first.values().next().expect("one");
        assert_eq!((&event["reason"], &event["type"]), (&json!("Failed"), &json!("Warning")));
        assert_eq!(event["involvedObject"]["apiVersion"], "v1");
        events.send_modify(Events::clear);
        tell();
        let anew = seen.wait_for(is_counted(3)).await.expect("told").clone();
        assert!(anew.keys().eq(first.keys()));
        // What differs in its words only becomes one event in the end, and a flood ends.
        for n in 0..30 {
            recorder.event(&map, Kind::Warning, "Other", format!("number {n}"));
        }
        let mut last = ConfigMap::default();
        last.metadata.name = Some("last".into());
        recorder.event(&last, Kind::Normal, "Done", "done".into());
        let all = seen.wait_for(|events| events.values().any(|event| event["reason"] == "Done")).await.expect("told");
        let counts = all.values().filter(|event| event["reason"] == "Other").map(|event| &event["count"]);
        // 25 of this object in all: three of the other reason, nine with their own words, and the rest in one.
        assert_eq!(counts.filter_map(Value::as_u64).collect::<Vec<_>>().iter().sum::<u64>(), 22);
        let combined = all.values().find(|event| event["message"].as_str().is_some_and(|m| m.starts_with("(combined")));
        assert_eq!(combined.expect("combined")["message"], "(combined from similar events): number 21");
    }
}
