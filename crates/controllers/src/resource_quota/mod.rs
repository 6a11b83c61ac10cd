//! Quotas: what is used of them, counted again whenever something goes that they count.
//!
//! Admission adds to the status what it lets in; this controller counts anew. Only kinds that some quota names are watched.

mod monitor;
mod plan;

use crate::informer::{Informer, key};
use crate::objects::{Pod, ResourceQuota};
use crate::pods;
use crate::queue::{Key, Queue};
use crate::{Context, Error, Running, gone_is_fine};
use api::quota::usage;
use futures::FutureExt;
use kube::api::{ApiResource, DynamicObject, ListParams, PostParams};
use kube::{Api, Client};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often everything is counted again, whatever happens (upstream's `--resource-quota-sync-period`).
const RESYNC: Duration = Duration::from_secs(300);
/// How long what admission has reserved may take to be stored. Before that, less than the status says is not believed.
const IN_FLIGHT: Duration = Duration::from_secs(1);

/// Group and plural of a counted kind.
type Counted = (String, String);

struct Controller {
    client: Client,
    quotas: Informer<ResourceQuota>,
    queue: Queue<Key>,
    monitors: monitor::Monitors,
    /// Kinds that were looked up by discovery; `None`: not served when last asked.
    resources: Mutex<HashMap<Counted, ApiResource>>,
    /// Quotas whose use seems to have sunk, in the version in which that was first seen.
    sinking: Mutex<HashMap<Key, String>>,
}

pub fn controller(context: &Context) -> Running {
    let quotas: Informer<ResourceQuota> = context.informers.of();
    let all_pods: Informer<Pod> = context.informers.of();
    let queue = Queue::<Key>::named(&context.config.queues, "resourcequota_primary");
    quotas.feed(&queue);
    let (q, of_namespace) = (queue.clone(), quotas.clone());
    all_pods.on_change(move |old, new| {
        let counts = |pod: &Pod| !pods::is_finished(pod);
        if let Some(pod) = old
            && counts(pod)
            && !new.is_some_and(|new| counts(new))
        {
            add_all(&q, &of_namespace, pod.metadata.namespace.as_deref().unwrap_or(""));
        }
    });
    let shutdown = context.shutdown.child_token();
    let client = context.clients.service_account("resourcequota-controller");
    let this = Arc::new(Controller {
        monitors: monitor::Monitors::new(client.clone(), queue.clone(), quotas.clone(), shutdown.clone()),
        client,
        quotas,
        queue,
        resources: Mutex::default(),
        sinking: Mutex::default(),
    });
    async move {
        // The monitors end with this future, also when it is dropped.
        let _ends = shutdown.clone().drop_guard();
        this.quotas.synced().await;
        let queue = this.queue.clone();
        queue.run("resourcequota", 5, shutdown, |key| this.clone().reconcile(key)).await;
        Ok(())
    }
    .boxed()
}

/// Asks for every quota of a namespace to be counted.
fn add_all(queue: &Queue<Key>, quotas: &Informer<ResourceQuota>, namespace: &str) {
    for quota in quotas.in_namespace(namespace) {
        queue.add(key(quota.as_ref()));
    }
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Option<Duration>, Error> {
        let Some(quota) = self.quotas.by_key(&key) else {
            self.sinking.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            return Ok(None);
        };
        let view = serde_json::json!({"spec": quota.spec, "status": quota.status});
        let hard = api::quota::amounts(&view, &["spec", "hard"]);
        let kinds: BTreeSet<(&str, &str)> = hard.keys().filter_map(|name| usage::counted_from(name)).collect();
        let mut objects = Vec::with_capacity(kinds.len());
        for (group, plural) in kinds {
            // What is not served (yet) is not used.
            if let Some(resource) = self.resource(group, plural).await? {
                if (group, plural) != ("", "pods") {
                    self.monitors.ensure(&resource);
                }
                objects.push(plan::Listed { group, plural, objects: self.list(&key.namespace, &resource).await? });
            }
        }
        let used = plan::used(&view, &hard, &objects, jiff::Timestamp::now());
        let Some(status) = plan::status(&view, &hard, &used) else {
            self.sinking.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            return Ok(Some(RESYNC));
        };
        let version = quota.metadata.resource_version.clone().unwrap_or_default();
        if plan::sinks(&view, &used) {
            let mut sinking = self.sinking.lock().unwrap_or_else(PoisonError::into_inner);
            if sinking.get(&key) != Some(&version) {
                sinking.insert(key, version);
                return Ok(Some(IN_FLIGHT));
            }
        }
        let written = self.write(&key, &quota, status).await;
        if let Some(written) = gone_is_fine(written)? {
            self.quotas.assume(written);
        }
        self.sinking.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        Ok(Some(RESYNC))
    }

    /// Writes the status of the version that was decided on. The controller may not read single quotas, so what it knows is
    /// written whole.
    async fn write(&self, key: &Key, quota: &ResourceQuota, status: Value) -> Result<ResourceQuota, kube::Error> {
        let body = serde_json::json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": quota.metadata,
            "spec": quota.spec, "status": status});
        let path = format!("/api/v1/namespaces/{}/resourcequotas", key.namespace);
        let request = kube::core::Request::new(path)
            .replace_subresource("status", &key.name, &PostParams::default(), body.to_string().into_bytes())
            .map_err(kube::Error::BuildRequest)?;
        self.client.request(request).await
    }

    /// How a kind is reached; remembered once it is served.
    async fn resource(&self, group: &str, plural: &str) -> Result<Option<ApiResource>, Error> {
        let id = (group.to_owned(), plural.to_owned());
        if let Some(known) = self.resources.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(Some(known.clone()));
        }
        let found = match gone_is_fine(kube::discovery::group(&self.client, group).await) {
            Ok(found) => found,
            // A group without resources is as good as none.
            Err(kube::Error::Discovery(_)) => None,
            Err(e) => return Err(e.into()),
        };
        let resource = found.and_then(|g| g.recommended_resources().into_iter().find(|(r, _)| r.plural == plural));
        let resource = resource.map(|(resource, _)| resource);
        if let Some(resource) = &resource {
            self.resources.lock().unwrap_or_else(PoisonError::into_inner).insert(id, resource.clone());
        }
        Ok(resource)
    }

    /// The objects of a kind in a namespace; whole only where more than their number is counted.
    async fn list(&self, namespace: &str, resource: &ApiResource) -> Result<Vec<Value>, Error> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, resource);
        let params = ListParams::default();
        if !usage::weighs_updates(&resource.group, &resource.plural) {
            let list = gone_is_fine(api.list_metadata(&params).await)?;
            return Ok(list.map_or_else(Vec::new, |list| list.items.iter().map(|_| Value::Null).collect()));
        }
        let Some(list) = gone_is_fine(api.list(&params).await)? else { return Ok(Vec::new()) };
        let values = list.items.into_iter().map(|mut object| {
            let annotations = object.metadata.annotations.take();
            let mut value = object.data;
            if let Some(map) = value.as_object_mut() {
                map.insert("metadata".into(), serde_json::json!({"annotations": annotations}));
            }
            value
        });
        Ok(values.collect())
    }
}
