//! Events that the server tells itself: of its own controllers, as there is nobody else who would.

use crate::context::Context;
use crate::options::Options;
use crate::registry::mutation::Change;
use crate::registry::{Place, Registry, Served, complete};
use crate::user::UserInfo;
use api::Status;
use api::events::{Correlator, Delivery, Event, Failure, Next, Report, Request, Source};
use jiff::{SignedDuration, Timestamp};
use schema::{Map, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// After which silence an event that comes again is another one.
const SILENCE: SignedDuration = SignedDuration::from_secs(360);

fn served(registry: &Registry) -> Result<Arc<Served>, Status> {
    registry.served("", "v1", "events").ok_or_else(|| Status::internal("events are not served"))
}

/// Whoever tells it, the server writes it.
fn context() -> Context {
    Context::new(Arc::new(UserInfo::apiserver()), "kube-apiserver", Timestamp::now())
}

fn tree(json: &serde_json::Value) -> Result<Value, Status> {
    schema::json::parse(json.to_string().as_bytes()).map_err(|error| Status::internal(error.to_string()))
}

/// Makes an event.
async fn create(registry: &Registry, namespace: &str, event: &serde_json::Value) -> Result<(), Status> {
    let served = served(registry)?;
    let ty = served.resource.schema.root();
    let decoded = schema::json::decode(ty, event.to_string().as_bytes());
    let mut object = decoded.map_err(|error| Status::internal(error.to_string()))?.object;
    complete::complete(ty, &mut object, None);
    registry.create(&context(), &served, namespace, object, &Options::default()).await.map(drop)
}

/// Sets these members of an event that is there.
async fn change(
    registry: &Registry,
    (namespace, name): (&str, &str),
    members: &[(&'static str, Value)],
) -> Result<(), Status> {
    let served = served(registry)?;
    let place = Place { namespace, name, subresource: "" };
    let change = Change(|object: &mut Map| {
        if object.is_empty() {
            return Err(Status::not_found(&served.group_resource(), name));
        }
        for (key, value) in members {
            object.insert(*key, value.clone());
        }
        Ok(())
    });
    registry.update(&context(), &served, place, &change, &Options::default()).await.map(drop)
}

/// Tells as client-go's `record` does: what repeats is counted.
#[derive(Debug)]
pub(crate) struct Counting(Correlator);

impl Counting {
    pub(crate) fn new(controller: &'static str) -> Self {
        let source = Source { component: controller.to_owned(), host: String::new() };
        Counting(Correlator::new(source))
    }

    /// Tells it, unless its object has been told of too much; failing to is no reason to fail anything else. Whether it is told.
    pub(crate) async fn tell(&mut self, registry: &Registry, report: &Report) -> bool {
        let Some(mut delivery) = self.0.take(report) else { return false };
        loop {
            let answer = Self::send(registry, &delivery).await;
            let next =
                delivery.answered(answer.as_ref().map(drop).map_err(|status| Failure::refused(status.code, None)));
            match (next, answer) {
                (Next::Now, _) => {}
                (Next::After(wait), _) => tokio::time::sleep(wait).await,
                (Next::Done, Ok(())) => return true,
                (Next::Done, Err(status)) => {
                    tracing::warn!(reason = report.reason, why = status.message, "an event could not be written");
                    return false;
                }
            }
        }
    }

    async fn send(registry: &Registry, delivery: &Delivery) -> Result<(), Status> {
        match delivery.request() {
            Request::Create(event) => create(registry, &event.metadata.namespace, &event.object()).await,
            Request::Count(Event { metadata, .. }, patch) => {
                let of = |key| Ok((key, tree(&patch[key])?));
                let members =
                    ["count", "lastTimestamp", "message"].into_iter().map(of).collect::<Result<Vec<_>, Status>>()?;
                change(registry, (&metadata.namespace, &metadata.name), &members).await
            }
        }
    }
}

/// What makes two events the same: all but what they say.
type Key = (api::events::Reference, String, &'static str);

struct Told {
    namespace: String,
    name: String,
    count: i64,
    last: Timestamp,
}

/// Tells as client-go's `events` does: with an action, and what repeats as a series.
pub(crate) struct Acting {
    controller: &'static str,
    instance: String,
    told: HashMap<Key, Told>,
}

impl Acting {
    /// `host` is what the machine is called.
    pub(crate) fn new(controller: &'static str, host: &str) -> Self {
        Acting { controller, instance: format!("{controller}-{host}"), told: HashMap::new() }
    }

    /// Tells it; failing to is no reason to fail anything else.
    pub(crate) async fn tell(&mut self, registry: &Registry, report: &Report, action: &'static str) {
        if let Err(status) = self.try_tell(registry, report, action).await {
            tracing::warn!(reason = report.reason, why = status.message, "an event could not be written");
        }
    }

    async fn try_tell(&mut self, registry: &Registry, report: &Report, action: &'static str) -> Result<(), Status> {
        self.told.retain(|_, told| report.at.duration_since(told.last) <= SILENCE);
        let time = report.at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        let key = (report.about.clone(), report.reason.clone(), action);
        if let Some(told) = self.told.get_mut(&key) {
            told.count += 1;
            told.last = report.at;
            let series = tree(&serde_json::json!({"count": told.count, "lastObservedTime": time}))?;
            match change(registry, (&told.namespace, &told.name), &[("series", series)]).await {
                // It has outlived its time in the API, and is told anew.
                Err(status) if status.code == 404 => {}
                other => return other,
            }
        }
        let event = Event::new(&Source::default(), report);
        let mut object = event.object();
        if let Some(members) = object.as_object_mut() {
            for old in ["count", "firstTimestamp", "lastTimestamp"] {
                members.remove(old);
            }
        }
        object["eventTime"] = time.into();
        object["action"] = action.into();
        object["reportingComponent"] = self.controller.into();
        object["reportingInstance"] = self.instance.as_str().into();
        let (namespace, name) = (event.metadata.namespace, event.metadata.name);
        create(registry, &namespace, &object).await?;
        self.told.insert(key, Told { namespace, name, count: 1, last: report.at });
        Ok(())
    }
}
