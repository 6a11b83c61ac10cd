//! Controllers of pods: what their kinds have in common, and a file for each.

mod daemon_set;
mod deployment;
mod replicas;
mod revision;
mod stateful_set;

pub(super) use daemon_set::{daemon_set, daemon_set_update};
pub(super) use deployment::{deployment, deployment_update};
pub(super) use replicas::{replica_set, replica_set_update, replication_controller, replication_controller_update};
pub(super) use revision::{revision, revision_update};
pub(super) use stateful_set::{stateful_set, stateful_set_update, stateful_set_warnings};

use super::fields::{Errors, json, label_selector, non_negative, selects, selects_all};
use super::warnings::Warnings;
use super::{Features, pod};
use crate::tree::{Map, Value};
use crate::view::core_v1::PodTemplateSpec;
use crate::view::meta_v1::{LabelSelector, ObjectMeta};
use api::{FieldError, Path, names};

const SPEC: Path<'static> = Path::root("spec");
const STATUS: Path<'static> = Path::root("status");
pub(super) const MISMATCH: &str = "`selector` does not match template `labels`";
static EMPTY: Map = Map::new();

/// The selector: it must be there and ask for something. `kind` is how upstream calls it. Tells whether it can be used.
fn selector(errors: &mut Errors, kind: &str, unusable: &str, selector: Option<LabelSelector<'_>>) -> bool {
    let path = SPEC.child("selector");
    let Some(selector) = selector else {
        errors.push(FieldError::required(&path, ""));
        return true;
    };
    let before = errors.len();
    label_selector(errors, &path, Some(selector));
    let usable = errors.len() == before;
    let shown = || super::fields::json_map(selector.0);
    if selects_all(selector) {
        errors.push(FieldError::invalid(&path, shown(), format!("empty selector is invalid for {kind}")));
    }
    if !usable {
        errors.push(FieldError::invalid(&path, shown(), unusable));
    }
    usable
}

/// A selector that is absent picks nothing; one that asks for nothing is not held against the template.
fn matches(errors: &mut Errors, selector: Option<LabelSelector<'_>>, template: Option<PodTemplateSpec<'_>>) {
    if selector.is_some_and(selects_all) {
        return;
    }
    let labels = template.and_then(|t| t.metadata()).unwrap_or(ObjectMeta(&EMPTY)).labels();
    if !selector.is_some_and(|selector| selects(selector, labels)) {
        mismatch(errors, &SPEC.child("template"), template);
    }
}

/// Labels of a template that its selector does not pick.
pub(super) fn mismatch(errors: &mut Errors, path: &Path<'_>, template: Option<PodTemplateSpec<'_>>) {
    let shown = json(template.and_then(|template| template.0.at(&["metadata", "labels"])));
    errors.push(FieldError::invalid(&path.child("metadata").child("labels"), shown, MISMATCH));
}

/// Pods of controllers always restart, and have no end of their own.
fn always(errors: &mut Errors, kind: &str, template: Option<PodTemplateSpec<'_>>) {
    let path = SPEC.child("template");
    let path = path.child("spec");
    let spec = template.and_then(|template| template.spec());
    let policy = spec.and_then(|spec| spec.restart_policy()).unwrap_or("");
    if policy != "Always" {
        errors.push(FieldError::not_supported(&path.child("restartPolicy"), policy, &["Always"]));
    }
    if spec.is_some_and(|spec| spec.active_deadline_seconds().is_some()) {
        let why = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.push(FieldError::forbidden(&path.child("activeDeadlineSeconds"), why));
    }
}

/// How the template of a controller is looked at; `old` is the controller before.
fn options(features: Features, old: Option<&Map>) -> pod::Options<'_> {
    pod::Options::at(features, old, &["spec", "template"])
}

/// The template of a Deployment, a ReplicaSet or a ReplicationController.
fn replicated(errors: &mut Errors, kind: &str, template: Option<PodTemplateSpec<'_>>, options: pod::Options<'_>) {
    pod::template(errors, &SPEC.child("template"), template, options);
    always(errors, kind, template);
}

fn count(object: &Map, field: &str) -> Option<i64> {
    object.at(&["status", field]).and_then(Value::as_i64)
}

/// Counts of the status are none of them negative.
fn counts(errors: &mut Errors, object: &Map, fields: &[&str]) {
    for field in fields {
        non_negative(errors, &STATUS.child(field), count(object, field));
    }
}

/// Of what there is, no more can be in a better state.
fn at_most(errors: &mut Errors, object: &Map, fields: &[&str], total: &str, total_shown: &str) {
    let most = count(object, total).unwrap_or(0);
    for field in fields {
        if let Some(value) = count(object, field).filter(|value| *value > most) {
            let why = format!("cannot be greater than {total_shown}");
            errors.push(FieldError::invalid(&STATUS.child(field), value, why));
        }
    }
}

fn collisions(errors: &mut Errors, new: &Map, old: &Map) {
    let Some(was) = count(old, "collisionCount") else { return };
    let now = count(new, "collisionCount");
    if now.is_none_or(|now| now < was) {
        let path = STATUS.child("collisionCount");
        errors.push(FieldError::invalid(&path, now.unwrap_or(0), "cannot be decremented"));
    }
}

/// A name that is no label makes pods whose host names are not what one expects.
pub(super) fn name_warning(out: &mut Warnings, object: &Map) {
    let bad = names::dns1123_label(object.str_at(&["metadata", "name"]));
    if !bad.is_empty() {
        out.push(format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{}]",
            bad.join(" ")
        ));
    }
}

/// Of all that makes a generation: pods are told about with every change of it, also of how many there are.
fn changed(new: &Map, old: Option<&Map>) -> bool {
    old.is_none_or(|old| old.get("spec") != new.get("spec"))
}

pub(super) fn warnings(new: &Map, old: Option<&Map>, features: Features) -> Warnings {
    let mut out = Warnings::new();
    if old.is_none() {
        name_warning(&mut out, new);
    }
    if changed(new, old) {
        template_warnings(&mut out, new, features);
    }
    out
}

/// Annotations of a Deployment make a generation, too.
pub(super) fn deployment_warnings(new: &Map, old: Option<&Map>, features: Features) -> Warnings {
    let annotations = |map: &Map| map.at(&["metadata", "annotations"]).cloned();
    let mut out = warnings(new, old, features);
    if old.is_some_and(|old| !changed(new, Some(old)) && annotations(old) != annotations(new)) {
        template_warnings(&mut out, new, features);
    }
    out
}

/// A DaemonSet's pods have its name only as a beginning.
pub(super) fn daemon_set_warnings(new: &Map, old: Option<&Map>, features: Features) -> Warnings {
    let mut out = Warnings::new();
    if changed(new, old) {
        template_warnings(&mut out, new, features);
    }
    out
}

fn template_warnings(out: &mut Warnings, new: &Map, features: Features) {
    let template = new.at(&["spec", "template"]).and_then(Value::as_map).map(PodTemplateSpec);
    pod::template_warnings(out, &SPEC.child("template"), template, features);
}
