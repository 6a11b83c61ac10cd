//! Jobs and CronJobs.

use super::fields::{Errors, immutable, json, label_selector, non_negative, required, required_of, selects};
use super::pod;
use crate::tree::{Map, Value};
use crate::view::batch_v1::{CronJob, Job, JobSpec};
use crate::view::core_v1::PodTemplateSpec;
use crate::view::meta_v1::ObjectMeta;
use api::{FieldError, Path};

const SPEC: Path<'static> = Path::root("spec");

fn job_spec(errors: &mut Errors, path: &Path<'_>, spec: JobSpec<'_>, selector: bool) {
    for (field, value) in [
        ("parallelism", spec.parallelism()),
        ("completions", spec.completions()),
        ("activeDeadlineSeconds", spec.active_deadline_seconds()),
        ("backoffLimit", spec.backoff_limit()),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished()),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index()),
        ("maxFailedIndexes", spec.max_failed_indexes()),
    ] {
        non_negative(errors, &path.child(field), value);
    }
    match spec.completion_mode() {
        None | Some("NonIndexed") => {}
        Some("Indexed") => {
            if spec.completions().is_none() {
                let why = "when completion mode is Indexed";
                errors.push(FieldError::required(&path.child("completions"), why));
            }
        }
        Some(other) => {
            errors.push(FieldError::not_supported(&path.child("completionMode"), other, &["Indexed", "NonIndexed"]));
        }
    }
    let template = path.child("template");
    pod::template(errors, &template, spec.template());
    let policy =
        spec.template().and_then(|template| template.spec()).and_then(|spec| spec.restart_policy()).unwrap_or("");
    let here = template.child("spec").child("restartPolicy").to_string();
    match policy {
        "Never" | "OnFailure" => {}
        "" | "Always" => {
            // The generic rule has let it pass; a job needs one that ends.
            errors.push(FieldError::required(&here, "valid values: \"OnFailure\", \"Never\""));
        }
        other => errors.push(FieldError::not_supported(&here, other, &["OnFailure", "Never"])),
    }
    if !selector {
        if spec.selector().is_some() {
            errors.push(FieldError::invalid(
                &path.child("selector"),
                json(spec.0.get("selector")),
                "`selector` will be auto-generated",
            ));
        }
        if spec.manual_selector() == Some(true) {
            let supported = ["nil", "false"];
            errors.push(FieldError::not_supported(&path.child("manualSelector"), true, &supported));
        }
    }
}

pub(super) fn job(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let empty = Map::new();
    let spec = Job(object).spec().unwrap_or(JobSpec(&empty));
    match spec.selector() {
        None => errors.push(FieldError::required(&SPEC.child("selector"), "")),
        Some(selector) => {
            label_selector(&mut errors, &SPEC.child("selector"), Some(selector));
            let metadata = spec.template().and_then(|t| t.metadata()).unwrap_or(ObjectMeta(&empty));
            if !selects(selector, metadata.labels()) {
                let template = SPEC.child("template");
                let shown = json(metadata.0.get("labels"));
                let why = "`selector` does not match template `labels`";
                errors.push(FieldError::invalid(&template.child("metadata").child("labels"), shown, why));
            }
        }
    }
    job_spec(&mut errors, &SPEC, spec, true);
    errors
}

pub(super) fn job_update(subresource: &str, new: &Map, old: &Map) -> Errors {
    let mut errors = Errors::new();
    if subresource == "status" {
        let status = Path::root("status");
        for field in ["active", "succeeded", "failed", "ready", "terminating"] {
            non_negative(&mut errors, &status.child(field), new.at(&["status", field]).and_then(Value::as_i64));
        }
        return errors;
    }
    errors = job(new);
    // A suspended job that never ran may still be told where to run.
    let movable = old.at(&["spec", "suspend"]).and_then(Value::as_bool) == Some(true)
        && old.at(&["status", "startTime"]).is_none();
    let template = |map: &Map| {
        let mut template = map.at(&["spec", "template"]).cloned().unwrap_or_default();
        if movable && let Some(map) = template.as_map_mut() {
            for field in ["nodeSelector", "tolerations", "affinity", "schedulingGates"] {
                map.remove_at(&["spec", field]);
            }
            map.remove("metadata");
        }
        template
    };
    immutable(&mut errors, &SPEC.child("selector"), new.at(&["spec", "selector"]), old.at(&["spec", "selector"]));
    immutable(&mut errors, &SPEC.child("template"), Some(&template(new)), Some(&template(old)));
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        immutable(&mut errors, &SPEC.child(field), new.at(&["spec", field]), old.at(&["spec", field]));
    }
    let indexed = new.str_at(&["spec", "completionMode"]) == "Indexed"
        && new.at(&["spec", "completions"]) == new.at(&["spec", "parallelism"]);
    if !indexed {
        let field = "completions";
        immutable(&mut errors, &SPEC.child(field), new.at(&["spec", field]), old.at(&["spec", field]));
    }
    errors
}

pub(super) fn cron_job(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let Some(spec) = CronJob(object).spec() else {
        errors.push(FieldError::required(&SPEC.child("schedule"), ""));
        return errors;
    };
    let path = SPEC.child("schedule");
    if required(&mut errors, &path, spec.schedule()) {
        let schedule = spec.schedule().unwrap_or("");
        if schedule.contains("TZ") {
            let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            errors.push(FieldError::invalid(&path, schedule, why));
        } else if !schedule.starts_with('@') {
            let fields = schedule.split_whitespace().count();
            if fields != 5 {
                let listed: Vec<String> = schedule.split_whitespace().map(str::to_owned).collect();
                let why = format!("expected exactly 5 fields, found {fields}: [{}]", listed.join(" "));
                errors.push(FieldError::invalid(&path, schedule, why));
            }
        }
    }
    non_negative(&mut errors, &SPEC.child("startingDeadlineSeconds"), spec.starting_deadline_seconds());
    let policies = ["Allow", "Forbid", "Replace"];
    required_of(&mut errors, &SPEC.child("concurrencyPolicy"), spec.concurrency_policy(), &policies);
    let template = SPEC.child("jobTemplate");
    if let Some(job) = spec.job_template().and_then(|template| template.spec()) {
        job_spec(&mut errors, &template.child("spec"), job, false);
    } else {
        errors.push(FieldError::required(&template.child("spec"), ""));
    }
    for (field, value) in [
        ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit()),
        ("failedJobsHistoryLimit", spec.failed_jobs_history_limit()),
    ] {
        non_negative(&mut errors, &SPEC.child(field), value);
    }
    let name = object.str_at(&["metadata", "name"]);
    if name.len() > 52 {
        let metadata = Path::root("metadata");
        errors.push(FieldError::invalid(&metadata.child("name"), name, "must be no more than 52 characters"));
    }
    errors
}

pub(super) fn cron_job_update(_: &str, new: &Map, _: &Map) -> Errors {
    cron_job(new)
}

pub(super) fn warnings(new: &Map, old: Option<&Map>) -> Vec<String> {
    let mut out = Vec::new();
    if old.is_none() || old.is_some_and(|old| old.get("spec") != new.get("spec")) {
        let template = new.at(&["spec", "template"]).and_then(Value::as_map).map(PodTemplateSpec);
        pod::template_warnings(&mut out, &SPEC.child("template"), template);
    }
    out
}
