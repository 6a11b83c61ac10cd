//! NodeRestriction: what a node may write is limited to itself and the pods bound to it.
//!
//! The checks are pure functions that give upstream's words of refusal.

use super::certificates::{KUBELET_SIGNERS, common_name};
use super::{Admission, Attributes, Operation, Sides, service_account, token_audience, walk};
use crate::authz::Authorizer;
use crate::authz::node;
use crate::authz::node::references::{self, Kind, MIRROR};
use crate::lookup::{Lookup, NODES, PODS, SERVICE_ACCOUNTS, Stored};
use api::features::Gates;
use api::{GroupResource, Reason, Status};
use async_trait::async_trait;
use schema::{Map, Value};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Labels of the kubernetes.io and k8s.io domains that a kubelet may set on its node.
const OWN_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];
const OWN_DOMAINS: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];
const RESTRICTED: &str = "node-restriction.kubernetes.io";

/// Creating a pod: only a mirror pod of its own, which refers to nothing.
pub(super) fn pod_create(node: &str, pod: &Map, node_uid: Option<&str>) -> Result<(), String> {
    if !service_account::is_mirror(pod) {
        return Err(format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"));
    }
    if pod.str_at(&["spec", "nodeName"]) != node {
        return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let owners: Vec<&Map> = walk::items(pod, &["metadata", "ownerReferences"]).collect();
    let owner = match owners.as_slice() {
        [one] => *one,
        [] => return Err(format!("node {node:?} can only create pods with an owner reference set to itself")),
        _ => return Err(format!("node {node:?} can only create pods with a single owner reference set to itself")),
    };
    if owner.str_at(&["apiVersion"]) != "v1" || owner.str_at(&["kind"]) != "Node" || owner.str_at(&["name"]) != node {
        return Err(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    let flag = |key| owner.get(key).and_then(Value::as_bool).unwrap_or(false);
    if !flag("controller") {
        return Err(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
    }
    if flag("blockOwnerDeletion") {
        return Err(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let claimed = owner.str_at(&["uid"]);
    if node_uid.is_some_and(|uid| uid != claimed) {
        return Err(format!("node {node} UID mismatch: expected {claimed} got {}", node_uid.unwrap_or_default()));
    }
    for (kind, what) in
        [(Kind::ServiceAccount, "a service account"), (Kind::Secret, "secrets"), (Kind::ConfigMap, "configmaps")]
    {
        if references::of_any_pod(pod).iter().any(|(k, _)| *k == kind) {
            return Err(format!("node {node:?} can not create pods that reference {what}"));
        }
    }
    let trust_bundle = walk::items(pod, &["spec", "volumes"])
        .flat_map(|v| walk::items(v, &["projected", "sources"]))
        .any(|s| s.contains_key("clusterTrustBundle"));
    if trust_bundle {
        return Err(format!("node {node:?} can not create pods that reference clustertrustbundles"));
    }
    for (kind, what) in [(Kind::Claim, "persistentvolumeclaims"), (Kind::ResourceClaim, "resourceclaims")] {
        if references::of_any_pod(pod).iter().any(|(k, _)| *k == kind) {
            return Err(format!("node {node:?} can not create pods that reference {what}"));
        }
    }
    Ok(())
}

/// Writing a pod's status.
pub(super) fn pod_status(node: &str, before: &Map, after: &Map) -> Result<(), String> {
    if before.str_at(&["spec", "nodeName"]) != node {
        return Err(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"));
    }
    if labels(before) != labels(after) {
        return Err(format!("node {node:?} cannot update labels through pod status"));
    }
    let claims = |pod: &Map| pod.at(&["status", "resourceClaimStatuses"]).cloned();
    if claims(before) != claims(after) {
        return Err(format!("node {node:?} cannot update resource claim statues"));
    }
    Ok(())
}

fn labels(object: &Map) -> Vec<(&str, &str)> {
    let map = object.at(&["metadata", "labels"]).and_then(Value::as_map).into_iter().flat_map(Map::iter);
    map.map(|(k, v)| (k, v.as_str().unwrap_or_default())).collect()
}

/// Creating or updating its own Node object.
pub(super) fn node_write(node: &str, before: Option<&Map>, after: &Map) -> Result<(), String> {
    let config = |n: &Map| n.at(&["spec", "configSource"]).filter(|v| !v.is_null()).cloned();
    let none = Map::new();
    let old = before.unwrap_or(&none);
    let (had, has): (BTreeSet<_>, BTreeSet<_>) =
        (labels(old).into_iter().collect(), labels(after).into_iter().collect());
    let changed: BTreeSet<&str> =
        had.symmetric_difference(&has).map(|(key, _)| *key).filter(|key| !may_set(key)).collect();
    let listed = changed.iter().copied().collect::<Vec<_>>().join(", ");
    match before {
        None => {
            if config(after).is_some() {
                return Err(format!("node {node:?} is not allowed to create pods with a non-nil configSource"));
            }
            if !changed.is_empty() {
                return Err(format!("node {node:?} is not allowed to set the following labels: {listed}"));
            }
        }
        Some(before) => {
            if config(after).is_some() && config(after) != config(before) {
                return Err(format!(
                    "node {node:?} is not allowed to update configSource to a new non-nil configSource"
                ));
            }
            let list = |n: &Map, path: &[&str]| n.at(path).and_then(Value::as_list).unwrap_or_default().to_vec();
            if list(after, &["spec", "taints"]) != list(before, &["spec", "taints"]) {
                return Err(format!("node {node:?} is not allowed to modify taints"));
            }
            if !changed.is_empty() {
                return Err(format!("is not allowed to modify labels: {listed}"));
            }
            let owners = ["metadata", "ownerReferences"];
            if list(after, &owners) != list(before, &owners) {
                return Err(format!("node {node:?} is not allowed to modify ownerReferences"));
            }
        }
    }
    Ok(())
}

/// Whether a kubelet may set the label on its node.
fn may_set(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let within = |parent: &str| domain == parent || domain.strip_suffix(parent).is_some_and(|d| d.ends_with('.'));
    if within(RESTRICTED) {
        return false;
    }
    let reserved = within("kubernetes.io") || within("k8s.io");
    !reserved || OWN_LABELS.contains(&label) || OWN_DOMAINS.iter().any(|d| within(d))
}

/// Asking for a service account's token: bound to a pod that runs here. `pod` is the pod that the request names.
pub(super) fn token_request(node: &str, request: &Map, pod: Option<&Map>) -> Result<(), String> {
    let field = |key| request.str_at(&["spec", "boundObjectRef", key]);
    if field("apiVersion") != "v1" || field("kind") != "Pod" || field("name").is_empty() {
        return Err("node requested token not bound to a pod".into());
    }
    if field("uid").is_empty() {
        return Err("node requested token with a pod binding without a uid".into());
    }
    let Some(pod) = pod else { return Ok(()) };
    if pod.str_at(&["metadata", "uid"]) != field("uid") {
        return Err(format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            field("uid")
        ));
    }
    if pod.str_at(&["spec", "nodeName"]) != node {
        return Err("node requested token bound to a pod scheduled on a different node".into());
    }
    Ok(())
}

/// Writing the status of a claim: nothing but what a resize reports.
pub(super) fn claim_status(node: &str, before: &Map, after: &Map) -> Result<(), String> {
    let rest = |claim: &Map| {
        let mut rest = claim.clone();
        for path in [["metadata", "resourceVersion"], ["metadata", "managedFields"]] {
            rest.remove_at(&path);
        }
        for key in ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"] {
            rest.remove_at(&["status", key]);
        }
        if rest.get("status").and_then(Value::as_map).is_some_and(Map::is_empty) {
            rest.remove("status");
        }
        rest
    };
    let claim = schema::types::of_kind("", "v1", "PersistentVolumeClaim");
    if claim.is_some_and(|claim| schema::semantic::same(claim, &rest(before), &rest(after))) {
        Ok(())
    } else {
        Err(format!("node {node:?} is not allowed to update fields other than status.quantity and status.conditions"))
    }
}

/// Asking for a certificate of a kubelet: one for itself.
fn signing_request(node: &str, request: &Map) -> Result<(), String> {
    if !KUBELET_SIGNERS.contains(&request.str_at(&["spec", "signerName"])) {
        return Ok(());
    }
    let name =
        common_name(request.str_at(&["spec", "request"])).map_err(|why| format!("unable to parse csr: {why}"))?;
    if name == format!("system:node:{node}") {
        Ok(())
    } else {
        Err(format!("can only create a node CSR with CN=system:node:{node}"))
    }
}

/// What a request for a pod's certificate is compared with; what is not there comes with how that is told.
struct Running<'a> {
    node: Result<&'a Map, String>,
    pod: Result<&'a Map, String>,
    account: Result<&'a Map, String>,
}

/// Why a request for a certificate is not made: the node may not ask for it, or it does not fit with what is known here, and
/// may do so in a moment.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    Forbidden(String),
    Differs(String),
}

/// Asking for a certificate of a pod: one that runs here, as it runs.
fn certificate_request(node: &str, request: &Map, running: &Running<'_>) -> Result<(), Refusal> {
    let spec = |key| request.str_at(&["spec", key]);
    let uid = |object: &Map| object.str_at(&["metadata", "uid"]).to_owned();
    let shown = format!("{}/{}", request.str_at(&["metadata", "namespace"]), spec("podName"));
    let about = format!("PodCertificateRequest for pod {shown:?}");
    if spec("nodeName") != node {
        return Err(Refusal::Forbidden(format!(
            "PodCertificateRequest.Spec.NodeName={:?}, which is not the requesting node {node:?}",
            spec("nodeName")
        )));
    }
    let named = |what: &str, name: &str, why: &String| {
        Refusal::Differs(format!("while retrieving {what} {name:?} named in the PodCertificateRequest: {why}"))
    };
    let host = running.node.as_ref().map_err(|why| named("node", node, why))?;
    if spec("nodeUID") != uid(host) {
        return Err(Refusal::Differs(format!(
            "{about} names node UID {:?}, inconsistent with the running node ({:?})",
            spec("nodeUID"),
            uid(host)
        )));
    }
    let pod = running.pod.as_ref().map_err(|why| named("pod", &shown, why))?;
    if spec("podUID") != uid(pod) {
        return Err(Refusal::Differs(format!(
            "{about} contains pod UID ({:?}) which differs from running pod {:?}",
            spec("podUID"),
            uid(pod)
        )));
    }
    if pod.str_at(&["spec", "nodeName"]) != node {
        return Err(Refusal::Forbidden(format!(
            "pod {shown:?} is not running on node {node:?} named in the PodCertificateRequest"
        )));
    }
    if pod.at(&["metadata", "annotations", MIRROR]).is_some() {
        return Err(Refusal::Forbidden(format!("pod {shown:?} is a mirror pod")));
    }
    let account = pod.str_at(&["spec", "serviceAccountName"]);
    if spec("serviceAccountName") != account {
        return Err(Refusal::Forbidden(format!(
            "{about} contains serviceAccountName ({:?}) that differs from running pod ({account:?})",
            spec("serviceAccountName")
        )));
    }
    let shown = format!("{}/{account}", request.str_at(&["metadata", "namespace"]));
    let stored = running.account.as_ref().map_err(|why| named("service account", &shown, why))?;
    if spec("serviceAccountUID") != uid(stored) {
        return Err(Refusal::Differs(format!(
            "{about} names service account UID {:?}, which differs from the running service account ({:?})",
            spec("serviceAccountUID"),
            uid(stored)
        )));
    }
    Ok(())
}

pub struct NodeRestriction {
    pub objects: Arc<dyn Lookup>,
    pub authorizer: Arc<dyn Authorizer>,
    pub gates: Gates,
}

impl NodeRestriction {
    async fn bound_pod(&self, a: &Attributes<'_>, name: &str) -> Result<Arc<Map>, Status> {
        let found = self.objects.find(PODS, a.namespace, name).await?;
        found.ok_or_else(|| Status::not_found(&GroupResource::new("", "pods"), name))
    }

    async fn pod(&self, node: &str, a: &Attributes<'_>) -> Result<(), Status> {
        let refuse = |why: String| Err(a.forbidden(why));
        let runs_here = |pod: &Map| pod.str_at(&["spec", "nodeName"]) == node;
        match (a.subresource, a.operation) {
            ("", Operation::Create) => {
                let stored = self.objects.find(NODES, "", node).await?;
                let stored = stored.ok_or_else(|| Status::not_found(&GroupResource::new("", "nodes"), node))?;
                pod_create(node, a.object, Some(stored.str_at(&["metadata", "uid"]))).or_else(refuse)
            }
            ("", Operation::Delete) => match a.old {
                Some(pod) if !runs_here(pod) => {
                    refuse(format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
                }
                _ => Ok(()),
            },
            ("", operation) => refuse(format!(
                "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
                operation.as_str()
            )),
            ("status", Operation::Update) => {
                let none = Map::new();
                pod_status(node, a.old.unwrap_or(&none), a.object).or_else(refuse)
            }
            ("eviction", Operation::Create) => {
                let name = if a.name.is_empty() { a.object.str_at(&["metadata", "name"]) } else { a.name };
                if name.is_empty() {
                    return refuse("could not determine pod from request data".into());
                }
                if runs_here(&*self.bound_pod(a, name).await?) {
                    return Ok(());
                }
                refuse(format!("node {node} can only evict pods with spec.nodeName set to itself"))
            }
            ("status" | "eviction", operation) => refuse(format!("unexpected operation {:?}", operation.as_str())),
            (subresource, _) => {
                refuse(format!("unexpected pod subresource {subresource:?}, only 'status' and 'eviction' are allowed"))
            }
        }
    }

    async fn certificate(&self, node: &str, a: &Attributes<'_>) -> Result<(), Status> {
        if a.operation != Operation::Create {
            return Err(a.forbidden(format!("unexpected operation {}", a.operation.as_str())));
        }
        if !a.subresource.is_empty() {
            return Err(a.forbidden(format!("unexpected subresource {}", a.subresource)));
        }
        let find =
            async |kind: Stored, namespace: &str, name: &str| match self.objects.find(kind, namespace, name).await {
                Ok(Some(object)) => Ok(object),
                Ok(None) => Err(Status::not_found(&GroupResource::new(kind.group, kind.plural), name).message.clone()),
                Err(error) => Err(error.message.clone()),
            };
        let spec = |key| a.object.str_at(&["spec", key]);
        let host = find(NODES, "", node).await;
        let pod = find(PODS, a.namespace, spec("podName")).await;
        let account = find(SERVICE_ACCOUNTS, a.namespace, spec("serviceAccountName")).await;
        fn seen(found: &Result<Arc<Map>, String>) -> Result<&Map, String> {
            found.as_deref().map_err(Clone::clone)
        }
        let running = Running { node: seen(&host), pod: seen(&pod), account: seen(&account) };
        certificate_request(node, a.object, &running).map_err(|refusal| match refusal {
            Refusal::Forbidden(why) => a.forbidden(why),
            Refusal::Differs(why) => Status::new(500, Reason::Unknown, why),
        })
    }

    async fn token(&self, node: &str, a: &Attributes<'_>) -> Result<(), Status> {
        let reference = a.object.str_at(&["spec", "boundObjectRef", "name"]).to_owned();
        token_request(node, a.object, None).map_err(|why| a.forbidden(why))?;
        let pod = self.bound_pod(a, &reference).await?;
        token_request(node, a.object, Some(&pod)).map_err(|why| a.forbidden(why))?;
        if self.gates.enabled("ServiceAccountNodeAudienceRestriction") {
            token_audience::check(&*self.objects, &*self.authorizer, a, &pod).await?;
        }
        Ok(())
    }
}

/// The name of what is written, also where a create leaves it to the object.
fn written<'a>(a: &'a Attributes<'_>) -> &'a str {
    if a.name.is_empty() { a.object.str_at(&["metadata", "name"]) } else { a.name }
}

#[async_trait]
impl Admission for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn sides(&self) -> Sides {
        Sides::Admits
    }

    fn handles(&self, operation: Operation) -> bool {
        operation != Operation::Connect
    }

    async fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        let user = a.cx.user.clone();
        let Some(node) = node::node_of(&user) else { return Ok(()) };
        if node.is_empty() {
            return Err(a.forbidden(format!("could not determine node from user {:?}", user.name)));
        }
        let own = |what: &str| {
            if written(a) == node {
                Ok(())
            } else {
                Err(format!("can only access {what} with the same name as the requesting node"))
            }
        };
        match (a.resource.group.as_ref(), a.resource.plural.as_ref(), a.subresource) {
            ("", "pods", _) => return self.pod(node, a).await,
            ("", "nodes", _) if written(a) != node => {
                Err(format!("node {node:?} is not allowed to modify node {:?}", written(a)))
            }
            ("", "nodes", _) if a.operation != Operation::Delete => node_write(node, a.old, a.object),
            ("", "persistentvolumeclaims", "status") => match a.old {
                Some(old) => claim_status(node, old, a.object),
                None => Err(format!("unexpected operation {:?}", a.operation.as_str())),
            },
            ("", "persistentvolumeclaims", _) => Err("may only update PVC status".into()),
            ("", "serviceaccounts", "token") if a.operation == Operation::Create => return self.token(node, a).await,
            ("certificates.k8s.io", "podcertificaterequests", _) if self.gates.enabled("PodCertificateRequest") => {
                return self.certificate(node, a).await;
            }
            ("certificates.k8s.io", "certificatesigningrequests", _)
                if a.operation == Operation::Create
                    && !self.gates.enabled("AllowInsecureKubeletCertificateSigningRequests") =>
            {
                signing_request(node, a.object)
            }
            ("coordination.k8s.io", "leases", _) if a.namespace != "kube-node-lease" => {
                Err("can only access leases in the \"kube-node-lease\" system namespace".into())
            }
            ("coordination.k8s.io", "leases", _) => own("node lease"),
            ("storage.k8s.io", "csinodes", _) => own("CSINode"),
            ("resource.k8s.io", "resourceslices", "") if a.operation != Operation::Update => {
                let slice = a.old.unwrap_or(a.object);
                if slice.str_at(&["spec", "nodeName"]) == node {
                    Ok(())
                } else {
                    let verb = if a.operation == Operation::Create { "create" } else { "delete" };
                    Err(format!("can only {verb} ResourceSlice with the same NodeName as the requesting node"))
                }
            }
            _ => Ok(()),
        }
        .map_err(|why| a.forbidden(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;

    #[test]
    fn labels_of_other_rooms_are_refused() {
        for own in
            ["kubernetes.io/hostname", "a.node.kubernetes.io/x", "node.kubernetes.io/y", "example.com/z", "plain"]
        {
            assert!(may_set(own), "{own}");
        }
        for foreign in
            ["kubernetes.io/role", "node-role.kubernetes.io/master", "x.node-restriction.kubernetes.io/a", "a.k8s.io/b"]
        {
            assert!(!may_set(foreign), "{foreign}");
        }
        let node = map("{metadata: {labels: {kubernetes.io/hostname: n, node-role.kubernetes.io/x: ''}}}");
        assert_eq!(
            node_write("n1", None, &node),
            Err("node \"n1\" is not allowed to set the following labels: node-role.kubernetes.io/x".into())
        );
    }

    #[test]
    fn a_node_keeps_its_taints() {
        let before = map("{spec: {taints: [{key: a, effect: NoSchedule}]}}");
        assert_eq!(
            node_write("n1", Some(&before), &map("{spec: {}}")),
            Err("node \"n1\" is not allowed to modify taints".into())
        );
        assert_eq!(node_write("n1", Some(&before), &before), Ok(()));
    }

    #[test]
    fn only_mirror_pods_of_its_own_that_refer_to_nothing() {
        let owner = "[{apiVersion: v1, kind: Node, name: n1, uid: u, controller: true}]";
        let good = |more: &str| {
            map(&format!(
                "{{metadata: {{annotations: {{kubernetes.io/config.mirror: x}}, ownerReferences: {owner}}}, spec: {{nodeName: n1, {more}}}}}"
            ))
        };
        assert_eq!(pod_create("n1", &good("x: y"), Some("u")), Ok(()));
        assert!(pod_create("m", &good("x: y"), Some("u")).is_err());
        assert_eq!(pod_create("n1", &good("x: y"), Some("v")), Err("node n1 UID mismatch: expected u got v".into()));
        assert_eq!(
            pod_create("n1", &good("volumes: [{secret: {secretName: s}}]"), Some("u")),
            Err("node \"n1\" can not create pods that reference secrets".into())
        );
    }

    #[test]
    fn certificates_are_for_pods_as_they_run_here() {
        let request = |more: &str| {
            let spec = "nodeName: n1, nodeUID: h, podName: p, podUID: p, serviceAccountName: s, serviceAccountUID: s";
            let mut request = map(&format!("{{metadata: {{namespace: a}}, spec: {{{spec}}}}}"));
            if let Some((key, value)) = more.split_once('=') {
                let spec = request.entry("spec", || Map::new().into()).as_map_mut().expect("a spec");
                spec.insert(key.to_owned(), value.to_owned());
            }
            request
        };
        let (host, account) = (map("{metadata: {uid: h}}"), map("{metadata: {uid: s}}"));
        let pod = map("{metadata: {uid: p}, spec: {nodeName: n1, serviceAccountName: s}}");
        let running = |pod| Running { node: Ok(&host), pod, account: Ok(&account) };
        let check = |more: &str| certificate_request("n1", &request(more), &running(Ok(&pod)));
        assert_eq!(check(""), Ok(()));
        let differs = |why: &str| Err(Refusal::Differs(why.to_owned()));
        let forbidden = |why: &str| Err(Refusal::Forbidden(why.to_owned()));
        for (more, refused) in [
            (
                "nodeName=n2",
                forbidden("PodCertificateRequest.Spec.NodeName=\"n2\", which is not the requesting node \"n1\""),
            ),
            (
                "nodeUID=x",
                differs(
                    "PodCertificateRequest for pod \"a/p\" names node UID \"x\", inconsistent with the running node (\"h\")",
                ),
            ),
            (
                "podUID=x",
                differs(
                    "PodCertificateRequest for pod \"a/p\" contains pod UID (\"x\") which differs from running pod \"p\"",
                ),
            ),
            (
                "serviceAccountName=x",
                forbidden(
                    "PodCertificateRequest for pod \"a/p\" contains serviceAccountName (\"x\") that differs from running pod (\"s\")",
                ),
            ),
            (
                "serviceAccountUID=x",
                differs(
                    "PodCertificateRequest for pod \"a/p\" names service account UID \"x\", which differs from the running service account (\"s\")",
                ),
            ),
        ] {
            assert_eq!(check(more), refused, "{more}");
        }
        let elsewhere = map("{metadata: {uid: p}, spec: {nodeName: n2, serviceAccountName: s}}");
        assert_eq!(
            certificate_request("n1", &request(""), &running(Ok(&elsewhere))),
            forbidden("pod \"a/p\" is not running on node \"n1\" named in the PodCertificateRequest")
        );
        assert_eq!(
            certificate_request("n1", &request(""), &running(Err("pods \"p\" not found".into()))),
            differs("while retrieving pod \"a/p\" named in the PodCertificateRequest: pods \"p\" not found")
        );
    }

    #[test]
    fn tokens_are_for_pods_that_run_here() {
        let request = map("{spec: {boundObjectRef: {apiVersion: v1, kind: Pod, name: p, uid: u}}}");
        let here = map("{metadata: {uid: u}, spec: {nodeName: n1}}");
        assert_eq!(token_request("n1", &request, Some(&here)), Ok(()));
        assert_eq!(
            token_request("m", &request, Some(&here)),
            Err("node requested token bound to a pod scheduled on a different node".into())
        );
        assert_eq!(
            token_request("n1", &map("{spec: {}}"), None),
            Err("node requested token not bound to a pod".into())
        );
    }
}
