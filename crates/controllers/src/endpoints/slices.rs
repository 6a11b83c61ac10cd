//! EndpointSlices: at most 100 endpoints of the same ports in each, changed as little as possible.

use super::members::{self, Port};
use crate::informer::{Informer, key};
use crate::objects::{Node, Pod, Service};
use crate::pods;
use crate::queue::{Key, Queue};
use crate::{Context, Error, Running, gone_is_fine};
use futures::FutureExt;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";
const MAX_ENDPOINTS: usize = 100;

struct Controller {
    client: Client,
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
}

/// One write.
#[derive(Debug)]
enum Action {
    Create(EndpointSlice),
    Update(EndpointSlice),
    Delete(EndpointSlice),
}

pub fn controller(context: &Context) -> Running {
    let this = Arc::new(Controller {
        client: context.clients.service_account("endpointslice-controller"),
        services: context.informers.of(),
        pods: context.informers.of(),
        nodes: context.informers.of(),
        slices: context.informers.of(),
    });
    let queue = Queue::<Key>::named(&context.config.queues, "endpoint_slice");
    super::subscribe(&queue, &this.services, &this.pods);
    super::subscribe_written(&queue, &this.slices, |slice| {
        is_ours(slice).then(|| slice.metadata.labels.as_ref()?.get(SERVICE_NAME).cloned()).flatten()
    });
    let shutdown = context.shutdown.clone();
    async move {
        this.services.synced().await;
        this.pods.synced().await;
        this.nodes.synced().await;
        this.slices.synced().await;
        queue.run("endpointslice", 5, shutdown, |key| this.clone().reconcile(key)).await;
        Ok(())
    }
    .boxed()
}

fn is_ours(slice: &EndpointSlice) -> bool {
    slice.metadata.labels.as_ref().and_then(|l| l.get(MANAGED_BY)).map(String::as_str) == Some(MANAGER)
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Option<Duration>, Error> {
        let existing: Vec<Arc<EndpointSlice>> = self
            .slices
            .in_namespace(&key.namespace)
            .into_iter()
            .filter(|s| is_ours(s) && s.metadata.labels.as_ref().and_then(|l| l.get(SERVICE_NAME)) == Some(&key.name))
            .collect();
        let service = self.services.by_key(&key).filter(|s| s.metadata.deletion_timestamp.is_none());
        let Some(service) = service else {
            // Slices of a Service that is gone are the garbage collector's.
            return Ok(None);
        };
        if service.spec.type_ == "ExternalName" || service.spec.selector.is_none() {
            return Ok(None);
        }
        let zone = |node: &str| self.nodes.get("", node)?.metadata.labels.as_ref()?.get(ZONE).cloned();
        let actions = plan(&service, &super::candidates(&service, &self.pods), &existing, &zone);
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &key.namespace);
        for action in actions {
            self.act(&api, action).await?;
        }
        Ok(None)
    }

    async fn act(&self, api: &Api<EndpointSlice>, action: Action) -> Result<(), Error> {
        match action {
            Action::Create(slice) => match api.create(&PostParams::default(), &slice).await {
                Ok(slice) => self.slices.assume(slice),
                Err(kube::Error::Api(s)) if s.message.contains("being terminated") => {}
                Err(e) => return Err(e.into()),
            },
            Action::Update(slice) => {
                let name = slice.metadata.name.clone().unwrap_or_default();
                self.slices.assume(api.replace(&name, &PostParams::default(), &slice).await?);
            }
            Action::Delete(slice) => {
                let name = slice.metadata.name.clone().unwrap_or_default();
                let uid = slice.metadata.uid.clone();
                let params = DeleteParams {
                    preconditions: Some(Preconditions { uid: uid.clone(), resource_version: None }),
                    ..DeleteParams::default()
                };
                gone_is_fine(api.delete(&name, &params).await)?;
                self.slices.assume_deleted(&key(&slice), uid.as_deref().unwrap_or(""));
            }
        }
        Ok(())
    }
}

fn endpoint(service: &Service, pod: &Pod, address: &str, zone: &dyn Fn(&str) -> Option<String>) -> Endpoint {
    let serving = pods::is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let node = Some(pod.spec.node_name.clone()).filter(|n| !n.is_empty());
    Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(service.spec.publish_not_ready_addresses || serving && !terminating),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: members::hostname(service, pod),
        zone: node.as_deref().and_then(zone),
        node_name: node,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

/// The families that a Service has endpoints of.
fn families(service: &Service) -> Vec<String> {
    if service.spec.ip_families.is_empty() { vec!["IPv4".into()] } else { service.spec.ip_families.clone() }
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<String, String> = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if service.spec.cluster_ip == "None" {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(SERVICE_NAME.into(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels
}

fn wire_ports(ports: &[Port]) -> Vec<EndpointPort> {
    ports
        .iter()
        .map(|p| EndpointPort {
            name: Some(p.name.clone()),
            protocol: Some(p.protocol.clone()),
            port: Some(p.port),
            app_protocol: p.app_protocol.clone(),
        })
        .collect()
}

fn identity(endpoint: &Endpoint) -> (Option<&str>, Option<&str>) {
    (endpoint.target_ref.as_ref().and_then(|t| t.uid.as_deref()), endpoint.addresses.first().map(String::as_str))
}

/// What is to be written so that the slices tell what is there; slices that are right are left alone.
fn plan(
    service: &Service,
    members: &[Arc<Pod>],
    existing: &[Arc<EndpointSlice>],
    zone: &dyn Fn(&str) -> Option<String>,
) -> Vec<Action> {
    let families = families(service);
    let mut actions = Vec::new();
    for family in &families {
        let mut by_ports: BTreeMap<Vec<Port>, Vec<Endpoint>> = BTreeMap::new();
        for pod in members {
            if let Some(address) = members::address(pod, family) {
                let ports = members::ports(service, pod);
                // Without any of the ports there is nothing to reach, except by name in a headless Service.
                if ports.is_empty() && !service.spec.ports.is_empty() {
                    continue;
                }
                by_ports.entry(ports).or_default().push(endpoint(service, pod, address, zone));
            }
        }
        // As upstream: a Service without endpoints has one empty slice.
        if by_ports.is_empty() {
            by_ports.insert(Vec::new(), Vec::new());
        }
        let of_family: Vec<&Arc<EndpointSlice>> = existing.iter().filter(|s| s.address_type == *family).collect();
        let mut used = BTreeSet::new();
        for (ports, endpoints) in by_ports {
            let ports = wire_ports(&ports);
            let same: Vec<&Arc<EndpointSlice>> =
                of_family.iter().filter(|s| s.ports.as_deref().unwrap_or(&[]) == ports).copied().collect();
            used.extend(same.iter().filter_map(|s| s.metadata.uid.clone()));
            actions.extend(fill(service, family, &ports, endpoints, &same));
        }
        let unused = of_family.iter().filter(|s| s.metadata.uid.as_ref().is_none_or(|uid| !used.contains(uid)));
        actions.extend(unused.map(|s| Action::Delete(s.as_ref().clone())));
    }
    let other_families = existing.iter().filter(|s| !families.contains(&s.address_type));
    actions.extend(other_families.map(|s| Action::Delete(s.as_ref().clone())));
    // What existed is reused before anything is added: fewer objects change.
    reuse(actions)
}

/// Turns a deletion and a creation into an update.
fn reuse(actions: Vec<Action>) -> Vec<Action> {
    let mut deletes = Vec::new();
    let mut creates = Vec::new();
    let mut rest = Vec::new();
    for action in actions {
        match action {
            Action::Delete(s) => deletes.push(s),
            Action::Create(s) => creates.push(s),
            update @ Action::Update(_) => rest.push(update),
        }
    }
    for create in creates {
        match deletes.iter().position(|d| d.address_type == create.address_type) {
            Some(i) => {
                let old = deletes.swap_remove(i);
                rest.push(Action::Update(EndpointSlice {
                    metadata: ObjectMeta { labels: create.metadata.labels, ..old.metadata },
                    ..create
                }));
            }
            None => rest.push(Action::Create(create)),
        }
    }
    rest.extend(deletes.into_iter().map(Action::Delete));
    rest
}

/// Puts endpoints into the slices of their ports: those that are there stay where they are, new ones fill gaps.
fn fill(
    service: &Service,
    family: &str,
    ports: &[EndpointPort],
    endpoints: Vec<Endpoint>,
    same: &[&Arc<EndpointSlice>],
) -> Vec<Action> {
    let mut wanted: BTreeMap<_, Endpoint> = BTreeMap::new();
    for endpoint in endpoints {
        let (uid, address) = identity(&endpoint);
        wanted.insert((uid.map(str::to_owned), address.map(str::to_owned)), endpoint);
    }
    let mut filled: Vec<(Option<&EndpointSlice>, Vec<Endpoint>)> = Vec::new();
    for slice in same {
        let mut kept = Vec::new();
        for old in slice.endpoints.iter().flatten() {
            let (uid, address) = identity(old);
            kept.extend(wanted.remove(&(uid.map(str::to_owned), address.map(str::to_owned))));
        }
        filled.push((Some(slice.as_ref()), kept));
    }
    let mut left: Vec<Endpoint> = wanted.into_values().collect();
    for (_, endpoints) in &mut filled {
        while endpoints.len() < MAX_ENDPOINTS
            && let Some(endpoint) = left.pop()
        {
            endpoints.push(endpoint);
        }
    }
    while !left.is_empty() || filled.is_empty() {
        let rest = left.split_off(left.len().min(MAX_ENDPOINTS));
        filled.push((None, std::mem::replace(&mut left, rest)));
    }
    let labels = labels(service);
    let populated = filled.iter().filter(|(_, e)| !e.is_empty()).count();
    let mut actions = Vec::new();
    for (i, (slice, endpoints)) in filled.into_iter().enumerate() {
        match slice {
            // Emptied ones go, but for the one that says there is nothing.
            Some(slice) if endpoints.is_empty() && (populated > 0 || i > 0) => {
                actions.push(Action::Delete(slice.clone()))
            }
            Some(slice) => {
                let same = slice.endpoints.as_deref().unwrap_or(&[]) == endpoints
                    && slice.metadata.labels.as_ref() == Some(&labels);
                if !same {
                    let metadata = ObjectMeta { labels: Some(labels.clone()), ..slice.metadata.clone() };
                    actions.push(Action::Update(EndpointSlice {
                        metadata,
                        endpoints: Some(endpoints),
                        ..slice.clone()
                    }));
                }
            }
            None => actions.push(Action::Create(EndpointSlice {
                metadata: ObjectMeta {
                    generate_name: Some(format!("{}-", service.metadata.name.as_deref().unwrap_or(""))),
                    namespace: service.metadata.namespace.clone(),
                    labels: Some(labels.clone()),
                    owner_references: Some(vec![pods::owner("v1", "Service", &service.metadata)]),
                    ..ObjectMeta::default()
                },
                address_type: family.to_owned(),
                endpoints: Some(endpoints),
                ports: Some(ports.to_vec()),
            })),
        }
    }
    actions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{PodCondition, PodSpec, PodStatus, ServicePort, ServiceSpec};
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

    fn service() -> Service {
        Service {
            metadata: ObjectMeta {
                name: Some("web".into()),
                namespace: Some("n".into()),
                uid: Some("s".into()),
                ..ObjectMeta::default()
            },
            spec: ServiceSpec {
                selector: Some(BTreeMap::from([("app".into(), "web".into())])),
                ports: vec![ServicePort {
                    port: 80,
                    target_port: Some(IntOrString::Int(8080)),
                    ..ServicePort::default()
                }],
                ..ServiceSpec::default()
            },
        }
    }

    fn pod(i: usize, ready: bool) -> Arc<Pod> {
        Arc::new(Pod {
            metadata: ObjectMeta { name: Some(format!("p{i}")), uid: Some(format!("u{i}")), ..ObjectMeta::default() },
            spec: PodSpec { node_name: "n1".into(), ..PodSpec::default() },
            status: PodStatus {
                pod_ip: format!("10.0.{}.{}", i / 250, i % 250),
                conditions: vec![PodCondition {
                    type_: "Ready".into(),
                    status: if ready { "True" } else { "False" }.into(),
                    last_transition_time: None,
                }],
                ..PodStatus::default()
            },
        })
    }

    /// What the API server would have after the actions.
    fn carried_out(existing: Vec<Arc<EndpointSlice>>, actions: Vec<Action>) -> Vec<Arc<EndpointSlice>> {
        let mut slices: BTreeMap<String, Arc<EndpointSlice>> =
            existing.into_iter().map(|s| (s.metadata.uid.clone().unwrap_or_default(), s)).collect();
        for (i, action) in actions.into_iter().enumerate() {
            match action {
                Action::Create(mut s) => {
                    let uid = format!("new{i}");
                    s.metadata.uid = Some(uid.clone());
                    slices.insert(uid, Arc::new(s));
                }
                Action::Update(s) => {
                    slices.insert(s.metadata.uid.clone().unwrap_or_default(), Arc::new(s));
                }
                Action::Delete(s) => {
                    slices.remove(s.metadata.uid.as_deref().unwrap_or(""));
                }
            }
        }
        slices.into_values().collect()
    }

    #[test]
    fn all_members_are_told_once_and_little_changes() {
        let zone = |node: &str| Some(format!("zone-of-{node}"));
        let mut members: Vec<Arc<Pod>> = (0..250).map(|i| pod(i, true)).collect();
        let slices = carried_out(Vec::new(), plan(&service(), &members, &[], &zone));
        assert_eq!(slices.len(), 3);
        let first = slices[0].endpoints.iter().flatten().next().cloned().unwrap_or_default();
        assert_eq!(first.zone.as_deref(), Some("zone-of-n1"));
        assert_eq!(slices[0].ports.iter().flatten().next().and_then(|p| p.port), Some(8080));
        assert!(plan(&service(), &members, &slices, &zone).is_empty(), "nothing to do when it is right");
        // One pod becomes unready: one slice changes.
        members[7] = pod(7, false);
        let actions = plan(&service(), &members, &slices, &zone);
        assert_eq!(actions.len(), 1);
        let slices = carried_out(slices, actions);
        let unready = slices
            .iter()
            .flat_map(|s| s.endpoints.iter().flatten())
            .filter(|e| e.conditions.as_ref().and_then(|c| c.ready) == Some(false));
        assert_eq!(unready.count(), 1);
        // All gone: one empty slice is left.
        let slices = carried_out(slices.clone(), plan(&service(), &[], &slices, &zone));
        assert_eq!(slices.len(), 1);
        assert_eq!(slices[0].endpoints.iter().flatten().count(), 0);
        assert!(plan(&service(), &[], &slices, &zone).is_empty());
    }
}
