//! Cells of what leads to pods: services, endpoints, ingresses, addresses.

use super::{NONE, UNKNOWN, UNSET, int, joined, maps, or, shown};
use jiff::Timestamp;
use schema::{Map, Value};
use std::collections::BTreeSet;

/// How many of a list are shown.
const SHOWN: usize = 3;

/// The first of a list, and how many more there are.
fn with_more(list: &[String], count: usize) -> String {
    let text = list.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(",");
    if list.len() > SHOWN { format!("{text} + {} more...", count - SHOWN) } else { text }
}

/// The same, of a list that may be empty.
pub(super) fn listed(list: &[String]) -> Value {
    or(with_more(list, list.len()), UNSET).into()
}

pub(super) fn cluster_ip(object: &Map, _: Timestamp) -> Value {
    or(object.str_at(&["spec", "clusterIP"]).to_owned(), NONE).into()
}

/// Addresses that a load balancer has given, each once and in order.
pub(super) fn load_balancer(object: &Map) -> String {
    let of = |ingress: &Map| {
        let known = [ingress.str_at(&["ip"]), ingress.str_at(&["hostname"])];
        known.into_iter().find(|address| !address.is_empty()).map(str::to_owned)
    };
    let all: BTreeSet<String> = maps(object, &["status", "loadBalancer", "ingress"]).filter_map(of).collect();
    all.into_iter().collect::<Vec<_>>().join(",")
}

pub(super) fn external_ip(object: &Map, _: Timestamp) -> Value {
    let own = joined(object, &["spec", "externalIPs"], ",");
    match object.str_at(&["spec", "type"]) {
        "ClusterIP" | "NodePort" => or(own, NONE).into(),
        "LoadBalancer" => {
            let balancer = load_balancer(object);
            let all: Vec<String> = [balancer, own].into_iter().filter(|s| !s.is_empty()).collect();
            or(all.join(","), "<pending>").into()
        }
        "ExternalName" => object.str_at(&["spec", "externalName"]).into(),
        _ => UNKNOWN.into(),
    }
}

pub(super) fn service_ports(object: &Map, _: Timestamp) -> Value {
    let of = |p: &Map| {
        let (port, node) = (int(p, &["port"]), int(p, &["nodePort"]));
        let protocol = p.str_at(&["protocol"]);
        if node > 0 { format!("{port}:{node}/{protocol}") } else { format!("{port}/{protocol}") }
    };
    or(maps(object, &["spec", "ports"]).map(of).collect::<Vec<_>>().join(","), NONE).into()
}

pub(super) fn endpoints(object: &Map, _: Timestamp) -> Value {
    if super::count(object, &["subsets"]) == 0 {
        return NONE.into();
    }
    let mut list = Vec::new();
    for subset in maps(object, &["subsets"]) {
        let addresses = || maps(subset, &["addresses"]).map(|address| address.str_at(&["ip"]));
        if super::count(subset, &["ports"]) == 0 {
            list.extend(addresses().map(str::to_owned));
        }
        for port in maps(subset, &["ports"]).map(|port| int(port, &["port"])) {
            let with_port = |ip: &str| if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") };
            list.extend(addresses().map(with_port));
        }
    }
    with_more(&list, list.len()).into()
}

/// Ports of a slice: by number, or else by name; one that says neither is any port.
pub(super) fn slice_ports(object: &Map, _: Timestamp) -> Value {
    let of = |port: &Map| match (port.get("port"), port.get("name").and_then(Value::as_str)) {
        (Some(number), _) if !number.is_null() => shown(number),
        (_, Some(name)) => name.to_owned(),
        _ => "*".to_owned(),
    };
    listed(&maps(object, &["ports"]).map(of).collect::<Vec<_>>())
}

pub(super) fn slice_endpoints(object: &Map, _: Timestamp) -> Value {
    let addresses = |endpoint: &Map| {
        let addresses = endpoint.get("addresses").and_then(Value::as_list).unwrap_or_default();
        addresses.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    listed(&maps(object, &["endpoints"]).flat_map(addresses).collect::<Vec<_>>())
}

/// The first hosts. What comes behind them is counted by rules, those without a host too.
pub(super) fn ingress_hosts(object: &Map, _: Timestamp) -> Value {
    let mut list = Vec::new();
    let mut more = false;
    for rule in maps(object, &["spec", "rules"]) {
        more |= list.len() == SHOWN;
        let host = rule.str_at(&["host"]);
        if !more && !host.is_empty() {
            list.push(host);
        }
    }
    let rules = maps(object, &["spec", "rules"]).count();
    match (list.is_empty(), more) {
        (true, _) => "*".into(),
        (false, true) => format!("{} + {} more...", list.join(","), rules - SHOWN).into(),
        (false, false) => list.join(",").into(),
    }
}

pub(super) fn class_parameters(object: &Map, _: Timestamp) -> Value {
    let Some(parameters) = object.at(&["spec", "parameters"]).and_then(Value::as_map) else { return NONE.into() };
    let (kind, name) = (parameters.str_at(&["kind"]), parameters.str_at(&["name"]));
    match parameters.get("apiGroup").and_then(Value::as_str) {
        Some(group) => format!("{kind}.{group}/{name}").into(),
        None => format!("{kind}/{name}").into(),
    }
}

/// What an address is of: `resource.group/namespace/name`.
pub(super) fn parent(object: &Map, _: Timestamp) -> Value {
    let Some(parent) = object.at(&["spec", "parentRef"]).and_then(Value::as_map) else { return NONE.into() };
    let [group, resource, namespace, name] =
        ["group", "resource", "namespace", "name"].map(|member| parent.str_at(&[member]));
    let mut text =
        if group.is_empty() { resource.to_lowercase() } else { format!("{resource}.{group}").to_lowercase() };
    if !namespace.is_empty() {
        text = format!("{text}/{namespace}");
    }
    format!("{text}/{name}").into()
}
