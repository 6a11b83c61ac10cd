//! resource.k8s.io: device classes, claims and their templates, and slices, which offer devices.

mod claim;
mod names;
mod pools;
mod slice;
mod status;
mod taint;

pub(super) use claim::{claim, claim_update, class, class_update, template, template_update};
pub(super) use pools::{pools, pools_update};
pub(super) use slice::{slice, slice_update, slice_warnings};
pub(super) use taint::{taint_rule, taint_rule_update};

use super::fields::{Errors, at_most, json_list, problems, required, required_of, supported_of};
use crate::tree::Value;
use crate::view::List;
use crate::view::resource_v1::{DeviceToleration, OpaqueDeviceConfiguration};
use api::{FieldError, Path, names as words};
use std::collections::BTreeSet;

const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];
const MAX_BINDING_CONDITIONS: usize = 4;
/// Of the parameters of a driver, and of what it tells about an allocated device.
const MAX_RAW: usize = 10 * 1024;

/// Keys that came before; the repeated ones are told of.
fn unique<'a>(errors: &mut Errors, path: &Path<'_>, keys: impl Iterator<Item = &'a str>) {
    let mut seen = BTreeSet::new();
    for (i, key) in keys.enumerate() {
        if !seen.insert(key) {
            errors.push(FieldError::duplicate(&path.index(i), key));
        }
    }
}

fn opaque(errors: &mut Errors, path: &Path<'_>, config: Option<OpaqueDeviceConfiguration<'_>>, stored: bool) {
    let path = path.child("opaque");
    let Some(config) = config else {
        errors.push(FieldError::required(&path, ""));
        return;
    };
    names::driver(errors, &path.child("driver"), config.driver().unwrap_or(""));
    raw(errors, &path.child("parameters"), config.0.get("parameters"), stored);
}

/// JSON of an object, not too long.
fn raw(errors: &mut Errors, path: &Path<'_>, value: Option<&Value>, stored: bool) {
    let Some(value) = value.filter(|value| !value.is_null()) else {
        errors.push(FieldError::required(path, ""));
        return;
    };
    let mut text = Vec::new();
    crate::json::encode_value(value, &mut text);
    if !stored && text.len() > MAX_RAW {
        errors.push(FieldError::too_long(path, MAX_RAW));
    } else if value.as_map().is_none() && !matches!(value, Value::Raw(_)) {
        errors.push(FieldError::invalid(path, "<value omitted>", "must be a valid JSON object"));
    }
}

fn tolerations(errors: &mut Errors, path: &Path<'_>, list: List<'_, DeviceToleration<'_>>) {
    let path = path.child("tolerations");
    for (i, toleration) in list.iter().enumerate() {
        let path = path.index(i);
        let (key, value) = (toleration.key().unwrap_or(""), toleration.value().unwrap_or(""));
        if !key.is_empty() {
            problems(errors, &path.child("key"), key, words::qualified_name(key));
        }
        match toleration.operator().unwrap_or("") {
            "Exists" if !value.is_empty() => {
                errors.push(FieldError::invalid(&path.child("value"), value, "must be empty for operator `Exists`"));
            }
            "Exists" => {}
            "Equal" => problems(errors, &path.child("value"), value, words::label_value(value)),
            other => required_of(errors, &path.child("operator"), Some(other), &["Equal", "Exists"]),
        }
        let effect = toleration.effect().filter(|effect| !effect.is_empty());
        supported_of(errors, &path.child("effect"), effect, &EFFECTS);
    }
}

/// What must be true, and what must not, before a pod is bound. Both or neither.
fn binding_conditions(errors: &mut Errors, path: &Path<'_>, good: List<'_, &str>, bad: List<'_, &str>) {
    const SIDES: [&str; 2] = ["bindingConditions", "bindingFailureConditions"];
    for (field, list) in SIDES.into_iter().zip([good, bad]) {
        let path = path.child(field);
        if at_most(errors, &path, list.len(), MAX_BINDING_CONDITIONS) {
            for (i, condition) in list.iter().enumerate() {
                problems(errors, &path.index(i), condition, words::qualified_name(condition));
            }
        }
    }
    unique(errors, &path.child(SIDES[0]), good.iter());
    let failures = path.child(SIDES[1]);
    let mut seen = BTreeSet::new();
    for (i, condition) in bad.iter().enumerate() {
        if !seen.insert(condition) {
            errors.push(FieldError::duplicate(&failures.index(i), condition));
        }
        if good.iter().any(|other| other == condition) {
            let why = "bindingFailureConditions must not overlap with bindingConditions";
            errors.push(FieldError::invalid(&failures.index(i), condition, why));
        }
    }
    for (at, (own, other)) in [(good, bad), (bad, good)].into_iter().enumerate() {
        if own.is_empty() && !other.is_empty() {
            let why = format!("{} are required to use {}", SIDES[at], SIDES[1 - at]);
            errors.push(FieldError::invalid(&path.child(SIDES[at]), json_list(own), why));
        }
    }
}

/// A name of a request that a claim has, or of one of its alternatives: `request` or `request/alternative`.
fn request_ref(errors: &mut Errors, path: &Path<'_>, name: &str, requests: &claim::Requests<'_>) {
    const WHY: &str =
        "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    if name.matches('/').count() > 1 {
        errors.push(FieldError::invalid(path, name, WHY));
        return;
    }
    for part in name.split('/') {
        problems(errors, path, part, words::dns1123_label(part));
    }
    if !requests.has(name) {
        errors.push(FieldError::invalid(path, name, WHY));
    }
}

fn request_refs(errors: &mut Errors, path: &Path<'_>, list: List<'_, &str>, requests: &claim::Requests<'_>) {
    let path = path.child("requests");
    if !at_most(errors, &path, list.len(), claim::MAX_REQUESTS) {
        return;
    }
    for (i, name) in list.iter().enumerate() {
        request_ref(errors, &path.index(i), name, requests);
    }
    unique(errors, &path, list.iter());
}

fn named(errors: &mut Errors, path: &Path<'_>, name: Option<&str>, rule: fn(&str) -> Vec<String>) {
    if required(errors, path, name) {
        let name = name.unwrap_or("");
        problems(errors, path, name, rule(name));
    }
}
