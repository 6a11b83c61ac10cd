//! What every namespace gets: the service account `default`, and the cluster's CA in a ConfigMap.

use crate::informer::{Informer, Object, key};
use crate::objects::{ConfigMap, Namespace, ServiceAccount};
use crate::queue::{Key, Queue};
use crate::{Context, Error, Running, code};
use futures::FutureExt;
use kube::api::PostParams;
use serde_json::json;
use std::time::Duration;

const DEFAULT: &str = "default";
/// The ConfigMap of the cluster's CA.
pub const ROOT_CA: &str = "kube-root-ca.crt";
const ROOT_CA_KEY: &str = "ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

/// Whether a namespace takes new objects.
fn lives(namespaces: &Informer<Namespace>, name: &str) -> bool {
    namespaces.get("", name).is_some_and(|n| n.metadata.deletion_timestamp.is_none() && n.status.phase != "Terminating")
}

/// A refusal that is no failure: it is there already, or the namespace is going.
fn is_settled(error: &kube::Error) -> bool {
    code(error) == 409
        || matches!(error, kube::Error::Api(s) if s.code == 404 || s.message.contains("being terminated"))
}

/// Keeps the service account `default` in every namespace.
pub fn default_accounts(context: &Context) -> Running {
    let client = context.clients.service_account("service-account-controller");
    let namespaces = context.informers.of::<Namespace>();
    let accounts = context.informers.of::<ServiceAccount>();
    let queue = Queue::<Key>::named(&context.config.queues, "serviceaccount");
    let q = queue.clone();
    namespaces.on_change(move |_, new| {
        if let Some(namespace) = new {
            q.add(key(namespace.as_ref()));
        }
    });
    let q = queue.clone();
    accounts.on_change(move |old, new| {
        if let (Some(account), None) = (old, new)
            && account.metadata.name.as_deref() == Some(DEFAULT)
        {
            q.add(Key::new("", account.metadata.namespace.as_deref().unwrap_or("")));
        }
    });
    let shutdown = context.shutdown.clone();
    async move {
        namespaces.synced().await;
        accounts.synced().await;
        let reconcile = |key: Key| {
            let (client, namespaces, accounts) = (client.clone(), namespaces.clone(), accounts.clone());
            async move {
                if accounts.get(&key.name, DEFAULT).is_some() || !lives(&namespaces, &key.name) {
                    return Ok(None::<Duration>);
                }
                let body = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": DEFAULT}});
                match create::<ServiceAccount>(&client, &key.name, &body).await {
                    Ok(account) => accounts.assume(account),
                    Err(e) if is_settled(&e) => {}
                    Err(e) => return Err(Error::from(e)),
                }
                Ok(None)
            }
        };
        queue.run("serviceaccount", 1, shutdown, reconcile).await;
        Ok(())
    }
    .boxed()
}

/// Keeps the cluster's CA in every namespace.
pub fn root_ca_publisher(context: &Context) -> Running {
    let client = context.clients.service_account("root-ca-cert-publisher");
    let namespaces = context.informers.of::<Namespace>();
    let maps = context.informers.of::<ConfigMap>();
    let config = context.config.clone();
    let queue = Queue::<Key>::named(&context.config.queues, "root_ca_cert_publisher");
    let q = queue.clone();
    namespaces.on_change(move |_, new| {
        if let Some(namespace) = new {
            q.add(key(namespace.as_ref()));
        }
    });
    let q = queue.clone();
    maps.on_change(move |old, new| {
        if let Some(map) = new.or(old).filter(|m| m.metadata.name.as_deref() == Some(ROOT_CA)) {
            q.add(Key::new("", map.metadata.namespace.as_deref().unwrap_or("")));
        }
    });
    let shutdown = context.shutdown.clone();
    async move {
        namespaces.synced().await;
        maps.synced().await;
        let reconcile = |key: Key| {
            let (client, namespaces, maps, config) = (client.clone(), namespaces.clone(), maps.clone(), config.clone());
            async move {
                if !lives(&namespaces, &key.name) {
                    return Ok(None::<Duration>);
                }
                let body = json!({
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {"name": ROOT_CA, "annotations": {"kubernetes.io/description": DESCRIPTION}},
                    "data": {ROOT_CA_KEY: config.root_ca},
                });
                let written = match maps.get(&key.name, ROOT_CA) {
                    None => create(&client, &key.name, &body).await,
                    Some(map) if map.data.len() == 1 && map.data.get(ROOT_CA_KEY) == Some(&config.root_ca) => {
                        return Ok(None);
                    }
                    // Written whole, whatever its version: what it says is ours alone.
                    Some(_) => replace(&client, &key.name, ROOT_CA, &body).await,
                };
                match written {
                    Ok(map) => maps.assume(map),
                    Err(e) if is_settled(&e) => {}
                    Err(e) => return Err(Error::from(e)),
                }
                Ok(None)
            }
        };
        queue.run("root-ca", 1, shutdown, reconcile).await;
        Ok(())
    }
    .boxed()
}

/// Creates an object from JSON, as projections can't be written.
async fn create<K>(client: &kube::Client, namespace: &str, body: &serde_json::Value) -> Result<K, kube::Error>
where
    K: Object,
{
    let request = kube::core::Request::new(K::url_path(&(), Some(namespace)))
        .create(&PostParams::default(), body.to_string().into_bytes())
        .map_err(kube::Error::BuildRequest)?;
    client.request(request).await
}

/// Writes an object from JSON over the one that is there.
async fn replace<K>(
    client: &kube::Client,
    namespace: &str,
    name: &str,
    body: &serde_json::Value,
) -> Result<K, kube::Error>
where
    K: Object,
{
    let request = kube::core::Request::new(K::url_path(&(), Some(namespace)))
        .replace(name, &PostParams::default(), body.to_string().into_bytes())
        .map_err(kube::Error::BuildRequest)?;
    client.request(request).await
}
