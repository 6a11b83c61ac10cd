//! What a Job is to do next: pods to make and to stop, and what its status says.

use super::accounting::{self, Counts, active, has_failed, index, is_indexed, number};
use super::failure_policy::{Verdict, judge};
use super::{FINALIZER, INDEX, indexes, per_index};
use crate::events::Kind;
use crate::objects::{Job, Pod};
use crate::pod_control::{self, BURST};
use crate::pods;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::JobCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// After a failure the next pod waits, twice as long each time.
const FIRST_BACK_OFF: i64 = 10;
const LONGEST_BACK_OFF: i64 = 600;

#[derive(Default)]
pub(super) struct Plan {
    pub(super) create: Vec<Option<u32>>,
    /// How often indexes have failed before: counted, and not.
    pub(super) failures: BTreeMap<u32, (i32, i32)>,
    pub(super) delete: Vec<Arc<Pod>>,
    /// Pods whose ends are noted in the status that is to be written before.
    pub(super) release: Vec<Arc<Pod>>,
    /// `None`: it says so already.
    pub(super) status: Option<Value>,
    pub(super) events: Vec<(Kind, &'static str, String)>,
    pub(super) look_again: Option<Duration>,
}

fn has(job: &Job, type_: &str) -> bool {
    job.status.conditions.iter().flatten().any(|c| c.type_ == type_ && c.status == "True")
}

pub(super) fn is_finished(job: &Job) -> bool {
    has(job, "Complete") || has(job, "Failed")
}

/// Why a Job ends: `Complete` or `Failed`, reason, message.
type End = (&'static str, String, String);

/// The end that was announced before, while pods were still to go.
fn announced(job: &Job) -> Option<End> {
    let find = |type_: &str| job.status.conditions.iter().flatten().find(|c| c.type_ == type_ && c.status == "True");
    let of = |end, c: &JobCondition| (end, c.reason.clone().unwrap_or_default(), c.message.clone().unwrap_or_default());
    find("FailureTarget").map(|c| of("Failed", c)).or_else(|| find("SuccessCriteriaMet").map(|c| of("Complete", c)))
}

fn judge_end(
    job: &Job,
    owned: &[Arc<Pod>],
    active: &[Arc<Pod>],
    counts: &Counts,
    given_up: &BTreeSet<u32>,
    now: Timestamp,
) -> Option<End> {
    if let Some(end) = announced(job) {
        return Some(end);
    }
    let failed = |reason: &str, message: String| Some(("Failed", reason.to_owned(), message));
    let new_failures = owned.iter().filter(|p| super::has_finalizer(p) && has_failed(job, p));
    let fatal = new_failures.filter_map(|p| match judge(job, p) {
        Verdict::FailJob(why) => Some(why),
        _ => None,
    });
    if let Some(why) = fatal.into_iter().next() {
        return failed("PodFailurePolicy", why);
    }
    let limit = job.spec.backoff_limit.unwrap_or(6);
    let restarts = job.spec.template.pointer("/spec/restartPolicy").and_then(Value::as_str) == Some("OnFailure");
    let restarted: i32 = active.iter().flat_map(|p| restart_counts(p)).sum();
    if counts.total_failed() > limit
        || restarts && limit > 0 && restarted >= limit
        || restarts && limit == 0 && restarted > 0
    {
        return failed("BackoffLimitExceeded", "Job has reached the specified backoff limit".to_owned());
    }
    if let (Some(deadline), Some(start)) = (job.spec.active_deadline_seconds, &job.status.start_time)
        && !job.spec.suspend
        && now.as_second() - start.0.as_second() >= deadline
    {
        return failed("DeadlineExceeded", "Job was active longer than specified deadline".to_owned());
    }
    if let Some((reason, message)) = per_index::failure(job, counts.completed.len(), given_up.len()) {
        return failed(reason, message.to_owned());
    }
    if let Some(message) = per_index::success(job, &counts.completed) {
        return Some(("Complete", "SuccessPolicy".to_owned(), message));
    }
    let succeeded = counts.total_succeeded();
    let complete = match job.spec.completions {
        Some(completions) => succeeded >= completions,
        // A work queue is empty once one has found it so and all are done.
        None => succeeded > 0 && active.is_empty(),
    };
    complete
        .then(|| ("Complete", "CompletionsReached".to_owned(), "Reached expected number of succeeded pods".to_owned()))
}

fn restart_counts(pod: &Pod) -> impl Iterator<Item = i32> {
    pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses).map(|c| c.restart_count)
}

pub(super) fn plan(job: &Job, owned: &[Arc<Pod>], now: Timestamp) -> Plan {
    let (counts, mut release) = accounting::account(job, owned, |pod| judge(job, pod) == Verdict::Ignore);
    let active = active(job, owned);
    let given_up = per_index::given_up(job, owned);
    let end = judge_end(job, owned, &active, &counts, &given_up, now);
    let replaced = per_index::to_replace(job, owned, &counts.completed, &given_up);
    if end.is_none() {
        let waits = |pod: &Arc<Pod>| replaced.values().any(|last| last.metadata.uid == pod.metadata.uid);
        release.retain(|pod| !waits(pod));
    }
    let mut plan = Plan { release, ..Plan::default() };
    let mut conditions = job.status.conditions.clone().unwrap_or_default();
    let mut start = job.status.start_time.clone();
    let mut made = 0;
    if let Some((kind, reason, message)) = &end {
        plan.delete.clone_from(&active);
        let (first, last) =
            if *kind == "Complete" { ("SuccessCriteriaMet", "Complete") } else { ("FailureTarget", "Failed") };
        set(&mut conditions, first, "True", reason, message, now);
        let pending = owned.iter().any(|p| !pods::is_finished(p)) || !plan.release.is_empty();
        if !pending && counts.noted_succeeded.is_empty() && counts.noted_failed.is_empty() {
            set(&mut conditions, last, "True", reason, message, now);
            plan.events.push(if *kind == "Complete" {
                (Kind::Normal, "Completed", "Job completed".to_owned())
            } else {
                (Kind::Warning, reason_of(reason), message.clone())
            });
        }
    } else if job.spec.suspend {
        plan.delete.clone_from(&active);
        start = None;
        if set(&mut conditions, "Suspended", "True", "JobSuspended", "Job suspended", now) {
            plan.events.push((Kind::Normal, "Suspended", "Job suspended".to_owned()));
        }
    } else {
        let was = conditions.iter().any(|c| c.type_ == "Suspended" && c.status == "True");
        if was && set(&mut conditions, "Suspended", "False", "JobResumed", "Job resumed", now) {
            plan.events.push((Kind::Normal, "Resumed", "Job resumed".to_owned()));
        }
        start = start.or(Some(Time(now)));
        let known = Known { counts: &counts, given_up: &given_up, replaced: &replaced };
        made = manage(job, owned, &active, &known, now, &mut plan);
    }
    if let (Some(deadline), Some(start), None) = (job.spec.active_deadline_seconds, &start, &end) {
        let left = start.0.as_second() + deadline - now.as_second();
        sooner(&mut plan.look_again, Duration::from_secs(u64::try_from(left).unwrap_or(0)));
    }
    let stays = |pod: &&Arc<Pod>| !plan.delete.iter().any(|gone| gone.metadata.uid == pod.metadata.uid);
    let ready = active.iter().filter(stays).filter(|pod| pods::is_ready(pod)).count();
    let active = active.len() + made - plan.delete.len().min(active.len());
    plan.status = status(job, owned, &counts, &given_up, (active, ready), conditions, start, now);
    plan
}

fn sooner(known: &mut Option<Duration>, wait: Duration) {
    *known = Some(known.map_or(wait, |known| known.min(wait)));
}

/// The reasons that events are known for.
fn reason_of(reason: &str) -> &'static str {
    ["BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes", "MaxFailedIndexesExceeded", "PodFailurePolicy"]
        .into_iter()
        .find(|r| *r == reason)
        .unwrap_or("Failed")
}

/// What is known of a Job's work so far.
struct Known<'k> {
    counts: &'k Counts,
    given_up: &'k BTreeSet<u32>,
    /// The failed pods whose places are to be taken, by index.
    replaced: &'k BTreeMap<u32, Arc<Pod>>,
}

/// As many pods as are wanted now; gives how many more there will be.
fn manage(
    job: &Job,
    owned: &[Arc<Pod>],
    active: &[Arc<Pod>],
    known: &Known<'_>,
    now: Timestamp,
    plan: &mut Plan,
) -> usize {
    let counts = known.counts;
    let parallelism = job.spec.parallelism.unwrap_or(1).max(0);
    let succeeded = counts.total_succeeded();
    let have = number(active.len());
    let wanted = match job.spec.completions {
        None if succeeded > 0 => have.min(parallelism),
        None => parallelism,
        Some(completions) => completions.saturating_sub(succeeded).clamp(0, parallelism),
    };
    if have > wanted {
        let mut ranked = active.to_vec();
        ranked.sort_by_cached_key(|p| pods::deletion_rank(p, 0, now));
        ranked.truncate(usize::try_from(have - wanted).unwrap_or(0));
        plan.delete = ranked;
        return 0;
    }
    let mut missing = usize::try_from(wanted - have).unwrap_or(0).min(BURST);
    if job.spec.pod_replacement_policy == "Failed" || job.spec.pod_failure_policy.is_some() {
        let leaving = owned.iter().filter(|p| p.metadata.deletion_timestamp.is_some() && !pods::is_finished(p)).count();
        missing = missing.saturating_sub(leaving);
    }
    if missing == 0 {
        return 0;
    }
    let each = per_index::limit(job).is_some();
    let wait = if each { Duration::ZERO } else { back_off(job, owned, now) };
    if !wait.is_zero() {
        sooner(&mut plan.look_again, wait);
        return 0;
    }
    plan.create = if is_indexed(job) {
        let end = u32::try_from(job.spec.completions.unwrap_or(0)).unwrap_or(0);
        let taken: BTreeSet<u32> =
            active.iter().filter_map(|p| index(p)).chain(counts.completed.iter().copied()).collect();
        let free = |index: &u32| !taken.contains(index) && !known.given_up.contains(index);
        let mut create: Vec<u32> = (0..end).filter(free).take(missing).collect();
        if each {
            // Each index waits for itself.
            create.retain(|index| {
                let Some(failed) = known.replaced.get(index) else {
                    plan.failures.insert(*index, (0, 0));
                    return true;
                };
                let wait = per_index::wait(failed, now);
                if wait.is_zero() {
                    plan.failures.insert(*index, per_index::after(job, failed));
                } else {
                    sooner(&mut plan.look_again, wait);
                }
                wait.is_zero()
            });
        }
        create.into_iter().map(Some).collect()
    } else {
        vec![None; missing]
    };
    plan.create.len()
}

/// When a pod came to its end, as a second since the epoch.
pub(super) fn ended(pod: &Pod) -> i64 {
    let statuses = pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
    let finished = statuses.filter_map(|s| s.state.terminated.as_ref()?.finished_at.as_ref()).map(|t| t.0.as_second());
    let left = pod.metadata.deletion_timestamp.as_ref().map(|t| t.0.as_second());
    finished.max().or(left).or(pod.metadata.creation_timestamp.as_ref().map(|t| t.0.as_second())).unwrap_or(0)
}

/// How long the next pod is still to wait after the failures since the last success.
fn back_off(job: &Job, owned: &[Arc<Pod>], now: Timestamp) -> Duration {
    let success = owned.iter().filter(|p| p.status.phase == "Succeeded").map(|p| ended(p)).max().unwrap_or(i64::MIN);
    let failures: Vec<i64> = owned
        .iter()
        .filter(|p| has_failed(job, p) && judge(job, p) != Verdict::Ignore)
        .map(|p| ended(p))
        .filter(|at| *at > success)
        .collect();
    let Some(last) = failures.iter().max() else { return Duration::ZERO };
    wait_after(number(failures.len()), *last, now)
}

/// How long is still to be waited after so many failures, the last of which was then.
pub(super) fn wait_after(failures: i32, last: i64, now: Timestamp) -> Duration {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(0).min(10);
    let wait = (FIRST_BACK_OFF << doublings).min(LONGEST_BACK_OFF);
    Duration::from_secs(u64::try_from(last + wait - now.as_second()).unwrap_or(0))
}

/// Sets a condition; whether that changes it.
fn set(
    conditions: &mut Vec<JobCondition>,
    type_: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> bool {
    let next = JobCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    match conditions.iter_mut().find(|c| c.type_ == type_) {
        Some(known) if known.status == status => false,
        Some(known) => {
            *known = next;
            true
        }
        None => {
            conditions.push(next);
            true
        }
    }
}

#[allow(clippy::too_many_arguments, reason = "each is a part of the status")]
fn status(
    job: &Job,
    owned: &[Arc<Pod>],
    counts: &Counts,
    given_up: &BTreeSet<u32>,
    (active, ready): (usize, usize),
    conditions: Vec<JobCondition>,
    start: Option<Time>,
    now: Timestamp,
) -> Option<Value> {
    let before = &job.status;
    let leaving = owned.iter().filter(|p| p.metadata.deletion_timestamp.is_some() && !pods::is_finished(p)).count();
    let completed = is_indexed(job).then(|| indexes::write(&counts.completed));
    let failed = per_index::limit(job).map(|_| indexes::write(given_up));
    let done = conditions.iter().any(|c| c.type_ == "Complete");
    let uncounted = (counts.noted_succeeded.clone(), counts.noted_failed.clone());
    let known = before.uncounted_terminated_pods.clone().unwrap_or_default();
    let as_set = |list: Option<Vec<String>>| list.into_iter().flatten().collect::<BTreeSet<String>>();
    let same = before.active.unwrap_or(0) == number(active)
        && before.ready.unwrap_or(0) == number(ready)
        && before.terminating.unwrap_or(0) == number(leaving)
        && before.succeeded.unwrap_or(0) == counts.succeeded
        && before.failed.unwrap_or(0) == counts.failed
        && before.completed_indexes.clone().unwrap_or_default() == completed.clone().unwrap_or_default()
        && before.failed_indexes == failed
        && before.start_time == start
        && before.conditions.clone().unwrap_or_default() == conditions
        && (as_set(known.succeeded), as_set(known.failed)) == uncounted
        && before.uncounted_terminated_pods.is_some();
    if same {
        return None;
    }
    Some(json!({
        "active": active, "ready": ready, "terminating": leaving,
        "succeeded": counts.succeeded, "failed": counts.failed,
        "completedIndexes": completed.filter(|text| !text.is_empty()),
        "failedIndexes": failed,
        "startTime": start,
        "completionTime": if done { json!(Time(now)) } else { json!(before.completion_time) },
        "conditions": conditions,
        "uncountedTerminatedPods": {"succeeded": uncounted.0, "failed": uncounted.1},
    }))
}

/// The pod of a Job, for an index of an indexed one, which may have failed so often before.
pub(super) fn pod(job: &Job, index: Option<u32>, failures: Option<&(i32, i32)>) -> Value {
    let mut pod = pod_control::body(job, &job.spec.template);
    let finalizers = pod.pointer("/metadata/finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
    let all: Vec<Value> = finalizers.into_iter().chain([FINALIZER.into()]).collect();
    pod["metadata"]["finalizers"] = Value::Array(all);
    let Some(index) = index else { return pod };
    let name = job.metadata.name.as_deref().unwrap_or("");
    pod["metadata"]["generateName"] = format!("{name}-{index}-").into();
    for place in ["labels", "annotations"] {
        let mut map: BTreeMap<String, Value> =
            pod["metadata"].get(place).and_then(|v| serde_json::from_value(v.clone()).ok()).unwrap_or_default();
        map.insert(INDEX.to_owned(), index.to_string().into());
        pod["metadata"][place] = json!(map);
    }
    if let Some((counted, ignored)) = failures {
        pod["metadata"]["annotations"][per_index::FAILURES] = counted.to_string().into();
        if *ignored > 0 {
            pod["metadata"]["annotations"][per_index::IGNORED] = ignored.to_string().into();
        }
    }
    if pod.pointer("/spec/hostname").is_none() {
        pod["spec"]["hostname"] = format!("{name}-{index}").into();
    }
    const VARIABLE: &str = "JOB_COMPLETION_INDEX";
    let variable =
        json!({"name": VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": format!("metadata.labels['{INDEX}']")}}});
    for list in ["initContainers", "containers"] {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let mut variables = container.get("env").and_then(Value::as_array).cloned().unwrap_or_default();
            if !variables.iter().any(|v| v["name"] == VARIABLE) {
                variables.push(variable.clone());
                container["env"] = Value::Array(variables);
            }
        }
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(spec: Value, status: Value) -> Job {
        serde_json::from_value(
            json!({"metadata": {"name": "j", "namespace": "n", "uid": "u"}, "spec": spec, "status": status}),
        )
        .expect("a job")
    }

    fn owned(uid: &str, phase: &str, index: Option<u32>) -> Arc<Pod> {
        let pod = json!({"metadata": {"name": uid, "uid": uid, "finalizers": [FINALIZER],
                "labels": index.map(|i| json!({INDEX: i.to_string()}))},
            "status": {"phase": phase, "containerStatuses": [{"name": "c", "state": {"terminated":
                {"exitCode": 1, "finishedAt": "1970-01-01T00:00:00Z"}}}]}});
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn as_many_as_are_wanted_and_no_more_than_are_left() {
        let started = json!({"startTime": "1970-01-01T00:00:00Z"});
        let spec = json!({"parallelism": 3, "completions": 5});
        assert_eq!(plan(&job(spec.clone(), started.clone()), &[], at(0)).create.len(), 3);
        let nearly = json!({"startTime": "1970-01-01T00:00:00Z", "succeeded": 4});
        assert_eq!(plan(&job(spec.clone(), nearly), &[], at(0)).create.len(), 1);
        let running = [owned("a", "Running", None), owned("b", "Running", None)];
        let less = json!({"parallelism": 1, "completions": 5});
        assert_eq!(plan(&job(less, started), &running, at(0)).delete.len(), 1);
    }

    #[test]
    fn ends_are_noted_first_and_counted_when_the_finalizer_is_gone() {
        let spec = json!({"parallelism": 1, "completions": 1});
        let first = plan(&job(spec.clone(), json!({})), &[owned("a", "Succeeded", None)], at(0));
        let status = first.status.expect("a status");
        assert_eq!(status["uncountedTerminatedPods"]["succeeded"], json!(["a"]));
        assert_eq!((status["succeeded"].as_i64(), first.release.len()), (Some(0), 1));
        assert_eq!(status["conditions"][0]["type"], "SuccessCriteriaMet");
        assert!(status["conditions"].as_array().is_some_and(|c| c.len() == 1), "it is not complete yet");
        let mut released = (*owned("a", "Succeeded", None)).clone();
        released.metadata.finalizers = None;
        let second = plan(&job(spec, status), &[Arc::new(released)], at(1));
        let status = second.status.expect("a status");
        assert_eq!(
            (status["succeeded"].as_i64(), &status["uncountedTerminatedPods"]["succeeded"]),
            (Some(1), &json!([]))
        );
        assert_eq!(status["conditions"][1]["type"], "Complete");
        assert_eq!(second.events[0].1, "Completed");
        assert!(status["completionTime"].is_string());
    }

    #[test]
    fn failures_wait_and_then_end_the_job() {
        let spec = json!({"parallelism": 1, "completions": 1, "backoffLimit": 1});
        let first = plan(&job(spec.clone(), json!({})), &[owned("a", "Failed", None)], at(3));
        assert!(first.create.is_empty());
        assert_eq!(first.look_again, Some(Duration::from_secs(7)));
        assert_eq!(plan(&job(spec.clone(), json!({})), &[owned("a", "Failed", None)], at(10)).create, [None]);
        let both = [owned("a", "Failed", None), owned("b", "Failed", None), owned("c", "Running", None)];
        let last = plan(&job(spec, json!({})), &both, at(60));
        let status = last.status.expect("a status");
        assert_eq!(status["conditions"][0]["type"], "FailureTarget");
        assert_eq!(status["conditions"][0]["reason"], "BackoffLimitExceeded");
        assert_eq!(last.delete.len(), 1, "what still runs is stopped");
        let late = json!({"parallelism": 1, "completions": 1, "activeDeadlineSeconds": 5});
        let plan = plan(&job(late, json!({"startTime": "1970-01-01T00:00:00Z"})), &[], at(5));
        assert_eq!(plan.status.expect("a status")["conditions"][0]["reason"], "DeadlineExceeded");
    }

    #[test]
    fn pods_that_are_stopped_are_neither_active_nor_ready() {
        let mut pod = (*owned("a", "Running", None)).clone();
        let ready = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        pod.status = serde_json::from_value(ready).expect("a status");
        let said = |spec: Value| {
            let job = job(spec, json!({"startTime": "1970-01-01T00:00:00Z"}));
            let status = plan(&job, &[Arc::new(pod.clone())], at(5)).status.expect("a status");
            (status["active"].as_i64(), status["ready"].as_i64())
        };
        let spec = json!({"parallelism": 1, "completions": 1});
        assert_eq!(said(spec.clone()), (Some(1), Some(1)));
        for (key, value) in [("activeDeadlineSeconds", json!(5)), ("suspend", json!(true)), ("parallelism", json!(0))] {
            let mut spec = spec.clone();
            spec[key] = value;
            assert_eq!(said(spec), (Some(0), Some(0)), "{key}");
        }
    }

    #[test]
    fn indexes_are_worked_on_once_each() {
        let spec = json!({"parallelism": 2, "completions": 4, "completionMode": "Indexed",
            "template": {"spec": {"containers": [{"name": "c"}]}}});
        let done = json!({"completedIndexes": "0", "succeeded": 1, "startTime": "1970-01-01T00:00:00Z"});
        let job = job(spec, done);
        let plan = plan(&job, &[owned("a", "Running", Some(1))], at(0));
        assert_eq!(plan.create, [Some(2)]);
        let pod = pod(&job, Some(2), None);
        assert_eq!(pod["metadata"]["generateName"], "j-2-");
        assert_eq!(pod["metadata"]["labels"][INDEX], "2");
        assert_eq!(pod["spec"]["hostname"], "j-2");
        assert_eq!(pod["spec"]["containers"][0]["env"][0]["name"], "JOB_COMPLETION_INDEX");
        assert_eq!(pod["metadata"]["finalizers"], json!([FINALIZER]));
    }

    #[test]
    fn each_index_fails_and_waits_for_itself() {
        let spec = json!({"parallelism": 3, "completions": 3, "completionMode": "Indexed", "backoffLimit": i32::MAX,
            "backoffLimitPerIndex": 1, "template": {"spec": {"containers": [{"name": "c"}]}}});
        let started = json!({"startTime": "1970-01-01T00:00:00Z"});
        let first = plan(&job(spec.clone(), started.clone()), &[], at(0));
        assert_eq!(first.create, [Some(0), Some(1), Some(2)]);
        assert_eq!(first.failures[&2], (0, 0));
        let failing = |uid: &str, index: u32, failures: i32| {
            let mut pod = (*owned(uid, "Failed", Some(index))).clone();
            pod.metadata.annotations = Some([(per_index::FAILURES.to_owned(), failures.to_string())].into());
            Arc::new(pod)
        };
        // The first failure of an index waits, keeps its pod, and holds nobody else up.
        let pods = [failing("a", 0, 0), owned("b", "Running", Some(1))];
        let second = plan(&job(spec.clone(), started.clone()), &pods, at(3));
        assert_eq!((second.create.clone(), second.look_again), (vec![Some(2)], Some(Duration::from_secs(7))));
        assert!(second.release.is_empty(), "its count is not carried on yet");
        let third = plan(&job(spec.clone(), started.clone()), &pods, at(10));
        assert_eq!((third.create.clone(), third.failures[&0]), (vec![Some(0), Some(2)], (1, 0)));
        let job_of = job(spec.clone(), started.clone());
        let made = pod(&job_of, Some(0), third.failures.get(&0));
        assert_eq!(made["metadata"]["annotations"][per_index::FAILURES], "1");
        // At its limit it is given up, and the others go on.
        let pods = [failing("d", 0, 1), owned("b", "Running", Some(1)), owned("e", "Running", Some(2))];
        let fourth = plan(&job(spec.clone(), started.clone()), &pods, at(60));
        assert_eq!((fourth.create.len(), fourth.release.len(), fourth.delete.len()), (0, 1, 0));
        let status = fourth.status.expect("a status");
        assert_eq!((&status["failedIndexes"], &status["conditions"]), (&json!("0"), &json!([])));
        // When all is done, the Job has failed.
        let done = json!({"startTime": "1970-01-01T00:00:00Z", "failedIndexes": "0", "completedIndexes": "1,2", "succeeded": 2});
        let last = plan(&job(spec, done), &[], at(70)).status.expect("a status");
        assert_eq!(last["conditions"][0]["reason"], "FailedIndexes");
        assert_eq!(last["conditions"][1]["type"], "Failed");
    }

    #[test]
    fn enough_successes_end_a_job_early() {
        let spec = json!({"parallelism": 3, "completions": 3, "completionMode": "Indexed",
            "successPolicy": {"rules": [{"succeededIndexes": "1"}]}});
        let pods = [owned("a", "Running", Some(0)), owned("b", "Succeeded", Some(1))];
        let plan = plan(&job(spec, json!({"startTime": "1970-01-01T00:00:00Z"})), &pods, at(1));
        assert_eq!((plan.delete.len(), plan.create.len()), (1, 0));
        let condition = &plan.status.expect("a status")["conditions"][0];
        assert_eq!((&condition["type"], &condition["reason"]), (&json!("SuccessCriteriaMet"), &json!("SuccessPolicy")));
        assert_eq!(condition["message"], "Matched rules at index 0");
    }

    #[test]
    fn a_suspended_job_has_no_pods() {
        let job = job(json!({"suspend": true, "parallelism": 2}), json!({"startTime": "1970-01-01T00:00:00Z"}));
        let plan = plan(&job, &[owned("a", "Running", None)], at(0));
        assert_eq!((plan.delete.len(), plan.create.len()), (1, 0));
        let status = plan.status.expect("a status");
        assert_eq!((&status["startTime"], &status["conditions"][0]["reason"]), (&Value::Null, &json!("JobSuspended")));
    }
}
