//! Authorization of nodes: a kubelet reads what the pods bound to it refer to, and writes itself.

pub mod graph;
pub mod references;

use super::rbac::{self, rule::PolicyRule};
use super::{Attributes, Authorizer, Decision, Rules};
use crate::lookup::{self, Lookup};
use crate::user::UserInfo;
use api::FieldSelector;
use api::features::Gates;
use async_trait::async_trait;
use graph::Graph;
use references::Kind;
use schema::Map;
use std::sync::{Arc, PoisonError, RwLock};

const LEASES: &str = "kube-node-lease";

/// The node that a user is, if it is one: `system:node:NAME` of `system:nodes`.
pub fn node_of(user: &UserInfo) -> Option<&str> {
    user.name.strip_prefix("system:node:").filter(|_| user.in_group("system:nodes"))
}

/// The node authorizer.
pub struct Node {
    graph: RwLock<Graph>,
    objects: Arc<dyn Lookup>,
    /// What every node may do, whatever runs on it.
    rules: Vec<PolicyRule>,
    /// Whether nodes ask for certificates of their pods.
    certificates: bool,
}

impl Node {
    /// `rules` are those of the role `system:node`; pods are read out of `objects`.
    pub fn new(rules: Vec<PolicyRule>, objects: Arc<dyn Lookup>, gates: &Gates) -> Self {
        let certificates = gates.enabled("PodCertificateRequest");
        Node { graph: RwLock::default(), objects, rules, certificates }
    }

    /// Takes note of a stored pod without looking into it: it is read when its node asks for something. `node` is the one that it
    /// is bound to, empty for none.
    pub fn note_pod(&self, namespace: &str, name: &str, node: &str, uid: &str) {
        self.graph.write().unwrap_or_else(PoisonError::into_inner).note_pod(namespace, name, node, uid);
    }

    /// A pod as memory has it.
    fn pod_now(&self, namespace: &str, name: &str) -> Option<Arc<Map>> {
        self.objects.get(lookup::PODS, namespace, name).unwrap_or_else(|error| {
            // What cannot be read gives nothing.
            tracing::error!(namespace, name, %error, "a stored pod cannot be read");
            None
        })
    }

    /// Takes in a stored pod, persistent volume, volume attachment, resource slice or request for a certificate: as it is now, or that it is gone.
    pub fn apply(&self, plural: &str, namespace: &str, name: &str, object: Option<&Map>) {
        let mut graph = self.graph.write().unwrap_or_else(PoisonError::into_inner);
        match (plural, object) {
            ("pods", Some(pod)) => graph.put_pod(pod),
            ("pods", None) => graph.remove_pod(namespace, name),
            ("persistentvolumes", Some(volume)) => graph.put_volume(volume),
            ("persistentvolumes", None) => graph.remove_volume(name),
            ("volumeattachments", Some(attachment)) => graph.put_attachment(attachment),
            ("volumeattachments", None) => graph.remove_attachment(name),
            ("resourceslices", Some(slice)) => graph.put_slice(slice),
            ("resourceslices", None) => graph.remove_slice(name),
            ("podcertificaterequests", Some(request)) => graph.put_request(request),
            ("podcertificaterequests", None) => graph.remove_request(namespace, name),
            _ => {}
        }
    }

    /// Decides for a node; refusals carry upstream's reason.
    fn decide(&self, node: &str, a: &Attributes<'_>) -> Result<(), String> {
        let reads = |kind: Kind| self.read_namespaced(node, kind, a);
        match (a.group, a.resource) {
            ("", "secrets") => reads(Kind::Secret),
            ("", "configmaps") => reads(Kind::ConfigMap),
            ("", "persistentvolumeclaims") if a.subresource == "status" => match a.verb {
                "update" | "patch" => self.related(node, a, |g| g.refers(node, Kind::Claim, a.namespace, a.name)),
                _ => Err("can only get/update/patch this type".into()),
            },
            ("", "persistentvolumeclaims") => self.get(node, a, |g| g.refers(node, Kind::Claim, a.namespace, a.name)),
            ("", "persistentvolumes") => self.get(node, a, |g| g.reads_volume(node, a.name)),
            ("resource.k8s.io", "resourceclaims") => {
                self.get(node, a, |g| g.refers(node, Kind::ResourceClaim, a.namespace, a.name))
            }
            ("storage.k8s.io", "volumeattachments") => self.get(node, a, |g| g.has_attachment(node, a.name)),
            ("", "serviceaccounts") => self.service_account(node, a),
            ("coordination.k8s.io", "leases") => lease(node, a),
            ("storage.k8s.io", "csinodes") => csi_node(node, a),
            ("resource.k8s.io", "resourceslices") => self.resource_slice(node, a),
            ("certificates.k8s.io", "podcertificaterequests") if self.certificates => self.certificate(node, a),
            ("", "nodes") => own_node(node, a),
            ("", "pods") => self.pod(node, a),
            _ if self.rules.iter().any(|r| r.allows(rbac::ask(a))) => Ok(()),
            _ => Err(String::new()),
        }
    }

    fn related(&self, node: &str, a: &Attributes<'_>, has: impl FnOnce(&Graph) -> bool) -> Result<(), String> {
        if a.name.is_empty() {
            return Err("No Object name found".into());
        }
        let graph = self.graph.read().unwrap_or_else(PoisonError::into_inner);
        let has = if graph.has_unread(node) {
            drop(graph);
            let mut graph = self.graph.write().unwrap_or_else(PoisonError::into_inner);
            graph.read(node, |namespace, name| self.pod_now(namespace, name));
            // Asked before the lock is given up: a pod that is noted anew just then would refer to nothing.
            has(&graph)
        } else {
            has(&graph)
        };
        if has { Ok(()) } else { Err(format!("no relationship found between node '{node}' and this object")) }
    }

    fn get(&self, node: &str, a: &Attributes<'_>, has: impl FnOnce(&Graph) -> bool) -> Result<(), String> {
        if a.verb != "get" {
            return Err("can only get individual resources of this type".into());
        }
        if !a.subresource.is_empty() {
            return Err("cannot get subresource".into());
        }
        self.related(node, a, has)
    }

    fn read_namespaced(&self, node: &str, kind: Kind, a: &Attributes<'_>) -> Result<(), String> {
        if !a.read_only() {
            return Err("can only read resources of this type".into());
        }
        if !a.subresource.is_empty() {
            return Err("cannot read subresource".into());
        }
        if a.namespace.is_empty() {
            return Err("can only read namespaced object of this type".into());
        }
        self.related(node, a, |graph| match kind {
            Kind::Secret => graph.reads_secret(node, a.namespace, a.name),
            kind => graph.refers(node, kind, a.namespace, a.name),
        })
    }

    fn service_account(&self, node: &str, a: &Attributes<'_>) -> Result<(), String> {
        if a.verb == "get" && a.subresource.is_empty() {
            return self.related(node, a, |g| g.refers(node, Kind::ServiceAccount, a.namespace, a.name));
        }
        if a.verb != "create" || a.name.is_empty() {
            return Err("can only create tokens for individual service accounts".into());
        }
        if a.subresource != "token" {
            return Err("can only create token subresource of serviceaccount".into());
        }
        self.related(node, a, |g| g.refers(node, Kind::ServiceAccount, a.namespace, a.name))
    }

    fn resource_slice(&self, node: &str, a: &Attributes<'_>) -> Result<(), String> {
        if !a.subresource.is_empty() {
            return Err("cannot authorize ResourceSlice subresources".into());
        }
        match a.verb {
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => self.related(node, a, |g| g.has_slice(node, a.name)),
            "watch" | "list" | "deletecollection" if selects(a, "spec.nodeName", node) || selects(a, "nodeName", node) => Ok(()),
            "watch" | "list" | "deletecollection" => {
                Err("can only list/watch/deletecollection resourceslices with nodeName field selector".into())
            }
            _ => Err("only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection".into()),
        }
    }

    fn certificate(&self, node: &str, a: &Attributes<'_>) -> Result<(), String> {
        if !a.subresource.is_empty() {
            return Err(format!("nodes may not access the {} subresource of PodCertificateRequests", a.subresource));
        }
        match a.verb {
            // Admission limits these to pods that run on it.
            "create" => Ok(()),
            "get" => self.related(node, a, |g| g.has_request(node, a.namespace, a.name)),
            "list" | "watch" if selects(a, "spec.nodeName", node) => Ok(()),
            "list" | "watch" => Err("can only list/watch podcertificaterequests with nodeName field selector".into()),
            verb => Err(format!("nodes may not {verb} podcertificaterequests")),
        }
    }

    fn pod(&self, node: &str, a: &Attributes<'_>) -> Result<(), String> {
        let runs = |graph: &Graph| graph.runs_pod(node, a.namespace, a.name);
        match (a.subresource, a.verb) {
            ("", "get") => self.related(node, a, runs),
            ("", "list" | "watch") => {
                if selects(a, "spec.nodeName", node) {
                    Ok(())
                } else if a.name.is_empty() {
                    Err("can only list/watch pods with spec.nodeName field selector".into())
                } else {
                    self.related(node, a, runs)
                }
            }
            // Admission limits these to mirror pods of its own, and to pods bound to it.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => Err(String::new()),
        }
    }
}

/// Whether a field selector asks for nothing but what belongs to the node.
fn selects(a: &Attributes<'_>, field: &str, node: &str) -> bool {
    FieldSelector::parse(a.field_selector).is_ok_and(|s| s.exact(field) == Some(node))
}

fn lease(node: &str, a: &Attributes<'_>) -> Result<(), String> {
    if !matches!(a.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Err("can only get, create, update, patch, or delete a node lease".into());
    }
    if a.namespace != LEASES {
        return Err(format!("can only access leases in the {LEASES:?} system namespace"));
    }
    // A create does not tell the name here; admission checks it.
    if a.verb != "create" && a.name != node {
        return Err("can only access node lease with the same name as the requesting node".into());
    }
    Ok(())
}

fn csi_node(node: &str, a: &Attributes<'_>) -> Result<(), String> {
    if !matches!(a.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Err("can only get, create, update, patch, or delete a CSINode".into());
    }
    if !a.subresource.is_empty() {
        return Err("cannot authorize CSINode subresources".into());
    }
    if a.verb != "create" && a.name != node {
        return Err("can only access CSINode with the same name as the requesting node".into());
    }
    Ok(())
}

fn own_node(node: &str, a: &Attributes<'_>) -> Result<(), String> {
    match (a.subresource, a.verb, a.name) {
        // Admission limits writes to the node's own object.
        ("", "create" | "update" | "patch", _) | ("status", "update" | "patch", _) => Ok(()),
        ("", "get" | "list" | "watch", name) if name == node => Ok(()),
        ("", "get" | "list" | "watch", "") => {
            Err(format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch", name) => {
            Err(format!("node '{node}' cannot read '{name}', only its own Node object"))
        }
        _ => Err(String::new()),
    }
}

#[async_trait]
impl Authorizer for Node {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let Some(node) = node_of(attributes.user) else { return Decision::NoOpinion(String::new()) };
        if node.is_empty() {
            return Decision::NoOpinion(format!("unknown node for user {:?}", attributes.user.name));
        }
        let decided = if attributes.is_resource {
            self.decide(node, attributes)
        } else if self.rules.iter().any(|r| r.allows(rbac::ask(attributes))) {
            Ok(())
        } else {
            Err(String::new())
        };
        match decided {
            Ok(()) => Decision::Allow(String::new()),
            Err(reason) => Decision::NoOpinion(reason),
        }
    }

    async fn rules_for(&self, user: &UserInfo, _namespace: &str) -> Rules {
        match node_of(user) {
            Some(_) => Rules {
                incomplete: true,
                error: "node authorizer does not support user rule resolution".into(),
                ..Rules::default()
            },
            None => Rules::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::RequestInfo;
    use crate::test_support::{Held, map};

    async fn decide(node: &Node, method: &str, target: &str) -> Decision {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let info = RequestInfo::parse(method, path, query).expect("a path");
        let user = UserInfo::new("system:node:n1", ["system:nodes"]);
        node.authorize(&Attributes::of(&user, &info)).await
    }

    fn node() -> Node {
        let rule = map("{verbs: [get], apiGroups: [''], resources: [services]}");
        let pod = map(
            "{metadata: {namespace: a, name: p, uid: u}, spec: {nodeName: n1, serviceAccountName: sa, volumes: [{secret: {secretName: s}}]}}",
        );
        let objects = Held::default();
        objects.put(lookup::PODS, pod);
        let gates: api::features::Asked = "PodCertificateRequest=true".parse().expect("a gate");
        let gates = gates.gates().expect("a gate").0;
        let node = Node::new(vec![PolicyRule::from_map(&rule)], Arc::new(objects), &gates);
        for (name, of) in [("r", "n1"), ("s", "n2")] {
            let request = map(&format!("{{metadata: {{namespace: a, name: {name}}}, spec: {{nodeName: {of}}}}}"));
            node.apply("podcertificaterequests", "a", name, Some(&request));
        }
        node.note_pod("a", "p", "n1", "u");
        node
    }

    #[tokio::test]
    async fn a_pod_that_is_gone_gives_nothing() {
        let node = node();
        assert!(decide(&node, "GET", "/api/v1/namespaces/a/secrets/s").await.allowed());
        node.apply("pods", "a", "p", None);
        assert!(!decide(&node, "GET", "/api/v1/namespaces/a/secrets/s").await.allowed());
    }

    #[tokio::test]
    async fn a_node_reads_what_its_pods_refer_to_and_nothing_else() {
        let node = node();
        for (method, target) in [
            ("GET", "/api/v1/namespaces/a/secrets/s"),
            ("GET", "/api/v1/namespaces/a/secrets?watch=1&fieldSelector=metadata.name%3Ds"),
            ("GET", "/api/v1/namespaces/a/pods/p"),
            ("GET", "/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn1"),
            ("POST", "/api/v1/namespaces/a/serviceaccounts/sa/token"),
            ("PATCH", "/api/v1/namespaces/a/pods/p/status"),
            ("GET", "/api/v1/nodes/n1"),
            ("GET", "/api/v1/nodes?watch=1&fieldSelector=metadata.name%3Dn1"),
            ("POST", "/api/v1/nodes"),
            ("PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1"),
            ("GET", "/api/v1/namespaces/a/services/x"),
            ("POST", "/apis/certificates.k8s.io/v1beta1/namespaces/a/podcertificaterequests"),
            ("GET", "/apis/certificates.k8s.io/v1beta1/namespaces/a/podcertificaterequests/r"),
            (
                "GET",
                "/apis/certificates.k8s.io/v1beta1/podcertificaterequests?watch=1&fieldSelector=spec.nodeName%3Dn1",
            ),
        ] {
            assert!(decide(&node, method, target).await.allowed(), "{method} {target}");
        }
        for (method, target, reason) in [
            ("GET", "/api/v1/namespaces/a/secrets/t", "no relationship found between node 'n1' and this object"),
            ("GET", "/api/v1/namespaces/a/secrets", "No Object name found"),
            ("GET", "/api/v1/secrets?fieldSelector=metadata.name%3Ds", "can only read namespaced object of this type"),
            ("DELETE", "/api/v1/namespaces/a/secrets/s", "can only read resources of this type"),
            ("GET", "/api/v1/pods", "can only list/watch pods with spec.nodeName field selector"),
            (
                "GET",
                "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2",
                "can only list/watch pods with spec.nodeName field selector",
            ),
            ("GET", "/api/v1/nodes/n2", "node 'n1' cannot read 'n2', only its own Node object"),
            (
                "POST",
                "/api/v1/namespaces/a/serviceaccounts/other/token",
                "no relationship found between node 'n1' and this object",
            ),
            (
                "PUT",
                "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2",
                "can only access node lease with the same name as the requesting node",
            ),
            (
                "GET",
                "/apis/certificates.k8s.io/v1beta1/namespaces/a/podcertificaterequests/s",
                "no relationship found between node 'n1' and this object",
            ),
            (
                "GET",
                "/apis/certificates.k8s.io/v1beta1/podcertificaterequests",
                "can only list/watch podcertificaterequests with nodeName field selector",
            ),
            (
                "PUT",
                "/apis/certificates.k8s.io/v1beta1/namespaces/a/podcertificaterequests/r/status",
                "nodes may not access the status subresource of PodCertificateRequests",
            ),
            (
                "DELETE",
                "/apis/certificates.k8s.io/v1beta1/namespaces/a/podcertificaterequests/r",
                "nodes may not delete podcertificaterequests",
            ),
        ] {
            assert_eq!(decide(&node, method, target).await, Decision::NoOpinion(reason.into()), "{method} {target}");
        }
    }

    #[tokio::test]
    async fn others_are_not_its_business() {
        let user = UserInfo::new("system:node:n1", ["other"]);
        let info = RequestInfo::parse("GET", "/api/v1/nodes/n1", "").expect("a path");
        assert_eq!(node().authorize(&Attributes::of(&user, &info)).await, Decision::NoOpinion(String::new()));
    }
}
