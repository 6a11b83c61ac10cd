//! Groups of pods that are being deleted are let go when none of their pods runs any more.

use crate::informer::Informer;
use crate::objects::{Pod, PodGroup};
use crate::queue::{Key, Queue};
use crate::volume_protection::keep;
use crate::{Context, Running};
use futures::FutureExt;
use kube::Resource as _;
use std::sync::Arc;

const FINALIZER: &str = "scheduling.k8s.io/podgroup-protection";

fn group(pod: &Pod) -> Option<&str> {
    pod.spec.scheduling_group.as_ref()?.pod_group_name.as_deref()
}

fn has_ended(pod: &Pod) -> bool {
    matches!(pod.status.phase.as_str(), "Succeeded" | "Failed")
}

/// What is to become of the finalizers of a group; `None`: nothing. Admission gives one to every new group: it is given again
/// only where it is needed.
fn plan(group: &PodGroup, in_use: impl Fn() -> bool) -> Option<Vec<String>> {
    let meta = group.meta();
    let mut finalizers = meta.finalizers.clone().unwrap_or_default();
    let has = finalizers.iter().any(|f| f == FINALIZER);
    match (meta.deletion_timestamp.is_some(), has) {
        (true, true) if !in_use() => finalizers.retain(|f| f != FINALIZER),
        (false, false) if in_use() => finalizers.push(FINALIZER.to_owned()),
        _ => return None,
    }
    Some(finalizers)
}

/// The groups, by namespace and name, that a change of a pod may have let go.
fn freed<'a>(old: Option<&'a Pod>, new: Option<&'a Pod>) -> Vec<(&'a str, &'a str)> {
    let uid = |pod: Option<&'a Pod>| pod.and_then(|pod| pod.metadata.uid.as_deref());
    // It came, went, or gave way to another of its name.
    let other = uid(old) != uid(new);
    let counts = |pod: &&Pod| other || has_ended(pod) || pod.spec.node_name.is_empty();
    let pods = [old, new].into_iter().flatten().filter(counts);
    pods.filter_map(|pod| Some((pod.metadata.namespace.as_deref().unwrap_or(""), group(pod)?))).collect()
}

pub fn controller(context: &Context) -> Running {
    let shutdown = context.shutdown.clone();
    if !context.config.gates.enabled("GenericWorkload") {
        return async move {
            shutdown.cancelled().await;
            Ok(())
        }
        .boxed();
    }
    let client = context.clients.service_account("podgroup-protection-controller");
    let all: Informer<PodGroup> = context.informers.of();
    let pods: Informer<Pod> = context.informers.of();
    let queue = Queue::<Key>::named(&context.config.queues, "podgroupprotection");
    all.feed(&queue);
    let q = queue.clone();
    pods.on_change(move |old, new| {
        for (namespace, group) in freed(old.map(Arc::as_ref), new.map(Arc::as_ref)) {
            q.add(Key::new(namespace, group));
        }
    });
    async move {
        pods.synced().await;
        let decide = |key: &Key, one: &PodGroup| {
            let uses = |pod: &Pod| group(pod) == Some(&key.name) && !has_ended(pod);
            plan(one, || pods.in_namespace(&key.namespace).iter().any(|pod| uses(pod)))
        };
        keep("podgroup-protection", (client, all, queue, shutdown), decide).await
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn a_group_is_kept_as_long_as_a_pod_of_it_runs() {
        let mut one = PodGroup::default();
        assert_eq!(plan(&one, || false), None);
        assert_eq!(plan(&one, || true), Some(vec![FINALIZER.to_owned()]));
        one.metadata.finalizers = Some(vec!["x".into(), FINALIZER.into()]);
        assert_eq!(plan(&one, || false), None);
        one.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(plan(&one, || true), None);
        assert_eq!(plan(&one, || false), Some(vec!["x".to_owned()]));
    }

    #[test]
    fn a_pod_that_gives_way_to_another_of_its_name_lets_its_group_go() -> Result<(), serde_json::Error> {
        let pod = |uid: &str, group: &str| -> Result<Pod, serde_json::Error> {
            serde_json::from_value(serde_json::json!({"metadata": {"name": "p", "namespace": "n", "uid": uid},
                "spec": {"nodeName": "x", "schedulingGroup": {"podGroupName": group}}, "status": {"phase": "Running"}}))
        };
        let (one, other) = (pod("1", "g")?, pod("2", "h")?);
        assert_eq!(freed(Some(&one), Some(&one)), []);
        assert_eq!(freed(Some(&one), Some(&other)), [("n", "g"), ("n", "h")]);
        assert_eq!(freed(Some(&one), None), [("n", "g")]);
        Ok(())
    }

    #[test]
    fn pods_name_their_group() -> Result<(), serde_json::Error> {
        let pod: Pod = serde_json::from_value(serde_json::json!({"metadata": {"name": "p"},
            "spec": {"schedulingGroup": {"podGroupName": "g"}}, "status": {"phase": "Failed"}}))?;
        assert_eq!((group(&pod), has_ended(&pod)), (Some("g"), true));
        Ok(())
    }
}
