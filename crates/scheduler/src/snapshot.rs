//! The snapshot: nodes and what runs on them, kept up to date event by event, so that a cycle copies nothing.
//!
//! Pods that were placed but are not yet seen as bound are assumed to be where they were placed.

use crate::objects::{Node, NodeInfo, PodInfo};
use std::collections::HashMap;
use std::sync::Arc;

/// All nodes. Cheap to clone: nodes are shared until they change.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// In the order of arrival; a node that goes leaves its place to the last.
    nodes: Vec<Arc<NodeInfo>>,
    by_name: HashMap<Box<str>, usize>,
    /// Pods of nodes that are not known (yet).
    homeless: HashMap<Box<str>, NodeInfo>,
    /// Pod uid → its node, and whether that is only assumed.
    placed: HashMap<Box<str>, (Box<str>, bool)>,
    generation: u64,
}

impl Snapshot {
    pub fn nodes(&self) -> &[Arc<NodeInfo>] {
        &self.nodes
    }
    pub fn get(&self, name: &str) -> Option<&Arc<NodeInfo>> {
        self.by_name.get(name).map(|i| &self.nodes[*i])
    }
    /// Whether a pod has its place, if only assumed.
    pub fn is_placed(&self, uid: &str) -> bool {
        self.placed.contains_key(uid)
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut NodeInfo)) {
        self.generation += 1;
        let generation = self.generation;
        let node = match self.by_name.get(name) {
            Some(i) => Arc::make_mut(&mut self.nodes[*i]),
            None => self.homeless.entry(name.into()).or_default(),
        };
        change(node);
        node.generation = generation;
        let empty = !node.known && node.pods.is_empty();
        if empty {
            self.homeless.remove(name);
        }
    }

    /// A node was added or changed.
    pub fn set_node(&mut self, node: &Node) {
        let name = node.metadata.name.clone().unwrap_or_default().into_boxed_str();
        if !self.by_name.contains_key(&name) {
            let info = self.homeless.remove(&name).unwrap_or_default();
            self.by_name.insert(name.clone(), self.nodes.len());
            self.nodes.push(Arc::new(info));
        }
        self.change(&name, |info| info.set_node(node));
    }

    /// A node is gone; its pods are kept in case it comes back.
    pub fn remove_node(&mut self, name: &str) {
        let Some(i) = self.by_name.remove(name) else { return };
        let info = self.nodes.swap_remove(i);
        if let Some(moved) = self.nodes.get(i) {
            self.by_name.insert(moved.name.clone(), i);
        }
        if !info.pods.is_empty() {
            let mut info = Arc::unwrap_or_clone(info);
            info.known = false;
            self.homeless.insert(name.into(), info);
        }
    }

    /// A pod is on its node: seen there, or placed there just now (`assumed`).
    pub fn add_pod(&mut self, pod: Arc<PodInfo>, assumed: bool) {
        self.remove_pod(&pod.uid);
        self.placed.insert(pod.uid.clone(), (pod.node_name.clone(), assumed));
        let node = pod.node_name.clone();
        self.change(&node, |info| info.add_pod(pod));
    }

    /// A pod is gone or finished, or its placing failed. Gives whether it was there.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        let Some((node, _)) = self.placed.remove(uid) else { return false };
        self.change(&node, |info| {
            info.remove_pod(uid);
        });
        true
    }

    /// Takes back an assumption, unless the pod was seen bound meanwhile.
    pub fn forget(&mut self, uid: &str) -> bool {
        if self.placed.get(uid).is_some_and(|(_, assumed)| *assumed) { self.remove_pod(uid) } else { false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::Resources;
    use proptest::prelude::*;

    fn pod(uid: u8, node: u8, cpu: i64) -> Arc<PodInfo> {
        let spec = serde_json::json!({
            "metadata": {"name": format!("p{uid}"), "namespace": "n", "uid": format!("u{uid}")},
            "spec": {"nodeName": format!("n{node}"), "containers": [{"image": "i", "resources": {"requests": {"cpu": format!("{cpu}m")}},
                "ports": [{"hostPort": 8000 + i32::from(uid % 3)}]}]},
        });
        let pod = serde_json::from_value(spec).unwrap_or_else(|e| panic!("{e}"));
        Arc::new(PodInfo::new(&pod))
    }

    fn node(i: u8) -> Node {
        Node {
            metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                name: Some(format!("n{i}")),
                ..Default::default()
            },
            ..Node::default()
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        SetNode(u8),
        RemoveNode(u8),
        AddPod(u8, u8, i64, bool),
        RemovePod(u8),
        Forget(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u8..4).prop_map(Step::SetNode),
            (0u8..4).prop_map(Step::RemoveNode),
            (0u8..8, 0u8..4, 1i64..500, any::<bool>()).prop_map(|(u, n, c, a)| Step::AddPod(u, n, c, a)),
            (0u8..8).prop_map(Step::RemovePod),
            (0u8..8).prop_map(Step::Forget),
        ]
    }

    proptest! {
        /// What is kept incrementally is what building it anew from the pods gives.
        #[test]
        fn incremental_is_as_rebuilt(steps in proptest::collection::vec(step(), 0..60)) {
            let mut snapshot = Snapshot::default();
            let mut model: HashMap<u8, (Arc<PodInfo>, bool)> = HashMap::new();
            let mut nodes = std::collections::BTreeSet::new();
            for step in steps {
                match step {
                    Step::SetNode(n) => { nodes.insert(n); snapshot.set_node(&node(n)); }
                    Step::RemoveNode(n) => { nodes.remove(&n); snapshot.remove_node(&format!("n{n}")); }
                    Step::AddPod(u, n, c, assumed) => {
                        let pod = pod(u, n, c);
                        model.insert(u, (pod.clone(), assumed));
                        snapshot.add_pod(pod, assumed);
                    }
                    Step::RemovePod(u) => { prop_assert_eq!(snapshot.remove_pod(&format!("u{u}")), model.remove(&u).is_some()); }
                    Step::Forget(u) => {
                        let assumed = model.get(&u).is_some_and(|(_, a)| *a);
                        prop_assert_eq!(snapshot.forget(&format!("u{u}")), assumed);
                        if assumed { model.remove(&u); }
                    }
                }
            }
            prop_assert_eq!(snapshot.nodes().len(), nodes.len());
            for n in nodes {
                let name = format!("n{n}");
                let info = snapshot.get(&name).ok_or_else(|| TestCaseError::fail("a node is missing"))?;
                prop_assert_eq!(&*info.name, name.as_str());
                let mut requested = Resources::default();
                let mut ports = 0;
                let mut count = 0;
                for (pod, _) in model.values().filter(|(p, _)| *p.node_name == *name) {
                    requested.add(&pod.requests);
                    ports += pod.host_ports.len();
                    count += 1;
                }
                prop_assert_eq!(&info.requested, &requested);
                prop_assert_eq!(info.pods.len(), count);
                prop_assert_eq!(info.ports.values().sum::<usize>(), ports);
            }
        }
    }
}
