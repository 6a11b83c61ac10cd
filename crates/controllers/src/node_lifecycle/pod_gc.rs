//! Removes pods that no kubelet will remove: those of nodes that are gone, and unscheduled ones being deleted.

use crate::informer::{Informer, key};
use crate::objects::{Node, Pod};
use crate::queue::{Key, Queue};
use crate::{Context, Error, Running, gone_is_fine, pods};
use futures::FutureExt;
use jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a node must be missing before its pods are held orphaned (upstream's quarantine).
const QUARANTINE: Duration = Duration::from_secs(40);

struct Controller {
    client: Client,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    missing_since: Mutex<HashMap<String, Instant>>,
}

pub fn controller(context: &Context) -> Running {
    let this = Arc::new(Controller {
        client: context.clients.service_account("pod-garbage-collector"),
        nodes: context.informers.of(),
        pods: context.informers.of(),
        missing_since: Mutex::default(),
    });
    let queue = Queue::<Key>::named(&context.config.queues, "orphaned_pods_nodes");
    let (q, nodes) = (queue.clone(), this.nodes.clone());
    this.pods.on_change(move |_, new| {
        if let Some(pod) = new {
            let unscheduled_leaving = pod.spec.node_name.is_empty() && pod.metadata.deletion_timestamp.is_some();
            let orphaned = !pod.spec.node_name.is_empty() && nodes.get("", &pod.spec.node_name).is_none();
            if unscheduled_leaving || orphaned {
                q.add(key(pod.as_ref()));
            }
        }
    });
    let (q, pods) = (queue.clone(), this.pods.clone());
    this.nodes.on_change(move |old, new| {
        if let (Some(node), None) = (old, new) {
            for pod in pods.all().iter().filter(|p| Some(&p.spec.node_name) == node.metadata.name.as_ref()) {
                q.add(key(pod.as_ref()));
            }
        }
    });
    let shutdown = context.shutdown.clone();
    async move {
        this.nodes.synced().await;
        this.pods.synced().await;
        queue.run("pod-garbage-collector", 4, shutdown, |key| this.clone().reconcile(key)).await;
        Ok(())
    }
    .boxed()
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Option<Duration>, Error> {
        let Some(pod) = self.pods.by_key(&key) else { return Ok(None) };
        let node = &pod.spec.node_name;
        if node.is_empty() {
            if pod.metadata.deletion_timestamp.is_some() {
                self.remove(&key, &pod).await?;
            }
            return Ok(None);
        }
        let there = self.nodes.get("", node).is_some();
        let wait = {
            let mut missing = self.missing_since.lock().unwrap_or_else(PoisonError::into_inner);
            if there {
                missing.remove(node);
                return Ok(None);
            }
            let since = *missing.entry(node.clone()).or_insert_with(Instant::now);
            (since + QUARANTINE).saturating_duration_since(Instant::now())
        };
        if !wait.is_zero() {
            return Ok(Some(wait));
        }
        let api: Api<Node> = Api::all(self.client.clone());
        if api.get_metadata_opt(node).await?.is_some() {
            return Ok(Some(QUARANTINE));
        }
        self.remove(&key, &pod).await?;
        Ok(None)
    }

    async fn remove(&self, key: &Key, pod: &Pod) -> Result<(), Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        if !pods::is_finished(pod) && !pod.spec.node_name.is_empty() {
            let condition = json!({
                "type": "DisruptionTarget",
                "observedGeneration": pod.metadata.generation,
                "status": "True",
                "reason": "DeletionByPodGC",
                "message": "PodGC: node no longer exists",
                "lastTransitionTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            });
            let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"phase": "Failed", "conditions": [condition]}});
            gone_is_fine(api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await)?;
        }
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        match gone_is_fine(api.delete(&key.name, &params).await)? {
            // A finalizer may still hold it, and somebody needs to see that.
            Some(either::Either::Left(leaving)) => self.pods.assume(leaving),
            _ => self.pods.assume_deleted(key, pod.metadata.uid.as_deref().unwrap_or("")),
        }
        Ok(())
    }
}
