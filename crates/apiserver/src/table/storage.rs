//! Cells of volumes, claims, classes and drivers.

use super::{NONE, UNSET, joined, maps, or, shown};
use jiff::Timestamp;
use schema::{Map, Value};

pub(super) fn phase(object: &Map) -> Value {
    if object.at(&["metadata", "deletionTimestamp"]).is_some() {
        "Terminating".into()
    } else {
        object.str_at(&["status", "phase"]).into()
    }
}

pub(super) fn access_modes(object: &Map, path: &[&str]) -> String {
    let modes = object.at(path).and_then(Value::as_list).unwrap_or(&[]);
    let mut short: Vec<&str> = Vec::new();
    for (long, abbreviation) in
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")]
    {
        if modes.iter().any(|m| m.as_str() == Some(long)) {
            short.push(abbreviation);
        }
    }
    short.join(",")
}

pub(super) fn claim(object: &Map, _: Timestamp) -> Value {
    match object.at(&["spec", "claimRef"]).and_then(Value::as_map) {
        Some(claim) => format!("{}/{}", claim.str_at(&["namespace"]), claim.str_at(&["name"])).into(),
        None => "".into(),
    }
}

/// A quantity of storage; none is zero.
pub(super) fn quantity(object: &Map, path: &[&str]) -> Value {
    or(object.at(path).map(shown).unwrap_or_default(), "0").into()
}

fn is_bound(object: &Map) -> bool {
    !object.str_at(&["spec", "volumeName"]).is_empty()
}

pub(super) fn claim_capacity(object: &Map, _: Timestamp) -> Value {
    if is_bound(object) { quantity(object, &["status", "capacity", "storage"]) } else { "".into() }
}

pub(super) fn claim_modes(object: &Map, _: Timestamp) -> Value {
    if is_bound(object) { access_modes(object, &["status", "accessModes"]).into() } else { "".into() }
}

/// The class of a volume or a claim: an annotation counts before the field.
pub(super) fn class(object: &Map, _: Timestamp) -> Value {
    let annotated = object.at(&["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"]);
    match annotated.and_then(Value::as_str) {
        Some(class) => class.into(),
        None => object.str_at(&["spec", "storageClassName"]).into(),
    }
}

/// The name of a class, marked where an annotation makes it the default.
fn marked(object: &Map, annotations: &[&str]) -> Value {
    let name = object.str_at(&["metadata", "name"]);
    let default = annotations.iter().any(|a| object.str_at(&["metadata", "annotations", a]) == "true");
    if default { format!("{name} (default)").into() } else { name.into() }
}

pub(super) fn storage_class(object: &Map, _: Timestamp) -> Value {
    marked(object, &["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"])
}

pub(super) fn attributes_class(object: &Map, _: Timestamp) -> Value {
    marked(object, &["volumeattributesclass.alpha.kubernetes.io/is-default-class"])
}

/// The audiences that a driver wants tokens for.
pub(super) fn token_requests(object: &Map, _: Timestamp) -> Value {
    if object.at(&["spec", "tokenRequests"]).and_then(Value::as_list).is_none() {
        return UNSET.into();
    }
    let audiences: Vec<&str> = maps(object, &["spec", "tokenRequests"]).map(|t| t.str_at(&["audience"])).collect();
    audiences.join(",").into()
}

pub(super) fn lifecycle_modes(object: &Map, _: Timestamp) -> Value {
    or(joined(object, &["spec", "volumeLifecycleModes"], ","), NONE).into()
}
