//! storage.k8s.io: classes, CSI drivers, what nodes have of them, and attachments.

use super::fields::{
    Errors, IMMUTABLE, NEGATIVE, Values, immutable, inclusive, json, label_selector_with, non_negative, problems,
    quantity, required, same, shape, supported_of,
};
use super::pod::volume::driver_name;
use crate::tree::{Map, Value};
use crate::view::List;
use crate::view::StrMap;
use crate::view::core_v1::{PersistentVolumeSpec, TopologySelectorTerm};
use crate::view::storage_v1::{
    CSIDriver, CSIDriverSpec, CSINode, CSINodeDriver, CSIStorageCapacity, StorageClass, TokenRequest, VolumeAttachment,
    VolumeAttachmentStatus, VolumeAttributesClass, VolumeError,
};
use api::field::Raw;
use api::{FieldError, Path, names};
use std::collections::{BTreeMap, BTreeSet};

const SPEC: Path<'static> = Path::root("spec");
const STATUS: Path<'static> = Path::root("status");
/// 256 KiB for all keys and values.
const MAX_PARAMETERS_SIZE: usize = 256 * 1024;
const MAX_PARAMETERS: usize = 512;
const MAX_ERROR_MESSAGE: usize = 1024;
const MAX_NODE_ID: usize = 256;
const TOKEN_SECONDS: std::ops::RangeInclusive<i64> = 600..=1 << 32;

/// A name that is required and, in lower case, qualified.
fn provisioner(errors: &mut Errors, path: &Path<'_>, name: Option<&str>) {
    if required(errors, path, name) {
        let name = name.unwrap_or("").to_lowercase();
        problems(errors, path, &name, names::qualified_name(&name));
    }
}

fn parameters(errors: &mut Errors, path: &Path<'_>, parameters: StrMap<'_>, needed: bool) {
    if parameters.len() > MAX_PARAMETERS {
        errors.push(FieldError::too_long(path, MAX_PARAMETERS));
        return;
    }
    let mut size = 0;
    for (key, value) in parameters.iter() {
        if key.is_empty() {
            errors.push(FieldError::invalid(path, key, "field can not be empty."));
        }
        size += key.len() + value.len();
    }
    if size > MAX_PARAMETERS_SIZE {
        errors.push(FieldError::too_long(path, MAX_PARAMETERS_SIZE));
    }
    if needed && parameters.is_empty() {
        errors.push(FieldError::required(path, "must contain at least one key/value pair"));
    }
}

/// Fields of the object itself that may not change, in the words of classes.
fn forbidden_updates(errors: &mut Errors, new: &Map, old: &Map, fields: &[&'static str]) {
    for field in fields {
        if !same(new.get(field), old.get(field)) {
            let why = format!("updates to {field} are forbidden.");
            errors.push(FieldError::forbidden(&Path::root(field), why));
        }
    }
}

pub(super) fn class(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let class = StorageClass(object);
    provisioner(&mut errors, &Path::root("provisioner"), class.provisioner());
    parameters(&mut errors, &Path::root("parameters"), class.parameters(), false);
    let policy = class.reclaim_policy().filter(|policy| !policy.is_empty());
    supported_of(&mut errors, &Path::root("reclaimPolicy"), policy, &["Delete", "Retain"]);
    let path = Path::root("volumeBindingMode");
    match class.volume_binding_mode() {
        None => errors.push(FieldError::required(&path, "")),
        mode => supported_of(&mut errors, &path, mode, &["Immediate", "WaitForFirstConsumer"]),
    }
    topologies(&mut errors, &Path::root("allowedTopologies"), class.allowed_topologies());
    errors
}

fn topologies(errors: &mut Errors, path: &Path<'_>, terms: List<'_, TopologySelectorTerm<'_>>) {
    // Upstream begins with as many empty ones, so one that asks for nothing is like each of them.
    let mut earlier: Vec<BTreeMap<&str, BTreeSet<&str>>> = vec![BTreeMap::new(); terms.len()];
    for (i, term) in terms.iter().enumerate() {
        let path = path.index(i);
        let mut by_key = BTreeMap::new();
        for (i, requirement) in term.match_label_expressions().iter().enumerate() {
            let path = path.child("matchLabelExpressions");
            let path = path.index(i);
            let values = path.child("values");
            if requirement.values().is_empty() {
                errors.push(FieldError::required(&values, ""));
            }
            let mut set = BTreeSet::new();
            for (i, value) in requirement.values().iter().enumerate() {
                if !set.insert(value) {
                    errors.push(FieldError::duplicate(&values.index(i), value));
                }
            }
            let key = requirement.key().unwrap_or("");
            problems(errors, &path.child("key"), key, names::qualified_name(key));
            if by_key.insert(key, set).is_some() {
                errors.push(FieldError::duplicate(&path.child("key"), key));
            }
        }
        for _ in earlier.iter().filter(|term| **term == by_key) {
            errors.push(FieldError::duplicate(&path.child("matchLabelExpressions"), ""));
        }
        earlier.push(by_key);
    }
}

pub(super) fn class_update(_: &str, new: &Map, old: &Map) -> Errors {
    let mut errors = class(new);
    forbidden_updates(&mut errors, new, old, &["parameters", "provisioner", "reclaimPolicy"]);
    let field = "volumeBindingMode";
    immutable(&mut errors, &Path::root(field), new.get(field), old.get(field));
    errors
}

pub(super) fn attributes_class(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let class = VolumeAttributesClass(object);
    provisioner(&mut errors, &Path::root("driverName"), class.driver_name());
    parameters(&mut errors, &Path::root("parameters"), class.parameters(), true);
    errors
}

pub(super) fn attributes_class_update(_: &str, new: &Map, old: &Map) -> Errors {
    let mut errors = attributes_class(new);
    forbidden_updates(&mut errors, new, old, &["driverName", "parameters"]);
    errors
}

pub(super) fn driver(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let empty = Map::new();
    let spec = CSIDriver(object).spec().unwrap_or(CSIDriverSpec(&empty));
    for (field, given) in [
        ("attachedRequired", spec.attach_required()),
        ("podInfoOnMount", spec.pod_info_on_mount()),
        ("storageCapacity", spec.storage_capacity()),
    ] {
        if given.is_none() {
            errors.push(FieldError::required(&SPEC.child(field), ""));
        }
    }
    let policies = ["File", "None", "ReadWriteOnceWithFSType"];
    supported_of(&mut errors, &SPEC.child("fsGroupPolicy"), spec.fs_group_policy(), &policies);
    token_requests(&mut errors, &SPEC.child("tokenRequests"), spec.token_requests());
    for mode in spec.volume_lifecycle_modes().iter() {
        let path = SPEC.child("volumeLifecycleModes");
        supported_of(&mut errors, &path, Some(mode), &["Persistent", "Ephemeral"]);
    }
    if spec.se_linux_mount().is_none() {
        errors.push(FieldError::required(&SPEC.child("seLinuxMount"), ""));
    }
    if let Some(period) = spec.node_allocatable_update_period_seconds().filter(|period| *period < 10) {
        let path = SPEC.child("nodeAllocatableUpdatePeriodSeconds");
        errors.push(FieldError::invalid(&path, period, "must be greater than or equal to 10 seconds"));
    }
    if let Some(given) = spec.service_account_token_in_secrets().filter(|_| spec.token_requests().is_empty()) {
        let path = SPEC.child("serviceAccountTokenInSecrets");
        let why = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        errors.push(FieldError::invalid(&path, given, why));
    }
    errors
}

fn token_requests(errors: &mut Errors, path: &Path<'_>, requests: List<'_, TokenRequest<'_>>) {
    let mut seen = BTreeSet::new();
    for (i, request) in requests.iter().enumerate() {
        let path = path.index(i);
        let audience = request.audience().unwrap_or("");
        if !seen.insert(audience) {
            errors.push(FieldError::duplicate(&path.child("audience"), audience));
            continue;
        }
        let Some(seconds) = request.expiration_seconds() else { continue };
        let path = path.child("expirationSeconds");
        if seconds < *TOKEN_SECONDS.start() {
            errors.push(FieldError::invalid(&path, seconds, "may not specify a duration less than 10 minutes"));
        }
        if seconds > *TOKEN_SECONDS.end() {
            errors.push(FieldError::invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds"));
        }
    }
}

pub(super) fn driver_update(_: &str, new: &Map, old: &Map) -> Errors {
    let mut errors = driver(new);
    for (shown, field) in [("attachedRequired", "attachRequired"), ("volumeLifecycleModes", "volumeLifecycleModes")] {
        immutable(&mut errors, &SPEC.child(shown), new.at(&["spec", field]), old.at(&["spec", field]));
    }
    errors
}

pub(super) fn node(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let path = SPEC.child("drivers");
    let drivers = CSINode(object).spec().map_or(List::new(&[]), |spec| spec.drivers());
    let mut seen = BTreeSet::new();
    for (i, driver) in drivers.iter().enumerate() {
        let path = path.index(i);
        node_driver(&mut errors, &path, driver);
        let name = driver.name().unwrap_or("");
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(&path.child("name"), name));
        }
        let mut keys = BTreeSet::new();
        for key in driver.topology_keys().iter() {
            if key.is_empty() {
                errors.push(FieldError::required(&path, ""));
            }
            if !keys.insert(key) {
                errors.push(FieldError::duplicate(&path, key));
            }
            problems(&mut errors, &path, key, names::qualified_name(key));
        }
    }
    errors
}

fn node_driver(errors: &mut Errors, path: &Path<'_>, driver: CSINodeDriver<'_>) {
    driver_name(errors, &path.child("name"), driver.name().unwrap_or(""));
    let id = driver.node_id().unwrap_or("");
    required(errors, &path.child("nodeID"), Some(id));
    if id.len() > MAX_NODE_ID {
        let why = format!("must be {MAX_NODE_ID} characters or less");
        errors.push(FieldError::invalid(&path.child("nodeID"), id, why));
    }
    let count = driver.allocatable().and_then(|allocatable| allocatable.count());
    non_negative(errors, &path.child("allocatable").child("count"), count);
}

/// Drivers come and go; of one that stays only how many volumes it can have may change.
pub(super) fn node_update(_: &str, new: &Map, old: &Map) -> Errors {
    let mut errors = node(new);
    let drivers = |map: &Map| -> Vec<Map> {
        let list = map.at(&["spec", "drivers"]).and_then(Value::as_list).unwrap_or_default();
        list.iter().filter_map(Value::as_map).cloned().collect()
    };
    let now = drivers(new);
    for mut was in drivers(old) {
        was.remove("allocatable");
        for driver in now.iter().filter(|driver| driver.str_at(&["name"]) == was.str_at(&["name"])) {
            let mut driver = driver.clone();
            driver.remove("allocatable");
            if !same(Some(&Value::Map(driver.clone())), Some(&Value::Map(was.clone()))) {
                let shown = shape(&[
                    ("Name", json(Some(&driver.str_at(&["name"]).into()))),
                    ("NodeID", json(Some(&driver.str_at(&["nodeID"]).into()))),
                    ("TopologyKeys", json(driver.get("topologyKeys"))),
                    ("Allocatable", json(None)),
                ]);
                errors.push(FieldError::invalid(&SPEC.child("drivers"), shown, IMMUTABLE));
            }
        }
    }
    errors
}

pub(super) fn capacity(object: &Map) -> Errors {
    capacity_with(object, Values::Checked)
}

fn capacity_with(object: &Map, values: Values) -> Errors {
    let mut errors = Errors::new();
    let capacity = CSIStorageCapacity(object);
    label_selector_with(&mut errors, &Path::root("nodeTopology"), capacity.node_topology(), values);
    let class = capacity.storage_class_name().unwrap_or("");
    problems(&mut errors, &Path::root("storageClassName"), class, names::dns1123_subdomain(class));
    if let Some(amount) = capacity.capacity().filter(|amount| quantity(amount).signum() < 0) {
        errors.push(FieldError::invalid(&Path::root("capacity"), amount, NEGATIVE));
    }
    errors
}

pub(super) fn capacity_update(_: &str, new: &Map, old: &Map) -> Errors {
    let mut errors = capacity_with(new, Values::after(CSIStorageCapacity(old).node_topology()));
    for field in ["nodeTopology", "storageClassName"] {
        immutable(&mut errors, &Path::root(field), new.get(field), old.get(field));
    }
    errors
}

pub(super) fn attachment(object: &Map) -> Errors {
    let mut errors = attachment_parts(object);
    // What the first versions of this kind did not yet ask for.
    let spec = VolumeAttachment(object).spec();
    driver_name(&mut errors, &SPEC.child("attacher"), spec.and_then(|spec| spec.attacher()).unwrap_or(""));
    if let Some(volume) = spec.and_then(|spec| spec.source()).and_then(|source| source.persistent_volume_name()) {
        let source = SPEC.child("source");
        problems(&mut errors, &source.child("persistentVolumeName"), volume, names::dns1123_subdomain(volume));
    }
    errors
}

fn attachment_parts(object: &Map) -> Errors {
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    let mut errors = Errors::new();
    let attachment = VolumeAttachment(object);
    let spec = attachment.spec();
    required(&mut errors, &SPEC.child("attacher"), spec.and_then(|spec| spec.attacher()));
    let path = SPEC.child("source");
    let source = spec.and_then(|spec| spec.source());
    let inline = source.and_then(|source| source.inline_volume_spec());
    match (inline, source.and_then(|source| source.persistent_volume_name())) {
        (None, None) => errors.push(FieldError::required(&path, ONE)),
        (Some(_), Some(_)) => errors.push(FieldError::forbidden(&path, ONE)),
        (None, Some("")) => {
            let why = "must specify non empty persistentVolumeName";
            errors.push(FieldError::required(&path.child("persistentVolumeName"), why));
        }
        (None, Some(_)) => {}
        (Some(inline), None) => inline_volume(&mut errors, &path.child("inlineVolumeSpec"), inline),
    }
    let node = spec.and_then(|spec| spec.node_name()).unwrap_or("");
    problems(&mut errors, &SPEC.child("nodeName"), node, names::dns1123_subdomain(node));
    if let Some(status) = attachment.status() {
        attachment_status(&mut errors, status);
    }
    errors
}

/// A volume that no PersistentVolume stands for: one of a CSI driver, and nothing that a claim would need.
fn inline_volume(errors: &mut Errors, path: &Path<'_>, spec: PersistentVolumeSpec<'_>) {
    const CONTEXT: &str = "in the context of inline volumes";
    let modes = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    let not_here = |errors: &mut Errors, field: &str, given: bool| {
        if given {
            errors.push(FieldError::forbidden(&path.child(field), format!("may not be specified {CONTEXT}")));
        }
    };
    not_here(errors, "claimRef", spec.claim_ref().is_some());
    not_here(errors, "capacity", !spec.capacity().is_empty());
    if spec.csi().is_none() {
        errors.push(FieldError::required(&path.child("csi"), format!("has to be specified {CONTEXT}")));
    }
    let path_modes = path.child("accessModes");
    if spec.access_modes().is_empty() {
        errors.push(FieldError::required(&path_modes, ""));
    }
    for mode in spec.access_modes().iter() {
        supported_of(errors, &path_modes, Some(mode), &modes);
    }
    if spec.access_modes().len() > 1 && spec.access_modes().iter().any(|mode| mode == "ReadWriteOncePod") {
        errors.push(FieldError::forbidden(&path_modes, "may not use ReadWriteOncePod with other access modes"));
    }
    if !matches!(spec.persistent_volume_reclaim_policy().unwrap_or(""), "" | "Retain") {
        let path = path.child("persistentVolumeReclaimPolicy");
        errors.push(FieldError::forbidden(&path, format!("may only be Retain {CONTEXT}")));
    }
    not_here(errors, "nodeAffinity", spec.node_affinity().is_some());
    if let Some(csi) = spec.csi() {
        let path = path.child("csi");
        driver_name(errors, &path.child("driver"), csi.driver().unwrap_or(""));
        required(errors, &path.child("volumeHandle"), csi.volume_handle());
    }
    not_here(errors, "storageClassName", !spec.storage_class_name().unwrap_or("").is_empty());
    if spec.volume_mode().is_some_and(|mode| mode != "Filesystem") {
        let why = format!("may not specify volumeMode other than Filesystem {CONTEXT}");
        errors.push(FieldError::forbidden(&path.child("volumeMode"), why));
    }
}

fn attachment_status(errors: &mut Errors, status: VolumeAttachmentStatus<'_>) {
    let size: usize = status.attachment_metadata().iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > MAX_PARAMETERS_SIZE {
        errors.push(FieldError::too_long(&STATUS.child("attachmentMetadata"), MAX_PARAMETERS_SIZE));
    }
    volume_error(errors, &STATUS.child("attachError"), status.attach_error());
    volume_error(errors, &STATUS.child("detachError"), status.detach_error());
}

fn volume_error(errors: &mut Errors, path: &Path<'_>, error: Option<VolumeError<'_>>) {
    let Some(error) = error else { return };
    if error.message().unwrap_or("").len() > MAX_ERROR_MESSAGE {
        // Upstream names the limit of the metadata here.
        errors.push(FieldError::too_long(&path.child("message"), MAX_PARAMETERS_SIZE));
    }
    if let Some(code) = error.error_code().filter(|code| *code < 0) {
        let why = inclusive(0, i64::from(i32::MAX));
        errors.push(FieldError::invalid(&path.child("errorCode"), code, why));
    }
}

pub(super) fn attachment_update(subresource: &str, new: &Map, old: &Map) -> Errors {
    let mut errors = attachment_parts(new);
    if subresource.is_empty() && !same(new.get("spec"), old.get("spec")) {
        errors.push(FieldError::invalid(&SPEC, shown_attachment(new), IMMUTABLE));
    }
    errors
}

/// The spec of an attachment, as Go writes it. Of a volume that is described in it, what the client wrote is shown.
fn shown_attachment(object: &Map) -> Raw {
    let text = |at: &[&str]| json(Some(&object.str_at(at).into()));
    let source = ["spec", "source"];
    let source = object.at(&source).and_then(Value::as_map);
    let of = |field: &str| json(source.and_then(|source| source.get(field)));
    let source =
        shape(&[("PersistentVolumeName", of("persistentVolumeName")), ("InlineVolumeSpec", of("inlineVolumeSpec"))]);
    shape(&[("Attacher", text(&["spec", "attacher"])), ("Source", source), ("NodeName", text(&["spec", "nodeName"]))])
}
