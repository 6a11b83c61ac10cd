//! What was observed of the cluster, reduced to what the plan needs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use network::{Cidr, Protocol};

use crate::objects;

/// How long a client stays with its endpoint when the Service does not say.
const DEFAULT_AFFINITY_SECONDS: u32 = 10_800;
/// The longest time that the API accepts.
const LONGEST_AFFINITY_SECONDS: u32 = 86_400;

/// A Service by namespace and name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServiceName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Which endpoints traffic may go to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TrafficPolicy {
    /// All of the cluster.
    #[default]
    Cluster,
    /// Those on this node.
    Local,
}

impl TrafficPolicy {
    fn parse(text: Option<&str>) -> Self {
        if text == Some("Local") { TrafficPolicy::Local } else { TrafficPolicy::Cluster }
    }
}

/// What counts of a Service.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Service {
    /// When it was made, in seconds.
    pub since: Option<i64>,
    /// The addresses of its own.
    pub cluster_ips: Vec<IpAddr>,
    /// Addresses outside that lead to it.
    pub external_ips: Vec<IpAddr>,
    /// Addresses of load balancers that leave packets as they are.
    pub load_balancer_ips: Vec<IpAddr>,
    /// Who may use the load balancer; everyone when empty.
    pub source_ranges: Vec<Cidr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// For how many seconds a client keeps its endpoint, if it does.
    pub affinity: Option<u32>,
    /// For traffic to the cluster IP.
    pub internal_policy: TrafficPolicy,
    /// For traffic to all other addresses.
    pub external_policy: TrafficPolicy,
    /// Where load balancers ask whether this node has endpoints.
    pub health_check_port: Option<u16>,
}

/// A port of a Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServicePort {
    /// Its name, empty for an only port.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// The port at its addresses.
    pub port: u16,
    /// The port at the addresses of nodes.
    pub node_port: Option<u16>,
}

/// What counts of an EndpointSlice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slice {
    /// Whether it is of IPv6 addresses.
    pub ipv6: bool,
    /// The ports that all its endpoints have: name, protocol, number.
    pub ports: Vec<(String, Protocol, u16)>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// What counts of an endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Its address.
    pub ip: IpAddr,
    /// Whether it wants traffic.
    pub ready: bool,
    /// Whether it could serve, though it is ending.
    pub serving: bool,
    /// Whether it is ending.
    pub terminating: bool,
    /// Whether it is on this node.
    pub local: bool,
    /// For whom it is meant.
    pub hints: Option<Box<Hints>>,
}

/// For whom an endpoint is meant.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hints {
    /// Nodes in these zones.
    pub zones: Vec<String>,
    /// These nodes.
    pub nodes: Vec<String>,
}

/// What counts of this node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its zone, when it says.
    pub zone: Option<String>,
    /// Its internal addresses.
    pub addresses: Vec<IpAddr>,
}

/// All that was observed. Changes collect the names of the services they touch.
#[derive(Debug, Default)]
pub struct State {
    /// This node.
    pub node: Node,
    services: BTreeMap<ServiceName, Service>,
    slices: BTreeMap<ServiceName, BTreeMap<String, Slice>>,
    /// Which Service a slice belongs to: it can be relabelled.
    slice_owners: BTreeMap<ServiceName, ServiceName>,
    dirty: BTreeSet<ServiceName>,
}

impl State {
    /// Nothing was observed yet on the node of this name.
    pub fn new(node_name: impl Into<String>) -> Self {
        Self { node: Node { name: node_name.into(), ..Node::default() }, ..Self::default() }
    }

    /// The Service of this name, if it is the proxy's business.
    pub fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.services.get(name)
    }

    /// All Services.
    pub fn services(&self) -> impl Iterator<Item = (&ServiceName, &Service)> {
        self.services.iter()
    }

    /// The slices of a Service, in the order of their names.
    pub fn slices(&self, service: &ServiceName) -> impl Iterator<Item = &Slice> {
        self.slices.get(service).into_iter().flat_map(BTreeMap::values)
    }

    /// The names of Services that changed since the last call.
    pub fn take_dirty(&mut self) -> BTreeSet<ServiceName> {
        std::mem::take(&mut self.dirty)
    }

    /// A Service was made or changed.
    pub fn apply_service(&mut self, object: &objects::Service) {
        let name = name_of(&object.metadata);
        match Service::parse(object) {
            Some(service) if self.services.get(&name) == Some(&service) => {}
            Some(service) => {
                self.services.insert(name.clone(), service);
                self.dirty.insert(name);
            }
            None => self.delete_service(&name),
        }
    }

    /// A Service is gone.
    pub fn delete_service(&mut self, name: &ServiceName) {
        if self.services.remove(name).is_some() {
            self.dirty.insert(name.clone());
        }
    }

    /// A slice was made or changed.
    pub fn apply_slice(&mut self, object: &objects::EndpointSlice) {
        let slice_name = name_of(&object.metadata);
        let service = object.metadata.labels.as_ref().and_then(|labels| labels.get(objects::SERVICE_NAME));
        let owner = service
            .filter(|name| !name.is_empty())
            .map(|name| ServiceName { namespace: slice_name.namespace.clone(), name: name.clone() });
        let slice = Slice::parse(object, &self.node.name);
        let (Some(owner), Some(slice)) = (owner, slice) else { return self.delete_slice(&slice_name) };
        if self.slice_owners.get(&slice_name).is_some_and(|old| *old != owner) {
            self.delete_slice(&slice_name);
        }
        let slices = self.slices.entry(owner.clone()).or_default();
        if slices.get(&slice_name.name) == Some(&slice) {
            return;
        }
        slices.insert(slice_name.name.clone(), slice);
        self.slice_owners.insert(slice_name, owner.clone());
        self.dirty.insert(owner);
    }

    /// A slice is gone.
    pub fn delete_slice(&mut self, slice_name: &ServiceName) {
        let Some(owner) = self.slice_owners.remove(slice_name) else { return };
        if let Some(slices) = self.slices.get_mut(&owner) {
            slices.remove(&slice_name.name);
            if slices.is_empty() {
                self.slices.remove(&owner);
            }
        }
        self.dirty.insert(owner);
    }

    /// This node changed.
    pub fn apply_node(&mut self, object: &objects::Node) {
        let labels = object.metadata.labels.as_ref();
        let zone = labels.and_then(|labels| labels.get("topology.kubernetes.io/zone")).cloned();
        let addresses = object.status.addresses.iter().filter(|a| a.type_ == "InternalIP");
        let addresses = addresses.filter_map(|a| a.address.parse().ok()).collect();
        let node = Node { name: self.node.name.clone(), zone, addresses };
        if self.node != node {
            self.node = node;
            self.dirty.extend(self.services.keys().cloned());
        }
    }

    /// The names of all Services, for comparing with a new list.
    pub fn service_names(&self) -> BTreeSet<ServiceName> {
        self.services.keys().cloned().collect()
    }

    /// The names of all slices, for comparing with a new list.
    pub fn slice_names(&self) -> BTreeSet<ServiceName> {
        self.slice_owners.keys().cloned().collect()
    }
}

/// The namespace and name of an object.
pub fn name_of(metadata: &kube::core::ObjectMeta) -> ServiceName {
    ServiceName {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}

fn addresses<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<IpAddr> {
    texts.into_iter().filter_map(|text| text.parse().ok()).collect()
}

fn protocol(text: Option<&str>) -> Option<Protocol> {
    match text {
        None | Some("" | "TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

impl Service {
    /// What counts of a Service; nothing when it is headless or only a name for something outside.
    fn parse(object: &objects::Service) -> Option<Self> {
        let spec = &object.spec;
        if spec.type_ == "ExternalName" || matches!(spec.cluster_ip.as_str(), "" | "None") {
            return None;
        }
        let mut cluster_ips = addresses(&spec.cluster_ips);
        if cluster_ips.is_empty() {
            cluster_ips = addresses([&spec.cluster_ip]);
        }
        let ingress = object.status.load_balancer.ingress.iter();
        let vips = ingress.filter(|i| i.ip_mode.as_deref().is_none_or(|mode| mode == "VIP"));
        let seconds = || {
            let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
            config.and_then(|config| config.timeout_seconds).unwrap_or(DEFAULT_AFFINITY_SECONDS)
        };
        let external_policy = TrafficPolicy::parse(spec.external_traffic_policy.as_deref());
        Some(Self {
            since: object.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second()),
            cluster_ips,
            external_ips: addresses(&spec.external_ips),
            load_balancer_ips: addresses(vips.map(|i| &i.ip)),
            source_ranges: spec.load_balancer_source_ranges.iter().filter_map(|text| text.parse().ok()).collect(),
            ports: spec.ports.iter().filter_map(ServicePort::parse).collect(),
            affinity: (spec.session_affinity == "ClientIP").then(|| seconds().clamp(1, LONGEST_AFFINITY_SECONDS)),
            internal_policy: TrafficPolicy::parse(spec.internal_traffic_policy.as_deref()),
            external_policy,
            health_check_port: Some(spec.health_check_node_port)
                .filter(|port| *port != 0 && external_policy == TrafficPolicy::Local),
        })
    }
}

impl ServicePort {
    fn parse(port: &objects::ServicePort) -> Option<Self> {
        Some(Self {
            name: port.name.clone(),
            protocol: protocol(port.protocol.as_deref())?,
            port: port.port,
            node_port: Some(port.node_port).filter(|port| *port != 0),
        })
    }
}

impl Slice {
    /// What counts of a slice; nothing when its endpoints have no IP addresses.
    fn parse(object: &objects::EndpointSlice, node_name: &str) -> Option<Self> {
        let ipv6 = match object.address_type.as_str() {
            "IPv4" => false,
            "IPv6" => true,
            _ => return None,
        };
        let ports = object.ports.iter().flatten().filter_map(|port| {
            let number = port.port.filter(|number| *number != 0)?;
            Some((port.name.clone().unwrap_or_default(), protocol(port.protocol.as_deref())?, number))
        });
        let endpoints = object.endpoints.iter().flatten().filter_map(|endpoint| Endpoint::parse(endpoint, node_name));
        Some(Self { ipv6, ports: ports.collect(), endpoints: endpoints.filter(|e| e.ip.is_ipv6() == ipv6).collect() })
    }
}

impl Endpoint {
    /// Only the first address of an endpoint is used, as upstream does.
    fn parse(object: &objects::Endpoint, node_name: &str) -> Option<Self> {
        let conditions = object.conditions;
        let names = |named: &[objects::Named]| named.iter().map(|named| named.name.clone()).collect();
        let hints = object.hints.as_ref().filter(|h| !h.for_zones.is_empty() || !h.for_nodes.is_empty());
        Some(Self {
            ip: object.addresses.first()?.parse().ok()?,
            ready: conditions.ready.unwrap_or(true),
            serving: conditions.serving.unwrap_or(true),
            terminating: conditions.terminating.unwrap_or(false),
            local: object.node_name.as_deref() == Some(node_name),
            hints: hints.map(|h| Box::new(Hints { zones: names(&h.for_zones), nodes: names(&h.for_nodes) })),
        })
    }
}
