//! ReplicaSets and ReplicationControllers: as many pods of a template as are asked for.
//!
//! They are one controller: a [`Replicas`] says what the kinds are called.

use crate::informer::{Informer, Object};
use crate::objects::{Condition, Pod, ReplicaSet, ReplicaSetSpec, ReplicaSetStatus, ReplicationController};
use crate::pod_control::{self, BURST, PodControl};
use crate::pods;
use crate::queue::{Key, Queue};
use crate::{Context, Error, Running, gone_is_fine, write};
use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// A kind that keeps a number of pods.
pub(crate) trait Replicas: Object {
    /// The service account, which is also the source of its events.
    const ACCOUNT: &'static str;
    /// What its work queue is measured under.
    const QUEUE: &'static str;
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
    const ACCOUNT: &'static str = "replicaset-controller";
    const QUEUE: &'static str = "replicaset";
    const COUNTS_TERMINATING: bool = true;

    fn spec(&self) -> &ReplicaSetSpec {
        &self.spec
    }
    fn status(&self) -> &ReplicaSetStatus {
        &self.status
    }
}

impl Replicas for ReplicationController {
    const ACCOUNT: &'static str = "replication-controller";
    const QUEUE: &'static str = "replicationmanager";
    const COUNTS_TERMINATING: bool = false;

    fn spec(&self) -> &ReplicaSetSpec {
        &self.spec
    }
    fn status(&self) -> &ReplicaSetStatus {
        &self.status
    }
}

struct Controller<K> {
    sets: Informer<K>,
    control: PodControl,
}

/// What a reconcile is to do about the number of pods.
#[derive(Debug)]
enum Plan {
    Nothing,
    Create(usize),
    Delete(Vec<Arc<Pod>>),
}

pub(crate) fn controller<K: Replicas>(context: &Context) -> Running {
    let control = PodControl::new(context, K::ACCOUNT, K::ACCOUNT);
    let this = Arc::new(Controller::<K> { sets: context.informers.of(), control });
    let queue = Queue::<Key>::named(&context.config.queues, K::QUEUE);
    this.sets.feed(&queue);
    pod_control::feed_owners(&this.control.pods, &this.sets, &queue, |set: &K, pod| {
        pods::matches(&pods::selector(&set.spec().selector), &pod.metadata)
    });
    let shutdown = context.shutdown.clone();
    async move {
        this.sets.synced().await;
        this.control.pods.synced().await;
        queue.run(K::ACCOUNT, 5, shutdown, |key| this.clone().reconcile(key)).await;
        Ok(())
    }
    .boxed()
}

impl<K: Replicas> Controller<K> {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Option<Duration>, Error> {
        let Some(set) = self.sets.by_key(&key) else { return Ok(None) };
        let selector = pods::selector(&set.spec().selector);
        let owned = self.control.claim(set.as_ref(), &selector, |pod| !pods::is_finished(pod)).await?;
        let now = Timestamp::now();
        let active: Vec<Arc<Pod>> = owned.iter().filter(|p| pods::is_active(p)).cloned().collect();
        let mut failure = None;
        if set.meta().deletion_timestamp.is_none() {
            let peers = self.active_by_node(&set);
            let plan = plan(set.as_ref(), &active, &peers, now);
            let reason = if matches!(plan, Plan::Delete(_)) { "FailedDelete" } else { "FailedCreate" };
            failure = self.apply(&set, plan).await.err().map(|error| (reason, error));
        }
        // Again from the informer: what was just written is in it.
        let owned: Vec<Arc<Pod>> = self.control.owned(set.as_ref());
        let told = failure.as_ref().map(|(reason, error)| (*reason, error.told()));
        let status = status(set.as_ref(), &owned, told, now);
        self.write_status(&set, status).await?;
        match failure {
            Some((_, error)) => Err(error),
            None => Ok(pods::next_availability(&owned, set.spec().min_ready_seconds, now)),
        }
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
        for pod in self.control.pods.in_namespace(namespace) {
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
            Plan::Create(count) => {
                let body = pod_control::body(set, &set.spec().template);
                self.control.create(set, vec![body; count]).await
            }
            Plan::Delete(pods) => self.control.delete(set, pods).await,
        }
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
        let written = write::update::<K>(&self.control.client, namespace, name, Some("status"), patch).await;
        if let Some(set) = gone_is_fine(written)? {
            self.sets.assume(set);
        }
        Ok(())
    }
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
    ranked.sort_by_cached_key(|p| pods::deletion_rank(p, peers.get(&p.spec.node_name).copied().unwrap_or(0), now));
    ranked.truncate((active.len() - wanted).min(BURST));
    Plan::Delete(ranked.into_iter().cloned().collect())
}

/// The status. `failure`: the reason and the words of what went wrong with the pods.
fn status<K: Replicas>(
    set: &K,
    owned: &[Arc<Pod>],
    failure: Option<(&str, String)>,
    now: Timestamp,
) -> ReplicaSetStatus {
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

fn conditions<K: Replicas>(set: &K, failure: Option<(&str, String)>, now: Timestamp) -> Vec<Condition> {
    let mut conditions = set.status().conditions.clone();
    let known = conditions.iter().position(|c| c.type_ == "ReplicaFailure");
    match (failure, known) {
        (Some((reason, message)), None) => conditions.push(Condition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            last_transition_time: Some(Time(now)),
            reason: reason.into(),
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
            Plan::Delete(pods) => pods.iter().filter_map(|p| p.metadata.name.clone()).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_number_is_made_right_and_the_least_useful_go_first() {
        let now = Timestamp::UNIX_EPOCH;
        assert!(matches!(plan(&set(3), &[running("a", "n1", true)], &HashMap::new(), now), Plan::Create(2)));
        assert!(matches!(plan(&set(1), &[running("a", "n1", true)], &HashMap::new(), now), Plan::Nothing));
        let pods = [
            running("ready", "n1", true),
            running("unready", "n2", false),
            running("unassigned", "", false),
            running("full", "n3", true),
        ];
        let peers = HashMap::from([("n3".to_owned(), 2), ("n1".to_owned(), 1)]);
        assert_eq!(names(plan(&set(0), &pods, &peers, now)), ["unassigned", "unready", "full", "ready"]);
        assert!(matches!(plan(&set(5000), &[], &HashMap::new(), now), Plan::Create(BURST)));
    }

    #[test]
    fn status_counts_and_says_failures_once() {
        let now = Timestamp::UNIX_EPOCH;
        let owned = [running("a", "n", true), running("b", "n", false)];
        let refusal = kube::core::Status {
            code: 403,
            message: "pods \"s-\" is forbidden".into(),
            ..kube::core::Status::default()
        };
        let told = Error::from(kube::Error::Api(refusal.boxed())).told();
        let first = status(&set(2), &owned, Some(("FailedCreate", told)), now);
        assert_eq!((first.replicas, first.ready_replicas, first.fully_labeled_replicas), (2, 1, 0));
        let said: Vec<_> = first.conditions.iter().map(|c| (c.reason.as_str(), c.message.as_str())).collect();
        assert_eq!(
            said,
            [("FailedCreate", "pods \"s-\" is forbidden")],
            "what the API said, and nothing of the client"
        );
        let mut again = set(2);
        again.status = first;
        assert_eq!(status(&again, &owned, None, now).conditions, []);
    }
}
