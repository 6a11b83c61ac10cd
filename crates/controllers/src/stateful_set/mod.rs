//! StatefulSets: pods with an identity each, made and replaced in order, with claims that stay.

mod identity;
mod plan;
mod retention;

use crate::events::Kind;
use crate::history::History;
use crate::informer::{Informer, key};
use crate::objects::{PersistentVolumeClaim, Pod, StatefulSet};
use crate::pod_control::{self, PodControl, message};
use crate::pods;
use crate::queue::{Key, Queue};
use crate::{Context, Error, Running, gone_is_fine, write};
use futures::FutureExt;
use jiff::Timestamp;
use kube::api::PostParams;
use plan::Action;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// How long to wait for a claim that goes.
const CLAIM_GOES: Duration = Duration::from_secs(1);

struct Controller {
    sets: Informer<StatefulSet>,
    claims: Informer<PersistentVolumeClaim>,
    control: PodControl,
    history: History,
}

pub fn controller(context: &Context) -> Running {
    let control = PodControl::new(context, "statefulset-controller", "statefulset-controller");
    let this = Arc::new(Controller {
        sets: context.informers.of(),
        claims: context.informers.of(),
        history: History::new(control.client.clone(), context.informers.of(), "controller.kubernetes.io/hash"),
        control,
    });
    let queue = Queue::<Key>::named(&context.config.queues, "statefulset");
    this.sets.feed(&queue);
    pod_control::feed_owners(&this.control.pods, &this.sets, &queue, |set: &StatefulSet, pod| {
        pods::matches(&pods::selector(&set.spec.selector), &pod.metadata)
    });
    let shutdown = context.shutdown.clone();
    async move {
        this.sets.synced().await;
        this.claims.synced().await;
        this.control.pods.synced().await;
        this.history.synced().await;
        queue.run("statefulset", 5, shutdown, |key| this.clone().reconcile(key)).await;
        Ok(())
    }
    .boxed()
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Option<Duration>, Error> {
        let Some(set) = self.sets.by_key(&key) else { return Ok(None) };
        let selector = pods::selector(&set.spec.selector);
        let parent = key.name.clone();
        let adoptable = move |pod: &Pod| identity::ordinal(&parent, pod).is_some();
        let mut owned = self.control.claim(set.as_ref(), &selector, adoptable).await?;
        owned.retain(|pod| identity::ordinal(&key.name, pod).is_some());
        let update = self.history.current(set.as_ref(), &set.spec.template, set.status.collision_count).await?;
        let current = self.history.find(set.as_ref(), &set.status.current_revision).unwrap_or_else(|| update.clone());
        let now = Timestamp::now();
        let mut failure = None;
        let mut again = None;
        if set.metadata.deletion_timestamp.is_none() {
            // Before any pod goes, as its claims may have to go with it.
            failure = self.retain_claims(&set, &owned).await.err();
            for action in plan::plan(&set, &owned, &current, &update, now) {
                if failure.is_some() {
                    break;
                }
                if let Action::Create(body) = &action
                    && self.must_wait(&set, body)
                {
                    // Nothing tells when the claim is gone.
                    again = Some(CLAIM_GOES);
                    break;
                }
                failure = self.act(&set, action).await.err();
            }
        }
        let mut owned = self.control.owned(set.as_ref());
        owned.retain(|pod| identity::ordinal(&key.name, pod).is_some());
        let status = plan::status(&set, &owned, &current, &update, now);
        self.write_status(&set, &status).await?;
        let live: Vec<&str> = owned.iter().filter_map(|p| identity::revision(p)).collect();
        let live: Vec<&str> = live.into_iter().chain([current.name.as_str(), update.name.as_str()]).collect();
        self.history.trim(set.as_ref(), &live, set.spec.revision_history_limit.unwrap_or(10)).await?;
        match failure {
            Some(e) => Err(e),
            None => Ok(again.into_iter().chain(pods::next_availability(&owned, set.spec.min_ready_seconds, now)).min()),
        }
    }

    async fn act(&self, set: &StatefulSet, action: Action) -> Result<(), Error> {
        let name = set.metadata.name.as_deref().unwrap_or("");
        let recorder = &self.control.recorder;
        match action {
            Action::Create(body) => {
                let namespace = set.metadata.namespace.as_deref().unwrap_or("");
                let pod = body.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("").to_owned();
                let outcome = match self.ensure_claims(set, &pod).await {
                    Ok(()) => self.control.create_quietly(namespace, &body).await.map(drop),
                    Err(e) => Err(e),
                };
                match outcome {
                    Ok(()) => {
                        let text = format!("create Pod {pod} in StatefulSet {name} successful");
                        recorder.event(set, Kind::Normal, "SuccessfulCreate", text);
                        Ok(())
                    }
                    Err(e) if pod_control::is_terminating(&e) => Ok(()),
                    Err(e) => {
                        let text = format!("create Pod {pod} in StatefulSet {name} failed error: {}", message(&e));
                        recorder.event(set, Kind::Warning, "FailedCreate", text);
                        Err(e.into())
                    }
                }
            }
            Action::Delete(pod) => {
                let own = pod.metadata.name.as_deref().unwrap_or("");
                match self.control.delete_quietly(&pod).await {
                    Ok(()) => {
                        let text = format!("delete Pod {own} in StatefulSet {name} successful");
                        recorder.event(set, Kind::Normal, "SuccessfulDelete", text);
                        Ok(())
                    }
                    Err(e) => {
                        let text = format!("delete Pod {own} in StatefulSet {name} failed error: {}", message(&e));
                        recorder.event(set, Kind::Warning, "FailedDelete", text);
                        Err(e.into())
                    }
                }
            }
        }
    }

    /// Gives the claims of pods the owners that the policy wants.
    async fn retain_claims(&self, set: &StatefulSet, owned: &[Arc<Pod>]) -> Result<(), Error> {
        let namespace = set.metadata.namespace.as_deref().unwrap_or("");
        let name = set.metadata.name.as_deref().unwrap_or("");
        for pod in owned {
            let own = pod.metadata.name.as_deref().unwrap_or("");
            let wanted = identity::ordinal(name, pod).is_some_and(|n| plan::wanted(set).contains(&n));
            for claim in identity::claim_names(set, own) {
                let Some(present) = self.claims.get(namespace, &claim) else { continue };
                let Some(owners) = retention::owners(set, pod, wanted, &present) else { continue };
                let merge = json!({"metadata": {"uid": present.metadata.uid, "ownerReferences": owners}});
                let client = &self.control.client;
                let written = write::update::<PersistentVolumeClaim>(client, namespace, &claim, None, merge).await;
                if let Some(written) = gone_is_fine(written)? {
                    self.claims.assume(written);
                }
            }
        }
        Ok(())
    }

    /// Whether a claim of a new pod goes with a former one.
    fn must_wait(&self, set: &StatefulSet, pod: &Value) -> bool {
        let namespace = set.metadata.namespace.as_deref().unwrap_or("");
        let name = pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("");
        let goes = |claim: String| self.claims.get(namespace, &claim).is_some_and(|c| retention::goes(&c, name));
        identity::claim_names(set, name).into_iter().any(goes)
    }

    /// Makes the claims of a pod that are not there.
    async fn ensure_claims(&self, set: &StatefulSet, pod: &str) -> Result<(), kube::Error> {
        let namespace = set.metadata.namespace.as_deref().unwrap_or("");
        let (recorder, name) = (&self.control.recorder, set.metadata.name.as_deref().unwrap_or(""));
        for claim in identity::claims(set, pod) {
            let own = claim.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("").to_owned();
            if self.claims.get(namespace, &own).is_some() {
                continue;
            }
            let path = format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims");
            let request = kube::core::Request::new(path)
                .create(&PostParams::default(), claim.to_string().into_bytes())
                .map_err(kube::Error::BuildRequest)?;
            match self.control.client.request::<PersistentVolumeClaim>(request).await {
                Ok(claim) => {
                    self.claims.assume(claim);
                    let text = format!("create Claim {own} Pod {pod} in StatefulSet {name} success");
                    recorder.event(set, Kind::Normal, "SuccessfulCreate", text);
                }
                Err(e) if crate::code(&e) == 409 => {}
                Err(e) => {
                    let why = message(&e);
                    let text = format!("create Claim {own} for Pod {pod} in StatefulSet {name} failed error: {why}");
                    recorder.event(set, Kind::Warning, "FailedCreate", text);
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    async fn write_status(&self, set: &Arc<StatefulSet>, status: &plan::Status) -> Result<(), Error> {
        if *status == set.status {
            return Ok(());
        }
        let merge = json!({"metadata": {"uid": set.metadata.uid}, "status": {
            "observedGeneration": status.observed_generation, "replicas": status.replicas,
            "readyReplicas": status.ready_replicas, "currentReplicas": status.current_replicas,
            "updatedReplicas": status.updated_replicas, "availableReplicas": status.available_replicas,
            "currentRevision": status.current_revision, "updateRevision": status.update_revision,
            "collisionCount": status.collision_count.unwrap_or(0),
        }});
        let Key { namespace, name } = key(set.as_ref());
        let client = &self.control.client;
        let written = write::update::<StatefulSet>(client, &namespace, &name, Some("status"), merge).await;
        if let Some(written) = gone_is_fine(written)? {
            self.sets.assume(written);
        }
        Ok(())
    }
}
