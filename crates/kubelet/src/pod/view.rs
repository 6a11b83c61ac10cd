//! What the rest of the kubelet sees of its pods: snapshots that the workers publish.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::mpsc;

use super::{observed::Observed, worker::Message};
use crate::spec::PodExt;

/// One pod, as its worker last saw it.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) pod: Arc<Pod>,
    pub(crate) status: Arc<PodStatus>,
    pub(crate) observed: Arc<Observed>,
    /// Nothing of it runs or will run any more.
    pub(crate) finished: bool,
}

struct Entry {
    snapshot: Snapshot,
    inbox: mpsc::UnboundedSender<Message>,
}

/// The pods of the node by uid.
#[derive(Default)]
pub(crate) struct Pods {
    map: RwLock<HashMap<String, Entry>>,
}

impl Pods {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<String, Entry>> {
        self.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<String, Entry>> {
        self.map.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn insert(&self, snapshot: Snapshot, inbox: mpsc::UnboundedSender<Message>) {
        self.write().insert(snapshot.pod.uid().to_owned(), Entry { snapshot, inbox });
    }

    pub(crate) fn publish(&self, snapshot: Snapshot) {
        if let Some(entry) = self.write().get_mut(snapshot.pod.uid()) {
            entry.snapshot = snapshot;
        }
    }

    pub(crate) fn remove(&self, uid: &str) {
        self.write().remove(uid);
    }

    pub(crate) fn contains(&self, uid: &str) -> bool {
        self.read().contains_key(uid)
    }

    pub(crate) fn get(&self, uid: &str) -> Option<Snapshot> {
        self.read().get(uid).map(|entry| entry.snapshot.clone())
    }

    /// The pod of this name; of several, as when one is being replaced, one that isn't finished.
    pub(crate) fn by_name(&self, namespace: &str, name: &str) -> Option<Snapshot> {
        let map = self.read();
        let mut found: Vec<&Snapshot> = map
            .values()
            .map(|entry| &entry.snapshot)
            .filter(|snapshot| snapshot.pod.namespace() == namespace && snapshot.pod.name() == name)
            .collect();
        found.sort_by_key(|snapshot| (snapshot.finished, snapshot.pod.is_deleted()));
        found.first().map(|snapshot| (*snapshot).clone())
    }

    pub(crate) fn all(&self) -> Vec<Snapshot> {
        self.read().values().map(|entry| entry.snapshot.clone()).collect()
    }

    /// Tells a pod's worker something; false if there is none.
    pub(crate) fn tell(&self, uid: &str, message: Message) -> bool {
        self.read().get(uid).is_some_and(|entry| entry.inbox.send(message).is_ok())
    }

    /// Tells all workers something.
    pub(crate) fn tell_all(&self, message: impl Fn() -> Message) {
        for entry in self.read().values() {
            // A worker that just ended needs to hear nothing.
            let _ = entry.inbox.send(message());
        }
    }
}
