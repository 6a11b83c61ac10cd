//! StatefulSets. Upstream checks little of their pods: the volumes that they mount come from claims made later.

use super::{EMPTY, SPEC, always, at_most, collisions, counts, matches, name_warning, selector, template_warnings};
use crate::tree::{Map, Value};
use crate::validation::claim;
use crate::validation::fields::{
    Errors, int_or_percent, json, non_negative, not_over_100_percent, positive_int_or_percent, same, shape,
    supported_of,
};
use crate::validation::metadata;
use crate::view::apps_v1::{RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy};
use api::{FieldError, Path};

pub(in crate::validation) fn stateful_set(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let spec = StatefulSet(object).spec().unwrap_or(StatefulSetSpec(&EMPTY));
    let path = SPEC.child("podManagementPolicy");
    match spec.pod_management_policy().unwrap_or("") {
        "" => errors.push(FieldError::required(&path, "")),
        "OrderedReady" | "Parallel" => {}
        other => errors.push(FieldError::invalid(&path, other, "must be 'OrderedReady' or 'Parallel'")),
    }
    let strategy = spec.update_strategy().unwrap_or(StatefulSetUpdateStrategy(&EMPTY));
    update_strategy(&mut errors, &SPEC.child("updateStrategy"), strategy);
    if let Some(policy) = spec.persistent_volume_claim_retention_policy() {
        let path = SPEC.child("persistentVolumeClaimRetentionPolicy");
        for (field, value) in [("whenDeleted", policy.when_deleted()), ("whenScaled", policy.when_scaled())] {
            supported_of(&mut errors, &path.child(field), Some(value.unwrap_or("")), &["Retain", "Delete"]);
        }
    }
    non_negative(&mut errors, &SPEC.child("replicas"), spec.replicas());
    non_negative(&mut errors, &SPEC.child("minReadySeconds"), spec.min_ready_seconds());
    non_negative(&mut errors, &SPEC.child("ordinals.start"), spec.ordinals().and_then(|ordinals| ordinals.start()));
    if selector(&mut errors, "statefulset", "", spec.selector()) {
        matches(&mut errors, spec.selector(), spec.template());
        metadata::template(&mut errors, &SPEC.child("template"), spec.template().and_then(|t| t.metadata()));
    }
    always(&mut errors, "StatefulSet", spec.template());
    errors
}

fn update_strategy(errors: &mut Errors, path: &Path<'_>, strategy: StatefulSetUpdateStrategy<'_>) {
    let shown = |rolling: RollingUpdateStatefulSetStrategy<'_>| {
        let partition = Value::Int(rolling.partition().unwrap_or(0));
        shape(&[("Partition", json(Some(&partition))), ("MaxUnavailable", json(rolling.0.get("maxUnavailable")))])
    };
    let rolling = strategy.rolling_update();
    match strategy.type_().unwrap_or("") {
        "" => errors.push(FieldError::required(path, "")),
        "OnDelete" => {
            if let Some(rolling) = rolling {
                let why = "only allowed for updateStrategy 'RollingUpdate'";
                errors.push(FieldError::invalid(&path.child("rollingUpdate"), shown(rolling), why));
            }
        }
        "RollingUpdate" => {
            let path = path.child("rollingUpdate");
            let Some(rolling) = rolling else { return };
            non_negative(errors, &path.child("partition"), rolling.partition());
            if let Some(unavailable) = rolling.max_unavailable() {
                let path = path.child("maxUnavailable");
                positive_int_or_percent(errors, &path, Some(unavailable));
                if int_or_percent(Some(unavailable)) == 0 {
                    errors.push(FieldError::invalid(&path, json(rolling.0.get("maxUnavailable")), "cannot be 0"));
                }
                not_over_100_percent(errors, &path, Some(unavailable));
            }
        }
        _ => {
            let rolling = rolling.map_or(json(None), shown);
            let shown = shape(&[("Type", json(strategy.0.get("type"))), ("RollingUpdate", rolling)]);
            errors.push(FieldError::invalid(path, shown, "must be 'RollingUpdate' or 'OnDelete'"));
        }
    }
}

pub(in crate::validation) fn stateful_set_update(subresource: &str, new: &Map, old: &Map) -> Errors {
    const MAY_CHANGE: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    if subresource == "status" {
        return status(new, old);
    }
    let mut errors = stateful_set(new);
    let rest = |map: &Map| {
        let mut spec = map.get("spec").and_then(Value::as_map).cloned().unwrap_or_default();
        spec.retain(|key, _| !MAY_CHANGE.contains(&key));
        Value::Map(spec)
    };
    if !same(Some(&rest(new)), Some(&rest(old))) {
        let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        errors.push(FieldError::forbidden(&SPEC, why));
    }
    errors
}

fn status(new: &Map, old: &Map) -> Errors {
    const COUNTS: [&str; 7] = [
        "replicas",
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
        "availableReplicas",
        "observedGeneration",
        "collisionCount",
    ];
    let mut errors = Errors::new();
    counts(&mut errors, new, &COUNTS);
    let parts = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    at_most(&mut errors, new, &parts, "replicas", "status.replicas");
    at_most(&mut errors, new, &["availableReplicas"], "readyReplicas", "status.readyReplicas");
    collisions(&mut errors, new, old);
    errors
}

pub(in crate::validation) fn stateful_set_warnings(new: &Map, old: Option<&Map>) -> Vec<String> {
    let mut out = Vec::new();
    if old.is_some_and(|old| old.get("spec") == new.get("spec")) {
        return out;
    }
    if old.is_none() {
        name_warning(&mut out, new);
    }
    template_warnings(&mut out, new, old);
    let spec = StatefulSet(new).spec().unwrap_or(StatefulSetSpec(&EMPTY));
    for (i, template) in spec.volume_claim_templates().iter().enumerate() {
        if let Some(claim) = template.spec() {
            let path = SPEC.child("volumeClaimTemplates");
            claim::spec_warnings(&mut out, &path.index(i), claim);
        }
    }
    if spec.revision_history_limit().is_some_and(|limit| limit < 0) {
        out.push(
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"
                .to_owned(),
        );
    }
    out
}
