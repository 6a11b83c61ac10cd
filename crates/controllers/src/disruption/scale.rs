//! How many pods the controllers of some pods want, through the scale of each.

use crate::informer::Informer;
use crate::objects::{Pod, ReplicaSet};
use crate::pod_control::message;
use crate::pods;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use kube::core::GroupVersionKind;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

pub(super) struct Scales {
    client: Client,
    sets: Informer<ReplicaSet>,
    /// Kinds by API version, as discovery found them: plural, and whether they have a scale.
    kinds: Mutex<HashMap<(String, String), (String, bool)>>,
}

/// What the controllers of pods want together.
#[derive(Debug, Default)]
pub(super) struct Expected {
    pub(super) replicas: i32,
    /// Pods without a controller.
    pub(super) unmanaged: Vec<String>,
}

impl Scales {
    pub(super) fn new(client: Client, sets: Informer<ReplicaSet>) -> Self {
        Scales { client, sets, kinds: Mutex::default() }
    }

    pub(super) async fn synced(&self) {
        self.sets.synced().await;
    }

    /// Each controller counts once, however many of its pods are selected.
    pub(super) async fn expected(&self, namespace: &str, pods: &[Arc<Pod>]) -> Result<Expected, String> {
        let mut expected = Expected::default();
        let mut owners: HashMap<String, OwnerReference> = HashMap::new();
        for pod in pods {
            match pods::controller(&pod.metadata) {
                None => expected.unmanaged.push(pod.metadata.name.clone().unwrap_or_default()),
                Some(owner) => {
                    let owner = self.topmost(namespace, owner);
                    owners.entry(owner.uid.clone()).or_insert(owner);
                }
            }
        }
        for owner in owners.values() {
            expected.replicas = expected.replicas.saturating_add(self.replicas(namespace, owner).await?);
        }
        Ok(expected)
    }

    /// The Deployment above a ReplicaSet speaks for it.
    fn topmost(&self, namespace: &str, owner: &OwnerReference) -> OwnerReference {
        if owner.kind == "ReplicaSet"
            && let Some(set) = self.sets.get(namespace, &owner.name)
            && let Some(above) = pods::controller(&set.metadata).filter(|above| above.kind == "Deployment")
        {
            return above.clone();
        }
        owner.clone()
    }

    async fn replicas(&self, namespace: &str, owner: &OwnerReference) -> Result<i32, String> {
        let (plural, scales) = self.kind(&owner.api_version, &owner.kind).await?;
        if !scales {
            let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
            return Err(format!("{plural}.{group} does not implement the scale subresource"));
        }
        let root = if owner.api_version.contains('/') { "apis" } else { "api" };
        let path = format!("/{root}/{}/namespaces/{namespace}/{plural}", owner.api_version);
        let request = kube::core::Request::new(path).get_subresource("scale", &owner.name);
        let request = request.map_err(|e| e.to_string())?;
        match self.client.request::<Value>(request).await {
            Ok(scale) => Ok(scale
                .pointer("/spec/replicas")
                .and_then(Value::as_i64)
                .and_then(|n| i32::try_from(n).ok())
                .unwrap_or(0)),
            // Its pods are on their way out, too.
            Err(e) if crate::code(&e) == 404 => Ok(0),
            Err(e) => Err(message(&e)),
        }
    }

    async fn kind(&self, api_version: &str, kind: &str) -> Result<(String, bool), String> {
        let id = (api_version.to_owned(), kind.to_owned());
        if let Some(known) = self.kinds.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(known.clone());
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let gvk = GroupVersionKind::gvk(group, version, kind);
        let (resource, capabilities) =
            kube::discovery::pinned_kind(&self.client, &gvk).await.map_err(|e| message(&e))?;
        let scales =
            capabilities.subresources.iter().any(|(sub, _)| sub.plural == "scale" || sub.plural.ends_with("/scale"));
        let found = (resource.plural, scales);
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner).insert(id, found.clone());
        Ok(found)
    }
}
