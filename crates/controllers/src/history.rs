//! Revisions of a template: what StatefulSets and DaemonSets were, so that they can be rolled out, and back.

use crate::deployment::template;
use crate::informer::{Informer, Object, key};
use crate::pod_control;
use crate::pods;
use crate::{Error, gone_is_fine};
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::sync::Arc;

impl Object for ControllerRevision {}

/// One revision of an object's template.
#[derive(Clone, Debug)]
pub(crate) struct Revision {
    pub(crate) name: String,
    /// What of its name tells it from others.
    pub(crate) hash: String,
    pub(crate) template: Value,
}

/// The revisions of the objects of one kind.
pub(crate) struct History {
    client: Client,
    revisions: Informer<ControllerRevision>,
    /// The label that carries the hash.
    label: &'static str,
}

fn data(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(map) = template.as_object_mut() {
        map.insert("$patch".into(), "replace".into());
    }
    json!({"spec": {"template": template}})
}

fn revision_of(revision: &ControllerRevision) -> Revision {
    let name = revision.metadata.name.clone().unwrap_or_default();
    let hash = name.rsplit_once('-').map_or(name.clone(), |(_, hash)| hash.to_owned());
    let mut template =
        revision.data.as_ref().and_then(|data| data.0.pointer("/spec/template")).cloned().unwrap_or_default();
    if let Some(map) = template.as_object_mut() {
        map.remove("$patch");
    }
    Revision { name, hash, template }
}

impl History {
    pub(crate) fn new(client: Client, revisions: Informer<ControllerRevision>, label: &'static str) -> Self {
        History { client, revisions, label }
    }

    pub(crate) async fn synced(&self) {
        self.revisions.synced().await;
    }

    /// The revisions of an object, oldest first.
    fn of<K: Object>(&self, owner: &K) -> Vec<Arc<ControllerRevision>> {
        let mut all = self.revisions.in_namespace(owner.meta().namespace.as_deref().unwrap_or(""));
        all.retain(|r| pods::controller(&r.metadata).map(|o| &o.uid) == owner.meta().uid.as_ref());
        all.sort_by_key(|r| r.revision);
        all
    }

    /// A revision by its name.
    pub(crate) fn find<K: Object>(&self, owner: &K, name: &str) -> Option<Revision> {
        self.of(owner).iter().find(|r| r.metadata.name.as_deref() == Some(name)).map(|r| revision_of(r))
    }

    /// The revision of the template as it is now, made if there is none; the newest of all afterwards.
    pub(crate) async fn current<K: Object>(
        &self,
        owner: &K,
        template: &Value,
        collisions: Option<i32>,
    ) -> Result<Revision, Error> {
        let namespace = owner.meta().namespace.as_deref().unwrap_or("");
        let api: Api<ControllerRevision> = Api::namespaced(self.client.clone(), namespace);
        let known = self.of(owner);
        let newest = known.last().map_or(0, |r| r.revision);
        let wanted = data(template);
        let same = known.iter().rfind(|r| r.data.as_ref().is_some_and(|data| data.0 == wanted));
        if let Some(same) = same {
            if same.revision != newest {
                // What was once is so again: it counts as the newest.
                let patch = json!({"revision": newest + 1});
                let name = same.metadata.name.as_deref().unwrap_or("");
                self.revisions.assume(api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?);
            }
            return Ok(revision_of(same));
        }
        let hash = template::hash(template, collisions);
        let mut labels = template.pointer("/metadata/labels").cloned().unwrap_or_else(|| json!({}));
        labels[self.label] = hash.as_str().into();
        let name = format!("{}-{hash}", owner.meta().name.as_deref().unwrap_or(""));
        let body = json!({
            "apiVersion": "apps/v1", "kind": "ControllerRevision",
            "metadata": {"name": name, "labels": labels, "ownerReferences": [pod_control::owner(owner)]},
            "data": wanted, "revision": newest + 1,
        });
        let body: ControllerRevision =
            serde_json::from_value(body).map_err(|source| Error::Encode { what: "a ControllerRevision", source })?;
        match api.create(&PostParams::default(), &body).await {
            Ok(made) => {
                self.revisions.assume(made.clone());
                Ok(revision_of(&made))
            }
            // Ours from before a restart, or of a template with the same hash.
            Err(e) if crate::code(&e) == 409 => match api.get_opt(&name).await? {
                Some(found) if found.data.as_ref().is_some_and(|data| data.0 == wanted) => Ok(revision_of(&found)),
                _ => Err(e.into()),
            },
            Err(e) => Err(e.into()),
        }
    }

    /// Removes the oldest revisions beyond the number that is kept; those that live are not counted.
    pub(crate) async fn trim<K: Object>(&self, owner: &K, live: &[&str], limit: i32) -> Result<(), Error> {
        let dead: Vec<_> = self
            .of(owner)
            .into_iter()
            .filter(|r| !r.metadata.name.as_deref().is_some_and(|name| live.contains(&name)))
            .collect();
        let excess = dead.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        let namespace = owner.meta().namespace.as_deref().unwrap_or("");
        let api: Api<ControllerRevision> = Api::namespaced(self.client.clone(), namespace);
        for revision in dead.into_iter().take(excess) {
            let name = revision.metadata.name.as_deref().unwrap_or("");
            gone_is_fine(api.delete(name, &DeleteParams::default()).await)?;
            self.revisions.assume_deleted(&key(revision.as_ref()), revision.metadata.uid.as_deref().unwrap_or(""));
        }
        Ok(())
    }
}
