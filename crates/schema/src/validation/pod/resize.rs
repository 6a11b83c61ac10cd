//! What `pods/resize` may change: CPU and memory of containers, and of the pod as a whole.

use super::super::fields::{Errors, same};
use super::MIRROR;
use crate::tree::{Map, Value};
use crate::view::core_v1::Pod;
use api::{FieldError, Path};

const SPEC: Path<'static> = Path::root("spec");
const ONLY: &str = "only cpu and memory resources are mutable";

pub(super) fn resize(errors: &mut Errors, new: &Map, old: &Map) {
    let pod = Pod(old);
    let whole = Path::root("");
    let refuse = |errors: &mut Errors, why: &str| *errors = vec![FieldError::forbidden(&whole, why)];
    if pod.metadata().is_some_and(|metadata| metadata.annotations().contains_key(MIRROR)) {
        return refuse(errors, "static pods cannot be resized");
    }
    if pod.spec().and_then(|spec| spec.os()).and_then(|os| os.name()) == Some("windows") {
        return refuse(errors, "windows pods cannot be resized");
    }
    let class = new.str_at(&["status", "qosClass"]).to_owned();
    let had = Some(old.str_at(&["status", "qosClass"])).filter(|class| !class.is_empty());
    if had.unwrap_or(crate::qos::of(old)) != crate::qos::of(new) {
        let why = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid(&SPEC, class, why));
    }
    if !node_can(pod) {
        errors.push(FieldError::forbidden(&SPEC, "Pod running on node without support for resize"));
    }
    let mut munged = new.get("spec").and_then(Value::as_map).cloned().unwrap_or_default();
    let was = old.get("spec").and_then(Value::as_map).cloned().unwrap_or_default();
    let mut wrong = errors.len();
    if asks(&was) || asks(&munged) {
        pod_level(errors, &mut munged, &was);
    }
    let claims = old.at(&["status", "nodeAllocatableResourceClaimStatuses"]).and_then(Value::as_list);
    if claims.is_some_and(|claims| !claims.is_empty()) {
        let why = "pods with node allocatable resource claims cannot be resized";
        errors.push(FieldError::forbidden(&SPEC, why));
    }
    if !same_containers(errors, &munged, &was) {
        return;
    }
    for field in ["initContainers", "containers"] {
        let before = list(&was, field);
        let now = munged.get_mut(field).and_then(Value::as_list_mut);
        for (i, (now, was)) in now.into_iter().flatten().zip(before).enumerate() {
            let (Some(now), Some(was)) = (now.as_map_mut(), was.as_map()) else { continue };
            let lists = SPEC.child(field);
            let path = lists.index(i);
            removed(errors, &path.child("resources"), now, was, "resource");
            let unchanged = same(Some(&Value::Map(now.clone())), Some(&Value::Map(was.clone())));
            take_back(now, was);
            let rest = same(Some(&Value::Map(now.clone())), Some(&Value::Map(was.clone())));
            if field == "containers" {
                if !rest {
                    errors.push(FieldError::forbidden(&SPEC, ONLY));
                }
                continue;
            }
            if !rest {
                let why = "only cpu and memory resources for init or sidecar containers are mutable";
                errors.push(FieldError::forbidden(&path, why));
            }
            if !unchanged && now.str_at(&["restartPolicy"]) != "Always" && restarts(now) {
                let why = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
                errors.push(FieldError::forbidden(&path, why));
            }
        }
    }
    wrong = errors.len() - wrong;
    if wrong == 0 && !same(Some(&Value::Map(munged)), Some(&Value::Map(was))) {
        errors.push(FieldError::forbidden(&SPEC, ONLY));
    }
}

fn list<'a>(spec: &'a Map, field: &str) -> &'a [Value] {
    spec.get(field).and_then(Value::as_list).unwrap_or_default()
}

/// Whether a pod asks for something as a whole.
fn asks(spec: &Map) -> bool {
    let amounts = |list| spec.at(&["resources", list]).and_then(Value::as_map);
    ["requests", "limits"].into_iter().filter_map(amounts).any(|amounts| !amounts.is_empty())
}

/// What a pod asks for as a whole.
fn pod_level(errors: &mut Errors, munged: &mut Map, was: &Map) {
    let path = SPEC.child("resources");
    let given = |spec: &Map| spec.get("resources").is_some_and(|resources| !resources.is_null());
    if given(was) && !given(munged) {
        errors.push(FieldError::forbidden(&path, "pod-level resources cannot be removed"));
        return;
    }
    removed(errors, &path, munged, was, "pod-level resource");
    take_back(munged, was);
    let none = Value::Map(Map::new());
    if !same(munged.get("resources").or(Some(&none)), was.get("resources").or(Some(&none))) {
        errors.push(FieldError::forbidden(&SPEC, "only cpu and memory resources are mutable at pod-level"));
    }
    match was.get("resources") {
        Some(resources) => munged.insert("resources", resources.clone()),
        None => munged.remove("resources"),
    };
}

/// Whether the containers are those that there were, in their order.
fn same_containers(errors: &mut Errors, now: &Map, was: &Map) -> bool {
    let before = errors.len();
    for field in ["containers", "initContainers"] {
        let (now, was) = (list(now, field), list(was, field));
        let path = SPEC.child(field);
        if now.len() != was.len() {
            let why = format!("{field} may not be added or removed on resize");
            errors.push(FieldError::forbidden(&path, why));
            continue;
        }
        let name = |one: &Value| one.as_map().map(|one| one.str_at(&["name"]).to_owned());
        for (i, _) in now.iter().zip(was).enumerate().filter(|(_, (now, was))| name(now) != name(was)) {
            let why = format!("{field} may not be renamed or reordered on resize");
            errors.push(FieldError::forbidden(&path.index(i).child("name"), why));
        }
    }
    errors.len() == before
}

/// Whether a container is to be restarted for a change of what it asks for.
fn restarts(container: &Map) -> bool {
    let mut policies = list(container, "resizePolicy").iter().filter_map(Value::as_map);
    policies.any(|policy| policy.str_at(&["restartPolicy"]) == "RestartContainer")
}

/// Whether the node tells what its containers have, as those do that can change it.
fn node_can(pod: Pod<'_>) -> bool {
    let statuses = pod.status().map(|status| status.container_statuses());
    let mut running = statuses.into_iter().flat_map(|list| list.iter());
    let running = running.find(|one| one.state().is_some_and(|state| state.running().is_some()));
    running.is_none_or(|one| one.resources().is_some())
}

/// What was asked for can be changed, not taken away.
fn removed(errors: &mut Errors, path: &Path<'_>, now: &Map, was: &Map, what: &str) {
    for list in ["requests", "limits"] {
        let of = |map: &Map| map.at(&["resources", list]).and_then(Value::as_map).cloned().unwrap_or_default();
        let (now, was) = (of(now), of(was));
        if was.len() > now.len() || was.iter().any(|(name, _)| !now.contains_key(name)) {
            let why = format!("{what} {list} cannot be removed");
            errors.push(FieldError::forbidden(&path.child(list), why));
        }
    }
}

/// Gives CPU and memory their old values, so that what still differs may not.
fn take_back(now: &mut Map, was: &Map) {
    for list in ["limits", "requests"] {
        for name in ["cpu", "memory"] {
            match was.at(&["resources", list, name]) {
                Some(value) => now.set_at(&["resources", list, name], value.clone()),
                None => {
                    now.remove_at(&["resources", list, name]);
                }
            }
        }
    }
}
