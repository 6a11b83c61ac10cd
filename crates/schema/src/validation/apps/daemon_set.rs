//! DaemonSets.

use super::{EMPTY, SPEC, always, collisions, counts, mismatch, options};
use crate::tree::Map;
use crate::validation::fields::{
    Errors, immutable, int_or_percent, is_selector, json, label_selector_with, non_negative, not_over_100_percent,
    positive_int_or_percent, selects, selects_all, shape, twice,
};
use crate::validation::{Features, pod};
use crate::view::apps_v1::{DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, RollingUpdateDaemonSet};
use crate::view::meta_v1::ObjectMeta;
use api::{FieldError, Path};

pub(in crate::validation) fn daemon_set(object: &Map, old: Option<&Map>, features: Features) -> Errors {
    let mut errors = Errors::new();
    let spec = DaemonSet(object).spec().unwrap_or(DaemonSetSpec(&EMPTY));
    let path = SPEC.child("selector");
    label_selector_with(&mut errors, &path, spec.selector(), options(features, old).affinity_values());
    if spec.selector().is_none_or(is_selector) {
        let labels = spec.template().and_then(|t| t.metadata()).unwrap_or(ObjectMeta(&EMPTY)).labels();
        if !spec.selector().is_some_and(|selector| selects(selector, labels)) {
            mismatch(&mut errors, &SPEC.child("template"), spec.template());
        }
    }
    if let Some(selector) = spec.selector().filter(|selector| selects_all(*selector)) {
        let shown = crate::validation::fields::json_map(selector.0);
        errors.push(FieldError::invalid(&path, shown, "empty selector is invalid for daemonset"));
    }
    pod::template(&mut errors, &SPEC.child("template"), spec.template(), options(features, old));
    always(&mut errors, "DaemonSet", spec.template());
    non_negative(&mut errors, &SPEC.child("minReadySeconds"), spec.min_ready_seconds());
    let strategy = spec.update_strategy().unwrap_or(DaemonSetUpdateStrategy(&EMPTY));
    update_strategy(&mut errors, &SPEC.child("updateStrategy"), strategy);
    non_negative(&mut errors, &SPEC.child("revisionHistoryLimit"), spec.revision_history_limit());
    errors
}

fn update_strategy(errors: &mut Errors, path: &Path<'_>, strategy: DaemonSetUpdateStrategy<'_>) {
    match strategy.type_().unwrap_or("") {
        "OnDelete" => {}
        "RollingUpdate" => match strategy.rolling_update() {
            None => errors.push(FieldError::required(&path.child("rollingUpdate"), "")),
            Some(rolling) => rolling_update(errors, &path.child("rollingUpdate"), rolling),
        },
        _ => {
            let rolling = strategy.rolling_update().map_or(json(None), |rolling| {
                let (unavailable, surge) = (rolling.0.get("maxUnavailable"), rolling.0.get("maxSurge"));
                shape(&[("MaxUnavailable", json(unavailable)), ("MaxSurge", json(surge))])
            });
            let shown = shape(&[("Type", json(strategy.0.get("type"))), ("RollingUpdate", rolling)]);
            errors.push(FieldError::not_supported(path, shown, &["RollingUpdate", "OnDelete"]));
        }
    }
}

fn rolling_update(errors: &mut Errors, path: &Path<'_>, rolling: RollingUpdateDaemonSet<'_>) {
    let (unavailable, surge) = (path.child("maxUnavailable"), path.child("maxSurge"));
    positive_int_or_percent(errors, &unavailable, rolling.max_unavailable());
    positive_int_or_percent(errors, &surge, rolling.max_surge());
    not_over_100_percent(errors, &unavailable, rolling.max_unavailable());
    not_over_100_percent(errors, &surge, rolling.max_surge());
    match (int_or_percent(rolling.max_unavailable()), int_or_percent(rolling.max_surge())) {
        (0, 0) => errors.push(FieldError::required(&unavailable, "cannot be 0 when maxSurge is 0")),
        (_, 0) | (0, _) => {}
        _ => {
            let shown = json(rolling.0.get("maxSurge"));
            errors.push(FieldError::invalid(&surge, shown, "may not be set when maxUnavailable is non-zero"));
        }
    }
}

pub(in crate::validation) fn daemon_set_update(subresource: &str, new: &Map, old: &Map, features: Features) -> Errors {
    if subresource == "status" {
        const COUNTS: [&str; 9] = [
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
            "observedGeneration",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
            "collisionCount",
        ];
        let mut errors = Errors::new();
        counts(&mut errors, new, &COUNTS);
        collisions(&mut errors, new, old);
        return errors;
    }
    let mut errors = twice(daemon_set(new, Some(old), features));
    immutable(&mut errors, &SPEC.child("selector"), new.at(&["spec", "selector"]), old.at(&["spec", "selector"]));
    errors
}
