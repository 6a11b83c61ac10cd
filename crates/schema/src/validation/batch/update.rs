//! What may change of a job.

use super::job::{checked, options};
use super::{SPEC, status};
use crate::tree::{Map, Value};
use crate::validation::Features;
use crate::validation::fields::{Errors, immutable, json, twice};
use api::FieldError;

pub(in crate::validation) fn job_update(subresource: &str, new: &Map, old: &Map, features: Features) -> Errors {
    if subresource == "status" {
        return status::update(new, old);
    }
    let mut errors = twice(checked(new, Some(old), status::has_prefixed_labels(old), options(features, Some(old))));
    completions(&mut errors, new, old);
    unchanged(&mut errors, new, old, "selector");
    template(&mut errors, new, old, features);
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        unchanged(&mut errors, new, old, field);
    }
    errors
}

fn unchanged(errors: &mut Errors, new: &Map, old: &Map, field: &str) {
    immutable(errors, &SPEC.child(field), new.at(&["spec", field]), old.at(&["spec", field]));
}

/// An indexed job may be made as long as it is wide.
fn completions(errors: &mut Errors, new: &Map, old: &Map) {
    let path = SPEC.child("completions");
    let (now, was) = (new.at(&["spec", "completions"]), old.at(&["spec", "completions"]));
    if new.str_at(&["spec", "completionMode"]) != "Indexed" {
        immutable(errors, &path, now, was);
    } else if now != was && now.is_some() && now != new.at(&["spec", "parallelism"]) {
        let why = "can only be modified in tandem with spec.parallelism";
        errors.push(FieldError::invalid(&path, json(now), why));
    }
}

/// A job that is suspended and has no pods may still be told where to run and how much to ask for.
fn template(errors: &mut Errors, new: &Map, old: &Map, features: Features) {
    let (Some(now), Some(was)) = (new.at(&["spec", "template"]), old.at(&["spec", "template"])) else {
        unchanged(errors, new, old, "template");
        return;
    };
    let mut allowed = was.clone();
    let (Some(now_map), Some(allowed_map)) = (now.as_map(), allowed.as_map_mut()) else {
        unchanged(errors, new, old, "template");
        return;
    };
    let at_rest = status::is_at_rest(old);
    if if features.suspended_directives { at_rest } else { status::never_began(old) } {
        for path in [["metadata", "annotations"], ["metadata", "labels"]] {
            take(allowed_map, now_map, &path);
        }
        for field in ["nodeSelector", "tolerations", "schedulingGates"] {
            take(allowed_map, now_map, &["spec", field]);
        }
        node_affinity(allowed_map, now_map);
    }
    if at_rest && features.suspended_resources {
        for field in ["containers", "initContainers"] {
            resources(allowed_map, now_map, field);
        }
    }
    immutable(errors, &SPEC.child("template"), Some(now), Some(&allowed));
}

fn take(allowed: &mut Map, now: &Map, path: &[&'static str]) {
    match now.at(path) {
        Some(value) => allowed.set_at(path, value.clone()),
        None => {
            allowed.remove_at(path);
        }
    }
}

/// The affinity to nodes may change; an affinity of nothing else may go or come whole.
fn node_affinity(allowed: &mut Map, now: &Map) {
    const NODE: [&str; 3] = ["spec", "affinity", "nodeAffinity"];
    take(allowed, now, &NODE);
    let nothing = allowed.at(&["spec", "affinity"]).and_then(Value::as_map).is_some_and(Map::is_empty);
    if nothing && now.at(&["spec", "affinity"]).is_none() {
        allowed.remove_at(&["spec", "affinity"]);
    }
}

fn resources(allowed: &mut Map, now: &Map, field: &'static str) {
    let now = now.at(&["spec", field]).and_then(Value::as_list).unwrap_or_default();
    let list = allowed.at_mut(&["spec", field]).and_then(Value::as_list_mut);
    for (container, now) in list.into_iter().flatten().zip(now) {
        if let (Some(container), Some(now)) = (container.as_map_mut(), now.as_map()) {
            take(container, now, &["resources"]);
        }
    }
}
