//! Deployments, ReplicaSets, StatefulSets, DaemonSets and ReplicationControllers.

use super::fields::{
    Errors, immutable, int_or_percent, json, label_selector, non_negative, not_over_100_percent,
    positive_int_or_percent, required_of, same, selects, selects_all,
};
use super::pod;
use crate::tree::{Map, Value};
use crate::view::core_v1::PodTemplateSpec;
use crate::view::meta_v1::LabelSelector;
use crate::view::{apps_v1, core_v1};
use api::{FieldError, Path};

const SPEC: Path<'static> = Path::root("spec");
const STATUS: Path<'static> = Path::root("status");
const MISMATCH: &str = "`selector` does not match template `labels`";

/// The selector, and whether it picks the pods of the template.
fn selector(errors: &mut Errors, kind: &str, selector: Option<LabelSelector<'_>>) {
    let path = SPEC.child("selector");
    match selector {
        None => errors.push(FieldError::required(&path, "")),
        Some(selector) => {
            label_selector(errors, &path, Some(selector));
            if selects_all(selector) {
                let shown = super::fields::json_map(selector.0);
                let why = format!("empty selector is invalid for {kind}");
                errors.push(FieldError::invalid(&path, shown, why));
            }
        }
    }
}

/// The template of a controller whose pods always restart.
fn template(errors: &mut Errors, selector: Option<LabelSelector<'_>>, template: Option<PodTemplateSpec<'_>>) {
    let path = SPEC.child("template");
    if let (Some(selector), Some(template)) = (selector, template)
        && !selects_all(selector)
    {
        let metadata = template.0.get("metadata").and_then(Value::as_map);
        let labels = metadata.map(crate::view::meta_v1::ObjectMeta);
        let matches = match labels {
            Some(metadata) => selects(selector, metadata.labels()),
            None => selects(selector, crate::view::meta_v1::ObjectMeta(&EMPTY).labels()),
        };
        if !matches {
            let shown = json(template.0.at(&["metadata", "labels"]));
            errors.push(FieldError::invalid(&path.child("metadata").child("labels"), shown, MISMATCH));
        }
    }
    pod::template(errors, &path, template);
    always(errors, template);
}

static EMPTY: Map = Map::new();

fn always(errors: &mut Errors, template: Option<PodTemplateSpec<'_>>) {
    let path = SPEC.child("template");
    let Some(spec) = template.and_then(|template| template.spec()) else { return };
    let spec_path = path.child("spec");
    let policy = spec.restart_policy().unwrap_or("");
    if policy != "Always" {
        errors.push(FieldError::not_supported(&spec_path.child("restartPolicy"), policy, &["Always"]));
    }
    if spec.active_deadline_seconds().is_some() {
        let why = "activeDeadlineSeconds in ReplicaSet is not Supported";
        errors.push(FieldError::forbidden(&spec_path.child("activeDeadlineSeconds"), why));
    }
}

pub(super) fn deployment(object: &Map) -> Errors {
    let mut errors = Errors::new();
    deployment_spec(&mut errors, apps_v1::Deployment(object));
    errors
}

fn deployment_spec(errors: &mut Errors, object: apps_v1::Deployment<'_>) {
    let spec = object.spec().unwrap_or(apps_v1::DeploymentSpec(&EMPTY));
    non_negative(errors, &SPEC.child("replicas"), spec.replicas());
    selector(errors, "deployment", spec.selector());
    template(errors, spec.selector(), spec.template());
    strategy(errors, spec.strategy());
    non_negative(errors, &SPEC.child("minReadySeconds"), spec.min_ready_seconds());
    non_negative(errors, &SPEC.child("revisionHistoryLimit"), spec.revision_history_limit());
    if let Some(deadline) = spec.progress_deadline_seconds() {
        let path = SPEC.child("progressDeadlineSeconds");
        non_negative(errors, &path, Some(deadline));
        if deadline <= spec.min_ready_seconds().unwrap_or(0) {
            errors.push(FieldError::invalid(&path, deadline, "must be greater than minReadySeconds"));
        }
    }
}

fn strategy(errors: &mut Errors, strategy: Option<apps_v1::DeploymentStrategy<'_>>) {
    let Some(strategy) = strategy else { return };
    let path = SPEC.child("strategy");
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
                let why = "this should be defaulted and never be nil";
                errors.push(FieldError::required(&path, why));
                return;
            };
            let (unavailable, surge) = (path.child("maxUnavailable"), path.child("maxSurge"));
            positive_int_or_percent(errors, &unavailable, rolling.max_unavailable());
            positive_int_or_percent(errors, &surge, rolling.max_surge());
            if int_or_percent(rolling.max_unavailable()) == 0 && int_or_percent(rolling.max_surge()) == 0 {
                let shown = json(rolling.0.get("maxUnavailable"));
                let why = "may not be 0 when `maxSurge` is 0";
                errors.push(FieldError::invalid(&unavailable, shown, why));
            }
            not_over_100_percent(errors, &unavailable, rolling.max_unavailable());
        }
        other => {
            let supported = ["Recreate", "RollingUpdate"];
            errors.push(FieldError::not_supported(&path.child("type"), other, &supported));
        }
    }
}

fn counts(errors: &mut Errors, status: Option<&Map>, fields: &[&str]) {
    for field in fields {
        non_negative(errors, &STATUS.child(field), status.and_then(|status| status.get(field)).and_then(Value::as_i64));
    }
}

fn at_most(errors: &mut Errors, status: Option<&Map>, field: &str, total: &str) {
    let get = |field: &str| status.and_then(|status| status.get(field)).and_then(Value::as_i64).unwrap_or(0);
    if get(field) > get(total) {
        let why = if total == "replicas" {
            "cannot be greater than status.replicas".to_owned()
        } else {
            format!("cannot be greater than {total}")
        };
        errors.push(FieldError::invalid(&STATUS.child(field), get(field), why));
    }
}

fn status(errors: &mut Errors, new: &Map, fields: &[&str]) {
    let status = new.get("status").and_then(Value::as_map);
    counts(errors, status, fields);
}

fn collisions(errors: &mut Errors, new: &Map, old: &Map) {
    let get = |map: &Map| map.at(&["status", "collisionCount"]).and_then(Value::as_i64);
    let path = STATUS.child("collisionCount");
    match (get(new), get(old)) {
        (Some(now), Some(was)) if now < was => {
            errors.push(FieldError::invalid(&path, now, "cannot be decremented"));
        }
        (None, Some(_)) => {
            errors.push(FieldError::invalid(&path, api::field::Raw("null".into()), "cannot be decremented"));
        }
        _ => {}
    }
}

pub(super) fn deployment_update(subresource: &str, new: &Map, old: &Map) -> Errors {
    let mut errors = Errors::new();
    if subresource == "status" {
        let fields = [
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
        ];
        status(&mut errors, new, &fields);
        let status = new.get("status").and_then(Value::as_map);
        for field in ["updatedReplicas", "readyReplicas", "availableReplicas"] {
            at_most(&mut errors, status, field, "replicas");
        }
        at_most(&mut errors, status, "availableReplicas", "readyReplicas");
        collisions(&mut errors, new, old);
        return errors;
    }
    deployment_spec(&mut errors, apps_v1::Deployment(new));
    immutable(&mut errors, &SPEC.child("selector"), new.at(&["spec", "selector"]), old.at(&["spec", "selector"]));
    errors
}

pub(super) fn replica_set(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let object = apps_v1::ReplicaSet(object);
    let spec = object.spec().unwrap_or(apps_v1::ReplicaSetSpec(&EMPTY));
    non_negative(&mut errors, &SPEC.child("replicas"), spec.replicas());
    non_negative(&mut errors, &SPEC.child("minReadySeconds"), spec.min_ready_seconds());
    selector(&mut errors, "deployment", spec.selector());
    if spec.template().is_none() {
        errors.push(FieldError::required(&SPEC.child("template"), ""));
    } else {
        template(&mut errors, spec.selector(), spec.template());
    }
    errors
}

fn replica_status(errors: &mut Errors, new: &Map) {
    status(
        errors,
        new,
        &["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"],
    );
    let status = new.get("status").and_then(Value::as_map);
    for field in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
        at_most(errors, status, field, "replicas");
    }
    at_most(errors, status, "availableReplicas", "readyReplicas");
}

pub(super) fn replica_set_update(subresource: &str, new: &Map, old: &Map) -> Errors {
    if subresource == "status" {
        let mut errors = Errors::new();
        replica_status(&mut errors, new);
        return errors;
    }
    let mut errors = replica_set(new);
    immutable(&mut errors, &SPEC.child("selector"), new.at(&["spec", "selector"]), old.at(&["spec", "selector"]));
    errors
}

pub(super) fn daemon_set(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let object = apps_v1::DaemonSet(object);
    let spec = object.spec().unwrap_or(apps_v1::DaemonSetSpec(&EMPTY));
    selector(&mut errors, "daemonset", spec.selector());
    template(&mut errors, spec.selector(), spec.template());
    non_negative(&mut errors, &SPEC.child("minReadySeconds"), spec.min_ready_seconds());
    if let Some(strategy) = spec.update_strategy() {
        let path = SPEC.child("updateStrategy");
        match strategy.type_().unwrap_or("") {
            "OnDelete" => {}
            "RollingUpdate" => match strategy.rolling_update() {
                None => errors.push(FieldError::required(&path.child("rollingUpdate"), "")),
                Some(rolling) => {
                    let path = path.child("rollingUpdate");
                    let (unavailable, surge) = (path.child("maxUnavailable"), path.child("maxSurge"));
                    positive_int_or_percent(&mut errors, &unavailable, rolling.max_unavailable());
                    positive_int_or_percent(&mut errors, &surge, rolling.max_surge());
                    not_over_100_percent(&mut errors, &unavailable, rolling.max_unavailable());
                    not_over_100_percent(&mut errors, &surge, rolling.max_surge());
                    let (u, s) = (int_or_percent(rolling.max_unavailable()), int_or_percent(rolling.max_surge()));
                    if u != 0 && s != 0 {
                        let shown = json(rolling.0.get("maxSurge"));
                        errors.push(FieldError::invalid(
                            &surge,
                            shown,
                            "may not be set when maxUnavailable is non-zero",
                        ));
                    } else if u == 0 && s == 0 {
                        errors.push(FieldError::required(&unavailable, "cannot be 0 when maxSurge is 0"));
                    }
                }
            },
            other => {
                let supported = ["RollingUpdate", "OnDelete"];
                errors.push(FieldError::not_supported(&path.child("type"), other, &supported));
            }
        }
    }
    non_negative(&mut errors, &SPEC.child("revisionHistoryLimit"), spec.revision_history_limit());
    errors
}

pub(super) fn daemon_set_update(subresource: &str, new: &Map, old: &Map) -> Errors {
    if subresource == "status" {
        let mut errors = Errors::new();
        status(
            &mut errors,
            new,
            &[
                "currentNumberScheduled",
                "numberMisscheduled",
                "desiredNumberScheduled",
                "numberReady",
                "observedGeneration",
                "updatedNumberScheduled",
                "numberAvailable",
                "numberUnavailable",
            ],
        );
        collisions(&mut errors, new, old);
        return errors;
    }
    let mut errors = daemon_set(new);
    immutable(&mut errors, &SPEC.child("selector"), new.at(&["spec", "selector"]), old.at(&["spec", "selector"]));
    errors
}

pub(super) fn stateful_set(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let object = apps_v1::StatefulSet(object);
    let spec = object.spec().unwrap_or(apps_v1::StatefulSetSpec(&EMPTY));
    required_of(
        &mut errors,
        &SPEC.child("podManagementPolicy"),
        spec.pod_management_policy(),
        &["OrderedReady", "Parallel"],
    );
    if let Some(strategy) = spec.update_strategy() {
        let path = SPEC.child("updateStrategy");
        match strategy.type_().unwrap_or("") {
            "OnDelete" if strategy.rolling_update().is_some() => {
                let why = "only allowed for updateStrategy 'RollingUpdate'";
                errors.push(FieldError::invalid(
                    &path.child("rollingUpdate"),
                    json(strategy.0.get("rollingUpdate")),
                    why,
                ));
            }
            "OnDelete" => {}
            "RollingUpdate" => {
                let partition = strategy.rolling_update().and_then(|rolling| rolling.partition());
                non_negative(&mut errors, &path.child("rollingUpdate").child("partition"), partition);
            }
            "" => errors.push(FieldError::required(&path, "")),
            other => {
                let why = "must be 'RollingUpdate' or 'OnDelete'";
                errors.push(FieldError::invalid(&path, json(Some(&Value::from(other))), why));
            }
        }
    }
    non_negative(&mut errors, &SPEC.child("replicas"), spec.replicas());
    non_negative(&mut errors, &SPEC.child("minReadySeconds"), spec.min_ready_seconds());
    non_negative(&mut errors, &SPEC.child("ordinals.start"), spec.ordinals().and_then(|ordinals| ordinals.start()));
    non_negative(&mut errors, &SPEC.child("revisionHistoryLimit"), spec.revision_history_limit());
    selector(&mut errors, "statefulset", spec.selector());
    template(&mut errors, spec.selector(), spec.template());
    errors
}

pub(super) fn stateful_set_update(subresource: &str, new: &Map, old: &Map) -> Errors {
    if subresource == "status" {
        let mut errors = Errors::new();
        status(
            &mut errors,
            new,
            &["replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"],
        );
        let status = new.get("status").and_then(Value::as_map);
        for field in ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"] {
            at_most(&mut errors, status, field, "replicas");
        }
        collisions(&mut errors, new, old);
        return errors;
    }
    const MAY_CHANGE: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
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

pub(super) fn replication_controller(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let object = core_v1::ReplicationController(object);
    let spec = object.spec().unwrap_or(core_v1::ReplicationControllerSpec(&EMPTY));
    non_negative(&mut errors, &SPEC.child("minReadySeconds"), spec.min_ready_seconds());
    let picks = spec.selector();
    if picks.is_empty() {
        errors.push(FieldError::required(&SPEC.child("selector"), ""));
    }
    if spec.replicas().is_none() {
        errors.push(FieldError::required(&SPEC.child("replicas"), ""));
    }
    non_negative(&mut errors, &SPEC.child("replicas"), spec.replicas());
    let Some(pods) = spec.template() else {
        errors.push(FieldError::required(&SPEC.child("template"), ""));
        return errors;
    };
    let labels = pods.metadata().map(|metadata| metadata.labels());
    if picks.iter().any(|(key, value)| labels.and_then(|labels| labels.get(key)) != Some(value)) {
        let shown = json(pods.0.at(&["metadata", "labels"]));
        let path = SPEC.child("template");
        errors.push(FieldError::invalid(&path.child("metadata").child("labels"), shown, MISMATCH));
    }
    template(&mut errors, None, Some(pods));
    errors
}

pub(super) fn replication_controller_update(subresource: &str, new: &Map, _: &Map) -> Errors {
    if subresource == "status" {
        let mut errors = Errors::new();
        replica_status(&mut errors, new);
        return errors;
    }
    replication_controller(new)
}

pub(super) fn warnings(new: &Map, old: Option<&Map>) -> Vec<String> {
    let mut out = Vec::new();
    if old.is_some_and(|old| old.at(&["spec", "template"]) == new.at(&["spec", "template"])) {
        return out;
    }
    if old.is_none() {
        let bad = api::names::dns1123_label(new.str_at(&["metadata", "name"]));
        if !bad.is_empty() {
            out.push(format!(
                "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{}]",
                bad.join(" ")
            ));
        }
    }
    let template = new.at(&["spec", "template"]).and_then(Value::as_map).map(PodTemplateSpec);
    pod::template_warnings(&mut out, &SPEC.child("template"), template);
    out
}
