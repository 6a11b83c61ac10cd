//! Judges nodes by their Leases: one that stops renewing is Unknown, tainted, and its pods are no longer ready.

use super::taints;
use crate::events::{Kind, Recorder};
use crate::informer::{Informer, key};
use crate::objects::{Node, Pod};
use crate::queue::{Key, Queue};
use crate::{Context, Error, Running, gone_is_fine, pods};
use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::NodeCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

const LEASES: &str = "kube-node-lease";

struct Controller {
    client: Client,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    leases: Informer<Lease>,
    recorder: Recorder,
    grace: Duration,
    /// When each node was last seen alive, by this machine's clock: a node's own clock may be wrong.
    seen: Mutex<HashMap<String, Seen>>,
}

#[derive(Clone, PartialEq)]
struct Sign {
    renewed: Option<MicroTime>,
    heartbeat: Option<Time>,
}

struct Seen {
    /// As it was first seen, for what is told of it when it is gone.
    node: Arc<Node>,
    sign: Sign,
    at: Instant,
}

pub fn controller(context: &Context) -> Running {
    let client = context.clients.service_account("node-controller");
    let this = Arc::new(Controller {
        nodes: context.informers.of(),
        pods: context.informers.of(),
        leases: context.informers.of(),
        recorder: Recorder::new(client.clone(), "node-controller"),
        client,
        grace: context.config.node_monitor_grace,
        seen: Mutex::default(),
    });
    let queue = Queue::<Key>::named(&context.config.queues, "node_lifecycle_controller");
    let q = queue.clone();
    this.nodes.on_change(move |old, new| {
        if let Some(node) = new.or(old) {
            q.add(key(node.as_ref()));
        }
    });
    // A renewal makes a node that was given up alive again; otherwise it only moves the deadline, which is looked at then.
    let (q, nodes) = (queue.clone(), this.nodes.clone());
    this.leases.on_change(move |_, new| {
        if let Some(lease) = new.filter(|l| l.metadata.namespace.as_deref() == Some(LEASES)) {
            let name = lease.metadata.name.as_deref().unwrap_or("");
            let given_up = nodes.get("", name).is_some_and(|n| ready(&n).is_some_and(|c| c.status == "Unknown"));
            if given_up {
                q.add(Key::new("", name));
            }
        }
    });
    let shutdown = context.shutdown.clone();
    async move {
        this.nodes.synced().await;
        this.pods.synced().await;
        this.leases.synced().await;
        queue.run("node-lifecycle", 4, shutdown, |key| this.clone().reconcile(key)).await;
        Ok(())
    }
    .boxed()
}

fn ready(node: &Node) -> Option<&NodeCondition> {
    node.status.conditions.iter().find(|c| c.type_ == "Ready")
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Option<Duration>, Error> {
        let Some(node) = self.nodes.by_key(&key) else {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(&key.name);
            if let Some(seen) = seen {
                self.tell(&seen.node, "RemovingNode", "Removing", "from");
            }
            return Ok(None);
        };
        let left = self.time_left(&node);
        if left.is_zero() && ready(&node).is_none_or(|c| c.status != "Unknown") {
            self.give_up(&node).await?;
        }
        let node = self.nodes.by_key(&key).unwrap_or(node);
        if let Some(taints) = taints::wanted(&node, Timestamp::now()) {
            let api: Api<Node> = Api::all(self.client.clone());
            let patch = json!({"metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
                "spec": {"taints": taints}});
            let written = api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
            if let Some(node) = gone_is_fine(written)? {
                self.nodes.assume(node);
            }
        }
        if ready(&node).is_some_and(|c| c.status != "True") {
            self.mark_pods_unready(&node).await?;
        }
        // Given up: the next Lease or status brings it back.
        Ok((!left.is_zero()).then_some(left + Duration::from_millis(100)))
    }

    /// Says that a node has come or gone.
    fn tell(&self, node: &Node, reason: &'static str, does: &str, place: &str) {
        let name = node.metadata.name.as_deref().unwrap_or("");
        let text = format!("Node {name} event: {does} Node {name} {place} Controller");
        self.recorder.event(node, Kind::Normal, reason, text);
    }

    /// How long the node may still be silent.
    fn time_left(&self, node: &Arc<Node>) -> Duration {
        let name = node.metadata.name.as_deref().unwrap_or("");
        let lease = self.leases.get(LEASES, name);
        let sign = Sign {
            renewed: lease.and_then(|l| l.spec.as_ref().and_then(|s| s.renew_time.clone())),
            heartbeat: ready(node).filter(|c| c.status != "Unknown").and_then(|c| c.last_heartbeat_time.clone()),
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let entry = seen.entry(name.to_owned()).or_insert_with(|| {
            self.tell(node, "RegisteredNode", "Registered", "in");
            Seen { node: node.clone(), sign: sign.clone(), at: now }
        });
        if entry.sign != sign {
            (entry.sign, entry.at) = (sign, now);
        }
        (entry.at + self.grace).saturating_duration_since(now)
    }

    async fn give_up(&self, node: &Node) -> Result<(), Error> {
        let now = Time(Timestamp::now());
        let name = node.metadata.name.as_deref().unwrap_or("");
        let unknown = |type_: &str| {
            let known = node.status.conditions.iter().find(|c| c.type_ == type_);
            let (reason, message) = match known {
                Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
                None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
            };
            let heartbeat =
                known.and_then(|c| c.last_heartbeat_time.clone()).or(node.metadata.creation_timestamp.clone());
            json!({"type": type_, "status": "Unknown", "reason": reason, "message": message,
                "lastHeartbeatTime": heartbeat, "lastTransitionTime": now})
        };
        let conditions: Vec<_> =
            ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"].into_iter().map(unknown).collect();
        let api: Api<Node> = Api::all(self.client.clone());
        let patch = json!({"metadata": {"uid": node.metadata.uid}, "status": {"conditions": conditions}});
        let written = api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        if let Some(written) = gone_is_fine(written)? {
            self.nodes.assume(written);
            self.recorder.event(node, Kind::Normal, "NodeNotReady", format!("Node {name} status is now: NodeNotReady"));
        }
        Ok(())
    }

    /// Endpoints must not lead to a node that is silent.
    async fn mark_pods_unready(&self, node: &Node) -> Result<(), Error> {
        let name = node.metadata.name.as_deref().unwrap_or("");
        for pod in self.pods.all() {
            if pod.spec.node_name != name || !pods::is_ready(&pod) {
                continue;
            }
            let api: Api<Pod> = Api::namespaced(self.client.clone(), pod.metadata.namespace.as_deref().unwrap_or(""));
            let condition = json!({
                "type": "Ready",
                "status": "False",
                "lastTransitionTime": Time(Timestamp::now()),
                "observedGeneration": pod.metadata.generation,
            });
            let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
            let own = pod.metadata.name.as_deref().unwrap_or("");
            let written = api.patch_status(own, &PatchParams::default(), &Patch::Strategic(patch)).await;
            if let Some(written) = gone_is_fine(written)? {
                self.pods.assume(written);
                self.recorder.event(pod.as_ref(), Kind::Warning, "NodeNotReady", "Node is not ready".to_owned());
            }
        }
        Ok(())
    }
}
