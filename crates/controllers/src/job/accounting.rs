//! Counting each pod's end once.

use super::{INDEX, has_finalizer, indexes};
use crate::objects::{Job, Pod};
use crate::pods;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What is counted, and what is noted to be counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Counted, without those that are noted.
    pub(super) succeeded: i32,
    pub(super) failed: i32,
    /// Noted: their finalizers are still to be taken.
    pub(super) noted_succeeded: BTreeSet<String>,
    pub(super) noted_failed: BTreeSet<String>,
    /// Indexes that have succeeded (of indexed Jobs).
    pub(super) completed: BTreeSet<u32>,
}

impl Counts {
    pub(super) fn total_succeeded(&self) -> i32 {
        self.succeeded.saturating_add(number(self.noted_succeeded.len()))
    }
    pub(super) fn total_failed(&self) -> i32 {
        self.failed.saturating_add(number(self.noted_failed.len()))
    }
}

pub(super) fn number(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

pub(super) fn is_indexed(job: &Job) -> bool {
    job.spec.completion_mode == "Indexed"
}

/// The pod's completion index.
pub(super) fn index(pod: &Pod) -> Option<u32> {
    pod.metadata.labels.as_ref()?.get(INDEX)?.parse().ok()
}

/// Whether a pod has come to an end that counts as a failure.
pub(super) fn has_failed(job: &Job, pod: &Pod) -> bool {
    // One that is asked to leave has failed, unless its end is waited for.
    let waits = job.spec.pod_replacement_policy == "Failed" || job.spec.pod_failure_policy.is_some();
    pod.status.phase == "Failed"
        || !waits && pod.metadata.deletion_timestamp.is_some() && pod.status.phase != "Succeeded"
}

/// The counts after this look at the pods, and the pods whose finalizers may go once these are written.
/// `ignored` says which failures count for nothing.
pub(super) fn account(job: &Job, owned: &[Arc<Pod>], ignored: impl Fn(&Pod) -> bool) -> (Counts, Vec<Arc<Pod>>) {
    let status = &job.status;
    let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let end = u32::try_from(job.spec.completions.unwrap_or(0)).unwrap_or(0);
    let mut counts = Counts {
        succeeded: status.succeeded.unwrap_or(0),
        failed: status.failed.unwrap_or(0),
        completed: indexes::parse(status.completed_indexes.as_deref().unwrap_or(""), end),
        ..Counts::default()
    };
    let waiting: BTreeSet<&str> =
        owned.iter().filter(|p| has_finalizer(p)).filter_map(|p| p.metadata.uid.as_deref()).collect();
    let noted_before = (uncounted.succeeded.unwrap_or_default(), uncounted.failed.unwrap_or_default());
    // Those without the finalizer have been noted long enough.
    for uid in noted_before.0 {
        if waiting.contains(uid.as_str()) {
            counts.noted_succeeded.insert(uid);
        } else {
            counts.succeeded = counts.succeeded.saturating_add(1);
        }
    }
    for uid in noted_before.1 {
        if waiting.contains(uid.as_str()) {
            counts.noted_failed.insert(uid);
        } else {
            counts.failed = counts.failed.saturating_add(1);
        }
    }
    let mut release = Vec::new();
    for pod in owned.iter().filter(|p| has_finalizer(p)) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if pod.status.phase == "Succeeded" {
            if is_indexed(job) {
                // Each index counts once, however many of its pods succeed.
                counts.completed.extend(index(pod).filter(|index| *index < end));
            } else {
                counts.noted_succeeded.insert(uid);
            }
            release.push(pod.clone());
        } else if has_failed(job, pod) {
            if !ignored(pod) {
                counts.noted_failed.insert(uid);
            }
            release.push(pod.clone());
        }
    }
    if is_indexed(job) {
        counts.succeeded = number(counts.completed.len());
    }
    (counts, release)
}

/// Pods that work, or are about to.
pub(super) fn active(job: &Job, owned: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
    owned.iter().filter(|p| pods::is_active(p) && !has_failed(job, p)).cloned().collect()
}
