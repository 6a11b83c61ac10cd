//! What may change of a pod, on itself and through its subresources.

use super::super::fields::{Errors, MAX_INT32, inclusive, problems, same};
use crate::tree::{Map, Value};
use crate::view::List;
use crate::view::core_v1::{Container, Pod, PodSpec};
use api::{FieldError, Path, names};
use std::collections::BTreeSet;

const SPEC: Path<'static> = Path::root("spec");
const MAY_CHANGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const MIRROR: &str = super::MIRROR;

/// What is wrong with an update of a pod or one of its subresources.
pub(in crate::validation) fn update(subresource: &str, new: &Map, old: &Map) -> Errors {
    let mut errors = Errors::new();
    let (Some(new_spec), Some(old_spec)) = (Pod(new).spec(), Pod(old).spec()) else { return super::create(new) };
    match subresource {
        "status" => status(&mut errors, Pod(new), Pod(old)),
        "ephemeralcontainers" => {
            super::pod(&mut errors, Pod(new));
            ephemeral(&mut errors, new_spec, old_spec);
        }
        "resize" => {
            super::pod(&mut errors, Pod(new));
            resize(&mut errors, Pod(old), new_spec, old_spec);
        }
        _ => {
            super::pod(&mut errors, Pod(new));
            annotations(&mut errors, Pod(new), Pod(old));
            spec(&mut errors, new_spec, old_spec);
        }
    }
    errors
}

fn annotations(errors: &mut Errors, new: Pod<'_>, old: Pod<'_>) {
    let get = |pod: Pod<'_>| pod.metadata().and_then(|metadata| metadata.annotations().get(MIRROR).map(str::to_owned));
    let (new, old) = (get(new), get(old));
    if new != old {
        let metadata = Path::root("metadata");
        let what = if old.is_some() {
            "may not remove or update mirror pod annotation"
        } else {
            "may not add mirror pod annotation"
        };
        errors.push(FieldError::forbidden(&metadata.child("annotations").key(MIRROR), what));
    }
}

fn spec(errors: &mut Errors, new: PodSpec<'_>, old: PodSpec<'_>) {
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
    only_added_tolerations(errors, new, old);
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
    only_removed_gates(errors, new, old);
    take_old(&mut munged, old.0, "schedulingGates");
    if !old.scheduling_gates().is_empty() {
        let kept = old.node_selector().iter().all(|(key, value)| new.node_selector().get(key) == Some(value));
        if !kept {
            let shown = super::super::fields::json(old.0.get("nodeSelector"));
            let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
            errors.push(FieldError::invalid(&SPEC.child("nodeSelector"), shown, why));
        }
        take_old(&mut munged, old.0, "nodeSelector");
    }
    if !same(Some(&Value::Map(munged.clone())), Some(&Value::Map(old.0.clone()))) {
        errors.push(FieldError::forbidden(&SPEC, format!("{MAY_CHANGE}\n{}", diff("PodSpec", old.0, &munged))));
    }
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

/// The fields that differ, as Go's names, old and new.
pub(in crate::validation) fn diff(kind: &str, old: &Map, new: &Map) -> String {
    let mut out = format!("  core.{kind}{{\n");
    let keys: BTreeSet<&str> = old.iter().chain(new.iter()).map(|(key, _)| key).collect();
    let mut line = |sign: char, key: &str, value: Option<&Value>| {
        let mut name = key.to_owned();
        if let Some(first) = name.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        out.push_str(&format!("{sign} \t{name}: {},\n", super::super::fields::json(value).0));
    };
    for key in keys {
        let (before, after) = (old.get(key), new.get(key));
        if !same(before, after) {
            line('-', key, before);
            line('+', key, after);
        }
    }
    out.push_str("  }\n");
    out
}

/// Whether the containers are as many as before; only their images may differ.
fn images(errors: &mut Errors, path: &Path<'_>, new: List<'_, Container<'_>>, old: List<'_, Container<'_>>) -> bool {
    if new.len() != old.len() {
        errors.push(FieldError::forbidden(path, "pod updates may not add or remove containers"));
        return false;
    }
    // What the image itself must be has been said by the rules of the pod.
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

fn only_added_tolerations(errors: &mut Errors, new: PodSpec<'_>, old: PodSpec<'_>) {
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
    }
}

fn only_removed_gates(errors: &mut Errors, new: PodSpec<'_>, old: PodSpec<'_>) {
    let had: BTreeSet<&str> = old.scheduling_gates().iter().filter_map(|gate| gate.name()).collect();
    for gate in new.scheduling_gates().iter().filter_map(|gate| gate.name()).filter(|gate| !had.contains(gate)) {
        let why = format!("only deletion is allowed, but found new scheduling gate '{gate}'");
        errors.push(FieldError::forbidden(&SPEC.child("schedulingGates"), why));
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
                let diff = diff("EphemeralContainer", was.0, now.0);
                let why = format!("existing ephemeral containers {name} may not be changed\n{diff}");
                errors.push(FieldError::forbidden(&path, why));
            }
            Some(_) => {}
        }
    }
}

fn resize(errors: &mut Errors, old_pod: Pod<'_>, new: PodSpec<'_>, old: PodSpec<'_>) {
    if old_pod.metadata().is_some_and(|metadata| metadata.annotations().contains_key(MIRROR)) {
        errors.push(FieldError::forbidden(&Path::root(""), "static pods cannot be resized"));
        return;
    }
    if old.os().and_then(|os| os.name()) == Some("windows") {
        errors.push(FieldError::forbidden(&Path::root(""), "windows pods cannot be resized"));
        return;
    }
    let mut munged = new.0.clone();
    for field in ["containers", "initContainers"] {
        let before: Vec<&Map> = containers(old.0, field).collect();
        let list = munged.get_mut(field).and_then(Value::as_list_mut);
        for (i, (now, was)) in list.into_iter().flatten().zip(before).enumerate() {
            let Some(now) = now.as_map_mut() else { continue };
            for kind in ["limits", "requests"] {
                for name in ["cpu", "memory"] {
                    let had = was.at(&["resources", kind, name]);
                    if had.is_some() && now.at(&["resources", kind, name]).is_none() {
                        let path = SPEC.child(field);
                        let path = path.index(i);
                        let resources = path.child("resources");
                        let why = format!("resource {kind} cannot be removed");
                        errors.push(FieldError::forbidden(&resources.child(kind), why));
                    }
                    match had {
                        Some(value) => {
                            let path: [&'static str; 4] = ["resources", kind, name, ""];
                            now.set_at(&path[..3], value.clone());
                        }
                        None => {
                            now.remove_at(&["resources", kind, name]);
                        }
                    }
                }
            }
        }
    }
    if !same(Some(&Value::Map(munged.clone())), Some(&Value::Map(old.0.clone()))) {
        let why = format!("only cpu and memory resources are mutable\n{}", diff("PodSpec", old.0, &munged));
        errors.push(FieldError::forbidden(&SPEC, why));
    }
}

fn status(errors: &mut Errors, new: Pod<'_>, old: Pod<'_>) {
    annotations(errors, new, old);
    let path = Path::root("status");
    let (spec, old_spec) = (new.spec(), old.spec());
    if spec.and_then(|spec| spec.node_name()) != old_spec.and_then(|spec| spec.node_name()) {
        errors.push(FieldError::forbidden(&path.child("nodeName"), "may not be changed directly"));
    }
    let (Some(status), Some(old_status)) = (new.status(), old.status()) else { return };
    let nominated = status.nominated_node_name().unwrap_or("");
    if !nominated.is_empty() && old_status.nominated_node_name() != Some(nominated) {
        problems(errors, &path.child("nominatedNodeName"), nominated, names::dns1123_subdomain(nominated));
    }
    for (i, condition) in status.conditions().iter().enumerate() {
        let kind = condition.type_().unwrap_or("");
        if kind.is_empty() {
            errors.push(FieldError::required(&path.child("conditions").index(i).child("type"), ""));
        }
    }
    for (field, new, old) in [
        ("containerStatuses", status.0.get("containerStatuses"), old_status.0.get("containerStatuses")),
        ("initContainerStatuses", status.0.get("initContainerStatuses"), old_status.0.get("initContainerStatuses")),
    ] {
        transitions(errors, &path.child(field), new, old, old_spec, field == "initContainerStatuses");
    }
}

/// Containers that are over and may not start again stay over.
fn transitions(
    errors: &mut Errors,
    path: &Path<'_>,
    new: Option<&Value>,
    old: Option<&Value>,
    spec: Option<PodSpec<'_>>,
    init: bool,
) {
    let Some(spec) = spec else { return };
    let list = |value: Option<&Value>| value.and_then(Value::as_list).unwrap_or_default().to_vec();
    let restart = spec.restart_policy().unwrap_or("");
    if restart == "Always" && !init {
        return;
    }
    let new = list(new);
    for (i, was) in list(old).iter().filter_map(Value::as_map).enumerate() {
        let name = was.str_at(&["name"]);
        let Some(over) = was.at(&["state", "terminated"]).and_then(Value::as_map) else { continue };
        let failed = over.get("exitCode").and_then(Value::as_i64).unwrap_or(0) != 0;
        let own = if init { spec.init_containers() } else { spec.containers() };
        let container = own.iter().find(|container| container.name() == Some(name));
        let may_restart = container.is_some_and(|container| {
            !container.restart_policy_rules().is_empty()
                || match container.restart_policy() {
                    Some("Always") => true,
                    Some("OnFailure") => failed,
                    _ => false,
                }
        });
        if may_restart || (failed && restart != "Never") || (init && restart == "Always") {
            continue;
        }
        let now = new.iter().filter_map(Value::as_map).find(|now| now.str_at(&["name"]) == name);
        if now.is_some_and(|now| now.at(&["state", "terminated"]).is_none()) {
            let why = "may not be transitioned to non-terminated state";
            errors.push(FieldError::forbidden(&path.index(i).child("state"), why));
        }
    }
}
