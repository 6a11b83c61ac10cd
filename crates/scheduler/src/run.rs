//! Running: watches in, bindings, conditions and events out.

use crate::events::{CONTROLLER, LOOK, Note, Recorder};
use crate::framework::{Change, Scheduler};
use crate::objects::{Node, Pod, PodInfo};
use crate::queue::{Added, Queue};
use crate::snapshot::Snapshot;
use client::watch::{self, Event};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt, future::BoxFuture};
use jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use thiserror::Error;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What the scheduler is told at start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Names this process in events.
    pub identity: String,
}

/// Why it ended.
#[derive(Debug, Error)]
pub enum Error {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("{0}")]
    Other(String),
}

/// The code of an API refusal, or 0.
pub(crate) fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

/// Runs the scheduler until shutdown. Nobody else may place pods meanwhile: an election is the caller's.
///
/// # Errors
/// The end of a watch.
pub async fn run(config: Config, client: Client, shutdown: CancellationToken) -> Result<(), Error> {
    Loop::new(&config, client).run(shutdown).await
}

/// What an attempt to bind came to.
struct Bound {
    pod: Arc<PodInfo>,
    result: Result<(), kube::Error>,
}

/// Why a pod has to wait, as its condition `PodScheduled` says it.
#[derive(Clone, Debug, PartialEq)]
struct Waiting {
    reason: String,
    message: String,
    /// That of the spec which it was said of.
    generation: Option<i64>,
    /// Since when it waits, whatever the reason.
    since: String,
}

impl Waiting {
    /// What the condition says that is there; `None`: not that it waits.
    fn of(pod: &Pod) -> Option<Self> {
        let mut conditions = pod.status.conditions.iter();
        let condition = conditions.find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
        Some(Waiting {
            reason: condition.reason.clone(),
            message: condition.message.clone(),
            generation: condition.observed_generation,
            since: condition.last_transition_time.clone().unwrap_or_default(),
        })
    }

    /// What is to be written when it waits for this reason now; `None`: that is what was written.
    fn again(told: Option<&Self>, pod: &PodInfo, reason: &str, message: &str, now: Timestamp) -> Option<Self> {
        let now = || now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let since = told.map(|told| told.since.clone()).filter(|since| !since.is_empty());
        let waiting = Waiting {
            reason: reason.to_owned(),
            message: message.to_owned(),
            generation: pod.generation,
            since: since.unwrap_or_else(now),
        };
        // Who has written it may not have said since when.
        let said = |told: &&Waiting| Waiting { since: waiting.since.clone(), ..(*told).clone() } == waiting;
        told.filter(said).is_none().then_some(waiting)
    }

    fn condition(&self) -> serde_json::Value {
        json!({
            "type": "PodScheduled", "observedGeneration": self.generation,
            "status": "False", "reason": self.reason, "message": self.message,
            "lastProbeTime": null, "lastTransitionTime": self.since,
        })
    }
}

struct Loop {
    client: Client,
    events: Recorder,
    snapshot: Snapshot,
    queue: Queue,
    scheduler: Scheduler,
    /// Every pod that is watched, by uid, as it was last seen.
    seen: HashMap<Box<str>, Arc<PodInfo>>,
    binding: FuturesUnordered<BoxFuture<'static, Bound>>,
    /// What was last written of why a pod has to wait: it is written again only when it changes.
    told: HashMap<Box<str>, Waiting>,
    /// While lists come in: what they had.
    listed_pods: Option<HashSet<Box<str>>>,
    listed_nodes: Option<HashSet<Box<str>>>,
    ready: (bool, bool),
}

impl Loop {
    fn new(config: &Config, client: Client) -> Self {
        Loop {
            events: Recorder::new(client.clone(), &format!("{CONTROLLER}-{}", config.identity)),
            client,
            snapshot: Snapshot::default(),
            queue: Queue::default(),
            scheduler: Scheduler::new(u64::from(std::process::id()) ^ 0x9e37_79b9_7f4a_7c15),
            seen: HashMap::new(),
            binding: FuturesUnordered::new(),
            told: HashMap::new(),
            listed_pods: None,
            listed_nodes: None,
            ready: (false, false),
        }
    }

    async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let running = watch::Config::default().any_semantic().fields("status.phase!=Succeeded,status.phase!=Failed");
        let mut pods = watch::all::<Pod>(self.client.clone(), running);
        let mut nodes = watch::all::<Node>(self.client.clone(), watch::Config::default().any_semantic());
        let mut looks = tokio::time::interval_at(Instant::now() + LOOK, LOOK);
        loop {
            let due = self.queue.next_due().unwrap_or_else(|| Instant::now() + std::time::Duration::from_secs(3600));
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                event = pods.next() => match event {
                    Some(Ok(event)) => self.on_pod(event),
                    Some(Err(e)) => tracing::warn!("the watch of pods failed and is tried again: {e}"),
                    None => return Err(Error::Other("the watch of pods ended".into())),
                },
                event = nodes.next() => match event {
                    Some(Ok(event)) => self.on_node(event),
                    Some(Err(e)) => tracing::warn!("the watch of nodes failed and is tried again: {e}"),
                    None => return Err(Error::Other("the watch of nodes ended".into())),
                },
                Some(bound) = self.binding.next(), if !self.binding.is_empty() => self.on_bound(bound),
                _ = looks.tick() => {
                    let events = self.events.clone();
                    tokio::spawn(async move { events.look().await });
                }
                () = tokio::time::sleep_until(due) => {}
            }
            // Not before all that is there is known: the first pods would be placed as if the nodes were empty.
            if self.ready == (true, true) {
                self.place_all();
            }
        }
    }

    fn on_pod(&mut self, event: Event<Pod>) {
        match event {
            Event::Init => self.listed_pods = Some(HashSet::new()),
            Event::InitApply(pod) => {
                if let Some(listed) = &mut self.listed_pods {
                    listed.insert(pod.metadata.uid.clone().unwrap_or_default().into());
                }
                self.upsert_pod(&pod);
            }
            Event::InitDone => {
                let listed = self.listed_pods.take().unwrap_or_default();
                let gone: Vec<Box<str>> = self.seen.keys().filter(|uid| !listed.contains(*uid)).cloned().collect();
                gone.iter().for_each(|uid| self.remove_pod(uid));
                self.ready.0 = true;
            }
            Event::Apply(pod) => self.upsert_pod(&pod),
            Event::Delete(pod) => self.remove_pod(pod.metadata.uid.as_deref().unwrap_or("")),
        }
    }

    fn upsert_pod(&mut self, pod: &Pod) {
        let info = Arc::new(PodInfo::new(pod));
        let now = Instant::now();
        if matches!(pod.status.phase.as_str(), "Succeeded" | "Failed") {
            return self.remove_pod(&info.uid);
        }
        let before = self.seen.insert(info.uid.clone(), info.clone());
        if !info.node_name.is_empty() {
            self.queue.remove(&info.uid);
            self.told.remove(&info.uid);
            let shrank = before.is_some_and(|before| info.requests.is_below(&before.requests));
            self.snapshot.add_pod(info, false);
            if shrank {
                self.queue.changed(&Change::PodShrank, now);
            }
            return;
        }
        let ours = pod.spec.scheduler_name.is_empty() || pod.spec.scheduler_name == CONTROLLER;
        // A pod on its way to its node needs no other; one that is being deleted needs none.
        if !ours || pod.metadata.deletion_timestamp.is_some() || self.snapshot.is_placed(&info.uid) {
            if pod.metadata.deletion_timestamp.is_some() {
                self.queue.remove(&info.uid);
            }
            return;
        }
        if let Some(waiting) = Waiting::of(pod) {
            self.told.insert(info.uid.clone(), waiting);
        }
        // The API server says so of a pod that comes with gates; as long as there is one, there is nothing new.
        let known = self.told.get(&info.uid).is_some_and(|told| told.reason == "SchedulingGated");
        if let Added::Held(_, reason) = self.queue.add(info.clone(), now)
            && !known
        {
            self.tell_waiting(&info, "SchedulingGated", reason, false);
        }
    }

    fn remove_pod(&mut self, uid: &str) {
        self.queue.remove(uid);
        self.told.remove(uid);
        let pod = self.seen.remove(uid);
        if self.snapshot.remove_pod(uid)
            && let Some(pod) = pod
        {
            self.queue.changed(&Change::PodRemoved(&pod), Instant::now());
        }
    }

    fn on_node(&mut self, event: Event<Node>) {
        match event {
            Event::Init => self.listed_nodes = Some(HashSet::new()),
            Event::InitApply(node) => {
                if let Some(listed) = &mut self.listed_nodes {
                    listed.insert(node.metadata.name.clone().unwrap_or_default().into());
                }
                self.upsert_node(&node);
            }
            Event::InitDone => {
                let listed = self.listed_nodes.take().unwrap_or_default();
                let gone: Vec<Box<str>> =
                    self.snapshot.nodes().iter().map(|n| n.name.clone()).filter(|n| !listed.contains(n)).collect();
                gone.iter().for_each(|name| self.snapshot.remove_node(name));
                self.ready.1 = true;
            }
            Event::Apply(node) => self.upsert_node(&node),
            Event::Delete(node) => self.snapshot.remove_node(node.metadata.name.as_deref().unwrap_or("")),
        }
    }

    fn upsert_node(&mut self, node: &Node) {
        let name = node.metadata.name.as_deref().unwrap_or("");
        let before = self.snapshot.get(name).cloned();
        self.snapshot.set_node(node);
        let Some(after) = self.snapshot.get(name) else { return };
        let change = match &before {
            Some(before) => Change::NodeUpdated(before, after),
            None => Change::NodeAdded(after),
        };
        self.queue.changed(&change, Instant::now());
    }

    fn place_all(&mut self) {
        while let Some(queued) = self.queue.pop(Instant::now()) {
            let pod = queued.pod;
            match self.scheduler.schedule(&pod, &self.snapshot) {
                Ok(node) => self.bind(&pod, node),
                Err(diagnosis) => {
                    let message = diagnosis.message();
                    self.queue.unschedulable(&pod.uid, diagnosis.plugins, Instant::now());
                    self.tell_waiting(&pod, "Unschedulable", message, true);
                }
            }
        }
    }

    /// Assumes the pod on its node and asks the API server to bind it there.
    fn bind(&mut self, pod: &Arc<PodInfo>, node: Box<str>) {
        let mut placed = PodInfo::clone(pod);
        placed.node_name = node;
        let placed = Arc::new(placed);
        self.snapshot.add_pod(placed.clone(), true);
        let (client, events) = (self.client.clone(), self.events.clone());
        self.binding.push(
            async move {
                let result = post_binding(&client, &placed).await;
                if result.is_ok() {
                    let text = format!("Successfully assigned {} to {}", placed.key(), placed.node_name);
                    // Told beside the binding: the next pod doesn't wait for it.
                    let pod = placed.clone();
                    tokio::spawn(async move {
                        let note = Note { warning: false, reason: "Scheduled", action: "Binding", text };
                        events.record(&pod, note).await;
                    });
                }
                Bound { pod: placed, result }
            }
            .boxed(),
        );
    }

    fn on_bound(&mut self, bound: Bound) {
        let Err(e) = bound.result else {
            // The watch brings it with its node; until then it is assumed there.
            self.queue.remove(&bound.pod.uid);
            return;
        };
        if self.snapshot.forget(&bound.pod.uid) {
            self.queue.changed(&Change::PodRemoved(&bound.pod), Instant::now());
        }
        if code(&e) == 404 {
            self.queue.remove(&bound.pod.uid);
            return;
        }
        tracing::warn!(pod = %bound.pod.key(), "the binding failed and is tried again: {e}");
        self.queue.failed(&bound.pod.uid, Instant::now());
        let why = match &e {
            kube::Error::Api(status) => status.message.clone(),
            other => other.to_string(),
        };
        self.tell_waiting(&bound.pod, "SchedulerError", format!("binding rejected: {why}"), true);
    }

    /// Says in the pod's condition, and in an event, why it waits.
    fn tell_waiting(&mut self, pod: &Arc<PodInfo>, reason: &'static str, message: String, event: bool) {
        let waiting = Waiting::again(self.told.get(&pod.uid), pod, reason, &message, Timestamp::now());
        if let Some(waiting) = &waiting {
            self.told.insert(pod.uid.clone(), waiting.clone());
        }
        let (client, events, pod) = (self.client.clone(), self.events.clone(), pod.clone());
        tokio::spawn(async move {
            if event {
                let note = Note { warning: true, reason: "FailedScheduling", action: "Scheduling", text: message };
                events.record(&pod, note).await;
            }
            if let Some(waiting) = waiting
                && let Err(e) = patch_condition(&client, &pod, &waiting).await
            {
                tracing::debug!(pod = %pod.key(), "cannot write the condition PodScheduled: {e}");
            }
        });
    }
}

async fn post_binding(client: &Client, pod: &PodInfo) -> Result<(), kube::Error> {
    let body = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": pod.node_name},
    });
    let request = kube::core::Request::new(format!("/api/v1/namespaces/{}/pods", pod.namespace))
        .create_subresource("binding", &pod.name, &PostParams::default(), body.to_string().into_bytes())
        .map_err(kube::Error::BuildRequest)?;
    client.request_text(request).await.map(drop)
}

async fn patch_condition(client: &Client, pod: &PodInfo, waiting: &Waiting) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
    let patch = json!({"metadata": {"uid": pod.uid}, "status": {"conditions": [waiting.condition()]}});
    api.patch_status(&pod.name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_written_when_it_says_something_else_or_of_another_generation() {
        let pod = |generation| PodInfo { uid: "u".into(), generation: Some(generation), ..PodInfo::default() };
        let at = |second| Timestamp::from_second(second).expect("a time");
        let first = Waiting::again(None, &pod(1), "Unschedulable", "no room", at(0)).expect("new");
        assert_eq!(
            first.condition(),
            json!({
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no room",
                "observedGeneration": 1, "lastProbeTime": null, "lastTransitionTime": "1970-01-01T00:00:00Z",
            })
        );
        let again =
            |told, generation, message| Waiting::again(Some(told), &pod(generation), "Unschedulable", message, at(9));
        assert_eq!(again(&first, 1, "no room"), None);
        let without_time = Waiting { since: String::new(), ..first.clone() };
        assert_eq!(again(&without_time, 1, "no room"), None);
        let second = again(&first, 2, "no room").expect("another generation");
        assert_eq!((second.generation, &second.since), (Some(2), &first.since));
        let third = again(&second, 2, "no room at all").expect("another message");
        assert_eq!(third.since, first.since, "it waits all the time");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let of = |conditions: serde_json::Value| {
            let pod = json!({"metadata": {"name": "p"}, "status": {"conditions": conditions}});
            Waiting::of(&serde_json::from_value(pod).expect("a pod"))
        };
        let waiting = Waiting {
            reason: "Unschedulable".into(),
            message: "no room".into(),
            generation: Some(3),
            since: "2026-01-01T00:00:00Z".into(),
        };
        assert_eq!(of(json!([waiting.condition()])), Some(waiting));
        assert_eq!(of(json!([{"type": "PodScheduled", "status": "True"}])), None);
    }
}
