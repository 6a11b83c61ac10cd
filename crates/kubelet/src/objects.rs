//! The ConfigMaps and Secrets that the node's pods refer to, each watched by itself while a pod
//! refers to it: the node authorizer permits nothing wider.

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
};

use client::watch::{Config, Event, Events, namespaced};
use futures::StreamExt as _;
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::{sync::watch, task::JoinHandle};

/// Why an object cannot be had.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum ObjectError {
    /// There is none; the text is upstream's.
    #[error("{kind} {name:?} not found")]
    NotFound { kind: &'static str, name: String },
    /// The API server would not say.
    #[error("failed to get {kind} {namespace}/{name}: {message}")]
    Failed { kind: &'static str, namespace: String, name: String, message: String },
}

impl ObjectError {
    #[cfg(test)]
    pub(crate) fn not_found(kind: &'static str, name: &str) -> Self {
        Self::NotFound { kind, name: name.to_owned() }
    }
}

/// Called when an object that a pod refers to changed.
pub(crate) type Notify = Arc<dyn Fn() + Send + Sync>;

#[derive(Clone)]
enum State<K> {
    Loading,
    Missing,
    Present(Arc<K>),
    Failed(String),
}

type Users = Arc<Mutex<HashMap<String, Notify>>>;

struct Entry<K> {
    users: Users,
    state: watch::Receiver<State<K>>,
    task: JoinHandle<()>,
}

impl<K> Drop for Entry<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The watched objects of one kind.
pub(crate) struct Watched<K> {
    client: Client,
    kind: &'static str,
    entries: Mutex<HashMap<(String, String), Entry<K>>>,
}

/// What an object must be to be watched here.
pub(crate) trait Kind:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}

impl Kind for ConfigMap {}
impl Kind for Secret {}

impl<K: Kind> Watched<K> {
    fn new(client: Client, kind: &'static str) -> Self {
        Self { client, kind, entries: Mutex::default() }
    }

    /// Watches an object for a pod, which is told of each change.
    fn acquire(&self, pod: &str, namespace: &str, name: &str, notify: &Notify) {
        let mut entries = lock(&self.entries);
        let entry =
            entries.entry((namespace.to_owned(), name.to_owned())).or_insert_with(|| self.watch(namespace, name));
        lock(&entry.users).insert(pod.to_owned(), notify.clone());
    }

    fn watch(&self, namespace: &str, name: &str) -> Entry<K> {
        let users = Users::default();
        let (sender, state) = watch::channel(State::Loading);
        let config = Config::default().fields(&format!("metadata.name={name}"));
        let events = namespaced(self.client.clone(), namespace, config);
        let task = tokio::spawn(follow(events, name.to_owned(), sender, users.clone()));
        Entry { users, state, task }
    }

    /// Ends all of a pod's references; an object without any is no longer watched.
    fn release(&self, pod: &str) {
        lock(&self.entries).retain(|_, entry| {
            let mut users = lock(&entry.users);
            users.remove(pod);
            !users.is_empty()
        });
    }

    /// The object as it is now; waits for the first answer of the API server. An object that no
    /// pod refers to is fetched.
    pub(crate) async fn get(&self, namespace: &str, name: &str) -> Result<Arc<K>, ObjectError> {
        let key = (namespace.to_owned(), name.to_owned());
        let state = lock(&self.entries).get(&key).map(|entry| entry.state.clone());
        let failed = |message: String| ObjectError::Failed {
            kind: self.kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            message,
        };
        let not_found = || ObjectError::NotFound { kind: self.kind, name: name.to_owned() };
        let Some(mut state) = state else {
            let api = Api::<K>::namespaced(self.client.clone(), namespace);
            return match api.get_opt(name).await {
                Ok(Some(object)) => Ok(Arc::new(object)),
                Ok(None) => Err(not_found()),
                Err(error) => Err(failed(error.to_string())),
            };
        };
        let known = state
            .wait_for(|state| !matches!(state, State::Loading))
            .await
            .map_err(|_| failed("the pod no longer refers to it".to_owned()))?
            .clone();
        match known {
            State::Present(object) => Ok(object),
            State::Failed(message) => Err(failed(message)),
            State::Missing | State::Loading => Err(not_found()),
        }
    }
}

/// Follows one object until dropped.
async fn follow<K: Kind>(mut events: Events<K>, name: String, state: watch::Sender<State<K>>, users: Users) {
    let mut listed = None;
    let set = |new: State<K>| {
        let version = |state: &State<K>| match state {
            State::Present(object) => object.meta().resource_version.clone(),
            _ => None,
        };
        let first = matches!(*state.borrow(), State::Loading);
        let same = match (&*state.borrow(), &new) {
            (State::Missing, State::Missing) => true,
            (old @ State::Present(_), new @ State::Present(_)) => version(old) == version(new),
            _ => false,
        };
        state.send_replace(new);
        if !first && !same {
            let users: Vec<Notify> = lock(&users).values().cloned().collect();
            for notify in users {
                notify();
            }
        }
    };
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed = None,
            Ok(Event::InitApply(object)) => listed = Some(object),
            Ok(Event::InitDone) => set(match listed.take() {
                Some(object) => State::Present(Arc::new(lean(object))),
                None => State::Missing,
            }),
            Ok(Event::Apply(object)) => set(State::Present(Arc::new(lean(object)))),
            Ok(Event::Delete(_)) => set(State::Missing),
            Err(error) => {
                tracing::debug!(name, %error, "watching an object failed; trying again");
                // What is known stays good until the API server says otherwise.
                if matches!(*state.borrow(), State::Loading | State::Failed(_)) {
                    set(State::Failed(error.to_string()));
                }
            }
        }
    }
}

fn lean<K: Kind>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names of the objects that one pod refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct References {
    pub(crate) config_maps: Vec<String>,
    pub(crate) secrets: Vec<String>,
}

/// All objects that pods refer to.
pub(crate) struct Objects {
    pub(crate) config_maps: Watched<ConfigMap>,
    pub(crate) secrets: Watched<Secret>,
}

impl Objects {
    pub(crate) fn new(client: &Client) -> Self {
        Self { config_maps: Watched::new(client.clone(), "configmap"), secrets: Watched::new(client.clone(), "secret") }
    }

    /// Watches what a pod refers to from now on.
    pub(crate) fn acquire(&self, pod: &str, namespace: &str, references: &References, notify: &Notify) {
        for name in &references.config_maps {
            self.config_maps.acquire(pod, namespace, name, notify);
        }
        for name in &references.secrets {
            self.secrets.acquire(pod, namespace, name, notify);
        }
    }

    pub(crate) fn release(&self, pod: &str) {
        self.config_maps.release(pod);
        self.secrets.release(pod);
    }

    /// The present state of what a pod refers to, to be read without waiting.
    pub(crate) async fn snapshot(&self, namespace: &str, references: &References) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for name in &references.config_maps {
            let object = self.config_maps.get(namespace, name).await;
            snapshot.config_maps.insert(name.clone(), object);
        }
        for name in &references.secrets {
            let object = self.secrets.get(namespace, name).await;
            snapshot.secrets.insert(name.clone(), object);
        }
        snapshot
    }
}

/// The objects that one pod refers to, at one moment.
#[derive(Clone, Default)]
pub(crate) struct Snapshot {
    config_maps: HashMap<String, Result<Arc<ConfigMap>, ObjectError>>,
    secrets: HashMap<String, Result<Arc<Secret>, ObjectError>>,
}

impl crate::container::env::Objects for Snapshot {
    fn config_map(&self, name: &str) -> Result<Arc<ConfigMap>, ObjectError> {
        self.config_maps
            .get(name)
            .cloned()
            .unwrap_or_else(|| Err(ObjectError::NotFound { kind: "configmap", name: name.to_owned() }))
    }

    fn secret(&self, name: &str) -> Result<Arc<Secret>, ObjectError> {
        self.secrets
            .get(name)
            .cloned()
            .unwrap_or_else(|| Err(ObjectError::NotFound { kind: "secret", name: name.to_owned() }))
    }
}

/// The objects that a pod's containers and volumes name.
pub(crate) fn references(pod: &k8s_openapi::api::core::v1::Pod) -> References {
    use crate::spec::PodExt as _;
    let mut references = References::default();
    let mut map = |name: &str| references.config_maps.push(name.to_owned());
    let mut secrets = Vec::new();
    let mut secret = |name: &str| {
        if !name.is_empty() {
            secrets.push(name.to_owned());
        }
    };
    let ephemeral: Vec<_> = pod.ephemeral_containers().iter().map(crate::spec::ephemeral_as_container).collect();
    for container in pod.containers().iter().chain(pod.init_containers()).chain(&ephemeral) {
        for source in container.env_from.iter().flatten() {
            if let Some(reference) = &source.config_map_ref {
                map(&reference.name);
            }
            if let Some(reference) = &source.secret_ref {
                secret(&reference.name);
            }
        }
        for source in container.env.iter().flatten().filter_map(|env| env.value_from.as_ref()) {
            if let Some(selector) = &source.config_map_key_ref {
                map(&selector.name);
            }
            if let Some(selector) = &source.secret_key_ref {
                secret(&selector.name);
            }
        }
    }
    for volume in pod.spec().volumes.iter().flatten() {
        if let Some(source) = &volume.config_map {
            map(&source.name);
        }
        if let Some(source) = &volume.secret {
            secret(source.secret_name.as_deref().unwrap_or_default());
        }
        for source in volume.projected.iter().flat_map(|source| source.sources.iter().flatten()) {
            if let Some(source) = &source.config_map {
                map(&source.name);
            }
            if let Some(source) = &source.secret {
                secret(&source.name);
            }
        }
    }
    for reference in pod.spec().image_pull_secrets.iter().flatten() {
        secret(&reference.name);
    }
    references.secrets = secrets;
    for list in [&mut references.config_maps, &mut references.secrets] {
        list.retain(|name| !name.is_empty());
        list.sort();
        list.dedup();
    }
    references
}
