//! Taint-based eviction: pods that do not tolerate their node's `NoExecute` taints are deleted, at once or when the
//! time they tolerate them is over.

use crate::events::{Kind, Recorder};
use crate::informer::{Informer, key};
use crate::objects::{Node, Pod};
use crate::queue::{Key, Queue};
use crate::{Context, Error, Running, gone_is_fine};
use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Taint, Toleration};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

struct Controller {
    client: Client,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    recorder: Recorder,
}

pub fn controller(context: &Context) -> Running {
    let client = context.clients.service_account("node-controller");
    let this = Arc::new(Controller {
        nodes: context.informers.of(),
        pods: context.informers.of(),
        recorder: Recorder::new(client.clone(), "taint-eviction-controller"),
        client,
    });
    let queue = Queue::<Key>::named(&context.config.queues, "noexec_taint_pod");
    let (q, pods) = (queue.clone(), this.pods.clone());
    this.nodes.on_change(move |old, new| {
        let taints = |n: Option<&Arc<Node>>| n.map(|n| no_execute(n)).unwrap_or_default();
        if taints(old) != taints(new) {
            let name = new.or(old).and_then(|n| n.metadata.name.clone()).unwrap_or_default();
            for pod in pods.all().iter().filter(|p| p.spec.node_name == name) {
                q.add(key(pod.as_ref()));
            }
        }
    });
    let (q, nodes) = (queue.clone(), this.nodes.clone());
    this.pods.on_change(move |_, new| {
        if let Some(pod) = new.filter(|p| !p.spec.node_name.is_empty())
            && nodes.get("", &pod.spec.node_name).is_some_and(|n| !no_execute(&n).is_empty())
        {
            q.add(key(pod.as_ref()));
        }
    });
    let shutdown = context.shutdown.clone();
    async move {
        this.nodes.synced().await;
        this.pods.synced().await;
        queue.run("taint-eviction", 8, shutdown, |key| this.clone().reconcile(key)).await;
        Ok(())
    }
    .boxed()
}

fn no_execute(node: &Node) -> Vec<Taint> {
    node.spec.taints.iter().filter(|t| t.effect == "NoExecute").cloned().collect()
}

/// How a pod stands to its node's taints.
#[derive(Debug, PartialEq)]
enum Verdict {
    Stays,
    /// Seconds from the first taint on.
    LeavesAt(Timestamp),
    Leaves,
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or("");
    let key = toleration.key.as_deref().unwrap_or("");
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "Equal" | "" => {
            !key.is_empty() && toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or("")
        }
        _ => false,
    }
}

fn verdict(taints: &[Taint], tolerations: &[Toleration], now: Timestamp) -> Verdict {
    let mut shortest: Option<i64> = None;
    for taint in taints {
        let matching: Vec<&Toleration> = tolerations.iter().filter(|t| tolerates(t, taint)).collect();
        if matching.is_empty() {
            return Verdict::Leaves;
        }
        if let Some(seconds) = matching.iter().filter_map(|t| t.toleration_seconds).min() {
            shortest = Some(shortest.map_or(seconds, |s| s.min(seconds)).max(0));
        }
    }
    let Some(seconds) = shortest else { return Verdict::Stays };
    let since = taints.iter().filter_map(|t| t.time_added.as_ref()).map(|t| t.0).min().unwrap_or(now);
    match since.checked_add(jiff::SignedDuration::from_secs(seconds)) {
        Ok(at) if at <= now => Verdict::Leaves,
        Ok(at) => Verdict::LeavesAt(at),
        // Beyond the end of time.
        Err(_) => Verdict::Stays,
    }
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Option<Duration>, Error> {
        let Some(pod) = self.pods.by_key(&key).filter(|p| p.metadata.deletion_timestamp.is_none()) else {
            return Ok(None);
        };
        let Some(node) = self.nodes.get("", &pod.spec.node_name) else { return Ok(None) };
        let taints = no_execute(&node);
        if taints.is_empty() {
            return Ok(None);
        }
        let now = Timestamp::now();
        match verdict(&taints, &pod.spec.tolerations, now) {
            Verdict::Stays => Ok(None),
            Verdict::LeavesAt(at) => Ok(Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())),
            Verdict::Leaves => self.evict(&key, &pod).await.map(|()| None),
        }
    }

    async fn evict(&self, key: &Key, pod: &Pod) -> Result<(), Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let condition = json!({
            "type": "DisruptionTarget",
            "observedGeneration": pod.metadata.generation,
            "status": "True",
            "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        });
        let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
        gone_is_fine(api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await)?;
        self.recorder.event(pod, Kind::Normal, "TaintManagerEviction", format!("Marking for deletion Pod {key}"));
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        gone_is_fine(api.delete(&key.name, &params).await)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn taint(key: &str) -> Taint {
        Taint {
            key: key.into(),
            effect: "NoExecute".into(),
            time_added: Some(Time(Timestamp::UNIX_EPOCH)),
            value: None,
        }
    }

    fn toleration(key: &str, seconds: Option<i64>) -> Toleration {
        Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some("NoExecute".into()),
            toleration_seconds: seconds,
            value: None,
        }
    }

    #[test]
    fn pods_leave_when_they_no_longer_tolerate() -> Result<(), jiff::Error> {
        let now = Timestamp::from_second(100)?;
        assert_eq!(verdict(&[taint("a")], &[], now), Verdict::Leaves);
        assert_eq!(verdict(&[taint("a")], &[toleration("a", None)], now), Verdict::Stays);
        assert_eq!(
            verdict(&[taint("a")], &[toleration("a", Some(300))], now),
            Verdict::LeavesAt(Timestamp::from_second(300)?)
        );
        assert_eq!(verdict(&[taint("a")], &[toleration("a", Some(99))], now), Verdict::Leaves);
        assert_eq!(verdict(&[taint("a"), taint("b")], &[toleration("a", None)], now), Verdict::Leaves);
        Ok(())
    }
}
