//! CronJobs.

use super::job::{spec_rules, spec_warnings};
use super::{SPEC, schedule};
use crate::tree::Map;
use crate::validation::apps::name_warning;
use crate::validation::fields::{Errors, json, non_negative, required, required_of};
use crate::validation::warnings::Warnings;
use crate::validation::{Features, pod};
use crate::view::batch_v1::{CronJob, CronJobSpec, JobSpec};
use api::{FieldError, Path};

/// A job's name is the CronJob's and eleven characters.
const MAX_NAME: usize = 52;
static EMPTY: Map = Map::new();

fn spec_of(object: &Map) -> CronJobSpec<'_> {
    CronJob(object).spec().unwrap_or(CronJobSpec(&EMPTY))
}

pub(in crate::validation) fn cron_job(object: &Map, old: Option<&Map>, features: Features) -> Errors {
    let mut errors = checked(object, old, features);
    let name = object.str_at(&["metadata", "name"]);
    if name.len() > MAX_NAME {
        let metadata = Path::root("metadata");
        errors.push(FieldError::invalid(&metadata.child("name"), name, "must be no more than 52 characters"));
    }
    errors
}

pub(in crate::validation) fn cron_job_update(subresource: &str, new: &Map, old: &Map, features: Features) -> Errors {
    // Upstream has the rules of the whole for the status too, whose update can't change the rest.
    if subresource == "status" { Errors::new() } else { checked(new, Some(old), features) }
}

fn checked(object: &Map, old: Option<&Map>, features: Features) -> Errors {
    let mut errors = Errors::new();
    let options = pod::Options::at(features, old, &["spec", "jobTemplate", "spec", "template"]);
    let old = old.map(spec_of);
    let spec = spec_of(object);
    let path = SPEC.child("schedule");
    if required(&mut errors, &path, spec.schedule()) {
        let zoned = old.is_some_and(|old| old.schedule().unwrap_or("").contains("TZ"));
        schedule_rules(&mut errors, &path, spec, zoned);
    }
    non_negative(&mut errors, &SPEC.child("startingDeadlineSeconds"), spec.starting_deadline_seconds());
    if old.is_none_or(|old| old.time_zone() != spec.time_zone()) {
        time_zone(&mut errors, &SPEC.child("timeZone"), spec.time_zone());
    }
    let policies = ["Allow", "Forbid", "Replace"];
    required_of(&mut errors, &SPEC.child("concurrencyPolicy"), spec.concurrency_policy(), &policies);
    let template = SPEC.child("jobTemplate");
    let template = template.child("spec");
    let job = spec.job_template().and_then(|template| template.spec()).unwrap_or(JobSpec(&EMPTY));
    spec_rules(&mut errors, &template, job, options);
    if job.selector().is_some() {
        let shown = json(job.0.get("selector"));
        errors.push(FieldError::invalid(&template.child("selector"), shown, "`selector` will be auto-generated"));
    }
    if job.manual_selector() == Some(true) {
        errors.push(FieldError::not_supported(&template.child("manualSelector"), true, &["nil", "false"]));
    }
    for (field, value) in [
        ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit()),
        ("failedJobsHistoryLimit", spec.failed_jobs_history_limit()),
    ] {
        non_negative(&mut errors, &SPEC.child(field), value);
    }
    errors
}

/// `zoned`: the schedule that is replaced has a time zone of its own, which new ones may not have.
fn schedule_rules(errors: &mut Errors, path: &Path<'_>, spec: CronJobSpec<'_>, zoned: bool) {
    let schedule = spec.schedule().unwrap_or("");
    if let Err(why) = schedule::check(schedule) {
        errors.push(FieldError::invalid(path, schedule, why));
    }
    if schedule.contains("TZ") {
        if !zoned {
            let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            errors.push(FieldError::invalid(path, schedule, why));
        } else if spec.time_zone().is_some() {
            let why = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
            errors.push(FieldError::invalid(path, schedule, why));
        }
    }
}

fn time_zone(errors: &mut Errors, path: &Path<'_>, zone: Option<&str>) {
    let Some(zone) = zone else { return };
    if zone.is_empty() {
        errors.push(FieldError::invalid(path, zone, "timeZone must be nil or non-empty string"));
        return;
    }
    let unknown = format!("unknown time zone {zone}");
    let part = |part: &str| {
        !matches!(part, "." | "..")
            && (1..=14).contains(&part.len())
            && !part.starts_with('-')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+'))
    };
    if !zone.split('/').all(part) {
        errors.push(FieldError::invalid(path, zone, unknown));
        return;
    }
    if zone.eq_ignore_ascii_case("Local") {
        let why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.push(FieldError::invalid(path, zone, why));
    }
    // Go takes this one name for the machine's own zone.
    if zone != "Local" && !schedule::is_zone(zone) {
        errors.push(FieldError::invalid(path, zone, unknown));
    }
}

pub(in crate::validation) fn cron_job_warnings(new: &Map, old: Option<&Map>, features: Features) -> Warnings {
    let mut out = Warnings::new();
    if old.is_none() {
        name_warning(&mut out, new);
    }
    let spec = spec_of(new);
    if old.is_none_or(|old| old.get("spec") != new.get("spec"))
        && let Some(job) = spec.job_template().and_then(|template| template.spec())
    {
        let template = SPEC.child("jobTemplate");
        spec_warnings(&mut out, &template.child("spec"), job, features);
    }
    // Of a new one it is an error. The field's name is upstream's.
    if old.is_some() && spec.schedule().unwrap_or("").contains("TZ") {
        out.push("cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details".to_owned());
    }
    out
}
