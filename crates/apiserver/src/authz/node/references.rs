//! What a pod refers to: the objects that its node must be able to read.

use schema::{Map, Value};

/// The kinds of objects that a pod can refer to by name, in its own namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Secret,
    ConfigMap,
    Claim,
    ServiceAccount,
    ResourceClaim,
}

/// The annotation of pods that a kubelet reports and did not get from here.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// Everything a pod refers to, in the order of its spec, with repeats.
///
/// A mirror pod refers to nothing: its node made it up, and must gain no access by that.
pub fn of_pod(pod: &Map) -> Vec<(Kind, &str)> {
    let mut found = Vec::new();
    if pod.at(&["metadata", "annotations", MIRROR]).is_none() {
        spec(pod, &mut found);
    }
    found
}

/// As [`of_pod`], whether it is a mirror pod or not.
pub fn of_any_pod(pod: &Map) -> Vec<(Kind, &str)> {
    let mut found = Vec::new();
    spec(pod, &mut found);
    found
}

fn items<'a>(map: &'a Map, path: &[&str]) -> impl Iterator<Item = &'a Map> {
    map.at(path).and_then(Value::as_list).unwrap_or_default().iter().filter_map(Value::as_map)
}

fn spec<'a>(pod: &'a Map, found: &mut Vec<(Kind, &'a str)>) {
    let mut add = |kind, name: &'a str| {
        if !name.is_empty() {
            found.push((kind, name));
        }
    };
    add(Kind::ServiceAccount, pod.str_at(&["spec", "serviceAccountName"]));
    for secret in items(pod, &["spec", "imagePullSecrets"]) {
        add(Kind::Secret, secret.str_at(&["name"]));
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in items(pod, &["spec", list]) {
            for env in items(container, &["env"]) {
                add(Kind::Secret, env.str_at(&["valueFrom", "secretKeyRef", "name"]));
                add(Kind::ConfigMap, env.str_at(&["valueFrom", "configMapKeyRef", "name"]));
            }
            for env in items(container, &["envFrom"]) {
                add(Kind::Secret, env.str_at(&["secretRef", "name"]));
                add(Kind::ConfigMap, env.str_at(&["configMapRef", "name"]));
            }
        }
    }
    for volume in items(pod, &["spec", "volumes"]) {
        add(Kind::Secret, volume.str_at(&["secret", "secretName"]));
        add(Kind::ConfigMap, volume.str_at(&["configMap", "name"]));
        add(Kind::Claim, volume.str_at(&["persistentVolumeClaim", "claimName"]));
        add(Kind::Secret, volume.str_at(&["azureFile", "secretName"]));
        for source in ["cephfs", "cinder", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos"] {
            add(Kind::Secret, volume.str_at(&[source, "secretRef", "name"]));
        }
        add(Kind::Secret, volume.str_at(&["csi", "nodePublishSecretRef", "name"]));
        for source in items(volume, &["projected", "sources"]) {
            add(Kind::Secret, source.str_at(&["secret", "name"]));
            add(Kind::ConfigMap, source.str_at(&["configMap", "name"]));
        }
    }
    for claim in items(pod, &["spec", "resourceClaims"]) {
        add(Kind::ResourceClaim, claim.str_at(&["resourceClaimName"]));
    }
    for status in items(pod, &["status", "resourceClaimStatuses"]) {
        add(Kind::ResourceClaim, status.str_at(&["resourceClaimName"]));
    }
    add(Kind::ResourceClaim, pod.str_at(&["status", "extendedResourceClaimStatus", "resourceClaimName"]));
}

/// The names of the claims that generic ephemeral volumes of a pod are given: `POD-VOLUME`.
pub fn ephemeral_claims(pod: &Map) -> Vec<String> {
    let name = pod.str_at(&["metadata", "name"]);
    items(pod, &["spec", "volumes"])
        .filter(|v| v.get("ephemeral").is_some_and(|e| !e.is_null()))
        .map(|v| format!("{name}-{}", v.str_at(&["name"])))
        .collect()
}

/// The secrets that a volume's source names, as namespace and name; one without a namespace lies beside the claim.
pub fn of_volume(volume: &Map) -> Vec<(String, String)> {
    let claim = volume.str_at(&["spec", "claimRef", "namespace"]);
    let mut found = Vec::new();
    let mut add = |namespace: &str, name: &str| {
        if !name.is_empty() {
            let namespace = if namespace.is_empty() { claim } else { namespace };
            found.push((namespace.to_owned(), name.to_owned()));
        }
    };
    add(volume.str_at(&["spec", "azureFile", "secretNamespace"]), volume.str_at(&["spec", "azureFile", "secretName"]));
    for (source, field) in [
        ("cephfs", "secretRef"),
        ("cinder", "secretRef"),
        ("flexVolume", "secretRef"),
        ("rbd", "secretRef"),
        ("scaleIO", "secretRef"),
        ("iscsi", "secretRef"),
        ("storageos", "secretRef"),
        ("csi", "controllerPublishSecretRef"),
        ("csi", "nodePublishSecretRef"),
        ("csi", "nodeStageSecretRef"),
        ("csi", "nodeExpandSecretRef"),
    ] {
        let path = |key| ["spec", source, field, key];
        add(volume.str_at(&path("namespace")), volume.str_at(&path("name")));
    }
    found
}
