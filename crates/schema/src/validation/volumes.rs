//! PersistentVolumes, claims and storage classes.

use super::fields::{Errors, immutable, json, label_selector, problems, quantity, required, same, supported_of};
use super::pod::{resources, scheduling};
use crate::tree::{Map, Value};
use crate::view::List;
use crate::view::core_v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec};
use api::{FieldError, Path, names};

const SPEC: Path<'static> = Path::root("spec");
const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const SOURCES: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

fn access_modes(errors: &mut Errors, path: &Path<'_>, modes: List<'_, &str>, missing: &str) {
    let path = path.child("accessModes");
    if modes.is_empty() {
        errors.push(FieldError::required(&path, missing));
    }
    for mode in modes.iter() {
        supported_of(errors, &path, Some(mode), &MODES);
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        let why = "may not use ReadWriteOncePod with other access modes";
        errors.push(FieldError::forbidden(&path, why));
    }
}

fn positive(errors: &mut Errors, path: &Path<'_>, value: &str) {
    resources::amount(errors, path, "storage", value);
    if quantity(value).signum() <= 0 {
        errors.push(FieldError::invalid(path, value, "must be greater than zero"));
    }
}

/// The spec of a claim, or of an ephemeral volume's.
pub(super) fn claim_spec(errors: &mut Errors, path: &Path<'_>, spec: Option<PersistentVolumeClaimSpec<'_>>) {
    let empty = Map::new();
    let spec = spec.unwrap_or(PersistentVolumeClaimSpec(&empty));
    access_modes(errors, path, spec.access_modes(), "at least 1 access mode is required");
    label_selector(errors, &path.child("selector"), spec.selector());
    let here = path.child("resources");
    match spec.resources().and_then(|resources| resources.requests().get("storage")) {
        None => errors.push(FieldError::required(&here.key("storage"), "")),
        Some(size) => positive(errors, &here.key("storage"), size),
    }
    let class = spec.storage_class_name().unwrap_or("");
    if !class.is_empty() {
        problems(errors, &path.child("storageClassName"), class, names::dns1123_subdomain(class));
    }
    supported_of(errors, &path.child("volumeMode"), spec.volume_mode(), &["Block", "Filesystem"]);
    if let Some(source) = spec.data_source() {
        let path = path.child("dataSource");
        required(errors, &path.child("name"), source.name());
        required(errors, &path.child("kind"), source.kind());
        if source.api_group().unwrap_or("").is_empty() && source.kind() != Some("PersistentVolumeClaim") {
            let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            errors.push(FieldError::invalid(&path, source.kind().unwrap_or(""), why));
        }
    }
}

pub(super) fn claim(object: &Map) -> Errors {
    let mut errors = Errors::new();
    claim_spec(&mut errors, &SPEC, PersistentVolumeClaim(object).spec());
    errors
}

pub(super) fn claim_update(subresource: &str, new: &Map, old: &Map) -> Errors {
    if subresource == "status" {
        return Errors::new();
    }
    let mut errors = claim(new);
    let of = |map: &Map| map.get("spec").and_then(Value::as_map).cloned().unwrap_or_default();
    let (mut now, was) = (of(new), of(old));
    let size = |map: &Map| map.at(&["resources", "requests", "storage"]).cloned();
    let (asked, had) = (size(&now), size(&was));
    if was.str_at(&["volumeName"]).is_empty() {
        match was.get("volumeName") {
            Some(value) => now.insert("volumeName", value.clone()),
            None => now.remove("volumeName"),
        };
    }
    if old.str_at(&["status", "phase"]) == "Bound"
        && let Some(had) = had.clone()
    {
        now.set_at(&["resources", "requests", "storage"], had);
    }
    now.remove("volumeAttributesClassName");
    let mut kept = was.clone();
    kept.remove("volumeAttributesClassName");
    // A claim without class may be given the default one.
    if !was.contains_key("storageClassName") && was.str_at(&["volumeName"]).is_empty() {
        now.remove("storageClassName");
    }
    if !same(Some(&Value::Map(now.clone())), Some(&Value::Map(kept.clone()))) {
        let diff = super::pod::diff("PersistentVolumeClaimSpec", &kept, &now);
        let why = format!(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{diff}"
        );
        errors.push(FieldError::forbidden(&SPEC, why));
    }
    let amount = |value: &Option<Value>| quantity(value.as_ref().and_then(Value::as_str).unwrap_or("0")).nanos();
    if amount(&asked) < amount(&had) {
        let resources = SPEC.child("resources");
        let path = resources.child("requests");
        let why = "field can not be less than status.capacity";
        let capacity = old.at(&["status", "capacity", "storage"]).cloned();
        if old.str_at(&["status", "phase"]) == "Bound" && amount(&asked) <= amount(&capacity) {
            errors.push(FieldError::forbidden(&path.child("storage"), why));
        }
    }
    let path = SPEC.child("volumeMode");
    immutable(&mut errors, &path, new.at(&["spec", "volumeMode"]), old.at(&["spec", "volumeMode"]));
    errors
}

pub(super) fn volume(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let empty = Map::new();
    let spec = PersistentVolume(object).spec().unwrap_or(crate::view::core_v1::PersistentVolumeSpec(&empty));
    access_modes(&mut errors, &SPEC, spec.access_modes(), "");
    let path = SPEC.child("capacity");
    if spec.capacity().is_empty() {
        errors.push(FieldError::required(&path, ""));
    }
    if !spec.capacity().contains_key("storage") || spec.capacity().len() > 1 {
        errors.push(FieldError::not_supported(&path, json(spec.0.get("capacity")), &["storage"]));
    }
    for (name, value) in spec.capacity().iter() {
        positive(&mut errors, &path.key(name), value);
    }
    let policies = ["Delete", "Recycle", "Retain"];
    let policy = spec.persistent_volume_reclaim_policy();
    supported_of(&mut errors, &SPEC.child("persistentVolumeReclaimPolicy"), policy, &policies);
    if let Some(selector) = spec.node_affinity().map(|affinity| affinity.required()) {
        let affinity = SPEC.child("nodeAffinity");
        match selector {
            Some(selector) => scheduling::node_selector(&mut errors, &affinity.child("required"), selector),
            None => {
                let why = "must specify required node constraints";
                errors.push(FieldError::required(&affinity.child("required"), why));
            }
        }
    }
    let mut count = 0;
    for field in SOURCES.iter().filter(|field| spec.0.contains_key(field)) {
        count += 1;
        if count > 1 {
            errors.push(FieldError::forbidden(&SPEC.child(field), "may not specify more than 1 volume type"));
        } else {
            source(&mut errors, &SPEC.child(field), field, spec.0);
        }
    }
    if count == 0 {
        errors.push(FieldError::required(&SPEC, "must specify a volume type"));
    }
    if policy == Some("Recycle") && spec.host_path().is_some_and(|host| host.path() == Some("/")) {
        let path = SPEC.child("persistentVolumeReclaimPolicy");
        errors.push(FieldError::forbidden(&path, "may not be 'recycle' for a hostPath mount of '/'"));
    }
    let class = spec.storage_class_name().unwrap_or("");
    if !class.is_empty() {
        problems(&mut errors, &SPEC.child("storageClassName"), class, names::dns1123_subdomain(class));
    }
    supported_of(&mut errors, &SPEC.child("volumeMode"), spec.volume_mode(), &["Block", "Filesystem"]);
    errors
}

fn source(errors: &mut Errors, path: &Path<'_>, field: &str, spec: &Map) {
    let text = |name: &str| spec.at(&[field, name]).and_then(Value::as_str).unwrap_or("");
    match field {
        "hostPath" | "local" => {
            if required(errors, &path.child("path"), Some(text("path"))) {
                super::fields::no_backsteps(errors, &path.child("path"), text("path"));
            }
            if field == "local" && !spec.contains_key("nodeAffinity") {
                let why = "Local volume requires node affinity";
                errors.push(FieldError::required(&SPEC.child("nodeAffinity"), why));
            }
        }
        "nfs" => {
            required(errors, &path.child("server"), Some(text("server")));
            required(errors, &path.child("path"), Some(text("path")));
            if !text("path").starts_with('/') {
                errors.push(FieldError::invalid(&path.child("path"), text("path"), "must be an absolute path"));
            }
        }
        "csi" => {
            super::pod::volume::driver_name(errors, &path.child("driver"), text("driver"));
            required(errors, &path.child("volumeHandle"), Some(text("volumeHandle")));
        }
        _ => {}
    }
}

pub(super) fn volume_update(subresource: &str, new: &Map, old: &Map) -> Errors {
    if subresource == "status" {
        return Errors::new();
    }
    let mut errors = volume(new);
    let of = |map: &Map| {
        let mut spec = map.get("spec").and_then(Value::as_map).cloned().unwrap_or_default();
        spec.retain(|key, _| SOURCES.contains(&key));
        spec
    };
    let (now, was) = (of(new), of(old));
    if !same(Some(&Value::Map(now.clone())), Some(&Value::Map(was.clone()))) {
        let diff = super::pod::diff("PersistentVolumeSource", &was, &now);
        let why = format!("spec.persistentvolumesource is immutable after creation\n{diff}");
        errors.push(FieldError::forbidden(&SPEC.child("persistentvolumesource"), why));
    }
    let root = Path::root("volumeMode");
    immutable(&mut errors, &root, new.at(&["spec", "volumeMode"]), old.at(&["spec", "volumeMode"]));
    if old.at(&["spec", "nodeAffinity"]).is_some() {
        let root = Path::root("nodeAffinity");
        immutable(&mut errors, &root, new.at(&["spec", "nodeAffinity"]), old.at(&["spec", "nodeAffinity"]));
    }
    errors
}
