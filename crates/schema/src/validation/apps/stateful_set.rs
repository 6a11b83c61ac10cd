//! StatefulSets. Their pods have the volumes that claims are made for later.

use super::{
    EMPTY, SPEC, always, at_most, changed, collisions, counts, matches, name_warning, options, selector,
    template_warnings,
};
use crate::tree::{Map, Value};
use crate::validation::fields::{
    Errors, int_or_percent, json, non_negative, not_over_100_percent, positive_int_or_percent, problems, same, shape,
    supported_of,
};
use crate::validation::warnings::Warnings;
use crate::validation::{Features, claim, metadata, pod};
use crate::view::apps_v1::{RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy};
use crate::view::core_v1::PodTemplateSpec;
use api::{FieldError, Path, names};

/// What is looked at. What cannot change, or was wrong before it was looked at, does not hold up an update.
#[derive(Clone, Copy)]
struct Looked {
    fixed: bool,
    pods: bool,
}

pub(in crate::validation) fn stateful_set(object: &Map, old: Option<&Map>, features: Features) -> Errors {
    checked(object, Looked { fixed: true, pods: true }, options(features, old))
}

fn checked(object: &Map, looked: Looked, options: pod::Options<'_>) -> Errors {
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
    let claims = SPEC.child("volumeClaimTemplates");
    for (i, claim) in spec.volume_claim_templates().iter().enumerate().filter(|_| looked.fixed) {
        claim::claim_spec(&mut errors, &claims.index(i).child("spec"), claim.spec());
    }
    non_negative(&mut errors, &SPEC.child("replicas"), spec.replicas());
    non_negative(&mut errors, &SPEC.child("minReadySeconds"), spec.min_ready_seconds());
    non_negative(&mut errors, &SPEC.child("ordinals.start"), spec.ordinals().and_then(|ordinals| ordinals.start()));
    if let Some(name) = spec.service_name().filter(|name| looked.fixed && !name.is_empty()) {
        problems(&mut errors, &SPEC.child("serviceName"), name, names::dns1123_label(name));
    }
    if selector(&mut errors, "statefulset", "", spec.selector()) {
        matches(&mut errors, spec.selector(), spec.template());
        let path = SPEC.child("template");
        if looked.pods {
            let claimed = with_claims(spec);
            let template = claimed.as_ref().map(PodTemplateSpec).or(spec.template());
            pod::template(&mut errors, &path, template, options);
        } else {
            metadata::template(&mut errors, &path, spec.template().and_then(|template| template.metadata()));
        }
    }
    always(&mut errors, "StatefulSet", spec.template());
    errors
}

/// The template with the volumes that its pods get: those of claims come first, and take the place of what has their name.
fn with_claims(spec: StatefulSetSpec<'_>) -> Option<Map> {
    let mut names: Vec<&str> = Vec::new();
    for claim in spec.volume_claim_templates().iter() {
        let name = claim.metadata().and_then(|metadata| metadata.name()).unwrap_or("");
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut template = spec.template().filter(|_| !names.is_empty())?.0.clone();
    let claimed = names.iter().map(|name| {
        let mut volume = Map::new();
        volume.insert("name", *name);
        volume.set_at(&["persistentVolumeClaim", "claimName"], *name);
        Value::Map(volume)
    });
    let own = template.at(&["spec", "volumes"]).and_then(Value::as_list).unwrap_or_default();
    let own =
        own.iter().filter(|volume| volume.as_map().is_none_or(|volume| !names.contains(&volume.str_at(&["name"]))));
    let volumes: Vec<Value> = claimed.chain(own.cloned()).collect();
    template.set_at(&["spec", "volumes"], volumes);
    Some(template)
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

pub(in crate::validation) fn stateful_set_update(
    subresource: &str,
    new: &Map,
    old: &Map,
    features: Features,
) -> Errors {
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
    let looked = Looked { fixed: false, pods: true };
    let options = options(features, Some(old));
    let mut errors = checked(new, Looked { pods: checked(old, looked, options).is_empty(), ..looked }, options);
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

pub(in crate::validation) fn stateful_set_warnings(new: &Map, old: Option<&Map>, features: Features) -> Warnings {
    let mut out = Warnings::new();
    if !changed(new, old) {
        return out;
    }
    if old.is_none() {
        name_warning(&mut out, new);
    }
    template_warnings(&mut out, new, features);
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
