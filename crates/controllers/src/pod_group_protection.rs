//! Groups of pods that are being deleted are let go when none of their pods runs any more.

use crate::informer::Informer;
use crate::objects::{Pod, PodGroup};
use crate::queue::{Key, Queue};
use crate::volume_protection::write;
use crate::{Context, Running};
use futures::FutureExt;
use kube::Resource as _;
use std::sync::Arc;
use std::time::Duration;

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
    let queue = Queue::<Key>::default();
    all.feed(&queue);
    let q = queue.clone();
    pods.on_change(move |old, new| {
        let uid = |pod: Option<&Arc<Pod>>| pod.and_then(|pod| pod.metadata.uid.clone());
        // It came, went, or gave way to another of its name.
        let other = uid(old) != uid(new);
        let counts = |pod: &Pod| other || has_ended(pod) || pod.spec.node_name.is_empty();
        for pod in [old, new].into_iter().flatten().filter(|pod| counts(pod)) {
            if let Some(group) = group(pod) {
                q.add(Key::new(pod.metadata.namespace.as_deref().unwrap_or(""), group));
            }
        }
    });
    async move {
        all.synced().await;
        pods.synced().await;
        let reconcile = |key: Key| {
            let (client, all, pods) = (client.clone(), all.clone(), pods.clone());
            async move {
                let Some(one) = all.by_key(&key) else { return Ok(None::<Duration>) };
                let uses = |pod: &Pod| group(pod) == Some(&key.name) && !has_ended(pod);
                let in_use = || pods.in_namespace(&key.namespace).iter().any(|pod| uses(pod));
                if let Some(finalizers) = plan(one.as_ref(), in_use)
                    && let Some(written) = write(&client, one.as_ref(), finalizers).await?
                {
                    all.assume(written);
                }
                Ok(None)
            }
        };
        queue.run("podgroup-protection", 1, shutdown, reconcile).await;
        Ok(())
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
    fn pods_name_their_group() -> Result<(), serde_json::Error> {
        let pod: Pod = serde_json::from_value(serde_json::json!({"metadata": {"name": "p"},
            "spec": {"schedulingGroup": {"podGroupName": "g"}}, "status": {"phase": "Failed"}}))?;
        assert_eq!((group(&pod), has_ended(&pod)), (Some("g"), true));
        Ok(())
    }
}
