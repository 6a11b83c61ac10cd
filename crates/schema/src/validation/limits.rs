//! LimitRanges: what pods, containers and claims of a namespace may ask for.

use super::fields::{Errors, problems, quantity};
use super::pod::resources;
use crate::tree::Map;
use crate::view::core_v1::{LimitRange, LimitRangeItem};
use crate::view::{List, StrMap};
use api::{FieldError, Path, Quantity, names};
use std::collections::BTreeSet;

const SPEC: Path<'static> = Path::root("spec");

pub(super) fn create(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let path = SPEC.child("limits");
    let mut seen = BTreeSet::new();
    let limits = LimitRange(object).spec().map(|spec| spec.limits());
    for (i, limit) in limits.into_iter().flat_map(List::iter).enumerate() {
        let path = path.index(i);
        let kind = limit.type_().unwrap_or("");
        type_rules(&mut errors, &path.child("type"), kind);
        if !seen.insert(kind) {
            errors.push(FieldError::duplicate(&path.child("type"), kind));
        }
        item(&mut errors, &path, kind, limit);
    }
    errors
}

fn type_rules(errors: &mut Errors, path: &Path<'_>, kind: &str) {
    let bad = names::qualified_name(kind);
    if !bad.is_empty() {
        problems(errors, path, kind, bad);
    } else if !kind.contains('/') && !matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim") {
        errors.push(FieldError::invalid(path, kind, "must be a standard limit type or fully qualified"));
    }
}

fn item(errors: &mut Errors, path: &Path<'_>, kind: &str, limit: LimitRangeItem<'_>) {
    let mut keys = BTreeSet::new();
    let lists = [
        ("max", limit.max()),
        ("min", limit.min()),
        ("default", limit.default()),
        ("defaultRequest", limit.default_request()),
        ("maxLimitRequestRatio", limit.max_limit_request_ratio()),
    ];
    for (field, list) in lists {
        if field == "maxLimitRequestRatio" && kind == "PersistentVolumeClaim" {
            let sized = |list: StrMap<'_>| list.contains_key("storage");
            if !sized(limit.min()) && !sized(limit.max()) {
                let why = "either minimum or maximum storage value is required, but neither was provided";
                errors.push(FieldError::required(&path.child("limits"), why));
            }
        }
        if kind == "Pod" && matches!(field, "default" | "defaultRequest") {
            if !list.is_empty() {
                let why = "may not be specified when `type` is 'Pod'";
                errors.push(FieldError::forbidden(&path.child(field), why));
            }
            continue;
        }
        for (name, _) in list.iter() {
            let path = path.child(field);
            if matches!(kind, "Pod" | "Container") {
                resources::container_resource_name(errors, &path.key(name), name);
            } else {
                resources::resource_name(errors, &path.key(name), name);
            }
            keys.insert(name);
        }
    }
    for key in keys {
        bounds(errors, path, kind, limit, key);
    }
}

/// One resource of an item: its amounts must fit each other.
fn bounds(errors: &mut Errors, path: &Path<'_>, kind: &str, limit: LimitRangeItem<'_>, key: &str) {
    let defaults = kind != "Pod";
    let (min, max) = (limit.min().get(key), limit.max().get(key));
    let default = limit.default().get(key).filter(|_| defaults);
    let request = limit.default_request().get(key).filter(|_| defaults);
    let ratio = limit.max_limit_request_ratio().get(key);
    let more = |a: Option<&str>, b: Option<&str>| match (a, b) {
        (Some(a), Some(b)) => quantity(a).nanos() > quantity(b).nanos(),
        _ => false,
    };
    let mut refuse = |field: &str, value: Option<&str>, why: String| {
        let path = path.child(field);
        errors.push(FieldError::invalid(&path.key(key), value.unwrap_or(""), why));
    };
    let text = |value: Option<&str>| value.map_or_else(String::new, |value| quantity(value).to_string());
    let (least, most, usual, asked) = (text(min), text(max), text(default), text(request));
    if more(min, max) {
        refuse("min", min, format!("min value {least} is greater than max value {most}"));
    }
    if more(min, request) {
        refuse("defaultRequest", request, format!("min value {least} is greater than default request value {asked}"));
    }
    if more(request, max) {
        refuse("defaultRequest", request, format!("default request value {asked} is greater than max value {most}"));
    }
    if more(request, default) {
        let why = format!("default request value {asked} is greater than default limit value {usual}");
        refuse("defaultRequest", request, why);
    }
    if more(min, default) {
        refuse("default", min, format!("min value {least} is greater than default value {usual}"));
    }
    if more(default, max) {
        refuse("default", max, format!("default value {usual} is greater than max value {most}"));
    }
    if let Some(ratio) = ratio {
        let value = quantity(ratio);
        if value.nanos() < Quantity::from_milli(1000).nanos() {
            refuse("maxLimitRequestRatio", Some(ratio), format!("ratio {value} is less than 1"));
        }
        if let (Some(min), Some(max)) = (min, max)
            && let Some(most) = quotient(quantity(max), quantity(min)).filter(|most| fraction(value) > *most)
        {
            let why = format!("ratio {value} is greater than max/min = {most:.6}");
            refuse("maxLimitRequestRatio", Some(ratio), why);
        }
    }
    if let (Some(usual), Some(asked)) = (default, request)
        && !resources::overcommit_allowed(key)
        && quantity(usual).nanos() != quantity(asked).nanos()
    {
        let why = format!("default value {usual} must equal to defaultRequest value {asked} in {key}");
        refuse("defaultRequest", Some(asked), why);
    }
}

#[allow(clippy::cast_precision_loss, reason = "upstream compares ratios as floating numbers too")]
fn fraction(quantity: Quantity) -> f64 {
    quantity.milli_value() as f64 / 1000.0
}

/// How often the least goes into the most; infinitely often when it is nothing, which no ratio exceeds.
#[allow(clippy::cast_precision_loss, reason = "upstream compares ratios as floating numbers too")]
fn quotient(most: Quantity, least: Quantity) -> Option<f64> {
    (!least.is_zero()).then(|| most.nanos() as f64 / least.nanos() as f64)
}
