//! PersistentVolumeClaims, and the specs of claims that pods and StatefulSets have made.

use super::fields::{
    Errors, IMMUTABLE, Values, immutable, label_selector_with, problems, quantity, required, same, supported_of,
};
use super::pod::resources;
use super::warnings::Warnings;
use crate::tree::{Map, Value};
use crate::view::List;
use crate::view::core_v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec};
use api::field::Raw;
use api::{FieldError, Path, names};

const SPEC: Path<'static> = Path::root("spec");
const STATUS: Path<'static> = Path::root("status");
const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const RESIZING: [&str; 5] = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];
pub(super) const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
static EMPTY: Map = Map::new();

/// Modes that may be asked for together.
pub(super) fn access_modes(errors: &mut Errors, path: &Path<'_>, modes: List<'_, &str>) {
    for mode in modes.iter() {
        supported_of(errors, path, Some(mode), &MODES);
    }
    let once_a_pod = |mode: &str| mode == "ReadWriteOncePod";
    if modes.iter().any(once_a_pod) && modes.iter().any(|mode| MODES.contains(&mode) && !once_a_pod(mode)) {
        errors.push(FieldError::forbidden(path, "may not use ReadWriteOncePod with other access modes"));
    }
}

/// The name of a class of storage.
pub(super) fn class_name(errors: &mut Errors, path: &Path<'_>, class: Option<&str>) {
    if let Some(class) = class.filter(|class| !class.is_empty()) {
        problems(errors, path, class, names::dns1123_subdomain(class));
    }
}

/// The spec of a claim, or of an ephemeral volume's.
pub(super) fn claim_spec(errors: &mut Errors, path: &Path<'_>, spec: Option<PersistentVolumeClaimSpec<'_>>) {
    spec_rules(errors, path, spec.unwrap_or(PersistentVolumeClaimSpec(&EMPTY)), NOTHING_KNOWN);
}

/// What was there before and is let pass.
#[derive(Clone, Copy)]
struct Known {
    /// The source is of some group already, so the group's name is not looked at.
    group: bool,
    values: Values,
}

const NOTHING_KNOWN: Known = Known { group: false, values: Values::Checked };

fn spec_rules(errors: &mut Errors, path: &Path<'_>, spec: PersistentVolumeClaimSpec<'_>, known: Known) {
    let modes = path.child("accessModes");
    if spec.access_modes().is_empty() {
        errors.push(FieldError::required(&modes, "at least 1 access mode is required"));
    }
    label_selector_with(errors, &path.child("selector"), spec.selector(), known.values);
    access_modes(errors, &modes, spec.access_modes());
    let resources_path = path.child("resources");
    let size_path = resources_path.key("storage");
    match spec.resources().and_then(|resources| resources.requests().get("storage")) {
        None => errors.push(FieldError::required(&size_path, "")),
        Some(size) if quantity(size).signum() <= 0 => {
            errors.push(FieldError::invalid(&size_path, size, "must be greater than zero"));
        }
        Some(size) => resources::amount(errors, &size_path, "storage", size),
    }
    class_name(errors, &path.child("storageClassName"), spec.storage_class_name());
    supported_of(errors, &path.child("volumeMode"), spec.volume_mode(), &["Block", "Filesystem"]);
    sources(errors, path, spec, known.group);
    class_name(errors, &path.child("volumeAttributesClassName"), spec.volume_attributes_class_name());
}

fn sources(errors: &mut Errors, path: &Path<'_>, spec: PersistentVolumeClaimSpec<'_>, known_group: bool) {
    let (source, reference) = (spec.data_source(), spec.data_source_ref());
    if let Some(source) = source {
        let parts = (source.name(), source.kind(), source.api_group());
        source_rules(errors, &path.child("dataSource"), parts, known_group);
    }
    let elsewhere = reference.and_then(|reference| reference.namespace()).filter(|namespace| !namespace.is_empty());
    if let Some(reference) = reference {
        let path = path.child("dataSourceRef");
        source_rules(errors, &path, (reference.name(), reference.kind(), reference.api_group()), known_group);
        if let Some(namespace) = elsewhere {
            problems(errors, &path.child("namespace"), namespace, names::dns1123_label(namespace));
        }
    }
    let (Some(source), Some(reference)) = (source, reference) else { return };
    let why = if elsewhere.is_some() {
        "may not be specified when dataSourceRef.namespace is specified"
    } else if (source.api_group(), source.kind(), source.name())
        != (reference.api_group(), reference.kind(), reference.name())
    {
        "must match dataSourceRef"
    } else {
        return;
    };
    // The value that upstream shows here is one of its own paths, which has nothing to show.
    errors.push(FieldError::invalid(path, Raw("{}".to_owned()), why));
}

type Source<'a> = (Option<&'a str>, Option<&'a str>, Option<&'a str>);

fn source_rules(errors: &mut Errors, path: &Path<'_>, (name, kind, group): Source<'_>, known_group: bool) {
    required(errors, &path.child("name"), name);
    required(errors, &path.child("kind"), kind);
    let (kind, group) = (kind.unwrap_or(""), group.unwrap_or(""));
    if group.is_empty() && kind != "PersistentVolumeClaim" {
        let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.push(FieldError::invalid(path, kind, why));
    }
    if !group.is_empty() && !known_group {
        problems(errors, &path.child("apiGroup"), group, names::dns1123_subdomain(group));
    }
}

fn spec_of(object: &Map) -> PersistentVolumeClaimSpec<'_> {
    PersistentVolumeClaim(object).spec().unwrap_or(PersistentVolumeClaimSpec(&EMPTY))
}

pub(super) fn create(object: &Map) -> Errors {
    let mut errors = Errors::new();
    spec_rules(&mut errors, &SPEC, spec_of(object), NOTHING_KNOWN);
    errors
}

pub(super) fn update(subresource: &str, new: &Map, old: &Map) -> Errors {
    if subresource == "status" {
        return status(new);
    }
    let mut errors = Errors::new();
    let was = spec_of(old);
    let group = was.data_source().is_some_and(|source| source.api_group().is_some())
        || was.data_source_ref().is_some_and(|source| source.api_group().is_some());
    spec_rules(&mut errors, &SPEC, spec_of(new), Known { group, values: Values::after(was.selector()) });
    let bound = new.str_at(&["status", "phase"]) == "Bound";
    unchanged(&mut errors, new, old, bound);
    let size = |map: &Map, path: &[&str]| quantity(map.str_at(path)).nanos();
    let requested = ["spec", "resources", "requests", "storage"];
    let (asked, had) = (size(new, &requested), size(old, &requested));
    if asked < had && asked <= size(old, &["status", "capacity", "storage"]) {
        let path = SPEC.child("resources");
        let path = path.child("requests");
        errors.push(FieldError::forbidden(&path.child("storage"), "field can not be less than status.capacity"));
    }
    let path = Path::root("volumeMode");
    immutable(&mut errors, &path, new.at(&["spec", "volumeMode"]), old.at(&["spec", "volumeMode"]));
    let class = spec_of(new).volume_attributes_class_name();
    let applied = PersistentVolumeClaim(old).status().and_then(|status| status.current_volume_attributes_class_name());
    // A class can be taken back until a volume has had it.
    if class != was.volume_attributes_class_name() && applied.is_some() && class.unwrap_or("").is_empty() {
        let none = if class.is_none() { "nil" } else { "empty string" };
        let why = format!("update to {none} is forbidden when status.currentVolumeAttributesClassName is not nil");
        errors.push(FieldError::forbidden(&SPEC.child("volumeAttributesClassName"), why));
    }
    errors
}

/// A claim stays what it is; once bound, it may grow and change its class of attributes.
fn unchanged(errors: &mut Errors, new: &Map, old: &Map, bound: bool) {
    let of = |map: &Map| {
        let mut spec = map.get("spec").and_then(Value::as_map).cloned().unwrap_or_default();
        same_source(&mut spec);
        spec
    };
    let (mut now, mut was) = (of(new), of(old));
    if was.str_at(&["volumeName"]).is_empty() {
        take(&mut was, &now, "volumeName");
    }
    class_upgrade(errors, new, old, &mut now, &was);
    if bound {
        if now.at(&["resources", "requests"]).is_some()
            && let Some(size) = was.at(&["resources", "requests", "storage"])
        {
            now.set_at(&["resources", "requests", "storage"], size.clone());
        }
        take(&mut now, &was, "volumeAttributesClassName");
    }
    if !same(Some(&Value::Map(now.clone())), Some(&Value::Map(was.clone()))) {
        let diff = super::internal::difference("PersistentVolumeClaimSpec", &was, &now);
        let why = format!(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{diff}"
        );
        errors.push(FieldError::forbidden(&SPEC, why));
    }
}

/// Says twice what a claim is made from, which older servers did not.
fn same_source(spec: &mut Map) {
    match (spec.get("dataSource").cloned(), spec.get("dataSourceRef").cloned()) {
        (Some(source), None) => spec.insert("dataSourceRef", source),
        (None, Some(source)) if spec.str_at(&["dataSourceRef", "namespace"]).is_empty() => {
            spec.insert("dataSource", source)
        }
        _ => None,
    };
}

fn take(to: &mut Map, from: &Map, field: &'static str) {
    match from.get(field) {
        Some(value) => to.insert(field, value.clone()),
        None => to.remove(field),
    };
}

/// A claim without a class may be given one, and the annotation of old may become the field.
fn class_upgrade(errors: &mut Errors, new: &Map, old: &Map, now: &mut Map, was: &Map) {
    let annotation =
        |map: &'_ Map| map.at(&["metadata", "annotations", OLD_CLASS]).and_then(Value::as_str).map(str::to_owned);
    let (annotated, was_annotated) = (annotation(new), annotation(old));
    let class = now.get("storageClassName").and_then(Value::as_str).map(str::to_owned);
    let gains = class.is_some() && !was.contains_key("storageClassName");
    if gains && was_annotated.is_some() && class == was_annotated && (annotated.is_none() || annotated == was_annotated)
    {
        now.remove("storageClassName");
        return;
    }
    if annotated.as_deref().unwrap_or("") != was_annotated.as_deref().unwrap_or("") {
        let metadata = Path::root("metadata");
        let path = metadata.child("annotations");
        errors.push(FieldError::invalid(&path.child(OLD_CLASS), annotated.unwrap_or_default(), IMMUTABLE));
    }
    if gains && (was_annotated.is_none() || class == was_annotated) {
        now.remove("storageClassName");
    }
}

fn status(new: &Map) -> Errors {
    let mut errors = Errors::new();
    let claim = PersistentVolumeClaim(new);
    if spec_of(new).access_modes().is_empty() {
        let path = Path::root("Spec");
        errors.push(FieldError::required(&path.child("accessModes"), ""));
    }
    let Some(status) = claim.status() else { return errors };
    let path = STATUS.child("capacity");
    for (name, value) in status.capacity().iter() {
        basic_amount(&mut errors, &path.key(name), value);
    }
    let path = STATUS.child("allocatedResourceStatus");
    for (name, state) in status.allocated_resource_statuses().iter() {
        resource_key(&mut errors, &path, name);
        if !RESIZING.contains(&state) {
            errors.push(FieldError::not_supported(&path, name, &RESIZING));
        }
    }
    let path = STATUS.child("allocatedResources");
    for (name, value) in status.allocated_resources().iter() {
        let before = errors.len();
        resource_key(&mut errors, &path, name);
        if errors.len() == before && basic_amount(&mut errors, &path.key(name), value) {
            resources::amount(&mut errors, &path.key(name), "storage", value);
        }
    }
    errors
}

/// An amount that is not negative.
pub(super) fn basic_amount(errors: &mut Errors, path: &Path<'_>, value: &str) -> bool {
    let whole = quantity(value).value();
    if whole < 0 {
        errors.push(FieldError::invalid(path, whole, "must be a valid resource quantity"));
    }
    whole >= 0
}

fn resource_key(errors: &mut Errors, path: &Path<'_>, name: &str) {
    let bad = names::qualified_name(name);
    if !bad.is_empty() {
        problems(errors, path, name, bad);
    } else if resources::is_native(name) && name != "storage" {
        errors.push(FieldError::not_supported(path, name, &["storage"]));
    }
}

pub(super) fn warnings(new: &Map, _: Option<&Map>) -> Warnings {
    let mut out = Warnings::new();
    if new.at(&["metadata", "annotations", OLD_CLASS]).is_some() {
        out.push(format!(
            "metadata.annotations[{OLD_CLASS}]: deprecated since v1.8; use \"storageClassName\" attribute instead"
        ));
    }
    spec_warnings(&mut out, &SPEC, spec_of(new));
    out
}

/// Storage comes in whole bytes.
pub(super) fn spec_warnings(out: &mut Warnings, path: &Path<'_>, spec: PersistentVolumeClaimSpec<'_>) {
    let Some(resources) = spec.resources() else { return };
    for (field, list) in [("requests", resources.requests()), ("limits", resources.limits())] {
        if let Some(value) = list.get("storage").filter(|value| !quantity(value).is_whole()) {
            let path = path.child("resources");
            let path = path.child(field);
            out.push(format!(
                "{}: fractional byte value \"{value}\" is invalid, must be an integer",
                path.key("storage")
            ));
        }
    }
}
