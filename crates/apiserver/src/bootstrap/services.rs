//! The Services that are there from the start: `kubernetes`, which is the servers, and `kube-dns`.

use super::{Keep, Wanted};
use crate::allocator::range::Family;
use schema::{Map, Value};
use std::net::{IpAddr, SocketAddr};

/// Which server `kubernetes` stands for.
#[derive(Clone, Debug)]
pub struct Advertised {
    pub address: IpAddr,
    pub port: u16,
    /// The first address of the service range.
    pub cluster_ip: IpAddr,
    /// Other servers may share the store: each tells there that it is there, and the Service leads to all.
    pub shared: bool,
}

fn object(namespace: &str, name: &str) -> Map {
    let mut object = Map::new();
    object.set_at(&["metadata", "name"], name);
    object.set_at(&["metadata", "namespace"], namespace);
    object
}

pub(super) fn port(name: &str, port: u16, protocol: &str) -> Map {
    let mut map = Map::new();
    map.insert("name", name);
    map.insert("port", i64::from(port));
    map.insert("protocol", protocol);
    map
}

fn service(namespace: &str, name: &str, address: IpAddr, ports: Vec<Map>) -> Map {
    let mut service = object(namespace, name);
    service.set_at(&["spec", "type"], "ClusterIP");
    service.set_at(&["spec", "clusterIP"], address.to_string());
    service.set_at(&["spec", "clusterIPs"], vec![Value::from(address.to_string())]);
    service.set_at(&["spec", "ipFamilies"], vec![Value::from(Family::of(address).as_str())]);
    service.set_at(&["spec", "ipFamilyPolicy"], "SingleStack");
    service.set_at(&["spec", "internalTrafficPolicy"], "Cluster");
    service.set_at(&["spec", "sessionAffinity"], "None");
    service.set_at(&["spec", "ports"], ports.into_iter().map(Value::Map).collect::<Vec<_>>());
    service.set_at(&["status", "loadBalancer"], Map::new());
    service
}

/// The claim of a Service's address.
fn claim(namespace: &str, name: &str, address: IpAddr) -> Wanted {
    let mut claim = Map::new();
    claim.set_at(&["metadata", "name"], address.to_string());
    claim.set_at(&["metadata", "labels", "ipaddress.kubernetes.io/ip-family"], Family::of(address).as_str());
    claim.set_at(&["metadata", "labels", "ipaddress.kubernetes.io/managed-by"], "ipallocator.k8s.io");
    claim.set_at(&["spec", "parentRef", "resource"], "services");
    claim.set_at(&["spec", "parentRef", "namespace"], namespace);
    claim.set_at(&["spec", "parentRef", "name"], name);
    Wanted::new("networking.k8s.io", "v1", "ipaddresses", claim, Keep::Absent)
}

/// Endpoints of one subset.
pub(super) fn endpoints(namespace: &str, name: &str, addresses: &[IpAddr], port: Map) -> Map {
    let addresses = addresses.iter().map(|address| {
        let mut map = Map::new();
        map.insert("ip", address.to_string());
        Value::Map(map)
    });
    let mut subset = Map::new();
    subset.insert("addresses", addresses.collect::<Vec<_>>());
    subset.insert("ports", vec![Value::Map(port)]);
    let mut endpoints = object(namespace, name);
    endpoints.insert("subsets", vec![Value::Map(subset)]);
    endpoints
}

/// The Service `kubernetes`, the claim of its address, and its endpoints in both forms: the servers, which are of one port.
pub(super) fn kubernetes(at: &Advertised, servers: &[SocketAddr]) -> Vec<Wanted> {
    let (namespace, name) = ("default", "kubernetes");
    let served = servers.first().map_or(at.port, SocketAddr::port);
    let servers: Vec<IpAddr> = servers.iter().map(SocketAddr::ip).collect();
    let mut https = port("https", 443, "TCP");
    https.insert("targetPort", i64::from(served));
    let mut own = service(namespace, name, at.cluster_ip, vec![https]);
    own.set_at(&["metadata", "labels", "component"], "apiserver");
    own.set_at(&["metadata", "labels", "provider"], "kubernetes");
    let mut endpoints = endpoints(namespace, name, &servers, port("https", served, "TCP"));
    endpoints.set_at(&["metadata", "labels", "endpointslice.kubernetes.io/skip-mirror"], "true");
    let mut slice = endpoint_slice(namespace, name, name, &servers, None);
    slice.insert("ports", vec![Value::Map(port("https", served, "TCP"))]);
    vec![
        claim(namespace, name, at.cluster_ip),
        Wanted::new("", "v1", "services", own, Keep::Same(&[&["spec", "ports"]])),
        Wanted::new("", "v1", "endpoints", endpoints, Keep::Same(&[&["subsets"]])),
        Wanted::new("discovery.k8s.io", "v1", "endpointslices", slice, Keep::Same(&[&["endpoints"], &["ports"]])),
    ]
}

/// The Service `kube-dns` and the claim of its address.
///
/// It selects no pods: the names are answered by the nodes' own process, whose place
/// [`dns_endpoint_slice`] tells.
pub(super) fn kube_dns(address: IpAddr) -> Vec<Wanted> {
    let (namespace, name) = ("kube-system", "kube-dns");
    let mut own = service(namespace, name, address, vec![port("dns", 53, "UDP"), port("dns-tcp", 53, "TCP")]);
    for (label, value) in
        [("k8s-app", "kube-dns"), ("kubernetes.io/cluster-service", "true"), ("kubernetes.io/name", "KubeDNS")]
    {
        own.set_at(&["metadata", "labels", label], value);
    }
    vec![claim(namespace, name, address), Wanted::new("", "v1", "services", own, Keep::Absent)]
}

/// Where the cluster's names are answered: the EndpointSlice that belongs to `kube-dns`, to be applied by whoever runs DNS.
///
/// `addresses` are of one family and not empty.
pub fn dns_endpoint_slice(addresses: &[IpAddr], port_number: u16, node: Option<&str>) -> Map {
    let name = match node {
        Some(node) => format!("kube-dns-{node}"),
        None => "kube-dns".to_owned(),
    };
    let mut slice = endpoint_slice("kube-system", "kube-dns", &name, addresses, node);
    slice.insert("apiVersion", "discovery.k8s.io/v1");
    slice.insert("kind", "EndpointSlice");
    slice.insert(
        "ports",
        vec![Value::Map(port("dns", port_number, "UDP")), Value::Map(port("dns-tcp", port_number, "TCP"))],
    );
    slice
}

fn endpoint_slice(namespace: &str, service: &str, name: &str, addresses: &[IpAddr], node: Option<&str>) -> Map {
    let mut slice = object(namespace, name);
    slice.set_at(&["metadata", "labels", "kubernetes.io/service-name"], service);
    slice.insert("addressType", addresses.first().map_or("IPv4", |a| Family::of(*a).as_str()));
    let endpoints = addresses.iter().map(|address| {
        let mut endpoint = Map::new();
        endpoint.insert("addresses", vec![Value::from(address.to_string())]);
        endpoint.set_at(&["conditions", "ready"], true);
        if let Some(node) = node {
            endpoint.insert("nodeName", node);
        }
        Value::Map(endpoint)
    });
    slice.insert("endpoints", endpoints.collect::<Vec<_>>());
    slice
}
