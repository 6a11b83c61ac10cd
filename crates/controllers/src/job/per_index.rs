//! Indexed Jobs whose indexes fail each on their own (`backoffLimitPerIndex`), and those that are done before all are.
//!
//! How often an index has failed is noted on its pods. So the last failed pod of an index keeps its finalizer until the pod
//! that takes its place carries the count on.

use super::accounting::{active, has_failed, index, is_indexed};
use super::failure_policy::{Verdict, judge};
use super::{has_finalizer, indexes};
use crate::objects::{Job, Pod};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub(super) const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
pub(super) const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// How often an index may fail; `None`: failures count for the whole Job.
pub(super) fn limit(job: &Job) -> Option<i32> {
    job.spec.backoff_limit_per_index.filter(|_| is_indexed(job))
}

fn end(job: &Job) -> u32 {
    u32::try_from(job.spec.completions.unwrap_or(0)).unwrap_or(0)
}

fn noted(pod: &Pod, key: &str) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(key)?.parse::<i32>().ok()).filter(|count| *count >= 0).unwrap_or(0)
}

/// Failures that counted, and those that did not, before a pod was made.
fn before(pod: &Pod) -> (i32, i32) {
    (noted(pod, FAILURES), noted(pod, IGNORED))
}

/// The same for the pod that takes the place of a failed one.
pub(super) fn after(job: &Job, failed: &Pod) -> (i32, i32) {
    let (counted, ignored) = before(failed);
    match judge(job, failed) {
        Verdict::Ignore => (counted, ignored.saturating_add(1)),
        _ => (counted.saturating_add(1), ignored),
    }
}

/// The indexes that are given up.
pub(super) fn given_up(job: &Job, owned: &[Arc<Pod>]) -> BTreeSet<u32> {
    let Some(limit) = limit(job) else { return BTreeSet::new() };
    let mut failed = indexes::parse(job.status.failed_indexes.as_deref().unwrap_or(""), end(job));
    let ended =
        owned.iter().filter(|pod| has_finalizer(pod) && has_failed(job, pod)).filter(|pod| match judge(job, pod) {
            Verdict::FailIndex => true,
            Verdict::Ignore => false,
            _ => before(pod).0 >= limit,
        });
    failed.extend(ended.filter_map(|pod| index(pod)).filter(|index| *index < end(job)));
    failed
}

/// The last failed pod of each index that is to be tried again and has no pod at work.
pub(super) fn to_replace(
    job: &Job,
    owned: &[Arc<Pod>],
    completed: &BTreeSet<u32>,
    given_up: &BTreeSet<u32>,
) -> BTreeMap<u32, Arc<Pod>> {
    let mut last: BTreeMap<u32, Arc<Pod>> = BTreeMap::new();
    if limit(job).is_none() {
        return last;
    }
    let busy: BTreeSet<u32> = active(job, owned).iter().filter_map(|pod| index(pod)).collect();
    for pod in owned.iter().filter(|pod| has_finalizer(pod) && has_failed(job, pod)) {
        let Some(index) = index(pod).filter(|index| *index < end(job)) else { continue };
        if completed.contains(&index) || given_up.contains(&index) || busy.contains(&index) {
            continue;
        }
        let tries = |pod: &Pod| (before(pod).0 + before(pod).1, super::plan::ended(pod));
        if last.get(&index).is_none_or(|known| tries(known) <= tries(pod)) {
            last.insert(index, pod.clone());
        }
    }
    last
}

/// How long the index of a failed pod is still to wait.
pub(super) fn wait(failed: &Pod, now: Timestamp) -> Duration {
    let (counted, ignored) = before(failed);
    super::plan::wait_after(counted.saturating_add(ignored).saturating_add(1), super::plan::ended(failed), now)
}

/// The end that failed indexes bring: reason and message.
pub(super) fn failure(job: &Job, completed: usize, given_up: usize) -> Option<(&'static str, &'static str)> {
    if job.spec.max_failed_indexes.is_some_and(|most| given_up > usize::try_from(most).unwrap_or(0)) {
        let message = "Job has exceeded the specified maximal number of failed indexes";
        return Some(("MaxFailedIndexesExceeded", message));
    }
    let all = usize::try_from(end(job)).unwrap_or(usize::MAX);
    (given_up > 0 && given_up + completed >= all).then_some(("FailedIndexes", "Job has failed indexes"))
}

/// What says that enough has succeeded: the message of the first rule of the success policy that holds.
pub(super) fn success(job: &Job, completed: &BTreeSet<u32>) -> Option<String> {
    let rules = job.spec.success_policy.as_ref().filter(|_| is_indexed(job)).map(|policy| &policy.rules)?;
    let holds = |(_, rule): &(usize, &k8s_openapi::api::batch::v1::SuccessPolicyRule)| {
        let count = rule.succeeded_count.map(|count| usize::try_from(count).unwrap_or(0));
        match (&rule.succeeded_indexes, count) {
            (Some(text), count) => {
                let wanted = indexes::parse(text, end(job));
                let have = wanted.intersection(completed).count();
                have >= count.unwrap_or(wanted.len())
            }
            (None, Some(count)) => completed.len() >= count,
            (None, None) => false,
        }
    };
    let (at, _) = rules.iter().enumerate().find(holds)?;
    Some(format!("Matched rules at index {at}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn job(spec: &Value) -> Job {
        let mut all = json!({"completions": 5, "completionMode": "Indexed"});
        for (key, value) in spec.as_object().expect("an object") {
            all[key] = value.clone();
        }
        serde_json::from_value(json!({"metadata": {"name": "j"}, "spec": all})).expect("a job")
    }

    #[test]
    fn a_success_policy_holds_by_the_first_of_its_rules() {
        let of = |rules: Value, done: &str| {
            success(&job(&json!({"successPolicy": {"rules": rules}})), &indexes::parse(done, 5))
        };
        assert_eq!(of(json!([{"succeededIndexes": "0,2"}]), "0"), None);
        assert_eq!(of(json!([{"succeededIndexes": "0,2"}]), "0-2").as_deref(), Some("Matched rules at index 0"));
        assert_eq!(
            of(json!([{"succeededIndexes": "0"}, {"succeededCount": 2}]), "1,3").as_deref(),
            Some("Matched rules at index 1")
        );
        assert_eq!(of(json!([{"succeededIndexes": "0-3", "succeededCount": 2}]), "1,4"), None);
        assert!(of(json!([{"succeededIndexes": "0-3", "succeededCount": 2}]), "1-2").is_some());
    }

    #[test]
    fn failed_indexes_end_a_job_when_they_are_too_many_or_all_is_done() {
        let reason = |spec: Value, completed, given_up| failure(&job(&spec), completed, given_up).map(|(r, _)| r);
        assert_eq!(reason(json!({}), 3, 0), None);
        assert_eq!(reason(json!({}), 3, 1), None);
        assert_eq!(reason(json!({}), 3, 2), Some("FailedIndexes"));
        assert_eq!(reason(json!({"maxFailedIndexes": 1}), 0, 1), None);
        assert_eq!(reason(json!({"maxFailedIndexes": 1}), 0, 2), Some("MaxFailedIndexesExceeded"));
    }
}
