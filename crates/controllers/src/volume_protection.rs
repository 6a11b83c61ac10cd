//! Claims and volumes that are being deleted are let go when nobody uses them any more.

use crate::informer::{Informer, Object};
use crate::objects::{PersistentVolume, PersistentVolumeClaim, Pod};
use crate::queue::{Key, Queue};
use crate::{Context, Error, Running, gone_is_fine, write};
use futures::FutureExt;
use kube::Client;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const CLAIM: &str = "kubernetes.io/pvc-protection";
const VOLUME: &str = "kubernetes.io/pv-protection";

/// The claims that a pod uses by name, or has got made for it.
fn claims(pod: &Pod) -> impl Iterator<Item = String> {
    let name = pod.metadata.name.as_deref().unwrap_or("");
    pod.spec.volumes.iter().filter_map(move |volume| match &volume.persistent_volume_claim {
        Some(source) => Some(source.claim_name.clone()),
        None => volume.ephemeral.as_ref().map(|_| format!("{name}-{}", volume.name)),
    })
}

/// What is to become of the finalizers of an object; `None`: nothing.
pub(crate) fn finalizers(object: &impl Object, finalizer: &str, in_use: impl FnOnce() -> bool) -> Option<Vec<String>> {
    let meta = object.meta();
    let mut finalizers = meta.finalizers.clone().unwrap_or_default();
    let has = finalizers.iter().any(|f| f == finalizer);
    match (meta.deletion_timestamp.is_some(), has) {
        (true, true) if !in_use() => finalizers.retain(|f| f != finalizer),
        (false, false) => finalizers.push(finalizer.to_owned()),
        _ => return None,
    }
    Some(finalizers)
}

/// Gives the objects of a kind the finalizers that `decide` says, each time that one of them is queued.
pub(crate) async fn keep<K: Object>(
    name: &'static str,
    (client, all, queue, shutdown): (Client, Informer<K>, Queue<Key>, CancellationToken),
    decide: impl Fn(&Key, &K) -> Option<Vec<String>> + Sync,
) -> Result<(), Error> {
    all.synced().await;
    let reconcile = |key: Key| {
        let finalizers = all.by_key(&key).and_then(|one| Some((decide(&key, one.as_ref())?, one)));
        let (client, all) = (client.clone(), all.clone());
        async move {
            if let Some((finalizers, one)) = finalizers
                && let Some(written) = write(&client, one.as_ref(), finalizers).await?
            {
                all.assume(written);
            }
            Ok(None::<Duration>)
        }
    };
    queue.run(name, 1, shutdown, reconcile).await;
    Ok(())
}

/// Writes the finalizers, of the version that was decided on.
pub(crate) async fn write<K: Object>(client: &Client, object: &K, finalizers: Vec<String>) -> Result<Option<K>, Error> {
    let meta = object.meta();
    let merge = serde_json::json!({"metadata": {
        "uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": finalizers,
    }});
    let (namespace, name) = (meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""));
    Ok(gone_is_fine(write::update::<K>(client, namespace, name, None, merge).await)?)
}

pub fn claims_controller(context: &Context) -> Running {
    let client = context.clients.service_account("pvc-protection-controller");
    let all: Informer<PersistentVolumeClaim> = context.informers.of();
    let pods: Informer<Pod> = context.informers.of();
    let queue = Queue::<Key>::named(&context.config.queues, "pvcprotection");
    all.feed(&queue);
    let q = queue.clone();
    pods.on_change(move |old, new| {
        // What a pod uses does not change: only its end is of interest.
        if let (Some(pod), None) = (old, new) {
            for claim in claims(pod) {
                q.add(Key::new(pod.metadata.namespace.as_deref().unwrap_or(""), &claim));
            }
        }
    });
    let shutdown = context.shutdown.clone();
    async move {
        pods.synced().await;
        let decide = |key: &Key, claim: &PersistentVolumeClaim| {
            // A pod that has no node yet will not get the claim any more.
            let uses = |pod: &Pod| !pod.spec.node_name.is_empty() && claims(pod).any(|name| name == key.name);
            finalizers(claim, CLAIM, || pods.in_namespace(&key.namespace).iter().any(|pod| uses(pod)))
        };
        keep("pvc-protection", (client, all, queue, shutdown), decide).await
    }
    .boxed()
}

pub fn volumes_controller(context: &Context) -> Running {
    let client = context.clients.service_account("pv-protection-controller");
    let all: Informer<PersistentVolume> = context.informers.of();
    let queue = Queue::<Key>::named(&context.config.queues, "pvprotection");
    all.feed(&queue);
    let shutdown = context.shutdown.clone();
    async move {
        let decide = |_: &Key, volume: &PersistentVolume| finalizers(volume, VOLUME, || volume.status.phase == "Bound");
        keep("pv-protection", (client, all, queue, shutdown), decide).await
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn the_finalizer_stays_as_long_as_the_claim_is_used() {
        let mut claim = PersistentVolumeClaim::default();
        assert_eq!(finalizers(&claim, CLAIM, || true), Some(vec![CLAIM.to_owned()]));
        claim.metadata.finalizers = Some(vec!["x".into(), CLAIM.into()]);
        assert_eq!(finalizers(&claim, CLAIM, || false), None);
        claim.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(finalizers(&claim, CLAIM, || true), None);
        assert_eq!(finalizers(&claim, CLAIM, || false), Some(vec!["x".to_owned()]));
    }

    #[test]
    fn claims_are_named_or_made_for_the_pod() -> Result<(), serde_json::Error> {
        let pod: Pod = serde_json::from_value(serde_json::json!({"metadata": {"name": "p"}, "spec": {"volumes": [
            {"name": "a", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "b", "ephemeral": {"x": 1}},
            {"name": "e", "emptyDir": {}}]}}))?;
        assert_eq!(claims(&pod).collect::<Vec<_>>(), ["c", "p-b"]);
        Ok(())
    }
}
