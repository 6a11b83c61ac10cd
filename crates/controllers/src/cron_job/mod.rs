//! CronJobs: a Job at each time of a schedule.

mod plan;
mod schedule;

use crate::events::{Kind, Recorder};
use crate::informer::{Informer, key};
use crate::objects::{CronJob, Job};
use crate::pod_control::{self, message};
use crate::pods;
use crate::queue::{Key, Queue};
use crate::{Context, Error, Running, gone_is_fine, write};
use futures::FutureExt;
use jiff::Timestamp;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

struct Controller {
    client: Client,
    crons: Informer<CronJob>,
    jobs: Informer<Job>,
    recorder: Recorder,
}

pub fn controller(context: &Context) -> Running {
    let client = context.clients.service_account("cronjob-controller");
    let this = Arc::new(Controller {
        crons: context.informers.of(),
        jobs: context.informers.of(),
        recorder: Recorder::new(client.clone(), "cronjob-controller"),
        client,
    });
    let queue = Queue::<Key>::named(&context.config.queues, "cronjob");
    this.crons.feed(&queue);
    let q = queue.clone();
    this.jobs.on_change(move |old, new| {
        for job in [old, new].into_iter().flatten() {
            if let Some(owner) = pods::controller(&job.metadata).filter(|o| o.kind == "CronJob") {
                q.add(Key::new(job.metadata.namespace.as_deref().unwrap_or(""), &owner.name));
            }
        }
    });
    let shutdown = context.shutdown.clone();
    async move {
        this.crons.synced().await;
        this.jobs.synced().await;
        queue.run("cronjob", 5, shutdown, |key| this.clone().reconcile(key)).await;
        Ok(())
    }
    .boxed()
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Option<Duration>, Error> {
        let Some(cron) = self.crons.by_key(&key) else { return Ok(None) };
        let mut jobs = self.jobs.in_namespace(&key.namespace);
        jobs.retain(|job| pods::controller(&job.metadata).map(|o| &o.uid) == cron.metadata.uid.as_ref());
        let mut plan = plan::plan(&cron, &jobs, Timestamp::now());
        for (kind, reason, text) in plan.events {
            self.recorder.event(cron.as_ref(), kind, reason, text);
        }
        for job in plan.delete {
            self.delete(&cron, &job).await?;
        }
        if let Some(start) = plan.start {
            match self.start(&cron, &start).await? {
                Some(job) => plan.status.started(&job, start.at),
                // It was refused: another look comes with the next event, or the next time.
                None => return Ok(plan.look_again),
            }
        }
        if plan.status != plan::Status::of(&cron) {
            let meta = &cron.metadata;
            let merge = json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version},
                "status": plan.status.merge()});
            let written =
                write::update::<CronJob>(&self.client, &key.namespace, &key.name, Some("status"), merge).await;
            if let Some(written) = gone_is_fine(written)? {
                self.crons.assume(written);
            }
        }
        Ok(plan.look_again)
    }

    async fn delete(&self, cron: &CronJob, job: &Job) -> Result<(), Error> {
        let name = job.metadata.name.as_deref().unwrap_or("");
        let api: Api<Job> = Api::namespaced(self.client.clone(), cron.metadata.namespace.as_deref().unwrap_or(""));
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: job.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::background()
        };
        match gone_is_fine(api.delete(name, &params).await) {
            Ok(answer) => {
                match answer {
                    // A finalizer may still hold it.
                    Some(either::Either::Left(leaving)) => self.jobs.assume(leaving),
                    _ => self.jobs.assume_deleted(&key(job), job.metadata.uid.as_deref().unwrap_or("")),
                }
                self.recorder.event(cron, Kind::Normal, "SuccessfulDelete", format!("Deleted job {name}"));
                Ok(())
            }
            Err(e) => {
                self.recorder.event(cron, Kind::Warning, "FailedDelete", format!("Deleted job: {}", message(&e)));
                Err(e.into())
            }
        }
    }

    async fn start(&self, cron: &CronJob, start: &plan::Start) -> Result<Option<Arc<Job>>, Error> {
        let namespace = cron.metadata.namespace.as_deref().unwrap_or("");
        let request = kube::core::Request::new(format!("/apis/batch/v1/namespaces/{namespace}/jobs"));
        let body = start.body.to_string().into_bytes();
        let request = request.create(&PostParams::default(), body).map_err(kube::Error::BuildRequest)?;
        match self.client.request::<Job>(request).await {
            Ok(job) => {
                self.jobs.assume(job.clone());
                self.recorder.event(cron, Kind::Normal, "SuccessfulCreate", format!("Created job {}", start.name));
                Ok(Some(Arc::new(job)))
            }
            // It was made before, and that was not noted.
            Err(e) if crate::code(&e) == 409 => {
                let api: Api<Job> = Api::namespaced(self.client.clone(), namespace);
                let found = api.get_opt(&start.name).await?;
                let ours =
                    found.filter(|j| pods::controller(&j.metadata).map(|o| &o.uid) == cron.metadata.uid.as_ref());
                Ok(ours.map(Arc::new))
            }
            Err(e) if pod_control::is_terminating(&e) => Ok(None),
            Err(e) => {
                let text = format!("Error creating job: {}", message(&e));
                self.recorder.event(cron, Kind::Warning, "FailedCreate", text);
                Err(e.into())
            }
        }
    }
}

/// The Job of a template, for a time.
fn job(cron: &CronJob, name: &str, scheduled: &str) -> Value {
    let template = &cron.spec.job_template;
    let part = |key: &str| template.pointer(&format!("/metadata/{key}")).cloned().unwrap_or_else(|| json!({}));
    let mut annotations = part("annotations");
    annotations["batch.kubernetes.io/cronjob-scheduled-timestamp"] = scheduled.into();
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": name, "labels": part("labels"), "annotations": annotations,
            "ownerReferences": [pod_control::owner(cron)]},
        "spec": template.get("spec"),
    })
}
