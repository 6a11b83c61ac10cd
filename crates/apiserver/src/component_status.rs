//! `componentstatuses`: scheduler, controller manager and store, as they are now. Deprecated, and still asked for by
//! people and monitoring.
//!
//! Upstream knocks at `127.0.0.1` on the usual ports of its components, and so knows only those of its own machine. Here
//! a component is healthy as long as its leader renews its Lease, wherever it runs.

use crate::context::Context;
use crate::lookup::{LEASES, Lookup};
use crate::registry::{Served, Virtual};
use api::{Reason, Status};
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use schema::{Map, Value};
use std::sync::Arc;
use store::Store;

/// Component and the Lease in `kube-system` that its leader holds.
const LED: [(&str, &str); 2] = [("controller-manager", "kube-controller-manager"), ("scheduler", "kube-scheduler")];
/// The store; upstream numbers its etcd servers, here it is one whatever is behind it.
const STORE: &str = "etcd-0";

/// Answers with one object a component.
pub struct ComponentStatuses {
    pub objects: Arc<dyn Lookup>,
    pub store: Arc<dyn Store>,
}

/// `Ok`, or the condition's message and error.
type Health = Result<(), (String, String)>;

impl ComponentStatuses {
    fn led(&self, lease: &str, now: Timestamp) -> Health {
        let found = self.objects.get(LEASES, "kube-system", lease).map_err(|error| (String::new(), error.message))?;
        let Some(found) = found else {
            return Err((format!("nobody holds the lease kube-system/{lease}"), String::new()));
        };
        let renewed = found.str_at(&["spec", "renewTime"]).parse::<Timestamp>();
        let seconds = found.at(&["spec", "leaseDurationSeconds"]).and_then(Value::as_i64).unwrap_or(0);
        let holder = found.str_at(&["spec", "holderIdentity"]);
        match renewed {
            _ if holder.is_empty() => Err((format!("nobody holds the lease kube-system/{lease}"), String::new())),
            Ok(renewed) if now.duration_since(renewed) <= SignedDuration::from_secs(seconds) => Ok(()),
            _ => Err((format!("the lease kube-system/{lease} of {holder} has run out"), String::new())),
        }
    }

    async fn stored(&self) -> Health {
        match self.store.health().await {
            Ok(None) => Ok(()),
            Ok(Some(why)) => Err((why, String::new())),
            Err(error) => Err((String::new(), error.to_string())),
        }
    }

    /// `None`: there is no component of this name.
    async fn status(&self, cx: &Context, served: &Served, name: &str) -> Option<Map> {
        let health = match LED.iter().find(|(component, _)| *component == name) {
            Some((_, lease)) => self.led(lease, cx.now),
            None if name == STORE => self.stored().await,
            None => return None,
        };
        let mut condition = Map::new();
        condition.insert("type", "Healthy");
        condition.insert("status", if health.is_ok() { "True" } else { "False" });
        let (message, error) = health.map_or_else(|told| told, |()| ("ok".to_owned(), String::new()));
        for (key, text) in [("message", message), ("error", error)] {
            if !text.is_empty() {
                condition.insert(key, text);
            }
        }
        let mut object = Map::new();
        served.stamp(&mut object);
        object.set_at(&["metadata", "name"], name);
        object.insert("conditions", vec![Value::Map(condition)]);
        Some(object)
    }
}

#[async_trait]
impl Virtual for ComponentStatuses {
    async fn get(&self, cx: &Context, served: &Arc<Served>, _namespace: &str, name: &str) -> Result<Map, Status> {
        // Upstream answers with an error that is no Status, which is this.
        let missing = || Status::new(500, Reason::Unknown, format!("Component not found: {name}"));
        self.status(cx, served, name).await.ok_or_else(missing)
    }

    async fn list(&self, cx: &Context, served: &Arc<Served>, _namespace: &str) -> Result<Vec<Map>, Status> {
        let mut items = Vec::new();
        for name in LED.iter().map(|(component, _)| *component).chain([STORE]) {
            items.extend(self.status(cx, served, name).await);
        }
        Ok(items)
    }
}
