//! What controllers of pods share: readiness, selection, whose an object is, and claiming what matches.

use crate::objects::Pod;
use api::selector::{LabelSelector, Operator, Requirement};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector as WireSelector, ObjectMeta, OwnerReference};
use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

/// A condition's status and when it last changed.
fn condition<'p>(pod: &'p Pod, type_: &str) -> Option<&'p crate::objects::PodCondition> {
    pod.status.conditions.iter().find(|c| c.type_ == type_)
}

pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// When the pod became ready, if it is.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    condition(pod, "Ready").filter(|c| c.status == "True")?.last_transition_time.as_ref().map(|t| t.0)
}

/// Ready for at least so many seconds.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    is_ready(pod)
        && (min_ready_seconds == 0
            || ready_since(pod).is_some_and(|t| now.as_second() - t.as_second() >= i64::from(min_ready_seconds)))
}

/// Neither finished nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && pod.metadata.deletion_timestamp.is_none()
}

pub fn is_finished(pod: &Pod) -> bool {
    matches!(pod.status.phase.as_str(), "Succeeded" | "Failed")
}

/// A `metav1.LabelSelector` as a selector; one that is malformed matches nothing.
pub fn selector(wire: &WireSelector) -> LabelSelector {
    let labels = wire.match_labels.iter().flatten().map(|(k, v)| Requirement {
        key: k.clone(),
        operator: Operator::In,
        values: vec![v.clone()],
    });
    let mut requirements: Vec<Requirement> = labels.collect();
    for expression in wire.match_expressions.iter().flatten() {
        let operator = match expression.operator.as_str() {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            _ => return LabelSelector::nothing(),
        };
        match Requirement::new(&expression.key, operator, expression.values.clone().unwrap_or_default()) {
            Ok(requirement) => requirements.push(requirement),
            Err(_) => return LabelSelector::nothing(),
        }
    }
    LabelSelector::from_requirements(requirements)
}

/// Whether labels meet a selector.
pub fn matches(selector: &LabelSelector, meta: &ObjectMeta) -> bool {
    match &meta.labels {
        Some(labels) => selector.matches(labels),
        None => selector.matches(&std::collections::BTreeMap::new()),
    }
}

/// The reference to the one controller of an object, if it has one.
pub fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|o| o.controller == Some(true))
}

/// A reference that makes an object the controller of another.
pub fn owner(api_version: &str, kind: &str, meta: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// What is to be done with an object that a controller's selector may select.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Ours, or another's: nothing is to be written.
    Ours,
    Others,
    /// It matches and has no controller.
    Adopt,
    /// It is ours but no longer matches.
    Release,
}

/// Decides on one object (upstream's `ControllerRefManager.ClaimObject`).
pub fn claim(owner: &ObjectMeta, matches: bool, object: &ObjectMeta) -> Claim {
    let owner_leaves = owner.deletion_timestamp.is_some();
    let object_leaves = object.deletion_timestamp.is_some();
    match controller(object) {
        Some(reference) if Some(&reference.uid) != owner.uid.as_ref() => Claim::Others,
        Some(_) if matches => Claim::Ours,
        Some(_) if owner_leaves || object_leaves => Claim::Others,
        Some(_) => Claim::Release,
        None if !matches || owner_leaves || object_leaves => Claim::Others,
        None => Claim::Adopt,
    }
}

/// The strategic merge patch that adds an owner; it fails if the object is another by now.
pub fn adoption(owner: &OwnerReference, uid: Option<&str>) -> serde_json::Value {
    serde_json::json!({"metadata": {"ownerReferences": [owner], "uid": uid}})
}

/// The strategic merge patch that takes an owner away.
pub fn release(owner_uid: &str, uid: Option<&str>) -> serde_json::Value {
    serde_json::json!({"metadata": {"ownerReferences": [{"$patch": "delete", "uid": owner_uid}], "uid": uid}})
}

/// Smaller goes first (upstream's `ActivePodsWithRanks`): unassigned, pending, not ready, on a fuller node,
/// ready for a shorter time, restarted more, younger. Times count in powers of two, so that nearly equal ones tie.
pub fn deletion_rank(pod: &Pod, on_its_node: usize, now: Timestamp) -> impl Ord + use<> {
    let phase = match pod.status.phase.as_str() {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let age = |t: Option<Timestamp>| {
        t.map_or(0, |t| u64::try_from(now.as_second() - t.as_second()).unwrap_or(0).max(1).ilog2())
    };
    let restarts = pod.status.container_statuses.iter().map(|c| c.restart_count).max().unwrap_or(0);
    (
        !pod.spec.node_name.is_empty(),
        phase,
        is_ready(pod),
        Reverse(on_its_node),
        age(ready_since(pod)),
        Reverse(restarts),
        age(pod.metadata.creation_timestamp.as_ref().map(|t| t.0)),
        pod.metadata.uid.clone(),
    )
}

/// When the next ready pod becomes available, if one has yet to.
pub fn next_availability(owned: &[Arc<Pod>], min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    let min_ready = i64::from(min_ready_seconds);
    owned
        .iter()
        .filter(|p| is_active(p) && !is_available(p, min_ready_seconds, now))
        .filter_map(|p| ready_since(p))
        .map(|since| since.as_second() + min_ready - now.as_second())
        .min()
        .map(|seconds| Duration::from_secs(u64::try_from(seconds.max(1)).unwrap_or(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(uid: &str, controller: Option<&str>) -> ObjectMeta {
        ObjectMeta {
            uid: Some(uid.into()),
            owner_references: controller.map(|uid| {
                vec![OwnerReference { uid: uid.into(), controller: Some(true), ..OwnerReference::default() }]
            }),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn what_matches_is_adopted_and_what_no_longer_does_is_released() {
        let owner = meta("o", None);
        assert_eq!(claim(&owner, true, &meta("p", None)), Claim::Adopt);
        assert_eq!(claim(&owner, false, &meta("p", None)), Claim::Others);
        assert_eq!(claim(&owner, true, &meta("p", Some("o"))), Claim::Ours);
        assert_eq!(claim(&owner, false, &meta("p", Some("o"))), Claim::Release);
        assert_eq!(claim(&owner, true, &meta("p", Some("x"))), Claim::Others);
        let mut leaving = meta("p", None);
        leaving.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH));
        assert_eq!(claim(&owner, true, &leaving), Claim::Others);
    }
}
