//! Deployments.

use super::{EMPTY, SPEC, at_most, collisions, counts, matches, options, replicated, selector};
use crate::tree::Map;
use crate::validation::Features;
use crate::validation::fields::{
    Errors, immutable, int_or_percent, json, non_negative, not_over_100_percent, positive_int_or_percent, shape,
};
use crate::view::apps_v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use api::{FieldError, Path};

pub(in crate::validation) fn deployment(object: &Map, old: Option<&Map>, features: Features) -> Errors {
    let mut errors = Errors::new();
    let spec = Deployment(object).spec().unwrap_or(DeploymentSpec(&EMPTY));
    non_negative(&mut errors, &SPEC.child("replicas"), spec.replicas());
    if selector(&mut errors, "deployment", "invalid label selector", spec.selector()) {
        matches(&mut errors, spec.selector(), spec.template());
        replicated(&mut errors, "ReplicaSet", spec.template(), options(features, old));
    }
    strategy(&mut errors, &SPEC.child("strategy"), spec.strategy().unwrap_or(DeploymentStrategy(&EMPTY)));
    non_negative(&mut errors, &SPEC.child("minReadySeconds"), spec.min_ready_seconds());
    non_negative(&mut errors, &SPEC.child("revisionHistoryLimit"), spec.revision_history_limit());
    if let Some(deadline) = spec.progress_deadline_seconds() {
        let path = SPEC.child("progressDeadlineSeconds");
        non_negative(&mut errors, &path, Some(deadline));
        if deadline <= spec.min_ready_seconds().unwrap_or(0) {
            errors.push(FieldError::invalid(&path, deadline, "must be greater than minReadySeconds"));
        }
    }
    errors
}

fn strategy(errors: &mut Errors, path: &Path<'_>, strategy: DeploymentStrategy<'_>) {
    match strategy.type_().unwrap_or("") {
        "Recreate" => {
            if strategy.rolling_update().is_some() {
                let why = "may not be specified when strategy `type` is 'Recreate'";
                errors.push(FieldError::forbidden(&path.child("rollingUpdate"), why));
            }
        }
        "RollingUpdate" => {
            let path = path.child("rollingUpdate");
            let Some(rolling) = strategy.rolling_update() else {
                errors.push(FieldError::required(&path, "this should be defaulted and never be nil"));
                return;
            };
            let (unavailable, surge) = (path.child("maxUnavailable"), path.child("maxSurge"));
            positive_int_or_percent(errors, &unavailable, rolling.max_unavailable());
            positive_int_or_percent(errors, &surge, rolling.max_surge());
            if int_or_percent(rolling.max_unavailable()) == 0 && int_or_percent(rolling.max_surge()) == 0 {
                let shown = json(rolling.0.get("maxUnavailable"));
                errors.push(FieldError::invalid(&unavailable, shown, "may not be 0 when `maxSurge` is 0"));
            }
            not_over_100_percent(errors, &unavailable, rolling.max_unavailable());
        }
        _ => {
            let rolling = strategy.rolling_update().map_or(json(None), |rolling| {
                let (unavailable, surge) = (rolling.0.get("maxUnavailable"), rolling.0.get("maxSurge"));
                shape(&[("MaxUnavailable", json(unavailable)), ("MaxSurge", json(surge))])
            });
            let shown = shape(&[("Type", json(strategy.0.get("type"))), ("RollingUpdate", rolling)]);
            errors.push(FieldError::not_supported(path, shown, &["Recreate", "RollingUpdate"]));
        }
    }
}

pub(in crate::validation) fn deployment_update(subresource: &str, new: &Map, old: &Map, features: Features) -> Errors {
    if subresource == "status" {
        return status(new, old);
    }
    let mut errors = deployment(new, Some(old), features);
    immutable(&mut errors, &SPEC.child("selector"), new.at(&["spec", "selector"]), old.at(&["spec", "selector"]));
    errors
}

fn status(new: &Map, old: &Map) -> Errors {
    const COUNTS: [&str; 8] = [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
        "collisionCount",
    ];
    let mut errors = Errors::new();
    counts(&mut errors, new, &COUNTS);
    let parts = ["updatedReplicas", "readyReplicas", "availableReplicas"];
    at_most(&mut errors, new, &parts, "replicas", "status.replicas");
    at_most(&mut errors, new, &["availableReplicas"], "readyReplicas", "readyReplicas");
    collisions(&mut errors, new, old);
    errors
}
