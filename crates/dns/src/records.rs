//! What was observed of the cluster, arranged so that a question finds its answer at once.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use crate::objects;

/// An object by namespace and name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The namespace and name of an object.
pub fn name_of(metadata: &kube::core::ObjectMeta) -> ObjectName {
    ObjectName {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}

/// A Service as DNS sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Service {
    /// With addresses of its own.
    ClusterIp {
        /// The addresses.
        ips: Vec<IpAddr>,
        /// Its ports.
        ports: Vec<Port>,
    },
    /// Its endpoints answer for themselves.
    Headless,
    /// Another name for something outside.
    ExternalName(String),
}

/// A port of a Service or of endpoints.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// Its name; empty for an only port.
    pub name: Box<str>,
    /// Its protocol, in lower case.
    pub protocol: &'static str,
    /// Its number; 0 when there is none.
    pub number: u16,
}

/// An EndpointSlice as DNS sees it: its ready endpoints.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slice {
    /// The ports that all its endpoints have; one without a number when they have none.
    pub ports: Vec<Port>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// A ready endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Its address.
    pub ip: IpAddr,
    /// Its name within the Service, when it has one.
    pub hostname: Option<Box<str>>,
}

impl Endpoint {
    /// Its name within the Service: the host name, or the address with dashes.
    pub fn label(&self) -> String {
        match &self.hostname {
            Some(hostname) => hostname.to_string(),
            None => self.ip.to_string().replace(['.', ':'], "-"),
        }
    }

    /// Whether `label` is its name within the Service; `label` is in lower case.
    pub fn has_label(&self, label: &str) -> bool {
        match &self.hostname {
            Some(hostname) => **hostname == *label,
            None => self.label() == label,
        }
    }
}

/// All that was observed.
#[derive(Debug, Default)]
pub struct Records {
    services: HashMap<ObjectName, Service>,
    slices: HashMap<ObjectName, BTreeMap<String, Slice>>,
    /// Which Service a slice belongs to: it can be relabelled.
    slice_owners: HashMap<ObjectName, ObjectName>,
    namespaces: HashSet<String>,
    /// The Services whose address this is.
    cluster_ips: HashMap<IpAddr, BTreeSet<ObjectName>>,
    /// The Services of which this is the address of an endpoint, with the slice that says so.
    endpoint_ips: HashMap<IpAddr, BTreeSet<ObjectName>>,
}

impl Records {
    /// The Service of this name.
    pub fn service(&self, name: &ObjectName) -> Option<&Service> {
        self.services.get(name)
    }

    /// The slices of a Service, in the order of their names.
    pub fn slices(&self, service: &ObjectName) -> impl Iterator<Item = &Slice> {
        self.slices.get(service).into_iter().flat_map(BTreeMap::values)
    }

    /// Whether there is a Namespace of this name.
    pub fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.contains(name)
    }

    /// The Service whose own address this is.
    pub fn service_at(&self, ip: IpAddr) -> Option<&ObjectName> {
        self.cluster_ips.get(&ip)?.first()
    }

    /// The endpoints at this address, with their Services. One that several slices list is seen once.
    pub fn endpoints_at(&self, ip: IpAddr) -> impl Iterator<Item = (&ObjectName, &Endpoint)> {
        let slices = self.endpoint_ips.get(&ip).into_iter().flatten();
        let mut seen = HashSet::new();
        slices
            .filter_map(move |slice_name| {
                let owner = self.slice_owners.get(slice_name)?;
                let slice = self.slices.get(owner)?.get(&slice_name.name)?;
                slice.endpoints.iter().find(|endpoint| endpoint.ip == ip).map(|endpoint| (owner, endpoint))
            })
            .filter(move |(owner, endpoint)| seen.insert((*owner, endpoint.hostname.as_deref())))
    }

    /// A Service was made or changed.
    pub fn apply_service(&mut self, object: &objects::Service) {
        let name = name_of(&object.metadata);
        self.delete_service(&name);
        let Some(service) = Service::parse(object) else { return };
        if let Service::ClusterIp { ips, .. } = &service {
            for ip in ips {
                self.cluster_ips.entry(*ip).or_default().insert(name.clone());
            }
        }
        self.services.insert(name, service);
    }

    /// A Service is gone.
    pub fn delete_service(&mut self, name: &ObjectName) {
        if let Some(Service::ClusterIp { ips, .. }) = self.services.remove(name) {
            for ip in ips {
                forget(&mut self.cluster_ips, ip, name);
            }
        }
    }

    /// A slice was made or changed.
    pub fn apply_slice(&mut self, object: &objects::EndpointSlice) {
        let name = name_of(&object.metadata);
        self.delete_slice(&name);
        let service = object.metadata.labels.as_ref().and_then(|labels| labels.get(objects::SERVICE_NAME));
        let Some(service) = service.filter(|service| !service.is_empty()) else { return };
        let Some(slice) = Slice::parse(object) else { return };
        let owner = ObjectName { namespace: name.namespace.clone(), name: service.clone() };
        for endpoint in &slice.endpoints {
            self.endpoint_ips.entry(endpoint.ip).or_default().insert(name.clone());
        }
        self.slices.entry(owner.clone()).or_default().insert(name.name.clone(), slice);
        self.slice_owners.insert(name, owner);
    }

    /// A slice is gone.
    pub fn delete_slice(&mut self, name: &ObjectName) {
        let Some(owner) = self.slice_owners.remove(name) else { return };
        let Some(slices) = self.slices.get_mut(&owner) else { return };
        let slice = slices.remove(&name.name);
        if slices.is_empty() {
            self.slices.remove(&owner);
        }
        for endpoint in slice.into_iter().flat_map(|slice| slice.endpoints) {
            forget(&mut self.endpoint_ips, endpoint.ip, name);
        }
    }

    /// A Namespace was made or changed.
    pub fn apply_namespace(&mut self, object: &objects::Namespace) {
        self.namespaces.extend(object.metadata.name.clone());
    }

    /// A Namespace is gone.
    pub fn delete_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
    }

    /// The names of all Services, for comparing with a new list.
    pub fn service_names(&self) -> BTreeSet<ObjectName> {
        self.services.keys().cloned().collect()
    }

    /// The names of all slices, for comparing with a new list.
    pub fn slice_names(&self) -> BTreeSet<ObjectName> {
        self.slice_owners.keys().cloned().collect()
    }

    /// The names of all Namespaces, for comparing with a new list.
    pub fn namespace_names(&self) -> BTreeSet<ObjectName> {
        let name = |name: &String| ObjectName { namespace: String::new(), name: name.clone() };
        self.namespaces.iter().map(name).collect()
    }
}

fn forget(index: &mut HashMap<IpAddr, BTreeSet<ObjectName>>, ip: IpAddr, name: &ObjectName) {
    if let Some(names) = index.get_mut(&ip) {
        names.remove(name);
        if names.is_empty() {
            index.remove(&ip);
        }
    }
}

fn protocol(text: Option<&str>) -> &'static str {
    match text {
        Some("UDP") => "udp",
        Some("SCTP") => "sctp",
        _ => "tcp",
    }
}

impl Service {
    fn parse(object: &objects::Service) -> Option<Self> {
        let spec = &object.spec;
        if spec.type_ == "ExternalName" {
            return Some(Service::ExternalName(spec.external_name.clone()));
        }
        match spec.cluster_ip.as_str() {
            "" => None,
            "None" => Some(Service::Headless),
            ip => {
                let all = if spec.cluster_ips.is_empty() {
                    std::slice::from_ref(&spec.cluster_ip)
                } else {
                    &spec.cluster_ips[..]
                };
                let ips: Vec<IpAddr> = all.iter().filter_map(|ip| ip.parse().ok()).collect();
                debug_assert!(!ips.is_empty(), "{ip} is no address");
                let port = |port: &objects::ServicePort| Port {
                    name: port.name.clone().into(),
                    protocol: protocol(port.protocol.as_deref()),
                    number: port.port,
                };
                Some(Service::ClusterIp { ips, ports: spec.ports.iter().map(port).collect() })
            }
        }
    }
}

impl Slice {
    fn parse(object: &objects::EndpointSlice) -> Option<Self> {
        if !matches!(object.address_type.as_str(), "IPv4" | "IPv6") {
            return None;
        }
        let port = |port: &objects::EndpointPort| Port {
            name: port.name.clone().unwrap_or_default().into(),
            protocol: protocol(port.protocol.as_deref()),
            number: port.port.unwrap_or(0),
        };
        let mut ports: Vec<Port> = object.ports.iter().flatten().map(port).collect();
        if ports.is_empty() {
            ports.push(Port { name: "".into(), protocol: "", number: 0 });
        }
        let ready = object.endpoints.iter().flatten().filter(|e| e.conditions.ready.unwrap_or(true));
        let endpoints = ready.flat_map(|endpoint| {
            let hostname = endpoint.hostname.as_deref().filter(|hostname| !hostname.is_empty());
            let ips = endpoint.addresses.iter().filter_map(|ip| ip.parse().ok());
            ips.map(move |ip| Endpoint { ip, hostname: hostname.map(Into::into) })
        });
        Some(Self { ports, endpoints: endpoints.collect() })
    }
}
