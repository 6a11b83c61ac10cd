//! Deployments: rolling a template out over ReplicaSets, with history.
//!
//! [`plan`] decides from the Deployment and its ReplicaSets what one step is; [`status`] what is reported;
//! this file reads, acts and reports.

mod plan;
mod revision;
mod status;
pub(crate) mod strategy;
pub(crate) mod template;

use crate::events::{Kind, Recorder};
use crate::informer::{Informer, key};
use crate::objects::{Deployment, Pod, ReplicaSet};
use crate::pod_control::message;
use crate::pods::{self, Claim};
use crate::queue::{Key, Queue};
use crate::replica_set::Replicas as _;
use crate::{Context, Error, Running, gone_is_fine, write};
use futures::FutureExt;
use jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use plan::Action;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

struct Controller {
    client: Client,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    recorder: Recorder,
}

pub fn controller(context: &Context) -> Running {
    let client = context.clients.service_account("deployment-controller");
    let this = Arc::new(Controller {
        deployments: context.informers.of(),
        sets: context.informers.of(),
        pods: context.informers.of(),
        recorder: Recorder::new(client.clone(), "deployment-controller"),
        client,
    });
    let queue = Queue::<Key>::named(&context.config.queues, "deployment");
    let q = queue.clone();
    this.deployments.on_change(move |old, new| {
        if let Some(deployment) = new.or(old) {
            q.add(key(deployment.as_ref()));
        }
    });
    let (q, deployments) = (queue.clone(), this.deployments.clone());
    this.sets.on_change(move |old, new| {
        for set in [old, new].into_iter().flatten() {
            let namespace = set.metadata.namespace.as_deref().unwrap_or("");
            match pods::controller(&set.metadata) {
                Some(owner) if owner.kind == "Deployment" => q.add(Key::new(namespace, &owner.name)),
                Some(_) => {}
                None => {
                    for deployment in deployments.in_namespace(namespace) {
                        if pods::matches(&pods::selector(&deployment.spec.selector), &set.metadata) {
                            q.add(key(deployment.as_ref()));
                        }
                    }
                }
            }
        }
    });
    // A Recreate rollout waits until the old pods are gone: no ReplicaSet tells of that.
    let (q, deployments, sets) = (queue.clone(), this.deployments.clone(), this.sets.clone());
    this.pods.on_change(move |old, new| {
        if let (Some(pod), None) = (old, new)
            && let Some(owner) = pods::controller(&pod.metadata).filter(|o| o.kind == "ReplicaSet")
        {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
            let deployment = sets.get(namespace, &owner.name).and_then(|s| pods::controller(&s.metadata).cloned());
            if let Some(deployment) = deployment.and_then(|o| deployments.get(namespace, &o.name))
                && deployment.spec.strategy.type_ == "Recreate"
            {
                q.add(key(deployment.as_ref()));
            }
        }
    });
    let shutdown = context.shutdown.clone();
    async move {
        this.deployments.synced().await;
        this.sets.synced().await;
        this.pods.synced().await;
        queue.run("deployment", 5, shutdown, |key| this.clone().reconcile(key)).await;
        Ok(())
    }
    .boxed()
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Option<Duration>, Error> {
        let Some(deployment) = self.deployments.by_key(&key) else { return Ok(None) };
        let selector = &deployment.spec.selector;
        if selector.match_labels.as_ref().is_none_or(std::collections::BTreeMap::is_empty)
            && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
        {
            let text = "This deployment is selecting all pods. A non-empty selector is required.";
            self.recorder.event(deployment.as_ref(), Kind::Warning, "SelectingAll", text.to_owned());
            return Ok(None);
        }
        let sets = self.claim(&deployment).await?;
        let mut input = plan::Input { deployment: &deployment, sets, old_pods_running: false, now: Timestamp::now() };
        input.old_pods_running = self.old_pods_running(&input);
        let plan = plan::plan(&input);
        let created = plan.actions.iter().any(|action| matches!(action, Action::Create { .. }));
        for action in plan.actions {
            self.act(&deployment, action).await?;
        }
        // What the actions wrote is in the informers: a later reconcile goes on from there, and reports.
        let sets = self.owned(&deployment);
        let input = plan::Input { deployment: &deployment, sets, ..input };
        let next = status::status(&input, plan.rolling, created);
        self.write_status(&deployment, next).await?;
        Ok(status::next_check(&input))
    }

    fn owned(&self, deployment: &Deployment) -> Vec<Arc<ReplicaSet>> {
        let uid = deployment.metadata.uid.as_ref();
        let mut sets = self.sets.in_namespace(deployment.metadata.namespace.as_deref().unwrap_or(""));
        sets.retain(|s| pods::controller(&s.metadata).map(|o| &o.uid) == uid);
        sets
    }

    fn old_pods_running(&self, input: &plan::Input<'_>) -> bool {
        let namespace = input.deployment.metadata.namespace.as_deref().unwrap_or("");
        let new = input.new_set().and_then(|s| s.metadata.uid.clone());
        let ours: Vec<&str> = input.sets.iter().filter_map(|s| s.metadata.uid.as_deref()).collect();
        self.pods.in_namespace(namespace).iter().any(|pod| {
            pods::controller(&pod.metadata)
                .is_some_and(|o| ours.contains(&o.uid.as_str()) && Some(&o.uid) != new.as_ref())
                && !pods::is_finished(pod)
        })
    }

    async fn claim(&self, deployment: &Deployment) -> Result<Vec<Arc<ReplicaSet>>, Error> {
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or("");
        let selector = pods::selector(&deployment.spec.selector);
        let api: Api<ReplicaSet> = Api::namespaced(self.client.clone(), namespace);
        let mut ours = Vec::new();
        for set in self.sets.in_namespace(namespace) {
            let name = set.metadata.name.as_deref().unwrap_or("");
            let uid = set.metadata.uid.as_deref();
            let patch = match pods::claim(&deployment.metadata, pods::matches(&selector, &set.metadata), &set.metadata)
            {
                Claim::Others => continue,
                Claim::Ours => {
                    ours.push(set);
                    continue;
                }
                Claim::Adopt => pods::adoption(&pods::owner("apps/v1", "Deployment", &deployment.metadata), uid),
                Claim::Release => pods::release(deployment.metadata.uid.as_deref().unwrap_or(""), uid),
            };
            let written = api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await;
            if let Some(written) = gone_is_fine(written)? {
                self.sets.assume(written.clone());
                if pods::controller(&written.metadata).map(|o| &o.uid) == deployment.metadata.uid.as_ref() {
                    ours.push(Arc::new(written));
                }
            }
        }
        Ok(ours)
    }

    async fn act(&self, deployment: &Deployment, action: Action) -> Result<(), Error> {
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or("");
        let api: Api<ReplicaSet> = Api::namespaced(self.client.clone(), namespace);
        match action {
            Action::Create { name, body, replicas } => self.create(deployment, &api, &name, body, replicas).await,
            Action::Scale { set, replicas, annotations } => {
                let name = set.metadata.name.as_deref().unwrap_or("");
                let patch = json!({
                    "metadata": {"uid": set.metadata.uid, "resourceVersion": set.metadata.resource_version, "annotations": annotations},
                    "spec": {"replicas": replicas},
                });
                let written = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
                self.sets.assume(written);
                let before = set.wanted();
                if before != replicas {
                    let way = if before < replicas { "up" } else { "down" };
                    let text = format!("Scaled {way} replica set {name} from {before} to {replicas}");
                    self.recorder.event(deployment, Kind::Normal, "ScalingReplicaSet", text);
                }
                Ok(())
            }
            Action::Annotate { set, patch } => {
                let name = set.metadata.name.as_deref().unwrap_or("");
                let patch = json!({"metadata": {"uid": set.metadata.uid, "annotations": patch.annotations},
                    "spec": {"minReadySeconds": patch.min_ready_seconds}});
                let written = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
                self.sets.assume(written);
                Ok(())
            }
            Action::SetRevision(revision) => {
                let patch = json!({"metadata": {"uid": deployment.metadata.uid,
                    "annotations": {revision::REVISION: revision}}});
                let name = deployment.metadata.name.as_deref().unwrap_or("");
                // Through the status, where a changed annotation is no new generation.
                let written = write::update::<Deployment>(&self.client, namespace, name, Some("status"), patch).await?;
                self.deployments.assume(written);
                Ok(())
            }
            Action::Delete(set) => {
                let name = set.metadata.name.as_deref().unwrap_or("");
                let params = DeleteParams {
                    preconditions: Some(Preconditions {
                        uid: set.metadata.uid.clone(),
                        resource_version: set.metadata.resource_version.clone(),
                    }),
                    ..DeleteParams::background()
                };
                gone_is_fine(api.delete(name, &params).await)?;
                self.sets.assume_deleted(&key(set.as_ref()), set.metadata.uid.as_deref().unwrap_or(""));
                Ok(())
            }
        }
    }

    async fn create(
        &self,
        deployment: &Deployment,
        api: &Api<ReplicaSet>,
        name: &str,
        body: serde_json::Value,
        replicas: i32,
    ) -> Result<(), Error> {
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or("");
        let request = kube::core::Request::new(format!("/apis/apps/v1/namespaces/{namespace}/replicasets"));
        let request = request
            .create(&PostParams::default(), body.to_string().into_bytes())
            .map_err(|e| Error::Api(kube::Error::BuildRequest(e)))?;
        match self.client.request::<ReplicaSet>(request).await {
            Ok(set) => {
                self.sets.assume(set);
                if replicas > 0 {
                    let text = format!("Scaled up replica set {name} from 0 to {replicas}");
                    self.recorder.event(deployment, Kind::Normal, "ScalingReplicaSet", text);
                }
                Ok(())
            }
            Err(e) if crate::code(&e) == 409 => {
                let existing = api.get_opt(name).await?;
                let ours = existing.as_ref().is_some_and(|s| {
                    pods::controller(&s.metadata).map(|o| &o.uid) == deployment.metadata.uid.as_ref()
                        && template::equal_ignoring_hash(&s.spec.template, &deployment.spec.template)
                });
                if let Some(set) = existing.filter(|_| ours) {
                    self.sets.assume(set);
                    return Ok(());
                }
                // The hash of another template: the next one is made with a collision counted.
                let collisions = deployment.status.collision_count.unwrap_or(0) + 1;
                let patch =
                    json!({"metadata": {"uid": deployment.metadata.uid}, "status": {"collisionCount": collisions}});
                let own = deployment.metadata.name.as_deref().unwrap_or("");
                let written = write::update::<Deployment>(&self.client, namespace, own, Some("status"), patch).await?;
                self.deployments.assume(written);
                Err(e.into())
            }
            Err(e) => {
                let text = format!("Failed to create new replica set {name:?}: {}", message(&e));
                self.recorder.event(deployment, Kind::Warning, "ReplicaSetCreateError", text.clone());
                let failed = status::creation_failed(deployment, &text, Timestamp::now());
                self.write_status(deployment, failed).await?;
                Err(e.into())
            }
        }
    }

    async fn write_status(
        &self,
        deployment: &Deployment,
        status: crate::objects::DeploymentStatus,
    ) -> Result<(), Error> {
        if status == deployment.status {
            return Ok(());
        }
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or("");
        let patch = json!({
            "metadata": {"uid": deployment.metadata.uid},
            "status": {
                "observedGeneration": status.observed_generation,
                "replicas": status.replicas,
                "updatedReplicas": status.updated_replicas,
                "readyReplicas": status.ready_replicas,
                "availableReplicas": status.available_replicas,
                "unavailableReplicas": status.unavailable_replicas,
                "terminatingReplicas": status.terminating_replicas,
                "conditions": status.conditions,
            },
        });
        let name = deployment.metadata.name.as_deref().unwrap_or("");
        let written = write::update::<Deployment>(&self.client, namespace, name, Some("status"), patch).await;
        if let Some(written) = gone_is_fine(written)? {
            self.deployments.assume(written);
        }
        Ok(())
    }
}
