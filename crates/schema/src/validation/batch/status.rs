//! What the status of a job may say. Whoever manages the job writes it, so upstream holds it to the rules of its own
//! controller; what an update does not touch is not held against it.

use super::indexes;
use crate::tree::{Map, Value};
use crate::validation::fields::{Errors, json, non_negative};
use crate::view::batch_v1::{Job, JobSpec, JobStatus};
use api::{FieldError, Path};
use std::collections::BTreeSet;

const STATUS: Path<'static> = Path::root("status");
static EMPTY: Map = Map::new();

/// A job's status with what of its spec the rules ask.
#[derive(Clone, Copy)]
struct State<'a> {
    spec: JobSpec<'a>,
    status: JobStatus<'a>,
}

impl<'a> State<'a> {
    fn of(object: &'a Map) -> Self {
        let job = Job(object);
        State { spec: job.spec().unwrap_or(JobSpec(&EMPTY)), status: job.status().unwrap_or(JobStatus(&EMPTY)) }
    }
    fn is(self, kind: &str) -> bool {
        self.status.conditions().iter().any(|c| c.type_() == Some(kind) && c.status() == Some("True"))
    }
    fn finished(self) -> bool {
        self.is("Complete") || self.is("Failed")
    }
    fn indexed(self) -> bool {
        self.spec.completion_mode() == Some("Indexed")
    }
    fn active(self) -> i64 {
        self.status.active().unwrap_or(0)
    }
    fn uncounted(self) -> usize {
        self.status.uncounted_terminated_pods().map_or(0, |pods| pods.succeeded().len() + pods.failed().len())
    }
}

fn time(text: &str) -> Option<jiff::Timestamp> {
    text.parse().ok()
}

pub(super) fn update(new: &Map, old: &Map) -> Errors {
    let (now, was) = (State::of(new), State::of(old));
    let mut errors = Errors::new();
    counts(&mut errors, now);
    let differs = |field: &str| now.status.0.get(field) != was.status.0.get(field);
    finish(&mut errors, now, was, &differs);
    indexes(&mut errors, now, &differs);
    pods(&mut errors, now, was, &differs);
    success(&mut errors, now);
    transitions(&mut errors, now, was, &differs);
    errors
}

fn counts(errors: &mut Errors, now: State<'_>) {
    for (field, value) in [
        ("active", now.status.active()),
        ("succeeded", now.status.succeeded()),
        ("failed", now.status.failed()),
        ("ready", now.status.ready()),
        ("terminating", now.status.terminating()),
    ] {
        non_negative(errors, &STATUS.child(field), value);
    }
    let Some(pods) = now.status.uncounted_terminated_pods() else { return };
    let path = STATUS.child("uncountedTerminatedPods");
    let mut seen = BTreeSet::new();
    for (field, list) in [("succeeded", pods.succeeded()), ("failed", pods.failed())] {
        for (i, uid) in list.iter().enumerate() {
            let list = path.child(field);
            if uid.is_empty() {
                errors.push(FieldError::invalid(&list.index(i), uid, "must not be empty"));
            } else if !seen.insert(uid) {
                errors.push(FieldError::duplicate(&list.index(i), uid));
            }
        }
    }
}

fn refuse(errors: &mut Errors, why: &str) {
    errors.push(FieldError::invalid_unshown(&STATUS.child("conditions"), why));
}

/// The conditions in which a job is over, and the time of it.
fn finish(errors: &mut Errors, now: State<'_>, was: State<'_>, differs: &dyn Fn(&str) -> bool) {
    let turned = |kind: &str| now.is(kind) != was.is(kind);
    let (complete, failed) = (now.is("Complete"), now.is("Failed"));
    let (started, ended) = (now.status.start_time(), now.status.completion_time());
    let path = STATUS.child("completionTime");
    let shown = || json(now.status.0.get("completionTime"));
    if (turned("Complete") || turned("Failed")) && complete && failed {
        refuse(errors, "cannot set Complete=True and Failed=true conditions");
    }
    if (turned("Complete") || turned("FailureTarget")) && complete && now.is("FailureTarget") {
        refuse(errors, "cannot set Complete=True and FailureTarget=true conditions");
    }
    if turned("Complete") || differs("completionTime") {
        if ended.is_some() && !complete {
            let why = "cannot set completionTime when there is no Complete=True condition";
            errors.push(FieldError::invalid(&path, shown(), why));
        }
        if ended.is_none() && complete {
            errors.push(FieldError::required(&path, "completionTime is required for Complete jobs"));
        }
    }
    if (differs("startTime") || differs("completionTime"))
        && let (Some(started), Some(ended)) = (started.and_then(time), ended.and_then(time))
        && ended < started
    {
        errors.push(FieldError::invalid(&path, shown(), "completionTime cannot be set before startTime"));
    }
    if (turned("Failed") || turned("FailureTarget")) && failed && !now.is("FailureTarget") {
        refuse(errors, "cannot set Failed=True condition without the FailureTarget=true condition");
    }
    if (turned("Complete") || turned("SuccessCriteriaMet")) && complete && !now.is("SuccessCriteriaMet") {
        refuse(errors, "cannot set Complete=True condition without the SuccessCriteriaMet=true condition");
    }
    let turned_over = now.finished() != was.finished();
    if (turned_over || differs("active")) && now.active() > 0 && now.finished() {
        errors.push(FieldError::invalid(&STATUS.child("active"), now.active(), "active>0 is invalid for finished job"));
    }
    let never_ran = now.spec.suspend() == Some(true) && now.spec.completions() == Some(0);
    if (turned_over || differs("startTime")) && !never_ran && started.is_none() && now.finished() {
        errors.push(FieldError::required(&STATUS.child("startTime"), "startTime is required for finished job"));
    }
    if (turned_over || differs("uncountedTerminatedPods")) && now.finished() && now.uncounted() > 0 {
        let shown = json(now.status.0.get("uncountedTerminatedPods"));
        let why = "uncountedTerminatedPods needs to be empty for finished job";
        errors.push(FieldError::invalid(&STATUS.child("uncountedTerminatedPods"), shown, why));
    }
}

fn indexes(errors: &mut Errors, now: State<'_>, differs: &dyn Fn(&str) -> bool) {
    let (completed, failed) = (now.status.completed_indexes().unwrap_or(""), now.status.failed_indexes());
    let completed_path = STATUS.child("completedIndexes");
    let failed_path = STATUS.child("failedIndexes");
    let per_index = now.spec.backoff_limit_per_index().is_some();
    let (done, lost) = (differs("completedIndexes"), differs("failedIndexes"));
    if let Some(completions) = now.spec.completions() {
        if done && let Err(why) = indexes::count(completed, completions) {
            let why = format!("error parsing completedIndexes: {why}");
            errors.push(FieldError::invalid(&completed_path, completed, why));
        }
        if let Some(failed) = failed.filter(|_| lost && per_index)
            && let Err(why) = indexes::count(failed, completions)
        {
            errors.push(FieldError::invalid(&failed_path, failed, format!("error parsing failedIndexes: {why}")));
        }
    }
    if done && !completed.is_empty() && !now.indexed() {
        let why = "cannot set non-empty completedIndexes when non-indexed completion mode";
        errors.push(FieldError::invalid(&completed_path, completed, why));
    }
    if let Some(failed) = failed.filter(|_| lost && !per_index) {
        let why = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        errors.push(FieldError::invalid(&failed_path, failed, why));
    }
    if let (Some(completions), Some(failed)) = (now.spec.completions(), failed.filter(|_| done || lost))
        && let Some(index) = indexes::overlap(completed, failed, completions)
    {
        let why = format!("failedIndexes and completedIndexes overlap at index: {index}");
        errors.push(FieldError::invalid(&failed_path, failed, why));
    }
}

fn pods(errors: &mut Errors, now: State<'_>, was: State<'_>, differs: &dyn Fn(&str) -> bool) {
    let turned_over = now.finished() != was.finished();
    if let Some(terminating) = now.status.terminating().filter(|terminating| *terminating > 0)
        && (turned_over || differs("terminating"))
        && now.finished()
    {
        let path = STATUS.child("terminating");
        errors.push(FieldError::invalid(&path, terminating, "terminating>0 is invalid for finished job"));
    }
    if let Some(ready) = now.status.ready().filter(|ready| *ready > now.active())
        && (differs("ready") || differs("active"))
    {
        errors.push(FieldError::invalid(&STATUS.child("ready"), ready, "cannot set more ready pods than active"));
    }
}

fn success(errors: &mut Errors, now: State<'_>) {
    let met = now.is("SuccessCriteriaMet");
    if met && now.is("Failed") {
        refuse(errors, "cannot set SuccessCriteriaMet=True and Failed=true conditions");
    }
    if met && now.is("FailureTarget") {
        refuse(errors, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
    }
    if now.spec.success_policy().is_some() && !met && now.is("Complete") {
        refuse(errors, "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True");
    }
}

fn transitions(errors: &mut Errors, now: State<'_>, was: State<'_>, differs: &dyn Fn(&str) -> bool) {
    for kind in ["Failed", "Complete", "FailureTarget"] {
        if was.is(kind) && !now.is(kind) {
            refuse(errors, &format!("cannot disable the terminal {kind}=True condition"));
        }
    }
    let less = |now: Option<i64>, was: Option<i64>| now.unwrap_or(0) < was.unwrap_or(0);
    if less(now.status.failed(), was.status.failed()) {
        let value = now.status.failed().unwrap_or(0);
        errors.push(FieldError::invalid(&STATUS.child("failed"), value, "cannot decrease the failed counter"));
    }
    // An indexed job as wide as it is long can be made smaller, and forgets pods then.
    let elastic = now.indexed() && now.spec.completions() == now.spec.parallelism();
    if !elastic && less(now.status.succeeded(), was.status.succeeded()) {
        let value = now.status.succeeded().unwrap_or(0);
        errors.push(FieldError::invalid(&STATUS.child("succeeded"), value, "cannot decrease the succeeded counter"));
    }
    if now.status.completion_time().is_some() && was.status.completion_time().is_some() && differs("completionTime") {
        let shown = json(now.status.0.get("completionTime"));
        errors.push(FieldError::invalid(&STATUS.child("completionTime"), shown, "completionTime cannot be mutated"));
    }
    if differs("startTime") && was.status.start_time().is_some() && now.spec.suspend() != Some(true) {
        let why = "startTime cannot be removed for unsuspended job";
        errors.push(FieldError::required(&STATUS.child("startTime"), why));
    }
    let met = now.is("SuccessCriteriaMet");
    if was.is("SuccessCriteriaMet") && !met {
        refuse(errors, "cannot disable the SuccessCriteriaMet=True condition");
    }
    if was.is("Complete") && !was.is("SuccessCriteriaMet") && met {
        refuse(errors, "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions");
    }
}

/// Whether a job's pods are none, and its being suspended has been seen: then what is not decided yet may change.
pub(super) fn is_at_rest(old: &Map) -> bool {
    let was = State::of(old);
    was.spec.suspend() == Some(true) && was.active() == 0 && (was.status.start_time().is_none() || was.is("Suspended"))
}

/// Whether a job is suspended and has never begun.
pub(super) fn never_began(old: &Map) -> bool {
    let was = State::of(old);
    was.spec.suspend() == Some(true) && was.status.start_time().is_none()
}

/// Labels that all but very old jobs have on their pods.
pub(super) fn has_prefixed_labels(old: &Map) -> bool {
    let labels = old.at(&["spec", "template", "metadata", "labels"]).and_then(Value::as_map);
    labels.is_some_and(|labels| {
        labels.contains_key("batch.kubernetes.io/job-name") && labels.contains_key("batch.kubernetes.io/controller-uid")
    })
}
