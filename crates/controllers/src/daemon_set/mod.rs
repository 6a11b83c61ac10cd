//! DaemonSets: a pod on every node that the set is for.

mod nodes;
mod plan;

use crate::events::Kind;
use crate::history::History;
use crate::informer::{Informer, key};
use crate::objects::{DaemonSet, Node, Pod};
use crate::pod_control::{self, PodControl};
use crate::pods;
use crate::queue::{Key, Queue};
use crate::{Context, Error, Running, gone_is_fine, write};
use futures::FutureExt;
use jiff::Timestamp;
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A pod that fails on a node is replaced later each time.
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
const LONGEST_BACK_OFF: Duration = Duration::from_mins(15);

struct Controller {
    sets: Informer<DaemonSet>,
    nodes: Informer<Node>,
    control: PodControl,
    history: History,
    /// Set's UID and node → failures, and when the last was.
    failures: Mutex<HashMap<(String, String), (u32, Instant)>>,
}

pub fn controller(context: &Context) -> Running {
    let control = PodControl::new(context, "daemon-set-controller", "daemonset-controller");
    let this = Arc::new(Controller {
        sets: context.informers.of(),
        nodes: context.informers.of(),
        history: History::new(control.client.clone(), context.informers.of(), nodes::REVISION),
        control,
        failures: Mutex::default(),
    });
    let queue = Queue::<Key>::named(&context.config.queues, "daemonset");
    this.sets.feed(&queue);
    pod_control::feed_owners(&this.control.pods, &this.sets, &queue, |set: &DaemonSet, pod| {
        pods::matches(&pods::selector(&set.spec.selector), &pod.metadata)
    });
    let (q, sets) = (queue.clone(), this.sets.clone());
    this.nodes.on_change(move |old, new| {
        // A node's status changes every few seconds, but not what decides here.
        if let (Some(old), Some(new)) = (old, new)
            && old.metadata.labels == new.metadata.labels
            && old.spec.taints == new.spec.taints
        {
            return;
        }
        for set in sets.all() {
            q.add(key(set.as_ref()));
        }
    });
    let shutdown = context.shutdown.clone();
    async move {
        this.sets.synced().await;
        this.nodes.synced().await;
        this.control.pods.synced().await;
        this.history.synced().await;
        queue.run("daemonset", 2, shutdown, |key| this.clone().reconcile(key)).await;
        Ok(())
    }
    .boxed()
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Option<Duration>, Error> {
        let Some(set) = self.sets.by_key(&key) else { return Ok(None) };
        let selector = &set.spec.selector;
        if selector.match_labels.as_ref().is_none_or(std::collections::BTreeMap::is_empty)
            && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
        {
            let text = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.control.recorder.event(set.as_ref(), Kind::Warning, "SelectingAll", text.to_owned());
            return Ok(None);
        }
        let owned = self.control.claim(set.as_ref(), &pods::selector(selector), |_| true).await?;
        let revision = self.history.current(set.as_ref(), &set.spec.template, set.status.collision_count).await?;
        let now = Timestamp::now();
        let mut wait = None;
        let mut failure = None;
        if set.metadata.deletion_timestamp.is_none() {
            let plan = plan::plan(&set, &self.nodes.all(), &owned, &revision.hash, now);
            let mut delete = plan.delete;
            for pod in plan.failed {
                match self.back_off(&set, &pod) {
                    Some(left) => wait = Some(wait.map_or(left, |known: Duration| known.min(left))),
                    None => {
                        self.tell(&set, &pod);
                        delete.push(pod);
                    }
                }
            }
            failure = self.control.delete(set.as_ref(), delete).await.err();
            let to = plan.create.iter().take(pod_control::BURST);
            let bodies: Vec<_> = to.map(|node| nodes::pod(&set, node, &revision.hash)).collect();
            if failure.is_none() {
                failure = self.control.create(set.as_ref(), bodies).await.err();
            }
        }
        let owned = self.control.owned(set.as_ref());
        self.write_status(&set, plan::status(&set, &self.nodes.all(), &owned, &revision.hash, now)).await?;
        // Revisions that pods are of still live.
        let name = set.metadata.name.as_deref().unwrap_or("");
        let live: Vec<String> =
            owned.iter().filter_map(|p| nodes::revision(p)).map(|hash| format!("{name}-{hash}")).collect();
        let live: Vec<&str> = live.iter().map(String::as_str).chain([revision.name.as_str()]).collect();
        self.history.trim(set.as_ref(), &live, set.spec.revision_history_limit.unwrap_or(10)).await?;
        match failure {
            Some(e) => Err(e),
            None => {
                Ok([wait, pods::next_availability(&owned, set.spec.min_ready_seconds, now)].into_iter().flatten().min())
            }
        }
    }

    /// How long a failed pod is still to be left; `None`: it may go now.
    fn back_off(&self, set: &DaemonSet, pod: &Pod) -> Option<Duration> {
        if pod.status.phase != "Failed" {
            return None;
        }
        let id = (set.metadata.uid.clone().unwrap_or_default(), nodes::of_pod(pod).unwrap_or_default().to_owned());
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, last) = failures.entry(id).or_insert((0, Instant::now()));
        let wait = (FIRST_BACK_OFF * 2u32.saturating_pow(count.saturating_sub(1).min(10))).min(LONGEST_BACK_OFF);
        let passed = last.elapsed();
        if *count > 0 && passed < wait {
            return Some(wait - passed);
        }
        // A node where it went well for long begins anew.
        *count = if passed > LONGEST_BACK_OFF * 2 { 1 } else { count.saturating_add(1) };
        *last = Instant::now();
        None
    }

    fn tell(&self, set: &DaemonSet, pod: &Pod) {
        let (namespace, name) =
            (pod.metadata.namespace.as_deref().unwrap_or(""), pod.metadata.name.as_deref().unwrap_or(""));
        let node = nodes::of_pod(pod).unwrap_or("");
        let (kind, reason, text) = if pod.status.phase == "Failed" {
            let text = format!("Found failed daemon pod {namespace}/{name} on node {node}, will try to kill it");
            (Kind::Warning, "FailedDaemonPod", text)
        } else {
            let text = format!("Found succeeded daemon pod {namespace}/{name} on node {node}, will try to delete it");
            (Kind::Normal, "SucceededDaemonPod", text)
        };
        self.control.recorder.event(set, kind, reason, text);
    }

    async fn write_status(&self, set: &Arc<DaemonSet>, status: plan::Status) -> Result<(), Error> {
        if status == set.status {
            return Ok(());
        }
        let merge = json!({"metadata": {"uid": set.metadata.uid}, "status": {
            "observedGeneration": status.observed_generation,
            "desiredNumberScheduled": status.desired_number_scheduled,
            "currentNumberScheduled": status.current_number_scheduled,
            "numberMisscheduled": status.number_misscheduled, "numberReady": status.number_ready,
            "updatedNumberScheduled": status.updated_number_scheduled,
            "numberAvailable": status.number_available, "numberUnavailable": status.number_unavailable,
        }});
        let Key { namespace, name } = key(set.as_ref());
        let client = &self.control.client;
        let written = write::update::<DaemonSet>(client, &namespace, &name, Some("status"), merge).await;
        if let Some(written) = gone_is_fine(written)? {
            self.sets.assume(written);
        }
        Ok(())
    }
}
