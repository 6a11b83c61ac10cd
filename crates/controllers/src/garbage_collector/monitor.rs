//! Watches the metadata of every deletable resource and feeds the graph.

use super::graph::{Identity, Observed, ResourceId};
use super::{Controller, FOREGROUND, ORPHAN, owner};
use crate::Error;
use client::watch::{self, Event};
use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll};
use kube::api::{ApiResource, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::discovery::{Discovery, Scope, verbs};
use kube::{Resource, ResourceExt};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};

/// Written by the thousand, and owned by nobody.
const IGNORED: &[(&str, &str)] = &[("", "events"), ("events.k8s.io", "events")];

type Events = BoxStream<'static, (usize, Result<Event<PartialObjectMeta<DynamicObject>>, watch::Error>)>;

/// Feeds the graph until a watch ends.
pub(super) async fn run(controller: Arc<Controller>) -> Result<(), Error> {
    let found = discover(&controller).await?;
    let mut events: SelectAll<Events> = SelectAll::new();
    let mut monitors: Vec<Monitor> = Vec::with_capacity(found.len());
    for (index, resource) in found.into_iter().enumerate() {
        let config = watch::Config::default().any_semantic();
        let followed = watch::resource(controller.client.clone(), &resource, config);
        events.push(followed.map(move |event| (index, event)).boxed());
        monitors.push(Monitor::new(resource));
    }
    while let Some((index, event)) = events.next().await {
        if let Some(monitor) = monitors.get_mut(index) {
            monitor.feed(&controller, event);
        }
    }
    Err(Error::Other("the garbage collector's watches ended".to_owned()))
}

async fn discover(controller: &Controller) -> Result<Vec<ApiResource>, Error> {
    let discovery = Discovery::new(controller.client.clone()).run().await?;
    let mut monitored = Vec::new();
    let mut resources = HashMap::new();
    for group in discovery.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            let id = ResourceId { api_version: resource.api_version.clone(), kind: resource.kind.clone() };
            resources.insert(id, (resource.clone(), capabilities.scope == Scope::Namespaced));
            let deletable =
                [verbs::LIST, verbs::WATCH, verbs::DELETE].iter().all(|v| capabilities.supports_operation(v));
            if deletable && !IGNORED.contains(&(resource.group.as_str(), resource.plural.as_str())) {
                monitored.push(resource);
            }
        }
        // Owners are named by any served version.
        for version in group.versions() {
            for (resource, capabilities) in group.versioned_resources(version) {
                let id = ResourceId { api_version: resource.api_version.clone(), kind: resource.kind.clone() };
                resources.entry(id).or_insert((resource, capabilities.scope == Scope::Namespaced));
            }
        }
    }
    *controller.resources.lock().unwrap_or_else(PoisonError::into_inner) = resources;
    Ok(monitored)
}

/// What is known to be there of one resource, so that a new list tells what went meanwhile.
struct Monitor {
    resource: ApiResource,
    known: HashSet<String>,
    listed: Option<HashSet<String>>,
}

impl Monitor {
    fn new(resource: ApiResource) -> Self {
        Monitor { resource, known: HashSet::new(), listed: None }
    }

    fn feed(&mut self, controller: &Controller, event: Result<Event<PartialObjectMeta<DynamicObject>>, watch::Error>) {
        match event {
            Ok(Event::Init) => self.listed = Some(HashSet::new()),
            Ok(Event::InitApply(object)) => {
                if let Some(listed) = &mut self.listed {
                    listed.extend(object.uid());
                }
                self.upsert(controller, &object);
            }
            Ok(Event::InitDone) => {
                let listed = self.listed.take().unwrap_or_default();
                for gone in self.known.difference(&listed) {
                    let todo = controller.graph().remove(gone);
                    controller.ask(todo);
                }
                self.known = listed;
            }
            Ok(Event::Apply(object)) => self.upsert(controller, &object),
            Ok(Event::Delete(object)) => {
                if let Some(uid) = object.uid() {
                    self.known.remove(&uid);
                    let todo = controller.graph().remove(&uid);
                    controller.ask(todo);
                }
            }
            Err(e) => {
                tracing::warn!(resource = %self.resource.plural, "the garbage collector's watch failed and is tried again: {e}")
            }
        }
    }

    fn upsert(&mut self, controller: &Controller, object: &PartialObjectMeta<DynamicObject>) {
        let meta = object.meta();
        let Some(uid) = meta.uid.clone() else { return };
        self.known.insert(uid.clone());
        let has = |finalizer: &str| meta.finalizers.iter().flatten().any(|f| f == finalizer);
        let todo = controller.graph().upsert(Observed {
            identity: Identity {
                resource: ResourceId {
                    api_version: self.resource.api_version.clone(),
                    kind: self.resource.kind.clone(),
                },
                namespace: meta.namespace.clone().unwrap_or_default(),
                name: meta.name.clone().unwrap_or_default(),
                uid,
            },
            owners: meta.owner_references.iter().flatten().map(owner).collect(),
            being_deleted: meta.deletion_timestamp.is_some(),
            foreground: has(FOREGROUND),
            orphan: has(ORPHAN),
        });
        controller.ask(todo);
    }
}
