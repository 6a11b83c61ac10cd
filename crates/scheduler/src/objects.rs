//! What is read of pods and nodes, and what the plugins work on: parsed and compiled once when an object changes.

use crate::resources::{DEFAULT_CPU_MILLI, DEFAULT_MEMORY, List, Resources, pod_requests};
use k8s_openapi::api::core::v1::{NodeSelector, PreferredSchedulingTerm, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Of a pod, what scheduling reads.
#[derive(Clone, Debug, Default, Deserialize, Resource)]
#[resource(inherit = k8s_openapi::api::core::v1::Pod)]
pub struct Pod {
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub(crate) spec: PodSpec,
    #[serde(default)]
    pub(crate) status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodSpec {
    pub(crate) node_name: String,
    pub(crate) scheduler_name: String,
    pub(crate) priority: i32,
    pub(crate) containers: Vec<Container>,
    pub(crate) init_containers: Vec<Container>,
    /// What the pod as a whole asks for.
    pub(crate) resources: ContainerResources,
    pub(crate) overhead: List,
    pub(crate) preemption_policy: String,
    pub(crate) node_selector: BTreeMap<String, String>,
    pub(crate) affinity: Affinity,
    pub(crate) tolerations: Vec<Toleration>,
    pub(crate) scheduling_gates: Vec<serde::de::IgnoredAny>,
    pub(crate) host_network: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Affinity {
    pub(crate) node_affinity: Option<NodeAffinity>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct NodeAffinity {
    pub(crate) required_during_scheduling_ignored_during_execution: Option<NodeSelector>,
    pub(crate) preferred_during_scheduling_ignored_during_execution: Vec<PreferredSchedulingTerm>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) resources: ContainerResources,
    pub(crate) ports: Vec<Port>,
    pub(crate) restart_policy: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ContainerResources {
    pub(crate) requests: List,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Port {
    pub(crate) host_port: i32,
    #[serde(rename = "hostIP")]
    pub(crate) host_ip: String,
    pub(crate) protocol: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodStatus {
    pub(crate) phase: String,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) container_statuses: Vec<ContainerStatus>,
    pub(crate) init_container_statuses: Vec<ContainerStatus>,
    /// Of the pod as a whole.
    pub(crate) allocated_resources: List,
    pub(crate) resources: Option<ContainerResources>,
}

impl PodStatus {
    /// Whether the node can never give what the pod was changed to ask for.
    fn resize_is_infeasible(&self) -> bool {
        let pending = self.conditions.iter().find(|condition| condition.type_ == "PodResizePending");
        pending.is_some_and(|condition| condition.reason == "Infeasible")
    }
}

/// What a container has, as its node says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerStatus {
    pub(crate) name: String,
    pub(crate) allocated_resources: List,
    pub(crate) resources: Option<ContainerResources>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) type_: String,
    pub(crate) status: String,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) observed_generation: Option<i64>,
    pub(crate) last_transition_time: Option<String>,
}

/// Of a node, what scheduling reads.
#[derive(Clone, Debug, Default, Deserialize, Resource)]
#[resource(inherit = k8s_openapi::api::core::v1::Node)]
pub struct Node {
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub(crate) spec: NodeSpec,
    #[serde(default)]
    pub(crate) status: NodeStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeSpec {
    pub(crate) unschedulable: bool,
    pub(crate) taints: Vec<Taint>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeStatus {
    pub(crate) allocatable: List,
    pub(crate) images: Vec<Image>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Image {
    pub(crate) names: Vec<String>,
    pub(crate) size_bytes: i64,
}

/// A port of the host that a pod takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// `0.0.0.0` for all addresses.
    pub ip: Box<str>,
    pub protocol: Box<str>,
    pub port: i32,
}

impl HostPort {
    /// Whether two pods can't have both on one node.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        let any = |ip: &str| ip == "0.0.0.0" || ip == "::";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || any(&self.ip) || any(&other.ip))
    }
}

/// What counts of a container, or of a pod as a whole, while it is resized: the most of what it asks for, was given, and has;
/// what its node can't give does not count (KEP-1287, KEP-5419). `has`: `None` before a node says it.
fn counted(asked: &List, given: &List, has: Option<&ContainerResources>, infeasible: bool) -> Resources {
    let asked = Resources::of(asked);
    let Some(has) = has else { return asked };
    let mut counted = if infeasible { Resources::default() } else { asked };
    counted.max(&Resources::of(&has.requests));
    counted.max(&Resources::of(given));
    counted
}

/// A pod as plugins see it.
#[derive(Clone, Debug, Default)]
pub struct PodInfo {
    pub namespace: Box<str>,
    pub name: Box<str>,
    pub uid: Box<str>,
    /// Its resourceVersion, which events name.
    pub(crate) version: u64,
    /// That of its spec as it was seen; conditions tell it.
    pub(crate) generation: Option<i64>,
    /// Where it runs; empty while it waits.
    pub node_name: Box<str>,
    pub priority: i32,
    /// `preemptionPolicy` says so.
    pub(crate) never_preempts: bool,
    pub requests: Resources,
    /// CPU and memory as scoring counts them: containers without requests count with a default.
    pub scored: (i64, i64),
    pub host_ports: Vec<HostPort>,
    pub(crate) node_selector: BTreeMap<String, String>,
    pub(crate) node_affinity: Option<NodeAffinity>,
    pub(crate) tolerations: Vec<Toleration>,
    pub(crate) images: Vec<Box<str>>,
    pub(crate) gated: bool,
}

impl PodInfo {
    pub(crate) fn new(pod: &Pod) -> Self {
        let text = |s: &Option<String>| s.clone().unwrap_or_default().into_boxed_str();
        let spec = &pod.spec;
        let infeasible = pod.status.resize_is_infeasible();
        let of = |container: &Container, statuses: &[ContainerStatus]| {
            let asked = &container.resources.requests;
            match statuses.iter().find(|status| status.name == container.name) {
                Some(status) => counted(asked, &status.allocated_resources, status.resources.as_ref(), infeasible),
                None => Resources::of(asked),
            }
        };
        let containers: Vec<Resources> =
            spec.containers.iter().map(|c| of(c, &pod.status.container_statuses)).collect();
        let inits: Vec<(Resources, bool)> = spec
            .init_containers
            .iter()
            .map(|c| (of(c, &pod.status.init_container_statuses), c.restart_policy == "Always"))
            .collect();
        let (whole, overhead) = (&spec.resources.requests, Resources::of(&spec.overhead));
        let held = counted(whole, &pod.status.allocated_resources, pod.status.resources.as_ref(), infeasible);
        let requests = pod_requests(&containers, &inits, (whole, &held), &overhead);
        // Containers of a pod that asks for something as a whole share that.
        let (cpu, memory) = match whole.is_empty() {
            true => (DEFAULT_CPU_MILLI, DEFAULT_MEMORY),
            false => (
                if requests.cpu_milli == 0 { DEFAULT_CPU_MILLI } else { 0 },
                if requests.memory == 0 { DEFAULT_MEMORY } else { 0 },
            ),
        };
        let with_defaults = |r: &Resources| Resources {
            cpu_milli: if r.cpu_milli == 0 { cpu } else { r.cpu_milli },
            memory: if r.memory == 0 { memory } else { r.memory },
            ..Resources::default()
        };
        let scored = pod_requests(
            &containers.iter().map(with_defaults).collect::<Vec<_>>(),
            &inits.iter().map(|(r, s)| (with_defaults(r), *s)).collect::<Vec<_>>(),
            (whole, &held),
            &overhead,
        );
        let ports = spec.containers.iter().chain(spec.init_containers.iter().filter(|c| c.restart_policy == "Always"));
        let host_ports = ports
            .flat_map(|c| &c.ports)
            .filter(|p| p.host_port > 0)
            .map(|p| HostPort {
                ip: if p.host_ip.is_empty() { "0.0.0.0" } else { &p.host_ip }.into(),
                protocol: if p.protocol.is_empty() { "TCP" } else { &p.protocol }.into(),
                port: p.host_port,
            })
            .collect();
        PodInfo {
            namespace: text(&pod.metadata.namespace),
            name: text(&pod.metadata.name),
            uid: text(&pod.metadata.uid),
            version: pod.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0),
            generation: pod.metadata.generation,
            node_name: spec.node_name.clone().into(),
            priority: spec.priority,
            never_preempts: spec.preemption_policy == "Never",
            requests,
            scored: (scored.cpu_milli, scored.memory),
            host_ports,
            node_selector: spec.node_selector.clone(),
            node_affinity: spec.affinity.node_affinity.clone(),
            tolerations: spec.tolerations.clone(),
            images: spec.containers.iter().map(|c| c.image.clone().into()).collect(),
            gated: !spec.scheduling_gates.is_empty(),
        }
    }

    /// `namespace/name`
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// A node as plugins see it, and the pods on it.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    pub name: Box<str>,
    pub labels: BTreeMap<String, String>,
    pub unschedulable: bool,
    pub(crate) taints: Vec<Taint>,
    pub allocatable: Resources,
    pub max_pods: i64,
    /// Image name → size.
    pub(crate) images: BTreeMap<Box<str>, i64>,
    /// By uid.
    pub pods: BTreeMap<Box<str>, Arc<PodInfo>>,
    /// What the pods on it ask for, together.
    pub requested: Resources,
    pub(crate) scored: (i64, i64),
    /// Counted, as pods that finish may leave their port to the next before they are gone.
    pub(crate) ports: BTreeMap<HostPort, usize>,
    /// Raised at each change.
    pub generation: u64,
    /// Pods may be known before their node is.
    pub(crate) known: bool,
}

impl NodeInfo {
    /// Takes over what the API says of the node; the pods stay.
    pub(crate) fn set_node(&mut self, node: &Node) {
        self.name = node.metadata.name.clone().unwrap_or_default().into();
        self.labels = node.metadata.labels.clone().unwrap_or_default();
        self.unschedulable = node.spec.unschedulable;
        self.taints.clone_from(&node.spec.taints);
        self.allocatable = Resources::of(&node.status.allocatable);
        let pods = node.status.allocatable.get("pods").and_then(|q| api::Quantity::parse(q).ok());
        self.max_pods = pods.map_or(0, |q| q.value());
        self.images = node
            .status
            .images
            .iter()
            .flat_map(|i| i.names.iter().map(|n| (n.clone().into_boxed_str(), i.size_bytes)))
            .collect();
        self.known = true;
    }

    /// What filters would find without the pods below a priority. Images are left out, as no filter looks at them.
    pub(crate) fn without_below(&self, priority: i32) -> NodeInfo {
        let mut node = NodeInfo {
            name: self.name.clone(),
            labels: self.labels.clone(),
            unschedulable: self.unschedulable,
            taints: self.taints.clone(),
            allocatable: self.allocatable.clone(),
            max_pods: self.max_pods,
            generation: self.generation,
            known: self.known,
            ..NodeInfo::default()
        };
        self.pods.values().filter(|pod| pod.priority >= priority).for_each(|pod| node.add_pod(pod.clone()));
        node
    }

    pub(crate) fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.scored = (self.scored.0 + pod.scored.0, self.scored.1 + pod.scored.1);
        for port in &pod.host_ports {
            *self.ports.entry(port.clone()).or_insert(0) += 1;
        }
        self.pods.insert(pod.uid.clone(), pod);
    }

    pub(crate) fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let pod = self.pods.remove(uid)?;
        self.requested.subtract(&pod.requests);
        self.scored = (self.scored.0 - pod.scored.0, self.scored.1 - pod.scored.1);
        for port in &pod.host_ports {
            if let Some(count) = self.ports.get_mut(port) {
                *count -= 1;
                if *count == 0 {
                    self.ports.remove(port);
                }
            }
        }
        Some(pod)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn info(spec: Value, status: Value) -> PodInfo {
        let pod = json!({"metadata": {"name": "p"}, "spec": spec, "status": status});
        PodInfo::new(&serde_json::from_value(pod).expect("a pod"))
    }

    #[test]
    fn what_a_node_cannot_give_does_not_count() {
        let spec = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "50", "memory": "1Mi"}}}]});
        let counted = |reason: &str| {
            let status = json!({
                "conditions": [{"type": "PodResizePending", "status": "True", "reason": reason}],
                "containerStatuses": [{
                    "name": "c", "allocatedResources": {"cpu": "100m"},
                    "resources": {"requests": {"cpu": "200m", "memory": "2Mi"}},
                }],
            });
            let requests = info(spec.clone(), status).requests;
            (requests.cpu_milli, requests.memory)
        };
        assert_eq!(counted("Infeasible"), (200, 2 << 20));
        assert_eq!(counted("Deferred"), (50_000, 2 << 20), "it may have it some day");
        assert_eq!(info(spec, json!({})).requests.cpu_milli, 50_000);
        // The same of a pod as a whole.
        let whole = json!({"containers": [{"name": "c"}], "resources": {"requests": {"cpu": "50"}}});
        let status = json!({
            "conditions": [{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}],
            "allocatedResources": {"cpu": "1"}, "resources": {"requests": {"cpu": "2"}},
        });
        let pod = info(whole, status);
        assert_eq!((pod.requests.cpu_milli, pod.scored.0), (2_000, 2_000));
    }

    #[test]
    fn what_a_pod_asks_for_as_a_whole_takes_the_place_of_its_containers() {
        let requests = json!({"cpu": "1", "memory": "1Mi"});
        let mut spec =
            json!({"containers": [{"name": "c", "resources": {"requests": requests}}], "overhead": {"cpu": "1"}});
        spec["resources"] = json!({"requests": {"cpu": "50", "hugepages-2Mi": "4Mi"}});
        let pod = info(spec, json!({}));
        assert_eq!((pod.requests.cpu_milli, pod.requests.memory), (51_000, 1 << 20));
        assert_eq!(pod.requests.others.get("hugepages-2Mi"), Some(&(4 << 20)));
        assert_eq!(pod.scored, (51_000, 1 << 20));
        let whole = info(json!({"containers": [{}, {}], "resources": {"requests": {"cpu": "2"}}}), json!({}));
        assert_eq!(whole.scored, (2000, 2 * DEFAULT_MEMORY), "memory is nobody's yet");
    }
}
