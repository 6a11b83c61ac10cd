//! Disruption budgets: how many pods there should be, how many are well, and so how many may be evicted now.
//!
//! Evictions take from `disruptionsAllowed`; this controller counts it anew with every change of a pod.

mod plan;
mod scale;

use crate::events::{Kind, Recorder};
use crate::informer::{Informer, key};
use crate::objects::Pod;
use crate::pods;
use crate::queue::{Key, Queue};
use crate::{Context, Error, Running, gone_is_fine, write};
use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Client;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

struct Controller {
    client: Client,
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    scales: scale::Scales,
    recorder: Recorder,
}

pub fn controller(context: &Context) -> Running {
    let client = context.clients.service_account("disruption-controller");
    let this = Arc::new(Controller {
        budgets: context.informers.of(),
        pods: context.informers.of(),
        scales: scale::Scales::new(client.clone(), context.informers.of()),
        recorder: Recorder::new(client.clone(), "controllermanager"),
        client,
    });
    let queue = Queue::<Key>::named(&context.config.queues, "disruption");
    this.budgets.feed(&queue);
    let (q, budgets) = (queue.clone(), this.budgets.clone());
    this.pods.on_change(move |old, new| {
        for budget in new
            .or(old)
            .into_iter()
            .flat_map(|pod| budgets.in_namespace(pod.metadata.namespace.as_deref().unwrap_or("")))
        {
            if [old, new].into_iter().flatten().any(|pod| plan::selects(&budget, pod)) {
                q.add(key(budget.as_ref()));
            }
        }
    });
    let shutdown = context.shutdown.clone();
    async move {
        this.budgets.synced().await;
        this.pods.synced().await;
        this.scales.synced().await;
        queue.run("disruption", 4, shutdown, |key| this.clone().reconcile(key)).await;
        Ok(())
    }
    .boxed()
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Option<Duration>, Error> {
        let Some(budget) = self.budgets.by_key(&key) else { return Ok(None) };
        let mut matching = self.pods.in_namespace(&key.namespace);
        matching.retain(|pod| plan::selects(&budget, pod));
        if matching.is_empty() {
            self.recorder.event(budget.as_ref(), Kind::Normal, "NoPods", "No matching pods found".to_owned());
        }
        let now = Timestamp::now();
        let expected = if plan::needs_scale(&budget) {
            match self.scales.expected(&key.namespace, &matching).await {
                Ok(scale) => {
                    if !scale.unmanaged.is_empty() {
                        self.tell_unmanaged(&budget);
                    }
                    scale.replicas
                }
                Err(why) => return self.fail_safe(&budget, &why, now).await,
            }
        } else {
            i32::try_from(matching.len()).unwrap_or(i32::MAX)
        };
        let plan = match plan::plan(&budget, &matching, expected, now) {
            Ok(plan) => plan,
            Err(why) => return self.fail_safe(&budget, &why, now).await,
        };
        for pod in plan.overdue {
            let text = format!("Pod was expected by PDB {}/{} to be deleted but it wasn't", key.namespace, key.name);
            self.recorder.event(pod.as_ref(), Kind::Warning, "NotDeleted", text);
        }
        self.write(&budget, plan.status).await?;
        Ok(plan.look_again)
    }

    fn tell_unmanaged(&self, budget: &PodDisruptionBudget) {
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref()).map(pods::selector);
        let selector = selector.map(|s| s.to_string()).unwrap_or_default();
        let text = format!(
            "Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value."
        );
        self.recorder.event(budget, Kind::Warning, "UnmanagedPods", text);
    }

    /// What cannot be counted lets nothing be evicted.
    async fn fail_safe(
        &self,
        budget: &PodDisruptionBudget,
        why: &str,
        now: Timestamp,
    ) -> Result<Option<Duration>, Error> {
        let text = format!("Failed to calculate the number of expected pods: {why}");
        self.recorder.event(budget, Kind::Warning, "CalculateExpectedPodCountFailed", text);
        self.write(budget, plan::failed(budget, why, now)).await?;
        Err(Error::Other(why.to_owned()))
    }

    async fn write(&self, budget: &PodDisruptionBudget, status: plan::Status) -> Result<(), Error> {
        if plan::says(budget, &status) {
            return Ok(());
        }
        let meta = &budget.metadata;
        let merge = json!({
            // An eviction that has taken from the budget meanwhile is not overwritten.
            "metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version},
            "status": plan::merge(budget, &status),
        });
        let (namespace, name) = (meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""));
        let written = write::update::<PodDisruptionBudget>(&self.client, namespace, name, Some("status"), merge).await;
        if let Some(written) = gone_is_fine(written)? {
            self.budgets.assume(written);
        }
        Ok(())
    }
}
