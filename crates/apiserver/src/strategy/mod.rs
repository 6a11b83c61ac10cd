//! What the data of a kind can't say: how its objects are prepared, checked and deleted.
//!
//! Everything has a default that follows the flags of the kind's row, so most kinds have no strategy of their own.
//! All methods are pure: they see objects in the version that is stored, decoded and defaulted.

mod admitting;
mod app_armor;
mod conditions;
mod daemon_sets;
mod devices;
mod extensions;
mod gates;
mod jobs;
mod keys;
mod kinds;
mod pem;
mod pod_certificates;
mod pods;
mod secrets;
mod signing;
mod table;
mod trust;
pub mod validation;
mod volumes;

pub use gates::Closed;
pub use kinds::*;
pub use pods::Pods;
pub(crate) use signing::read_request;
pub use table::of;

use crate::context::Context;
use crate::options::DeleteOptions;
use api::FieldError;
use schema::validation::Features;
use schema::{Map, Resource, Value};

/// A kind as it is judged: its row, and the features that change what is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Kind<'a> {
    pub row: &'a Resource,
    pub features: Features,
}

/// The rules of one kind.
///
/// Those that compare an update with what was are given `old` with its quantities written as the update writes those of the same
/// value ([`schema::semantic`]): what differs is a difference. Those that prepare it are given what is stored.
///
/// `subresource` is empty for the object itself, otherwise `status`, `approval`, `finalize`, `ephemeralcontainers`, `resize`.
pub trait Strategy: Send + Sync + 'static {
    /// Changes a new object before it is checked: drops what a client may not set.
    /// `status` is already gone where the row says that it has its own subresource. What belongs to features
    /// that are off is gone too.
    fn prepare_for_create(&self, cx: &Context, row: &Resource, object: &mut Map) {
        let _ = (cx, row, object);
    }

    /// Changes an updated object before it is checked: keeps from `old` what this (sub)resource may not change.
    ///
    /// The default keeps the status on the object itself; through `status`, everything but the status and
    /// the metadata that it may change.
    fn prepare_for_update(&self, cx: &Context, row: &Resource, subresource: &str, object: &mut Map, old: &Map) {
        let _ = cx;
        keep_other_side(row, subresource, object, old);
    }

    /// Whether an update is a change of what the generation counts. Asked only where the row counts it, on the object itself.
    fn changes_generation(&self, object: &Map, old: &Map) -> bool {
        changes_besides_metadata_and_status(object, old)
    }

    /// What is wrong with a new object, beside its metadata, which the registry checks.
    fn validate_create(&self, cx: &Context, kind: Kind<'_>, object: &Map) -> Vec<FieldError> {
        let _ = cx;
        validation::create(kind, object)
    }

    /// What is wrong with an update, beside its metadata.
    fn validate_update(
        &self,
        cx: &Context,
        kind: Kind<'_>,
        subresource: &str,
        object: &Map,
        old: &Map,
    ) -> Vec<FieldError> {
        let _ = cx;
        validation::update(kind, subresource, object, old)
    }

    /// What the client should know of a new object.
    fn warnings_on_create(&self, kind: Kind<'_>, object: &Map) -> Vec<String> {
        validation::warnings(kind, "", object, None)
    }

    /// What the client should know of an update. Who writes a part of the object is told nothing of the rest.
    fn warnings_on_update(&self, kind: Kind<'_>, subresource: &str, object: &Map, old: &Map) -> Vec<String> {
        validation::warnings(kind, subresource, object, Some(old))
    }

    /// Brings a checked object into the shape that it is stored in.
    fn canonicalize(&self, object: &mut Map) {
        let _ = object;
    }

    /// What is data of it.
    fn rules(&self) -> Rules {
        Rules::STANDARD
    }

    /// Why an object of this name is not deleted by its name, if it is not. With its collection it goes.
    fn refuses_deletion(&self, name: &str) -> Option<&'static str> {
        let _ = name;
        None
    }

    /// Whether a delete waits for a grace period. It may set the period that was not given, or change what was.
    fn check_graceful_delete(&self, object: &Map, options: &mut DeleteOptions) -> bool {
        let _ = (object, options);
        false
    }

    /// The namespace's own finalizers (`spec.finalizers`) hold the object as those of metadata do.
    fn holds_deletion(&self, object: &Map) -> bool {
        let _ = object;
        false
    }

    /// Changes an object whose deletion begins and is held (namespaces become `Terminating`).
    fn begin_deletion(&self, cx: &Context, object: &mut Map) {
        let _ = (cx, object);
    }

    /// Whether an update leaves an object that is to be removed at once (its last holder let go).
    fn delete_after_update(&self, object: &Map) -> bool {
        let _ = object;
        false
    }

    /// A new object comes with its status (nodes register with theirs).
    fn keeps_status_on_create(&self) -> bool {
        false
    }

    /// How long a stored object lives, if it ends by itself (events).
    fn time_to_live(&self) -> Option<std::time::Duration> {
        None
    }
}

/// Where strategies differ in data alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// A PUT to a name that does not exist creates it.
    pub create_on_update: bool,
    /// A PUT without resourceVersion overwrites.
    pub unconditional_update: bool,
    /// What becomes of what depends on a deleted object when nobody says.
    pub garbage_collection: GarbageCollection,
}

impl Rules {
    pub const STANDARD: Rules = Rules {
        create_on_update: false,
        unconditional_update: true,
        garbage_collection: GarbageCollection::Background,
    };
}

/// What becomes of what depends on a deleted object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GarbageCollection {
    Background,
    Orphan,
    /// The kind takes no part in it.
    Unsupported,
}

/// Metadata that may be changed through the status subresource.
const STATUS_METADATA: [&str; 5] = ["annotations", "finalizers", "labels", "managedFields", "ownerReferences"];

/// What the status of a kind has to do with its metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alone {
    /// It changes none, and who applies it owns none.
    Wholly,
    /// It changes none.
    InWriting,
    /// Who applies it owns none.
    InOwning,
}

/// The kinds whose status is not as that of others, which changes [`STATUS_METADATA`] and is owned with it.
const STATUS_ALONE: [(&str, &str, Alone); 14] = [
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", Alone::Wholly),
    ("apiextensions.k8s.io", "CustomResourceDefinition", Alone::InOwning),
    ("apiregistration.k8s.io", "APIService", Alone::Wholly),
    ("certificates.k8s.io", "PodCertificateRequest", Alone::InWriting),
    ("flowcontrol.apiserver.k8s.io", "FlowSchema", Alone::Wholly),
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration", Alone::Wholly),
    ("internal.apiserver.k8s.io", "StorageVersion", Alone::Wholly),
    ("networking.k8s.io", "ServiceCIDR", Alone::InWriting),
    ("resource.k8s.io", "DeviceTaintRule", Alone::Wholly),
    ("resource.k8s.io", "ResourceClaim", Alone::Wholly),
    ("resource.k8s.io", "ResourcePoolStatusRequest", Alone::Wholly),
    ("scheduling.k8s.io", "PodGroup", Alone::Wholly),
    ("storage.k8s.io", "VolumeAttachment", Alone::Wholly),
    ("storagemigration.k8s.io", "StorageVersionMigration", Alone::Wholly),
];

const REQUEST: (&str, &str) = ("certificates.k8s.io", "CertificateSigningRequest");

/// What a (sub)resource of a kind does not write, beside the other side's part: nobody comes to own it through that.
const RESETS: [((&str, &str), &str, &[&str]); 6] = [
    (("", "Pod"), "status", &["metadata", "ownerReferences"]),
    (("apps", "Deployment"), "status", &["metadata", "labels"]),
    (REQUEST, "", &["spec"]),
    (REQUEST, "approval", &["spec"]),
    (REQUEST, "approval", &["status", "certificate"]),
    (REQUEST, "status", &["status", "conditions"]),
];

/// The paths that a (sub)resource of a kind does not write, beside the other side's part.
pub fn resets<'a>(row: &'a Resource, subresource: &'a str) -> impl Iterator<Item = &'static [&'static str]> + 'a {
    let kind = (row.group.as_ref(), row.kind.as_ref());
    RESETS.into_iter().filter(move |(of, sub, _)| *of == kind && *sub == subresource).map(|(.., path)| path)
}

fn alone(row: &Resource) -> Option<Alone> {
    let of = |(group, kind, alone): &(&str, &str, Alone)| (*group == row.group && *kind == row.kind).then_some(*alone);
    STATUS_ALONE.iter().find_map(of)
}

/// Whether who applies the status of a kind owns metadata by that.
pub fn status_owns_metadata(row: &Resource) -> bool {
    !matches!(alone(row), Some(Alone::Wholly | Alone::InOwning))
}

/// Whether the status of a kind may change this of its metadata.
fn in_status(row: &Resource, key: &str) -> bool {
    let (group, kind) = (row.group.as_ref(), row.kind.as_ref());
    // Kubelets, which write statuses, are not to be trusted with the owners of pods.
    key == "managedFields"
        || !matches!(alone(row), Some(Alone::Wholly | Alone::InWriting))
            && ((group, kind) != ("", "Pod") || key != "ownerReferences")
}

/// Keeps of `old` what the object itself, or its status, may not change.
pub fn keep_other_side(row: &Resource, subresource: &str, object: &mut Map, old: &Map) {
    if subresource.is_empty() {
        if row.flags.status {
            keep(object, old, "status");
        }
        return;
    }
    if subresource != "status" {
        return;
    }
    let mut kept = old.clone();
    match object.remove("status") {
        Some(status) => kept.insert("status", status),
        None => kept.remove("status"),
    };
    for key in STATUS_METADATA.into_iter().filter(|key| in_status(row, key)) {
        match object.remove_at(&["metadata", key]) {
            Some(value) => kept.set_at(&["metadata", key], value),
            None => {
                kept.remove_at(&["metadata", key]);
            }
        }
    }
    if let Some(version) = object.remove_at(&["metadata", "resourceVersion"]) {
        kept.set_at(&["metadata", "resourceVersion"], version);
    }
    *object = kept;
}

/// Gives `object` the value that `old` has of a field.
pub fn keep(object: &mut Map, old: &Map, field: &'static str) {
    match old.get(field) {
        Some(value) => object.insert(field, value.clone()),
        None => object.remove(field),
    };
}

/// Gives `object` what `old` has at a path.
pub fn keep_at(object: &mut Map, old: &Map, path: &[&'static str]) {
    match old.at(path) {
        Some(value) => object.set_at(path, value.clone()),
        None => {
            object.remove_at(path);
        }
    }
}

/// Whether anything but metadata and status differs.
pub fn changes_besides_metadata_and_status(object: &Map, old: &Map) -> bool {
    fn counted(map: &Map) -> impl Iterator<Item = (&str, &Value)> {
        map.iter().filter(|(key, _)| !matches!(*key, "metadata" | "status" | "kind" | "apiVersion"))
    }
    !counted(object).eq(counted(old))
}
