//! Which objects have to do with which node, kept ready from pods, volumes, attachments and slices.
//!
//! What a pod refers to is read out of it when its node first asks, not when it is written: many pods are written, and a node asks
//! when it starts one.

use super::references::{self, Kind};
use schema::Map;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A reference as it is filed: kind, namespace, name.
type Key = (Kind, Arc<str>, String);

#[derive(Debug)]
struct Pod {
    node: String,
    uid: String,
    /// `None`: not read yet.
    refers_to: Option<Vec<Key>>,
}

#[derive(Debug, Default)]
struct Volume {
    /// Namespace and name of its claim.
    claim: Option<(String, String)>,
    secrets: Vec<(String, String)>,
}

/// The graph of the node authorizer.
#[derive(Debug, Default)]
pub struct Graph {
    pods: HashMap<String, HashMap<String, Pod>>,
    /// By node: what its pods refer to, and how many of them do.
    reachable: HashMap<String, HashMap<Key, u32>>,
    /// By node: namespace and name of its pods that are not read yet.
    unread: HashMap<String, HashSet<(String, String)>>,
    volumes: HashMap<String, Volume>,
    /// By namespace and name of a secret: the volumes that name it.
    volumes_by_secret: HashMap<(String, String), Vec<String>>,
    attachments: HashMap<String, String>,
    slices: HashMap<String, String>,
    /// By namespace and name of a request for a pod's certificate: its node.
    requests: HashMap<(String, String), String>,
}

impl Graph {
    /// Takes note of a pod that is to be read when its node asks; one without a node has to do with none.
    pub fn note_pod(&mut self, namespace: &str, name: &str, node: &str, uid: &str) {
        self.remove_pod(namespace, name);
        if node.is_empty() {
            return;
        }
        let entry = Pod { node: node.to_owned(), uid: uid.to_owned(), refers_to: None };
        self.pods.entry(namespace.to_owned()).or_default().insert(name.to_owned(), entry);
        self.unread.entry(node.to_owned()).or_default().insert((namespace.to_owned(), name.to_owned()));
    }

    /// Whether pods of the node are not read yet.
    pub fn has_unread(&self, node: &str) -> bool {
        self.unread.contains_key(node)
    }

    /// Reads the pods of the node that are not read yet: `get` gives the pod of a namespace and name as it is now. One that it
    /// does not give refers to nothing.
    pub fn read(&mut self, node: &str, get: impl Fn(&str, &str) -> Option<Arc<Map>>) {
        for (namespace, name) in self.unread.remove(node).into_iter().flatten() {
            match get(&namespace, &name) {
                Some(pod) => self.put_pod(&pod),
                None => {
                    if let Some(pod) = self.pods.get_mut(&namespace).and_then(|pods| pods.get_mut(&name)) {
                        pod.refers_to = Some(Vec::new());
                    }
                }
            }
        }
    }

    /// Takes in a pod; one without a node has to do with none.
    pub fn put_pod(&mut self, pod: &Map) {
        let (namespace, name) = (pod.str_at(&["metadata", "namespace"]), pod.str_at(&["metadata", "name"]));
        let (node, uid) = (pod.str_at(&["spec", "nodeName"]), pod.str_at(&["metadata", "uid"]));
        if node.is_empty() {
            self.remove_pod(namespace, name);
            return;
        }
        let place: Arc<str> = namespace.into();
        let mut refers_to: Vec<Key> =
            references::of_pod(pod).into_iter().map(|(kind, name)| (kind, place.clone(), name.to_owned())).collect();
        if !refers_to.is_empty() {
            refers_to.extend(references::ephemeral_claims(pod).into_iter().map(|c| (Kind::Claim, place.clone(), c)));
        }
        refers_to.sort_unstable();
        refers_to.dedup();
        let known = self.pods.get(namespace).and_then(|pods| pods.get(name));
        if known.is_some_and(|p| p.node == node && p.uid == uid && p.refers_to.as_ref() == Some(&refers_to)) {
            return;
        }
        self.remove_pod(namespace, name);
        let counts = self.reachable.entry(node.to_owned()).or_default();
        for key in &refers_to {
            *counts.entry(key.clone()).or_default() += 1;
        }
        let entry = Pod { node: node.to_owned(), uid: uid.to_owned(), refers_to: Some(refers_to) };
        self.pods.entry(namespace.to_owned()).or_default().insert(name.to_owned(), entry);
    }

    pub fn remove_pod(&mut self, namespace: &str, name: &str) {
        let Some(pods) = self.pods.get_mut(namespace) else { return };
        let Some(pod) = pods.remove(name) else { return };
        if pods.is_empty() {
            self.pods.remove(namespace);
        }
        let Some(refers_to) = pod.refers_to else {
            if let Some(unread) = self.unread.get_mut(&pod.node) {
                unread.remove(&(namespace.to_owned(), name.to_owned()));
                if unread.is_empty() {
                    self.unread.remove(&pod.node);
                }
            }
            return;
        };
        let Some(counts) = self.reachable.get_mut(&pod.node) else { return };
        for key in &refers_to {
            if let Some(count) = counts.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(key);
                }
            }
        }
        if counts.is_empty() {
            self.reachable.remove(&pod.node);
        }
    }

    /// Takes in a PersistentVolume.
    pub fn put_volume(&mut self, volume: &Map) {
        let claim = |key| volume.str_at(&["spec", "claimRef", key]).to_owned();
        let claim = Some((claim("namespace"), claim("name"))).filter(|(_, name)| !name.is_empty());
        let name = volume.str_at(&["metadata", "name"]);
        self.remove_volume(name);
        let entry = Volume { claim, secrets: references::of_volume(volume) };
        for secret in &entry.secrets {
            self.volumes_by_secret.entry(secret.clone()).or_default().push(name.to_owned());
        }
        self.volumes.insert(name.to_owned(), entry);
    }

    pub fn remove_volume(&mut self, name: &str) {
        let Some(volume) = self.volumes.remove(name) else { return };
        for secret in &volume.secrets {
            if let Some(names) = self.volumes_by_secret.get_mut(secret) {
                names.retain(|n| n != name);
                if names.is_empty() {
                    self.volumes_by_secret.remove(secret);
                }
            }
        }
    }

    /// Takes in a VolumeAttachment.
    pub fn put_attachment(&mut self, attachment: &Map) {
        let node = attachment.str_at(&["spec", "nodeName"]).to_owned();
        self.attachments.insert(attachment.str_at(&["metadata", "name"]).to_owned(), node);
    }

    pub fn remove_attachment(&mut self, name: &str) {
        self.attachments.remove(name);
    }

    /// Takes in a ResourceSlice.
    pub fn put_slice(&mut self, slice: &Map) {
        let node = slice.str_at(&["spec", "nodeName"]).to_owned();
        self.slices.insert(slice.str_at(&["metadata", "name"]).to_owned(), node);
    }

    pub fn remove_slice(&mut self, name: &str) {
        self.slices.remove(name);
    }

    /// Takes in a PodCertificateRequest.
    pub fn put_request(&mut self, request: &Map) {
        let field = |key| request.str_at(&["metadata", key]).to_owned();
        let node = request.str_at(&["spec", "nodeName"]).to_owned();
        self.requests.insert((field("namespace"), field("name")), node);
    }

    pub fn remove_request(&mut self, namespace: &str, name: &str) {
        self.requests.remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// Whether a pod of the node refers to the object.
    pub fn refers(&self, node: &str, kind: Kind, namespace: &str, name: &str) -> bool {
        let Some(counts) = self.reachable.get(node) else { return false };
        counts.contains_key(&(kind, namespace.into(), name.to_owned()))
    }

    /// Whether the node may read the secret: a pod of it, or a volume that a pod of it claims, refers to it.
    pub fn reads_secret(&self, node: &str, namespace: &str, name: &str) -> bool {
        if self.refers(node, Kind::Secret, namespace, name) {
            return true;
        }
        let volumes = self.volumes_by_secret.get(&(namespace.to_owned(), name.to_owned()));
        volumes.into_iter().flatten().any(|volume| self.reads_volume(node, volume))
    }

    /// Whether a pod of the node claims the volume.
    pub fn reads_volume(&self, node: &str, name: &str) -> bool {
        self.volumes.get(name).is_some_and(|volume| self.claims(node, volume))
    }

    fn claims(&self, node: &str, volume: &Volume) -> bool {
        volume.claim.as_ref().is_some_and(|(namespace, name)| self.refers(node, Kind::Claim, namespace, name))
    }

    pub fn runs_pod(&self, node: &str, namespace: &str, name: &str) -> bool {
        self.pods.get(namespace).and_then(|pods| pods.get(name)).is_some_and(|pod| pod.node == node)
    }

    pub fn has_attachment(&self, node: &str, name: &str) -> bool {
        self.attachments.get(name).is_some_and(|n| n == node)
    }

    pub fn has_slice(&self, node: &str, name: &str) -> bool {
        self.slices.get(name).is_some_and(|n| n == node)
    }

    pub fn has_request(&self, node: &str, namespace: &str, name: &str) -> bool {
        self.requests.get(&(namespace.to_owned(), name.to_owned())).is_some_and(|n| n == node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::tree;

    fn map(text: &str) -> Map {
        tree(text).as_map().cloned().expect("a map")
    }

    fn pod(node: &str, spec: &str) -> Map {
        map(&format!("{{metadata: {{name: p, namespace: a, uid: '1'}}, spec: {{nodeName: '{node}', {spec}}}}}"))
    }

    #[test]
    fn a_node_reaches_what_its_pods_name() {
        let mut graph = Graph::default();
        let spec = "serviceAccountName: sa, imagePullSecrets: [{name: pull}], \
            containers: [{env: [{valueFrom: {secretKeyRef: {name: env}}}], envFrom: [{configMapRef: {name: all}}]}], \
            volumes: [{name: v, persistentVolumeClaim: {claimName: data}}, {name: e, ephemeral: {}}, \
              {projected: {sources: [{configMap: {name: kube-root-ca.crt}}]}}]";
        graph.put_pod(&pod("n1", spec));
        for secret in ["pull", "env"] {
            assert!(graph.reads_secret("n1", "a", secret), "{secret}");
            assert!(!graph.reads_secret("n2", "a", secret));
            assert!(!graph.reads_secret("n1", "b", secret));
        }
        for (kind, name) in [
            (Kind::ConfigMap, "all"),
            (Kind::ConfigMap, "kube-root-ca.crt"),
            (Kind::Claim, "data"),
            (Kind::Claim, "p-e"),
            (Kind::ServiceAccount, "sa"),
        ] {
            assert!(graph.refers("n1", kind, "a", name), "{name}");
        }
        assert!(graph.runs_pod("n1", "a", "p") && !graph.runs_pod("n2", "a", "p"));
        graph.remove_pod("a", "p");
        assert!(graph.reachable.is_empty() && graph.pods.is_empty());
    }

    #[test]
    fn a_pod_is_read_when_its_node_asks() {
        let mut graph = Graph::default();
        graph.note_pod("a", "p", "n1", "1");
        assert!(graph.runs_pod("n1", "a", "p") && graph.has_unread("n1") && !graph.has_unread("n2"));
        let stored = Arc::new(pod("n1", "volumes: [{secret: {secretName: x}}]"));
        graph.read("n1", |namespace, name| ((namespace, name) == ("a", "p")).then(|| stored.clone()));
        assert!(graph.reads_secret("n1", "a", "x") && !graph.has_unread("n1"));
        // Changed, it is read anew; gone before that, it is not missed.
        graph.note_pod("a", "p", "n1", "1");
        assert!(!graph.reads_secret("n1", "a", "x") && graph.has_unread("n1"));
        graph.read("n1", |_, _| None);
        assert!(!graph.reads_secret("n1", "a", "x") && graph.runs_pod("n1", "a", "p"));
        graph.note_pod("a", "p", "n1", "1");
        graph.remove_pod("a", "p");
        assert!(graph.unread.is_empty() && graph.pods.is_empty() && graph.reachable.is_empty());
        graph.note_pod("a", "p", "", "1");
        assert!(graph.unread.is_empty() && graph.pods.is_empty());
    }

    #[test]
    fn a_volumes_secrets_are_reached_through_its_claim() {
        let mut graph = Graph::default();
        graph.put_volume(&map(
            "{metadata: {name: pv}, spec: {claimRef: {namespace: a, name: data}, csi: {nodeStageSecretRef: {namespace: s, name: key}}}}",
        ));
        assert!(!graph.reads_secret("n1", "s", "key"));
        graph.put_pod(&pod("n1", "volumes: [{persistentVolumeClaim: {claimName: data}}]"));
        assert!(graph.reads_secret("n1", "s", "key") && graph.reads_volume("n1", "pv"));
        assert!(!graph.reads_secret("n2", "s", "key") && !graph.reads_volume("n2", "pv"));
        graph.remove_volume("pv");
        assert!(!graph.reads_secret("n1", "s", "key") && graph.volumes_by_secret.is_empty());
    }

    #[test]
    fn a_mirror_pod_opens_nothing() {
        let mut graph = Graph::default();
        let mut mirror = pod("n1", "volumes: [{secret: {secretName: x}}]");
        mirror.set_at(&["metadata", "annotations", references::MIRROR], "1");
        graph.put_pod(&mirror);
        assert!(!graph.reads_secret("n1", "a", "x"));
        assert!(graph.runs_pod("n1", "a", "p"));
    }

    #[test]
    fn a_reference_shared_by_two_pods_lasts_until_both_are_gone() {
        let mut graph = Graph::default();
        let first = pod("n1", "volumes: [{secret: {secretName: x}}]");
        let mut second = first.clone();
        second.set_at(&["metadata", "name"], "q");
        graph.put_pod(&first);
        graph.put_pod(&second);
        graph.put_pod(&second);
        graph.remove_pod("a", "p");
        assert!(graph.reads_secret("n1", "a", "x"));
        graph.remove_pod("a", "q");
        assert!(!graph.reads_secret("n1", "a", "x"));
    }
}
