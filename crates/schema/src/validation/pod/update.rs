//! What may change of a pod, on itself and through its subresources.

use super::super::fields::{Errors, MAX_INT32, inclusive, required, same};
use super::super::internal::difference;
use super::container::only_for_pods;
use super::{MIRROR, Options, annotations, scheduling};
use crate::tree::{Map, Value};
use crate::validation::Features;
use crate::view::List;
use crate::view::core_v1::{Container, Pod, PodSpec};
use api::{FieldError, Path};
use std::collections::BTreeSet;

const SPEC: Path<'static> = Path::root("spec");
const MAY_CHANGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// What is wrong with an update of a pod or one of its subresources.
pub(in crate::validation) fn update(subresource: &str, new: &Map, old: &Map, features: Features) -> Errors {
    let mut errors = Errors::new();
    let options = Options::of_pod(features, Some(Pod(old)));
    let (Some(new_spec), Some(old_spec)) = (Pod(new).spec(), Pod(old).spec()) else {
        return super::create(new, features);
    };
    match subresource {
        "status" => super::status::status(&mut errors, Pod(new), Pod(old), options),
        "ephemeralcontainers" => {
            super::pod(&mut errors, Pod(new), options);
            annotations::update(&mut errors, Pod(new), Pod(old), options);
            if old.at(&["metadata", "annotations", MIRROR]).is_some() {
                let why = "static pods do not support ephemeral containers";
                return vec![FieldError::forbidden(&Path::root(""), why)];
            }
            ephemeral(&mut errors, new_spec, old_spec);
        }
        "resize" => {
            super::pod(&mut errors, Pod(new), options);
            super::resize::resize(&mut errors, new, old);
        }
        _ => {
            super::pod(&mut errors, Pod(new), options);
            annotations::update(&mut errors, Pod(new), Pod(old), options);
            spec(&mut errors, new_spec, old_spec, options);
        }
    }
    errors
}

fn spec(errors: &mut Errors, new: PodSpec<'_>, old: PodSpec<'_>, options: Options<'_>) {
    for (field, new, old) in [
        ("containers", new.containers(), old.containers()),
        ("initContainers", new.init_containers(), old.init_containers()),
    ] {
        if !images(errors, &SPEC.child(field), new, old) {
            return;
        }
    }
    if !active_deadline(errors, new.active_deadline_seconds(), old.active_deadline_seconds()) {
        return;
    }
    only_added_tolerations(errors, new, old, options);
    only_removed_gates(errors, new, old);
    if same(Some(&Value::Map(new.0.clone())), Some(&Value::Map(old.0.clone()))) {
        return;
    }
    // What may change is given the old value, so that what still differs may not.
    let mut munged = new.0.clone();
    for field in ["containers", "initContainers"] {
        let images: Vec<Option<Value>> =
            containers(old.0, field).map(|container| container.get("image").cloned()).collect();
        let list = munged.get_mut(field).and_then(Value::as_list_mut);
        for (container, image) in list.into_iter().flatten().zip(images) {
            if let (Some(container), Some(image)) = (container.as_map_mut(), image) {
                container.insert("image", image);
            }
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations"] {
        take_old(&mut munged, old.0, field);
    }
    if old.termination_grace_period_seconds().is_some_and(|seconds| seconds < 0)
        && new.termination_grace_period_seconds() == Some(1)
    {
        take_old(&mut munged, old.0, "terminationGracePeriodSeconds");
    }
    take_old(&mut munged, old.0, "schedulingGates");
    if !old.scheduling_gates().is_empty() {
        let kept = old.node_selector().iter().all(|(key, value)| new.node_selector().get(key) == Some(value));
        if !kept {
            let shown = super::super::fields::json(old.0.get("nodeSelector"));
            let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
            errors.push(FieldError::invalid(&SPEC.child("nodeSelector"), shown, why));
        }
        take_old(&mut munged, old.0, "nodeSelector");
        node_affinity(errors, &mut munged, old.0);
    }
    if !same(Some(&Value::Map(munged.clone())), Some(&Value::Map(old.0.clone()))) {
        errors.push(FieldError::forbidden(&SPEC, format!("{MAY_CHANGE}\n{}", difference("PodSpec", old.0, &munged))));
    }
}

/// Which nodes a gated pod may go to can be narrowed, not widened.
fn node_affinity(errors: &mut Errors, munged: &mut Map, old: &Map) {
    const NODE: [&str; 2] = ["affinity", "nodeAffinity"];
    const TERMS: [&str; 4] =
        ["affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"];
    if same(munged.at(&NODE), old.at(&NODE)) {
        return;
    }
    let list = |map: &Map| map.at(&TERMS).and_then(Value::as_list).unwrap_or_default().to_vec();
    let (now, was) = (list(munged), list(old));
    let affinity = SPEC.child("affinity");
    let node = affinity.child("nodeAffinity");
    let required = node.child("requiredDuringSchedulingIgnoredDuringExecution");
    let path = required.child("nodeSelectorTerms");
    if !was.is_empty() && was.len() != now.len() {
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.push(FieldError::invalid(&path, super::super::fields::json(munged.at(&TERMS)), why));
    } else {
        for (i, (now, _)) in now.iter().zip(&was).enumerate().filter(|(_, (now, was))| !narrows(now, was)) {
            let why = "only additions are allowed (no mutations or deletions)";
            errors.push(FieldError::invalid(&path.index(i), super::super::fields::json(Some(now)), why));
        }
    }
    match old.at(&NODE) {
        Some(value) => munged.set_at(&NODE, value.clone()),
        None => {
            munged.remove_at(&NODE);
        }
    }
    let nothing = munged.get("affinity").and_then(Value::as_map).is_some_and(Map::is_empty);
    if nothing && !old.contains_key("affinity") {
        munged.remove("affinity");
    }
}

/// Whether a term asks for all that the old one did, and perhaps for more.
fn narrows(now: &Value, was: &Value) -> bool {
    let list = |term: &Value, field: &str| {
        let list = term.as_map().and_then(|term| term.get(field)).and_then(Value::as_list);
        list.unwrap_or_default().to_vec()
    };
    let fields = ["matchExpressions", "matchFields"];
    let empty = |term: &Value| fields.iter().all(|field| list(term, field).is_empty());
    if empty(was) {
        return empty(now);
    }
    fields.iter().all(|field| list(now, field).starts_with(&list(was, field)))
}

fn containers<'a>(spec: &'a Map, field: &str) -> impl Iterator<Item = &'a Map> {
    spec.get(field).and_then(Value::as_list).unwrap_or_default().iter().filter_map(Value::as_map)
}

fn take_old(map: &mut Map, old: &Map, field: &'static str) {
    match old.get(field) {
        Some(value) => map.insert(field, value.clone()),
        None => map.remove(field),
    };
}

/// Whether the containers are as many as before; only their images may differ.
fn images(errors: &mut Errors, path: &Path<'_>, new: List<'_, Container<'_>>, old: List<'_, Container<'_>>) -> bool {
    if new.len() != old.len() {
        errors.push(FieldError::forbidden(path, "pod updates may not add or remove containers"));
        return false;
    }
    // The rules of the pod have told of these; upstream tells twice.
    for (i, container) in new.iter().enumerate() {
        let path = path.index(i);
        required(errors, &path.child("image"), container.image());
        only_for_pods(errors, &path, container);
    }
    true
}

fn active_deadline(errors: &mut Errors, new: Option<i64>, old: Option<i64>) -> bool {
    let path = SPEC.child("activeDeadlineSeconds");
    match (new, old) {
        (Some(new), _) if !(0..=MAX_INT32).contains(&new) => {
            errors.push(FieldError::invalid(&path, new, inclusive(0, MAX_INT32)));
            false
        }
        (Some(new), Some(old)) if old < new => {
            errors.push(FieldError::invalid(&path, new, "must be less than or equal to previous value"));
            false
        }
        (None, Some(_)) => {
            let why = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid(&path, api::field::Raw("null".into()), why));
            true
        }
        _ => true,
    }
}

fn only_added_tolerations(errors: &mut Errors, new: PodSpec<'_>, old: PodSpec<'_>, options: Options<'_>) {
    let bare = |map: &Map| {
        let mut map = map.clone();
        map.remove("tolerationSeconds");
        map
    };
    let path = SPEC.child("tolerations");
    let now: Vec<Map> = new.tolerations().iter().map(|toleration| bare(toleration.0)).collect();
    if old.tolerations().iter().any(|toleration| !now.contains(&bare(toleration.0))) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden(&path, why));
        return;
    }
    // The rules of the pod have told of these; upstream tells twice.
    scheduling::tolerations(errors, &path, new.tolerations(), options.compares_taints());
}

fn only_removed_gates(errors: &mut Errors, new: PodSpec<'_>, old: PodSpec<'_>) {
    let had: BTreeSet<&str> = old.scheduling_gates().iter().filter_map(|gate| gate.name()).collect();
    let path = SPEC.child("schedulingGates");
    for (i, gate) in new.scheduling_gates().iter().enumerate() {
        let gate = gate.name().unwrap_or("");
        if !had.contains(gate) {
            let why = format!("only deletion is allowed, but found new scheduling gate '{gate}'");
            errors.push(FieldError::forbidden(&path.index(i).child("name"), why));
        }
    }
}

fn ephemeral(errors: &mut Errors, new: PodSpec<'_>, old: PodSpec<'_>) {
    let path = SPEC.child("ephemeralContainers");
    for was in old.ephemeral_containers().iter() {
        let name = was.name().unwrap_or("");
        match new.ephemeral_containers().iter().find(|now| now.name() == Some(name)) {
            None => errors.push(FieldError::forbidden(
                &path,
                format!("existing ephemeral containers {} may not be removed\n", api::field::go_quote(name)),
            )),
            Some(now) if !same(Some(&Value::Map(now.0.clone())), Some(&Value::Map(was.0.clone()))) => {
                let name = api::field::go_quote(name);
                let diff = difference("EphemeralContainer", was.0, now.0);
                let why = format!("existing ephemeral containers {name} may not be changed\n{diff}");
                errors.push(FieldError::forbidden(&path, why));
            }
            Some(_) => {}
        }
    }
}
