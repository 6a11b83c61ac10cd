//! What is in use stays: StorageObjectInUseProtection, PodGroupProtection; and PersistentVolumeClaimResize.

use super::{Admission, Attributes, Operation, Sides, walk};
use crate::lookup::{Lookup, STORAGE_CLASSES};
use api::{Quantity, Status};
use async_trait::async_trait;
use schema::{Map, Value};
use std::sync::Arc;

/// Claims, volumes and attribute classes outlive their deletion while they are in use.
pub struct StorageObjectInUseProtection;

fn protect(object: &mut Map, finalizer: &str) {
    if let Some(list) = walk::list_mut(object, "metadata", "finalizers")
        && !list.iter().any(|f| f.as_str() == Some(finalizer))
    {
        list.push(Value::from(finalizer));
    }
}

#[async_trait]
impl Admission for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn sides(&self) -> Sides {
        Sides::Admits
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    async fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        if a.is("", "persistentvolumeclaims") {
            protect(a.object, "kubernetes.io/pvc-protection");
        } else if a.is("", "persistentvolumes") {
            protect(a.object, "kubernetes.io/pv-protection");
        } else if a.is("storage.k8s.io", "volumeattributesclasses") {
            protect(a.object, "kubernetes.io/vac-protection");
        }
        Ok(())
    }
}

/// Groups of pods outlive their deletion while pods of theirs run.
pub struct PodGroupProtection;

#[async_trait]
impl Admission for PodGroupProtection {
    fn name(&self) -> &'static str {
        "PodGroupProtection"
    }

    fn sides(&self) -> Sides {
        Sides::Admits
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    async fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        if a.is("scheduling.k8s.io", "podgroups") {
            protect(a.object, "scheduling.k8s.io/podgroup-protection");
        }
        Ok(())
    }
}

/// A claim grows only where its storage class says that volumes can.
pub struct PersistentVolumeClaimResize {
    pub objects: Arc<dyn Lookup>,
}

fn size(claim: &Map) -> Quantity {
    claim.str_at(&["spec", "resources", "requests", "storage"]).parse().unwrap_or(Quantity::ZERO)
}

fn class(claim: &Map) -> &str {
    match claim.str_at(&["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"]) {
        "" => claim.str_at(&["spec", "storageClassName"]),
        beta => beta,
    }
}

#[async_trait]
impl Admission for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn sides(&self) -> Sides {
        Sides::Validates
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Update
    }

    async fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let Some(old) = a.old.filter(|_| a.is("", "persistentvolumeclaims")) else { return Ok(()) };
        if size(a.object) <= size(old) {
            return Ok(());
        }
        if old.str_at(&["status", "phase"]) != "Bound" {
            return Err(a.forbidden("Only bound persistent volume claims can be expanded"));
        }
        let name = class(a.object);
        let grows = |class: Arc<Map>| class.get("allowVolumeExpansion").and_then(Value::as_bool).unwrap_or(false);
        let same = !name.is_empty() && name == class(old);
        if same && self.objects.find(STORAGE_CLASSES, "", name).await?.is_some_and(grows) {
            return Ok(());
        }
        Err(a.forbidden(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        ))
    }
}
