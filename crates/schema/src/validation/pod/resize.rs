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
    removed(errors, &SPEC.child("resources"), &munged, &was);
    take_back(&mut munged, &was);
    for field in ["initContainers", "containers"] {
        let before = was.get(field).and_then(Value::as_list).unwrap_or_default();
        let list = munged.get_mut(field).and_then(Value::as_list_mut);
        for (i, (now, was)) in list.into_iter().flatten().zip(before).enumerate() {
            let (Some(now), Some(was)) = (now.as_map_mut(), was.as_map()) else { continue };
            let lists = SPEC.child(field);
            let path = lists.index(i);
            removed(errors, &path.child("resources"), now, was);
            take_back(now, was);
            if !same(Some(&Value::Map(now.clone())), Some(&Value::Map(was.clone()))) {
                let sidecar = field == "initContainers" && was.str_at(&["restartPolicy"]) == "Always";
                let why =
                    if sidecar { "only cpu and memory resources for sidecar containers are mutable" } else { ONLY };
                errors.push(FieldError::forbidden(&SPEC, why));
            }
        }
    }
    wrong = errors.len() - wrong;
    if wrong == 0 && !same(Some(&Value::Map(munged)), Some(&Value::Map(was))) {
        errors.push(FieldError::forbidden(&SPEC, ONLY));
    }
}

/// Whether the node tells what its containers have, as those do that can change it.
fn node_can(pod: Pod<'_>) -> bool {
    let statuses = pod.status().map(|status| status.container_statuses());
    let mut running = statuses.into_iter().flat_map(|list| list.iter());
    let running = running.find(|one| one.state().is_some_and(|state| state.running().is_some()));
    running.is_none_or(|one| one.resources().is_some())
}

/// What was asked for can be changed, not taken away.
fn removed(errors: &mut Errors, path: &Path<'_>, now: &Map, was: &Map) {
    for list in ["requests", "limits"] {
        let of = |map: &Map| map.at(&["resources", list]).and_then(Value::as_map).cloned().unwrap_or_default();
        let (now, was) = (of(now), of(was));
        if was.len() > now.len() || was.iter().any(|(name, _)| !now.contains_key(name)) {
            let why = format!("resource {list} cannot be removed");
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
