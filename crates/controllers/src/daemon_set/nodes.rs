//! Which nodes a DaemonSet is for, and the pod that is made for one.

use crate::objects::{DaemonSet, Node, Pod};
use crate::pod_control;
use k8s_openapi::api::core::v1::{Taint, Toleration};
use serde_json::{Value, json};

/// The label of a pod's revision.
pub(super) const REVISION: &str = "controller-revision-hash";

/// The label that tells how often the template had changed, and the annotation of the set that counts it (as apps/v1 keeps what
/// was a field of extensions/v1beta1). Nothing goes by them any more; people and tools read them.
const TEMPLATE_GENERATION: &str = "pod-template-generation";
const GENERATION: &str = "deprecated.daemonset.template.generation";

/// What every daemon's pod tolerates: key, effect, and whether only on the node's own network.
const TOLERATED: [(&str, &str, bool); 7] = [
    ("node.kubernetes.io/not-ready", "NoExecute", false),
    ("node.kubernetes.io/unreachable", "NoExecute", false),
    ("node.kubernetes.io/disk-pressure", "NoSchedule", false),
    ("node.kubernetes.io/memory-pressure", "NoSchedule", false),
    ("node.kubernetes.io/pid-pressure", "NoSchedule", false),
    ("node.kubernetes.io/unschedulable", "NoSchedule", false),
    ("node.kubernetes.io/network-unavailable", "NoSchedule", true),
];

pub(super) fn revision(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(REVISION).map(String::as_str)
}

/// The node that a pod is on, or is meant for.
pub(super) fn of_pod(pod: &Pod) -> Option<&str> {
    if !pod.spec.node_name.is_empty() {
        return Some(&pod.spec.node_name);
    }
    pod.spec.pinned_to.as_deref()
}

fn own_tolerations(template: &Value) -> Vec<Value> {
    template.pointer("/spec/tolerations").and_then(Value::as_array).cloned().unwrap_or_default()
}

fn tolerations(template: &Value) -> Vec<Value> {
    let mut all = own_tolerations(template);
    let host = template.pointer("/spec/hostNetwork").and_then(Value::as_bool) == Some(true);
    for (key, effect, on_host_only) in TOLERATED {
        if !on_host_only || host {
            let toleration = json!({"key": key, "operator": "Exists", "effect": effect});
            if !all.contains(&toleration) {
                all.push(toleration);
            }
        }
    }
    all
}

/// The pod for a node: its affinity names it, so that the scheduler puts it there.
pub(super) fn pod(set: &DaemonSet, node: &str, hash: &str) -> Value {
    let mut pod = pod_control::body(set, &set.spec.template);
    if let Some(metadata) = pod["metadata"].as_object_mut() {
        let labels = metadata.entry("labels").or_insert_with(|| json!({}));
        labels[REVISION] = hash.into();
        let counted = set.metadata.annotations.as_ref().and_then(|annotations| annotations.get(GENERATION));
        if let Some(generation) = counted.and_then(|text| text.parse::<i64>().ok()) {
            labels[TEMPLATE_GENERATION] = generation.to_string().into();
        }
    }
    pod["spec"]["tolerations"] = Value::Array(tolerations(&set.spec.template));
    let field = json!([{"key": "metadata.name", "operator": "In", "values": [node]}]);
    let path = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let mut terms = pod.pointer(path).and_then(Value::as_array).cloned().unwrap_or_default();
    if terms.is_empty() {
        terms.push(json!({}));
    }
    for term in &mut terms {
        term["matchFields"] = field.clone();
    }
    let affinity = &mut pod["spec"]["affinity"]["nodeAffinity"];
    affinity["requiredDuringSchedulingIgnoredDuringExecution"] = json!({"nodeSelectorTerms": terms});
    pod
}

/// Whether the set's pod should run on a node, and whether one that is there may stay.
pub(super) fn fits(set: &DaemonSet, node: &Node) -> (bool, bool) {
    let template = &set.spec.template;
    let name = node.metadata.name.as_deref().unwrap_or("");
    let pinned = template.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or("");
    if !pinned.is_empty() && pinned != name || !is_selected(template, node) {
        return (false, false);
    }
    let all = tolerations(template);
    let all: Vec<Toleration> = all.into_iter().filter_map(|t| serde_json::from_value(t).ok()).collect();
    let free_of = |effects: &[&str]| {
        let taints = node.spec.taints.iter().filter(|t| effects.contains(&t.effect.as_str()));
        taints.into_iter().all(|taint| all.iter().any(|t| tolerates(t, taint)))
    };
    (free_of(&["NoSchedule", "NoExecute"]), free_of(&["NoExecute"]))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let effect = text(&toleration.effect);
    let key = text(&toleration.key);
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match text(&toleration.operator).as_str() {
        "Exists" => true,
        "" | "Equal" => !key.is_empty() && text(&toleration.value) == text(&taint.value),
        _ => false,
    }
}

/// Whether the template's node selector and required affinity select a node.
fn is_selected(template: &Value, node: &Node) -> bool {
    let label = |key: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
    let selector = template.pointer("/spec/nodeSelector").and_then(Value::as_object);
    if selector.into_iter().flatten().any(|(key, value)| label(key) != value.as_str()) {
        return false;
    }
    let path = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let Some(terms) = template.pointer(path).and_then(Value::as_array) else { return true };
    let name = node.metadata.name.as_deref();
    terms.iter().any(|term| {
        let list = |key: &str| term.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let (expressions, fields) = (list("matchExpressions"), list("matchFields"));
        // A term that says nothing selects nothing.
        !(expressions.is_empty() && fields.is_empty())
            && expressions.iter().all(|e| requirement(e, label(e["key"].as_str().unwrap_or(""))))
            && fields.iter().all(|f| requirement(f, name))
    })
}

fn requirement(requirement: &Value, actual: Option<&str>) -> bool {
    let values: Vec<&str> = requirement["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let compare = |wanted: std::cmp::Ordering| {
        let number = |text: Option<&str>| text.and_then(|t| t.parse::<i64>().ok());
        match (number(actual), number(values.first().copied())) {
            (Some(actual), Some(bound)) => actual.cmp(&bound) == wanted,
            _ => false,
        }
    };
    match requirement["operator"].as_str().unwrap_or("") {
        "In" => actual.is_some_and(|a| values.contains(&a)),
        "NotIn" => !actual.is_some_and(|a| values.contains(&a)),
        "Exists" => actual.is_some(),
        "DoesNotExist" => actual.is_none(),
        "Gt" => compare(std::cmp::Ordering::Greater),
        "Lt" => compare(std::cmp::Ordering::Less),
        _ => false,
    }
}
