//! What a DaemonSet is to do next on which nodes, and what its status says.

use super::nodes::{fits, of_pod, revision};
use crate::deployment::strategy::resolve;
use crate::objects::{DaemonSet, DaemonSetStatus, Node, Pod};
use crate::pods;
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::Arc;

pub(super) type Status = DaemonSetStatus;

#[derive(Default)]
pub(super) struct Plan {
    /// Nodes that get a pod.
    pub(super) create: Vec<String>,
    pub(super) delete: Vec<Arc<Pod>>,
    /// Pods that are over: they go, failed ones with back-off.
    pub(super) failed: Vec<Arc<Pod>>,
}

fn by_node(owned: &[Arc<Pod>]) -> HashMap<&str, Vec<&Arc<Pod>>> {
    let mut map: HashMap<&str, Vec<&Arc<Pod>>> = HashMap::new();
    for pod in owned {
        if let Some(node) = of_pod(pod) {
            map.entry(node).or_default().push(pod);
        }
    }
    map
}

fn is_leaving(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

pub(super) fn plan(set: &DaemonSet, nodes: &[Arc<Node>], owned: &[Arc<Pod>], hash: &str, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let there = by_node(owned);
    let none = Vec::new();
    for node in nodes {
        let name = node.metadata.name.as_deref().unwrap_or("");
        let pods = there.get(name).unwrap_or(&none);
        let (should, may_stay) = fits(set, node);
        if !may_stay {
            plan.delete.extend(pods.iter().filter(|p| !is_leaving(p)).map(|p| (*p).clone()));
            continue;
        }
        let (over, alive): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) = pods.iter().copied().partition(|p| pods::is_finished(p));
        plan.failed.extend(over.into_iter().filter(|p| !is_leaving(p)).cloned());
        if alive.is_empty() && pods.is_empty() {
            if should {
                plan.create.push(name.to_owned());
            }
            continue;
        }
        // One too many, unless the other is about to take its place.
        let mut staying: Vec<&Arc<Pod>> = alive.into_iter().filter(|p| !is_leaving(p)).collect();
        staying.sort_by_key(|p| (p.metadata.creation_timestamp.as_ref().map(|t| t.0), p.metadata.name.clone()));
        let surging = surge(set, 1) > 0;
        for group in [true, false] {
            let same = staying.iter().filter(|p| (revision(p) == Some(hash)) == group);
            plan.delete.extend(same.skip(1).map(|p| (*p).clone()));
        }
        if !surging && staying.len() > 1 && !plan.delete.iter().any(|p| of_pod(p) == Some(name)) {
            plan.delete.extend(staying.iter().skip(1).map(|p| (*p).clone()));
        }
    }
    if set.spec.update_strategy.type_ != "OnDelete" {
        roll(set, nodes, &there, hash, now, &mut plan);
    }
    plan
}

fn surge(set: &DaemonSet, nodes: i32) -> i32 {
    resolve(set.spec.update_strategy.rolling_update.as_ref().and_then(|r| r.max_surge.as_ref()), nodes, true)
}

/// Replaces pods of older revisions: first those that are not well anyway, then as many as may be missing.
fn roll(
    set: &DaemonSet,
    nodes: &[Arc<Node>],
    there: &HashMap<&str, Vec<&Arc<Pod>>>,
    hash: &str,
    now: Timestamp,
    plan: &mut Plan,
) {
    let wanted: Vec<&str> =
        nodes.iter().filter(|n| fits(set, n).0).filter_map(|n| n.metadata.name.as_deref()).collect();
    let total = i32::try_from(wanted.len()).unwrap_or(i32::MAX);
    let rolling = set.spec.update_strategy.rolling_update.as_ref();
    let most_surge = surge(set, total);
    let mut may_miss = match rolling.and_then(|r| r.max_unavailable.as_ref()) {
        None => i32::from(most_surge == 0),
        some => resolve(some, total, true),
    };
    let mut may_surge = most_surge;
    let available = |pod: &Pod| !is_leaving(pod) && pods::is_available(pod, set.spec.min_ready_seconds, now);
    let (mut unwell, mut well) = (Vec::new(), Vec::new());
    let mut surge_to = Vec::new();
    for name in wanted {
        let pods = there.get(name).map_or(&[][..], Vec::as_slice);
        let alive: Vec<&Arc<Pod>> = pods.iter().copied().filter(|p| !is_leaving(p) && !pods::is_finished(p)).collect();
        let old = alive.iter().find(|p| revision(p) != Some(hash));
        let new = alive.iter().find(|p| revision(p) == Some(hash));
        if most_surge > 0 {
            match (old, new) {
                (Some(old), Some(new)) => {
                    may_surge -= 1;
                    if available(new) || !available(old) {
                        unwell.push((*old).clone());
                    }
                }
                (Some(old), None) => surge_to.push((!available(old), name)),
                _ => {}
            }
            continue;
        }
        if !alive.iter().any(|p| available(p)) {
            may_miss -= 1;
        }
        if let (Some(old), None) = (old, new) {
            if available(old) { well.push((*old).clone()) } else { unwell.push((*old).clone()) }
        }
    }
    let going = |pod: &Arc<Pod>, plan: &Plan| plan.delete.iter().any(|p| p.metadata.uid == pod.metadata.uid);
    let well = well.into_iter().take(usize::try_from(may_miss).unwrap_or(0));
    for pod in unwell.into_iter().chain(well).collect::<Vec<_>>() {
        if !going(&pod, plan) {
            plan.delete.push(pod);
        }
    }
    // Where it is not well anyway a new one comes first.
    surge_to.sort_by_key(|(unwell, _)| !unwell);
    let to = surge_to.into_iter().take(usize::try_from(may_surge).unwrap_or(0));
    plan.create.extend(to.map(|(_, name)| name.to_owned()));
}

pub(super) fn status(set: &DaemonSet, nodes: &[Arc<Node>], owned: &[Arc<Pod>], hash: &str, now: Timestamp) -> Status {
    let there = by_node(owned);
    let mut status = Status {
        observed_generation: set.metadata.generation.unwrap_or(0),
        collision_count: set.status.collision_count,
        ..Status::default()
    };
    for node in nodes {
        let pods = there.get(node.metadata.name.as_deref().unwrap_or("")).map_or(&[][..], Vec::as_slice);
        let (should, _) = fits(set, node);
        if !should {
            status.number_misscheduled += i32::from(!pods.is_empty());
            continue;
        }
        status.desired_number_scheduled += 1;
        let alive = pods.iter().filter(|p| !is_leaving(p));
        let oldest =
            alive.min_by_key(|p| (p.metadata.creation_timestamp.as_ref().map(|t| t.0), p.metadata.name.clone()));
        status.current_number_scheduled += i32::from(!pods.is_empty());
        let Some(pod) = oldest else { continue };
        status.number_ready += i32::from(pods::is_ready(pod));
        status.number_available += i32::from(pods::is_available(pod, set.spec.min_ready_seconds, now));
        status.updated_number_scheduled += i32::from(revision(pod) == Some(hash));
    }
    status.number_unavailable = status.desired_number_scheduled - status.number_available;
    status
}

#[cfg(test)]
mod tests {
    use super::super::nodes;
    use super::*;
    use serde_json::{Value, json};

    fn set(template: &Value, strategy: &Value) -> DaemonSet {
        let annotations = json!({"deprecated.daemonset.template.generation": "3"});
        serde_json::from_value(json!({"metadata": {"name": "d", "uid": "u", "annotations": annotations},
            "spec": {"template": {"spec": template}, "updateStrategy": strategy}}))
        .expect("a set")
    }

    fn node(name: &str, zone: &str, taints: Value) -> Arc<Node> {
        let node = json!({"metadata": {"name": name, "labels": {"zone": zone}}, "spec": {"taints": taints}});
        Arc::new(serde_json::from_value(node).expect("a node"))
    }

    fn on(node: &str, hash: &str, ready: bool) -> Arc<Pod> {
        let ready = if ready { "True" } else { "False" };
        let pod = json!({"metadata": {"name": format!("d-{node}"), "uid": format!("{node}{hash}"),
                "labels": {"controller-revision-hash": hash}},
            "spec": {"nodeName": node},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
        pods.iter().map(|p| p.spec.node_name.as_str()).collect()
    }

    #[test]
    fn nodes_are_chosen_by_labels_and_taints() {
        let nodes = [
            node("a", "x", json!([])),
            node("b", "y", json!([])),
            node("c", "x", json!([{"key": "own", "effect": "NoSchedule"}])),
            node("d", "x", json!([{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}])),
        ];
        let now = Timestamp::UNIX_EPOCH;
        let selecting = set(&json!({"nodeSelector": {"zone": "x"}}), &json!({}));
        assert_eq!(plan(&selecting, &nodes, &[], "h", now).create, ["a", "d"], "a cordoned node is not spared");
        let term = json!([{"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["x"]}]}]);
        let affine = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": term}}}});
        assert_eq!(plan(&set(&affine, &json!({})), &nodes, &[], "h", now).create, ["b"]);
        let there = [on("a", "h", true), on("b", "h", true)];
        assert_eq!(names(&plan(&selecting, &nodes, &there, "h", now).delete), ["b"]);
        let status = status(&selecting, &nodes, &there, "h", now);
        assert_eq!((status.desired_number_scheduled, status.number_misscheduled, status.number_ready), (2, 1, 1));
        let made = nodes::pod(&set(&affine, &json!({})), "b", "h");
        let path = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields/0/values/0";
        assert_eq!(made.pointer(path), Some(&json!("b")));
        let labels = json!({"controller-revision-hash": "h", "pod-template-generation": "3"});
        assert_eq!(made["metadata"]["labels"], labels);
    }

    #[test]
    fn a_rollout_misses_no_more_than_it_may() {
        let nodes: Vec<_> = ["a", "b", "c"].iter().map(|n| node(n, "x", json!([]))).collect();
        let rolling = set(&json!({}), &json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}));
        let now = Timestamp::UNIX_EPOCH;
        let old: Vec<_> = ["a", "b", "c"].iter().map(|n| on(n, "old", true)).collect();
        assert_eq!(plan(&rolling, &nodes, &old, "new", now).delete.len(), 1);
        let mixed = [on("a", "new", false), on("b", "old", true), on("c", "old", false)];
        assert_eq!(names(&plan(&rolling, &nodes, &mixed, "new", now).delete), ["c"], "it is not well anyway");
        let manual = set(&json!({}), &json!({"type": "OnDelete"}));
        assert!(plan(&manual, &nodes, &old, "new", now).delete.is_empty());
        let surging =
            set(&json!({}), &json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}));
        let first = plan(&surging, &nodes, &old, "new", now);
        assert_eq!((first.create.len(), first.delete.len()), (1, 0));
        let both = [on("a", "old", true), on("a", "new", true), on("b", "old", true), on("c", "old", true)];
        assert_eq!(names(&plan(&surging, &nodes, &both, "new", now).delete), ["a"]);
    }
}
