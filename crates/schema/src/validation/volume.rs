//! PersistentVolumes.

use super::Features;
use super::claim::{OLD_CLASS, access_modes, basic_amount, class_name};
use super::fields::{Errors, NOTHING, Values, immutable, json, quantity, same, shape, shown_list, supported_of, twice};
use super::pod::scheduling;
use super::volume_source::{NAMES_TOO_LONG, PERSISTENT, names_too_long};
use super::warnings::Warnings;
use crate::tree::{Map, Value};
use crate::view::List;
use crate::view::core_v1::{NodeSelectorRequirement, PersistentVolume, PersistentVolumeSpec, VolumeNodeAffinity};
use api::field::Raw;
use api::{FieldError, Path};

const SPEC: Path<'static> = Path::root("spec");
const ONE_TYPE: &str = "may not specify more than 1 volume type";
static EMPTY: Map = Map::new();

fn spec_of(object: &Map) -> PersistentVolumeSpec<'_> {
    PersistentVolume(object).spec().unwrap_or(PersistentVolumeSpec(&EMPTY))
}

pub(super) fn create(object: &Map) -> Errors {
    checked(object, Values::Checked)
}

/// `values`: those that its nodes are selected by.
fn checked(object: &Map, values: Values) -> Errors {
    let mut errors = Errors::new();
    let spec = spec_of(object);
    let modes = SPEC.child("accessModes");
    if spec.access_modes().is_empty() {
        errors.push(FieldError::required(&modes, ""));
    }
    access_modes(&mut errors, &modes, spec.access_modes());
    capacity(&mut errors, spec);
    let policy = spec.persistent_volume_reclaim_policy().filter(|policy| !policy.is_empty());
    let policy_path = SPEC.child("persistentVolumeReclaimPolicy");
    supported_of(&mut errors, &policy_path, policy, &["Delete", "Recycle", "Retain"]);
    if let Some(affinity) = spec.node_affinity() {
        let path = SPEC.child("nodeAffinity");
        match affinity.required() {
            Some(required) => scheduling::node_selector_with(&mut errors, &path.child("required"), required, values),
            None => {
                let why = "must specify required node constraints";
                errors.push(FieldError::required(&path.child("required"), why));
            }
        }
    }
    sources(&mut errors, spec, object.str_at(&["metadata", "name"]));
    let at_root = spec.host_path().and_then(|source| source.path()).is_some_and(is_root);
    if at_root && policy == Some("Recycle") {
        errors.push(FieldError::forbidden(&policy_path, "may not be 'recycle' for a hostPath mount of '/'"));
    }
    class_name(&mut errors, &SPEC.child("storageClassName"), spec.storage_class_name());
    supported_of(&mut errors, &SPEC.child("volumeMode"), spec.volume_mode(), &["Block", "Filesystem"]);
    if let Some(class) = spec.volume_attributes_class_name() {
        let path = SPEC.child("volumeAttributesClassName");
        if class.is_empty() {
            errors.push(FieldError::required(&path, "an empty string is disallowed"));
        }
        class_name(&mut errors, &path, Some(class));
        if spec.csi().is_none() {
            let why = "has to be specified when using volumeAttributesClassName";
            errors.push(FieldError::required(&SPEC.child("csi"), why));
        }
    }
    mount_options(&mut errors, object, spec);
    errors
}

/// The annotation that had a volume's mount options before there was a field for them, and what may have it still.
fn mount_options(errors: &mut Errors, object: &Map, spec: PersistentVolumeSpec<'_>) {
    const OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";
    const MOUNTED: [&str; 13] = [
        "awsElasticBlockStore",
        "azureDisk",
        "azureFile",
        "cephfs",
        "cinder",
        "gcePersistentDisk",
        "glusterfs",
        "iscsi",
        "nfs",
        "photonPersistentDisk",
        "quobyte",
        "rbd",
        "vsphereVolume",
    ];
    let given = object.at(&["metadata", "annotations", OPTIONS]).is_some();
    if given && !MOUNTED.iter().any(|field| spec.0.get(field).is_some_and(|source| !source.is_null())) {
        let metadata = Path::root("metadata");
        let why = "may not specify mount options for this volume type";
        errors.push(FieldError::forbidden(&metadata.child("annotations").child(OPTIONS), why));
    }
}

/// Whether a path is the root once its detours are taken out.
fn is_root(path: &str) -> bool {
    let mut depth = 0_usize;
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => depth = depth.saturating_sub(1),
            _ => depth += 1,
        }
    }
    path.starts_with('/') && depth == 0
}

fn capacity(errors: &mut Errors, spec: PersistentVolumeSpec<'_>) {
    let path = SPEC.child("capacity");
    if spec.capacity().is_empty() {
        errors.push(FieldError::required(&path, ""));
    }
    if !spec.capacity().contains_key("storage") || spec.capacity().len() > 1 {
        errors.push(FieldError::not_supported(&path, json(spec.0.get("capacity")), &["storage"]));
    }
    for (name, value) in spec.capacity().iter() {
        basic_amount(errors, &path.key(name), value);
        if quantity(value).signum() <= 0 {
            errors.push(FieldError::invalid(&path.key(name), value, "must be greater than zero"));
        }
    }
}

fn sources(errors: &mut Errors, spec: PersistentVolumeSpec<'_>, name: &str) {
    let mut count = 0;
    for (field, check) in PERSISTENT {
        let Some(map) = spec.0.get(field).and_then(Value::as_map) else { continue };
        count += 1;
        // Upstream never counts this one as a second.
        if count > 1 && *field != "flexVolume" {
            let shown = if *field == "cephfs" { "cephFS" } else { field };
            errors.push(FieldError::forbidden(&SPEC.child(shown), ONE_TYPE));
            continue;
        }
        let shown = if *field == "gcePersistentDisk" { "persistentDisk" } else { field };
        check(errors, &SPEC.child(shown), map);
        if *field == "iscsi" && names_too_long(name, map) {
            let portal = map.str_at(&["targetPortal"]);
            errors.push(FieldError::invalid(&SPEC.child(shown).child("targetportal"), portal, NAMES_TOO_LONG));
        }
        if *field == "local" && spec.node_affinity().is_none() {
            let why = "Local volume requires node affinity";
            errors.push(FieldError::required(&SPEC.child("nodeAffinity"), why));
        }
    }
    if count == 0 {
        errors.push(FieldError::required(&SPEC, "must specify a volume type"));
    }
}

pub(super) fn update(subresource: &str, new: &Map, old: &Map, features: Features) -> Errors {
    if subresource == "status" {
        return Errors::new();
    }
    // What was stored when any values were taken may stay.
    let was = spec_of(old).node_affinity().and_then(|affinity| affinity.required());
    let values = if was.is_some_and(scheduling::has_bad_values) { Values::Any } else { Values::Checked };
    let mut errors = twice(checked(new, values));
    let of = |map: &Map| {
        let mut spec = map.get("spec").and_then(Value::as_map).cloned().unwrap_or_default();
        spec.retain(|key, _| PERSISTENT.iter().any(|(field, _)| *field == key));
        spec
    };
    let (mut now, was) = (of(new), of(old));
    // The secret for growing a volume may come later.
    if was.contains_key("csi") && was.at(&["csi", "controllerExpandSecretRef"]).is_none() {
        now.remove_at(&["csi", "controllerExpandSecretRef"]);
    }
    if !same(Some(&Value::Map(now.clone())), Some(&Value::Map(was.clone()))) {
        let diff = super::internal::difference("PersistentVolumeSource", &was, &now);
        let why = format!("spec.persistentvolumesource is immutable after creation\n{diff}");
        errors.push(FieldError::forbidden(&SPEC.child("persistentvolumesource"), why));
    }
    let root = Path::root("volumeMode");
    immutable(&mut errors, &root, new.at(&["spec", "volumeMode"]), old.at(&["spec", "volumeMode"]));
    if !features.volume_affinity {
        affinity(&mut errors, new, old);
    }
    if spec_of(old).volume_attributes_class_name().is_some() && spec_of(new).volume_attributes_class_name().is_none() {
        let why = "update from non-nil value to nil is forbidden";
        errors.push(FieldError::forbidden(&SPEC.child("volumeAttributesClassName"), why));
    }
    errors
}

/// A volume's affinity to nodes stays, but for labels that have got their final names.
fn affinity(errors: &mut Errors, new: &Map, old: &Map) {
    let Some(was) = old.at(&["spec", "nodeAffinity"]) else { return };
    let now = new.at(&["spec", "nodeAffinity"]);
    let mut renamed = was.clone();
    if let Some(now) = now {
        rename(&mut renamed, now);
    }
    if !same(now, Some(&renamed)) {
        let why = "field is immutable, except for updating from beta label to GA";
        errors.push(FieldError::invalid(&Path::root("nodeAffinity"), shown_affinity(now), why));
    }
}

/// An affinity as Go writes it.
fn shown_affinity(affinity: Option<&Value>) -> Raw {
    let Some(affinity) = affinity.and_then(Value::as_map).map(VolumeNodeAffinity) else {
        return json(Some(&NOTHING.into()));
    };
    let text = |text: Option<&str>| json(Some(&text.unwrap_or("").into()));
    let requirements = |list: List<'_, NodeSelectorRequirement<'_>>| {
        let shown = list.iter().map(|one| {
            let values = json(one.0.get("values"));
            shape(&[("Key", text(one.key())), ("Operator", text(one.operator())), ("Values", values)])
        });
        shown_list(shown.collect())
    };
    let required = affinity.required().map_or(json(None), |required| {
        let terms = required.node_selector_terms().iter().map(|term| {
            let (expressions, fields) = (term.match_expressions(), term.match_fields());
            shape(&[("MatchExpressions", requirements(expressions)), ("MatchFields", requirements(fields))])
        });
        shape(&[("NodeSelectorTerms", shown_list(terms.collect()))])
    });
    shape(&[("Required", required)])
}

/// Gives the keys of `was` the final names that `now` has at the same places.
fn rename(was: &mut Value, now: &Value) {
    match (was, now) {
        (Value::Map(was), Value::Map(now)) => {
            let final_name = now.get("key").and_then(Value::as_str);
            if let Some(name) = final_name
                && super::pod::final_label(was.str_at(&["key"])) == Some(name)
            {
                was.insert("key", name);
            }
            for (key, value) in was.iter_mut() {
                if let Some(now) = now.get(key) {
                    rename(value, now);
                }
            }
        }
        (Value::List(was), Value::List(now)) => was.iter_mut().zip(now).for_each(|(was, now)| rename(was, now)),
        _ => {}
    }
}

const OLD_SOURCES: [(&str, &str); 6] = [
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

pub(super) fn warnings(new: &Map, _: Option<&Map>) -> Warnings {
    let mut out = Warnings::new();
    if new.at(&["metadata", "annotations", OLD_CLASS]).is_some() {
        out.push(format!(
            "metadata.annotations[{OLD_CLASS}]: deprecated since v1.8; use \"storageClassName\" attribute instead"
        ));
    }
    let spec = spec_of(new);
    if spec.persistent_volume_reclaim_policy() == Some("Recycle") {
        out.push("spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.".to_owned());
    }
    if let Some(required) = spec.node_affinity().and_then(|affinity| affinity.required()) {
        let path = SPEC.child("nodeAffinity");
        super::pod::node_selector_warnings(&mut out, &path.child("required"), required);
    }
    for (field, why) in OLD_SOURCES {
        if spec.0.contains_key(field) {
            out.push(format!("{}: {why}", SPEC.child(field)));
        }
    }
    out
}
