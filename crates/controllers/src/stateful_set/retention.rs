//! What becomes of the claims of a StatefulSet: who owns them, so that the garbage collector removes them with the set or
//! with a pod that is scaled away, as `persistentVolumeClaimRetentionPolicy` says.

use crate::objects::{PersistentVolumeClaim, Pod, StatefulSet};
use crate::pod_control::owner;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;

/// Whether claims go with the set.
fn with_set(set: &StatefulSet) -> bool {
    set.spec.persistent_volume_claim_retention_policy.as_ref().is_some_and(|policy| policy.when_deleted == "Delete")
}

/// Whether claims go with pods that are scaled away.
fn with_pod(set: &StatefulSet) -> bool {
    set.spec.persistent_volume_claim_retention_policy.as_ref().is_some_and(|policy| policy.when_scaled == "Delete")
}

fn is(reference: &OwnerReference, kind: &str, meta: &ObjectMeta) -> bool {
    reference.kind == kind && Some(&reference.uid) == meta.uid.as_ref() && Some(&reference.name) == meta.name.as_ref()
}

/// The owners of the new claims of a pod that the set wants.
pub(super) fn of_new(set: &StatefulSet) -> Vec<OwnerReference> {
    if with_set(set) { vec![owner(set)] } else { Vec::new() }
}

/// The owners that a claim of a pod shall have. `wanted`: the pod is one that the set wants, not scaled away. `None`:
/// they are so already, or it has a controller of its own, who decides.
pub(super) fn owners(
    set: &StatefulSet,
    pod: &Pod,
    wanted: bool,
    claim: &PersistentVolumeClaim,
) -> Option<Vec<OwnerReference>> {
    let present = claim.metadata.owner_references.as_deref().unwrap_or_default();
    let ours = |r: &OwnerReference| is(r, "StatefulSet", &set.metadata) || is(r, "Pod", &pod.metadata);
    if present.iter().any(|r| r.controller == Some(true) && !ours(r)) {
        return None;
    }
    let mut owners: Vec<OwnerReference> = present.iter().filter(|r| !ours(r)).cloned().collect();
    let scaled_away = with_pod(set) && !wanted;
    if scaled_away {
        owners.push(owner(pod));
    } else if with_set(set) {
        owners.push(owner(set));
    }
    (owners != present).then_some(owners)
}

/// Whether a claim is about to go with a former pod of the name, or goes already: a new pod must not take it.
pub(super) fn goes(claim: &PersistentVolumeClaim, pod: &str) -> bool {
    let former = |r: &OwnerReference| r.kind == "Pod" && r.name == pod;
    claim.metadata.deletion_timestamp.is_some() || claim.metadata.owner_references.iter().flatten().any(former)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(deleted: &str, scaled: &str) -> StatefulSet {
        let policy = json!({"whenDeleted": deleted, "whenScaled": scaled});
        let spec = json!({"persistentVolumeClaimRetentionPolicy": policy});
        serde_json::from_value(json!({"metadata": {"name": "web", "uid": "s"}, "spec": spec})).expect("a set")
    }

    fn pod() -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "web-1", "uid": "p"}})).expect("a pod")
    }

    /// A claim whose owners are of these kinds; small letters: without being its controller.
    fn claim(owners: &str) -> PersistentVolumeClaim {
        let reference = |c: char| {
            let (kind, version, name, uid) = match c.to_ascii_uppercase() {
                'S' => ("StatefulSet", "apps/v1", "web", "s"),
                'P' => ("Pod", "v1", "web-1", "p"),
                _ => ("Backup", "x.io/v1", "b", "o"),
            };
            let controls = c.is_ascii_uppercase();
            json!({"apiVersion": version, "kind": kind, "name": name, "uid": uid,
                "controller": controls, "blockOwnerDeletion": controls})
        };
        let owners: Vec<_> = owners.chars().map(reference).collect();
        serde_json::from_value(json!({"metadata": {"name": "data-web-1", "ownerReferences": owners}})).expect("a claim")
    }

    fn shown(set: &StatefulSet, wanted: bool, present: &str) -> Option<String> {
        let owners = owners(set, &pod(), wanted, &claim(present))?;
        Some(owners.iter().map(|r| r.kind.chars().next().unwrap_or('?')).collect())
    }

    #[test]
    fn owners_are_what_the_policy_says() {
        let new = |owners: &str| Some(owners.to_owned());
        for (deleted, scaled, wanted, present, expected) in [
            ("Retain", "Retain", true, "", None),
            ("Retain", "Retain", false, "S", new("")),
            ("Delete", "Retain", true, "", new("S")),
            ("Delete", "Retain", true, "S", None),
            ("Delete", "Retain", false, "S", None),
            ("Retain", "Delete", true, "", None),
            ("Retain", "Delete", false, "", new("P")),
            ("Retain", "Delete", true, "P", new("")),
            ("Delete", "Delete", true, "P", new("S")),
            ("Delete", "Delete", false, "S", new("P")),
            // References that others made stay; a controller that is neither lets nothing be changed.
            ("Delete", "Retain", true, "o", new("BS")),
            ("Delete", "Retain", true, "O", None),
            // Those of versions that made no controllers are made anew.
            ("Delete", "Retain", true, "s", new("S")),
        ] {
            assert_eq!(
                shown(&set(deleted, scaled), wanted, present),
                expected,
                "{deleted} {scaled} {wanted} {present}"
            );
        }
        assert_eq!((of_new(&set("Delete", "Retain")).len(), of_new(&set("Retain", "Delete")).len()), (1, 0));
    }

    #[test]
    fn a_claim_that_goes_is_not_taken() {
        assert!(goes(&claim("P"), "web-1") && !goes(&claim("P"), "web-2") && !goes(&claim("S"), "web-1"));
    }
}
