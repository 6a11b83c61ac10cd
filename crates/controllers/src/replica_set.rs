//! ReplicaSets and ReplicationControllers: as many pods of a template as are asked for.
//!
//! They are one controller: a [`Replicas`] says what the kinds are called.

use crate::events::{Kind, Recorder};
use crate::informer::{Informer, Object, key};
use crate::objects::{Condition, Pod, ReplicaSet, ReplicaSetSpec, ReplicaSetStatus, ReplicationController};
use crate::pods::{self, Claim};
use crate::queue::{Key, Queue};
use crate::{Context, Error, Running, gone_is_fine, write};
use futures::FutureExt;
use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Pods created or deleted in one reconcile at most (upstream's burst).
const BURST: usize = 500;

/// A kind that keeps a number of pods.
pub(crate) trait Replicas: Object {
    const API_VERSION: &'static str;
    const KIND: &'static str;
    /// The service account, which is also the source of its events.
    const ACCOUNT: &'static str;
    /// Whether its status counts the pods that are on their way out.
    const COUNTS_TERMINATING: bool;

    fn spec(&self) -> &ReplicaSetSpec;
    fn status(&self) -> &ReplicaSetStatus;

    /// The replicas asked for (the API server's default is 1).
    fn wanted(&self) -> i32 {
        self.spec().replicas.unwrap_or(1)
    }
}

impl Replicas for ReplicaSet {
    const API_VERSION: &'static str = "apps/v1";
    const KIND: &'static str = "ReplicaSet";
    const ACCOUNT: &'static str = "replicaset-controller";
    const COUNTS_TERMINATING: bool = true;

    fn spec(&self) -> &ReplicaSetSpec {
        &self.spec
    }
    fn status(&self) -> &ReplicaSetStatus {
        &self.status
    }
}

impl Replicas for ReplicationController {
    const API_VERSION: &'static str = "v1";
    const KIND: &'static str = "ReplicationController";
    const ACCOUNT: &'static str = "replication-controller";
    const COUNTS_TERMINATING: bool = false;

    fn spec(&self) -> &ReplicaSetSpec {
        &self.spec
    }
    fn status(&self) -> &ReplicaSetStatus {
        &self.status
    }
}

struct Controller<K> {
    client: Client,
    sets: Informer<K>,
    pods: Informer<Pod>,
    recorder: Recorder,
}

/// What a reconcile is to do about the number of pods.
#[derive(Debug, PartialEq)]
enum Plan {
    Nothing,
    Create(usize),
    Delete(Vec<Key>),
}

pub(crate) fn controller<K: Replicas>(context: &Context) -> Running {
    let client = context.clients.service_account(K::ACCOUNT);
    let this = Arc::new(Controller::<K> {
        sets: context.informers.of(),
        pods: context.informers.of(),
        recorder: Recorder::new(client.clone(), K::ACCOUNT),
        client,
    });
    let queue = Queue::<Key>::default();
    let q = queue.clone();
    this.sets.on_change(move |old, new| {
        if let Some(set) = new.or(old) {
            q.add(key(set.as_ref()));
        }
    });
    let (q, sets) = (queue.clone(), this.sets.clone());
    this.pods.on_change(move |old, new| {
        for pod in [old, new].into_iter().flatten() {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
            match pods::controller(&pod.metadata) {
                Some(owner) if owner.kind == K::KIND => q.add(Key::new(namespace, &owner.name)),
                Some(_) => {}
                // An orphan may be adopted by whoever selects it.
                None if pod.metadata.deletion_timestamp.is_none() => {
                    for set in sets.in_namespace(namespace) {
                        if pods::matches(&pods::selector(&set.spec().selector), &pod.metadata) {
                            q.add(key(set.as_ref()));
                        }
                    }
                }
                None => {}
            }
        }
    });
    let shutdown = context.shutdown.clone();
    async move {
        this.sets.synced().await;
        this.pods.synced().await;
        queue.run(K::ACCOUNT, 5, shutdown, |key| this.clone().reconcile(key)).await;
        Ok(())
    }
    .boxed()
}

impl<K: Replicas> Controller<K> {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Option<Duration>, Error> {
        let Some(set) = self.sets.by_key(&key) else { return Ok(None) };
        let owned = self.claim(&set).await?;
        let now = Timestamp::now();
        let active: Vec<Arc<Pod>> = owned.iter().filter(|p| pods::is_active(p)).cloned().collect();
        let mut failure = None;
        if set.meta().deletion_timestamp.is_none() {
            let peers = self.active_by_node(&set);
            failure = self.apply(&set, plan(set.as_ref(), &active, &peers, now)).await.err();
        }
        // Again from the informer: what was just written is in it.
        let owned: Vec<Arc<Pod>> = self.owned(&set);
        let status = status(set.as_ref(), &owned, failure.as_ref().map(ToString::to_string), now);
        self.write_status(&set, status).await?;
        match failure {
            Some(e) => Err(e),
            None => Ok(next_availability(set.as_ref(), &owned, now)),
        }
    }

    fn owned(&self, set: &K) -> Vec<Arc<Pod>> {
        let uid = set.meta().uid.as_ref();
        let namespace = set.meta().namespace.as_deref().unwrap_or("");
        let mut pods = self.pods.in_namespace(namespace);
        pods.retain(|p| pods::controller(&p.metadata).map(|o| &o.uid) == uid);
        pods
    }

    /// Adopts and releases, and gives the pods that are the set's afterwards.
    async fn claim(&self, set: &K) -> Result<Vec<Arc<Pod>>, Error> {
        let namespace = set.meta().namespace.as_deref().unwrap_or("");
        let selector = pods::selector(&set.spec().selector);
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let mut ours = Vec::new();
        for pod in self.pods.in_namespace(namespace) {
            let name = pod.metadata.name.as_deref().unwrap_or("");
            match pods::claim(set.meta(), pods::matches(&selector, &pod.metadata), &pod.metadata) {
                Claim::Ours => ours.push(pod),
                Claim::Others => {}
                Claim::Adopt if pods::is_finished(&pod) => {}
                Claim::Adopt => {
                    let owner = pods::owner(K::API_VERSION, K::KIND, set.meta());
                    let patch = pods::adoption(&owner, pod.metadata.uid.as_deref());
                    let adopted = api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await;
                    if let Some(pod) = gone_is_fine(adopted)? {
                        self.pods.assume(pod.clone());
                        ours.push(Arc::new(pod));
                    }
                }
                Claim::Release => {
                    let patch = pods::release(set.meta().uid.as_deref().unwrap_or(""), pod.metadata.uid.as_deref());
                    let released = api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await;
                    if let Some(pod) = gone_is_fine(released)? {
                        self.pods.assume(pod);
                    }
                }
            }
        }
        Ok(ours)
    }

    /// Active pods of this set and its siblings (the sets of one deployment) on each node: the fuller node loses first.
    fn active_by_node(&self, set: &K) -> HashMap<String, usize> {
        let namespace = set.meta().namespace.as_deref().unwrap_or("");
        let owner = pods::controller(set.meta()).map(|o| o.uid.clone());
        let family: Vec<String> = self
            .sets
            .in_namespace(namespace)
            .iter()
            .filter(|s| {
                s.meta().uid == set.meta().uid
                    || owner.is_some() && pods::controller(s.meta()).map(|o| &o.uid) == owner.as_ref()
            })
            .filter_map(|s| s.meta().uid.clone())
            .collect();
        let mut count = HashMap::new();
        for pod in self.pods.in_namespace(namespace) {
            let related = pods::controller(&pod.metadata).is_some_and(|o| family.contains(&o.uid));
            if related && pods::is_active(&pod) {
                *count.entry(pod.spec.node_name.clone()).or_insert(0) += 1;
            }
        }
        count
    }

    async fn apply(&self, set: &K, plan: Plan) -> Result<(), Error> {
        match plan {
            Plan::Nothing => Ok(()),
            Plan::Create(count) => self.create(set, count).await,
            Plan::Delete(keys) => self.delete(set, keys).await,
        }
    }

    /// Creates pods in batches that double while all goes well, so that a refusal (a quota, say) is met once, not 500 times.
    async fn create(&self, set: &K, count: usize) -> Result<(), Error> {
        let namespace = set.meta().namespace.as_deref().unwrap_or("");
        let body = pod(set);
        let mut left = count;
        let mut batch = 1;
        while left > 0 {
            let size = batch.min(left);
            let results: Vec<Result<Pod, kube::Error>> =
                stream::iter(0..size).map(|_| self.create_one(namespace, &body)).buffer_unordered(size).collect().await;
            let mut failure = None;
            for result in results {
                match result {
                    Ok(pod) => {
                        let name = pod.metadata.name.clone().unwrap_or_default();
                        self.pods.assume(pod);
                        self.recorder.event(set, Kind::Normal, "SuccessfulCreate", format!("Created pod: {name}"));
                    }
                    Err(e) => failure = Some(e),
                }
            }
            if let Some(e) = failure {
                // In a namespace that goes away there is nobody to tell.
                let terminating = matches!(&e, kube::Error::Api(s) if s.message.contains("being terminated"));
                if terminating {
                    return Ok(());
                }
                self.recorder.event(set, Kind::Warning, "FailedCreate", format!("Error creating: {}", message(&e)));
                return Err(e.into());
            }
            left -= size;
            batch *= 2;
        }
        Ok(())
    }

    async fn create_one(&self, namespace: &str, body: &[u8]) -> Result<Pod, kube::Error> {
        let request = kube::core::Request::new(format!("/api/v1/namespaces/{namespace}/pods"));
        let request = request.create(&PostParams::default(), body.to_vec()).map_err(kube::Error::BuildRequest)?;
        self.client.request(request).await
    }

    async fn delete(&self, set: &K, keys: Vec<Key>) -> Result<(), Error> {
        let namespace = set.meta().namespace.as_deref().unwrap_or("");
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let results: Vec<Result<(), kube::Error>> = stream::iter(keys)
            .map(|key| {
                let api = &api;
                async move {
                    let uid = self.pods.by_key(&key).and_then(|p| p.metadata.uid.clone());
                    let params = DeleteParams {
                        preconditions: Some(Preconditions { uid: uid.clone(), resource_version: None }),
                        ..DeleteParams::default()
                    };
                    match gone_is_fine(api.delete(&key.name, &params).await) {
                        Ok(answer) => {
                            match answer {
                                Some(either::Either::Left(pod)) => self.pods.assume(pod),
                                _ => self.pods.assume_deleted(&key, uid.as_deref().unwrap_or("")),
                            }
                            self.recorder.event(
                                set,
                                Kind::Normal,
                                "SuccessfulDelete",
                                format!("Deleted pod: {}", key.name),
                            );
                            Ok(())
                        }
                        // Another pod of that name by now.
                        Err(e) if crate::code(&e) == 409 => Ok(()),
                        Err(e) => {
                            let text = format!("Error deleting: {}", message(&e));
                            self.recorder.event(set, Kind::Warning, "FailedDelete", text);
                            Err(e)
                        }
                    }
                }
            })
            .buffer_unordered(32)
            .collect()
            .await;
        results.into_iter().collect::<Result<Vec<()>, _>>()?;
        Ok(())
    }

    async fn write_status(&self, set: &K, status: ReplicaSetStatus) -> Result<(), Error> {
        if status == *set.status() {
            return Ok(());
        }
        let namespace = set.meta().namespace.as_deref().unwrap_or("");
        // All members are written, so that those that became zero are set to it.
        let patch = json!({
            "metadata": {"uid": set.meta().uid},
            "status": {
                "replicas": status.replicas,
                "fullyLabeledReplicas": status.fully_labeled_replicas,
                "readyReplicas": status.ready_replicas,
                "availableReplicas": status.available_replicas,
                // Null where the kind does not have it.
                "terminatingReplicas": status.terminating_replicas,
                "observedGeneration": status.observed_generation,
                "conditions": status.conditions,
            },
        });
        let name = set.meta().name.as_deref().unwrap_or("");
        let written = write::update::<K>(&self.client, namespace, name, Some("status"), patch).await;
        if let Some(set) = gone_is_fine(written)? {
            self.sets.assume(set);
        }
        Ok(())
    }
}

/// What the API server said, without the client's wrapping.
fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// The pod of a set, as JSON.
fn pod<K: Replicas>(set: &K) -> Vec<u8> {
    let template = &set.spec().template;
    let mut metadata =
        template.get("metadata").cloned().filter(serde_json::Value::is_object).unwrap_or_else(|| json!({}));
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.retain(|k, _| matches!(k.as_str(), "labels" | "annotations" | "finalizers"));
        // A name of at most 63 bytes once the suffix is on it.
        let mut prefix: String = set.meta().name.clone().unwrap_or_default();
        prefix.push('-');
        metadata.insert("generateName".into(), prefix.into());
        metadata.insert("ownerReferences".into(), json!([pods::owner(K::API_VERSION, K::KIND, set.meta())]));
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template.get("spec")})
        .to_string()
        .into_bytes()
}

fn plan<K: Replicas>(set: &K, active: &[Arc<Pod>], peers: &HashMap<String, usize>, now: Timestamp) -> Plan {
    let wanted = usize::try_from(set.wanted()).unwrap_or(0);
    if active.len() < wanted {
        return Plan::Create((wanted - active.len()).min(BURST));
    }
    if active.len() == wanted {
        return Plan::Nothing;
    }
    let mut ranked: Vec<&Arc<Pod>> = active.iter().collect();
    ranked.sort_by_cached_key(|p| deletion_rank(p, peers, now));
    ranked.truncate((active.len() - wanted).min(BURST));
    Plan::Delete(ranked.into_iter().map(|p| key(p.as_ref())).collect())
}

/// Smaller goes first (upstream's `ActivePodsWithRanks`): unassigned, pending, not ready, on a fuller node,
/// ready for a shorter time, restarted more, younger. Times count in powers of two, so that nearly equal ones tie.
fn deletion_rank(pod: &Pod, peers: &HashMap<String, usize>, now: Timestamp) -> impl Ord + use<> {
    let phase = match pod.status.phase.as_str() {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let age = |t: Option<Timestamp>| {
        t.map_or(0, |t| u64::try_from(now.as_second() - t.as_second()).unwrap_or(0).max(1).ilog2())
    };
    let restarts = pod.status.container_statuses.iter().map(|c| c.restart_count).max().unwrap_or(0);
    (
        !pod.spec.node_name.is_empty(),
        phase,
        pods::is_ready(pod),
        Reverse(peers.get(&pod.spec.node_name).copied().unwrap_or(0)),
        age(pods::ready_since(pod)),
        Reverse(restarts),
        age(pod.metadata.creation_timestamp.as_ref().map(|t| t.0)),
        pod.metadata.uid.clone(),
    )
}

fn status<K: Replicas>(set: &K, owned: &[Arc<Pod>], failure: Option<String>, now: Timestamp) -> ReplicaSetStatus {
    let count = |test: &dyn Fn(&Pod) -> bool| {
        let n = owned.iter().filter(|p| pods::is_active(p) && test(p)).count();
        i32::try_from(n).unwrap_or(i32::MAX)
    };
    let labels = set.spec().template.pointer("/metadata/labels").and_then(serde_json::Value::as_object);
    let fully_labeled = |pod: &Pod| {
        labels.is_none_or(|labels| {
            labels
                .iter()
                .all(|(k, v)| pod.metadata.labels.as_ref().and_then(|l| l.get(k)).map(String::as_str) == v.as_str())
        })
    };
    let terminating = owned.iter().filter(|p| p.metadata.deletion_timestamp.is_some() && !pods::is_finished(p)).count();
    ReplicaSetStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: count(&fully_labeled),
        ready_replicas: count(&pods::is_ready),
        available_replicas: count(&|p| pods::is_available(p, set.spec().min_ready_seconds, now)),
        terminating_replicas: i32::try_from(terminating).ok().filter(|_| K::COUNTS_TERMINATING),
        observed_generation: set.meta().generation.unwrap_or(0),
        conditions: conditions(set, failure, now),
    }
}

fn conditions<K: Replicas>(set: &K, failure: Option<String>, now: Timestamp) -> Vec<Condition> {
    let mut conditions = set.status().conditions.clone();
    let known = conditions.iter().position(|c| c.type_ == "ReplicaFailure");
    match (failure, known) {
        (Some(message), None) => conditions.push(Condition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            last_transition_time: Some(Time(now)),
            reason: "FailedCreate".into(),
            message,
            last_update_time: None,
        }),
        (None, Some(i)) => {
            conditions.remove(i);
        }
        _ => {}
    }
    conditions
}

/// When the next ready pod becomes available, if one has yet to.
fn next_availability<K: Replicas>(set: &K, owned: &[Arc<Pod>], now: Timestamp) -> Option<Duration> {
    let min_ready = i64::from(set.spec().min_ready_seconds);
    owned
        .iter()
        .filter(|p| pods::is_active(p) && !pods::is_available(p, set.spec().min_ready_seconds, now))
        .filter_map(|p| pods::ready_since(p))
        .map(|since| since.as_second() + min_ready - now.as_second())
        .min()
        .map(|seconds| Duration::from_secs(u64::try_from(seconds.max(1)).unwrap_or(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{PodCondition, PodSpec, PodStatus, ReplicaSetSpec};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    fn set(replicas: i32) -> ReplicaSet {
        ReplicaSet {
            metadata: ObjectMeta {
                name: Some("s".into()),
                namespace: Some("n".into()),
                uid: Some("u".into()),
                ..ObjectMeta::default()
            },
            spec: ReplicaSetSpec {
                replicas: Some(replicas),
                template: json!({"metadata": {"labels": {"app": "x"}, "name": "dropped"}, "spec": {"containers": []}}),
                ..ReplicaSetSpec::default()
            },
            status: ReplicaSetStatus::default(),
        }
    }

    fn running(name: &str, node: &str, ready: bool) -> Arc<Pod> {
        Arc::new(Pod {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some("n".into()),
                uid: Some(name.into()),
                ..ObjectMeta::default()
            },
            spec: PodSpec { node_name: node.into(), ..PodSpec::default() },
            status: PodStatus {
                phase: if node.is_empty() { "Pending" } else { "Running" }.into(),
                conditions: vec![PodCondition {
                    type_: "Ready".into(),
                    status: if ready { "True" } else { "False" }.into(),
                    last_transition_time: Some(Time(Timestamp::UNIX_EPOCH)),
                }],
                ..PodStatus::default()
            },
        })
    }

    fn names(plan: Plan) -> Vec<String> {
        match plan {
            Plan::Delete(keys) => keys.into_iter().map(|k| k.name).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_number_is_made_right_and_the_least_useful_go_first() {
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(plan(&set(3), &[running("a", "n1", true)], &HashMap::new(), now), Plan::Create(2));
        assert_eq!(plan(&set(1), &[running("a", "n1", true)], &HashMap::new(), now), Plan::Nothing);
        let pods = [
            running("ready", "n1", true),
            running("unready", "n2", false),
            running("unassigned", "", false),
            running("full", "n3", true),
        ];
        let peers = HashMap::from([("n3".to_owned(), 2), ("n1".to_owned(), 1)]);
        assert_eq!(names(plan(&set(0), &pods, &peers, now)), ["unassigned", "unready", "full", "ready"]);
        assert_eq!(plan(&set(5000), &[], &HashMap::new(), now), Plan::Create(BURST));
    }

    #[test]
    fn the_pod_of_a_template() -> Result<(), serde_json::Error> {
        let pod: serde_json::Value = serde_json::from_slice(&pod(&set(1)))?;
        assert_eq!(pod["metadata"]["generateName"], "s-");
        assert_eq!(pod["metadata"]["labels"]["app"], "x");
        assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], "u");
        assert!(pod["metadata"].get("name").is_none());
        Ok(())
    }

    #[test]
    fn status_counts_and_says_failures_once() {
        let now = Timestamp::UNIX_EPOCH;
        let owned = [running("a", "n", true), running("b", "n", false)];
        let first = status(&set(2), &owned, Some("no".into()), now);
        assert_eq!((first.replicas, first.ready_replicas, first.fully_labeled_replicas), (2, 1, 0));
        assert_eq!(first.conditions.len(), 1);
        let mut again = set(2);
        again.status = first;
        assert_eq!(status(&again, &owned, None, now).conditions, []);
    }
}
