//! The services of the cluster, as far as containers are told of them.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
};

use client::watch::{Config, Event, all};
use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The fields of a service that become environment variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) cluster_ip: Option<String>,
    pub(crate) ports: Vec<Port>,
}

impl Service {
    /// The cluster IP, if the service has one.
    pub(crate) fn ip(&self) -> Option<&str> {
        self.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None")
    }
}

/// A port of a service.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: Option<String>,
    pub(crate) port: i32,
    pub(crate) protocol: Option<String>,
}

/// What is read of a service.
#[derive(Clone, Debug, Deserialize)]
struct Projection {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(default)]
    ports: Vec<Port>,
}

impl kube::Resource for Projection {
    type DynamicType = ();
    type Scope = k8s_openapi::NamespaceResourceScope;

    fn kind((): &()) -> std::borrow::Cow<'_, str> {
        "Service".into()
    }
    fn group((): &()) -> std::borrow::Cow<'_, str> {
        "".into()
    }
    fn version((): &()) -> std::borrow::Cow<'_, str> {
        "v1".into()
    }
    fn plural((): &()) -> std::borrow::Cow<'_, str> {
        "services".into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl From<Projection> for Service {
    fn from(projection: Projection) -> Self {
        Self {
            namespace: projection.metadata.namespace.unwrap_or_default(),
            name: projection.metadata.name.unwrap_or_default(),
            cluster_ip: projection.spec.cluster_ip,
            ports: projection.spec.ports,
        }
    }
}

type Map = HashMap<(String, String), Service>;

/// All services, kept up to date by [`Services::run`].
#[derive(Clone)]
pub(crate) struct Services {
    map: Arc<RwLock<Map>>,
    synced: watch::Sender<bool>,
}

impl Services {
    pub(crate) fn new() -> Self {
        Self { map: Arc::default(), synced: watch::Sender::new(false) }
    }

    /// Watches until `stop`.
    pub(crate) async fn run(self, client: Client, stop: CancellationToken) {
        let mut events = all::<Projection>(client, Config::default()).take_until(stop.cancelled_owned()).boxed();
        let mut listed = Map::new();
        while let Some(event) = events.next().await {
            let key = |service: &Service| (service.namespace.clone(), service.name.clone());
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(service)) => {
                    let service = Service::from(service);
                    listed.insert(key(&service), service);
                }
                Ok(Event::InitDone) => {
                    *write(&self.map) = std::mem::take(&mut listed);
                    self.synced.send_replace(true);
                }
                Ok(Event::Apply(service)) => {
                    let service = Service::from(service);
                    write(&self.map).insert(key(&service), service);
                }
                Ok(Event::Delete(service)) => {
                    write(&self.map).remove(&key(&service.into()));
                }
                Err(error) => tracing::warn!(%error, "watching services failed; trying again"),
            }
        }
    }

    /// Waits until the services were listed once.
    pub(crate) async fn synced(&self) {
        // The sender lives as long as self.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// The services that containers in `namespace` are told of: the API server's always, those of
    /// the namespace if the pod wants links.
    pub(crate) fn visible(&self, namespace: &str, links: bool) -> Vec<Service> {
        let map = self.map.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut found: HashMap<&str, &Service> = HashMap::new();
        for service in map.values().filter(|service| service.ip().is_some()) {
            if service.namespace == namespace && links {
                found.insert(&service.name, service);
            } else if service.namespace == "default" && service.name == "kubernetes" {
                found.entry(&service.name).or_insert(service);
            }
        }
        let mut found: Vec<Service> = found.into_values().cloned().collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }
}

fn write(map: &RwLock<Map>) -> std::sync::RwLockWriteGuard<'_, Map> {
    map.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}
