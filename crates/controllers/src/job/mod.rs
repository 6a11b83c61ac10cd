//! Jobs: pods until so many have succeeded.
//!
//! Every pod carries a finalizer until its end is counted in the Job's status, so that none is counted twice or forgotten:
//! first its UID is noted, then the finalizer goes, then it is counted and no longer noted.

mod accounting;
mod failure_policy;
mod indexes;
mod per_index;
mod plan;

use crate::informer::{Informer, key};
use crate::objects::{Job, Pod};
use crate::pod_control::{self, PodControl};
use crate::pods;
use crate::queue::{Key, Queue};
use crate::{Context, Error, Running, gone_is_fine, write};
use futures::FutureExt;
use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Who looks after Jobs that do not say otherwise.
const MANAGER: &str = "kubernetes.io/job-controller";

struct Controller {
    jobs: Informer<Job>,
    control: PodControl,
}

pub fn controller(context: &Context) -> Running {
    let this = Arc::new(Controller {
        jobs: context.informers.of(),
        control: PodControl::new(context, "job-controller", "job-controller"),
    });
    let queue = Queue::<Key>::named(&context.config.queues, "job");
    this.jobs.feed(&queue);
    pod_control::feed_owners(&this.control.pods, &this.jobs, &queue, |job: &Job, pod| {
        pods::matches(&pods::selector(&job.spec.selector), &pod.metadata)
    });
    let shutdown = context.shutdown.clone();
    async move {
        this.jobs.synced().await;
        this.control.pods.synced().await;
        queue.run("job", 5, shutdown, |key| this.clone().reconcile(key)).await;
        Ok(())
    }
    .boxed()
}

fn has_finalizer(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER)
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Option<Duration>, Error> {
        let Some(job) = self.jobs.by_key(&key) else {
            // Its pods are nobody's: the garbage collector waits for the finalizers only.
            self.release(self.orphans(&key)).await?;
            return Ok(None);
        };
        if job.spec.managed_by.as_deref().is_some_and(|manager| manager != MANAGER) {
            return Ok(None);
        }
        if plan::is_finished(&job) || job.metadata.deletion_timestamp.is_some() {
            self.release(self.control.owned(job.as_ref())).await?;
            return Ok(None);
        }
        let selector = pods::selector(&job.spec.selector);
        let owned = self.control.claim(job.as_ref(), &selector, |pod| !pods::is_finished(pod)).await?;
        let now = Timestamp::now();
        let plan = plan::plan(&job, &owned, now);
        let mut failure = self.control.delete(job.as_ref(), plan.delete).await.err();
        if failure.is_none() && !plan.create.is_empty() {
            let bodies: Vec<Value> = plan
                .create
                .iter()
                .map(|index| plan::pod(&job, *index, index.and_then(|index| plan.failures.get(&index))))
                .collect();
            failure = self.control.create(job.as_ref(), bodies).await.err();
        }
        let job = self.write(&job, plan.status).await?;
        for (kind, reason, text) in plan.events {
            self.control.recorder.event(job.as_ref(), kind, reason, text);
        }
        // What is noted is durable now: the pods need not wait any longer.
        self.release(plan.release).await?;
        match failure {
            Some(e) => Err(e),
            None => Ok(plan.look_again),
        }
    }

    /// Pods of a Job that is gone.
    fn orphans(&self, job: &Key) -> Vec<Arc<Pod>> {
        let mut pods = self.control.pods.in_namespace(&job.namespace);
        pods.retain(|p| pods::controller(&p.metadata).is_some_and(|o| o.kind == "Job" && o.name == job.name));
        pods
    }

    /// Takes our finalizer from pods.
    async fn release(&self, pods: Vec<Arc<Pod>>) -> Result<(), Error> {
        let results: Vec<Result<(), kube::Error>> = stream::iter(
            pods.into_iter().filter(|p| has_finalizer(p)).collect::<Vec<_>>(),
        )
        .map(|pod| async move {
            let (namespace, name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref());
            let api: Api<Pod> = Api::namespaced(self.control.client.clone(), namespace.unwrap_or(""));
            let patch =
                json!({"metadata": {"uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [FINALIZER]}});
            let patched = api.patch(name.unwrap_or(""), &PatchParams::default(), &Patch::Strategic(patch)).await;
            match gone_is_fine(patched) {
                Ok(Some(released)) => {
                    // A pod that was only waiting for this is gone now.
                    let gone = released.metadata.deletion_timestamp.is_some()
                        && released.metadata.finalizers.iter().flatten().next().is_none()
                        && released.metadata.deletion_grace_period_seconds.unwrap_or(0) == 0;
                    if gone {
                        let uid = released.metadata.uid.clone().unwrap_or_default();
                        self.control.pods.assume_deleted(&key(&released), &uid);
                    } else {
                        self.control.pods.assume(released);
                    }
                    Ok(())
                }
                Ok(None) => Ok(()),
                // Another pod of that name by now.
                Err(e) if crate::code(&e) == 409 => Ok(()),
                Err(e) => Err(e),
            }
        })
        .buffer_unordered(16)
        .collect()
        .await;
        results.into_iter().collect::<Result<Vec<()>, _>>()?;
        Ok(())
    }

    async fn write(&self, job: &Arc<Job>, status: Option<Value>) -> Result<Arc<Job>, Error> {
        let Some(status) = status else { return Ok(job.clone()) };
        let meta = &job.metadata;
        let merge = json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version}, "status": status});
        let (namespace, name) = (meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""));
        let written = write::update::<Job>(&self.control.client, namespace, name, Some("status"), merge).await?;
        self.jobs.assume(written.clone());
        Ok(Arc::new(written))
    }
}
