//! What each port of a Service asks of the kernel: decided from what was observed, without IO.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use network::{Cidr, Protocol};

use crate::state::{Endpoint, Hints, Node, Service, ServiceName, ServicePort, Slice, State, TrafficPolicy};

/// More endpoints than this are not used: their number is 16 bits in the kernel.
const MOST_ENDPOINTS: usize = u16::MAX as usize;

/// A port of a Service.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortName {
    /// The Service.
    pub service: ServiceName,
    /// The port's name.
    pub port: String,
    /// Its protocol.
    pub protocol: Protocol,
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.service, self.port, self.protocol.name())
    }
}

/// Where packets to a port arrive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Entry {
    /// At an address of the service.
    Address(IpAddr, u16),
    /// At any address of the node.
    NodePort(u16),
}

/// How packets that arrive somewhere are handled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Policy {
    /// To an endpoint of the cluster.
    Internal,
    /// To an endpoint on this node.
    InternalLocal,
    /// To an endpoint of the cluster, from the node's own address.
    External,
    /// From inside as [`Policy::Internal`], from outside as [`Policy::InternalLocal`].
    ExternalLocal,
}

/// What happens to packets that no endpoint gets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Refusal {
    /// The sender is told: there is no endpoint anywhere.
    Reject,
    /// Nothing: there are endpoints, but not on this node.
    Drop,
}

/// By what right a Service has an entry, the strongest first: its own by the API's allocators, its load
/// balancer's, or one that anybody may write into a Service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Right {
    /// Its cluster IP or node port, which no other has.
    Own,
    /// An address of its load balancer.
    LoadBalancer,
    /// An external IP.
    External,
}

/// One way to a port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Way {
    /// Where packets arrive.
    pub entry: Entry,
    /// By what right.
    pub right: Right,
    /// Where they go, if anywhere.
    pub policy: Option<Policy>,
    /// What happens to those that go nowhere.
    pub refusal: Option<Refusal>,
}

/// What a port of a Service asks of the kernel, for one address family.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortRules {
    /// The endpoints of the cluster; their places are the numbers by which one is drawn.
    pub cluster: Vec<SocketAddr>,
    /// The endpoints on this node.
    pub local: Vec<SocketAddr>,
    /// Addresses of endpoints that could send to themselves.
    pub hairpin: BTreeSet<IpAddr>,
    /// For how many seconds a client keeps its endpoint, if it does.
    pub affinity: Option<u32>,
    /// Addresses whose other ports are refused.
    pub cluster_ips: Vec<IpAddr>,
    /// The ways to it.
    pub ways: Vec<Way>,
    /// Addresses that only some may use.
    pub firewall: Option<Firewall>,
    /// When its Service was made, in seconds: of two with the same right the older has an entry.
    pub since: Option<i64>,
}

/// Load balancer addresses that only some may use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Firewall {
    /// Those addresses.
    pub addresses: Vec<IpAddr>,
    /// The port at them.
    pub port: u16,
    /// Who may use them.
    pub sources: Vec<Cidr>,
}

/// What all Services ask of the kernel, for one address family.
pub fn plan(state: &State, ipv6: bool) -> BTreeMap<PortName, PortRules> {
    state.services().flat_map(|(name, _)| plan_service(state, name, ipv6)).collect()
}

/// What a Service asks of the kernel, for one address family; nothing when it is gone.
pub fn plan_service(state: &State, name: &ServiceName, ipv6: bool) -> Vec<(PortName, PortRules)> {
    let Some(service) = state.service(name) else { return Vec::new() };
    if !service.cluster_ips.iter().any(|ip| ip.is_ipv6() == ipv6) {
        return Vec::new();
    }
    let slices: Vec<&Slice> = state.slices(name).filter(|slice| slice.ipv6 == ipv6).collect();
    let plan_port = |port: &ServicePort| {
        let key = PortName { service: name.clone(), port: port.name.clone(), protocol: port.protocol };
        (key, plan_port(service, port, &slices, &state.node, ipv6))
    };
    // The API lets no two ports have the same name and protocol; the first would win.
    let mut seen = BTreeSet::new();
    service.ports.iter().map(plan_port).filter(|(name, _)| seen.insert(name.clone())).collect()
}

fn plan_port(service: &Service, port: &ServicePort, slices: &[&Slice], node: &Node, ipv6: bool) -> PortRules {
    let endpoints = endpoints_of(port, slices);
    let chosen = choose(&endpoints, node);
    let of_family = |ips: &[IpAddr]| ips.iter().copied().filter(|ip| ip.is_ipv6() == ipv6).collect::<Vec<_>>();
    let cluster_ips = of_family(&service.cluster_ips);
    let load_balancers = of_family(&service.load_balancer_ips);

    let mut ways = Vec::new();
    for ip in &cluster_ips {
        let (policy, refusal) = chosen.internal(service.internal_policy);
        ways.push(Way { entry: Entry::Address(*ip, port.port), right: Right::Own, policy, refusal });
    }
    let (policy, refusal) = chosen.external(service.external_policy);
    let with = |right: Right| move |ip: &IpAddr| (Entry::Address(*ip, port.port), right);
    let external_ips = of_family(&service.external_ips);
    let outside = load_balancers.iter().map(with(Right::LoadBalancer));
    let outside = outside.chain(external_ips.iter().map(with(Right::External)));
    for (entry, right) in outside.chain(port.node_port.map(|port| (Entry::NodePort(port), Right::Own))) {
        // An address can be listed twice, and a cluster IP wins over the others.
        if !ways.iter().any(|way| way.entry == entry) {
            ways.push(Way { entry, right, policy, refusal });
        }
    }
    PortRules {
        hairpin: endpoints.iter().filter(|(_, endpoint)| endpoint.local).map(|(_, endpoint)| endpoint.ip).collect(),
        cluster: chosen.cluster,
        local: chosen.local,
        affinity: service.affinity,
        cluster_ips,
        ways,
        firewall: firewall(service, port, load_balancers, node),
        since: service.since,
    }
}

fn firewall(service: &Service, port: &ServicePort, addresses: Vec<IpAddr>, node: &Node) -> Option<Firewall> {
    let ipv6 = addresses.first()?.is_ipv6();
    if service.source_ranges.is_empty() {
        return None;
    }
    let mut sources: Vec<Cidr> = service.source_ranges.iter().copied().filter(|r| r.is_ipv6() == ipv6).collect();
    // A load balancer's address is often one of the node's own; then packets from the node have it.
    if node.addresses.iter().any(|ip| sources.iter().any(|range| range.contains(*ip))) {
        sources.extend(addresses.iter().map(|ip| Cidr::single(*ip)));
    }
    sources.sort();
    sources.dedup();
    Some(Firewall { addresses, port: port.port, sources })
}

/// The endpoints that have the port. One that is in several slices counts once, as the better of both.
fn endpoints_of<'a>(port: &ServicePort, slices: &[&'a Slice]) -> BTreeMap<SocketAddr, &'a Endpoint> {
    let mut endpoints: BTreeMap<SocketAddr, &Endpoint> = BTreeMap::new();
    for slice in slices {
        for (name, protocol, number) in &slice.ports {
            if *name != port.name || *protocol != port.protocol {
                continue;
            }
            for endpoint in &slice.endpoints {
                let best = endpoints.entry(SocketAddr::new(endpoint.ip, *number)).or_insert(endpoint);
                if endpoint.ready && !best.ready {
                    *best = endpoint;
                }
            }
        }
    }
    endpoints
}

/// The endpoints that traffic goes to.
struct Chosen {
    cluster: Vec<SocketAddr>,
    local: Vec<SocketAddr>,
    /// Whether any endpoint of the cluster could serve.
    any: bool,
}

/// Ready endpoints, by topology hints if they are complete; those that still serve while they end when
/// there is no other. For each policy by itself.
fn choose(endpoints: &BTreeMap<SocketAddr, &Endpoint>, node: &Node) -> Chosen {
    let ready = |e: &Endpoint| e.ready;
    let ending = |e: &Endpoint| !e.ready && e.serving && e.terminating;
    let select = |keep: &dyn Fn(&Endpoint) -> bool| -> Vec<SocketAddr> {
        let kept = endpoints.iter().filter(|(_, endpoint)| keep(endpoint)).map(|(address, _)| *address);
        kept.take(MOST_ENDPOINTS).collect()
    };
    let topology = Topology::of(endpoints.values().filter(|e| e.ready).copied(), node);
    let first =
        |one: Vec<SocketAddr>, other: &dyn Fn(&Endpoint) -> bool| if one.is_empty() { select(other) } else { one };
    let cluster = first(select(&|e| ready(e) && topology.allows(e, node)), &ending);
    let local = first(select(&|e| e.local && ready(e)), &|e| e.local && ending(e));
    let any = !cluster.is_empty() || !local.is_empty();
    Chosen { cluster, local, any }
}

impl Chosen {
    fn internal(&self, policy: TrafficPolicy) -> (Option<Policy>, Option<Refusal>) {
        match policy {
            _ if !self.any => (None, Some(Refusal::Reject)),
            TrafficPolicy::Cluster => (Some(Policy::Internal), None),
            TrafficPolicy::Local if self.local.is_empty() => (None, Some(Refusal::Drop)),
            TrafficPolicy::Local => (Some(Policy::InternalLocal), None),
        }
    }

    fn external(&self, policy: TrafficPolicy) -> (Option<Policy>, Option<Refusal>) {
        match policy {
            _ if !self.any => (None, Some(Refusal::Reject)),
            TrafficPolicy::Cluster => (Some(Policy::External), None),
            // Traffic from inside goes to endpoints elsewhere, so both apply.
            TrafficPolicy::Local if self.local.is_empty() => (Some(Policy::ExternalLocal), Some(Refusal::Drop)),
            TrafficPolicy::Local => (Some(Policy::ExternalLocal), None),
        }
    }
}

/// Which hints are followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Topology {
    Anywhere,
    SameNode,
    SameZone,
}

impl Topology {
    /// Hints are followed only when all ready endpoints have them and some are for this node.
    fn of<'a>(ready: impl Iterator<Item = &'a Endpoint> + Clone, node: &Node) -> Self {
        let hints = |e: &'a Endpoint| e.hints.as_deref();
        let all = |has: fn(&Hints) -> bool| ready.clone().all(|e| hints(e).is_some_and(has));
        let some = |mode: Topology| ready.clone().any(|e| mode.allows(e, node));
        if all(|h| !h.nodes.is_empty()) && some(Topology::SameNode) {
            Topology::SameNode
        } else if all(|h| !h.zones.is_empty()) && some(Topology::SameZone) {
            Topology::SameZone
        } else {
            Topology::Anywhere
        }
    }

    fn allows(self, endpoint: &Endpoint, node: &Node) -> bool {
        let hints = endpoint.hints.as_deref();
        match self {
            Topology::Anywhere => true,
            Topology::SameNode => hints.is_some_and(|h| h.nodes.contains(&node.name)),
            Topology::SameZone => node.zone.as_ref().is_some_and(|zone| hints.is_some_and(|h| h.zones.contains(zone))),
        }
    }
}

/// How many ready endpoints on this node the ports of a Service have at most, for its health check.
pub fn local_endpoints(state: &State, name: &ServiceName) -> usize {
    let ready: BTreeSet<IpAddr> =
        state.slices(name).flat_map(|slice| &slice.endpoints).filter(|e| e.local && e.ready).map(|e| e.ip).collect();
    ready.len()
}
