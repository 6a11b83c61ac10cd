//! Endpoints and EndpointSlices.

use super::fields::{Errors, immutable, ip, non_special_ip, parse_ip, port_num, problems, required_of};
use crate::tree::Map;
use crate::view::List;
use crate::view::core_v1::{EndpointAddress, EndpointSubset, Endpoints};
use crate::view::discovery_v1::{Endpoint, EndpointHints, EndpointSlice};
use api::{FieldError, Path, names};
use std::collections::{BTreeMap, BTreeSet};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20000;
/// For zones, and for nodes.
const MAX_HINTS: usize = 8;

pub(super) fn endpoints(object: &Map) -> Errors {
    let mut errors = Errors::new();
    subsets(&mut errors, Endpoints(object).subsets(), List::new(&[]));
    errors
}

pub(super) fn endpoints_update(_: &str, new: &Map, old: &Map) -> Errors {
    let mut errors = Errors::new();
    subsets(&mut errors, Endpoints(new).subsets(), Endpoints(old).subsets());
    errors
}

fn subsets(errors: &mut Errors, new: List<'_, EndpointSubset<'_>>, old: List<'_, EndpointSubset<'_>>) {
    let mut nodes = BTreeMap::new();
    for subset in old.iter() {
        for address in subset.addresses().iter().chain(subset.not_ready_addresses().iter()) {
            if let (Some(ip), Some(node)) = (address.ip(), address.node_name()) {
                nodes.insert(ip, node);
            }
        }
    }
    let root = Path::root("subsets");
    for (i, subset) in new.iter().enumerate() {
        let path = root.index(i);
        let (ready, not_ready) = (subset.addresses(), subset.not_ready_addresses());
        if ready.is_empty() && not_ready.is_empty() {
            errors.push(FieldError::required(&path, "must specify `addresses` or `notReadyAddresses`"));
        }
        for (field, list) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
            for (i, address) in list.iter().enumerate() {
                endpoint_address(errors, &path.child(field).index(i), address, &nodes);
            }
        }
        for (i, port) in subset.ports().iter().enumerate() {
            let ports = path.child("ports");
            let path = ports.index(i);
            let name = port.name().unwrap_or("");
            if name.is_empty() {
                if subset.ports().len() > 1 {
                    errors.push(FieldError::required(&path.child("name"), ""));
                }
            } else {
                problems(errors, &path.child("name"), name, names::dns1123_label(name));
            }
            port_num(errors, &path.child("port"), port.port().unwrap_or(0));
            required_of(errors, &path.child("protocol"), port.protocol(), &PROTOCOLS);
            if let Some(protocol) = port.app_protocol() {
                problems(errors, &path.child("appProtocol"), protocol, names::qualified_name(protocol));
            }
        }
    }
}

fn endpoint_address(errors: &mut Errors, path: &Path<'_>, address: EndpointAddress<'_>, nodes: &BTreeMap<&str, &str>) {
    let before = errors.len();
    let text = address.ip().unwrap_or("");
    ip(errors, &path.child("ip"), text);
    let host = address.hostname().unwrap_or("");
    if !host.is_empty() {
        problems(errors, &path.child("hostname"), host, names::dns1123_label(host));
    }
    if let Some(node) = address.node_name() {
        problems(errors, &path.child("nodeName"), node, names::dns1123_subdomain(node));
        if nodes.get(text).is_some_and(|was| *was != node) {
            let why = format!("Cannot change NodeName for {text} to {node}");
            errors.push(FieldError::forbidden(&path.child("nodeName"), why));
        }
    }
    if errors.len() == before {
        non_special_ip(errors, &path.child("ip"), text);
    }
}

pub(super) fn slice(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let slice = EndpointSlice(object);
    let kind = slice.address_type().unwrap_or("");
    required_of(&mut errors, &Path::root("addressType"), Some(kind), &["FQDN", "IPv4", "IPv6"]);
    let root = Path::root("endpoints");
    if slice.endpoints().len() > MAX_ENDPOINTS {
        errors.push(FieldError::too_many(&root, slice.endpoints().len(), MAX_ENDPOINTS));
    } else {
        for (i, endpoint) in slice.endpoints().iter().enumerate() {
            slice_endpoint(&mut errors, &root.index(i), endpoint, kind);
        }
    }
    let root = Path::root("ports");
    if slice.ports().len() > MAX_PORTS {
        errors.push(FieldError::too_many(&root, slice.ports().len(), MAX_PORTS));
        return errors;
    }
    let mut seen = BTreeSet::new();
    for (i, port) in slice.ports().iter().enumerate() {
        let path = root.index(i);
        let name = port.name().unwrap_or("");
        if !name.is_empty() {
            problems(&mut errors, &path.child("name"), name, names::dns1123_label(name));
        }
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(&path.child("name"), name));
        }
        required_of(&mut errors, &path.child("protocol"), port.protocol(), &PROTOCOLS);
        if let Some(protocol) = port.app_protocol() {
            problems(&mut errors, &path.child("appProtocol"), protocol, names::qualified_name(protocol));
        }
    }
    errors
}

fn slice_endpoint(errors: &mut Errors, path: &Path<'_>, endpoint: Endpoint<'_>, kind: &str) {
    let addresses = path.child("addresses");
    match endpoint.addresses().len() {
        0 => errors.push(FieldError::required(&addresses, "must contain at least 1 address")),
        n if n > MAX_ADDRESSES => errors.push(FieldError::too_many(&addresses, n, MAX_ADDRESSES)),
        _ => {}
    }
    for (i, address) in endpoint.addresses().iter().enumerate() {
        let path = addresses.index(i);
        let parsed = parse_ip(address);
        match kind {
            "IPv4" if !parsed.is_some_and(|ip| ip.is_ipv4()) => {
                errors.push(FieldError::invalid(&path, address, "must be a valid IPv4 address"));
            }
            "IPv6" if !parsed.is_some_and(|ip| ip.is_ipv6()) => {
                errors.push(FieldError::invalid(&path, address, "must be a valid IPv6 address"));
            }
            "IPv4" | "IPv6" => non_special_ip(errors, &path, address),
            "FQDN" => {
                let name = address.strip_suffix('.').unwrap_or(address);
                problems(errors, &path, address, names::dns1123_subdomain(name));
                if !name.contains('.') {
                    let why = "should be a domain with at least two segments separated by dots";
                    errors.push(FieldError::invalid(&path, address, why));
                }
            }
            _ => {}
        }
    }
    if let Some(node) = endpoint.node_name() {
        problems(errors, &path.child("nodeName"), node, names::dns1123_subdomain(node));
    }
    if let Some(host) = endpoint.hostname() {
        problems(errors, &path.child("hostname"), host, names::dns1123_label(host));
    }
    if let Some(hints) = endpoint.hints() {
        slice_hints(errors, &path.child("hints"), hints);
    }
}

fn slice_hints(errors: &mut Errors, path: &Path<'_>, hints: EndpointHints<'_>) {
    let zones: Vec<&str> = hints.for_zones().iter().map(|zone| zone.name().unwrap_or("")).collect();
    let nodes: Vec<&str> = hints.for_nodes().iter().map(|node| node.name().unwrap_or("")).collect();
    let lists = [
        ("forZones", zones, names::label_value as fn(&str) -> names::Problems),
        ("forNodes", nodes, names::dns1123_subdomain as fn(&str) -> names::Problems),
    ];
    for (field, list, check) in lists {
        let root = path.child(field);
        if list.len() > MAX_HINTS {
            errors.push(FieldError::too_many(&root, list.len(), MAX_HINTS));
            return;
        }
        let mut seen = BTreeSet::new();
        for (i, name) in list.into_iter().enumerate() {
            let path = root.index(i);
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(&path.child("name"), name));
            }
            problems(errors, &path.child("name"), name, check(name));
        }
    }
}

pub(super) fn slice_update(_: &str, new: &Map, old: &Map) -> Errors {
    let mut errors = slice(new);
    immutable(&mut errors, &Path::root("addressType"), new.get("addressType"), old.get("addressType"));
    errors
}
