//! Namespaces that are being deleted: their contents are found by discovery and removed, what remains is told in
//! conditions, and at the end the namespace is let go.

use crate::informer::{Informer, key};
use crate::objects::{Namespace, Pod};
use crate::pod_control::message;
use crate::queue::{Key, Queue};
use crate::{Context, Error, Running, gone_is_fine, write};
use futures::FutureExt;
use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::discovery::{Discovery, Scope, verbs};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const FINALIZER: &str = "kubernetes";
/// How soon contents that remain are looked at again: most leave at once.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

struct Controller {
    client: Client,
    namespaces: Informer<Namespace>,
}

/// What is left of one resource.
#[derive(Debug, Default, PartialEq)]
struct Remains {
    /// `pods.` as upstream writes it: resource, dot, group.
    resource: String,
    count: usize,
    /// Finalizer → how many objects wait for it.
    finalizers: BTreeMap<String, usize>,
}

/// What a look at the contents gave.
#[derive(Debug, Default)]
struct Findings {
    remains: Vec<Remains>,
    discovery_error: Option<String>,
    deletion_error: Option<String>,
}

pub fn controller(context: &Context) -> Running {
    let this = Arc::new(Controller {
        client: context.clients.service_account("namespace-controller"),
        namespaces: context.informers.of(),
    });
    let queue = Queue::<Key>::named(&context.config.queues, "namespace");
    let q = queue.clone();
    this.namespaces.on_change(move |_, new| {
        if let Some(namespace) = new.filter(|n| n.metadata.deletion_timestamp.is_some()) {
            q.add(key(namespace.as_ref()));
        }
    });
    let shutdown = context.shutdown.clone();
    async move {
        this.namespaces.synced().await;
        queue.run("namespace", 4, shutdown, |key| this.clone().reconcile(key)).await;
        Ok(())
    }
    .boxed()
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Option<Duration>, Error> {
        let Some(namespace) = self.namespaces.by_key(&key) else { return Ok(None) };
        if namespace.metadata.deletion_timestamp.is_none() || namespace.spec.finalizers.is_empty() {
            return Ok(None);
        }
        let findings = self.empty(&key.name).await;
        let next = conditions(&namespace, &findings, Timestamp::now());
        if changed(&namespace, &next) {
            let patch = json!({"metadata": {"uid": namespace.metadata.uid}, "status": {"phase": "Terminating", "conditions": next}});
            let written = write::update::<Namespace>(&self.client, "", &key.name, Some("status"), patch).await;
            if let Some(namespace) = gone_is_fine(written)? {
                self.namespaces.assume(namespace);
            }
        }
        if let Some(why) = findings.discovery_error.or(findings.deletion_error) {
            return Err(Error::Other(why));
        }
        if !findings.remains.is_empty() {
            return Ok(Some(LOOK_AGAIN));
        }
        self.finalize(&key.name).await?;
        Ok(None)
    }

    /// Deletes what is in the namespace and tells what is still there.
    async fn empty(&self, namespace: &str) -> Findings {
        // Pods go first and alone: while one is there, whatever guards it (policies, secrets, services) stays as it is. No
        // discovery is needed to find them, nor can its failure keep them.
        let mut findings = Findings::default();
        self.empty_all(namespace, vec![ApiResource::erase::<Pod>(&())], &mut findings).await;
        if !findings.remains.is_empty() || findings.deletion_error.is_some() {
            return findings;
        }
        let discovered = Discovery::new(self.client.clone()).run().await;
        let discovery = match discovered {
            Ok(discovery) => discovery,
            Err(e) => return Findings { discovery_error: Some(message(&e)), ..Findings::default() },
        };
        let resources: Vec<ApiResource> = discovery
            .groups()
            .flat_map(kube::discovery::ApiGroup::recommended_resources)
            .filter(|(_, capabilities)| {
                capabilities.scope == Scope::Namespaced
                    && capabilities.supports_operation(verbs::LIST)
                    && capabilities.supports_operation(verbs::DELETE)
            })
            .map(|(resource, _)| resource)
            // The same objects as core events.
            .filter(|r| !(r.group == "events.k8s.io" && r.plural == "events"))
            .filter(|r| !(r.group.is_empty() && r.plural == "pods"))
            .collect();
        self.empty_all(namespace, resources, &mut findings).await;
        findings.remains.sort_by(|a, b| a.resource.cmp(&b.resource));
        findings
    }

    /// Deletes the objects of some resources and notes what is still there.
    async fn empty_all(&self, namespace: &str, resources: Vec<ApiResource>, findings: &mut Findings) {
        let results: Vec<Result<Option<Remains>, kube::Error>> =
            stream::iter(resources).map(|r| self.empty_of(namespace, r)).buffer_unordered(16).collect().await;
        for result in results {
            match result {
                Ok(None) => {}
                Ok(Some(remains)) => findings.remains.push(remains),
                Err(e) => findings.deletion_error = Some(message(&e)),
            }
        }
    }

    async fn empty_of(&self, namespace: &str, resource: ApiResource) -> Result<Option<Remains>, kube::Error> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        let there = api.list_metadata(&ListParams::default()).await?.items;
        if there.is_empty() {
            return Ok(None);
        }
        if there.iter().any(|o| o.metadata.deletion_timestamp.is_none()) {
            gone_is_fine(api.delete_collection(&DeleteParams::background(), &ListParams::default()).await)?;
        }
        let left = api.list_metadata(&ListParams::default()).await?.items;
        if left.is_empty() {
            return Ok(None);
        }
        let mut finalizers = BTreeMap::new();
        for finalizer in left.iter().flat_map(|o| o.finalizers()) {
            *finalizers.entry(finalizer.clone()).or_insert(0) += 1;
        }
        Ok(Some(Remains { resource: format!("{}.{}", resource.plural, resource.group), count: left.len(), finalizers }))
    }

    async fn finalize(&self, name: &str) -> Result<(), Error> {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &ApiResource::erase::<Namespace>(&()));
        let Some(mut namespace) = api.get_opt(name).await? else { return Ok(()) };
        if let Some(finalizers) = namespace.data.pointer_mut("/spec/finalizers").and_then(Value::as_array_mut) {
            finalizers.retain(|f| f != FINALIZER);
        }
        let body = serde_json::to_vec(&namespace).map_err(|source| Error::Encode { what: "a namespace", source })?;
        let request = kube::core::Request::new("/api/v1/namespaces")
            .replace_subresource("finalize", name, &PostParams::default(), body)
            .map_err(|e| Error::Api(kube::Error::BuildRequest(e)))?;
        gone_is_fine(self.client.request::<Value>(request).await)?;
        Ok(())
    }
}

/// Upstream's conditions of a terminating namespace, each with its reason and message.
fn conditions(namespace: &Namespace, findings: &Findings, now: Timestamp) -> Vec<Value> {
    let remaining: Vec<String> =
        findings.remains.iter().map(|r| format!("{} has {} resource instances", r.resource, r.count)).collect();
    let mut waiting: BTreeMap<&str, usize> = BTreeMap::new();
    for (finalizer, count) in findings.remains.iter().flat_map(|r| &r.finalizers) {
        *waiting.entry(finalizer).or_insert(0) += count;
    }
    let waiting: Vec<String> = waiting.iter().map(|(f, n)| format!("{f} in {n} resource instances")).collect();
    let one = |type_: &str, problem: Option<String>, reason: &str, fine_reason: &str, fine: &str| {
        let (status, reason, message) = match problem {
            Some(message) => ("True", reason, message),
            None => ("False", fine_reason, fine.to_owned()),
        };
        let known = namespace.status.conditions.iter().find(|c| c.type_ == type_);
        let since = known.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
        json!({"type": type_, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": since.unwrap_or(Time(now))})
    };
    let list = |prefix: &str, items: &[String]| (!items.is_empty()).then(|| format!("{prefix}{}", items.join(", ")));
    vec![
        one(
            "NamespaceDeletionDiscoveryFailure",
            findings.discovery_error.clone(),
            "DiscoveryFailed",
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        one(
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            "GroupVersionParsingFailed",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        one(
            "NamespaceDeletionContentFailure",
            findings.deletion_error.as_ref().map(|e| format!("Failed to delete all resource types, 1 remaining: {e}")),
            "ContentDeletionFailed",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        one(
            "NamespaceContentRemaining",
            list("Some resources are remaining: ", &remaining),
            "SomeResourcesRemain",
            "ContentRemoved",
            "All content successfully removed",
        ),
        one(
            "NamespaceFinalizersRemaining",
            list("Some content in the namespace has finalizers remaining: ", &waiting),
            "SomeFinalizersRemain",
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
    ]
}

fn changed(namespace: &Namespace, next: &[Value]) -> bool {
    next.iter().any(|c| {
        let known = namespace.status.conditions.iter().find(|k| c["type"] == k.type_.as_str());
        known.is_none_or(|k| {
            c["status"] != k.status.as_str()
                || c["message"] != k.message.as_deref().unwrap_or("")
                || c["reason"] != k.reason.as_deref().unwrap_or("")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_remains_is_told_as_upstream_words_it() {
        let findings = Findings {
            remains: vec![Remains {
                resource: "pods.".into(),
                count: 2,
                finalizers: BTreeMap::from([("x/y".into(), 1)]),
            }],
            ..Findings::default()
        };
        let conditions = conditions(&Namespace::default(), &findings, Timestamp::UNIX_EPOCH);
        let message = |type_: &str| conditions.iter().find(|c| c["type"] == type_).map(|c| c["message"].clone());
        assert_eq!(
            message("NamespaceContentRemaining"),
            Some("Some resources are remaining: pods. has 2 resource instances".into())
        );
        assert_eq!(
            message("NamespaceFinalizersRemaining"),
            Some("Some content in the namespace has finalizers remaining: x/y in 1 resource instances".into())
        );
        assert!(changed(&Namespace::default(), &conditions));
    }
}
