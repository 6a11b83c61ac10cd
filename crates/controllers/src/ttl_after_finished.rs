//! Jobs that say how long they are of interest after their end are removed then.

use crate::informer::{Informer, key};
use crate::objects::Job;
use crate::queue::{Key, Queue};
use crate::{Context, Running, gone_is_fine};
use futures::FutureExt;
use jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use std::time::Duration;

/// How long a finished Job is still to be kept; `None`: it is not finished, or nothing is said.
fn left(job: &Job, now: Timestamp) -> Option<Duration> {
    let keep = i64::from(job.spec.ttl_seconds_after_finished?);
    let ended = job.status.conditions.iter().flatten();
    let ended = ended.filter(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True");
    let at = ended.filter_map(|c| c.last_transition_time.as_ref()).map(|t| t.0.as_second()).next()?;
    Some(Duration::from_secs(u64::try_from(at + keep - now.as_second()).unwrap_or(0)))
}

pub fn controller(context: &Context) -> Running {
    let client = context.clients.service_account("ttl-after-finished-controller");
    let jobs: Informer<Job> = context.informers.of();
    let queue = Queue::<Key>::named(&context.config.queues, "ttl_jobs_to_delete");
    let q = queue.clone();
    jobs.on_change(move |_, new| {
        if let Some(job) = new.filter(|j| j.spec.ttl_seconds_after_finished.is_some()) {
            q.add(key(job.as_ref()));
        }
    });
    let shutdown = context.shutdown.clone();
    async move {
        jobs.synced().await;
        let reconcile = |key: Key| {
            let (client, jobs) = (client.clone(), jobs.clone());
            async move {
                let Some(job) = jobs.by_key(&key).filter(|j| j.metadata.deletion_timestamp.is_none()) else {
                    return Ok(None);
                };
                match left(&job, Timestamp::now()) {
                    None => Ok(None),
                    Some(left) if !left.is_zero() => Ok(Some(left)),
                    Some(_) => {
                        let params = DeleteParams {
                            preconditions: Some(Preconditions {
                                uid: job.metadata.uid.clone(),
                                resource_version: job.metadata.resource_version.clone(),
                            }),
                            ..DeleteParams::foreground()
                        };
                        gone_is_fine(Api::<Job>::namespaced(client, &key.namespace).delete(&key.name, &params).await)?;
                        Ok(None)
                    }
                }
            }
        };
        queue.run("ttl-after-finished", 2, shutdown, reconcile).await;
        Ok(())
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_time_counts_from_the_end() {
        let job = |type_: &str| -> Job {
            serde_json::from_value(
                json!({"metadata": {}, "spec": {"ttlSecondsAfterFinished": 10}, "status": {"conditions":
                [{"type": type_, "status": "True", "lastTransitionTime": "1970-01-01T00:00:00Z"}]}}),
            )
            .expect("a job")
        };
        let at = |s| Timestamp::from_second(s).expect("a time");
        assert_eq!(left(&job("Complete"), at(4)), Some(Duration::from_secs(6)));
        assert_eq!(left(&job("Failed"), at(11)), Some(Duration::ZERO));
        assert_eq!(left(&job("Suspended"), at(11)), None);
    }
}
