//! DefaultTolerationSeconds: a pod stays five minutes on a node that is not ready or cannot be reached.
//! TaintNodesByCondition: a new node takes no pods until its lifecycle controller has seen it ready.
//! ExtendedResourceToleration: a pod that asks for a device tolerates the taint of nodes that are kept for it.

use super::{Admission, Attributes, Operation, Sides, walk};
use api::Status;
use async_trait::async_trait;
use schema::{Map, Value};
use std::collections::BTreeSet;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// How long, where the server is not told otherwise.
pub(super) const DEFAULT_SECONDS: i64 = 300;

/// Adds the two tolerations that the pod does not have in some form.
pub(super) fn apply(pod: &mut Map, not_ready_seconds: i64, unreachable_seconds: i64) {
    for (key, seconds) in [(NOT_READY, not_ready_seconds), (UNREACHABLE, unreachable_seconds)] {
        let tolerated = walk::items(pod, &["spec", "tolerations"]).any(|t| {
            matches!(t.str_at(&["key"]), k if k == key || k.is_empty())
                && matches!(t.str_at(&["effect"]), "NoExecute" | "")
        });
        if tolerated {
            continue;
        }
        let mut toleration = Map::new();
        toleration.insert("key", key);
        toleration.insert("operator", "Exists");
        toleration.insert("effect", "NoExecute");
        toleration.insert("tolerationSeconds", seconds);
        if let Some(list) = walk::list_mut(pod, "spec", "tolerations") {
            list.push(toleration.into());
        }
    }
}

/// Taints a new node as not ready.
pub(super) fn taint(node: &mut Map) {
    let tainted = walk::items(node, &["spec", "taints"])
        .any(|t| t.str_at(&["key"]) == NOT_READY && t.str_at(&["effect"]) == "NoSchedule");
    if tainted {
        return;
    }
    let mut taint = Map::new();
    taint.insert("key", NOT_READY);
    taint.insert("effect", "NoSchedule");
    if let Some(list) = walk::list_mut(node, "spec", "taints") {
        list.push(Value::Map(taint));
    }
}

pub struct DefaultTolerationSeconds {
    pub not_ready: i64,
    pub unreachable: i64,
}

#[async_trait]
impl Admission for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn sides(&self) -> Sides {
        Sides::Admits
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        if a.is("", "pods") {
            apply(a.object, self.not_ready, self.unreachable);
        }
        Ok(())
    }
}

pub struct TaintNodesByCondition;

#[async_trait]
impl Admission for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn sides(&self) -> Sides {
        Sides::Admits
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    async fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        if a.is("", "nodes") {
            taint(a.object);
        }
        Ok(())
    }
}

pub struct ExtendedResourceToleration;

/// Whether a resource is one that somebody else than Kubernetes defines.
fn is_extended(resource: &str) -> bool {
    let native = !resource.contains('/') || resource.split_once('/').is_some_and(|(d, _)| d.contains("kubernetes.io"));
    !native && !resource.starts_with("requests.")
}

/// Adds a toleration for each extended resource that the pod requests.
pub(super) fn tolerate_extended(pod: &mut Map) {
    let mut resources = BTreeSet::new();
    for list in ["containers", "initContainers"] {
        for container in walk::items(pod, &["spec", list]) {
            let requests = container.at(&["resources", "requests"]).and_then(Value::as_map);
            let names = requests.into_iter().flat_map(Map::iter).map(|(name, _)| name);
            resources.extend(names.filter(|name| is_extended(name)).map(str::to_owned));
        }
    }
    for resource in resources {
        let known = walk::items(pod, &["spec", "tolerations"]).any(|t| {
            t.str_at(&["key"]) == resource
                && t.str_at(&["operator"]) == "Exists"
                && t.str_at(&["effect"]) == "NoSchedule"
        });
        if known {
            continue;
        }
        let mut toleration = Map::new();
        toleration.insert("key", resource);
        toleration.insert("operator", "Exists");
        toleration.insert("effect", "NoSchedule");
        if let Some(list) = walk::list_mut(pod, "spec", "tolerations") {
            list.push(toleration.into());
        }
    }
}

#[async_trait]
impl Admission for ExtendedResourceToleration {
    fn name(&self) -> &'static str {
        "ExtendedResourceToleration"
    }

    fn sides(&self) -> Sides {
        Sides::Admits
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        if a.is("", "pods") {
            tolerate_extended(a.object);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;

    fn keys(pod: &Map) -> Vec<String> {
        walk::items(pod, &["spec", "tolerations"]).map(|t| t.str_at(&["key"]).to_owned()).collect()
    }

    #[test]
    fn tolerations_are_added_once_and_not_over_the_pods_own() {
        let mut pod = map("{spec: {}}");
        apply(&mut pod, 300, 300);
        assert_eq!(keys(&pod), [NOT_READY, UNREACHABLE]);
        let once = pod.clone();
        apply(&mut pod, 300, 300);
        assert_eq!(pod, once);
        let mut own = map("{spec: {tolerations: [{key: node.kubernetes.io/not-ready, operator: Exists}]}}");
        apply(&mut own, 300, 300);
        assert_eq!(keys(&own), [NOT_READY, UNREACHABLE]);
        let mut all = map("{spec: {tolerations: [{operator: Exists}]}}");
        apply(&mut all, 300, 300);
        assert_eq!(keys(&all), [""]);
        let mut other_effect = map("{spec: {tolerations: [{operator: Exists, effect: NoSchedule}]}}");
        apply(&mut other_effect, 300, 300);
        assert_eq!(keys(&other_effect).len(), 3);
    }

    #[test]
    fn devices_are_tolerated_once() {
        let mut pod =
            map("{spec: {containers: [{resources: {requests: {cpu: 1, example.com/gpu: 1, kubernetes.io/x: 1}}}]}}");
        tolerate_extended(&mut pod);
        tolerate_extended(&mut pod);
        assert_eq!(keys(&pod), ["example.com/gpu"]);
    }

    #[test]
    fn a_new_node_is_tainted_once() {
        let mut node = map("{metadata: {name: n}}");
        taint(&mut node);
        taint(&mut node);
        assert_eq!(walk::items(&node, &["spec", "taints"]).count(), 1);
    }
}
