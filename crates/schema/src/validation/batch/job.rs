//! Jobs: their spec, which CronJobs have too, and the selector that is made for them.

use super::{SPEC, policy};
use crate::tree::{Map, Value};
use crate::validation::apps::{mismatch, name_warning};
use crate::validation::fields::{
    Errors, Values, domain_prefixed_path, is_selector, json_map, label_selector_with, non_negative, selects,
    supported_of,
};
use crate::validation::shown::{SUCCESS_POLICY, shown};
use crate::validation::warnings::Warnings;
use crate::validation::{Features, pod};
use crate::view::List;
use crate::view::StrMap;
use crate::view::batch_v1::{Job, JobSpec};
use crate::view::meta_v1::ObjectMeta;
use api::{FieldError, Path, names};

const MAX_PARALLELISM_INDEXED: i64 = 100_000;
const MAX_FAILED_INDEXES: i64 = 100_000;
const MANY_COMPLETIONS: i64 = 100_000;
const MAX_PARALLELISM_MANY: i64 = 10_000;
const MAX_FAILED_INDEXES_MANY: i64 = 10_000;
const MAX_MANAGED_BY: usize = 63;
const NAME: &str = "batch.kubernetes.io/job-name";
const UID: &str = "batch.kubernetes.io/controller-uid";
static EMPTY: Map = Map::new();

pub(in crate::validation) fn job(object: &Map, old: Option<&Map>, features: Features) -> Errors {
    checked(object, old, true, options(features, old))
}

/// How the template of a job is looked at; `old` is the job before.
pub(super) fn options(features: Features, old: Option<&Map>) -> pod::Options<'_> {
    pod::Options::at(features, old, &["spec", "template"])
}

/// The rules of a job; `old` is the one before. `prefixed`: the labels with a domain must be there, as they are on all but very old
/// jobs.
pub(super) fn checked(object: &Map, old: Option<&Map>, prefixed: bool, options: pod::Options<'_>) -> Errors {
    let mut errors = Errors::new();
    let spec = Job(object).spec().unwrap_or(JobSpec(&EMPTY));
    generated_selector(&mut errors, object, spec, prefixed);
    spec_rules(&mut errors, &SPEC, spec, options);
    let labels = template_labels(spec);
    match spec.selector() {
        None => {
            errors.push(FieldError::required(&SPEC.child("selector"), ""));
            // An absent selector picks nothing.
            mismatch(&mut errors, &SPEC.child("template"), spec.template());
        }
        Some(selector) => {
            let was = old.and_then(|old| Job(old).spec()).and_then(|spec| spec.selector());
            let values = match options.affinity_values() {
                Values::Any => Values::Any,
                Values::Checked => Values::after(was),
            };
            label_selector_with(&mut errors, &SPEC.child("selector"), Some(selector), values);
            if is_selector(selector) && !selects(selector, labels) {
                mismatch(&mut errors, &SPEC.child("template"), spec.template());
            }
        }
    }
    hostnames(&mut errors, object, spec);
    errors
}

fn template_labels<'a>(spec: JobSpec<'a>) -> StrMap<'a> {
    spec.template().and_then(|template| template.metadata()).unwrap_or(ObjectMeta(&EMPTY)).labels()
}

/// A selector that the server makes picks the job by its own labels, and the template must have them.
fn generated_selector(errors: &mut Errors, object: &Map, spec: JobSpec<'_>, prefixed: bool) {
    if spec.manual_selector() == Some(true) {
        return;
    }
    let Some(selector) = spec.selector() else { return };
    let (uid, name) = (object.str_at(&["metadata", "uid"]), object.str_at(&["metadata", "name"]));
    if uid.is_empty() {
        let metadata = Path::root("metadata");
        errors.push(FieldError::required(&metadata.child("uid"), ""));
    }
    let mut expected = vec![("controller-uid", uid), ("job-name", name)];
    if prefixed {
        expected.extend([(UID, uid), (NAME, name)]);
    }
    let labels = template_labels(spec);
    let template = SPEC.child("template");
    let metadata = template.child("metadata");
    let path = metadata.child("labels");
    for (key, value) in &expected {
        match labels.get(key) {
            None => errors.push(FieldError::required(&path.key(key), format!("must be '{value}'"))),
            Some(actual) if actual != *value => {
                let shown = labels.map().map_or_else(|| crate::validation::fields::json(None), json_map);
                errors.push(FieldError::invalid(&path.key(key), shown, format!("must be '{value}'")));
            }
            Some(_) => {}
        }
    }
    let wanted: Map = expected.into_iter().map(|(key, value)| (key.into(), Value::from(value))).collect();
    let mut metadata = Map::new();
    metadata.insert("labels", wanted);
    if is_selector(selector) && !selects(selector, ObjectMeta(&metadata).labels()) {
        let shown = json_map(selector.0);
        errors.push(FieldError::invalid(&SPEC.child("selector"), shown, "`selector` not auto-generated"));
    }
}

/// Pods of an indexed job are named by their index, and their host names must be labels.
fn hostnames(errors: &mut Errors, object: &Map, spec: JobSpec<'_>) {
    let Some(completions) = spec.completions().filter(|completions| *completions > 0) else { return };
    if spec.completion_mode() != Some("Indexed") {
        return;
    }
    let name = object.str_at(&["metadata", "name"]);
    let longest = format!("{name}-{}", completions - 1);
    if !names::dns1123_label(&longest).is_empty() {
        let metadata = Path::root("metadata");
        let why = format!("will not able to create pod with invalid DNS label: {longest}");
        errors.push(FieldError::invalid(&metadata.child("name"), name, why));
    }
}

/// The rules of a spec, in a job or in the template of a CronJob.
pub(super) fn spec_rules(errors: &mut Errors, path: &Path<'_>, spec: JobSpec<'_>, options: pod::Options<'_>) {
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
    if spec.max_failed_indexes().is_some() && spec.backoff_limit_per_index().is_none() {
        errors.push(FieldError::required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"));
    }
    if let Some(manager) = spec.managed_by() {
        let path = path.child("managedBy");
        domain_prefixed_path(errors, &path, manager);
        if manager.len() > MAX_MANAGED_BY {
            errors.push(FieldError::too_long(&path, MAX_MANAGED_BY));
        }
    }
    match spec.completion_mode() {
        Some("Indexed") => indexed(errors, path, spec),
        None | Some("NonIndexed") => {
            for (field, value) in [
                ("backoffLimitPerIndex", spec.backoff_limit_per_index()),
                ("maxFailedIndexes", spec.max_failed_indexes()),
            ] {
                if let Some(value) = value {
                    errors.push(FieldError::invalid(&path.child(field), value, "requires indexed completion mode"));
                }
            }
        }
        Some(other) => {
            let supported = ["NonIndexed", "Indexed"];
            errors.push(FieldError::not_supported(&path.child("completionMode"), other, &supported));
        }
    }
    if let Some(failure) = spec.pod_failure_policy() {
        policy::failure(errors, &path.child("podFailurePolicy"), spec, failure);
    }
    if let Some(success) = spec.success_policy() {
        let path = path.child("successPolicy");
        if spec.completion_mode() == Some("Indexed") {
            policy::success(errors, &path, spec, success);
        } else {
            errors.push(FieldError::invalid(
                &path,
                shown(success.0, SUCCESS_POLICY),
                "requires indexed completion mode",
            ));
        }
    }
    let supported: &[&str] =
        if spec.pod_failure_policy().is_some() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    supported_of(errors, &path.child("podReplacementPolicy"), spec.pod_replacement_policy(), supported);
    let template = path.child("template");
    pod::template(errors, &template, spec.template(), options);
    restart_policy(errors, &template, spec);
}

fn indexed(errors: &mut Errors, path: &Path<'_>, spec: JobSpec<'_>) {
    let (completions, parallelism, failed) = (spec.completions(), spec.parallelism(), spec.max_failed_indexes());
    let (width, lost) = (path.child("parallelism"), path.child("maxFailedIndexes"));
    if completions.is_none() {
        errors.push(FieldError::required(&path.child("completions"), "when completion mode is Indexed"));
    }
    over(errors, &width, parallelism, MAX_PARALLELISM_INDEXED, " when completion mode is Indexed");
    if let (Some(completions), Some(failed)) = (completions, failed)
        && failed > completions
    {
        errors.push(FieldError::invalid(&lost, failed, "must be less than or equal to completions"));
    }
    over(errors, &lost, failed, MAX_FAILED_INDEXES, "");
    if spec.backoff_limit_per_index().is_some() && completions.is_some_and(|count| count > MANY_COMPLETIONS) {
        if failed.is_none() {
            let why = format!("must be specified when completions is above {MANY_COMPLETIONS}");
            errors.push(FieldError::required(&lost, why));
        }
        let when = format!(" when completions are above {MANY_COMPLETIONS} and used with backoff limit per index");
        over(errors, &width, parallelism, MAX_PARALLELISM_MANY, &when);
        over(errors, &lost, failed, MAX_FAILED_INDEXES_MANY, &when);
    }
}

fn over(errors: &mut Errors, path: &Path<'_>, value: Option<i64>, most: i64, when: &str) {
    if let Some(value) = value.filter(|value| *value > most) {
        errors.push(FieldError::invalid(path, value, format!("must be less than or equal to {most}{when}")));
    }
}

fn restart_policy(errors: &mut Errors, template: &Path<'_>, spec: JobSpec<'_>) {
    let pods = template.child("spec");
    let path = pods.child("restartPolicy");
    let policy = spec.template().and_then(|template| template.spec()).and_then(|spec| spec.restart_policy());
    match policy.unwrap_or("") {
        "" | "Always" => {
            errors.push(FieldError::required(&path, "valid values: \"OnFailure\", \"Never\""));
        }
        "OnFailure" if spec.pod_failure_policy().is_some() => {
            let why = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.push(FieldError::invalid(&path, "OnFailure", why));
        }
        "OnFailure" | "Never" => {}
        other => errors.push(FieldError::not_supported(&path, other, &["OnFailure", "Never"])),
    }
}

/// The names of the containers that a policy may speak of.
pub(super) fn container_names<'a>(spec: JobSpec<'a>) -> impl Iterator<Item = &'a str> {
    let pods = spec.template().and_then(|template| template.spec());
    let lists = pods.map(|pods| [pods.containers(), pods.init_containers()]);
    lists.into_iter().flatten().flat_map(List::iter).filter_map(|container| container.name())
}

pub(in crate::validation) fn warnings(new: &Map, old: Option<&Map>, features: Features) -> Warnings {
    let mut out = Warnings::new();
    if old.is_none() {
        name_warning(&mut out, new);
    }
    if old.is_none_or(|old| old.get("spec") != new.get("spec"))
        && let Some(spec) = Job(new).spec()
    {
        spec_warnings(&mut out, &SPEC, spec, features);
    }
    out
}

/// What the maker of a spec should know.
pub(super) fn spec_warnings(out: &mut Warnings, path: &Path<'_>, spec: JobSpec<'_>, features: Features) {
    if spec.completion_mode() == Some("Indexed")
        && spec.completions().unwrap_or(0) > MANY_COMPLETIONS
        && spec.parallelism().unwrap_or(0) > MAX_PARALLELISM_MANY
    {
        out.push(format!(
            "{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        ));
    }
    pod::template_warnings(out, &path.child("template"), spec.template(), features);
}
