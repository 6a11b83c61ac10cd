//! Endpoints: the older form of EndpointSlices, one object a Service, of the Service's first family.

use super::members;
use crate::informer::Informer;
use crate::objects::{Endpoints, Pod, Service};
use crate::pods;
use crate::queue::{Key, Queue};
use crate::{Context, Error, Running, gone_is_fine};
use futures::FutureExt;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, ObjectReference};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const HEADLESS: &str = "service.kubernetes.io/headless";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MAX_ADDRESSES: usize = 1000;

struct Controller {
    client: Client,
    services: Informer<Service>,
    pods: Informer<Pod>,
    endpoints: Informer<Endpoints>,
}

pub fn controller(context: &Context) -> Running {
    let this = Arc::new(Controller {
        client: context.clients.service_account("endpoint-controller"),
        services: context.informers.of(),
        pods: context.informers.of(),
        endpoints: context.informers.of(),
    });
    let queue = Queue::<Key>::named(&context.config.queues, "endpoint");
    super::subscribe(&queue, &this.services, &this.pods);
    super::subscribe_written(&queue, &this.endpoints, |e| e.metadata.name.clone());
    let shutdown = context.shutdown.clone();
    async move {
        this.services.synced().await;
        this.pods.synced().await;
        this.endpoints.synced().await;
        queue.run("endpoints", 5, shutdown, |key| this.clone().reconcile(key)).await;
        Ok(())
    }
    .boxed()
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Option<Duration>, Error> {
        let api: Api<Endpoints> = Api::namespaced(self.client.clone(), &key.namespace);
        let existing = self.endpoints.by_key(&key);
        let Some(service) = self.services.by_key(&key) else {
            let ours = |e: &Endpoints| {
                e.metadata.labels.as_ref().and_then(|l| l.get(MANAGED_BY)).map(String::as_str) == Some(MANAGER)
            };
            if let Some(existing) = existing.filter(|e| ours(e)) {
                gone_is_fine(api.delete(&key.name, &DeleteParams::default()).await)?;
                self.endpoints.assume_deleted(&key, existing.metadata.uid.as_deref().unwrap_or(""));
            }
            return Ok(None);
        };
        if service.spec.selector.is_none() || service.spec.type_ == "ExternalName" {
            return Ok(None);
        }
        let (subsets, over) = subsets(&service, &super::candidates(&service, &self.pods));
        let labels = labels(&service);
        if let Some(existing) = &existing {
            let capacity = existing.metadata.annotations.as_ref().and_then(|a| a.get(OVER_CAPACITY)).is_some();
            if existing.subsets == subsets && existing.metadata.labels.as_ref() == Some(&labels) && capacity == over {
                return Ok(None);
            }
        }
        let mut body = json!({
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": key.name, "labels": labels},
            "subsets": subsets,
        });
        if over {
            body["metadata"]["annotations"] = json!({OVER_CAPACITY: "truncated"});
        }
        let written: Result<Endpoints, kube::Error> = match &existing {
            None => {
                let request =
                    kube::core::Request::new(<Endpoints as kube::Resource>::url_path(&(), Some(&key.namespace)))
                        .create(&PostParams::default(), body.to_string().into_bytes())
                        .map_err(|e| Error::Api(kube::Error::BuildRequest(e)))?;
                self.client.request(request).await
            }
            Some(existing) => {
                let mut metadata = json!(existing.metadata);
                metadata["labels"] = json!(labels);
                match over {
                    true => metadata["annotations"][OVER_CAPACITY] = json!("truncated"),
                    false => {
                        if let Some(annotations) = metadata["annotations"].as_object_mut() {
                            annotations.remove(OVER_CAPACITY);
                        }
                    }
                }
                body["metadata"] = metadata;
                let request =
                    kube::core::Request::new(<Endpoints as kube::Resource>::url_path(&(), Some(&key.namespace)))
                        .replace(&key.name, &PostParams::default(), body.to_string().into_bytes())
                        .map_err(|e| Error::Api(kube::Error::BuildRequest(e)))?;
                self.client.request(request).await
            }
        };
        match written {
            Ok(endpoints) => self.endpoints.assume(endpoints),
            Err(kube::Error::Api(s)) if s.message.contains("being terminated") => {}
            Err(e) => return Err(e.into()),
        }
        Ok(None)
    }
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    if service.spec.cluster_ip == "None" {
        labels.insert(HEADLESS.into(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    labels
}

/// Addresses by the ports they serve, and whether some had to be left out.
fn subsets(service: &Service, members: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let family = service.spec.ip_families.first().map_or("IPv4", String::as_str);
    let over = members.len() > MAX_ADDRESSES;
    let mut ordered: Vec<&Arc<Pod>> = members.iter().collect();
    // The ready first, so that they are the ones kept.
    ordered.sort_by_key(|p| (!pods::is_ready(p), p.metadata.name.clone()));
    ordered.truncate(MAX_ADDRESSES);
    let mut by_ports: BTreeMap<Vec<members::Port>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
    for pod in ordered {
        let Some(ip) = members::address(pod, family) else { continue };
        let publish = service.spec.publish_not_ready_addresses;
        if pod.metadata.deletion_timestamp.is_some() && !publish {
            continue;
        }
        let ports = members::ports(service, pod);
        if ports.is_empty() && !service.spec.ports.is_empty() {
            continue;
        }
        let address = EndpointAddress {
            ip: ip.to_owned(),
            hostname: members::hostname(service, pod),
            node_name: Some(pod.spec.node_name.clone()).filter(|n| !n.is_empty()),
            target_ref: Some(ObjectReference {
                kind: Some("Pod".into()),
                namespace: pod.metadata.namespace.clone(),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
                ..ObjectReference::default()
            }),
        };
        let (ready, unready) = by_ports.entry(ports).or_default();
        if publish || pods::is_ready(pod) { ready.push(address) } else { unready.push(address) }
    }
    let some = |mut addresses: Vec<EndpointAddress>| {
        addresses.sort_by(|a, b| a.ip.cmp(&b.ip));
        (!addresses.is_empty()).then_some(addresses)
    };
    let subsets = by_ports
        .into_iter()
        .map(|(ports, (ready, unready))| EndpointSubset {
            addresses: some(ready),
            not_ready_addresses: some(unready),
            ports: (!ports.is_empty()).then(|| {
                ports
                    .into_iter()
                    .map(|p| EndpointPort {
                        name: Some(p.name).filter(|n| !n.is_empty()),
                        port: p.port,
                        protocol: Some(p.protocol),
                        app_protocol: p.app_protocol,
                    })
                    .collect()
            }),
        })
        .collect();
    (subsets, over)
}
