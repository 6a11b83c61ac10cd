//! What a job makes of pods that fail, and when it has succeeded before all are done.

use super::indexes;
use super::job::container_names;
use crate::validation::fields::{Errors, json, non_negative, problems};
use crate::view::List;
use crate::view::batch_v1::{
    JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule, SuccessPolicy, SuccessPolicyRule,
};
use api::{FieldError, Path, names};
use std::collections::BTreeSet;

const MAX_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;
const MAX_PATTERNS: usize = 20;
const MAX_INDEXES: usize = 64 * 1024;

/// A value of a fixed set; an absent one is told what it could be.
fn one_of(errors: &mut Errors, path: &Path<'_>, value: Option<&str>, supported: &[&str]) {
    match value.unwrap_or("") {
        "" => {
            let quoted: Vec<String> = supported.iter().map(|value| api::field::go_quote(value)).collect();
            errors.push(FieldError::required(path, format!("valid values: [{}]", quoted.join(" "))));
        }
        value if !supported.contains(&value) => errors.push(FieldError::not_supported(path, value, supported)),
        _ => {}
    }
}

pub(super) fn failure(errors: &mut Errors, path: &Path<'_>, spec: JobSpec<'_>, policy: PodFailurePolicy<'_>) {
    let path = path.child("rules");
    if policy.rules().len() > MAX_RULES {
        errors.push(FieldError::too_many(&path, policy.rules().len(), MAX_RULES));
    }
    let containers: BTreeSet<&str> = container_names(spec).collect();
    for (i, rule) in policy.rules().iter().enumerate() {
        failure_rule(errors, &path.index(i), spec, rule, &containers);
    }
}

fn failure_rule(
    errors: &mut Errors,
    path: &Path<'_>,
    spec: JobSpec<'_>,
    rule: PodFailurePolicyRule<'_>,
    containers: &BTreeSet<&str>,
) {
    let action = path.child("action");
    if rule.action() == Some("FailIndex") {
        if spec.backoff_limit_per_index().is_none() {
            errors.push(FieldError::invalid(&action, "FailIndex", "requires the backoffLimitPerIndex to be set"));
        }
    } else {
        one_of(errors, &action, rule.action(), &["Count", "FailIndex", "FailJob", "Ignore"]);
    }
    if let Some(codes) = rule.on_exit_codes() {
        exit_codes(errors, &path.child("onExitCodes"), codes, containers);
    }
    patterns(errors, &path.child("onPodConditions"), rule.on_pod_conditions());
    match (rule.on_exit_codes().is_some(), !rule.on_pod_conditions().is_empty()) {
        (true, true) => {
            let why = "specifying both OnExitCodes and OnPodConditions is not supported";
            errors.push(FieldError::invalid_unshown(path, why));
        }
        (false, false) => {
            let why = "specifying one of OnExitCodes and OnPodConditions is required";
            errors.push(FieldError::invalid_unshown(path, why));
        }
        _ => {}
    }
}

fn patterns(errors: &mut Errors, path: &Path<'_>, list: List<'_, PodFailurePolicyOnPodConditionsPattern<'_>>) {
    if list.len() > MAX_PATTERNS {
        errors.push(FieldError::too_many(path, list.len(), MAX_PATTERNS));
    }
    for (i, pattern) in list.iter().enumerate() {
        let path = path.index(i);
        let kind = pattern.type_().unwrap_or("");
        problems(errors, &path.child("type"), kind, names::qualified_name(kind));
        one_of(errors, &path.child("status"), pattern.status(), &["False", "True", "Unknown"]);
    }
}

fn exit_codes(
    errors: &mut Errors,
    path: &Path<'_>,
    codes: PodFailurePolicyOnExitCodesRequirement<'_>,
    containers: &BTreeSet<&str>,
) {
    one_of(errors, &path.child("operator"), codes.operator(), &["In", "NotIn"]);
    if let Some(name) = codes.container_name().filter(|name| !containers.contains(name)) {
        let why = "must be one of the container or initContainer names in the pod template";
        errors.push(FieldError::invalid(&path.child("containerName"), name, why));
    }
    let path = path.child("values");
    let shown = || json(codes.0.get("values"));
    if codes.values().is_empty() {
        errors.push(FieldError::invalid(&path, shown(), "at least one value is required"));
    } else if codes.values().len() > MAX_EXIT_CODES {
        errors.push(FieldError::too_many(&path, codes.values().len(), MAX_EXIT_CODES));
    }
    let mut seen = BTreeSet::new();
    for (i, code) in codes.values().iter().enumerate() {
        if codes.operator() == Some("In") && code == 0 {
            errors.push(FieldError::invalid(&path.index(i), code, "must not be 0 for the In operator"));
        }
        if !seen.insert(code) {
            errors.push(FieldError::duplicate(&path.index(i), code));
        }
    }
    if !codes.values().iter().is_sorted() {
        errors.push(FieldError::invalid(&path, shown(), "must be ordered"));
    }
}

pub(super) fn success(errors: &mut Errors, path: &Path<'_>, spec: JobSpec<'_>, policy: SuccessPolicy<'_>) {
    let path = path.child("rules");
    let rules = policy.rules();
    if rules.is_empty() {
        let why = "at least one rules must be specified when the successPolicy is specified";
        errors.push(FieldError::required(&path, why));
    }
    if rules.len() > MAX_RULES {
        errors.push(FieldError::too_many(&path, rules.len(), MAX_RULES));
    }
    // That completions are missing is said elsewhere.
    let completions = spec.completions().unwrap_or(0);
    for (i, rule) in rules.iter().enumerate() {
        success_rule(errors, &path.index(i), completions, rule);
    }
}

fn success_rule(errors: &mut Errors, path: &Path<'_>, completions: i64, rule: SuccessPolicyRule<'_>) {
    if rule.succeeded_count().is_none() && rule.succeeded_indexes().is_none() {
        let why = "at least one of succeededCount or succeededIndexes must be specified";
        errors.push(FieldError::required(path, why));
    }
    let mut total = None;
    if let Some(list) = rule.succeeded_indexes() {
        let path = path.child("succeededIndexes");
        if list.len() > MAX_INDEXES {
            errors.push(FieldError::too_long(&path, MAX_INDEXES));
        }
        match indexes::count(list, completions) {
            Ok(count) => total = Some(count),
            Err(why) => {
                total = Some(0);
                errors.push(FieldError::invalid(&path, list, format!("error parsing succeededIndexes: {why}")));
            }
        }
    }
    if let Some(count) = rule.succeeded_count() {
        let path = path.child("succeededCount");
        non_negative(errors, &path, Some(count));
        if count > completions {
            let why = format!("must be less than or equal to {completions} (the number of specified completions)");
            errors.push(FieldError::invalid(&path, count, why));
        }
        if let Some(total) = total.filter(|total| count > *total) {
            let why = format!(
                "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
            );
            errors.push(FieldError::invalid(&path, count, why));
        }
    }
}
