//! The garbage collector: what nobody owns any more goes; background, foreground and orphaning deletion.
//!
//! Every deletable resource is watched by its metadata alone. The [`graph`] decides what to look at; before anything is
//! deleted the live object and its owners are read.

mod graph;
mod monitor;

use crate::queue::Queue;
use crate::{Context, Error, Running, gone_is_fine};
use futures::FutureExt;
use futures::stream::{self, StreamExt};
use graph::{Graph, Identity, Node, Owner, ResourceId, Todo, Uid};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

struct Controller {
    client: Client,
    graph: Mutex<Graph>,
    /// Resource → how it is reached, and whether it is namespaced.
    resources: Mutex<HashMap<ResourceId, (ApiResource, bool)>>,
    queue: Queue<Task>,
}

/// One thing to look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Task {
    Delete(Uid),
    Orphan(Uid),
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Task::Delete(uid) => write!(f, "delete {uid}"),
            Task::Orphan(uid) => write!(f, "orphan {uid}"),
        }
    }
}

pub fn controller(context: &Context) -> Running {
    let this = Arc::new(Controller {
        client: context.clients.service_account("generic-garbage-collector"),
        graph: Mutex::default(),
        resources: Mutex::default(),
        queue: Queue::named(&context.config.queues, "garbage_collector_attempt_to_delete"),
    });
    let shutdown = context.shutdown.clone();
    async move {
        let work = async {
            let tasks = this.clone();
            this.queue.run("garbage-collector", 8, shutdown.clone(), |task| tasks.clone().attempt(task)).await;
            Ok(())
        };
        tokio::select! {
            outcome = monitor::run(this.clone()) => outcome,
            outcome = work => outcome,
            () = shutdown.cancelled() => Ok(()),
        }
    }
    .boxed()
}

/// The live metadata of an object.
type Live = PartialObjectMeta<DynamicObject>;

impl Controller {
    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, todo: Todo) {
        for uid in todo.delete {
            self.queue.add(Task::Delete(uid));
        }
        for uid in todo.orphan {
            self.queue.add(Task::Orphan(uid));
        }
    }

    /// How a resource of a namespace is reached; `None` for kinds that are not served (yet).
    fn api(&self, resource: &ResourceId, namespace: &str) -> Option<Api<DynamicObject>> {
        let resources = self.resources.lock().unwrap_or_else(PoisonError::into_inner);
        let (resource, namespaced) = resources.get(resource)?;
        Some(if *namespaced {
            Api::namespaced_with(self.client.clone(), namespace, resource)
        } else {
            Api::all_with(self.client.clone(), resource)
        })
    }

    async fn attempt(self: Arc<Self>, task: Task) -> Result<Option<Duration>, Error> {
        match task {
            Task::Delete(uid) => {
                let Some(node) = self.graph().get(&uid).cloned() else { return Ok(None) };
                self.attempt_to_delete(node).await?;
            }
            Task::Orphan(uid) => {
                let Some(node) = self.graph().get(&uid).cloned() else { return Ok(None) };
                self.orphan_dependents(&node).await?;
            }
        }
        Ok(None)
    }

    /// The live object, if it is still the one that is meant.
    async fn live(&self, identity: &Identity) -> Result<Option<Live>, Error> {
        let Some(api) = self.api(&identity.resource, &identity.namespace) else {
            return Err(Error::Other(format!(
                "{} {} is not served",
                identity.resource.api_version, identity.resource.kind
            )));
        };
        let live = api.get_metadata_opt(&identity.name).await?;
        Ok(live.filter(|l| l.metadata.uid.as_deref() == Some(&identity.uid)))
    }

    async fn attempt_to_delete(&self, node: Node) -> Result<(), Error> {
        if node.being_deleted && !node.deleting_dependents {
            return Ok(());
        }
        let Some(live) = self.live(&node.identity).await? else {
            // It is gone, or was never there: its dependents are looked at.
            let todo = self.graph().remove(&node.identity.uid);
            self.ask(todo);
            return Ok(());
        };
        if node.virtual_ {
            // It exists; the monitor of its resource will tell the rest.
            return Ok(());
        }
        if node.deleting_dependents {
            return self.wait_for_dependents(&node, &live).await;
        }
        let owners = live.owner_references();
        if owners.is_empty() {
            return Ok(());
        }
        let (mut solid, mut dangling, mut waiting) = (0, Vec::new(), Vec::new());
        for owner in owners {
            match self.owner_state(owner, &node.identity.namespace).await? {
                OwnerState::Solid => solid += 1,
                OwnerState::Absent => dangling.push(owner.uid.clone()),
                OwnerState::WaitsForDependents => waiting.push(owner.uid.clone()),
            }
        }
        if solid > 0 {
            dangling.extend(waiting);
            if dangling.is_empty() {
                return Ok(());
            }
            return self.drop_owners(&node.identity, &dangling).await;
        }
        let dependents = self.graph().dependents(&node.identity.uid);
        let policy = if !waiting.is_empty() && !dependents.is_empty() {
            if dependents.iter().any(|d| d.deleting_dependents) {
                // A circle: nobody may wait for this one, or nobody ever ends.
                self.unblock(&node.identity).await?;
            }
            PropagationPolicy::Foreground
        } else if live.finalizers().iter().any(|f| f == ORPHAN) {
            PropagationPolicy::Orphan
        } else if live.finalizers().iter().any(|f| f == FOREGROUND) {
            PropagationPolicy::Foreground
        } else {
            PropagationPolicy::Background
        };
        self.delete(&node.identity, &live, policy).await
    }

    async fn wait_for_dependents(&self, node: &Node, live: &Live) -> Result<(), Error> {
        let blocking: Vec<Node> = self
            .graph()
            .dependents(&node.identity.uid)
            .into_iter()
            .filter(|d| d.owners.iter().any(|o| o.uid == node.identity.uid && o.block))
            .collect();
        if blocking.is_empty() {
            return self.remove_finalizer(&node.identity, live, FOREGROUND).await;
        }
        for dependent in blocking.iter().filter(|d| !d.deleting_dependents) {
            self.queue.add(Task::Delete(dependent.identity.uid.clone()));
        }
        Ok(())
    }

    async fn owner_state(&self, owner: &OwnerReference, namespace: &str) -> Result<OwnerState, Error> {
        let known = self.graph().get(&owner.uid).filter(|n| !n.virtual_).map(|n| {
            (
                n.deleting_dependents,
                n.identity.name == owner.name && (n.identity.namespace.is_empty() || n.identity.namespace == namespace),
            )
        });
        if let Some((deleting, true)) = known {
            return Ok(if deleting && owner.block_owner_deletion == Some(true) {
                OwnerState::WaitsForDependents
            } else {
                OwnerState::Solid
            });
        }
        let resource = ResourceId { api_version: owner.api_version.clone(), kind: owner.kind.clone() };
        let identity =
            Identity { resource, namespace: namespace.to_owned(), name: owner.name.clone(), uid: owner.uid.clone() };
        let Some(live) = self.live(&identity).await? else { return Ok(OwnerState::Absent) };
        let waits = live.metadata.deletion_timestamp.is_some() && live.finalizers().iter().any(|f| f == FOREGROUND);
        Ok(if waits && owner.block_owner_deletion == Some(true) {
            OwnerState::WaitsForDependents
        } else {
            OwnerState::Solid
        })
    }

    async fn delete(&self, identity: &Identity, live: &Live, policy: PropagationPolicy) -> Result<(), Error> {
        let Some(api) = self.api(&identity.resource, &identity.namespace) else { return Ok(()) };
        let params = DeleteParams {
            propagation_policy: Some(policy),
            // Of this version: an owner added meanwhile makes it fail, and it is looked at again.
            preconditions: Some(Preconditions {
                uid: Some(identity.uid.clone()),
                resource_version: live.metadata.resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        gone_is_fine(api.delete(&identity.name, &params).await)?;
        Ok(())
    }

    async fn patch(&self, identity: &Identity, patch: serde_json::Value) -> Result<(), Error> {
        let Some(api) = self.api(&identity.resource, &identity.namespace) else { return Ok(()) };
        let written = api.patch_metadata(&identity.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        gone_is_fine(written)?;
        Ok(())
    }

    /// Rewrites an object's owners, of the version that was read.
    async fn set_owners(&self, identity: &Identity, change: impl Fn(&mut Vec<OwnerReference>)) -> Result<(), Error> {
        let Some(live) = self.live(identity).await? else { return Ok(()) };
        let mut owners = live.owner_references().to_vec();
        change(&mut owners);
        if owners == live.owner_references() {
            return Ok(());
        }
        let patch = json!({"metadata": {"uid": identity.uid, "resourceVersion": live.metadata.resource_version, "ownerReferences": owners}});
        self.patch(identity, patch).await
    }

    async fn drop_owners(&self, identity: &Identity, uids: &[Uid]) -> Result<(), Error> {
        self.set_owners(identity, |owners| owners.retain(|o| !uids.contains(&o.uid))).await
    }

    async fn unblock(&self, identity: &Identity) -> Result<(), Error> {
        self.set_owners(identity, |owners| {
            for owner in owners.iter_mut() {
                owner.block_owner_deletion = Some(false);
            }
        })
        .await
    }

    async fn remove_finalizer(&self, identity: &Identity, live: &Live, finalizer: &str) -> Result<(), Error> {
        let left: Vec<&String> = live.finalizers().iter().filter(|f| *f != finalizer).collect();
        if left.len() == live.finalizers().len() {
            return Ok(());
        }
        let patch = json!({"metadata": {"uid": identity.uid, "resourceVersion": live.metadata.resource_version, "finalizers": left}});
        self.patch(identity, patch).await
    }

    /// Lets every dependent go, then the owner.
    async fn orphan_dependents(&self, node: &Node) -> Result<(), Error> {
        let dependents = self.graph().dependents(&node.identity.uid);
        let uid = [node.identity.uid.clone()];
        let uid = &uid;
        let results: Vec<Result<(), Error>> = stream::iter(dependents)
            .map(|d| async move { self.drop_owners(&d.identity, uid).await })
            .buffer_unordered(16)
            .collect()
            .await;
        results.into_iter().collect::<Result<Vec<()>, _>>()?;
        let Some(live) = self.live(&node.identity).await? else { return Ok(()) };
        self.remove_finalizer(&node.identity, &live, ORPHAN).await
    }
}

enum OwnerState {
    Solid,
    Absent,
    WaitsForDependents,
}

fn owner(reference: &OwnerReference) -> Owner {
    Owner {
        resource: ResourceId { api_version: reference.api_version.clone(), kind: reference.kind.clone() },
        name: reference.name.clone(),
        uid: reference.uid.clone(),
        block: reference.block_owner_deletion == Some(true),
    }
}
