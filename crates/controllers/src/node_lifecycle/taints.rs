//! The taints that a node's conditions and spec call for. Pure.

use crate::objects::Node;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Condition → taint of effect NoSchedule while it is true.
const PRESSURES: &[(&str, &str)] = &[
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

fn is_managed(taint: &Taint) -> bool {
    match taint.effect.as_str() {
        "NoSchedule" => {
            matches!(taint.key.as_str(), NOT_READY | UNREACHABLE | UNSCHEDULABLE)
                || PRESSURES.iter().any(|(_, key)| *key == taint.key)
        }
        "NoExecute" => matches!(taint.key.as_str(), NOT_READY | UNREACHABLE),
        _ => false,
    }
}

/// The taints that the node should have; `None` when it has them.
pub fn wanted(node: &Node, now: Timestamp) -> Option<Vec<Taint>> {
    let status = |type_: &str| node.status.conditions.iter().find(|c| c.type_ == type_).map(|c| c.status.as_str());
    let mut managed: Vec<(&str, &str)> = Vec::new();
    match status("Ready") {
        Some("True") => {}
        // Before the node ever said something it is held not ready.
        Some("False") | None => managed.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
        Some(_) => managed.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
    }
    if node.status.conditions.is_empty() {
        managed.retain(|(_, effect)| *effect == "NoSchedule");
    }
    managed.extend(PRESSURES.iter().filter(|(c, _)| status(c) == Some("True")).map(|(_, key)| (*key, "NoSchedule")));
    if node.spec.unschedulable {
        managed.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let fits = |t: &Taint, key: &str, effect: &str| t.key == key && t.effect == effect;
    let mut taints: Vec<Taint> = node
        .spec
        .taints
        .iter()
        .filter(|t| !is_managed(t) || managed.iter().any(|(key, effect)| fits(t, key, effect)))
        .cloned()
        .collect();
    for (key, effect) in managed {
        if !taints.iter().any(|t| fits(t, key, effect)) {
            taints.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                time_added: Some(Time(now)),
                value: None,
            });
        }
    }
    (taints != node.spec.taints).then_some(taints)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::NodeCondition;

    fn node(conditions: &[(&str, &str)]) -> Node {
        let mut node = Node::default();
        node.status.conditions = conditions
            .iter()
            .map(|(t, s)| NodeCondition { type_: (*t).into(), status: (*s).into(), ..NodeCondition::default() })
            .collect();
        node
    }

    fn keys(node: &Node) -> Option<Vec<String>> {
        wanted(node, Timestamp::UNIX_EPOCH).map(|t| t.iter().map(|t| format!("{}:{}", t.key, t.effect)).collect())
    }

    #[test]
    fn conditions_become_taints_and_others_are_kept() {
        assert_eq!(keys(&node(&[("Ready", "True")])), None);
        assert_eq!(
            keys(&node(&[("Ready", "Unknown")])),
            Some(vec![format!("{UNREACHABLE}:NoSchedule"), format!("{UNREACHABLE}:NoExecute")])
        );
        let mut pressed = node(&[("Ready", "True"), ("DiskPressure", "True")]);
        pressed.spec.taints = vec![
            Taint { key: "mine".into(), effect: "NoSchedule".into(), ..Taint::default() },
            Taint { key: NOT_READY.into(), effect: "NoSchedule".into(), ..Taint::default() },
        ];
        assert_eq!(
            keys(&pressed),
            Some(vec!["mine:NoSchedule".into(), "node.kubernetes.io/disk-pressure:NoSchedule".into()])
        );
    }
}
