//! ReplicaSets and ReplicationControllers.

use super::{EMPTY, SPEC, at_most, counts, matches, mismatch, options, replicated, selector};
use crate::tree::{Map, Value};
use crate::validation::Features;
use crate::validation::fields::{Errors, immutable, json, non_negative, twice};
use crate::view::apps_v1::{ReplicaSet, ReplicaSetSpec};
use crate::view::core_v1::{ReplicationController, ReplicationControllerSpec};
use api::FieldError;

const NOT_CONVERTIBLE: &str = "non-convertible.kubernetes.io";

pub(in crate::validation) fn replica_set(object: &Map, old: Option<&Map>, features: Features) -> Errors {
    let mut errors = Errors::new();
    let spec = ReplicaSet(object).spec().unwrap_or(ReplicaSetSpec(&EMPTY));
    non_negative(&mut errors, &SPEC.child("replicas"), spec.replicas());
    non_negative(&mut errors, &SPEC.child("minReadySeconds"), spec.min_ready_seconds());
    if selector(&mut errors, "deployment", "invalid label selector", spec.selector()) {
        matches(&mut errors, spec.selector(), spec.template());
        replicated(&mut errors, "ReplicaSet", spec.template(), options(features, old));
    }
    errors
}

pub(in crate::validation) fn replica_set_update(subresource: &str, new: &Map, old: &Map, features: Features) -> Errors {
    if subresource == "status" {
        return status(new);
    }
    let mut errors = twice(replica_set(new, Some(old), features));
    immutable(&mut errors, &SPEC.child("selector"), new.at(&["spec", "selector"]), old.at(&["spec", "selector"]));
    errors
}

pub(in crate::validation) fn replication_controller(object: &Map, old: Option<&Map>, features: Features) -> Errors {
    let mut errors = Errors::new();
    let spec = ReplicationController(object).spec().unwrap_or(ReplicationControllerSpec(&EMPTY));
    non_negative(&mut errors, &SPEC.child("minReadySeconds"), spec.min_ready_seconds());
    let picks = spec.selector();
    if picks.is_empty() {
        errors.push(FieldError::required(&SPEC.child("selector"), ""));
    }
    if spec.replicas().is_none() {
        errors.push(FieldError::required(&SPEC.child("replicas"), ""));
    }
    non_negative(&mut errors, &SPEC.child("replicas"), spec.replicas());
    let Some(template) = spec.template() else {
        errors.push(FieldError::required(&SPEC.child("template"), ""));
        return errors;
    };
    let labels = template.metadata().map(|metadata| metadata.labels());
    if picks.iter().any(|(key, value)| labels.and_then(|labels| labels.get(key)) != Some(value)) {
        mismatch(&mut errors, &SPEC.child("template"), Some(template));
    }
    replicated(&mut errors, "ReplicationController", Some(template), options(features, old));
    errors
}

pub(in crate::validation) fn replication_controller_update(
    subresource: &str,
    new: &Map,
    old: &Map,
    features: Features,
) -> Errors {
    if subresource == "status" {
        return status(new);
    }
    let mut errors = twice(replication_controller(new, Some(old), features));
    // Annotations tell of fields that other versions have and this one cannot keep: what comes of them stays as it is.
    let annotations = old.at(&["metadata", "annotations"]).and_then(Value::as_map);
    for (key, value) in annotations.into_iter().flat_map(Map::iter).filter(|(key, _)| key.starts_with(NOT_CONVERTIBLE))
    {
        let Some((_, field)) = key.split_once('/').filter(|(_, field)| !field.contains('/')) else { continue };
        if field.contains("selector") {
            let (now, was) = (new.at(&["spec", "selector"]), old.at(&["spec", "selector"]));
            if now != was {
                let why = "cannot update non-convertible selector";
                errors.push(FieldError::invalid(&SPEC.child("selector"), json(now), why));
            }
        } else {
            let value = value.as_str().unwrap_or_default();
            let mut error = FieldError::not_found(&field, value);
            error.detail = "unknown non-convertible field".to_owned();
            errors.push(error);
        }
    }
    errors
}

fn status(new: &Map) -> Errors {
    const COUNTS: [&str; 6] = [
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "terminatingReplicas",
        "observedGeneration",
    ];
    let mut errors = Errors::new();
    counts(&mut errors, new, &COUNTS);
    let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
    at_most(&mut errors, new, &parts, "replicas", "status.replicas");
    at_most(&mut errors, new, &["availableReplicas"], "readyReplicas", "readyReplicas");
    errors
}
