//! What controllers of pods do with them: claim, create, delete, and tell of it in events.

use crate::events::{Kind, Recorder};
use crate::informer::{Informer, Object, key};
use crate::objects::Pod;
use crate::pods::{self, Claim};
use crate::queue::Key;
use crate::{Context, Error, gone_is_fine};
use api::selector::LabelSelector;
use futures::stream::{self, StreamExt};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::sync::Arc;

/// Pods created or deleted in one reconcile at most (upstream's burst).
pub(crate) const BURST: usize = 500;

/// The pods of one controller's objects.
pub(crate) struct PodControl {
    pub(crate) client: Client,
    pub(crate) pods: Informer<Pod>,
    pub(crate) recorder: Recorder,
}

fn namespace<K: Object>(of: &K) -> &str {
    of.meta().namespace.as_deref().unwrap_or("")
}

/// The reference by which an object controls others.
pub(crate) fn owner<K: Object>(object: &K) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference {
    pods::owner(&K::api_version(&()), &K::kind(&()), object.meta())
}

/// The pod of an owner's template, as JSON, with a name that is made up from the owner's.
pub(crate) fn body<K: Object>(of: &K, template: &Value) -> Value {
    let mut metadata = template.get("metadata").cloned().filter(Value::is_object).unwrap_or_else(|| json!({}));
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.retain(|k, _| matches!(k.as_str(), "labels" | "annotations" | "finalizers"));
        metadata.insert("generateName".into(), format!("{}-", of.meta().name.as_deref().unwrap_or("")).into());
        metadata.insert("ownerReferences".into(), json!([owner(of)]));
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template.get("spec")})
}

/// What the API server said, without the client's wrapping.
pub(crate) fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// In a namespace that goes away there is nobody to tell, and nothing to try again.
pub(crate) fn is_terminating(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.message.contains("being terminated"))
}

impl PodControl {
    pub(crate) fn new(context: &Context, account: &'static str, component: &'static str) -> Self {
        let client = context.clients.service_account(account);
        PodControl { pods: context.informers.of(), recorder: Recorder::new(client.clone(), component), client }
    }

    /// The pods that an object controls.
    pub(crate) fn owned<K: Object>(&self, of: &K) -> Vec<Arc<Pod>> {
        let uid = of.meta().uid.as_ref();
        let mut pods = self.pods.in_namespace(namespace(of));
        pods.retain(|p| pods::controller(&p.metadata).map(|o| &o.uid) == uid);
        pods
    }

    /// Adopts and releases, and gives the pods that are the object's afterwards. `adoptable` says which orphans it takes.
    pub(crate) async fn claim<K: Object>(
        &self,
        of: &K,
        selector: &LabelSelector,
        adoptable: impl Fn(&Pod) -> bool,
    ) -> Result<Vec<Arc<Pod>>, Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace(of));
        let mut ours = Vec::new();
        for pod in self.pods.in_namespace(namespace(of)) {
            let name = pod.metadata.name.as_deref().unwrap_or("");
            match pods::claim(of.meta(), pods::matches(selector, &pod.metadata), &pod.metadata) {
                Claim::Ours => ours.push(pod),
                Claim::Others => {}
                Claim::Adopt if !adoptable(&pod) => {}
                Claim::Adopt => {
                    let patch = pods::adoption(&owner(of), pod.metadata.uid.as_deref());
                    let adopted = api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await;
                    if let Some(pod) = gone_is_fine(adopted)? {
                        self.pods.assume(pod.clone());
                        ours.push(Arc::new(pod));
                    }
                }
                Claim::Release => {
                    let patch = pods::release(of.meta().uid.as_deref().unwrap_or(""), pod.metadata.uid.as_deref());
                    let released = api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await;
                    if let Some(pod) = gone_is_fine(released)? {
                        self.pods.assume(pod);
                    }
                }
            }
        }
        Ok(ours)
    }

    /// Creates one pod, without a word about it.
    pub(crate) async fn create_quietly(&self, namespace: &str, body: &Value) -> Result<Pod, kube::Error> {
        let request = kube::core::Request::new(format!("/api/v1/namespaces/{namespace}/pods"));
        let body = body.to_string().into_bytes();
        let request = request.create(&PostParams::default(), body).map_err(kube::Error::BuildRequest)?;
        let pod: Pod = self.client.request(request).await?;
        self.pods.assume(pod.clone());
        Ok(pod)
    }

    /// Creates pods in batches that double while all goes well, so that a refusal (a quota, say) is met once, not 500 times.
    pub(crate) async fn create<K: Object>(&self, of: &K, bodies: Vec<Value>) -> Result<(), Error> {
        let (mut rest, mut batch) = (bodies.into_iter(), 1);
        loop {
            let now: Vec<Value> = rest.by_ref().take(batch).collect();
            if now.is_empty() {
                return Ok(());
            }
            let results: Vec<Result<Pod, kube::Error>> = stream::iter(now)
                .map(|body| async move { self.create_quietly(namespace(of), &body).await })
                .buffer_unordered(batch)
                .collect()
                .await;
            let mut failure = None;
            for result in results {
                match result {
                    Ok(pod) => {
                        let name = pod.metadata.name.unwrap_or_default();
                        self.recorder.event(of, Kind::Normal, "SuccessfulCreate", format!("Created pod: {name}"));
                    }
                    Err(e) => failure = Some(e),
                }
            }
            if let Some(e) = failure {
                if is_terminating(&e) {
                    return Ok(());
                }
                self.recorder.event(of, Kind::Warning, "FailedCreate", format!("Error creating: {}", message(&e)));
                return Err(e.into());
            }
            batch *= 2;
        }
    }

    /// Deletes one pod, without a word about it; another of its name by now is left alone.
    pub(crate) async fn delete_quietly(&self, pod: &Pod) -> Result<(), kube::Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace(pod));
        let (key, uid) = (key(pod), pod.metadata.uid.clone());
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        match gone_is_fine(api.delete(&key.name, &params).await) {
            Ok(Some(either::Either::Left(pod))) => self.pods.assume(pod),
            Ok(_) => self.pods.assume_deleted(&key, uid.as_deref().unwrap_or("")),
            Err(e) if crate::code(&e) == 409 => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    pub(crate) async fn delete<K: Object>(&self, of: &K, pods: Vec<Arc<Pod>>) -> Result<(), Error> {
        let results: Vec<Result<(), kube::Error>> = stream::iter(pods)
            .map(|pod| async move {
                let name = pod.metadata.name.as_deref().unwrap_or("");
                match self.delete_quietly(&pod).await {
                    Ok(()) => {
                        self.recorder.event(of, Kind::Normal, "SuccessfulDelete", format!("Deleted pod: {name}"));
                        Ok(())
                    }
                    Err(e) => {
                        let text = format!("Error deleting: {}", message(&e));
                        self.recorder.event(of, Kind::Warning, "FailedDelete", text);
                        Err(e)
                    }
                }
            })
            .buffer_unordered(32)
            .collect()
            .await;
        results.into_iter().collect::<Result<Vec<()>, _>>()?;
        Ok(())
    }
}

/// Asks for the owner of every pod that changes; an orphan's, for whoever selects it.
pub(crate) fn feed_owners<K: Object>(
    pods: &Informer<Pod>,
    owners: &Informer<K>,
    queue: &crate::queue::Queue<Key>,
    selects: impl Fn(&K, &Pod) -> bool + Send + Sync + 'static,
) {
    let (queue, owners) = (queue.clone(), owners.clone());
    let kind = K::kind(&()).into_owned();
    pods.on_change(move |old, new| {
        for pod in [old, new].into_iter().flatten() {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
            match pods::controller(&pod.metadata) {
                Some(owner) if owner.kind == kind => queue.add(Key::new(namespace, &owner.name)),
                Some(_) => {}
                // An orphan may be adopted by whoever selects it.
                None if pod.metadata.deletion_timestamp.is_none() => {
                    for owner in owners.in_namespace(namespace) {
                        if selects(&owner, pod) {
                            queue.add(key(owner.as_ref()));
                        }
                    }
                }
                None => {}
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::ReplicaSet;

    #[test]
    fn the_pod_of_a_template() -> Result<(), serde_json::Error> {
        let set: ReplicaSet = serde_json::from_value(json!({"metadata": {"name": "s", "uid": "u"}}))?;
        let template = json!({"metadata": {"name": "x", "labels": {"app": "x"}}, "spec": {}});
        let pod = body(&set, &template);
        assert_eq!(pod["metadata"]["generateName"], "s-");
        assert_eq!(pod["metadata"]["labels"]["app"], "x");
        assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], "u");
        assert_eq!(pod["metadata"]["ownerReferences"][0]["apiVersion"], "apps/v1");
        assert!(pod["metadata"].get("name").is_none());
        Ok(())
    }
}
